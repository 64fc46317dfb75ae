"""Commands of fifos.

RULE: values only; see `base.py`. Numbers 50 to 69.
"""

from __future__ import annotations

from typing import ClassVar

from cluster.machine.commands.base import Command, Count, LengthMs, Name


class CreateFifo(Command, frozen=True, tag=50):
    """Make a fifo; one of this name with equal settings will do as well. Of times, 0 means none.

    Attributes:
        wait_timeout_ms: longest that one wait for a turn lasts; the ticket keeps its place.
        accept_timeout_ms: a ticket whose turn nobody accepts for so long loses it.
        done_timeout_ms: a turn that is not done so long after it was accepted is over.
        unused_destroy_ms: a fifo without tickets that nobody uses for so long is destroyed.
        allow_overrides: whether tickets may bring times of their own.
        drops_tickets: whether tickets that nobody waits on do not keep a fifo that nobody uses,
            but go with it. Of a fifo that is there already it changes nothing.
    """

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name
    wait_timeout_ms: LengthMs
    accept_timeout_ms: LengthMs
    done_timeout_ms: LengthMs
    unused_destroy_ms: LengthMs
    allow_overrides: bool = False
    drops_tickets: bool = False


class DestroyFifo(Command, frozen=True, tag=51):
    """Destroy a fifo; `force`: even while tickets are in it, which go with it."""

    texts: ClassVar[tuple[str, ...]] = ("name",)

    name: Name
    force: bool = False


class JoinFifo(Command, frozen=True, tag=52):
    """Take a ticket, which stands at the end of the queue.

    Attributes:
        ticket: its id, drawn by whoever asks; who knows it may use the ticket.
        wait_timeout_ms, accept_timeout_ms, done_timeout_ms: instead of the fifo's own.
        lenient: times that the fifo does not allow are left out instead of refused.
    """

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    name: Name
    ticket: Name
    wait_timeout_ms: LengthMs | None = None
    accept_timeout_ms: LengthMs | None = None
    done_timeout_ms: LengthMs | None = None
    lenient: bool = False


class AwaitTurn(Command, frozen=True, tag=53):
    """Accept the ticket's turn, once it comes: with `wait_ms` > 0 wait for it at most that long."""

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    name: Name
    ticket: Name
    wait_ms: LengthMs = 0


class FinishTurn(Command, frozen=True, tag=54):
    """The accepted turn is done. Conditional on its token where one is given."""

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    name: Name
    ticket: Name
    token: Count | None = None


class LeaveFifo(Command, frozen=True, tag=55):
    """Give the ticket up, whatever its state."""

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    name: Name
    ticket: Name


class UnhearTurn(Command, frozen=True, tag=56):
    """The client that was told of this acceptance was gone: it counts as one that heard no more.

    An acceptance that nobody heard of is taken back: the ticket's turn is to be accepted again.
    """

    texts: ClassVar[tuple[str, ...]] = ("name", "ticket")

    name: Name
    ticket: Name
    token: Count


COMMANDS: tuple[type[Command], ...] = (
    CreateFifo,
    DestroyFifo,
    JoinFifo,
    AwaitTurn,
    FinishTurn,
    LeaveFifo,
    UnhearTurn,
)
