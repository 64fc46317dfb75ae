"""Connections of the fronts that speak their own protocol over TCP.

RULE: accepts, counts, drains and ends; reads and writes nothing itself. One coroutine serves one
connection from its first byte to its last; when it returns, the connection is closed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import structlog

from cluster.node import descriptors

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection. Cancelled when the server stops; an error of its own ends only it."""

CONNECTIONS_MAX: Final = 16_384
READ_BYTES: Final = 64 * 1024
"""Read ahead of a connection at the most, about."""

_log = structlog.get_logger("cluster.fronts")


class TcpServer:
    """Serves connections until it is stopped.

    Args:
        name: in the log.
        serve: one connection.
        connections_max: open at once; more are closed at once, unread.
        read_bytes: longest line a reader can be asked for.
    """

    def __init__(
        self,
        name: str,
        serve: Serve,
        *,
        connections_max: int = CONNECTIONS_MAX,
        read_bytes: int = READ_BYTES,
    ):
        self.name = name
        self._serve = serve
        self._connections_max = connections_max
        self._read_bytes = read_bytes
        self._listening: list[asyncio.Server] = []
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.refused = 0

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket it listens on."""
        return [sock.getsockname()[:2] for server in self._listening for sock in server.sockets]

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def start(self, host: str, port: int, *, backlog: int = 1024) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        server = await asyncio.start_server(
            self._accepted, host, port, limit=self._read_bytes, backlog=backlog
        )
        self._listening.append(server)

    def drain(self) -> None:
        """Take no new connections."""
        for server in self._listening:
            server.close()

    async def stop(self, grace_s: float) -> None:
        """End every connection: those that do not end by themselves in time are cut."""
        self.drain()
        if self._open:
            await asyncio.wait(tuple(self._open), timeout=grace_s)
        for task in tuple(self._open):
            task.cancel()
        if self._open:
            await asyncio.wait(tuple(self._open))

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= self._connections_max or not descriptors.is_one_left():
            self.refused += 1
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
                # Small answers one after the other: each is worth a packet of its own.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # A client whose machine is gone says nothing more: not for ever.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await self._serve_one(reader, writer)
            writer.close()
            await writer.wait_closed()
        except asyncio.CancelledError:
            # By `stop`: whoever waits for this task waits for its end, not for an error.
            writer.transport.abort()
        except (ConnectionError, TimeoutError):
            writer.transport.abort()  # The client is gone.
        finally:
            del self._open[task]

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (ConnectionError, TimeoutError):
            raise
        except Exception:  # noqa: BLE001  (whatever it is, only this connection ends)
            _log.exception("a connection ended by an error of ours", front=self.name)
            raise ConnectionAbortedError from None
