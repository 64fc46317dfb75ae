"""Waiting rooms: take a place, and wait until it is let in.

RULE: what is asked for and what came; how long to pause between two looks is told by the room.

    place = await client.room("sale").join()
    await place.until_active(wait="10m")
    show_shop(place.token)                     # the signed pass
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from cluster.client.core import Request, new_key, path_of, value_of
from cluster.client.durations import Length, ms_of
from cluster.client.refusals import NotYourTurn
from cluster.errors import LockLost

if TYPE_CHECKING:
    from cluster.client.aio import Client

PAUSE_MS_LEAST = 100
PAUSE_MS_MOST = 5_000


class Standing(msgspec.Struct, frozen=True):
    """Where a place stands.

    Attributes:
        status: waiting, active or expired.
        ahead: places before it that are not let in either.
        eta_ms: until it is.
    """

    position: int
    status: str
    ahead: int
    eta_ms: int


class Room:
    """One waiting room, by its name."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.name = name

    async def set(
        self, *, window_size: int, window_interval: Length, active_windows: int
    ) -> dict[str, Any]:
        """Make it, or change how it admits: so many places, an interval apart."""
        body: dict[str, object] = {
            "window_size": window_size,
            "window_interval": ms_of(window_interval, "window_interval"),
            "active_windows": active_windows,
        }
        request = Request("PUT", path_of("rooms", self.name), body, key=new_key())
        return (await self.client.call(request)).body

    async def show(self) -> dict[str, Any]:
        """Read its settings and figures."""
        return (await self.client.call(Request("GET", path_of("rooms", self.name)))).body

    async def delete(self) -> None:
        """Take it away, with all its places."""
        await self.client.call(Request("DELETE", path_of("rooms", self.name), key=new_key()))

    async def join(self) -> Place:
        """Take a place."""
        request = Request("POST", path_of("rooms", self.name, "join"), key=new_key())
        answer = await self.client.call(request)
        return Place(self, answer.body["token"], value_of(answer, Standing))

    def place(self, token: str) -> Place:
        """A place that was taken before, by its pass."""
        return Place(self, token, None)


class Place:
    """A place in a room.

    Attributes:
        token: the signed pass; whoever has it has the place.
        standing: as it was last told; None if it never was.
    """

    def __init__(self, room: Room, token: str, standing: Standing | None):
        self.room = room
        self.token = token
        self.standing = standing

    async def status(self) -> Standing:
        """Ask where it stands.

        Raises:
            PassInvalid: the pass is of no room of this name that is there.
        """
        path = path_of("rooms", self.room.name, "status")
        answer = await self.room.client.call(Request("GET", path, bearer=self.token))
        self.standing = value_of(answer, Standing)
        return self.standing

    async def until_active(self, *, wait: Length | None = None) -> Standing:
        """Return once it is let in.

        Raises:
            NotYourTurn: it was not let in within `wait`.
            LockLost: it was let in, and its time is over.
        """
        clock = self.room.client.clock
        until_ms = None if wait is None else clock() + ms_of(wait, "wait")
        while (standing := await self.status()).status == "waiting":
            pause_ms = min(max(standing.eta_ms, PAUSE_MS_LEAST), PAUSE_MS_MOST)
            if until_ms is not None:
                left_ms = until_ms - clock()
                if left_ms <= 0:
                    raise NotYourTurn(
                        f'{standing.ahead} ahead in room "{self.room.name}"',
                        reason={"name": self.room.name, **msgspec.structs.asdict(standing)},
                    )
                pause_ms = min(pause_ms, left_ms)
            await asyncio.sleep(pause_ms / 1_000)
        if standing.status != "active":
            detail = f'place {standing.position} in room "{self.room.name}" has expired'
            raise LockLost(detail, kind="place", name=self.room.name)
        return standing
