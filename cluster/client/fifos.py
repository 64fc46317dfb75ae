"""Fifos: stand in line, have one's turn, let the next one have theirs.

RULE: what is asked for and what came; how a turn is relied on is told in `held.py`.

    fifo = client.fifo("checkout")
    await fifo.create(done_timeout="5m")
    async with fifo.turn(wait="1m") as turn:
        pay(cart, turn.token)
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from cluster.client.core import Request, new_key, path_of
from cluster.client.durations import Length, ms_of
from cluster.client.held import Grant, Held
from cluster.client.keeping import Keeper, OnState, Owner
from cluster.client.lease import Lease
from cluster.client.refusals import NotFound, NotYourTurn
from cluster.errors import CoterieError, Indefinite, LockLost, Refused

if TYPE_CHECKING:
    from cluster.client.aio import Client

# One request waits so long at the most; the ticket keeps its place between two.
WAIT_MS_MOST = 60_000
# A turn cannot be renewed; what is left to those who come later is for clocks alone.
MARGIN_MS_MOST = 5_000
FAREWELL_MS = 3_000


class Fifo:
    """One fifo, by its name."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.name = name

    async def create(
        self,
        *,
        wait_timeout: Length | None = None,
        accept_timeout: Length | None = None,
        done_timeout: Length | None = None,
        unused_destroy_timeout: Length | None = None,
        allow_overrides: bool | None = None,
    ) -> dict[str, Any]:
        """Make it; if it is there already, with the same settings, that is as good.

        Raises:
            FifoExists: it is there, with other settings.
        """
        body: dict[str, object] = {"name": self.name}
        lengths = {
            "wait_timeout": wait_timeout,
            "accept_timeout": accept_timeout,
            "done_timeout": done_timeout,
            "unused_destroy_timeout": unused_destroy_timeout,
        }
        body |= {word: ms_of(given, word) for word, given in lengths.items() if given is not None}
        if allow_overrides is not None:
            body["allow_overrides"] = allow_overrides
        request = Request("POST", path_of("fifos"), body, key=new_key())
        return (await self.client.call(request)).body

    async def show(self) -> dict[str, Any]:
        """Read its settings and a page of its queue."""
        return (await self.client.call(Request("GET", path_of("fifos", self.name)))).body

    async def delete(self, *, force: bool = False) -> None:
        """Take it away; with `force`, also where tickets are in it."""
        query = "?force=true" if force else ""
        request = Request("DELETE", path_of("fifos", self.name) + query, key=new_key())
        await self.client.call(request)

    def turn(self, *, wait: Length | None = None, on_state: OnState | None = None) -> Turn:
        """A turn, to be taken by `async with` or `acquire`.

        Args:
            wait: how long to stand in line; None: as long as it takes.
            on_state: called with "grace" or "lost" when its time runs out.
        """
        return Turn(self, wait=wait, on_state=on_state)


class Turn(Held):
    """One's place in a fifo, and the turn that comes of it. It ends at the fifo's `done_timeout`."""

    kind: ClassVar[str] = "turn"

    def __init__(self, fifo: Fifo, *, wait: Length | None = None, on_state: OnState | None = None):
        super().__init__(fifo.name, on_state=on_state)
        self.fifo = fifo
        self.ticket = ""
        self._wait = wait
        self._keeper: Keeper | None = None

    @property
    def keeper(self) -> Keeper:
        """What counts its time.

        Raises:
            RuntimeError: it was not taken.
        """
        if self._keeper is None:
            raise RuntimeError("the turn was not taken; use `async with` or `await acquire()`")
        return self._keeper

    async def acquire(self, wait: Length | None = None) -> int:
        """Stand in line until the turn has come.

        Raises:
            NotYourTurn: it did not come in time; the ticket is given up.
            LockLost: it came, and was over before we knew.
        """
        if self._grant is not None:
            raise RuntimeError("it is our turn already; release it first")
        client = self.fifo.client
        wait = self._wait if wait is None else wait
        until_ms = None if wait is None else client.clock() + ms_of(wait, "wait")
        request = Request("POST", path_of("fifos", self.name, "tickets"), {}, key=new_key())
        try:
            self.ticket = (await client.call(request)).body["ticket"]
        except (asyncio.CancelledError, Indefinite):
            # It may stand in line, and would keep those behind it waiting when its turn comes.
            client.behind(self._give_up_unknown(request))
            raise
        try:
            token = await self._accepted(until_ms)
            lease = await self._lease()
        except BaseException:
            client.behind(self._give_up(self.ticket))
            raise
        self._why_lost = None
        self._grant = Grant(token, {"ticket": self.ticket})
        self._keeper = Keeper(
            lease,
            kind=self.kind,
            name=self.name,
            token=token,
            # Nothing renews it: it ends by itself, whoever owns it.
            owner=Owner(None, self),
            clock=client.clock,
            on_state=self._on_state,
        )
        self._keeper.start()
        if self._keeper.standing == "lost":
            loss = self.loss()
            self.forget()
            raise loss
        return token

    async def release(self) -> None:
        """It is done: the next one's turn.

        Raises:
            LockLost: it was over already.
        """
        grant = self._grant
        if grant is None:
            raise RuntimeError("it is not our turn")
        if self.state == "lost":
            loss = self.loss()
            self.forget()
            raise loss
        self._grant = None
        if self._scope is not None:
            self._scope.disarm()
        self.keeper.stop()
        path = path_of("fifos", self.name, "tickets", self.ticket, "done")
        request = Request("POST", path, {"token": grant.token}, key=new_key())
        limit_ms = max(1_000, self.keeper.lease.ends_ms - self.fifo.client.clock())
        doing = self.fifo.client.behind(self._finish(request, limit_ms))
        await asyncio.wait({doing}, timeout=FAREWELL_MS / 1_000)
        # Cancelled where the client is closed meanwhile, which is no cancellation of ours.
        if doing.done() and not doing.cancelled() and (refusal := doing.result()) is not None:
            detail = f'turn in fifo "{self.name}" was over: {refusal.detail}'
            raise LockLost(detail, kind=self.kind, name=self.name, token=grant.token)

    async def status(self) -> dict[str, Any]:
        """Read where the ticket stands: `state`, `position`, `ahead`, `eta_ms`."""
        path = path_of("fifos", self.name, "tickets", self.ticket)
        return (await self.fifo.client.call(Request("GET", path))).body

    async def _accepted(self, until_ms: int | None) -> int:
        client = self.fifo.client
        path = path_of("fifos", self.name, "tickets", self.ticket, "wait")
        while True:
            left_ms = WAIT_MS_MOST
            if until_ms is not None:
                left_ms = min(left_ms, max(0, until_ms - client.clock()))
            # Asking again gets the same turn.
            request = Request("POST", path, {"wait": left_ms}, wait_ms=left_ms, is_repeatable=True)
            try:
                token: int = (await client.call(request)).body["token"]
            except Refused as error:
                is_late = until_ms is not None and client.clock() >= until_ms
                if error.code == "withdrawn" or (isinstance(error, NotYourTurn) and not is_late):
                    continue
                raise
            return token

    async def _lease(self) -> Lease:
        """The turn's time, asked for once it has come: it began while we waited."""
        sent_ms = self.fifo.client.clock()
        ends_in_ms = (await self.status())["ends_in_ms"]
        # None: no timeout runs. Nothing of ours lasts longer than a year.
        length_ms = 366 * 86_400_000 if ends_in_ms is None else ends_in_ms
        return Lease.opened(
            ttl_ms=length_ms,
            expires_in_ms=length_ms,
            sent_ms=sent_ms,
            margin_ms_most=MARGIN_MS_MOST,
        )

    async def _finish(self, request: Request, limit_ms: int) -> Refused | None:
        try:
            await self.fifo.client.call(request, timeout_ms=limit_ms)
        except Refused as error:
            return error
        except CoterieError:
            # Its time ends it.
            return None
        return None

    async def _give_up_unknown(self, request: Request) -> None:
        """Give up the ticket that a request drew of which nobody knows the answer."""
        try:
            answer = await self.fifo.client.call(request, timeout_ms=FAREWELL_MS)
            ticket: str = answer.body["ticket"]
        except CoterieError:
            # The fifo's `wait_timeout` ends it.
            return
        await self._give_up(ticket)

    async def _give_up(self, ticket: str) -> None:
        path = path_of("fifos", self.name, "tickets", ticket)
        try:
            await self.fifo.client.call(
                Request("DELETE", path, key=new_key()), timeout_ms=FAREWELL_MS
            )
        except (NotFound, CoterieError):
            return

    def _forgotten(self) -> None:
        if self._keeper is not None:
            self._keeper.stop()
