"""Workloads: what they promise to do they do, their checkers accept a calm cluster, and see a lie.

RULE: all run at once on one calm cluster, each with a history of its own; then all again, each with
one lie planted between the cluster and its clients.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from jepsen.clients import Ask, Event, Links, Reply
from jepsen.history import Line, Type, operations
from jepsen.workloads import WORKLOADS, Arena, Workload, make
from jepsen.workloads.fenced import Fenced, Store, Unfenced
from jepsen.workloads.watch import Watch
from msgspec.structs import replace

from tests.jepsen.calm import arena_at, calm_cluster

pytestmark = pytest.mark.asyncio(loop_scope="module")

RUN_S = 2.5
"""At the least; a busy machine gets more, until what is promised was done."""

RUN_S_MAX = 20.0
PACE_S = 0.1

PROMISES: dict[str, dict[str, int]] = {
    "locks": {"lock.acquire": 10, "lock.release": 10, "lock.check": 2, "lock.read": 6},
    "shared-locks": {"lock.acquire": 10, "lock.release": 10, "lock.read": 6},
    "multilocks": {"lock.acquire_many": 5, "lock.release_many": 5, "lock.acquire": 2},
    "fenced": {"store.read": 10, "store.write": 10, "lock.acquire": 10},
    "unfenced": {"store.read": 10, "store.write": 10, "lock.acquire": 10},
    "semaphores": {"semaphore.acquire": 10, "semaphore.release": 10, "semaphore.read": 4},
    "tickets": {"ticket.issue": 4, "ticket.claim": 5, "ticket.release": 5, "ticket.read": 4},
    "fifos": {"fifo.join": 6, "fifo.wait": 3, "fifo.done": 3, "fifo.read": 4},
    "rooms": {"room.join": 6, "room.status": 10, "room.read": 4},
    "jobs": {"job.put": 8, "job.reserve": 8, "job.delete": 5, "job.list": 2},
    "tasks": {"task.put": 3, "task.work": 8, "task.finish": 3, "task.read": 4},
    "sessions": {"session.open": 5, "session.keepalive": 3, "session.read": 10},
    "watch": {"lock.acquire": 6, "job.put": 1},
    "exactly-once": {"session.open": 2, "job.put": 2, "fifo.join": 2, "semaphore.acquire": 2},
    "mixed": {"lock.acquire_many": 1, "job.put": 1, "fifo.join": 1, "task.work": 1},
}
"""How often each verb succeeds at the least."""

LINES_WITH_A_LIE = 200
AT_END = {"job.list"}
"""Verbs of the settling."""


async def lived(
    workload: Workload, arena: Arena, is_enough: Callable[[str, list[Line]], bool]
) -> list[Line]:
    """Its history: prepared, run until it is enough, settled."""
    await workload.prepare(arena)
    running = asyncio.create_task(workload.run(arena))
    ends_at = time.monotonic() + RUN_S_MAX
    await asyncio.wait([running], timeout=RUN_S)
    lines = arena.recorder.lines
    while not is_enough(workload.name, lines) and time.monotonic() < ends_at:
        await asyncio.wait([running], timeout=0.2)
    arena.stop.set()
    await running
    arena.recorder.note(-1, Type.INFO, "heal")
    await workload.settle(arena)
    return lines


def is_as_promised(name: str, lines: list[Line]) -> bool:
    """All that is promised was done, but for what belongs to settling."""
    counts = Counter(line.f for line in lines if line.type is Type.OK)
    return all(counts[f] >= least for f, least in PROMISES[name].items() if f not in AT_END)


def is_something(_name: str, lines: list[Line]) -> bool:
    """So much was done that a lie is among it."""
    return len(lines) >= LINES_WITH_A_LIE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def histories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Line]]:
    """By name of the workload."""
    return await all_lived(
        tmp_path_factory.mktemp("calm"),
        {name: make(name, pace_s=PACE_S) for name in WORKLOADS},
        is_as_promised,
    )


async def all_lived(
    folder: Path,
    workloads: dict[str, Workload],
    is_enough: Callable[[str, list[Line]], bool],
) -> dict[str, list[Line]]:
    """Histories of all, run side by side on one cluster."""
    async with calm_cluster(folder) as urls, asyncio.TaskGroup() as group:
        # Seeds of their own: names and keys come from them, and they share the cluster.
        tasks = {
            name: group.create_task(lived(workload, arena_at(urls, seed), is_enough))
            for seed, (name, workload) in enumerate(workloads.items())
        }
    return {name: task.result() for name, task in tasks.items()}


@pytest.mark.parametrize("name", WORKLOADS)
async def test_it_does_what_it_promises(histories: dict[str, list[Line]], name: str) -> None:
    """Every verb of it succeeds some times, and in calm nothing stays open but what hung up."""
    done = operations(histories[name])
    counts = Counter(one.f for one in done if one.outcome is Type.OK)
    few = {f: counts[f] for f, least in PROMISES[name].items() if counts[f] < least}
    assert not few, counts
    # Renewals have less patience than a busy machine may ask for.
    is_open = [one for one in done if one.is_open and not one.f.startswith("session.keepalive")]
    assert {one.error for one in is_open} <= {"hung_up"}


@pytest.mark.parametrize("name", WORKLOADS)
async def test_its_checkers_accept_a_calm_cluster(
    histories: dict[str, list[Line]], name: str
) -> None:
    """Each of them, decided and well."""
    for checker in make(name).checkers():
        verdict = checker.check(histories[name])
        assert verdict.valid is True, verdict


# Lies.

Warp = Callable[[Ask, Reply], Reply]
SPARED = 4
"""So many answers of a kind are left true first, so that the lie falls among others."""

TOLD = 6
"""So often is a lie told that would keep a workload from settling."""


def granted_though_refused(code: str) -> Warp:
    """A refused acquire is turned into a grant, under tokens that nobody has."""

    def warp(ask: Ask, reply: Reply) -> Reply:
        if reply.error != code or ask.body is None:
            return reply
        token = (reply.body.get("holder_token") or 0) + 1
        body = {"mode": "exclusive", **ask.body, "token": token}
        if "locks" in ask.body:
            asked = enumerate(ask.body["locks"], token)
            body = {"locks": [{**lock, "token": number} for number, lock in asked]}
        return Reply(Type.OK, 200, body, "", reply.index, reply.node)

    return warp


def changed(
    fits: Callable[[Ask, Reply], bool],
    change: Callable[[Ask, Any], Any],
    spared: int = SPARED,
) -> Warp:
    """The bodies of answers that fit are changed, but for the first few."""
    seen = 0

    def warp(ask: Ask, reply: Reply) -> Reply:
        nonlocal seen
        if not reply.is_ok or not fits(ask, reply):
            return reply
        seen += 1
        return reply if seen <= spared else replace(reply, body=change(ask, reply.body))

    return warp


def ended(fits: Callable[[Ask, Reply], bool]) -> Warp:
    """What is alive is said to have ended."""
    body = {"code": "session_expired", "definite": True}

    def warp(ask: Ask, reply: Reply) -> Reply:
        if not reply.is_ok or not fits(ask, reply):
            return reply
        session = {"session": reply.body["session"]}
        return replace(
            reply, outcome=Type.FAIL, status=410, error="session_expired", body=body | session
        )

    return warp


def same_again(path_end: str, member: str) -> Warp:
    """What one was given is given to the next as well, a few times."""
    last: Any = None
    seen = 0

    def warp(ask: Ask, reply: Reply) -> Reply:
        nonlocal last, seen
        if not reply.is_ok or not ask.path.endswith(path_end) or not reply.body[member]:
            return reply
        seen += 1
        mine, last = last, reply.body[member]
        if not SPARED < seen <= SPARED + TOLD:
            return reply
        return replace(reply, body={**reply.body, member: mine})

    return warp


def other_answer_to_repeats() -> Warp:
    """Whoever repeats a request gets a token of its own."""
    seen: set[str] = set()

    def warp(ask: Ask, reply: Reply) -> Reply:
        if not reply.is_ok or ask.key is None or "token" not in (reply.body or {}):
            return reply
        if ask.key not in seen:
            seen.add(ask.key)
            return reply
        return replace(reply, body={**reply.body, "token": reply.body["token"] + 1})

    return warp


def _ends(path_end: str) -> Callable[[Ask, Reply], bool]:
    return lambda ask, _reply: ask.path.endswith(path_end)


def _shows_a_session(ask: Ask, _reply: Reply) -> bool:
    return ask.is_read and ask.path.startswith("/v1/sessions/")


class DeafLinks(Links):
    """Streams that leave out a grant, each time they are opened."""

    @asynccontextmanager
    async def stream(
        self, slot: int, node: str, path: str, *, last_id: int | None = None
    ) -> AsyncIterator[AsyncIterator[Event]]:
        async with super().stream(slot, node, path, last_id=last_id) as events:
            yield self._without_some(events)

    async def _without_some(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        count = 0
        async for event in events:
            count += event.what == "granted"
            # The last of all ends the settling, and is heard.
            if event.what != "granted" or count != SPARED or self.arena.stop.is_set():
                yield event


class DeafWatch(Watch):
    def links(self, arena: Arena) -> Links:
        return DeafLinks(arena)


class CarelessFenced(Fenced):
    """The store of the checked experiment checks nothing."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._store = Store(is_fenced=False)


class CarefulUnfenced(Unfenced):
    """The store of the negative control checks."""

    def __init__(self, **options: Any):
        super().__init__(**options)
        self._store = Store(is_fenced=True)


LIES: dict[str, tuple[Callable[..., Workload], str]] = {
    "locks": (
        lambda **options: make("locks", warp=granted_though_refused("lock_held"), **options),
        "K2",
    ),
    "shared-locks": (
        lambda **options: make("shared-locks", warp=granted_though_refused("lock_held"), **options),
        "K2",
    ),
    "multilocks": (
        lambda **options: make("multilocks", warp=granted_though_refused("lock_held"), **options),
        "K2",
    ),
    "fenced": (CarelessFenced, "K3"),
    "unfenced": (CarefulUnfenced, "K3"),
    "semaphores": (
        lambda **options: make(
            "semaphores", warp=granted_though_refused("semaphore_full"), **options
        ),
        "K1",
    ),
    "tickets": (
        lambda **options: make("tickets", warp=same_again("/claim", "ticket"), **options),
        "K4",
    ),
    "fifos": (
        lambda **options: make(
            "fifos",
            warp=changed(
                lambda ask, reply: ask.is_read and "position" in reply.body,
                lambda _ask, body: {**body, "position": body["position"] + 50},
                spared=0,
            ),
            **options,
        ),
        "K5",
    ),
    "rooms": (
        lambda **options: make(
            "rooms",
            warp=changed(_ends("/join"), lambda _ask, body: {**body, "position": 1}),
            **options,
        ),
        "K4",
    ),
    "jobs": (
        lambda **options: make("jobs", warp=same_again("/reserve", "jobs"), **options),
        "K7",
    ),
    "tasks": (
        lambda **options: make(
            "tasks",
            warp=changed(
                lambda ask, _reply: ask.is_read,
                lambda _ask, body: {**body, "free_count": body["run_count"] + 1},
            ),
            **options,
        ),
        "K8",
    ),
    "sessions": (
        lambda **options: make(
            "sessions",
            warp=ended(_shows_a_session),
            **options,
        ),
        "K6",
    ),
    "watch": (DeafWatch, "K10"),
    "exactly-once": (
        lambda **options: make("exactly-once", warp=other_answer_to_repeats(), **options),
        "K9",
    ),
    "mixed": (
        lambda **options: make("mixed", warp=ended(_shows_a_session), **options),
        "K6",
    ),
}
"""By workload: it with a lie, and the row of the checks that has to see it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Line]]:
    """Histories with a lie in each."""
    liars = {name: make_liar(pace_s=PACE_S) for name, (make_liar, _) in LIES.items()}
    return await all_lived(tmp_path_factory.mktemp("lies"), liars, is_something)


@pytest.mark.parametrize("name", LIES)
async def test_its_checkers_see_a_lie(lies: dict[str, list[Line]], name: str) -> None:
    """The row that it is about complains, and shows the lines."""
    row = LIES[name][1]
    verdicts = [checker.check(lies[name]) for checker in make(name).checkers()]
    about = [verdict for verdict in verdicts if verdict.check.split()[0] == row]
    # The control that lost nothing has shown nothing: it passes only by losing.
    wrong = (None,) if name == "unfenced" else (False,)
    assert any(verdict.valid in wrong for verdict in about), verdicts
