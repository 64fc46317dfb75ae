"""One node's disk, which can lose power, fill up, fail and be slow, by a shim in the node's process;
and an end of that process in the middle of what it does.

RULE: tells the shim (`shim.c`) what goes wrong, and after a kill puts back what no sync has promised.
It never looks at what the files mean.

The node's folder is flat. What the shim keeps lies in a folder beside it on the same file system,
as a hard link must reach it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("shim.c")
CONTROL_BYTES: Final = 64
SECTOR_BYTES: Final = 512

_ORDERS: Final = (
    "write_errno",
    "write_after",
    "sync_errno",
    "sync_after",
    "sync_delay_ms",
    "half_write",
    "name_errno",
    "is_full",
)
_COUNTS: Final = ("writes", "syncs", "names", "faults")
_END_AT: Final = 4 * (len(_ORDERS) + len(_COUNTS))
_RECORD: Final = struct.Struct("<QQQ")  # offset, old bytes that follow, old size


class Operation(IntEnum):
    """What a node does when it is ended. Sending is to peers and to clients alike."""

    WRITE = 1
    SYNC = 2
    CREATE = 3
    RENAME = 4
    UNLINK = 5
    TRUNCATE = 6
    SEND = 7


class Moment(IntEnum):
    """When in an operation; only writing and sending have a middle."""

    BEFORE = 0
    HALF = 1
    AFTER = 2


class CannotBuildError(Exception):
    """The shim does not compile here; the message carries the compiler's words."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a loss of power took.

    Attributes:
        names: changes of names that were undone.
        writes: writes that were undone, by file.
        bytes_torn: kept of one write of which the rest was undone.
    """

    names: int
    writes: dict[str, int]
    bytes_torn: int = 0


def build(tools: Path) -> Path | None:
    """The shim, compiled into a folder at first use; None where there is no C compiler.

    Raises:
        CannotBuildError: there is one, and it refuses.
    """
    text = SOURCE.read_bytes()
    library = tools / f"jepsen-shim-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if library.exists():
        return library
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    tools.mkdir(parents=True, exist_ok=True)
    # Whole before it has its name: two runs may build at once.
    fresh = tools / f"{library.name}.{os.getpid()}"
    options = ["-shared", "-fPIC", "-O2", "-std=gnu11", "-Wall"]
    command = [compiler, *options, "-o", str(fresh), str(SOURCE), "-ldl"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise CannotBuildError(f"{' '.join(command)}: {ended.stderr}")
    fresh.replace(library)
    return library


class NodeDisk:
    """One node's disk.

    Args:
        data: the node's folder.
        side: where the shim keeps what may have to be put back; on the same file system.
    """

    def __init__(self, data: Path, side: Path):
        self._data = data.absolute()
        self._side = side.absolute()
        self._control: mmap.mmap | None = None

    def prepare(self) -> None:
        """Make the side folder; nothing is wrong."""
        self._side.mkdir(parents=True, exist_ok=True)
        file = self._side / "control"
        if not file.exists():
            file.write_bytes(bytes(CONTROL_BYTES))
        if self._control is None:
            with file.open("r+b") as opened:
                self._control = mmap.mmap(opened.fileno(), CONTROL_BYTES)

    def close(self) -> None:
        """Let the control file go."""
        if self._control is not None:
            self._control.close()
            self._control = None

    def environ(self) -> dict[str, str]:
        """For the node's process, beside LD_PRELOAD."""
        return {"JEPSEN_DISK_ROOT": str(self._data), "JEPSEN_DISK_SIDE": str(self._side)}

    # What goes wrong, from now on.

    def behave(self) -> None:
        """Nothing is wrong, and the process goes on."""
        self.end_nowhere()
        self._order()

    def fail_writes(self, *, after: int = 0, full: bool = False) -> None:
        """Writes fail once so many have succeeded: EIO, or ENOSPC where the disk is full; then the
        first takes half of its bytes, and new names and free space are refused as well.
        """
        if full:
            code = errno.ENOSPC
            self._order(write_errno=code, write_after=after, half_write=1, is_full=1)
        else:
            self._order(write_errno=errno.EIO, write_after=after)

    def fail_syncs(self, *, after: int = 0) -> None:
        """Syncs fail with EIO once so many have succeeded."""
        self._order(sync_errno=errno.EIO, sync_after=after)

    def fail_names(self, *, full: bool) -> None:
        """No file can be made, renamed or removed."""
        self._order(name_errno=errno.ENOSPC if full else errno.EIO)

    def slow_syncs(self, delay_ms: int) -> None:
        """Every sync takes so much longer."""
        self._order(sync_delay_ms=delay_ms)

    # Where the process ends.

    def end_at(
        self, operation: Operation, moment: Moment, *, letter: str = "", after: int = 0
    ) -> None:
        """End the process, and its children, by SIGKILL at a point of what it does; once.

        A process ends with its group if it leads one, as nodes do; else alone.

        Args:
            letter: which files: those whose names begin so; "/" is the folder itself, for its sync.
            after: so many such operations come before.
        """
        assert self._control is not None, "not prepared"
        self.end_nowhere()
        struct.pack_into("<I", self._control, _END_AT + 4, after)
        word = operation | moment << 8 | (ord(letter) if letter else 0) << 16
        struct.pack_into("<I", self._control, _END_AT, word)

    def end_nowhere(self) -> None:
        """Let the process go on."""
        assert self._control is not None, "not prepared"
        struct.pack_into("<I", self._control, _END_AT, 0)

    @property
    def end_is_near(self) -> bool:
        """The point has not come yet."""
        assert self._control is not None, "not prepared"
        return bool(struct.unpack_from("<I", self._control, _END_AT)[0])

    @property
    def counts(self) -> dict[str, int]:
        """What the shim has seen: "writes", "syncs", "names", and "faults" it has made."""
        assert self._control is not None, "not prepared"
        words = struct.unpack_from("<4I", self._control, 4 * len(_ORDERS))
        return dict(zip(_COUNTS, words, strict=True))

    # What is lost.

    def lose_power(self, rng: random.Random | None = None) -> Loss:
        """Put back what no sync has promised. The node's process, and its children, must be gone.

        Args:
            rng: how much of it is lost, by lot, as disks do: the last changes of names, of each file
                its last writes, one of them torn at a sector; everything where none is given.
        """
        names = self._undo_names(rng)
        writes: dict[str, int] = {}
        torn = 0
        for file in sorted(self._data.iterdir()):
            if not file.is_file() or file.name == "lock":
                continue
            count, kept = self._undo_writes(file, rng)
            torn += kept
            if count:
                writes[file.name] = count
        # From here on what is there is what is on the disk.
        for left in self._side.iterdir():
            if left.name != "control":
                left.unlink()
        return Loss(names, writes, torn)

    def _undo_names(self, rng: random.Random | None) -> int:
        changes = [
            line.split("\t")
            for end in (".syncing", "")
            for line in _lines(self._side / f"names.undo{end}")
        ]
        lost = len(changes) if rng is None or rng.random() < 0.5 else rng.randint(0, len(changes))
        for kind, first, second, link in reversed(changes[len(changes) - lost :]):
            # Told before it was done: the kill may have come first.
            with contextlib.suppress(FileNotFoundError):
                match kind:
                    case "C":
                        (self._data / first).unlink()
                    case "R" if not (self._data / first).exists():
                        (self._data / second).rename(self._data / first)
                        if link:
                            (self._side / link).rename(self._data / second)
                    case "U" if link and not (self._data / first).exists():
                        (self._side / link).rename(self._data / first)
        return lost

    def _undo_writes(self, file: Path, rng: random.Random | None) -> tuple[int, int]:
        """Undo the last writes to a file; how many, and how many bytes of one were kept."""
        inode = file.stat().st_ino
        records = [
            record
            for end in (".syncing", "")
            for record in _records(self._side / f"{inode}.undo{end}")
        ]
        if not records:
            return 0, 0
        lost = len(records)
        if rng is not None:
            lost = rng.choice([0, lost, lost, rng.randint(1, lost)])
        if not lost:
            return 0, 0
        torn = 0
        with file.open("r+b") as opened:
            for number, (offset, old_size, old) in enumerate(reversed(records[-lost:]), start=1):
                now_size = opened.seek(0, os.SEEK_END)
                kept = 0
                if number == lost and rng is not None and rng.random() < 0.5:
                    # The first of those that are lost may have begun to arrive.
                    room = max(0, now_size - offset)
                    kept = rng.randint(0, room // SECTOR_BYTES) * SECTOR_BYTES
                opened.seek(offset + kept)
                opened.write(old[kept:])
                opened.truncate(max(old_size, min(now_size, offset + kept) if kept else 0))
                torn += kept
        return lost, torn

    def _order(self, **orders: int) -> None:
        assert self._control is not None, "not prepared"
        words = [orders.get(name, 0) for name in _ORDERS]
        # Errors last: a countdown that comes after its error would come too late.
        for place, word in sorted(
            enumerate(words), key=lambda pair: _ORDERS[pair[0]][-5:] == "errno"
        ):
            struct.pack_into("<I", self._control, 4 * place, word)


def _lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    # A line without its end was not told whole, so nothing was done.
    return file.read_text(encoding="utf-8").split("\n")[:-1]


def _records(file: Path) -> Iterator[tuple[int, int, bytes]]:
    """Offset, size of the file before, and the bytes that were there; oldest first."""
    if not file.exists():
        return
    data = file.read_bytes()
    at = 0
    while at + _RECORD.size <= len(data):
        offset, count, old_size = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        yield offset, old_size, data[at : at + count]
        at += count
