"""Networks: cut, deaf in one direction, flapping, slow, narrow, broken in pieces.

RULE: touches links only. A *cut* way breaks its connection and refuses new ones; a *silent* one
swallows bytes while its connections stay open, as a firewall or a dead switch does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from jepsen.nemeses.base import Fault, Make, Scene, Touched, meanwhile
from jepsen.toxiproxy import Link, Stream

FAMILY = "network"


@asynccontextmanager
async def _closed(scene: Scene, links: Iterable[Link], **touched: object) -> AsyncIterator[Touched]:
    """Cut or silence these ways, by lot, while the block runs."""
    ways = list(links)
    silently = scene.rng.random() < 0.5
    try:
        await (scene.bed.silence if silently else scene.bed.cut)(*ways)
        yield {
            **touched,
            "how": "silent" if silently else "cut",
            "links": [link.name for link in ways],
        }
    finally:
        await scene.bed.mend(*ways)


@asynccontextmanager
async def leader_alone(scene: Scene) -> AsyncIterator[Touched]:
    """The leader reaches nobody, and nobody reaches it; its clients still do."""
    leader, others = await scene.bed.roles()
    async with _closed(scene, scene.bed.between([leader], others), nodes=[leader]) as touched:
        yield touched


@asynccontextmanager
async def random_halves(scene: Scene) -> AsyncIterator[Touched]:
    """A random minority on one side, the majority on the other."""
    minority = scene.some_nodes(scene.rng.randint(1, len(scene.bed.names) - scene.bed.majority))
    majority = [name for name in scene.bed.names if name not in minority]
    async with _closed(scene, scene.bed.between(minority, majority), nodes=minority) as touched:
        yield touched


@asynccontextmanager
async def majority_ring(scene: Scene) -> AsyncIterator[Touched]:
    """Everybody sees a majority, and no two see the same one. Of three nodes each can send to its
    neighbour on one side only.
    """
    order = scene.rng.sample(scene.bed.names, len(scene.bed.names))
    count = len(order)
    if count == 3:
        open_ways = {(order[at], order[(at + 1) % 3]) for at in range(3)}
    else:
        reach = (scene.bed.majority - 1) // 2
        open_ways = {
            (order[at], order[(at + step) % count])
            for at in range(count)
            for step in range(-reach, reach + 1)
            if step
        }
    links = [link for way, link in scene.bed.peers.items() if way not in open_ways]
    async with _closed(scene, links, ring=order) as touched:
        yield touched


@asynccontextmanager
async def bridge(scene: Scene) -> AsyncIterator[Touched]:
    """Two halves that do not see each other, and one node that sees both."""
    names = scene.rng.sample(scene.bed.names, len(scene.bed.names))
    middle, rest = names[0], names[1:]
    half = len(rest) // 2
    links = scene.bed.between(rest[:half], rest[half:])
    async with _closed(scene, links, bridge=middle, halves=[rest[:half], rest[half:]]) as touched:
        yield touched


def one_way(*, out: bool, of_leader: bool) -> Make:
    """A node can send and not hear, or hear and not send."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        leader, others = await scene.bed.roles()
        node = leader if of_leader else scene.rng.choice(others)
        links = [
            link
            for (source, target), link in scene.bed.peers.items()
            if node == (source if out else target)
        ]
        async with _closed(scene, links, nodes=[node]) as touched:
            yield touched

    return fault


@asynccontextmanager
async def one_link(scene: Scene) -> AsyncIterator[Touched]:
    """A single way between two nodes, in one direction."""
    way = scene.rng.choice(list(scene.bed.peers))
    async with _closed(scene, [scene.bed.peers[way]]) as touched:
        yield touched


@asynccontextmanager
async def flapping(scene: Scene) -> AsyncIterator[Touched]:
    """One node's ways close and open again and again."""
    node = scene.rng.choice(scene.bed.names)
    links = scene.bed.between([node], [name for name in scene.bed.names if name != node])
    lengths = [(scene.seconds(0.1, 1.5), scene.seconds(0.1, 1.0)) for _ in range(100)]

    async def flap() -> None:
        for closed_s, open_s in lengths:
            await scene.bed.cut(*links)
            await asyncio.sleep(closed_s)
            await scene.bed.mend(*links)
            await asyncio.sleep(open_s)

    try:
        async with meanwhile(flap()):
            yield {"nodes": [node], "links": [link.name for link in links]}
    finally:
        await scene.bed.mend(*links)


def poisoned(kind: str, ranges: dict[str, tuple[int, int]], *, share: float = 1.0) -> Make:
    """Every way, or a share of them, by lot, has a toxic in one or both streams.

    Args:
        kind: as the server calls it.
        ranges: its attributes, least and most.
    """

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        everywhere = [*bed.peers.values(), *bed.clients.values()]
        links = list(bed.peers.values()) if scene.rng.random() < 0.7 else everywhere
        if share < 1.0:
            links = scene.rng.sample(links, max(1, round(len(links) * share)))
        attributes = {name: scene.rng.randint(*ends) for name, ends in ranges.items()}
        streams: list[Stream] = scene.rng.choice(
            [["upstream"], ["downstream"], ["upstream", "downstream"]]
        )
        try:
            for stream in streams:
                await bed.poison(kind, *links, stream=stream, **attributes)
            yield {
                "links": "all" if links == everywhere else [link.name for link in links],
                "streams": streams,
                **attributes,
            }
        finally:
            await bed.mend(*links)

    return fault


def _fault(
    name: str,
    make: Make,
    hold_s: tuple[float, float] = (1.5, 8.0),
    *,
    weight: int = 2,
) -> Fault:
    return Fault(name, FAMILY, make, hold_s, weight=weight)


def isolated(scene: Scene, *nodes: str) -> AbstractAsyncContextManager[Touched]:
    """Some nodes away from all others; for faults of other families that need it."""
    others = [name for name in scene.bed.names if name not in nodes]
    return _closed(scene, scene.bed.between(nodes, others), nodes=list(nodes))


FAULTS = (
    _fault("leader-alone", leader_alone, weight=3),
    _fault("random-halves", random_halves),
    _fault("majority-ring", majority_ring),
    _fault("bridge", bridge),
    _fault("mute-leader", one_way(out=True, of_leader=True)),
    _fault("deaf-leader", one_way(out=False, of_leader=True)),
    _fault("mute-follower", one_way(out=True, of_leader=False)),
    _fault("deaf-follower", one_way(out=False, of_leader=False)),
    _fault("one-link", one_link),
    _fault("flapping", flapping, (3.0, 10.0)),
    _fault("latency", poisoned("latency", {"latency": (10, 250), "jitter": (0, 150)})),
    _fault("bandwidth", poisoned("bandwidth", {"rate": (2, 60)})),
    _fault("slow-close", poisoned("slow_close", {"delay": (100, 3_000)}), weight=1),
    _fault("reset-peer", poisoned("reset_peer", {"timeout": (0, 500)}, share=0.5)),
    _fault(
        "slicer",
        poisoned("slicer", {"average_size": (1, 64), "size_variation": (0, 0), "delay": (10, 500)}),
        weight=1,
    ),
    _fault("timeout", poisoned("timeout", {"timeout": (50, 1_500)}, share=0.5)),
    _fault("limit-data", poisoned("limit_data", {"bytes": (200, 60_000)}, share=0.7)),
)
