"""The journal gives back what it promised, or refuses to start."""

from __future__ import annotations

import dataclasses
import pathlib
import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from cluster.replication.disk import Disk, DiskFailed, OsDisk
from cluster.replication.journal import Entry, Journal, JournalCorrupt, JournalMisuse
from tests.simulation.disk import SimDisk, Stopped

SEGMENT_BYTES = 300
FIRST = "journal-00000001.seg"
SECOND = "journal-00000002.seg"

Restart = Callable[[], Disk]


@pytest.fixture(params=["os", "sim", "sim-reserved"])
def restart(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Restart]:
    """A disk of either kind; each call ends the process before and gives the disk again."""
    if request.param == "os":
        disks: list[OsDisk] = []

        def again() -> Disk:
            for disk in disks:
                disk.close()
            disks.append(OsDisk(tmp_path / "data"))
            return disks[-1]

        yield again
        disks[-1].close()
    else:
        sim = SimDisk(random.Random(0))

        def crash() -> Disk:
            sim.crash(power=True)
            return sim

        yield crash


def open_small(disk: Disk) -> Journal:
    """A journal that rotates all the time."""
    return Journal.open(disk, segment_bytes=SEGMENT_BYTES, reserve=False)


def fill(journal: Journal, first: int, last: int, term: int = 1, size: int = 40) -> None:
    """Add and sync entries one by one."""
    if term > journal.getCurrentTerm():
        journal.setCurrentTerm(term, None)
    for index in range(first, last + 1):
        journal.add(bytes([index % 256]) * size, index, term)
        journal.sync()


def indexes(journal: Journal) -> list[int]:
    """What it holds, in short."""
    return [entry[1] for entry in journal[:]]


# ---- the interface --------------------------------------------------------------------------


def test_a_new_journal_is_vacant(restart: Restart) -> None:
    """Nobody mistakes a wiped disk for a short log."""
    journal = Journal.open(restart())
    assert journal.vacant
    assert len(journal) == 0
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (0, None)
    assert (journal.dirty, journal.hard_state_changed) == (False, False)
    assert journal.getRaftCommitIndex() == 1
    journal._destroy()
    journal = Journal.open(restart())
    assert journal.vacant
    journal.setCurrentTerm(1, None)
    assert not journal.vacant
    journal._destroy()


def test_what_was_synced_is_there_after_a_restart(restart: Restart) -> None:
    """Entries, term and vote come back as they were."""
    journal = Journal.open(restart())
    journal.setCurrentTerm(3, "node-é")
    journal.add(b"one", 1, 0)
    journal.add(b"", 2, 3)
    journal.add(bytes(100_000), 3, 3)
    assert journal.dirty
    assert journal.hard_state_changed
    assert journal.synced_index == 0
    journal.sync()
    assert not journal.dirty
    assert not journal.hard_state_changed
    assert journal.synced_index == 3
    expected = [(b"one", 1, 0), (b"", 2, 3), (bytes(100_000), 3, 3)]
    assert journal[:] == expected
    size_bytes = journal.size_bytes
    journal._destroy()
    journal = Journal.open(restart())
    assert journal[:] == expected
    assert journal[-1] == expected[-1]
    assert journal[1:2] == expected[1:2]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "node-é")
    assert journal.size_bytes == size_bytes > 100_000
    assert journal.synced_index == 3
    journal._destroy()


def test_nothing_is_written_before_sync() -> None:
    """Term and vote cannot fail half-way: they only buffer."""
    disk = SimDisk(random.Random(0))
    journal = Journal.open(disk)
    before = disk.operations
    journal.setCurrentTerm(1, "a")
    journal.add(b"x", 1, 1)
    journal.setRaftCommitIndex(1)
    journal.onOneSecondTimer()
    assert disk.operations == before
    journal.sync()
    assert disk.operations == before + 2, "one write and one sync"
    journal.sync()
    assert disk.operations == before + 2, "a clean journal writes nothing"


def test_cuts_and_compactions_survive(restart: Restart) -> None:
    """They are records like any other, over many segments."""
    journal = open_small(restart())
    fill(journal, 1, 30)
    journal.deleteEntriesFrom(20)
    assert journal.synced_index == 20
    fill(journal, 21, 40, term=2)
    journal.deleteEntriesTo(12)
    journal.sync()
    assert indexes(journal) == list(range(13, 41))
    terms = [entry[2] for entry in journal[:]]
    journal._destroy()
    journal = open_small(restart())
    assert indexes(journal) == list(range(13, 41))
    assert [entry[2] for entry in journal[:]] == terms == [1] * 8 + [2] * 20
    journal._destroy()


def test_a_clear_begins_anew(restart: Restart) -> None:
    """After a received snapshot the log begins at its entries."""
    journal = open_small(restart())
    fill(journal, 1, 10)
    journal.clear()
    assert journal.size_bytes == journal.synced_index == 0
    journal.add(b"previous", 99, 1)
    journal.add(b"last", 100, 1)
    journal.sync()
    fill(journal, 101, 103)
    journal._destroy()
    journal = open_small(restart())
    assert indexes(journal) == list(range(99, 104))
    journal._destroy()


def test_old_segments_go_once_their_entries_are_compacted(restart: Restart) -> None:
    """The directory holds what the log holds, and little more."""
    disk = restart()
    journal = open_small(disk)
    fill(journal, 1, 100)
    assert len(disk.names()) > 20
    journal.deleteEntriesTo(95)
    assert FIRST in disk.names(), "nothing goes before the record is durable"
    journal.sync()
    assert len(disk.names()) <= 3
    assert FIRST not in disk.names()
    journal._destroy()
    journal = open_small(restart())
    assert indexes(journal) == list(range(96, 101))
    journal._destroy()


def test_a_clear_frees_the_segments_of_a_longer_log() -> None:
    """A snapshot may end before our own tail, which was never committed."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 30)
    journal.clear()
    journal.add(b"", 9, 1)
    journal.add(b"", 10, 1)
    journal.sync()
    assert len(disk.names()) == 1
    disk.crash(power=True)
    assert indexes(open_small(disk)) == [9, 10]


def test_compaction_goes_on_for_ever(restart: Restart) -> None:
    """Compact, append, restart, a hundred times over: the disk does not fill."""
    journal = open_small(restart())
    fill(journal, 1, 2)
    for turn in range(100):
        fill(journal, 3 + turn * 3, 5 + turn * 3)
        journal.deleteEntriesTo(len(journal) - 2)
        journal.sync()
        if turn % 10 == 0:
            journal._destroy()
            disk = restart()
            journal = open_small(disk)
            assert len(disk.names()) <= 4
    assert indexes(journal) == [301, 302]
    journal._destroy()


def test_size_bytes_follows_every_change() -> None:
    """The trigger of compaction counts what a compaction would free."""
    journal = Journal.open(SimDisk(random.Random(0)))
    fill(journal, 1, 10, size=100)
    one = journal.size_bytes // 10
    assert one > 100
    journal.deleteEntriesFrom(8)
    assert journal.size_bytes == 8 * one
    journal.deleteEntriesTo(3)
    assert journal.size_bytes == 5 * one
    journal.clear()
    assert journal.size_bytes == 0


# ---- misuse ---------------------------------------------------------------------------------


def test_misuse_is_refused() -> None:
    """What would lose or falsify the log is our own bug and fatal."""
    journal = Journal.open(SimDisk(random.Random(0)))
    journal.setCurrentTerm(5, "a")
    with pytest.raises(JournalMisuse, match="term 4 after term 5"):
        journal.setCurrentTerm(4, None)
    with pytest.raises(JournalMisuse, match="vote of term 5"):
        journal.setCurrentTerm(5, "b")
    with pytest.raises(JournalMisuse, match="vote of term 5"):
        journal.setCurrentTerm(5, None)
    with pytest.raises(JournalMisuse, match="begin at 1"):
        journal.add(b"", 0, 1)
    with pytest.raises(JournalMisuse, match="above the current term"):
        journal.add(b"", 1, 6)
    fill(journal, 1, 5, term=5)
    with pytest.raises(JournalMisuse, match="entry 7 cannot follow entry 5"):
        journal.add(b"", 7, 5)
    with pytest.raises(JournalMisuse, match="entry 5 cannot follow entry 5"):
        journal.add(b"", 5, 5)
    with pytest.raises(JournalMisuse, match="term 4 after term 5"):
        journal.add(b"", 6, 4)
    with pytest.raises(JournalMisuse, match="compaction to position 5 of 5"):
        journal.deleteEntriesTo(5)
    with pytest.raises(JournalMisuse, match="cut from entry 1"):
        journal.deleteEntriesFrom(0)
    assert indexes(journal) == [1, 2, 3, 4, 5]


def test_committed_entries_are_not_cut() -> None:
    """Neither at nor below the commit index; above it they are."""
    journal = Journal.open(SimDisk(random.Random(0)))
    fill(journal, 1, 6)
    journal.setRaftCommitIndex(4)
    journal.setRaftCommitIndex(2)
    with pytest.raises(JournalMisuse, match="up to 4 are committed"):
        journal.deleteEntriesFrom(3)
    journal.deleteEntriesFrom(4)
    assert indexes(journal) == [1, 2, 3, 4]


def test_the_floor_guards_committed_entries_over_a_restart() -> None:
    """The commit index is forgotten by a restart, its floor is not."""
    disk = SimDisk(random.Random(0))
    journal = Journal.open(disk)
    fill(journal, 1, 6)
    journal.setRaftCommitIndex(4)
    journal.onOneSecondTimer()
    assert journal.dirty
    journal.sync()
    journal.onOneSecondTimer()
    assert not journal.dirty, "an idle node writes nothing"
    disk.crash(power=True)
    journal = Journal.open(disk)
    assert journal.floor == 4
    assert journal.getRaftCommitIndex() == 1
    with pytest.raises(JournalMisuse, match="up to 4 are committed"):
        journal.deleteEntriesFrom(3)
    journal.deleteEntriesFrom(4)


# ---- a disk that fails ----------------------------------------------------------------------


@pytest.mark.parametrize("switch", ["full", "write_fails", "sync_fails"])
def test_a_failed_write_or_sync_is_never_tried_again(switch: str) -> None:
    """After the first failure every sync fails, also when the disk has recovered."""
    disk = SimDisk(random.Random(0))
    journal = Journal.open(disk)
    fill(journal, 1, 1)
    journal.add(b"x", 2, 1)
    setattr(disk, switch, True)
    with pytest.raises(DiskFailed, match="simulated"):
        journal.sync()
    setattr(disk, switch, False)
    operations = disk.operations
    with pytest.raises(DiskFailed, match="earlier"):
        journal.sync()
    assert disk.operations == operations
    assert journal.synced_index == 1


def test_what_a_failed_sync_left_in_the_kernel_is_written_again() -> None:
    """A restart after a failed sync relies on bytes that count as clean and are not durable."""
    for seed in range(50):
        disk = SimDisk(random.Random(seed))
        journal = open_small(disk)
        fill(journal, 1, 3)
        journal.add(b"x", 4, 1)
        disk.sync_fails = True
        with pytest.raises(DiskFailed):
            journal.sync()
        disk.sync_fails = False
        disk.crash(power=False)
        journal = open_small(disk)
        assert indexes(journal) == [1, 2, 3, 4]
        disk.crash(power=True)
        assert indexes(open_small(disk)) == [1, 2, 3, 4], f"lost with seed {seed}"


def test_a_closed_journal_refuses_to_sync() -> None:
    """A late round cannot write into a journal that was given back."""
    journal = Journal.open(SimDisk(random.Random(0)))
    journal._destroy()
    journal._destroy()
    journal.setCurrentTerm(1, None)
    with pytest.raises(DiskFailed, match="closed"):
        journal.sync()


# ---- recovery: what is cut and what is refused ----------------------------------------------


def synced_disk() -> SimDisk:
    """One segment with four writes: three entries and a floor."""
    disk = SimDisk(random.Random(0))
    journal = Journal.open(disk, segment_bytes=1 << 20, reserve=False)
    fill(journal, 1, 3)
    journal.setRaftCommitIndex(2)
    journal.onOneSecondTimer()
    journal.sync()
    return disk


def replaced(disk: SimDisk, name: str, data: bytes) -> SimDisk:
    """The disk with other bytes in one file."""
    other = disk.copy(random.Random(0))
    other.put(name, data)
    return other


@pytest.mark.parametrize("tail", [b"\0" * 50, b"\x10\0\0\0", b"garbage" * 9, b"\0\0\0\0abcd"])
def test_a_torn_tail_is_cut(tail: bytes) -> None:
    """Whatever stands behind the last whole record of the last segment goes."""
    disk = synced_disk()
    data = disk.read(FIRST)
    torn = replaced(disk, FIRST, data + tail)
    journal = Journal.open(torn, reserve=False)
    assert indexes(journal) == [1, 2, 3]
    fill(journal, 4, 5)
    torn.crash(power=True)
    assert indexes(Journal.open(torn, reserve=False)) == [1, 2, 3, 4, 5]
    assert torn.read(FIRST)[: len(data)] == data


def test_every_cut_of_the_last_write_is_a_torn_tail() -> None:
    """A file cut inside the last write loses nothing of the writes before it."""
    disk = synced_disk()
    data = disk.read(FIRST)
    last_write = data.rindex(b"batch") - 10
    for size in range(last_write, len(data)):
        journal = Journal.open(replaced(disk, FIRST, data[:size]), reserve=False)
        assert indexes(journal) == [1, 2, 3], f"cut at {size}"


def test_old_records_behind_a_torn_write_do_not_validate() -> None:
    """The chain of checksums ends where one record is another one."""
    disk = synced_disk()
    other = SimDisk(random.Random(0))
    journal = Journal.open(other, segment_bytes=1 << 20, reserve=False)
    fill(journal, 1, 1)
    journal.add(b"?" * 40, 2, 1)
    journal.sync()
    new, old = other.read(FIRST), disk.read(FIRST)
    assert len(new) < len(old)
    with pytest.raises(JournalCorrupt, match="a write at byte"):
        Journal.open(replaced(disk, FIRST, new + old[len(new) :]))


def test_every_flipped_bit_before_the_last_write_is_refused() -> None:
    """Rot of what a later write proves to have been durable never passes as a torn tail."""
    disk = synced_disk()
    data = disk.read(FIRST)
    last_write = data.rindex(b"batch") - 10 + 1
    for bit in range(last_write * 8 - 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(JournalCorrupt):
            Journal.open(replaced(disk, FIRST, bytes(flipped)), reserve=False)


def test_every_flipped_bit_of_the_last_write_is_cut_and_loses_no_other() -> None:
    """The last write alone cannot be told from a torn one; here it is only the floor."""
    disk = synced_disk()
    data = disk.read(FIRST)
    last_write = data.rindex(b"batch") - 10 + 1
    for bit in range(last_write * 8, len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        journal = Journal.open(replaced(disk, FIRST, bytes(flipped)), reserve=False)
        assert indexes(journal) == [1, 2, 3]


def test_every_flipped_bit_of_an_older_segment_is_refused() -> None:
    """Also in the last record of a segment, and in the first of the next one."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 4)
    assert disk.names() == [FIRST, SECOND]
    for name in disk.names():
        data = disk.read(name)
        bits = len(data) * 8 if name == FIRST else (data.rindex(b"batch") - 10) * 8
        for bit in range(bits):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(JournalCorrupt):
                open_small(replaced(disk, name, bytes(flipped)))


def test_an_older_segment_cut_anywhere_is_refused() -> None:
    """A clean end at a record is still an end too early: the next segment knows."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 6)
    data = disk.read(FIRST)
    for size in range(len(data)):
        for shorter in (data[:size], data[:size] + bytes(len(data) - size)):
            with pytest.raises(JournalCorrupt):
                open_small(replaced(disk, FIRST, shorter))


def test_a_missing_segment_is_refused() -> None:
    """In the middle or at the head: what it held is gone."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 20)
    for name in disk.names()[:-1]:
        gone = disk.copy(random.Random(0))
        gone.unlink(name)
        with pytest.raises(JournalCorrupt, match=r"missing|begins at entry"):
            open_small(gone)


def test_a_log_that_ends_below_its_floor_is_refused() -> None:
    """Committed entries that are gone are a loss, and not a torn tail."""
    disk = SimDisk(random.Random(0))
    journal = Journal.open(disk, segment_bytes=1 << 20, reserve=False)
    fill(journal, 1, 3)
    journal.setRaftCommitIndex(3)
    journal.onOneSecondTimer()
    journal.sync()
    # Whole records in the right order, of which one says what must not be: a bug of ours.
    journal._floor = journal._commit = 0
    journal.deleteEntriesFrom(2)
    journal.sync()
    with pytest.raises(JournalCorrupt, match="cut from entry 3, floor 3"):
        Journal.open(disk, reserve=False)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_removed_segment_is_missed(restart: Restart, kept: int) -> None:
    """The others do not tell of it, but who was told of its first write does."""
    used: list[int] = []
    disk = restart()
    journal = Journal.open(disk, segment_bytes=SEGMENT_BYTES, reserve=False, on_used=used.append)
    assert used == []
    fill(journal, 1, 40)
    assert used == list(range(1, used[-1] + 1)) and used[-1] > 2
    names = sorted(name for name in disk.names() if name.endswith(".seg"))
    for name in names[kept:]:
        disk.unlink(name)
    disk.sync_directory()
    with pytest.raises(JournalCorrupt, match=f"segment {used[-1]}, which was written to, is miss"):
        Journal.open(restart(), segment_bytes=SEGMENT_BYTES, reserve=False, newest=used[-1])


def test_a_segment_without_a_record_was_never_used() -> None:
    """The process died while it made it: it is removed and made again."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 2)
    for left in (b"", bytes(300), disk.read(FIRST)[:20], b"\xff" * 50):
        begun = disk.copy(random.Random(0))
        begun.put(SECOND, left)
        journal = open_small(begun)
        assert begun.names() == [FIRST]
        fill(journal, 3, 9)
        begun.crash(power=True)
        assert indexes(open_small(begun)) == list(range(1, 10))


def test_an_unused_segment_is_gone_before_the_one_before_it_grows() -> None:
    """Were it to come back, a torn tail before it would look like rot."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 2)
    disk.put(SECOND, b"")
    for seed in range(40):
        left = disk.copy(random.Random(seed))
        journal = open_small(left)
        journal.add(b"x", 3, 1)
        left.stop_at = left.operations
        with pytest.raises(Stopped):
            journal.sync()
        left.stop_at = None
        left.crash(power=True)
        assert indexes(open_small(left)) in ([1, 2], [1, 2, 3]), f"seed {seed}"


def test_a_broken_end_before_an_unused_segment_is_refused() -> None:
    """A segment is whole and durable before the next one is begun: its end cannot be torn."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 2)
    disk.put(FIRST, disk.read(FIRST)[:-1])
    disk.put(SECOND, b"")
    with pytest.raises(JournalCorrupt, match="a later segment was begun"):
        open_small(disk)


def test_a_lost_end_that_leads_to_the_same_indexes_is_refused() -> None:
    """The next segment knows the checksum that ended the one before it."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 3, size=20)
    journal.deleteEntriesFrom(2)
    journal.add(b"other" * 20, 3, 1)
    journal.sync()
    assert disk.names() == [FIRST, SECOND]
    data = disk.read(FIRST)
    with pytest.raises(JournalCorrupt, match="does not end where it ended"):
        open_small(replaced(disk, FIRST, data[: data.rindex(b"batch") - 10]))


def test_a_used_segment_without_its_first_record_is_refused() -> None:
    """Rot of the first record must not make a segment look unused."""
    disk = SimDisk(random.Random(0))
    journal = open_small(disk)
    fill(journal, 1, 4)
    assert disk.names() == [FIRST, SECOND]
    data = disk.read(SECOND)
    with pytest.raises(JournalCorrupt, match="no start record, but a synced write"):
        open_small(replaced(disk, SECOND, bytes(40) + data[40:]))


def test_a_refusal_tells_file_offset_reason_and_what_to_do() -> None:
    """The operator reads one sentence and knows."""
    disk = synced_disk()
    data = bytearray(disk.read(FIRST))
    data[data.index(b"\2" * 40)] ^= 1
    with pytest.raises(JournalCorrupt) as caught:
        Journal.open(replaced(disk, FIRST, bytes(data)))
    error = caught.value
    assert error.file == FIRST
    assert 0 < error.offset <= len(data) // 2
    assert "checksum of a record is wrong" in error.reason
    assert FIRST in str(error)
    assert "replace this member" in str(error)


def test_a_newer_format_is_refused() -> None:
    """A downgrade says so instead of calling the disk broken."""
    from zlib import crc32

    disk = SimDisk(random.Random(0))
    Journal.open(disk, reserve=False)
    data = disk.read(FIRST)
    payload = bytearray(data[8:])
    payload[9] = 7
    crc = crc32(payload, 1).to_bytes(4, "little")
    with pytest.raises(JournalCorrupt, match="format version 7"):
        Journal.open(replaced(disk, FIRST, data[:4] + crc + payload))


def test_other_files_in_the_directory_are_left_alone(restart: Restart) -> None:
    """Snapshots and what an operator put there are not the journal's."""
    disk = restart()
    for name in ("snapshot-1-1.snap", "journal-old.seg", "notes"):
        disk.create(name).close()
    disk.sync_directory()
    Journal.open(disk)._destroy()
    assert disk.names() == [FIRST, "journal-old.seg", "notes", "snapshot-1-1.snap"]


# ---- against a model ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """What a journal holds."""

    entries: tuple[Entry, ...]
    term: int
    vote: str | None


def state_of(journal: Journal) -> State:
    """The state as the journal shows it."""
    return State(tuple(journal[:]), journal.getCurrentTerm(), journal.getVotedForNodeId())


class Pair:
    """A journal and the states that a crash may legally leave."""

    def __init__(self, disk: SimDisk) -> None:
        self.disk = disk
        self.journal = open_small(disk)
        self.commit = 1
        self.legal = [state_of(self.journal)]  # the synced state, then one per later record

    def step(self, operation: str, amount: int) -> None:
        """Do one thing to both; amount in 0..99 says how much of it."""
        journal = self.journal
        before = self.legal[-1]
        entries, term, vote = before.entries, before.term, before.vote
        last = entries[-1][1] if entries else 0
        if operation == "add" or not entries:
            entry = (bytes([amount]) * (amount * amount // 40), last + 1, term)
            journal.add(*entry)
            entries = (*entries, entry)
        elif operation == "term":
            term, vote = term + 1 + amount // 50, (None, "a", "b")[amount % 3]
            journal.setCurrentTerm(term, vote)
        elif operation == "vote":
            vote = vote or "c"
            journal.setCurrentTerm(term, vote)
        elif operation == "cut":
            lowest = max(self.commit, journal.floor, entries[0][1]) + 1
            index = lowest + amount % 5
            if index <= last:
                position = index - entries[0][1]
                journal.deleteEntriesFrom(position)
                entries = entries[:position]
        elif operation == "compact":
            count = len(entries) * amount // 100
            journal.deleteEntriesTo(count)
            entries = entries[count:]
        elif operation == "install":
            journal.clear()
            self.legal.append(State((), term, vote))
            first = max(self.commit, last + 10 - amount // 4)
            entries = ()
            for index in (first, first + 1):
                journal.add(b"snapshot", index, term)
                entries = (*entries, (b"snapshot", index, term))
                self.legal.append(State(entries, term, vote))
            self.commit = first + 1
            journal.setRaftCommitIndex(self.commit)
        elif operation == "commit":
            self.commit = max(self.commit, last - amount % 7)
            journal.setRaftCommitIndex(self.commit)
            journal.onOneSecondTimer()
        self.legal.append(State(entries, term, vote))
        assert state_of(journal) == self.legal[-1]

    def sync(self) -> None:
        """Sync; from the first sync of the disk on, that of the write, one state is legal."""

        def synced(_: float) -> None:
            self.legal = self.legal[-1:]

        self.disk.on_sync = synced
        try:
            self.journal.sync()
        finally:
            self.disk.on_sync = None
        assert self.journal.synced_index == (len(self.journal) and self.journal[-1][1])
        assert not self.journal.dirty

    def sync_and_die(self, after: int) -> None:
        """Die at some disk operation of a sync, or behind it."""
        self.disk.stop_at = self.disk.operations + after
        try:
            self.sync()
        except Stopped:
            pass
        self.disk.stop_at = None

    def restart(self, *, power: bool) -> None:
        """Crash and recover, also dying in the recovery once."""
        self.disk.crash(power=power)
        self.disk.stop_at = self.disk.operations + self.disk.rng.randrange(12)
        try:
            open_small(self.disk)
        except Stopped:
            self.disk.crash(power=power)
        self.disk.stop_at = None
        self.journal = open_small(self.disk)
        found = state_of(self.journal)
        assert found in self.legal
        assert self.journal.floor <= self.commit
        self.commit = max(1, self.journal.floor)
        self.legal = [found]


OPERATIONS = ["add", "add", "add", "term", "vote", "cut", "compact", "install", "commit"]

steps = st.lists(
    st.tuples(
        st.sampled_from([*OPERATIONS, "sync", "sync", "sync", "die", "kill", "power"]),
        st.integers(0, 99),
    ),
    max_size=60,
)


@settings(max_examples=1000, deadline=None, derandomize=True, database=None)
@given(seed=st.integers(0, 1 << 32), plan=steps)
def test_any_history_recovers_to_a_legal_state(seed: int, plan: list[tuple[str, int]]) -> None:
    """At least everything synced, at most what was written, never anything else."""
    note(f"replay: SimDisk(random.Random({seed})), steps {plan}")
    pair = Pair(SimDisk(random.Random(seed)))
    for operation, amount in plan:
        if operation == "sync":
            pair.sync()
        elif operation == "die":
            pair.sync_and_die(amount % 8)
            pair.restart(power=amount < 70)
        elif operation in ("kill", "power"):
            pair.restart(power=operation == "power")
        else:
            pair.step(operation, amount)
    pair.restart(power=True)


@pytest.mark.parametrize("seed", range(20))
def test_a_long_history_recovers_to_a_legal_state(seed: int) -> None:
    """Many more steps than hypothesis would take; replay with the seed in the test's name."""
    rng = random.Random(seed)
    pair = Pair(SimDisk(random.Random(seed)))
    for _ in range(600):
        chance = rng.random()
        if chance < 0.3:
            pair.sync()
        elif chance < 0.34:
            pair.sync_and_die(rng.randrange(8))
            pair.restart(power=rng.random() < 0.7)
        else:
            pair.step(rng.choice(OPERATIONS), rng.randrange(100))


def scripted(pair: Pair) -> None:
    """Rotations, a cut, a compaction that removes segments, a snapshot; synced all the way."""
    for operation, amount in [
        *[("term", 1), ("add", 70), ("add", 60), ("commit", 3), ("add", 60), ("cut", 0)],
        *[("term", 2), ("add", 70), ("add", 65), ("compact", 60), ("add", 50), ("add", 30)],
        *[("add", 70), ("add", 70), ("compact", 90), ("add", 30), ("install", 0), ("add", 60)],
        *[("compact", 50), ("term", 1), ("add", 60)],
    ]:
        pair.step(operation, amount)
        if operation != "term":
            pair.sync()


def test_a_stop_at_every_byte_and_every_operation_is_survived() -> None:
    """Through rotations, a cut, compactions and a snapshot, with kill and with power loss."""
    disk = SimDisk(random.Random(0))
    disk.trace = []
    scripted(Pair(disk))
    trace = disk.trace
    what = " ".join(name for name, _ in trace)
    assert what.count("create") >= 4
    assert what.count("unlink") >= 3
    for number, (name, size) in enumerate(trace):
        for part in range(size + 1):
            disk = SimDisk(random.Random(number))
            disk.stop_at, disk.stop_part = number, part
            pair = None
            try:
                pair = Pair(disk)
                scripted(pair)
            except Stopped:
                pass
            disk.stop_at = None
            # Before the journal was open for the first time only an empty one is legal.
            legal = [State((), 0, None)] if pair is None else pair.legal
            for seed in range(6):
                left = disk.copy(random.Random(seed))
                left.crash(power=seed > 0)
                found = state_of(open_small(left))
                where = f"stop {part} bytes into {name} ({number}), seed {seed}"
                assert found in legal, where
                left.crash(power=True)
                assert state_of(open_small(left)) == found, f"{where}, then power loss"
