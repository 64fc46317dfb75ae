"""Connections of the fronts: served, limited, drained, ended."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cluster.fronts.tcp import TcpServer
from tests.node.scarce import scarce_descriptors

HOST = "127.0.0.1"


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()


async def _dial(server: TcpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*server.addresses[0])


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """What still comes, until the connection is closed or cut."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.both_loops
async def test_serves_until_the_client_is_done() -> None:
    """Lines come back; a client that ends its side still gets its last answer."""
    server = TcpServer("echo", _echo)
    await server.start(HOST, 0)
    reader, writer = await _dial(server)
    writer.write(b"one\ntwo\n")
    writer.write_eof()
    assert await reader.read() == b"one\ntwo\n"
    writer.close()
    await server.stop(1.0)
    assert server.connections == 0


@pytest.mark.both_loops
async def test_clients_whose_machines_are_gone_are_noticed() -> None:
    """By the kernel, which asks a silent one after a while."""
    asked: list[int] = []

    async def look(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = writer.get_extra_info("socket")
        asked.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    server = TcpServer("look", look)
    await server.start(HOST, 0)
    reader, writer = await _dial(server)
    assert await reader.read() == b""
    assert asked == [1]
    writer.close()
    await server.stop(1.0)


@pytest.mark.both_loops
async def test_more_than_the_limit_are_shown_the_door() -> None:
    """Unread, and the others go on."""
    server = TcpServer("echo", _echo, connections_max=1)
    await server.start(HOST, 0)
    reader, writer = await _dial(server)
    writer.write(b"here\n")
    assert await reader.readline() == b"here\n"
    other, gone = await _dial(server)
    assert await _rest(other) == b""
    assert server.refused == 1
    writer.write(b"still\n")
    assert await reader.readline() == b"still\n"
    for one in (writer, gone):
        one.close()
    await server.stop(1.0)


async def test_what_is_kept_back_for_the_disk_and_the_peers_is_no_clients() -> None:
    """Whoever has taken the descriptors: one more is shown the door, and who is there goes on."""
    server = TcpServer("echo", _echo)
    await server.start(HOST, 0)
    reader, writer = await _dial(server)
    writer.write(b"here\n")
    assert await reader.readline() == b"here\n"
    with scarce_descriptors():
        other, gone = await _dial(server)
        assert await _rest(other) == b""
        writer.write(b"still\n")
        assert await reader.readline() == b"still\n"
    for one in (writer, gone):
        one.close()
    await server.stop(1.0)


@pytest.mark.both_loops
async def test_an_error_of_ours_ends_one_connection() -> None:
    """The next one is served."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"bang\n":
            raise ValueError("planted")
        writer.write(b"fine\n")

    server = TcpServer("picky", serve)
    await server.start(HOST, 0)
    reader, writer = await _dial(server)
    writer.write(b"bang\n")
    assert await _rest(reader) == b""
    writer.close()
    reader, writer = await _dial(server)
    writer.write(b"hello\n")
    assert await reader.read() == b"fine\n"
    writer.close()
    await server.stop(1.0)


@pytest.mark.both_loops
async def test_stopping_ends_who_does_not_go(caplog: pytest.LogCaptureFixture) -> None:
    """Without an error in the log: a client that waits, and one that reads nothing of much."""

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 50_000_000)

    silent, deaf = TcpServer("silent", _echo), TcpServer("deaf", pour)
    dialled = []
    for server in (silent, deaf):
        await server.start(HOST, 0)
        dialled.append(await _dial(server))
    first = asyncio.ensure_future(dialled[1][0].readexactly(1))
    assert await first == b"x"
    for server in (silent, deaf):
        await server.stop(0.0)
        assert server.connections == 0
    for _, writer in dialled:
        writer.close()
    assert not caplog.records
