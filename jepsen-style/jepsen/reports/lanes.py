"""A counter-example as people draw it: a lane per process, a bar per operation.

RULE: draws what the checker gave, nothing more. Columns are the order of events, not their
distance: what matters is what came before what, and a microsecond may matter as much as a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen.history import Line, Type
from jepsen.reports.figures import Fault, Span
from jepsen.reports.words import escape, shown, time_of

SPANS_MAX = 24
WIDTH = 1160
LEFT = 152
HEAD = 34
LANE = 44
BAR = 20

WHO = {-1: "nemesis", -2: "observer"}


def concerned(lines: Sequence[Line], spans_by_line: dict[int, Span]) -> list[Span]:
    """The operations that the lines belong to, in order of their invokes."""
    found = {}
    for line in lines:
        span = spans_by_line.get(line.index)
        if span is not None:
            found[span.start.index] = span
    return [found[index] for index in sorted(found)]


def by_line(spans: Sequence[Span]) -> dict[int, Span]:
    """From the index of a line to the operation that it begins or ends."""
    found = {}
    for span in spans:
        found[span.start.index] = span
        if span.end is not None:
            found[span.end.index] = span
    return found


def draw(spans: Sequence[Span], faults: Sequence[Fault], remarks: Sequence[Line] = ()) -> str:
    """Draw up to SPANS_MAX operations, the last ones; empty for none.

    Args:
        remarks: lines of observers, who do no operations: marks in a lane of their own.
    """
    spans = spans[-SPANS_MAX:]
    remarks = remarks[-SPANS_MAX:]
    if not spans and not remarks:
        return ""
    # (index, time_ns): the order is the history's.
    events = sorted(
        [event for span in spans for event in _indexed(span)]
        + [(line.index, line.time_ns) for line in remarks]
    )
    column = {index: place for place, (index, _) in enumerate(events)}
    step = (WIDTH - LEFT - 20) / (len(events) + 1)
    processes = list(dict.fromkeys(span.start.process for span in spans))
    top = HEAD
    parts = []
    relevant = _overlapping(faults, events[0][1], events[-1][1])
    if relevant:
        parts.append(_fault_lane(relevant, events, step, top))
        top += 30
    if remarks:
        parts += _remarks(remarks, column, step, top)
        top += LANE
    bottom = top + LANE * len(processes)
    for place, (_, ns) in enumerate(events):
        x = LEFT + step * (place + 0.5)
        words = time_of(ns)
        # Neighbours stand on two lines where they would run into each other.
        y = 12 if place % 2 == 0 or step > 7 * len(words) else 24
        parts.append(
            f'<path class="grid" d="M{x:.1f},{HEAD - 6}V{bottom}"/>'
            f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{words}</text>'
        )
    for lane, process in enumerate(processes):
        y = top + lane * LANE
        parts.append(
            f'<path class="rule" d="M{LEFT},{y + LANE - 4}H{WIDTH - 10}"/>'
            f'<text class="side" x="{LEFT - 8}" y="{y + 27}" text-anchor="end">'
            f"process {process}</text>"
        )
        own = [span for span in spans if span.start.process == process]
        for place, span in enumerate(own):
            following = own[place + 1] if place + 1 < len(own) else None
            parts.append(_bar(span, following, column, step, y))
    return (
        f'<svg class="swim" viewBox="0 0 {WIDTH} {bottom + 6}" role="img" '
        f'aria-label="The operations of the counter-example">{"".join(parts)}</svg>'
    )


def _remarks(lines: Sequence[Line], column: dict[int, int], step: float, top: float) -> list[str]:
    """A mark per line, its words above."""
    who = escape(WHO.get(lines[0].process, lines[0].process))
    parts = [f'<text class="side" x="{LEFT - 8}" y="{top + 27}" text-anchor="end">{who}</text>']
    for place, line in enumerate(lines):
        x = LEFT + step * (column[line.index] + 0.5)
        following = lines[place + 1] if place + 1 < len(lines) else None
        end = WIDTH - 12 if following is None else LEFT + step * (column[following.index] + 0.5)
        words = " ".join(filter(None, (line.f, line.key, shown(line.value, 160))))
        letters = max(3, int((end - x) / 6.4))
        short = words if len(words) <= letters else f"{words[: letters - 1]}…"
        parts.append(
            f"<g><title>{escape(words)}</title>"
            f'<text class="words" x="{x:.1f}" y="{top + 11}">{escape(short)}</text>'
            f'<circle class="seen" cx="{x:.1f}" cy="{top + 26}" r="6"/></g>'
        )
    return parts


def _indexed(span: Span) -> list[tuple[int, int]]:
    lines = [span.start] if span.end is None else [span.start, span.end]
    return [(line.index, line.time_ns) for line in lines]


def _bar(span: Span, following: Span | None, column: dict[int, int], step: float, y: float) -> str:
    """The bar with its words above; an open one runs on, as it may yet take effect."""
    left = LEFT + step * (column[span.start.index] + 0.5)
    is_open = span.end is None or span.end.type is Type.INFO
    if is_open:
        right: float = WIDTH - 12
    else:
        assert span.end is not None
        right = LEFT + step * (column[span.end.index] + 0.5)
    room = (
        WIDTH - 12 if following is None else LEFT + step * (column[following.start.index] + 0.5)
    ) - left
    words = told(span)
    letters = max(3, int(room / 6.4))
    short = words if len(words) <= letters else f"{words[: letters - 1]}…"
    end = (
        f' data-open="1" class="bar {span.outcome} open"'
        if is_open
        else (f' class="bar {span.outcome}"')
    )
    return (
        f"<g><title>{escape(words)}</title>"
        f'<text class="words" x="{left:.1f}" y="{y + 11}">{escape(short)}</text>'
        f'<rect{end} x="{left:.1f}" y="{y + 16}" width="{max(right - left, 3):.1f}" '
        f'height="{BAR}" rx="3"/></g>'
    )


def told(span: Span) -> str:
    """One operation in one line: `acquire orders wait_ms=0 → token=7`."""
    start, end = span.start, span.end
    asked = " ".join(filter(None, (start.f, start.key, shown(start.value, 160))))
    if end is None:
        return f"{asked} → no answer"
    if end.type is Type.OK:
        return f"{asked} → {shown(end.value, 160) or 'ok'}"
    return f"{asked} → {end.type} {end.error}".rstrip()


def _overlapping(faults: Sequence[Fault], first_ns: int, last_ns: int) -> list[Fault]:
    return [
        fault
        for fault in faults
        if fault.begin_ns <= last_ns and (fault.end_ns is None or fault.end_ns >= first_ns)
    ]


def _fault_lane(
    faults: Sequence[Fault], events: Sequence[tuple[int, int]], step: float, top: float
) -> str:
    """What was broken meanwhile, in the columns of the events around it."""
    parts = [f'<text class="side" x="{LEFT - 8}" y="{top + 13}" text-anchor="end">faults</text>']

    def x(ns: int | None) -> float:
        before = len(events) if ns is None else sum(time_ns <= ns for _, time_ns in events)
        return LEFT + step * before

    for fault in faults:
        left, right = x(fault.begin_ns), x(fault.end_ns)
        words = f"{fault.f} {shown(fault.what, 80)}"
        letters = max(1, int((right - left) / 6.2))
        short = words if len(words) <= letters else f"{words[: letters - 1]}…"
        parts.append(
            f"<g><title>{escape(words)}</title>"
            f'<rect class="under" x="{left:.1f}" y="{top}" width="{max(right - left, 3):.1f}" '
            f'height="18" rx="3"/>'
            f'<text class="words" x="{left + 4:.1f}" y="{top + 13}">{escape(short)}</text></g>'
        )
    return "".join(parts)
