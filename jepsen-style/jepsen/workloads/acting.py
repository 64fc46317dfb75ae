"""What clients of most workloads do alike: act side by side until the end, and keep a session.

RULE: how to go on acting; what is done is the workload's. Whatever is sent is recorded.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.clients import Ask, Client, Links, Reply
from jepsen.history import Type
from jepsen.verdicts import Checker
from jepsen.workloads.base import Arena

SETTLE_S: Final = 30.0
"""How long one operation is repeated after healing: by then it has to succeed."""

RETRY_S: Final = 6.0
"""How long a client with patience repeats one operation under faults."""

Warp = Callable[[Ask, Reply], Reply]


class Acting(ABC):
    """The common part of workloads.

    Args:
        pace_s: mean pause of a client between two operations.
        clients: how many act; None: as many as the workload wants.
        warp: see `Links`.
    """

    name = ""
    clients = 6

    def __init__(
        self, *, pace_s: float = 0.12, clients: int | None = None, warp: Warp | None = None
    ):
        self.pace_s = pace_s
        if clients is not None:
            self.clients = clients
        self.seats: list[Seat] = []
        self._warp = warp

    def links(self, arena: Arena) -> Links:
        """Connections for one phase; the block closes them."""
        return Links(arena, self._warp)

    async def prepare(self, arena: Arena) -> None:  # noqa: B027 - most need nothing
        """Make what is needed."""

    async def run(self, arena: Arena) -> None:
        """Let all clients act."""
        async with self.links(arena) as links:
            await together(self.acts(links))

    async def settle(self, arena: Arena) -> None:  # noqa: B027 - some leave nothing
        """Put an end to what is left, and read it."""

    @abstractmethod
    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        """What goes on side by side while it runs."""

    @abstractmethod
    def checkers(self) -> Sequence[Checker]:
        """Those that judge what is recorded."""

    async def goes_on(self, client: Client) -> bool:
        """Rest between two operations, and while the machine stands still.

        Returns:
            Whether there is time left to do more.
        """
        arena = client.arena
        if not await arena.rest(self.pace_s * client.rng.uniform(0.3, 1.7)):
            return False
        await unpaused(arena, client.slot)
        return not arena.stop.is_set()

    def unique(self, arena: Arena, *parts: object) -> str:
        """A name that no other run on the same cluster uses."""
        lot = arena.lots(self.name).getrandbits(32)
        return "/".join([self.name, f"{lot:08x}", *map(str, parts)])

    def seat(self, client: Client, ttl_ms: int) -> Seat:
        """A session for a client; `end_seats` ends it."""
        self.seats.append(Seat(client, ttl_ms))
        return self.seats[-1]

    async def end_seats(self, client: Client) -> None:
        """End all sessions that are left. After healing."""
        for seat in self.seats:
            if seat.session is not None:
                await call(client, "session.close", seat.session, retry_s=SETTLE_S)
                seat.session = None


class Seat:
    """A session of the cluster, and a process of its own that renews it.

    Attributes:
        session: its id; None while there is none.
        is_asleep: it is not renewed for now.
    """

    def __init__(self, client: Client, ttl_ms: int):
        self.ttl_ms = ttl_ms
        self.session: str | None = None
        self.is_asleep = False
        self._client = client
        self._keeper = client.links.client(client.slot, f"{client.name}/keeper")

    async def open(self) -> str | None:
        """The session, opened (again) where there is none; None where that fails."""
        if self.session is None:
            reply = await call(self._client, "session.open", retry_s=RETRY_S, ttl_ms=self.ttl_ms)
            if reply.is_ok:
                self.session = str(reply.body["session"])
        return self.session

    async def give_up(self) -> None:
        """End the session: nobody knows what it holds, or somebody is to see it end."""
        if self.session is not None:
            session, self.session = self.session, None
            await call(self._client, "session.close", session, retry_s=RETRY_S)

    def drop(self) -> None:
        """Forget the session without a word, as who dies does; it ends by its TTL."""
        self.session = None

    async def learn(self, reply: Reply) -> None:
        """Draw the conclusion from the answer to a write in the session's name."""
        if reply.outcome is Type.INFO:
            await self.give_up()
        elif reply.error in {"session_expired", "session_not_found"}:
            self.drop()

    async def keep(self) -> None:
        """Renew until the end."""
        arena = self._client.arena
        while await arena.rest(self.ttl_ms / 4_000):
            await unpaused(arena, self._client.slot)
            session = self.session
            if session is None or self.is_asleep or arena.stop.is_set():
                continue
            reply = await call(
                self._keeper,
                "session.keepalive",
                session,
                retry_s=self.ttl_ms / 3_000,
                patience_s=self.ttl_ms / 4_000,
            )
            if reply.status in {404, 410} and session == self.session:
                self.drop()


async def together(acts: Iterable[Awaitable[Any]]) -> None:
    """Do all at the same time; the first that fails ends the others."""
    async with asyncio.TaskGroup() as group:
        for act in acts:
            group.create_task(_as_coroutine(act))


async def unpaused(arena: Arena, slot: int) -> None:
    """Stand still while the slot is paused, but not beyond the end of the run."""
    if not arena.is_paused(slot):
        return
    waits = [
        asyncio.ensure_future(arena.breathe(slot)),
        asyncio.ensure_future(arena.stop.wait()),
    ]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _as_coroutine(act: Awaitable[Any]) -> None:
    await act
