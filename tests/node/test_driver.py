"""The driver: rounds in one event loop, over real sockets, from start to the last word."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import threading
from pathlib import Path

import pytest

from cluster import errors
from cluster.machine.commands import AcquireLock, KeepAlive, OpenSession
from cluster.machine.outcome import Opened, Renewed
from cluster.node.driver import Driver
from cluster.node.pending import Answered, Failed, Reply
from cluster.node.settings import NodeSettings
from cluster.replication.disk import Disk, DiskFailed, OsDisk
from cluster.replication.engine import EngineSettings
from cluster.replication.identity import Identity
from cluster.replication.snapshots import InlineDumper
from cluster.replication.transport import BUFFER_BYTES_MAX
from cluster.wire.commands import COMMAND_BYTES_MAX
from tests.node.drivers import SECRET, Trio, trio, until
from tests.simulation.disk import SimDisk


@pytest.mark.both_loops
async def test_three_drivers_elect_a_leader_and_each_answers() -> None:
    """All states are equal in the end."""
    async with trio() as three:
        sessions = [await three.session(name, nonce=name) for name in "abc"]
        assert len(set(sessions)) == 3
        replies: list[Reply] = []
        for name in "abc":
            three[name].node.read(replies.append)
        await until(lambda: len(replies) == 3)
        assert all(isinstance(reply, Answered) for reply in replies)
        for name in "abc":
            assert [s.id for s in three[name].node.machine.sessions] == sessions
        assert len({three[name].node.machine.digest for name in "abc"}) == 1
        assert three.fatal == []


async def test_another_leader_takes_over_and_answers_what_was_under_way() -> None:
    """The leader stops without a word; a request at a follower is answered once."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        asked = next(name for name in "abc" if name != leader)
        await three.stop(leader)
        replies: list[Reply] = []
        three[asked].node.submit(OpenSession("x", 600_000), replies.append, timeout_ms=60_000)
        # Without a leader it may fail, definitely, when the election takes long: then ask again.
        await until(lambda: replies)
        reply = replies[0]
        if isinstance(reply, Failed):
            assert isinstance(reply.error, errors.NoLeader)
        else:
            assert isinstance(reply.outcome, Opened)
        assert len(replies) == 1


async def test_a_node_that_was_away_catches_up_also_by_a_snapshot() -> None:
    """It starts again on its own disk, with the next boot number."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        away = next(name for name in "abc" if name != leader)
        session = await three.session(leader)
        await three.stop(away)
        for _ in range(120):
            assert isinstance(await three.ask(leader, KeepAlive(session)), Renewed)
        driver = await three.start(away)
        assert driver.node.identity.boot == 2
        await until(three.is_level)
        assert driver.node.engine.snapshots_installed == 1
        assert driver.node.machine.sessions.get(session) is not None


async def test_a_node_that_comes_back_with_an_empty_disk_is_not_let_in() -> None:
    """Its votes and acknowledgements are forgotten: peers know it by the name of its disk."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        lost = next(name for name in "abc" if name != leader)
        await three.stop(lost)
        driver = await three.start(lost, disk=SimDisk(random.Random("new")))
        await until(lambda: driver.transport.stats[leader].last_error is not None)
        assert driver.node.engine.leader is None
        assert lost not in three[leader].transport.connected
        await three.session(leader)


async def test_a_node_whose_data_folder_was_set_back_is_not_let_in(tmp_path: Path) -> None:
    """What it acknowledged since is not in there, and the others count on it."""
    disks: dict[str, Disk] = {name: SimDisk(random.Random(name)) for name in "ab"}
    first = OsDisk(tmp_path / "now")
    async with trio({**disks, "c": first}) as three:
        await three.stop("c")
        shutil.copytree(tmp_path / "now", tmp_path / "before")
        for _ in range(2):
            await three.start("c")
            await until(three.is_level)
            await three.stop("c")
        old = OsDisk(tmp_path / "before")
        await three.start("c", disk=old)
        await until(lambda: three["a"].transport.stats["c"].last_refusal)
        assert "an earlier start" in str(three["a"].transport.stats["c"].last_refusal)
        assert "c" not in three["a"].transport.connected
        await three.session("b")
        await three.stop("c")
        first.close()
        old.close()


async def test_of_two_copies_of_a_data_folder_one_is_refused(tmp_path: Path) -> None:
    """Both would vote and acknowledge under one name, and be counted as one."""
    disks: dict[str, Disk] = {name: SimDisk(random.Random(name)) for name in "ab"}
    first = OsDisk(tmp_path / "first")
    async with trio({**disks, "c": first}) as three:
        await three.stop("c")
        shutil.copytree(tmp_path / "first", tmp_path / "second")
        second = OsDisk(tmp_path / "second")
        one = await three.start("c")
        other = Driver(
            one.node.settings,
            identity=Identity.open(second, cluster="test", node="c", fresh_unique=""),
            disk=second,
            dumper=InlineDumper,
            listen=("127.0.0.1", 0),
            dial={peer: ("127.0.0.1", three.ports[peer]) for peer in "ab"},
            secret=SECRET,
            on_fatal=lambda error: three.fatal.append(("c", error)),
            rng=random.Random("another"),
        )
        await other.start()

        def refusals(driver: Driver) -> list[bool]:
            stats = driver.transport.stats
            return ["it met a later start" in (stats[peer].last_error or "") for peer in "ab"]

        await until(lambda: all(refusals(one)) or all(refusals(other)))
        assert not (any(refusals(one)) and any(refusals(other)))
        await three.session("a")
        await other.stop()
        await three.stop("c")
        first.close()
        second.close()
    assert three.fatal == []


async def test_a_fatal_error_ends_rounds_once_and_nothing_more_is_said() -> None:
    """The memory of this node may promise what its disk does not hold; the others go on."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        driver, disk = three[leader], three.disks[leader]
        assert isinstance(disk, SimDisk)
        replies: list[Reply] = []
        driver.node.submit(OpenSession("x", 600_000), replies.append)
        disk.sync_fails = True
        await until(lambda: three.fatal)
        rounds, sent = driver.node.counters.rounds, driver.transport.stats
        frames = {peer: stats.frames_out for peer, stats in sent.items()}
        driver.wake()
        others = [name for name in "abc" if name != leader]
        await until(lambda: any(three[name].node.engine.is_settled_leader for name in others))
        driver.wake()
        assert [(name, type(error)) for name, error in three.fatal] == [(leader, DiskFailed)]
        assert driver.node.counters.rounds == rounds
        assert {peer: stats.frames_out for peer, stats in sent.items()} == frames
        # Stopping it answers who still waits: it may have happened.
        assert replies == []
        await three.stop(leader)
        (reply,) = replies
        assert isinstance(reply, Failed) and not reply.error.definite
        await three.session(others[0])


async def test_draining_a_leader_hands_over_first_and_answers_everybody() -> None:
    """When drain returns another node leads, and what was under way here is answered."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        driver = three[leader]
        term = driver.node.engine.term
        events: list[str] = []

        def on_reply(reply: Reply) -> None:
            assert isinstance(reply, Answered), reply
            events.append("answered")

        for number in range(50):
            driver.node.submit(OpenSession(f"x{number}", 600_000), on_reply, timeout_ms=60_000)
        await driver.drain(20.0)
        events.append("drained")
        assert events == ["answered"] * 50 + ["drained"]
        assert not driver.node.engine.is_leader
        assert driver.node.engine.term == term + 1
        with pytest.raises(errors.ShuttingDown):
            driver.node.submit(OpenSession("late", 600_000), on_reply)
        await three.stop(leader)
        await until(three.is_level)
        assert len(three[three.leader or "a"].node.machine.sessions) == 50


async def test_draining_a_follower_or_an_idle_node_ends_at_once() -> None:
    """Nothing to hand over, nothing to wait for."""
    async with trio() as three:
        leader = three.leader
        follower = next(name for name in "abc" if name != leader)
        await three[follower].drain(20.0)
        assert three.leader == leader


async def test_draining_gives_up_what_nobody_answers() -> None:
    """Without a majority the time it was given ends it."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        for name in [name for name in "abc" if name != leader]:
            await three.stop(name)
        replies: list[Reply] = []
        three[leader].node.submit(OpenSession("x", 600_000), replies.append, timeout_ms=60_000)
        await three[leader].drain(0.3)
        assert replies == []
        await three.stop(leader)
        assert len(replies) == 1 and isinstance(replies[0], Failed)


async def test_draining_ends_waits_and_their_places() -> None:
    """A client that waits for a lock hears of it before the node goes, and no place is left."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        driver, other = three[leader], three[next(name for name in "abc" if name != leader)]
        first, second = await three.session(leader), await three.session(leader)
        held: list[Reply] = []
        driver.node.submit(AcquireLock(first, "orders"), held.append)
        await until(lambda: held)
        parked: list[Reply] = []
        driver.node.submit(AcquireLock(second, "orders", wait_ms=60_000), parked.append)
        await until(lambda: driver.node.parked == 1)
        await driver.drain(20.0)
        (reply,) = parked
        assert isinstance(reply, Failed) and isinstance(reply.error, errors.ShuttingDown)
        assert reply.error.definite
        await until(lambda: other.node.machine.counts().waiters == 0)


async def test_a_stopped_node_keeps_no_file_open(tmp_path: Path) -> None:
    """Its journal is closed: whoever starts it again in this process has it alone."""
    disk = OsDisk(tmp_path)
    kept_open = open_files(tmp_path)
    disks: dict[str, Disk] = {name: SimDisk(random.Random(name)) for name in "ab"}
    async with trio({**disks, "c": disk}) as three:
        assert len(open_files(tmp_path)) > len(kept_open)
        await three.stop("c")
        assert open_files(tmp_path) == kept_open
    disk.close()


def open_files(folder: Path) -> list[str]:
    """Files of this process below a folder."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [name for name in found if name.startswith(f"{folder}/")]


async def test_stopping_twice_answers_once() -> None:
    """And no round comes after it, whoever wakes the driver."""
    async with trio() as three:
        driver = three["a"]
        replies: list[Reply] = []
        driver.node.submit(OpenSession("x", 600_000), replies.append)
        await driver.stop()
        await driver.stop()
        rounds = driver.node.counters.rounds
        driver.wake()
        driver.on_frame("b", b"\x00")
        await until(lambda: three["b"].node.counters.rounds > 10)
        assert len(replies) == 1
        assert driver.node.counters.rounds == rounds


async def test_an_address_in_use_is_told_at_the_start() -> None:
    """Nothing stays open."""
    three = Trio()
    with three.take("a") as taken:
        taken.listen()
        with pytest.raises(OSError):
            await three.start("a")
    await three.close()


async def test_many_wakes_are_one_round() -> None:
    """Requests and frames of one turn of the loop share it."""
    three = Trio({"a": SimDisk(random.Random("a"))})
    driver = await three.start("a")
    await until(three.is_level)
    # In one turn of the loop, so nothing of the driver runs in between.
    rounds = driver.node.counters.rounds
    for _ in range(100):
        driver.wake()
    replies: list[Reply] = []
    for number in range(20):
        driver.node.submit(OpenSession(f"x{number}", 600_000), replies.append)
    await until(lambda: len(replies) == 20)
    assert driver.node.counters.rounds - rounds < 20
    await three.close()


def test_what_may_be_on_its_way_fits_where_it_waits() -> None:
    """Else a stream breaks under what is sent in good order, and the next one does so too."""
    node, engine = NodeSettings(node="a", peers=()), EngineSettings()
    appends = engine.append_window_bytes + engine.append_bytes_max + engine.payload_bytes_max
    requests = node.forward_bytes_max + COMMAND_BYTES_MAX
    assert appends + requests + engine.snapshot_window_bytes < BUFFER_BYTES_MAX
    # Of five nodes: a leader that waits for its disk, and is sent requests by the four others.
    assert 4 * requests < node.inbox_bytes_max
    assert appends + requests < node.inbox_bytes_max


async def test_a_slow_disk_is_waited_for_beside_the_loop() -> None:
    """Requests are taken meanwhile; no round begins before the sync has ended."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        driver = three[leader]
        engine, counters = driver.node.engine, driver.node.counters
        began, may_end = threading.Event(), threading.Event()
        wait_for_disk = engine.wait_for_disk

        def slowly() -> None:
            began.set()
            assert may_end.wait(60.0)
            wait_for_disk()

        engine.wait_for_disk = slowly  # type: ignore[method-assign]
        driver._disk_s = 1.0
        replies: list[Reply] = []
        driver.node.submit(OpenSession("x", 600_000), replies.append, timeout_ms=60_000)
        await until(began.is_set)
        rounds = counters.rounds
        for number in range(10):
            driver.node.submit(OpenSession(f"y{number}", 600_000), replies.append)
            driver.wake()
            await asyncio.sleep(0)
        assert counters.rounds == rounds
        assert replies == []
        may_end.set()
        await until(lambda: len(replies) == 11)
        assert all(isinstance(reply, Answered) for reply in replies)
        assert three.fatal == []


async def test_a_sync_that_fails_in_the_thread_is_fatal_too() -> None:
    """The node says nothing more; the others go on."""
    async with trio() as three:
        leader = three.leader
        assert leader is not None
        driver, disk = three[leader], three.disks[leader]
        assert isinstance(disk, SimDisk)
        driver._disk_s = 1.0
        driver.node.submit(OpenSession("x", 600_000), lambda _: None)
        disk.sync_fails = True
        await until(lambda: three.fatal)
        assert [(name, type(error)) for name, error in three.fatal] == [(leader, DiskFailed)]
        await three.stop(leader)
        other = next(name for name in "abc" if name != leader)
        await three.session(other)


async def test_a_round_that_is_due_at_once_after_a_slow_sync_comes_once() -> None:
    """Two of them would find the journal in the middle of a sync, which is fatal."""
    three = Trio({"a": SimDisk(random.Random("a"))})
    driver = await three.start("a")
    await until(three.is_level)
    node = driver.node
    begin_round, end_round = node.begin_round, node.end_round
    begun_while_syncing: list[bool] = []

    def begin() -> bool:
        begun_while_syncing.append(driver._syncing is not None)
        return begin_round()

    def at_once() -> float:
        end_round()
        return 0.0

    node.begin_round, node.end_round = begin, at_once  # type: ignore[method-assign]
    replies: list[Reply] = []

    def on_reply(reply: Reply) -> None:
        driver._disk_s = 1.0
        replies.append(reply)
        if len(replies) < 50:
            node.submit(OpenSession(f"x{len(replies)}", 600_000), on_reply)

    node.submit(OpenSession("x", 600_000), on_reply)
    await until(lambda: len(replies) == 50 or three.fatal)
    assert three.fatal == []
    assert not any(begun_while_syncing)
    await three.stop("a")


async def test_a_request_made_in_the_middle_of_a_round_waits_for_its_slow_sync() -> None:
    """An answer that is followed by a request at once, in a round that writes others: the round
    that the request wakes must not begin while a thread waits for the disk, which is fatal.
    """
    three = Trio({"a": SimDisk(random.Random("a"))})
    driver = await three.start("a")
    await until(three.is_level)
    node = driver.node
    begin_round = node.begin_round
    begun_while_syncing: list[bool] = []

    def begin() -> bool:
        begun_while_syncing.append(driver._syncing is not None)
        # Every disk is slow.
        driver._disk_s = 1.0
        return begin_round()

    node.begin_round = begin  # type: ignore[method-assign]
    replies: list[Reply] = []

    def on_reply(reply: Reply) -> None:
        replies.append(reply)
        if len(replies) < 50:
            node.submit(OpenSession(f"x{len(replies)}", 600_000), on_reply)

    # Two lanes: while the answers of one are given out, the requests of the other are written.
    node.submit(OpenSession("lane", 600_000), on_reply)
    await until(lambda: driver._syncing is not None or three.fatal)
    node.submit(OpenSession("other lane", 600_000), on_reply)
    await until(lambda: len(replies) >= 50 or three.fatal)
    assert three.fatal == []
    assert not any(begun_while_syncing)
    await three.stop("a")
