"""Clients: people with sessions, under every kind of bad luck, and always by retrying.

RULE: speak to nodes only through `Host.ask` and `Host.hang_up`, like an HTTP gateway would. What
they do is their workload's; all truth about outcomes is checked where the reply leaves the node.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cluster.errors import CoterieError
from cluster.machine.commands import (
    CloseSession,
    Command,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
)
from cluster.machine.outcome import (
    Opened,
    Outcome,
    Renewed,
    RenewedMany,
    SessionExpired,
    SessionNotFound,
)
from cluster.node.pending import Answered, Failed
from tests.simulation.network import MS, SECOND
from tests.simulation.world import READ, Call, Host, World

if TYPE_CHECKING:
    from tests.simulation.workloads.base import Workload

OVERDUE_US = 4 * SECOND
"""A reply may be this much later than its own time limit before it counts as missing."""


@dataclass(slots=True)
class Pause:
    """Wait."""

    us: int


@dataclass(slots=True)
class Ask:
    """Send one request to one node and wait for its reply.

    `patience_us`: hang up after so long.
    """

    host: Host
    what: Command | str
    key: str | None = None
    timeout_ms: int = 3_000
    patience_us: int | None = None


T = TypeVar("T")
Effect = Pause | Ask
Story = Generator[Effect, Any, None]
Part = Generator[Effect, Any, Any]


class Task:
    """Runs one story: a generator of effects that is sent their results."""

    def __init__(self, world: World, story: Story, lane: int) -> None:
        self._world = world
        self._story = story
        self._lane = lane
        self._resume(None)

    def _resume(self, value: Any) -> None:
        try:
            effect = self._story.send(value)
        except StopIteration:
            return
        if isinstance(effect, Pause):
            self._world.after(effect.us, self._resume, None, lane=self._lane)
        else:
            self._ask(effect)

    def _ask(self, ask: Ask) -> None:
        world = self._world
        wait_ms: int = getattr(ask.what, "wait_ms", 0)
        is_done = False

        def on_done(reply: Answered | Failed | None) -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                self._resume(reply)

        call = Call(
            what=ask.what,
            key=ask.key,
            timeout_ms=ask.timeout_ms,
            on_done=on_done,
            began_us=world.now_us,
            due_us=world.now_us + (ask.timeout_ms + wait_ms) * MS * 5 // 4 + OVERDUE_US,
        )
        if not ask.host.ask(call):
            world.after(1 * MS, on_done, None, lane=self._lane)
            return
        if ask.patience_us is not None:

            def hang_up() -> None:
                if not is_done:
                    ask.host.hang_up(call)
                    on_done(None)

            world.after(ask.patience_us, hang_up, lane=self._lane)


class Client:
    """One person with things to want, and bad manners of one kind or another.

    Attributes:
        home: the node that is asked, as long as it answers.
        is_stopped: nothing new is to be asked.
    """

    def __init__(self, world: World, number: int, workloads: Sequence[Workload]) -> None:
        self.world = world
        self._workloads = workloads
        self._turns = [workload.turn for workload in workloads if workload.turn is not None]
        self.name = f"c{number}"
        self.lane = 50 + number
        self.rng = world.lots(f"client {number}")
        self.home = self.rng.choice(world.names)
        self.is_stopped = False
        self._keys = 0
        Task(world, self._live(), self.lane)

    def stop(self) -> None:
        """Ask nothing new."""
        self.is_stopped = True

    # ---- how to ask -------------------------------------------------------------------------

    def host(self) -> Host:
        """The node to ask next; now and then another one."""
        if self.rng.random() < 0.1:
            self.home = self.rng.choice(self.world.names)
        return self.world.hosts[self.home]

    def _key(self) -> str:
        self._keys += 1
        return f"{self.name}-{self._keys}"

    def call(self, command: Command, *, patience_us: int | None = None) -> Part:
        """Ask until there is an answer, always under one key, at one node or another.

        Returns:
            The outcome, or None where the client gave up or was asked to stop.
        """
        rng = self.rng
        key = self._key() if rng.random() < self.world.plan.key_share else None
        timeout_ms = rng.choice((300, 1_000, 3_000))
        for attempt in range(30):
            reply = yield Ask(self.host(), command, key, timeout_ms, patience_us)
            if isinstance(reply, Answered):
                return reply.outcome
            if self.is_stopped:
                return None
            if isinstance(reply, Failed):
                error: CoterieError = reply.error
                if not error.definite and key is None:
                    return None  # Without a key a repeat may do it twice: give up.
            elif key is None or patience_us is not None:
                return None
            # Unsure or refused: perhaps another node knows more.
            if rng.random() < 0.6:
                self.home = rng.choice(self.world.names)
            yield Pause(rng.randrange(10 * MS, 200 * MS) * (1 + attempt // 5))
        return None

    def think(self) -> Pause:
        """Between two things."""
        return Pause(1 + int(self.rng.expovariate(1.0 / self.world.plan.think_us)))

    # ---- what to ask ------------------------------------------------------------------------

    def _live(self) -> Story:
        rng = self.rng
        yield Pause(rng.randrange(500 * MS))
        while not self.is_stopped:
            workload = self._pick(self._workloads)
            if workload.live is None:
                yield from self._live_in_session()
            else:
                yield from workload.live(self)
                yield self.think()

    def _pick(self, among: Sequence[T]) -> T:
        # One alone is no draw: seeds of a single workload stay what they were.
        return among[0] if len(among) == 1 else self.rng.choice(among)

    def open(self, ttl_ms: int) -> Part:
        """Open a session, and have it kept alive, or not, as its lot says.

        Returns:
            The `Session`, or None where it was not to be had.
        """
        nonce = f"{self.rng.getrandbits(64):x}"
        opened = yield from self.call(OpenSession(nonce, ttl_ms, name=self.name))
        if not isinstance(opened, Opened):
            return None
        session = Session(self, opened.session, ttl_ms)
        Task(self.world, session.keep(), self.lane)
        return session

    def _live_in_session(self) -> Part:
        session = yield from self.open(self.rng.choice((600, 1_500, 3_000, 8_000)))
        if session is None:
            yield self.think()
            return
        for _ in range(self.rng.randrange(2, 14)):
            if session.is_over or self.is_stopped:
                break
            yield from self._do(session)
            yield self.think()
        yield from session.end()

    def _do(self, session: Session) -> Part:
        if self.rng.random() < self.world.plan.read_share:
            yield from self.read()
        else:
            yield from self._pick(self._turns)(self, session)

    def read(self) -> Part:
        """A read of state, which must miss nothing."""
        yield Ask(self.host(), READ, timeout_ms=self.rng.choice((300, 2_000)))


class Session:
    """A client's session and the task that keeps it alive."""

    def __init__(self, client: Client, session_id: str, ttl_ms: int) -> None:
        self.client = client
        self.id = session_id
        self.ttl_ms = ttl_ms
        self.is_over = False
        # Some are never renewed, some die in the middle.
        rng = client.rng
        self._renewals = rng.choice((0, 1, 5, 1_000))

    def note(self, outcome: Outcome | None) -> None:
        """See whether an answer says that the session has ended."""
        if isinstance(outcome, (SessionExpired, SessionNotFound)):
            self.is_over = True

    def keep(self) -> Story:
        """Renew it every third of its TTL."""
        client = self.client
        for _ in range(self._renewals):
            yield Pause(self.ttl_ms * MS // 3)
            if self.is_over or client.is_stopped:
                return
            host = client.world.hosts[client.home]
            if client.rng.random() < 0.7:
                reply = yield Ask(host, KeepAlive(self.id), timeout_ms=1_000)
            else:
                reply = yield Ask(host, KeepAliveMany((self.id, "0-none")), timeout_ms=1_000)
            if isinstance(reply, Answered):
                self.note(reply.outcome)
                if isinstance(reply.outcome, RenewedMany) and self.id in reply.outcome.gone:
                    self.is_over = True
                elif isinstance(reply.outcome, Renewed):
                    assert reply.outcome.session == self.id

    def end(self) -> Part:
        """Close it, or just walk away."""
        client = self.client
        if not self.is_over and client.rng.random() < 0.6:
            yield from client.call(CloseSession(self.id))
        self.is_over = True


class Probe:
    """After the storm: one write through each node, to see that the cluster works again."""

    def __init__(self, world: World, host: Host, rng: random.Random) -> None:
        self.is_answered = False
        self._world = world
        self.host = host
        self._rng = rng
        Task(world, self._story(), 90)

    def _story(self) -> Story:
        number = 0
        while not self.is_answered:
            number += 1
            command = OpenSession(f"{self._rng.getrandbits(64):x}", 60_000, name="probe")
            reply = yield Ask(self.host, command, f"probe-{self.host.name}", 2_000)
            if isinstance(reply, Answered):
                self.is_answered = isinstance(reply.outcome, Opened)
            yield Pause(50 * MS)
