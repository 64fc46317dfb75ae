"""Connections under limits, without sockets."""

from __future__ import annotations

from typing import Any

from cluster.gateway.connections import Connections


class FakeConnection:
    """Knows only whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    def force_close(self) -> None:
        self.is_closed = True


def opened(connections: Connections) -> Any:
    """Let one more in, as the server does."""
    assert connections.make_room()
    connection: Any = FakeConnection()
    connections.opened(connection)
    return connection


def test_who_sends_no_head_is_closed_when_others_come() -> None:
    """A connection that is silent for too long goes; one that has asked stays."""
    now = [0.0]
    connections = Connections(limit=10, head_timeout_s=5.0, clock=lambda: now[0])
    silent, asking = opened(connections), opened(connections)
    connections.begin(asking)
    now[0] = 4.9
    late = opened(connections)
    assert not silent.is_closed
    now[0] = 5.0
    opened(connections)
    assert silent.is_closed
    assert not asking.is_closed
    assert not late.is_closed
    assert connections.evicted == 1


def test_a_full_house_closes_who_idles_longest() -> None:
    """Who has been answered longest ago makes room; who is being served does not."""
    connections = Connections(limit=3, head_timeout_s=5.0, clock=lambda: 0.0)
    busy, first, second = (opened(connections) for _ in range(3))
    for connection in (busy, first, second):
        connections.begin(connection)
    connections.end(second)
    connections.end(first)
    assert connections.make_room()
    assert (busy.is_closed, first.is_closed, second.is_closed) == (False, False, True)


def test_a_house_full_of_work_refuses() -> None:
    """Where nobody idles, the next one is told so."""
    connections = Connections(limit=1, head_timeout_s=5.0, clock=lambda: 0.0)
    connections.begin(opened(connections))
    assert not connections.make_room()
    assert connections.refused == 1


def test_a_closed_connection_is_forgotten() -> None:
    """Nothing of it stays, even when its handler ends after it."""
    connections = Connections(limit=1, head_timeout_s=5.0, clock=lambda: 0.0)
    connection = opened(connections)
    connections.begin(connection)
    connections.closed(connection)
    connections.end(connection)
    assert (len(connections), connections.silent) == (0, 0)
    assert connections.make_room()
    assert not connection.is_closed


def test_who_idles_for_too_long_is_swept_away() -> None:
    """After its last answer, or its opening when it never asked; who is being served stays."""
    now = [0.0]
    connections = Connections(
        limit=10, head_timeout_s=5.0, idle_timeout_s=75.0, clock=lambda: now[0]
    )
    silent, busy, idle, back = (opened(connections) for _ in range(4))
    for connection in (busy, idle, back):
        connections.begin(connection)
    connections.end(back)
    now[0] = 1.0
    connections.end(idle)
    connections.begin(back)
    connections.end(back)
    now[0] = 75.0
    connections.sweep()
    assert (silent.is_closed, idle.is_closed) == (True, False)
    now[0] = 76.0
    connections.sweep()
    assert (busy.is_closed, idle.is_closed, back.is_closed) == (False, True, True)
    assert len(connections) == 1
    assert connections.evicted == 0
