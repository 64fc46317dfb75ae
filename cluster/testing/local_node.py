"""A node without replication: the real machine and the real codec behind the node's face.

RULE: a double of agreement, not of behaviour. Every command is encoded, put into an entry and
applied by the machine that runs in production; only the log, the peers and the clock are missing.
Time stands still until `advance` is called.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from cluster.errors import CoterieError, NoLeader
from cluster.machine.commands import Abandon, Batch, Command, Group, Origin, Request
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome, Queued
from cluster.node import schedules
from cluster.node.peers import ClusterStatus, NodeStatus
from cluster.node.pending import Answered, Failed, OnReply
from cluster.node.settings import Counters
from cluster.wire import commands


@dataclass(slots=True)
class _Waiting:
    on_reply: OnReply
    is_parked: bool = False


class LocalNode:
    """One node, alone, that always leads unless it is told otherwise.

    Args:
        wall_ms: what the wall clock shows at the beginning, ms since 1970; from then on it goes
            with cluster time, and schedules are answered. None: it stands at 0, and nobody
            answers what scheduled tasks ask.

    Attributes:
        refuse_with: what `submit` raises instead of taking a command.
        fail_with: what commands and reads are answered with instead of being applied.
        is_silent: commands and reads are taken and never answered.
        taken: every command in the order it came.
        hung_up: handles given to `hang_up`.
        http, fronts: where it says that it listens.
    """

    def __init__(self, *, wall_ms: int | None = None) -> None:
        self.machine = Machine()
        self.counters = Counters()
        self.refuse_with: CoterieError | None = None
        self.fail_with: CoterieError | None = None
        self.is_silent = False
        self.leader: str | None = "n1"
        self.taken: list[Command] = []
        self.hung_up: list[int] = []
        self.http = "127.0.0.1:0"
        self.fronts = {"ticketd": "127.0.0.1:9000"}
        self._time_ms = 1_000
        self._wall_ahead_ms = None if wall_ms is None else wall_ms - self._time_ms
        self._slots_asked = 0
        self._index = 0
        self._next_seq = 1
        self._waiting: dict[int, _Waiting] = {}
        self._fresh: list[Request] = []
        self._listeners: dict[Callable[[], None], None] = {}

    def submit(
        self,
        command: Command,
        on_reply: OnReply,
        *,
        timeout_ms: int = 10_000,
        key: str | None = None,
        fingerprint: bytes | None = None,
        patient: bool = False,
    ) -> int:
        if self.refuse_with is not None:
            raise self.refuse_with
        seq = self._number()
        self.taken.append(command)
        loop = asyncio.get_running_loop()
        if self.is_silent:
            return seq
        if self.fail_with is not None:
            loop.call_soon(on_reply, Failed(self.fail_with))
            return seq
        copy = commands.decode(commands.encode(command))
        self._waiting[seq] = _Waiting(on_reply)
        self._fresh.append(Request(seq, copy, key, fingerprint))
        if len(self._fresh) == 1:
            loop.call_soon(self._seal)
        return seq

    def hang_up(self, handle: int, /) -> None:
        self.hung_up.append(handle)
        waiting = self._waiting.get(handle)
        if waiting is not None:
            waiting.on_reply = _ignore
            if waiting.is_parked:
                self._fresh.append(Request(self._number(), Abandon(handle)))
                self._seal()

    def read(self, on_ready: OnReply, *, timeout_ms: int = 10_000) -> None:
        loop = asyncio.get_running_loop()
        if self.is_silent:
            return
        if self.fail_with is not None:
            loop.call_soon(on_ready, Failed(self.fail_with))
        elif self.leader is None:
            loop.call_soon(on_ready, Failed(NoLeader("nobody leads")))
        else:
            loop.call_soon(on_ready, Answered(None, self._index))

    def transfer(self, to: str | None, on_reply: OnReply) -> None:
        if self.fail_with is not None:
            on_reply(Failed(self.fail_with))
            return
        self.leader = to or self.leader
        on_reply(Answered(None, self._index))

    def advance(self, ms: int) -> None:
        """Let cluster time pass; every deadline on the way gets its own entry."""
        until = self._time_ms + ms
        while (due_ms := self.next_due_ms()) is not None and due_ms <= until:
            self._time_ms = max(self._time_ms, due_ms)
            self._apply(())
        self._time_ms = until

    def next_due_ms(self) -> int | None:
        """Cluster time at which something happens by itself; None: nothing ever does."""
        due_ms = self.machine.next_deadline_ms()
        wall_due_ms = self.machine.next_wall_ms()
        if self._wall_ahead_ms is None or wall_due_ms is None:
            return due_ms
        slot_ms = wall_due_ms - self._wall_ahead_ms
        return slot_ms if due_ms is None else min(due_ms, slot_ms)

    def wall_ms(self) -> int:
        """What the wall clock shows."""
        return 0 if self._wall_ahead_ms is None else self._time_ms + self._wall_ahead_ms

    def carry_out(self, command: Command) -> Outcome:
        """Apply a command of nobody's at once, and return what came of it."""
        seq = self._number()
        return self._apply((Request(seq, command),))[seq]

    def on_applied(self, callback: Callable[[], None], /) -> Callable[[], None]:
        self._listeners[callback] = None
        return lambda: self._listeners.pop(callback, None)

    def now_ms(self) -> int:
        return self._time_ms

    @property
    def applied_index(self) -> int:
        return self._index

    @property
    def under_way(self) -> int:
        return sum(not waiting.is_parked for waiting in self._waiting.values())

    @property
    def parked(self) -> int:
        return len(self._waiting) - self.under_way

    def status(self) -> ClusterStatus:
        why = None if self.leader is not None else "no leader is known"
        here = NodeStatus(
            id="n1",
            http=self.http,
            state="leader" if self.leader == "n1" else "follower",
            applied=self._index,
            lag=0,
            connected=True,
            last_heard_ms=0,
            digest=self.machine.digest,
            version="0",
            fronts=self.fronts,
        )
        return ClusterStatus(
            cluster="test",
            node="n1",
            leader=self.leader,
            term=1,
            commit=self._index,
            applied=self._index,
            digest=self.machine.digest,
            role=here.state,
            ready=why is None,
            why_not_ready=why,
            stale_ms=0 if self.leader is not None else 1234,
            nodes=(here,),
        )

    def _number(self) -> int:
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        return seq

    def _seal(self) -> None:
        fresh, self._fresh = self._fresh, []
        self._apply(tuple(fresh))

    def _apply(self, requests: tuple[Request, ...]) -> dict[int, Outcome]:
        """Apply one entry, tell who waits, and return the answers to those for whom nobody does."""
        self._index += 1
        unheard: dict[int, Outcome] = {}
        # A parked request is not settled: acknowledged, it would leave its queue.
        ack = min((*self._waiting, *(request.seq for request in requests)), default=self._next_seq)
        groups = (Group(Origin("n1", 1), ack, requests),) if requests else ()
        for answer in self.machine.apply(self._index, Batch(self._time_ms, self.wall_ms(), groups)):
            seq = answer.request.seq
            waiting = self._waiting.get(seq)
            if waiting is None:
                unheard[seq] = answer.outcome
            elif isinstance(answer.outcome, Queued):
                waiting.is_parked = True
            else:
                del self._waiting[seq]
                waiting.on_reply(Answered(answer.outcome, self._index))
        for listener in list(self._listeners):
            listener()
        self._answer_schedules()
        return unheard

    def _answer_schedules(self) -> None:
        """As a leader does: tell tasks when they are due next."""
        if self._wall_ahead_ms is None:
            return
        commands: list[Command] = []
        for wanted in self.machine.tasks.wanting(self._slots_asked):
            self._slots_asked = wanted.revision
            try:
                commands.append(schedules.answer(wanted, self.wall_ms()))
            except ValueError:
                continue
        if commands:
            self._apply(tuple(Request(self._number(), command) for command in commands))


def _ignore(reply: Answered | Failed) -> None:
    """Nobody listens."""
