"""Semaphores and resources as those see them who set them up.

RULE: what is asked for and what came. Units and tickets are held by way of a session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cluster.client.core import Request, new_key, path_of

if TYPE_CHECKING:
    from cluster.client.aio import Client


class Semaphore:
    """One semaphore, by its name."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.name = name

    async def set_limit(self, limit: int) -> dict[str, Any]:
        """Make it, or give it another limit; who holds units keeps them."""
        request = Request("PUT", path_of("semaphores", self.name), {"limit": limit}, key=new_key())
        return (await self.client.call(request)).body

    async def show(self) -> dict[str, Any]:
        """Read its limit, holders and waiters."""
        return (await self.client.call(Request("GET", path_of("semaphores", self.name)))).body

    async def delete(self) -> None:
        """Take it away.

        Raises:
            SemaphoreInUse: somebody holds units, or waits for some.
        """
        await self.client.call(Request("DELETE", path_of("semaphores", self.name), key=new_key()))


class Resource:
    """One resource of which tickets are offered, by its name."""

    def __init__(self, client: Client, name: str):
        self.client = client
        self.name = name

    async def show(self) -> dict[str, Any]:
        """Read its tickets, who has them, and who waits."""
        return (await self.client.call(Request("GET", path_of("resources", self.name)))).body
