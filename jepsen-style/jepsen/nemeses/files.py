"""Files of a node that is down: torn, cut, filled with zeros, a bit turned.

RULE: damages what lies on one node's disk (of a minority, never more), and looks at what the node does
then. It may refuse to start (exit 65), or cut an end that it can prove to be torn, or not care, as
what was damaged is no longer of use. It may not serve a lie: that is for the checkers.

A node that refused gets its undamaged files back, as members cannot be replaced yet.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from jepsen.nemeses.base import Fault, Make, Scene, Touched
from jepsen.testbed import UNUSABLE, Testbed

FAMILY = "files"
_START_S = 20.0
_LEVEL_S = 5.0

Harm = Callable[[Path, random.Random], dict[str, object] | None]


def newest(data: Path, pattern: str) -> Path | None:
    """The last file of a kind by its number, which is in its name."""
    return max(data.glob(pattern), default=None)


def end_of_data(file: Path) -> int:
    """Where the reserved zeros begin."""
    return len(file.read_bytes().rstrip(b"\0"))


def torn_tail(data: Path, rng: random.Random) -> dict[str, object] | None:
    """The last few bytes of the journal never arrived: zeros stand there."""
    file = newest(data, "journal-*.seg")
    if file is None or (end := end_of_data(file)) < 64:
        return None
    count = rng.randint(1, 40)
    with file.open("r+b") as opened:
        opened.seek(end - count)
        opened.write(bytes(count))
    return {"file": file.name, "zeros_from": end - count, "to": end}


def garbage_tail(data: Path, rng: random.Random) -> dict[str, object] | None:
    """Behind the last record something stands that was never written."""
    file = newest(data, "journal-*.seg")
    if file is None:
        return None
    end = end_of_data(file)
    with file.open("r+b") as opened:
        opened.seek(end + rng.randint(0, 8))
        opened.write(rng.randbytes(rng.randint(1, 400)))
    return {"file": file.name, "garbage_from": end}


def cut_short(pattern: str) -> Harm:
    """The newest file of a kind ends in the middle of itself."""

    def harm(data: Path, rng: random.Random) -> dict[str, object] | None:
        file = newest(data, pattern)
        if file is None or (end := end_of_data(file)) < 64:
            return None
        keep = rng.randint(end // 2, end - 1)
        os.truncate(file, keep)
        return {"file": file.name, "kept": keep, "of": end}

    return harm


def bit_in(pattern: str) -> Harm:
    """One bit of a file is turned, anywhere in what was written."""

    def harm(data: Path, rng: random.Random) -> dict[str, object] | None:
        file = newest(data, pattern)
        if file is None or (end := end_of_data(file)) < 1:
            return None
        at, bit = rng.randrange(end), rng.randrange(8)
        with file.open("r+b") as opened:
            opened.seek(at)
            (byte,) = opened.read(1)
            opened.seek(at)
            opened.write(bytes([byte ^ 1 << bit]))
        return {"file": file.name, "at": at, "bit": bit, "of": end}

    return harm


def lost(pattern: str) -> Harm:
    """The newest file of a kind is gone."""

    def harm(data: Path, _rng: random.Random) -> dict[str, object] | None:
        file = newest(data, pattern)
        if file is None:
            return None
        file.unlink()
        return {"file": file.name, "removed": True}

    return harm


def damaged(harm: Harm) -> Make:
    """One node, or a minority, is stopped, damaged and started.

    All other nodes are left alone meanwhile, and have all that was committed before: a node whose
    synced bytes were taken away and whose peers die, or were behind, is beyond what any Raft
    promises. Where they do not get there soon (a network fault is under way), nothing is damaged.
    """

    @asynccontextmanager
    async def fault(scene: Scene) -> AsyncIterator[Touched]:
        bed = scene.bed
        async with scene.nodes:
            minority = len(bed.names) - bed.majority
            nodes = scene.some_nodes(scene.rng.randint(1, minority))
            whole = {name: bed.root / "whole" / name for name in nodes}
            bed.held |= set(nodes)
            try:
                await bed.kill9(*nodes, children=True)
                done = {}
                for name in nodes if await others_have_all(bed, nodes) else ():
                    data = bed.folder / name
                    # A loss of power would find the old undo, and undo the damage.
                    bed.disks[name].lose_power()
                    shutil.copytree(data, whole[name], dirs_exist_ok=True)
                    done[name] = harm(data, scene.rng)
                await bed.start(*nodes)
                for name in nodes:
                    bed.excuse(name, UNUSABLE)
                yield {"nodes": nodes, "done": done}
            finally:
                for name in nodes:
                    if whole[name].exists():
                        await _recovered(scene, name, whole[name])
                bed.held -= set(nodes)

    return fault


async def others_have_all(bed: Testbed, nodes: Collection[str]) -> bool:
    """Wait a while until the others serve under one of them and have all that it had committed
    after these nodes had ended.

    Returns:
        whether that is so: then what these nodes lose is in every majority.
    """
    others = [name for name in bed.names if name not in nodes]
    for _ in range(round(_LEVEL_S / 0.1)):
        # What these nodes acknowledged may be counted late.
        if not bed.is_late:
            before = await asyncio.gather(*map(bed.look, others))
            after = await asyncio.gather(*map(bed.look, others))
            commits = [view.commit for view in before if view is not None and view.leads]
            leaders = {None if view is None else view.leader for view in (*before, *after)}
            if (
                len(leaders) == len(commits) == 1
                and all(view is not None and view.applied >= commits[0] for view in after)
                and not bed.is_late
            ):
                return True
        await asyncio.sleep(0.1)
    return False


async def _recovered(scene: Scene, name: str, whole: Path) -> None:
    """See what became of a node; one that refused its files gets the whole ones back."""
    bed = scene.bed
    refused = await _refuses(bed, name)
    scene.fact(
        "files.refused" if refused else "files.accepted", name, words=list(bed.words(name)[-2:])
    )
    if refused or name not in bed.running:
        data = bed.folder / name
        await bed.kill9(name, children=True)
        shutil.rmtree(data)
        shutil.move(whole, data)
    else:
        shutil.rmtree(whole)
    await bed.start(name)


async def _refuses(bed: Testbed, name: str) -> bool:
    """Whether the node ends; it serves, or has had long enough to, where not."""
    for _ in range(round(_START_S / 0.1)):
        if name not in bed.running:
            return True
        view = await bed.look(name)
        if view is not None:
            return False
        await asyncio.sleep(0.1)
    return name not in bed.running


def _fault(name: str, harm: Harm) -> Fault:
    return Fault(name, FAMILY, damaged(harm), (1.0, 3.0), needs=frozenset({"shim"}), weight=1)


FAULTS = (
    _fault("torn-tail", torn_tail),
    _fault("garbage-tail", garbage_tail),
    _fault("cut-short", cut_short("journal-*.seg")),
    _fault("cut-snapshot", cut_short("snapshot-*.snap")),
    _fault("cut-identity", cut_short("identity")),
    _fault("bit-in-journal", bit_in("journal-*.seg")),
    _fault("bit-in-snapshot", bit_in("snapshot-*.snap")),
    _fault("bit-in-identity", bit_in("identity")),
    _fault("lost-segment", lost("journal-*.seg")),
    _fault("lost-snapshot", lost("snapshot-*.snap")),
)
