"""The shim under a node's disk: what was synced stays, what was not can be lost, and it can fail.

Small programs run with the shim; then the power is lost, and the folder is looked at.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jepsen.preload.disk import Moment, NodeDisk, Operation, build

ROOT = Path(__file__).resolve().parents[2]

Play = Callable[[str], str]


@pytest.fixture(scope="module")
def shim() -> Path:
    """The library; skipped without a compiler, except where CI=true."""
    library = build(ROOT / ".tools")
    if library is None:
        if os.environ.get("CI") == "true":
            pytest.fail("there is no C compiler")
        pytest.skip("there is no C compiler")
    return library


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A node's folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def disk(tmp_path: Path, data: Path) -> Iterator[NodeDisk]:
    """Its disk."""
    made = NodeDisk(data, tmp_path / "side")
    made.prepare()
    yield made
    made.close()


@pytest.fixture
def ended(
    shim: Path, disk: NodeDisk, data: Path
) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Run a program of os calls in the folder, with the shim, as the leader of a group of its own."""

    def run(source: str) -> subprocess.CompletedProcess[str]:
        prelude = (
            "import os\n"
            f"def at(name): return {str(data)!r} + '/' + name\n"
            "def make(name): return os.open(at(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)\n"
            "def sync_names():\n"
            "    fd = os.open(at('')[:-1], os.O_RDONLY | os.O_DIRECTORY); os.fsync(fd); os.close(fd)\n"
        )
        return subprocess.run(
            [sys.executable, "-S", "-c", prelude + source],
            env={**os.environ, **disk.environ(), "LD_PRELOAD": str(shim)},
            capture_output=True,
            text=True,
            check=False,
            process_group=0,
        )

    return run


@pytest.fixture
def play(ended: Callable[[str], subprocess.CompletedProcess[str]]) -> Play:
    """The same to its own end; returns what it prints."""

    def run(source: str) -> str:
        process = ended(source)
        assert process.returncode == 0, process.stderr
        return process.stdout

    return run


def test_a_synced_byte_stays_and_a_written_one_is_lost(
    play: Play, disk: NodeDisk, data: Path
) -> None:
    """Of two appends the one after the sync is gone."""
    play(
        "fd = make('log'); sync_names()\n"
        "os.pwrite(fd, b'kept', 0); os.fdatasync(fd); os.pwrite(fd, b'lost', 4)\n"
    )
    assert (data / "log").read_bytes() == b"keptlost"
    loss = disk.lose_power()
    assert (data / "log").read_bytes() == b"kept"
    assert loss.writes == {"log": 1}


def test_bytes_that_were_overwritten_come_back(play: Play, disk: NodeDisk, data: Path) -> None:
    """Several writes over synced zeros, and a cut, are undone from the last to the first."""
    play(
        "fd = make('log'); os.write(fd, bytes(64)); os.fsync(fd); sync_names()\n"
        "os.pwrite(fd, b'aaaa', 8); os.pwrite(fd, b'bb', 9); os.ftruncate(fd, 16)\n"
        "os.pwrite(fd, b'c' * 32, 10)\n"
    )
    disk.lose_power()
    assert (data / "log").read_bytes() == bytes(64)


def test_names_are_lost_without_a_sync_of_their_folder(
    play: Play, disk: NodeDisk, data: Path
) -> None:
    """A new file, a rename over another and a removal are undone; the contents come back too."""
    play(
        "for name in ('old', 'gone', 'new'):\n"
        "    fd = make(name); os.write(fd, name.encode()); os.fsync(fd); os.close(fd)\n"
        "sync_names()\n"
        "fd = make('fresh'); os.write(fd, b'fresh'); os.fsync(fd)\n"
        "os.rename(at('new'), at('old')); os.unlink(at('gone'))\n"
    )
    assert sorted(file.name for file in data.iterdir()) == ["fresh", "old"]
    loss = disk.lose_power()
    assert loss.names == 3
    assert {file.name: file.read_text() for file in data.iterdir()} == {
        "old": "old",
        "gone": "gone",
        "new": "new",
    }


def test_names_stay_once_their_folder_was_synced(play: Play, disk: NodeDisk, data: Path) -> None:
    """The same with a sync at the end."""
    play(
        "for name in ('old', 'gone', 'new'):\n"
        "    fd = make(name); os.write(fd, name.encode()); os.fsync(fd); os.close(fd)\n"
        "os.rename(at('new'), at('old')); os.unlink(at('gone')); sync_names()\n"
    )
    assert disk.lose_power().names == 0
    assert {file.name: file.read_text() for file in data.iterdir()} == {"old": "new"}


def test_a_file_that_is_renamed_unsynced_is_there_and_empty(
    play: Play, disk: NodeDisk, data: Path
) -> None:
    """The classic mistake: the name arrived, the bytes did not."""
    play(
        "fd = make('fresh'); os.write(fd, b'state'); os.rename(at('fresh'), at('state'))\n"
        "sync_names()\n"
    )
    disk.lose_power()
    assert (data / "state").read_bytes() == b""


def test_what_a_forked_child_writes_counts_too(play: Play, disk: NodeDisk, data: Path) -> None:
    """Snapshots are written by children."""
    play(
        "fd = make('log'); sync_names()\n"
        "if os.fork() == 0:\n"
        "    other = make('snap'); os.write(other, b'x'); os.write(fd, b'y'); os._exit(0)\n"
        "os.wait()\n"
    )
    disk.lose_power()
    assert {file.name: file.read_bytes() for file in data.iterdir()} == {"log": b""}


def test_a_partial_loss_keeps_a_first_part_of_the_writes(
    play: Play, disk: NodeDisk, data: Path, rng: random.Random
) -> None:
    """By lot the last writes go, one may be torn at a sector; what was synced never goes."""
    seen = set()
    for number in range(30):
        name = f"log{number}"
        play(
            f"fd = make({name!r}); os.write(fd, b's' * 600); os.fsync(fd); sync_names()\n"
            "for part in (b'1', b'2', b'3'): os.write(fd, part * 2000)\n"
        )
        disk.lose_power(rng)
        found = (data / name).read_bytes()
        assert found[:600] == b"s" * 600
        rest = found[600:].rstrip(b"\0")
        assert (b"1" * 2000 + b"2" * 2000 + b"3" * 2000).startswith(rest)
        seen.add(len(found))
    assert {600, 6600} < seen, "neither nothing, nor everything, and nothing between"


@pytest.mark.parametrize("full", [False, True])
def test_writes_fail_when_told_to(play: Play, disk: NodeDisk, full: bool) -> None:
    """EIO, or ENOSPC after half of a write; reads and syncs go on."""
    disk.fail_writes(after=2, full=full)
    out = play(
        "fd = make('log')\n"
        "for _ in range(4):\n"
        "    try: print(os.write(fd, b'12345678'))\n"
        "    except OSError as error: print(-error.errno)\n"
        "os.fsync(fd); print(os.statvfs(at('log')).f_bavail == 0)\n"
    )
    code = errno.ENOSPC if full else errno.EIO
    third = 4 if full else -code
    assert out.split() == ["8", "8", str(third), str(-code), str(full)]
    disk.behave()
    assert play("print(os.write(os.open(at('log'), os.O_WRONLY | os.O_APPEND), b'1'))") == "1\n"


def test_syncs_fail_when_told_to(play: Play, disk: NodeDisk, data: Path) -> None:
    """EIO, and the bytes of the failed sync can still be lost."""
    disk.fail_syncs(after=2)
    out = play(
        "fd = make('log'); sync_names()\n"
        "for part in (b'one', b'two'):\n"
        "    os.write(fd, part)\n"
        "    try: os.fdatasync(fd); print('synced')\n"
        "    except OSError as error: print(error.errno)\n"
    )
    assert out.split() == ["synced", str(errno.EIO)]
    assert disk.counts["faults"] == 1
    disk.lose_power()
    assert (data / "log").read_bytes() == b"one"


def test_names_fail_when_told_to(play: Play, disk: NodeDisk) -> None:
    """No file can be made."""
    disk.fail_names(full=True)
    out = play("try: make('log')\nexcept OSError as error: print(error.errno)\n")
    assert out == f"{errno.ENOSPC}\n"


def test_files_elsewhere_are_left_alone(play: Play, disk: NodeDisk, tmp_path: Path) -> None:
    """Only what lies right below the folder counts."""
    disk.fail_writes()
    other = tmp_path / "other"
    play(f"fd = os.open({str(other)!r}, os.O_WRONLY | os.O_CREAT); os.write(fd, b'1')\n")
    assert other.read_bytes() == b"1"
    assert disk.counts["writes"] == 0


STEPS = """
fd = make('log'); sync_names(); os.write(fd, b'12345678'); os.fdatasync(fd); os.ftruncate(fd, 6)
os.write(make('new'), b'new'); os.rename(at('new'), at('old')); sync_names(); os.unlink(at('old'))
"""


@pytest.mark.parametrize(
    ("operation", "moment", "letter", "left"),
    [
        ("CREATE", "BEFORE", "l", {}),
        ("CREATE", "AFTER", "l", {"log": ""}),
        ("WRITE", "BEFORE", "", {"log": ""}),
        ("WRITE", "HALF", "", {"log": "1234"}),
        ("WRITE", "AFTER", "", {"log": "12345678"}),
        ("TRUNCATE", "BEFORE", "l", {"log": "12345678"}),
        ("TRUNCATE", "AFTER", "l", {"log": "123456"}),
        ("WRITE", "HALF", "n", {"log": "123456", "new": "n"}),
        ("RENAME", "BEFORE", "o", {"log": "123456", "new": "new"}),
        ("RENAME", "AFTER", "o", {"log": "123456", "old": "new"}),
        ("UNLINK", "BEFORE", "", {"log": "123456", "old": "new"}),
        ("UNLINK", "AFTER", "", {"log": "123456"}),
    ],
)
def test_a_process_ends_where_it_is_told_to(
    ended: Callable[[str], subprocess.CompletedProcess[str]],
    disk: NodeDisk,
    data: Path,
    operation: str,
    moment: str,
    letter: str,
    left: dict[str, str],
) -> None:
    """Before an operation, after it, or in the middle of a write; of any file or of one kind."""
    disk.end_at(Operation[operation], Moment[moment], letter=letter)
    assert disk.end_is_near
    assert ended(STEPS).returncode == -signal.SIGKILL
    assert not disk.end_is_near
    assert disk.counts["faults"] == 1
    assert {file.name: file.read_text() for file in data.iterdir()} == left


@pytest.mark.parametrize(("moment", "kept"), [("BEFORE", b""), ("AFTER", b"12345678")])
def test_a_process_ends_beside_a_sync(
    ended: Callable[[str], subprocess.CompletedProcess[str]],
    disk: NodeDisk,
    data: Path,
    moment: str,
    kept: bytes,
) -> None:
    """What it promised is kept when the power goes too, and what it was about to is not."""
    disk.end_at(Operation.SYNC, Moment[moment], letter="l")
    assert ended(STEPS).returncode == -signal.SIGKILL
    disk.lose_power()
    assert (data / "log").read_bytes() == kept


def test_a_process_ends_at_the_third_write_once(
    ended: Callable[[str], subprocess.CompletedProcess[str]], disk: NodeDisk, data: Path
) -> None:
    """Who is started again goes on."""
    steps = "fd = os.open(at('log'), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)\n"
    steps += "for part in (b'1', b'2', b'3'): os.write(fd, part)\n"
    disk.end_at(Operation.WRITE, Moment.BEFORE, after=2)
    assert ended(steps).returncode == -signal.SIGKILL
    assert (data / "log").read_bytes() == b"12"
    assert ended(steps).returncode == 0
    assert (data / "log").read_bytes() == b"12123"


@pytest.mark.parametrize(
    ("moment", "heard"), [("BEFORE", b""), ("HALF", b"1234"), ("AFTER", b"12345678")]
)
@pytest.mark.parametrize("how", ["send(b'12345678')", "sendmsg([b'12345678'])"])
def test_a_process_ends_beside_a_sending(
    ended: Callable[[str], subprocess.CompletedProcess[str]],
    disk: NodeDisk,
    moment: str,
    heard: bytes,
    how: str,
) -> None:
    """Nothing, half or all of it has left."""
    disk.end_at(Operation.SEND, Moment[moment])
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = server.getsockname()
        steps = f"import socket\nline = socket.create_connection({name!r}); line.{how}\n"
        assert ended(steps).returncode == -signal.SIGKILL
        line, _ = server.accept()
        with line:
            assert line.recv(100) == heard


def test_a_child_takes_its_node_along(
    ended: Callable[[str], subprocess.CompletedProcess[str]], disk: NodeDisk, data: Path
) -> None:
    """Snapshots are written by children: the whole node stops there."""
    disk.end_at(Operation.WRITE, Moment.HALF, letter="s")
    process = ended(
        "import time\n"
        "if os.fork() == 0: os.write(make('snap'), b'1234'); os._exit(0)\n"
        "os.wait(); time.sleep(60); os.write(make('log'), b'on')\n"
    )
    assert process.returncode == -signal.SIGKILL
    assert {file.name: file.read_bytes() for file in data.iterdir()} == {"snap": b"12"}
