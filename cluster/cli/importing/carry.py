"""Carrying: wishes to requests, answers to a tally.

RULE: the only part of an import that talks to the cluster. What the cluster refuses is noted and the
next one tried; when it does not answer at all, the import stops, and may be run again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cluster.cli.importing.wishes import Unfit, Wish
from cluster.client.aio import Client
from cluster.client.core import Request, path_of
from cluster.errors import Refused

AT_ONCE: Final = 32
TIMEOUT_MS: Final = 60_000

# What the cluster says where an earlier run, or somebody else, has brought the same thing. Delays
# are counted from now, so a repeated request is not quite the same: its key tells.
_THERE: Final = frozenset({"idempotency_key_reused", "duplicate_key"})


@dataclass(slots=True)
class Tally:
    """What became of everything, by kind."""

    taken: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    unfit: list[Unfit] = field(default_factory=list)

    def rows(self) -> list[tuple[str, int, int, int]]:
        """Kind, taken, there already, could not."""
        left = Counter(one.kind for one in self.unfit)
        kinds = dict.fromkeys([*self.taken, *self.there, *left])
        return [(kind, self.taken[kind], self.there[kind], left[kind]) for kind in kinds]


class Carrier:
    """Sends wishes.

    Args:
        client: of the cluster.
        progress: is told how many of how many are done.
        is_dry: every wish is granted, and none is sent.
    """

    def __init__(
        self, client: Client, progress: Callable[[int, int], None], *, is_dry: bool = False
    ) -> None:
        self._client = client
        self.is_dry = is_dry
        self._progress = progress
        self.tally = Tally()
        self._done = 0
        self._expected = 0

    def expect(self, count: int) -> None:
        """Announce how many more there will be."""
        self._expected += count

    async def all(self, wishes: Iterable[Wish]) -> None:
        """Send all of them: lanes in their order, side by side."""
        lanes: dict[str | None, list[Wish]] = {}
        for wish in wishes:
            lanes.setdefault(wish.lane, []).append(wish)
        self.expect(sum(map(len, lanes.values())))
        places = asyncio.Semaphore(AT_ONCE)

        async def follow(lane: list[Wish]) -> None:
            for wish in lane:
                async with places:
                    await self.one(wish)

        async with asyncio.TaskGroup() as group:
            for lane in [lane for name, lane in lanes.items() if name is not None]:
                group.create_task(follow(lane))
            free = iter(lanes.get(None, ()))
            for _ in range(AT_ONCE):
                group.create_task(self._several(free))

    async def _several(self, wishes: Iterable[Wish]) -> None:
        for wish in wishes:
            await self.one(wish)

    async def one(self, wish: Wish) -> dict[str, object] | None:
        """Send one; its answer, or None where there is none to go on with."""
        body: dict[str, object] | None = None
        try:
            body = await self._granted(wish)
        except Refused as error:
            if error.code in _THERE:
                self.tally.there[wish.kind] += 1
            else:
                self.tally.unfit.append(Unfit(wish.kind, wish.name, error.detail))
        else:
            self.tally.taken[wish.kind] += 1
        self._step()
        return body

    def took(self, *kinds: str) -> None:
        """Note what was taken by other ways than wishes."""
        for kind in kinds:
            self.tally.taken[kind] += 1
            self._step()

    def refuse(self, unfit: Unfit) -> None:
        """Note what cannot be taken."""
        self.tally.unfit.append(unfit)

    def _step(self) -> None:
        self._done += 1
        self._progress(self._done, self._expected)

    async def _granted(self, wish: Wish) -> dict[str, object]:
        if self.is_dry:
            return {}
        body = await self.ask(wish.method, wish.path, wish.body, wish.key)
        if wish.buries:
            job = str(body["job"])
            key = None if wish.key is None else f"{wish.key}-"
            reserve, bury = (path_of("jobs", job, verb) for verb in ("reserve", "bury"))
            held = await self.ask("POST", reserve, {}, key and f"{key}reserve")
            await self.ask("POST", bury, {"token": held["token"]}, key and f"{key}bury")
        return body

    async def ask(
        self, method: str, path: str, body: Mapping[str, object] | None, key: str | None
    ) -> dict[str, object]:
        """Ask the cluster itself, unseen by the tally.

        Raises:
            CoterieError: it refuses, or does not answer.
        """
        # Without a key it sets something to a value: again is the same.
        request = Request(method, path, body, key=key, is_repeatable=key is None)
        return (await self._client.call(request, timeout_ms=TIMEOUT_MS)).body
