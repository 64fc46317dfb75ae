"""`coterie watch`: what happens, as it happens.

RULE: one line for each event; a broken stream is taken up again behind the last event, at the next
node, and what is lost is said to be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from cluster.cli import exits, rendering
from cluster.cli.verbs import SESSIONS, completer, form_option, timeout_option
from cluster.cli.words import Duration, endpoints_option, leave, say

if TYPE_CHECKING:
    import aiohttp

    from cluster.client.core import Endpoints

EPILOG = """
\b
Examples:
  coterie watch
  coterie watch /locks/orders /tubes/
  coterie watch /locks/ --after 1 --what granted -o json
  coterie watch /locks/orders --what released --count 1 --for 10m && echo "it is free"

\b
Each line begins with the position in the log; --after goes on behind it, also much later. Where
events behind it are forgotten, "resync" says so: look at the state itself then.

\b
Exit codes: see coterie --help; 1 when --for is over before --count events came.
"""

_SHOWN = ("index", "what", "path", "session", "token")
# A stream that says nothing for so long is dead: a node says every few seconds that it lives.
_SILENT_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One message of the stream.

    Attributes:
        what: its kind; `open`, `resync` and `bye` are about the stream.
        position: in the log; None where it names none.
    """

    what: str
    position: int | None
    data: dict[str, Any]


class Reader:
    """Lines of a stream to events; a comment is a sign of life and may move the position.

    Standard: WHATWG HTML, section 9.2.6.
    """

    def __init__(self) -> None:
        self.position: int | None = None
        self._what = "message"
        self._data: list[str] = []

    def line(self, line: str) -> Event | None:
        """Take a line without its end; an empty one completes an event."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line:
            if name == "event":
                self._what = value
            elif name == "data":
                self._data.append(value)
            elif name == "id" and value.isdecimal():
                self.position = int(value)
            return None
        what, data = self._what, "\n".join(self._data)
        self._what, self._data = "message", []
        if not data:
            return None
        decoded = json.loads(data)
        return Event(what, self.position, decoded if isinstance(decoded, dict) else {})


@click.command("watch", epilog=EPILOG)
@click.argument("prefixes", nargs=-1, metavar="[PATH]...")
@click.option(
    "--session", help="Only what concerns this session.", shell_complete=completer(SESSIONS)
)
@click.option("--after", type=click.IntRange(0), help="Begin behind this position of the log.")
@click.option("--what", "kinds", multiple=True, help="Only this kind; may come several times.")
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--for", "for_ms", type=Duration(1), help="End after so long.")
@timeout_option
@endpoints_option
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
        self._query = [("prefix", prefix) for prefix in prefixes]
        if session is not None:
            self._query.append(("session", session))
        self._after = after
        self._kinds = kinds
        self._left = count
        self._for_s = None if for_ms is None else for_ms / 1_000
        self._patience_s = timeout_ms / 1_000
        self._form = rendering.form_of(output)

    async def run(self) -> int:
        """Show events until there are enough. Returns the exit code."""
        from cluster.errors import CoterieError

        try:
            async with asyncio.timeout(self._for_s):
                async with contextlib.aclosing(self._events()) as events:
                    async for event in events:
                        if self._show(event):
                            return exits.DONE
        except TimeoutError:
            return exits.DONE if self._left is None else exits.REFUSED
        except CoterieError as error:
            say(exits.told(error, self._form, who="coterie watch"))
            return exits.code_of(error, is_read=True)
        return exits.DONE

    def _show(self, event: Event) -> bool:
        """Print what is wanted; True when that was the last one wanted."""
        if event.what == "resync":
            say(
                f"resync: events behind {event.data.get('lost_after')} are forgotten; "
                f"going on from {event.data.get('from')}"
            )
        if event.what in {"open", "bye"} or (self._kinds and event.what not in self._kinds):
            return False
        click.echo(self._line({"what": event.what, **event.data}))
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

    async def _events(self) -> AsyncGenerator[Event]:
        """Events of one stream after the other, each going on where the last one broke.

        Raises:
            CoterieError: a refusal, or no node gave a stream for as long as we are patient.
        """
        import aiohttp

        from cluster.client.backoff import Backoff
        from cluster.client.core import Endpoints
        from cluster.errors import Definite

        endpoints = Endpoints(self._endpoints)
        backoff = Backoff(50, 1_000)
        loop = asyncio.get_running_loop()
        heard_s = loop.time()
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._patience_s, sock_read=_SILENT_S_MAX
        )
        async with aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                why = "the stream ended"
                try:
                    async with contextlib.aclosing(self._stream(http, endpoints)) as stream:
                        async for event in stream:
                            heard_s = loop.time()
                            yield event
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    why = str(error) or type(error).__name__
                endpoints.failed(endpoints.current)
                if loop.time() - heard_s > self._patience_s:
                    raise Definite(f"no node gives a stream: {why}", code="unreachable")
                await asyncio.sleep(backoff.next_ms() / 1_000)

    async def _stream(
        self, http: aiohttp.ClientSession, endpoints: Endpoints
    ) -> AsyncGenerator[Event]:
        """Events of one stream.

        Raises:
            CoterieError: a refusal that other nodes would give as well.
            aiohttp.ClientError: all else that goes wrong.
        """
        import aiohttp
        import msgspec

        from cluster.client.core import error_of
        from cluster.errors import Refused

        query = list(self._query)
        if self._after is not None:
            query.append(("after", str(self._after)))
        async with http.get(f"{endpoints.current}/v1/watch", params=query) as response:
            if response.status != 200:
                body = await response.read()
                try:
                    problem = msgspec.json.decode(body, type=dict[str, object])
                except msgspec.MsgspecError:
                    problem = None
                error = error_of(response.status, problem, endpoints.current)
                if isinstance(error, Refused):
                    raise error
                raise aiohttp.ClientError(error.detail)
            reader = Reader()
            async for line in response.content:
                event = reader.line(line.decode().rstrip("\r\n"))
                if reader.position is not None:
                    # What is not shown has been seen as well.
                    self._after = reader.position
                if event is not None:
                    yield event
