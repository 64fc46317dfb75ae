"""Disk: files that are appended and synced, names that are renamed and synced.

RULE: the only module that says fsync. It knows bytes and names; records, terms and
snapshots live above it. The simulator puts another `Disk` under the same code.
Source: Pillai et al., "All File Systems Are Not Created Equal" (which order survives a
power loss); Rebello et al., "Can Applications Recover from fsync Failures?".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator
from typing import Final, NoReturn, Protocol

LOCK_NAME: Final = "lock"
RESERVE_STEP_BYTES: Final = 1 << 20
"""Reserved space is zero-filled in steps: a whole segment at once would stop the loop."""

_SPARE_DESCRIPTORS: Final = 4

_ZEROS: Final = bytes(RESERVE_STEP_BYTES)
_READ_BYTES: Final = 1 << 20


class DiskFailed(Exception):
    """A disk operation failed: fatal to the process, never tried again.

    After a failed sync the kernel may have dropped the bytes and forgotten that they were
    dirty: a second sync would succeed and mean nothing.
    """


class DiskLocked(Exception):
    """Another process works in this directory."""


class File(Protocol):
    """A file that only grows. Nothing of it is promised before `sync` has returned."""

    @property
    def size(self) -> int:
        """Bytes appended (reserved space not counted)."""

    def append(self, data: bytes) -> None:
        """Write data after what was appended before, as one write.

        Raises:
            DiskFailed: the disk refused; the process must end.
        """

    def sync(self) -> None:
        """Return when everything appended survives a power loss.

        Raises:
            DiskFailed: the disk refused; what is durable is unknown; the process must end.
        """

    def close(self) -> None:
        """Give the file back, without a sync. Harmless when done twice."""


class Disk(Protocol):
    """One flat directory of files. Every method raises DiskFailed when the disk refuses."""

    def names(self) -> list[str]:
        """All file names, sorted (the lock is not one of them)."""

    def read(self, name: str) -> bytes:
        """The whole file, reserved space included."""

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """At most size bytes from offset; fewer only at the end of the file."""

    def size(self, name: str) -> int:
        """Bytes in the file, reserved space included."""

    def create(self, name: str, reserve: int = 0) -> File:
        """Make a file that must not exist yet.

        Args:
            name: its name, without a folder.
            reserve: bytes to fill with zeros ahead of the appended ones, so that a later
                sync moves data only and no metadata. They read as zeros after a crash.
        """

    def reopen(
        self, name: str, size: int, *, reserve: int = 0, rewrite_from: int | None = None
    ) -> File:
        """Cut the file to size and append from there; all that is left is durable on return.

        Args:
            name: an existing file.
            size: bytes to keep; what follows is gone, durably.
            reserve: as in create.
            rewrite_from: write the bytes from here to size again, in place. A process that
                died of a failed sync leaves bytes that read well, count as clean and are
                not on the disk: only another write makes another sync mean something.
        """

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what had it. Durable after sync_directory."""

    def unlink(self, name: str) -> None:
        """Remove a file. Durable after sync_directory."""

    def sync_directory(self) -> None:
        """Return when every create, rename and unlink so far survives a power loss."""

    def free_bytes(self) -> int:
        """Bytes that may still be written by an ordinary process."""


class OsDisk:
    """A directory of the operating system, held by one process alone.

    Paths and not descriptors are kept, so that a forked child may close every descriptor
    and still write through the same object.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Take the directory, making it when it is missing.

        Raises:
            DiskLocked: another process holds it.
            DiskFailed: it cannot be made or opened.
        """
        self._path = path.absolute()
        self._failure = ""
        self._spare: list[int] = []
        with self._fatal("open", "directory"):
            self._path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(self._path / LOCK_NAME, flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            self.close()
            raise DiskLocked(
                f"{self._path}: in use by process {holder or 'unknown'}; "
                "two nodes must not share a data directory: stop the other one first"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode("ascii"), 0)

    @property
    def path(self) -> pathlib.Path:
        """The directory, absolute."""
        return self._path

    def close(self) -> None:
        """Let the directory go. Harmless when done twice."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._spend_spare()

    def names(self) -> list[str]:
        """All file names, sorted (see Disk)."""
        with self._reading("list", "directory"), os.scandir(self._path) as entries:
            return sorted(
                entry.name
                for entry in entries
                if entry.name != LOCK_NAME and entry.is_file(follow_symlinks=False)
            )

    def read(self, name: str) -> bytes:
        """The whole file (see Disk)."""
        with self._reading("read", name):
            return self._at(name).read_bytes()

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Part of a file (see Disk)."""
        with self._reading("read", name), self._at(name).open("rb", buffering=0) as file:
            parts: list[bytes] = []
            while size > 0:
                part = os.pread(file.fileno(), size, offset)
                if not part:
                    break
                parts.append(part)
                offset += len(part)
                size -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self, name: str) -> int:
        """Bytes in the file (see Disk)."""
        with self._reading("look at", name):
            return self._at(name).stat().st_size

    def create(self, name: str, reserve: int = 0) -> _OsFile:
        """A new file (see Disk)."""
        self.check()
        with self._fatal("create", name):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            file = _OsFile(self, name, os.open(self._at(name), flags, 0o600), 0, reserve)
        if reserve:
            file.reserve_step(0)
            file.sync()
        return file

    def reopen(
        self, name: str, size: int, *, reserve: int = 0, rewrite_from: int | None = None
    ) -> _OsFile:
        """An old file, cut (see Disk)."""
        self.check()
        with self._fatal("reopen", name):
            descriptor = os.open(self._at(name), os.O_RDWR | os.O_CLOEXEC)
            try:
                if os.fstat(descriptor).st_size < size:
                    raise OSError(f"shorter than the {size} bytes to keep")
                os.ftruncate(descriptor, size)
                if rewrite_from is not None:
                    _rewrite(descriptor, rewrite_from, size)
            except OSError:
                os.close(descriptor)
                raise
        file = _OsFile(self, name, descriptor, size, reserve)
        if reserve:
            file.reserve_step(size)
        file.sync()
        return file

    def rename(self, old: str, new: str) -> None:
        """Another name (see Disk)."""
        self.check()
        with self._fatal("rename", old):
            self._at(old).replace(self._at(new))

    def unlink(self, name: str) -> None:
        """No name (see Disk)."""
        self.check()
        with self._fatal("unlink", name):
            self._at(name).unlink()

    def sync_directory(self) -> None:
        """Make the names durable (see Disk)."""
        self.check()
        with self._fatal("sync", "directory"):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def free_bytes(self) -> int:
        """Room left (see Disk)."""
        with self._reading("look at", "directory"):
            found = os.statvfs(self._path)
            return found.f_bavail * found.f_frsize

    def fail(self, what: str, name: str, error: OSError) -> NoReturn:
        """Remember the first failure and raise it; called by the files too."""
        reason = error.strerror or str(error)
        self._failure = f"{what} of {name} in {self._path} failed: {reason}"
        raise DiskFailed(f"{self._failure}; the process must stop") from error

    def check(self) -> None:
        """Refuse to write after a failure: nobody knows what the earlier one left behind."""
        if self._failure:
            raise DiskFailed(f"{self._failure}, earlier; nothing is written after that")

    @contextlib.contextmanager
    def _fatal(self, what: str, name: str) -> Iterator[None]:
        self._spend_spare()
        try:
            yield
        except OSError as error:
            self.fail(what, name, error)
        finally:
            self._keep_spare()

    @contextlib.contextmanager
    def _reading(self, what: str, name: str) -> Iterator[None]:
        self._spend_spare()
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise DiskFailed(f"{what} of {name} in {self._path} failed: {reason}") from error
        finally:
            self._keep_spare()

    def _keep_spare(self) -> None:
        """Hold descriptors for later: clients may take all there are, and the disk must go on."""
        with contextlib.suppress(OSError):
            while len(self._spare) < _SPARE_DESCRIPTORS:
                self._spare.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def _spend_spare(self) -> None:
        while self._spare:
            os.close(self._spare.pop())

    def _at(self, name: str) -> pathlib.Path:
        if not name or name in (".", "..", LOCK_NAME) or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} is not a plain file name")
        return self._path / name


class _OsFile:
    """One open file: a descriptor, what was appended, what is zero-filled ahead."""

    __slots__ = ("_descriptor", "_disk", "_filled", "_name", "_reserve", "_size")

    def __init__(self, disk: OsDisk, name: str, descriptor: int, size: int, reserve: int) -> None:
        self._disk = disk
        self._name = name
        self._descriptor = descriptor
        self._size = size
        self._filled = size
        self._reserve = reserve

    @property
    def size(self) -> int:
        """Bytes appended."""
        return self._size

    def append(self, data: bytes) -> None:
        """One write at the end (see File)."""
        self._disk.check()
        end = self._size + len(data)
        try:
            if self._filled < end and self._filled < self._reserve:
                self.reserve_step(end)
            written = os.pwrite(self._descriptor, data, self._size)
            while written < len(data):
                # The kernel may take less: a nearly full disk, more than 2 GiB, a signal.
                rest = memoryview(data)[written:]
                written += os.pwrite(self._descriptor, rest, self._size + written)
        except OSError as error:
            self._disk.fail("write", self._name, error)
        self._size = end

    def sync(self) -> None:
        """Make what was appended durable (see File)."""
        self._disk.check()
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._disk.fail("sync", self._name, error)

    def close(self) -> None:
        """Close the descriptor (see File)."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def reserve_step(self, end: int) -> None:
        """Fill with zeros from where the last step ended to one step beyond end.

        Real zeros, not an allocation: the first write into allocated but unwritten space
        changes metadata, which is what reserving is to avoid.
        """
        target = min(self._reserve, end + RESERVE_STEP_BYTES)
        try:
            while self._filled < target:
                zeros = memoryview(_ZEROS)[: target - self._filled]
                self._filled += os.pwrite(self._descriptor, zeros, self._filled)
        except OSError as error:
            self._disk.fail("write", self._name, error)


def _rewrite(descriptor: int, start: int, end: int) -> None:
    """Write the same bytes over themselves: a crash in between changes nothing."""
    while start < end:
        part = os.pread(descriptor, min(_READ_BYTES, end - start), start)
        if not part:
            raise OSError(f"ends at {start}, before {end}")
        start += os.pwrite(descriptor, part, start)
