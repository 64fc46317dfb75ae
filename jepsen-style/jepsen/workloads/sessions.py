"""Sessions: opened, renewed for a while or not at all, closed or left to end; seen from two sides.

RULE: what is measured is the time between what clients sent and what others were told, all on one
clock. Each session holds a lock of its own, which has to go with it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.locks import MutualExclusion
from jepsen.checkers.sessions import Sessions as SessionsChecker
from jepsen.checkers.streams import Streams
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, together, unpaused
from jepsen.workloads.base import Arena
from jepsen.workloads.watching import Stream

TTLS_MS: Final = (300, 600, 1_000, 2_000)
LOOK_S: Final = 0.1
LOOKS_MAX: Final = 200
"""At a session that is not renewed: twenty times as long as it may live."""


class Sessions(Acting):
    """Clients that live one short life after another, each with one who looks at it, and streams."""

    name = "sessions"
    streams = 2

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._alive: dict[int, str] = {}
        self._streams: list[Stream] = []

    def checkers(self) -> Sequence[Checker]:
        return [SessionsChecker(), Streams(), MutualExclusion()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            yield self._live(links.client(number, f"{self.name}/{number}"), number)
            yield self._look(links.client(number + 1, f"{self.name}/look/{number}"), number)
        yield self._renew_many(links.client(0, f"{self.name}/many"))
        prefix = f"/locks/{self.name}/"
        self._streams = [
            Stream(
                links, number, self.unique(links.arena, "stream", number), ["/sessions/", prefix]
            )
            for number in range(self.streams)
        ]
        for stream in self._streams:
            yield stream.follow(links)

    async def settle(self, arena: Arena) -> None:
        """A few more lives in the calm: there it is judged whether they end in time."""
        async with self.links(arena) as links:
            await together(
                self._last(links.client(number, f"{self.name}/settle/{number}"), number, ttl_ms)
                for number, ttl_ms in enumerate(TTLS_MS)
            )

    async def _last(self, client: Client, number: int, ttl_ms: int) -> None:
        """One life without a renewal, looked at until it is over."""
        opened = await call(client, "session.open", retry_s=SETTLE_S, ttl_ms=ttl_ms)
        if not opened.is_ok:
            return
        session, lock = opened.body["session"], self.unique(client.arena, "last", number)
        await call(client, "lock.acquire", lock, retry_s=SETTLE_S, session=session)
        for _ in range(LOOKS_MAX):
            reply = await call(client, "session.read", session, retry_s=SETTLE_S)
            if reply.status in {404, 410}:
                break
            await client.pause(ttl_ms / 10_000)
        await call(client, "lock.read", lock, retry_s=SETTLE_S)

    async def _live(self, client: Client, number: int) -> None:
        rng, lives = client.rng, 0
        while await self.goes_on(client):
            lives += 1
            ttl_ms = rng.choice(TTLS_MS)
            opened = await call(client, "session.open", retry_s=RETRY_S, ttl_ms=ttl_ms)
            if not opened.is_ok:
                continue
            session = opened.body["session"]
            self._alive[number] = session
            lock = self.unique(client.arena, number, lives)
            await call(client, "lock.acquire", lock, session=session)
            for _ in range(rng.choice((0, 1, 3, 8))):
                await client.arena.rest(ttl_ms / 1_000 * rng.uniform(0.1, 0.8))
                await unpaused(client.arena, client.slot)
                renewed = await call(client, "session.keepalive", session)
                if renewed.status in {404, 410}:
                    break
            if rng.random() < 0.25:
                await call(client, "session.close", session, retry_s=RETRY_S)
            else:
                await client.arena.rest(1.5 * ttl_ms / 1_000)
            await call(client, "lock.read", lock)

    async def _look(self, client: Client, number: int) -> None:
        while await client.arena.rest(LOOK_S * client.rng.uniform(0.3, 1.7)):
            if number in self._alive:
                await call(client, "session.read", self._alive[number])

    async def _renew_many(self, client: Client) -> None:
        """Sessions of its own, renewed in one step, fewer and fewer of them."""
        rng = client.rng
        while await self.goes_on(client):
            sessions: list[str] = []
            for _ in range(3):
                opened = await call(client, "session.open", retry_s=RETRY_S, ttl_ms=TTLS_MS[2])
                if opened.is_ok:
                    sessions.append(opened.body["session"])
            while sessions and await client.arena.rest(TTLS_MS[2] / 3_000):
                await unpaused(client.arena, client.slot)
                await call(client, "session.keepalive_many", sessions=sessions)
                if rng.random() < 0.3:
                    sessions.pop()
