"""Waiting rooms: places in order, a window that moves once per interval, and snapshots."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands.rooms import JoinRoom, RemoveRoom, SetRoom
from cluster.machine.machine import Machine
from cluster.machine.outcome import QueueFull
from cluster.machine.outcome.rooms import (
    PlaceInfo,
    RoomInfo,
    RoomJoined,
    RoomNotFound,
    RoomRemoved,
    RoomSet,
)
from tests.machine.drive import Drive
from tests.machine.test_snapshot import plain

EVERY = 1000


def room(places: int = 0, *, size: int = 2, active: int = 2) -> Drive:
    """A machine with one room, made at 0 ms, and places given in it."""
    drive = Drive()
    drive.ask(SetRoom("r", size, EVERY, active), *[JoinRoom("r")] * places, now_ms=0)
    return drive


def statuses(drive: Drive, *positions: int) -> list[str]:
    """What has become of places."""
    found = []
    for position in positions:
        place = drive.machine.rooms.place("r", 1, position, drive.machine.now_ms)
        assert place is not None
        found.append(place.status)
    return found


def end(drive: Drive) -> int:
    """Where the window ends."""
    info = drive.machine.rooms.info("r", 0)
    assert info is not None
    return info.window_end


class TestPlaces:
    def test_a_wait_beyond_all_numbers_is_told_as_very_long(self) -> None:
        """Places are given without end, and an answer must always be possible."""
        drive = Drive()
        drive.ask(SetRoom("r", 1, limits.LENGTH_MS_MAX, 1), JoinRoom("r"), JoinRoom("r"))
        rows = plain(drive.machine.dump())
        ((_, (record,)),) = [row for row in rows if row[0] == "rooms"]
        joined = 5
        record[joined] = 2**60
        drive.machine = Machine.load(rows)
        place = drive.one(JoinRoom("r"))
        assert isinstance(place, RoomJoined)
        assert (place.position, place.eta_ms) == (2**60 + 1, limits.ROOM_ETA_MS_MAX)

    def test_are_numbered_in_order(self) -> None:
        """The first window is admitted at once, the others wait and know how long."""
        drive = room()
        joined = [drive.one(JoinRoom("r"), now_ms=100) for _ in range(5)]
        assert joined == [
            RoomJoined("r", 1, 1, "active", 0, 0, 0),
            RoomJoined("r", 1, 2, "active", 0, 0, 0),
            RoomJoined("r", 1, 3, "waiting", 0, 900, 0),
            RoomJoined("r", 1, 4, "waiting", 1, 900, 0),
            RoomJoined("r", 1, 5, "waiting", 2, 1900, 0),
        ]

    def test_need_a_room(self) -> None:
        """Whoever joins none is told so, and so is who removes it."""
        drive = Drive()
        assert drive.one(JoinRoom("r")) == RoomNotFound("r")
        assert drive.one(RemoveRoom("r")) == RoomNotFound("r")
        assert drive.machine.rooms.info("r", 0) is None

    def test_are_asked_again_under_a_key(self) -> None:
        """A retried join is the same place."""
        drive = room()
        first, again = (
            drive.one(JoinRoom("r"), key="k", fingerprint=b"f", node=node) for node in ("n1", "n2")
        )
        assert first == again
        other = drive.one(JoinRoom("r"))
        assert isinstance(other, RoomJoined)
        assert other.position == 2

    def test_of_a_former_room_are_unknown(self) -> None:
        """A room of the same name is another one."""
        drive = room(3)
        assert drive.one(RemoveRoom("r")) == RoomRemoved("r")
        drive.ask(SetRoom("r", 2, EVERY, 2), JoinRoom("r"))
        assert drive.machine.rooms.place("r", 1, 1, 0) is None
        info = drive.machine.rooms.info("r", 0)
        assert info is not None
        assert drive.machine.rooms.place("r", info.token, 1, 0) == PlaceInfo(1, "active", 0, 0)
        assert drive.machine.rooms.place("r", info.token, 0, 0) is None
        drive.at(EVERY)
        assert end(drive) == 2


class TestChecks:
    def test_a_first_step_waits_for_a_look_and_no_interval(self) -> None:
        """A room that is looked at now and then is due when it is made."""
        drive = Drive()
        drive.ask(SetRoom("r", 2, 10 * EVERY, 2, 300), *[JoinRoom("r")] * 3, now_ms=100)
        drive.at(399)
        assert statuses(drive, 3) == ["waiting"]
        drive.at(400)
        assert statuses(drive, 3) == ["active"]
        drive.ask(*[JoinRoom("r")] * 2)
        drive.at(400 + 10 * EVERY - 1)
        assert statuses(drive, 5) == ["waiting"]
        drive.at(400 + 10 * EVERY)
        assert statuses(drive, 1, 3, 5) == ["expired", "active", "active"]

    def test_due_stays_in_the_past_while_nobody_waits(self) -> None:
        """Who begins to wait then waits for the next look; one at this very time is over."""
        drive = Drive()
        drive.ask(SetRoom("r", 1, EVERY, 2, 300), *[JoinRoom("r")] * 2, now_ms=0)
        drive.at(300)
        assert statuses(drive, 2) == ["active"]
        joined = drive.one(JoinRoom("r"), now_ms=300 + EVERY + 600)
        assert joined == RoomJoined("r", 1, 3, "waiting", 0, 300, 0)
        joined = drive.one(JoinRoom("r"), now_ms=300 + EVERY + 700)
        assert joined == RoomJoined("r", 1, 4, "waiting", 1, 200 + EVERY, 0)
        drive.at(300 + EVERY + 900)
        assert statuses(drive, 3, 4) == ["active", "waiting"]

    def test_no_step_follows_faster_than_looks_do(self) -> None:
        """Even where the interval is shorter."""
        drive = Drive()
        drive.ask(SetRoom("r", 1, 1, 1, 300), *[JoinRoom("r")] * 4, now_ms=0)
        ends = [(drive.at(now_ms), end(drive))[1] for now_ms in (299, 300, 599, 600, 900)]
        assert ends == [1, 2, 2, 3, 4]

    def test_are_said_when_a_room_is_made(self) -> None:
        """A room that is there keeps its way, and with `only_new` its settings too."""
        drive = Drive()
        drive.ask(SetRoom("r", 1, EVERY, 2, 300), now_ms=0)
        assert drive.one(SetRoom("r", 9, 9, 9, only_new=True)) == RoomSet(
            "r", 1, EVERY, 2, 1, False
        )
        assert drive.one(SetRoom("r", 2, EVERY, 2)) == RoomSet("r", 2, EVERY, 2, 1, False)
        drive.ask(*[JoinRoom("r")] * 2)
        drive.at(299)
        assert end(drive) == 1
        drive.at(300)
        assert end(drive) == 3
        made = drive.one(SetRoom("s", 1, 1, 1, only_new=True))
        assert isinstance(made, RoomSet) and made.is_new


class TestWindow:
    def test_moves_once_per_interval_while_somebody_waits(self) -> None:
        """Waiting, active, expired, and never back."""
        drive = room(7)
        drive.at(EVERY - 1)
        assert end(drive) == 2
        drive.at(EVERY)
        assert end(drive) == 4
        assert [event.what for event in drive.machine.core.events] == ["moved"]
        assert statuses(drive, 1, 2, 3, 4, 5) == ["active"] * 4 + ["waiting"]
        drive.at(2 * EVERY)
        assert statuses(drive, 1, 2, 3, 6, 7) == ["expired"] * 2 + ["active"] * 2 + ["waiting"]
        drive.at(3 * EVERY)
        assert (end(drive), drive.machine.next_deadline_ms()) == (8, None)
        drive.at(9 * EVERY)
        assert end(drive) == 8

    def test_makes_one_step_however_late(self) -> None:
        """Missed intervals are not made up for: that would expire people."""
        drive = room(9)
        drive.at(5 * EVERY + 300)
        assert end(drive) == 4
        assert drive.machine.next_deadline_ms() == 6 * EVERY + 300

    def test_moves_at_once_for_the_first_who_waits_after_a_pause(self) -> None:
        """Its interval is over long ago: the next entry brings the step."""
        drive = room(2)
        joined = drive.one(JoinRoom("r"), now_ms=4 * EVERY)
        assert joined == RoomJoined("r", 1, 3, "waiting", 0, 0, 0)
        assert drive.machine.next_deadline_ms() == 4 * EVERY
        drive.at(4 * EVERY)
        assert end(drive) == 4

    def test_does_not_move_for_nobody(self) -> None:
        """Nothing is armed."""
        drive = room(2)
        assert drive.machine.next_deadline_ms() is None
        drive.at(10 * EVERY)
        assert end(drive) == 2

    def test_with_one_active_window_expires_the_one_before(self) -> None:
        """The cliff edge, as it is documented."""
        drive = room(3, active=1)
        drive.at(EVERY)
        assert statuses(drive, 1, 2, 3) == ["expired", "expired", "active"]


class TestChange:
    def test_is_told_from_making(self) -> None:
        """Same settings change nothing."""
        drive = room()
        assert drive.one(SetRoom("r", 2, EVERY, 2)) == RoomSet("r", 2, EVERY, 2, 1, is_new=False)
        assert drive.machine.core.events == []
        changed = drive.one(SetRoom("r", 5, 50, 1))
        assert changed == RoomSet("r", 5, 50, 1, 1, is_new=False)
        assert [event.what for event in drive.machine.core.events] == ["changed"]
        assert end(drive) == 2

    def test_of_the_interval_counts_from_the_last_step(self) -> None:
        """Shorter or longer, at once, and the clock before is forgotten."""
        drive = room(9)
        drive.ask(SetRoom("r", 2, 5 * EVERY, 2), now_ms=100)
        assert drive.machine.next_deadline_ms() == 5 * EVERY
        drive.ask(SetRoom("r", 2, 300, 2), now_ms=200)
        assert drive.machine.next_deadline_ms() == 300
        drive.ask(SetRoom("r", 2, 100, 2), now_ms=250)
        assert drive.machine.next_deadline_ms() == 250
        drive.at(250)
        assert end(drive) == 4
        assert drive.machine.next_deadline_ms() == 350

    def test_brings_nobody_back(self) -> None:
        """More active windows do not revive, fewer expire with the next step only."""
        drive = room(20, active=1)
        drive.at(EVERY)
        drive.ask(SetRoom("r", 2, EVERY, 9))
        assert statuses(drive, 1, 3) == ["expired", "active"]
        drive.at(2 * EVERY)
        drive.at(3 * EVERY)
        assert statuses(drive, 2, 3, 8, 9) == ["expired", "active", "active", "waiting"]
        drive.ask(SetRoom("r", 2, EVERY, 1))
        assert statuses(drive, 3) == ["active"]
        drive.at(4 * EVERY)
        assert statuses(drive, 8, 9) == ["expired", "active"]

    def test_of_the_size_counts_from_the_next_step(self) -> None:
        """Places admitted stay so."""
        drive = room(20)
        drive.ask(SetRoom("r", 5, EVERY, 2))
        drive.at(EVERY)
        assert end(drive) == 7


class TestReading:
    def test_shows_how_many_are_where(self) -> None:
        """Waiting, active and expired add up."""
        drive = room(7)
        drive.at(EVERY)
        drive.at(2 * EVERY)
        info = drive.machine.rooms.info("r", 2 * EVERY + 100)
        assert info == RoomInfo("r", 2, EVERY, 2, 1, 7, 6, 2, 900)
        assert (info.waiting, info.active) == (1, 4)

    def test_lists_by_name_page_by_page(self) -> None:
        """Within a prefix, after the last one seen."""
        drive = Drive()
        drive.ask(*(SetRoom(name, 1, 1, 1) for name in ("b/2", "a", "b/1", "c")))
        rooms = drive.machine.rooms
        assert [info.name for info in rooms.list(0)] == ["a", "b/1", "b/2", "c"]
        assert [info.name for info in rooms.list(0, prefix="b/", limit=1)] == ["b/1"]
        assert [info.name for info in rooms.list(0, prefix="b/", after="b/1")] == ["b/2"]

    def test_nobody_stands_in_a_room_by_a_session(self) -> None:
        """What concerns sessions and waits has nothing to say here."""
        rooms = room(5).machine.rooms
        assert list(rooms.places()) == []
        assert list(rooms.blockers("r", "", None)) == []
        rooms.settle("r")

    def test_there_are_only_so_many_rooms(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that is there can be changed."""
        monkeypatch.setattr(limits, "ROOMS_MAX", 1)
        drive = room()
        assert drive.one(SetRoom("s", 1, 1, 1)) == QueueFull("rooms", 1)
        assert isinstance(drive.one(SetRoom("r", 1, 1, 1)), RoomSet)

    @pytest.mark.parametrize(
        "command",
        [
            SetRoom("r", 9, 9, 9),
            SetRoom("s", 9, 9, 9),
            JoinRoom("r"),
            JoinRoom("s"),
            RemoveRoom("r"),
            RemoveRoom("s"),
        ],
    )
    def test_a_check_tells_what_the_command_will_be_refused_with(self, command: Any) -> None:
        """And changes nothing."""
        drive = room(3)
        before = list(drive.machine.dump())
        check = drive.machine.rooms.checks[type(command)]
        refusal = check.refusal(command)
        assert check.thing(command) == ("room", command.name)
        assert list(drive.machine.dump()) == before
        outcome = drive.one(command)
        assert (outcome == refusal) == (refusal is not None)


def busy() -> Drive:
    """A machine with rooms in every state."""
    drive = room(7)
    drive.ask(SetRoom("idle", 2, 50, 3), SetRoom("late", 1, 10, 1), now_ms=100)
    drive.at(EVERY)
    drive.ask(JoinRoom("late"), JoinRoom("late"))
    return drive


class TestSnapshot:
    def test_a_loaded_machine_goes_on_as_the_first(self) -> None:
        """Same rows, same pictures, the same steps."""
        drive = busy()
        loaded = Machine.load(plain(drive.machine.dump()))
        assert plain(loaded.dump()) == plain(drive.machine.dump())
        assert loaded.rooms.list(EVERY) == drive.machine.rooms.list(EVERY)
        assert loaded.counts() == drive.machine.counts()
        other = Drive(loaded)
        other.seqs = dict(drive.seqs)
        for now_ms in (EVERY, 2 * EVERY, 3 * EVERY):
            for one in (drive, other):
                one.ask(JoinRoom("late"), JoinRoom("r"), now_ms=now_ms)
            assert drive.told == other.told
            assert plain(loaded.dump()) == plain(drive.machine.dump())

    @pytest.mark.parametrize(
        ("row", "column", "value"),
        [
            (0, 0, "zz"),
            (0, 1, 0),
            (0, 1, 10**9),
            (0, 2, 0),
            (0, 3, -1),
            (0, 4, 0),
            (0, 5, -1),
            (0, 5, 10**9),
            (0, 6, 0),
            (0, 7, -1),
            (0, 8, -1),
            (0, 9, 1),
            (0, 10, 5),
            (1, 9, 0),
            (1, 9, 10**9),
            (2, 10, -1),
            (2, 10, 0),
            (2, 7, 10**9),
            (2, 5, 2),
            (0, 11, -1),
            (0, 11, True),
        ],
    )
    def test_refuses_records_that_contradict_one_another(
        self, row: int, column: int, value: object
    ) -> None:
        """Every field is checked, alone and against the others."""
        rows = plain(busy().machine.dump())
        (found,) = (each for each in rows if each[0] == "rooms")
        assert found[1][row][column] != value
        found[1][row][column] = value
        with pytest.raises(ValueError, match="no snapshot of ours"):
            Machine.load(rows)

    def test_raises_nothing_but_value_errors(self, rng: random.Random) -> None:
        """Rows with anything anywhere are refused, or make a machine that can be saved again."""
        original = plain(busy().machine.dump())
        junk: list[Any] = [None, True, -1, 0, 1, 10**18, "", "r", b"x", [], [[1]]]
        for _ in range(500):
            rows = copy.deepcopy(original)
            (target,) = (row[1] for row in rows if row[0] == "rooms")
            record = rng.choice(target)
            record[rng.randrange(len(record))] = rng.choice(junk)
            try:
                machine = Machine.load(rows)
            except ValueError:
                continue
            assert plain(Machine.load(plain(machine.dump())).dump()) == plain(machine.dump())
