"""The identity of a data folder: founded once, counted at every start, refused to anybody else."""

from __future__ import annotations

import random

import pytest

from cluster.replication.identity import Identity, IdentityMismatch
from tests.simulation.disk import SimDisk, Stopped


def folder(seed: int = 0) -> SimDisk:
    """An empty data folder."""
    return SimDisk(random.Random(seed))


def start(
    disk: SimDisk, *, cluster: str = "north", node: str = "n1", fresh: str = "drawn"
) -> Identity:
    """One start of a node on its folder."""
    return Identity.open(disk, cluster=cluster, node=node, fresh_unique=fresh)


def test_a_new_folder_takes_the_name_drawn_for_it_and_keeps_it() -> None:
    """Later draws are not looked at."""
    disk = folder()
    first = start(disk, fresh="first")
    assert (first.cluster, first.node, first.unique, first.boot) == ("north", "n1", "first", 1)
    again = start(disk, fresh="second")
    assert (again.unique, again.boot) == ("first", 2)


def test_identity_and_boot_survive_a_power_loss_right_after_the_start() -> None:
    """They are durable before the start goes on."""
    disk = folder()
    for boot in range(1, 6):
        assert start(disk).boot == boot
        disk.crash(power=True)


def test_no_boot_number_is_ever_used_twice() -> None:
    """Power may go at any disk operation of any start: request ids of two lives stay distinct."""
    for seed in range(40):
        disk, used = folder(seed), [0]
        lots = random.Random(seed)
        for _ in range(30):
            disk.stop_at = disk.operations + lots.randrange(12)
            try:
                used.append(start(disk).boot)
            except Stopped:
                pass
            disk.stop_at = None
            disk.crash(power=True)
        assert used == sorted(set(used)), f"seed {seed}"
        assert len(used) > 5


def test_the_members_of_a_folder_stay_those_it_was_made_with() -> None:
    """In any order; a folder from before they were kept takes those it is told first."""
    disk = folder()
    start(disk).settle_members(["n1", "n2", "n3"])
    start(disk).settle_members(["n3", "n1", "n2"])
    for others in (["n1"], ["n1", "n2"], ["n1", "n2", "n3", "n4", "n5"], ["n1", "n2", "n4"]):
        with pytest.raises(IdentityMismatch, match="cluster of n1, n2, n3, and the settings name"):
            start(disk).settle_members(others)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cluster": "south"}, 'cluster "north", this is "south"'),
        ({"node": "n2"}, 'node "n1", this is "n2"'),
    ],
)
def test_the_folder_of_somebody_else_is_refused(change: dict[str, str], says: str) -> None:
    """Two nodes on one folder, or a folder of another cluster, would break every promise."""
    disk = folder()
    start(disk)
    with pytest.raises(IdentityMismatch, match=says):
        start(disk, **change)
    assert start(disk).boot == 2


@pytest.mark.parametrize("name", ["journal-00000001.seg", "snapshot-9-2.snap"])
def test_a_folder_with_a_log_but_without_identity_is_refused(name: str) -> None:
    """A lost identity must not be replaced by a fresh one: peers would take us for another."""
    disk = folder()
    disk.put(name, b"x")
    with pytest.raises(IdentityMismatch, match="no identity"):
        start(disk)


def test_any_flipped_bit_is_refused() -> None:
    """A damaged identity is nobody's."""
    for seed in range(60):
        disk = folder(seed)
        start(disk).learn_peer("n2", "two")
        disk.flip(random.Random(seed), prefix="identity")
        with pytest.raises(IdentityMismatch, match="damaged"):
            start(disk)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"cluster": 1}', b"\x80\x04."])
def test_a_file_that_is_no_identity_is_refused(body: bytes) -> None:
    """Whatever lies there under a right or wrong checksum."""
    import zlib

    for data in (body, b"%08x %s\n" % (zlib.crc32(body), body)):
        disk = folder()
        disk.put("identity", data)
        with pytest.raises(IdentityMismatch):
            start(disk)


def test_a_peer_is_known_once_it_was_learnt() -> None:
    """And is remembered over a power loss."""
    disk = folder()
    identity = start(disk)
    assert identity.known_peer("n2") is None
    identity.learn_peer("n2", "two")
    assert identity.known_peer("n2") == "two"
    disk.crash(power=True)
    again = start(disk)
    assert (again.known_peer("n2"), again.known_peer("n3")) == ("two", None)


def test_what_is_known_already_costs_no_write() -> None:
    """A peer reconnects often."""
    disk = folder()
    identity = start(disk)
    identity.learn_peer("n2", "two")
    operations = disk.operations
    identity.learn_peer("n2", "two")
    assert disk.operations == operations


def test_a_power_loss_while_a_peer_is_learnt_leaves_the_old_or_the_new() -> None:
    """Never half a file."""
    for stop_at in range(12):
        disk = folder(stop_at)
        identity = start(disk)
        identity.learn_peer("n2", "two")
        disk.operations, disk.stop_at = 0, stop_at
        try:
            identity.learn_peer("n3", "three")
        except Stopped:
            pass
        disk.stop_at = None
        disk.crash(power=True)
        again = start(disk)
        assert again.known_peer("n2") == "two"
        assert again.known_peer("n3") in (None, "three")
