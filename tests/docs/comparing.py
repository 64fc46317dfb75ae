"""What a page shows beside what was printed.

RULE: text only. `…` stands for anything, also for lines. What is another one at every run is taken
for equal: ids, signed passes, widths of columns, and numbers, unless both have one digit only.
"""

from __future__ import annotations

import re

# What is longer and stranger comes first.
_WORDS = re.compile(
    r"(?P<word>eyJ[\w-]+\.[\w-]+\.[\w-]+|\b[0-9a-f]{32}\b|\b[0-9a-f]+-[0-9a-f]{16}\b|\b[0-9a-f]{16}\b)"
    r"|(?P<dots>…)|(?P<digit>(?<!\d)\d(?!\d))|(?P<number>\d{2,})|(?P<blank>[ \t]+)"
)
_MEANS = {
    "word": r"(?:eyJ[\w-]+\.[\w-]+\.[\w-]+|[0-9a-f]{32}|[0-9a-f]+-[0-9a-f]{16}|[0-9a-f]{16})",
    "dots": ".*",
    "number": r"\d+",
    "blank": r"[ \t]+",
}


def is_shown(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed."""
    return re.fullmatch(_pattern(_lines(shown)), _lines(printed), re.DOTALL) is not None


def _pattern(shown: str) -> str:
    parts = []
    at = 0
    for found in _WORDS.finditer(shown):
        parts.append(re.escape(shown[at : found.start()]))
        kind = found.lastgroup
        assert kind is not None
        parts.append(rf"(?:{found[0]}|\d{{2,}})" if kind == "digit" else _MEANS[kind])
        at = found.end()
    return "".join((*parts, re.escape(shown[at:])))


def _lines(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
