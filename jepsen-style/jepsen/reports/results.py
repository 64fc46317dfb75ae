"""A run in figures, for machines: one JSON object with a version.

RULE: everything a later page or program may ask of a run, the history itself apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from jepsen.history import Line, Type
from jepsen.reports import figures
from jepsen.reports.facts import Facts
from jepsen.reports.figures import Fault, Kind, Quantiles
from jepsen.verdicts import Verdict, worst

FORMAT = 1
"""Rises when a field changes its meaning; new fields do not count."""

WORDS: dict[bool | None, str] = {True: "passed", False: "violated", None: "undecided"}


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `results.json`.

    Attributes:
        verdict: passed, violated or undecided. Without any check, undecided.
        length_ms: of the history.
        latency_ms: of all operations that were answered.
    """

    format: int
    verdict: str
    facts: Facts
    checks: tuple[Verdict, ...]
    length_ms: int
    operations: int
    ok: int
    fail: int
    info: int
    latency_ms: Quantiles
    outages_ms: Quantiles
    kinds: tuple[Kind, ...]
    faults: tuple[Fault, ...]

    @property
    def faults_count(self) -> int:
        """How often something was broken."""
        return sum(not fault.is_remark for fault in self.faults)


def verdict_of(verdicts: Sequence[Verdict], trouble: str = "") -> str:
    """One word for a run: what was never checked, or did not come to its end, is not passed."""
    word = WORDS[worst(verdicts) if verdicts else None]
    return WORDS[None] if trouble and word == WORDS[True] else word


def make(lines: Sequence[Line], verdicts: Sequence[Verdict], facts: Facts) -> Results:
    """Count a history."""
    of = figures.spans(lines)
    rows = figures.kinds(of)
    answered = (span.latency_ns(0) / 1e6 for span in of if span.outcome is not Type.INFO)
    return Results(
        format=FORMAT,
        verdict=verdict_of(verdicts, facts.trouble),
        facts=facts,
        checks=tuple(verdicts),
        length_ms=figures.length_ns(lines) // 10**6,
        operations=len(of),
        ok=sum(row.ok for row in rows),
        fail=sum(row.fail for row in rows),
        info=sum(row.info for row in rows),
        latency_ms=figures.quantiles(round(ms, 3) for ms in answered),
        outages_ms=figures.quantiles(facts.outages_ms),
        kinds=tuple(rows),
        faults=tuple(figures.faults(lines)),
    )


def write(file: Path, lines: Sequence[Line], verdicts: Sequence[Verdict], facts: Facts) -> Results:
    """Write `results.json`, and return what stands in it."""
    made = make(lines, verdicts, facts)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    return made


def load(file: Path) -> Results:
    """Read a `results.json` back.

    Raises:
        msgspec.DecodeError: it is none, or of a later format.
    """
    found = msgspec.json.decode(file.read_bytes(), type=Results)
    if found.format != FORMAT:
        raise msgspec.DecodeError(f"format {found.format} is not {FORMAT}: {file.name}")
    return found
