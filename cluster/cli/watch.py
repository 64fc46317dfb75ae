"""`coterie watch`: what happens, as it happens.

RULE: one line for each event; streams, and where they are taken up again, are the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cluster.cli import exits, rendering
from cluster.cli.verbs import SESSIONS, completer, form_option
from cluster.cli.words import Duration, authorities, cluster_options, leave, say

if TYPE_CHECKING:
    from cluster.client.watching import Happening

EPILOG = """
\b
Examples:
  coterie watch
  coterie watch /locks/orders /tubes/
  coterie watch /locks/ --after 1 --what granted -o json
  coterie watch /locks/orders --what released --count 1 --for 10m && echo "it is free"

Each line begins with the position in the log; --after goes on behind it, also much later. Where
events behind it are forgotten, "resync" says so: look at the state itself then.

Exit codes: see coterie --help; 1 when --for is over before --count events came.
"""

_SHOWN = ("index", "what", "path", "session", "token")


@click.command("watch", epilog=EPILOG)
@click.argument("prefixes", nargs=-1, metavar="[PATH]...")
@click.option(
    "--session", help="Only what concerns this session.", shell_complete=completer(SESSIONS)
)
@click.option("--after", type=click.IntRange(0), help="Begin behind this position of the log.")
@click.option("--what", "kinds", multiple=True, help="Only this kind; may come several times.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--for", "for_ms", type=Duration(1), help="End after so long.")
@click.option(
    "--timeout",
    "timeout_ms",
    type=Duration(10, 3_600_000),
    default="10s",
    show_default=True,
    help="How long to try to reach the cluster at first; later it is tried for ever.",
)
@cluster_options
@form_option
def command(**told: Any) -> None:
    """Show what happens to locks, sessions, jobs and all else, as it happens.

    Only what happens to things whose path begins with one of PATH, as in /locks/orders or /tubes/.
    """
    watching = Watching(**told)
    try:
        leave(asyncio.run(watching.run()))
    except KeyboardInterrupt:
        leave(exits.INTERRUPTED)


class Watching:
    """One run of `coterie watch`."""

    def __init__(
        self,
        *,
        endpoints: tuple[str, ...],
        prefixes: tuple[str, ...] = (),
        session: str | None = None,
        after: int | None = None,
        kinds: tuple[str, ...] = (),
        count: int | None = None,
        for_ms: int | None = None,
        timeout_ms: int = 10_000,
        output: str | None = None,
    ):
        self._endpoints = endpoints
        self._prefixes = prefixes
        self._session = session
        self._after = after
        self._kinds = kinds
        self._left = count
        self._for_s = None if for_ms is None else for_ms / 1_000
        self._timeout_ms = timeout_ms
        self._form = rendering.form_of(output)

    async def run(self) -> int:
        """Show events until there are enough. Returns the exit code."""
        from cluster.client.aio import Client
        from cluster.client.core import Request
        from cluster.errors import CoterieError

        try:
            async with (
                asyncio.timeout(self._for_s),
                Client(self._endpoints, timeout_ms=self._timeout_ms, tls=authorities()) as client,
            ):
                # A watch tries for ever; whether anybody is there at all is to be told soon.
                await client.call(Request("GET", "/v1/cluster"))
                events = client.watch(*self._prefixes, session=self._session, after=self._after)
                async with contextlib.aclosing(events):
                    async for event in events:
                        if self._show(event):
                            return exits.DONE
        except TimeoutError:
            return exits.DONE if self._left is None else exits.REFUSED
        except CoterieError as error:
            say(exits.told(error, self._form, who="coterie watch"))
            return exits.code_of(error, is_read=True)
        return exits.DONE

    def _show(self, event: Happening) -> bool:
        """Print what is wanted; True when that was the last one wanted."""
        from cluster.client.watching import Resync

        if isinstance(event, Resync):
            lost_after, at = event.lost_after, event.resumes_after
            say(f"resync: events behind {lost_after} are forgotten; going on from {at}")
            told: Mapping[str, Any] = {"index": at, "what": "resync", "lost_after": lost_after}
        else:
            told = event.details
        if self._kinds and told["what"] not in self._kinds:
            return False
        click.echo(self._line(told))
        if self._left is not None:
            self._left -= 1
        return self._left == 0

    def _line(self, event: Mapping[str, Any]) -> str:
        if self._form == "json":
            return json.dumps(event, ensure_ascii=False)
        if self._form == "yaml":
            return f"---\n{rendering.as_data(event, 'yaml')}"
        if self._form == "name":
            return str(event.get("path", "-"))
        hidden = {*_SHOWN, "seq", "kind", "name"}
        cells = [rendering.cell(event.get(name)) for name in _SHOWN]
        cells += [f"{k}={rendering.cell(v)}" for k, v in event.items() if k not in hidden]
        if self._form == "lines":
            return "\t".join(cells)
        index, what, path, *more = cells
        return f"{index:>8}  {rendering.styled(f'{what:<10}', bold=True)}  {path:<24}  " + (
            "  ".join(more)
        )
