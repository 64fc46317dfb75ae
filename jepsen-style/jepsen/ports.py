"""Ports that stay ours while nobody listens on them.

RULE: takes ports, and starts nothing.
"""

from __future__ import annotations

import contextlib
import socket

HOST = "127.0.0.1"


def claimed_ports(count: int, claims: contextlib.ExitStack) -> list[int]:
    """Ports that stay ours until the claims are closed, also while nobody listens on them.

    They lie outside the range from which the kernel takes the ports of outgoing connections: one
    of those would take a port while its node is down, or a dial to a node that is down would reach
    itself. A UDP socket at the same number keeps other runs away.

    Raises:
        OSError: so many are not free.
    """
    free: list[int] = []
    for port in range(30_999, 20_000, -1):
        claim, probe = socket.socket(type=socket.SOCK_DGRAM), socket.socket()
        with probe:
            try:
                claim.bind((HOST, port))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
            except OSError:
                claim.close()
                continue
        claims.enter_context(claim)
        free.append(port)
        if len(free) == count:
            return free
    raise OSError(f"no {count} ports are free below the ephemeral range")
