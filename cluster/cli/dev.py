"""`coterie dev`: a cluster on this machine for those who build on it.

RULE: shows a `LocalCluster` and ends it; restarts nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.words import leave, say, table
from cluster.client.core import DEFAULT_ENDPOINTS

if TYPE_CHECKING:
    from cluster.cli.local import LocalCluster
    from cluster.client.aio import ClusterState

EPILOG = """
\b
Examples:
  coterie dev
  coterie dev --nodes 5 --data /tmp/five --http-base 8101 --peer-base 8201

It shows warnings of the nodes and changes of leader; with --verbose all that they write. Kill one
node to see what happens, and start it again by the command that is shown then. The data stay:
start again, and the cluster is as it was. Ctrl-C stops all nodes; a second one at once.
"""

TRY = r"""
Try, at any node:
  curl -s FIRST/v1/cluster
  S=$(curl -s SECOND/v1/sessions -d '{"ttl": "60s"}' | sed 's/.*"session":"\([^"]*\)".*/\1/')
  curl -s LAST/v1/locks/orders/acquire -d "{\"session\": \"$S\"}"
  STATUS

Ctrl-C stops all nodes."""

READY_WITHIN_S = 60.0
FOLLOW_EVERY_S = 0.5


@click.command("dev", epilog=EPILOG)
@click.option(
    "--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="How many nodes."
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=".coterie",
    show_default=True,
    help="Folder of the cluster; it is kept.",
)
@click.option(
    "--http-base",
    type=click.IntRange(1, 65_000),
    default=7101,
    show_default=True,
    help="Port of the first node's API.",
)
@click.option(
    "--peer-base",
    type=click.IntRange(1, 65_000),
    default=7201,
    show_default=True,
    help="Port of the first node for its peers.",
)
@click.option(
    "--front-base",
    type=click.IntRange(1, 65_000),
    default=7301,
    show_default=True,
    help="Port of the first node's first compatible front; the next front is ten further.",
)
@click.option("--fronts/--no-fronts", default=True, help="Serve the older systems' clients too.")
@click.option("-v", "--verbose", is_flag=True, help="Show all that the nodes write.")
def command(
    nodes: int,
    data: Path,
    http_base: int,
    peer_base: int,
    front_base: int,
    fronts: bool,
    verbose: bool,
) -> None:
    """Run a cluster on this machine until Ctrl-C."""
    from cluster.cli import local
    from cluster.fronts.registry import MAKERS

    members = local.planned(
        nodes,
        http_base=http_base,
        peer_base=peer_base,
        fronts=tuple(MAKERS) if fronts else (),
        front_base=front_base,
    )
    screen = Screen(is_verbose=verbose)
    running = local.LocalCluster(data, members, on_line=screen.line, on_end=screen.end)
    screen.cluster = running
    try:
        running.prepare()
    except (local.CannotStart, OSError) as error:
        leave(1, f"coterie dev: {error}")
    leave(asyncio.run(_run(running, screen)))


class Screen:
    """What is shown of the nodes.

    What they write before the cluster is ready is kept back: until all have started, they cannot
    but miss one another. It is shown when the start fails.
    """

    def __init__(self, *, is_verbose: bool):
        self.cluster: LocalCluster | None = None
        self.is_ready = False
        self.is_stopping = False
        self._is_verbose = is_verbose
        self._kept_back: list[tuple[str, str]] = []

    def line(self, name: str, line: str) -> None:
        """Show a line of a node, if it is worth it."""
        if not self.is_ready and not self._is_verbose:
            self._kept_back.append((name, line))
            return
        shown = line if self._is_verbose else worth_showing(line, is_stopping=self.is_stopping)
        if shown is not None:
            _tell(f"{name} | {shown}")

    def end(self, name: str, returncode: int) -> None:
        """Tell that a node ended, and how to bring it back."""
        if self.is_stopping or not self.is_ready or self.cluster is None:
            return
        from cluster.cli import processes

        again = shlex.join(self.cluster.command_of(name))
        _tell(f"{name} {processes.ending_of(returncode)}; start it again with: {again}")

    def tell_kept_back(self) -> None:
        """Show what the nodes wrote during a start that failed."""
        for name, line in self._kept_back:
            click.echo(f"{name} | {pretty(line)}", err=True)


async def _run(cluster: LocalCluster, screen: Screen) -> int:
    loop = asyncio.get_running_loop()
    asked: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, asked.put_nowait, number)
    stopping = asyncio.ensure_future(asked.get())
    showing = asyncio.ensure_future(_show(cluster, screen))
    try:
        await asyncio.wait({stopping, showing}, return_when=asyncio.FIRST_COMPLETED)
        if showing.done():
            return showing.result()
        screen.is_stopping = True
        say("stopping")
        return 0
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
        ending = asyncio.ensure_future(cluster.stop())
        again = asyncio.ensure_future(asked.get())
        await asyncio.wait({ending, again}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            await cluster.kill()
        killed = await ending
        for future in (stopping, again):
            future.cancel()
        if killed:
            say(f"killed, as they did not end in time: {', '.join(killed)}")


async def _show(cluster: LocalCluster, screen: Screen) -> int:
    """Start the nodes, say where they are, follow who leads. Returns when none is left."""
    from cluster.cli.local import CannotStart

    await cluster.start()
    try:
        state = await cluster.until_ready(within_s=READY_WITHIN_S)
    except (CannotStart, TimeoutError) as error:
        screen.is_stopping = True
        screen.tell_kept_back()
        say(f"coterie dev: {str(error) or f'no leader within {READY_WITHIN_S:.0f} s'}")
        return 1
    screen.is_ready = True
    _tell(welcome(cluster, state))
    led = (state.leader, state.term)
    while cluster.running:
        await asyncio.sleep(FOLLOW_EVERY_S)
        found = await asyncio.gather(*(cluster.state(name) for name in cluster.running))
        led = _tell_leader(led, [state for state in found if state is not None])
    say("coterie dev: no node is left")
    return 1


def _tell(text: str) -> None:
    """Show it, if anybody still reads: the nodes go on without."""
    with contextlib.suppress(BrokenPipeError):
        click.echo(text)


def _tell_leader(
    before: tuple[str | None, int], states: list[ClusterState]
) -> tuple[str | None, int]:
    """Say when another leads than before; the newest term knows best."""
    if not states:
        return before
    newest = max(states, key=lambda state: (state.term, state.leader is not None))
    now = (newest.leader, newest.term)
    if now[0] is None and before[0] is not None:
        _tell("nobody leads: nothing is granted until most nodes see one another again")
    elif now[0] is not None and now != before:
        _tell(f"{now[0]} leads, term {now[1]}")
    return now


def welcome(cluster: LocalCluster, state: ClusterState) -> str:
    """Where the nodes are, and what to try: three lines for a shell that work one after another."""
    members = tuple(cluster.members.values())
    rows = [
        (member.name, member.url, "leader" if member.name == state.leader else "follower")
        for member in members
    ]
    places = {
        "FIRST": members[0].url,
        "SECOND": members[len(members) // 2].url,
        "LAST": members[-1].url,
        "STATUS": _status(cluster),
    }
    lines = TRY
    for place, words in places.items():
        lines = lines.replace(place, words)
    parts = [
        table(("NODE", "HTTP", "ROLE"), rows),
        f"data: {cluster.folder}",
        f"the API, in a browser: {members[0].url}/docs",
    ]
    if members[0].fronts:
        fronts = [
            (name, *(str(member.fronts[name]) for member in members)) for name in members[0].fronts
        ]
        heads = ("FRONT", *(member.name for member in members))
        parts += ["", "Clients of older systems are served, unchanged, at:", table(heads, fronts)]
    return "\n".join((*parts, lines))


def _status(cluster: LocalCluster) -> str:
    """Our own command that asks this cluster, from another terminal in this folder."""
    from cluster.cli.local import our_command

    endpoints = ",".join(str(member.http) for member in cluster.members.values())
    is_default = endpoints == DEFAULT_ENDPOINTS
    return shlex.join(
        (*our_command(), "status", *(() if is_default else ("--endpoints", endpoints)))
    )


def worth_showing(line: str, *, is_stopping: bool) -> str | None:
    """The line as people read it, if it is a warning or worse, or no log line at all."""
    event = _event_in(line)
    if event is None:
        return line if line.strip() else None
    if event.get("level") in {"error", "critical"}:
        return pretty(line)
    return pretty(line) if event.get("level") == "warning" and not is_stopping else None


def pretty(line: str) -> str:
    """A JSON log line as words; another line as it is."""
    event = _event_in(line)
    if event is None:
        return line
    hidden = {"event", "level", "timestamp", "logger", "exception", "node"}
    more = " ".join(f"{key}={value}" for key, value in event.items() if key not in hidden)
    words = [str(event.get("level", "")), str(event.get("event", "")), more]
    text = " ".join(word for word in words if word)
    if "exception" in event:
        text += f"\n{_traceback(event['exception'])}"
    return text


def _traceback(exception: object) -> str:
    return exception if isinstance(exception, str) else json.dumps(exception, indent=1)


def _event_in(line: str) -> dict[str, object] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
