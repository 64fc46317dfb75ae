"""Waiting rooms against a plain model, and against their laws, on thousands of random entries.

The model keeps every place and every step there ever was, and counts anew each time.
A failing walk prints its number; `--seed N` shifts all walks to other ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from cluster.machine.commands import Batch, Command, Group, Origin, Request
from cluster.machine.commands.rooms import JoinRoom, RemoveRoom, SetRoom
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.rooms import RoomJoined, RoomNotFound, RoomRemoved, RoomSet
from cluster.wire import cbor, commands, snapshot

WALKS = range(40)
ENTRIES = 120
NAMES = ("a", "b")


@dataclass
class ModelRoom:
    """One room: its places by status, and when its window moved."""

    name: str
    token: int
    settings: tuple[int, int, int]
    since_ms: int
    places: list[str] = field(default_factory=list)
    admits: int = 0
    waits_since_ms: int = 0
    steps: list[int] = field(default_factory=list)
    every_ms: int = 0

    @property
    def pace_ms(self) -> int:
        """Between two steps at the least."""
        return max(self.settings[1], self.every_ms)

    def due_ms(self) -> int | None:
        """When the window moves next; None while nobody waits."""
        if "waiting" not in self.places:
            return None
        look_ms = self.since_ms + self.pace_ms
        if not self.every_ms:
            return max(look_ms, self.waits_since_ms)
        while look_ms <= self.waits_since_ms:
            look_ms += self.every_ms
        return look_ms

    def joins(self, now_ms: int) -> int:
        """Give a place."""
        if self.admits:
            self.admits -= 1
            self.places.append("active")
        else:
            if "waiting" not in self.places:
                self.waits_since_ms = now_ms
            self.places.append("waiting")
        return len(self.places)

    def moves(self, now_ms: int) -> None:
        """One step: admit as many as the size, expire what lies too far behind the new end."""
        size, _, active = self.settings
        end = sum(place != "waiting" for place in self.places) + self.admits + size
        self.admits = max(0, end - len(self.places))
        self.places = [
            "expired"
            if position <= end - size * active or place == "expired"
            else ("active" if position <= end else "waiting")
            for position, place in enumerate(self.places, 1)
        ]
        self.since_ms = self.waits_since_ms = now_ms
        self.steps.append(now_ms)


class RoomModel:
    """All rooms."""

    def __init__(self) -> None:
        self.now_ms = self.index = self.token = 0
        self.rooms: list[ModelRoom] = []

    def entry(self, index: int, now_ms: int, asked: list[Command]) -> list[Outcome]:
        """Apply one entry."""
        self.index, self.now_ms = index, max(self.now_ms, now_ms)
        due = [
            room for room in self.rooms if (at := room.due_ms()) is not None and at <= self.now_ms
        ]
        for room in due:
            room.moves(self.now_ms)
        return [self.do(command) for command in asked]

    def do(self, command: Command) -> Outcome:
        """Carry a command out."""
        assert isinstance(command, SetRoom | JoinRoom | RemoveRoom)
        room = next((room for room in self.rooms if room.name == command.name), None)
        if isinstance(command, SetRoom):
            settings = (command.window_size, command.window_interval_ms, command.active_windows)
            is_new = room is None
            if room is not None and command.only_new:
                return RoomSet(command.name, *room.settings, room.token, is_new)
            if room is None:
                room = ModelRoom(command.name, 0, settings, self.now_ms, admits=settings[0])
                room.every_ms = command.check_every_ms
                if room.every_ms:
                    room.since_ms -= room.pace_ms
                self.rooms.append(room)
            elif settings != room.settings and room.due_ms() is not None:
                # The clock is set anew: what would have been due is due now.
                room.waits_since_ms = self.now_ms
            room.settings = settings
            return RoomSet(command.name, *settings, room.token, is_new)
        if room is None:
            return RoomNotFound(command.name)
        if isinstance(command, RemoveRoom):
            self.rooms.remove(room)
            return RoomRemoved(command.name)
        position = room.joins(self.now_ms)
        return RoomJoined(command.name, room.token, position, *self.place(room, position), 0)

    def place(self, room: ModelRoom, position: int) -> tuple[str, int, int]:
        """Status, how many wait before it, and how long it will take."""
        status = room.places[position - 1]
        if status != "waiting":
            return status, 0, 0
        ahead = room.places[: position - 1].count("waiting")
        due_ms = room.due_ms()
        assert due_ms is not None
        steps = ahead // room.settings[0]
        return status, ahead, max(0, due_ms - self.now_ms) + steps * room.pace_ms


class RoomWalk:
    """One random entry after the other."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.now_ms = 0

    def entry(self, next_deadline_ms: int | None) -> list[Command]:
        """What is asked next, and when."""
        rng = self.rng
        if next_deadline_ms is not None and rng.random() < 0.4:
            self.now_ms = max(self.now_ms, next_deadline_ms + rng.choice((-1, 0, 0, 1)))
        else:
            self.now_ms += rng.choice((0, 0, 1, 5, 15, 300))
        return [self.command() for _ in range(rng.choice((0, 1, 1, 2, 4)))]

    def command(self) -> Command:
        """Something to do."""
        rng, name = self.rng, self.rng.choice(NAMES)
        dice = rng.random()
        if dice < 0.15:
            command: Command = SetRoom(
                name,
                rng.choice((1, 2, 3)),
                rng.choice((10, 40, 100)),
                rng.choice((1, 2, 3)),
                rng.choice((0, 0, 7, 30)),
                rng.random() < 0.2,
            )
        elif dice < 0.17:
            command = RemoveRoom(name)
        else:
            command = JoinRoom(name)
        return commands.decode(commands.encode(command))


def applied(machine: Machine, index: int, now_ms: int, asked: list[Command]) -> list[Outcome]:
    """Apply an entry; each asks under the next number."""
    first = index * 10
    requests = tuple(Request(seq, command) for seq, command in enumerate(asked, first))
    groups = (Group(Origin("n1", 1), first, requests),) if requests else ()
    return [answer.outcome for answer in machine.apply(index, Batch(now_ms, 0, groups))]


@pytest.mark.parametrize("number", WALKS)
def test_rooms_answer_as_the_model_does(number: int, seed: int) -> None:
    """Every answer, and what has become of every place ever given."""
    walk, machine, model = RoomWalk(random.Random(seed * 10_000 + number)), Machine(), RoomModel()
    for index in range(1, ENTRIES + 1):
        asked = walk.entry(machine.next_deadline_ms())
        answers = applied(machine, index, walk.now_ms, asked)
        expected = model.entry(index, walk.now_ms, asked)
        # Tokens are the machine's affair.
        assert [_without_token(one) for one in answers] == [_without_token(one) for one in expected]
        for room in model.rooms:
            info = machine.rooms.info(room.name, machine.now_ms)
            assert info is not None
            assert (info.joined, info.waiting, info.active) == (
                len(room.places),
                room.places.count("waiting"),
                room.places.count("active"),
            )
            for position in range(1, len(room.places) + 1):
                place = machine.rooms.place(room.name, info.token, position, machine.now_ms)
                assert place is not None
                told = (place.status, place.ahead, place.eta_ms)
                assert told == model.place(room, position)
        if walk.rng.random() < 0.05:
            rows = list(map(cbor.encode, machine.dump()))
            machine = Machine.load(snapshot.decode(snapshot.encode(machine.dump())))
            assert list(map(cbor.encode, machine.dump())) == rows
    for room in model.rooms:
        gaps = [after - before for before, after in zip(room.steps, room.steps[1:], strict=False)]
        assert all(gap > 0 for gap in gaps)


@pytest.mark.parametrize("number", WALKS)
def test_the_laws_of_a_room_hold_on_every_walk(number: int, seed: int) -> None:
    """Places are given once and in order; nobody goes back; a step at most once per interval."""
    walk, machine = RoomWalk(random.Random(seed * 10_000 + 500 + number)), Machine()
    given: dict[tuple[str, int], int] = {}
    moved: dict[int, int] = {}
    order = ("waiting", "active", "expired")
    seen: dict[tuple[str, int, int], int] = {}
    for index in range(1, ENTRIES + 1):
        intervals = {info.token: info.window_interval_ms for info in machine.rooms.list(0)}
        asked = walk.entry(machine.next_deadline_ms())
        answers = applied(machine, index, walk.now_ms, asked)
        for event in machine.core.events:
            if event.what == "moved":
                since = machine.now_ms - moved.get(event.token, -(10**9))
                assert since >= intervals[event.token], "the window moved before its time"
                moved[event.token] = machine.now_ms
        for outcome in answers:
            if isinstance(outcome, RoomJoined):
                place = (outcome.name, outcome.token)
                assert outcome.position == given.get(place, 0) + 1
                given[place] = outcome.position
        for info in machine.rooms.list(machine.now_ms):
            assert info.active + info.waiting + min(info.joined, info.expired_to) == info.joined
            assert (info.next_slide_in_ms is not None) == (info.waiting > 0)
            for position in range(1, info.joined + 1):
                picture = machine.rooms.place(info.name, info.token, position, machine.now_ms)
                assert picture is not None
                rank = order.index(picture.status)
                assert rank >= seen.get((info.name, info.token, position), 0), "a place went back"
                seen[info.name, info.token, position] = rank


def _without_token(outcome: Outcome) -> list[object]:
    fields = outcome.__struct_fields__
    return [type(outcome), *(getattr(outcome, name) for name in fields if name != "token")]
