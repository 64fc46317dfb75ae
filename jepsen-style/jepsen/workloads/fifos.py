"""Fifos: turns in order of coming, some not accepted, some never done, some given up.

RULE: whoever walks away says nothing: the fifo's own timeouts have to move the queue on.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.locks import Tokens
from jepsen.checkers.order import Turns
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting
from jepsen.workloads.base import Arena

TIMES_MS: Final[dict[str, Any]] = {
    "wait_timeout_ms": 60_000,
    "accept_timeout_ms": 700,
    "done_timeout_ms": 1_500,
}
WAIT_MS: Final = 1_000
TURNS_MAX: Final = 40
"""How often one who waits asks again before it walks away."""

SETTLE_TURNS_MAX: Final = 200
"""The same after healing: every ticket whose owner never heard of it takes its time to accept."""


class Fifos(Acting):
    """Clients over two fifos, and one who looks at tickets of others."""

    name = "fifos"
    clients = 7
    count = 2

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._seen: list[tuple[str, str]] = []

    def checkers(self) -> Sequence[Checker]:
        return [Turns(), Tokens(), Durability()]

    async def prepare(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/prepare")
            for name in self._names(arena):
                await call(client, "fifo.make", name, retry_s=SETTLE_S, **TIMES_MS)

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            yield self._stand(client, RETRY_S if number % 2 else 0.0)
        yield self._look(links.client(0, f"{self.name}/look"))

    async def settle(self, arena: Arena) -> None:
        """Go on taking turns until the queues are through, then look at every ticket once more."""
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            for name in self._names(arena):
                # Whoever stands behind all others is through when they are.
                joined = await call(client, "fifo.join", name, retry_s=SETTLE_S)
                if joined.is_ok:
                    await self._see_through(client, name, joined.body["ticket"])
            for name, ticket in self._seen:
                await call(client, "fifo.read", name, retry_s=SETTLE_S, ticket=ticket)

    def _names(self, arena: Arena) -> list[str]:
        return [self.unique(arena, number) for number in range(self.count)]

    async def _stand(self, client: Client, retry_s: float) -> None:
        rng, names = client.rng, self._names(client.arena)
        while await self.goes_on(client):
            name = rng.choice(names)
            joined = await call(client, "fifo.join", name, retry_s=retry_s)
            if not joined.is_ok:
                continue
            ticket = joined.body["ticket"]
            self._seen.append((name, ticket))
            if rng.random() < 0.06:
                # It walks away before its turn comes.
                continue
            if rng.random() < 0.06:
                await call(client, "fifo.leave", name, retry_s=retry_s, ticket=ticket)
                continue
            await self._take_turn(client, name, ticket, retry_s)

    async def _take_turn(self, client: Client, name: str, ticket: str, retry_s: float) -> None:
        rng = client.rng
        for _ in range(TURNS_MAX):
            wait_ms = rng.choice((0, WAIT_MS, WAIT_MS))
            reply = await call(
                client, "fifo.wait", name, retry_s=retry_s, ticket=ticket, wait_ms=wait_ms
            )
            if reply.is_ok:
                break
            if reply.status == 404 or not await self.goes_on(client):
                return
        else:
            return
        await self.goes_on(client)
        if rng.random() < 0.08:
            # It never says that it is done.
            return
        await call(
            client,
            "fifo.done",
            name,
            retry_s=retry_s,
            ticket=ticket,
            token=reply.body["token"],
        )

    async def _look(self, client: Client) -> None:
        while await self.goes_on(client):
            if self._seen:
                name, ticket = client.rng.choice(self._seen[-8:])
                await call(client, "fifo.read", name, ticket=ticket)

    async def _see_through(self, client: Client, name: str, ticket: str) -> None:
        for _ in range(SETTLE_TURNS_MAX):
            reply = await call(
                client, "fifo.wait", name, retry_s=SETTLE_S, ticket=ticket, wait_ms=WAIT_MS
            )
            if reply.is_ok:
                await call(
                    client,
                    "fifo.done",
                    name,
                    retry_s=SETTLE_S,
                    ticket=ticket,
                    token=reply.body["token"],
                )
            if reply.is_ok or reply.status == 404:
                return
