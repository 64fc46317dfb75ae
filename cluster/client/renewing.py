"""Renewals of one client's sessions: those that are due at about the same time are one request.

RULE: gathers, sends and hands out; when a renewal is due is decided in `lease.py`, what it comes to
by the keeper that asked.

A session that is due takes those along that will be due soon, so that sessions of like TTLs fall
into step and stay there: a program with a hundred sessions sends one request where it sent a
hundred, and the log gets one command.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

import msgspec

from cluster.client.core import Policy
from cluster.client.keeping import Keeper
from cluster.client.refusals import SessionExpired
from cluster.errors import Indefinite

if TYPE_CHECKING:
    from cluster.client.aio import Client

# As many as one request may name.
SESSIONS_MAX = 1_000


class RenewedSession(msgspec.Struct, frozen=True):
    """A renewal. `sent_ms`: when it was sent, on the client's clock."""

    session: str
    expires_in_ms: int
    sent_ms: int = 0


class _Wish(msgspec.Struct, frozen=True, eq=False):
    """A session that is to be renewed within so long, and who waits for it."""

    session: str
    within_ms: int
    answer: asyncio.Future[RenewedSession]


class Renewals:
    """The renewals of one client. Made and used in one event loop."""

    def __init__(self, client: Client) -> None:
        # The client refers to us.
        self._client = weakref.ref(client)
        self._keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()
        self._wishes: list[_Wish] = []
        self._sending: set[asyncio.Task[None]] = set()

    def joined(self, keeper: Keeper) -> None:
        """Take this session along from here on."""
        self._keepers.add(keeper)

    async def renew(self, session: str, *, within_ms: int) -> RenewedSession:
        """Renew a session, and with it those that are due soon.

        Args:
            within_ms: how long it may take; two nodes can be asked within that time.

        Raises:
            Refused: `session_expired` or `session_not_found`: all it held is lost.
        """
        loop = asyncio.get_running_loop()
        wish = _Wish(session, within_ms, loop.create_future())
        self._wishes.append(wish)
        if len(self._wishes) == 1:
            for keeper in list(self._keepers):
                if keeper.is_due_within(within_ms // 2):
                    keeper.renew_early()
            sending = loop.create_task(self._send())
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)
        return await wish.answer

    def close(self) -> list[asyncio.Task[None]]:
        """Send nothing more; returns what is coming to its end."""
        sending = list(self._sending)
        for task in sending:
            task.cancel()
        return sending

    async def _send(self) -> None:
        # Those that were taken along say so in their own tasks, which begin after this one was made.
        await asyncio.sleep(0)
        wishes, self._wishes = self._wishes, []
        await asyncio.gather(
            *(
                self._send_some(wishes[at : at + SESSIONS_MAX])
                for at in range(0, len(wishes), SESSIONS_MAX)
            )
        )

    async def _send_some(self, wishes: list[_Wish]) -> None:
        client = self._client()
        wishes = [wish for wish in wishes if not wish.answer.done()]
        if client is None or not wishes:
            return
        within_ms = min(wish.within_ms for wish in wishes)
        attempt_ms = max(50, within_ms // 2)
        policy = Policy(attempt_ms=attempt_ms, connect_ms=attempt_ms)
        try:
            if len(wishes) == 1:
                [wish] = wishes
                renewed = await client.keepalive(wish.session, timeout_ms=within_ms, policy=policy)
                found = {wish.session: renewed}
            else:
                sessions = [wish.session for wish in wishes]
                found = await client.keepalives(sessions, timeout_ms=within_ms, policy=policy)
        except asyncio.CancelledError:
            for wish in wishes:
                wish.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whoever asked is told, whatever it is
            for wish in wishes:
                if not wish.answer.done():
                    wish.answer.set_exception(error)
            return
        for wish in wishes:
            if wish.answer.done():
                continue
            if (renewed_ := found.get(wish.session)) is not None:
                wish.answer.set_result(renewed_)
            else:
                wish.answer.set_exception(
                    SessionExpired(
                        f"session {wish.session} is over",
                        status=410,
                        reason={"session": wish.session},
                    )
                )


def renewed_in(
    body: dict[str, object], sessions: list[str], sent_ms: int
) -> dict[str, RenewedSession]:
    """The sessions that live on, by the answer to a renewal of several.

    Raises:
        Indefinite: it does not say of each what became of it.
    """
    try:
        told = msgspec.convert(body, _Renewed)
    except msgspec.ValidationError as error:
        raise Indefinite(f"the answer makes no renewals: {error}", code="bad_answer") from error
    if not set(sessions) <= told.alive.keys() | set(told.expired):
        raise Indefinite("the answer does not tell of each session", code="bad_answer")
    return {
        session: RenewedSession(session, told.alive[session], sent_ms)
        for session in sessions
        if session in told.alive
    }


class _Renewed(msgspec.Struct, frozen=True):
    alive: dict[str, int]
    expired: list[str]
