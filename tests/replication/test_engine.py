"""The engine in small groups: one sentence per defect of the stock library that a guard answers.

RULE: production engine, journal and snapshot store; clock, network and disk do what the test says.
The letters in brackets are the findings, G1 to G13 the guards of `cluster/DESIGN.md`.
"""

from __future__ import annotations

import itertools
import json
import pickle
import random
from collections.abc import Callable, Iterator

import pytest

from cluster.replication.disk import DiskFailed
from cluster.replication.engine import EngineSettings, Outcome
from cluster.replication.guard import EngineFault
from cluster.replication.journal import Journal
from cluster.replication.snapshots import SnapshotStore
from cluster.wire import frames
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    PreVoteAnswer,
    PreVoteRequest,
    Snapshot,
    SnapshotAnswer,
    SnapshotHead,
    TermNotice,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)
from tests.replication.group import Group, Packet, carries, hand_driven, numbered

SMALL = EngineSettings(
    window=100, snapshot_entries=20, snapshot_chunk_bytes=100, snapshot_window_bytes=300
)
"""Compaction and chunking happen all the time; a leader takes many entries without an answer."""

WIDE = EngineSettings(window=1000)
"""No compaction; a leader takes many entries without an answer."""

Make = Callable[..., Group]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a group whose clock is moved by its steps."""
    with hand_driven() as maker:
        yield maker


def durable(group: Group, name: str) -> Journal:
    """The journal that a power loss at this very moment would leave on a member's disk."""
    disk = group.disk(name).copy(random.Random(0))
    disk.crash(power=True)
    return Journal.open(disk, segment_bytes=1 << 20, reserve=False)


def alone(group: Group, name: str = "b") -> None:
    """Leave one member running, a follower in term 0 that the test plays leader to."""
    for other in group.names:
        if other != name:
            group.crash(other)


def entries(start: int, *terms: int) -> tuple[tuple[int, int, bytes], ...]:
    """Entries with ordinary payloads from an index on."""
    return tuple((start + at, term, b"\x00%d" % (start + at)) for at, term in enumerate(terms))


def append(prev_index: int, prev_term: int, *terms: int, commit: int = 1, term: int = 1) -> Append:
    """An append of ordinary entries."""
    return Append(
        term=term,
        beat=1,
        commit_index=commit,
        prev_index=prev_index,
        prev_term=prev_term,
        entries=entries(prev_index + 1, *terms),
    )


# ---- term and vote: G1, G2 (a, b, m, o1) ----------------------------------------------------


def test_a_vote_is_durable_before_its_answer_leaves(make: Make) -> None:
    """At the moment a vote is sent, a power loss would leave it on the disk."""
    group = make()
    seen: list[str] = []

    def look(packet: Packet) -> bool:
        if isinstance(packet.message, VoteAnswer):
            journal = durable(group, packet.source)
            assert journal.getCurrentTerm() == packet.message.term
            assert journal.getVotedForNodeId() == packet.target
            seen.append(packet.source)
        return False

    group.copy(look)
    group.elect()
    assert seen


def test_a_candidate_has_its_own_vote_durable_before_it_asks(make: Make) -> None:
    """It votes for itself: after a power loss it must not vote for another in the same term."""
    group = make()
    seen: list[str] = []

    def look(packet: Packet) -> bool:
        if isinstance(packet.message, VoteRequest):
            journal = durable(group, packet.source)
            assert journal.getCurrentTerm() == packet.message.term
            assert journal.getVotedForNodeId() == packet.source
            seen.append(packet.source)
        return False

    group.copy(look)
    group.elect()
    assert seen


def test_a_term_is_durable_before_anything_is_said_in_it(make: Make) -> None:
    """No message carries a term that a power loss could take back (b)."""
    group = make()

    def look(packet: Packet) -> bool:
        assert durable(group, packet.source).getCurrentTerm() >= packet.message.term
        return False

    group.copy(look)
    group.elect("a")
    group.isolate("a")
    group.until(lambda: group.leader in ("b", "c"))
    group.heal()
    group.until(group.is_level)


def test_a_vote_survives_power_loss_and_is_not_given_twice(make: Make) -> None:
    """The same term, another candidate: no answer (a)."""
    group = make()
    alone(group)
    group.inject("a", "b", VoteRequest(term=5, last_index=9, last_term=4, handover=False))
    group.step()
    assert (group.engine("b").term, group.engine("b").voted_for) == (5, "a")
    group.restart("b")
    assert (group.engine("b").term, group.engine("b").voted_for) == (5, "a")
    group.inject("c", "b", VoteRequest(term=5, last_index=9, last_term=4, handover=False))
    group.step()
    assert [p.target for p in group.sent_by("b", VoteAnswer)] == ["a"]


def test_a_vote_that_cannot_be_written_is_not_given(make: Make) -> None:
    """A failed sync ends the round, and nothing has left (o1)."""
    group = make()
    alone(group)
    group.disk("b").sync_fails = True
    group.inject("a", "b", VoteRequest(term=5, last_index=9, last_term=4, handover=False))
    with pytest.raises(DiskFailed):
        group.step()
    assert group.sent_by("b", VoteAnswer) == []


def test_an_acknowledgement_leaves_only_after_its_entries_are_durable(make: Make) -> None:
    """What a follower says it has, a power loss leaves (c1)."""
    group = make()
    seen: list[int] = []

    def look(packet: Packet) -> bool:
        message = packet.message
        if isinstance(message, AppendAnswer) and message.success:
            journal = durable(group, packet.source)
            assert journal[-1][1] >= message.next_index - 1
            seen.append(message.next_index)
        return False

    group.copy(look)
    group.elect()
    group.commit(*numbered(5))
    assert max(seen) == group.engine("a").last_index + 1


def test_a_leader_counts_itself_only_for_what_it_has_synced(make: Make) -> None:
    """Whenever a commit index is told, the leader's own copy is durable too (m)."""
    group = make()

    def look(packet: Packet) -> bool:
        if isinstance(packet.message, Append):
            assert durable(group, packet.source)[-1][1] >= packet.message.commit_index
        return False

    group.copy(look)
    group.elect()
    group.commit(*numbered(5))


def test_entries_of_a_leader_travel_while_it_writes_its_own(make: Make) -> None:
    """The message does not say that the leader has them: first the append, then the sync (G2)."""
    group = make()
    group.elect("a")
    doings = group.members["a"].doings
    doings.clear()
    group.commit(b"x")
    carrying = next(
        at
        for at, doing in enumerate(doings)
        if isinstance(doing, Packet)
        and isinstance(doing.message, Append)
        and any(command == b"\x00x" for _, _, command in doing.message.entries)
    )
    assert "sync" in doings[carrying:]
    assert "sync" not in doings[:carrying]


def test_nothing_promised_leaves_while_the_disk_is_waited_for(make: Make) -> None:
    """A flush in three parts: of a follower nothing goes before the last, of a leader entries."""
    group = make()
    leader = group.elect("a")
    group.propose("a", b"x")
    sent: list[tuple[str, object]] = []

    def send(peer: str, frame: bytes) -> None:
        sent.append((peer, frames.decode(frame)))

    leader.tick()
    leader.read_index(lambda _: None)
    assert leader.begin_flush(send, lambda: None)
    carried = [message for _, message in sent if isinstance(message, Append)]
    assert len(carried) == len(sent) == 2
    leader.wait_for_disk()
    leader.end_flush(send)
    follower = group.engine("b")
    follower.receive("a", carried[0])
    follower.tick()
    sent.clear()
    assert follower.begin_flush(send, lambda: None)
    assert sent == []
    follower.wait_for_disk()
    assert sent == []
    assert durable(group, "b")[-1][1] == follower.last_index
    follower.end_flush(send)
    (answer,) = [message for _, message in sent]
    assert isinstance(answer, AppendAnswer) and answer.next_index == follower.last_index + 1


def test_the_next_entry_travels_while_the_one_before_is_applied(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commit opens the window: what waits is sent first, then what is committed is applied."""
    group = make()
    leader = group.elect("a")
    group.propose("a", b"first")
    leader.tick()
    leader.flush(lambda *_: None)
    has_it = AppendAnswer(
        term=leader.term, next_index=leader.last_index + 1, reset=False, success=True, beat=0
    )
    leader.receive("b", has_it)
    group.propose("a", b"second")
    doings: list[object] = []
    monkeypatch.setattr(group.toy("a"), "apply", lambda _, payload: doings.append(payload))

    def ahead() -> None:
        leader.send_ahead(lambda *sent: doings.append(frames.decode(sent[1])), lambda: None)

    leader.tick(ahead)
    sent_twice, applied = doings[:-1], doings[-1]
    assert [message.entries[-1][2] for message in sent_twice] == [b"\x00second"] * 2
    assert {message.commit_index for message in sent_twice} == {leader.commit_index}
    assert applied == b"first"
    assert leader.last_index == leader.commit_index + 1


def test_a_new_leader_syncs_before_its_first_append(make: Make) -> None:
    """In the round in which a term begins nothing overtakes the disk."""
    group = make(1)
    group.until(lambda: group.leader == "a")
    assert group.members["a"].doings[0] == "sync"
    assert durable(group, "a").getCurrentTerm() == group.engine("a").term


def test_a_term_that_goes_back_stops_the_process(make: Make) -> None:
    """Terms only rise; anything else is our own bug."""
    group = make(1)
    group.until(lambda: group.leader == "a")
    engine = group.engine("a")
    with pytest.raises(EngineFault, match="term would go back"):
        engine._SyncObj__setCurrentTerm(engine.term - 1, None)


# ---- appends: G4 (d, o5, n6) ----------------------------------------------------------------


def test_a_late_duplicate_of_an_old_append_erases_nothing(make: Make) -> None:
    """Neither committed entries nor those that are acknowledged and not yet committed (d, o5)."""
    group = make(settings=WIDE)
    group.elect("a")
    old = group.copy(lambda p: carries(Append, "a", "b")(p) and bool(p.message.entries), limit=1)
    group.commit(b"one")
    group.commit(b"two", b"three")
    # From here on b acknowledges and the leader does not hear of it.
    group.drop(carries(AppendAnswer))
    group.propose("a", *numbered(5))
    group.run(0.05)
    engine = group.engine("b")
    last, commit, applied = engine.last_index, engine.commit_index, engine.applied_index
    assert last > commit
    group.send_again(old.caught[0])
    group.step()
    assert (engine.last_index, engine.commit_index, engine.applied_index) == (last, commit, applied)
    # And it vouches for no more than that message proved: nothing beyond what is final here.
    answer = group.sent_by("b", AppendAnswer)[-1].message
    assert answer == AppendAnswer(
        term=engine.term,
        beat=old.caught[0].message.beat,
        next_index=commit + 1,
        reset=False,
        success=True,
    )
    group.heal()
    group.until(group.is_level)
    assert group.toy("b").payloads == [b"one", b"two", b"three", *numbered(5)]


def test_an_old_append_claims_only_what_it_proved(make: Make) -> None:
    """A follower with a former leader's tail must not count it for the new leader (G4.4)."""
    group = make()
    alone(group)
    group.inject("a", "b", append(1, 0, 1, 1, 1))
    group.step()
    assert group.engine("b").last_index == 4
    # A leader of term 2 shares entry 2 with us and knows nothing of 3 and 4.
    group.inject("c", "b", append(1, 0, 1, term=2))
    group.step()
    assert group.engine("b").last_index == 4
    answer = group.sent_by("b", AppendAnswer)[-1].message
    assert (answer.success, answer.next_index) == (True, 3)


def test_a_message_commits_no_more_than_it_proves(make: Make) -> None:
    """The tail of a former leader is not committed by the commit index of the next (G4.5)."""
    group = make()
    alone(group)
    group.inject("a", "b", append(1, 0, 1, 1, 1))
    group.step()
    group.inject("c", "b", append(1, 0, 1, term=2, commit=4))
    group.step()
    assert group.engine("b").commit_index == 2


def test_entries_are_cut_from_the_first_conflict_on(make: Make) -> None:
    """Where a new leader differs its entries replace ours, and only there."""
    group = make()
    alone(group)
    group.inject("a", "b", append(1, 0, 1, 1, 1))
    group.step()
    group.inject("c", "b", append(1, 0, 1, 2, term=2))
    group.step()
    engine = group.engine("b")
    assert [engine.term_at(index) for index in range(1, 5)] == [0, 1, 2, None]


def test_a_conflict_of_200_entries_is_repaired_in_one_round_trip(make: Make) -> None:
    """A negative answer says where both surely agree, so the leader goes back at once (n6)."""
    group = make(settings=WIDE)
    group.elect("a")
    group.isolate("a")
    group.propose("a", *numbered(250))
    group.until(lambda: group.engine("a").last_index > 200)
    group.until(lambda: group.leader in ("b", "c"))
    leader = group.leader
    assert leader is not None
    group.propose(leader, *numbered(220, "new"))
    group.until(lambda: group.engine(leader).commit_index > 220)
    group.toy("a").queue.clear()
    group.heal()
    mark = len(group.sent)
    group.until(group.is_level)
    refusals = [
        p
        for p in group.sent[mark:]
        if p.source == "a" and isinstance(p.message, AppendAnswer) and not p.message.success
    ]
    assert 1 <= len(refusals) <= 2
    assert group.toy("a").payloads == numbered(220, "new")


def test_a_leader_that_differs_in_a_final_entry_stops_the_process(make: Make) -> None:
    """Diverged logs are never repaired by deleting what was promised."""
    group = make()
    alone(group)
    group.inject("a", "b", append(1, 0, 1, 1, commit=3))
    group.step()
    group.inject("c", "b", append(2, 2, 2, term=2))
    with pytest.raises(EngineFault, match="diverged"):
        group.step()


def test_a_second_leader_in_our_own_term_stops_the_process(make: Make) -> None:
    """Election safety is broken: nothing may be answered any more."""
    group = make()
    engine = group.elect("a")
    group.inject("b", "a", append(1, 0, term=engine.term))
    with pytest.raises(EngineFault, match="two leaders"):
        group.step()


def test_an_append_of_an_old_term_is_answered_with_the_term(make: Make) -> None:
    """Its sender learns that it is deposed, and nothing else happens (g)."""
    group = make()
    alone(group)
    group.inject("a", "b", append(1, 0, 3, term=3))
    group.step()
    group.inject("c", "b", append(1, 0, 2, term=2))
    group.step()
    last = group.sent_by("b")[-1]
    assert (last.target, last.message) == ("c", TermNotice(term=3))
    assert group.engine("b").leader == "a"


# ---- snapshot messages and the commit index: G5 (e) -----------------------------------------


def test_a_snapshot_message_moves_the_commit_index_nowhere(make: Make) -> None:
    """It renews the leader and nothing else; entries that only might match are not committed."""
    group = make()
    alone(group)
    group.inject("a", "b", append(1, 0, 1, 1, 1))
    group.step()
    group.inject("c", "b", Snapshot(term=2, beat=7, head=None, offset=0, data=b""))
    group.step()
    engine = group.engine("b")
    assert (engine.commit_index, engine.last_index) == (1, 4)
    assert (engine.term, engine.leader) == (2, "c")
    head = SnapshotHead(index=90, term=2, previous_index=89, previous_term=2, size=5000, crc=1)
    group.inject("c", "b", Snapshot(term=2, beat=8, head=head, offset=0, data=b"x" * 10))
    group.step()
    assert (engine.commit_index, engine.last_index) == (1, 4)


# ---- answers and votes: G6 (n1, n2, n5) -----------------------------------------------------


@pytest.mark.parametrize(("back", "counts"), [(0, True), (1, False)])
def test_an_answer_of_an_old_term_does_not_count(make: Make, back: int, counts: bool) -> None:
    """An acknowledgement given to us in an earlier leadership says nothing about this log (n1)."""
    group = make(settings=WIDE)
    group.elect("a")
    group.engine("a").transfer("b", lambda _: None)
    group.until(lambda: group.leader == "b" and group.is_level())
    engine = group.elect("a")
    group.drop(carries(AppendAnswer))
    group.propose("a", *numbered(3))
    group.run(0.01)
    commit = engine.commit_index
    assert commit < engine.last_index
    group.inject(
        "b",
        "a",
        AppendAnswer(
            term=engine.term - back,
            beat=1,
            next_index=engine.last_index + 1,
            reset=False,
            success=True,
        ),
    )
    group.step()
    group.step()
    assert (engine.commit_index > commit) is counts


def test_a_vote_delivered_twice_counts_once(make: Make) -> None:
    """In a group of five, one voter and its echoes elect nobody; a second voter does (n2)."""
    group = make(5)
    votes = group.hold(carries(VoteAnswer))
    group.until(lambda: len(votes.caught) >= 2)
    first, second = votes.caught[:2]
    candidate = group.engine(first.target)
    assert first.source != second.source
    for _ in range(3):
        group.send_again(first)
        group.step()
    assert candidate.role == "candidate"
    group.send_again(second)
    group.step()
    assert candidate.is_leader


def test_a_vote_of_an_old_term_counts_nothing(make: Make) -> None:
    """It was given to an earlier candidacy."""
    group = make()
    votes = group.hold(carries(VoteAnswer))
    group.until(lambda: bool(votes.caught))
    old = votes.caught[0]
    candidate = group.engine(old.target)
    group.until(
        lambda: (
            candidate.role == "candidate"
            and candidate.term > old.message.term
            and any(
                p.source == old.source and p.message.term == candidate.term for p in votes.caught
            )
        )
    )
    group.send_again(old)
    group.step()
    assert candidate.role == "candidate"
    # And takes nothing from the same voter's vote of this term.
    present = next(
        p for p in votes.caught if (p.source, p.message.term) == (old.source, candidate.term)
    )
    group.send_again(present)
    group.step()
    assert candidate.is_leader


def test_a_next_index_beyond_the_log_is_ignored(make: Make) -> None:
    """Whatever a follower asks for, the leader sends from within its log (n5)."""
    group = make()
    engine = group.elect("a")
    for beyond in (engine.last_index + 2, 10**6, 0):
        for success in (True, False):
            group.inject(
                "b",
                "a",
                AppendAnswer(
                    term=engine.term, beat=1, next_index=beyond, reset=True, success=success
                ),
            )
    group.step()
    assert engine.lag_of("b") == 0
    group.commit(*numbered(3))


def test_a_late_refusal_does_not_take_back_what_matched(make: Make) -> None:
    """The next index kept for a follower stays above what it is known to hold (G6)."""
    group = make()
    engine = group.elect("a")
    group.commit(*numbered(3))
    group.inject(
        "b",
        "a",
        AppendAnswer(term=engine.term, beat=1, next_index=2, reset=True, success=False),
    )
    mark = len(group.sent)
    group.run(0.3)
    resent = [p for p in group.sent[mark:] if isinstance(p.message, Append) and p.message.entries]
    assert resent == []
    assert engine.lag_of("b") == 0


def test_a_message_of_a_stranger_is_dropped(make: Make) -> None:
    """Only members are listened to (G11)."""
    group = make()
    engine = group.elect("a")
    engine.receive("x", VoteRequest(term=99, last_index=99, last_term=99, handover=True))
    engine.receive("x", TermNotice(term=99))
    group.run(0.2)
    assert engine.is_leader and engine.term < 99


# ---- pre-vote, stickiness, step-down: G7, G8 (g, n7) ----------------------------------------


def test_a_returning_follower_does_not_depose_a_healthy_leader(make: Make) -> None:
    """However long it was away, it has not campaigned and nobody changes term."""
    group = make()
    engine = group.elect("a")
    term = engine.term
    group.isolate("b")
    group.run(5.0)
    assert group.engine("b").role == "follower" and group.engine("b").leader is None
    assert group.engine("b").term == term
    group.heal()
    group.run(2.0)
    assert (group.leader, engine.term) == ("a", term)
    assert group.engine("b").leader == "a"


def test_a_follower_that_hears_a_leader_grants_no_prevote_and_no_vote(make: Make) -> None:
    """Nor does a leader: who does not hear us may be the one that is cut off."""
    group = make()
    engine = group.elect("a")
    term, last = engine.term, engine.last_index
    mark = len(group.sent)
    for target in ("a", "b"):
        group.inject(
            "c",
            target,
            PreVoteRequest(
                term=term, next_term=term + 1, last_index=last + 9, last_term=term, nonce=1
            ),
        )
        group.inject(
            "c",
            target,
            VoteRequest(term=term + 1, last_index=last + 9, last_term=term + 1, handover=False),
        )
    group.run(0.02)
    granted = [p for p in group.sent[mark:] if isinstance(p.message, PreVoteAnswer | VoteAnswer)]
    assert granted == []
    assert group.leader == "a" and group.engine("b").term == term


def test_a_prevote_is_not_granted_to_a_log_that_is_behind(make: Make) -> None:
    """Even if nobody leads."""
    group = make()
    group.elect("a")
    group.commit(*numbered(3))
    alone(group)
    group.run(0.5)
    engine = group.engine("b")
    request = PreVoteRequest(
        term=engine.term,
        next_term=engine.term + 1,
        last_index=engine.last_index - 1,
        last_term=engine.term,
        nonce=7,
    )
    mark = len(group.sent)
    group.inject("c", "b", request)
    group.step()
    assert group.sent[mark:] == []


def test_a_prevote_in_an_old_term_is_told_the_term(make: Make) -> None:
    """Without it a node with an older term could never catch up by itself."""
    group = make()
    engine = group.elect("a")
    group.inject("b", "a", PreVoteRequest(term=0, next_term=1, last_index=1, last_term=0, nonce=1))
    group.step()
    assert TermNotice(term=engine.term) in [p.message for p in group.sent_by("a", TermNotice)]


def test_a_prevote_changes_nothing_at_the_receiver(make: Make) -> None:
    """No term, no vote: asking costs nothing."""
    group = make()
    alone(group)
    group.run(1.0)
    engine = group.engine("b")
    before = (engine.term, engine.voted_for)
    group.inject("c", "b", PreVoteRequest(term=8, next_term=9, last_index=9, last_term=8, nonce=1))
    group.step()
    assert len(group.sent_by("b", PreVoteAnswer)) == 1
    assert (engine.term, engine.voted_for) == before


def test_late_prevote_answers_start_no_election_against_a_new_leader(make: Make) -> None:
    """Answers under way when a leader is heard are worthless."""
    group = make()
    group.until(lambda: bool(group.sent))
    asker = group.sent[0].source
    held = group.hold(carries(PreVoteAnswer, target=asker))
    engine = group.engine(asker)
    group.until(lambda: engine.leader not in (None, asker))
    term, started = engine.term, engine.elections_started
    assert held.caught
    held.release()
    group.run(0.1)
    assert (engine.term, engine.elections_started) == (term, started)


def test_late_prevote_answers_start_no_election_against_a_leader_that_is_back(make: Make) -> None:
    """It was silent for a moment, in the same term; then it is heard again."""
    group = make()
    engine = group.elect("a")
    term, mark = engine.term, len(group.sent)
    grants = group.hold(carries(PreVoteAnswer))
    for other in ("b", "c"):
        group.cut("a", other)
    group.until(lambda: bool(grants.caught))
    asker = group.engine(grants.caught[0].target)
    group.heal()
    engine.read_index(lambda _: None)
    group.until(lambda: asker.leader == "a")
    grants.release()
    group.run(0.1)
    assert (group.leader, engine.term, asker.term) == ("a", term, term)
    assert [p for p in group.sent[mark:] if isinstance(p.message, VoteRequest)] == []


def test_a_leader_cut_off_steps_down_within_a_second_and_serves_no_read_meanwhile(
    make: Make,
) -> None:
    """Its reads are told that it leads no longer (g)."""
    group = make()
    engine = group.elect("a")
    group.isolate("a")
    told: list[int | None] = []

    def ask_until_deposed() -> bool:
        if engine.is_leader:
            engine.read_index(told.append)
        return not engine.is_leader

    group.until(ask_until_deposed, within=1.0)
    assert set(told) == {None}
    assert engine.leader is None


def test_after_stepping_down_the_next_election_does_not_come_at_once(make: Make) -> None:
    """The deadline of the time before it led lies in the past and is not used (n7)."""
    group = make()
    engine = group.elect("a")
    group.run(3.0)
    group.isolate("a")
    group.inject("b", "a", TermNotice(term=engine.term + 5))
    group.step()
    assert engine.role == "follower"
    group.run(group.settings.election_min - 0.01)
    assert group.sent_by("a", PreVoteRequest) == []
    group.until(lambda: bool(group.sent_by("a", PreVoteRequest)), within=1.0)


def test_nobody_connected_nobody_campaigns(make: Make) -> None:
    """A node that reaches nobody does not raise its term for ever."""
    group = make()
    alone(group)
    group.run(5.0)
    assert group.engine("b").term == 0
    assert group.sent_by("b") == []


def test_a_follower_that_reaches_nobody_forgets_its_leader(make: Make) -> None:
    """Who is asked then says at once that nobody leads; it does not campaign all the same."""
    group = make()
    group.elect("a")
    alone(group)
    engine, term = group.engine("b"), group.engine("b").term
    group.until(lambda: engine.leader is None, within=1.0)
    mark = len(group.sent)
    group.run(3.0)
    assert (engine.role, engine.leader, engine.term) == ("follower", None, term)
    assert group.sent[mark:] == []
    group.start("a")
    group.until(lambda: engine.leader is not None and group.is_level(), within=5.0)


def test_a_group_elects_again_after_the_leader_is_lost(make: Make) -> None:
    """Stickiness ends when the leader is silent."""
    group = make()
    group.elect("a")
    group.crash("a")
    group.until(lambda: group.leader in ("b", "c"), within=3.0)
    group.commit(*numbered(3))


def test_a_node_with_a_higher_term_is_not_cut_off_for_ever(make: Make) -> None:
    """It refuses the leader's appends, says its term, and a new election brings it back."""
    group = make()
    engine = group.elect("a")
    group.inject("b", "c", TermNotice(term=engine.term + 7))
    group.until(lambda: group.engine("c").term >= 8)
    group.until(lambda: group.engine("c").leader is not None and group.is_level())
    assert engine.term > 8
    group.commit(b"x")


# ---- reads: G12 -----------------------------------------------------------------------------


def test_a_read_is_served_at_or_after_everything_committed_before_it(make: Make) -> None:
    """On a healthy leader, within a round trip and without a log entry."""
    group = make()
    engine = group.elect("a")
    group.commit(*numbered(3))
    last = engine.last_index
    told: list[int | None] = []
    engine.read_index(told.append)
    group.run(0.02)
    assert told == [last]
    assert engine.last_index == last


def test_a_read_on_a_follower_or_an_unsettled_leader_is_refused_at_once(make: Make) -> None:
    """Who has not committed an entry of its own term does not know what is committed."""
    group = make()
    group.elect("a")
    told: list[int | None] = []
    group.engine("b").read_index(told.append)
    assert told == [None]
    group.drop(carries(AppendAnswer))
    group.crash("a")
    group.until(lambda: group.leader is not None)
    assert group.leader is not None
    engine = group.engine(group.leader)
    assert not engine.is_settled_leader
    engine.read_index(told.append)
    assert told == [None, None]


def test_an_isolated_leader_never_answers_a_read_with_an_old_index(make: Make) -> None:
    """Elsewhere the log goes on; here the read waits and is told None at the step-down."""
    group = make()
    engine = group.elect("a")
    group.isolate("a")
    told: list[int | None] = []
    engine.read_index(told.append)
    group.until(lambda: group.leader in ("b", "c"), within=3.0)
    leader = group.leader
    assert leader is not None
    group.propose(leader, b"newer")
    group.until(lambda: b"newer" in group.toy(leader).payloads)
    group.run(1.0)
    assert told == [None]


def test_answers_to_earlier_heartbeats_confirm_no_read(make: Make) -> None:
    """They may have been sent before somebody else was elected."""
    group = make()
    engine = group.elect("a")
    old = group.hold(carries(AppendAnswer, target="a"))
    group.run(0.25)
    assert old.caught
    group.isolate("a")
    told: list[int | None] = []
    engine.read_index(told.append)
    old.release()
    group.run(0.1)
    assert engine.is_leader
    assert told == []


def test_one_of_four_followers_confirms_no_read(make: Make) -> None:
    """In a group of five a majority is three."""
    group = make(5)
    engine = group.elect("a")
    group.drop(lambda p: isinstance(p.message, AppendAnswer) and p.source != "b")
    told: list[int | None] = []
    engine.read_index(told.append)
    group.run(0.5)
    assert told == []
    group.heal()
    group.run(0.2)
    assert told == [engine.commit_index]


def test_a_single_node_serves_reads_and_writes(make: Make) -> None:
    """It is its own majority."""
    group = make(1)
    group.until(group.is_level)
    group.commit(*numbered(3))
    told: list[int | None] = []
    group.engine("a").read_index(told.append)
    group.step()
    assert told == [group.engine("a").last_index]


# ---- commands: G9, G10 (h1, h2, l1, l2) -----------------------------------------------------


def test_a_proposal_that_commits_is_ok(make: Make) -> None:
    """Told once, after it was applied."""
    group = make()
    group.elect("a")
    group.commit(*numbered(3))
    assert group.toy("a").outcomes == [(payload, Outcome.OK) for payload in numbered(3)]


def test_a_follower_takes_no_command(make: Make) -> None:
    """What lies in its queue stays there; forwarding is done above Raft."""
    group = make()
    group.elect("a")
    group.propose("b", b"x")
    group.run(0.5)
    assert list(group.toy("b").queue) == [b"x"]
    assert group.toy("b").outcomes == []


def test_a_leader_takes_no_command_before_its_term_has_begun(make: Make) -> None:
    """First its empty entry must be applied: only then it knows all that is promised."""
    group = make(settings=WIDE)
    group.drop(carries(AppendAnswer))
    group.until(lambda: group.leader is not None)
    assert group.leader is not None
    group.propose(group.leader, b"x")
    group.run(0.2)
    assert list(group.toy(group.leader).queue) == [b"x"]


def test_one_entry_is_under_way_at_a_time(make: Make) -> None:
    """The rest waits above and fills the next entry (group commit)."""
    group = make(settings=EngineSettings(window=1))
    engine = group.elect("a")
    group.drop(carries(AppendAnswer))
    group.propose("a", *numbered(5))
    group.run(0.1)
    assert engine.last_index - engine.commit_index == 1
    assert len(group.toy("a").queue) == 4


def test_followers_learn_of_a_commit_without_waiting_for_a_heartbeat(make: Make) -> None:
    """The commit notice: a round trip and one message later all have applied it."""
    group = make(settings=EngineSettings(heartbeat=0.13))
    group.elect("a")
    group.until(lambda: bool(group.sent_by("a", Append)) and group.sent[-1].due < group.steps - 5)
    group.propose("a", b"x")
    group.run(0.012)
    assert all(b"x" in group.toy(name).payloads for name in group.names)


def test_a_notice_of_a_commit_is_not_answered(make: Make) -> None:
    """It confirms nothing: one answer to each entry of each follower, none to the notice."""
    group = make(settings=EngineSettings(heartbeat=0.13))
    group.elect("a")
    group.until(lambda: bool(group.sent_by("a", Append)) and group.sent[-1].due < group.steps - 5)
    known = len(group.sent)
    group.propose("a", b"x")
    group.run(0.012)
    since = [packet.message for packet in group.sent[known:]]
    appends = [message for message in since if isinstance(message, Append)]
    answers = [message for message in since if isinstance(message, AppendAnswer)]
    assert [(append.beat > 0, len(append.entries)) for append in appends] == [(True, 1)] * 2 + [
        (False, 0)
    ] * 2
    assert [answer.beat for answer in answers] == [appends[0].beat] * 2


def test_a_notice_to_a_follower_that_lacks_the_entries_is_answered(make: Make) -> None:
    """Else it would be told of them one heartbeat later only."""
    group = make(settings=EngineSettings(heartbeat=0.13))
    engine = group.elect("a")
    group.until(group.is_level)
    last, commit = engine.last_index, engine.commit_index
    notice = Append(engine.term, 0, commit, last + 7, engine.term, ())
    known = len(group.sent)
    group.inject("a", "c", notice)
    group.run(0.006)
    answers = [p.message for p in group.sent[known:] if isinstance(p.message, AppendAnswer)]
    assert [(answer.success, answer.next_index) for answer in answers] == [(False, commit + 1)]


def test_a_read_waits_for_a_heartbeat_and_not_for_a_notice(make: Make) -> None:
    """A notice echoes nothing: an answer that says beat 0 confirms no read."""
    group = make()
    engine = group.elect("a")
    group.until(group.is_level)
    ready: list[int | None] = []
    group.drop(carries(AppendAnswer))
    engine.read_index(ready.append)
    for name in ("b", "c"):
        group.inject(name, "a", AppendAnswer(engine.term, 0, engine.last_index + 1, False, True))
    group.run(0.05)
    assert ready == []


def test_an_overwritten_proposal_ends_discarded(make: Make) -> None:
    """It surely did not happen: another leader's entry stands in its place (h1)."""
    group = make()
    engine = group.elect("a")
    group.isolate("a")
    group.propose("a", b"lost")
    group.until(lambda: group.leader in ("b", "c"), within=3.0)
    assert group.toy("a").outcomes == []
    group.heal()
    group.until(group.is_level)
    assert group.toy("a").outcome_of(b"lost") is Outcome.DISCARDED
    assert b"lost" not in group.toy("a").payloads
    assert engine.role == "follower"


def test_a_proposal_nobody_can_tell_of_ends_unknown(make: Make) -> None:
    """It is in a deposed leader's log and may be in others (h1, h2)."""
    group = make()
    engine = group.elect("a")
    group.isolate("a")
    group.propose("a", b"adrift")
    group.until(lambda: not engine.is_leader)
    assert group.toy("a").outcome_of(b"adrift") is None
    group.run(group.settings.election_max + 0.1)
    assert group.toy("a").outcome_of(b"adrift") is Outcome.UNKNOWN


def test_a_proposal_of_a_deposed_leader_that_was_committed_after_all_ends_ok(make: Make) -> None:
    """The next leader had it (h1: the library says "failed")."""
    group = make()
    engine = group.elect("a")
    group.drop(carries(AppendAnswer, target="a"))
    group.propose("a", b"kept")
    group.run(0.01)
    assert group.engine("b").last_index == engine.last_index
    group.isolate("a")
    group.until(lambda: group.leader in ("b", "c"), within=3.0)
    group.until(lambda: group.leader in ("b", "c") and b"kept" in group.toy(group.leader).payloads)
    group.heal()
    group.until(group.is_level)
    assert engine.role == "follower"
    assert group.toy("a").outcome_of(b"kept") is Outcome.OK


def test_every_proposal_of_a_deposed_leader_is_settled_also_by_a_snapshot(make: Make) -> None:
    """The snapshot takes the place of its log, and is shorter than it (h2)."""
    group = make(settings=SMALL)
    engine = group.elect("a")
    group.isolate("a")
    group.propose("a", *numbered(90, "lost"))
    group.run(0.25)
    assert engine.last_index > 90
    # The others go on without it until their logs begin after the place where both agree.
    group.until(lambda: group.leader in ("b", "c"), within=3.0)
    leader = group.leader
    assert leader is not None
    group.propose(leader, *numbered(45, "kept"))
    group.until(lambda: not group.toy(leader).queue and group.engine(leader).first_index > 20)
    assert engine.snapshots_installed == 0 and group.toy("a").outcomes == []
    group.heal()
    group.until(group.is_level)
    assert engine.snapshots_installed == 1
    group.run(2.0)
    for payload in numbered(90, "lost"):
        assert group.toy("a").outcome_of(payload) in (Outcome.UNKNOWN, Outcome.DISCARDED)
    assert group.toy("a").payloads == numbered(45, "kept")


def test_an_exception_in_apply_comes_out_of_the_round(make: Make) -> None:
    """The process ends; the entry is not applied on every tick from then on (l1)."""
    group = make()
    group.elect("a")
    group.toy("b").raise_on = b"bad"
    group.propose("a", b"bad", b"good")
    with pytest.raises(ArithmeticError):
        group.run(1.0)
    assert [payload for _, payload in group.toy("b").applied] == [b"bad"]
    group.restart("b")
    group.until(group.is_level)
    assert group.toy("b").payloads == [b"bad", b"good"]


def test_an_exception_in_a_callback_applies_nothing_twice(make: Make) -> None:
    """It ends the process like any other of our own bugs; the state has the entry once (l2)."""
    group = make()
    group.elect("a")
    group.toy("a").raise_on_outcome = b"odd"
    group.propose("a", b"odd")
    with pytest.raises(ArithmeticError):
        group.run(1.0)
    assert group.toy("a").payloads.count(b"odd") == 1
    group.restart("a")
    group.until(group.is_level)
    group.commit(b"even")
    for name in group.names:
        assert group.toy(name).payloads == [b"odd", b"even"]


def test_an_oversized_payload_is_refused(make: Make) -> None:
    """Entries are never split (f); what would have to be was sealed wrongly."""
    group = make(settings=EngineSettings(payload_bytes_max=100))
    engine = group.elect("a")
    group.commit(b"x" * 100)
    last = engine.last_index
    group.propose("a", b"x" * 101)
    with pytest.raises(EngineFault, match="101 bytes"):
        group.run(0.1)
    assert engine.last_index == last


@pytest.mark.parametrize(
    "command", [b"", b"\x02" + pickle.dumps(("add", "x")), b"\x03" + pickle.dumps(9), b"\x07"]
)
def test_an_entry_of_an_unknown_kind_stops_the_process(make: Make, command: bytes) -> None:
    """The library's kinds of membership and version are never unpickled (k1, k2, l3)."""
    group = make()
    alone(group)
    message = Append(
        term=1, beat=1, commit_index=2, prev_index=1, prev_term=0, entries=((2, 1, command),)
    )
    group.inject("a", "b", message)
    with pytest.raises(EngineFault, match="entry 2 is of an unknown kind"):
        group.run(0.01)
    assert group.toy("b").log == []


def test_a_long_log_is_applied_in_bounded_parts(make: Make) -> None:
    """Heartbeats go on after a restart: not everything is applied in one tick."""
    group = make(settings=EngineSettings(apply_entries_max=10))
    group.elect("a")
    group.commit(*numbered(95))
    group.restart("b")
    engine, steps = group.engine("b"), []

    def watch() -> bool:
        steps.append(engine.applied_index)
        return group.is_level()

    group.until(watch)
    assert max(after - before for before, after in itertools.pairwise(steps)) == 10


def test_a_log_of_large_entries_is_applied_in_parts_of_so_many_bytes(make: Make) -> None:
    """A thousand small entries are a moment, a hundred full ones several seconds."""
    group = make(settings=EngineSettings(apply_bytes_max=1_000))
    group.elect("a")
    group.commit(*(bytes(300) for _ in range(30)))
    group.restart("b")
    toy, steps = group.toy("b"), []

    def watch() -> bool:
        steps.append(len(toy.applied))
        return group.is_level()

    group.until(watch)
    assert max(after - before for before, after in itertools.pairwise(steps)) == 4


def test_a_follower_that_missed_much_is_sent_it_as_it_confirms(make: Make) -> None:
    """All at once would be more than may wait for a peer: its stream would break, for ever anew."""
    settings = EngineSettings(append_bytes_max=1_000, append_window_bytes=3_000)
    group = make(settings=settings, latency_steps=5)
    engine = group.elect("a")
    group.crash("b")
    group.commit(*(bytes(200) for _ in range(100)))
    mark, began, unconfirmed = len(group.sent), group.steps, []
    group.start("b")

    def watch() -> bool:
        lag = engine.lag_of("b")
        assert lag is not None
        unconfirmed.append(
            sum(
                len(packet.frame)
                for packet in group.sent[mark:]
                if carries(Append, "a", "b")(packet)
                and packet.message.entries
                and packet.message.entries[-1][0] > engine.last_index - lag
            )
        )
        return group.is_level()

    group.until(watch)
    assert 3_000 <= max(unconfirmed) < 4_500
    # Each part goes as soon as the one before is confirmed: only the first waits for a heartbeat.
    assert group.steps - began < 50 + 10 * 12


# ---- snapshots: G5 (c7, c10, e, j4, n3, n4, n8) ---------------------------------------------


def far_behind(group: Group, name: str = "b", count: int = 100) -> None:
    """Let one member miss so much that only a snapshot helps, then start it again."""
    group.elect("a")
    group.crash(name)
    group.commit(*numbered(count))
    group.start(name)


def test_a_follower_far_behind_gets_a_snapshot_in_chunks(make: Make) -> None:
    """Then the rest of the log, and both agree."""
    group = make(settings=SMALL)
    far_behind(group)
    group.until(group.is_level)
    assert group.engine("b").snapshots_installed == 1
    assert group.toy("b").log == group.toy("a").log
    chunks = [p for p in group.sent_by("a", Snapshot) if p.message.data]
    assert len(chunks) > 5
    assert all(len(p.message.data) <= 100 for p in chunks)


@pytest.mark.parametrize("seed", range(6))
def test_a_snapshot_arrives_through_loss_duplicates_and_disorder(make: Make, seed: int) -> None:
    """A third lost, a third held back and sent twice, backwards."""
    group = make(settings=SMALL, seed=seed)
    rng = random.Random(seed)
    far_behind(group)
    kinds = carries((Snapshot, SnapshotAnswer))
    group.drop(lambda p: kinds(p) and rng.random() < 0.3)
    held = group.hold(lambda p: kinds(p) and rng.random() < 0.3)
    for _ in range(1500):
        group.run(0.02)
        for packet in reversed(held.caught):
            group.send_again(packet)
            group.send_again(packet)
        held.caught.clear()
        if group.is_level():
            break
    assert group.is_level(), group.describe()
    assert group.toy("b").log == group.toy("a").log
    assert group.engine("b").snapshots_installed == 1


def test_a_receiver_that_restarts_in_the_middle_begins_again(make: Make) -> None:
    """What it had of the file is gone; the leader goes back to what is asked for."""
    group = make(settings=SMALL)
    far_behind(group)
    group.until(lambda: any(p.message.offset >= 500 for p in group.sent_by("b", SnapshotAnswer)))
    group.restart("b")
    assert group.engine("b").applied_index == 1
    group.until(group.is_level)
    assert group.toy("b").log == group.toy("a").log


def test_a_sender_that_restarts_in_the_middle_does_no_harm(make: Make) -> None:
    """Another leader, or the same one in a later term, brings the follower level."""
    group = make(settings=SMALL)
    far_behind(group)
    group.until(lambda: any(p.message.offset >= 500 for p in group.sent_by("b", SnapshotAnswer)))
    group.restart("a")
    group.until(group.is_level)
    assert group.toy("b").log == group.toy("a").log


def test_a_new_leader_with_an_older_snapshot_is_listened_to(make: Make) -> None:
    """Half a newer file from a leader that is gone must not shut the follower off."""
    group = make(settings=SMALL)
    group.elect("a")
    group.crash("b")
    group.commit(*numbered(30))
    # From here on c makes no new snapshot, and a does.
    dumper = group.members["c"].dumper
    assert dumper is not None
    dumper.is_held = True
    group.commit(*numbered(70, "q"))
    newest, older = group.engine("a").snapshots.latest, group.engine("c").snapshots.latest
    assert newest is not None and older is not None and newest.index > older.index > 2
    group.start("b")
    group.until(lambda: any(p.message.offset >= 300 for p in group.sent_by("b", SnapshotAnswer)))
    group.crash("a")
    group.until(lambda: group.leader == "c" and group.is_level())
    assert group.toy("b").log == group.toy("c").log


def test_an_entry_that_a_snapshot_swallowed_is_never_sent_as_an_empty_one(make: Make) -> None:
    """Who has it from a snapshot only cannot give it to a follower that ended just before it."""
    group = make(5, settings=SMALL)
    group.elect("a")
    group.crash("b")
    engine = group.engine("a")
    group.propose("a", *numbered(20 - engine.last_index))
    group.until(lambda: engine.last_index == 20 and group.is_level())
    group.isolate("c", noticed=True)
    group.propose("a", b"swallowed")
    group.until(lambda: engine.snapshots.latest is not None)
    group.start("b")
    group.until(lambda: group.engine("b").snapshots_installed == 1)
    engine.transfer("b", lambda _: None)
    group.until(lambda: group.leader == "b")
    assert (group.engine("b").first_index, group.engine("c").last_index) == (21, 20)
    group.heal()
    group.until(group.is_level)
    for name in group.names:
        assert group.toy(name).payloads[-1] == b"swallowed"


def test_a_corrupt_chunk_is_refused_and_the_snapshot_asked_for_again(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of it is loaded, what was there before stays (n3)."""
    group = make(settings=SMALL)
    far_behind(group)
    caught = group.drop(
        lambda p: isinstance(p.message, Snapshot) and p.message.offset == 500, limit=1
    )
    group.until(lambda: bool(caught.caught))
    whole = caught.caught[0].message
    data = bytearray(whole.data)
    data[40] ^= 4
    group.inject(
        "a",
        "b",
        Snapshot(term=whole.term, beat=whole.beat, head=whole.head, offset=500, data=bytes(data)),
    )
    group.step()
    group.step()
    group.until(group.is_level)
    assert [p for p in group.sent_by("b", SnapshotAnswer) if p.message.offset == 0]
    assert group.engine("b").snapshots_installed == 1
    assert group.toy("b").log == group.toy("a").log
    assert caplog.text.count("a snapshot that a sends was not taken") == 1


def state_file(group: Group, name: str) -> tuple[SnapshotHead, bytes]:
    """The latest snapshot of a member as it would be sent."""
    store = group.engine(name).snapshots
    latest = store.latest
    assert latest is not None
    head = SnapshotHead(
        index=latest.index,
        term=latest.term,
        previous_index=latest.previous_index,
        previous_term=latest.previous_term,
        size=latest.size,
        crc=latest.crc,
    )
    return head, store.read(latest, 0, latest.size)


def test_the_tail_is_kept_when_the_log_has_the_snapshots_entry(make: Make) -> None:
    """It was acknowledged: dropping it would take a copy from a majority (n4)."""
    group = make(settings=SMALL)
    far_behind(group)
    head, data = state_file(group, "a")
    log = [group.engine("a").term_at(index) for index in range(head.index, head.index + 3)]
    assert log[0] == head.term
    alone(group, "b")
    group.restart("b")
    engine = group.engine("b")
    # b holds entries up to beyond the snapshot, but knows of no commit.
    terms = [1] * (head.index - 2) + [head.term] * 4
    group.inject("a", "b", append(1, 0, *terms, term=head.term))
    group.step()
    assert (engine.last_index, engine.commit_index) == (head.index + 3, 1)
    group.inject("a", "b", Snapshot(term=head.term, beat=9, head=head, offset=0, data=data))
    group.run(0.02)
    assert engine.last_index == head.index + 3
    assert engine.snapshots_installed == 0
    assert engine.commit_index == engine.applied_index == head.index
    answer = group.sent_by("b", AppendAnswer)[-1].message
    assert (answer.success, answer.next_index) == (True, head.index + 1)


def test_a_snapshot_of_what_is_applied_already_is_answered_and_dropped(make: Make) -> None:
    """A late one takes nothing back; the answer says how far we are."""
    group = make(settings=SMALL)
    far_behind(group)
    group.until(group.is_level)
    head, data = state_file(group, "a")
    engine, log = group.engine("b"), list(group.toy("b").log)
    commit = engine.commit_index
    assert head.index < commit
    group.inject("a", "b", Snapshot(term=engine.term, beat=1, head=head, offset=0, data=data))
    group.step()
    assert group.toy("b").log == log
    answer = group.sent_by("b", AppendAnswer)[-1].message
    assert (answer.success, answer.next_index) == (True, commit + 1)
    assert engine.commit_index == commit


def test_a_dump_under_way_does_not_trim_the_log_of_a_received_snapshot(make: Make) -> None:
    """It is cancelled before the log is replaced (n8)."""
    group = make(settings=SMALL)
    group.elect("a")
    dumper = group.members["b"].dumper
    assert dumper is not None
    dumper.is_held = True
    group.commit(*numbered(30))
    assert dumper.busy
    group.isolate("b")
    leader = group.leader
    assert leader is not None
    group.propose("a", *numbered(70, "q"))
    group.until(lambda: not group.toy("a").queue)
    group.run(0.1)
    group.heal()
    group.until(group.is_level)
    assert group.engine("b").snapshots_installed == 1
    assert dumper.cancelled == 1
    dumper.is_held = False
    group.commit(*numbered(30, "r"))
    assert group.toy("b").log == group.toy("a").log


def test_a_leader_does_not_step_down_during_a_long_transfer(make: Make) -> None:
    """Every piece acknowledged is a sign of life, though no entry commits meanwhile."""
    settings = EngineSettings(
        snapshot_entries=20, snapshot_chunk_bytes=50, snapshot_window_bytes=50, window=100
    )
    group = make(settings=settings, latency_steps=25)
    far_behind(group)
    engine = group.engine("a")
    term = engine.term
    group.crash("c")
    began = group.steps
    group.until(group.is_level, within=60.0)
    assert (group.steps - began) * 0.002 > 2 * settings.check_quorum
    assert (engine.is_leader, engine.term) == (True, term)


def test_no_busy_spin_while_a_follower_waits_for_a_snapshot(make: Make) -> None:
    """Nothing can be sent for now: a few messages per heartbeat, not thousands (j4)."""
    group = make(settings=SMALL)
    far_behind(group)
    group.until(lambda: bool(group.sent_by("a", Snapshot)))
    group.drop(carries(SnapshotAnswer, "b"))
    group.run(0.5)
    mark = len(group.sent)
    group.run(1.0)
    to_b = [p for p in group.sent[mark:] if (p.source, p.target) == ("a", "b")]
    assert 10 <= len(to_b) <= 40
    assert group.engine("a").is_leader


def test_a_compaction_waits_for_a_snapshot_on_its_way(make: Make) -> None:
    """Else a slow follower would need the next one at once; but the log stays bounded."""
    group = make(settings=SMALL)
    far_behind(group)
    group.until(lambda: bool(group.sent_by("b", SnapshotAnswer)))
    first = group.engine("a").first_index
    sending = group.engine("a").snapshots.latest
    group.propose("a", *numbered(40, "q"))
    group.until(lambda: group.engine("b").snapshots_installed == 1)
    group.until(group.is_level)
    assert group.engine("b").snapshots_installed == 1
    assert sending is not None and group.toy("b").loads == [sending.index]
    group.commit(*numbered(30, "r"))
    assert group.engine("a").first_index > first


def test_a_snapshot_on_its_way_is_kept_until_it_has_arrived(make: Make) -> None:
    """Even when so much is written meanwhile that the log must be compacted after all."""
    group = make(settings=SMALL)
    far_behind(group)
    engine = group.engine("a")
    group.until(lambda: bool(group.sent_by("b", SnapshotAnswer)))
    sending = engine.snapshots.latest
    assert sending is not None
    held = group.hold(carries(SnapshotAnswer, "b"))
    group.propose("a", *numbered(150, "q"))
    group.until(lambda: engine.snapshots.latest != sending)
    held.release()
    group.until(lambda: bool(group.toy("b").loads))
    assert group.toy("b").loads == [sending.index]
    group.until(group.is_level)
    assert group.toy("b").log == group.toy("a").log
    assert [file for file in group.disk("a").names() if str(sending.index) in file] == []


def test_a_dump_that_fails_is_told_and_tried_again_later(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The log is kept meanwhile, so nothing is lost."""
    group = make(settings=SMALL)
    engine = group.elect("a")
    toy = group.toy("a")

    def broken() -> Iterator[bytes]:
        raise ValueError("no dump today")
        yield b""

    whole, toy.dump = toy.dump, broken  # type: ignore[method-assign]
    group.commit(*numbered(50))
    assert engine.dumps_failed == 1
    assert "no dump today" in caplog.text
    assert (engine.first_index, engine.snapshots.latest) == (1, None)
    toy.dump = whole  # type: ignore[method-assign]
    group.run(10.1)
    assert engine.snapshots.latest is not None
    assert engine.first_index > 1


# ---- hand-over: G13 (o3, o4) ----------------------------------------------------------------


def test_leadership_is_handed_over_under_load_without_unknown_outcomes(make: Make) -> None:
    """A few message times later the target leads; what was queued stays queued (o4)."""
    group = make()
    engine = group.elect("a")
    term = engine.term
    told: list[str | None] = []
    load = iter(numbered(1000))

    def load_and(condition: Callable[[], bool]) -> Callable[[], bool]:
        def check() -> bool:
            if len(group.toy("a").queue) < 3:
                group.propose("a", next(load))
            return condition()

        return check

    group.until(load_and(lambda: engine.commit_index > 30))
    began = group.steps
    engine.transfer("c", told.append)
    group.until(load_and(lambda: group.leader == "c"))
    assert group.steps - began < 15
    assert told == [None]
    assert group.engine("c").term == term + 1
    group.until(group.is_level)
    assert {outcome for _, outcome in group.toy("a").outcomes} == {Outcome.OK}
    assert len(group.toy("a").queue) >= 1


def test_without_a_name_the_caught_up_peer_heard_last_takes_over(make: Make) -> None:
    """One that is silent is no candidate."""
    group = make()
    engine = group.elect("a")
    group.isolate("b")
    group.run(0.3)
    told: list[str | None] = []
    engine.transfer(None, told.append)
    group.until(lambda: group.leader == "c")
    assert told == [None]


def test_a_hand_over_without_a_candidate_is_refused(make: Make) -> None:
    """Nobody connected, nobody heard lately, or all too far behind."""
    group = make(settings=EngineSettings(transfer_lag_max=10, window=100))
    engine = group.elect("a")
    told: list[str | None] = []
    group.engine("b").transfer(None, told.append)
    assert told == ["not_leader"]
    for peer in ("b", "c"):
        engine.disconnected(peer)
    engine.transfer(None, told.append)
    assert told[-1] == "no_candidate"
    for peer in ("b", "c"):
        engine.connected(peer)
    group.drop(carries(Append, target="b"))
    group.run(0.3)
    engine.transfer("b", told.append)
    assert told[-1] == "no_candidate"
    group.heal()
    lagging = group.drop(lambda p: carries(Append, target="b")(p) and bool(p.message.entries))
    group.propose("a", *numbered(20))
    group.run(0.15)
    assert (engine.lag_of("b") or 0) > 10
    engine.transfer("b", told.append)
    assert told[-1] == "no_candidate"
    lagging.end()
    assert engine.is_leader


def test_a_second_hand_over_is_refused_while_one_is_under_way(make: Make) -> None:
    """The first one goes on."""
    group = make()
    engine = group.elect("a")
    told: list[str | None] = []
    engine.transfer("b", told.append)
    assert not engine.can_take_entry
    engine.transfer("c", told.append)
    assert told == ["transfer_running"]
    group.until(lambda: group.leader == "b")
    assert told == ["transfer_running", None]


def test_a_hand_over_gives_up_and_the_leader_goes_on(make: Make) -> None:
    """After the shortest election timeout the queue flows again."""
    group = make()
    engine = group.elect("a")
    group.drop(carries(TimeoutNow))
    told: list[str | None] = []
    engine.transfer("b", told.append)
    group.propose("a", b"x")
    group.run(group.settings.election_min - 0.01)
    assert told == [] and list(group.toy("a").queue) == [b"x"]
    group.run(0.05)
    assert told == ["transfer_timed_out"]
    assert engine.is_leader
    assert group.toy("a").outcome_of(b"x") is Outcome.OK


def test_a_target_that_is_not_level_is_told_nothing(make: Make) -> None:
    """The hand-over waits for the last entry to be matched and applied."""
    group = make()
    engine = group.elect("a")
    group.drop(lambda p: carries(Append, target="b")(p) and bool(p.message.entries))
    group.propose("a", b"x")
    group.run(0.02)
    engine.transfer("b", lambda _: None)
    group.run(0.3)
    assert group.sent_by("a", TimeoutNow) == []


@pytest.mark.parametrize("fault", ["sender", "term", "log", "candidate", "leader"])
def test_a_target_ignores_the_word_in_any_other_state(make: Make, fault: str) -> None:
    """Only a follower, from its leader, in this term, with exactly this log (o3)."""
    group = make()
    leader = group.elect("a")
    engine = group.engine("b")
    term, last, source = engine.term, engine.last_index, "a"
    if fault == "sender":
        source = "c"
    elif fault == "term":
        term -= 1
    elif fault == "log":
        last += 1
    elif fault == "leader":
        engine, source = leader, "b"
    elif fault == "candidate":
        group.drop(carries(VoteAnswer))
        group.crash("a")
        group.until(lambda: "candidate" in (group.engine("b").role, group.engine("c").role))
        name = "b" if group.engine("b").role == "candidate" else "c"
        engine, source = group.engine(name), "a"
        term, last = engine.term, engine.last_index
    started, before = engine.elections_started, engine.term
    target = next(name for name in group.running if group.engine(name) is engine)
    group.inject(source, target, TimeoutNow(term=term, last_index=last))
    group.run(0.01)
    assert (engine.elections_started, engine.term) == (started, before)


def test_the_word_is_forgotten_when_the_term_changes_before_the_next_tick(make: Make) -> None:
    """The library's flag outlives it and makes a node deaf for the next leader (o3)."""
    group = make()
    group.elect("a")
    engine = group.engine("b")
    term, last = engine.term, engine.last_index
    group.inject("a", "b", TimeoutNow(term=term, last_index=last))
    group.inject(
        "c", "b", VoteRequest(term=term + 1, last_index=last, last_term=term, handover=True)
    )
    group.step()
    assert (engine.voted_for, engine.role) == ("c", "follower")
    started = engine.elections_started
    group.run(0.02)
    assert engine.elections_started == started
    assert engine._SyncObj__transferInProgress is False


def test_a_vote_request_of_a_hand_over_passes_stickiness_but_no_other_rule(make: Make) -> None:
    """A log that is behind gets no vote, whatever flag its request carries."""
    group = make()
    engine = group.elect("a")
    group.commit(*numbered(3))
    term = engine.term
    mark = len(group.sent)
    group.inject("b", "c", VoteRequest(term=term + 1, last_index=2, last_term=1, handover=True))
    group.step()
    assert [p for p in group.sent[mark:] if isinstance(p.message, VoteAnswer)] == []
    assert group.engine("c").term == term + 1


# ---- start: G3, G5 (c6, c7, c8, c9) ---------------------------------------------------------


def test_a_restart_applies_nothing_that_is_not_known_to_be_committed(make: Make) -> None:
    """The commit index is not stored: entries after the snapshot commit again (c9)."""
    group = make()
    group.elect("a")
    group.commit(*numbered(5))
    alone(group, "b")
    group.restart("b")
    group.run(1.0)
    engine = group.engine("b")
    assert (engine.commit_index, engine.applied_index) == (1, 1)
    assert engine.last_index > 5
    assert group.toy("b").log == []


def test_a_whole_group_comes_back_from_a_power_loss(make: Make) -> None:
    """Everything that was acknowledged is there."""
    group = make(settings=SMALL)
    group.elect("a")
    group.commit(*numbered(50))
    for name in group.names:
        group.crash(name)
    for name in group.names:
        group.start(name)
    group.until(group.is_level)
    assert group.toy("a").payloads == numbered(50)


def refused(group: Group, name: str, match: str) -> None:
    """A member does not start, and says why."""
    with pytest.raises(EngineFault, match=match):
        group.start(name)


def compacted(make: Make) -> Group:
    """A group that has compacted its logs, with b down."""
    group = make(settings=SMALL)
    group.elect("a")
    group.commit(*numbered(50))
    assert group.engine("b").first_index > 1
    group.crash("b", power=False)
    return group


def snapshot_names(group: Group, name: str) -> list[str]:
    """The snapshot files of a member."""
    return [file for file in group.disk(name).names() if file.endswith(".snap")]


def test_a_journal_without_its_snapshot_is_refused(make: Make) -> None:
    """What came before it is gone: running on would forget what was promised (c8)."""
    group = compacted(make)
    for file in snapshot_names(group, "b"):
        group.disk("b").unlink(file)
    refused(group, "b", "no snapshot")


def test_a_journal_that_begins_after_the_snapshot_is_refused(make: Make) -> None:
    """Entries in between are missing."""
    group = compacted(make)
    (old,) = snapshot_names(group, "b")
    data = group.disk("b").read(old)
    group.start("b")
    group.until(group.is_level)
    group.commit(*numbered(60, "q"))
    group.crash("b", power=False)
    for file in snapshot_names(group, "b"):
        group.disk("b").unlink(file)
    group.disk("b").put(old, data)
    refused(group, "b", "after the end of the newest snapshot")


def test_a_log_above_the_stored_term_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Term and vote were lost, so a vote might be given twice (b)."""
    group = make()
    group.elect("a")
    group.crash("b", power=False)
    monkeypatch.setattr(Journal, "getCurrentTerm", lambda journal: 0)
    refused(group, "b", "the stored term is 0")


def test_a_snapshot_above_the_stored_term_is_refused(make: Make) -> None:
    """A journal without the term that the snapshot's entry was written in is not its journal."""
    group = make(settings=SMALL)
    far_behind(group)
    head, data = state_file(group, "a")
    group.crash("b", power=False)
    disk = group.disk("b")
    for file in disk.names():
        disk.unlink(file)
    Journal.open(disk, segment_bytes=1 << 16, reserve=False).sync()
    disk.put(f"snapshot-{head.index}-{head.term}.snap", data)
    refused(group, "b", "stored term")


def test_a_snapshot_whose_journal_was_not_trimmed_yet_loses_nothing(make: Make) -> None:
    """Stopped between the rename and the trimming: the head goes, the tail stays (c7)."""
    group = make()
    group.elect("a")
    group.commit(*numbered(50))
    group.crash("b", power=False)
    disk = group.disk("b")
    chunks = [
        json.dumps([index, None if payload is None else payload.decode()]).encode()
        for index, payload in group.toy("a").log
        if index <= 30
    ]
    term = group.engine("a").term_at(30)
    before = group.engine("a").term_at(29)
    assert term is not None and before is not None
    SnapshotStore(disk).write(30, term, 29, before, chunks)
    last = group.engine("a").last_index
    engine = group.start("b")
    assert (engine.first_index, engine.last_index) == (29, last)
    assert engine.commit_index == engine.applied_index == 30
    group.until(group.is_level)
    assert group.toy("b").log == group.toy("a").log


def test_a_received_snapshot_whose_journal_was_not_cleared_yet_is_taken(make: Make) -> None:
    """Stopped between the rename of the file and the sync of the journal: the file counts."""
    group = make(settings=SMALL)
    far_behind(group)
    head, data = state_file(group, "a")
    group.run(0.05)
    group.crash("b", power=False)
    disk = group.disk("b")
    for file in snapshot_names(group, "b"):
        disk.unlink(file)
    for file in [file for file in disk.names() if file.startswith("journal-")]:
        disk.unlink(file)
    journal = Journal.open(disk, segment_bytes=1 << 16, reserve=False)
    journal.setCurrentTerm(head.term, None)
    for _, index, term in [(b"", 1, 0), (b"", 2, 1), (b"", 3, 1)]:
        journal.add(b"\x00old", index, term)
    journal.sync()
    disk.put(f"snapshot-{head.index}-{head.term}.snap", data)
    engine = group.start("b")
    assert engine.first_index == engine.last_index == engine.applied_index == head.index
    group.until(group.is_level)
    assert group.toy("b").log == group.toy("a").log


def first_word_is_a_snapshot(make: Make) -> Group:
    """A group whose member b is about to hear of a new term by a snapshot of one piece."""
    group = make(settings=EngineSettings(window=100, snapshot_entries=20))
    group.elect("a")
    # Noticed: who is not connected is sent nothing, so its next index stays where it was.
    group.isolate("b", noticed=True)
    group.engine("a").transfer("c", lambda _: None)
    group.until(lambda: group.leader == "c" and group.engine("c").is_settled_leader)
    group.propose("c", *numbered(60))
    group.until(lambda: group.engine("a").applied_index == group.engine("c").last_index > 60)
    assert group.engine("b").term < group.engine("c").term
    group.heal()
    group.until(lambda: bool(group.sent_by("c", Snapshot)))
    group.disk("b").operations = 0
    return group


def test_power_may_be_lost_at_every_disk_operation_of_an_install(make: Make) -> None:
    """Also when the snapshot is the first word of a new term: the node always starts again."""
    group = first_word_is_a_snapshot(make)
    group.until(group.is_level)
    assert group.engine("b").snapshots_installed == 1
    operations = group.disk("b").operations
    assert operations > 5
    for stop_at in range(operations):
        dies_and_comes_back(first_word_is_a_snapshot(make), stop_at)


def dies_and_comes_back(group: Group, stop_at: int) -> None:
    """Member b loses power at one disk operation, starts, and catches up."""
    group.disk("b").stop_at = stop_at
    group.until(lambda: "b" not in group.running)
    group.start("b")
    group.until(group.is_level)
    assert group.toy("b").log == group.toy("c").log
