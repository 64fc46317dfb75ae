"""Engines that hardly get to run: each stops for tens or hundreds of milliseconds, again and again.

RULE: as in group.py. A starved member has no rounds; what is sent to it waits and comes all at once,
as from a socket. Nothing here is a fault: it is what a machine with too much to do looks like.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.replication.engine import EngineSettings
from cluster.wire.frames import Message
from tests.replication.group import STEP_S, Group, Packet, carries, library_clock, numbered


class Starved(Group):
    """A group whose members run for a few milliseconds and then not for long.

    Attributes:
        most_s: the longest a member does not run; 0 lets all run.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(started=False, **how)
        self.most_s = 0.0
        self._rng = random.Random(f"{how.get('seed', 0)} starved")
        self._until = dict.fromkeys(self.names, 0)
        self._mail: dict[str, list[Packet]] = {name: [] for name in self.names}

    def arrive(self, packet: Packet) -> None:
        if self._until[packet.target] > self.steps:
            self._mail[packet.target].append(packet)
        else:
            super().arrive(packet)

    def round(self, name: str) -> None:
        if self._until[name] > self.steps:
            return
        mail, self._mail[name] = self._mail[name], []
        for packet in mail:
            super().arrive(packet)
        super().round(name)
        if self.most_s and self._rng.random() < 0.2:
            self._until[name] = self.steps + self._rng.randrange(1, round(self.most_s / STEP_S))


@contextlib.contextmanager
def starved(**how: Any) -> Iterator[Starved]:
    """Three members that are level, and run freely until told otherwise."""
    with library_clock() as networks:
        group = Starved(**how)
        networks.append(group)
        for name in group.names:
            group.start(name)
        group.until(group.is_level)
        yield group


def busy(group: Group, number: int) -> None:
    """Let the leader, if there is one, have something to propose."""
    leader = group.leader
    if leader is not None and len(group.toy(leader).queue) < 3:
        group.propose(leader, *numbered(3, f"{number}-"))


@pytest.mark.parametrize("most_s", [0.1, 0.4, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_members_that_stop_for_as_long_as_elections_take_keep_their_leader(
    most_s: float, seed: int
) -> None:
    """All three in turn and at once; entries are committed on and on, ever more slowly."""
    with starved(seed=seed, settings=EngineSettings(snapshot_entries=100)) as group:
        leader, term = group.leader, group.engine("a").term
        group.most_s = most_s
        last, at = group.engine("a").commit_index, group.steps
        for number in range(round(20.0 / STEP_S)):
            busy(group, number)
            group.step()
            commit = max(group.engine(name).commit_index for name in group.names)
            if commit > last:
                last, at = commit, group.steps
            assert (group.steps - at) * STEP_S < 4 * most_s + 0.2, group.describe()
        assert (group.leader, group.engine("a").term) == (leader, term)


@pytest.mark.parametrize("pause_s", [0.05, 0.3])
def test_a_follower_that_is_always_late_is_there_when_it_is_needed(pause_s: float) -> None:
    """Its mail comes rarely, and each time the log it would need may be compacted. It stays about one
    delivery behind, and is part of the majority as soon as the other follower is gone.
    """
    settings = EngineSettings(
        snapshot_entries=20, snapshot_chunk_bytes=1_000, snapshot_window_bytes=4_000
    )
    with starved(settings=settings) as group:
        leader = group.elect("a")
        group.isolate("c", noticed=True)
        group.propose("a", *numbered(100))
        group.until(lambda: not group.toy("a").queue)
        group.heal()
        late = group.hold(carries(Message, target="c"))

        def deliver(times: int) -> None:
            for number in range(times):
                for step in range(round(pause_s / STEP_S)):
                    busy(group, number * 1_000 + step)
                    group.step()
                caught = list(late.caught)
                late.caught.clear()
                for packet in caught:
                    group.send_again(packet)

        deliver(40)
        assert group.engine("c").snapshots_installed >= 1
        behind = leader.last_index - group.engine("c").applied_index
        # A delivery and a half of what a leader can take, which is an entry in two steps or more.
        assert behind < 1.5 * pause_s / STEP_S
        group.crash("b")
        commit = leader.commit_index
        deliver(6)
        assert leader.is_leader
        assert leader.commit_index > commit
