"""The second opinion is fed bad answers and must complain, each time by the right name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cluster import errors
from cluster.machine.commands import (
    AcquireLock,
    CloseSession,
    Command,
    KeepAlive,
    OpenSession,
    Origin,
    ReleaseLock,
    RequestId,
)
from cluster.machine.machine import Machine
from cluster.machine.outcome import (
    Answer,
    Closed,
    Granted,
    LockHeld,
    Opened,
    Outcome,
    Queued,
    Released,
    Renewed,
)
from cluster.wire import batch, commands
from cluster.wire.frames import ForwardedRequest
from tests.simulation.timeline import Timeline
from tests.simulation.workloads.locks import LockBook


class Bench:
    """A timeline with a machine that can be made to lie."""

    def __init__(self) -> None:
        self.now_us = 0
        self.complaints: list[str] = []

        def complain(law: str, _: str) -> None:
            self.complaints.append(law)

        self.timeline = Timeline(lambda: self.now_us, complain, [LockBook(complain)])
        self.index = 1
        self.seq = 0
        self.now_ms = 0

    def ask(self, command: Command, key: str | None = None) -> tuple[RequestId, ForwardedRequest]:
        """One request of node a."""
        self.seq += 1
        request = RequestId("a", 1, self.seq)
        self.timeline.submitted(request, self.now_us)
        body = commands.encode(command)
        fingerprint = None if key is None else key.encode()
        return request, ForwardedRequest(self.seq, body, key, fingerprint)

    def commit(self, *asked: tuple[RequestId, ForwardedRequest], at_ms: int = 0) -> None:
        """One entry with these requests."""
        self.index += 1
        self.now_ms = max(self.now_ms, at_ms)
        requests = [request for _, request in asked]
        groups = [batch.EncodedGroup(Origin("a", 1), 0, requests)] if requests else []
        payload = batch.encode(self.now_ms, 0, groups)
        self.timeline.commit(self.index, 1, b"\x00" + payload)

    def do(self, command: Command, at_ms: int = 0, key: str | None = None) -> RequestId:
        asked = self.ask(command, key)
        self.commit(asked, at_ms=at_ms)
        return asked[0]

    def open(self, ttl_ms: int = 5_000) -> str:
        """A session."""
        request = self.do(OpenSession(f"nonce{self.index}", ttl_ms))
        outcome = self.timeline.machine.answer(request)
        assert isinstance(outcome, Opened)
        return outcome.session

    def outcome(self, request: RequestId) -> Outcome:
        outcome = self.timeline.machine.answer(request)
        assert outcome is not None
        return outcome

    def lie(self, answer: Callable[[RequestId], Outcome]) -> None:
        """From now on the machine answers the requests of an entry so, and does nothing."""
        machine = self.timeline.machine

        def apply(index: int, entry: Any) -> list[Answer]:
            machine.skip(index)
            machine.core.now_ms = max(machine.now_ms, entry.now_ms)
            ids = [
                RequestId(group.origin.node, group.origin.boot, request.seq)
                for group in entry.groups
                for request in group.requests
            ]
            return [Answer(request, answer(request)) for request in ids]

        self.timeline.machine = Puppet(machine, apply)  # type: ignore[assignment]


class Puppet:
    """A machine whose `apply` is another's."""

    def __init__(self, machine: Machine, apply: Callable[..., list[Answer]]) -> None:
        self._machine = machine
        self.apply = apply

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)


@pytest.fixture
def bench() -> Bench:
    """An empty timeline."""
    return Bench()


def test_a_good_history_passes(bench: Bench) -> None:
    """Sessions, locks, queues, repeats, expiry: nothing to complain of."""
    one, two = bench.open(5_000), bench.open(9_000)
    bench.do(AcquireLock(one, "orders"), at_ms=10, key="k1")
    bench.do(AcquireLock(one, "orders"), at_ms=11, key="k1")
    waiting = bench.do(AcquireLock(two, "orders", wait_ms=60_000), at_ms=20)
    assert isinstance(bench.outcome(waiting), Queued)
    bench.do(KeepAlive(two), at_ms=4_000)
    bench.now_us = 6_000_000
    bench.commit(at_ms=5_001)
    granted = bench.outcome(waiting)
    assert isinstance(granted, Granted)
    bench.timeline.acknowledge(waiting, granted, bench.index)
    bench.do(ReleaseLock(two, "orders", granted.token))
    bench.do(CloseSession(two))
    bench.timeline.read_served("a", bench.index - 2, bench.index)
    assert bench.complaints == []
    assert bench.timeline.expired == 1


def test_much_may_happen_in_one_entry(bench: Bench) -> None:
    """A release and the end of its session; a grant that does not see the entry's end."""
    one, two = bench.open(), bench.open()
    bench.do(AcquireLock(one, "orders"))
    token = bench.timeline.machine.locks.info("orders", 0).holders[0][1]
    bench.commit(
        bench.ask(ReleaseLock(one, "orders", token)),
        bench.ask(CloseSession(one)),
        bench.ask(AcquireLock(two, "orders"), key="k"),
        bench.ask(AcquireLock(two, "orders"), key="k"),
        bench.ask(CloseSession(two)),
    )
    assert bench.complaints == []


def test_a_no_op_moves_the_position_only(bench: Bench) -> None:
    """A new leader's first entry has a digest too."""
    bench.open()
    before = bench.timeline.digest_at(bench.index)
    bench.index += 1
    bench.timeline.commit(bench.index, 2, b"\x01")
    assert bench.timeline.digest_at(bench.index) == before


def test_an_answer_that_no_entry_gave_is_seen(bench: Bench) -> None:
    """An acknowledgement before the commit."""
    request, _ = bench.ask(OpenSession("n", 1_000))
    bench.timeline.acknowledge(request, Opened("2-n", 1_000, 2), 2)
    assert bench.complaints == ["acknowledged means committed"]


def test_another_answer_than_the_entry_s_is_seen(bench: Bench) -> None:
    """The client must be told what the log says."""
    session = bench.open()
    request = bench.do(AcquireLock(session, "orders"))
    bench.timeline.acknowledge(request, Granted("orders", session, 99, False), bench.index)
    assert bench.complaints == ["acknowledged means committed"]


def test_a_position_before_the_entry_is_seen(bench: Bench) -> None:
    """An answer reflects at least its own entry."""
    session = bench.open()
    request = bench.do(KeepAlive(session))
    bench.timeline.acknowledge(request, bench.outcome(request), bench.index - 1)
    assert bench.complaints == ["acknowledged means committed"]


def test_a_refused_request_must_not_happen_before_or_after(bench: Bench) -> None:
    """Definite means never."""
    done = bench.do(OpenSession("n", 1_000))
    bench.timeline.refused(done, errors.NoLeader("none"))
    late = bench.ask(OpenSession("m", 1_000))
    bench.timeline.refused(late[0], errors.NoLeader("none"))
    bench.commit(late)
    assert bench.complaints == ["refused means never"] * 2


def test_a_stale_read_is_seen(bench: Bench) -> None:
    """Somebody had been told more before the read began."""
    request = bench.do(OpenSession("n", 1_000))
    bench.timeline.acknowledge(request, bench.outcome(request), bench.index)
    bench.timeline.read_served("b", bench.timeline.acknowledged, bench.index - 1)
    assert bench.complaints == ["reads miss nothing"]


def test_a_repeat_with_another_answer_is_seen(bench: Bench) -> None:
    """Exactly once, by number."""
    session = bench.open()
    asked = bench.ask(AcquireLock(session, "orders"))
    bench.commit(asked)
    bench.lie(lambda request: Granted("orders", session, 77, False))
    bench.commit(asked)
    assert "exactly once" in bench.complaints


def test_a_key_with_another_answer_is_seen(bench: Bench) -> None:
    """Exactly once, by Idempotency-Key, through two nodes."""
    bench.do(OpenSession("n", 1_000), key="k")
    bench.lie(lambda request: Opened("9-n", 1_000, 9))
    bench.do(OpenSession("n", 1_000), key="k")
    assert "exactly once" in bench.complaints


def test_two_holders_are_seen(bench: Bench) -> None:
    """Mutual exclusion."""
    one, two = bench.open(), bench.open()
    bench.do(AcquireLock(one, "orders"))
    bench.lie(lambda request: Granted("orders", two, 50, False))
    bench.do(AcquireLock(two, "orders"))
    assert "mutual exclusion" in bench.complaints


def test_a_token_that_does_not_rise_is_seen(bench: Bench) -> None:
    """Fencing tokens rise for ever."""
    one, two = bench.open(), bench.open()
    bench.do(AcquireLock(one, "orders"))
    bench.lie(lambda request: Granted("mail", two, 2, False))
    bench.do(AcquireLock(two, "mail"))
    assert "tokens rise" in bench.complaints


def test_a_token_given_to_two_is_seen(bench: Bench) -> None:
    """Not even in one entry."""
    one, two = bench.open(), bench.open()
    owners = iter((one, two))
    bench.lie(lambda request: Granted("orders", next(owners), 60, True))
    bench.commit(bench.ask(AcquireLock(one, "orders")), bench.ask(AcquireLock(two, "orders")))
    assert "tokens rise" in bench.complaints


def test_a_release_of_what_nobody_holds_is_seen(bench: Bench) -> None:
    """Conditional on the token."""
    session = bench.open()
    bench.lie(lambda request: Released("orders"))
    bench.do(ReleaseLock(session, "orders", 5))
    assert "locks" in bench.complaints


def test_a_holder_that_vanishes_is_seen(bench: Bench) -> None:
    """Nobody loses a lock without a cause."""
    session = bench.open()
    bench.do(AcquireLock(session, "orders"))
    machine = bench.timeline.machine
    token = machine.locks.info("orders", 0).holders[0][1]
    thing = ("lock", "orders", "")
    machine.locks.free(machine.sessions.get(session), thing, token)
    bench.do(KeepAlive(session))
    assert bench.complaints == ["locks"]


def test_a_session_that_outlives_its_deadline_is_seen(bench: Bench) -> None:
    """The first entry at the deadline ends it."""
    bench.open(1_000)
    bench.lie(lambda request: Renewed("x", 1))
    bench.now_us = 5_000_000
    bench.commit(at_ms=1_001)
    assert bench.complaints == ["sessions"]


def test_a_session_renewed_after_its_end_is_seen(bench: Bench) -> None:
    """A keepalive at its own deadline is late."""
    session = bench.open(1_000)
    bench.lie(lambda request: Renewed(session, 1_000))
    bench.now_us = 5_000_000
    bench.do(KeepAlive(session), at_ms=1_000)
    assert "sessions" in bench.complaints


def test_a_session_closed_twice_is_seen(bench: Bench) -> None:
    """The second time it is not open."""
    session = bench.open()
    bench.do(CloseSession(session))
    bench.lie(lambda request: Closed(session))
    bench.do(CloseSession(session))
    assert "sessions" in bench.complaints


def test_cluster_time_that_runs_ahead_of_true_time_is_seen(bench: Bench) -> None:
    """A lease that ends early, as its client counts."""
    bench.open(1_000)
    bench.now_us = 500_000
    bench.commit(at_ms=1_001)
    assert bench.complaints == ["no session ends early"]


def test_a_waiter_that_is_dropped_without_an_answer_is_seen(bench: Bench) -> None:
    """As long as its client waits; afterwards it may go."""
    one, two = bench.open(), bench.open()
    bench.do(AcquireLock(one, "orders"))
    waiting = bench.do(AcquireLock(two, "orders", wait_ms=1_000))
    memory = bench.timeline.machine.requests.origins["a"].by_seq
    parked = memory.pop(waiting.seq)
    bench.do(KeepAlive(one))
    assert bench.complaints == ["no waiter is lost"]
    bench.complaints.clear()
    memory[waiting.seq] = parked
    bench.timeline.given_up(waiting)
    memory.pop(waiting.seq)
    bench.do(KeepAlive(one))
    assert bench.complaints == []


def test_a_refusal_is_an_answer_like_any_other(bench: Bench) -> None:
    """It is committed, repeated and acknowledged."""
    one, two = bench.open(), bench.open()
    bench.do(AcquireLock(one, "orders"))
    request = bench.do(AcquireLock(two, "orders"))
    outcome = bench.outcome(request)
    assert isinstance(outcome, LockHeld)
    bench.timeline.acknowledge(request, outcome, bench.index)
    assert bench.complaints == []
