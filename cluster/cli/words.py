"""What several commands share: options, tables, and how to say things.

RULE: click and text only; anything heavier is imported by the command that needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from cluster.client.core import DEFAULT_ENDPOINTS, parse_endpoints
from cluster.node.config import parse_duration_ms

if TYPE_CHECKING:
    import ssl

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
        """Read addresses or URLs, separated by commas; with `--ca` they mean https."""
        try:
            return parse_endpoints(value, is_secure=authorities() is not None)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class AuthoritiesFile(click.ParamType):  # type: ignore[type-arg]
    """Certificates of the authorities to trust; the value is the absolute path of a file."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See that the file can be read and holds certificates."""
        import ssl

        cure = "give a file with the certificates of the authorities to trust (PEM)"
        path = str(Path(value).absolute())
        try:
            ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            self.fail(f'"{value}" holds no certificate; {cure}', param, ctx)
        except OSError as error:
            self.fail(f'"{value}" cannot be read: {error.strerror}; {cure}', param, ctx)
        return path


_CA = f"{__name__}.ca"


def authorities() -> str | None:
    """The file that the command under way was given by `--ca`; None trusts those of the system."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(_CA)


def tls_context() -> ssl.SSLContext:
    """How https is checked by what asks without the SDK's client."""
    import ssl

    return ssl.create_default_context(cafile=authorities())


def ca_option(command: F) -> F:
    """Add `--ca`, also from COTERIE_CA. Read by `authorities`, so that no command hands it on."""

    def keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        ctx.meta[_CA] = value

    return click.option(
        "--ca",
        type=AuthoritiesFile(),
        envvar="COTERIE_CA",
        expose_value=False,
        # Before --endpoints, which are https then.
        is_eager=True,
        callback=keep,
        help="Authorities to trust for https (PEM); host:port means https then.  [COTERIE_CA, "
        "else those of the system]",
    )(command)


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


def cluster_options(command: F) -> F:
    """Add how the cluster is reached: `--endpoints` and `--ca`."""
    return endpoints_option(ca_option(command))


def handed_on(environ: Mapping[str, str], endpoints: Sequence[str]) -> dict[str, str]:
    """Environment of a command that we run: ours, and how the cluster is reached, so that it can
    ask it too.
    """
    ca = authorities()
    more = {} if ca is None else {"COTERIE_CA": ca}
    return {**environ, "COTERIE_ENDPOINTS": ",".join(endpoints), **more}


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


class RunsCommand(click.Command):
    """Runs a command of the user's, which stands behind a name and `--`."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """With the `--`."""
        *before, command = super().collect_usage_pieces(ctx)
        return [*before, "--", command]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Refuse options behind a command that has no `--` before it: whose would they be?"""
        behind = [] if "--" in args else self._behind_the_name(args)
        if any(word.startswith("-") and word != "-" for word in behind):
            example = " ".join(("…", "--", *behind[:2]))
            ctx.fail(f"write -- before the command, so that its options are its own: {example} …")
        return super().parse_args(ctx, args)

    def _behind_the_name(self, args: Sequence[str]) -> list[str]:
        """The command and all behind it; empty where there is none."""
        valued = {
            flag
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for flag in option.opts
        }
        names, words = 0, iter(enumerate(args))
        for at, word in words:
            if word in valued:
                next(words, None)
            elif not word.startswith("-"):
                names += 1
                if names == 2:
                    return list(args[at:])
        return []


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


def roughly(value_ms: int) -> str:
    """A length of time as one says it: `250 ms`, `40 s`, `12 min`, `5 h`, `3 days`."""
    for unit, size_ms in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if value_ms >= 2 * size_ms:
            return f"{value_ms // size_ms} {unit}"
    return f"{value_ms} ms"


def spell(value_ms: int) -> str:
    """A length of time in its largest whole unit."""
    for unit, size_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if value_ms >= size_ms and value_ms % size_ms == 0:
            return f"{value_ms // size_ms}{unit}"
    return f"{value_ms}ms"
