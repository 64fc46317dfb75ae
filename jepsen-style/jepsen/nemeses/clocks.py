"""Clocks: the wall clock jumps and drifts; a monotonic clock runs fast or slow.

RULE: by libfaketime in every node (`jepsen.preload.clock`, which says what the product promises).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jepsen.nemeses.base import Fault, Make, Scene, Touched, meanwhile

FAMILY = "clocks"
FAKETIME = frozenset({"faketime"})
RATE_MOST = 1.2
"""The fastest monotonic clock there is here: a TTL may last 1/1.2 of its length in true time."""


@asynccontextmanager
async def wall_jump(scene: Scene) -> AsyncIterator[Touched]:
    """The wall clocks of some nodes are off by up to an hour, and jump back at the end."""
    bed = scene.bed
    nodes = scene.some_nodes(scene.rng.randint(1, len(bed.names)))
    offsets_s = {name: scene.rng.choice([-3600, -600, -60, -2, 2, 60, 600, 3600]) for name in nodes}
    try:
        for name, offset_s in offsets_s.items():
            bed.clocks[name].set_wall(offset_s=offset_s)
        yield {"nodes": nodes, "offsets_s": offsets_s}
    finally:
        for name in nodes:
            bed.clocks[name].behave()


@asynccontextmanager
async def wall_strobe(scene: Scene) -> AsyncIterator[Touched]:
    """The leader's wall clock jumps to and fro, every second or two."""
    bed = scene.bed
    leader, _ = await bed.roles()
    jumps = [(scene.rng.randint(-3600, 3600), scene.seconds(1.0, 2.0)) for _ in range(60)]

    async def strobe() -> None:
        for offset_s, pause_s in jumps:
            bed.clocks[leader].set_wall(offset_s=offset_s)
            await asyncio.sleep(pause_s)

    try:
        async with meanwhile(strobe()):
            yield {"nodes": [leader]}
    finally:
        bed.clocks[leader].behave()


def monotonic_drift(rate: float) -> Make:
    """A node, mostly the leader, is restarted with clocks that all run at another rate, and again
    with true ones at the end: no monotonic clock ever goes back.
    """

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        async with scene.nodes:
            name = scene.some_nodes(1)[0]
            try:
                await bed.kill9(name)
                bed.clocks[name].monotonic_rate = rate
                await bed.start(name)
                # Where its rate matters: at the head.
                async with meanwhile(_until_it_leads(scene, name)):
                    yield {"nodes": [name], "rate": rate}
            finally:
                await bed.kill9(name)
                bed.clocks[name].monotonic_rate = 1.0
                await bed.start(name)

    return fault


async def _until_it_leads(scene: Scene, name: str) -> None:
    bed = scene.bed
    while True:
        view = await bed.look(name)
        if view is not None and view.ready and not view.leads:
            await bed.transfer(name, name)
        await asyncio.sleep(0.5)


def _fault(name: str, make: Make, hold_s: tuple[float, float], *, weight: int = 2) -> Fault:
    return Fault(name, FAMILY, make, hold_s, needs=FAKETIME, weight=weight)


FAULTS = (
    _fault("wall-jump", wall_jump, (2.0, 8.0)),
    _fault("wall-strobe", wall_strobe, (3.0, 8.0)),
    _fault("fast-clock", monotonic_drift(RATE_MOST), (4.0, 12.0)),
    _fault("slow-clock", monotonic_drift(0.8), (4.0, 12.0)),
)
