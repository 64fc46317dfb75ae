"""What a primitive is: the one face by which the machine knows locks, jobs and all the others.

RULE: a contract and values, no decisions. Primitives never import one another; they share a `Core`
and are asked, through this face, what concerns their own things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias

import msgspec

from cluster.machine.commands.base import Command, RequestId
from cluster.machine.outcome.base import Outcome, Refusal
from cluster.machine.parked import Parked, Place
from cluster.machine.restoring import Restoring
from cluster.machine.sessions import Owned, Session

Handler: TypeAlias = Callable[[Any, RequestId], "Outcome | Parked"]
"""Carries one command out. A Parked is what `Core.park` gave: the answer comes later."""

Weighed: TypeAlias = Iterator[tuple[int, list[Any]]]
"""Records for a snapshot, with their weights; see `weight_of`."""


class Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Base of what stands in a snapshot: integers, booleans, texts, bytes, None and lists."""


def weight_of(size: int) -> int:
    """Weight of a record that holds so many bytes beside its few short fields.

    A row of a snapshot takes records up to a weight, not up to a number: it stays short, whatever
    its records hold.
    """
    return 1 + size // 64


class Table(NamedTuple):
    """One kind of records in a snapshot.

    Attributes:
        kind: unique over all primitives.
        record: what one record must look like.
        dump: gives all of them, in an order that depends on the state alone.
        load: takes them into an empty primitive. ValueError, KeyError: they make no sense.
    """

    kind: str
    record: type[Record]
    dump: Callable[[], Weighed]
    load: Callable[[Iterable[Any], Restoring], None]


class Check(NamedTuple):
    """What an all-or-nothing batch must know of a command before it does anything.

    Attributes:
        thing: what the command touches; two commands of such a batch never touch the same. Empty
            for one that makes something new, which no other could touch.
        refusal: what the command would be refused with now, changing nothing; None promises that
            its handler will not refuse, as long as other commands of the batch touch other
            things. Limits are looked at with `Core.headroom` to spare.
    """

    thing: Callable[[Any], tuple[str, ...]]
    refusal: Callable[[Any], Refusal | None]


class Blocker(NamedTuple):
    """Somebody who stands between a session and what it wants.

    Attributes:
        session: None where nobody with a session does (an anonymous worker, say).
        token: of its grant; None for one who only waits.
        since_ms: cluster time since when it holds or waits.
        position: in the queue, from 1; None for a holder.
    """

    session: str | None
    token: int | None
    since_ms: int
    position: int | None


class Primitive(Protocol):
    """One kind of thing that the machine keeps.

    Attributes:
        kind: as in ("lock", "orders"): names its things and places everywhere.
        handlers: by type of command.
        timers: by kind of deadline (`deadlines.py`): what happens when one is due.
        tables: its lines in a snapshot.
        checks: by type of command, for those that may stand in an all-or-nothing batch.
    """

    kind: str
    handlers: Mapping[type[Command], Handler]
    timers: Mapping[int, Callable[[Any], None]]
    tables: tuple[Table, ...]
    checks: Mapping[type[Command], Check]

    def free(self, session: Session, thing: Owned, token: int) -> None:
        """The session is over: take away what it held. Its own record of it is gone already."""

    def leave(self, place: Place) -> None:
        """Take a place out of its queue, for whatever reason but a grant.

        Its session's record of it is gone already, and its waits are told by the caller.
        """

    def settle(self, name: str) -> None:
        """Grant what can be granted of this thing, as `Core.unsettle` asked for."""

    def position(self, place: Place) -> int:
        """Where a place stands in its queue, from 1; 0 where there is no order to tell."""

    def too_late(self, place: Place) -> Outcome:
        """What a wait is told that ran out; the place is still in its queue."""

    def places(self) -> Iterator[Place]:
        """Every place in its queues, in an order that depends on the state alone."""

    def blockers(self, name: str, session: str, place: Place | None) -> Iterator[Blocker]:
        """Who stands between a session and this thing: holders first, then waiters before it.

        Args:
            place: where the session waits for it; None for one who would only now ask.
        """
