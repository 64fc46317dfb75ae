"""Both shells in one voice, so that a scenario is written once and said by each.

RULE: `spoken(client)` has the words of the asyncio client; those of a SyncClient are said in
threads. No word is known here that is not one of theirs, but for which of them only make something.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from cluster.client.aio import Client
from cluster.client.sync import SyncClient

# They ask nobody, and so are not awaited.
MAKERS = frozenset(
    {
        "candidate",
        "claim",
        "demand",
        "election",
        "fifo",
        "lock",
        "locks",
        "place",
        "pool",
        "resource",
        "room",
        "runner",
        "semaphore",
        "session",
        "stop",
        "task",
        "tube",
        "turn",
        "worker",
    }
)


class Spoken:
    """Something of the sync shell, in the words of the other."""

    def __init__(self, said: Any):
        self.said = said

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.said, name)
        if not callable(found):
            return wrapped(found)
        if name == "watch":
            return lambda *args, **kwargs: each(found, *args, **kwargs)
        # The client's own `lock` reads; a session's makes one.
        if name in MAKERS and not (name == "lock" and isinstance(self.said, SyncClient)):
            return lambda *args, **kwargs: wrapped(found(*args, **kwargs))

        async def say(*args: Any, **kwargs: Any) -> Any:
            return wrapped(await asyncio.to_thread(found, *args, **kwargs))

        return say

    async def __aenter__(self) -> Spoken:
        await asyncio.to_thread(self.said.__enter__)
        return self

    async def __aexit__(self, *left: Any) -> None:
        await asyncio.to_thread(self.said.__exit__, *left)


def wrapped(found: Any) -> Any:
    """What the sync shell gives back, in the same voice."""
    if isinstance(found, list):
        return [wrapped(each) for each in found]
    return Spoken(found) if type(found).__module__.startswith("cluster.client.sync") else found


async def each(watch: Callable[..., Any], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
    """The items of a generator, each got in a thread."""
    items = watch(*args, **kwargs)
    try:
        while (item := await asyncio.to_thread(next, items, None)) is not None:
            yield item
    finally:
        await asyncio.to_thread(items.close)


def spoken(shell: str, endpoint: str, **settings: Any) -> Any:
    """A client of one of the shells: asyncio or sync."""
    if shell == "asyncio":
        return Client(endpoint, **settings)
    return Spoken(SyncClient(endpoint, **settings))
