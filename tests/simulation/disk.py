"""A disk that loses what was not synced, exactly as badly as a real one may.

RULE: nothing here is kinder than a real disk, and every lot is drawn from the rng given.

What it models (engine.md, section 6):

    kill    what was written stays, synced or not (the kernel still has it); un-synced
            things stay un-synced, so a power loss after the restart may still take them
    power   each un-synced tail is cut at a random byte and followed by nothing, zeros or
            garbage, or keeps its length and has holes; un-synced creates, renames and
            unlinks vanish from some point on; an un-synced cut may come back
    stop    the process dies before any disk operation; a write may be partly done
    fail    the disk is full, a write or a sync fails; bytes of a failed sync read well,
            count as clean and are lost with the power
    flip    one bit of what was synced
    slow    every sync reports how long it took
"""

from __future__ import annotations

import random
from collections.abc import Callable

from cluster.replication.disk import DiskFailed

BLOCK_BYTES = (1, 16, 512, 4096)
"""A hole is a run of blocks of one of these sizes."""


class Stopped(BaseException):
    """The process died at a disk operation. Not an Exception: nobody may swallow a death."""


class Inode:
    """One file: what the process sees, and how much of it the platter has."""

    __slots__ = ("data", "doomed", "old_tail", "reserved", "synced", "writes")

    def __init__(self) -> None:
        self.data = bytearray()  # appended bytes
        self.synced = 0  # this many of them are durable
        self.reserved = 0  # zeros are durable up to here, at least
        self.old_tail = b""  # what follows data[:synced] on the platter after an un-synced cut
        self.doomed: list[tuple[int, int]] = []  # ranges a failed sync has lost
        self.writes: list[int] = []  # where the last ones began

    def copy(self) -> Inode:
        """An equal file that shares nothing."""
        other = Inode()
        other.data = bytearray(self.data)
        other.synced = self.synced
        other.reserved = self.reserved
        other.old_tail = self.old_tail
        other.doomed = list(self.doomed)
        other.writes = list(self.writes)
        return other


class SimFile:
    """An open file of a SimDisk; dead after the next crash."""

    __slots__ = ("_disk", "_inode", "_life", "_name")

    def __init__(self, disk: SimDisk, name: str, inode: Inode) -> None:
        self._disk = disk
        self._name = name
        self._inode = inode
        self._life = disk.life

    @property
    def size(self) -> int:
        """Bytes appended."""
        return len(self._inode.data)

    def append(self, data: bytes) -> None:
        """Add data, or part of it when the process dies or the disk fails right now."""
        disk = self._disk
        disk.alive(self._life)
        self._inode.writes.append(len(self._inode.data))
        if disk.full or disk.write_fails:
            self._inode.data += data[: disk.rng.randrange(len(data) + 1)]
            raise DiskFailed(f"write of {self._name} failed: simulated")
        if disk.stops_here(f"write of {self._name}", len(data)):
            part = disk.stop_part
            if part is None:
                part = disk.rng.randrange(len(data) + 1)
            self._inode.data += data[:part]
            raise Stopped(f"in a write of {self._name}")
        self._inode.data += data

    def sync(self) -> None:
        """Make all of it durable, or fail and lose what was not."""
        disk = self._disk
        disk.alive(self._life)
        disk.stop_here(f"sync of {self._name}")
        disk.sync_inode(self._inode, self._name)

    def close(self) -> None:
        """Nothing to give back."""


class SimDisk:
    """Implements cluster.replication.disk.Disk over memory."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.life = 0  # counts restarts: files opened before one are dead
        self.operations = 0  # disk operations done or died in
        self.trace: list[tuple[str, int]] | None = None  # what each of them was, bytes written
        self.fail_before = 0.0  # probability to die at any disk operation
        self.stop_at: int | None = None  # die at this value of `operations`
        self.stop_part: int | None = None  # then write this many bytes (None: a lot is drawn)
        self.full = False
        self.write_fails = False
        self.sync_fails = False
        self.capacity_bytes = 1 << 40
        self.sync_ms = 0.0  # how long a sync takes, as told to on_sync
        self.on_sync: Callable[[float], None] | None = None
        self._live: dict[str, Inode] = {}
        self._durable: dict[str, Inode] = {}
        self._undone: list[tuple[str, str, Inode | None]] = []  # un-synced directory operations

    # ---- the interface ----------------------------------------------------------------------

    def names(self) -> list[str]:
        """All file names, sorted."""
        return sorted(self._live)

    def read(self, name: str) -> bytes:
        """The whole file."""
        inode = self._find(name)
        return bytes(inode.data) + bytes(max(0, inode.reserved - len(inode.data)))

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Part of a file."""
        inode = self._find(name)
        if offset + size <= len(inode.data) or inode.reserved <= len(inode.data):
            return bytes(inode.data[offset : offset + size])
        return self.read(name)[offset : offset + size]

    def size(self, name: str) -> int:
        """Bytes in the file, reserved space included."""
        inode = self._find(name)
        return max(len(inode.data), inode.reserved)

    def create(self, name: str, reserve: int = 0) -> SimFile:
        """A new file; its name is not durable yet, its zeros are."""
        self.stop_here(f"create of {name}")
        if name in self._live:
            raise DiskFailed(f"create of {name} failed: File exists")
        if self.full or self.write_fails:
            raise DiskFailed(f"create of {name} failed: simulated")
        inode = Inode()
        inode.reserved = reserve
        self._live[name] = inode
        self._undone.append(("create", name, inode))
        return SimFile(self, name, inode)

    def reopen(
        self, name: str, size: int, *, reserve: int = 0, rewrite_from: int | None = None
    ) -> SimFile:
        """Cut, write the tail again if asked, sync."""
        inode = self._find(name)
        if size > max(len(inode.data), inode.reserved):
            raise DiskFailed(f"reopen of {name} failed: shorter than the {size} bytes to keep")
        self.stop_here(f"cut of {name}")
        inode.data += bytes(max(0, size - len(inode.data)))
        if size < inode.synced:
            inode.old_tail = bytes(inode.data[size : inode.synced]) + inode.old_tail
            inode.synced = size
        del inode.data[size:]
        inode.writes = [start for start in inode.writes if start < size]
        inode.reserved = max(size, reserve)
        if rewrite_from is not None:
            self.stop_here(f"second write of {name}")
            inode.doomed = [
                (start, min(end, rewrite_from))
                for start, end in inode.doomed
                if start < rewrite_from
            ]
        self.stop_here(f"sync of {name}")
        self.sync_inode(inode, name)
        return SimFile(self, name, inode)

    def rename(self, old: str, new: str) -> None:
        """Another name, not durable yet."""
        inode = self._find(old)
        self.stop_here(f"rename of {old}")
        del self._live[old]
        self._live[new] = inode
        self._undone.append((old, new, inode))

    def unlink(self, name: str) -> None:
        """No name, not durably yet."""
        self._find(name)
        self.stop_here(f"unlink of {name}")
        del self._live[name]
        self._undone.append(("unlink", name, None))

    def sync_directory(self) -> None:
        """Make the names durable."""
        self.stop_here("sync of the directory")
        if self.sync_fails:
            raise DiskFailed("sync of the directory failed: simulated")
        self._durable = dict(self._live)
        self._undone.clear()
        self._report_sync()

    def free_bytes(self) -> int:
        """Room left."""
        if self.full:
            return 0
        return self.capacity_bytes - sum(len(inode.data) for inode in self._live.values())

    # ---- what a test or the simulator does to it --------------------------------------------

    def crash(self, *, power: bool) -> None:
        """End the process; with power, lose what was not synced. The disk is usable again."""
        self.life += 1
        if not power:
            return
        for operation, name, inode in self._undone[: self.rng.randrange(len(self._undone) + 1)]:
            if operation == "unlink":
                self._durable.pop(name, None)
            elif operation == "create" or operation not in self._durable:
                assert inode is not None
                self._durable[name] = inode
            else:
                self._durable[name] = self._durable.pop(operation)
        self._undone.clear()
        for name in sorted(self._durable):
            self._lose(self._durable[name])
        self._live = dict(self._durable)

    def copy(self, rng: random.Random) -> SimDisk:
        """The same disk once more, with other lots: try many outcomes of one crash."""
        other = SimDisk(rng)
        twins: dict[int, Inode] = {}
        for inode in [*self._live.values(), *self._durable.values()]:
            twins.setdefault(id(inode), inode.copy())
        for _, _, touched in self._undone:
            if touched is not None:
                twins.setdefault(id(touched), touched.copy())
        other._live = {name: twins[id(inode)] for name, inode in self._live.items()}
        other._durable = {name: twins[id(inode)] for name, inode in self._durable.items()}
        other._undone = [
            (operation, name, None if inode is None else twins[id(inode)])
            for operation, name, inode in self._undone
        ]
        other.life = self.life
        return other

    def flip(self, rng: random.Random, *, prefix: str = "") -> tuple[str, int]:
        """Turn one bit of the synced bytes over.

        Args:
            rng: draws the file, the byte and the bit.
            prefix: of the names to choose from.

        Returns:
            The file and the offset of the byte.

        Raises:
            LookupError: nothing is synced.
        """
        names = [n for n in sorted(self._live) if n.startswith(prefix) and self._live[n].synced]
        if not names:
            raise LookupError("nothing is synced")
        name = rng.choice(names)
        inode = self._live[name]
        offset = rng.randrange(inode.synced)
        inode.data[offset] ^= 1 << rng.randrange(8)
        return name, offset

    def is_of_last_write(self, name: str, offset: int) -> bool:
        """Whether what is wrong with a byte may look like a torn end: it belongs to the last write
        of its file, or to the one before where nothing readable may be left of the last.
        """
        return offset >= next(iter(self._live[name].writes[-2:]), 0)

    def put(self, name: str, data: bytes) -> None:
        """Make a file's durable content exactly this."""
        inode = Inode()
        inode.data = bytearray(data)
        inode.synced = len(data)
        self._live[name] = self._durable[name] = inode

    def synced_size(self, name: str) -> int:
        """Durable bytes of a file."""
        return self._find(name).synced

    # ---- shared with SimFile ----------------------------------------------------------------

    def alive(self, life: int) -> None:
        """A file of an earlier life must not be used: that is a bug of the test."""
        assert life == self.life, "a file opened before the crash was used after it"

    def stops_here(self, what: str, size: int = 0) -> bool:
        """Count one disk operation; True when the process is to die in it."""
        number = self.operations
        if self.trace is not None:
            self.trace.append((what, size))
        self.operations += 1
        if self.stop_at is not None and number == self.stop_at:
            return True
        return self.fail_before > 0.0 and self.rng.random() < self.fail_before

    def stop_here(self, what: str) -> None:
        """Die before an operation that is not a write."""
        if self.stops_here(what):
            raise Stopped(f"before the {what}")

    def sync_inode(self, inode: Inode, name: str) -> None:
        """The one place where bytes become durable."""
        if self.sync_fails:
            inode.doomed.append((inode.synced, len(inode.data)))
            inode.synced = len(inode.data)
            raise DiskFailed(f"sync of {name} failed: simulated")
        inode.synced = len(inode.data)
        inode.old_tail = b""
        # Of an earlier write nobody can say that it was torn; a cut may take one of these.
        del inode.writes[:-3]
        self._report_sync()

    # ---- inside -----------------------------------------------------------------------------

    def _report_sync(self) -> None:
        if self.on_sync is not None:
            self.on_sync(self.sync_ms)

    def _find(self, name: str) -> Inode:
        inode = self._live.get(name)
        if inode is None:
            raise DiskFailed(f"{name}: No such file")
        return inode

    def _lose(self, inode: Inode) -> None:
        """What a power loss leaves of one file. All that is left is durable."""
        data, rng = inode.data, self.rng
        for start, end in inode.doomed:
            end = min(end, len(data))
            data[start:end] = bytes(max(0, end - start))
        inode.doomed.clear()
        if inode.old_tail and rng.random() < 0.5:
            data[inode.synced :] = inode.old_tail
        elif len(data) > inode.synced:
            tail = self._torn(bytes(data[inode.synced :]))
            data[inode.synced :] = tail
        inode.old_tail = b""
        inode.synced = len(data)

    def _torn(self, tail: bytes) -> bytes:
        """One of the things that un-synced bytes become."""
        rng = self.rng
        kind = rng.randrange(6)
        if kind == 0:
            return b""
        if kind == 1:
            return tail
        cut = rng.randrange(len(tail) + 1)
        if kind == 2:
            return tail[:cut]
        if kind == 3:
            return tail[:cut] + bytes(rng.randrange(len(tail) - cut + 1))
        if kind == 4:
            return tail[:cut] + rng.randbytes(rng.randrange(len(tail) - cut + 1))
        # Pages arrive in any order: each block is there, zeros, or something else.
        size = rng.choice(BLOCK_BYTES)
        torn = bytearray(tail)
        blocks = (len(tail) + size - 1) // size
        for _ in range(rng.randrange(1, 4)):
            first = rng.randrange(blocks)
            start = first * size
            end = min(len(tail), start + size * rng.randrange(1, blocks - first + 1))
            torn[start:end] = (
                bytes(end - start) if rng.random() < 0.7 else rng.randbytes(end - start)
            )
        return bytes(torn)
