"""Pending: numbers, settled once, parked ones apart, and how far everything is settled."""

from __future__ import annotations

from cluster.node.pending import Pending, Reply, Waiting
from cluster.wire.frames import ForwardedRequest


def ignore(reply: Reply) -> None:
    """A reply that nobody looks at."""


def take(pending: Pending, *, parks_for: float = 0.0) -> int:
    """Take one request; its number."""
    seq = pending.next_seq()
    request = ForwardedRequest(seq, b"body")
    pending.add(Waiting(request, ignore, taken_at=1.0, deadline=10.0, parks_for=parks_for))
    return seq


def test_numbers_rise_from_one_and_are_never_used_again() -> None:
    """Settled or not."""
    pending = Pending(limit=9)
    assert [take(pending) for _ in range(3)] == [1, 2, 3]
    pending.settle(3)
    assert take(pending) == 4


def test_a_request_is_settled_once() -> None:
    """The second answer finds nobody."""
    pending = Pending(limit=9)
    seq = take(pending)
    settled = pending.settle(seq)
    assert settled is not None and settled.request.seq == seq
    assert pending.settle(seq) is None
    assert pending.get(seq) is None
    assert len(pending) == 0


def test_the_acknowledgement_stops_at_the_oldest_unsettled_request() -> None:
    """Below it nothing will ever be sent or asked for again."""
    pending = Pending(limit=9)
    assert pending.ack == 1
    first, second, third = (take(pending) for _ in range(3))
    assert pending.ack == first
    pending.settle(second)
    assert pending.ack == first
    pending.settle(first)
    assert pending.ack == third
    pending.settle(third)
    assert pending.ack == third + 1
    assert take(pending) == pending.ack


def test_the_acknowledgement_passes_over_parked_requests() -> None:
    """Held back by one long wait, the machine would keep every later answer of this node."""
    pending = Pending(limit=9)
    first, second, third = take(pending), take(pending), take(pending)
    pending.park(first)
    pending.settle(second)
    assert pending.ack == third
    pending.settle(first)
    assert pending.ack == third


def test_a_parked_request_waits_longer_and_only_once_more() -> None:
    """Its deadline moves by the wait it asked for, however often it is said to be queued."""
    pending = Pending(limit=9)
    seq = take(pending, parks_for=30.0)
    for _ in range(3):
        waiting = pending.park(seq)
        assert waiting is not None
        assert (waiting.is_parked, waiting.deadline) == (True, 40.0)
    assert pending.parked == 1
    assert pending.park(99) is None


def test_parked_requests_do_not_count_against_the_limit() -> None:
    """They cost memory only; new ones are taken, and the count comes back when they are settled."""
    pending = Pending(limit=2)
    first, second = take(pending), take(pending)
    assert pending.is_full
    pending.park(first)
    assert (pending.is_full, pending.parked, len(pending)) == (False, 1, 2)
    take(pending)
    assert pending.is_full
    pending.settle(first)
    assert (pending.is_full, pending.parked) == (True, 0)
    pending.settle(second)
    assert not pending.is_full


def test_what_must_reach_a_leader_is_listed_in_order_without_the_parked() -> None:
    """And may be settled while the list is walked."""
    pending = Pending(limit=9)
    seqs = [take(pending) for _ in range(5)]
    pending.park(seqs[1])
    walked = []
    for seq, _ in pending.unparked():
        walked.append(seq)
        pending.settle(seq)
    assert walked == [seqs[0], seqs[2], seqs[3], seqs[4]]
    assert [seq for seq, _ in pending.items()] == [seqs[1]]


def test_what_the_leader_was_given_is_counted_until_it_is_answered() -> None:
    """Once each, however often it is given; a parked one is answered; another leader has none."""
    pending = Pending(limit=9)
    numbers = [take(pending) for _ in range(3)]
    for seq in (*numbers, *numbers):
        waiting = pending.get(seq)
        assert waiting is not None
        pending.hand_over(waiting, 2.0)
    assert waiting.sent == 2
    assert pending.in_hand_bytes == 3 * len(b"body")
    pending.settle(numbers[0])
    pending.park(numbers[1])
    assert pending.in_hand_bytes == len(b"body")
    pending.take_all_back()
    assert pending.in_hand_bytes == 0
    pending.settle(numbers[2])
    assert pending.in_hand_bytes == 0
