"""`coterie import` against a gateway with the real machine behind it; files of the real systems.

jobs.snapshot and ticketd's files are written by Go (`tests/foreign/goyaad`), with goleveldb's
journal and Go's gob; the binlogs by beanstalkd 1.12.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli import main
from cluster.cli.importing import beanstalkd, carry, goyaad, session_queue, ticketd
from cluster.cli.importing import sync as fifo_sync
from cluster.cli.importing.journal import BLOCK_BYTES, masked_crc, records
from cluster.cli.importing.wishes import SourceError
from cluster.fronts.desk import Desk
from cluster.fronts.goyaad import names
from cluster.gateway.server import Gateway, GatewaySettings
from cluster.machine.commands.rooms import JoinRoom, SetRoom
from cluster.machine.outcome.jobs import JobInfo
from cluster.node import clock
from cluster.testing.local_node import LocalNode
from tests.cli.running import finish

GOLDEN = Path(__file__).parents[1] / "transcripts" / "imports"
SNAPSHOT = GOLDEN / "goyaad" / "jobs.snapshot"
SNAPSHOT_MS = 1_577_836_800_000
SECRET = "hush"
# When beanstalkd wrote the binlogs: one of their jobs is due an hour later.
GOLDEN_MS = 1_795_281_462_380


class Place:
    """A cluster of one, to import into."""

    def __init__(self) -> None:
        self.node = LocalNode()
        self.gateway = Gateway(self.node, GatewaySettings())

    async def run(self, *arguments: str | Path) -> tuple[int, str, str]:
        host, port = self.gateway.addresses[0]
        words = ["import", *map(str, arguments), "--endpoints", f"{host}:{port}"]
        # As a process would, in a loop of its own, without the second that a process takes to start.
        ended = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert ended.exception is None or isinstance(ended.exception, SystemExit)
        return ended.exit_code, ended.stdout, ended.stderr

    def jobs(self, tube: str, state: str) -> list[JobInfo]:
        return self.node.machine.jobs.pictures.jobs(tube, state, self.node.now_ms(), limit=100)


@pytest.fixture
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """A gateway that serves, in the minutes in which the golden files were made."""
    monkeypatch.setattr(clock, "wall_ms", lambda: GOLDEN_MS)
    place = Place()
    await place.gateway.start("127.0.0.1", 0)
    yield place
    await place.gateway.stop(grace_s=0.1)


async def test_jobs_of_goyaad(place: Place) -> None:
    """Under their ids, as they were due; what the API cannot take is named, and why."""
    code, out, _ = await place.run("goyaad", SNAPSHOT)
    assert code == 1
    assert out.splitlines()[:2] == ["KIND  TAKEN  THERE  COULD NOT", "job   39     0      1"]
    words = " ".join(out.split())
    assert "job 7 its body of 66000 bytes is over 65536" in words
    ready = place.jobs("default", "ready")
    by_key = {job.key: job for job in ready}
    # Ids that no name can have are kept as goyaad's front keeps them.
    assert {names.id_of(key, 0) for key in by_key} == {
        f"\x00{number}" if number % 10 == 3 else f"job {number}" for number in range(40)
    } - {"job 7"}
    # By the time they were due, whatever their priority: goyaad keeps it and does not go by it.
    assert [job.key for job in ready[:3]] == ["job 0", "job 1", "job 2"]
    five = by_key["job 5"]
    assert (five.body, five.priority, five.ttr_ms) == (b"\x05" * 185, 0, 5_000)


async def test_an_import_that_is_repeated_adds_nothing(place: Place) -> None:
    """Not even what was taken out of the cluster in between."""
    for folder in (["goyaad", SNAPSHOT], ["beanstalkd", GOLDEN / "beanstalkd"]):
        await place.run(*folder)
        before = place.node.machine.jobs.pictures.totals().put
        await place.run(*folder)
        assert place.node.machine.jobs.pictures.totals().put == before


async def test_a_dry_run_writes_nothing(place: Place) -> None:
    """And says the same."""
    code, out, _ = await place.run("goyaad", "--dry-run", SNAPSHOT)
    assert code == 1
    assert "WOULD TAKE" in out
    assert "job   39" in out
    assert place.node.taken == []


async def test_jobs_of_beanstalkd(place: Place) -> None:
    """In their tubes, their order and their states; what was deleted stays so."""
    code, out, err = await place.run("beanstalkd", GOLDEN / "beanstalkd")
    assert (code, out.splitlines()[1].split()) == (0, ["job", "14", "0", "0"])
    assert "new ids" in err
    assert [job.body for job in place.jobs("default", "ready")] == [b"second", b"first", b""]
    assert [job.body for job in place.jobs("mails", "ready")] == [
        b"kicked",
        b"released",
        b"reserved",
    ]
    assert [job.body[:1] for job in place.jobs("big", "ready")] == [
        bytes([97 + number]) for number in range(4, 10)
    ]
    (buried,) = place.jobs("mails", "buried")
    assert (buried.body, buried.priority, buried.ttr_ms) == (b"buried", 7, 30_000)
    assert [job.body for job in place.jobs("mails", "delayed")] == [b"\x00\xff\r\n"]


async def test_sessions_and_tickets_of_ticketd(place: Place) -> None:
    """Sessions get new ids, which are told; tickets and claims follow them, locks do not."""
    code, out, err = await place.run("ticketd", GOLDEN / "ticketd")
    assert code == 1
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:5]}
    assert rows == {
        "session": ["2", "0", "0"],
        "ticket": ["3", "0", "1"],
        "claim": ["1", "0", "1"],
        "lock": ["0", "0", "1"],
    }
    assert "build/orphan  its session is gone" in out
    new = dict(line.split()[1:4:2] for line in err.splitlines()[:2])
    machine = place.node.machine
    issuer, worker = new["1VQdYEgVvTrYZdLCLBcCSKRgiSa"], new["1VQdYEgVvTrYZdLCLBcCSKRgiSb"]
    assert machine.core.sessions.get(issuer) is not None
    resource = machine.tickets.info("build", place.node.now_ms())
    assert resource is not None
    held = {
        ticket.ticket: (ticket.issuer, ticket.claim and ticket.claim[0])
        for ticket in resource.tickets
    }
    assert held == {"free": (issuer, None), "lost": (issuer, None), "taken": (issuer, worker)}


def _sync_file(file: Path) -> None:
    """Tables as gorm makes them for sync."""
    with closing(sqlite3.connect(file)) as base:
        base.executescript(
            """
            CREATE TABLE `fifos` (`uuid` text, `created_at` datetime, `updated_at` datetime,
                `wait_timeout` integer, `accept_timeout` integer, `done_timeout` integer,
                `unused_destroy_timeout` integer, `allow_overrides` numeric, PRIMARY KEY (`uuid`));
            CREATE TABLE `tickets` (`uuid` text, `created_at` datetime, `notified_at` datetime,
                `accepted_at` datetime, `wait_timeout` integer, `accept_timeout` integer,
                `done_timeout` integer, `fifo_uuid` text, PRIMARY KEY (`uuid`));
            INSERT INTO fifos VALUES ('8f14e45f-ceea-467f-a0e6-1d0f6b1a2c3d', '2026-01-01', '',
                21600000000000, 60000000000, 1200000000000, 2592000000000000, 0);
            INSERT INTO fifos VALUES ('9f14e45f-ceea-467f-a0e6-1d0f6b1a2c3d', '2026-01-02', '',
                1, 0, -5, 1500000, 1);
            INSERT INTO tickets VALUES ('af14e45f-ceea-467f-a0e6-1d0f6b1a2c3d', '2026-01-01', NULL,
                NULL, 1, 1, 1, '8f14e45f-ceea-467f-a0e6-1d0f6b1a2c3d');
            """
        )


async def test_fifos_of_sync(place: Place, tmp_path: Path) -> None:
    """Under their uuids, with their times; their tickets cannot be kept."""
    _sync_file(tmp_path / "state")
    for _ in range(2):
        code, out, _ = await place.run("sync", tmp_path / "state")
        assert code == 1
        assert "fifo    2      0      0" in out
        assert "ticket  0      0      1" in out
    found = await asyncio.to_thread(fifo_sync.found, tmp_path / "state")
    assert [wish.body for wish in found.wishes] == [
        {
            "name": "8f14e45f-ceea-467f-a0e6-1d0f6b1a2c3d",
            "wait_timeout": 21_600_000,
            "accept_timeout": 60_000,
            "done_timeout": 1_200_000,
            "unused_destroy_timeout": 2_592_000_000,
            "allow_overrides": False,
        },
        {
            "name": "9f14e45f-ceea-467f-a0e6-1d0f6b1a2c3d",
            "wait_timeout": 1,
            "accept_timeout": 0,
            "done_timeout": 0,
            "unused_destroy_timeout": 2,
            "allow_overrides": True,
        },
    ]


def _queue(position: int, window_end: int, *more: str) -> list[str]:
    integers = ["--position", position, "--window-end", window_end, "--next-increment", 0]
    settings = ["--window-size", 10, "--window-interval", 30, "--active-windows", 2]
    return ["session-queue", *map(str, integers), *map(str, settings), *more]


async def _as_time_passes(place: Place, words: list[str]) -> tuple[int, str, str]:
    """Run a command while the cluster's clock goes on."""
    running = asyncio.create_task(place.run(*words))
    while not running.done():
        place.node.advance(100)
        await asyncio.sleep(0.005)
    return await running


@pytest.mark.parametrize(
    ("position", "window_end", "expired"),
    [(0, 10, 0), (7, 10, 0), (25, 20, 0), (2_345, 2_340, 2_320), (38, 40, 20), (31, 40, 20)],
)
async def test_the_room_of_session_queue(
    place: Place, position: int, window_end: int, expired: int
) -> None:
    """It stands where the queue stood, whatever had happened there; again, nothing changes."""
    for _ in range(2):
        code, out, err = await _as_time_passes(
            place, _queue(position, window_end, "--jwt-secret", SECRET)
        )
        assert (code, out.split()[5:9]) == (0, ["room", "1", "0", "0"]), out
        assert f"COTERIE_FRONT_SESSION_QUEUE_SECRET={SECRET}" in err
        room = place.node.machine.rooms.info("session-queue", place.node.now_ms())
        assert room is not None
        # All that waits is admitted by and by, as before: look at the room at once.
        assert (room.joined, room.window_size, room.window_interval_ms) == (position, 10, 30_000)
        if position <= window_end:
            assert (room.window_end, room.expired_to) == (window_end, expired)
        else:
            assert (room.window_end - window_end) % 10 == 0


async def test_a_room_that_is_used_is_left_alone(place: Place) -> None:
    """Whoever joined there would meet another at the same place."""
    for command in (SetRoom("session-queue", 10, 30_000, 2), JoinRoom("session-queue")):
        await Desk(place.node).ask(command)
    code, out, _ = await _as_time_passes(place, _queue(0, 10))
    assert (code, "import before anybody joins" in out) == (1, True)
    code, out, _ = await _as_time_passes(place, _queue(45, 40, "--dry-run"))
    assert (code, "WOULD TAKE" in out) == (0, True)
    room = place.node.machine.rooms.info("session-queue", place.node.now_ms())
    assert room is not None
    assert room.joined == 1


@pytest.mark.parametrize(
    ("position", "window_end", "why"),
    [(10**9, 10**9, "not given out again"), (5, 40, "further than places were given")],
)
async def test_a_queue_that_cannot_have_stood_so(
    place: Place, position: int, window_end: int, why: str
) -> None:
    """What can be made of it is made, and the rest is said."""
    code, out, _ = await _as_time_passes(place, _queue(position, window_end))
    assert (code, why in out) == (1, True)
    room = place.node.machine.rooms.info("session-queue", place.node.now_ms())
    assert room is not None
    assert room.joined == (5 if position == 5 else 0)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"*3\r\n$2\r\n25\r\n$2\r\n20\r\n$10\r\n1700000000\r\n", (25, 20, 1_700_000_000)),
        (b"*3\r\n:25\r\n:20\r\n:7\r\n", (25, 20, 7)),
        (b"*3\r\n$2\r\n25\r\n$-1\r\n$-1\r\n", "no queue was ever made"),
        (b"-NOAUTH Authentication required.\r\n", "NOAUTH"),
        (b"*3\r\n$1\r\nx\r\n", "no number"),
        (b"*3\r\n$1", "no number"),
        (b"", "Redis says"),
        (b"x" * 5_000, "Redis"),
    ],
)
async def test_a_redis_is_asked(answer: bytes, expected: Any) -> None:
    """For three integers, in one command; whatever else it says is an error with its words."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"queue:next-window-increment\r\n"))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        if isinstance(expected, tuple):
            found = await session_queue.from_redis(host, port)
            assert (found.position, found.window_end, found.next_increment_s) == expected
            assert asked[0].startswith(b"*4\r\n$4\r\nMGET\r\n$22\r\nqueue:current-position\r\n")
        else:
            with pytest.raises(SourceError, match=expected):
                await session_queue.from_redis(host, port)
    finally:
        server.close()
        await server.wait_closed()


async def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said to be taken; running it again is right."""
    monkeypatch.setattr(carry, "TIMEOUT_MS", 50)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        words = ["import", "goyaad", str(SNAPSHOT), "--endpoints"]
        words.append(f"127.0.0.1:{nobody.getsockname()[1]}")
        ended = await asyncio.to_thread(CliRunner().invoke, main, words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "run it again, nothing is added twice" in ended.stderr


async def test_it_is_a_command_of_coterie() -> None:
    """In a process of its own."""
    code, out, err = await finish("import", "goyaad", "--dry-run", str(SNAPSHOT))
    assert (code, "WOULD TAKE" in out, err) == (1, True, "")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["goyaad", "no-such-file"], "does not exist"),
        (["beanstalkd", "EMPTY"], "has no binlog.N"),
        (["ticketd", "EMPTY"], "sessions.gob"),
        (["sync", "TEXT"], "not a database"),
        (["session-queue", "--window-size", "1", "--window-interval", "1"], "give --redis"),
    ],
)
async def test_what_cannot_be_read_is_said(
    place: Place, tmp_path: Path, arguments: list[str], why: str
) -> None:
    """With exit code 2, and nothing is written."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no database, and long enough for a header of one\n" * 9)
    paths = {"EMPTY": tmp_path / "empty", "TEXT": tmp_path / "text"}
    code, _, err = await place.run(*(paths.get(word, word) for word in arguments))
    assert code == 2
    assert why in err
    assert place.node.taken == []


# Damaged files.


def test_the_checksum_of_leveldb() -> None:
    """CRC-32C of nine digits is e3069283; masked as LevelDB does."""
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_a_snapshot_that_is_cut_off_gives_what_came_before() -> None:
    """And says that the rest is missing."""
    data = SNAPSHOT.read_bytes()
    whole = list(records(data))
    assert len(whole) == 40
    assert max(map(len, whole)) > 2 * BLOCK_BYTES
    found = goyaad.found(data[: len(data) // 2], SNAPSHOT_MS)
    assert 0 < len(found.wishes) < 39
    assert "ends in the middle" in found.unfit[0].why


@given(st.integers(0, SNAPSHOT.stat().st_size - 1), st.integers(1, 255))
def test_a_flipped_byte_of_a_snapshot_is_noticed(at: int, change: int) -> None:
    """Whatever is taken is as it was."""
    data = bytearray(SNAPSHOT.read_bytes()[: 3 * BLOCK_BYTES // 4])
    intact = list(_until_error(bytes(data)))
    data[at % len(data)] ^= change
    kept = list(_until_error(bytes(data)))
    assert kept == intact[: len(kept)]


def _until_error(data: bytes) -> list[bytes]:
    found = []
    try:
        for record in records(data):
            found.append(record)  # noqa: PERF402  (what came before the error counts)
    except SourceError:
        pass
    return found


def test_delays_are_counted_from_now() -> None:
    """Rounded up; what is overdue is in the order in which it was due."""
    found = goyaad.found(SNAPSHOT.read_bytes(), SNAPSHOT_MS + 20_000)
    delays = {wish.name: wish.body["delay"] for wish in found.wishes}
    assert delays["job 19"] == 0
    assert delays["job 20"] == 1
    assert delays["job 39"] == 19_001
    assert [wish.name for wish in found.wishes if wish.lane][:4] == [
        "job 0",
        "job 1",
        "job 2",
        "goyaad-hex:0033",
    ]


@given(st.binary(max_size=300), st.sampled_from(sorted((GOLDEN / "beanstalkd").glob("binlog.*"))))
def test_garbage_is_no_import(garbage: bytes, binlog: Path) -> None:
    """Of no system; it is refused or empty, and nothing worse."""
    data = binlog.read_bytes()
    for one in (garbage, b"\x07\x00\x00\x00" + garbage, data[: len(garbage) * 9] + garbage):
        beanstalkd.found([("binlog.1", one)], 0)
        goyaad.found(one, 0)
        for read in (ticketd.sessions, ticketd.tickets):
            try:
                read(one)
            except SourceError:
                continue


def test_a_binlog_of_another_version_is_refused(tmp_path: Path) -> None:
    """By its number; the other files are read all the same."""
    files = sorted((GOLDEN / "beanstalkd").glob("binlog.*"))
    shutil.copy(files[0], tmp_path / "binlog.1")
    found = beanstalkd.found(
        [("binlog.0", b"\x05\x00\x00\x00"), *((file.name, file.read_bytes()) for file in files)], 0
    )
    assert len(found.wishes) == 14
    assert found.unfit[0].why == "is a binlog of version 5; 7 is read"
