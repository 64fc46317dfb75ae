"""Sessions of this node's connections: what a client has goes back when it goes, or its node does.

RULE: opens, renews together, closes. Knows not what they are for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from cluster.errors import CoterieError, ShuttingDown
from cluster.fronts.front import Surroundings
from cluster.machine import limits
from cluster.machine.commands import CloseSession, KeepAliveMany, OpenSession
from cluster.machine.outcome import Opened, Outcome, RenewedMany
from cluster.node.pending import Answered, Failed

TTL_MS: Final = 10_000
"""How long after its node's death a connection's jobs are ready again, at most."""

_RENEW_S: Final = 3.0
_CLOSE_MS: Final = 60_000
_NONCE_BYTES: Final = 12

Lost = Callable[[], None]


class Refused(Exception):
    """No session was opened; `outcome` says why."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome)
        self.outcome = outcome


class Leases:
    """The sessions that this node renews."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._node = surroundings.node
        self._desk = surroundings.desk
        self._draw = surroundings.draw
        self._open: dict[str, Lost] = {}
        self._is_over = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None

    async def open(self, name: str, on_lost: Lost) -> str:
        """Open a session and renew it until it is closed.

        Args:
            name: for people who ask who has something.
            on_lost: called once if it ends in another way than by `close`.
        Raises:
            Refused: there are too many.
            CoterieError: there is no answer.
        """
        if self._is_over.is_set():
            raise ShuttingDown("this node is shutting down; ask another one")
        nonce = self._draw(_NONCE_BYTES).hex()
        asking = asyncio.ensure_future(self._desk.ask(OpenSession(nonce, TTL_MS, name)))
        try:
            outcome = await asyncio.shield(asking)
        except asyncio.CancelledError:
            # Nobody wants it any more: it is not left to its TTL.
            asking.add_done_callback(self._close_unwanted)
            raise
        if not isinstance(outcome, Opened):
            raise Refused(outcome)
        if self._is_over.is_set():
            self._close(outcome.session)
            raise ShuttingDown("this node is shutting down; ask another one")
        self._open[outcome.session] = on_lost
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew_for_ever())
        return outcome.session

    def close(self, session: str) -> None:
        """End a session, now if it can be and by its TTL otherwise; what it had is freed."""
        if self._open.pop(session, None) is not None:
            self._close(session)

    def close_all(self) -> None:
        """End all of them, and open no more."""
        self._is_over.set()
        for session in tuple(self._open):
            self.close(session)

    async def stop(self) -> None:
        """Renew no longer."""
        self._is_over.set()
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing

    async def renew(self) -> None:
        """Renew all, and say of which it is too late.

        Raises:
            CoterieError: there is no answer.
        """
        sessions = tuple(self._open)
        most = limits.SESSIONS_PER_KEEPALIVE_MAX
        for first in range(0, len(sessions), most):
            outcome = await self._desk.ask(KeepAliveMany(sessions[first : first + most]))
            if isinstance(outcome, RenewedMany):
                for session in outcome.gone:
                    self.lost(session)

    def lost(self, session: str) -> None:
        """A session was found to have ended."""
        on_lost = self._open.pop(session, None)
        if on_lost is not None:
            on_lost()

    async def _renew_for_ever(self) -> None:
        while not self._is_over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_over.wait(), _RENEW_S)
            if self._open:
                with suppress(CoterieError):  # Next time, or too late.
                    await self.renew()

    def _close_unwanted(self, asking: asyncio.Future[Outcome]) -> None:
        if not asking.cancelled() and asking.exception() is None:
            outcome = asking.result()
            if isinstance(outcome, Opened):
                self._close(outcome.session)

    def _close(self, session: str) -> None:
        with suppress(CoterieError):
            self._node.submit(CloseSession(session), _ignore, timeout_ms=_CLOSE_MS, patient=True)


def _ignore(reply: Answered | Failed) -> None:
    """It has ended, or will by its TTL."""
