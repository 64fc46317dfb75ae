"""A snapshot is whole or it is refused, and the one before it stands until then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pathlib
import random
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from cluster.replication.disk import Disk, DiskFailed, OsDisk
from cluster.replication.snapshots import (
    Dumper,
    DumpFailed,
    ForkDumper,
    InlineDumper,
    Receiving,
    SnapshotCorrupt,
    SnapshotId,
    SnapshotRefused,
    SnapshotStore,
)
from tests.simulation.disk import SimDisk, Stopped

DEADLINE_S = 20.0
needs_proc = pytest.mark.skipif(
    not pathlib.Path("/proc/self/fd").exists(), reason="descriptors are looked up in /proc"
)
OLD = [b"old state", b"in two chunks"]
NEW = [b"new state", b"", b"x" * 300, b"end"]


@pytest.fixture(params=["os", "sim"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Disk]:
    """Each of the two disks, empty."""
    if request.param == "sim":
        yield SimDisk(random.Random(0))
        return
    real = OsDisk(tmp_path / "data")
    yield real
    real.close()


def content(store: SnapshotStore) -> list[bytes]:
    """The chunks of the latest snapshot."""
    assert store.latest is not None
    return list(store.chunks(store.latest))


def source(chunks: Iterable[bytes] = NEW, index: int = 20) -> tuple[SnapshotId, bytes]:
    """A snapshot as a peer would offer it, and its file."""
    disk = SimDisk(random.Random(0))
    store = SnapshotStore(disk)
    snapshot = store.write(index, 2, index - 1, 2, chunks)
    return snapshot, store.read(snapshot, 0, snapshot.size)


# ---- the store ------------------------------------------------------------------------------


def test_an_empty_directory_has_no_snapshot(disk: Disk) -> None:
    """A new node starts without."""
    assert SnapshotStore(disk).latest is None


def test_what_was_written_is_read_back_in_its_chunks(disk: Disk) -> None:
    """Also after a restart, chunk by chunk, empty ones too."""
    store = SnapshotStore(disk)
    snapshot = store.write(20, 2, 19, 1, NEW)
    assert (snapshot.index, snapshot.term) == (20, 2)
    assert (snapshot.previous_index, snapshot.previous_term) == (19, 1)
    assert snapshot.size == disk.size("snapshot-20-2.snap")
    assert store.latest == snapshot
    assert content(store) == NEW
    again = SnapshotStore(disk)
    assert again.latest == snapshot
    assert content(again) == NEW
    assert disk.names() == ["snapshot-20-2.snap"]


def test_a_state_of_no_chunks_is_a_state(disk: Disk) -> None:
    """An empty machine may say nothing."""
    SnapshotStore(disk).write(1, 0, 0, 0, [])
    assert content(SnapshotStore(disk)) == []


def test_a_long_state_passes_through_in_pieces(disk: Disk) -> None:
    """Chunks larger and smaller than what is read and written at once."""
    chunks = [random.Random(size).randbytes(size) for size in (3_000_000, 1, 9_000_000, 70)]
    SnapshotStore(disk).write(5, 1, 4, 1, iter(chunks))
    assert content(SnapshotStore(disk)) == chunks


def test_a_newer_snapshot_replaces_the_older(disk: Disk) -> None:
    """One file is kept."""
    store = SnapshotStore(disk)
    old = store.write(10, 1, 9, 1, OLD)
    store.write(20, 2, 19, 2, NEW)
    assert disk.names() == ["snapshot-20-2.snap"]
    with pytest.raises(SnapshotRefused, match="not kept"):
        store.read(old, 0, 1)
    with pytest.raises(SnapshotRefused, match="not kept"):
        store.chunks(old)


def test_an_older_snapshot_is_refused_and_leaves_nothing(disk: Disk) -> None:
    """A dump that was overtaken by a received snapshot does not win."""
    store = SnapshotStore(disk)
    latest = store.write(20, 2, 19, 2, NEW)
    with pytest.raises(SnapshotRefused, match="entry 20 is in the latest"):
        store.write(10, 1, 9, 1, OLD)
    assert store.write(20, 2, 19, 2, [b"cut otherwise"]) == latest
    assert disk.names() == ["snapshot-20-2.snap"]
    assert content(store) == NEW


def test_a_held_snapshot_stays_until_it_is_released(disk: Disk) -> None:
    """A transfer under way is not overtaken by the next compaction."""
    store = SnapshotStore(disk)
    old = store.write(10, 1, 9, 1, OLD)
    store.hold(old)
    store.hold(old)
    store.write(20, 2, 19, 2, NEW)
    store.release(old)
    assert len(store.read(old, 0, old.size)) == old.size
    store.release(old)
    assert disk.names() == ["snapshot-20-2.snap"]


def test_unfinished_files_are_cleared_away_at_start(disk: Disk) -> None:
    """A leftover is no snapshot; other files are none of ours."""
    for name in ("snapshot-30-3.dump.tmp", "snapshot-31-3.received.tmp", "other.tmp"):
        disk.create(name).close()
    assert SnapshotStore(disk).latest is None
    assert disk.names() == ["other.tmp"]


def test_a_dump_that_raises_leaves_nothing(disk: Disk) -> None:
    """The error of the state machine comes through."""

    def breaking() -> Iterator[bytes]:
        yield b"x"
        raise LookupError("a bug")

    store = SnapshotStore(disk)
    with pytest.raises(LookupError, match="a bug"):
        store.write(10, 1, 9, 1, breaking())
    assert disk.names() == []
    store.write(10, 1, 9, 1, OLD)
    assert content(store) == OLD


def test_every_flipped_bit_is_refused_at_start() -> None:
    """An invalid newest file is never passed over for an older one, nor for none."""
    disk = SimDisk(random.Random(0))
    store = SnapshotStore(disk)
    store.hold(store.write(10, 1, 9, 1, OLD))
    store.write(20, 2, 19, 2, [b"new", b"x" * 40])
    data = disk.read("snapshot-20-2.snap")
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        rotten = disk.copy(random.Random(0))
        rotten.put("snapshot-20-2.snap", bytes(flipped))
        with pytest.raises(SnapshotCorrupt) as caught:
            SnapshotStore(rotten)
        assert caught.value.file == "snapshot-20-2.snap"
        assert len(rotten.names()) == 2, "the evidence stays"


def test_every_cut_and_every_longer_file_is_refused_at_start() -> None:
    """Half a snapshot is none."""
    disk = SimDisk(random.Random(0))
    SnapshotStore(disk).write(20, 2, 19, 2, NEW)
    data = disk.read("snapshot-20-2.snap")
    for wrong in [*(data[:size] for size in range(len(data))), data + b"\0"]:
        disk.put("snapshot-20-2.snap", wrong)
        with pytest.raises(SnapshotCorrupt):
            SnapshotStore(disk)


def test_a_file_under_a_wrong_name_is_refused() -> None:
    """A renamed snapshot would claim entries it does not have."""
    disk = SimDisk(random.Random(0))
    SnapshotStore(disk).write(20, 2, 19, 2, NEW)
    disk.rename("snapshot-20-2.snap", "snapshot-21-2.snap")
    with pytest.raises(SnapshotCorrupt, match="holds entry 20"):
        SnapshotStore(disk)


def test_rot_after_the_start_is_found_before_any_chunk_is_given_out() -> None:
    """The whole file is verified again each time it is loaded."""
    disk = SimDisk(random.Random(0))
    store = SnapshotStore(disk)
    latest = store.write(20, 2, 19, 2, NEW)
    for seed in range(100):
        rotten = disk.copy(random.Random(0))
        store._disk = rotten
        rotten.flip(random.Random(seed))
        with pytest.raises(SnapshotCorrupt):
            store.chunks(latest)


def test_a_stop_at_every_byte_and_every_operation_leaves_a_whole_snapshot() -> None:
    """The old one or the new one; the new one once write has returned."""
    disk = SimDisk(random.Random(0))
    SnapshotStore(disk).write(10, 1, 9, 1, OLD)
    begun = disk.copy(random.Random(0))
    begun.trace = []
    SnapshotStore(begun).write(20, 2, 19, 2, [b"new", b"state"])
    names = [name for name, _ in begun.trace]
    assert [name.split()[0] for name in names].count("rename") == 1
    for number, (name, size) in enumerate([*begun.trace, ("the end", 0)]):
        for part in range(size + 1):
            died = disk.copy(random.Random(number))
            died.stop_at, died.stop_part = number, part
            finished = False
            try:
                SnapshotStore(died).write(20, 2, 19, 2, [b"new", b"state"])
                finished = True
            except Stopped:
                pass
            for seed in range(6 if size else 30):
                left = died.copy(random.Random(seed))
                left.crash(power=seed % 3 > 0)
                store = SnapshotStore(left)
                found = content(store)
                where = f"stop {part} bytes into {name} ({number}), seed {seed}"
                assert found == [b"new", b"state"] or (found == OLD and not finished), where
                left.crash(power=True)
                assert content(SnapshotStore(left)) == found, f"{where}, then power loss"


# ---- a transfer -----------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 100, 10_000])
def test_a_snapshot_arrives_in_pieces(disk: Disk, piece: int) -> None:
    """Whatever the pieces, it is the latest once it is finished, and not before."""
    snapshot, data = source()
    store = SnapshotStore(disk)
    old = store.write(10, 1, 9, 1, OLD)
    receiving = store.begin(snapshot)
    while receiving.wanted < snapshot.size:
        wanted = receiving.wanted
        taken = data[wanted : wanted + piece]
        assert receiving.append(wanted, taken) == wanted + len(taken)
        assert store.latest == old
    assert receiving.finish() == snapshot == store.latest
    assert content(store) == NEW
    assert content(SnapshotStore(disk)) == NEW
    assert disk.names() == ["snapshot-20-2.snap"]


def test_pieces_at_a_wrong_offset_are_dropped(disk: Disk) -> None:
    """Duplicates and gaps change nothing; the answer says where to go on."""
    snapshot, data = source()
    receiving = SnapshotStore(disk).begin(snapshot)
    assert receiving.append(0, data[:50]) == 50
    assert receiving.append(0, data[:50]) == 50
    assert receiving.append(60, data[60:]) == 50
    assert receiving.append(50, data[50:]) == snapshot.size
    assert receiving.finish() == snapshot


def take_all(receiving: Receiving, data: bytes) -> SnapshotId:
    """A transfer in one piece."""
    receiving.append(0, data)
    return receiving.finish()


def test_every_flipped_bit_of_a_transfer_leaves_the_old_snapshot() -> None:
    """A bad transfer is found at the latest when it is finished."""
    snapshot, data = source([b"new", b"state"])
    disk = SimDisk(random.Random(0))
    store = SnapshotStore(disk)
    old = store.write(10, 1, 9, 1, OLD)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        receiving = store.begin(snapshot)
        with pytest.raises(SnapshotCorrupt):
            take_all(receiving, bytes(flipped))
        assert store.latest == old
        assert disk.names() == ["snapshot-10-1.snap"]
        with pytest.raises(SnapshotRefused, match="has ended"):
            receiving.append(0, data)
    assert content(store) == OLD


def test_a_transfer_that_is_not_what_was_announced_is_refused(disk: Disk) -> None:
    """Too short, too long, or whole but another one."""
    snapshot, data = source()
    _, other = source([b"another", b"state"])
    store = SnapshotStore(disk)
    old = store.write(10, 1, 9, 1, OLD)
    receiving = store.begin(snapshot)
    receiving.append(0, data[:-1])
    with pytest.raises(SnapshotCorrupt, match="in the middle"):
        receiving.finish()
    receiving = store.begin(snapshot)
    with pytest.raises(SnapshotCorrupt, match="more than"):
        receiving.append(0, data + b"x")
    receiving = store.begin(snapshot)
    receiving.append(0, other)
    with pytest.raises(SnapshotCorrupt, match="announced"):
        receiving.finish()
    assert store.latest == old
    assert disk.names() == ["snapshot-10-1.snap"]


def test_a_new_transfer_ends_the_one_before(disk: Disk) -> None:
    """A new leader begins again; the old leader's pieces go nowhere."""
    snapshot, data = source()
    newer, newer_data = source([b"newer"], index=30)
    store = SnapshotStore(disk)
    first = store.begin(snapshot)
    first.append(0, data[:50])
    second = store.begin(newer)
    with pytest.raises(SnapshotRefused, match="has ended"):
        first.append(50, data[50:])
    first.abort()
    second.append(0, newer_data)
    assert second.finish() == newer
    with pytest.raises(SnapshotRefused, match="has ended"):
        second.finish()
    assert disk.names() == ["snapshot-30-2.snap"]


def test_a_transfer_nobody_needs_is_refused() -> None:
    """As old as ours, or larger than the disk."""
    snapshot, _ = source()
    disk = SimDisk(random.Random(0))
    store = SnapshotStore(disk)
    disk.capacity_bytes = 100
    with pytest.raises(SnapshotRefused, match="room for 100"):
        store.begin(snapshot)
    disk.capacity_bytes = 10_000
    store.write(20, 2, 19, 2, OLD)
    with pytest.raises(SnapshotRefused, match="entry 20 is in the latest"):
        store.begin(snapshot)
    assert disk.names() == ["snapshot-20-2.snap"]


def test_a_stop_in_a_transfer_leaves_a_whole_snapshot() -> None:
    """At every operation, with power loss: the old one, or the new one."""
    snapshot, data = source()

    def receive(store: SnapshotStore) -> None:
        receiving = store.begin(snapshot)
        for at in range(0, len(data), 100):
            receiving.append(at, data[at : at + 100])
        receiving.finish()

    disk = SimDisk(random.Random(0))
    SnapshotStore(disk).write(10, 1, 9, 1, OLD)
    number = -1
    finished = False
    while not finished:
        number += 1
        died = disk.copy(random.Random(number))
        died.stop_at = number
        try:
            receive(SnapshotStore(died))
            finished = True
        except Stopped:
            pass
        for seed in range(20):
            left = died.copy(random.Random(seed))
            left.crash(power=True)
            found = content(SnapshotStore(left))
            assert found == NEW or (found == OLD and not finished), f"stop {number}, seed {seed}"
    assert number > 8


# ---- dumpers --------------------------------------------------------------------------------


def finished(dumper: Dumper) -> SnapshotId:
    """Wait for the dumper's result: for the end of its child, if it has one."""
    if isinstance(dumper, ForkDumper) and dumper.pid:
        os.waitid(os.P_PID, dumper.pid, os.WEXITED | os.WNOWAIT)
    found = dumper.poll()
    assert found is not None
    return found


@pytest.fixture(params=[InlineDumper, ForkDumper])
def make_dumper(request: pytest.FixtureRequest) -> Callable[[SnapshotStore], Dumper]:
    """Each of the two dumpers."""
    chosen: Callable[[SnapshotStore], Dumper] = request.param
    return chosen


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[SnapshotStore]:
    """A store on the real disk, with an old snapshot."""
    real = OsDisk(tmp_path / "data")
    opened = SnapshotStore(real)
    opened.write(10, 1, 9, 1, OLD)
    yield opened
    real.close()


def names(store: SnapshotStore) -> list[str]:
    """The files of the store."""
    return store._disk.names()


def test_a_dump_becomes_the_latest_at_poll(
    store: SnapshotStore, make_dumper: Callable[[SnapshotStore], Dumper]
) -> None:
    """Not before, and it is told once."""
    dumper = make_dumper(store)
    assert dumper.poll() is None
    old = store.latest
    dumper.start(20, 2, 19, 2, lambda: iter(NEW))
    assert dumper.busy
    assert store.latest == old
    snapshot = finished(dumper)
    assert snapshot == store.latest
    assert not dumper.busy
    assert dumper.poll() is None
    assert content(store) == NEW
    assert names(store) == ["snapshot-20-2.snap"]


def test_a_dump_that_raises_is_told_once(
    store: SnapshotStore, make_dumper: Callable[[SnapshotStore], Dumper]
) -> None:
    """The old snapshot stands and the next dump succeeds."""

    def breaking() -> Iterator[bytes]:
        yield b"x"
        raise LookupError("a bug")

    dumper = make_dumper(store)
    dumper.start(20, 2, 19, 2, breaking)
    with pytest.raises(DumpFailed, match="LookupError.*a bug"):
        finished(dumper)
    assert not dumper.busy
    assert dumper.poll() is None
    assert names(store) == ["snapshot-10-1.snap"]
    dumper.start(20, 2, 19, 2, lambda: NEW)
    finished(dumper)
    assert content(store) == NEW


def test_an_overtaken_dump_fails(
    store: SnapshotStore, make_dumper: Callable[[SnapshotStore], Dumper]
) -> None:
    """A newer snapshot came in between: the older one leaves nothing."""
    dumper = make_dumper(store)
    dumper.start(20, 2, 19, 2, lambda: NEW)
    store.write(30, 3, 29, 3, [b"newer"])
    with pytest.raises(DumpFailed, match="entry 30"):
        finished(dumper)
    assert names(store) == ["snapshot-30-3.snap"]


def test_a_cancelled_dump_leaves_nothing(
    store: SnapshotStore, make_dumper: Callable[[SnapshotStore], Dumper]
) -> None:
    """Before a received snapshot is installed, no dump is under way."""
    dumper = make_dumper(store)
    dumper.cancel()
    dumper.start(20, 2, 19, 2, lambda: NEW)
    dumper.cancel()
    assert not dumper.busy
    assert dumper.poll() is None
    assert names(store) == ["snapshot-10-1.snap"]
    dumper.start(20, 2, 19, 2, lambda: NEW)
    assert finished(dumper) == store.latest


def test_a_stop_in_a_dump_leaves_a_whole_snapshot() -> None:
    """The simulator's dumper dies at every operation like the store itself."""
    disk = SimDisk(random.Random(0))
    SnapshotStore(disk).write(10, 1, 9, 1, OLD)
    for number in range(9):
        died = disk.copy(random.Random(number))
        died.stop_at = number
        found: SnapshotId | None = None
        try:
            store = SnapshotStore(died)
            dumper = InlineDumper(store)
            dumper.start(20, 2, 19, 2, lambda: NEW)
            found = dumper.poll()
        except Stopped:
            pass
        died.stop_at = None
        died.crash(power=True)
        assert content(SnapshotStore(died)) == NEW or (number < 8 and found is None)


def test_a_disk_failure_in_a_dump_is_fatal_in_the_process_itself() -> None:
    """Whoever shares the process with the journal must not go on."""
    disk = SimDisk(random.Random(0))
    dumper = InlineDumper(SnapshotStore(disk))
    disk.full = True
    with pytest.raises(DiskFailed):
        dumper.start(20, 2, 19, 2, lambda: NEW)


# ---- the forked child -----------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: pathlib.Path) -> pathlib.Path:
    """A named pipe: who opens it to read waits until somebody opens it to write."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


def behind(gate: pathlib.Path) -> Callable[[], Iterator[bytes]]:
    """A dump that waits at the gate."""

    def dump() -> Iterator[bytes]:
        yield b"before"
        yield gate.read_bytes()

    return dump


def descriptors() -> list[str]:
    """What the descriptors of this process lead to, in their order."""
    found = []
    for number in sorted(int(path.name) for path in pathlib.Path("/proc/self/fd").iterdir()):
        link = pathlib.Path(f"/proc/self/fd/{number}")
        # The listing's own descriptor is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


def event_loops() -> list[str]:
    """The loops a node may run on."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return ["asyncio"]
    return ["asyncio", "uvloop"]


@needs_proc
@pytest.mark.parametrize("kind", event_loops())
def test_a_child_lives_beside_a_loop_and_keeps_no_socket(
    store: SnapshotStore, gate: pathlib.Path, kind: str
) -> None:
    """While it dumps, the parent's connections work, and end when the parent ends them."""

    def dump() -> Iterator[bytes]:
        yield repr(descriptors()).encode()
        yield gate.read_bytes()

    factory = asyncio.new_event_loop
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    async def scenario() -> None:
        ended = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readline())
            await reader.read()
            writer.close()
            await writer.wait_closed()
            ended.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        dumper = ForkDumper(store)
        dumper.start(20, 2, 19, 2, dump)
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        assert dumper.poll() is None
        assert dumper.busy
        writer.close()
        # Did the child hold the socket, the other side would never see its end.
        await asyncio.wait_for(ended.wait(), DEADLINE_S)
        server.close()
        await server.wait_closed()
        await asyncio.to_thread(gate.write_bytes, b"after")
        os.waitid(os.P_PID, dumper.pid, os.WEXITED | os.WNOWAIT)
        assert dumper.poll() == store.latest

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(scenario())
    held, after = content(store)
    assert after == b"after"
    assert b"/dev/null" in held
    for foreign in (b"socket:", b"eventpoll", b"/lock"):
        assert foreign not in held


def test_a_child_has_the_state_as_it_was(store: SnapshotStore, gate: pathlib.Path) -> None:
    """What the parent changes after the start is not in the snapshot."""
    state = [b"then"]

    def dump() -> Iterator[bytes]:
        gate.read_bytes()
        yield from state

    dumper = ForkDumper(store)
    dumper.start(20, 2, 19, 2, dump)
    state[0] = b"now"
    gate.write_bytes(b"go")
    finished(dumper)
    assert content(store) == [b"then"]


@needs_proc
def test_a_child_keeps_its_file_when_a_destructor_of_the_parent_runs(
    store: SnapshotStore,
) -> None:
    """A late close of the parent's descriptor number must not hit the child's file."""
    left, right = socket.socketpair()
    numbers = [left.fileno(), right.fileno()]
    held = [left, right]
    del left, right

    def dump() -> Iterator[bytes]:
        held.clear()
        gc.collect()
        yield repr(descriptors()[:3]).encode()
        yield b"whole"

    dumper = ForkDumper(store)
    dumper.start(20, 2, 19, 2, dump)
    finished(dumper)
    standard, whole = content(store)
    assert standard == repr(["/dev/null"] * 3).encode()
    assert whole == b"whole"
    assert [one.fileno() for one in held] == numbers
    for one in held:
        one.close()


def test_a_killed_child_is_a_failed_dump(store: SnapshotStore, gate: pathlib.Path) -> None:
    """The old snapshot stands, and the file is gone."""
    dumper = ForkDumper(store)
    dumper.start(20, 2, 19, 2, behind(gate))
    os.kill(dumper.pid, signal.SIGKILL)
    with pytest.raises(DumpFailed, match="status -9"):
        finished(dumper)
    assert names(store) == ["snapshot-10-1.snap"]


def test_a_child_ends_by_signals_as_a_plain_process_does(
    store: SnapshotStore, gate: pathlib.Path
) -> None:
    """The parent's handlers are not the child's: a stop of the service stops it."""
    called: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
    try:
        dumper = ForkDumper(store)
        dumper.start(20, 2, 19, 2, behind(gate))
        os.kill(dumper.pid, signal.SIGTERM)
        with pytest.raises(DumpFailed, match="status -15"):
            finished(dumper)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert called == []


def test_a_child_reaped_by_somebody_else_is_believed_by_its_message(
    store: SnapshotStore,
) -> None:
    """A wait for any child elsewhere in the process takes the status, not the result."""
    dumper = ForkDumper(store)
    dumper.start(20, 2, 19, 2, lambda: NEW)
    os.waitpid(dumper.pid, 0)
    assert dumper.poll() == store.latest
    assert content(store) == NEW


def test_a_fork_that_is_refused_is_a_failed_dump(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No memory or no process left: the node goes on."""

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    dumper = ForkDumper(store)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", refuse)
        dumper.start(20, 2, 19, 2, lambda: NEW)
    assert dumper.busy
    with pytest.raises(DumpFailed, match="temporarily unavailable"):
        dumper.poll()
    assert not dumper.busy
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_a_dump_without_a_descriptor_left_is_a_failed_dump(store: SnapshotStore) -> None:
    """Clients may have taken them all; the log is kept, and a later dump may succeed."""
    dumper = ForkDumper(store)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
    try:
        dumper.start(2, 1, 1, 0, lambda: [b"state"])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    with pytest.raises(DumpFailed, match="no pipe: .*Too many open files"):
        dumper.poll()
    assert not dumper.busy


def test_a_child_runs_no_exit_handler_and_flushes_nothing(tmp_path: pathlib.Path) -> None:
    """What the parent printed and has not flushed is printed once."""
    script = (
        "import atexit, os, pathlib, sys\n"
        "from cluster.replication.disk import OsDisk\n"
        "from cluster.replication.snapshots import ForkDumper, SnapshotStore\n"
        "left = pathlib.Path(sys.argv[2]).open('a')\n"
        "atexit.register(lambda: pathlib.Path(sys.argv[3]).open('a').write('exit '))\n"
        "left.write('buffered ')\n"
        "print('printed', end=' ')\n"
        "dumper = ForkDumper(SnapshotStore(OsDisk(pathlib.Path(sys.argv[1]))))\n"
        "dumper.start(20, 2, 19, 2, lambda: [b'state'])\n"
        "os.waitid(os.P_PID, dumper.pid, os.WEXITED | os.WNOWAIT)\n"
        "print(dumper.poll().index, end=' ')\n"
    )
    files = [tmp_path / "data", tmp_path / "buffered", tmp_path / "exits"]
    command = [sys.executable, "-c", script, *map(str, files)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=DEADLINE_S
    )
    assert done.stdout == "printed 20 "
    assert files[1].read_text() == "buffered "
    assert files[2].read_text() == "exit "


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_child_dies_with_its_parent(tmp_path: pathlib.Path, gate: pathlib.Path) -> None:
    """A killed node leaves no writer behind, and its directory is free at once."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    script = (
        "import os, pathlib, signal, sys\n"
        "from cluster.replication.disk import OsDisk\n"
        "from cluster.replication.snapshots import ForkDumper, SnapshotStore\n"
        "data, alive, gate = map(pathlib.Path, sys.argv[1:])\n"
        "def dump():\n"
        "    descriptor = os.open(alive, os.O_WRONLY)\n"
        "    os.write(descriptor, b'alive')\n"
        "    yield gate.read_bytes()\n"
        "dumper = ForkDumper(SnapshotStore(OsDisk(data)))\n"
        "dumper.start(20, 2, 19, 2, dump)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "data"), str(alive), str(gate)]
    reading = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            assert read_until(reading, b"alive")
        finally:
            process.kill()
    assert read_until(reading, b""), "the child outlived its parent"
    os.close(reading)
    OsDisk(tmp_path / "data").close()


def read_until(descriptor: int, expected: bytes) -> bool:
    """Whether these bytes, or the end for none, come before the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        select.select([descriptor], [], [], DEADLINE_S)
        try:
            if os.read(descriptor, 100) == expected:
                return True
        except BlockingIOError:
            continue
    return False
