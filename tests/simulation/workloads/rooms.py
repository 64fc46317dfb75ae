"""Waiting rooms: many join, the window moves, and nobody loses a place by anything.

RULE: the book counts places and steps itself; the machine must have counted the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.machine.commands import RequestId
from cluster.machine.commands.rooms import JoinRoom, RemoveRoom, SetRoom
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.rooms import RoomJoined, RoomRemoved, RoomSet
from tests.simulation.clients import Client, Pause, Story
from tests.simulation.network import MS
from tests.simulation.workloads.base import Book, Complain, Entry, Workload

ROOMS = ("launch", "sale")
SIZES, INTERVALS_MS, ACTIVE = (1, 3), (300, 700), (1, 2)
# The one moves as soon as it may, the other is looked at now and then.
CHECKS_MS = {"launch": 0, "sale": 130}


@dataclass(slots=True)
class Room:
    """One room as the book has it.

    Attributes:
        due_ms: when the window must have moved; None while nobody waits.
    """

    token: int
    size: int
    interval_ms: int
    active: int
    moved_ms: int
    end: int
    expired: int = 0
    given: int = 0
    due_ms: int | None = None
    check_ms: int = 0

    def wait(self, now_ms: int) -> None:
        """Somebody waits from now on."""
        if self.due_ms is None and self.given > self.end:
            due_ms = self.moved_ms + max(self.interval_ms, self.check_ms)
            if not self.check_ms:
                due_ms = max(due_ms, now_ms)
            elif due_ms <= now_ms:
                due_ms += ((now_ms - due_ms) // self.check_ms + 1) * self.check_ms
            self.due_ms = due_ms


class RoomBook(Book):
    """K4 and K5: places in order and once, one step of the window per interval, never back."""

    def __init__(self, complain: Complain) -> None:
        super().__init__(complain)
        self._rooms: dict[str, Room] = {}
        self._places: dict[tuple[int, int], RequestId] = {}

    def applied(self, entry: Entry) -> None:
        """First the steps, which time brings, then what was asked, in its order."""
        for event in entry.events:
            if event.kind == "room" and event.what == "moved":
                self._moved(entry, event.name)
        for room in self._rooms.values():
            if room.due_ms is not None and room.due_ms <= entry.now_ms:
                self.complain("the window moves in time", f"{room} at {entry.index}")
        for request, _, outcome in entry.fresh:
            self._asked(entry, request, outcome)
        for name, room in self._rooms.items():
            self._compare(entry, name, room)

    def acknowledged(self, request: RequestId, outcome: Outcome) -> None:
        """A client has a place: it is one that was given."""
        if isinstance(outcome, RoomJoined):
            self.count("places told")
            if (outcome.token, outcome.position) not in self._places:
                self.complain("places", f"{outcome} was told to {request}, never given")

    def check(self, machine: Machine) -> None:
        """No room beside those of the book."""
        held = [info.name for info in machine.rooms.list(machine.now_ms)]
        if held != sorted(self._rooms):
            self.complain("places", f"rooms: machine {held}, book {sorted(self._rooms)}")

    def _moved(self, entry: Entry, name: str) -> None:
        room = self._rooms[name]
        self.count("moved")
        if room.due_ms is None or entry.now_ms < room.due_ms:
            self.complain("one step per interval", f"{name} moved at {entry.index}, {room}")
        room.end += room.size
        room.expired = max(room.expired, room.end - room.size * room.active)
        room.moved_ms, room.due_ms = entry.now_ms, None
        room.wait(entry.now_ms)

    def _asked(self, entry: Entry, request: RequestId, outcome: Outcome) -> None:
        if isinstance(outcome, RoomSet):
            settings = (
                outcome.window_size,
                outcome.window_interval_ms,
                outcome.active_windows,
            )
            room = self._rooms.get(outcome.name)
            if (room is None) != outcome.is_new:
                self.complain("places", f"{outcome} at {entry.index}, the book has {room}")
            if room is None:
                entry.gave(outcome.token, outcome)
                size = outcome.window_size
                room = Room(outcome.token, *settings, moved_ms=entry.now_ms, end=size)
                room.check_ms = CHECKS_MS.get(outcome.name, 0)
                if room.check_ms:
                    room.moved_ms -= max(room.interval_ms, room.check_ms)
                self._rooms[outcome.name] = room
            elif settings != (room.size, room.interval_ms, room.active):
                room.size, room.interval_ms, room.active = settings
                room.due_ms = None
                room.wait(entry.now_ms)
        elif isinstance(outcome, RoomRemoved):
            del self._rooms[outcome.name]
        elif isinstance(outcome, RoomJoined):
            room = self._rooms[outcome.name]
            room.given += 1
            self.count("joined")
            if (outcome.token, outcome.position) != (room.token, room.given):
                self.complain("places in order", f"{outcome} at {entry.index}, {room}")
            self._places[outcome.token, outcome.position] = request
            room.wait(entry.now_ms)

    def _compare(self, entry: Entry, name: str, room: Room) -> None:
        info = entry.machine.rooms.info(name, entry.now_ms)
        said = info and (info.token, info.joined, info.window_end, info.expired_to)
        book = (room.token, room.given, room.end, room.expired)
        if said != book:
            self.complain("places", f"{name} after {entry.index}: machine {said}, book {book}")


def live(client: Client) -> Story:
    """Make sure of a room, join it some times; now and then change or remove it."""
    rng = client.rng
    name = rng.choice(ROOMS)
    at = ROOMS.index(name)
    settings = SetRoom(name, SIZES[at], INTERVALS_MS[at], ACTIVE[at], CHECKS_MS[name])
    if rng.random() < 0.1:
        settings = SetRoom(
            name,
            rng.randrange(1, 5),
            rng.randrange(50, 900),
            rng.randrange(1, 4),
            CHECKS_MS[name],
            only_new=rng.random() < 0.3,
        )
    yield from client.call(settings)
    for _ in range(rng.randrange(1, 8)):
        if client.is_stopped:
            return
        yield from client.call(JoinRoom(name))
        yield Pause(1 + int(rng.expovariate(1 / (200 * MS))))
    if rng.random() < 0.02:
        yield from client.call(RemoveRoom(name))


WORKLOAD = Workload("rooms", book=RoomBook, live=live)
