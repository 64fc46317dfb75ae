"""`python jepsen-style --workload jobs --nemesis kill-leader --seed 7 --minutes 3`: runs and their verdicts.

RULE: reads the command line, chooses what runs, prints. What a run is stands in `jepsen.runner`.

Exit code: 0 everything passed, 1 a check did not pass, 2 a run could not be done.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# From a checkout, whatever the working folder is.
sys.path.insert(1, str(ROOT))

from jepsen import nemeses, runner, stock, toxiproxy, workloads  # noqa: E402
from jepsen.preload import clock, disk  # noqa: E402
from jepsen.runner import Outcome, Plan, Tools  # noqa: E402
from jepsen.stock.workloads import WORKLOADS as STOCK  # noqa: E402
from jepsen.system import COTERIE, System  # noqa: E402
from jepsen.workloads import Workload  # noqa: E402
from jepsen.zoo import serve  # noqa: E402

from cluster.cli import processes  # noqa: E402
from tests.tools import toxiproxy_server  # noqa: E402

STORE = ROOT / "jepsen-style" / "store"

# Each pair for so many seconds under faults: three minutes with starts, healing and checks.
SMOKE_S = 9
SMOKE: tuple[tuple[str, str], ...] = (
    ("locks", "kill-leader"),
    ("fenced", "client-pause"),
    ("jobs", "network"),
    ("watch", "processes"),
    ("mixed", "mixed"),
)
SOAK_MINUTES = 5.0


def main() -> int:
    """Run what was asked for, and print what came of it."""
    options = _options()
    if options.list:
        print("workloads:", ", ".join(["all", *workloads.WORKLOADS]))
        print("nemeses:  ", ", ".join(nemeses.names()))
        return 0
    try:
        plans = list(_plans(options))
    except KeyError as error:
        print(f"there is no {error.args[0]}; see --list", file=sys.stderr)
        return 2
    program = toxiproxy_server.prepare()
    if program is None:
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    with toxiproxy.serve(program) as server:
        tools = Tools(server=server, shim=disk.build(ROOT / ".tools"), faketime=clock.find())
        for name in {plan.nemesis for plan in plans} - {"none", "mixed"}:
            try:
                nemeses.make(name, equipment=tools.equipment)
            except nemeses.NotHereError as error:
                print(f"{'!' * 100}\n{error}\n{'!' * 100}", file=sys.stderr)
                return 2
        missing = {"shim", "faketime"} - tools.equipment
        if missing:
            print(f"{'!' * 100}\nnot on this machine, so without its faults: {missing}", flush=True)
        if options.soak:
            return asyncio.run(_stoppable(_soak(options, tools)))
        if options.jobs > 1 and len(plans) > 1:
            return asyncio.run(_stoppable(_side_by_side(plans, options.jobs)))
        return asyncio.run(_stoppable(_all(plans, tools)))


async def _stoppable(work: object) -> int:
    """Do it, ended in order by SIGTERM as by Ctrl-C."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return int(await task)
    except asyncio.CancelledError:
        print("stopped")
        return 2


async def _all(plans: Sequence[Plan], tools: Tools) -> int:
    """One run after the other, and a table."""
    outcomes = []
    for plan in plans:
        outcomes.append(outcome := await runner.run(plan, tools, say=_say, makers=_makers(plan)))
        _print(outcome)
    if len(outcomes) > 1:
        print()
        for outcome in outcomes:
            print(f"{_word(outcome):>10}  {outcome.plan.name}  {outcome.took_s:.0f} s")
    _print_outages([ms for outcome in outcomes for ms in outcome.outages_ms])
    return max((outcome.exit_code for outcome in outcomes), key=lambda code: (code == 1, code))


async def _side_by_side(plans: Sequence[Plan], jobs: int) -> int:
    """Every run in a process of its own, so many at a time; what each says is shown at its end."""
    room = asyncio.Semaphore(jobs)

    async def one(plan: Plan) -> int:
        words = [*plan.replay.split()[2:], "--slots", str(plan.slots), "--out", str(plan.out)]
        async with room:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(__file__).parent),
                *words,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                preexec_fn=processes.dies_with_parent(),
            )
            said, _ = await child.communicate()
        print(said.decode(errors="replace"), flush=True)
        return child.returncode or 0

    return max(await asyncio.gather(*map(one, plans)), key=lambda code: (code == 1, code))


async def _soak(options: argparse.Namespace, tools: Tools) -> int:
    """Seed after seed until the time is up; only what failed is kept, and a line for each run."""
    until_s = time.monotonic() + options.soak * 3_600
    summary = options.out / "soak.txt"
    names = _workloads(options.workload)
    seed, failed, outages_ms = options.seed, 0, list[float]()
    while time.monotonic() < until_s:
        plan = Plan(
            workload=names[seed % len(names)],
            nemesis=options.nemesis,
            seed=seed,
            minutes=options.minutes or SOAK_MINUTES,
            out=options.out,
            # Every fifth cluster has five nodes.
            nodes=5 if seed % 5 == 4 else 3,
            slots=options.slots,
        )
        outcome = await runner.run(plan, tools, say=_say)
        outages_ms += outcome.outages_ms
        line = (
            f"{_word(outcome)} {plan.name}: {outcome.operations} operations, "
            f"faults {outcome.counts}; {plan.replay}"
        )
        with summary.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)
        if outcome.passed:
            shutil.rmtree(outcome.folder, ignore_errors=True)
        else:
            _print(outcome)
            failed += 1
        seed += 1
    _print_outages(outages_ms)
    print(f"{seed - options.seed} runs, {failed} failed; {summary}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python jepsen-style",
        description="Run clusters of real processes under faults, and judge what clients saw.",
    )
    add = parser.add_argument
    add("--workload", default="mixed", metavar="W", help="one, several with commas, or all")
    add("--nemesis", default="mixed", metavar="N", help="one, or several with commas (--list)")
    add("--seed", type=int, default=0)
    add("--seeds", metavar="A:B", help="a range of seeds, B not included")
    add("--minutes", type=float, help="under faults, of all runs together (3; of each in a soak)")
    add("--nodes", type=int, choices=(3, 5), default=3)
    add("--slots", type=int, default=4, help="places of clients, each with links of its own")
    add("--kills", type=int, default=0, metavar="N", help="kill the leader N times, and measure")
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time, where there are several")
    add("--out", type=Path, default=STORE, metavar="FOLDER")
    add("--smoke", action="store_true", help="a fixed choice of short runs")
    add("--soak", type=float, default=0.0, metavar="HOURS", help="seed after seed")
    add(
        "--stock", action="store_true", help="PySyncObj as it comes; workloads: " + ", ".join(STOCK)
    )
    add("--plant", metavar="NAME", help="a bug of the zoo in every node")
    add("--list", action="store_true", help="what there is to choose from")
    return parser.parse_args()


def _plans(options: argparse.Namespace) -> Iterator[Plan]:
    """What is to run, in order.

    Raises:
        KeyError: a name that is none.
    """
    chosen = (
        list(SMOKE)
        if options.smoke
        else [
            (workload, nemesis)
            for nemesis in options.nemesis.split(",")
            for workload in _workloads(options.workload, is_stock=options.stock)
        ]
    )
    for _, nemesis in chosen:
        if nemesis not in nemeses.names():
            raise KeyError(f'nemesis "{nemesis}"')
    seeds = range(options.seed, options.seed + 1)
    if options.seeds:
        first, _, after = options.seeds.partition(":")
        seeds = range(int(first), int(after))
    minutes = options.minutes or 3.0
    system = _system(options)
    each = SMOKE_S / 60 if options.smoke else minutes / max(1, len(chosen) * len(seeds))
    for seed in seeds:
        for workload, nemesis in chosen:
            yield Plan(
                workload=workload,
                nemesis=nemesis,
                seed=seed,
                minutes=round(each, 4),
                out=options.out,
                nodes=options.nodes,
                slots=options.slots,
                kills=options.kills,
                system=system,
            )


def _system(options: argparse.Namespace) -> System:
    """What nodes are to be.

    Raises:
        KeyError: there is no such plant.
    """
    if options.stock:
        return stock.SYSTEM
    return COTERIE if options.plant is None else serve.system_of(options.plant)


def _makers(plan: Plan) -> dict[str, Callable[[], Workload]]:
    return STOCK if plan.system is stock.SYSTEM else workloads.WORKLOADS


def _workloads(text: str, *, is_stock: bool = False) -> list[str]:
    known = STOCK if is_stock else workloads.WORKLOADS
    names = list(known) if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise KeyError(f'workload "{name}"')
    return names


def _say(text: str) -> None:
    print(f"  {text}", flush=True)


def _word(outcome: Outcome) -> str:
    if outcome.passed:
        return "passed"
    if outcome.exit_code == 2:
        return "NOT DONE"
    wrong = any(verdict.valid is False for verdict in outcome.verdicts)
    return "FAILED" if wrong else "UNDECIDED"


def _print(outcome: Outcome) -> None:
    """A run's table."""
    print(f"\n{_word(outcome)}: {outcome.plan.name}, {outcome.operations} operations")
    if outcome.trouble:
        print(f"  trouble: {outcome.trouble}")
    width = max((len(verdict.check) for verdict in outcome.verdicts), default=0)
    for verdict in outcome.verdicts:
        word = {True: "ok", False: "VIOLATED", None: "UNDECIDED"}[verdict.valid]
        print(f"  {verdict.check:<{width}}  {word:<9}  {verdict.summary}")
        for line in verdict.counterexample[:12] if verdict.valid is False else ():
            print(
                f"      {line.index} p{line.process} {line.type} {line.f} {line.key} {line.value}"
            )
    if outcome.counts:
        faults = ", ".join(f"{name} {count}" for name, count in sorted(outcome.counts.items()))
        print(f"  faults: {faults}")
    _print_outages(outcome.outages_ms)
    print(f"  report: {outcome.folder / 'report.html'}")
    print(f"  again:  {outcome.plan.replay}", flush=True)


def _print_outages(outages_ms: Sequence[float]) -> None:
    if not outages_ms:
        return
    found = sorted(outages_ms)

    def at(share: float) -> float:
        return found[min(len(found) - 1, int(share * len(found)))]

    print(
        f"  leader killed {len(found)} times; time without service, ms: p50 {at(0.5):.0f}, "
        f"p90 {at(0.9):.0f}, p99 {at(0.99):.0f}, max {found[-1]:.0f}"
    )


if __name__ == "__main__":
    # Both before anything is started: what we start inherits our limits.
    os.environ.setdefault("PYTHONHASHSEED", "0")
    sys.exit(main())
