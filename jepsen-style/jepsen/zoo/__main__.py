"""`python -m jepsen.zoo`: hunt every planted bug within its budget, and say who found it.

RULE: reads the command line, shares the work out, prints. What a hunt is stands in `hunt.py`.

Exit code: 0 each was found by what should find it, and nothing was found where nothing was planted;
1 not so; 2 it could not be done.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
# From a checkout, whatever the working folder is; the simulator stands among the tests.
sys.path.insert(1, str(ROOT))

from jepsen import toxiproxy  # noqa: E402
from jepsen.preload import clock, disk  # noqa: E402
from jepsen.runner import Tools  # noqa: E402
from jepsen.zoo import hunt, table  # noqa: E402
from jepsen.zoo.hunt import Found  # noqa: E402
from jepsen.zoo.registry import chosen  # noqa: E402
from jepsen.zoo.species import Plant  # noqa: E402
from tests.tools import toxiproxy_server  # noqa: E402

PAGE: Final = ROOT / "jepsen-style" / "ZOO.md"
OUT: Final = ROOT / "jepsen-style" / "store" / "zoo"


def main() -> int:
    """Hunt what was asked for, and print what came of it."""
    options = _options()
    try:
        plants = chosen(options.only)
    except KeyError as error:
        print(f"there is no {error.args[0]}; see --list", file=sys.stderr)
        return 2
    if options.list:
        for plant in plants:
            places = [hunt.place_of(plant, real=real) for real in (False, True)]
            print(
                f"{plant.name:<22} {plant.layer:<10} {plant.what}  [{'; '.join(filter(None, places))}]"
            )
        return 0
    kept = options.out / "findings.json"
    findings = table.load(kept)
    new: list[Found] = []

    def take(found: Found) -> None:
        new.append(found)
        findings[table.key_of(found)] = found
        table.save(kept, findings)
        print(table.line(found), flush=True)

    if options.where != "real":
        _simulate([plant for plant in plants if plant.simulated], options, take)
    if options.where != "simulator":
        code = _run([plant for plant in plants if plant.real], options, take)
        if code:
            return code
    if options.write:
        PAGE.write_text(table.page(findings), encoding="utf-8")
        print(f"{PAGE.relative_to(ROOT)} is written")
    failed = [found for found in new if not found.passed]
    print(f"{len(new)} hunts, {len(failed)} not as they should be")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m jepsen.zoo", description="Plant bugs, and see that the checks find them."
    )
    add = parser.add_argument
    add("--only", metavar="A,B", help="plants whose names begin so")
    add("--where", choices=("simulator", "real", "both"), default="both")
    add("--jobs", type=int, default=2, help="processes for the simulator")
    add("--budget", type=int, help="seeds or runs, in place of each plant's own")
    add("--out", type=Path, default=OUT, metavar="FOLDER", help="findings and real runs")
    add("--write", action="store_true", help="write ZOO.md from all findings so far")
    add("--list", action="store_true", help="what is planted")
    return parser.parse_args()


def _simulate(plants: Sequence[Plant], options: argparse.Namespace, take: hunt.Take) -> None:
    """Hunt in the simulator, several at a time."""
    with ProcessPoolExecutor(options.jobs) as pool:
        hunts = [
            pool.submit(hunt.in_simulator, plant.name, budget=options.budget) for plant in plants
        ]
        for done in as_completed(hunts):
            take(done.result())


def _run(plants: Sequence[Plant], options: argparse.Namespace, take: hunt.Take) -> int:
    """Hunt with real processes, one cluster after the other."""
    program = toxiproxy_server.prepare()
    if program is None:
        return 2

    async def all_of_them(tools: Tools) -> None:
        calm: dict[tuple[str, str, int, float], str] = {}
        for plant in plants:
            take(
                await hunt.on_processes(
                    plant.name, tools, options.out / "runs", budget=options.budget, calm=calm
                )
            )

    with toxiproxy.serve(program) as server:
        tools = Tools(server=server, shim=disk.build(ROOT / ".tools"), faketime=clock.find())
        asyncio.run(all_of_them(tools))
    return 0


if __name__ == "__main__":
    sys.exit(main())
