"""What a checker says of a history, and what every checker is.

RULE: a checker reads lines and answers; it starts nothing, waits for nothing and draws no lots. The
same lines give the same verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from jepsen.history import Line


class Verdict(msgspec.Struct, frozen=True):
    """The answer of one checker to one history.

    Attributes:
        check: name of the checker: "K2 mutual exclusion".
        valid: None where it could not be decided; the summary says why, and it does not count as
            passed.
        summary: one sentence, with the figures that were looked at (operations, keys, grants).
        counterexample: few lines of the history that cannot all be right, in their order; empty
            when there is nothing to complain of.
        notes: what a reader should know besides: further failures, allowances used, open operations.
    """

    check: str
    valid: bool | None
    summary: str
    counterexample: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Only what was decided, and decided well."""
        return self.valid is True


class Checker(Protocol):
    """Judges one property of a history."""

    @property
    def name(self) -> str:
        """What its verdicts are called: "K2 mutual exclusion"."""
        ...

    def check(self, lines: Sequence[Line]) -> Verdict:
        """Judge a whole history, in the order of its lines."""
        ...


def accept(check: str, summary: str, *notes: str) -> Verdict:
    """Nothing to complain of."""
    return Verdict(check, valid=True, summary=summary, notes=notes)


def reject(check: str, summary: str, counterexample: Sequence[Line], *notes: str) -> Verdict:
    """It was not allowed; the lines are put in order and none comes twice."""
    lines = {line.index: line for line in counterexample}
    return Verdict(
        check,
        valid=False,
        summary=summary,
        counterexample=tuple(lines[index] for index in sorted(lines)),
        notes=notes,
    )


def undecided(check: str, why: str, *notes: str) -> Verdict:
    """It cannot be told: too little was seen, or the time was up."""
    return Verdict(check, valid=None, summary=why, notes=notes)


def worst(verdicts: Sequence[Verdict]) -> bool | None:
    """One answer for many: wrong if any is wrong, else undecided if any is."""
    if any(verdict.valid is False for verdict in verdicts):
        return False
    if any(verdict.valid is None for verdict in verdicts):
        return None
    return True
