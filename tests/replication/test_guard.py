"""The guards by themselves: appends rewritten, pre-votes counted, reads confirmed, transfers paced.

RULE: values in, values out; no engine, no library, no clock but numbers.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.replication.guard import (
    EngineFault,
    Normalised,
    Pipeline,
    PreVote,
    ReadIndex,
    SnapshotTransfer,
    log_is_current,
    normalise,
)
from cluster.wire.frames import Append, SnapshotHead

Entry = tuple[int, int, bytes]


class Log:
    """Entries first..last by their terms; what lies before is compacted."""

    def __init__(self, terms: Sequence[int], first: int = 1) -> None:
        self.first = first
        self.terms = list(terms)

    @property
    def last_index(self) -> int:
        return self.first + len(self.terms) - 1

    def term_at(self, index: int) -> int | None:
        at = index - self.first
        return self.terms[at] if 0 <= at < len(self.terms) else None


def entries(start: int, *terms: int) -> tuple[Entry, ...]:
    """Entries from an index on; a command names index and term, so that no two are alike."""
    return tuple(
        (start + at, term, f"{start + at}/{term}".encode()) for at, term in enumerate(terms)
    )


def append(
    prev_index: int, prev_term: int, *terms: int, commit_index: int = 0, term: int = 9
) -> Append:
    """A message of a leader."""
    return Append(
        term=term,
        beat=1,
        commit_index=commit_index,
        prev_index=prev_index,
        prev_term=prev_term,
        entries=entries(prev_index + 1, *terms),
    )


# ---- normalise ------------------------------------------------------------------------------

# Our log in all rows: entries 1..6 of terms 0 1 1 2 2 2, everything up to 3 final.
OURS = (0, 1, 1, 2, 2, 2)
FLOOR = 3

CASES = {
    "all below the floor is old news": (
        append(1, 0, 1),
        Normalised(6, 2, (), 0, 4),
    ),
    "ending at the floor is old news too": (
        append(1, 0, 1, 1),
        Normalised(6, 2, (), 0, 4),
    ),
    "an empty one below the floor is old news": (
        append(2, 1, commit_index=9),
        Normalised(6, 2, (), 3, 4),
    ),
    "what lies below the floor is dropped, the rest is known": (
        append(1, 0, 1, 1, 2),
        Normalised(6, 2, (), 0, 5),
    ),
    "what lies below the floor is dropped, the rest conflicts": (
        append(1, 0, 1, 1, 3),
        Normalised(3, 1, entries(4, 3), 0, None),
    ),
    "known entries in the middle cut nothing": (
        append(4, 2, 2),
        Normalised(6, 2, (), 0, 6),
    ),
    "known entries up to the end are an empty append": (
        append(4, 2, 2, 2),
        Normalised(6, 2, (), 0, None),
    ),
    "known entries go, new ones stay": (
        append(4, 2, 2, 2, 2, 3),
        Normalised(6, 2, entries(7, 2, 3), 0, None),
    ),
    "from the first conflict on the message counts": (
        append(3, 1, 2, 3, 3),
        Normalised(4, 2, entries(5, 3, 3), 0, None),
    ),
    "a heartbeat at our end changes nothing": (
        append(6, 2, commit_index=5),
        Normalised(6, 2, (), 5, None),
    ),
    "a heartbeat in the middle keeps the tail and vouches for its own place only": (
        append(4, 2, commit_index=4),
        Normalised(6, 2, (), 4, 5),
    ),
    "a heartbeat at the floor keeps the tail": (
        append(3, 1),
        Normalised(6, 2, (), 0, 4),
    ),
    "the commit index never goes beyond what the message proves": (
        append(4, 2, 2, commit_index=6),
        Normalised(6, 2, (), 5, 6),
    ),
    "beyond our end the stock handler refuses": (
        append(8, 2, 2, commit_index=9),
        Normalised(8, 2, entries(9, 2), 9, None),
    ),
    "a conflict at prev is for the stock handler to refuse": (
        append(5, 3, 3, commit_index=6),
        Normalised(5, 3, entries(6, 3), 6, None),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_append_is_rewritten_so_that_nothing_known_is_cut(case: str) -> None:
    """Each rule of G4, one row each."""
    message, expected = CASES[case]
    assert normalise(message, Log(OURS), FLOOR) == expected


def test_entries_that_were_compacted_are_not_asked_for() -> None:
    """A message that begins before the first kept entry is judged at the floor alone."""
    ours = Log(OURS[2:], first=3)
    assert normalise(append(1, 0, 1, 1, 2, 3), ours, 3) == Normalised(4, 2, entries(5, 3), 0, None)
    assert normalise(append(1, 0), ours, 3) == Normalised(6, 2, (), 0, 4)


@pytest.mark.parametrize(
    "message", [append(1, 0, 1, 2), append(1, 0, 2, 2, 2), append(3, 2), append(3, 2, 2)]
)
def test_a_leader_that_differs_at_the_floor_stops_the_process(message: Append) -> None:
    """Another term at a final entry: the logs have diverged, nothing may be done to them."""
    with pytest.raises(EngineFault, match="committed entry 3"):
        normalise(message, Log(OURS), FLOOR)


def test_a_log_without_its_own_floor_stops_the_process() -> None:
    """What is committed must be in the log, or in the snapshot's two entries."""
    with pytest.raises(EngineFault, match="commit index 7"):
        normalise(append(6, 2), Log(OURS), 7)


class Follower:
    """The stock handler's log rules around `normalise`, and what must never happen in them."""

    def __init__(self) -> None:
        self.log = Log([0])
        self.floor = 1

    def receive(self, message: Append, leader: Log) -> None:
        """Handle one message of the present leader; `leader` is that leader's whole log."""
        normal = normalise(message, self.log, self.floor)
        log = self.log
        if log.term_at(normal.prev_index) != normal.prev_term:
            # The engine answers "reset, next index = floor + 1": that is within the common prefix.
            self.check_common(self.floor, leader)
            return
        for index in range(normal.prev_index + 1, log.last_index + 1):
            assert index > self.floor, "a final entry was cut"
            assert log.term_at(index) != leader.term_at(index), "a matching entry was cut"
        del log.terms[normal.prev_index + 1 - log.first :]
        next_index = normal.prev_index + 1
        for index, term, command in normal.entries:
            assert index == log.last_index + 1, "a gap"
            assert command == f"{index}/{term}".encode()
            log.terms.append(term)
            next_index = index + 1
        if normal.claim is not None:
            next_index = normal.claim
        self.check_common(next_index - 1, leader)
        self.floor = max(self.floor, min(normal.commit_index, log.last_index))
        self.check_common(self.floor, leader)

    def check_common(self, index: int, leader: Log) -> None:
        """Up to here we hold what the leader holds (log matching: the last entry tells it)."""
        assert index <= self.log.last_index, "claimed an entry that is not there"
        assert index < self.log.first or self.log.term_at(index) == leader.term_at(index)

    def compact(self, index: int) -> None:
        """Forget what lies before a final entry."""
        index = min(index, self.floor)
        if index > self.log.first:
            del self.log.terms[: index - self.log.first]
            self.log.first = index


def life_of_a_term(
    rng: random.Random, logs: list[Log], committed: int, term: int
) -> tuple[Log, int, list[Append]]:
    """A leader of a new term: its log in the end, what it committed, all it may have sent."""
    base = rng.choice([log for log in logs if log.terms[:committed] == logs[-1].terms[:committed]])
    terms = base.terms[: rng.randint(committed, base.last_index)]
    messages: list[Append] = []
    leader = Log(terms)
    for _ in range(rng.randint(1, 5)):
        leader.terms += [term] * rng.randint(0, 3)
        if leader.terms[-1] == term and rng.random() < 0.7:
            # A leader commits nothing but together with an entry of its own term.
            first_own = leader.terms.index(term) + 1
            committed = max(committed, rng.randint(first_own, leader.last_index))
        for _ in range(rng.randint(0, 4)):
            prev = rng.randint(1, leader.last_index)
            end = rng.randint(prev, leader.last_index)
            messages.append(
                append(
                    prev,
                    leader.terms[prev - 1],
                    *leader.terms[prev:end],
                    commit_index=rng.randint(0, committed),
                    term=term,
                )
            )
    return leader, committed, messages


@settings(max_examples=400)
@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_old_and_new_appends_in_any_order_erase_nothing_and_claim_nothing_unproved(
    rng: random.Random, terms: int
) -> None:
    """Every message of a term may come late, often, never, and in any order; Raft's laws hold."""
    logs, committed, follower = [Log([0])], 1, Follower()
    for term in range(1, terms + 1):
        leader, committed, messages = life_of_a_term(rng, logs, committed, term)
        logs.append(leader)
        # The engine drops messages of older terms before `normalise`; all others may come.
        for _ in range(rng.randint(0, 2 * len(messages))):
            follower.receive(rng.choice(messages), leader)
            if rng.random() < 0.1:
                follower.compact(rng.randint(1, follower.floor))


# ---- who may lead ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "is_current"),
    [((2, 5), True), ((2, 6), True), ((3, 1), True), ((2, 4), False), ((1, 9), False)],
)
def test_a_log_is_current_by_term_first_and_length_second(
    theirs: tuple[int, int], is_current: bool
) -> None:
    """Raft, section 5.4.1: against a log that ends in term 2 at entry 5."""
    assert log_is_current(theirs, (2, 5)) is is_current


def test_a_prevote_counts_once_per_peer_and_for_the_present_question_only() -> None:
    """A repeated answer and an answer to an older question change nothing."""
    prevote = PreVote(40)
    old = prevote.ask()
    nonce = prevote.ask()
    prevote.answer("b", old)
    assert prevote.granted == set()
    prevote.answer("b", nonce)
    prevote.answer("b", nonce)
    assert prevote.granted == {"b"}


def test_a_reset_makes_answers_under_way_worthless() -> None:
    """Once a leader was heard, a late grant must not start an election against it."""
    prevote = PreVote(0)
    nonce = prevote.ask()
    prevote.answer("b", nonce)
    prevote.go = True
    prevote.reset()
    assert (prevote.granted, prevote.go) == (set(), False)
    prevote.answer("c", nonce)
    assert prevote.granted == set()


# ---- reads ----------------------------------------------------------------------------------


class Read:
    """One read and what it was told."""

    def __init__(self, reads: ReadIndex, commit_index: int) -> None:
        self.told: list[int | None] = []
        reads.add(commit_index, self.told.append)


def served(reads: ReadIndex, applied: int, peers: str) -> list[int]:
    """Indexes of the reads that may be served."""
    return [read.index for read in reads.take_ready(applied, list(peers))]


def test_a_single_node_serves_a_read_at_once_but_not_before_it_is_applied() -> None:
    """It is its own majority."""
    reads = ReadIndex()
    Read(reads, 7)
    assert served(reads, 6, "") == []
    assert served(reads, 7, "") == [7]
    assert served(reads, 7, "") == []


@pytest.mark.parametrize(("peers", "needed"), [("b", 1), ("bc", 1), ("bcd", 2), ("bcde", 2)])
def test_a_read_waits_for_a_majority_that_counts_the_leader(peers: str, needed: int) -> None:
    """Groups of 2, 3, 4 and 5 nodes."""
    reads = ReadIndex(beat=10)
    Read(reads, 7)
    for count, peer in enumerate(peers[:needed], start=1):
        assert served(reads, 9, peers) == []
        reads.echo(peer, 11)
        assert bool(served(reads, 9, peers)) is (count == needed)


def test_an_echo_of_an_earlier_heartbeat_confirms_nothing() -> None:
    """Only a heartbeat sent after the read was asked for says that we still lead."""
    reads = ReadIndex(beat=10)
    Read(reads, 7)
    reads.echo("b", 10)
    reads.echo("c", 10)
    assert served(reads, 9, "bc") == []


def test_an_echo_out_of_order_takes_nothing_back() -> None:
    """Answers may overtake one another."""
    reads = ReadIndex(beat=10)
    Read(reads, 7)
    reads.echo("b", 12)
    reads.echo("b", 9)
    assert served(reads, 9, "bc") == [7]


def test_one_peer_that_echoes_often_is_one_peer() -> None:
    """In a group of five two peers must echo."""
    reads = ReadIndex(beat=10)
    Read(reads, 7)
    for beat in (11, 12, 13):
        reads.echo("b", beat)
    assert served(reads, 9, "bcde") == []


def test_a_stranger_confirms_nothing() -> None:
    """Only members are counted."""
    reads = ReadIndex(beat=10)
    Read(reads, 7)
    reads.echo("x", 11)
    assert served(reads, 9, "bc") == []


def test_echoes_of_an_earlier_leadership_are_forgotten() -> None:
    """Between the two leaderships somebody else may have led."""
    reads = ReadIndex(beat=10)
    reads.echo("b", 11)
    reads.lead()
    Read(reads, 7)
    assert served(reads, 9, "bc") == []


def test_reads_are_served_each_by_its_own_heartbeat() -> None:
    """A later read waits for a later heartbeat."""
    reads = ReadIndex(beat=10)
    Read(reads, 7)
    reads.beat = 11
    Read(reads, 8)
    reads.echo("b", 11)
    assert served(reads, 9, "bc") == [7]
    reads.echo("b", 12)
    assert served(reads, 9, "bc") == [8]


def test_a_deposed_leader_gives_all_reads_back() -> None:
    """They are told None by the engine and asked again elsewhere."""
    reads = ReadIndex()
    Read(reads, 7)
    Read(reads, 8)
    assert [read.index for read in reads.take_all()] == [7, 8]
    assert reads.take_all() == []


# ---- snapshots on their way -----------------------------------------------------------------

HEAD = SnapshotHead(index=40, term=3, previous_index=39, previous_term=3, size=1000, crc=1)


class Sender:
    """A transfer of HEAD in chunks of 100 bytes with 300 bytes in flight; patience one second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.transfer = SnapshotTransfer(HEAD, self.now)

    def send(self) -> list[int]:
        """Offsets of all chunks that may leave now."""
        offsets = []
        while (offset := self.next()) is not None:
            offsets.append(offset)
            self.transfer.sent = offset + 100
        return offsets

    def next(self) -> int | None:
        return self.transfer.next_offset(self.now, window_bytes=300, patience=1.0)


def test_a_window_of_chunks_is_in_flight_and_progress_moves_it() -> None:
    """No acknowledgement, no more than the window."""
    sender = Sender()
    assert sender.send() == [0, 100, 200]
    assert sender.send() == []
    assert sender.transfer.acknowledge(200, sender.now) is True
    assert sender.send() == [300, 400]


def test_a_duplicate_or_late_acknowledgement_is_no_progress() -> None:
    """It neither moves the window nor sends anything twice."""
    sender = Sender()
    sender.send()
    sender.transfer.acknowledge(200, sender.now)
    sender.send()
    assert sender.transfer.acknowledge(200, sender.now) is False
    assert sender.transfer.acknowledge(100, sender.now) is False
    assert sender.send() == []


def test_a_lost_chunk_is_sent_again_after_a_while_without_progress() -> None:
    """Going back is by timer, so that a duplicate costs nothing."""
    sender = Sender()
    sender.send()
    sender.transfer.acknowledge(100, 0.0)
    sender.send()
    sender.now = 1.0
    assert sender.send() == []
    sender.now = 1.1
    assert sender.send() == [100, 200, 300]


def test_going_back_in_vain_is_done_ever_more_rarely() -> None:
    """On a slow link all is still under way: sent again every second it would never arrive."""
    sender = Sender()
    went_back = []
    sender.send()
    for tenth in range(1, 700):
        sender.now = tenth / 10
        if sender.send():
            went_back.append(sender.now)
    pauses = [round(after - before) for before, after in itertools.pairwise([0.0, *went_back])]
    assert pauses == [1, 2, 4, 8, 16, 16, 16]
    # Progress makes it patient again.
    sender.transfer.acknowledge(100, sender.now)
    sender.send()
    sender.now += 1.1
    assert sender.send() == [100, 200, 300]


def test_a_follower_that_restarted_is_sent_everything_again() -> None:
    """It asks for the beginning; what it had acknowledged before counts no more."""
    sender = Sender()
    sender.send()
    sender.transfer.acknowledge(300, 0.0)
    sender.send()
    assert sender.transfer.acknowledge(0, 0.5) is False
    assert sender.send() == []
    sender.now = 1.1
    assert sender.send() == [0, 100, 200]
    assert sender.transfer.acknowledge(100, 1.2) is True
    assert sender.send() == [300]


def test_a_late_acknowledgement_of_a_former_life_is_corrected_by_the_timer() -> None:
    """A restarted follower asks for the start while an old answer still speaks of the middle."""
    sender = Sender()
    sender.send()
    sender.transfer.acknowledge(0, 0.1)
    sender.transfer.acknowledge(300, 0.2)
    sender.send()
    sender.transfer.acknowledge(0, 0.3)
    sender.now = 1.5
    assert sender.send() == [0, 100, 200]


def test_a_follower_that_has_more_than_was_sent_is_taken_at_its_word() -> None:
    """It kept the beginning of the same file from an earlier leader."""
    sender = Sender()
    sender.send()
    assert sender.transfer.acknowledge(800, 0.0) is True
    assert sender.send() == [800, 900]


def test_the_end_is_sent_again_until_the_follower_says_success() -> None:
    """All is sent, the last answer is lost: the timer sends the last chunk once more."""
    sender = Sender()
    while sender.transfer.acknowledged < 900:
        sender.send()
        sender.transfer.acknowledge(sender.transfer.acknowledged + 100, sender.now)
    assert sender.send() == []
    sender.now = 1.1
    assert sender.send() == [900]


def test_an_acknowledgement_beyond_the_file_is_cut_to_its_size() -> None:
    """No peer moves the window out of the file."""
    sender = Sender()
    sender.send()
    sender.transfer.acknowledge(10**6, 0.0)
    assert sender.transfer.acknowledged == 1000
    assert sender.send() == []


def test_a_pipeline_counts_what_is_on_its_way_and_tells_when_there_is_room_again() -> None:
    """Only to one that was held back, and only when something has arrived."""
    pipeline = Pipeline()
    for last_index, size in ((3, 100), (5, 50), (9, 10)):
        pipeline.add(last_index, size)
    assert not pipeline.confirm(3)
    assert pipeline.bytes_on_its_way == 60
    pipeline.is_held = True
    assert not pipeline.confirm(4)
    assert pipeline.confirm(9)
    assert pipeline.bytes_on_its_way == 0
    assert not pipeline.confirm(9)
    pipeline.add(11, 7)
    pipeline.is_held = True
    pipeline.clear()
    assert (pipeline.bytes_on_its_way, pipeline.confirm(11)) == (0, False)
