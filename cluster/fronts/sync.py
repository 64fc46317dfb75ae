"""katexochen/sync: FIFOs as a service, for its clients.

RULE: foreign words in, our commands out; what a fifo does is decided in `machine/fifos/`.
Source: its Go server at 9567164; net/http's ServeMux; google/uuid 1.6.0.

A fifo here is a native fifo whose name is its UUID in canonical spelling, a ticket a native ticket
whose id is one. So everything made here is seen, waited for and ended by the native API too, while
native things of other names cannot be spelled here.

A wait goes to the log at once, without asking whether its ticket is there, and a `done` lets those
go first that came before it and still stand in the kernel's queues, or had connected and are about to
ask: requests of one node are applied in the order they went, so whoever waits when somebody is done
is released and never told "not found".

What is freed of its original: timers always run; a client that went away accepts nothing, and what
was made for one that never heard of it is taken back (Go's client repeats a GET whose connection
died); a fifo is not destroyed under those who wait; 0 means none and `d` is a day, as its README has
it (`front_sync_strict`: as its code has it).
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Coroutine, Mapping
from typing import Final

from cluster.errors import CoterieError, ShuttingDown
from cluster.fronts.front import ServedFront, Surroundings
from cluster.fronts.gohttp import durations, queries
from cluster.fronts.gohttp.exchange import Answer, Request, document, error
from cluster.fronts.gohttp.servemux import ServeMux
from cluster.fronts.gohttp.server import GoServer
from cluster.machine import limits
from cluster.machine.commands import Command
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    JoinFifo,
    LeaveFifo,
)
from cluster.machine.outcome import Outcome
from cluster.machine.outcome.fifos import (
    NOTIFIED,
    FifoCreated,
    FifoJoined,
    FifoLeft,
    FifoNotFound,
    NotYourTurn,
    TurnAccepted,
    TurnDropped,
    TurnInfo,
    TurnNotFound,
)
from cluster.node.config import Config

# The code's; its README has 10 minutes for the third.
WAIT_TIMEOUT_MS: Final = 6 * 3_600_000
ACCEPT_TIMEOUT_MS: Final = 60_000
DONE_TIMEOUT_MS: Final = 20 * 60_000
UNUSED_DESTROY_TIMEOUT_MS: Final = 720 * 3_600_000

AT_ONCE_MS: Final = 1
"""The shortest length there is, as 0 means none to the machine."""
ROUNDS: Final = 8
"""Of the loop: within so many, who has connected and asked has reached his handler."""
ROUNDS_MAX: Final = 400
NEWCOMERS_S: Final = 0.2
"""Between a connection and its first request, where a hundred clients share a busy processor."""
COLLECTED_EVERY_MS: Final = 5 * 60_000
"""How often the original looks for unused fifos: one that is unused at once goes that late."""

_TIMEOUTS: Final = {
    "wait_timeout": "invalid wait timeout",
    "accept_timeout": "invalid accept timeout",
    "done_timeout": "invalid done timeout",
    "unused_destroy_timeout": "invalid unused destroy timeout",
}
_OVERRIDES: Final = tuple(_TIMEOUTS)[:3]

_CANONICAL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HYPHENATED = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BARE = re.compile(rb"[0-9a-fA-F]{32}")

_NO_FIFO = error("fifo not found", 404)
_NO_TICKET = error("ticket not found", 404)
_BAD_TICKET = error("invalid ticket uuid", 400)
_OTHER_FIFO = error("ticket does not belong to fifo", 400)


def make(config: Config, surroundings: Surroundings) -> SyncFront:
    """Make the front of a node's settings."""
    return SyncFront(surroundings, is_strict=config.front_sync_strict)


class SyncFront(ServedFront):
    """Serves its clients on every node.

    Args:
        is_strict: durations as the original's code has them, against its README.
        newcomers_s: how long a `done` lets those ask first who have connected just before it.
    """

    def __init__(
        self,
        surroundings: Surroundings,
        *,
        is_strict: bool = False,
        newcomers_s: float = NEWCOMERS_S,
    ):
        self._node = surroundings.node
        self._desk = surroundings.desk
        self._draw = surroundings.draw
        self._is_strict = is_strict
        self._newcomers_s = newcomers_s
        self._waits = 0  # that ever began
        self._left_over: set[asyncio.Task[None]] = set()
        mux = ServeMux(
            {
                "/fifo/new": self._new,
                "/fifo/{uuid}/ticket": self._ticket,
                "/fifo/{uuid}/wait/{ticket}": self._wait,
                "/fifo/{uuid}/done/{ticket}": self._done,
            }
        )
        self._http = GoServer("sync", mux.serve, waits=lambda target: "/wait/" in target)
        self._server = self._http

    async def stop(self, grace_s: float) -> None:
        """End; what was begun for clients that are gone has the same time."""
        await super().stop(grace_s)
        if self._left_over:
            await asyncio.wait(tuple(self._left_over), timeout=grace_s)
        for task in tuple(self._left_over):
            task.cancel()
        if self._left_over:
            await asyncio.wait(tuple(self._left_over))

    # Handlers.

    async def _new(self, request: Request, _: Mapping[str, str]) -> Answer:
        form = await request.form()
        times: dict[str, int | None] = {}
        for name, complaint in _TIMEOUTS.items():
            try:
                times[name] = self._length_ms(queries.first(form, name))
            except durations.BadDuration:
                return error(complaint, 400)
        unused_ms = _or(times["unused_destroy_timeout"], UNUSED_DESTROY_TIMEOUT_MS)
        fifo = self._drawn()
        command = CreateFifo(
            fifo,
            _or(times["wait_timeout"], WAIT_TIMEOUT_MS),
            _or(times["accept_timeout"], ACCEPT_TIMEOUT_MS),
            _or(times["done_timeout"], DONE_TIMEOUT_MS),
            COLLECTED_EVERY_MS if unused_ms == AT_ONCE_MS else unused_ms,
            allow_overrides=queries.first(form, "allow_overrides") == "true",
            drops_tickets=True,
        )
        try:
            outcome = await self._asked(command, otherwise=DestroyFifo(fifo, force=True))
        except CoterieError as failed:
            return _failed(failed, "db create failed")
        if isinstance(outcome, FifoCreated):
            return document({"uuid": fifo})
        return error("db create failed", 500)

    async def _ticket(self, request: Request, found: Mapping[str, str]) -> Answer:
        fifo = parse_uuid(found["uuid"])
        if fifo is None:
            return error("invalid uuid", 400)
        form = await request.form()
        times: dict[str, int | None] = {}
        complaint = None
        for name in _OVERRIDES:
            try:
                times[name] = self._length_ms(queries.first(form, name))
            except durations.BadDuration:
                complaint = _TIMEOUTS[name]
                break
        try:
            if complaint is not None:
                machine = await self._desk.read()
                info = machine.fifos.info(fifo, machine.now_ms)
                if info is None:
                    return _NO_FIFO
                if info.allow_overrides:
                    return error(complaint, 400)
                times = {}
            ticket = self._drawn()
            command = JoinFifo(
                fifo,
                ticket,
                times.get("wait_timeout"),
                times.get("accept_timeout"),
                times.get("done_timeout"),
                lenient=True,
            )
            outcome = await self._asked(command, otherwise=LeaveFifo(fifo, ticket))
        except CoterieError as failed:
            return _failed(failed, "db query failed")
        if isinstance(outcome, FifoJoined):
            return document({"ticket": ticket})
        return _NO_FIFO if isinstance(outcome, FifoNotFound) else error("db create failed", 500)

    async def _wait(self, _: Request, found: Mapping[str, str]) -> Answer:
        ticket, fifo = parse_uuid(found["ticket"]), found["uuid"]
        if ticket is None:
            return _BAD_TICKET
        try:
            if not _CANONICAL.fullmatch(fifo):
                return await self._misspelt(ticket)
            came_ms = self._node.now_ms()
            turn = self._desk.machine.fifos.turn(fifo, ticket, came_ms)
            self._waits += 1
            outcome = await self._desk.ask(AwaitTurn(fifo, ticket, limits.LENGTH_MS_MAX))
        except CoterieError as failed:
            return _failed(failed, "updating ticket queue failed")
        if isinstance(outcome, TurnAccepted | TurnDropped):
            # Dropped: somebody was done with it, which releases everybody who waits on it.
            return Answer()
        if isinstance(outcome, NotYourTurn):
            return error("wait timeout reached", 408)
        if not isinstance(outcome, TurnNotFound | FifoNotFound):
            return error("updating ticket queue failed", 500)
        why = _ran_out(turn, self._node.now_ms() - came_ms)
        return self._gone(ticket) if why is None else error(f"ticket {ticket} {why}", 410)

    async def _done(self, _: Request, found: Mapping[str, str]) -> Answer:
        ticket, fifo = parse_uuid(found["ticket"]), found["uuid"]
        if ticket is None:
            return _BAD_TICKET
        try:
            if not _CANONICAL.fullmatch(fifo):
                return await self._misspelt(ticket)
            # Whoever says so may leave at once.
            outcome = await self._asked(
                LeaveFifo(fifo, ticket), otherwise=None, first=self._waiters_that_came()
            )
        except CoterieError as failed:
            return _failed(failed, "db delete failed")
        return Answer() if isinstance(outcome, FifoLeft) else self._gone(ticket)

    # How it is done.

    async def _misspelt(self, ticket: str) -> Answer:
        """A ticket of a fifo whose name is spelled in no way that the original would know.

        Raises:
            CoterieError: nobody led for too long.
        """
        await self._desk.read()
        return self._gone(ticket)

    def _gone(self, ticket: str) -> Answer:
        """The fifo asked for has no such ticket; local state is at least as new as that answer."""
        elsewhere = self._desk.machine.fifos.fifo_of(ticket)
        return _NO_TICKET if elsewhere is None else _OTHER_FIFO

    async def _waiters_that_came(self) -> None:
        """Let everybody wait who has connected to do so: a hundred may at one time."""
        await self._accepted()
        await self._http.newcomers(self._newcomers_s)
        await self._accepted()

    async def _accepted(self) -> None:
        """Let everybody reach his handler who has connected and asked."""
        loop = asyncio.get_running_loop()
        quiet, seen = 0, self._waits
        for _ in range(ROUNDS_MAX):
            turned = loop.create_future()
            loop.call_soon(turned.set_result, None)
            await turned
            quiet, seen = (quiet + 1 if seen == self._waits else 0), self._waits
            if quiet == ROUNDS:
                return

    async def _asked(
        self,
        command: Command,
        *,
        otherwise: Command | None,
        first: Coroutine[None, None, None] | None = None,
    ) -> Outcome:
        """Have a command applied even if its client goes meanwhile.

        Args:
            otherwise: what takes it back then.
            first: is waited for before.
        Raises:
            CoterieError: there is no answer.
            asyncio.CancelledError: the client is gone.
        """

        async def ask() -> Outcome:
            if first is not None:
                await first
            return await self._desk.ask(command)

        asking = asyncio.ensure_future(ask())
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            self._later(self._finished(asking, otherwise))
            raise

    async def _finished(self, asking: asyncio.Future[Outcome], otherwise: Command | None) -> None:
        try:
            await asking
            if otherwise is not None:
                await self._desk.ask(otherwise)
        except CoterieError:
            # What was made stays for its own timeouts.
            return
        finally:
            asking.cancel()

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self._left_over.add(task)
        task.add_done_callback(self._left_over.discard)

    def _drawn(self) -> str:
        return str(uuid.UUID(bytes=self._draw(16), version=4))

    def _length_ms(self, text: str) -> int | None:
        """A timeout for the machine: 0 is none, AT_ONCE_MS is at once; None where none is given.

        Raises:
            BadDuration: the text is none.
        """
        if not text:
            return None
        length_ns = durations.parse(text, days=not self._is_strict)
        if length_ns == 0 and not self._is_strict:
            return 0
        if length_ns <= 0:
            return AT_ONCE_MS
        return min(-(-length_ns // durations.MS), limits.LENGTH_MS_MAX)


def parse_uuid(text: str) -> str | None:
    """uuid.Parse: canonical spelling of a UUID in any that it takes; None where it is none."""
    data = text.encode("utf-8", "surrogateescape")
    if len(data) == 45 and data[:9].lower() == b"urn:uuid:":
        data = data[9:]
    elif len(data) == 38:
        # Meant for braces, which it does not look at.
        data = data[1:37]
    if _HYPHENATED.fullmatch(data) or _BARE.fullmatch(data):
        return str(uuid.UUID(data.decode()))
    return None


def _ran_out(turn: TurnInfo | None, after_ms: int) -> str | None:
    """Why a ticket is gone that was there when a wait for it came; None where it may be otherwise.

    Args:
        turn: as this node knew it then.
        after_ms: how long ago that was.
    """
    if turn is None or turn.ends_in_ms is None or after_ms < turn.ends_in_ms:
        return None
    if turn.state == NOTIFIED:
        return "was not accepted in time"
    return "was not marked as done in time"


def _failed(failed: CoterieError, text: str) -> Answer:
    """What a client is told whom the cluster could not serve."""
    if isinstance(failed, ShuttingDown):
        # Cut, as a process that ends does: clients know what to make of that.
        raise failed
    return error(text, 500)


def _or(given_ms: int | None, own_ms: int) -> int:
    return own_ms if given_ms is None else given_ms
