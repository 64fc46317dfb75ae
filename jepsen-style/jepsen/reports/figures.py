"""Figures of a history: spans, faults, rates, quantiles, and which points are worth drawing.

RULE: counts and sorts; knows neither HTML nor pixels. Takes any history, also one that was cut off
in the middle: a report of a run that died matters most.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from jepsen.history import Line, Type

NEMESIS = -1
OUTCOMES = (Type.OK, Type.FAIL, Type.INFO)


class Span(msgspec.Struct, frozen=True):
    """An invoke and its completion, with the time at which the client gave up on an open one.

    Attributes:
        end: None where no completion came at all.
    """

    start: Line
    end: Line | None

    @property
    def outcome(self) -> Type:
        """Ok, fail or info; no completion is info."""
        return Type.INFO if self.end is None else self.end.type

    def latency_ns(self, last_ns: int) -> int:
        """How long the client waited; until `last_ns` where it waits still."""
        return (last_ns if self.end is None else self.end.time_ns) - self.start.time_ns


class Fault(msgspec.Struct, frozen=True):
    """One thing that the nemesis did.

    Attributes:
        f: its kind: "kill", "partition".
        what: its arguments, without the phase.
        end_ns: None where it was never ended (or the run ended first).
        is_remark: nothing was broken: the nemesis tells of something else, such as that all is healed.
    """

    f: str
    what: Any
    begin_ns: int
    end_ns: int | None
    is_remark: bool = False


class Quantiles(msgspec.Struct, frozen=True):
    """A distribution in five numbers, all zero for nothing; unit as given."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


class Kind(msgspec.Struct, frozen=True):
    """All operations of one name.

    Attributes:
        errors: how often which code was answered, the most frequent first.
        latency_ms: of those that were answered (ok and fail).
    """

    f: str
    ok: int
    fail: int
    info: int
    errors: tuple[tuple[str, int], ...]
    latency_ms: Quantiles

    @property
    def count(self) -> int:
        """All of them."""
        return self.ok + self.fail + self.info


def length_ns(lines: Sequence[Line]) -> int:
    """Time of the last line; 1 for an empty history, so that one can divide by it."""
    return max((line.time_ns for line in lines), default=0) or 1


def spans(lines: Iterable[Line]) -> list[Span]:
    """Pair every invoke with what came next of its process, in order of the invokes.

    Unlike `history.operations` it refuses nothing: completions without an invoke are left out.
    """
    begun: dict[int, Line] = {}
    found: list[Span] = []
    for line in lines:
        if line.process < 0:
            continue
        start = begun.pop(line.process, None)
        if start is not None:
            is_completion = line.type is not Type.INVOKE
            found.append(Span(start, line if is_completion else None))
        if line.type is Type.INVOKE:
            begun[line.process] = line
    found.extend(Span(start, None) for start in begun.values())
    return sorted(found, key=lambda span: span.start.index)


def faults(lines: Iterable[Line]) -> list[Fault]:
    """Pair the nemesis' lines by name and value, in order of their beginnings.

    A line without a phase is a remark: it begins and ends at once. Observers (processes below -1)
    break nothing.
    """
    open_ones: dict[tuple[str, str], list[int]] = {}
    found: list[Fault] = []
    for line in lines:
        if line.process != NEMESIS:
            continue
        phase, what = _phase(line.value)
        name = (line.f, msgspec.json.encode(what, order="deterministic").decode())
        if phase == "end" and open_ones.get(name):
            place = open_ones[name].pop()
            found[place] = msgspec.structs.replace(found[place], end_ns=line.time_ns)
        elif phase == "begin":
            open_ones.setdefault(name, []).append(len(found))
            found.append(Fault(line.f, what, line.time_ns, None))
        else:
            found.append(Fault(line.f, what, line.time_ns, line.time_ns, is_remark=True))
    return found


def _phase(value: Any) -> tuple[str, Any]:
    """The phase, and the value without it."""
    if not isinstance(value, dict) or "phase" not in value:
        return "", value
    return str(value["phase"]), {key: item for key, item in value.items() if key != "phase"}


def quantiles(values: Iterable[float]) -> Quantiles:
    """Nearest-rank quantiles: every one of them was really measured."""
    ordered = sorted(values)
    if not ordered:
        return Quantiles(0, 0.0, 0.0, 0.0, 0.0)

    def at(share: float) -> float:
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

    return Quantiles(len(ordered), at(0.5), at(0.9), at(0.99), ordered[-1])


def kinds(of: Iterable[Span]) -> list[Kind]:
    """One row per name of operation, by name."""
    groups: dict[str, list[Span]] = {}
    for span in of:
        groups.setdefault(span.start.f, []).append(span)
    rows = []
    for f, group in sorted(groups.items()):
        outcomes = Counter(span.outcome for span in group)
        errors = Counter(span.end.error for span in group if span.end and span.end.error)
        answered = [span for span in group if span.outcome is not Type.INFO]
        rows.append(
            Kind(
                f=f,
                ok=outcomes[Type.OK],
                fail=outcomes[Type.FAIL],
                info=outcomes[Type.INFO],
                errors=tuple(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
                latency_ms=quantiles(round(span.latency_ns(0) / 1e6, 3) for span in answered),
            )
        )
    return rows


def rates(of: Iterable[Span], last_ns: int, bins: int) -> dict[Type, list[float]]:
    """Completions per second in `bins` equal parts of the run, by outcome."""
    counted = {outcome: [0] * bins for outcome in OUTCOMES}
    for span in of:
        if span.end is not None:
            place = min(bins - 1, span.end.time_ns * bins // max(1, last_ns))
            counted[span.outcome][place] += 1
    seconds = last_ns / 1e9 / bins
    return {outcome: [n / seconds for n in row] for outcome, row in counted.items()}


def thinned(
    of: Sequence[Span], last_ns: int, most: int, columns: int = 2400, rows_per_decade: int = 90
) -> list[Span]:
    """At most `most` spans that look like all of them when latency is drawn over time.

    Of each outcome, one span per cell of a grid (time by logarithm of latency) is kept, the first;
    the grid is made coarser until few enough are left. What stands alone (the slow, the refused,
    the unknown) stays, as it shares its cell with nobody.
    """
    kept = list(of)
    scale = 1.0
    while len(kept) > most:
        cells: set[tuple[Type, int, int]] = set()
        thin: list[Span] = []
        for span in of:
            latency = max(span.latency_ns(last_ns), 1000)
            cell = (
                span.outcome,
                int(span.start.time_ns * columns * scale / last_ns),
                int(math.log10(latency) * rows_per_decade * scale),
            )
            if cell not in cells:
                cells.add(cell)
                thin.append(span)
        kept = thin
        scale *= 0.8
    return kept
