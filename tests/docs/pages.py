"""The pages of the documentation, and the code blocks in them.

RULE: text to values; runs nothing and judges nothing.

A block says what it is by its language. `console` is run line by line: what follows `$ ` is a
command, a line that ends in a backslash goes on in the next one, all else is what it prints.
`python` is run as a program; a block of class `output` behind it is what it prints. All other
languages are only shown, and so is a block of class `no-run`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"

# Pages whose examples other tests run: those of the pytest kit tests/testing, the recipes
# tests/integration/recipes, the ones made by a program tests/docs.
ELSEWHERE = re.compile(r"testing\.md|recipes/.*|reference/.*")

_OPENING = re.compile(
    r"(?P<indent> *)(?P<fence>`{3,})\s*(?:\{(?P<attributes>[^}]*)\}|(?P<language>[\w-]*)(?P<rest>.*))$"
)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        line: of its first line of text, from 1.
        language: the first class, or what stands behind the fence; may be empty.
        classes: the other ones.
    """

    page: str
    line: int
    language: str
    classes: tuple[str, ...]
    text: str

    @property
    def is_run(self) -> bool:
        """The tests run it."""
        return self.language in {"console", "python"} and "no-run" not in self.classes

    @property
    def is_output(self) -> bool:
        """It is what the program before it prints."""
        return "output" in self.classes


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block, and what it prints."""

    line: int
    text: str
    output: str


def pages() -> list[str]:
    """Paths of all pages below `docs/pages`, in order."""
    return sorted(str(path.relative_to(PAGES)) for path in PAGES.rglob("*.md"))


def text_of(page: str) -> str:
    """A page as it is written."""
    return (PAGES / page).read_text(encoding="utf-8")


def blocks_of(page: str, text: str) -> list[Block]:
    """The fenced blocks of a page, in order.

    Raises:
        ValueError: a block does not end.
    """
    found: list[Block] = []
    lines = iter(enumerate(text.splitlines(), start=1))
    for _, line in lines:
        opening = _OPENING.match(line)
        if opening is not None:
            found.append(_block(page, opening, lines))
    return found


def _block(page: str, opening: re.Match[str], lines: Iterator[tuple[int, str]]) -> Block:
    inside: list[str] = []
    first = None
    for number, line in lines:
        first = number if first is None else first
        if line.strip() == opening["fence"]:
            break
        inside.append(line)
    else:
        raise ValueError(f"{page}: the block before line {first} does not end")
    classes = [word[1:] for word in (opening["attributes"] or "").split() if word[0] == "."]
    if opening["language"]:
        classes.insert(0, opening["language"])
    language = classes.pop(0) if classes else ""
    text = textwrap.dedent("\n".join(inside))
    return Block(page, first or 0, language, tuple(classes), text)


def commands_of(block: Block) -> list[Command]:
    """The commands of a console block.

    Raises:
        ValueError: it begins with something else.
    """
    found: list[Command] = []
    command: list[str] = []
    output: list[str] = []
    at = block.line
    goes_on = False
    for number, line in enumerate(block.text.splitlines(), start=block.line):
        if goes_on:
            command.append(line)
        elif line.startswith("$ "):
            if command:
                found.append(Command(at, "\n".join(command), "\n".join(output)))
            command, output, at = [line[2:]], [], number
        elif not command:
            raise ValueError(f"{block.page}:{number}: no command comes first: {line}")
        else:
            output.append(line)
        goes_on = bool(command) and not output and command[-1].endswith("\\")
    if command:
        found.append(Command(at, "\n".join(command), "\n".join(output)))
    return found
