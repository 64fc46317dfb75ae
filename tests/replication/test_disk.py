"""The real disk and the simulated one keep the same contract."""

from __future__ import annotations

import os
import pathlib
import random
import resource
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cluster.replication.disk import RESERVE_STEP_BYTES, Disk, DiskFailed, DiskLocked, OsDisk
from tests.simulation.disk import SimDisk


@pytest.fixture(params=["os", "sim"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Disk]:
    """Each of the two implementations, empty."""
    if request.param == "sim":
        yield SimDisk(random.Random(0))
        return
    real = OsDisk(tmp_path / "data")
    yield real
    real.close()


def test_what_is_appended_is_read_back(disk: Disk) -> None:
    """A file holds what was appended, in order."""
    file = disk.create("a")
    file.append(b"one ")
    file.append(b"two")
    file.sync()
    assert file.size == disk.size("a") == 7
    assert disk.read("a") == b"one two"
    assert disk.read_at("a", 4, 100) == b"two"
    assert disk.read_at("a", 0, 3) == b"one"
    assert disk.read_at("a", 7, 1) == b""
    file.close()


def test_a_file_is_created_once(disk: Disk) -> None:
    """Nobody writes over an old file by mistake."""
    disk.create("a").close()
    with pytest.raises(DiskFailed, match="exists"):
        disk.create("a")


def test_names_are_sorted_and_the_lock_is_not_among_them(disk: Disk) -> None:
    """A listing is the same on every machine."""
    for name in ("c", "a", "b"):
        disk.create(name).close()
    assert disk.names() == ["a", "b", "c"]


def test_rename_replaces_and_unlink_removes(disk: Disk) -> None:
    """Names move as a whole."""
    for name in ("a", "b"):
        file = disk.create(name)
        file.append(name.encode())
        file.close()
    disk.rename("a", "b")
    disk.sync_directory()
    assert disk.names() == ["b"]
    assert disk.read("b") == b"a"
    disk.unlink("b")
    assert disk.names() == []


def test_reopen_cuts_and_appends_from_there(disk: Disk) -> None:
    """The tail is gone and does not shine through behind new bytes."""
    file = disk.create("a")
    file.append(b"keep, drop, drop, drop")
    file.close()
    file = disk.reopen("a", 5, rewrite_from=2)
    assert file.size == 5
    file.append(b" new")
    file.sync()
    file.close()
    assert disk.read("a") == b"keep, new"


def test_reopen_zeroes_what_follows_in_reserved_space(disk: Disk) -> None:
    """Old records behind the cut read as zeros."""
    file = disk.create("a", reserve=64)
    file.append(b"x" * 40)
    file.close()
    file = disk.reopen("a", 10, reserve=64)
    file.append(b"y")
    file.close()
    assert disk.read("a") == b"x" * 10 + b"y" + bytes(53)


def test_reopen_refuses_a_file_shorter_than_what_is_to_be_kept(disk: Disk) -> None:
    """What was read a moment ago must still be there."""
    disk.create("a").close()
    with pytest.raises(DiskFailed, match="shorter"):
        disk.reopen("a", 5)


def test_reserved_space_reads_as_zeros(disk: Disk) -> None:
    """Zeros come ahead of the records and end them."""
    file = disk.create("a", reserve=100)
    file.append(b"abc")
    assert file.size == 3
    assert disk.read("a") == b"abc" + bytes(97)
    file.append(b"z" * 200)
    assert disk.read("a") == b"abc" + b"z" * 200
    file.close()


def test_a_missing_file_is_said(disk: Disk) -> None:
    """The message names the file."""
    with pytest.raises(DiskFailed, match="gone"):
        disk.read("gone")


def test_there_is_room(disk: Disk) -> None:
    """Free bytes are a positive number on a disk that has some."""
    assert disk.free_bytes() > 0


def test_space_is_reserved_in_steps(tmp_path: pathlib.Path) -> None:
    """A segment is not filled with zeros at once, and never longer than its reserve."""
    disk = OsDisk(tmp_path)
    file = disk.create("a", reserve=3 * RESERVE_STEP_BYTES)
    assert disk.size("a") == RESERVE_STEP_BYTES
    file.append(bytes([1]) * RESERVE_STEP_BYTES)
    assert disk.size("a") == RESERVE_STEP_BYTES
    file.append(b"\2")
    assert disk.size("a") == 2 * RESERVE_STEP_BYTES + 1
    file.append(bytes([3]) * (2 * RESERVE_STEP_BYTES))
    assert disk.size("a") == 3 * RESERVE_STEP_BYTES + 1
    assert disk.read("a").count(3) == 2 * RESERVE_STEP_BYTES
    file.close()
    disk.close()


def test_two_processes_never_share_a_directory(tmp_path: pathlib.Path) -> None:
    """The second one is refused, and told who is there."""
    disk = OsDisk(tmp_path)
    script = (
        "import pathlib, sys\n"
        "from cluster.replication.disk import DiskLocked, OsDisk\n"
        "try:\n"
        "    OsDisk(pathlib.Path(sys.argv[1]))\n"
        "except DiskLocked as error:\n"
        "    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"in use by process {os.getpid()}" in said
    with pytest.raises(DiskLocked):
        OsDisk(tmp_path)
    disk.close()
    assert not subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_lock_dies_with_its_process(tmp_path: pathlib.Path) -> None:
    """A killed node leaves nothing that keeps the next one out."""
    script = (
        "import os, pathlib, signal, sys\n"
        "from cluster.replication.disk import OsDisk\n"
        "disk = OsDisk(pathlib.Path(sys.argv[1]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert died.returncode == -9
    OsDisk(tmp_path).close()


def test_nothing_is_written_after_a_failure(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed sync is never tried again: the second one would succeed and mean nothing."""
    disk = OsDisk(tmp_path)
    file = disk.create("a")
    file.append(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", failing)
        with pytest.raises(DiskFailed, match=r"sync of a .*Input/output error"):
            file.sync()
    for write in (file.sync, disk.sync_directory, lambda: file.append(b"y")):
        with pytest.raises(DiskFailed, match="earlier"):
            write()
    with pytest.raises(DiskFailed, match="earlier"):
        disk.create("b")
    assert disk.read("a") == b"x"
    file.close()
    disk.close()


def failing(descriptor: int) -> None:
    """A disk that is broken."""
    raise OSError(5, os.strerror(5))


def test_the_disk_goes_on_when_clients_have_taken_all_descriptors(tmp_path: pathlib.Path) -> None:
    """A new segment, or a chunk for a follower, must not stop a node then."""
    disk = OsDisk(tmp_path)
    journal = disk.create("journal")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        for number in range(20):
            journal.append(b"entry")
            journal.sync()
            journal.close()
            journal = disk.create(f"journal-{number}")
            disk.sync_directory()
            assert disk.read_at("journal", 0, 100) == b"entry"
        assert len(disk.names()) == 21
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        journal.close()
        disk.close()


def test_a_closed_disk_keeps_no_descriptor(tmp_path: pathlib.Path) -> None:
    """Neither one that was used, nor one that was refused."""
    before = sorted(pathlib.Path("/proc/self/fd").iterdir())
    disk = OsDisk(tmp_path)
    disk.names()
    with pytest.raises(DiskLocked):
        OsDisk(tmp_path)
    disk.close()
    assert sorted(pathlib.Path("/proc/self/fd").iterdir()) == before


def test_a_name_is_no_path(tmp_path: pathlib.Path) -> None:
    """Nothing outside of the directory is ever touched, nor the lock."""
    disk = OsDisk(tmp_path)
    for name in ("../a", "", "..", "a/b", "lock"):
        with pytest.raises(ValueError, match="plain file name"):
            disk.create(name)
    disk.close()
