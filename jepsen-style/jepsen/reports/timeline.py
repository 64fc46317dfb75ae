"""The picture of a run: faults, leaders, latency and rate above one another over one time.

RULE: draws SVG in Python, complete without any script; `report.js` only moves what is there. Each
panel is a nested `svg` of its own, PANE_WIDTH units wide for the whole run, so that zooming is a
change of its viewBox. Dots are lines of no length with round ends, whose strokes do not scale.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from jepsen.history import Type
from jepsen.reports import figures
from jepsen.reports.facts import Facts
from jepsen.reports.figures import Fault, Span
from jepsen.reports.words import count_of, escape, length_of, shown

WIDTH = 1160
LEFT = 152
PANE_WIDTH = 996
LANE = 18
LANE_NARROW = 12
LANES_WIDE_MAX = 14
LEADER_HEIGHT = 22
LATENCY_HEIGHT = 250
RATE_HEIGHT = 110
GAP = 14
POINTS_MAX = 20_000
FEW_POINTS = 3_000  # So few may be larger dots.
RATE_BINS = 240
FAULT_COLOURS = 8
NODE_COLOURS = 7


class Picture(msgspec.Struct, frozen=True):
    """The timeline and what the script needs to talk about it.

    Attributes:
        data: see `report.js`.
        drawn: how many operations are dots.
    """

    svg: str
    data: dict[str, object]
    drawn: int


class _Scale:
    """From nanoseconds of the run to units of a pane."""

    def __init__(self, last_ns: int):
        self.last_ns = last_ns

    def x(self, ns: int) -> float:
        return round(min(max(ns, 0), self.last_ns) * PANE_WIDTH / self.last_ns, 2)


def draw(of: Sequence[Span], faults: Sequence[Fault], facts: Facts, last_ns: int) -> Picture:
    """Draw a run of `last_ns`; every list may be empty."""
    scale = _Scale(last_ns)
    names = list(dict.fromkeys(fault.f for fault in faults))
    nodes = list(facts.nodes)
    points = figures.thinned(of, last_ns, POINTS_MAX)
    parts: list[str] = []
    top = 6.0

    if names:
        parts.append(_fault_lanes(names, faults, scale, top))
        top += len(names) * _lane(names) + GAP
    if facts.leaders:
        parts.append(_leaders(facts, nodes, scale, top))
        top += LEADER_HEIGHT + GAP
    bands = _bands(names, faults, scale)
    latency, bounds = _latency(points, bands, scale, top)
    parts.append(latency)
    latency_top = top
    top += LATENCY_HEIGHT + GAP
    parts.append(_rates(of, bands, scale, top))
    top += RATE_HEIGHT
    parts.append(_axis(last_ns, top))
    parts.append(
        f'<line class="cursor" x1="0" x2="0" y1="4" y2="{top:g}" hidden="hidden"/>'
        f'<rect class="chosen" x="0" y="4" width="0" height="{top - 4:g}" hidden="hidden"/>'
        f'<rect class="catch" x="{LEFT}" y="4" width="{PANE_WIDTH}" height="{top - 4:g}"/>'
    )
    height = top + 34
    svg = (
        f'<svg id="timeline" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="Faults, leaders, latency and rate over the time of the run">'
        f"{''.join(parts)}</svg>"
    )
    data: dict[str, object] = {
        "left": LEFT,
        "pane": PANE_WIDTH,
        "last_ms": last_ns / 1e6,
        "latency": [latency_top, LATENCY_HEIGHT, *bounds],
        **_points_data(points, last_ns),
        "faults": [
            [
                fault.f,
                shown(fault.what, 120),
                round(fault.begin_ns / 1e6),
                None if fault.end_ns is None else round(fault.end_ns / 1e6),
            ]
            for fault in faults
        ],
        "leaders": [
            [round(each.time_ns / 1e6), each.term, each.node]
            for each in sorted(facts.leaders, key=lambda each: each.time_ns)
        ],
    }
    return Picture(svg, data, len(points))


def fault_class(names: Sequence[str], f: str) -> str:
    """CSS class of a kind of fault: colours by first appearance."""
    return f"fault{names.index(f) % FAULT_COLOURS}"


def _pane(top: float, height: float, inside: str, *, name: str = "") -> str:
    return (
        f'<rect class="ground" x="{LEFT}" y="{top:g}" width="{PANE_WIDTH}" height="{height:g}"/>'
        f'<svg class="pane {name}" x="{LEFT}" y="{top:g}" width="{PANE_WIDTH}" '
        f'height="{height:g}" viewBox="0 0 {PANE_WIDTH} {height:g}" '
        f'preserveAspectRatio="none">{inside}</svg>'
    )


def _label(y: float, text: str, *, name: str = "side") -> str:
    return f'<text class="{name}" x="{LEFT - 8}" y="{y:g}" text-anchor="end">{escape(text)}</text>'


def _extent(fault: Fault, scale: _Scale) -> tuple[float, float]:
    """Left edge and width; an event is a sliver that can still be seen."""
    left = scale.x(fault.begin_ns)
    right = PANE_WIDTH if fault.end_ns is None else scale.x(fault.end_ns)
    return left, max(round(right - left, 2), 1.5)


def _lane(names: Sequence[str]) -> int:
    """Height of a lane: many kinds of faults get less each."""
    return LANE if len(names) <= LANES_WIDE_MAX else LANE_NARROW


def _fault_lanes(names: list[str], faults: Iterable[Fault], scale: _Scale, top: float) -> str:
    bars = []
    height = _lane(names)
    counts = Counter(fault.f for fault in faults)
    for fault in faults:
        lane = names.index(fault.f)
        left, width = _extent(fault, scale)
        bars.append(
            f'<rect class="{fault_class(names, fault.f)}" x="{left:g}" y="{lane * height + height // 6}" '
            f'width="{width:g}" height="{height - height // 3}"/>'
        )
    labels = [
        _label(
            top + (lane + 0.5) * height + 4,
            f"{name if len(name) <= 19 else f'{name[:18]}…'}  {counts[name]}",
            name="side" if height == LANE else "side narrow",
        )
        for lane, name in enumerate(names)
    ]
    return _pane(top, len(names) * height, "".join(bars), name="lanes") + "".join(labels)


def _bands(names: list[str], faults: Iterable[Fault], scale: _Scale) -> str:
    """The same faults, behind a plot of any height (in percent of it)."""
    bars = []
    for fault in faults:
        left, width = _extent(fault, scale)
        bars.append(
            f'<rect class="band {fault_class(names, fault.f)}" x="{left:g}" y="0" '
            f'width="{width:g}" height="100%"/>'
        )
    return "".join(bars)


def _leaders(facts: Facts, nodes: list[str], scale: _Scale, top: float) -> str:
    bars, labels = [], []
    ordered = sorted(facts.leaders, key=lambda each: each.time_ns)
    ends = [*(each.time_ns for each in ordered[1:]), scale.last_ns]
    for each, end_ns in zip(ordered, ends, strict=True):
        left, right = scale.x(each.time_ns), scale.x(end_ns)
        if not each.node:
            continue
        place = nodes.index(each.node) if each.node in nodes else len(nodes)
        bars.append(
            f'<rect class="node{place % NODE_COLOURS}" x="{left:g}" y="2" '
            f'width="{max(right - left, 0.5):g}" height="{LEADER_HEIGHT - 4}"/>'
        )
        words = f"{each.node} · {each.term}"
        # Hidden where it does not fit; the script shows it when its bar has grown.
        hidden = "" if right - left > 6.6 * len(words) + 8 else ' hidden="hidden"'
        labels.append(
            f'<text class="term" x="{LEFT + (left + right) / 2:g}" y="{top + 15:g}" '
            f'text-anchor="middle" data-from="{left:g}" data-to="{right:g}"'
            f"{hidden}>{escape(words)}</text>"
        )
    return (
        _pane(top, LEADER_HEIGHT, "".join(bars), name="leaders")
        + _label(top + 15, "leader · term")
        + "".join(labels)
    )


def _latency(
    points: Sequence[Span], bands: str, scale: _Scale, top: float
) -> tuple[str, tuple[int, int]]:
    """Dots over a logarithmic scale, and the powers of ten (of milliseconds) at its ends."""
    values = [max(span.latency_ns(scale.last_ns) / 1e6, 0.001) for span in points]
    low = math.floor(math.log10(min(values, default=1.0)))
    high = max(math.ceil(math.log10(max(values, default=1000.0))), low + 1)
    dots: dict[Type, list[str]] = {outcome: [] for outcome in figures.OUTCOMES}
    for span, value in zip(points, values, strict=True):
        y = LATENCY_HEIGHT * (1 - (math.log10(value) - low) / (high - low))
        dots[span.outcome].append(f"M{scale.x(span.start.time_ns):g},{y:.1f}h0")
    grid, labels = [], []
    for power in range(low, high + 1):
        y = LATENCY_HEIGHT * (1 - (power - low) / (high - low))
        grid.append(f'<path class="grid" d="M0,{y:g}H{PANE_WIDTH}"/>')
        text = _power(power)
        labels.append(_label(top + y + 4, text, name="tick"))
    few = " few" if len(points) <= FEW_POINTS else ""
    paths = "".join(
        f'<path class="dots {outcome}{few}" d="{"".join(dots[outcome])}"/>'
        for outcome in figures.OUTCOMES
        if dots[outcome]
    )
    title = (
        f'<text class="title" x="{LEFT + 8}" y="{top + 16:g}">latency, each operation at its '
        f"start</text>"
    )
    inside = bands + "".join(grid) + paths
    return _pane(top, LATENCY_HEIGHT, inside, name="latency") + "".join(labels) + title, (low, high)


def _power(power: int) -> str:
    """Ten to the power, in ms, as one says it."""
    if power < 0:
        return f"{10 ** (power + 3)} µs"
    return f"{10**power} ms" if power < 3 else f"{10 ** (power - 3)} s"


def _rates(of: Sequence[Span], bands: str, scale: _Scale, top: float) -> str:
    bins = max(1, min(RATE_BINS, round(scale.last_ns / 1e9 * 4)))
    rows = figures.rates(of, scale.last_ns, bins)
    most = _round_up(max((max(row) for row in rows.values()), default=1.0))
    step = PANE_WIDTH / bins
    drawn = []
    for outcome in figures.OUTCOMES:
        if not any(rows[outcome]):
            continue
        d = ["M0,", f"{RATE_HEIGHT * (1 - rows[outcome][0] / most):.1f}"]
        for place, rate in enumerate(rows[outcome]):
            y = RATE_HEIGHT * (1 - rate / most)
            d.append(f"V{y:.1f}H{(place + 1) * step:.2f}")
        line = "".join(d)
        if outcome is Type.OK:
            area = f"{line}V{RATE_HEIGHT}H0Z"
            drawn.append(f'<path class="area {outcome}" d="{area}"/>')
        drawn.append(f'<path class="line {outcome}" d="{line}"/>')
    labels = [
        _label(top + RATE_HEIGHT * (1 - share) + 4, f"{most * share:g} /s", name="tick")
        for share in (0, 0.5, 1)
    ]
    grid = f'<path class="grid" d="M0,{RATE_HEIGHT / 2}H{PANE_WIDTH}"/>'
    title = (
        f'<text class="title" x="{LEFT + 8}" y="{top + 16:g}">completions per second, means of '
        f"{length_of(scale.last_ns / 1e6 / bins)}</text>"
    )
    inside = bands + grid + "".join(drawn)
    return _pane(top, RATE_HEIGHT, inside, name="rates") + "".join(labels) + title


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 5, 10, …: its half is a plain number too."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 6, 8, 10) if step * power >= value)


def _axis(last_ns: int, top: float) -> str:
    """Ticks of the whole run; the script makes them anew when it zooms."""
    step_ns = tick_step_ns(last_ns)
    ticks = []
    for ns in range(0, last_ns + 1, step_ns):
        x = LEFT + ns * PANE_WIDTH / last_ns
        ticks.append(
            f'<path class="mark" d="M{x:.1f},{top:g}v5"/>'
            f'<text class="tick" x="{x:.1f}" y="{top + 18:g}" text-anchor="middle">'
            f"{_tick(ns, step_ns)}</text>"
        )
    return f'<g id="axis" data-y="{top:g}">{"".join(ticks)}</g>'


def tick_step_ns(last_ns: int, ticks_max: int = 13) -> int:
    """A step people count in, at most `ticks_max` of it in `last_ns`."""
    seconds = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    fine = (1, 2, 5, 10, 20, 50, 100, 200, 500)
    steps = [n * 10**6 for n in fine] + [s * 10**9 for s in seconds]
    for step in steps:
        if last_ns / step <= ticks_max:
            return step
    return max(1, math.ceil(last_ns / ticks_max))


def _tick(ns: int, step_ns: int) -> str:
    if step_ns < 10**9:
        return f"{ns / 1e9:.{len(str(10**9 // step_ns)) - 1}f} s"
    seconds = ns // 10**9
    hours, minutes = divmod(seconds // 60, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds % 60:02}"
    return f"{minutes}:{seconds % 60:02}"


def _points_data(points: Sequence[Span], last_ns: int) -> dict[str, object]:
    """What a dot says when it is pointed at, as columns; repeated texts by number."""
    texts: dict[str, int] = {}

    def number(text: str) -> int:
        return texts.setdefault(text, len(texts))

    ms = [round(span.start.time_ns / 1e6, 1) for span in points]
    columns: dict[str, list[object]] = {name: [] for name in ("took", "out", "who", "text", "end")}
    for span in points:
        start, end = span.start, span.end
        columns["took"].append(float(f"{span.latency_ns(last_ns) / 1e6:.3g}"))
        columns["out"].append(figures.OUTCOMES.index(span.outcome))
        columns["who"].append(start.process)
        at = f" at {start.node}" if start.node else ""
        columns["text"].append(number(f"{start.f} {start.key[:60]}{at}"))
        columns["end"].append(number("" if end is None else end.error[:60]))
    return {"at": ms, **columns, "texts": list(texts)}


def legend(spans: Sequence[Span]) -> str:
    """The key to the colours of operations, with how often each came."""
    outcomes = {
        Type.OK: "ok: it happened",
        Type.FAIL: "fail: it did not",
        Type.INFO: "info: nobody knows",
    }
    entries = []
    for outcome, words in outcomes.items():
        count = sum(span.outcome is outcome for span in spans)
        entries.append(
            f'<li><i class="key {outcome}"></i>{escape(words)} <b>{count_of(count)}</b></li>'
        )
    return f'<ul class="legend">{"".join(entries)}</ul>'
