"""What a watch tells, from the bytes of a stream."""

from __future__ import annotations

import msgspec
import pytest

from cluster.client.watching import Event, Feed, Resync
from cluster.gateway.watchers import GOODBYE, message


def told(index: int, seq: int = 0, *, is_last: bool = True) -> bytes:
    """An event as a node tells it: only the last of its entry carries the position."""
    fields = {
        "index": index,
        "seq": seq,
        "what": "granted",
        "path": "/locks/orders",
        "kind": "lock",
        "name": "orders",
        "token": index,
    }
    return message("granted", fields, index if is_last else None)


OPENING = message("open", {"after": 4, "applied": 9}, 4, retry_ms=1_000)


def places(happenings: list[Event | Resync]) -> list[tuple[int, int]]:
    """Where events stand."""
    return [(event.index, event.seq) for event in happenings if isinstance(event, Event)]


@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_bytes_come_in_any_pieces(step: int) -> None:
    """One by one, or all at once."""
    feed = Feed()
    stream = OPENING + told(5) + b": still here\nid: 8\n\n" + told(9)
    happenings = []
    for at in range(0, len(stream), step):
        happenings += feed.fed(stream[at : at + step])
    assert places(happenings) == [(5, 0), (9, 0)]
    [event, _] = happenings
    assert isinstance(event, Event)
    assert (event.what, event.name, event.token) == ("granted", "orders", 5)
    assert event.details["path"] == "/locks/orders"
    assert feed.after == 9


def test_the_beginning_is_remembered() -> None:
    """So that nothing is missed that happens before the first event comes through."""
    feed = Feed()
    assert feed.fed(OPENING) == []
    assert feed.after == 4


def test_a_sign_of_life_moves_the_position() -> None:
    """What was quiet for long is not looked at again."""
    feed = Feed(3)
    feed.fed(OPENING + b": still here\nid: 8\n\n: still here\n\n")
    assert feed.after == 8


def test_a_break_inside_of_an_entry_loses_and_repeats_nothing() -> None:
    """It is told again from its beginning, and what was told is left out."""
    feed = Feed()
    first = feed.fed(OPENING + told(5, 0, is_last=False) + told(5, 1, is_last=False)[:20])
    assert places(first) == [(5, 0)]
    assert feed.after == 4
    feed.connected()
    again = feed.fed(OPENING + told(5, 0, is_last=False) + told(5, 1) + told(6))
    assert places(again) == [(5, 1), (6, 0)]
    assert feed.after == 6


def test_what_was_missed_is_said() -> None:
    """And it goes on from where the node is."""
    feed = Feed(2)
    [resync] = feed.fed(message("resync", {"lost_after": 2, "from": 70}, 70))
    assert resync == Resync(lost_after=2, resumes_after=70)
    assert feed.after == 70


def test_a_goodbye_ends_the_connection_not_the_watch() -> None:
    """The next node goes on."""
    feed = Feed()
    assert feed.fed(OPENING + told(5) + GOODBYE)[1:] == []
    assert feed.is_over
    feed.connected()
    assert not feed.is_over
    assert feed.after == 5


def test_members_of_newer_nodes_are_kept_in_the_details() -> None:
    """Nothing of them is in the way."""
    fields = {"index": 1, "seq": 0, "what": "new", "path": "/x", "phase": "full"}
    [event] = Feed().fed(b"data: " + msgspec.json.encode(fields) + b"\n\n")
    assert isinstance(event, Event)
    assert event.details["phase"] == "full"
