"""Jobs: put now and for later, reserved by workers of all kinds, done, dropped, buried, cancelled.

RULE: every body is unique, so that a job is known by it even where the answer to its put was lost.
Workers die in both ways: by hanging up, and by saying nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.jobs import Jobs as JobsChecker
from jepsen.checkers.linear import LinearJobs
from jepsen.checkers.locks import Tokens
from jepsen.checkers.sessions import Sessions
from jepsen.clients import Ask, Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, Seat
from jepsen.workloads.base import Arena

TTRS_MS: Final = (1_000, 1_500, 3_000)
SESSION_TTL_MS: Final = 1_500
STATES: Final = ("ready", "delayed", "reserved", "buried")
DRAIN_TURNS_MAX: Final = 400
KEPT: Final = 30
"""Of the jobs that were put last, for who cancels and looks."""


class Jobs(Acting):
    """Two who put, some who work (half of them under a session), one who cancels, kicks and looks."""

    name = "jobs"
    clients = 5
    producers = 2
    count = 2

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._put: list[tuple[str, int]] = []

    def checkers(self) -> Sequence[Checker]:
        return [JobsChecker(), LinearJobs(), Tokens(), Sessions(), Durability()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.producers):
            client = links.client(number, f"{self.name}/producer/{number}")
            yield self._produce(client, RETRY_S if number % 2 else 0.0)
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            if number % 2:
                seat = self.seat(client, SESSION_TTL_MS)
                yield self._work(client, seat)
                yield seat.keep()
            else:
                yield self._work(client, None)
        yield self._meddle(links.client(0, f"{self.name}/meddler"))

    async def settle(self, arena: Arena) -> None:
        """Take up everything that is left and end it, then list what should be nothing."""
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            await self.end_seats(client)
            for tube in self._tubes(arena):
                await self._drain(client, tube)
                await list_jobs(client, tube, SETTLE_S)

    def _tubes(self, arena: Arena) -> list[str]:
        return [self.unique(arena, number) for number in range(self.count)]

    async def _produce(self, client: Client, retry_s: float) -> None:
        rng, number = client.rng, 0
        while await self.goes_on(client):
            number += 1
            tube = rng.choice(self._tubes(client.arena))
            fields: dict[str, Any] = {
                "body": f"{client.name}-{number}",
                "ttr_ms": rng.choice(TTRS_MS),
            }
            if rng.random() < 0.3:
                fields["delay_ms"] = rng.randrange(200, 1_500)
            if rng.random() < 0.2:
                fields["priority"] = rng.randrange(5)
            reply = await call(client, "job.put", tube, retry_s=retry_s, **fields)
            if reply.is_ok:
                self._put.append((tube, reply.body["job"]))

    async def _work(self, client: Client, seat: Seat | None) -> None:
        rng = client.rng
        while await self.goes_on(client):
            fields: dict[str, Any] = {"limit": rng.choice((1, 1, 2, 3))}
            if seat is not None:
                session = await seat.open()
                if session is None:
                    continue
                fields["session"] = session
            if rng.random() < 0.7:
                fields["wait_ms"] = rng.randrange(100, 1_200)
            tube = rng.choice(self._tubes(client.arena))
            hangs_up = "wait_ms" in fields and rng.random() < 0.08
            try:
                async with asyncio.timeout(0.05 + 0.1 * rng.random() if hangs_up else None):
                    reply = await call(client, "job.reserve", tube, **fields)
            except TimeoutError:
                continue
            if not reply.is_ok:
                if seat is not None:
                    await seat.learn(reply)
                continue
            if seat is not None and rng.random() < 0.04:
                # It dies with all it has; the cluster hears of it by its silence.
                seat.drop()
                continue
            for job in reply.body["jobs"]:
                await self._finish(client, tube, job["job"], job["token"])

    async def _finish(self, client: Client, tube: str, job: int, token: int) -> None:
        rng = client.rng
        await self.goes_on(client)
        if rng.random() < 0.15:
            await call(client, "job.touch", tube, retry_s=RETRY_S, job=job, token=token)
        end = rng.choices(
            ("job.delete", "job.release", "job.bury", "later", ""), (60, 12, 8, 8, 12)
        )[0]
        if end == "later":
            # Too late, mostly: its time is over, and somebody else has it.
            await client.arena.rest(rng.choice(TTRS_MS) / 1_000)
            end = "job.delete"
        if end:
            delay: dict[str, Any] = (
                {"delay_ms": rng.choice((0, 300))} if end == "job.release" else {}
            )
            await call(client, end, tube, retry_s=RETRY_S, job=job, token=token, **delay)

    async def _meddle(self, client: Client) -> None:
        rng = client.rng
        while await self.goes_on(client):
            tube = rng.choice(self._tubes(client.arena))
            what = rng.choices(("cancel", "read", "kick", "kick_tube"), (3, 5, 2, 1))[0]
            if what == "kick_tube":
                await call(client, "job.kick_tube", tube, retry_s=RETRY_S, bound=5)
            elif self._put:
                tube, job = rng.choice(self._put[-KEPT:])
                retry_s = 0.0 if what == "read" else RETRY_S
                await call(client, f"job.{what}", tube, retry_s=retry_s, job=job)

    async def _drain(self, client: Client, tube: str) -> None:
        """End every job, those too whose workers are gone and whose delay is not over."""
        for _ in range(DRAIN_TURNS_MAX):
            await call(client, "job.kick_tube", tube, retry_s=SETTLE_S, bound=1_000)
            reply = await call(client, "job.reserve", tube, retry_s=SETTLE_S, limit=50, wait_ms=300)
            jobs = reply.body["jobs"] if reply.is_ok else []
            for job in jobs:
                await call(
                    client,
                    "job.delete",
                    tube,
                    retry_s=SETTLE_S,
                    job=job["job"],
                    token=job["token"],
                )
            if reply.is_ok and not jobs and await _is_empty(client, tube):
                return


async def list_jobs(client: Client, tube: str, retry_s: float = 0.0) -> None:
    """Every live job of a tube, all pages of all states, as one operation."""
    asks = [
        Ask("GET", f"/v1/tubes/{_quoted(tube)}/jobs?state={state}&limit=200", is_read=True)
        for state in STATES
    ]
    await client.pages("job.list", tube, asks, "jobs", retry_s=retry_s)


async def _is_empty(client: Client, tube: str) -> bool:
    node = client.pick()
    ask = Ask("GET", f"/v1/tubes/{_quoted(tube)}", is_read=True)
    reply = await client.links.send(client.slot, node, ask)
    return reply.is_ok and not any(reply.body[state] for state in STATES)


def _quoted(name: str) -> str:
    return quote(name, safe="")
