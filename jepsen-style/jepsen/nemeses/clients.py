"""Clients: paused while they hold something, cut off in the middle of a request, seeing too little.

RULE: touches the clients' side only: their slots and their links.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jepsen.nemeses import network
from jepsen.nemeses.base import Fault, Make, Scene, Touched, meanwhile

FAMILY = "clients"


@asynccontextmanager
async def paused(scene: Scene) -> AsyncIterator[Touched]:
    """The clients of some slots stand still between learning that they may and doing it."""
    slots = _some_slots(scene)
    try:
        if scene.arena is not None:
            for slot in slots:
                scene.arena.pause(slot)
        yield {"slots": slots}
    finally:
        if scene.arena is not None:
            for slot in slots:
                scene.arena.resume(slot)


@asynccontextmanager
async def cut_in_the_middle(scene: Scene) -> AsyncIterator[Touched]:
    """Connections of clients break again and again, with requests on them: they ask elsewhere."""
    bed = scene.bed
    ways = [scene.rng.choice(list(bed.clients)) for _ in range(400)]
    pauses = [scene.seconds(0.02, 0.4) for _ in ways]

    async def cut() -> None:
        for way, pause_s in zip(ways, pauses, strict=True):
            await bed.cut(bed.clients[way])
            await asyncio.sleep(pause_s / 4)
            await bed.mend(bed.clients[way])
            await asyncio.sleep(pause_s)

    try:
        async with meanwhile(cut()):
            yield {"slots": list(range(bed.slots))}
    finally:
        await bed.mend_all_clients()


def sees(what: str) -> Make:
    """Some slots reach a minority only, the old leader only, or nobody."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        slots = _some_slots(scene)
        leader, _ = await bed.roles()
        match what:
            case "leader":
                seen = [leader]
            case "minority":
                seen = scene.some_nodes(len(bed.names) - bed.majority)
            case _:
                seen = []
        links = [
            bed.clients[slot, name] for slot in slots for name in bed.names if name not in seen
        ]
        try:
            await bed.cut(*links)
            yield {"slots": slots, "seen": seen}
        finally:
            await bed.mend(*links)

    return fault


@asynccontextmanager
async def old_leader_only(scene: Scene) -> AsyncIterator[Touched]:
    """Some slots reach only a leader that is cut off from all other nodes."""
    async with sees("leader")(scene) as touched, network.isolated(scene, touched["seen"][0]):
        yield touched


@asynccontextmanager
async def minority_only(scene: Scene) -> AsyncIterator[Touched]:
    """Some slots reach only nodes that are cut off from the majority."""
    async with sees("minority")(scene) as touched, network.isolated(scene, *touched["seen"]):
        yield touched


def _some_slots(scene: Scene) -> list[int]:
    """About half of them, at least one."""
    slots = scene.bed.slots
    return sorted(scene.rng.sample(range(slots), max(1, slots // 2)))


FAULTS = (
    Fault("client-pause", FAMILY, paused, (0.5, 12.0), weight=3),
    Fault("client-cut", FAMILY, cut_in_the_middle, (2.0, 8.0)),
    Fault("client-sees-nobody", FAMILY, sees("nobody"), (1.0, 10.0), weight=1),
    Fault("client-sees-leader", FAMILY, sees("leader"), (1.0, 8.0), weight=1),
    # These two cut nodes as well, so that they belong to the network's lane.
    Fault("client-sees-old-leader", network.FAMILY, old_leader_only, (2.0, 8.0)),
    Fault("client-sees-minority", network.FAMILY, minority_only, (2.0, 8.0)),
)
