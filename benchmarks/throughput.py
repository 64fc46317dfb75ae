"""Lock cycles per second: contender beside contender, at the leader and over all nodes.

RULE: plans cells, runs the load tool for each, reports; a cell is one contender, one placement of
clients, one number of connections, one round.

Contenders take turns within each round, and the first of them changes from round to round, so that
whatever drifts on the machine meets both. A ratio is made of neighbours in time. Who rests is frozen:
two idle clusters do not cost their neighbour the same.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks import figures, processes
from benchmarks.contenders import NODES, REPOSITORY, Contender
from benchmarks.load import Plan

CONNECTIONS = (1, 16, 64, 256)
PLACEMENTS = ("leader", "spread")
CELL_S_MAX = 60.0
QUIET_WINDOW_S = 0.3
QUIET_SHARE_MAX = 0.08
"""Both contenders at rest take about half of it."""
DISTURBED_SHARE_MAX = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One measured window. Latencies in milliseconds, processor time in microseconds per cycle.

    Attributes:
        follower_us: mean of the followers.
        strangers: share of the machine that others used, kernel work for nobody included.
        is_steady: the leader was the same at both ends.
    """

    contender: str
    placement: str
    connections: int
    round: int
    cycles_per_s: float
    acquire_p50: float
    acquire_p99: float
    cycle_p50: float
    cycle_p99: float
    errors: dict[str, int]
    leader_us: float
    follower_us: float
    tool_us: float
    leader_load: float
    strangers: float
    load_average: float
    is_steady: bool


def measure(
    contenders: Sequence[Contender],
    *,
    seconds: float,
    rounds: int,
    connections: Sequence[int] = CONNECTIONS,
    patience_s: float = 0.0,
) -> Iterator[Cell]:
    """Run all cells, in an order that lets contenders alternate.

    Args:
        patience_s: how long each cell may wait for a quiet machine, and be repeated for having
            been disturbed; its quietest run counts.
    """
    for number in range(rounds):
        ordered = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        for count in connections:
            for placement in PLACEMENTS:
                for contender in ordered:
                    plan = (contender, placement, count, number, seconds)
                    yield _alone(contenders, plan, patience_s)


def _alone(
    contenders: Sequence[Contender],
    plan: tuple[Contender, str, int, int, float],
    patience_s: float,
) -> Cell:
    """Run one cell while the others stand still."""
    others = [contender for contender in contenders if contender is not plan[0]]
    for other in others:
        other.pause()
    try:
        return _quietest(plan, patience_s)
    finally:
        for other in others:
            other.resume()
            other.settled()


def _quietest(plan: tuple[Contender, str, int, int, float], patience_s: float) -> Cell:
    """Run one cell when others rest, again while they did not; never longer than allowed."""
    deadline = time.monotonic() + patience_s
    best: Cell | None = None
    while True:
        while processes.busy_share(QUIET_WINDOW_S) > QUIET_SHARE_MAX:
            if time.monotonic() >= deadline:
                break
        cell = _cell(*plan)
        if best is None or cell.strangers < best.strangers:
            best = cell
        if best.strangers <= DISTURBED_SHARE_MAX or time.monotonic() >= deadline:
            return best


def run_load(plan: Plan) -> dict[str, object]:
    """Run the load tool in a process of its own.

    Raises:
        RuntimeError: it failed; the message has what it said.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=json.dumps(asdict(plan)),
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=CELL_S_MAX + plan.seconds,
        preexec_fn=processes.dies_with_us(),
        process_group=0,
    )
    if done.returncode:
        raise RuntimeError(f"load tool: {done.stderr.strip()[-2000:]}")
    result: dict[str, object] = json.loads(done.stdout)
    return result


def _cell(
    contender: Contender, placement: str, connections: int, number: int, seconds: float
) -> Cell:
    leader = contender.settled()
    # The leader comes last, so that one spread client is at a follower.
    others = [(leader + 1 + step) % NODES for step in range(NODES)]
    at = [leader] if placement == "leader" else others
    result = run_load(
        Plan(
            dialect=contender.name,
            ports=[contender.ports[node] for node in at],
            connections=connections,
            seconds=seconds,
            pids={str(node): contender.pid(node) for node in range(NODES)},
        )
    )
    return _judged(result, contender, placement, connections, number, leader)


def _judged(
    result: dict[str, object],
    contender: Contender,
    placement: str,
    connections: int,
    number: int,
    leader: int,
) -> Cell:
    cycles, took = int(str(result["cycles"])), float(str(result["seconds"]))
    spent = result["cpu_s"]
    assert isinstance(spent, dict)
    acquire, cycle = (_latency(result[key]) for key in ("acquire", "cycle"))
    per_cycle = 1e6 / cycles if cycles else 0.0
    errors = result["errors"]
    assert isinstance(errors, dict)
    return Cell(
        contender=contender.name,
        placement=placement,
        connections=connections,
        round=number,
        cycles_per_s=cycles / took,
        acquire_p50=acquire["p50"],
        acquire_p99=acquire["p99"],
        cycle_p50=cycle["p50"],
        cycle_p99=cycle["p99"],
        errors=errors,
        leader_us=spent[str(leader)] * per_cycle,
        follower_us=sum(spent[str(node)] for node in range(NODES) if node != leader)
        / (NODES - 1)
        * per_cycle,
        tool_us=float(str(result["tool_cpu_s"])) * per_cycle,
        leader_load=spent[str(leader)] / took,
        strangers=float(str(result["strangers_s"])) / took / (os.cpu_count() or 1),
        load_average=os.getloadavg()[0],
        is_steady=contender.settled() == leader,
    )


def _latency(value: object) -> dict[str, float]:
    return value if isinstance(value, dict) else {"p50": float("nan"), "p99": float("nan")}


def report(cells: Sequence[Cell], contenders: Sequence[str]) -> str:
    """Make the tables: what was measured (medians over rounds), and the ratios."""
    return "\n\n".join((_table(cells, contenders), *_ratios(cells, contenders)))


def _table(cells: Sequence[Cell], contenders: Sequence[str]) -> str:
    rows = []
    for placement in PLACEMENTS:
        for count in sorted({cell.connections for cell in cells}):
            for name in contenders:
                these = _of(cells, name, placement, count)
                if these:
                    rows.append(_row(these))
    head = (
        "clients",
        "connections",
        "contender",
        "cycles/s",
        "acquire p50 ms",
        "acquire p99 ms",
        "cycle p50 ms",
        "cycle p99 ms",
        "CPU µs/cycle leader",
        "follower",
        "tool",
        "leader's core",
        "others on the machine",
        "errors",
    )
    return figures.table(head, rows)


def _row(these: Sequence[Cell]) -> list[object]:
    def middle(field: str) -> float:
        return float(median(getattr(cell, field) for cell in these))

    steady = "" if all(cell.is_steady for cell in these) else " (leader changed)"
    first = these[0]
    return [
        f"at the leader{steady}" if first.placement == "leader" else f"spread{steady}",
        first.connections,
        first.contender,
        f"{middle('cycles_per_s'):,.0f}",
        *(
            f"{middle(field):.2f}"
            for field in ("acquire_p50", "acquire_p99", "cycle_p50", "cycle_p99")
        ),
        *(f"{middle(field):.0f}" for field in ("leader_us", "follower_us", "tool_us")),
        f"{middle('leader_load'):.0%}",
        f"{middle('strangers'):.0%}",
        sum(sum(cell.errors.values()) for cell in these),
    ]


def _ratios(cells: Sequence[Cell], contenders: Sequence[str]) -> list[str]:
    """Compare the first contender with each other one, round by round."""
    first, *others = contenders
    found = []
    for other in others:
        rows = []
        for placement in PLACEMENTS:
            for count in sorted({cell.connections for cell in cells}):
                ours = _by_round(_of(cells, first, placement, count))
                theirs = _by_round(_of(cells, other, placement, count))
                both = sorted(number for number in ours.keys() & theirs.keys())
                pairs = [(ours[number], theirs[number]) for number in both]
                if pairs and all(b.cycles_per_s for _, b in pairs):
                    rows.append(_ratio_row(placement, count, pairs))
        head = (
            f"{first} / {other}, clients",
            "connections",
            "cycles/s",
            "of each round",
            "acquire p50",
            "cycle p99",
            "CPU leader",
            "CPU cluster",
        )
        found.append(figures.table(head, rows))
    return found


def _ratio_row(
    placement: str, connections: int, pairs: Sequence[tuple[Cell, Cell]]
) -> list[object]:
    each = [ours.cycles_per_s / theirs.cycles_per_s for ours, theirs in pairs]

    def middle(field: str) -> str:
        return f"{median(getattr(a, field) / (getattr(b, field) or 1) for a, b in pairs):.2f}"

    def whole(cell: Cell) -> float:
        return cell.leader_us + (NODES - 1) * cell.follower_us

    return [
        "at the leader" if placement == "leader" else "spread",
        connections,
        f"**{median(each):.2f}**",
        " ".join(f"{ratio:.2f}" for ratio in each),
        middle("acquire_p50"),
        middle("cycle_p99"),
        middle("leader_us"),
        f"{median(whole(a) / (whole(b) or 1) for a, b in pairs):.2f}",
    ]


def _of(cells: Sequence[Cell], contender: str, placement: str, connections: int) -> list[Cell]:
    return [
        cell
        for cell in cells
        if (cell.contender, cell.placement, cell.connections) == (contender, placement, connections)
    ]


def _by_round(cells: Sequence[Cell]) -> dict[int, Cell]:
    return {cell.round: cell for cell in cells}
