"""The simulated disk is as bad as it claims to be, and not worse."""

from __future__ import annotations

import random

import pytest

from cluster.replication.disk import Disk, DiskFailed, File
from tests.simulation.disk import SimDisk, Stopped

SEEDS = range(300)


def written(seed: int) -> tuple[SimDisk, File]:
    """A disk with one durable file: 100 synced bytes, 50 that are not."""
    disk = SimDisk(random.Random(seed))
    file = disk.create("a")
    disk.sync_directory()
    file.append(b"s" * 100)
    file.sync()
    file.append(b"u" * 50)
    return disk, file


def outcomes() -> set[bytes]:
    """What power losses leave of the un-synced bytes of `written`."""
    found = set()
    for seed in SEEDS:
        disk, _ = written(seed)
        disk.crash(power=True)
        data = disk.read("a")
        assert data[:100] == b"s" * 100, f"synced bytes lost with seed {seed}"
        found.add(data[100:])
    return found


def test_it_is_a_disk() -> None:
    """The type checker and the reader may rely on the protocol."""
    disk: Disk = SimDisk(random.Random(0))
    assert disk.names() == []


def test_a_kill_loses_nothing_written() -> None:
    """What a killed process wrote is still in the kernel, synced or not."""
    disk, _ = written(0)
    disk.crash(power=False)
    assert disk.read("a") == b"s" * 100 + b"u" * 50


def test_a_power_loss_after_a_kill_still_loses_what_was_not_synced() -> None:
    """A restart of the process makes nothing durable."""
    lost = 0
    for seed in SEEDS:
        disk, _ = written(seed)
        disk.crash(power=False)
        disk.crash(power=True)
        lost += disk.read("a") != b"s" * 100 + b"u" * 50
    assert lost > len(SEEDS) // 2


def test_a_power_loss_tears_the_unsynced_tail_in_every_way() -> None:
    """Nothing, all, a cut, zeros behind a cut, garbage behind a cut, and holes: all occur."""
    found = outcomes()
    assert b"" in found
    assert b"u" * 50 in found
    assert any(0 < len(tail) < 50 and not tail.strip(b"u") for tail in found)
    assert any(tail[:1] == b"u" and not tail.lstrip(b"u").strip(b"\0") for tail in found)
    assert any(set(tail) - {0, ord("u")} for tail in found)
    assert any(tail.startswith(b"u") and tail.endswith(b"u") and 0 in tail for tail in found)


def test_the_same_seed_loses_the_same_bytes() -> None:
    """One seed, one run."""
    assert outcomes() == outcomes()


def test_directory_operations_vanish_from_some_point_on() -> None:
    """After a power loss a prefix of the un-synced creates, renames and unlinks is there."""
    found = set()
    for seed in SEEDS:
        disk = SimDisk(random.Random(seed))
        disk.create("a")
        disk.sync_directory()
        disk.create("b.tmp")
        disk.rename("b.tmp", "b")
        disk.unlink("a")
        disk.crash(power=True)
        found.add(tuple(disk.names()))
    assert found == {("a",), ("a", "b.tmp"), ("a", "b"), ("b",)}


def test_a_synced_directory_keeps_its_names() -> None:
    """Nothing vanishes that sync_directory has returned for."""
    for seed in SEEDS:
        disk = SimDisk(random.Random(seed))
        disk.create("a.tmp")
        disk.rename("a.tmp", "a")
        disk.sync_directory()
        disk.crash(power=True)
        assert disk.names() == ["a"]


def test_a_process_stops_before_the_operation_it_was_told_to() -> None:
    """With stop_at and stop_part a test reaches every byte of a write."""
    disk = SimDisk(random.Random(0))
    file = disk.create("a")
    disk.stop_at, disk.stop_part = disk.operations, 3
    with pytest.raises(Stopped):
        file.append(b"abcdef")
    disk.crash(power=False)
    assert disk.read("a") == b"abc"


def test_a_file_of_an_earlier_life_cannot_be_used() -> None:
    """A test that goes on with what died is wrong and is told so."""
    disk, file = written(0)
    disk.crash(power=False)
    with pytest.raises(AssertionError):
        file.append(b"x")


def test_an_unsynced_cut_may_come_back_and_a_synced_one_may_not() -> None:
    """A reopen is durable only once it has returned."""
    found = set()
    for seed in SEEDS:
        disk, _ = written(seed)
        disk.stop_at = disk.operations + 1
        with pytest.raises(Stopped):
            disk.reopen("a", 40)
        disk.crash(power=True)
        found.add(len(disk.read("a")))
        disk.stop_at = None
        disk.reopen("a", 40)
        disk.crash(power=True)
        assert disk.read("a") == b"s" * 40
    assert found == {40, 100}


def test_bytes_of_a_failed_sync_read_well_and_are_lost_with_the_power() -> None:
    """A second sync succeeds and means nothing, until the bytes are written again."""
    disk, file = written(0)
    disk.sync_fails = True
    with pytest.raises(DiskFailed):
        file.sync()
    disk.sync_fails = False
    file.sync()
    again = disk.copy(random.Random(1))
    disk.crash(power=True)
    assert disk.read("a") == b"s" * 100 + bytes(50)
    again.crash(power=False)
    again.reopen("a", 150, rewrite_from=100)
    again.crash(power=True)
    assert again.read("a") == b"s" * 100 + b"u" * 50


def test_a_full_disk_takes_part_of_a_write_and_fails() -> None:
    """ENOSPC comes in the middle."""
    disk, file = written(0)
    disk.full = True
    with pytest.raises(DiskFailed):
        file.append(b"v" * 50)
    assert disk.free_bytes() == 0
    assert 150 <= len(disk.read("a")) <= 200


def test_reserved_space_reads_as_zeros_after_a_power_loss() -> None:
    """Behind a torn tail come the zeros that were written ahead."""
    for seed in SEEDS:
        disk = SimDisk(random.Random(seed))
        file = disk.create("a", reserve=64)
        disk.sync_directory()
        file.append(b"u" * 10)
        disk.crash(power=True)
        assert disk.size("a") == 64
        assert disk.read("a")[10:] == bytes(54)
        assert disk.read_at("a", 60, 10) == bytes(4)


def test_a_flip_turns_one_synced_bit() -> None:
    """Rot strikes what was durable, and exactly one bit of it."""
    disk, _ = written(0)
    name, offset = disk.flip(random.Random(5))
    changed = [at for at, byte in enumerate(disk.read("a")[:100]) if byte != ord("s")]
    assert (name, [offset]) == ("a", changed)
    assert (disk.read("a")[offset] ^ ord("s")).bit_count() == 1


def test_a_slow_disk_tells_how_long_a_sync_took() -> None:
    """The simulator charges the time to the node."""
    disk, file = written(0)
    taken: list[float] = []
    disk.on_sync = taken.append
    disk.sync_ms = 80.0
    file.sync()
    disk.sync_directory()
    assert taken == [80.0, 80.0]
