"""Schedules of faults: drawn from the seed, told in pairs, over when they say so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from jepsen import nemeses
from jepsen.history import Line, Recorder, Type
from jepsen.nemeses import files
from jepsen.nemeses.base import Fault, Lanes, Scene, Touched, meanwhile, rest
from jepsen.testbed import Testbed, View


class Names:
    """What a schedule needs of a bed: who is there."""

    names = ("n1", "n2", "n3")


def fault(name: str, *, nodes_least: int = 3, weight: int = 1) -> Fault:
    """One that touches a node by lot and does nothing to it."""

    @asynccontextmanager
    async def make(scene: Scene) -> AsyncIterator[Touched]:
        yield {"nodes": scene.some_nodes(1)}

    return Fault(name, "test", make, (0.0, 0.001), nodes_least=nodes_least, weight=weight)


async def told(nemesis: Lanes, seed: int, count: int) -> list[Line]:
    """The first so many lines of a nemesis' run."""
    recorder, stop = Recorder(), asyncio.Event()
    bed = cast(Testbed, Names())
    running = asyncio.create_task(nemesis.run(bed, random.Random(seed), recorder, stop))
    while len(recorder.lines) < count and not running.done():
        await asyncio.sleep(0)
    stop.set()
    await running
    return recorder.lines


def lanes(*faults: Fault) -> Lanes:
    """One lane of these, without pauses."""
    return Lanes("test", [faults], rest_s=(0.0, 0.001))


async def test_a_seed_gives_the_same_faults_again(seed: int) -> None:
    """Order and what is touched; another seed gives others."""

    async def drawn(number: int) -> list[tuple[str, object]]:
        nemesis = lanes(*(fault(name) for name in "abcdef"))
        return [(line.f, line.value) for line in await told(nemesis, number, 24)][:24]

    assert await drawn(seed) == await drawn(seed)
    assert await drawn(seed) != await drawn(seed + 1)


async def test_every_fault_comes_before_one_comes_too_often(seed: int) -> None:
    """A deck has each as often as its weight says."""
    lines = await told(lanes(fault("a"), fault("b", weight=3), fault("c")), seed, 20)
    begun = [line.f for line in lines if line.value["phase"] == "begin"]
    assert sorted(begun[:5]) == ["a", "b", "b", "b", "c"]
    assert sorted(begun[5:10]) == ["a", "b", "b", "b", "c"]


async def test_faults_are_told_in_pairs(seed: int) -> None:
    """Begin and end share name and value but for the phase; the end comes also when time is up."""
    lines = await told(lanes(fault("a"), fault("b")), seed, 7)
    assert {line.process for line in lines} == {-1}
    assert {line.type for line in lines} == {Type.INFO}
    for begin, end in zip(lines[::2], lines[1::2], strict=True):
        assert begin.f == end.f
        assert begin.value == {**end.value, "phase": "begin"}
        assert end.value["phase"] == "end"


async def test_the_end_of_a_fault_that_fails_is_told(seed: int) -> None:
    """The failure ends the nemesis and is not lost."""

    @asynccontextmanager
    async def make(_scene: Scene) -> AsyncIterator[Touched]:
        yield {}
        raise RuntimeError("cannot be undone")

    recorder = Recorder()
    nemesis = lanes(Fault("bad", "test", make, (0.0, 0.0)))
    bed = cast(Testbed, Names())
    with pytest.raises(ExceptionGroup) as caught:
        await nemesis.run(bed, random.Random(seed), recorder, asyncio.Event())
    assert caught.group_contains(RuntimeError, match="cannot be undone")
    assert [line.value["phase"] for line in recorder.lines] == ["begin", "end"]


async def test_a_fault_for_larger_clusters_is_passed_over(seed: int) -> None:
    """Three nodes have no faults of five."""
    lines = await told(lanes(fault("large", nodes_least=5), fault("small")), seed, 8)
    assert {line.f for line in lines} == {"small"}


async def test_what_goes_on_meanwhile_ends_with_the_block() -> None:
    """It is cancelled, and an error of its own is raised."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with meanwhile(work()):
        await asyncio.sleep(0)
    assert ended.is_set()

    async def fails() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        async with meanwhile(fails()):
            await asyncio.sleep(0)


async def test_a_rest_ends_when_it_is_told_to() -> None:
    """Whether there is time left is the answer."""
    stop = asyncio.Event()
    assert await rest(stop, 0.0) is True
    stop.set()
    assert await rest(stop, 3600.0) is False


def test_what_is_asked_for_by_name_must_be_here() -> None:
    """What is missing is named, with its cure; a mixed nemesis goes without it."""
    for name in ("clocks", "wall-jump"):
        with pytest.raises(nemeses.NotHereError, match="apt-get install libfaketime"):
            nemeses.make(name, equipment={"shim"})
    with pytest.raises(nemeses.NotHereError, match="C compiler"):
        nemeses.make("power-all", equipment=())
    assert nemeses.make("mixed", equipment=()).needs == frozenset()
    assert nemeses.make("mixed", equipment={"shim"}).needs == {"shim"}
    with pytest.raises(KeyError):
        nemeses.make("earthquake", equipment=())


def test_every_name_makes_a_nemesis() -> None:
    """Faults, families, mixed and none; no two faults share a name with a family."""
    names = nemeses.names()
    assert len(names) == len(set(names))
    for name in names:
        made = nemeses.make(name, equipment={"shim", "faketime"})
        assert bool(made.lanes) == (name != "none")


class Others:
    """What is asked of a bed before a node is damaged: how the others stand, look by look."""

    names = ("n1", "n2", "n3")

    def __init__(self, *views: View | None, late_for: int = 0) -> None:
        self._views = dict(zip(self.names[1:], views, strict=True))
        self._late_for = late_for
        self.asked: set[str] = set()

    @property
    def is_late(self) -> bool:
        self._late_for -= 1
        return self._late_for >= 0

    async def look(self, name: str) -> View | None:
        self.asked.add(name)
        return self._views[name]


def stands(node: str, leader: str | None, commit: int, applied: int) -> View:
    """How a node stands."""
    role = "leader" if leader == node else "follower"
    return View(node, leader, role, 3, commit, applied, "d", ready=leader is not None)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (stands("n2", "n2", 9, 9), stands("n3", "n2", 8, 9), True),
        (stands("n2", "n2", 9, 9), stands("n3", "n2", 8, 8), False),
        (stands("n2", "n2", 9, 9), None, False),
        (stands("n2", None, 9, 9), stands("n3", None, 9, 9), False),
        (stands("n2", "n1", 9, 9), stands("n3", "n1", 9, 9), False),
        (stands("n2", "n2", 9, 9), stands("n3", "n1", 9, 9), False),
    ],
    ids=["level", "one is behind", "one is silent", "nobody leads", "another leads", "two lead"],
)
async def test_a_node_is_damaged_only_where_the_others_have_all(
    first: View | None, second: View | None, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what it loses may be in no majority that is left, which no Raft survives."""
    monkeypatch.setattr(files, "_LEVEL_S", 0.2)
    bed = Others(first, second)
    assert await files.others_have_all(cast(Testbed, bed), ["n1"]) is expected
    assert bed.asked == {"n2", "n3"}


async def test_late_acknowledgements_of_a_node_are_waited_for() -> None:
    """Where bytes are held up, the node that is to be damaged may still be counted."""
    level = stands("n2", "n2", 9, 9), stands("n3", "n2", 9, 9)
    bed = Others(*level, late_for=2)
    assert await files.others_have_all(cast(Testbed, bed), ["n1"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A node's folder: a segment with reserved zeros behind its records, and a snapshot."""
    (tmp_path / "journal-00000001.seg").write_bytes(b"old" * 50)
    (tmp_path / "journal-00000002.seg").write_bytes(b"record" * 50 + bytes(1000))
    (tmp_path / "snapshot-300-2.snap").write_bytes(b"state" * 50)
    return tmp_path


def test_a_torn_tail_is_zeros_where_records_were(data: Path, rng: random.Random) -> None:
    """In the newest segment, at the end of what was written, and its size stays."""
    assert files.torn_tail(data, rng) is not None
    torn = (data / "journal-00000002.seg").read_bytes()
    assert len(torn) == 1300
    kept = len(torn.rstrip(b"\0"))
    assert 260 <= kept < 300
    assert torn[:kept] == (b"record" * 50)[:kept]


def test_a_turned_bit_is_one(data: Path, rng: random.Random) -> None:
    """Of the newest file of its kind."""
    before = (data / "snapshot-300-2.snap").read_bytes()
    assert files.bit_in("snapshot-*.snap")(data, rng) is not None
    after = (data / "snapshot-300-2.snap").read_bytes()
    turned = [a ^ b for a, b in zip(before, after, strict=True) if a != b]
    assert len(turned) == 1
    assert turned[0].bit_count() == 1


def test_harm_to_what_is_not_there_is_none(tmp_path: Path, rng: random.Random) -> None:
    """A young node has no snapshot."""
    cut = files.cut_short("journal-*.seg")
    for harm in (files.torn_tail, cut, files.garbage_tail, files.lost("snapshot-*")):
        assert harm(tmp_path, rng) is None


def test_what_is_cut_short_or_lost_is_the_newest(data: Path, rng: random.Random) -> None:
    """The older segment is left alone."""
    files.cut_short("journal-*.seg")(data, rng)
    assert 150 <= len((data / "journal-00000002.seg").read_bytes()) < 300
    files.lost("journal-*.seg")(data, rng)
    assert [file.name for file in data.glob("*.seg")] == ["journal-00000001.seg"]
