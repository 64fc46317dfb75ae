"""`python -m jepsen.stock`: stock PySyncObj under our nemeses, and a table of what it violates.

RULE: runs a list and writes a table; what a run is stands in `jepsen.runner`.

Exit code: 0 the table is made, whatever is in it; 2 it could not be made.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[3]
# From a checkout, whatever the working folder is.
sys.path.insert(1, str(ROOT))

from jepsen import runner, stock, toxiproxy  # noqa: E402
from jepsen.preload import clock, disk  # noqa: E402
from jepsen.runner import Outcome, Plan, Tools  # noqa: E402
from jepsen.stock.workloads import WORKLOADS  # noqa: E402
from tests.tools import toxiproxy_server  # noqa: E402

NEMESES: Final = (
    "none",
    "kill-leader",
    "kill-all",
    "power-all",
    "leader-alone",
    "pause-leader-long",
    "restart-storm",
    "hand-over-loop",
)
PAGE: Final = ROOT / "jepsen-style" / "STOCK.md"
OUT: Final = ROOT / "jepsen-style" / "store" / "stock"

_HEAD: Final = """# Stock PySyncObj 0.3.17 under the same nemeses

*Written by `python -m jepsen.stock --write`.*

The library that our engine is built on, as it comes: its transport, journal file, dump file, counters
and lock manager, three real processes, the same links and faults, histories and checkers. Reads go
through the log, which is more than the library's own containers do; `register-local` reads as those do.
A fault that never gives the library a chance to err in so short a run proves nothing in its favour.

"""


def main() -> int:
    """Run what was asked for, and write down what came of it."""
    options = _options()
    program = toxiproxy_server.prepare()
    if program is None:
        return 2
    with toxiproxy.serve(program) as server:
        tools = Tools(server=server, shim=disk.build(ROOT / ".tools"), faketime=clock.find())
        rows = asyncio.run(_all(options, tools))
    kept = options.out / "rows.json"
    if kept.exists():
        rows = msgspec.json.decode(kept.read_bytes(), type=dict[str, str]) | rows
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    if options.write:
        head = "| nemesis | workload | violated | what was seen | again |\n|---|---|---|---|---|\n"
        PAGE.write_text(_HEAD + head + "".join(rows.values()), encoding="utf-8")
        print(f"{PAGE.relative_to(ROOT)} is written")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m jepsen.stock")
    add = parser.add_argument
    add("--nemesis", default=",".join(NEMESES), metavar="N", help="several with commas")
    add("--workload", default=",".join(WORKLOADS), metavar="W", help="several with commas")
    add("--seeds", type=int, default=1, help="how many of each, as long as nothing is violated")
    add("--seconds", type=float, default=12.0, help="under faults, of each")
    add("--out", type=Path, default=OUT, metavar="FOLDER")
    add("--write", action="store_true", help="write STOCK.md from all runs so far")
    return parser.parse_args()


async def _all(options: argparse.Namespace, tools: Tools) -> dict[str, str]:
    """Run everything; a row of the table for each pair, under a name of its own."""
    rows = {}
    for nemesis in options.nemesis.split(","):
        for workload in options.workload.split(","):
            for seed in range(options.seeds):
                plan = Plan(
                    workload=workload,
                    nemesis=nemesis,
                    seed=seed,
                    minutes=round(options.seconds / 60, 4),
                    out=options.out,
                    system=stock.SYSTEM,
                )
                outcome = await runner.run(plan, tools, say=lambda _: None, makers=WORKLOADS)
                if any(verdict.valid is False for verdict in outcome.verdicts):
                    break
            rows[f"{nemesis} {workload}"] = _row(outcome)
            print(_row(outcome), end="", flush=True)
    return rows


def _row(outcome: Outcome) -> str:
    plan = outcome.plan
    wrong = [verdict for verdict in outcome.verdicts if verdict.valid is False]
    checks = ", ".join(verdict.check for verdict in wrong) or "nothing"
    # The first that is about data; who ends and who complains is told by its name.
    seen = wrong[0].summary[:220] if wrong else f"{outcome.operations} operations"
    if outcome.trouble and not wrong:
        checks, seen = "could not be judged", outcome.trouble[:220]
    text = seen.replace("|", "/").replace("\n", " ")
    return f"| {plan.nemesis} | {plan.workload} | {checks} | {text} | `{plan.replay}` |\n"


if __name__ == "__main__":
    sys.exit(main())
