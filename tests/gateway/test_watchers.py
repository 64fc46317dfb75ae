"""Watchers of several nodes: whoever moves between them hears everything once, and in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec
import pytest

from cluster.gateway.matching import Entry, Filter, picture
from cluster.gateway.watchers import Hub, Watcher
from cluster.machine import limits
from cluster.machine.commands import Batch
from cluster.machine.events import Event, History, path_of, thing_at
from cluster.machine.machine import Machine
from cluster.node.face import NodeFace
from cluster.wire import snapshot
from tests.machine.all_walk import AllWalk
from tests.machine.walk import Walk

FILTERS = (
    Filter((), None),
    Filter(("/locks/door",), None),
    Filter(("/sessions/", "/locks/gate"), None),
    Filter((), "1-s1"),
)


class Member:
    """A node as far as watchers see it: it applies the log at its own pace."""

    def __init__(self, log: list[tuple[int, Batch]]) -> None:
        self.machine = Machine()
        self._log = log
        self._at = 0
        self._heard: list[Callable[[], None]] = []

    def on_applied(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """As the node does."""
        self._heard.append(callback)
        return lambda: self._heard.remove(callback)

    def apply(self, most: int) -> None:
        """Apply some of what it has not yet applied, then tell."""
        for index, batch in self._log[self._at : self._at + most]:
            self.machine.apply(index, batch)
            self._at += 1

    def leap(self, other: Member) -> None:
        """Take in another one's snapshot."""
        rows = snapshot.decode(snapshot.encode(other.machine.dump()))
        self.machine, self._at = Machine.load(rows), other._at


class Client:
    """A browser: it remembers what it was told, and comes back with the last id."""

    def __init__(self, wanted: Filter) -> None:
        self.wanted = wanted
        self.last_id: int | None = None
        self.told: dict[tuple[int, int], Any] = {}
        self.newest = (0, 0)
        self.lost: list[tuple[int, int]] = []
        self.hub: Hub | None = None
        self.watcher: Watcher | None = None

    def come(self, hub: Hub) -> None:
        """Open a stream."""
        self.leave()
        self.newest = (0, 0)
        self.hub, self.watcher = hub, hub.enter(self.wanted, self.last_id)
        self.read(self.watcher.opening())

    def leave(self) -> None:
        """Lose the connection."""
        if self.hub is not None and self.watcher is not None:
            self.hub.leave(self.watcher)
        self.hub = self.watcher = None

    def listen(self, rng: random.Random) -> None:
        """Read what there is, perhaps only a part of it before the connection breaks."""
        if self.watcher is None:
            return
        while data := self.watcher.chunk():
            if rng.random() < 0.1:
                blocks = data.split(b"\n\n")
                self.read(b"\n\n".join(blocks[: rng.randrange(len(blocks))]) + b"\n\n")
                self.leave()
                return
            self.read(data)
        if rng.random() < 0.3:
            self.read(self.watcher.heartbeat())

    def read(self, data: bytes) -> None:
        """Understand messages as the standard says."""
        for block in data.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "id" in fields:
                assert int(fields["id"]) >= (self.last_id or 0), "a position went back"
                self.last_id = int(fields["id"])
            if "data" not in fields or fields["event"] == "open":
                continue
            told = msgspec.json.decode(fields["data"])
            if fields["event"] == "resync":
                self.lost.append((told["lost_after"], told["from"]))
                continue
            key = (told["index"], told["seq"])
            # What is told again after a break is the same again; in between, all goes forward.
            assert self.told.setdefault(key, told) == told
            assert key > self.newest
            self.newest = key


def right(machine: Machine, wanted: Filter) -> Iterator[dict[str, Any]]:
    """What should be told, from a machine that remembers everything."""
    for index, events in machine.history.after(0):
        for seq, event in enumerate(events):
            if wanted.wants(event, event.path):
                yield cast(
                    dict[str, Any],
                    msgspec.json.decode(msgspec.json.encode(picture(index, seq, event))),
                )


@pytest.mark.parametrize("number", range(30))
async def test_who_moves_between_nodes_hears_everything(number: int, seed: int) -> None:
    """Three nodes at different positions, connections that break, a snapshot taken in."""
    rng = random.Random(f"{seed}/{number}")
    loop = asyncio.get_running_loop()
    log: list[tuple[int, Batch]] = []
    whole, walk = Machine(), Walk(rng, several=0.3)
    members = [Member(log) for _ in range(3)]
    hubs = [Hub(cast(NodeFace, member), loop, most=100) for member in members]
    clients = [Client(wanted) for wanted in FILTERS for _ in range(2)]
    for client in clients:
        # From the start of all things: what came before is not asked about.
        client.last_id = 0
        client.come(rng.choice(hubs))
    for step in range(150):
        index = whole.index + rng.choice((1, 1, 1, 4))
        batch = walk.batch(whole.next_deadline_ms())
        walk.read(whole.apply(index, batch))
        log.append((index, batch))
        member = rng.choice(members)
        if step == 75:
            ahead = max(members, key=lambda one: one.machine.index)
            behind = min(members, key=lambda one: one.machine.index)
            if ahead is not behind:
                behind.leap(ahead)
        member.apply(rng.choice((0, 1, 5, 30)))
        rng.choice(hubs)._look()
        for client in clients:
            if client.hub is None or rng.random() < 0.05:
                client.come(rng.choice(hubs))
            client.listen(rng)
    for member, hub in zip(members, hubs, strict=True):
        member.apply(10**6)
        hub._look()
    for client in clients:
        client.come(hubs[0])
        client.listen(random.Random(2))
        while client.hub is None:
            client.come(hubs[0])
            client.listen(rng)
        told = [client.told[key] for key in sorted(client.told)]
        should = [
            event
            for event in right(whole, client.wanted)
            if not any(after < event["index"] <= until for after, until in client.lost)
            or (event["index"], event["seq"]) in client.told
        ]
        assert told == should
    for hub in hubs:
        hub.close()


async def test_only_those_concerned_are_woken() -> None:
    """The others are moved along without a look of their own."""
    rng = random.Random(1)
    log: list[tuple[int, Batch]] = []
    member, walk = Member(log), Walk(rng)
    hub = Hub(cast(NodeFace, member), asyncio.get_running_loop(), most=10)
    quiet = hub.enter(Filter(("/rooms/",), None), None)
    busy = hub.enter(Filter(("/sessions/",), None), None)
    for watcher in (quiet, busy):
        assert watcher.chunk() == b""
        watcher.woken.clear()
    while not any(event.kind == "session" for _, found in _all(member) for event in found):
        index = member.machine.index + 1
        log.append((index, walk.batch(None)))
        member.apply(1)
    hub._look()
    assert busy.woken.is_set()
    assert not quiet.woken.is_set()
    assert quiet.is_current
    assert busy.chunk()
    assert quiet.heartbeat().endswith(b"id: %d\n\n" % hub.seen)


async def test_without_watchers_nothing_is_looked_at() -> None:
    """A node that nobody watches is not woken for it; who comes begins with the present."""
    log: list[tuple[int, Batch]] = []
    member, walk = Member(log), Walk(random.Random(2))
    hub = Hub(cast(NodeFace, member), asyncio.get_running_loop(), most=10)
    log += [(index, walk.batch(None)) for index in range(1, 6)]
    member.apply(5)
    hub._on_applied()
    assert hub._timer is None
    watcher = hub.enter(Filter((), None), None)
    assert watcher.cursor == member.machine.index
    hub._on_applied()
    assert hub._timer is not None
    hub.leave(watcher)
    hub.close()


def _all(member: Member) -> list[tuple[int, list[Event]]]:
    return list(member.machine.history.after(0))


def test_the_history_forgets_whole_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """And knows from where on it remembers everything."""
    monkeypatch.setattr(limits, "EVENTS_KEPT_MAX", 3)
    history = History()
    event = Event("granted", "lock", "a")
    history.add(2, [event, event])
    history.add(5, [event])
    assert (history.first, [index for index, _ in history.after(0)]) == (0, [2, 5])
    history.add(9, [event])
    assert (history.first, [index for index, _ in history.after(0)]) == (3, [5, 9])
    assert [index for index, _ in history.after(5)] == [9]
    history.start(12)
    assert (history.first, list(history.after(0))) == (13, [])


@pytest.mark.parametrize(
    ("kind", "name", "more", "path"),
    [
        ("lock", "a/b", (), "/locks/a/b"),
        ("ticket", "r", (("ticket", "t"),), "/resources/r/tickets/t"),
        ("fifo", "f", (("ticket", "t"),), "/fifos/f/tickets/t"),
        ("fifo", "f", (), "/fifos/f"),
        ("tube", "t", (("job", 3), ("key", "k")), "/tubes/t/jobs/3"),
        ("task", "p", (("task", "t"),), "/pools/p/tasks/t"),
        ("room", "r", (), "/rooms/r"),
        ("semaphore", "s", (("units", 2),), "/semaphores/s"),
        ("session", "1-a", (), "/sessions/1-a"),
    ],
)
def test_events_have_paths_as_in_the_api(
    kind: str, name: str, more: tuple[tuple[str, Any], ...], path: str
) -> None:
    """And things are found by theirs."""
    assert Event("granted", kind, name, more=more).path == path
    assert thing_at(path_of(kind, name)) == (kind, name)


@pytest.mark.parametrize("number", range(8))
def test_everything_that_happens_can_be_told(number: int, seed: int) -> None:
    """In JSON, with what belongs to it beside and not instead of what all events have."""
    walk, machine = AllWalk(random.Random(seed * 100 + number)), Machine()
    common = {*picture(1, 0, Event("", "lock", ""))}
    told = 0
    for index in range(1, 200):
        walk.pass_time(machine)
        walk.read(machine.apply(index, walk.batch(machine)))
    for index, events in machine.history.after(0):
        for event in events:
            assert not common & {member for member, _ in event.more}, event
        for text in Entry(index, events).messages(Filter((), None)):
            lines = text.decode().split("\n")
            assert lines[-3].startswith("data: {")
            told += 1
    assert told > 100


def test_every_kind_there_is_has_a_path() -> None:
    """A primitive whose events had none would stop the watchers."""
    for kind in Machine().core.primitives:
        assert path_of(kind, "x").startswith("/")
