"""Laws of liveness: what a nearly healthy cluster owes, and a stormy one does not.

RULE: each watches one world and complains; which of them hold is the plan's decision. All bounds
are virtual time, far above what the guarded engine needs and below what it takes without the guard.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from tests.simulation.network import MS
from tests.simulation.world import World

Watch = Generator[int, None, None]

FIRST_LEADER_US = 3_000 * MS
LEADERLESS_US = 200 * MS
APPLIED_US = 60 * MS
LATE_SESSION_MS = 700


def a_leader_is_there(world: World) -> Watch:
    """After the first election there is no long time without a leader."""
    yield FIRST_LEADER_US
    seen_us = world.now_us
    while not world.is_calm:
        if world.leader() is not None:
            seen_us = world.now_us
        elif world.now_us - seen_us > LEADERLESS_US:
            world.complain("a leader is there", f"nobody has led since {seen_us / 1e6:.3f} s")
        yield 5 * MS


def a_healthy_leader_stays(world: World) -> Watch:
    """Who leads and reaches a majority is not deposed."""
    yield FIRST_LEADER_US
    first = world.leader()
    term = max(world.raft.leaders, default=0)
    while not world.is_calm:
        newest = max(world.raft.leaders, default=0)
        if newest != term:
            name = None if first is None else first.name
            world.complain(
                "a healthy leader stays",
                f"{name} led term {term}, now {world.raft.leaders[newest]} leads term {newest}",
            )
        yield 20 * MS


def followers_apply_at_once(world: World) -> Watch:
    """What is committed is applied everywhere soon, also while nothing follows it."""
    yield FIRST_LEADER_US
    due: list[tuple[int, int]] = []
    while not world.is_calm:
        top = world.raft.top
        if not due or due[-1][1] < top:
            due.append((world.now_us + APPLIED_US, top))
        while due and due[0][0] <= world.now_us:
            _, index = due.pop(0)
            for host in world.up():
                if host.replica is not None and host.replica.applied_index < index:
                    world.complain(
                        "followers apply at once",
                        f"{host.name} has applied {host.replica.applied_index}, "
                        f"{index} was committed {APPLIED_US // MS} ms ago",
                    )
        yield 5 * MS


def a_hand_over_works(world: World) -> Watch:
    """Said by the fault itself, which gets the answer."""
    yield 0


LAWS: Mapping[str, Callable[[World], Watch]] = {
    "a leader is there": a_leader_is_there,
    "a healthy leader stays": a_healthy_leader_stays,
    "followers apply at once": followers_apply_at_once,
    "a hand-over works": a_hand_over_works,
}
