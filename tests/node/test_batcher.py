"""The batcher: what comes first goes first, entries are bounded, what does not fit is refused."""

from __future__ import annotations

import pytest

from cluster.machine.commands import Batch, KeepAlive, Origin
from cluster.node.batcher import Batcher
from cluster.wire import batch, commands
from cluster.wire.frames import ForwardedRequest

A, B, C = Origin("a", 1), Origin("b", 7), Origin("c", 2)


def request(seq: int, size: int = 0, key: str | None = None) -> ForwardedRequest:
    """A request; its body is a command, or so many bytes of nothing."""
    body = b"x" * size if size else commands.encode(KeepAlive(f"s{seq}"))
    return ForwardedRequest(seq, body, key, None)


def sealed(batcher: Batcher, now_ms: int = 5, wall_ms: int = 9) -> tuple[Batch, int]:
    """The next entry as every node reads it, and the number of its requests."""
    payload, count = batcher.seal(now_ms, wall_ms)
    return batch.decode(payload), count


def numbers(entry: Batch) -> list[tuple[str, list[int]]]:
    """Who asked what, in order."""
    return [(group.origin.node, [r.seq for r in group.requests]) for group in entry.groups]


def test_an_entry_carries_its_time_and_all_that_waited_in_order() -> None:
    """Requests of an origin stand together, origins in the order of their first request."""
    batcher = Batcher()
    for origin, seq in [(B, 4), (A, 1), (B, 5), (C, 9), (A, 2)]:
        assert batcher.add(origin, 1, request(seq))
    assert len(batcher) == 5
    entry, count = sealed(batcher)
    assert (entry.now_ms, entry.wall_ms, count) == (5, 9, 5)
    assert numbers(entry) == [("b", [4, 5]), ("a", [1, 2]), ("c", [9])]
    assert [group.origin for group in entry.groups] == [B, A, C]
    assert entry.groups[0].requests[0].command == KeepAlive("s4")
    assert len(batcher) == 0


def test_an_empty_batcher_seals_a_timer_entry() -> None:
    """Nothing but the time."""
    entry, count = sealed(Batcher(), now_ms=77)
    assert (entry.now_ms, entry.groups, count) == (77, (), 0)


def test_a_full_queue_refuses_by_number() -> None:
    """What is refused is not in any entry."""
    batcher = Batcher(requests_max=2)
    assert [batcher.add(A, 1, request(seq)) for seq in (1, 2, 3)] == [True, True, False]
    assert numbers(sealed(batcher)[0]) == [("a", [1, 2])]
    assert batcher.add(A, 1, request(3))


def test_a_full_queue_refuses_by_bytes_and_has_room_again_after_sealing() -> None:
    """Bytes are counted in and out, keys and overhead included."""
    batcher = Batcher(bytes_max=1000)
    assert batcher.add(A, 1, request(1, 700, key="k" * 200))
    assert not batcher.add(A, 1, request(2, 100))
    assert batcher.add(A, 1, request(3, 1))
    sealed(batcher)
    assert batcher.add(A, 1, request(2, 900))
    batcher.clear()
    assert batcher.add(A, 1, request(4, 900))


def test_a_refused_request_moves_no_acknowledgement() -> None:
    """Only what an entry carries says how far its origin is."""
    batcher = Batcher(requests_max=1)
    batcher.add(A, 3, request(3))
    assert not batcher.add(A, 9, request(9))
    assert sealed(batcher)[0].groups[0].ack == 3


@pytest.mark.parametrize(
    ("bounds", "sizes", "expected"),
    [
        ({"entry_requests_max": 2}, [1] * 5, [2, 2, 1, 0]),
        ({"entry_bytes_max": 300}, [100] * 5, [2, 2, 1, 0]),
        ({"entry_bytes_max": 300}, [1000, 1, 1], [1, 2, 0]),
        ({"entry_bytes_max": 300}, [1, 1000, 1], [1, 1, 1, 0]),
    ],
)
def test_an_entry_is_bounded_and_the_rest_waits_for_the_next(
    bounds: dict[str, int], sizes: list[int], expected: list[int]
) -> None:
    """One request that is larger than the bound goes by itself."""
    batcher = Batcher(**bounds)
    for seq, size in enumerate(sizes, start=1):
        assert batcher.add(A, 1, request(seq, size))
    counts, seen = [], []
    for _ in expected:
        entry, count = sealed(batcher)
        counts.append(count)
        seen += [r.seq for group in entry.groups for r in group.requests]
    assert counts == expected
    assert seen == list(range(1, len(sizes) + 1))


def test_a_busy_origin_does_not_overtake_the_others() -> None:
    """An entry is filled in the order of arrival, whoever asked most."""
    batcher = Batcher(entry_requests_max=4)
    for seq in range(1, 4):
        batcher.add(A, 1, request(seq))
    batcher.add(B, 1, request(50))
    for seq in range(4, 9):
        batcher.add(A, 1, request(seq))
    assert numbers(sealed(batcher)[0]) == [("a", [1, 2, 3]), ("b", [50])]
    assert numbers(sealed(batcher)[0]) == [("a", [4, 5, 6, 7])]


def test_the_newest_acknowledgement_of_an_origin_goes_with_it() -> None:
    """Each entry says how far its origins are; a smaller word that comes late takes nothing back."""
    batcher = Batcher()
    batcher.add(A, 4, request(5))
    batcher.add(A, 6, request(7))
    batcher.add(A, 5, request(6))
    batcher.add(B, 2, request(2))
    assert [(group.origin, group.ack) for group in sealed(batcher)[0].groups] == [(A, 6), (B, 2)]


def test_acknowledgements_outlast_a_partial_entry() -> None:
    """The rest of the queue still knows them."""
    batcher = Batcher(entry_requests_max=1)
    batcher.add(A, 4, request(5))
    batcher.add(B, 8, request(9))
    assert [(g.origin, g.ack) for g in sealed(batcher)[0].groups] == [(A, 4)]
    assert [(g.origin, g.ack) for g in sealed(batcher)[0].groups] == [(B, 8)]


def test_two_lives_of_a_node_are_two_origins() -> None:
    """Their numbers have nothing to do with one another."""
    batcher = Batcher()
    batcher.add(Origin("a", 1), 9, request(9))
    batcher.add(Origin("a", 2), 1, request(1))
    assert [(g.origin.boot, g.ack) for g in sealed(batcher)[0].groups] == [(1, 9), (2, 1)]


def test_an_origin_without_acknowledgement_is_taken_too() -> None:
    """A peer may say 0, and no word of a peer may stop the leader."""
    batcher = Batcher()
    batcher.add(A, 0, request(1))
    assert [(g.origin, g.ack) for g in sealed(batcher)[0].groups] == [(A, 0)]


def test_clearing_forgets_everything() -> None:
    """A deposed leader seals nothing of what it had queued."""
    batcher = Batcher()
    batcher.add(A, 4, request(5))
    batcher.clear()
    assert len(batcher) == 0
    assert sealed(batcher)[0].groups == ()
