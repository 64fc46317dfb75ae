"""The front itself: all connections, who may cancel what, and leaving.

RULE: construction and lifetime only.
"""

from __future__ import annotations

import asyncio
from typing import Final

from cluster.fronts.front import ServedFront, Surroundings
from cluster.fronts.postgres.connection import Connection, Line
from cluster.fronts.postgres.functions import Functions, Identity, columns_in
from cluster.fronts.sessionlock.calls import Calls
from cluster.fronts.tcp import TcpServer
from cluster.node.config import Config
from cluster.wire.commands import is_name

_SECRET_BYTES: Final = 4


class PostgresFront(ServedFront):
    """Serves drivers of PostgreSQL. A database is a pool of tasks of the same name.

    Args:
        columns: (name, type) of the tasks that `get_work` gives.
    """

    def __init__(self, around: Surroundings, columns: tuple[tuple[str, str], ...]):
        self._around = around
        self._columns = columns
        self._line = Line(self._functions_of, around.version, self._opened, self._cancelled)
        self._server = TcpServer("postgres", self._serve)
        self._open: dict[tuple[int, int], Connection] = {}
        self._opened_so_far = 0

    def drain(self) -> None:
        """Take no new connections, and let each go as soon as it has nothing under way."""
        super().drain()
        self._line.is_draining = True
        for connection in list(self._open.values()):
            if connection.is_idle:
                connection.say_goodbye()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self._line, reader, writer)
        try:
            await connection.serve()
        finally:
            if connection.key is not None:
                del self._open[connection.key]

    def _functions_of(self, identity: Identity) -> Functions:
        if not is_name(identity.database):
            raise ValueError("a database is a pool of tasks; this cannot be the name of one")
        calls = Calls(self._around.desk, identity.database)
        return Functions(calls, identity, self._columns)

    def _opened(self, connection: Connection) -> tuple[int, int]:
        self._opened_so_far += 1
        secret = int.from_bytes(self._around.draw(_SECRET_BYTES), "big")
        key = (self._opened_so_far % 2**31, secret)
        self._open[key] = connection
        return key

    def _cancelled(self, process: int, secret: int) -> None:
        connection = self._open.get((process, secret))
        if connection is not None:
            connection.cancel()


def make(config: Config, around: Surroundings) -> PostgresFront:
    """Make the front of a node's settings."""
    return PostgresFront(around, columns_in(config.front_postgres_columns))
