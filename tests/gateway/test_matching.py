"""Which events are for whom: the same as if everybody looked at every event, in far less steps."""

from __future__ import annotations

import random

import pytest

from cluster.gateway.matching import FEW, Crowd, Entry, Filter
from cluster.machine.events import Event

NAMES = ("a", "ab", "abc", "b", "é", "é/x", "")
PREFIXES = (*(f"/locks/{name}" for name in NAMES), "/locks", "/fifos/a/tickets/t", "", "/zz")


def drawn_filter(rng: random.Random) -> Filter:
    """Any, of one session, of some prefixes, or both."""
    return Filter(
        tuple(rng.choice(PREFIXES) for _ in range(rng.choice((0, 1, 1, 2)))),
        rng.choice((None, None, "s", "t")),
    )


def drawn_events(rng: random.Random) -> list[Event]:
    """Few, or many."""
    return [
        Event("granted", "lock", rng.choice(NAMES), rng.choice((None, "s", "t", "u")), number)
        if rng.random() < 0.8
        else Event("queued", "fifo", "a", "s", more=(("ticket", rng.choice("tu")),))
        for number in range(rng.choice((0, 1, 3, FEW - 1, FEW, 100)))
    ]


@pytest.mark.parametrize("number", range(40))
def test_found_are_those_that_are_wanted(number: int, seed: int) -> None:
    """In their order, each once, however few or many there are."""
    rng = random.Random(seed * 1_000 + number)
    events = drawn_events(rng)
    entry = Entry(1, events)
    for _ in range(30):
        wanted = drawn_filter(rng)
        found = [seq for seq, event in enumerate(events) if wanted.wants(event, event.path)]
        assert list(entry.found(wanted)) == found


@pytest.mark.parametrize("number", range(40))
def test_concerned_are_those_who_want_one_of_the_events(number: int, seed: int) -> None:
    """Also after some have left; who has left is never told."""
    rng = random.Random(seed * 1_000 + number)
    crowd: Crowd[int] = Crowd()
    there: dict[int, Filter] = {}
    for one in range(60):
        if there and rng.random() < 0.4:
            gone = rng.choice(list(there))
            del there[gone]
            crowd.leave(gone)
            crowd.leave(gone)
        there[one] = drawn_filter(rng)
        crowd.enter(one, there[one])
        assert list(crowd) == list(there)
        assert len(crowd) == len(there)
        events = drawn_events(rng)
        expected = {
            one
            for one, wanted in there.items()
            if any(wanted.wants(event, event.path) for event in events)
        }
        assert set(crowd.concerned(Entry(1, events))) == expected


def test_only_the_last_message_has_the_position() -> None:
    """Whoever asks, and whatever was asked of the entry before."""
    entry = Entry(7, [Event("granted", "lock", f"l{number}", "s", 1) for number in range(3)])
    for prefixes, ids in (((), [2]), (("/locks/l0", "/locks/l1"), [1]), (("/locks/l2",), [0])):
        told = entry.messages(Filter(prefixes, None))
        assert [at for at, text in enumerate(told) if b"id: 7\n" in text] == ids
    assert entry.messages(Filter(("/fifos",), None)) == []


def test_an_entry_of_many_for_many_takes_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand watchers of one lock each, and a session that frees a thousand locks."""
    looked: list[str] = []
    path = Event.path

    def counted(event: Event) -> str:
        made = path.fget(event)  # type: ignore[attr-defined]
        looked.append(made)
        return str(made)

    monkeypatch.setattr(Event, "path", property(counted))
    monkeypatch.setattr(Filter, "wants", lambda *_: pytest.fail("looked at one by one"))
    crowd: Crowd[int] = Crowd()
    filters = [Filter((f"/locks/l{number:04}",), None) for number in range(1_000)]
    for number, wanted in enumerate(filters):
        crowd.enter(number, wanted)
    entry = Entry(1, [Event("freed", "lock", f"l{number:04}", "s", 1) for number in range(1_000)])
    assert sorted(crowd.concerned(entry)) == list(range(1_000))
    assert all(len(entry.messages(wanted)) == 1 for wanted in filters)
    assert len(looked) <= 2_000
