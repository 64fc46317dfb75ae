"""Journal: the log, the term and the vote, in one append-only stream of numbered segments.

RULE: what is added is buffered; what `sync` has returned for survives a power loss; what
cannot be read back is refused, never guessed. Bytes of commands are not looked into.

A segment is `journal-00000001.seg`, `-00000002`, ... A record is

    u32 length of the payload, u32 CRC-32 of the payload seeded with the CRC before it, payload

where the first record of a segment is seeded with the segment's number, so that old bytes
behind a torn write never continue the chain. A zero length ends the records. Payloads
(first byte: kind; integers little-endian):

    start       magic, version, segment number, CRC that ended the segment before, and the
                state at this point: term, vote, first kept index, floor, last index
    batch       magic, segment number, own offset, own CRC; opens every write
    entry       index, term, command
    cut_from    index: this entry and all after it are gone
    first_kept  index: all entries before it are gone
    hard_state  term, vote
    clear       all entries are gone
    floor       index: everything up to here was committed

Cutting and compaction are records, never rewrites. A batch is written only after the one
before it was synced. So a batch record found *behind* unreadable bytes proves that those
bytes had been durable: that is rot, and the node refuses to start. Unreadable bytes with no
batch behind them are the torn end of a write nobody was told about: they are cut.
Source: engine.md, findings a to c9, o1, o2, guards G1 and G3, risk 3.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from typing import Final, Self, TypeAlias
from zlib import crc32

from cluster.replication.disk import Disk, DiskFailed, File

Entry: TypeAlias = tuple[bytes, int, int]
"""command, index, term: the shape pysyncobj expects."""

SEGMENT_BYTES: Final = 64 << 20
COMMAND_BYTES_MAX: Final = 1 << 30
ENTRY_OVERHEAD_BYTES: Final = 25
"""Bytes of an entry's record beside its command."""

_VERSION: Final = 1
_START_MAGIC: Final = b"COTERIEJ"
_BATCH_MAGIC: Final = b"\x93batch\xd1\x0a"
_NOTHING_COMMITTED: Final = 1
"""Entry 1 is the no-op every node writes itself: it counts as committed everywhere."""

_KIND_START: Final = 1
_KIND_BATCH: Final = 2
_KIND_ENTRY: Final = 3
_KIND_CUT_FROM: Final = 4
_KIND_FIRST_KEPT: Final = 5
_KIND_HARD_STATE: Final = 6
_KIND_CLEAR: Final = 7
_KIND_FLOOR: Final = 8

_PREFIX: Final = struct.Struct("<II")  # length, CRC
_START: Final = struct.Struct("<B8sIIIQQQQ")  # then the vote
_BATCH: Final = struct.Struct("<B8sIQI")
_BATCH_OWN: Final = struct.Struct("<8sIQ")  # what the CRC inside a batch record covers
_ENTRY: Final = struct.Struct("<BQQ")  # then the command
_INDEX: Final = struct.Struct("<BQ")
_TERM: Final = struct.Struct("<BQ")  # then the vote
_CLEAR: Final = bytes([_KIND_CLEAR])

_BATCH_MAGIC_AT: Final = _PREFIX.size + 1


class JournalCorrupt(Exception):
    """What is on the disk cannot be what was written: the node must not start.

    Attributes:
        file: the segment.
        offset: of the first byte that is wrong, as far as can be told.
        reason: what is wrong.
    """

    def __init__(self, file: str, offset: int, reason: str) -> None:
        super().__init__(
            f"{file} at byte {offset}: {reason}. Entries this node had acknowledged may be "
            "unreadable, so it does not start. Do not cut or delete the file: set the data "
            "directory aside, look at the disk, and replace this member so that its peers "
            "send it a snapshot"
        )
        self.file = file
        self.offset = offset
        self.reason = reason


class JournalMisuse(Exception):
    """The engine asked for something that would lose or falsify the log: our own bug, fatal."""


class Journal(list["Entry"]):
    """The log in memory, and its records on the disk.

    It is the list of its entries, because the library asks for one of them a hundred times per
    command: so reading costs no Python. Only the methods below may change it.

    Satisfies the journal interface of pysyncobj, where positions count from the first kept
    entry: `deleteEntriesFrom(3)` keeps three entries.
    """

    def __init__(
        self, disk: Disk, *, segment_bytes: int, reserve: bool, on_used: Callable[[int], None]
    ) -> None:
        """Called by open only."""
        super().__init__()
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._reserve = segment_bytes if reserve else 0
        self._size_bytes = 0
        self._term = 0
        self._vote: str | None = None
        self._floor = 0
        self._commit = 0
        self._first_kept = 0  # index of the first entry, 0 when there is none
        # Buffered records, the CRC that ends them, and what they change.
        self._buffer: list[bytes] = []
        self._crc = 0
        self._hard_state_changed = False
        self._synced_index = 0
        # The segments on the disk, oldest first: number, highest index ever added to it.
        self._segments: list[list[int]] = []
        self._file: File | None = None
        self._failed = False
        self._on_used = on_used
        self._used = 0  # number of the segment that was last told of

    @classmethod
    def open(
        cls,
        disk: Disk,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        reserve: bool = True,
        newest: int = 0,
        on_used: Callable[[int], None] = lambda number: None,
    ) -> Self:
        """Recover what is on the disk, or begin an empty journal.

        On return everything that was recovered is durable, also what a killed process had
        written and not yet synced.

        Args:
            disk: the directory; files with other names are not touched.
            segment_bytes: a segment is left for the next one once it is this long.
            reserve: fill segments with zeros ahead of the records (see Disk.create).
            newest: number of the newest segment that `on_used` was told of; it must be there.
            on_used: called when the first write to a segment is durable and before anything that
                relies on it can leave: who keeps the number elsewhere misses a removed segment,
                which nothing in the others tells of.

        Raises:
            JournalCorrupt: the node must not start.
            DiskFailed: the disk refused.
        """
        journal = cls(disk, segment_bytes=segment_bytes, reserve=reserve, on_used=on_used)
        journal._used = newest
        journal._recover()
        return journal

    # ---- beyond pysyncobj's interface -------------------------------------------------------

    def sync(self) -> None:
        """Make everything buffered durable: one write, one sync. Nothing to do when clean.

        Raises:
            DiskFailed: the process must end; nothing is tried again.
        """
        if self.begin_sync():
            self.wait_for_disk()
            self.end_sync()

    def begin_sync(self) -> bool:
        """First third of a sync: hand what is buffered to the system; False when clean.

        Until `end_sync` nothing may be added.

        Raises:
            DiskFailed: as for sync.
        """
        if self._failed:
            raise DiskFailed("journal: a write or sync failed earlier, or is under way")
        if not self._buffer:
            return False
        if self._file is None:
            raise DiskFailed("journal: closed")
        # Set first and taken back last: whatever interrupts this leaves the journal shut.
        self._failed = True
        self._file.append(b"".join(self._buffer))
        self._buffer.clear()
        return True

    def wait_for_disk(self) -> None:
        """Second third: wait until it is durable. Touches the file only: any thread may wait.

        Raises:
            DiskFailed: as for sync.
        """
        assert self._file is not None
        self._file.sync()

    def end_sync(self) -> None:
        """Last third: what was written is durable now.

        A full segment is then left for a new one, and segments whose entries all lie below
        the first kept one are removed.

        Raises:
            DiskFailed: as for sync.
            JournalMisuse: something was added in between.
        """
        file = self._file
        assert file is not None
        if self._buffer:
            raise JournalMisuse("records were added while others were being synced")
        self._hard_state_changed = False
        self._synced_index = self[-1][1] if self else 0
        if self._segments[-1][0] > self._used:
            self._used = self._segments[-1][0]
            self._on_used(self._used)
        if file.size >= self._segment_bytes:
            file.close()
            self._start_segment(self._segments[-1][0] + 1)
        if self._segments[0][1] < self._first_kept and len(self._segments) > 1:
            self._remove_old_segments()
        self._failed = False

    @property
    def dirty(self) -> bool:
        """Something is buffered: a promise made now needs a sync first."""
        return bool(self._buffer)

    @property
    def hard_state_changed(self) -> bool:
        """Term or vote were set since the last sync."""
        return self._hard_state_changed

    @property
    def size_bytes(self) -> int:
        """Bytes of the records of the entries kept; what a compaction could free."""
        return self._size_bytes

    @property
    def synced_index(self) -> int:
        """The last index that is durable, as it stands in the log; 0 for none."""
        return self._synced_index

    @property
    def floor(self) -> int:
        """The highest commit index known to be recorded or buffered; 0 for none."""
        return self._floor

    @property
    def vacant(self) -> bool:
        """No entry and no hard state: brand new, or the disk was wiped."""
        return not self and self._term == 0 and self._vote is None

    # ---- pysyncobj's interface --------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append one entry.

        Raises:
            JournalMisuse: a gap, a term going back, a term above the current one.
        """
        entries = self
        if entries:
            _, last_index, last_term = entries[-1]
            if idx != last_index + 1:
                raise JournalMisuse(f"entry {idx} cannot follow entry {last_index}")
            if term < last_term:
                raise JournalMisuse(f"entry {idx}: term {term} after term {last_term}")
        elif idx < 1:
            raise JournalMisuse(f"entry {idx}: indexes begin at 1")
        if term > self._term:
            raise JournalMisuse(f"entry {idx}: term {term} above the current term {self._term}")
        if len(command) > COMMAND_BYTES_MAX:
            raise JournalMisuse(f"entry {idx}: {len(command)} bytes, above {COMMAND_BYTES_MAX}")
        if not self._buffer:
            self._open_batch()
        # The hot path: two packs, two CRCs, no copy of the command.
        head = _ENTRY.pack(_KIND_ENTRY, idx, term)
        self._crc = crc = crc32(command, crc32(head, self._crc))
        self._buffer += (_PREFIX.pack(len(head) + len(command), crc), head, command)
        if not entries:
            self._first_kept = idx
        entries.append((command, idx, term))
        self._size_bytes += ENTRY_OVERHEAD_BYTES + len(command)
        segment = self._segments[-1]
        segment[1] = max(segment[1], idx)

    def clear(self) -> None:
        """Drop all entries, for a snapshot that is durable and replaces them.

        The entries of the snapshot are to be added before the next sync.
        """
        super().clear()
        self._size_bytes = 0
        self._synced_index = 0
        self._first_kept = 0
        # The snapshot vouches for what was committed; it may reach less far than this log.
        self._floor = 0
        for segment in self._segments:
            segment[1] = 0
        self._emit(_CLEAR)

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        """Drop the entries from this position on.

        Raises:
            JournalMisuse: one of them is committed.
        """
        entries = self
        if entryFrom < 0:
            raise JournalMisuse(f"cut from position {entryFrom}")
        if entryFrom >= len(entries):
            return
        index = entries[entryFrom][1]
        committed = max(self._commit, self._floor, _NOTHING_COMMITTED)
        if entryFrom == 0 or index <= committed:
            raise JournalMisuse(
                f"cut from entry {index}: entries up to {committed} are committed, "
                f"entry {entries[0][1]} is the first"
            )
        self._size_bytes -= _record_bytes(entries[entryFrom:])
        del entries[entryFrom:]
        self._synced_index = min(self._synced_index, index - 1)
        self._emit(_INDEX.pack(_KIND_CUT_FROM, index))

    def deleteEntriesTo(self, entryTo: int) -> None:
        """Drop the entries before this position: a durable snapshot has them.

        Raises:
            JournalMisuse: none would be left.
        """
        entries = self
        if entryTo <= 0:
            return
        if entryTo >= len(entries):
            raise JournalMisuse(f"compaction to position {entryTo} of {len(entries)} entries")
        self._size_bytes -= _record_bytes(entries[:entryTo])
        del entries[:entryTo]
        self._first_kept = entries[0][1]
        self._emit(_INDEX.pack(_KIND_FIRST_KEPT, self._first_kept))

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Remember what must not be cut. In memory; recorded once a second as the floor."""
        self._commit = max(self._commit, raftCommitIndex)

    def getRaftCommitIndex(self) -> int:
        """1: a start knows only what its snapshot says, and the engine sets that itself."""
        return _NOTHING_COMMITTED

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        """Take a term and the vote given in it. Buffered: it cannot fail half-way.

        Raises:
            JournalMisuse: the term goes back, or the vote of a term changes.
        """
        if term < self._term:
            raise JournalMisuse(f"term {term} after term {self._term}")
        if term == self._term and self._vote not in (None, votedForNodeId):
            raise JournalMisuse(f"vote of term {term}: {self._vote}, now {votedForNodeId}")
        self._term = term
        self._vote = votedForNodeId
        self._hard_state_changed = True
        self._emit(_TERM.pack(_KIND_HARD_STATE, term) + _vote_bytes(votedForNodeId))

    def getCurrentTerm(self) -> int:
        """The last term set; 0 for none."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """The vote given in that term; None for none."""
        return self._vote

    def onOneSecondTimer(self) -> None:
        """Record the commit index as a floor, if it has risen: an end below it is a loss."""
        last = self[-1][1] if self else 0
        floor = min(self._commit, last)
        if floor > self._floor:
            self._floor = floor
            self._emit(_INDEX.pack(_KIND_FLOOR, floor))

    def _destroy(self) -> None:
        """Close without a sync: what was promised is synced already."""
        if self._file is not None:
            self._file.close()
            self._file = None

    # ---- writing ----------------------------------------------------------------------------

    def _emit(self, payload: bytes) -> None:
        """Buffer one record."""
        if not self._buffer:
            self._open_batch()
        self._crc = crc32(payload, self._crc)
        self._buffer += (_PREFIX.pack(len(payload), self._crc), payload)

    def _open_batch(self) -> None:
        """Begin a write with the record that says where it begins."""
        offset = self._file.size if self._file is not None else 0
        own = _BATCH_OWN.pack(_BATCH_MAGIC, self._segments[-1][0], offset)
        payload = b"%c%b%b" % (_KIND_BATCH, own, crc32(own).to_bytes(4, "little"))
        self._crc = crc32(payload, self._crc)
        self._buffer += (_PREFIX.pack(len(payload), self._crc), payload)

    def _start_segment(self, number: int) -> None:
        """Make the next segment and use it only when it, and its name, are durable."""
        payload = _START.pack(
            _KIND_START,
            _START_MAGIC,
            _VERSION,
            number,
            self._crc,
            self._term,
            self._first_kept,
            self._floor,
            self[-1][1] if self else 0,
        ) + _vote_bytes(self._vote)
        crc = crc32(payload, number)
        file = self._disk.create(_segment_name(number), self._reserve)
        file.append(_PREFIX.pack(len(payload), crc) + payload)
        file.sync()
        self._disk.sync_directory()
        self._file = file
        self._crc = crc
        self._segments.append([number, 0])

    def _remove_old_segments(self) -> None:
        """Unlink, oldest first, the segments whose entries are all below the first kept one.

        Called after the record that says so is durable. The unlinks need no sync: a segment
        that comes back is replayed and says the same.
        """
        segments = self._segments
        while len(segments) > 1 and segments[0][1] < self._first_kept:
            self._disk.unlink(_segment_name(segments[0][0]))
            del segments[0]

    # ---- recovering -------------------------------------------------------------------------

    def _recover(self) -> None:
        """Read all segments, end the last one where its records end, and append from there."""
        disk = self._disk
        numbers = _segment_numbers(disk)
        if numbers:
            # What a killed process left in the kernel must not be lost after we relied on it.
            disk.sync_directory()
        torn_allowed = True
        newest = self._used
        if newest > max(numbers, default=0):
            raise JournalCorrupt(
                _segment_name(newest), 0, f"segment {newest}, which was written to, is missing"
            )
        if numbers and self._never_used(numbers):
            disk.unlink(_segment_name(numbers.pop()))
            # Durable at once: were it to come back after more was appended to the segment
            # before it, a torn end there would look like rot.
            disk.sync_directory()
            torn_allowed = False
        if not numbers:
            self._start_segment(1)
            return
        replay = _Replay()
        end = 0
        for number in numbers:
            is_last = number == numbers[-1]
            data = disk.read(_segment_name(number))
            end = replay.segment(number, data, is_last=is_last, torn_allowed=torn_allowed)
        last_name = _segment_name(numbers[-1])
        replay.check_end(last_name, end)
        self[:] = replay.entries
        self._size_bytes = _record_bytes(self)
        self._term = replay.term
        self._vote = replay.vote
        self._floor = replay.floor
        self._first_kept = replay.first_kept
        self._crc = replay.crc
        self._segments = replay.segments
        self._file = disk.reopen(
            last_name, end, reserve=self._reserve, rewrite_from=replay.batch_offset
        )
        self._synced_index = replay.end_index
        # A compaction may have died between its record and its unlinks.
        self._remove_old_segments()

    def _never_used(self, numbers: list[int]) -> bool:
        """Whether the process died while it made the last segment.

        Raises:
            JournalCorrupt: a number is missing, or the segment was used and cannot be read.
        """
        for before, number in itertools.pairwise(numbers):
            if number != before + 1:
                name = _segment_name(number)
                raise JournalCorrupt(name, 0, f"segment {before + 1}, before it, is missing")
        number = numbers[-1]
        name = _segment_name(number)
        data = self._disk.read(name)
        length, crc = _PREFIX.unpack_from(data) if len(data) >= _PREFIX.size else (0, 0)
        body = data[_PREFIX.size : _PREFIX.size + length]
        if length and len(body) == length and crc32(body, number) == crc:
            return False
        synced = _batch_behind(data, number, 0)
        if synced is not None:
            raise JournalCorrupt(name, 0, f"no start record, but a synced write at byte {synced}")
        if len(numbers) == 1 and number != 1:
            raise JournalCorrupt(name, 0, "no start record, and no segment before it")
        if number <= self._used:
            raise JournalCorrupt(name, 0, "no start record, but it was written to")
        return True


class _Replay:
    """The state after the records read so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.term = 0
        self.vote: str | None = None
        self.floor = 0
        self.first_kept = 0
        self.end_index = 0  # last index of the log, also while its segment is gone already
        self.crc = 0
        self.batch_offset = 0  # where the last write began
        self.segments: list[list[int]] = []
        self._name = ""
        self._offset = 0

    def segment(self, number: int, data: bytes, *, is_last: bool, torn_allowed: bool) -> int:
        """Read one segment.

        Returns:
            The offset behind its last record.

        Raises:
            JournalCorrupt: see the module.
        """
        self._name = _segment_name(number)
        self.batch_offset = 0
        previous_crc = self.crc
        crc = number
        offset = 0
        size = len(data)
        view = memoryview(data)
        unpack = _PREFIX.unpack_from
        broken = ""
        while True:
            if offset + _PREFIX.size > size:
                broken = "cut in the head of a record" if offset < size else ""
                break
            length, stored = unpack(data, offset)
            if length == 0:
                broken = "a checksum without a record" if stored else ""
                break
            start = offset + _PREFIX.size
            if start + length > size:
                broken = f"a record of {length} bytes does not fit the file"
                break
            payload = view[start : start + length]
            found = crc32(payload, crc)
            if found != stored:
                broken = "the checksum of a record is wrong"
                break
            crc = found
            self._offset = offset
            kind = payload[0]
            try:
                if offset == 0:
                    self._start(payload, number, previous_crc)
                elif kind == _KIND_ENTRY:
                    self._entry(payload)
                else:
                    self._other(kind, payload)
            except struct.error:
                self._refuse(f"a record of kind {kind} has the wrong length")
            except UnicodeDecodeError:
                self._refuse("a vote is not UTF-8")
            offset = start + length
        self.crc = crc
        if not offset:
            raise JournalCorrupt(self._name, 0, broken or "no start record")
        if is_last:
            synced = _batch_behind(data, number, offset)
            if synced is not None:
                reason = broken or "the records end"
                raise JournalCorrupt(
                    self._name, offset, f"{reason}, but a write at byte {synced} came after it"
                )
        if broken and not (is_last and torn_allowed):
            raise JournalCorrupt(self._name, offset, f"{broken}, and a later segment was begun")
        return offset

    def check_end(self, name: str, offset: int) -> None:
        """What must hold when all is read.

        Raises:
            JournalCorrupt: it does not hold.
        """
        first = self.entries[0][1] if self.entries else 0
        if first != self.first_kept:
            raise JournalCorrupt(
                name, offset, f"the log begins at entry {first}, expected {self.first_kept}"
            )
        if self.end_index < self.floor:
            raise JournalCorrupt(
                name,
                offset,
                f"the log ends at entry {self.end_index}, but {self.floor} was committed",
            )
        if self.entries and self.entries[-1][2] > self.term:
            raise JournalCorrupt(
                name,
                offset,
                f"the log ends in term {self.entries[-1][2]}, above the stored term {self.term}",
            )

    def _refuse(self, reason: str) -> None:
        raise JournalCorrupt(self._name, self._offset, reason)

    def _start(self, payload: memoryview, number: int, previous_crc: int) -> None:
        """The first record: the whole state if nothing was read before, else a check."""
        kind, magic, version, own, crc, term, first_kept, floor, end_index = _START.unpack_from(
            payload
        )
        if kind != _KIND_START or magic != _START_MAGIC or own != number:
            self._refuse("not a segment of a journal")
        if version != _VERSION:
            self._refuse(f"format version {version}, this program reads version {_VERSION}")
        vote = _vote(payload[_START.size :])
        if self.segments:
            # The checksum alone says that the segment before was read to its very end.
            if crc != previous_crc:
                self._refuse("the segment before it does not end where it ended")
            said = (term, vote, first_kept, floor, end_index)
            if said != (self.term, self.vote, self.first_kept, self.floor, self.end_index):
                self._refuse("the segments before it lead to another state")
        else:
            self.term, self.vote = term, vote
            self.first_kept, self.floor, self.end_index = first_kept, floor, end_index
        self.segments.append([number, 0])

    def _entry(self, payload: memoryview) -> None:
        _, index, term = _ENTRY.unpack_from(payload)
        if self.first_kept == 0:
            self.first_kept = index
        elif index != self.end_index + 1:
            self._refuse(f"entry {index} follows entry {self.end_index}")
        if self.entries and term < self.entries[-1][2]:
            self._refuse(f"entry {index}: term {term} after term {self.entries[-1][2]}")
        self.entries.append((bytes(payload[_ENTRY.size :]), index, term))
        self.end_index = index
        segment = self.segments[-1]
        segment[1] = max(segment[1], index)

    def _other(self, kind: int, payload: memoryview) -> None:
        if kind == _KIND_BATCH:
            _, magic, _, offset, _ = _BATCH.unpack(payload)
            if magic != _BATCH_MAGIC or offset != self._offset:
                self._refuse("a write begins elsewhere than it says")
            self.batch_offset = self._offset
        elif kind == _KIND_CUT_FROM:
            self._cut_from(_INDEX.unpack(payload)[1])
        elif kind == _KIND_FIRST_KEPT:
            self._keep_from(_INDEX.unpack(payload)[1])
        elif kind == _KIND_HARD_STATE:
            term = _TERM.unpack_from(payload)[1]
            if term < self.term:
                self._refuse(f"term {term} after term {self.term}")
            self.term, self.vote = term, _vote(payload[_TERM.size :])
        elif kind == _KIND_CLEAR:
            self.entries.clear()
            self.first_kept = self.floor = self.end_index = 0
            for segment in self.segments:
                segment[1] = 0
        elif kind == _KIND_FLOOR:
            self.floor = _INDEX.unpack(payload)[1]
            if self.floor > self.end_index:
                self._refuse(f"floor {self.floor} above the last entry, {self.end_index}")
        else:
            self._refuse(f"unknown kind of record {kind}")

    def _cut_from(self, index: int) -> None:
        if not max(self.floor, self.first_kept) < index <= self.end_index:
            self._refuse(f"cut from entry {index}, floor {self.floor}, last {self.end_index}")
        # The entries may begin later than first_kept says: their segment is gone already.
        if self.entries:
            del self.entries[max(0, index - self.entries[0][1]) :]
        self.end_index = index - 1

    def _keep_from(self, index: int) -> None:
        if not self.first_kept < index <= self.end_index:
            self._refuse(f"first kept entry {index} of {self.first_kept} to {self.end_index}")
        if self.entries:
            del self.entries[: max(0, index - self.entries[0][1])]
        self.first_kept = index


def _segment_name(number: int) -> str:
    return f"journal-{number:08d}.seg"


def _segment_numbers(disk: Disk) -> list[int]:
    """The numbers of all segments, ascending."""
    return sorted(
        int(name[8:-4])
        for name in disk.names()
        if name.startswith("journal-") and name.endswith(".seg") and name[8:-4].isdecimal()
    )


def _batch_behind(data: bytes, number: int, offset: int) -> int | None:
    """Where a batch record stands behind offset, if any does. Reads no record's length."""
    at = data.find(_BATCH_MAGIC, offset)
    while at >= 0:
        start = at - _BATCH_MAGIC_AT
        own = _BATCH_OWN.pack(_BATCH_MAGIC, number, max(start, 0))
        said = data[at : at + len(own) + 4]
        if start > offset and said == own + crc32(own).to_bytes(4, "little"):
            return start
        at = data.find(_BATCH_MAGIC, at + 1)
    return None


def _record_bytes(entries: list[Entry]) -> int:
    return sum([len(entry[0]) for entry in entries]) + ENTRY_OVERHEAD_BYTES * len(entries)


def _vote_bytes(vote: str | None) -> bytes:
    return b"" if vote is None else b"\x01" + vote.encode("utf-8")


def _vote(payload: memoryview) -> str | None:
    return None if not payload else str(payload[1:], "utf-8")
