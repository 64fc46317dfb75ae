"""K5: turns come in the order in which one came; nobody overtakes; a position never grows.

RULE: A is before B only where that is sure: A was answered, or seen waiting, before B asked.

| f | key | invoke | ok |
|---|---|---|---|
| `fifo.make` | fifo | `wait_timeout_ms`, `accept_timeout_ms`, `done_timeout_ms` | – |
| `fifo.join` | fifo | – | `ticket`, `position`, `state` |
| `fifo.read` | fifo | `ticket` | `ticket`, `state`, `position`, `token`; gone: `code` |
| `fifo.wait` | fifo | `ticket`, `wait_ms` | `ticket`, `state`, `token`; refused: `code` (`not_your_turn`), `position` |
| `fifo.done` | fifo | `ticket`, `token` | – |
| `fifo.leave` | fifo | `ticket` | – |

`Turns()` judges fifos. `Waiters()` judges the queues of locks and semaphores: whoever was seen in
`waiters` of a `lock.read` or `semaphore.read` before another asked (at the same or a later priority)
is granted first, if that one request is granted at all. A request that was repeated (`attempts`, or
answered by another node than it was first sent to) may have lost its place and is not judged.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

from jepsen.checkers.reading import (
    Call,
    Complaints,
    Hold,
    Rates,
    calls,
    is_stale,
    overlaps,
    tell,
)
from jepsen.history import Line
from jepsen.verdicts import Verdict


class Turns:
    """K5: turns of fifos, in order and one at a time."""

    name = "K5 turns in order"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        complaints = Complaints(self.name)
        fifos = sorted({call.key for call in made if call.f.startswith("fifo.")})
        turns = 0
        for fifo in fifos:
            some = [call for call in made if call.key == fifo and call.f.startswith("fifo.")]
            waits = [call for call in some if call.f == "fifo.wait" and call.is_ok]
            turns += len({call.answer.get("token") for call in waits})
            _in_order(fifo, some, waits, complaints)
            _positions(fifo, some, complaints)
            for one, other in overlaps(_turn_holds(fifo, some, rates)):
                complaints.add(
                    f"tickets {one.session} and {other.session} of {fifo!r} have their turn at "
                    f"the same time",
                    one.call,
                    other.call,
                )
        return complaints.verdict(
            f"{tell(turns, 'turn')} of {tell(len(fifos), 'fifo')}", str(rates), seen=turns
        )


def _in_order(
    fifo: str, some: Sequence[Call], waits: Sequence[Call], complaints: Complaints
) -> None:
    """Who came before, for sure, has the smaller token."""
    joins = {str(c.answer["ticket"]): c for c in some if c.f == "fifo.join" and c.is_ok}
    turns = [
        (joins[str(wait.value["ticket"])], wait)
        for wait in waits
        if str(wait.value["ticket"]) in joins
    ]
    by_end = sorted(turns, key=lambda turn: turn[0].end_ns)
    at = 0
    newest: tuple[Call, Call] | None = None
    for join, wait in sorted(turns, key=lambda turn: turn[0].start_ns):
        while at < len(by_end) and by_end[at][0].end_ns < join.start_ns:
            if newest is None or by_end[at][1].answer["token"] > newest[1].answer["token"]:
                newest = by_end[at]
            at += 1
        if newest is not None and wait.answer["token"] < newest[1].answer["token"]:
            complaints.add(
                f"in {fifo!r} ticket {wait.value['ticket']} came after "
                f"{newest[1].value['ticket']} and had its turn before it",
                newest[0],
                newest[1],
                join,
                wait,
            )


def _positions(fifo: str, some: Sequence[Call], complaints: Complaints) -> None:
    """A ticket only ever moves forward."""
    seen: dict[str, list[Call]] = {}
    for call in some:
        ticket = call.answer.get("ticket") or call.value.get("ticket")
        position = call.answer.get("position")
        if ticket and position is not None and (call.is_ok or call.code == "not_your_turn"):
            seen.setdefault(str(ticket), []).append(call)
    for ticket, looks in seen.items():
        by_end = sorted(looks, key=lambda call: call.end_ns)
        at = 0
        least: Call | None = None
        for call in looks:
            while at < len(by_end) and by_end[at].end_ns < call.start_ns:
                if least is None or by_end[at].answer["position"] < least.answer["position"]:
                    least = by_end[at]
                at += 1
            if least is not None and call.answer["position"] > least.answer["position"]:
                complaints.add(
                    f"ticket {ticket} of {fifo!r} went back from {least.answer['position']} to "
                    f"{call.answer['position']}",
                    least,
                    call,
                )


def _turn_holds(fifo: str, some: Sequence[Call], rates: Rates) -> Iterator[Hold]:
    """A turn, from when its ticket was told until it may be over; the ticket is the holder."""
    done_ms = [
        int(call.value["done_timeout_ms"])
        for call in some
        if call.f == "fifo.make" and "done_timeout_ms" in call.value
    ]
    # Without a time of its own a turn may be as short as it likes.
    most_ns = rates.surely_ns(min(done_ms)) if done_ms else 0
    by_ticket: dict[str, list[Call]] = {}
    for call in some:
        if "ticket" in call.value:
            by_ticket.setdefault(str(call.value["ticket"]), []).append(call)
    for ticket, about in by_ticket.items():
        ends = [c.start_ns for c in about if c.f in {"fifo.done", "fifo.leave"}]
        waits = [c for c in about if c.f == "fifo.wait" and c.may_have_happened]
        for call in waits:
            if call.is_ok:
                # It may have been accepted by an earlier one that never heard of it.
                since_ns = min(wait.start_ns for wait in waits)
                until_ns = min([since_ns + most_ns, *ends])
                token = int(call.answer["token"])
                yield Hold(("fifo", fifo), ticket, token, call, call.end_ns, until_ns)


class Waiters:
    """K5: who was seen waiting for a lock or semaphore is served before who came later."""

    name = "K5 nobody overtakes"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        complaints = Complaints(self.name)
        asked: dict[tuple[str, str], list[Call]] = {}
        for call in made:
            for name in _asks(call):
                asked.setdefault((call.f.partition(".")[0], name), []).append(call)
        queues = {thing: _Queue(thing[1], about) for thing, about in asked.items()}
        behind = seen = 0
        for read in made:
            room = read.f.partition(".")[0]
            if read.f not in {"lock.read", "semaphore.read"} or not read.is_ok or is_stale(read):
                continue
            queue = queues.get((room, read.key))
            for waiter in read.answer.get("waiters") or ():
                seen += 1
                first = None if queue is None else queue.request(str(waiter.get("session")), read)
                if queue is None or first is None:
                    continue
                later = queue.after(read.end_ns)
                behind += len(later)
                one = _token(first, read.key)
                # Nearly always all who came later have later tokens: then nobody is looked at.
                if one is None or not later or queue.least_token(later) > one:
                    continue
                for other in (queue.calls[at] for at in later):
                    two = _token(other, read.key)
                    if two is not None and two < one and queue.is_behind(first, other):
                        complaints.add(
                            f"{other.session} came to {read.key!r} when {first.session} was "
                            f"waiting, and was served first: {two} before {one}",
                            first,
                            read,
                            other,
                        )
        return complaints.verdict(
            f"{tell(seen, 'waiter')} seen in queues, {tell(behind, 'request')} behind them"
        )


class _Queue:
    """All who asked for one thing, in the order in which they began to."""

    def __init__(self, name: str, about: Sequence[Call]) -> None:
        self.calls = sorted(about, key=lambda call: call.start_ns)
        self._starts = [call.start_ns for call in self.calls]
        self._of_session: dict[str, list[Call]] = {}
        for call in self.calls:
            self._of_session.setdefault(call.session, []).append(call)
        # Of each and all after it.
        self._least: list[float] = [math.inf] * (len(self.calls) + 1)
        for at in range(len(self.calls) - 1, -1, -1):
            token = _token(self.calls[at], name) if self.calls[at].is_ok else None
            self._least[at] = (
                self._least[at + 1] if token is None else min(token, self._least[at + 1])
            )

    def after(self, time_ns: int) -> range:
        """Places of those who asked later than that."""
        return range(bisect_right(self._starts, time_ns), len(self.calls))

    def least_token(self, places: range) -> float:
        """The smallest token among those at the end of the line."""
        return self._least[places.start]

    def request(self, session: str, read: Call) -> Call | None:
        """The one request by which the session was seen waiting; None where that is not sure."""
        mine = [c for c in self._of_session.get(session, ()) if c.start_ns < read.end_ns]
        under_way = [c for c in mine if c.end_ns > read.start_ns]
        if len(under_way) != 1 or any(call.is_open for call in mine):
            return None
        first = under_way[0]
        return None if first.is_repeated or not first.is_ok else first

    def is_behind(self, first: Call, later: Call) -> bool:
        """It came later, at no better a priority, and got a grant of its own."""
        if later.session == first.session or not later.is_ok:
            return False
        if int(later.value.get("priority") or 0) < int(first.value.get("priority") or 0):
            return False
        # Who has it already, or may have, is told its old token.
        return later.f == "semaphore.acquire" or not any(
            call.may_have_happened
            and call.start_ns < later.start_ns
            and _is_same_grant(call, later)
            for call in self._of_session[later.session]
        )


def _asks(call: Call) -> Iterable[str]:
    if call.f in {"lock.acquire", "semaphore.acquire"}:
        return (call.key,)
    if call.f == "lock.acquire_many":
        return [str(lock["name"]) for lock in call.value.get("locks", ())]
    return ()


def _is_same_grant(call: Call, later: Call) -> bool:
    return call.is_open or call.answer.get("token") == later.answer.get("token")


def _token(call: Call, name: str) -> int | None:
    if call.f == "lock.acquire_many":
        for lock in call.answer.get("locks", ()):
            if lock["name"] == name:
                return int(lock["token"])
        return None
    token = call.answer.get("token")
    return None if token is None else int(token)
