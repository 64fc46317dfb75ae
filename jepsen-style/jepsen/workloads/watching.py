"""One who watches: a stream of events over all its resumes, taken down as it is heard.

RULE: after a cut it goes on behind the last `id` it saw, at any node; what it is told then is the
cluster's affair, and is written down without a thought. Its lines are facts of no client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from jepsen.clients import Event, Links
from jepsen.history import Type
from jepsen.workloads.acting import unpaused

WATCHER: Final = -2
"""The process of its lines; -1 is the nemesis."""


class Stream:
    """A watcher of everything below some paths.

    Args:
        links: for its first life; `follow` may be called with others later.
        slot: whose links it uses.
        name: unique in the history.
        prefixes: of paths; none: all.
        cut_s: mean time after which it hangs up by itself; None: never.
        rest_s: pause after every event, as of one who is slow.

    Attributes:
        last_id: what it would come back with; None before anything was heard.
        newest_token: of all events so far.
    """

    def __init__(
        self,
        links: Links,
        slot: int,
        name: str,
        prefixes: Sequence[str] = (),
        *,
        cut_s: float | None = None,
        rest_s: float = 0.0,
    ):
        self.name = name
        self.last_id: int | None = None
        self.newest_token = 0
        self._slot = slot % links.arena.slots
        self._prefixes = list(prefixes)
        self._cut_s = cut_s
        self._rest_s = rest_s
        self._rng = links.arena.lots(f"stream/{name}")
        self._recorder = links.arena.recorder

    async def follow(
        self, links: Links, *, until: int | None = None, within_s: float = 60.0
    ) -> None:
        """Listen, and come back after every cut, to the end of the run.

        Args:
            links: connections to use.
            until: instead of to the end of the run, up to the event of this token.
            within_s: but no longer than that.
        """
        arena = links.arena
        deadline = time.monotonic() + within_s
        over = asyncio.Event() if until is not None else arena.stop
        while not over.is_set():
            if until is not None and (self.newest_token >= until or time.monotonic() > deadline):
                break
            await unpaused(arena, self._slot)
            node = self._rng.choice(arena.nodes)
            why = await self._life(links, node, over, until, deadline)
            self._note("watch.end", {"why": why}, node)
            await asyncio.sleep(0.05 * self._rng.uniform(0.5, 1.5))

    async def _life(
        self, links: Links, node: str, over: asyncio.Event, until: int | None, deadline: float
    ) -> str:
        """One connection; why it ended."""
        asked = {"prefix": self._prefixes, "after": self.last_id, "node": node}
        self._note("watch.ask", asked, node)
        query = "&".join(f"prefix={quote(prefix, safe='/')}" for prefix in self._prefixes)
        path = f"/v1/watch?{query}"
        cut_s = None if self._cut_s is None else self._rng.expovariate(1 / self._cut_s)
        ends = asyncio.ensure_future(over.wait())
        try:
            async with asyncio.timeout(cut_s):
                async with links.stream(self._slot, node, path, last_id=self.last_id) as events:
                    while not over.is_set():
                        step = asyncio.ensure_future(anext(events, None))
                        try:
                            await asyncio.wait(
                                {step, ends},
                                timeout=None if until is None else deadline - time.monotonic(),
                                return_when=asyncio.FIRST_COMPLETED,
                            )
                        finally:
                            # Also one that is done: nobody else may ask for its error.
                            step.cancel()
                            await asyncio.gather(step, return_exceptions=True)
                        if step.cancelled():
                            return "stopped"
                        event = step.result()
                        if event is None:
                            return "ended"
                        if event.what == "bye":
                            return "bye"
                        self._heard(event, node)
                        if until is not None and self.newest_token >= until:
                            return "stopped"
                        if self._rest_s and until is None:
                            await asyncio.sleep(self._rest_s)
                    return "stopped"
        except TimeoutError:
            return "hung up"
        except (aiohttp.ClientError, OSError):
            return "cut"
        finally:
            ends.cancel()

    def _heard(self, event: Event, node: str) -> None:
        if event.what == "open":
            self._note("watch.open", event.data, node)
        elif event.what == "resync":
            self._note("watch.resync", event.data, node)
        elif event.data is not None:
            self._note("watch.event", event.data, node)
            self.newest_token = max(self.newest_token, event.data.get("token") or 0)
        elif event.id is not None:
            self._note("watch.bookmark", {"index": event.id}, node)
        if event.id is not None:
            self.last_id = event.id

    def _note(self, f: str, value: Any, node: str) -> None:
        self._recorder.note(WATCHER, Type.INFO, f, self.name, value, node=node)
