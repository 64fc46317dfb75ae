"""Watching: several streams over the same events, through cuts, resumes and slowness.

RULE: the load makes events of locks and jobs at a known pace; every stream and one who polls pages
take down all they are told.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from jepsen.calls import call
from jepsen.checkers.locks import MutualExclusion
from jepsen.checkers.sessions import Sessions
from jepsen.checkers.streams import Streams
from jepsen.clients import Ask, Client, Links
from jepsen.history import Type
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, Seat, together
from jepsen.workloads.base import Arena
from jepsen.workloads.watching import WATCHER, Stream

TTL_MS: Final = 3_000
POLL_LIMIT: Final = 50


class Watch(Acting):
    """Clients that make events; streams of several kinds; one who polls."""

    name = "watch"
    clients = 3
    count = 3

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._streams: list[Stream] = []
        self._polled: int | None = None

    def checkers(self) -> Sequence[Checker]:
        return [Streams(), MutualExclusion(), Sessions()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        arena = links.arena
        below = [f"/locks/{self.unique(arena)}/", f"/tubes/{self.unique(arena)}/"]
        kinds: list[dict[str, Any]] = [
            {"prefixes": below},
            {"prefixes": below, "cut_s": 0.7},
            {"prefixes": below, "cut_s": 2.0},
            {"prefixes": below, "rest_s": 0.03},
            {"prefixes": below[:1], "cut_s": 1.0},
        ]
        self._streams = [
            Stream(links, number, self.unique(arena, "stream", number), **kind)
            for number, kind in enumerate(kinds)
        ]
        for stream in self._streams:
            yield stream.follow(links)
        yield self._poll(links.client(0, f"{self.name}/poll"), below)
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            seat = self.seat(client, TTL_MS)
            yield self._act(client, seat)
            yield seat.keep()

    async def settle(self, arena: Arena) -> None:
        """End everything, then let every stream hear of it."""
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            await self.end_seats(client)
            opened = await call(client, "session.open", retry_s=SETTLE_S, ttl_ms=60_000)
            if not opened.is_ok:
                return
            session, lock = opened.body["session"], self.unique(arena, "last")
            last = await call(client, "lock.acquire", lock, retry_s=SETTLE_S, session=session)
            if last.is_ok:
                # Its event is the last that any stream has to hear.
                await together(
                    stream.follow(links, until=last.body["token"], within_s=SETTLE_S)
                    for stream in self._streams
                )
            await call(client, "session.close", session, retry_s=SETTLE_S)

    async def _act(self, client: Client, seat: Seat) -> None:
        rng, number = client.rng, 0
        locks = [self.unique(client.arena, number) for number in range(self.count)]
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            if rng.random() < 0.3:
                number += 1
                body = f"{client.name}-{number}"
                tube = self.unique(client.arena, "tube")
                put = await call(client, "job.put", tube, retry_s=RETRY_S, body=body)
                if put.is_ok:
                    await call(client, "job.cancel", tube, retry_s=RETRY_S, job=put.body["job"])
                continue
            lock = rng.choice(locks)
            reply = await call(
                client, "lock.acquire", lock, retry_s=RETRY_S, session=session, wait_ms=300
            )
            if not reply.is_ok:
                await seat.learn(reply)
                continue
            released = await call(
                client,
                "lock.release",
                lock,
                retry_s=RETRY_S,
                session=session,
                token=reply.body["token"],
            )
            await seat.learn(released)

    async def _poll(self, client: Client, prefixes: Sequence[str]) -> None:
        """Pages of events, taken down as a stream is."""
        recorder, name = client.arena.recorder, self.unique(client.arena, "poll")
        wanted = "&".join(f"prefix={quote(prefix, safe='/')}" for prefix in prefixes)
        while await self.goes_on(client):
            after = "" if self._polled is None else f"&after={self._polled}"
            ask = Ask("GET", f"/v1/events?{wanted}&limit={POLL_LIMIT}{after}", is_read=True)
            node = client.pick()
            reply = await client.links.send(client.slot, node, ask)
            if not reply.is_ok:
                continue
            asked = {"prefix": list(prefixes), "after": self._polled, "node": node}
            recorder.note(WATCHER, Type.INFO, "watch.ask", name, asked, node=node)
            page = reply.body
            if page["lost"]:
                lost = {"lost_after": self._polled, "from": page["next"]}
                recorder.note(WATCHER, Type.INFO, "watch.resync", name, lost, node=node)
            for event in page["events"]:
                recorder.note(WATCHER, Type.INFO, "watch.event", name, event, node=node)
            self._polled = page["next"]
            marked = {"index": self._polled}
            recorder.note(WATCHER, Type.INFO, "watch.bookmark", name, marked, node=node)
