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


def rate(
    before: Mapping[str, float], now: Mapping[str, float], name: str, seconds: float
) -> float | None:
    """How much a counter rose in each second; None where that is not known.

    A counter that fell belongs to a node that was started anew.
    """
    if name not in before or name not in now or seconds <= 0 or now[name] < before[name]:
        return None
    return (now[name] - before[name]) / seconds
