"""Figures of nodes: what `/metrics` says, and the rates between two looks.

RULE: text to numbers; asks nobody.
Standard: the text format of Prometheus, as far as our own nodes write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

# A label may hold braces and blanks: routes do.
_LABELS = r'\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}'
_LINE = re.compile(rf"([a-zA-Z_:][\w:]*)({_LABELS})? ([^ ]+)")


def totals(text: str) -> dict[str, float]:
    """Each figure by name, summed up over its labels."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = None if line.startswith("#") else _LINE.match(line)
        if match is None:
            continue
        try:
            found[match[1]] = found.get(match[1], 0.0) + float(match[3])
        except ValueError:
            continue
    return found


class Pace:
    """How fast counters of one node rise, from one page of it to the next.

    A node makes its page once a second at the most: one that is the same as before tells nothing
    new, and what is known of the pace stays.
    """

    def __init__(self) -> None:
        self._at_s = 0.0
        self._page: Mapping[str, float] = {}
        self._rates: dict[str, float] = {}

    def seen(self, page: Mapping[str, float], at_s: float) -> None:
        """Take a page.

        Args:
            page: figures by name.
            at_s: when it was asked for, on a clock that never goes back.
        """
        if page == self._page:
            return
        before, seconds = self._page, at_s - self._at_s
        self._rates = {
            name: (value - before[name]) / seconds
            for name, value in page.items()
            # A counter that fell belongs to a node that was started anew.
            if seconds > 0 and name in before and value >= before[name]
        }
        self._page, self._at_s = page, at_s

    def of(self, name: str) -> float | None:
        """How much this counter rises in each second; None where that is not known."""
        return self._rates.get(name)
