"""The proxy fixture itself: does it pass, cut, heal, and end with us?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.integration.toxiproxy import Address, NotAsAskedError, Server

DEADLINE_S = 20.0


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[Address]:
    """A server on a free loopback port; its conversations end before the block does."""
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError):
            await talk(reader, writer)
        await close(writer)

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        await asyncio.wait_for(asyncio.gather(*tasks), DEADLINE_S)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every line back."""
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close a stream that the other side may have broken already."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def ends(reader: asyncio.StreamReader) -> bool:
    """Whether the stream ends, by a close or a reset, without another byte."""
    try:
        return await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
    except ConnectionResetError:
        return True


async def say(address: Address, line: bytes) -> bytes:
    """Connect, send one line, return the line that comes back."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(line)
        return await asyncio.wait_for(reader.readline(), DEADLINE_S)
    finally:
        await close(writer)


async def test_link_passes_bytes_is_cut_and_heals(toxiproxy: Server) -> None:
    """A link echoes, ends its connections and refuses while cut, and echoes again when healed."""
    async with listening(echo) as upstream:
        link = toxiproxy.link("echo", upstream)
        assert await say(link.address, b"one\n") == b"one\n"

        reader, writer = await asyncio.open_connection(*link.address)
        writer.write(b"two\n")
        assert await asyncio.wait_for(reader.readline(), DEADLINE_S) == b"two\n"
        link.cut()
        assert link.is_cut()
        assert await ends(reader)
        await close(writer)
        with pytest.raises(ConnectionError):
            await say(link.address, b"three\n")

        link.heal()
        assert not link.is_cut()
        assert await say(link.address, b"four\n") == b"four\n"


async def test_toxics_are_read_back_and_removed_by_heal(toxiproxy: Server) -> None:
    """Toxics show in the server's own words, one per stream, and heal removes them."""
    async with listening(echo) as upstream:
        link = toxiproxy.link("echo", upstream)
        link.slow("downstream", latency_ms=1, jitter_ms=0)
        silenced = link.silence("upstream")
        assert link.toxics() == {
            "latency_downstream": {"latency": 1, "jitter": 0},
            "timeout_upstream": {"timeout": 0},
        }
        link.remove(silenced)
        assert await say(link.address, b"slow\n") == b"slow\n"
        link.heal()
        assert link.toxics() == {}


async def test_silence_is_one_way(toxiproxy: Server) -> None:
    """With the way back silenced, bytes still arrive at the upstream and the client hears nothing."""
    arrived = asyncio.Event()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"heard\n")
        arrived.set()
        await reader.read()

    async with listening(hear) as upstream:
        link = toxiproxy.link("one-way", upstream)
        link.silence("downstream")
        reader, writer = await asyncio.open_connection(*link.address)
        writer.write(b"hello\n")
        await asyncio.wait_for(arrived.wait(), DEADLINE_S)
        link.cut()
        assert await ends(reader)
        await close(writer)


def test_a_link_the_server_lost_is_noticed(toxiproxy: Server) -> None:
    """A link that the server no longer has raises instead of pretending."""
    link = toxiproxy.link("lost", ("127.0.0.1", 1))
    toxiproxy.clear()
    with pytest.raises(NotAsAskedError, match="known to the server"):
        link.cut()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_the_server_dies_with_a_killed_parent(toxiproxy_server: Server) -> None:
    """SIGKILL to the process that runs the fixture ends the server too."""
    program = str(Path(f"/proc/{toxiproxy_server.pid}/exe").readlink())
    source = (
        "import pathlib, sys\n"
        "from jepsen.toxiproxy import serve\n"
        f"with serve(pathlib.Path({program!r})) as server:\n"
        "    print(server.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", source],
        cwd=Path(__file__).parents[2] / "jepsen-style",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        owner.kill()
    deadline_s = time.monotonic() + DEADLINE_S
    while _runs(pid) and time.monotonic() < deadline_s:
        os.sched_yield()
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether the process exists and is more than a zombie nobody has collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
