"""Disks: power lost, writes and syncs that fail, no room, slow syncs; ends at a named point.

RULE: by the shim in every node (`jepsen.preload.disk`). What must happen: a node whose disk refuses
stops or refuses, and says nothing that it cannot keep; with a good disk it comes back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from jepsen.nemeses.base import Fault, Make, Scene, Touched
from jepsen.preload.disk import Moment, NodeDisk, Operation
from jepsen.testbed import FATAL, KILLED, UNUSABLE

FAMILY = "disks"
SHIM = frozenset({"shim"})


class Point(NamedTuple):
    """Where a node is ended: see `NodeDisk.end_at`; `most` such operations may come before."""

    operation: Operation
    moment: Moment
    letter: str = ""
    most: int = 0


_JOURNAL, _SNAPSHOT, _FOLDER = "j", "s", "/"
_LOOK_EVERY_S: Final = 0.05
_LOOKS: Final = 160
"""A point that has not come by then is given up."""

# Terms and votes are records of the journal. What is applied has been synced and not yet answered:
# between the sync and a sending.
POINTS: Final[dict[str, Point]] = {
    "before a log write": Point(Operation.WRITE, Moment.BEFORE, _JOURNAL, 30),
    "in a log write": Point(Operation.WRITE, Moment.HALF, _JOURNAL, 30),
    "before a log sync": Point(Operation.SYNC, Moment.BEFORE, _JOURNAL, 30),
    "after a log sync": Point(Operation.SYNC, Moment.AFTER, _JOURNAL, 30),
    "before a sending": Point(Operation.SEND, Moment.BEFORE, "", 200),
    "in a sending": Point(Operation.SEND, Moment.HALF, "", 200),
    "after a sending": Point(Operation.SEND, Moment.AFTER, "", 200),
    "before a segment is made": Point(Operation.CREATE, Moment.BEFORE, _JOURNAL),
    "after a segment is made": Point(Operation.CREATE, Moment.AFTER, _JOURNAL),
    "before a log is cut": Point(Operation.UNLINK, Moment.BEFORE, _JOURNAL, 1),
    "after a log is cut": Point(Operation.UNLINK, Moment.AFTER, _JOURNAL, 1),
    "in a snapshot's write": Point(Operation.WRITE, Moment.HALF, _SNAPSHOT, 1),
    "before a snapshot's sync": Point(Operation.SYNC, Moment.BEFORE, _SNAPSHOT),
    "before a snapshot has its name": Point(Operation.RENAME, Moment.BEFORE, _SNAPSHOT),
    "after a snapshot has its name": Point(Operation.RENAME, Moment.AFTER, _SNAPSHOT),
    "before a snapshot is removed": Point(Operation.UNLINK, Moment.BEFORE, _SNAPSHOT),
    "after a snapshot is removed": Point(Operation.UNLINK, Moment.AFTER, _SNAPSHOT),
    "before names are synced": Point(Operation.SYNC, Moment.BEFORE, _FOLDER, 2),
    "after names are synced": Point(Operation.SYNC, Moment.AFTER, _FOLDER, 2),
}
VOTES: Final = tuple(name for name in POINTS if "a log write" in name or "a log sync" in name)


def power_lost(who: str, *, everything: bool) -> Make:
    """Killed, and what was not synced is gone: of one, the leader, a majority or all at one moment.

    Args:
        everything: all that was not synced, and not a part by lot.
    """

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        async with scene.nodes:
            leader, _ = await bed.roles()
            match who:
                case "leader":
                    nodes = [leader]
                case "majority":
                    nodes = scene.some_nodes(bed.majority)
                case "all":
                    nodes = list(bed.names)
                case _:
                    nodes = scene.some_nodes(1)
            try:
                # A write is unsynced for a moment only: slow syncs make the moment long.
                for name in nodes:
                    bed.disks[name].slow_syncs(scene.rng.choice([0, 20, 100, 300]))
                await scene.rest(scene.seconds(0.3, 1.0))
                await bed.kill9(*nodes, children=True)
                for name in nodes:
                    bed.disks[name].behave()
                    loss = bed.disks[name].lose_power(None if everything else scene.rng)
                    scene.fact(
                        "power.lost",
                        name,
                        names=loss.names,
                        writes=loss.writes,
                        bytes_torn=loss.bytes_torn,
                    )
                yield {"nodes": nodes, "leader": leader in nodes}
            finally:
                await bed.start(*nodes)

    return fault


def failing(what: str, *, of_leader: bool, lose_power: bool = False) -> Make:
    """A disk refuses writes (EIO, ENOSPC), syncs or names, soon.

    The node may end with its code for a failed disk; then it is started again, on a good disk, when
    the fault is over.

    Args:
        lose_power: what the failed sync did not promise is gone when the node starts again.
    """

    def order(disk: NodeDisk, after: int) -> None:
        match what:
            case "write":
                disk.fail_writes(after=after)
            case "full":
                disk.fail_writes(after=after, full=True)
            case "sync":
                disk.fail_syncs(after=after)
            case _:
                disk.fail_names(full=True)

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        async with scene.nodes:
            leader, others = await bed.roles()
            name = leader if of_leader else scene.rng.choice(others)
            disk, after = bed.disks[name], scene.rng.randint(0, 20)
            bed.excuse(name, FATAL)
            before = disk.counts
            try:
                order(disk, after)
                yield {"nodes": [name], "what": what, "after": after}
            finally:
                ended = name not in bed.running
                counts = {key: count - before[key] for key, count in disk.counts.items()}
                scene.fact("disk.failed", name, ended=ended, **counts)
                # A node that goes on after a refused write may have a hole where it thinks it has
                # none: it must stop by itself or have been refused nothing.
                if not ended:
                    await bed.kill9(name, children=True)
                disk.behave()
                if lose_power:
                    disk.lose_power(scene.rng)
                await bed.start(name)

    return fault


def ended_at_a_point(who: str) -> Make:
    """A node ends in the middle of what it does, at a point drawn by lot, as by `kill -9`; every
    other time what was not synced is gone, too. Where the point does not come it goes on.

    Args:
        who: "leader"; "follower"; "voter", a follower at the first things that it writes and syncs
            after its leader was killed, which are term and vote.
    """

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        async with scene.nodes:
            leader, others = await bed.roles()
            name = leader if who == "leader" else scene.rng.choice(others)
            where = scene.rng.choice(VOTES if who == "voter" else tuple(POINTS))
            point = POINTS[where]
            after = scene.rng.randint(0, 1 if who == "voter" else point.most)
            disk, with_power = bed.disks[name], scene.rng.random() < 0.5
            faults = disk.counts["faults"]
            try:
                if who == "voter":
                    await bed.kill9(leader, children=True)
                bed.excuse(name, KILLED)
                disk.end_at(point.operation, point.moment, letter=point.letter, after=after)
                for _ in range(_LOOKS):
                    if not disk.end_is_near or not await scene.rest(_LOOK_EVERY_S):
                        break
                disk.end_nowhere()
                is_reached = disk.counts["faults"] > faults
                if is_reached:
                    await bed.ended(name)
                    if with_power:
                        disk.lose_power(scene.rng)
                yield {"nodes": [name], "where": where, "after": after, "reached": is_reached}
            finally:
                disk.end_nowhere()
                await bed.start(name, leader)

    return fault


def slow(least_ms: int, most_ms: int, *, of_leader: bool) -> Make:
    """Every sync of one node takes so much longer."""

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        leader, others = await bed.roles()
        name = leader if of_leader else scene.rng.choice(others)
        delay_ms = scene.rng.randint(least_ms, most_ms)
        async with scene.nodes:
            try:
                bed.disks[name].slow_syncs(delay_ms)
                yield {"nodes": [name], "delay_ms": delay_ms}
            finally:
                bed.disks[name].behave()

    return fault


@asynccontextmanager
async def stalled_leader(scene: Scene) -> AsyncIterator[Touched]:
    """One sync of the leader takes longer than any TTL; it wakes up deposed, with old plans."""
    async with slow(8_000, 15_000, of_leader=True)(scene) as touched:
        yield touched


@asynccontextmanager
async def full_while_starting(scene: Scene) -> AsyncIterator[Touched]:
    """A node is restarted with a full disk, and again with room."""
    bed = scene.bed
    async with scene.nodes:
        name = scene.some_nodes(1)[0]
        try:
            await bed.kill9(name, children=True)
            bed.disks[name].fail_writes(full=True)
            await bed.start(name)
            bed.excuse(name, FATAL, UNUSABLE)
            yield {"nodes": [name]}
        finally:
            await bed.kill9(name, children=True)
            bed.disks[name].behave()
            await bed.start(name)


def _fault(
    name: str, make: Make, hold_s: tuple[float, float] = (0.2, 3.0), *, weight: int = 1
) -> Fault:
    return Fault(name, FAMILY, make, hold_s, needs=SHIM, weight=weight)


FAULTS = (
    _fault("power-one", power_lost("one", everything=True)),
    _fault("power-leader", power_lost("leader", everything=True), weight=2),
    _fault("power-majority", power_lost("majority", everything=True)),
    _fault("power-all", power_lost("all", everything=True), weight=2),
    _fault("power-torn-one", power_lost("one", everything=False)),
    _fault("power-torn-majority", power_lost("majority", everything=False)),
    _fault("power-torn-all", power_lost("all", everything=False), weight=2),
    _fault("write-error", failing("write", of_leader=False), (1.0, 4.0)),
    _fault("write-error-leader", failing("write", of_leader=True), (1.0, 4.0)),
    _fault("sync-error", failing("sync", of_leader=False, lose_power=True), (1.0, 4.0)),
    _fault("sync-error-leader", failing("sync", of_leader=True, lose_power=True), (1.0, 4.0)),
    _fault("disk-full", failing("full", of_leader=False), (1.0, 4.0)),
    _fault("disk-full-leader", failing("full", of_leader=True), (1.0, 4.0)),
    _fault("no-new-names", failing("names", of_leader=True), (2.0, 6.0)),
    _fault("full-at-start", full_while_starting, (1.0, 3.0)),
    _fault("end-leader-at-point", ended_at_a_point("leader"), (0.1, 2.0), weight=3),
    _fault("end-follower-at-point", ended_at_a_point("follower"), (0.1, 2.0), weight=3),
    _fault("end-voter-at-point", ended_at_a_point("voter"), (0.1, 2.0), weight=2),
    _fault("slow-sync", slow(100, 300, of_leader=False), (2.0, 6.0)),
    _fault("slow-sync-leader", slow(100, 1_000, of_leader=True), (2.0, 8.0), weight=2),
    _fault("stalled-leader", stalled_leader, (4.0, 10.0)),
)
