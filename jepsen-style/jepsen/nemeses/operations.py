"""Operations: what an operator does on a good day, again and again, under load.

RULE: uses the public API and SIGTERM only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jepsen.nemeses.base import Fault, Scene, Touched, meanwhile

FAMILY = "operations"


@asynccontextmanager
async def hand_over_loop(scene: Scene) -> AsyncIterator[Touched]:
    """Leadership goes to any node, asked of any node, several times a second."""
    bed = scene.bed
    asks = [(scene.rng.choice(bed.names), scene.rng.choice([None, *bed.names])) for _ in range(500)]
    pauses = [scene.seconds(0.02, 1.0) for _ in asks]

    async def hand_over() -> None:
        for (node, to), pause_s in zip(asks, pauses, strict=True):
            await bed.transfer(node, to)
            await asyncio.sleep(pause_s)

    async with meanwhile(hand_over()):
        yield {"nodes": list(bed.names)}


@asynccontextmanager
async def hand_over_and_kill(scene: Scene) -> AsyncIterator[Touched]:
    """A hand-over has just begun when its target, or the old leader, is killed."""
    bed = scene.bed
    async with scene.nodes:
        leader, others = await bed.roles()
        target = scene.rng.choice(others)
        victim = scene.rng.choice([leader, target])
        asked = asyncio.create_task(bed.transfer(leader, target))
        try:
            await asyncio.sleep(scene.seconds(0.0, 0.05))
            await bed.kill9(victim)
            yield {"nodes": [victim], "to": target, "leader": victim == leader}
        finally:
            await asked
            await bed.start(victim)


@asynccontextmanager
async def rolling_restart(scene: Scene) -> AsyncIterator[Touched]:
    """Every node in turn is asked to stop (SIGTERM) and started again, as in an upgrade."""
    bed = scene.bed
    order = scene.rng.sample(bed.names, len(bed.names))

    async def roll() -> None:
        for name in order:
            await bed.terminate(name)
            await bed.start(name)
            # Till it serves, or for a while: under other faults it may not.
            for _ in range(50):
                view = await bed.look(name)
                if view is not None and view.ready:
                    break
                await asyncio.sleep(0.1)

    async with scene.nodes:
        try:
            async with meanwhile(roll()):
                yield {"nodes": order}
        finally:
            await bed.start()


FAULTS = (
    Fault("hand-over-loop", FAMILY, hand_over_loop, (3.0, 10.0)),
    Fault("hand-over-and-kill", FAMILY, hand_over_and_kill, (0.5, 3.0)),
    Fault("rolling-restart", FAMILY, rolling_restart, (6.0, 15.0)),
)
