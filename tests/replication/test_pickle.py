"""No pickle: neither what comes from a socket nor what lies on a disk is ever unpickled.

RULE: shown twice. With every way into pickle closed a whole life goes on; with a bomb wherever
bytes come in, nothing goes off. The bomb, unpickled, makes a file.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pysyncobj.pickle
import pytest

from cluster.replication.disk import Disk, DiskFailed, OsDisk
from cluster.replication.engine import EngineSettings
from cluster.replication.guard import EngineFault
from cluster.replication.identity import Identity, IdentityMismatch
from cluster.replication.journal import Journal, JournalCorrupt
from cluster.replication.snapshots import SnapshotCorrupt, SnapshotStore
from cluster.replication.transport import Transport
from cluster.wire import frames
from cluster.wire.cbor import WireError
from cluster.wire.frames import Append, Forward, ForwardedRequest, RaftMessage, Snapshot
from tests.node.drivers import SECRET, trio, until
from tests.replication.group import Group, hand_driven, numbered

SMALL = EngineSettings(
    window=100, snapshot_entries=20, snapshot_chunk_bytes=100, snapshot_window_bytes=300
)
REFUSALS = (JournalCorrupt, SnapshotCorrupt, IdentityMismatch, EngineFault, DiskFailed)


class Bomb:
    """Something that makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.target,)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The file that must not come to be."""
    return tmp_path / "it went off"


@pytest.fixture(params=[0, 2, 5])
def bomb(request: pytest.FixtureRequest, target: Path) -> bytes:
    """The bomb in one of pickle's protocols; the library writes 2."""
    return pickle.dumps(Bomb(target), protocol=request.param)


@pytest.fixture
def make() -> Iterator[Callable[..., Group]]:
    """Make a group whose clock is moved by its steps."""
    with hand_driven() as maker:
        yield maker


def test_the_bomb_goes_off_when_it_is_unpickled(bomb: bytes, target: Path) -> None:
    """Else the tests below would show nothing."""
    pysyncobj.pickle.loads(bomb)
    assert target.exists()


def close_all_ways_into_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every function that pickles or unpickles raise."""

    def closed(*_: object, **__: object) -> None:
        raise AssertionError("pickle was used")

    for name in ("load", "loads", "dump", "dumps", "_load", "_loads", "_dump", "_dumps"):
        monkeypatch.setattr(pickle, name, closed)
    for name in ("Pickler", "Unpickler", "_Pickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, closed)
    for name in ("load", "loads", "dump", "dumps"):
        monkeypatch.setattr(pysyncobj.pickle, name, closed)


def test_a_whole_life_goes_on_without_pickle(
    make: Callable[..., Group], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elections, commands, compaction, a snapshot sent, restarts, a hand-over."""
    close_all_ways_into_pickle(monkeypatch)
    group = make(settings=SMALL)
    group.elect("a")
    group.commit(*numbered(30))
    group.crash("b")
    group.commit(*numbered(60, "q"))
    group.start("b")
    group.until(group.is_level)
    assert group.engine("b").snapshots_installed == 1
    group.elect("b")
    group.crash("b")
    group.until(lambda: group.leader in ("a", "c"))
    group.start("b")
    group.until(group.is_level)
    for name in group.names:
        group.crash(name)
    for name in group.names:
        group.start(name)
    group.until(group.is_level)
    group.commit(b"last")
    for name in group.names:
        assert group.toy(name).payloads == [*numbered(30), *numbered(60, "q"), b"last"]


async def test_three_drivers_live_without_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same over real sockets, with the real machine."""
    close_all_ways_into_pickle(monkeypatch)
    async with trio() as three:
        for name in "abc":
            await three.session(name, nonce=name)
        leader = three.leader
        assert leader is not None
        replies: list[object] = []
        three[leader].node.transfer(None, replies.append)
        await until(lambda: replies and three.leader not in (None, leader))
        await three.stop(leader)
        await three.start(leader)
        await until(three.is_level)


def hostile_messages(bomb: bytes) -> Iterator[bytes]:
    """Frames that carry the bomb wherever bytes may stand, and the bomb itself."""
    yield bomb
    head = frames.SnapshotHead(
        index=9, term=1, previous_index=8, previous_term=1, size=len(bomb), crc=1
    )
    for kind in range(8):
        command = bytes([kind]) + bomb
        yield frames.encode(
            Append(
                term=1,
                beat=1,
                commit_index=2,
                prev_index=1,
                prev_term=0,
                entries=((2, 1, command),),
            )
        )
    yield frames.encode(Snapshot(term=1, beat=1, head=head, offset=0, data=bomb))
    yield frames.encode(Forward(boot=1, ack=1, requests=(ForwardedRequest(1, bomb),)))


def test_a_bomb_in_any_message_of_a_peer_does_not_go_off(
    make: Callable[..., Group], bomb: bytes, target: Path
) -> None:
    """The engine takes it as bytes, hands it to the application unread, or stops the process."""
    for frame in hostile_messages(bomb):
        try:
            message = frames.decode(frame)
        except WireError:
            continue
        if not isinstance(message, RaftMessage):
            continue
        group = make()
        for other in ("a", "c"):
            group.crash(other)
        group.inject("a", "b", message)
        try:
            group.run(0.02)
        except EngineFault as fault:
            assert "unknown kind" in str(fault)
    assert not target.exists()


async def test_a_bomb_sent_to_the_peer_port_does_not_go_off(bomb: bytes, target: Path) -> None:
    """By a stranger, plain and in the library's own framing; the node serves on."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        stats = three[leader].transport.strangers
        for data in (bomb, struct.pack("i", len(bomb)) + bomb, struct.pack(">I", len(bomb)) + bomb):
            refused = stats.refused
            reader, writer = await asyncio.open_connection("127.0.0.1", three.ports[leader])
            writer.write(data)
            writer.write_eof()
            try:
                await reader.read()
            except ConnectionError:
                pass
            writer.close()
            await until(lambda before=refused: stats.refused > before)  # type: ignore[misc]
        await three.session(leader)
        assert three.fatal == []
    assert not target.exists()


class Deaf:
    """A receiver that looks at nothing."""

    def on_frame(self, peer: str, data: bytes) -> None:
        pass

    def on_connected(self, peer: str) -> None:
        pass

    def on_disconnected(self, peer: str) -> None:
        pass


async def test_a_bomb_sent_by_an_authenticated_peer_does_not_go_off(
    bomb: bytes, target: Path
) -> None:
    """A member gone bad holds the secret: its bytes are void, or end this node, and run nothing."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        victim, gone_bad = [name for name in "abc" if name != leader]
        identity = three[gone_bad].node.identity
        await three.stop(gone_bad)
        learnt: dict[str, str] = {}
        transport = Transport(
            cluster="test",
            node=gone_bad,
            boot=identity.boot + 1 << 32,
            identity=identity.unique,
            secret=SECRET,
            listen=("127.0.0.1", 0),
            peers={victim: ("127.0.0.1", three.ports[victim])},
            receiver=Deaf(),
            known_identity=learnt.get,
            learn_identity=learnt.__setitem__,
            clock=time.monotonic,
            rng=random.Random(0),
        )
        await transport.start()
        try:
            await until(lambda: victim in transport.connected)
            node = three[victim].node
            frames_in = three[victim].transport.stats[gone_bad].frames_in
            messages = list(hostile_messages(bomb))
            for frame in messages:
                transport.send(victim, frame)
            await until(
                lambda: (
                    three.fatal
                    or three[victim].transport.stats[gone_bad].frames_in
                    >= frames_in + len(messages)
                )
            )
            assert node.counters.frames_refused >= 1
        finally:
            await transport.close()
    assert not target.exists()


def planted(folder: Path, name: str, data: bytes) -> None:
    """Write a file as somebody with access to the disk could."""
    (folder / name).write_bytes(data)


def test_a_bomb_in_place_of_any_file_does_not_go_off(
    tmp_path: Path, bomb: bytes, target: Path
) -> None:
    """Journal, snapshot, identity, and the names that the stock library would read."""
    for name in (
        "journal-00000001.seg",
        "snapshot-9-1.snap",
        "identity",
        "journal",
        "journal.meta",
        "dump",
        "journal-00000002.seg",
    ):
        folder = tmp_path / f"data of {name}"
        disk = OsDisk(folder)
        try:
            planted(folder, name, bomb)
            open_everything(disk)
            planted(folder, name, b"\x00" * 16 + bomb)
            open_everything(disk)
        finally:
            disk.close()
    assert not target.exists()


def open_everything(disk: Disk) -> None:
    """Start on a folder as a node does, each part by itself, whatever it says."""

    def identity() -> None:
        Identity.open(disk, cluster="test", node="a", fresh_unique="x")

    def journal() -> None:
        Journal.open(disk, segment_bytes=1 << 16)._destroy()

    def snapshots() -> None:
        store = SnapshotStore(disk)
        if store.latest is not None:
            list(store.chunks(store.latest))

    for part in (identity, journal, snapshots):
        try:
            part()
        except REFUSALS:
            pass


def test_a_bomb_written_over_a_nodes_files_does_not_go_off(
    make: Callable[..., Group], bomb: bytes, target: Path
) -> None:
    """The node refuses to start, or cuts it off as a torn write; it never loads it."""
    group = make(settings=SMALL)
    group.elect("a")
    group.commit(*numbered(50))
    group.crash("b", power=False)
    disk = group.disk("b")
    whole = {name: disk.read(name) for name in disk.names()}
    for name, data in whole.items():
        for damaged in (bomb, bomb + data, data + bomb, data[: len(data) // 2] + bomb):
            disk.put(name, damaged)
            try:
                group.start("b")
            except REFUSALS:
                pass
            else:
                group.crash("b", power=False)
            for other in disk.names():
                disk.unlink(other)
            for other, content in whole.items():
                disk.put(other, content)
    group.start("b")
    group.until(group.is_level)
    assert not target.exists()
