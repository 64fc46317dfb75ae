"""Waiting rooms: places in order, a window that moves, passes that are shown at any node.

RULE: one who joined shows its own pass only; who got no answer has no place to show.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.rooms import Places
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting
from jepsen.workloads.base import Arena

SETTINGS: Final[dict[str, Any]] = {
    "window_size": 4,
    "window_interval_ms": 1_000,
    "active_windows": 2,
}
PLACES_KEPT: Final = 12
"""How many of its places a client still asks for."""

SHOWN_AT_END: Final = 300


class Rooms(Acting):
    """Clients that join one room and come back to ask, and one who looks at the whole."""

    name = "rooms"

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._places: list[tuple[int, str]] = []

    def checkers(self) -> Sequence[Checker]:
        return [Places(), Durability()]

    async def prepare(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/prepare")
            await call(client, "room.set", self.unique(arena), retry_s=SETTLE_S, **SETTINGS)

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            yield self._visit(client, RETRY_S if number % 2 else 0.0)
        yield self._look(links.client(0, f"{self.name}/look"))

    async def settle(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            some = min(len(self._places), SHOWN_AT_END)
            for position, token in client.rng.sample(self._places, some):
                await self._show(client, position, token, SETTLE_S)
            await call(client, "room.read", self.unique(arena), retry_s=SETTLE_S)

    async def _visit(self, client: Client, retry_s: float) -> None:
        rng, name = client.rng, self.unique(client.arena)
        places: list[tuple[int, str]] = []
        while await self.goes_on(client):
            if not places or rng.random() < 0.2:
                reply = await call(client, "room.join", name, retry_s=retry_s)
                if reply.is_ok:
                    places.append((reply.body["position"], reply.body["token"]))
                    self._places.append(places[-1])
                    del places[:-PLACES_KEPT]
            if places:
                await self._show(client, *rng.choice(places), 0.0)

    async def _show(self, client: Client, position: int, token: str, retry_s: float) -> None:
        await call(
            client,
            "room.status",
            self.unique(client.arena),
            retry_s=retry_s,
            headers={"Authorization": f"Bearer {token}"},
            shown={"position": position},
        )

    async def _look(self, client: Client) -> None:
        while await self.goes_on(client):
            await call(client, "room.read", self.unique(client.arena))
