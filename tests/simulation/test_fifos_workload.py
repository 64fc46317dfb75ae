"""The books of fifos and waiting rooms are fed bad histories and must complain, by the right name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from cluster.machine.commands import Batch, Command, Group, Origin, Request, RequestId
from cluster.machine.commands.fifos import AwaitTurn, FinishTurn, JoinFifo, UnhearTurn
from cluster.machine.commands.rooms import JoinRoom, SetRoom
from cluster.machine.events import Event
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.fifos import TurnAccepted
from cluster.machine.outcome.rooms import RoomJoined
from tests.simulation.workloads.base import Book, Entry, Fresh
from tests.simulation.workloads.fifos import ACCEPT_MS, DONE_MS, FIFOS, FifoBook
from tests.simulation.workloads.rooms import RoomBook

REQUEST = RequestId("a", 1, 1)


class Bench:
    """A machine that does as it is told, and a book that is told of it, or of something else."""

    def __init__(self, book: type[Book]) -> None:
        self.complaints: list[str] = []
        self.machine = Machine()
        self.book = book(lambda law, _: self.complaints.append(law))
        self.seq = 0

    def hear(
        self,
        *commands: Command,
        now_ms: int = 0,
        events: Sequence[Event] | None = None,
        fresh: Sequence[Outcome] = (),
    ) -> list[Outcome]:
        """One entry; with `events` the book hears of those, and of `fresh`, instead."""
        requests = tuple(
            Request(seq, command) for seq, command in enumerate(commands, self.seq + 1)
        )
        self.seq += len(commands)
        groups = (Group(Origin("a", 1), 0, requests),) if requests else ()
        index = self.machine.index + 1
        answers = self.machine.apply(index, Batch(now_ms, 0, groups))
        told = [Fresh(REQUEST, None, outcome) for outcome in fresh] or [
            Fresh(a.request, None, a.outcome) for a in answers
        ]
        self.book.applied(
            Entry(
                index,
                self.machine.now_ms,
                now_ms * 1000,
                told,
                [],
                [],
                frozenset(),
                frozenset(),
                self.machine.core.events if events is None else list(events),
                self.machine,
                lambda law, _: self.complaints.append(law),
                {},
            )
        )
        return [answer.outcome for answer in answers]


@pytest.fixture
def fifo() -> Bench:
    """A fifo with tickets a, b, c, of which a is first."""
    bench = Bench(FifoBook)
    bench.hear(FIFOS["gate"], *(JoinFifo("gate", ticket) for ticket in "abc"))
    assert bench.complaints == []
    return bench


def event(what: str, ticket: str, token: int = 0) -> Event:
    """What a watcher of the gate is told."""
    return Event(what, "fifo", "gate", None, token, (("ticket", ticket),))


def accepted(bench: Bench, ticket: str) -> TurnAccepted:
    """Accept a turn."""
    (outcome,) = bench.hear(AwaitTurn("gate", ticket))
    assert isinstance(outcome, TurnAccepted)
    return outcome


def test_a_good_history_is_praised(fifo: Bench) -> None:
    """Turns, timeouts, an acceptance taken back that nobody had heard of."""
    turn = accepted(fifo, "a")
    fifo.hear(UnhearTurn("gate", "a", turn.token))
    turn = accepted(fifo, "a")
    fifo.book.acknowledged(REQUEST, turn)
    fifo.hear(FinishTurn("gate", "a", turn.token))
    fifo.hear(now_ms=ACCEPT_MS)
    accepted(fifo, "c")
    fifo.hear(now_ms=ACCEPT_MS + DONE_MS)
    fifo.book.check(fifo.machine)
    assert fifo.complaints == []


def test_a_turn_out_of_order_is_found(fifo: Bench) -> None:
    """Somebody was let in before older tickets."""
    fifo.hear(events=[event("accepted", "b", 50)])
    assert "turns in order" in fifo.complaints


def test_a_turn_that_is_taken_away_is_found(fifo: Bench) -> None:
    """A client had heard of it; or hears of it afterwards."""
    turn = accepted(fifo, "a")
    fifo.book.acknowledged(REQUEST, turn)
    fifo.hear(UnhearTurn("gate", "a", turn.token))
    assert fifo.complaints == ["a turn stays with who heard of it"]
    again = accepted(fifo, "a")
    fifo.hear(UnhearTurn("gate", "a", again.token))
    fifo.book.acknowledged(REQUEST, again)
    assert fifo.complaints == ["a turn stays with who heard of it"] * 2


@pytest.mark.parametrize("what", ["done", "not_done", "not_accepted", "lost"])
def test_a_turn_that_ends_without_a_cause_is_found(fifo: Bench, what: str) -> None:
    """Nobody asked for it, and its time is not over."""
    fifo.hear(events=[event(what, "a")])
    assert "no turn ends without a cause" in fifo.complaints


def test_a_queue_that_stands_still_is_found(fifo: Bench) -> None:
    """Its first ticket should have been lost, or have got its turn."""
    accepted(fifo, "a")
    fifo.hear(now_ms=DONE_MS, events=[])
    assert "no queue stands still" in fifo.complaints


def test_an_answer_without_a_turn_is_found(fifo: Bench) -> None:
    """Told to a client, and never given."""
    fifo.hear(fresh=[TurnAccepted("gate", "a", 77)], events=[])
    assert fifo.complaints == ["turns"]


def test_a_machine_that_holds_something_else_is_found(fifo: Bench) -> None:
    """A ticket that the book never heard of, a fifo, an event about nothing."""
    fifo.hear(JoinFifo("gate", "d"), events=[])
    assert fifo.complaints == ["turns"]
    fifo.hear(FIFOS["stile"], events=[event("queued", "d")])
    fifo.book.check(fifo.machine)
    assert fifo.complaints == ["turns"] * 2
    fifo.hear(events=[event("left", "zz"), Event("unused", "fifo", "none")])
    assert fifo.complaints == ["turns"] * 4


@pytest.fixture
def room() -> Bench:
    """A room of two places a second, with three places given."""
    bench = Bench(RoomBook)
    bench.hear(SetRoom("r", 2, 1_000, 2), *[JoinRoom("r")] * 3)
    assert bench.complaints == []
    return bench


def test_a_good_room_is_praised(room: Bench) -> None:
    """Steps in time, places in order, changes."""
    room.hear(JoinRoom("r"), JoinRoom("r"), now_ms=1_000)
    room.hear(SetRoom("r", 1, 300, 1), now_ms=1_100)
    room.hear(now_ms=1_300)
    room.book.acknowledged(REQUEST, RoomJoined("r", 1, 3, "waiting", 0, 0, 0))
    room.book.check(room.machine)
    assert room.complaints == []


def test_a_window_that_moves_twice_is_found(room: Bench) -> None:
    """Two leaders, say: that expires people."""
    room.hear(JoinRoom("r"), JoinRoom("r"), now_ms=1_000)
    room.hear(now_ms=1_001, events=[Event("moved", "room", "r")])
    assert "one step per interval" in room.complaints


def test_a_window_that_does_not_move_is_found(room: Bench) -> None:
    """Somebody waits, and the interval is over."""
    room.hear(now_ms=1_000, events=[])
    assert "the window moves in time" in room.complaints


def test_a_place_given_twice_is_found(room: Bench) -> None:
    """Or out of order, or never given at all."""
    room.hear(fresh=[RoomJoined("r", 1, 3, "waiting", 0, 0, 0)])
    assert "places in order" in room.complaints
    room.complaints.clear()
    room.book.acknowledged(REQUEST, RoomJoined("r", 1, 9, "waiting", 0, 0, 0))
    assert room.complaints == ["places"]


def test_a_room_the_machine_does_not_have_is_found(room: Bench) -> None:
    """Lost with a snapshot, say."""
    other = Bench(RoomBook)
    room.book.check(other.machine)
    assert room.complaints == ["places"]
