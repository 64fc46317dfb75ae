"""What a front is, and what it is given.

RULE: values and a protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cluster.fronts.desk import Desk
from cluster.node.face import NodeFace


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What every front of a node is given.

    Attributes:
        desk: asks the node for us, and waits for a leader where there is none.
        clock: seconds, never falling.
        wall_ms: milliseconds since 1970; for what foreign protocols print and sign, never for leases.
        draw: so many bytes that nobody can guess.
        version: of Coterie.
    """

    node: NodeFace
    desk: Desk
    clock: Callable[[], float]
    wall_ms: Callable[[], int]
    draw: Callable[[int], bytes]
    version: str


class Server(Protocol):
    """What takes a front's connections: `tcp.TcpServer`, `gohttp.server.GoServer`."""

    @property
    def addresses(self) -> list[tuple[str, int]]: ...

    @property
    def connections(self) -> int: ...

    async def start(self, host: str, port: int) -> None: ...

    def drain(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


class ServedFront:
    """A front that lives as its server does; one that has more to end adds that."""

    _server: Server

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket it listens on."""
        return self._server.addresses

    @property
    def connections(self) -> int:
        """How many are open."""
        return self._server.connections

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """
        await self._server.start(host, port)

    def drain(self) -> None:
        """Take no new connections."""
        self._server.drain()

    async def stop(self, grace_s: float) -> None:
        """End: what is in progress has so long, then every connection is closed."""
        await self._server.stop(grace_s)


class Front(Protocol):
    """A server of a foreign protocol. Started after the node, stopped before it."""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every socket it listens on; ephemeral ports are known after `start`."""

    async def start(self, host: str, port: int) -> None:
        """Listen.

        Raises:
            OSError: the address is taken or not ours.
        """

    def drain(self) -> None:
        """Take no new connections; let go of waiting clients in the way they know."""

    async def stop(self, grace_s: float) -> None:
        """End: what is in progress has `grace_s`, then every connection is closed."""
