"""What several commands share: options, tables, and how to say things.

RULE: click and text only; anything heavier is imported by the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, TypeVar

import click

from cluster.client.core import DEFAULT_ENDPOINTS, parse_endpoints
from cluster.node.config import parse_duration_ms

F = TypeVar("F", bound=Callable[..., Any])


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.5 on
    """A length of time within limits; the value is an integer of milliseconds."""

    name = "time"

    def __init__(self, least_ms: int = 0, most_ms: int = 2**53):
        self._least_ms = least_ms
        self._most_ms = most_ms

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read `30s`, `250ms` or a number of milliseconds."""
        try:
            value_ms = parse_duration_ms(value)
        except ValueError as error:
            self.fail(f'"{value}" {error}', param, ctx)
        if not self._least_ms <= value_ms <= self._most_ms:
            self.fail(
                f'"{value}" is out of range; use {spell(self._least_ms)} to {spell(self._most_ms)}',
                param,
                ctx,
            )
        return value_ms


class EndpointList(click.ParamType):  # type: ignore[type-arg]
    """Nodes of a cluster; the value is a tuple of base URLs."""

    name = "host:port,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Read addresses or URLs, separated by commas."""
        try:
            return parse_endpoints(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def endpoints_option(command: F) -> F:
    """Add `--endpoints`, also from COTERIE_ENDPOINTS."""
    return click.option(
        "--endpoints",
        type=EndpointList(),
        envvar="COTERIE_ENDPOINTS",
        default=DEFAULT_ENDPOINTS,
        help="Nodes of the cluster; any of them will do.  [COTERIE_ENDPOINTS, else ports 7101 to "
        "7103 of this machine]",
    )(command)


def output_option(command: F) -> F:
    """Add `-o`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="Text for people or JSON for programs.",
    )(command)


def say(text: str) -> None:
    """Tell people something beside a command's own output."""
    click.echo(text, err=True)


def leave(code: int, text: str | None = None) -> NoReturn:
    """End the process with this exit code, having said why."""
    if text is not None:
        say(text)
    sys.exit(code)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as they need to be; None is a dash."""
    lines = [tuple(head)]
    lines.extend(tuple("-" if cell is None else str(cell) for cell in row) for row in rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def spell(value_ms: int) -> str:
    """A length of time in its largest whole unit."""
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if value_ms >= size_ms and value_ms % size_ms == 0:
            return f"{value_ms // size_ms}{unit}"
    return f"{value_ms}ms"
