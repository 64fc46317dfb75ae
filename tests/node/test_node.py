"""Three nodes with the real machine: requests, leader changes, reads, time, and the end.

RULE: what a client sees through one node, while leaders, messages and disks come and go.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from cluster import errors
from cluster.machine.commands import AcquireLock, CloseSession, KeepAlive, OpenSession, RequestId
from cluster.machine.commands.jobs import PutJob
from cluster.machine.commands.tasks import NewTask, PutTasks
from cluster.machine.outcome import (
    Granted,
    KeyReused,
    LockHeld,
    Opened,
    Queued,
    Released,
    Renewed,
    SessionExpired,
    SessionNotFound,
)
from cluster.node.pending import Answered, Failed, Reply
from cluster.replication.engine import EngineSettings
from cluster.replication.identity import IdentityMismatch
from cluster.replication.journal import Journal
from cluster.wire.cbor import WireError
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    Forward,
    ForwardedRequest,
    PreVoteRequest,
    ReadAnswer,
    ReadRequest,
    Refused,
    Status,
    TransferAnswer,
)
from tests.node.nodes import Ask, Nodes, nodes_by_hand
from tests.replication.group import Packet, carries

SMALL = EngineSettings(snapshot_entries=20, snapshot_chunk_bytes=300, snapshot_window_bytes=900)
"""Compaction and chunking happen all the time."""

Make = Callable[..., Nodes]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make three nodes whose clock is moved by their steps."""
    with nodes_by_hand() as maker:
        yield maker


def sessions_of(nodes: Nodes, name: str) -> int:
    """How many sessions a node's state holds."""
    return len(nodes[name].machine.sessions)


# ---- a request on its way -------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["a", "b", "c"])
def test_any_node_answers_and_has_applied_what_it_answers(make: Make, asked: str) -> None:
    """A client that stays on one node reads its own writes."""
    nodes = make()
    nodes.elect("a")
    ask = nodes.submit(asked, OpenSession("x", 60_000))
    outcome = nodes.answer(ask)
    assert isinstance(outcome, Opened)
    assert ask.index == nodes[asked].applied_index == outcome.token
    assert nodes[asked].machine.sessions.get(outcome.session) is not None


def test_a_follower_forwards_one_way_and_nobody_answers_it(make: Make) -> None:
    """The answer is born where the entry is applied, on the node that was asked."""
    nodes = make()
    nodes.elect("a")
    mark = len(nodes.sent)
    nodes.answer(nodes.submit("b", OpenSession("x", 60_000)))
    moved = [p for p in nodes.sent[mark:] if not isinstance(p.message, Status)]
    forwards = [p for p in moved if isinstance(p.message, Forward)]
    assert [(p.source, p.target) for p in forwards] == [("b", "a")]
    assert all(isinstance(p.message, Forward | Append | AppendAnswer) for p in moved)


@pytest.mark.parametrize("asked", ["a", "b"])
def test_nothing_waits_for_the_next_regular_tick(make: Make, asked: str) -> None:
    """Every message that matters brings its own: a write and a read take a few message times."""
    nodes = make()
    leader = nodes.elect("a")
    session = nodes.session("c")
    for _ in range(20):
        # A regular tick every 20 ms: two requests at all distances from it.
        nodes.run(0.002 * 11)
        began = nodes.steps
        write, read = nodes.submit(asked, KeepAlive(session)), nodes.read(asked)
        nodes.until(lambda write=write, read=read: write.is_over and read.is_over)  # type: ignore[misc]
        assert nodes.steps - began <= 6
    assert leader.settings.round_every == 0.02


def test_an_election_takes_a_few_message_times_once_it_is_asked_for(make: Make) -> None:
    """Questions, answers and votes each bring their own tick."""
    nodes = make()
    nodes.elect("a")
    nodes.crash("a")
    mark = len(nodes.sent)
    nodes.until(lambda: any(isinstance(p.message, PreVoteRequest) for p in nodes.sent[mark:]))
    began = nodes.steps
    nodes.until(lambda: nodes.leader is not None)
    assert nodes.steps - began <= 6


def test_listeners_hear_of_every_round_that_applied_something(make: Make) -> None:
    """Once per round, on every node, until they have had enough; also after a snapshot."""
    nodes = make()
    nodes.elect()
    heard: dict[str, list[int]] = {name: [] for name in "abc"}
    ends = [
        nodes[name].on_applied(
            lambda name=name: heard[name].append(nodes[name].machine.index)  # type: ignore[misc]
        )
        for name in "abc"
    ]
    nodes.session("b")
    nodes.until(lambda: nodes.is_level and all(heard.values()))
    top = nodes["a"].machine.index
    assert {indices[-1] for indices in heard.values()} == {top}
    assert all(indices == sorted(set(indices)) for indices in heard.values())
    for end in ends:
        end()
    nodes.session("c")
    nodes.until(lambda: nodes.is_level)
    assert {indices[-1] for indices in heard.values()} == {top}


def test_requests_that_wait_share_one_entry(make: Make) -> None:
    """While one entry is replicated the next one fills."""
    nodes = make()
    leader = nodes.elect("a")
    last = leader.engine.last_index
    asks = [nodes.submit(name, OpenSession(f"x{n}", 60_000)) for name in "abc" for n in range(20)]
    nodes.until(lambda: all(ask.is_over for ask in asks))
    assert len({ask.outcome.session for ask in asks}) == 60  # type: ignore[union-attr]
    assert leader.engine.last_index - last <= 3
    assert leader.counters.commands_sealed == 60


def test_all_states_are_equal_after_work_at_all_nodes(make: Make) -> None:
    """Same log, same bytes: the running digests agree."""
    nodes = make()
    nodes.elect("b")
    session = nodes.session("a")
    for number in range(30):
        nodes.answer(nodes.acquire("abc"[number % 3], session, f"lock {number % 7}"))
    nodes.until(nodes.is_level)
    assert len({nodes[name].machine.digest for name in "abc"}) == 1


def test_a_lost_request_is_sent_again_under_its_number(make: Make) -> None:
    """And applied once, also when the lost one arrives after all."""
    nodes = make()
    nodes.elect("a")
    lost = nodes.drop(carries(Forward), limit=1)
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes.answer(ask)
    assert nodes["b"].counters.commands_resent == 1
    nodes.send_again(lost.caught[0])
    nodes.send_again(lost.caught[0])
    nodes.run(0.1)
    assert [sessions_of(nodes, name) for name in "abc"] == [1, 1, 1]


def test_a_request_just_taken_is_sent_once_though_the_sweep_is_due(make: Make) -> None:
    """Never sent is not sent long ago; a second copy would make a refusal indefinite."""
    nodes = make()
    nodes.elect("a")
    for name in "abc":
        for _ in range(40):
            nodes.run(0.013)
            assert isinstance(nodes.answer(nodes.submit(name, OpenSession("x", 1_000))), Opened)
    assert [nodes[name].counters.commands_resent for name in "abc"] == [0, 0, 0]


def test_a_request_in_the_log_of_a_lost_leader_is_applied_once(make: Make) -> None:
    """Its node sends it again to the next leader, where it is in the log already."""
    nodes = make()
    leader = nodes.elect("a")
    nodes.drop(carries(AppendAnswer, target="a"))
    ask = nodes.submit("c", OpenSession("x", 60_000))
    nodes.until(lambda: nodes["c"].engine.last_index == leader.engine.last_index > 2)
    nodes.crash("a")
    nodes.heal()
    opened = nodes.answer(ask)
    assert isinstance(opened, Opened)
    assert nodes["c"].counters.commands_resent == 1
    nodes.start("a")
    nodes.until(nodes.is_level)
    nodes.run(0.2)
    assert [sessions_of(nodes, name) for name in "abc"] == [1, 1, 1]


def test_a_request_lost_with_its_leader_is_brought_to_the_next(make: Make) -> None:
    """The leader had it in its queue only."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(Append, "a"))
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes.run(0.02)
    nodes.crash("a")
    assert isinstance(nodes.answer(ask), Opened)


def test_a_deposed_leaders_own_requests_are_brought_to_the_next(make: Make) -> None:
    """Its overwritten entry carried them; under the same number they are applied once."""
    nodes = make()
    nodes.elect("a")
    nodes.isolate("a")
    ask = nodes.submit("a", OpenSession("x", 60_000))
    nodes.until(lambda: nodes.leader in ("b", "c"), within=3.0)
    nodes.heal()
    assert isinstance(nodes.answer(ask), Opened)
    nodes.until(nodes.is_level)
    assert [sessions_of(nodes, name) for name in "abc"] == [1, 1, 1]


def test_requests_survive_a_planned_hand_over(make: Make) -> None:
    """Under load at all nodes nobody is told of an error."""
    nodes = make()
    nodes.elect("a")
    asks, done = [], Ask("c")
    nodes["c"].transfer("b", done.take)
    for number in range(50):
        for name in "abc":
            asks.append(nodes.submit(name, OpenSession(f"{name}{number}", 60_000)))
        nodes.step()
    nodes.until(lambda: all(ask.is_over for ask in asks) and done.is_over)
    assert nodes.leader == "b"
    assert len({ask.outcome.session for ask in asks}) == 150  # type: ignore[union-attr]
    nodes.until(nodes.is_level)
    assert sessions_of(nodes, "a") == 150


def test_an_idempotency_key_gives_the_first_answer_at_every_node(make: Make) -> None:
    """Also from another node; another request under the same key is refused."""
    nodes = make()
    nodes.elect("a")
    first = nodes.answer(nodes.submit("b", OpenSession("x", 60_000), key="k", fingerprint=b"1"))
    again = nodes.answer(nodes.submit("c", OpenSession("y", 60_000), key="k", fingerprint=b"1"))
    other = nodes.answer(nodes.submit("a", OpenSession("z", 60_000), key="k", fingerprint=b"2"))
    assert first == again
    assert other == KeyReused("k")
    assert sessions_of(nodes, "c") == 1


def test_a_forward_that_reaches_no_leader_is_left_to_its_sender(make: Make) -> None:
    """Who does not lead neither queues nor answers."""
    nodes = make()
    nodes.elect("a")
    request = ForwardedRequest(1, b"\x00")
    nodes.inject("c", "b", Forward(boot=1, ack=1, requests=(request,)))
    mark = len(nodes.sent)
    nodes.run(0.05)
    assert [p for p in nodes.sent[mark:] if isinstance(p.message, Refused | Forward)] == []


def test_nothing_that_carries_a_term_leaves_before_the_term_is_durable(make: Make) -> None:
    """Not only the engine's messages: a node's word about itself carries one too."""
    nodes = make()
    terms: set[int] = set()

    def look(packet: Packet) -> bool:
        term = getattr(packet.message, "term", 0)
        disk = nodes.disks[packet.source].copy(random.Random(0))
        disk.crash(power=True)
        journal = Journal.open(disk, segment_bytes=1 << 16, reserve=False)
        assert journal.getCurrentTerm() >= term, packet.message
        terms.add(term)
        return False

    nodes.copy(look)
    nodes.elect("a")
    nodes.elect("b")
    nodes.crash("b")
    nodes.until(lambda: nodes.leader is not None)
    nodes.start("b")
    nodes.until(nodes.is_level)
    assert len(terms) >= 3


# ---- refusals that mean what they say -------------------------------------------------------


def test_a_node_with_too_much_under_way_takes_nothing_more(make: Make) -> None:
    """Overloaded, definite, and it surely does not happen."""
    nodes = make(pending_max=3)
    nodes.elect("a")
    asks = [nodes.submit("b", OpenSession(f"x{n}", 60_000)) for n in range(3)]
    with pytest.raises(errors.Overloaded) as caught:
        nodes.submit("b", OpenSession("more", 60_000))
    assert caught.value.definite
    nodes.until(lambda: all(ask.is_over for ask in asks))
    nodes.answer(nodes.submit("b", OpenSession("later", 60_000)))
    nodes.until(nodes.is_level)
    assert sessions_of(nodes, "a") == 4


@pytest.mark.parametrize("asked", ["a", "b"])
def test_a_leader_with_a_full_queue_refuses_and_what_it_refused_did_not_happen(
    make: Make, asked: str
) -> None:
    """At the leader itself and from a follower: Overloaded, definite on the first try."""
    nodes = make(queue_requests_max=4)
    nodes.elect("a")
    blocked = nodes.drop(carries(AppendAnswer))
    first = nodes.submit(asked, OpenSession("first", 60_000))
    nodes.run(0.02)
    asks = [first, *(nodes.submit(asked, OpenSession(f"x{n}", 60_000)) for n in range(10))]
    nodes.run(0.02)
    blocked.end()
    nodes.until(lambda: all(ask.is_over for ask in asks))
    refused = [ask for ask in asks if isinstance(ask.replies[0], Failed)]
    assert len(refused) == 6
    assert all(isinstance(r.error, errors.Overloaded) and r.error.definite for r in refused)
    nodes.until(nodes.is_level)
    assert sessions_of(nodes, "c") == 5


@pytest.mark.parametrize("asked", ["a", "b"])
def test_a_request_too_large_for_an_entry_is_refused_and_stops_no_leader(
    make: Make, asked: str
) -> None:
    """Its JSON may be within bounds: numbers grow as they are written out."""
    nodes = make()
    nodes.elect("a")
    data = b"[" + b"1000000000000000.0," * 200 + b"0]"
    tasks = tuple(NewTask(f"t{number}", data, None) for number in range(1_000))
    with pytest.raises(errors.Refused) as caught:
        nodes.submit(asked, PutTasks("pool", tasks))
    assert (caught.value.code, caught.value.status, caught.value.definite) == (
        "too_large",
        413,
        True,
    )
    nodes.session(asked)
    assert nodes.leader == "a"


def test_a_refusal_of_a_repeat_is_indefinite(make: Make) -> None:
    """Another copy is under way: it may have happened."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(Forward))
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes.until(lambda: len(nodes.sent_by("b", Forward)) == 2)
    nodes.inject("a", "b", Refused(boot=nodes["b"].identity.boot, seqs=(1,), reason="overloaded"))
    nodes.step()
    assert isinstance(ask.error, errors.Overloaded)
    assert not ask.error.definite


def test_a_refusal_meant_for_a_former_life_is_ignored(make: Make) -> None:
    """Numbers begin anew with every start."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(Forward), limit=1)
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes.inject("a", "b", Refused(boot=0, seqs=(1,), reason="overloaded"))
    nodes.run(0.02)
    assert not ask.is_over
    assert isinstance(nodes.answer(ask), Opened)


def test_without_a_leader_what_was_never_sent_surely_did_not_happen(make: Make) -> None:
    """NoLeader, definite, after a moment of patience."""
    nodes = make()
    nodes.elect("a")
    for name in nodes.names:
        nodes.isolate(name)
    nodes.until(lambda: all(nodes[name].engine.leader is None for name in "abc"))
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes.run(2.0)
    assert not ask.is_over
    nodes.until(lambda: ask.is_over, within=2.0)
    assert isinstance(ask.error, errors.NoLeader) and ask.error.definite
    nodes.heal()
    nodes.until(nodes.is_level)
    nodes.run(1.5)
    assert sessions_of(nodes, "b") == 0


def test_a_write_where_nobody_led_for_long_is_refused_at_once(make: Make) -> None:
    """As a read is; its client does better at another node."""
    nodes = make()
    nodes.elect("a")
    nodes.isolate("c")
    nodes.run(4.0)
    ask = nodes.submit("c", OpenSession("x", 60_000))
    nodes.until(lambda: ask.is_over, within=0.2)
    assert isinstance(ask.error, errors.NoLeader) and ask.error.definite


def test_without_a_leader_what_was_sent_may_have_happened(make: Make) -> None:
    """NoLeader, indefinite: the lost leader may have had it."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(AppendAnswer))
    asks = [
        nodes.submit("b", OpenSession("x", 60_000)),
        nodes.submit("a", OpenSession("y", 60_000)),
    ]
    nodes.run(0.02)
    for name in nodes.names:
        nodes.isolate(name)
    nodes.until(lambda: all(ask.is_over for ask in asks))
    for ask in asks:
        assert isinstance(ask.error, errors.NoLeader)
        assert not ask.error.definite


def test_a_patient_request_waits_for_a_leader_as_long_as_it_may(make: Make) -> None:
    """Until its own deadline, whether a lost leader may have had it or not; then it is done once."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(AppendAnswer))
    sent = nodes.submit("b", OpenSession("x", 60_000), timeout_ms=60_000, patient=True)
    nodes.run(0.02)
    for name in nodes.names:
        nodes.isolate(name)
    nodes.until(lambda: all(nodes[name].engine.leader is None for name in "abc"))
    kept = nodes.submit("b", OpenSession("y", 60_000), timeout_ms=60_000, patient=True)
    late = nodes.submit("b", OpenSession("z", 60_000), timeout_ms=5_000, patient=True)
    nodes.run(10.0)
    assert late.error is not None and late.error.definite
    assert not sent.is_over and not kept.is_over
    nodes.heal()
    for ask in (sent, kept):
        assert isinstance(nodes.answer(ask), Opened)
    nodes.until(nodes.is_level)
    assert sessions_of(nodes, "b") == 2


def test_a_minority_neither_writes_nor_reads(make: Make) -> None:
    """An isolated leader stops leading; the others elect another and go on."""
    nodes = make()
    nodes.elect("a")
    nodes.isolate("a")
    nodes.until(lambda: nodes["a"].engine.leader is None, within=1.0)
    write, read = nodes.submit("a", OpenSession("x", 60_000)), nodes.read("a")
    nodes.until(lambda: write.is_over and read.is_over)
    for ask in (write, read):
        assert isinstance(ask.error, errors.NoLeader) and ask.error.definite
    assert isinstance(nodes.answer(nodes.submit("b", OpenSession("y", 60_000))), Opened)
    nodes.heal()
    nodes.until(nodes.is_level)
    assert sessions_of(nodes, "a") == 1


def test_a_request_that_is_not_applied_in_time_may_have_happened(make: Make) -> None:
    """Timeout, indefinite, after the time the caller gave it."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(AppendAnswer))
    nodes.drop(carries(Forward))
    ask = nodes.submit("b", OpenSession("x", 60_000), timeout_ms=500)
    nodes.run(0.49)
    assert not ask.is_over
    nodes.until(lambda: ask.is_over, within=0.2)
    assert isinstance(ask.error, errors.Timeout)
    assert not ask.error.definite


# ---- parked requests ------------------------------------------------------------------------


def holder_and_waiter(nodes: Nodes) -> tuple[Granted, Ask, str]:
    """A lock held through a, and a request parked at b: the grant, the request, its session."""
    nodes.elect("a")
    first, second = nodes.session("a", nonce="one"), nodes.session("b", nonce="two")
    grant = nodes.granted("a", first, "orders")
    ask = nodes.acquire("b", second, "orders", wait_ms=60_000)
    nodes.until(lambda: nodes["b"].parked == 1)
    return grant, ask, second


def test_a_parked_request_is_answered_when_the_lock_falls_free(make: Make) -> None:
    """The later grant comes through the same door, with a larger token."""
    nodes = make()
    grant, ask, second = holder_and_waiter(nodes)
    nodes.run(5.0)
    assert not ask.is_over
    assert nodes.answer(nodes.release("c", grant)) == Released("orders")
    outcome = nodes.answer(ask)
    assert isinstance(outcome, Granted)
    assert outcome.session == second and outcome.token > grant.token


def test_a_parked_request_waits_as_long_as_it_asked_and_no_longer(make: Make) -> None:
    """Its own wait comes on top of the time to be applied; at the end it is told who holds."""
    nodes = make()
    nodes.elect("a")
    first, second = nodes.session("a", nonce="one"), nodes.session("b", nonce="two")
    nodes.granted("a", first, "orders")
    began = nodes.now()
    ask = nodes.submit("b", AcquireLock(second, "orders", wait_ms=3_000), timeout_ms=1_000)
    outcome = nodes.answer(ask)
    assert isinstance(outcome, LockHeld) and outcome.holder == first
    assert nodes.now() - began >= 3.0
    assert nodes.waiters("b", "orders") == []


def test_other_requests_of_its_node_do_not_disturb_a_parked_one(make: Make) -> None:
    """It stays in its queue however many are settled after it."""
    nodes = make()
    grant, ask, second = holder_and_waiter(nodes)
    for _ in range(20):
        nodes.answer(nodes.submit("b", KeepAlive(second)))
    assert nodes.waiters("c", "orders") == [second]
    nodes.release("a", grant)
    assert isinstance(nodes.answer(ask), Granted)


def test_a_parked_request_outlives_its_leader(make: Make) -> None:
    """It is in the state of every node; nobody sends it again."""
    nodes = make()
    grant, ask, _ = holder_and_waiter(nodes)
    nodes.crash("a")
    nodes.until(nodes.is_level)
    assert nodes["b"].counters.commands_resent == 0
    nodes.release("c", grant)
    assert isinstance(nodes.answer(ask), Granted)


def test_hanging_up_a_parked_request_frees_its_place(make: Make) -> None:
    """By a command, so at every node; the next in line gets the lock, and no reply comes."""
    nodes = make()
    grant, ask, _ = holder_and_waiter(nodes)
    third = nodes.session("c", nonce="three")
    behind = nodes.acquire("c", third, "orders", wait_ms=60_000)
    nodes.until(lambda: len(nodes.waiters("a", "orders")) == 2)
    nodes["b"].hang_up(ask.handle)
    nodes.until(lambda: all(nodes.waiters(name, "orders") == [third] for name in "abc"))
    nodes.release("a", grant)
    assert isinstance(nodes.answer(behind), Granted)
    nodes.run(0.5)
    assert ask.replies == []
    assert nodes["b"].under_way == nodes["b"].parked == 0


def test_hanging_up_before_anything_was_sent_means_it_never_happens(make: Make) -> None:
    """It leaves nothing behind."""
    nodes = make()
    nodes.elect("a")
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes["b"].hang_up(ask.handle)
    nodes.run(0.5)
    assert sessions_of(nodes, "a") == 0
    assert (ask.replies, nodes["b"].under_way) == ([], 0)


def test_hanging_up_on_the_way_frees_the_place_as_soon_as_there_is_one(make: Make) -> None:
    """The request was sent and not yet applied."""
    nodes = make()
    nodes.elect("a")
    first, second = nodes.session("a", nonce="one"), nodes.session("b", nonce="two")
    nodes.granted("a", first, "orders")
    ask = nodes.acquire("b", second, "orders", wait_ms=60_000)
    nodes.step()
    nodes["b"].hang_up(ask.handle)
    nodes.run(0.2)
    assert nodes.waiters("a", "orders") == []
    assert (ask.replies, nodes["b"].under_way) == ([], 0)


def test_hanging_up_twice_or_on_a_stranger_does_nothing(make: Make) -> None:
    """Handles may be stale."""
    nodes = make()
    _, ask, _ = holder_and_waiter(nodes)
    for handle in (ask.handle, ask.handle, 999):
        nodes["b"].hang_up(handle)
    nodes.run(0.2)
    assert nodes.waiters("a", "orders") == []


def test_a_place_is_freed_even_if_the_leader_is_lost_meanwhile(make: Make) -> None:
    """Nobody else would free it: the command is kept until it is applied."""
    nodes = make()
    _, ask, _ = holder_and_waiter(nodes)
    for name in "abc":
        nodes.isolate(name)
    nodes.until(lambda: nodes["b"].engine.leader is None)
    nodes["b"].hang_up(ask.handle)
    nodes.run(5.0)
    nodes.heal()
    nodes.until(lambda: nodes.leader and all(not nodes.waiters(n, "orders") for n in "abc"))


def test_a_wait_that_is_over_for_its_node_is_over_for_the_machine(make: Make) -> None:
    """Cluster time stood still meanwhile: by it the wait would go on, and nobody would know."""
    nodes = make()
    nodes.elect("a")
    first, second = nodes.session("a", nonce="one"), nodes.session("b", nonce="two")
    nodes.granted("a", first, "orders")
    ask = nodes.submit("b", AcquireLock(second, "orders", wait_ms=3_000), timeout_ms=1_000)
    nodes.until(lambda: nodes["b"].parked == 1)
    for name in "abc":
        nodes.isolate(name)
    nodes.until(lambda: ask.is_over)
    assert isinstance(ask.error, errors.Timeout) and not ask.error.definite
    nodes.heal()
    nodes.until(nodes.is_level)
    nodes.run(0.5)
    assert nodes.waiters("a", "orders") == []
    assert nodes["b"].under_way == 0


def test_the_places_of_a_former_life_are_freed_by_the_next(make: Make) -> None:
    """A restarted node waits for nothing; its first request says so."""
    nodes = make()
    _, _, second = holder_and_waiter(nodes)
    nodes.crash("b")
    nodes.run(0.2)
    assert nodes.waiters("a", "orders") == [second]
    nodes.start("b")
    nodes.answer(nodes.submit("b", KeepAlive(second)))
    assert nodes.waiters("a", "orders") == []


def test_a_late_request_of_a_former_life_is_void(make: Make) -> None:
    """Nobody waits for it, so it must not take effect."""
    nodes = make()
    nodes.elect("a")
    late = nodes.drop(carries(Forward, "b"), limit=1)
    nodes.submit("b", OpenSession("old", 60_000))
    nodes.run(0.02)
    nodes.crash("b")
    nodes.start("b")
    nodes.session("b", nonce="new")
    nodes.send_again(late.caught[0])
    nodes.run(0.2)
    assert [sessions_of(nodes, name) for name in "abc"] == [1, 1, 1]


# ---- snapshots ------------------------------------------------------------------------------


def work(nodes: Nodes, name: str, count: int = 40) -> None:
    """Entries enough to compact the log."""
    session = nodes.session(name, nonce="work")
    for _ in range(count):
        nodes.answer(nodes.submit(name, KeepAlive(session)))


def test_an_answer_that_comes_within_a_snapshot_is_given(make: Make) -> None:
    """The request was applied while its node was cut off; the state remembers the answer."""
    nodes = make(engine=SMALL)
    nodes.elect("a")
    nodes.cut("a", "c")
    nodes.cut("b", "c")
    ask = nodes.submit("c", OpenSession("x", 60_000), timeout_ms=60_000)
    nodes.until(lambda: sessions_of(nodes, "a") == 1)
    work(nodes, "a")
    assert not ask.is_over
    nodes.heal()
    opened = nodes.answer(ask)
    assert nodes["c"].engine.snapshots_installed == 1
    assert isinstance(opened, Opened) and opened.session in {
        s.id for s in nodes["a"].machine.sessions
    }


def test_a_grant_that_comes_within_a_snapshot_is_given(make: Make) -> None:
    """The request was parked when its node was cut off."""
    nodes = make(engine=SMALL)
    grant, ask, second = holder_and_waiter(nodes)
    nodes.isolate("b")
    nodes.answer(nodes.release("a", grant))
    work(nodes, "a")
    assert nodes.holder("a", "orders") == second
    assert not ask.is_over
    nodes.heal()
    outcome = nodes.answer(ask)
    assert nodes["b"].engine.snapshots_installed == 1
    assert isinstance(outcome, Granted) and outcome.session == second


def test_a_request_still_queued_within_a_snapshot_stays_parked(make: Make) -> None:
    """And is answered later, like any other."""
    nodes = make(engine=SMALL)
    grant, ask, _ = holder_and_waiter(nodes)
    nodes.isolate("b")
    work(nodes, "a")
    nodes.heal()
    nodes.until(lambda: nodes["b"].engine.snapshots_installed == 1 and nodes.is_level())
    assert nodes["b"].parked == 1 and not ask.is_over
    nodes.release("c", grant)
    assert isinstance(nodes.answer(ask), Granted)


def test_a_request_queued_while_its_node_was_cut_off_is_parked_by_the_snapshot(make: Make) -> None:
    """It had been sent and not yet heard of."""
    nodes = make(engine=SMALL)
    nodes.elect("a")
    first, second = nodes.session("a", nonce="one"), nodes.session("c", nonce="two")
    grant = nodes.granted("a", first, "orders")
    nodes.cut("a", "c")
    nodes.cut("b", "c")
    ask = nodes.submit("c", AcquireLock(second, "orders", wait_ms=60_000), timeout_ms=60_000)
    nodes.until(lambda: nodes.waiters("a", "orders") == [second])
    work(nodes, "a")
    nodes.heal()
    nodes.until(lambda: nodes["c"].parked == 1)
    nodes.release("b", grant)
    assert isinstance(nodes.answer(ask), Granted)


def test_a_place_found_in_a_snapshot_that_nobody_waits_for_is_freed(make: Make) -> None:
    """The request was given up while its node was cut off, and queued all the same."""
    nodes = make(engine=SMALL)
    nodes.elect("a")
    first, second = nodes.session("a", nonce="one"), nodes.session("c", nonce="two")
    nodes.granted("a", first, "orders")
    nodes.cut("a", "c")
    nodes.cut("b", "c")
    ask = nodes.submit("c", AcquireLock(second, "orders", wait_ms=600_000), timeout_ms=500)
    nodes.until(lambda: nodes.waiters("a", "orders") == [second])
    nodes.until(lambda: ask.is_over)
    work(nodes, "a")
    nodes.heal()
    nodes.until(lambda: nodes["c"].engine.snapshots_installed == 1)
    nodes.until(nodes.is_level)
    nodes.run(0.5)
    assert nodes.waiters("a", "orders") == []


def test_a_node_does_not_start_with_other_members_than_before(make: Make) -> None:
    """It and two new ones would be three of five, and need not know what the other two granted."""
    nodes = make()
    nodes.elect("a")
    nodes.crash("c")
    nodes.session("a")
    nodes.names = ("a", "b", "c", "d", "e")
    with pytest.raises(IdentityMismatch, match="the members of a cluster are those"):
        nodes.start("c")
    nodes.names = ("a", "b", "c")
    nodes.start("c")
    nodes.until(nodes.is_level)


def test_a_node_comes_back_with_the_state_of_its_snapshot(make: Make) -> None:
    """Sessions, locks and answers are there after a power loss of all."""
    nodes = make(engine=SMALL)
    grant, _, second = holder_and_waiter(nodes)
    work(nodes, "a")
    before = nodes["a"].machine.digest
    for name in "abc":
        nodes.crash(name)
    for name in "abc":
        nodes.start(name)
    nodes.until(nodes.is_level)
    assert nodes.holder("c", "orders") == grant.session
    assert nodes.waiters("c", "orders") == [second]
    assert [nodes[name].machine.digest for name in "abc"] == [before] * 3


# ---- reads ----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", ["a", "b", "c"])
def test_a_read_at_any_node_sees_every_write_acknowledged_before_it(make: Make, asked: str) -> None:
    """Wherever the write was acknowledged."""
    nodes = make()
    nodes.elect("a")
    for number, writer in enumerate("abcabc"):
        session = nodes.session(writer, nonce=f"x{number}")
        read = nodes.read(asked)
        nodes.until(lambda read=read: read.is_over)  # type: ignore[misc]
        assert read.outcome is None
        assert nodes[asked].machine.sessions.get(session) is not None


def test_a_read_at_a_lagging_follower_waits_for_the_log(make: Make) -> None:
    """It is never answered from what the follower happens to have."""
    nodes = make()
    nodes.elect("a")
    held = nodes.hold(carries(Append, target="b"))
    session = nodes.session("a")
    read = nodes.read("b")
    nodes.run(0.25)
    assert not read.is_over
    held.release()
    nodes.until(lambda: read.is_over)
    assert nodes["b"].machine.sessions.get(session) is not None


def test_reads_of_one_moment_share_one_question(make: Make) -> None:
    """And cost no log entry."""
    nodes = make()
    leader = nodes.elect("a")
    last, mark = leader.engine.last_index, len(nodes.sent)
    reads = [nodes.read("b") for _ in range(50)]
    nodes.until(lambda: all(read.is_over for read in reads))
    assert len([p for p in nodes.sent[mark:] if isinstance(p.message, ReadRequest)]) == 1
    assert leader.engine.last_index == last


def test_an_isolated_leader_gives_no_read_an_old_answer(make: Make) -> None:
    """Neither its own nor one that another node had asked it for."""
    nodes = make()
    nodes.elect("a")
    nodes.isolate("a")
    read = nodes.read("a")
    nodes.until(lambda: nodes.leader in ("b", "c"), within=3.0)
    session = nodes.session("b")
    nodes.run(0.5)
    if read.is_over:
        assert isinstance(read.error, errors.NoLeader) and read.error.definite
    nodes.heal()
    late = nodes.read("a")
    nodes.until(lambda: late.is_over and read.is_over)
    assert isinstance(late.replies[0], Answered)
    assert nodes["a"].machine.sessions.get(session) is not None


def test_a_lost_question_is_asked_again(make: Make) -> None:
    """So is one whose answer was lost."""
    for kind in (ReadRequest, ReadAnswer):
        nodes = make()
        nodes.elect("a")
        nodes.drop(carries(kind), limit=1)
        read = nodes.read("b")
        nodes.until(lambda read=read: read.is_over, within=1.0)  # type: ignore[misc]
        assert read.outcome is None


def test_a_lost_question_is_asked_again_while_others_are_answered(make: Make) -> None:
    """A busy reader keeps no lost question waiting until it is too late."""
    nodes = make()
    nodes.elect("a")
    lost = nodes.drop(carries(ReadRequest, target="a"), limit=1)
    read = nodes.read("b", timeout_ms=3_000)
    nodes.until(lambda: bool(lost.caught))
    for _ in range(20):
        other = nodes.read("b")
        nodes.run(0.05)
        assert other.is_over
    assert read.is_over
    assert read.outcome is None


def test_a_read_asked_of_a_lost_leader_is_answered_by_the_next(make: Make) -> None:
    """The client hears nothing of it."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(ReadRequest), limit=1)
    read = nodes.read("b")
    nodes.step()
    nodes.crash("a")
    nodes.until(lambda: read.is_over)
    assert isinstance(read.replies[0], Answered)


def test_an_answer_to_a_question_of_a_former_life_is_no_answer(make: Make) -> None:
    """It names an index from before the restart; what was written since would be missed."""
    nodes = make()
    nodes.elect("a")
    answers = nodes.drop(carries(ReadAnswer, target="b"))
    nodes.read("b")
    nodes.until(lambda: bool(answers.caught))
    old = answers.caught[0]
    nodes.crash("b")
    nodes.start("b")
    nodes.until(nodes.is_level)
    held = nodes.hold(lambda p: carries(Append, target="b")(p) and bool(p.message.entries))
    session = nodes.session("a")
    read = nodes.read("b")
    nodes.run(0.01)
    nodes.send_again(old)
    nodes.run(0.01)
    assert nodes["b"].machine.sessions.get(session) is None
    assert not read.is_over
    answers.end()
    held.release()
    nodes.until(lambda: read.is_over)
    assert nodes["b"].machine.sessions.get(session) is not None


def test_a_read_without_an_answer_in_time_fails_definitely(make: Make) -> None:
    """A read changes nothing, so it surely did not happen."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(ReadRequest))
    read = nodes.read("b", timeout_ms=700)
    nodes.until(lambda: read.is_over)
    assert isinstance(read.error, errors.Timeout) and read.error.definite


# ---- time -----------------------------------------------------------------------------------


def test_a_session_ends_by_itself_when_its_time_is_up_and_not_before(make: Make) -> None:
    """Nobody asks for anything: the leader seals an empty entry when the deadline is due."""
    nodes = make()
    leader = nodes.elect("a")
    session = nodes.session("b", ttl_ms=3_000)
    began = nodes.now()
    grant = nodes.granted("b", session, "orders")
    last = leader.engine.last_index
    nodes.until(lambda: nodes["c"].machine.sessions.get(session) is None)
    # What counts is the entry's time, which the leader took a step or two before the answer came.
    assert nodes.now() - began >= 2.99
    assert nodes.now() - began < 3.05
    assert leader.engine.last_index == last + 1
    assert nodes.holder("a", "orders") is None
    assert nodes.answer(nodes.release("a", grant)) == SessionExpired(session)


@pytest.mark.parametrize("seed", range(5))
def test_no_change_of_leader_ends_a_session_early(make: Make, seed: int) -> None:
    """Cluster time stands still while nobody leads, and no leader's clock jumps ahead."""
    nodes = make(seed=seed)
    rng = random.Random(seed)
    nodes.until(nodes.is_level)
    session = nodes.session("a", ttl_ms=6_000)
    began = nodes.now()
    for _ in range(3):
        nodes.run(rng.uniform(0.2, 0.8))
        leader = nodes.leader
        assert leader is not None
        nodes.crash(leader)
        nodes.until(lambda: nodes.leader is not None, within=5.0)
        nodes.run(rng.uniform(0, 0.5))
        nodes.start(leader)
        nodes.until(nodes.is_level)

    def is_gone() -> bool:
        return nodes[nodes.leader or "a"].machine.sessions.get(session) is None

    nodes.until(is_gone, within=30.0)
    assert nodes.now() - began >= 5.99


def test_no_time_passes_for_a_lease_while_nobody_leads(make: Make) -> None:
    """Also on the clock of a node that led before and leads again."""
    nodes = make()
    nodes.elect("a")
    session = nodes.session("a", ttl_ms=4_000)
    for name in "abc":
        nodes.isolate(name)
    nodes.run(6.0)
    assert nodes["a"].engine.leader is None
    nodes.heal()
    nodes.elect("a")
    nodes.run(0.5)
    assert nodes.answer(nodes.submit("b", KeepAlive(session))) == Renewed(session, 4_000)


def test_no_lease_ends_by_a_time_in_which_the_leader_stood_still(make: Make) -> None:
    """All were stopped, or its clock jumped: nobody could renew, and an answer from before came."""
    nodes = make()
    nodes.elect("a")
    session = nodes.session("b", ttl_ms=5_000)
    answers = nodes.hold(carries(AppendAnswer, target="a"))
    nodes.run(0.3)
    nodes.steps += 30_000 // 2
    answers.release()
    nodes.run(2.0)
    assert nodes["a"].engine.term == 1
    assert nodes["b"].machine.sessions.get(session) is not None
    nodes.until(lambda: sessions_of(nodes, "b") == 0)


def test_a_deposed_leader_seals_nothing_of_what_it_had_queued(make: Make) -> None:
    """Every origin brings what is unresolved to the next leader itself."""
    nodes = make()
    leader = nodes.elect("a")
    nodes.drop(carries(AppendAnswer, target="a"))
    asks = [nodes.submit("b", OpenSession("first", 60_000))]
    nodes.run(0.02)
    asks += [nodes.submit("b", OpenSession(f"x{number}", 60_000)) for number in range(5)]
    nodes.run(0.02)
    nodes.isolate("a")
    nodes.until(lambda: nodes.leader in ("b", "c") and all(ask.is_over for ask in asks))
    sealed = leader.counters.commands_sealed
    assert sealed == 1
    nodes.heal()
    nodes.elect("a")
    nodes.run(0.2)
    assert leader.counters.commands_sealed == sealed
    assert sessions_of(nodes, "a") == 6


def test_a_keepalive_moves_the_deadline(make: Make) -> None:
    """By a whole TTL from the time of its entry."""
    nodes = make()
    nodes.elect("a")
    session = nodes.session("b", ttl_ms=2_000)
    for _ in range(4):
        nodes.run(1.5)
        assert nodes.answer(nodes.submit("c", KeepAlive(session))) == Renewed(session, 2_000)
    nodes.run(2.1)
    assert nodes.answer(nodes.submit("c", KeepAlive(session))) == SessionExpired(session)


def test_cluster_time_is_told_to_followers(make: Make) -> None:
    """Remaining times read at a follower are close to the leader's and never ahead by much."""
    nodes = make()
    nodes.elect("a")
    nodes.session("a")
    nodes.run(3.0)
    times = [nodes[name].now_ms() for name in "abc"]
    assert max(times) - min(times) < 100
    assert times[0] >= 3_000


def test_a_round_says_when_the_next_one_is_due(make: Make) -> None:
    """At once with a queue to seal, at the next deadline, and at least every 20 ms."""
    nodes = make()
    leader = nodes.elect("a")
    nodes.run(0.1)
    assert 0 < leader.round() <= leader.settings.round_every
    nodes.session("a", ttl_ms=1_000)
    nodes.run(0.988)
    nodes.steps += 1
    assert 0 < leader.round() < leader.settings.round_every
    nodes.drop(carries(AppendAnswer))
    leader.submit(OpenSession("x", 1_000), lambda _: None)
    leader.submit(OpenSession("y", 1_000), lambda _: None)
    assert nodes.wakes["a"] > 0


# ---- leaders, status and the end ------------------------------------------------------------


@pytest.mark.parametrize("asked", ["a", "b", "c"])
def test_leadership_moves_to_whom_it_is_asked_for(make: Make, asked: str) -> None:
    """Through any node; answered when the new leader is known."""
    nodes = make()
    nodes.elect("a")
    done = Ask(asked)
    nodes[asked].transfer("b", done.take)
    nodes.until(lambda: done.is_over)
    assert done.outcome is None
    nodes.until(lambda: nodes.leader == "b" and nodes.is_level())


def test_a_transfer_to_the_present_leader_is_done_already(make: Make) -> None:
    """Nothing moves."""
    nodes = make()
    leader = nodes.elect("a")
    term, done = leader.engine.term, Ask("b")
    nodes["b"].transfer("a", done.take)
    assert done.outcome is None
    nodes.run(0.2)
    assert (nodes.leader, leader.engine.term) == ("a", term)


def test_a_transfer_to_an_unknown_node_is_refused_with_the_names(make: Make) -> None:
    """404, and who there is."""
    nodes = make()
    nodes.elect("a")
    done = Ask("b")
    nodes["b"].transfer("zed", done.take)
    assert isinstance(done.error, errors.Refused)
    assert (done.error.code, done.error.status) == ("node_not_found", 404)
    assert done.error.reason == {"nodes": ["a", "b", "c"]}


def test_a_transfer_without_a_candidate_is_refused(make: Make) -> None:
    """At the leader, and through a follower that can still ask it."""
    nodes = make()
    nodes.elect("a")
    nodes.crash("c")
    done = Ask("b")
    nodes["b"].transfer("c", done.take)
    nodes.until(lambda: done.is_over)
    assert (done.error.code, done.error.retryable) == ("no_candidate", True)
    assert nodes.leader == "a"


def test_a_transfer_while_nobody_leads_fails_at_once(make: Make) -> None:
    """There is nothing to hand over."""
    nodes = make()
    done = Ask("b")
    nodes["b"].transfer(None, done.take)
    assert isinstance(done.error, errors.NoLeader)


def test_a_transfer_whose_answer_is_lost_ends_in_time(make: Make) -> None:
    """Indefinite: it may have happened."""
    nodes = make()
    nodes.elect("a")
    nodes.drop(carries(TransferAnswer))
    done = Ask("b")
    nodes["b"].transfer("c", done.take)
    nodes.until(lambda: done.is_over)
    assert isinstance(done.error, errors.Timeout)
    assert not done.error.definite


def test_the_status_names_everybody_and_who_is_out_of_reach(make: Make) -> None:
    """As this node knows it."""
    nodes = make()
    nodes.elect("a")
    nodes.session("b")
    nodes.run(0.6)
    status = nodes["b"].status()
    assert (status.cluster, status.node, status.leader, status.role) == (
        "test",
        "b",
        "a",
        "follower",
    )
    assert [(n.id, n.state, n.connected, n.http) for n in status.nodes] == [
        ("a", "leader", True, "http://a"),
        ("b", "follower", True, "http://b"),
        ("c", "follower", True, "http://c"),
    ]
    assert len({n.digest for n in status.nodes}) == 1
    assert (status.ready, status.why_not_ready) == (True, None)
    nodes.crash("c")
    nodes.run(2.0)
    lost = nodes["b"].status().nodes[2]
    assert (lost.id, lost.state, lost.connected) == ("c", "unreachable", False)
    assert lost.last_heard_ms is not None and lost.last_heard_ms >= 1_500


def test_a_node_is_not_ready_without_a_leader_or_while_it_drains(make: Make) -> None:
    """And says why."""
    nodes = make()
    assert nodes["a"].status().why_not_ready == "no leader is known"
    nodes.elect("a")
    assert nodes["b"].status().ready
    nodes["b"].drain()
    assert nodes["b"].status().why_not_ready == "shutting down"


def test_a_node_that_waits_for_its_disk_neither_leads_nor_serves(make: Make) -> None:
    """Others may have elected somebody meanwhile; what it knew is as old as its last round."""
    nodes = make()
    nodes.elect("a")
    nodes.run(0.1)
    leader, follower = nodes["a"], nodes["b"]
    nodes.steps += 250
    assert (leader.status().role, leader.status().ready, leader.stale_ms()) == ("leader", True, 0)
    nodes.steps += 250
    for node in (leader, follower):
        status = node.status()
        assert (status.role, status.leader, status.ready) == ("follower", None, False)
        assert status.why_not_ready is not None
        assert status.why_not_ready.startswith("stands still for 10")
        assert "leader" not in {one.state for one in status.nodes}
        assert status.stale_ms >= 1_000
    nodes.run(2.0)
    assert follower.status().ready


def test_a_draining_node_takes_nothing_new_and_answers_what_it_has(make: Make) -> None:
    """ShuttingDown is definite."""
    nodes = make()
    nodes.elect("a")
    ask = nodes.submit("b", OpenSession("x", 60_000))
    nodes["b"].drain()
    with pytest.raises(errors.ShuttingDown) as caught:
        nodes.submit("b", OpenSession("y", 60_000))
    assert caught.value.definite
    assert isinstance(nodes.answer(ask), Opened)
    assert nodes["b"].under_way == 0


def test_a_draining_node_ends_the_waits_of_its_clients(make: Make) -> None:
    """Out of the queue first, then the answer: it surely did not happen, and nothing is orphaned."""
    nodes = make()
    grant, parked, _ = holder_and_waiter(nodes)
    nodes["b"].drain()
    assert not parked.is_over
    nodes.until(lambda: parked.is_over)
    assert isinstance(parked.error, errors.ShuttingDown) and parked.error.definite
    assert nodes.waiters("b", "orders") == []
    assert nodes["b"].under_way == nodes["b"].parked == 0
    nodes.answer(nodes.release("a", grant))
    assert nodes.holder("a", "orders") is None


def test_a_request_that_is_parked_while_its_node_drains_leaves_its_queue_too(make: Make) -> None:
    """It was under way when the draining began."""
    nodes = make()
    nodes.elect("a")
    first, second = nodes.session("a", nonce="1"), nodes.session("b", nonce="2")
    nodes.granted("a", first, "orders")
    late = nodes.acquire("b", second, "orders", wait_ms=60_000)
    nodes["b"].drain()
    nodes.until(lambda: late.is_over)
    assert isinstance(late.error, errors.ShuttingDown) and late.error.definite
    assert nodes.waiters("a", "orders") == []


def test_a_wait_that_is_granted_before_it_has_left_is_granted(make: Make) -> None:
    """The log has one order, and the answer tells it."""
    nodes = make()
    grant, parked, waiter = holder_and_waiter(nodes)
    held = nodes.hold(carries(Forward, "b"))
    nodes["b"].drain()
    nodes.run(0.05)
    nodes.answer(nodes.release("a", grant))
    assert isinstance(nodes.answer(parked), Granted)
    held.end()
    held.release()
    nodes.until(lambda: nodes["b"].under_way == 0)
    assert nodes.holder("b", "orders") == waiter


def test_a_node_that_drains_without_a_leader_gives_its_waits_up_in_time(make: Make) -> None:
    """Their places cannot be freed now; what ends the wait is not certain, and says so."""
    nodes = make()
    _, parked, _ = holder_and_waiter(nodes)
    nodes.isolate("b")
    nodes.until(lambda: nodes["b"].engine.leader is None)
    nodes["b"].drain()
    assert nodes["b"].under_way == 1
    nodes.until(lambda: nodes["b"].under_way == 0)
    assert not parked.is_over
    nodes["b"].close()
    assert isinstance(parked.error, errors.ShuttingDown) and not parked.error.definite


def test_closing_answers_everybody_who_waits(make: Make) -> None:
    """Writes may have happened, reads did not; nobody is told twice."""
    nodes = make()
    _, parked, _ = holder_and_waiter(nodes)
    nodes.drop(carries((Forward, ReadRequest)))
    sent = nodes.submit("b", OpenSession("x", 60_000))
    asked = nodes.read("b")
    nodes.run(0.05)
    fresh, unasked = nodes.submit("b", OpenSession("y", 60_000)), nodes.read("b")
    nodes["b"].close()
    for ask in (parked, sent, fresh):
        assert isinstance(ask.error, errors.ShuttingDown)
        assert not ask.error.definite
    for ask in (asked, unasked):
        assert isinstance(ask.error, errors.ShuttingDown)
        assert ask.error.definite
    nodes["b"].close()


def test_a_frame_that_says_nothing_is_counted_and_ignored(make: Make) -> None:
    """An authenticated peer of another version must not stop us; a stranger is not even read."""
    nodes = make()
    nodes.elect("a")
    for frame in (b"", b"\x00", b"\x83\x18\x63\x00\x00", b"\x80\x04\x95."):
        nodes["b"].receive("a", frame)
        nodes["b"].receive("zed", frame)
    nodes.run(0.1)
    assert nodes["b"].counters.frames_refused == 4
    nodes.session("b")


def test_a_leader_is_not_given_more_than_it_answers(make: Make) -> None:
    """All at once would break the stream to it, again after each new connection, for ever."""
    nodes = make(forward_bytes_max=5_000)
    nodes.elect("a")
    answers = nodes.hold(carries(Append, "a", "b"))
    asks = [nodes.submit("b", PutJob("t", bytes(1_000)), timeout_ms=60_000) for _ in range(50)]
    nodes.run(0.3)
    given = nodes.sent_by("b", Forward)
    assert 5_000 <= sum(len(packet.frame) for packet in given) < 7_000
    nodes.disconnected("b", "a")
    nodes.connected("b", "a")
    nodes.step()
    again = nodes.sent_by("b", Forward)[len(given) :]
    assert 5_000 <= sum(len(packet.frame) for packet in again) < 7_000
    answers.release()
    nodes.until(lambda: all(ask.is_over for ask in asks))
    assert len({ask.outcome for ask in asks}) == 50
    assert nodes["a"].machine.counts().jobs == 50


def test_a_request_that_never_left_its_node_surely_did_not_happen(make: Make) -> None:
    """The leader is known and answers nothing: Timeout for what it has, Overloaded for the rest."""
    nodes = make(forward_bytes_max=1_000)
    nodes.elect("a")
    nodes.drop(carries(Forward, "b", "a"))
    asks = [nodes.submit("b", PutJob("t", bytes(1_000)), timeout_ms=500) for _ in range(3)]
    nodes.until(lambda: all(ask.is_over for ask in asks))
    assert [(ask.error.code, ask.error.definite) for ask in asks] == [
        ("timeout", False),
        ("overloaded", True),
        ("overloaded", True),
    ]


def test_frames_that_come_while_the_disk_is_slow_take_bounded_memory(make: Make) -> None:
    """What is over the bound is lost, and said again by those who said it."""
    nodes = make(inbox_bytes_max=10_000)
    nodes.elect("a")
    for _ in range(100):
        nodes["b"].receive("a", b"\xff" * 1_000)
    nodes.step()
    assert nodes["b"].counters.frames_refused == 10
    nodes.session("b")
    nodes.until(nodes.is_level)


def test_an_entry_that_is_no_batch_stops_the_process(make: Make) -> None:
    """No leader of ours wrote it: going on would mean that states may differ."""
    nodes = make()
    leader = nodes.elect("a")
    nodes.drop(carries(Append, "a", "b"))
    last, term = leader.engine.last_index, leader.engine.term
    nodes.inject(
        "a",
        "b",
        Append(
            term=term,
            beat=1,
            commit_index=last + 1,
            prev_index=last,
            prev_term=term,
            entries=((last + 1, term, b"\x00\x80\x04."),),
        ),
    )
    with pytest.raises(WireError):
        nodes.run(0.02)


def test_a_body_that_is_no_command_is_refused_by_all_alike(make: Make) -> None:
    """No command can stop a node."""
    nodes = make()
    nodes.elect("a")
    nodes.inject("b", "a", Forward(boot=1, ack=1, requests=(ForwardedRequest(1, b"\x80\x04."),)))
    nodes.run(0.1)
    assert nodes.is_level()
    assert len({nodes[name].machine.digest for name in "abc"}) == 1


def test_replies_are_asked_for_in_apply_and_not_within_submit(make: Make) -> None:
    """A gateway may register its waiting after submit has returned."""
    nodes = make(1)
    nodes.until(nodes.is_level)
    replies: list[Reply] = []
    nodes["a"].submit(OpenSession("x", 60_000), replies.append)
    assert replies == []
    nodes.until(lambda: bool(replies))


def test_a_single_node_serves_everything(make: Make) -> None:
    """Writes, reads, waits and time."""
    nodes = make(1)
    nodes.until(nodes.is_level)
    one, two = nodes.session("a", nonce="1"), nodes.session("a", nonce="2", ttl_ms=1_000)
    held = nodes.granted("a", two, "orders")
    ask = nodes.acquire("a", one, "orders", wait_ms=5_000)
    outcome = nodes.answer(ask)
    assert isinstance(outcome, Granted) and outcome.token > held.token
    read = nodes.read("a")
    nodes.until(lambda: read.is_over)
    assert nodes.answer(nodes.submit("a", CloseSession("nobody"))) == SessionNotFound("nobody")


def test_the_machine_says_queued_for_a_request_that_waits(make: Make) -> None:
    """Every node can tell, under the request's cluster-wide name."""
    nodes = make()
    _, ask, _ = holder_and_waiter(nodes)
    request = RequestId("b", nodes["b"].identity.boot, ask.handle)
    nodes.until(nodes.is_level)
    for name in "abc":
        assert nodes[name].machine.answer(request) == Queued("orders", 1)
