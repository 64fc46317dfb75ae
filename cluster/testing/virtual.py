"""A cluster of one node in this process, whose time stands still until it is passed.

RULE: real machine, codec, gateway and client over a real loopback socket; of agreement, disk and
clock there is nothing. Who needs those starts processes (`processes.py`).

The node runs in a thread of its own, with its own loop: it answers tests without any loop, tests on
whatever loop, and a test whose loop is blocked. So `advance` is the same plain call everywhere.

Time passes in steps. Before each step that would bring a living client's lease near its end, its
renewal is applied, as the client itself would have had it; and before a client that is cut off loses
something by its own clock, that client is told. So a client and the cluster never disagree on what
it holds, unless the test has paused it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from cluster.client.core import Policy
from cluster.client.durations import Length, ms_of
from cluster.client.keeping import Keeper, keepers_of
from cluster.client.session import Session
from cluster.client.sync.portal import Closing, Portal
from cluster.gateway.server import NATIVE_ROUTES, Gateway, GatewaySettings
from cluster.machine.commands import Command
from cluster.machine.commands.jobs import TouchJob
from cluster.machine.commands.sessions import KeepAlive
from cluster.machine.outcome.jobs import Touched
from cluster.machine.outcome.sessions import Renewed
from cluster.testing.clients import VirtualClient, VirtualSyncClient, Way
from cluster.testing.faults import Faults
from cluster.testing.local_node import LocalNode
from cluster.testing.server import QuickGateway

T = TypeVar("T")

HOST = "127.0.0.1"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""What the wall clock shows at the beginning of each test."""

LOOK_S_MOST = 10.0
CHECK_MS = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


class VirtualCluster(Closing):
    """One node and its clients. Use it as a context manager, or close it.

        with VirtualCluster() as coterie, coterie.sync_client() as client:
            with client.session(ttl="10s") as session, session.lock("orders") as lock:
                coterie.advance("1h")
                assert lock.state == "held"

    Args:
        wall: what the wall clock shows at the beginning; schedules go by it.
    """

    def __init__(self, *, wall: datetime = BEGIN):
        self._portal = Portal()
        self._faults = Faults()
        self._node = LocalNode(wall_ms=(wall - _EPOCH) // _MS)
        # What clients see: a step behind the node while time is passed.
        self._now_ms = self._node.now_ms()
        self._ways: weakref.WeakSet[Way] = weakref.WeakSet()
        self._all_cut = False
        self._sync_clients: list[VirtualSyncClient] = []
        self._lock = threading.Lock()
        self._passing = threading.Lock()
        self._skips = 0
        self._skip_is_due = False
        # Why; they are told so in their loops.
        self._refused: weakref.WeakKeyDictionary[Keeper, str] = weakref.WeakKeyDictionary()
        self._gateway: Gateway | None = None
        self._url = ""
        try:
            self._portal.run(self._start())
        except BaseException:
            self._portal.close()
            raise

    def close(self) -> None:
        """Close the sync clients that are still open, then the node. May be called again."""
        if self._portal.is_closed:
            return
        for client in self._sync_clients:
            client.close()
        try:
            self._run(self._stop())
        finally:
            self._portal.close()

    # Clients.

    @property
    def url(self) -> str:
        """Base URL of the node's API, for programs that make their own requests."""
        return self._url

    def client(
        self,
        endpoints: str | Iterable[str] | None = None,
        *,
        policy: Policy | None = None,
        timeout_ms: int = 10_000,
        cut: bool = False,
        paused: bool = False,
    ) -> VirtualClient:
        """An asyncio client that knows the time of this cluster.

        It takes the place of `Client` where a program makes one: a test may give this function to
        the program instead. Failures are told at the first attempt, as nothing else would come of
        a second.

        Args:
            endpoints: not looked at; it is always this node.
            cut, paused: as by `cut` and `pause`, from the beginning.
        """
        way = self._way(cut=cut, paused=paused)
        return VirtualClient(way, self._url, policy=policy, timeout_ms=timeout_ms)

    def sync_client(
        self,
        endpoints: str | Iterable[str] | None = None,
        *,
        policy: Policy | None = None,
        timeout_ms: int = 10_000,
        cut: bool = False,
        paused: bool = False,
    ) -> VirtualSyncClient:
        """As `client`, without `async`. Whoever does not close it has it closed with the cluster."""
        way = self._way(cut=cut, paused=paused)
        made = VirtualSyncClient(way, self._url, policy=policy, timeout_ms=timeout_ms)
        self._sync_clients.append(made)
        return made

    # Time.

    @property
    def now_ms(self) -> int:
        """Cluster time, which is what the clients' clocks show."""
        return self._now_ms

    @property
    def wall(self) -> datetime:
        """The wall clock, by which schedules go; it moves with cluster time."""
        return _EPOCH + self._node.wall_ms() * _MS

    def advance(self, length: Length) -> None:
        """Let time pass at once: sessions end, waits run out, delayed jobs come.

        What living clients hold is kept alive meanwhile. A client that is cut off is told of grace
        and loss when its own clock says so; a paused one is told nothing. A client whose event
        loop does not run cannot keep anything alive. In a test that is a coroutine this is a plain
        call, too.

        Args:
            length: such as "30s", a timedelta, or milliseconds.
        """
        passed_ms = ms_of(length)
        with self._one_at_a_time():
            self._pass_until(self._now_ms + passed_ms)

    def advance_to(self, wall: datetime) -> None:
        """Let time pass until the wall clock shows this.

        Raises:
            ValueError: it is past, or has no time zone.
        """
        if wall.tzinfo is None:
            raise ValueError(f"{wall} has no time zone; write datetime(…, tzinfo=UTC)")
        if wall < self.wall:
            raise ValueError(f"{wall} is past: the wall clock shows {self.wall}")
        self.advance((wall - self.wall) // _MS)

    @contextlib.contextmanager
    def skip_waits(self) -> Iterator[None]:
        """Inside, nobody waits in a queue: as soon as somebody has to, time passes, from one event
        to the next, until the wait is over or nothing more would happen.

        For tests of one thread, which cannot advance while they wait. A worker or runner in the
        background waits always: time would race.
        """
        self._run(self._skip(1))
        try:
            yield
        finally:
            self._run(self._skip(-1))

    def until_waiting(self, count: int = 1, *, within_s: float = 10.0) -> None:
        """Return once so many requests stand in queues of the cluster.

        Args:
            within_s: of real time.

        Raises:
            TimeoutError: there were not so many.
            RuntimeError: called in a running event loop, in which those requests could not begin:
                use `async_until_waiting`.
        """
        if _running_loop() is not None:
            raise RuntimeError(
                "this would block the event loop: use `await coterie.async_until_waiting()`"
            )
        self._run(self._until_waiting(count, within_s))

    async def async_until_waiting(self, count: int = 1, *, within_s: float = 10.0) -> None:
        """As `until_waiting`, in a coroutine."""
        await asyncio.to_thread(self.until_waiting, count, within_s=within_s)

    @property
    def waiting(self) -> int:
        """How many requests stand in queues of the cluster."""
        return self._node.parked

    # What goes wrong.

    def cut(self, client: VirtualClient | VirtualSyncClient | None = None) -> None:
        """From here on a client gets no answer; all clients, where none is named, and new ones.

        Its calls fail as they would at the end of its patience, `Timeout`, but at once. It renews
        nothing, so that by `advance` it loses what it holds, and knows it in time.
        """
        for way in self._ways_of(client):
            way.cut()
        self._all_cut = self._all_cut or client is None

    def heal(self, client: VirtualClient | VirtualSyncClient | None = None) -> None:
        """End a cut. What a client has not lost meanwhile, it renews at once."""
        if client is None:
            self._all_cut = False
        self._change(Way.heal, self._ways_of(client))

    def pause(self, client: VirtualClient | VirtualSyncClient) -> None:
        """Have a client's clock stand, as that of a process that is stopped in the middle of a line.

        It renews nothing and believes that it still holds what it held, while by `advance` the
        cluster gives it to others: this is where fencing tokens are needed.
        """
        for way in self._ways_of(client):
            way.pause()

    def resume(self, client: VirtualClient | VirtualSyncClient) -> None:
        """Let a paused client see what time it is; it finds out at once what it has lost."""
        ways = self._ways_of(client)
        self._change(Way.resume, ways)
        self._have_look(keeper for way in ways for keeper in keepers_of(way.clock))

    def fail_next(self, code: str, *, times: int = 1, on: str = "") -> None:
        """Have the next requests fail, without being carried out.

        Args:
            code: of a problem document, such as "overloaded", "no_leader" or "timeout".
            times: how many requests.
            on: only those whose method and path contain this, as in the API's table:
                "POST /v1/locks/{name}/acquire".

        Raises:
            ValueError: there is no such code.
        """
        self._run(self._plant(code, on, times))

    def lose_next(self, *, times: int = 1, on: str = "") -> None:
        """Have the answers to the next commands lost: they are carried out, and their callers get
        `Timeout`, which is indefinite. Refusals are told.
        """
        self._run(self._plant(None, on, times))

    def clear_faults(self) -> None:
        """Take back what was planted and not met."""
        self._run(self._clear())

    # How time passes.

    def _change(self, change: Callable[[Way], None], ways: Iterable[Way]) -> None:
        """Let clients live again, and renew before they can see that it is time to."""

        async def changed() -> list[Keeper]:
            for way in ways:
                change(way)
            return self._pass(self._now_ms)

        with self._one_at_a_time():
            self._have_look(self._run(changed()))

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Pass time in one thread at a time, and not while that tells what has passed.

        Raises:
            RuntimeError: called by a callback that waits for its own end.
        """
        if not self._passing.acquire(timeout=LOOK_S_MOST):
            raise RuntimeError(
                "time is being passed already; a callback such as on_state must not pass any, as it "
                "is called meanwhile"
            )
        try:
            yield
        finally:
            self._passing.release()

    def _pass_until(self, until_ms: int) -> None:
        while changed := self._run(self._in_thread(until_ms)):
            self._have_look(changed)
        self._check_again()

    async def _in_thread(self, until_ms: int) -> list[Keeper]:
        return self._pass(until_ms)

    def _pass(self, until_ms: int) -> list[Keeper]:
        """Pass time up to here, or to where keepers have something to tell: those are returned."""
        while self._now_ms < until_ms:
            if changed := self._step(until_ms):
                return changed
        due = [
            keeper
            for keeper in self._keepers()[0]
            # One that was cut off has tried in vain just now, and would soon again.
            if keeper.lease.try_at_ms <= self._now_ms or keeper.standing == "grace"
        ]
        return [keeper for keeper in due if self._renew(keeper)]

    def _step(self, until_ms: int) -> list[Keeper]:
        """Pass time up to the next moment at which a keeper needs something."""
        living, dying = self._keepers()
        late = [keeper for keeper in living if keeper.lease.term_at_ms - 1 <= self._now_ms]
        changed = [keeper for keeper in late if self._renew(keeper)]
        moments = {keeper: keeper.lease.changes_at_ms(self._now_ms) for keeper in dying}
        renewals = (keeper.lease.term_at_ms - 1 for keeper in living)
        later = [moment for moment in (*moments.values(), *renewals) if moment > self._now_ms]
        now_ms = min([until_ms, *later])
        self._node.advance(now_ms - self._node.now_ms())
        for keeper in living:
            if keeper.lease.term_at_ms - 1 <= now_ms:
                self._renew(keeper)
        # Last, so that no client in another thread sees a time for which it has no lease yet.
        self._now_ms = now_ms
        return changed + [keeper for keeper, moment in moments.items() if moment == now_ms]

    def _keepers(self) -> tuple[list[Keeper], list[Keeper]]:
        """Those that renew, and those that will lose what they keep and be told."""
        living: list[Keeper] = []
        dying: list[Keeper] = []
        for way in self._all_ways():
            if way.is_paused:
                continue
            for keeper in keepers_of(way.clock):
                loop = keeper.loop
                if keeper.standing == "lost" or not loop.is_running() or keeper in self._refused:
                    continue
                renews = not way.is_cut and _renewal(keeper) is not None
                (living if renews else dying).append(keeper)
        return living, dying

    def _renew(self, keeper: Keeper) -> bool:
        """What the client would have done, if its timers could keep up; True: it is to be told."""
        was_held = keeper.standing == "held"
        command = _renewal(keeper)
        assert command is not None
        outcome = self._node.carry_out(command)
        if isinstance(outcome, Renewed | Touched):
            sent_ms = self._node.now_ms()
            lease = keeper.lease.renewed(expires_in_ms=outcome.expires_in_ms, sent_ms=sent_ms)
            keeper.take(lease)
            return not was_held
        self._refused[keeper] = f"the cluster has it no more ({type(outcome).__name__})"
        return True

    def _have_look(self, changed: Iterable[Keeper]) -> None:
        """Have keepers look at the clock now, each in its own loop, and wait for it."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Keeper]] = {}
        for keeper in changed:
            by_loop.setdefault(keeper.loop, []).append(keeper)
        for loop, those in by_loop.items():
            if loop is _running_loop():
                self._look(those)
            elif loop.is_running():
                _in(loop, partial(self._look, those))

    def _look(self, those: Iterable[Keeper]) -> None:
        """In their loop."""
        for keeper in those:
            if (why := self._refused.get(keeper)) is not None:
                keeper.lose(why)
            else:
                keeper.look()

    def _check_again(self) -> None:
        """What a client does with every renewal: ask for what others can take away from it."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Session]] = {}
        for way in self._all_ways():
            for session in () if way.is_paused or way.is_cut else way.sessions():
                by_loop.setdefault(session.keeper.loop, []).append(session)
        for loop, sessions in by_loop.items():
            if loop is _running_loop():
                for session in sessions:
                    session.behind(loop.create_task(session.check_again(CHECK_MS)))
            elif loop.is_running():
                checking = _check_all(sessions)
                asyncio.run_coroutine_threadsafe(checking, loop).result(LOOK_S_MOST)

    # How waits are skipped.

    async def _skip(self, more: int) -> None:
        self._skips += more
        self._skip_soon()

    def _skip_soon(self) -> None:
        if self._skips and self._node.parked and not self._skip_is_due:
            self._skip_is_due = True
            asyncio.get_running_loop().call_soon(self._skip_once)

    def _skip_once(self) -> None:
        self._skip_is_due = False
        due_ms = self._node.next_due_ms()
        if not self._skips or not self._node.parked or due_ms is None:
            return
        for keeper in self._pass(max(due_ms, self._now_ms)):
            keeper.loop.call_soon_threadsafe(self._look, (keeper,))
        self._skip_soon()

    # In the node's thread.

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        if self._portal.is_closed:
            doing.close()
            raise RuntimeError("this cluster is closed")
        return self._portal.run(doing)

    async def _start(self) -> None:
        routes = self._faults.around(NATIVE_ROUTES)
        self._gateway = QuickGateway(self._node, GatewaySettings(linger_ms=20), routes=routes)
        await self._gateway.start(HOST, 0)
        host, port = self._gateway.addresses[0]
        self._node.http, self._node.fronts = f"{host}:{port}", {}
        self._url = f"http://{host}:{port}"
        self._node.on_applied(self._skip_soon)

    async def _stop(self) -> None:
        if self._gateway is not None:
            await self._gateway.stop(grace_s=0.0)

    async def _until_waiting(self, count: int, within_s: float) -> None:
        moved = asyncio.Event()
        forget = self._node.on_applied(moved.set)
        try:
            async with asyncio.timeout(within_s):
                while self._node.parked < count:
                    moved.clear()
                    await moved.wait()
        except TimeoutError:
            found = self._node.parked
            message = f"{found} requests stand in queues, not {count}, after {within_s:g} s"
            raise TimeoutError(message) from None
        finally:
            forget()

    async def _plant(self, code: str | None, on: str, times: int) -> None:
        if code is None:
            self._faults.lose(on=on, times=times)
        else:
            self._faults.fail(code, on=on, times=times)

    async def _clear(self) -> None:
        self._faults.clear()

    # Ways.

    def _way(self, *, cut: bool, paused: bool) -> Way:
        way = Way(lambda: self._now_ms, self._url)
        with self._lock:
            self._ways.add(way)
        if cut or self._all_cut:
            way.cut()
        if paused:
            way.pause()
        return way

    def _all_ways(self) -> list[Way]:
        with self._lock:
            return list(self._ways)

    def _ways_of(self, client: VirtualClient | VirtualSyncClient | None) -> list[Way]:
        if client is None:
            return list(self._ways)
        if (
            not isinstance(client, VirtualClient | VirtualSyncClient)
            or client.way not in self._ways
        ):
            raise TypeError(f"{client!r} was not made by `client` or `sync_client` of this cluster")
        return [client.way]


async def _check_all(sessions: Iterable[Session]) -> None:
    for session in sessions:
        await session.check_again(CHECK_MS)


def _renewal(keeper: Keeper) -> Command | None:
    """The command by which its client renews what it keeps; None: it cannot be renewed."""
    kind, name, token = keeper.kind, keeper.name, keeper.token
    if kind == "session":
        return KeepAlive(name)
    if kind == "job" and token is not None:
        return TouchJob(int(name), token)
    return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Of this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _in(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have something called in another thread's loop, and wait for it.

    Raises:
        RuntimeError: that loop is blocked.
    """
    done = threading.Event()

    def run() -> None:
        try:
            call()
        finally:
            done.set()

    loop.call_soon_threadsafe(run)
    if not done.wait(LOOK_S_MOST):
        raise RuntimeError(
            f"the event loop of a client is blocked for {LOOK_S_MOST:g} s: in a coroutine, call "
            "`advance` in the loop's own thread, or by `asyncio.to_thread`"
        )
