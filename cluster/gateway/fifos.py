"""Fifos over HTTP: make, delete, take a ticket, wait for its turn, done, give up, get, list.

RULE: JSON or CBOR to command, state to picture; what a fifo does is decided in `machine/fifos/`.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Final, cast

import msgspec

from cluster.gateway.paging import named, page
from cluster.gateway.replies import Ms, Token
from cluster.gateway.replies.fifos import (
    FifoMade,
    TicketTaken,
    TurnDone,
    TurnGranted,
    TurnState,
    fifo_not_found,
    turn_not_found,
)
from cluster.gateway.requests import (
    AFTER,
    LIMIT,
    PREFIX,
    WAIT,
    Ask,
    Body,
    Duration,
    Name,
    Query,
    bad_request,
    check_name,
    length_ms,
    wait_ms,
)
from cluster.gateway.routes import Look, Read, Route, Write, read_query
from cluster.machine.commands import Command
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    FinishTurn,
    JoinFifo,
    LeaveFifo,
)
from cluster.machine.outcome.fifos import FifoInfo, TurnInfo

ID_BYTES: Final = 16
TIMEOUT_MS_MAX: Final = 366 * 86_400_000
WAIT_TIMEOUT: Final = "6h"
ACCEPT_TIMEOUT: Final = "1m"
DONE_TIMEOUT: Final = "20m"
UNUSED_DESTROY_TIMEOUT: Final = "30d"

FIFO_GONE = ("fifo_not_found",)
TICKET_GONE = ("fifo_not_found", "ticket_not_found")

Timeout = Annotated[
    Duration,
    msgspec.Meta(
        extra_json_schema={"minimum": 0, "maximum": TIMEOUT_MS_MAX, "examples": ["1m", 0]}
    ),
]


class Create(Body, frozen=True):
    """Make a fifo. Of its times, 0 means none.

    `wait_timeout`: longest that one wait lasts. `accept_timeout`: a turn that nobody accepts for so
    long goes to the next. `done_timeout`: so does one that is accepted and not done.
    `unused_destroy_timeout`: a fifo without tickets that nobody uses for so long is destroyed.
    """

    name: Name | None = None
    wait_timeout: Timeout = WAIT_TIMEOUT
    accept_timeout: Timeout = ACCEPT_TIMEOUT
    done_timeout: Timeout = DONE_TIMEOUT
    unused_destroy_timeout: Timeout = UNUSED_DESTROY_TIMEOUT
    allow_overrides: bool = False


class Take(Body, frozen=True):
    """Take a ticket; times of its own need a fifo that allows overrides."""

    wait_timeout: Timeout | None = None
    accept_timeout: Timeout | None = None
    done_timeout: Timeout | None = None


class Wait(Body, frozen=True):
    """Wait for the ticket's turn at most `wait`; without one, ask whether it has come."""

    wait: Duration | None = None


class Done(Body, frozen=True):
    """The turn is over. With a `token`, only if it is still that of the turn."""

    token: Token | None = None


class HoldTimes(msgspec.Struct, frozen=True):
    """How long turns last, from acceptance to end; null while there was none.

    `mean_ms` weighs the later ones more; nine of ten of the last ones were within `p90_ms`.
    """

    count: int
    mean_ms: Ms | None
    p90_ms: Ms | None


class TicketView(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ticket. `token` is there once its turn is accepted.

    `ends_in_ms`: when its turn is lost unless it is accepted, or over unless it is done; null where
    no timeout runs. `waiters`: requests that wait on it now.
    """

    fifo: str
    ticket: str
    state: TurnState
    position: int
    ahead: int
    eta_ms: Ms | None
    eta_samples: int
    waiters: int
    age_ms: Ms
    in_state_for_ms: Ms
    ends_in_ms: Ms | None
    token: Token | None = None


class FifoSummary(msgspec.Struct, frozen=True):
    """One fifo without its tickets. `destroyed_in_ms` is null while something keeps it."""

    fifo: str
    wait_timeout_ms: Ms
    accept_timeout_ms: Ms
    done_timeout_ms: Ms
    unused_destroy_timeout_ms: Ms
    allow_overrides: bool
    length: int
    hold_times: HoldTimes
    destroyed_in_ms: Ms | None


class FifoView(FifoSummary, frozen=True, omit_defaults=True):
    """One fifo with a page of its queue, in order; `next` goes into `after`."""

    tickets: list[TicketView] = []
    next: str | None = None


class FifoPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fifos in order of name; `next` goes into `after`."""

    fifos: list[FifoSummary]
    next: str | None = None


def create(ask: Ask) -> CreateFifo:
    """Make the command that makes a fifo, still without a name if the client gave none."""
    body: Create = ask.body
    return CreateFifo(
        name="" if body.name is None else check_name(body.name, "name"),
        wait_timeout_ms=_timeout(body.wait_timeout, "wait_timeout"),
        accept_timeout_ms=_timeout(body.accept_timeout, "accept_timeout"),
        done_timeout_ms=_timeout(body.done_timeout, "done_timeout"),
        unused_destroy_ms=_timeout(body.unused_destroy_timeout, "unused_destroy_timeout"),
        allow_overrides=body.allow_overrides,
    )


def with_name(command: Command) -> Command:
    """Draw a name for a fifo that has none."""
    if cast(CreateFifo, command).name:
        return command
    return msgspec.structs.replace(command, name=secrets.token_hex(ID_BYTES))


def delete(ask: Ask) -> DestroyFifo:
    """Make the command that takes a fifo away."""
    return DestroyFifo(name=_name(ask), force=ask.query["force"])


def take(ask: Ask) -> JoinFifo:
    """Make the command that takes a ticket, still without its id."""
    body: Take = ask.body
    return JoinFifo(
        name=_name(ask),
        ticket="",
        wait_timeout_ms=_override(body.wait_timeout, "wait_timeout"),
        accept_timeout_ms=_override(body.accept_timeout, "accept_timeout"),
        done_timeout_ms=_override(body.done_timeout, "done_timeout"),
    )


def with_ticket(command: Command) -> Command:
    """Draw the ticket's id, which is all that its owner needs: long enough not to be guessed."""
    return msgspec.structs.replace(command, ticket=secrets.token_hex(ID_BYTES))


def wait(ask: Ask) -> AwaitTurn:
    """Make the command that waits for a turn."""
    return AwaitTurn(name=_name(ask), ticket=_ticket(ask), wait_ms=wait_ms(ask))


def done(ask: Ask) -> FinishTurn:
    """Make the command that ends a turn."""
    return FinishTurn(name=_name(ask), ticket=_ticket(ask), token=ask.body.token)


def give_up(ask: Ask) -> LeaveFifo:
    """Make the command that gives a ticket up."""
    return LeaveFifo(name=_name(ask), ticket=_ticket(ask))


def show_ticket(look: Look, ask: Ask) -> TicketView:
    """Show one ticket."""
    name, ticket = _name(ask), _ticket(ask)
    turn = look.machine.fifos.turn(name, ticket, look.now_ms)
    if turn is not None:
        return _ticket_view(turn)
    if look.machine.fifos.info(name, look.now_ms) is None:
        raise fifo_not_found(name)
    raise turn_not_found(name, ticket)


def show(look: Look, ask: Ask) -> FifoView:
    """Show one fifo and a page of its queue."""
    name, fifos = _name(ask), look.machine.fifos
    after = ask.query["after"]
    if after is not None and not (after.isascii() and after.isdigit() and len(after) < 20):
        raise bad_request("after", "is no place in a fifo; take `next` of the page before")
    info = fifos.info(name, look.now_ms)
    if info is None:
        raise fifo_not_found(name)
    found, following = page(
        lambda after, limit: fifos.turns(
            name, look.now_ms, after=0 if after is None else int(after), limit=limit
        ),
        after=after,
        limit=ask.query["limit"],
        key=lambda turn: str(turn.number),
        weight=lambda _turn: 1,
    )
    return FifoView(
        **msgspec.structs.asdict(_summary(info)),
        tickets=[_ticket_view(turn) for turn in found],
        next=following,
    )


def show_all(look: Look, ask: Ask) -> FifoPage:
    """Show a page of fifos."""
    found, following = named(look.machine.fifos, look.now_ms, ask.query, key=lambda info: info.name)
    return FifoPage([_summary(info) for info in found], following)


def _summary(info: FifoInfo) -> FifoSummary:
    return FifoSummary(
        fifo=info.name,
        wait_timeout_ms=info.wait_timeout_ms,
        accept_timeout_ms=info.accept_timeout_ms,
        done_timeout_ms=info.done_timeout_ms,
        unused_destroy_timeout_ms=info.unused_destroy_ms,
        allow_overrides=info.allow_overrides,
        length=info.length,
        hold_times=HoldTimes(info.holds.count, info.holds.mean_ms, info.holds.p90_ms),
        destroyed_in_ms=info.destroyed_in_ms,
    )


def _ticket_view(turn: TurnInfo) -> TicketView:
    return TicketView(
        fifo=turn.name,
        ticket=turn.ticket,
        state=cast(TurnState, turn.state),
        position=turn.position,
        ahead=turn.position - 1,
        eta_ms=turn.eta_ms,
        eta_samples=turn.eta_samples,
        waiters=turn.waiters,
        age_ms=turn.age_ms,
        in_state_for_ms=turn.since_ms,
        ends_in_ms=turn.ends_in_ms,
        token=turn.token,
    )


def _name(ask: Ask) -> str:
    return check_name(ask.path["fifo"], "fifo")


def _ticket(ask: Ask) -> str:
    return check_name(ask.path["ticket"], "ticket")


def _timeout(value: int | str, field: str) -> int:
    return length_ms(value, field, 0, TIMEOUT_MS_MAX)


def _override(value: int | str | None, field: str) -> int | None:
    return None if value is None else _timeout(value, field)


def _parse_force(text: str) -> bool:
    if text in ("true", "false"):
        return text == "true"
    raise ValueError(f'"{text[:40]}" is unknown; use true or false')


_FORCE: Final = Query(
    "force",
    _parse_force,
    False,
    {"type": "boolean", "default": False},
    "true: even while tickets are in it",
)


ROUTES: tuple[Route, ...] = (
    Write(
        method="POST",
        path="/v1/fifos",
        summary="Make a fifo; 200 where there is one of this name with equal settings.",
        tag="fifos",
        body=Create,
        answer=FifoMade,
        status=201,
        also=(200,),
        codes=("fifo_exists", "queue_full"),
        command=create,
        seal=with_name,
    ),
    Write(
        method="DELETE",
        path="/v1/fifos/{fifo}",
        summary="Take a fifo away.",
        tag="fifos",
        status=204,
        codes=(*FIFO_GONE, "fifo_in_use"),
        query=(_FORCE,),
        command=delete,
    ),
    Write(
        method="POST",
        path="/v1/fifos/{fifo}/tickets",
        summary="Take a ticket, which stands at the end of the queue.",
        tag="fifos",
        body=Take,
        answer=TicketTaken,
        status=201,
        codes=(*FIFO_GONE, "overrides_not_allowed", "queue_full"),
        command=take,
        seal=with_ticket,
    ),
    Write(
        method="POST",
        path="/v1/fifos/{fifo}/tickets/{ticket}/wait",
        summary="Accept the ticket's turn, waiting for it at most `wait`; again, the same turn.",
        tag="fifos",
        body=Wait,
        answer=TurnGranted,
        codes=(*TICKET_GONE, "not_your_turn", "queue_full"),
        query=(WAIT,),
        command=wait,
    ),
    Write(
        method="POST",
        path="/v1/fifos/{fifo}/tickets/{ticket}/done",
        summary="End the accepted turn; the next ticket's comes in the same step.",
        tag="fifos",
        body=Done,
        answer=TurnDone,
        codes=(*TICKET_GONE, "not_accepted", "stale_token"),
        command=done,
    ),
    Write(
        method="DELETE",
        path="/v1/fifos/{fifo}/tickets/{ticket}",
        summary="Give a ticket up, whatever its state.",
        tag="fifos",
        status=204,
        codes=TICKET_GONE,
        command=give_up,
    ),
    Read(
        method="GET",
        path="/v1/fifos/{fifo}/tickets/{ticket}",
        summary="Show a ticket: its state, its position, when its turn may come.",
        tag="fifos",
        answer=TicketView,
        codes=TICKET_GONE,
        query=read_query(),
        view=show_ticket,
    ),
    Read(
        method="GET",
        path="/v1/fifos/{fifo}",
        summary="Show a fifo: its settings, its hold times, its queue in order.",
        tag="fifos",
        answer=FifoView,
        codes=FIFO_GONE,
        query=read_query(AFTER, LIMIT),
        view=show,
    ),
    Read(
        method="GET",
        path="/v1/fifos",
        summary="List the fifos, in order of name.",
        tag="fifos",
        answer=FifoPage,
        query=read_query(PREFIX, AFTER, LIMIT),
        view=show_all,
    ),
)
