"""Requests this node has taken and not yet answered.

RULE: plain bookkeeping. Knows what may have reached a log, so that every failure can say whether
it surely did not happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from cluster.errors import CoterieError
from cluster.machine.outcome import Outcome
from cluster.wire.frames import ForwardedRequest


class Answered(msgspec.Struct, frozen=True):
    """The cluster's answer; `index` is the log position it reflects. Barriers carry no outcome."""

    outcome: Outcome | None
    index: int


@dataclass(frozen=True, slots=True)
class Failed:
    """There is no answer; the error says whether it surely did not happen."""

    error: CoterieError


Reply = Answered | Failed
OnReply = Callable[[Reply], None]


class Waiting(msgspec.Struct, eq=False):
    """One request under way. Times are monotonic seconds.

    Attributes:
        deadline: until when it must be applied; for a parked one, until when it must be answered.
        parks_for: how long its answer may stay parked beyond that, seconds.
        sent: how often it was put into a leader's hands; 0: it surely did not happen.
        sent_at: when last.
        is_in_hand: the leader of now was given it, and has not answered.
        is_parked: applied and queued in the machine; never sent again.
        hung_up: nobody wants the answer any more.
        is_leaving: it was asked to leave its queue, as this node shuts down.
        is_patient: it waits for a leader until its deadline.
    """

    request: ForwardedRequest
    on_reply: OnReply
    taken_at: float
    deadline: float
    parks_for: float
    sent: int = 0
    sent_at: float = 0.0
    is_in_hand: bool = False
    is_parked: bool = False
    hung_up: bool = False
    is_leaving: bool = False
    is_patient: bool = False


class Pending:
    """Numbers requests and remembers them until they are answered."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[int, Waiting] = {}
        self._parked = 0
        self._in_hand_bytes = 0
        self._next_seq = 1
        self._ack = 1

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def parked(self) -> int:
        return self._parked

    @property
    def in_hand_bytes(self) -> int:
        """Bodies of all that the leader was given and has not answered."""
        return self._in_hand_bytes

    @property
    def is_full(self) -> bool:
        """Parked requests cost memory only, so they do not count against the limit."""
        return len(self._waiting) - self._parked >= self._limit

    def next_seq(self) -> int:
        seq, self._next_seq = self._next_seq, self._next_seq + 1
        return seq

    def add(self, waiting: Waiting) -> None:
        self._waiting[waiting.request.seq] = waiting

    def get(self, seq: int) -> Waiting | None:
        return self._waiting.get(seq)

    def settle(self, seq: int) -> Waiting | None:
        """Take a request out; None where it is settled already."""
        waiting = self._waiting.pop(seq, None)
        if waiting is not None:
            self._take_back(waiting)
            if waiting.is_parked:
                self._parked -= 1
        return waiting

    def hand_over(self, waiting: Waiting, now: float) -> None:
        """A leader is given it, perhaps again."""
        waiting.sent += 1
        waiting.sent_at = now
        if not waiting.is_in_hand:
            waiting.is_in_hand = True
            self._in_hand_bytes += len(waiting.request.body)

    def take_all_back(self) -> None:
        """The leader is another, or what was on its way to it may be lost."""
        for waiting in self._waiting.values():
            self._take_back(waiting)

    def _take_back(self, waiting: Waiting) -> None:
        if waiting.is_in_hand:
            waiting.is_in_hand = False
            self._in_hand_bytes -= len(waiting.request.body)

    def park(self, seq: int) -> Waiting | None:
        """The machine has queued the request: its answer comes with a later entry."""
        waiting = self._waiting.get(seq)
        if waiting is not None and not waiting.is_parked:
            self._take_back(waiting)
            waiting.is_parked = True
            waiting.deadline += waiting.parks_for
            self._parked += 1
        return waiting

    @property
    def ack(self) -> int:
        """Every number below is settled, or parked and never sent again.

        Parked ones are passed over: one long wait must not make the machine keep every later
        answer of this node.
        """
        ack, waiting = self._ack, self._waiting
        while ack < self._next_seq:
            present = waiting.get(ack)
            if present is not None and not present.is_parked:
                break
            ack += 1
        self._ack = ack
        return ack

    def unparked(self) -> Iterator[tuple[int, Waiting]]:
        """All that must reach a leader still, in order of their numbers."""
        return ((seq, w) for seq, w in list(self._waiting.items()) if not w.is_parked)

    def items(self) -> list[tuple[int, Waiting]]:
        return list(self._waiting.items())
