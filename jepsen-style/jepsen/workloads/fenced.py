"""A store outside the cluster, read, changed and written under a lock by clients that stall.

RULE: the store is an object of this process, so that its order is known. It is *fenced* if it
refuses whoever shows an older token than it has seen, in reads as in writes: a writer that only
read before another was granted the lock is stale by then. Unfenced, it is the negative control: it
has to lose updates, or the experiment could not have found any.
Source: Gray & Cheriton (leases); Chubby (sequencers); etcd#11457.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.fenced_store import FencedStore, UnfencedStore
from jepsen.checkers.locks import MutualExclusion, Tokens
from jepsen.checkers.sessions import Sessions
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, Acting, Seat, unpaused
from jepsen.workloads.base import Arena

TTL_MS: Final = 800
WAIT_MS: Final = 2_000
STALL_S: Final = 2.0
"""Longer than a session lives, and than its end may be late."""


class Refused(Exception):
    """The store has seen a newer token.

    Attributes:
        newest: that token.
    """

    def __init__(self, newest: int):
        super().__init__(f"a newer token was here: {newest}")
        self.newest = newest


class Store:
    """Values by item, and the newest token each has seen.

    Args:
        is_fenced: it refuses older tokens.
    """

    def __init__(self, *, is_fenced: bool):
        self._is_fenced = is_fenced
        self._values: dict[str, str | None] = {}
        self._newest: dict[str, int] = {}

    def read(self, item: str, token: int) -> str | None:
        """Return the present value.

        Raises:
            Refused: the token is stale.
        """
        self._see(item, token)
        return self._values.get(item)

    def write(self, item: str, token: int, value: str) -> str | None:
        """Write, and return what was there before.

        Raises:
            Refused: the token is stale.
        """
        self._see(item, token)
        previous, self._values[item] = self._values.get(item), value
        return previous

    def _see(self, item: str, token: int) -> None:
        newest = self._newest.get(item, 0)
        if self._is_fenced and token < newest:
            raise Refused(newest)
        self._newest[item] = max(newest, token)


class Fenced(Acting):
    """Two items, each behind a lock of its own name."""

    name = "fenced"
    is_fenced = True
    count = 2

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._store = Store(is_fenced=self.is_fenced)
        self._written = 0

    def checkers(self) -> Sequence[Checker]:
        return [FencedStore(), MutualExclusion(), Tokens(), Sessions()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            seat = self.seat(client, TTL_MS)
            yield self._update(client, seat, number)
            yield seat.keep()

    async def settle(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            await self.end_seats(links.client(0, f"{self.name}/settle"))

    async def _update(self, client: Client, seat: Seat, number: int) -> None:
        cycle = 0
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            # Two stay with one item and stall there, however short the run is.
            item = self.unique(client.arena, number % self.count)
            reply = await call(
                client, "lock.acquire", item, retry_s=RETRY_S, session=session, wait_ms=WAIT_MS
            )
            if not reply.is_ok:
                await seat.learn(reply)
                continue
            cycle += 1
            stalls = number < self.count and cycle % 4 == 1
            await self._change(client, seat, item, reply.body["token"], stalls=stalls)
            released = await call(
                client,
                "lock.release",
                item,
                retry_s=RETRY_S,
                session=session,
                token=reply.body["token"],
            )
            await seat.learn(released)

    async def _change(
        self, client: Client, seat: Seat, item: str, token: int, *, stalls: bool
    ) -> None:
        """Read, think, and write, whatever has happened to the lock meanwhile."""
        try:
            read = self._store.read(item, token)
        except Refused as refused:
            client.note("store.read", item, {"token": token}, _problem(refused), "fenced")
            return
        client.note("store.read", item, {"token": token}, {"value": read})
        seat.is_asleep = stalls
        await client.arena.rest(STALL_S if stalls else self.pace_s * client.rng.random())
        await unpaused(client.arena, client.slot)
        seat.is_asleep = False
        self._written += 1
        value = f"{client.name}-{self._written}"
        asked = {"token": token, "read": read, "value": value}
        try:
            previous = self._store.write(item, token, value)
        except Refused as refused:
            client.note("store.write", item, asked, _problem(refused), "fenced")
            return
        client.note("store.write", item, asked, {"previous": previous})


class Unfenced(Fenced):
    """The negative control: the same store without its check."""

    name = "unfenced"
    is_fenced = False

    def checkers(self) -> Sequence[Checker]:
        return [UnfencedStore(), MutualExclusion(), Tokens(), Sessions()]


def _problem(refused: Refused) -> dict[str, Any]:
    return {"code": "fenced", "newest": refused.newest}
