"""The driver: one event loop that gives the node its frames, its time and its rounds.

RULE: the only place of a node that waits. One timer per process. No thread touches the node; one
waits for the disk, when that is slow, and does nothing else. Any exception out of a round is fatal:
memory may then promise what the disk does not hold.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cluster.node import clock
from cluster.node.node import Node
from cluster.node.settings import NodeSettings
from cluster.replication.disk import Disk
from cluster.replication.identity import Identity
from cluster.replication.snapshots import Dumper, SnapshotStore
from cluster.replication.transport import Transport

if TYPE_CHECKING:
    import socket

    from cluster.node.pending import Answered, Failed

# A hand-over takes milliseconds; who has not taken over by then will not.
_HANDOVER_S_MAX = 1.0

# A disk whose syncs take longer on average is waited for in a thread. Below it, the two hops
# between threads would cost more than they gain.
_SLOW_DISK_S = 0.000_5


class Driver:
    """Runs one node in the running event loop.

    Args:
        listen: (host, port) or a bound socket for peers.
        dial: name of each peer and where to dial it.
        secret: the cluster's secret.
        on_fatal: called once with the exception that ended a round; must stop the process (or, in
            a test, at least this node).
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        identity: Identity,
        disk: Disk,
        dumper: Callable[[SnapshotStore], Dumper],
        listen: tuple[str, int] | socket.socket,
        dial: Mapping[str, tuple[str, int]],
        secret: bytes,
        on_fatal: Callable[[BaseException], None],
        rng: random.Random,
        ssl_server: ssl.SSLContext | None = None,
        ssl_client: ssl.SSLContext | None = None,
    ) -> None:
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._round_is_due = False
        self._disk_s = 0.0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disk")
        self._syncing: asyncio.Future[float] | None = None
        self._is_stopped = True
        self._is_closed = False
        self.transport = Transport(
            cluster=identity.cluster,
            node=identity.node,
            # Two copies of one data folder count alike; a lot decides which of them is refused.
            boot=identity.boot << 32 | rng.getrandbits(32),
            identity=identity.unique,
            secret=secret,
            listen=listen,
            peers=dial,
            receiver=self,
            known_identity=identity.known_peer,
            learn_identity=identity.learn_peer,
            clock=clock.monotonic,
            rng=rng,
            ssl_server=ssl_server,
            ssl_client=ssl_client,
        )
        self.node = Node(
            settings,
            identity=identity,
            disk=disk,
            clock=clock.monotonic,
            wall_ms=clock.wall_ms,
            rng=rng,
            send=self.transport.send,
            dumper=dumper,
            push=self.transport.flush,
            wake=self.wake,
        )

    async def start(self) -> None:
        """Listen for peers, dial them, run the first round.

        Raises:
            OSError: the peer address cannot be listened on.
        """
        self._is_stopped = False
        await self.transport.start()
        self.wake()

    async def drain(self, timeout_s: float) -> None:
        """Take nothing new, hand leadership over, let what is under way be answered.

        Args:
            timeout_s: at the most, the hand-over included.
        """
        node, deadline = self.node, self._loop.time() + timeout_s
        node.drain()
        if node.engine.is_leader and node.settings.peers:
            done = self._loop.create_future()

            def on_reply(reply: Answered | Failed) -> None:
                if not done.done():
                    done.set_result(reply)

            node.transfer(None, on_reply)
            self.wake()
            await asyncio.wait([done], timeout=min(_HANDOVER_S_MAX, timeout_s))
        # Polled, so that a request costs nothing for the one time a process stops.
        while node.under_way and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Stop rounds and connections. Whoever still waits is told that it may have happened."""
        if self._is_closed:
            return
        # Also after a fatal error, which has stopped the rounds and nothing else.
        self._is_closed = self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._syncing is not None:
            await asyncio.wait([self._syncing])
        self._thread.shutdown()
        self.node.close()
        await self.transport.close()

    # ---- what the transport tells -----------------------------------------------------------

    def on_frame(self, peer: str, data: bytes) -> None:
        """One frame of an authenticated peer: it goes with the round that is due now."""
        self.node.receive(peer, data)
        self.wake()

    def on_connected(self, peer: str) -> None:
        """Our stream to `peer` is up."""
        self.node.connected(peer)
        self.wake()

    def on_disconnected(self, peer: str) -> None:
        """Our stream to `peer` is gone."""
        self.node.disconnected(peer)

    # ---- rounds -----------------------------------------------------------------------------

    def wake(self) -> None:
        """Run a round after what the loop has ready now: frames and requests share it."""
        if not self._round_is_due and not self._is_stopped:
            self._round_is_due = True
            if self._syncing is None:
                self._loop.call_soon(self._round)

    def _on_timer(self) -> None:
        self._timer = None
        self.wake()

    def _round(self) -> None:
        if self._syncing is not None:
            # Woken in the middle of the round whose sync is under way (an answer was followed by a
            # request, a parked one was given up): it stays due, and comes when that round has ended.
            return
        self._round_is_due = False
        if self._is_stopped:
            return
        try:
            if not self.node.begin_round():
                self._end_round()
            elif self._disk_s > _SLOW_DISK_S:
                # Meanwhile the loop takes requests: the next entry fills.
                self._syncing = self._loop.run_in_executor(self._thread, self._wait_for_disk)
                self._syncing.add_done_callback(self._on_synced)
            else:
                self._learn_disk(self._wait_for_disk())
                self._end_round()
        except BaseException as error:  # noqa: BLE001  (whatever it is, this node is done)
            self._fail(error)

    def _wait_for_disk(self) -> float:
        began = clock.monotonic()
        self.node.engine.wait_for_disk()
        return clock.monotonic() - began

    def _learn_disk(self, seconds: float) -> None:
        """A tenth of each new sync: one slow one among fast ones changes nothing."""
        self._disk_s += (min(seconds, 20 * _SLOW_DISK_S) - self._disk_s) / 10

    def _on_synced(self, done: asyncio.Future[float]) -> None:
        self._syncing = None
        if self._is_stopped:
            return
        # Looked at first: the end of this round may make one due and schedule it itself.
        is_due = self._round_is_due
        try:
            self._learn_disk(done.result())
            self._end_round()
        except BaseException as error:  # noqa: BLE001  (whatever it is, this node is done)
            self._fail(error)
            return
        if is_due:
            self._loop.call_soon(self._round)

    def _end_round(self) -> None:
        delay = self.node.end_round()
        # Now, and not in the loop's next turn: it is what others wait for.
        self.transport.flush()
        if delay <= 0:
            self.wake()
            return
        due = self._loop.time() + delay
        if self._timer is not None:
            # One that fires earlier costs an idle round; a new one for each would cost more.
            if self._timer_at <= due:
                return
            self._timer.cancel()
        self._timer, self._timer_at = self._loop.call_later(delay, self._on_timer), due

    def _fail(self, error: BaseException) -> None:
        self._is_stopped = True
        self._on_fatal(error)
