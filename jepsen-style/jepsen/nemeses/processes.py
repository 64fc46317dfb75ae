"""Processes: killed, killed again and again, stopped in the middle of a thought and woken up.

RULE: signals only. A node that was killed is started again when its fault is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from jepsen.nemeses.base import Fault, Make, Scene, Touched, meanwhile

FAMILY = "processes"


def killed(who: str) -> Make:
    """Kill -9 of one, the leader, a majority or all; they are down for the length of the fault."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        async with scene.nodes:
            leader, _ = await scene.bed.roles()
            match who:
                case "one":
                    nodes = scene.some_nodes(1)
                case "leader":
                    nodes = [leader]
                case "majority":
                    nodes = scene.some_nodes(scene.bed.majority)
                case _:
                    nodes = list(scene.bed.names)
            try:
                await scene.bed.kill9(*nodes)
                yield {"nodes": nodes, "leader": leader in nodes}
            finally:
                await scene.bed.start(*nodes)

    return fault


@asynccontextmanager
async def restart_storm(scene: Scene) -> AsyncIterator[Touched]:
    """One node after the other is killed and started at once, before the last one serves."""
    bed = scene.bed
    order = [scene.rng.choice(bed.names) for _ in range(200)]
    pauses = [scene.seconds(0.05, 1.2) for _ in order]

    async def storm() -> None:
        for name, pause_s in zip(order, pauses, strict=True):
            await bed.kill9(name)
            await bed.start(name)
            await asyncio.sleep(pause_s)

    async with scene.nodes:
        try:
            async with meanwhile(storm()):
                yield {"nodes": list(bed.names)}
        finally:
            await bed.start()


def paused(who: str) -> Make:
    """SIGSTOP of the leader, a follower or a majority, and SIGCONT when the fault is over."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        async with scene.nodes:
            leader, others = await scene.bed.roles()
            match who:
                case "leader":
                    nodes = [leader]
                case "follower":
                    nodes = [scene.rng.choice(others)]
                case "majority":
                    nodes = scene.some_nodes(scene.bed.majority)
                case _:
                    nodes = list(scene.bed.names)
            try:
                scene.bed.pause(*nodes)
                yield {"nodes": nodes}
            finally:
                scene.bed.resume(*nodes)

    return fault


@asynccontextmanager
async def stuttering_leader(scene: Scene) -> AsyncIterator[Touched]:
    """Whoever leads at first stops and goes on, many times, for lengths about an election timeout."""
    leader, _ = await scene.bed.roles()
    lengths = [(scene.seconds(0.1, 1.2), scene.seconds(0.05, 0.5)) for _ in range(200)]

    async def stutter() -> None:
        for still_s, going_s in lengths:
            scene.bed.pause(leader)
            await asyncio.sleep(still_s)
            scene.bed.resume(leader)
            await asyncio.sleep(going_s)

    async with scene.nodes:
        try:
            async with meanwhile(stutter()):
                yield {"nodes": [leader]}
        finally:
            scene.bed.resume(leader)


FAULTS = (
    Fault("kill-one", FAMILY, killed("one"), (0.1, 4.0)),
    Fault("kill-leader", FAMILY, killed("leader"), (0.1, 4.0), weight=4),
    Fault("kill-majority", FAMILY, killed("majority"), (0.1, 4.0)),
    Fault("kill-all", FAMILY, killed("all"), (0.1, 3.0)),
    Fault("restart-storm", FAMILY, restart_storm, (3.0, 10.0)),
    # The election timeout is 0.4 to 0.9 s; workloads' sessions live for a few seconds.
    Fault("pause-leader-short", FAMILY, paused("leader"), (0.1, 0.35)),
    Fault("pause-leader-long", FAMILY, paused("leader"), (1.0, 3.0)),
    Fault("pause-leader-ttl", FAMILY, paused("leader"), (6.0, 14.0)),
    Fault("pause-follower", FAMILY, paused("follower"), (0.5, 6.0)),
    Fault("pause-majority", FAMILY, paused("majority"), (0.5, 4.0)),
    Fault("pause-all", FAMILY, paused("all"), (0.5, 4.0), weight=1),
    Fault("stuttering-leader", FAMILY, stuttering_leader, (3.0, 8.0)),
)
