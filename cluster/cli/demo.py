"""`coterie demo`: a guided tour that ends by itself.

RULE: every sentence is checked before it is said; a step that fails ends the tour with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cluster.cli.words import leave, say

if TYPE_CHECKING:
    from cluster.cli.local import LocalCluster
    from cluster.client.aio import Client, Grant, OpenedSession

EPILOG = """
It starts three nodes in processes of their own, in a temporary folder and on free ports, takes a
lock, kills the leader, and shows what is left: everything. Exit code 0 when all went as told.
"""

LOCK = "orders"
STEP_WITHIN_S = 20.0


class DemoFailed(Exception):
    """A step did not do what was told of it."""


@click.command("demo", epilog=EPILOG)
@click.option(
    "--pace",
    "pace_s",
    type=click.FloatRange(0, 10),
    default=0.7,
    show_default=True,
    help="Seconds between the steps.",
)
def command(pace_s: float) -> None:
    """Show in a few seconds what a cluster is good for."""
    from cluster.cli.local import CannotStart
    from cluster.errors import CoterieError

    try:
        asyncio.run(_tour(pace_s))
    except (CannotStart, CoterieError, DemoFailed, OSError) as error:
        leave(1, f"coterie demo: {str(error) or type(error).__name__}")
    except KeyboardInterrupt:
        leave(130)


async def _tour(pace_s: float) -> None:
    from cluster.cli.local import LocalCluster, planned_anywhere

    with tempfile.TemporaryDirectory(prefix="coterie-demo-") as folder:
        log: list[str] = []
        cluster = LocalCluster(
            Path(folder),
            planned_anywhere(3),
            on_line=lambda name, line: log.append(f"{name} | {line}"),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _interrupt)
        try:
            await Tour(cluster, pace_s).go()
        except BaseException:
            for line in log:
                say(line)
            raise
        finally:
            await cluster.stop()


class Tour:
    """The steps, in order. What one leaves for the next is in its attributes."""

    def __init__(self, cluster: LocalCluster, pace_s: float):
        self._cluster = cluster
        self._pace_s = pace_s
        self._number = 0

    async def go(self) -> None:
        """All steps."""
        await self._start()
        leader = await self._a_leader_other_than("n3")
        async with (
            self._client("n1" if leader != "n1" else "n2") as clerk,
            self._client("n2") as second,
            self._client("n3") as third,
        ):
            session = await self._open(clerk)
            grant = await self._lock(second, session)
            await self._kill(leader)
            await self._look(third, grant)
            await self._hand_over(third, grant)
        await self._stop()

    async def _start(self) -> None:
        await self._step("Three nodes start, each a process with its own log on disk.")
        cluster = self._cluster
        cluster.prepare(log_level="info")
        await cluster.start()
        try:
            state = await cluster.until_ready(within_s=STEP_WITHIN_S)
        except TimeoutError:
            raise DemoFailed("the nodes did not find a leader") from None
        for member in cluster.members.values():
            self._tell(f"{member.name} at {member.url}")
        self._tell(f"They have elected {state.leader}, in term {state.term}.")

    async def _a_leader_other_than(self, name: str) -> str:
        """Who leads; `name` is to be there to the end of the tour, so that it must not lead."""
        state = await self._cluster.until_ready(within_s=STEP_WITHIN_S)
        if state.leader != name:
            assert state.leader is not None
            return state.leader
        await self._step(f"{name} is to be our witness, so it hands leadership over, as asked.")
        async with self._client(name) as client:
            leader = (await client.transfer("n1")).leader
        if leader is None or leader == name:
            raise DemoFailed(f"{name} did not hand leadership over")
        self._tell(f"{leader} leads now.")
        return leader

    async def _open(self, clerk: Client) -> OpenedSession:
        await self._step("A client opens a session. While it is renewed, it may hold things.")
        session = await clerk.open_session(ttl_ms=30_000, name="demo clerk")
        self._tell(f"session {session.session} lasts 30 s from each renewal")
        return session

    async def _lock(self, second: Client, session: OpenedSession) -> Grant:
        await self._step(f'It asks n2 for the lock "{LOCK}". Any node will do.')
        grant = await second.acquire(session.session, LOCK)
        self._tell(f"granted, token {grant.token}: it rises with every grant, for ever")
        return grant

    async def _kill(self, leader: str) -> None:
        await self._step(f"Now the worst: {leader}, the leader, is killed (kill -9).")
        self._cluster.signal(leader, signal.SIGKILL)
        await self._cluster.ended(leader)
        began = asyncio.get_running_loop().time()
        try:
            state = await self._cluster.until_ready(within_s=STEP_WITHIN_S)
        except TimeoutError:
            raise DemoFailed("the two nodes that are left did not find a leader") from None
        took_s = asyncio.get_running_loop().time() - began
        self._tell(f"{state.leader} leads in term {state.term}, {took_s:.1f} s later.")

    async def _look(self, third: Client, grant: Grant) -> None:
        await self._step("What was promised is kept. n3 is asked who holds the lock:")
        lock = await third.lock(LOCK)
        held = [(holder.session, holder.token) for holder in lock.holders]
        if held != [(grant.session, grant.token)]:
            raise DemoFailed(f"n3 says that the lock is held by {held}, not by {grant}")
        self._tell(f"session {grant.session}, with the same token {grant.token}")

    async def _hand_over(self, third: Client, grant: Grant) -> None:
        await self._step("A second client wants the lock too, and waits for it.")
        other = await third.open_session(ttl_ms=30_000, name="demo successor")
        waiting = asyncio.ensure_future(third.acquire(other.session, LOCK, wait_ms=20_000))
        try:
            await self._until_waited_for(third)
            self._tell(f"session {other.session} is first in the queue")
            await self._step("The first session ends. What it held goes on in the same step.")
            await third.close_session(grant.session)
            successor = await waiting
        finally:
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(waiting, return_exceptions=True)
        if successor.session != other.session or successor.token <= grant.token:
            raise DemoFailed(f"the lock went on as {successor}")
        self._tell(f"session {successor.session} holds it now, token {successor.token}")
        self._tell(f"Who still comes with token {grant.token} is refused:")
        if (await third.check(LOCK, grant.token)).valid:
            raise DemoFailed(f"token {grant.token} still counts")
        self._tell(f"token {grant.token} valid: no; token {successor.token} valid: yes")
        await third.close_session(other.session)

    async def _until_waited_for(self, client: Client) -> None:
        async with asyncio.timeout(STEP_WITHIN_S):
            waiters = (await client.lock(LOCK)).waiters
            while not waiters:
                await asyncio.sleep(0.02)
                waiters = (await client.lock(LOCK)).waiters

    async def _stop(self) -> None:
        await self._step("The nodes stop: they finish what they began and hand over first.")
        killed = await self._cluster.stop()
        if killed:
            raise DemoFailed(f"{', '.join(killed)} did not stop when asked to")
        self._tell("That was it. Run your own by: coterie dev")

    def _client(self, name: str) -> Client:
        """A client that asks this node and no other: what is told of it is to be true."""
        from cluster.client.aio import Client

        return Client(self._cluster.members[name].url, timeout_ms=int(STEP_WITHIN_S * 1_000))

    async def _step(self, text: str) -> None:
        if self._number:
            await asyncio.sleep(self._pace_s)
        self._number += 1
        click.echo(f"\n{self._number}. {text}")

    def _tell(self, text: str) -> None:
        click.echo(f"   {text}")


def _interrupt() -> None:
    """SIGTERM ends the tour as Ctrl-C does: the nodes and the folder go with it."""
    signal.raise_signal(signal.SIGINT)
