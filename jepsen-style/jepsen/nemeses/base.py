"""What a fault is, what a nemesis is, and the schedules a nemesis follows.

RULE: draws lots and keeps time; what a fault does stands in the module of its family.

A *fault* is an async context manager: it is there while the block runs, and gone, with everything it
did, when the block ends, however it ends. It yields what it touched; that goes into the history as a
pair of lines of process -1 that share `f` and `value` but for `value["phase"]`. Facts that belong to
no pair (a node refused its folder, a probe) are lines of process -2.

Faults of one family exclude each other; those of different families may overlap. Two faults that
stop and start the same nodes exclude each other by `Scene.nodes`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from jepsen.history import Recorder, Type
from jepsen.testbed import Testbed
from jepsen.workloads.base import Arena

NEMESIS: Final = -1
FACTS: Final = -2

Touched = dict[str, Any]


@dataclass(slots=True)
class Scene:
    """Where a fault happens.

    Attributes:
        rng: of this one occurrence.
        arena: the clients' side; None where no workload runs.
        nodes: held by whoever stops and starts nodes.
        stop: set when the nemesis has to come to its end.
    """

    bed: Testbed
    rng: random.Random
    recorder: Recorder
    arena: Arena | None = None
    nodes: asyncio.Lock = field(default_factory=asyncio.Lock)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def fact(self, f: str, key: str = "", **value: Any) -> None:
        """Take down something that was seen."""
        self.recorder.note(FACTS, Type.INFO, f, key, value)

    def some_nodes(self, count: int) -> list[str]:
        """So many nodes, by lot, in the order of their names."""
        return sorted(self.rng.sample(self.bed.names, count))

    def seconds(self, least: float, most: float) -> float:
        """A length of time, by lot, to the hundredth."""
        return round(self.rng.uniform(least, most), 2)

    async def rest(self, seconds: float) -> bool:
        """Wait, but not beyond the end.

        Returns:
            Whether there is time left.
        """
        return await rest(self.stop, seconds)


Make = Callable[[Scene], AbstractAsyncContextManager[Touched]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of harm.

    Attributes:
        name: as in the history and on the command line.
        family: those of one family never overlap.
        make: what it does.
        hold_s: how long it lasts, least and most.
        needs: what must be loaded into the nodes: "shim", "faketime".
        nodes_least: a smaller cluster has no such fault.
        weight: how often it is drawn, beside others.
    """

    name: str
    family: str
    make: Make
    hold_s: tuple[float, float]
    needs: frozenset[str] = frozenset()
    nodes_least: int = 3
    weight: int = 2


class Nemesis(Protocol):
    """Brings faults over a cluster, and takes them away."""

    name: str

    @property
    def needs(self) -> frozenset[str]:
        """What must be loaded into the nodes from their start."""

    async def run(
        self, bed: Testbed, rng: random.Random, recorder: Recorder, stop: asyncio.Event
    ) -> None:
        """Do harm until `stop` is set; everything is over when this returns."""

    async def heal(self, bed: Testbed) -> None:
        """Mend whatever may be left."""


class Lanes:
    """A nemesis of one or several lanes; each lane brings one fault after the other.

    Args:
        lanes: the faults to draw from, one sequence for each lane.
        rest_s: between two faults of a lane, least and most.
        arena: the clients' side.
    """

    def __init__(
        self,
        name: str,
        lanes: Sequence[Sequence[Fault]],
        *,
        rest_s: tuple[float, float] = (1.0, 4.0),
        arena: Arena | None = None,
    ):
        self.name = name
        self.lanes = tuple(tuple(lane) for lane in lanes if lane)
        self.rest_s = rest_s
        self.arena = arena
        self.counts: dict[str, int] = {}

    @property
    def needs(self) -> frozenset[str]:
        """Of all its faults together."""
        return frozenset().union(*(fault.needs for lane in self.lanes for fault in lane))

    async def run(
        self, bed: Testbed, rng: random.Random, recorder: Recorder, stop: asyncio.Event
    ) -> None:
        """Run all lanes until `stop`. The first failure of one ends all."""
        nodes = asyncio.Lock()
        seeds = [rng.getrandbits(64) for _ in self.lanes]
        async with asyncio.TaskGroup() as group:
            for lane, seed in zip(self.lanes, seeds, strict=True):
                group.create_task(
                    self._lane(
                        lane, seed, lambda rng: Scene(bed, rng, recorder, self.arena, nodes, stop)
                    )
                )

    async def heal(self, bed: Testbed) -> None:
        """Open, wake and start everything, clients too."""
        if self.arena is not None:
            for slot in range(self.arena.slots):
                self.arena.resume(slot)
        await bed.heal()

    async def _lane(
        self, faults: Sequence[Fault], seed: int, scene_of: Callable[[random.Random], Scene]
    ) -> None:
        deck: list[Fault] = []
        rng = random.Random(seed)
        number = 0
        while True:
            scene = scene_of(random.Random(f"{seed}/{number}"))
            number += 1
            if not await scene.rest(rng.uniform(*self.rest_s)):
                return
            if not deck:
                # A shuffled deck: every fault comes, in any order, before one comes too often.
                deck = [fault for fault in faults for _ in range(fault.weight)]
                rng.shuffle(deck)
            await self._bring(deck.pop(), scene)

    async def _bring(self, fault: Fault, scene: Scene) -> None:
        if fault.nodes_least > len(scene.bed.names):
            return
        hold_s = scene.seconds(*fault.hold_s)
        touched: Touched = {}
        begun = False
        try:
            async with fault.make(scene) as touched:
                begun = True
                note = scene.recorder.note
                note(NEMESIS, Type.INFO, fault.name, "", {"phase": "begin", **touched})
                self.counts[fault.name] = self.counts.get(fault.name, 0) + 1
                await scene.rest(hold_s)
        finally:
            if begun:
                scene.recorder.note(NEMESIS, Type.INFO, fault.name, "", {"phase": "end", **touched})


async def rest(stop: asyncio.Event, seconds: float) -> bool:
    """Wait so long or until it is set; whether there is time left."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return True
    return False


@contextlib.asynccontextmanager
async def meanwhile(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have something go on in the background of the block; it is cancelled at the end.

    Raises:
        Exception: whatever the work raised, at the end of the block.
    """
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
