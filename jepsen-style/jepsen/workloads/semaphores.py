"""Semaphores: units taken by one or two, waited for in order, and a limit that moves.

RULE: as with locks: who got no answer ends its session.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.linear import LinearSemaphores
from jepsen.checkers.locks import Tokens
from jepsen.checkers.order import Waiters
from jepsen.checkers.semaphores import Capacity
from jepsen.checkers.sessions import Sessions
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, Seat
from jepsen.workloads.base import Arena

TTLS_MS: Final = (1_500, 3_000, 6_000)
LIMITS: Final = (2, 3, 4)
RESIZE: Final = 0.04


class Semaphores(Acting):
    """Clients over two semaphores; one who looks, and now and then changes a limit."""

    name = "semaphores"
    clients = 7
    count = 2

    def checkers(self) -> Sequence[Checker]:
        return [LinearSemaphores(), Capacity(), Tokens(), Waiters(), Sessions(), Durability()]

    async def prepare(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/prepare")
            for name in self._names(arena):
                await call(client, "semaphore.set", name, retry_s=SETTLE_S, limit=LIMITS[1])

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            seat = self.seat(client, client.rng.choice(TTLS_MS))
            yield self._use(client, seat, RETRY_S if number % 2 else 0.0)
            yield seat.keep()
        yield self._look(links.client(0, f"{self.name}/look"))

    async def settle(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            await self._read_all(client)
            await self.end_seats(client)
            await self._read_all(client)

    def _names(self, arena: Arena) -> list[str]:
        return [self.unique(arena, number) for number in range(self.count)]

    async def _use(self, client: Client, seat: Seat, retry_s: float) -> None:
        rng, names = client.rng, self._names(client.arena)
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            name = rng.choice(names)
            fields: dict[str, Any] = {"session": session, "units": rng.choice((1, 1, 2))}
            if rng.random() < 0.7:
                fields["wait_ms"] = rng.randrange(100, 1_500)
            reply = await call(client, "semaphore.acquire", name, retry_s=retry_s, **fields)
            if not reply.is_ok:
                await seat.learn(reply)
                continue
            await self.goes_on(client)
            token = reply.body["token"]
            released = await call(
                client, "semaphore.release", name, retry_s=retry_s, session=session, token=token
            )
            await seat.learn(released)
            if rng.random() < 0.03:
                await seat.give_up()

    async def _look(self, client: Client) -> None:
        names = self._names(client.arena)
        while await self.goes_on(client):
            name = client.rng.choice(names)
            if client.rng.random() < RESIZE:
                limit = client.rng.choice(LIMITS)
                await call(client, "semaphore.set", name, retry_s=RETRY_S, limit=limit)
            await call(client, "semaphore.read", name)

    async def _read_all(self, client: Client) -> None:
        for name in self._names(client.arena):
            await call(client, "semaphore.read", name, retry_s=SETTLE_S)
