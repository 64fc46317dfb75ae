"""Reads that wait until the local state holds all that was acknowledged before they came.

RULE: plain bookkeeping, given the time; whom to ask is the node's to decide. A read is new, then
asked of the leader, then confirmed for a position, then ready: once that position is applied.
Source: Ongaro's thesis (2014) 6.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import CoterieError, ShuttingDown, Timeout
from cluster.node.pending import Answered, Failed, OnReply

ASKED_AGAIN_AFTER_S = 0.3


@dataclass(slots=True)
class Read:
    """One read under way. `index` is what it waits for, None until that is known."""

    on_ready: OnReply
    deadline: float
    index: int | None = None


class Reads:
    """All reads of one node."""

    def __init__(self) -> None:
        self._new: list[Read] = []
        # By the number of the question: when it was asked, and who waits for its answer.
        self._asked: dict[int, tuple[float, list[Read]]] = {}
        self._confirmed: list[Read] = []

    @property
    def has_new(self) -> bool:
        """Somebody has to be asked."""
        return bool(self._new)

    @property
    def has_confirmed(self) -> bool:
        """Some wait for nothing but a position."""
        return bool(self._confirmed)

    def add(self, on_ready: OnReply, deadline: float) -> None:
        """Take a read; `on_ready` is called once."""
        self._new.append(Read(on_ready, deadline))

    def take_new(self) -> list[Read]:
        """All that nobody was asked about; to be given to `ask` or `confirm`."""
        reads, self._new = self._new, []
        return reads

    def ask(self, question: int, reads: list[Read], now: float) -> None:
        """They wait for the answer to a question that leaves now."""
        self._asked[question] = now, reads

    def answer(self, question: int, index: int) -> None:
        """The leader's answer has come; harmless where nobody waits for it (any more)."""
        asked = self._asked.pop(question, None)
        if asked is not None:
            self.confirm(asked[1], index)

    def confirm(self, reads: list[Read], index: int | None) -> None:
        """They may be served at `index`; with None somebody must be asked anew."""
        if index is None:
            self._new.extend(reads)
            return
        for read in reads:
            read.index = index
        self._confirmed.extend(reads)

    def serve(self, applied: int) -> None:
        """Tell all whose position is applied."""
        ready = [r for r in self._confirmed if r.index is not None and r.index <= applied]
        if ready:
            self._confirmed = [r for r in self._confirmed if r.index is None or r.index > applied]
            for read in ready:
                read.on_ready(Answered(None, applied))

    def ask_again(self, asked_by: float = float("inf")) -> None:
        """Make new again what was asked until then and has no answer."""
        for question, (at, reads) in list(self._asked.items()):
            if at <= asked_by:
                self._new.extend(reads)
                del self._asked[question]

    def sweep(self, now: float, error: CoterieError | None) -> None:
        """Ask lost questions again, and give up what is late.

        Args:
            error: why none can be served; None where some may.
        """
        # Each by its own age: where reads keep coming, the last question is always a young one.
        self.ask_again(now - ASKED_AGAIN_AFTER_S)

        def keep(read: Read) -> bool:
            if now >= read.deadline:
                read.on_ready(Failed(Timeout("no answer in time", definite=True)))
            elif error is not None:
                read.on_ready(Failed(error))
            else:
                return True
            return False

        self._new = [read for read in self._new if keep(read)]
        self._confirmed = [read for read in self._confirmed if keep(read)]
        for question, (at, reads) in list(self._asked.items()):
            kept = [read for read in reads if keep(read)]
            if kept:
                self._asked[question] = at, kept
            else:
                del self._asked[question]

    def close(self) -> None:
        """Tell everybody that the node goes."""
        reads = [*self._new, *self._confirmed]
        for _, asked in self._asked.values():
            reads.extend(asked)
        for read in reads:
            read.on_ready(Failed(ShuttingDown("this node stopped before the read")))
        self._new, self._confirmed, self._asked = [], [], {}
