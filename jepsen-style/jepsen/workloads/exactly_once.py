"""Exactly once: the same request sent again and again, to other nodes, and long after.

RULE: every attempt is an operation of its own under one `request_id`; whether an answer came, was
thrown away or was not waited for changes nothing in what is sent next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, NamedTuple

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.exactly_once import ExactlyOnce as ExactlyOnceChecker
from jepsen.checkers.jobs import Jobs
from jepsen.checkers.locks import Tokens
from jepsen.checkers.sessions import Sessions
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting
from jepsen.workloads.base import Arena
from jepsen.workloads.jobs import list_jobs

TTL_MS: Final = 600_000
REPEATED_AT_END: Final = 150


class Sent(NamedTuple):
    """A request that can be sent again."""

    f: str
    key: str
    request_id: str
    fields: dict[str, Any]


class ExactlyOnce(Acting):
    """Clients that make requests of many kinds, and repeat old ones of their own and of others."""

    name = "exactly-once"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._sent: list[Sent] = []
        self._sessions: list[str] = []

    def checkers(self) -> Sequence[Checker]:
        return [ExactlyOnceChecker(), Tokens(), Jobs(), Sessions(), Durability()]

    async def prepare(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/prepare")
            semaphore, fifo = self._thing(arena, "semaphore"), self._thing(arena, "fifo")
            await call(client, "semaphore.set", semaphore, retry_s=SETTLE_S, limit=1_000)
            await call(client, "fifo.make", fifo, retry_s=SETTLE_S, wait_timeout_ms=0)

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            yield self._act(links, number)

    async def settle(self, arena: Arena) -> None:
        """Repeat many once more, then count what came of all."""
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            some = min(len(self._sent), REPEATED_AT_END)
            for sent in client.rng.sample(self._sent, some):
                await self._send(client, sent, SETTLE_S)
            await list_jobs(client, self._thing(arena, "tube"), SETTLE_S)
            await call(client, "semaphore.read", self._thing(arena, "semaphore"), retry_s=SETTLE_S)
            for session in self._sessions:
                await call(client, "session.close", session, retry_s=SETTLE_S)

    def _thing(self, arena: Arena, kind: str) -> str:
        return self.unique(arena, kind)

    async def _act(self, links: Links, number: int) -> None:
        client = links.client(number, f"{self.name}/{number}")
        # Its copy sends the same request at the same time from elsewhere.
        twin = links.client(number + 1, f"{self.name}/{number}/twin")
        session: str | None = None
        count = 0
        while await self.goes_on(client):
            if session is None:
                opened = await call(client, "session.open", retry_s=RETRY_S, ttl_ms=TTL_MS)
                if opened.is_ok:
                    session = str(opened.body["session"])
                    self._sessions.append(session)
                continue
            count += 1
            sent = self._request(client, session, f"{number}/{count}")
            self._sent.append(sent)
            await self._try(client, twin, sent)
            if client.rng.random() < 0.4:
                await self._send(client, client.rng.choice(self._sent), RETRY_S)

    async def _try(self, client: Client, twin: Client, sent: Sent) -> None:
        rng = client.rng
        first = rng.choices(("wait", "hang up", "both at once"), (6, 2, 2))[0]
        if first == "both at once":
            await asyncio.gather(self._send(client, sent, 0.0), self._send(twin, sent, 0.0))
        elif first == "hang up":
            try:
                async with asyncio.timeout(0.004 * rng.random()):
                    await self._send(client, sent, 0.0)
            except TimeoutError:
                pass
        for _ in range(rng.choice((1, 1, 2, 3))):
            await self._send(client, sent, 0.0)

    def _request(self, client: Client, session: str, name: str) -> Sent:
        arena, rng = client.arena, client.rng
        kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("session.open", "", {"ttl_ms": TTL_MS}),
            ("lock.acquire", self._thing(arena, f"lock/{rng.randrange(20)}"), {"session": session}),
            ("semaphore.acquire", self._thing(arena, "semaphore"), {"session": session}),
            (
                "ticket.issue",
                self._thing(arena, "resource"),
                {"session": session, "ticket": name, "data": name},
            ),
            ("ticket.claim", self._thing(arena, "resource"), {"session": session, "another": True}),
            ("fifo.join", self._thing(arena, "fifo"), {}),
            ("job.put", self._thing(arena, "tube"), {"body": f"{self.name}/{name}"}),
            ("job.reserve", self._thing(arena, "tube"), {"session": session}),
        )
        f, key, fields = rng.choice(kinds)
        return Sent(f, key, client.new_key(), fields)

    async def _send(self, client: Client, sent: Sent, retry_s: float) -> None:
        reply = await call(
            client, sent.f, sent.key, retry_s=retry_s, request_id=sent.request_id, **sent.fields
        )
        if sent.f == "session.open" and reply.is_ok:
            session = str(reply.body["session"])
            if session not in self._sessions:
                self._sessions.append(session)
