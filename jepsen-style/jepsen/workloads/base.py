"""What a workload is, and the place it runs in.

RULE: knows no cluster. The runner says where nodes are to be asked, a nemesis pauses clients, a
workload says what they do; they meet here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from jepsen.history import Recorder
from jepsen.verdicts import Checker


class Arena:
    """Where clients act.

    A *slot* is a place for a client: it has a link of its own to every node, so that one slot can
    be cut from one node, and can be paused as a whole, as a client's machine would be.

    Args:
        recorder: takes down what is asked and answered.
        rng: the only source of chance; whoever needs its own derives it by `lots`.
        endpoints: base URLs by node, one for each slot: `"n1" -> ("http://127.0.0.1:4101", …)`.

    Attributes:
        stop: set when workloads have to come to an end.
    """

    def __init__(
        self, recorder: Recorder, rng: random.Random, endpoints: Mapping[str, Sequence[str]]
    ):
        counts = {len(urls) for urls in endpoints.values()}
        if len(counts) != 1 or not min(counts):
            raise ValueError(f"every node needs one URL for each slot, not {dict(endpoints)}")
        self.recorder = recorder
        self.rng = rng
        self.endpoints = {node: tuple(urls) for node, urls in endpoints.items()}
        self.stop = asyncio.Event()
        self._seed = rng.getrandbits(64)
        self._awake = [asyncio.Event() for _ in range(min(counts))]
        for event in self._awake:
            event.set()

    @property
    def slots(self) -> int:
        """How many there are; numbered from 0."""
        return len(self._awake)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(self.endpoints)

    def url(self, slot: int, node: str) -> str:
        """Base URL of a node for the clients of a slot."""
        return self.endpoints[node][slot]

    def lots(self, name: str) -> random.Random:
        """Chance of one's own, the same for the same seed and name whatever others draw."""
        return random.Random(f"{self._seed}/{name}")

    def pause(self, slot: int) -> None:
        """Stop the clients of a slot where they breathe. For a nemesis."""
        self._awake[slot].clear()

    def resume(self, slot: int) -> None:
        """Let them go on."""
        self._awake[slot].set()

    def is_paused(self, slot: int) -> bool:
        """Whether the clients of a slot stand still."""
        return not self._awake[slot].is_set()

    async def breathe(self, slot: int) -> None:
        """Stand still while the slot is paused: a client calls it wherever its machine could stop,
        above all between learning that it may do something and doing it.
        """
        await self._awake[slot].wait()

    async def rest(self, seconds: float) -> bool:
        """Do nothing for a while, but at most until the end.

        Returns:
            Whether there is time left to do more.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        except TimeoutError:
            return True
        return False


class Workload(Protocol):
    """What clients do, and what must be true of it.

    The runner calls `prepare`, then `run` under faults until it has set `arena.stop`, heals
    everything, calls `settle`, and gives the whole history to each of `checkers`.

    Attributes:
        name: as in the registry.
    """

    name: str

    def checkers(self) -> Sequence[Checker]:
        """Those that judge what this workload records. They share nothing with a run."""

    async def prepare(self, arena: Arena) -> None:
        """Make what is needed, on a healthy cluster."""

    async def run(self, arena: Arena) -> None:
        """Let clients act until `arena.stop` is set; ends soon after."""

    async def settle(self, arena: Arena) -> None:
        """After healing: drain, read what is left, end sessions; all into the history."""
