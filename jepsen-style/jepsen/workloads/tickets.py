"""Tickets on a resource: offered by some, claimed by others, taken back, and gone with who offered.

RULE: a ticket's name says who offers it, so that two never quarrel about one; who got no answer
ends its session.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.locks import Tokens
from jepsen.checkers.sessions import Sessions
from jepsen.checkers.tickets import Claims
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, Seat
from jepsen.workloads.base import Arena

ISSUER_TTL_MS: Final = 4_000
CLAIMANT_TTLS_MS: Final = (1_500, 3_000)
TICKETS: Final = 3
"""Of each issuer."""


class Tickets(Acting):
    """Two who offer, some who claim, one who looks."""

    name = "tickets"
    clients = 6
    issuers = 2

    def checkers(self) -> Sequence[Checker]:
        return [Claims(), Tokens(), Sessions(), Durability()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.issuers):
            client = links.client(number, f"{self.name}/issuer/{number}")
            seat = self.seat(client, ISSUER_TTL_MS)
            yield self._issue(client, seat, number)
            yield seat.keep()
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            seat = self.seat(client, client.rng.choice(CLAIMANT_TTLS_MS))
            yield self._claim(client, seat, RETRY_S if number % 2 else 0.0)
            yield seat.keep()
        yield self._look(links.client(0, f"{self.name}/look"))

    async def settle(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            await call(client, "ticket.read", self.unique(arena), retry_s=SETTLE_S)
            await self.end_seats(client)
            await call(client, "ticket.read", self.unique(arena), retry_s=SETTLE_S)

    async def _issue(self, client: Client, seat: Seat, number: int) -> None:
        rng, name = client.rng, self.unique(client.arena)
        changes = 0
        offered: set[str] = set()
        of: str | None = None
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            if session != of:
                # Whatever was offered went with the session before.
                of, offered = session, set()
            ticket = f"{number}-{rng.randrange(TICKETS)}"
            changes += 1
            # Some that are offered stay as they are, so that claims last.
            if ticket not in offered or rng.random() < 0.2:
                data = f"{client.name}-{changes}"
                reply = await call(
                    client,
                    "ticket.issue",
                    name,
                    retry_s=RETRY_S,
                    session=session,
                    ticket=ticket,
                    data=data,
                )
                offered.add(ticket)
            elif rng.random() < 0.1:
                reply = await call(
                    client, "ticket.revoke", name, retry_s=RETRY_S, session=session, ticket=ticket
                )
                offered.discard(ticket)
            else:
                continue
            await seat.learn(reply)
            if rng.random() < 0.01:
                await seat.give_up()

    async def _claim(self, client: Client, seat: Seat, retry_s: float) -> None:
        rng, name = client.rng, self.unique(client.arena)
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            fields: dict[str, Any] = {"session": session}
            if rng.random() < 0.7:
                fields["wait_ms"] = rng.randrange(100, 1_500)
            if rng.random() < 0.2:
                fields["ticket"] = f"{rng.randrange(self.issuers)}-{rng.randrange(TICKETS)}"
            reply = await call(client, "ticket.claim", name, retry_s=retry_s, **fields)
            if not reply.is_ok:
                await seat.learn(reply)
                continue
            await self.goes_on(client)
            released = await call(
                client,
                "ticket.release",
                name,
                retry_s=retry_s,
                session=session,
                ticket=reply.body["ticket"],
                token=reply.body["token"],
            )
            await seat.learn(released)
            if rng.random() < 0.03:
                await seat.give_up()

    async def _look(self, client: Client) -> None:
        while await self.goes_on(client):
            await call(client, "ticket.read", self.unique(client.arena))
