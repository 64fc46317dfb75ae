"""Locks: a few hot ones, tried and waited for, alone and shared, one and several at a time.

RULE: who got an answer acts on it; who got none ends its session, as it does not know what it holds.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.linear import LinearLocks
from jepsen.checkers.locks import MutualExclusion, Tokens
from jepsen.checkers.order import Waiters
from jepsen.checkers.sessions import Sessions
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, Seat
from jepsen.workloads.base import Arena

TTLS_MS = (1_500, 3_000, 6_000)


class Locks(Acting):
    """Clients over a few exclusive locks, and one who looks."""

    name = "locks"
    count = 3
    shared = 0.0
    several = 0.0

    def checkers(self) -> Sequence[Checker]:
        return [LinearLocks(), MutualExclusion(), Tokens(), Waiters(), Sessions(), Durability()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            # Some give up at the first failure, so that open operations stay open.
            retry_s = RETRY_S if number % 2 else 0.0
            seat = self.seat(client, client.rng.choice(TTLS_MS))
            yield self._hold(client, seat, retry_s)
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

    async def _hold(self, client: Client, seat: Seat, retry_s: float) -> None:
        rng, names = client.rng, self._names(client.arena)
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            if rng.random() < self.several:
                await self._hold_several(client, seat, session, retry_s)
            else:
                await self._hold_one(client, seat, session, rng.choice(names), retry_s)
            if rng.random() < 0.02:
                await seat.give_up()

    async def _hold_one(
        self, client: Client, seat: Seat, session: str, name: str, retry_s: float
    ) -> None:
        rng = client.rng
        fields: dict[str, Any] = {"session": session, "mode": self._mode(client)}
        if rng.random() < 0.6:
            fields["wait_ms"] = rng.randrange(100, 1_500)
            if rng.random() < 0.2:
                fields["priority"] = 1
        reply = await call(client, "lock.acquire", name, retry_s=retry_s, **fields)
        if not reply.is_ok:
            await seat.learn(reply)
            return
        token = reply.body["token"]
        await self.goes_on(client)
        if rng.random() < 0.3:
            await call(client, "lock.check", name, token=token)
        released = await call(
            client, "lock.release", name, retry_s=retry_s, session=session, token=token
        )
        await seat.learn(released)

    async def _hold_several(self, client: Client, seat: Seat, session: str, retry_s: float) -> None:
        rng = client.rng
        names = rng.sample(self._names(client.arena), 2)
        locks = [{"name": name, "mode": self._mode(client)} for name in names]
        wait_ms = rng.choice((0, 300, 1_200))
        reply = await call(
            client,
            "lock.acquire_many",
            retry_s=retry_s,
            session=session,
            locks=locks,
            wait_ms=wait_ms,
        )
        if not reply.is_ok:
            await seat.learn(reply)
            return
        await self.goes_on(client)
        held = [{"name": lock["name"], "token": lock["token"]} for lock in reply.body["locks"]]
        released = await call(
            client, "lock.release_many", retry_s=retry_s, session=session, locks=held
        )
        await seat.learn(released)

    def _mode(self, client: Client) -> str:
        return "shared" if client.rng.random() < self.shared else "exclusive"

    async def _look(self, client: Client) -> None:
        names = self._names(client.arena)
        while await self.goes_on(client):
            await call(client, "lock.read", client.rng.choice(names))

    async def _read_all(self, client: Client) -> None:
        for name in self._names(client.arena):
            await call(client, "lock.read", name, retry_s=SETTLE_S)


class SharedLocks(Locks):
    """The same with many who share."""

    name = "shared-locks"
    shared = 0.6


class MultiLocks(Locks):
    """Several locks in one step, among those who want one."""

    name = "multilocks"
    count = 4
    shared = 0.3
    several = 0.6
