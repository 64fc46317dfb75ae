"""Snapshots: whole states in files, written aside, verified always, sent in pieces.

RULE: a file that has its name is whole and durable; one that is not whole is refused, never
passed over for an older one. Bytes of the state are not looked into.

    file    snapshot-<index>-<term>.snap      unfinished: *.tmp, removed at the next start
    head    magic, u32 version, u64 index, term, previous index, previous term, u32 CRC-32
    chunk   u32 length, u32 CRC-32 seeded with the chunk's number, bytes
    end     u32 0xFFFFFFFF, u32 0, u64 number of chunks, SHA-256 of everything before it

The order is always: write, sync, rename, sync of the directory; only then is the snapshot
the latest one, and only then are older ones removed.
Source: engine.md, findings c7, c8, c10, j1, j2, n3, guard G5, risk 5.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import hashlib
import os
import re
import signal
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NoReturn, Protocol, TypeAlias
from zlib import crc32

from cluster.replication.disk import Disk, DiskFailed, File

CHUNK_BYTES_MAX: Final = 64 << 20
SYNC_EVERY_BYTES: Final = 8 << 20
"""A long file is synced on the way: one sync at its end would hold up the journal's."""

_PIECE_BYTES: Final = 1 << 20
_VERSION: Final = 1
_MAGIC: Final = b"COTERIES"
_END: Final = 0xFFFFFFFF

_HEAD: Final = struct.Struct("<8sIQQQQ")
_CRC: Final = struct.Struct("<I")
_FRAME: Final = struct.Struct("<II")
_COUNT: Final = struct.Struct("<Q")
_HEAD_BYTES: Final = _HEAD.size + _CRC.size
_SHA_BYTES: Final = 32
_END_BYTES: Final = _FRAME.size + _COUNT.size + _SHA_BYTES

_NAME: Final = re.compile(r"snapshot-([0-9]+)-([0-9]+)\.snap")

# Copied and never made anew: making one takes a lock of the TLS library, which another thread
# may hold at the moment of a fork.
_SHA256: Final = hashlib.sha256()

Dump: TypeAlias = Callable[[], Iterable[bytes]]
"""Called once, in the child where there is one; gives the state in chunks."""


class SnapshotCorrupt(Exception):
    """A snapshot is not what was written: the node must not go on from it.

    Attributes:
        file: its name.
        reason: what is wrong.
    """

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(
            f"{file}: {reason}. Nothing older is taken instead, as the log behind it may be "
            "gone: set the data directory aside, look at the disk, and replace this member so "
            "that its peers send it a snapshot"
        )
        self.file = file
        self.reason = reason


class SnapshotRefused(Exception):
    """The store keeps what it has: the snapshot is older, gone, or there is no room for it."""


class DumpFailed(Exception):
    """No snapshot came of a dump; the latest one stands and a later dump may succeed."""


@dataclasses.dataclass(frozen=True, slots=True)
class SnapshotId:
    """What a snapshot holds and how to know its file again.

    Attributes:
        index: of the last entry in the state.
        term: of that entry.
        previous_index: of the entry before it.
        previous_term: of the entry before it.
        size: bytes of the whole file.
        crc: CRC-32 of the whole file.
    """

    index: int
    term: int
    previous_index: int
    previous_term: int
    size: int
    crc: int


class SnapshotStore:
    """The snapshots in one directory: normally one, the latest."""

    def __init__(self, disk: Disk) -> None:
        """Clear away what was not finished and verify the latest snapshot.

        Raises:
            SnapshotCorrupt: the latest one is not whole; the node must not start.
            DiskFailed: the disk refused.
        """
        self._disk = disk
        self._kept: dict[SnapshotId, str] = {}
        self._holds: dict[SnapshotId, int] = {}
        self._latest: SnapshotId | None = None
        self._receiving: Receiving | None = None
        found: list[tuple[int, int, str]] = []
        for name in disk.names():
            if name.startswith("snapshot-") and name.endswith(".tmp"):
                disk.unlink(name)
            elif match := _NAME.fullmatch(name):
                found.append((int(match[1]), int(match[2]), name))
        if not found:
            return
        # A killed process may have renamed it and not synced: the journal will rely on it.
        disk.sync_directory()
        found.sort()
        index, term, name = found.pop()
        latest = self._verify(name)
        if (latest.index, latest.term) != (index, term):
            raise SnapshotCorrupt(name, f"it holds entry {latest.index}, term {latest.term}")
        self._latest = latest
        self._kept[latest] = name
        for _, _, name in found:
            disk.unlink(name)

    @property
    def latest(self) -> SnapshotId | None:
        """The newest snapshot: whole and durable. None when there is none."""
        return self._latest

    def chunks(self, snapshot: SnapshotId) -> Iterator[bytes]:
        """The state, in the chunks it was dumped in.

        The whole file is verified before this returns, and every chunk again before it is
        given out.

        Raises:
            SnapshotCorrupt: at once or in the middle; the state must not be used.
            SnapshotRefused: the snapshot is no longer kept.
        """
        name = self._name_of(snapshot)
        if self._verify(name) != snapshot:
            raise SnapshotCorrupt(name, "the file is another one than before")
        return self._chunks_of(name, snapshot)

    def read(self, snapshot: SnapshotId, offset: int, size: int) -> bytes:
        """At most size bytes of the file from offset, to be sent to a peer.

        Raises:
            SnapshotRefused: it is no longer kept: begin again with the latest.
        """
        return self._disk.read_at(self._name_of(snapshot), offset, size)

    def hold(self, snapshot: SnapshotId) -> None:
        """Keep its file, also when a newer snapshot comes, until as many releases."""
        self._name_of(snapshot)
        self._holds[snapshot] = self._holds.get(snapshot, 0) + 1

    def release(self, snapshot: SnapshotId) -> None:
        """Give back one hold."""
        holds = self._holds.pop(snapshot, 0) - 1
        if holds > 0:
            self._holds[snapshot] = holds
        self._remove_old()

    def write(
        self,
        index: int,
        term: int,
        previous_index: int,
        previous_term: int,
        chunks: Iterable[bytes],
    ) -> SnapshotId:
        """Write a snapshot and make it the latest one. Durable on return.

        Raises:
            SnapshotRefused: the latest one is newer.
            DiskFailed: the disk refused.
        """
        return self.adopt(self.prepare(index, term, previous_index, previous_term, chunks))

    def prepare(
        self,
        index: int,
        term: int,
        previous_index: int,
        previous_term: int,
        chunks: Iterable[bytes],
    ) -> SnapshotId:
        """Write a snapshot aside, whole and synced; adopt or discard it later.

        Raises:
            DiskFailed: the disk refused. What chunks raises is passed on, nothing is left.
        """
        name = _dump_name(index, term)
        if name in self._disk.names():
            self._disk.unlink(name)
        file = self._disk.create(name)
        try:
            return _write(file, index, term, previous_index, previous_term, chunks)
        except DiskFailed:
            raise
        except Exception:
            self._disk.unlink(name)
            raise
        finally:
            file.close()

    def adopt(self, prepared: SnapshotId) -> SnapshotId:
        """Make what prepare wrote the latest snapshot.

        Returns:
            The latest snapshot: another file of the same entry if there was one already.

        Raises:
            SnapshotRefused: the latest one is newer; the prepared one is gone.
        """
        return self._install(_dump_name(prepared.index, prepared.term), prepared)

    def discard(self, index: int, term: int) -> None:
        """Remove what prepare wrote for that entry, if anything is there."""
        name = _dump_name(index, term)
        if name in self._disk.names():
            self._disk.unlink(name)

    def begin(self, snapshot: SnapshotId) -> Receiving:
        """Begin to take a snapshot from a peer; a transfer begun before is given up.

        Raises:
            SnapshotRefused: the latest one is as new, or the disk has no room.
        """
        if self._receiving is not None:
            self._receiving.abort()
        latest = self._latest
        if latest is not None and snapshot.index <= latest.index:
            raise SnapshotRefused(
                f"snapshot of entry {snapshot.index}: entry {latest.index} is in the latest one"
            )
        free_bytes = self._disk.free_bytes()
        if snapshot.size > free_bytes:
            raise SnapshotRefused(
                f"snapshot of {snapshot.size} bytes: the disk has room for {free_bytes}"
            )
        name = f"snapshot-{snapshot.index}-{snapshot.term}.received.tmp"
        self._receiving = Receiving(self, self._disk, name, snapshot)
        return self._receiving

    # ---- shared with Receiving --------------------------------------------------------------

    def _received(self, receiving: Receiving, name: str, snapshot: SnapshotId) -> SnapshotId:
        """Take over the file of a finished transfer."""
        self._ended(receiving)
        return self._install(name, snapshot)

    def _ended(self, receiving: Receiving) -> None:
        if self._receiving is receiving:
            self._receiving = None

    # ---- inside -----------------------------------------------------------------------------

    def _install(self, temporary: str, snapshot: SnapshotId) -> SnapshotId:
        """Name a synced file and make that durable, then let older ones go."""
        latest = self._latest
        if latest is not None and snapshot.index <= latest.index:
            self._disk.unlink(temporary)
            if (snapshot.index, snapshot.term) == (latest.index, latest.term):
                # The same entry is the same state; and somebody may be reading that file.
                return latest
            raise SnapshotRefused(
                f"snapshot of entry {snapshot.index}: entry {latest.index} is in the latest one"
            )
        name = f"snapshot-{snapshot.index}-{snapshot.term}.snap"
        self._disk.rename(temporary, name)
        self._disk.sync_directory()
        self._latest = snapshot
        self._kept[snapshot] = name
        self._remove_old()
        return snapshot

    def _remove_old(self) -> None:
        """Unlink what is neither latest nor held. One that comes back is unlinked at start."""
        for snapshot in [*self._kept]:
            if snapshot != self._latest and snapshot not in self._holds:
                self._disk.unlink(self._kept.pop(snapshot))

    def _name_of(self, snapshot: SnapshotId) -> str:
        name = self._kept.get(snapshot)
        if name is None:
            raise SnapshotRefused(f"the snapshot of entry {snapshot.index} is not kept any more")
        return name

    def _pieces(self, name: str) -> Iterator[bytes]:
        offset = 0
        while piece := self._disk.read_at(name, offset, _PIECE_BYTES):
            yield piece
            offset += len(piece)

    def _verify(self, name: str) -> SnapshotId:
        reader = _Reader(name)
        for piece in self._pieces(name):
            reader.feed(piece)
        return reader.finish()

    def _chunks_of(self, name: str, snapshot: SnapshotId) -> Iterator[bytes]:
        reader = _Reader(name)
        for piece in self._pieces(name):
            yield from reader.feed(piece)
        if reader.finish() != snapshot:
            raise SnapshotCorrupt(name, "the file changed while it was read")


class Receiving:
    """One snapshot on its way in. Nothing of it counts before finish has returned."""

    def __init__(self, store: SnapshotStore, disk: Disk, name: str, snapshot: SnapshotId) -> None:
        """Called by SnapshotStore.begin only."""
        self._store = store
        self._disk = disk
        self._name = name
        self._file: File | None = disk.create(name)
        self._reader = _Reader(name)
        self._unsynced_bytes = 0
        self.snapshot = snapshot

    @property
    def wanted(self) -> int:
        """The next offset wanted."""
        return self._reader.size

    def append(self, offset: int, data: bytes) -> int:
        """Take the bytes at offset; bytes at any other offset than the wanted one are dropped.

        Returns:
            The next offset wanted.

        Raises:
            SnapshotCorrupt: these bytes cannot belong to it; the transfer is given up.
            SnapshotRefused: the transfer was ended already.
        """
        file = self._open_file()
        if offset != self.wanted:
            return self.wanted
        if offset + len(data) > self.snapshot.size:
            self._give_up(f"more than the {self.snapshot.size} bytes announced")
        try:
            self._reader.feed(data)
        except SnapshotCorrupt:
            self.abort()
            raise
        file.append(data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_EVERY_BYTES:
            file.sync()
            self._unsynced_bytes = 0
        return self.wanted

    def finish(self) -> SnapshotId:
        """Verify the whole, make it durable, make it the latest.

        Raises:
            SnapshotCorrupt: it is not what was announced; the one before stays the latest.
            SnapshotRefused: a newer one came in between, or the transfer was ended already.
        """
        file = self._open_file()
        try:
            found = self._reader.finish()
        except SnapshotCorrupt:
            self.abort()
            raise
        if found != self.snapshot:
            self._give_up(f"announced {self.snapshot}, received {found}")
        file.sync()
        file.close()
        self._file = None
        return self._store._received(self, self._name, found)

    def abort(self) -> None:
        """Drop what came so far. Harmless when the transfer has ended."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._disk.unlink(self._name)
            self._store._ended(self)

    def _open_file(self) -> File:
        if self._file is None:
            raise SnapshotRefused(f"the transfer of entry {self.snapshot.index} has ended")
        return self._file

    def _give_up(self, reason: str) -> NoReturn:
        self.abort()
        raise SnapshotCorrupt(self._name, reason)


class Dumper(Protocol):
    """Makes a snapshot of the state as it is when start is called."""

    @property
    def busy(self) -> bool:
        """A dump was started and its result not yet collected."""

    def start(
        self, index: int, term: int, previous_index: int, previous_term: int, dump: Dump
    ) -> None:
        """Begin; never while busy."""

    def poll(self) -> SnapshotId | None:
        """The snapshot, once, when it is the store's latest one and durable; else None.

        Raises:
            DumpFailed: once; the dumper is free again.
        """

    def cancel(self) -> None:
        """End a dump, leaving nothing. To be called before a received snapshot is installed."""


class InlineDumper:
    """Dumps at once, in start: for small states and for the simulator."""

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._prepared: SnapshotId | None = None
        self._failure: Exception | None = None

    @property
    def busy(self) -> bool:
        """The result waits for poll."""
        return self._prepared is not None or self._failure is not None

    def start(
        self, index: int, term: int, previous_index: int, previous_term: int, dump: Dump
    ) -> None:
        """Write the file aside (see Dumper)."""
        assert not self.busy, "a dump is under way"
        try:
            self._prepared = self._store.prepare(index, term, previous_index, previous_term, dump())
        except DiskFailed:
            raise
        except Exception as error:  # noqa: BLE001  (as in a child: whatever it is, poll tells)
            self._failure = error

    def poll(self) -> SnapshotId | None:
        """Make it the latest one (see Dumper)."""
        prepared, failure = self._prepared, self._failure
        self._prepared = self._failure = None
        if failure is not None:
            raise DumpFailed(f"the dump failed: {failure!r}") from failure
        return None if prepared is None else _adopt(self._store, prepared)

    def cancel(self) -> None:
        """Remove the file (see Dumper)."""
        if self._prepared is not None:
            self._store.discard(self._prepared.index, self._prepared.term)
        self._prepared = self._failure = None


class ForkDumper:
    """Dumps in a forked child: the child has the state as it was, the parent goes on.

    Strategy: the child shares nothing with the parent but the directory. Every descriptor is
    replaced by the null device (replaced and not closed, so that no late destructor can close
    a number that the child uses for its file). It writes and syncs a temporary file, tells the
    result through a pipe and leaves by _exit: no handler, no flush, no destructor of the
    parent runs twice. Naming the file is left to the parent, in poll, so that a snapshot never
    appears while the parent looks away.
    """

    def __init__(self, store: SnapshotStore) -> None:
        self._store = store
        self._pid = 0
        self._pipe = -1
        self._entry = (0, 0)
        self._failure = ""

    @property
    def busy(self) -> bool:
        """A child runs, or its result waits for poll."""
        return self._pid != 0 or self._failure != ""

    @property
    def pid(self) -> int:
        """The child's process number, 0 for none."""
        return self._pid

    def start(
        self, index: int, term: int, previous_index: int, previous_term: int, dump: Dump
    ) -> None:
        """Fork (see Dumper)."""
        assert not self.busy, "a dump is under way"
        parent = os.getpid()
        try:
            receiving, sending = os.pipe()
        except OSError as error:
            self._failure = f"no pipe: {error}"
            return
        os.set_blocking(receiving, False)
        # No signal may arrive in the child before it has let go of the parent's handlers.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                entry = (index, term, previous_index, previous_term)
                _child(self._store, parent, sending, mask, entry, dump)
        except OSError as error:
            os.close(receiving)
            self._failure = f"no child: {error}"
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(sending)
        self._pid = pid
        self._pipe = receiving
        self._entry = (index, term)

    def poll(self) -> SnapshotId | None:
        """Look after the child without waiting; adopt its file (see Dumper)."""
        if self._failure:
            failure, self._failure = self._failure, ""
            raise DumpFailed(failure)
        if not self._pid:
            return None
        status = _reap(self._pid, os.WNOHANG)
        if status is None:
            return None
        message = self._collect()
        if message[:1] == b"+":
            return _adopt(self._store, SnapshotId(*_RESULT.unpack(message[1:])))
        self._store.discard(*self._entry)
        reason = message[1:].decode("utf-8", "replace") or f"the child ended with status {status}"
        raise DumpFailed(reason)

    def cancel(self) -> None:
        """Kill the child and remove its file (see Dumper)."""
        self._failure = ""
        if self._pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            _reap(self._pid, 0)
            self._collect()
            self._store.discard(*self._entry)

    def _collect(self) -> bytes:
        """What the child told, after its end; the dumper is free again."""
        try:
            return os.read(self._pipe, _MESSAGE_BYTES_MAX)
        except BlockingIOError:
            # It told nothing, and another child of ours holds the pipe's other end.
            return b""
        finally:
            os.close(self._pipe)
            self._pid = 0
            self._pipe = -1


def _adopt(store: SnapshotStore, prepared: SnapshotId) -> SnapshotId:
    try:
        return store.adopt(prepared)
    except SnapshotRefused as error:
        raise DumpFailed(str(error)) from error


def _dump_name(index: int, term: int) -> str:
    return f"snapshot-{index}-{term}.dump.tmp"


# ---- the file -------------------------------------------------------------------------------


def _write(
    file: File,
    index: int,
    term: int,
    previous_index: int,
    previous_term: int,
    chunks: Iterable[bytes],
) -> SnapshotId:
    """Fill a file and sync it."""
    sha = _SHA256.copy()
    crc = 0
    parts: list[bytes] = []
    gathered = 0
    unsynced = 0

    def flush() -> None:
        nonlocal crc, gathered, unsynced
        data = b"".join(parts)
        parts.clear()
        crc = crc32(data, crc)
        file.append(data)
        unsynced += gathered
        gathered = 0
        if unsynced >= SYNC_EVERY_BYTES:
            file.sync()
            unsynced = 0

    def put(data: bytes) -> None:
        nonlocal gathered
        sha.update(data)
        parts.append(data)
        gathered += len(data)

    head = _HEAD.pack(_MAGIC, _VERSION, index, term, previous_index, previous_term)
    put(head + _CRC.pack(crc32(head)))
    count = 0
    for chunk in chunks:
        if len(chunk) > CHUNK_BYTES_MAX:
            raise ValueError(f"a chunk of {len(chunk)} bytes, above {CHUNK_BYTES_MAX}")
        put(_FRAME.pack(len(chunk), crc32(chunk, count)))
        put(chunk)
        count += 1
        if gathered >= _PIECE_BYTES:
            flush()
    put(_FRAME.pack(_END, 0) + _COUNT.pack(count))
    parts.append(sha.digest())
    gathered += _SHA_BYTES
    flush()
    file.sync()
    return SnapshotId(index, term, previous_index, previous_term, file.size, crc)


class _Reader:
    """Verifies a file that comes in pieces of any size, and gives out its chunks."""

    def __init__(self, name: str) -> None:
        self.size = 0
        self._name = name
        self._crc = 0
        self._sha = _SHA256.copy()
        self._rest = bytearray()
        self._head: tuple[int, int, int, int] | None = None
        self._count = 0
        self._ended = False

    def feed(self, piece: bytes) -> list[bytes]:
        """Take the next bytes.

        Returns:
            The chunks that are now whole and verified.

        Raises:
            SnapshotCorrupt: this cannot be a snapshot any more.
        """
        self.size += len(piece)
        self._crc = crc32(piece, self._crc)
        self._rest += piece
        chunks: list[bytes] = []
        at = 0
        while True:
            taken = self._step(at, chunks)
            if not taken:
                break
            at += taken
        del self._rest[:at]
        return chunks

    def finish(self) -> SnapshotId:
        """What was read, when it was all.

        Raises:
            SnapshotCorrupt: it ends too early.
        """
        if self._head is None or not self._ended:
            raise SnapshotCorrupt(self._name, f"it ends after {self.size} bytes, in the middle")
        return SnapshotId(*self._head, self.size, self._crc)

    def _step(self, at: int, chunks: list[bytes]) -> int:
        """Read one part from at on; 0 when it is not all there yet."""
        rest = self._rest
        ready = len(rest) - at
        if self._ended:
            if ready:
                raise SnapshotCorrupt(self._name, "it goes on after its end")
            return 0
        if self._head is None:
            return self._read_head(bytes(rest[at : at + _HEAD_BYTES]))
        if ready < _FRAME.size:
            return 0
        length, crc = _FRAME.unpack_from(rest, at)
        if length == _END:
            return self._read_end(bytes(rest[at : at + _END_BYTES]))
        if length > CHUNK_BYTES_MAX:
            raise SnapshotCorrupt(self._name, f"chunk {self._count} claims {length} bytes")
        taken: int = _FRAME.size + length
        if ready < taken:
            return 0
        framed = bytes(rest[at : at + taken])
        chunk = framed[_FRAME.size :]
        if crc32(chunk, self._count) != crc:
            raise SnapshotCorrupt(self._name, f"the checksum of chunk {self._count} is wrong")
        self._sha.update(framed)
        self._count += 1
        chunks.append(chunk)
        return taken

    def _read_head(self, data: bytes) -> int:
        if len(data) < _HEAD_BYTES:
            return 0
        magic, version, *head = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise SnapshotCorrupt(self._name, "not a snapshot")
        if _CRC.unpack_from(data, _HEAD.size)[0] != crc32(data[: _HEAD.size]):
            raise SnapshotCorrupt(self._name, "the checksum of the head is wrong")
        if version != _VERSION:
            raise SnapshotCorrupt(
                self._name, f"format version {version}, this program reads version {_VERSION}"
            )
        self._head = (head[0], head[1], head[2], head[3])
        self._sha.update(data)
        return _HEAD_BYTES

    def _read_end(self, data: bytes) -> int:
        if len(data) < _END_BYTES:
            return 0
        self._sha.update(data[:-_SHA_BYTES])
        if data[-_SHA_BYTES:] != self._sha.digest():
            raise SnapshotCorrupt(self._name, "the checksum of the whole is wrong")
        if _COUNT.unpack_from(data, _FRAME.size)[0] != self._count:
            raise SnapshotCorrupt(self._name, f"it has {self._count} chunks, its end says others")
        self._ended = True
        return _END_BYTES


# ---- the child ------------------------------------------------------------------------------

_RESULT: Final = struct.Struct("<QQQQQQ")
_MESSAGE_BYTES_MAX: Final = 4096  # a pipe takes that much at once, so the child never waits
_NICE: Final = 10
_PR_SET_PDEATHSIG: Final = 1

_LIBC: Final = ctypes.CDLL(None)


def _child(
    store: SnapshotStore,
    parent: int,
    sending: int,
    mask: set[int],
    entry: tuple[int, int, int, int],
    dump: Dump,
) -> NoReturn:
    """The child's whole life. Must not return and must not raise."""
    try:
        # A collection would copy every page of the state, and run the parent's destructors.
        gc.disable()
        _leave_parent(parent, sending, mask)
        result = store.prepare(*entry, dump())
        message = b"+" + _RESULT.pack(*dataclasses.astuple(result))
    except BaseException as error:  # noqa: BLE001  (nothing may leave this function)
        message = b"-" + repr(error).encode("utf-8", "replace")
    try:
        os.write(sending, message[:_MESSAGE_BYTES_MAX])
    finally:
        os._exit(0 if message[:1] == b"+" else 1)


def _leave_parent(parent: int, sending: int, mask: set[int]) -> None:
    """Let go of everything that is the parent's, but the pipe."""
    # The signal comes when the thread that forked ends: start is for the main thread.
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _open_descriptors():
        if descriptor not in (sending, null):
            os.dup2(null, descriptor, inheritable=False)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) or callable(
            signal.getsignal(number)
        ):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.nice(_NICE)


def _open_descriptors() -> list[int]:
    """All numbers in use, or all that may be."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return [int(name) for name in os.listdir(folder)]  # noqa: PTH208  (no Path: numbers)
    return list(range(min(os.sysconf("SC_OPEN_MAX"), 1 << 16)))


def _reap(pid: int, flags: int) -> int | None:
    """The status of an ended child; None while it runs."""
    try:
        ended, status = os.waitpid(pid, flags)
    except ChildProcessError:
        # Somebody else waited for all children; the pipe says how it went.
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None
