"""Tasks: work in fair shares among those who come, leave and die, and slots of schedules.

RULE: a session asks for work from one process only; what it holds is what the last answer said.
"""

from __future__ import annotations

import itertools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final

from jepsen.calls import call
from jepsen.checkers.durability import Durability
from jepsen.checkers.locks import Tokens
from jepsen.checkers.sessions import Sessions
from jepsen.checkers.tasks import Tasks as TasksChecker
from jepsen.clients import Client, Links
from jepsen.verdicts import Checker
from jepsen.workloads.acting import RETRY_S, SETTLE_S, Acting, Seat
from jepsen.workloads.base import Arena

TTLS_MS: Final = (1_500, 3_000)
EVERY_MS: Final = 1_000
CATCHUP_MS: Final = 5_000
OPEN_TASKS: Final = 8
"""About so many wait to be done once."""

DRAIN_TURNS_MAX: Final = 100


class Tasks(Acting):
    """One who puts tasks, some who work, one who looks at the pool."""

    name = "tasks"
    clients = 4

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._open: set[str] = set()

    def checkers(self) -> Sequence[Checker]:
        return [TasksChecker(), Tokens(), Sessions(), Durability()]

    async def prepare(self, arena: Arena) -> None:
        """Put the scheduled ones: one for each way to deal with a run that still lives."""
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/prepare")
            tasks = [
                {
                    "id": f"every-{overlap}",
                    "data": overlap,
                    "schedule": {
                        "every_ms": EVERY_MS,
                        "overlap": overlap,
                        "catchup_window_ms": CATCHUP_MS,
                    },
                }
                for overlap in ("skip", "buffer", "allow")
            ]
            await call(
                client,
                "task.put",
                self.unique(arena),
                retry_s=SETTLE_S,
                tasks=tasks,
                give_back=True,
            )

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        yield self._feed(links.client(0, f"{self.name}/feeder"))
        for number in range(self.clients):
            client = links.client(number, f"{self.name}/{number}")
            seat = self.seat(client, client.rng.choice(TTLS_MS))
            yield self._work(client, seat)
            yield seat.keep()
        yield self._look(links.client(1, f"{self.name}/look"))

    async def settle(self, arena: Arena) -> None:
        """Take away the schedules, do what is left, look at the pool."""
        async with self.links(arena) as links:
            client, pool = links.client(0, f"{self.name}/settle"), self.unique(arena)
            await self.end_seats(client)
            await call(client, "task.read", pool, retry_s=SETTLE_S)
            for overlap in ("skip", "buffer", "allow"):
                await call(client, "task.remove", pool, retry_s=SETTLE_S, id=f"every-{overlap}")
            seat = self.seat(client, 60_000)
            for _ in range(DRAIN_TURNS_MAX):
                session = await seat.open()
                if session is None:
                    continue
                reply = await call(
                    client, "task.work", pool, retry_s=SETTLE_S, session=session, wait_ms=0
                )
                if not reply.is_ok or not reply.body["tasks"]:
                    break
                done = [{"id": task["id"], "token": task["token"]} for task in reply.body["tasks"]]
                await call(
                    client, "task.finish", pool, retry_s=SETTLE_S, session=session, tasks=done
                )
            await call(client, "task.read", pool, retry_s=SETTLE_S)
            await self.end_seats(client)

    async def _feed(self, client: Client) -> None:
        pool, numbers = self.unique(client.arena), itertools.count()
        while await self.goes_on(client):
            missing = OPEN_TASKS - len(self._open)
            if missing <= 0:
                continue
            fresh = [f"once-{next(numbers)}" for _ in range(min(missing, 3))]
            self._open.update(fresh)
            tasks = [{"id": id, "data": id} for id in fresh]
            await call(client, "task.put", pool, retry_s=RETRY_S, tasks=tasks)

    async def _work(self, client: Client, seat: Seat) -> None:
        rng, pool = client.rng, self.unique(client.arena)
        while await self.goes_on(client):
            session = await seat.open()
            if session is None:
                continue
            reply = await call(
                client,
                "task.work",
                pool,
                retry_s=RETRY_S,
                session=session,
                wait_ms=rng.choice((0, 0, 400)),
            )
            if not reply.is_ok:
                await seat.learn(reply)
                continue
            held = [{"id": task["id"], "token": task["token"]} for task in reply.body["tasks"]]
            await self.goes_on(client)
            what = rng.choices(("finish", "release", "nothing", "leave", "die"), (50, 8, 35, 5, 2))
            await self._then(client, seat, session, what[0], held)

    async def _then(
        self, client: Client, seat: Seat, session: str, what: str, held: list[dict[str, Any]]
    ) -> None:
        """One thing to do with what is held."""
        rng, pool = client.rng, self.unique(client.arena)
        if what == "die":
            seat.drop()
        elif what == "leave":
            reply = await call(client, "task.leave", pool, retry_s=RETRY_S, session=session)
            await seat.learn(reply)
        elif what in {"finish", "release"} and held:
            some = rng.sample(held, rng.randrange(1, len(held) + 1))
            reply = await call(
                client, f"task.{what}", pool, retry_s=RETRY_S, session=session, tasks=some
            )
            if reply.is_ok and what == "finish":
                self._open.difference_update(reply.body["finished"])
            await seat.learn(reply)

    async def _look(self, client: Client) -> None:
        while await self.goes_on(client):
            await call(client, "task.read", self.unique(client.arena))
