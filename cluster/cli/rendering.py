"""Answers as text: tables for people, lines for pipes, JSON and YAML for programs.

RULE: values to text; prints nothing and asks nobody. Tables and colours are for terminals: where
the output is piped and no form was asked for, fields are separated by tabs, without heads.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from cluster.cli import yaml
from cluster.cli.words import table

FORMS = ("table", "json", "yaml", "name")
CELL_WIDTH_MAX = 60


def form_of(output: str | None) -> str:
    """The form asked for; without one a table on a terminal, else lines of fields."""
    if output is not None:
        return output
    return "table" if sys.stdout.isatty() else "lines"


def may_colour() -> bool:
    """Colours are wanted: a terminal, and nobody said NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def as_data(value: object, form: str) -> str:
    """JSON or YAML of a value."""
    if form == "yaml":
        return yaml.emit(value)
    return json.dumps(value, indent=2, ensure_ascii=False)


def rows(items: Iterable[Mapping[str, Any]], columns: Sequence[str], form: str) -> str:
    """Many things, one a line.

    Args:
        items: of the answer.
        columns: fields, dotted where they are nested (`hold_times.mean_ms`); a field that ends in
            `#` is a list of which the length is shown.
        form: `table` or `lines`.
    """
    # Who reads a pipe wants all of it.
    width = sys.maxsize if form == "lines" else CELL_WIDTH_MAX
    cells = [[cell(pick(item, column), width) for column in columns] for item in items]
    if form == "lines":
        return "\n".join("\t".join(line) for line in cells)
    return headed([head_of(column) for column in columns], cells)


def detail(item: Mapping[str, Any], form: str) -> str:
    """One thing with all its fields; lists of things are tables below them."""
    plain = {key: value for key, value in item.items() if not _is_things(value)}
    things = {key: value for key, value in item.items() if _is_things(value)}
    flat = list(_flat(plain))
    if form == "lines":
        lines = [f"{key}\t{cell(value)}" for key, value in flat]
        for key, found in things.items():
            for thing in found:
                fields = (f"{name}={cell(value)}" for name, value in _flat(thing))
                lines.append("\t".join((key, *fields)))
        return "\n".join(lines)
    width = max((len(key) for key, _ in flat), default=0)
    parts = [
        "\n".join(
            f"{styled(f'{key}:'.ljust(width + 1), bold=True)}  {cell(value, width=200)}"
            for key, value in flat
        )
    ]
    for key, found in things.items():
        columns = list(dict.fromkeys(name for thing in found for name, _ in _flat(thing)))
        cells = [[cell(pick(thing, column)) for column in columns] for thing in found]
        parts.append(f"{styled(f'{key}:', bold=True)}\n{headed(map(head_of, columns), cells)}")
    return "\n\n".join(part for part in parts if part)


def headed(heads: Iterable[str], cells: Iterable[Sequence[object]]) -> str:
    """A table whose heads are bold where that can be seen."""
    head, *lines = table(list(heads), cells).split("\n")
    return "\n".join((styled(head, bold=True), *lines))


def styled(text: str, **style: Any) -> str:
    """Colours and weights, where they are wanted."""
    return click.style(text, **style) if may_colour() else text


def pick(item: Mapping[str, Any], column: str) -> object:
    """A field by its dotted name; None where there is none. `#` at the end counts."""
    value: Any = item
    for part in column.removesuffix("#").split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return len(value or ()) if column.endswith("#") else value


def head_of(column: str) -> str:
    """The head over a field: `held_for_ms` → `HELD FOR MS`."""
    words = column.removesuffix("#").replace(".", " ").replace("_", " ")
    return words.upper()


def cell(value: object, width: int = CELL_WIDTH_MAX) -> str:
    """One field in one line."""
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping) and value.keys() == {"base64"}:
        text = f"base64:{value['base64']}"
    elif isinstance(value, list) and all(isinstance(each, str | int) for each in value):
        text = ",".join(map(str, value))
    elif isinstance(value, str):
        text = value
    else:
        text = json.dumps(value, ensure_ascii=False)
    # Control characters would move the cursor of whoever looks.
    if not text.isprintable():
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _flat(item: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, object]]:
    """Fields with dotted names; payloads stay whole."""
    for key, value in item.items():
        if isinstance(value, Mapping) and value and value.keys() != {"base64"}:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _is_things(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
