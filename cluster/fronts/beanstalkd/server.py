"""The front: listens, and has what its connections share.

RULE: wiring. The original's drain mode is this node's: SIGUSR1 sets it, as there, and puts that go
to other nodes go on.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Final

from cluster.fronts.beanstalkd.connection import Connection
from cluster.fronts.beanstalkd.figures import Figures
from cluster.fronts.beanstalkd.kept import KeptTubes
from cluster.fronts.front import Front, ServedFront, Surroundings
from cluster.fronts.leases import Leases
from cluster.fronts.tcp import TcpServer
from cluster.node.config import Config

_NAME_BYTES: Final = 8


class Beanstalkd(ServedFront):
    """Serves beanstalkd's clients.

    Args:
        job_bytes_max: longest body of a job.
    """

    def __init__(self, surroundings: Surroundings, *, job_bytes_max: int = 65_535) -> None:
        self._surroundings = surroundings
        self.leases = Leases(surroundings)
        self.kept = KeptTubes(surroundings.desk, self.leases)
        self.figures = Figures(
            version=surroundings.version,
            job_bytes_max=job_bytes_max,
            name=surroundings.draw(_NAME_BYTES).hex(),
            started_s=surroundings.clock(),
        )
        self._server = TcpServer("beanstalkd", self._serve)
        self._connections: dict[Connection, None] = {}
        self._is_ending = False

    async def start(self, host: str, port: int) -> None:
        """Listen, and heed SIGUSR1 where there are signals.

        Raises:
            OSError: the address is taken or not ours.
        """
        await super().start(host, port)
        with suppress(NotImplementedError, RuntimeError, ValueError):
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, self.refuse_puts)

    def refuse_puts(self) -> None:
        """Drain mode: from now on this node answers DRAINING to every put."""
        self.figures.is_draining = True

    def drain(self) -> None:
        """Take no new connections, and send clients away: their jobs go back at once."""
        self._is_ending = True
        super().drain()
        for connection in tuple(self._connections):
            connection.end()
        self.leases.close_all()

    async def stop(self, grace_s: float) -> None:
        """End all connections."""
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
        self.drain()
        await super().stop(grace_s)
        await self.kept.stop()
        await self.leases.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_ending:
            return
        connection = Connection(
            self._surroundings,
            reader,
            writer,
            leases=self.leases,
            kept=self.kept,
            counts=self.figures,
        )
        self._connections[connection] = None
        try:
            await connection.serve()
        finally:
            del self._connections[connection]


def make(config: Config, surroundings: Surroundings) -> Front:
    """The front as the settings have it."""
    return Beanstalkd(surroundings, job_bytes_max=config.front_beanstalkd_job_bytes_max)
