"""Waiting rooms: numbered places, and a window that admits them in steps.

RULE: a function of state, cluster time and command. Reads no clock, draws no lots.

A place is a number; who has it keeps it in a signed pass (`gateway/passes.py`). So a room is two
counters and a window, however many wait. Up to `window_end` places are admitted; a step of the
window admits `window_size` more, and what lies `active_windows` steps behind its end has expired.
A place goes from waiting to active to expired and never back, whatever is changed meanwhile.

The window moves while somebody waits: an interval after its last step, or after the room was made,
or at once where that is over. A step is an entry of the log, so that no two nodes can both make it.
Source: HarrisonTCodes/session-queue, whose leaders could. There a first step waits for no interval,
and a window that is due is looked at every 3 s: rooms made with `check_every_ms` do as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sortedcontainers import SortedList

from cluster.machine import limits
from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.rooms import JoinRoom, RemoveRoom, SetRoom
from cluster.machine.core import Core
from cluster.machine.deadlines import DISARMED, ROOM_SLIDES
from cluster.machine.events import Event
from cluster.machine.names import page
from cluster.machine.outcome.base import Outcome, QueueFull, Refusal
from cluster.machine.outcome.rooms import (
    ACTIVE,
    EXPIRED,
    WAITING,
    PlaceInfo,
    RoomInfo,
    RoomJoined,
    RoomNotFound,
    RoomRemoved,
    RoomSet,
)
from cluster.machine.parked import Place
from cluster.machine.primitive import Blocker, Check, Handler, Record, Table, Weighed
from cluster.machine.restoring import Restoring, must
from cluster.machine.sessions import Owned, Session

KIND = "room"


class Room:
    """One room.

    Attributes:
        token: at which it was made.
        joined: places given.
        window_end, expired_to: places up to here are admitted, and expired.
        since_ms: when the window moved last, or the room was made; before that, and perhaps before
            0, where a room is due as soon as it is made.
        check_every_ms: as in `SetRoom`; 0 where the window moves as soon as it may.
        clock: the next step; None while nobody waits.
    """

    __slots__ = (
        "active_windows",
        "check_every_ms",
        "clock",
        "expired_to",
        "joined",
        "name",
        "since_ms",
        "token",
        "window_end",
        "window_interval_ms",
        "window_size",
    )

    def __init__(
        self,
        name: str,
        token: int,
        settings: tuple[int, int, int],
        now_ms: int,
        *,
        check_every_ms: int = 0,
    ) -> None:
        self.name = name
        self.token = token
        self.window_size, self.window_interval_ms, self.active_windows = settings
        self.joined = 0
        self.window_end = self.window_size
        self.expired_to = 0
        self.check_every_ms = check_every_ms
        self.since_ms = now_ms - self.pace_ms if check_every_ms else now_ms
        self.clock: Clock | None = None

    @property
    def settings(self) -> tuple[int, int, int]:
        """Size, interval and number of active windows."""
        return self.window_size, self.window_interval_ms, self.active_windows

    @property
    def pace_ms(self) -> int:
        """Between two steps at the least."""
        return max(self.window_interval_ms, self.check_every_ms)

    def due_ms(self, now_ms: int) -> int:
        """When the window moves if somebody waits from now on."""
        first_ms, every_ms = self.since_ms + self.pace_ms, self.check_every_ms
        if not every_ms:
            return max(first_ms, now_ms)
        # A look at this very time was taken before.
        looks = max(0, (now_ms - first_ms) // every_ms + 1)
        return first_ms + looks * every_ms

    def status(self, position: int) -> str:
        """What has become of a place."""
        if position > self.window_end:
            return WAITING
        return ACTIVE if position > self.expired_to else EXPIRED


class Clock:
    """The next step of a room's window.

    Attributes:
        order: unique; a clock that is set anew is another.
    """

    __slots__ = ("deadline_ms", "order", "room")

    def __init__(self, deadline_ms: int, order: int, room: Room) -> None:
        self.deadline_ms = deadline_ms
        self.order = order
        self.room = room


class _RoomRecord(Record):
    name: str
    token: int
    window_size: int
    window_interval_ms: int
    active_windows: int
    joined: int
    window_end: int
    expired_to: int
    since_ms: int
    order: int
    deadline_ms: int
    check_every_ms: int


class Rooms:
    """All rooms."""

    kind = KIND

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_name: dict[str, Room] = {}
        self._names = SortedList()
        self.handlers: Mapping[type[Command], Handler] = {
            SetRoom: self.set,
            RemoveRoom: self.remove,
            JoinRoom: self.join,
        }
        self.timers: Mapping[int, Callable[[Any], None]] = {ROOM_SLIDES: self._slide}
        self.checks: Mapping[type[Command], Check] = {
            SetRoom: Check(_thing, self._against_setting),
            RemoveRoom: Check(_thing, self._against),
            JoinRoom: Check(_thing, self._against),
        }
        self.tables: tuple[Table, ...] = (Table("rooms", _RoomRecord, self._dump, self._load),)

    def __len__(self) -> int:
        return len(self._by_name)

    # Commands.

    def set(self, command: SetRoom, _: RequestId) -> Outcome:
        """Make a room or change it; a change concerns the steps to come, and no place admitted."""
        if (refusal := self._against_setting(command)) is not None:
            return refusal
        core, name = self._core, command.name
        settings = (command.window_size, command.window_interval_ms, command.active_windows)
        room = self._by_name.get(name)
        if room is None:
            every_ms = command.check_every_ms
            room = Room(name, core.tokens.next(), settings, core.now_ms, check_every_ms=every_ms)
            self._add(room)
            core.events.append(Event("created", KIND, name, None, room.token))
            return RoomSet(name, *settings, room.token, is_new=True)
        if command.only_new:
            return RoomSet(name, *room.settings, room.token, is_new=False)
        if settings != room.settings:
            room.window_size, room.window_interval_ms, room.active_windows = settings
            core.events.append(Event("changed", KIND, name, None, room.token))
            if room.clock is not None:
                # An interval that became shorter counts from the last step, too.
                self._stop(room)
                self._start(room)
        return RoomSet(name, *settings, room.token, is_new=False)

    def remove(self, command: RemoveRoom, _: RequestId) -> Outcome:
        """Forget a room. One made under its name later honours no pass of this one."""
        room = self._by_name.get(command.name)
        if room is None:
            return RoomNotFound(command.name)
        self._stop(room)
        del self._by_name[room.name]
        self._names.remove(room.name)
        self._core.events.append(Event("deleted", KIND, room.name, None, room.token))
        return RoomRemoved(room.name)

    def join(self, command: JoinRoom, _: RequestId) -> Outcome:
        """Give the next place; the first one that waits starts the clock."""
        core, room = self._core, self._by_name.get(command.name)
        if room is None:
            return RoomNotFound(command.name)
        room.joined += 1
        if room.clock is None and room.joined > room.window_end:
            self._start(room)
        place = _place(room, room.joined, core.now_ms)
        return RoomJoined(
            room.name,
            room.token,
            place.position,
            place.status,
            place.ahead,
            place.eta_ms,
            core.wall_ms,
        )

    # What the machine asks of every primitive. Nobody holds or waits in a room by a session.

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """Places belong to passes, never to a session."""
        raise AssertionError(f"{session.id} holds {thing}, which nobody can hold")

    def leave(self, place: Place) -> None:
        """No request is ever parked in a room."""
        raise AssertionError(f"a request waits in room {place.name}")

    def settle(self, name: str) -> None:
        """Nothing becomes free but by time."""

    def position(self, place: Place) -> int:
        """No request is ever parked in a room."""
        raise AssertionError(f"a request waits in room {place.name}")

    def too_late(self, place: Place) -> Outcome:
        """No request is ever parked in a room."""
        raise AssertionError(f"a request waits in room {place.name}")

    def places(self) -> Iterator[Place]:
        """No request is ever parked in a room."""
        return iter(())

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """What one waits for is time."""
        return iter(())

    # Reading.

    def place(self, name: str, token: int, position: int, now_ms: int) -> PlaceInfo | None:
        """A picture of one place.

        Args:
            token: of the making of the room that gave it.
        Returns:
            None where this room did not.
        """
        room = self._by_name.get(name)
        if room is None or room.token != token or position < 1:
            return None
        return _place(room, position, now_ms)

    def info(self, name: str, now_ms: int) -> RoomInfo | None:
        """A picture of one room."""
        room = self._by_name.get(name)
        if room is None:
            return None
        return RoomInfo(
            name,
            *room.settings,
            token=room.token,
            joined=room.joined,
            window_end=room.window_end,
            expired_to=room.expired_to,
            next_slide_in_ms=None if room.clock is None else _until(room.clock, now_ms),
        )

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[RoomInfo]:
        """Pictures of at most `limit` rooms whose names start with `prefix`, in order of name.

        Args:
            after: name of the last one seen; it need not be there any more.
        """
        found = (self.info(name, now_ms) for name in page(self._names, prefix, after, limit))
        return [picture for picture in found if picture is not None]

    # How it is done.

    def _against_setting(self, command: SetRoom) -> Refusal | None:
        if (
            command.name not in self._by_name
            and len(self._by_name) + self._core.headroom > limits.ROOMS_MAX
        ):
            return QueueFull("rooms", limits.ROOMS_MAX)
        return None

    def _against(self, command: RemoveRoom | JoinRoom) -> Refusal | None:
        return None if command.name in self._by_name else RoomNotFound(command.name)

    def _add(self, room: Room) -> None:
        self._by_name[room.name] = room
        self._names.add(room.name)

    def _start(self, room: Room) -> None:
        """Somebody waits: the window moves when its interval is over, but not before now."""
        core = self._core
        room.clock = Clock(room.due_ms(core.now_ms), core.tokens.next(), room)
        core.deadlines.arm(ROOM_SLIDES, room.clock.order, room.clock)

    def _stop(self, room: Room) -> None:
        if room.clock is not None:
            self._core.deadlines.disarm(room.clock)
            room.clock = None

    def _slide(self, clock: Clock) -> None:
        """Move the window by one step, however late it is."""
        core, room = self._core, clock.room
        room.clock = None
        room.window_end += room.window_size
        behind = room.window_end - room.window_size * room.active_windows
        # What has expired stays so, even when more windows were made active since.
        room.expired_to = max(room.expired_to, behind)
        room.since_ms = core.now_ms
        core.events.append(
            Event(
                "moved",
                KIND,
                room.name,
                None,
                room.token,
                (("window_end", room.window_end), ("expired_to", room.expired_to)),
            )
        )
        if room.joined > room.window_end:
            self._start(room)

    # Snapshots.

    def _dump(self) -> Weighed:
        for name in self._names:
            room = self._by_name[name]
            clock = room.clock
            yield (
                1,
                [
                    name,
                    room.token,
                    *room.settings,
                    room.joined,
                    room.window_end,
                    room.expired_to,
                    room.since_ms,
                    0 if clock is None else clock.order,
                    DISARMED if clock is None else clock.deadline_ms,
                    room.check_every_ms,
                ],
            )

    def _load(self, records: Iterable[_RoomRecord], restoring: Restoring) -> None:
        last = ""
        orders: dict[int, None] = {}
        for record in records:
            must(last < record.name, "rooms are not in order of name")
            last = record.name
            restoring.token(record.token)
            settings = (record.window_size, record.window_interval_ms, record.active_windows)
            must(min(settings) > 0, "a setting of a room is not above zero")
            must(
                0 <= record.expired_to < record.window_end
                and min(record.joined, record.check_every_ms) >= 0
                and record.since_ms >= (-limits.LENGTH_MS_MAX if record.check_every_ms else 0),
                "the window of a room makes no sense",
            )
            room = Room(
                record.name, record.token, settings, 0, check_every_ms=record.check_every_ms
            )
            room.since_ms = record.since_ms
            room.joined, room.window_end, room.expired_to = (
                record.joined,
                record.window_end,
                record.expired_to,
            )
            self._add(room)
            if record.joined <= record.window_end:
                must((record.order, record.deadline_ms) == (0, DISARMED), "a room waits for nobody")
                continue
            restoring.token(record.order)
            must(record.order not in orders, "two rooms have one clock")
            orders[record.order] = None
            must(
                record.deadline_ms >= record.since_ms + room.pace_ms,
                "a window moves before its time",
            )
            room.clock = Clock(record.deadline_ms, record.order, room)
            self._core.deadlines.arm(ROOM_SLIDES, record.order, room.clock)


def _thing(command: SetRoom | RemoveRoom | JoinRoom) -> tuple[str, ...]:
    return KIND, command.name


def _place(room: Room, position: int, now_ms: int) -> PlaceInfo:
    status = room.status(position)
    if status != WAITING:
        return PlaceInfo(position, status, 0, 0)
    steps = (position - room.window_end - 1) // room.window_size
    first_ms = room.pace_ms if room.clock is None else _until(room.clock, now_ms)
    # Places are given without end: the product would be too large for an answer one day.
    eta_ms = min(first_ms + steps * room.pace_ms, limits.ROOM_ETA_MS_MAX)
    return PlaceInfo(position, status, position - room.window_end - 1, eta_ms)


def _until(clock: Clock, now_ms: int) -> int:
    return max(0, clock.deadline_ms - now_ms)
