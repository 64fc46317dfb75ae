"""Snapshots: nothing is left out, order is kept, and a wrong one is refused."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from cluster.machine import limits
from cluster.machine.commands import (
    AcquireLock,
    CloseSession,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    ReleaseLock,
    RequestId,
)
from cluster.machine.commands.jobs import PutJob, ReserveJobs
from cluster.machine.machine import Machine
from cluster.machine.outcome import Granted, Queued
from cluster.machine.outcome.jobs import Reserved
from cluster.wire import cbor
from tests.machine.drive import Drive


def plain(rows: Any) -> Any:
    """Rows as they come back from bytes: lists, no tuples."""
    return [cbor.decode(cbor.encode(row), max_bytes=10**8) for row in rows]


def busy() -> Drive:
    """A machine with something of everything in it."""
    drive = Drive()
    first, second, third = drive.open(1000, 2000, 3000, now_ms=0)
    drive.ask(OpenSession("x", 500, "worker", b'{"a": 1}'), node="n2")
    drive.ask(AcquireLock(first, "z"), AcquireLock(first, "a"), AcquireLock(second, "m", True))
    drive.ask(AcquireLock(third, "m", True), None, key="k", fingerprint=b"f", now_ms=10)
    drive.ask(AcquireLock(second, "z", wait_ms=500), AcquireLock(third, "z", wait_ms=700))
    waiting = AcquireLock(third, "a", wait_ms=900, priority=-1)
    drive.ask(waiting, key="w", fingerprint=b"w", node="n2")
    drive.ask(waiting, key="w", fingerprint=b"w", node="n3")
    drive.ask(waiting, now_ms=20)
    drive.ask(KeepAliveMany((first, "gone")), KeepAlive("gone"), key="many", node="n3")
    return drive


def test_a_loaded_machine_is_the_same() -> None:
    """Positions, counts, digests and pictures are equal."""
    machine = busy().machine
    loaded = Machine.load(plain(machine.dump()))
    assert plain(loaded.dump()) == plain(machine.dump())
    assert (loaded.index, loaded.now_ms, loaded.digest) == (
        machine.index,
        machine.now_ms,
        machine.digest,
    )
    assert loaded.counts() == machine.counts()
    assert loaded.next_deadline_ms() == machine.next_deadline_ms()
    assert loaded.locks.list(20) == machine.locks.list(20)
    assert loaded.sessions.list(20) == machine.sessions.list(20)
    assert loaded.tokens.last == machine.tokens.last


def test_an_empty_machine_can_be_saved() -> None:
    """A new cluster has snapshots too."""
    rows = plain(Machine().dump())
    assert plain(Machine.load(rows).dump()) == rows


def test_a_node_that_waited_finds_its_answer() -> None:
    """After a snapshot that jumped over an answer, it stands in the tables."""
    drive = busy()
    assert drive.machine.answer(RequestId("n3", 1, 1)) == Queued("a", 1)
    drive.ask(ReleaseLock("1-s", "a", 6))
    loaded = Machine.load(plain(drive.machine.dump()))
    for node in ("n2", "n3"):
        answer = loaded.answer(RequestId(node, 1, 2 if node == "n2" else 1))
        assert isinstance(answer, Granted)
        assert answer.session == "3-s"


def test_the_end_of_a_session_frees_in_order_of_grant_after_a_load() -> None:
    """The order of grants over several locks survives, whatever the locks are called."""
    drive = busy()
    drives = [drive, Drive(Machine.load(plain(drive.machine.dump())))]
    ended = []
    for one in drives:
        one.seqs = dict(drive.seqs)
        ended.append(one.ask(CloseSession("1-s")))
    assert ended[0] == ended[1]
    granted = [outcome.name for outcome in ended[0] if isinstance(outcome, Granted)]
    assert granted == ["z", "a", "a", "a"]


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many records make many rows; heavy ones make smaller rows."""
    monkeypatch.setattr(limits, "RECORDS_PER_ROW_MAX", 10)
    drive = Drive()
    drive.ask(*(OpenSession("s", 1000, None, b"x" * 320) for _ in range(4)))
    drive.open(*[1000] * 25)
    sizes = [len(row[1]) for row in drive.machine.dump() if row[0] == "sessions"]
    assert sizes == [2, 2, 10, 10, 5]


@pytest.mark.parametrize("kind", ["answers", "keys"])
def test_answers_that_hold_jobs_make_short_rows(kind: str) -> None:
    """A row of them stays far below what a node reads back, whatever is nested in an answer."""
    drive, body = Drive(), b"x" * 64 * 1024
    for number in range(40):
        drive.one(PutJob("mail", body))
        given = drive.one(ReserveJobs(("mail",)), key=f"key {number}", fingerprint=b"print")
        assert isinstance(given, Reserved)
    sizes = [len(cbor.encode(row)) for row in drive.machine.dump() if row[0] == kind]
    assert sum(sizes) > 40 * len(body)
    assert max(sizes) < 4 * len(body)


class TestRefusal:
    def test_refuses_a_dump_that_was_cut(self) -> None:
        """Whatever row is missing, the dump is not whole."""
        rows = plain(busy().machine.dump())
        for missing in range(len(rows)):
            with pytest.raises(ValueError, match="no snapshot of ours"):
                Machine.load(rows[:missing] + rows[missing + 1 :])
            with pytest.raises(ValueError, match="no snapshot of ours"):
                Machine.load(rows[:missing])

    def test_refuses_rows_out_of_order(self) -> None:
        """Rows come in one order only."""
        rows = plain(busy().machine.dump())
        for place in range(len(rows) - 1):
            swapped = [*rows[:place], rows[place + 1], rows[place], *rows[place + 2 :]]
            with pytest.raises(ValueError, match="no snapshot of ours"):
                Machine.load(swapped)

    def test_refuses_a_record_that_is_missing_or_there_twice(self) -> None:
        """Numbers of records are counted, and no record may stand for two."""
        rows = plain(busy().machine.dump())
        for place, row in enumerate(rows[1:-1], 1):
            for number in range(len(row[1])):
                less, more = copy.deepcopy(rows), copy.deepcopy(rows)
                del less[place][1][number]
                more[place][1].append(more[place][1][number])
                for wrong in (less, more):
                    with pytest.raises(ValueError, match="no snapshot of ours"):
                        Machine.load(wrong)
                more[-1][1] += 1
                with pytest.raises(ValueError, match="no snapshot of ours"):
                    Machine.load(more)

    def test_refuses_another_version(self) -> None:
        """A later format is not guessed at."""
        rows = plain(busy().machine.dump())
        rows[0][1] += 1
        with pytest.raises(ValueError, match="version 3"):
            Machine.load(rows)

    @pytest.mark.parametrize(
        ("kind", "column", "value"),
        [
            ("sessions", 0, 0),
            ("sessions", 0, 99),
            ("sessions", 1, "2-nobody-else"),
            ("sessions", 2, "1000"),
            ("sessions", 3, -1),
            ("sessions", 5, "text"),
            ("lock grants", 0, "zzz"),
            ("lock grants", 1, "3-nobody"),
            ("lock grants", 2, 0),
            ("lock grants", 2, 10**6),
            ("lock grants", 3, 1),
            ("lock places", 0, "free"),
            ("lock places", 1, "1-s"),
            ("lock places", 4, 10**6),
            ("waits", 0, 10**6),
            ("waits", 0, "free"),
            ("waits", 1, 0),
            ("waits", 1, 10**6),
            ("waits", 2, -1),
            ("asked", 0, 10**6),
            ("asked", 1, "n9"),
            ("asked", 2, 9),
            ("asked", 3, 9),
            ("origins", 2, 10**6),
            ("origins", 1, 7),
            ("answers", 0, "n9"),
            ("answers", 1, 10**6),
            ("answers", 2, None),
            ("answers", 2, [8, "door", 1]),
            ("answers", 2, [99]),
            ("keys", 0, "w"),
            ("keys", 3, None),
        ],
    )
    def test_refuses_records_that_contradict_one_another(
        self, kind: str, column: int, value: object
    ) -> None:
        """Every field is checked, alone and against the others."""
        rows = plain(busy().machine.dump())
        (row,) = (row for row in rows if row[0] == kind)
        row[1][0][column] = value
        if (kind, column, value) == ("answers", 1, 10**6):
            # Alone, a number is a number: here it is that of a request that waits.
            waiting = next(number for number, record in enumerate(row[1]) if record[2] is None)
            row[1][waiting][column] = value
        with pytest.raises(ValueError, match="no snapshot of ours"):
            Machine.load(rows)

    def test_refuses_two_holders_of_an_exclusive_lock(self) -> None:
        """Exclusion is looked at before a node serves from a snapshot."""
        rows = plain(busy().machine.dump())
        (row,) = (row for row in rows if row[0] == "lock grants")
        shared = [record for record in row[1] if record[0] == "m"]
        assert len(shared) == 2
        shared[0][3] = False
        with pytest.raises(ValueError, match="two holders"):
            Machine.load(rows)

    def test_raises_nothing_but_value_errors(self, rng: random.Random) -> None:
        """Rows with anything anywhere are refused, or make a machine that can be saved again."""
        original = plain(busy().machine.dump())
        junk: list[Any] = [None, True, -1, 0, 1, 10**18, "", "1-s", "door", b"x", [], {}, [[1]]]
        loaded = 0
        for _ in range(2000):
            rows = copy.deepcopy(original)
            target: Any = rows
            while True:
                place = rng.randrange(len(target))
                deeper = isinstance(target[place], list) and target[place]
                if deeper and rng.random() < 0.9:
                    target = target[place]
                else:
                    target[place] = rng.choice(junk)
                    break
            try:
                machine = Machine.load(rows)
            except ValueError:
                continue
            loaded += 1
            assert plain(Machine.load(plain(machine.dump())).dump()) == plain(machine.dump())
        assert loaded < 1500
