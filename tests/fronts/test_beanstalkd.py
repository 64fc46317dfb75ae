"""beanstalkd's front over a real socket and the real machine, row by row of its specification."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import NoLeader, ShuttingDown, Timeout
from cluster.fronts.beanstalkd.connection import SAFETY_MARGIN_MS
from cluster.fronts.beanstalkd.server import Beanstalkd
from cluster.fronts.desk import Desk
from cluster.fronts.leases import TTL_MS
from cluster.machine import limits
from cluster.machine.commands import KeepAliveMany, Several
from cluster.machine.commands.jobs import PutJob
from cluster.testing.local_node import LocalNode
from tests.fronts.around import around
from tests.fronts.asking import until
from tests.fronts.beanstalkd_client import BeanstalkClient

HOST = "127.0.0.1"

Dial = Callable[[], Awaitable[BeanstalkClient]]


@pytest.fixture
def node() -> LocalNode:
    """A node whose time the test passes."""
    return LocalNode()


@pytest_asyncio.fixture
async def front(node: LocalNode) -> AsyncIterator[Beanstalkd]:
    """The front of this node."""
    one = Beanstalkd(around(node), job_bytes_max=100)
    await one.start(HOST, 0)
    yield one
    await one.stop(1.0)


@pytest_asyncio.fixture
async def dial(front: Beanstalkd) -> AsyncIterator[Dial]:
    """Connect; connections end with the test."""
    clients: list[BeanstalkClient] = []

    async def connect() -> BeanstalkClient:
        clients.append(await BeanstalkClient.to(*front.addresses[0]))
        return clients[-1]

    yield connect
    for client in clients:
        await client.close()


@pytest_asyncio.fixture
async def one(dial: Dial) -> BeanstalkClient:
    """A client."""
    return await dial()


@pytest_asyncio.fixture
async def two(dial: Dial) -> BeanstalkClient:
    """Another one."""
    return await dial()


class TestJobs:
    async def test_a_job_goes_its_way(self, one: BeanstalkClient) -> None:
        """Put, seen, reserved, done; ids count up from 1."""
        assert await one.ask("put 0 0 60 5", b"a\r\nb\0") == "INSERTED 1"
        assert await one.ask("peek 1") == "FOUND 1 5\r\na\r\nb\0"
        assert await one.ask("peek-ready") == "FOUND 1 5\r\na\r\nb\0"
        assert await one.ask("reserve") == "RESERVED 1 5\r\na\r\nb\0"
        assert await one.ask("peek-ready") == "NOT_FOUND"
        assert await one.ask("delete 1") == "DELETED"
        assert await one.ask("delete 1") == "NOT_FOUND"
        assert await one.ask("peek 1") == "NOT_FOUND"
        assert await one.put() == 2

    async def test_order_is_priority_then_id_over_all_watched_tubes(
        self, one: BeanstalkClient
    ) -> None:
        """A job given back is in front of younger ones of its priority."""
        await one.put("a", pri=2**32 - 1)
        await one.put("b", pri=5)
        await one.ask("use other")
        await one.put("c", pri=5)
        await one.put("d", pri=0)
        await one.ask("watch other")
        assert [await one.reserve() for _ in range(4)] == [4, 2, 3, 1]
        for job in (3, 2):
            assert await one.ask(f"release {job} 7 0") == "RELEASED"
        assert [await one.reserve() for _ in range(2)] == [2, 3]

    async def test_only_its_own_connection_may_work_on_a_job(
        self, one: BeanstalkClient, two: BeanstalkClient
    ) -> None:
        """Others are told there is none."""
        job = await one.put()
        assert await one.reserve() == job
        for line in ("delete 1", "release 1 0 0", "bury 1 0", "touch 1", "reserve-job 1"):
            assert await two.ask(line) == "NOT_FOUND"
        assert await one.ask("reserve-job 1") == "NOT_FOUND"
        assert await one.ask("touch 1") == "TOUCHED"
        assert await one.ask("bury 1 9") == "BURIED"
        for line in ("release 1 0 0", "bury 1 0", "touch 1"):
            assert await one.ask(line) == "NOT_FOUND"
        assert await two.ask("delete 1") == "DELETED"

    async def test_delays_are_whole_seconds(self, one: BeanstalkClient, node: LocalNode) -> None:
        """Of a put and of a release; a job that waits for its time may be deleted."""
        await one.put(delay=2)
        await one.put(delay=1)
        assert await one.ask("peek-delayed") == "FOUND 2 1\r\nx"
        assert await one.ask("reserve-with-timeout 0") == "TIMED_OUT"
        node.advance(1_000)
        assert await one.reserve() == 2
        node.advance(1_000)
        assert await one.reserve() == 1
        assert await one.ask("release 1 0 4294967295") == "RELEASED"
        assert (await one.figures("stats-job 1"))["time-left"] == 2**32 - 2
        assert await one.ask("delete 1") == "DELETED"

    async def test_time_left_is_cut_off_from_the_first_moment(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """The original counts in nanoseconds: of nine seconds eight whole ones are left at once."""
        await one.put(delay=9)
        for passed_ms, left in ((0, 8), (999, 8), (1, 7), (7_999, 0)):
            node.advance(passed_ms)
            assert (await one.figures("stats-job 1"))["time-left"] == left
        await one.put(ttr=1)
        assert (await one.figures("stats-job 2"))["time-left"] == 0
        assert await one.ask("pause-tube default 5") == "PAUSED"
        assert (await one.figures("stats-tube default"))["pause-time-left"] == 4
        node.advance(4_001)
        assert (await one.figures("stats-tube default"))["pause-time-left"] == 0

    async def test_reserve_job_takes_any_job_that_nobody_has(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """Ready, delayed or buried, in whatever tube, paused or not."""
        await one.ask("use elsewhere")
        for delay in (0, 9, 0):
            await one.put(delay=delay)
        assert await one.ask("reserve-job 3") == "RESERVED 3 1\r\nx"
        assert await one.ask("bury 3 0") == "BURIED"
        assert await one.ask("pause-tube elsewhere 60") == "PAUSED"
        for job in (1, 2, 3):
            assert await one.ask(f"reserve-job {job}") == f"RESERVED {job} 1\r\nx"
        for job in (0, 4, 2**62 + 1, 2**64 - 1):
            assert await one.ask(f"reserve-job {job}") == "NOT_FOUND"

    async def test_kick_takes_buried_jobs_before_delayed_ones(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """Never both; buried in the order of their burials, delayed in that of their times."""
        for delay in (0, 0, 9, 8):
            await one.put(delay=delay)
        for _ in range(2):
            await one.reserve()
        await one.ask("bury 2 0")
        await one.ask("bury 1 0")
        assert await one.ask("peek-buried") == "FOUND 2 1\r\nx"
        assert await one.ask("kick 1") == "KICKED 1"
        assert await one.ask("peek-ready") == "FOUND 2 1\r\nx"
        assert await one.ask("kick 10") == "KICKED 1"
        assert await one.ask("kick 1") == "KICKED 1"
        assert (await one.figures("stats-job 4"))["state"] == "ready"
        assert await one.ask("kick-job 3") == "KICKED"
        for line in ("kick-job 3", "kick-job 99"):
            assert await one.ask(line) == "NOT_FOUND"
        assert await one.ask("kick 10") == "KICKED 0"

    async def test_a_kick_of_very_many_takes_buried_ones_only(
        self, one: BeanstalkClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also when it takes several commands."""
        monkeypatch.setattr(limits, "JOBS_PER_KICK_MAX", 2)
        for delay in (0, 0, 0, 0, 9):
            await one.put(delay=delay)
        for _ in range(4):
            await one.ask(f"bury {await one.reserve()} 0")
        assert await one.ask("kick -1") == "KICKED 4"
        assert await one.ask("kick -1") == "KICKED 1"

    async def test_after_its_ttr_a_job_is_anybodys(
        self, one: BeanstalkClient, two: BeanstalkClient, node: LocalNode
    ) -> None:
        """Who had it may not touch it, but may delete it as anybody may."""
        await one.put(ttr=0)
        assert (await one.figures("stats-job 1"))["ttr"] == 1
        await one.reserve()
        node.advance(999)
        assert await one.ask("touch 1") == "TOUCHED"
        node.advance(999)
        assert (await two.figures("stats-job 1"))["state"] == "reserved"
        node.advance(1)
        for line in ("touch 1", "release 1 0 0", "bury 1 0"):
            assert await one.ask(line) == "NOT_FOUND"
        assert (await two.figures("stats-job 1"))["timeouts"] == 1
        assert await two.reserve() == 1
        node.advance(1_000)
        assert await two.ask("delete 1") == "DELETED"

    async def test_what_was_reserved_goes_back_when_its_connection_ends(
        self, one: BeanstalkClient, two: BeanstalkClient, dial: Dial
    ) -> None:
        """By quit, or by going away: at once, and it counts as nothing."""
        await one.put()
        await one.reserve()
        assert await one.ask("quit") == ""
        assert await two.reserve(60) == 1
        await two.close()
        three = await dial()
        assert await three.reserve(60) == 1
        assert await three.figures("stats-job 1") == {
            "id": 1,
            "tube": "default",
            "state": "reserved",
            "pri": 0,
            "age": 0,
            "delay": 0,
            "ttr": 60,
            "time-left": 59,
            "file": 0,
            "reserves": 3,
            "timeouts": 0,
            "releases": 0,
            "buries": 0,
            "kicks": 0,
        }

    async def test_limits(self, one: BeanstalkClient, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of one job, and of all of them together."""
        assert await one.ask("put 0 0 1 100", "x" * 100) == "INSERTED 1"
        assert await one.ask("put 0 0 1 101", "x" * 101) == "JOB_TOO_BIG"
        assert await one.ask("put 0 0 1 1", "xyz") == "EXPECTED_CRLF"
        assert await one.reply() == b"UNKNOWN_COMMAND"
        monkeypatch.setattr(limits, "JOBS_MAX", 1)
        assert await one.ask("put 0 0 1 1", "x") == "OUT_OF_MEMORY"


class TestWaiting:
    async def test_a_put_wakes_who_waits_longest(
        self, one: BeanstalkClient, two: BeanstalkClient, dial: Dial, node: LocalNode
    ) -> None:
        """Whatever tubes they watch."""
        await two.ask("watch other")
        one.send("reserve")
        await until(lambda: node.parked == 1)
        two.send("reserve-with-timeout 100")
        await until(lambda: node.parked == 2)
        three = await dial()
        await three.put("a")
        assert await one.reply() == b"RESERVED 1 1\r\na"
        await three.ask("use other")
        await three.put("b")
        assert await two.reply() == b"RESERVED 2 1\r\nb"

    async def test_hundreds_wait_and_each_gets_one(self, dial: Dial, node: LocalNode) -> None:
        """The oldest first; who was asked to wait costs nobody else anything."""
        waiting = []
        for number in range(300):
            waiting.append(await dial())
            waiting[-1].send("reserve")
            await until(lambda parked=number + 1: node.parked == parked)
        producer = await dial()
        for client in waiting:
            job = await producer.put()
            assert await client.reply() == b"RESERVED %d 1\r\nx" % job

    async def test_long_replies_are_sent_as_they_come(self, dial: Dial, node: LocalNode) -> None:
        """A client that asks for much at once, and reads it late, is served all of it."""
        client = await dial()
        await client.put("x" * 100)
        client.send(*["peek 1"] * 5_000)
        client.send("quit")
        for _ in range(5_000):
            assert len(await client.reply()) == 113
        assert await client.reply() == b""

    async def test_a_timeout_is_met(self, one: BeanstalkClient, node: LocalNode) -> None:
        """To the second, of cluster time."""
        one.send("reserve-with-timeout 3")
        await until(lambda: node.parked == 1)
        node.advance(2_999)
        assert node.parked == 1
        node.advance(1)
        assert await one.reply() == b"TIMED_OUT"

    async def test_the_longest_timeouts_are_taken(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """They are longer than a wait can be."""
        one.send("reserve-with-timeout 2147483647")
        await until(lambda: node.parked == 1)
        node.advance(limits.LENGTH_MS_MAX)
        await until(lambda: node.parked == 1)

    async def test_deadline_soon(self, one: BeanstalkClient, node: LocalNode) -> None:
        """A client that waits while its time for a job ends is told a second before."""
        await one.put(ttr=5)
        await one.reserve()
        one.send("reserve")
        await until(lambda: node.parked == 1)
        node.advance(5_000 - SAFETY_MARGIN_MS - 1)
        assert node.parked == 1
        node.advance(1)
        assert await one.reply() == b"DEADLINE_SOON"
        assert await one.ask("reserve") == "DEADLINE_SOON"
        assert await one.ask("reserve-with-timeout 0") == "DEADLINE_SOON"
        await one.put()
        assert await one.reserve() == 2

    async def test_a_shorter_timeout_comes_first(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """And a touch makes the warning later."""
        await one.put(ttr=5)
        await one.reserve()
        node.advance(3_500)
        await one.ask("touch 1")
        one.send("reserve-with-timeout 1")
        await until(lambda: node.parked == 1)
        node.advance(1_000)
        assert await one.reply() == b"TIMED_OUT"

    async def test_a_ttr_of_one_second_is_always_soon(self, one: BeanstalkClient) -> None:
        """As the margin is as long."""
        await one.put(ttr=1)
        await one.reserve()
        assert await one.ask("reserve-with-timeout 10") == "DEADLINE_SOON"

    async def test_who_closes_its_side_waits_no_longer(
        self, one: BeanstalkClient, two: BeanstalkClient, node: LocalNode
    ) -> None:
        """It is told so, and nothing is given to it."""
        one.send("reserve")
        await until(lambda: node.parked == 1)
        one.writer.write_eof()
        assert await one.reply() == b"TIMED_OUT"
        assert await one.reply() == b""
        await until(lambda: node.parked == 0)
        await two.put()
        assert await two.reserve() == 1

    async def test_who_closes_its_side_gets_what_is_there(self, one: BeanstalkClient) -> None:
        """All of what it asked before is answered."""
        one.send("put 0 0 1 1", "x", "reserve", "delete 1", "reserve", "list-tube-used")
        one.writer.write_eof()
        replies = [await one.reply() for _ in range(6)]
        assert replies[:3] == [b"INSERTED 1", b"RESERVED 1 1\r\nx", b"DELETED"]
        assert replies[3:] == [b"TIMED_OUT", b"USING default", b""]

    async def test_who_vanishes_gets_nothing(
        self, one: BeanstalkClient, two: BeanstalkClient, node: LocalNode
    ) -> None:
        """It leaves its queue at once."""
        one.send("reserve")
        await until(lambda: node.parked == 1)
        one.writer.transport.abort()
        await until(lambda: node.parked == 0)
        await two.put()
        assert await two.reserve() == 1

    async def test_what_was_sent_meanwhile_is_answered_afterwards(
        self, one: BeanstalkClient, two: BeanstalkClient, node: LocalNode
    ) -> None:
        """One request at a time, in their order."""
        one.send("reserve", "delete 1", "list-tube-used")
        await until(lambda: node.parked == 1)
        one.send("reserve-with-timeout 0")
        await two.put()
        replies = [await one.reply() for _ in range(4)]
        assert replies == [b"RESERVED 1 1\r\nx", b"DELETED", b"USING default", b"TIMED_OUT"]


class TestTubes:
    async def test_use_and_watch(self, one: BeanstalkClient) -> None:
        """Lists of tubes; what is not watched is ignored easily, the last one not at all."""
        assert await one.ask("list-tube-used") == "USING default"
        assert await one.ask("use a") == "USING a"
        assert await one.ask("list-tube-used") == "USING a"
        for tube, count in (("b", 2), ("c", 3), ("d", 4), ("c", 4)):
            assert await one.ask(f"watch {tube}") == f"WATCHING {count}"
        assert await one.ask("ignore b") == "WATCHING 3"
        watched = "OK 22\r\n---\n- default\n- d\n- c\n"
        assert await one.ask("list-tubes-watched") == watched
        for tube, count in (("never", 3), ("default", 2), ("d", 1)):
            assert await one.ask(f"ignore {tube}") == f"WATCHING {count}"
        assert await one.ask("ignore c") == "NOT_IGNORED"

    async def test_a_tube_is_there_while_anybody_needs_it(
        self, one: BeanstalkClient, two: BeanstalkClient
    ) -> None:
        """By a job, by use or by watch; `default` always."""
        both = "OK 18\r\n---\n- default\n- t\n"
        only = "OK 14\r\n---\n- default\n"
        assert await two.ask("list-tubes") == only
        await one.ask("use t")
        assert await two.ask("list-tubes") == both
        await one.ask("watch t")
        await one.ask("use default")
        assert await two.ask("list-tubes") == both
        await one.ask("ignore t")
        assert await two.ask("list-tubes") == only
        assert await two.ask("stats-tube t") == "NOT_FOUND"
        await one.ask("use t")
        await one.put()
        await one.ask("quit")
        assert await two.ask("list-tubes") == both
        await two.ask("delete 1")
        assert await two.ask("list-tubes") == only

    async def test_what_is_counted_of_a_tube_stays_as_long_as_the_tube(
        self, one: BeanstalkClient, two: BeanstalkClient
    ) -> None:
        """Also while it is empty."""
        await one.ask("use t")
        await one.put()
        await one.ask("delete 1")
        figures = await two.figures("stats-tube t")
        assert list(figures) == [
            "name",
            "current-jobs-urgent",
            "current-jobs-ready",
            "current-jobs-reserved",
            "current-jobs-delayed",
            "current-jobs-buried",
            "total-jobs",
            "current-using",
            "current-watching",
            "current-waiting",
            "cmd-delete",
            "cmd-pause-tube",
            "pause",
            "pause-time-left",
        ]
        assert (figures["total-jobs"], figures["cmd-delete"]) == (1, 1)
        assert (figures["current-using"], figures["current-watching"]) == (1, 0)

    async def test_tubes_are_told_again_when_the_session_that_kept_them_ended(
        self, one: BeanstalkClient, front: Beanstalkd, node: LocalNode
    ) -> None:
        """After the node was cut off for long."""
        await one.ask("watch t")
        await one.ask("list-tubes")
        node.advance(TTL_MS)
        assert len(node.machine.jobs.stock.tubes) == 0
        await front.leases.renew()
        assert await one.ask("list-tubes") == "OK 18\r\n---\n- default\n- t\n"

    async def test_a_tube_in_use_is_there_also_when_it_cannot_be_kept(
        self, one: BeanstalkClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For want of room in the machine: it is empty then, and cannot be paused or put into."""
        monkeypatch.setattr(limits, "TUBES_MAX", 0)
        await one.ask("use t")
        assert await one.ask("list-tubes") == "OK 18\r\n---\n- default\n- t\n"
        assert (await one.figures("stats-tube t"))["current-using"] == 1
        assert await one.ask("stats-tube u") == "NOT_FOUND"
        assert await one.ask("pause-tube t 1") == "OUT_OF_MEMORY"
        assert await one.ask("put 0 0 1 1", "x") == "OUT_OF_MEMORY"
        assert await one.ask("reserve-with-timeout 0") == "TIMED_OUT"
        assert await one.ask("reserve") == "OUT_OF_MEMORY"

    async def test_a_pause_stops_reservations_only(
        self, one: BeanstalkClient, two: BeanstalkClient, node: LocalNode
    ) -> None:
        """Until it is over, or ended; who waits is served then."""
        assert await one.ask("pause-tube t 1") == "NOT_FOUND"
        assert await one.ask("pause-tube default 3") == "PAUSED"
        await one.put()
        assert await one.ask("reserve-with-timeout 0") == "TIMED_OUT"
        figures = await one.figures("stats-tube default")
        assert (figures["pause"], figures["pause-time-left"]) == (3, 2)
        one.send("reserve")
        await until(lambda: node.parked == 1)
        node.advance(3_000)
        assert await one.reply() == b"RESERVED 1 1\r\nx"
        await one.ask("release 1 0 0")
        await one.ask("pause-tube default 60")
        one.send("reserve")
        await until(lambda: node.parked == 1)
        assert await two.ask("pause-tube default 0") == "PAUSED"
        assert await one.reply() == b"RESERVED 1 1\r\nx"
        assert (await one.figures("stats-tube default"))["cmd-pause-tube"] == 3

    async def test_more_tubes_than_a_reservation_can_name(
        self, one: BeanstalkClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Are not watched."""
        monkeypatch.setattr(limits, "TUBES_PER_RESERVE_MAX", 2)
        assert await one.ask("watch a") == "WATCHING 2"
        assert await one.ask("watch b") == "OUT_OF_MEMORY"
        assert await one.ask("watch a") == "WATCHING 2"


class TestServer:
    async def test_statistics(self, one: BeanstalkClient, two: BeanstalkClient) -> None:
        """Keys in their order; jobs are the cluster's, commands and connections the node's."""
        await one.put(pri=1023)
        await two.reserve()
        for line in ("kick-job 9", "foo", "delete x"):
            await one.ask(line)
        figures = await one.figures("stats")
        assert " ".join(figures) == (
            "current-jobs-urgent current-jobs-ready current-jobs-reserved current-jobs-delayed"
            " current-jobs-buried cmd-put cmd-peek cmd-peek-ready cmd-peek-delayed cmd-peek-buried"
            " cmd-reserve cmd-reserve-with-timeout cmd-delete cmd-release cmd-use cmd-watch"
            " cmd-ignore cmd-bury cmd-kick cmd-touch cmd-stats cmd-stats-job cmd-stats-tube"
            " cmd-list-tubes cmd-list-tube-used cmd-list-tubes-watched cmd-pause-tube job-timeouts"
            " total-jobs max-job-size current-tubes current-connections current-producers"
            " current-workers current-waiting total-connections pid version rusage-utime"
            " rusage-stime uptime binlog-oldest-index binlog-current-index binlog-records-migrated"
            " binlog-records-written binlog-max-size draining id hostname os platform"
        )
        wanted: dict[str, Any] = {
            "current-jobs-reserved": 1,
            "cmd-put": 1,
            "cmd-reserve-with-timeout": 1,
            "cmd-delete": 0,
            "cmd-stats": 1,
            "total-jobs": 1,
            "max-job-size": 100,
            "current-tubes": 1,
            "current-connections": 2,
            "current-producers": 1,
            "current-workers": 1,
            "total-connections": 2,
            "pid": os.getpid(),
            "version": "1.2.3",
            "draining": False,
        }
        assert {key: figures[key] for key in wanted} == wanted
        assert len(str(figures["id"]).zfill(16)) == 16

    async def test_names_are_quoted(self, one: BeanstalkClient) -> None:
        """As in the original's newer versions."""
        await one.put()
        assert '\nname: "default"\n' in f"\n{await one.ask('stats-tube default')}"
        assert '\ntube: "default"\n' in await one.ask("stats-job 1")

    @pytest.mark.parametrize("how", ["by a signal", "by a call"])
    async def test_drain_mode(self, one: BeanstalkClient, front: Beanstalkd, how: str) -> None:
        """Puts are refused, everything else goes on."""
        await one.put()
        if how == "by a signal":
            os.kill(os.getpid(), signal.SIGUSR1)
            await until(lambda: front.figures.is_draining)
        else:
            front.refuse_puts()
        assert await one.ask("put 0 0 1 1", "x") == "DRAINING"
        assert await one.ask("put 0 0 1 1", "xyz") == "EXPECTED_CRLF"
        assert await one.reply() == b"UNKNOWN_COMMAND"
        assert await one.reserve() == 1
        assert (await one.figures("stats"))["draining"] is True

    async def test_puts_that_come_together_go_together(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """In one command, answered one by one, in their order, with what stands between them."""
        lines: list[bytes | str] = []
        for number in range(1_000):
            lines += ["put 0 0 1 4", f"{number:4}"]
        lines[1_000:1_000] = ["use other"]
        one.send(*lines)
        replies = [await one.reply() for _ in range(1_001)]
        del replies[500]
        assert replies == [b"INSERTED %d" % job for job in range(1, 1_001)]
        assert sum(isinstance(command, (PutJob, Several)) for command in node.taken) < 100
        jobs = node.machine.jobs.stock.jobs
        assert [int(jobs[job].body) for job in range(1, 1_001)] == list(range(1_000))
        assert (jobs[500].tube.name, jobs[501].tube.name) == ("default", "other")

    async def test_an_election_is_a_pause(self, one: BeanstalkClient, node: LocalNode) -> None:
        """Nobody is told of it."""
        node.fail_with = NoLeader("nobody")
        one.send("put 0 0 1 1", "x", "peek 1", "reserve")
        await until(lambda: len(node.taken) > 2)
        node.fail_with = None
        replies = [await one.reply() for _ in range(3)]
        assert replies == [b"INSERTED 1", b"FOUND 1 1\r\nx", b"RESERVED 1 1\r\nx"]

    async def test_puts_that_came_together_are_answered_one_by_one(self, node: LocalNode) -> None:
        """Also where all of them failed; large ones need not fit into one command."""
        hasty = replace(around(node), desk=Desk(node, patience_s=0.0))
        front = Beanstalkd(hasty, job_bytes_max=2**20)
        await front.start(HOST, 0)
        client = await BeanstalkClient.to(*front.addresses[0])
        node.fail_with = NoLeader("nobody leads")
        client.send(*["put 0 0 1 1", "x"] * 3, "list-tube-used")
        replies = [await client.reply() for _ in range(4)]
        assert replies == [b"INTERNAL_ERROR"] * 3 + [b"USING default"]
        node.fail_with = None
        half, whole = "a" * (500 * 1024), "b" * 2**20
        for body in (half, whole, half, half):
            client.send(f"put 0 0 1 {len(body)}", body)
        assert [await client.reply() for _ in range(4)] == [
            b"INSERTED %d" % job for job in range(1, 5)
        ]
        await client.close()
        await front.stop(1.0)

    async def test_an_answer_does_not_wait_for_the_next_request(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """Which came together with it, and has to wait for a leader."""
        await one.put()
        node.fail_with = NoLeader("nobody leads")
        one.send("use a", "watch b", "put 0 0 1 1", "x", "delete 1")
        assert [await one.reply() for _ in range(2)] == [b"USING a", b"WATCHING 2"]
        node.fail_with = None
        assert [await one.reply() for _ in range(2)] == [b"INSERTED 2", b"DELETED"]

    async def test_what_may_have_happened_is_no_error(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """The connection ends instead."""
        await one.ask("list-tubes")
        node.fail_with = Timeout("late")
        assert await one.ask("put 0 0 1 1", "x") == ""

    @pytest.mark.parametrize(
        ("line", "reply"),
        [("delete 1", "DELETED"), ("release 1 0 0", "RELEASED"), ("bury 1 0", "BURIED")],
    )
    async def test_what_did_not_happen_can_be_asked_again(
        self, node: LocalNode, line: str, reply: str
    ) -> None:
        """After an error of ours the job is its client's still."""
        hasty = replace(around(node), desk=Desk(node, patience_s=0.0))
        front = Beanstalkd(hasty)
        await front.start(HOST, 0)
        client = await BeanstalkClient.to(*front.addresses[0])
        assert await client.put() == await client.reserve() == 1
        node.fail_with = NoLeader("nobody leads")
        assert await client.ask(line) == "INTERNAL_ERROR"
        node.fail_with = None
        assert await client.ask(line) == reply
        await client.close()
        await front.stop(1.0)

    async def test_a_node_that_goes_gives_everything_back(
        self, one: BeanstalkClient, two: BeanstalkClient, front: Beanstalkd, node: LocalNode
    ) -> None:
        """Idle clients are sent away, those that wait are let go, and jobs are ready at once."""
        await one.put()
        await one.reserve()
        two.send("reserve")
        await until(lambda: node.parked == 1)
        front.drain()
        assert await one.reply() == b""
        assert await two.reply() == b""
        await until(lambda: not front.leases._open and node.parked == 0)
        assert node.machine.jobs.pictures.totals().ready == 1
        assert len(node.machine.sessions) == 0

    async def test_a_node_that_shuts_down_says_nothing_wrong(
        self, one: BeanstalkClient, node: LocalNode
    ) -> None:
        """The connection ends; another node may be asked."""
        await one.ask("list-tubes")
        node.refuse_with = ShuttingDown("going")
        assert await one.ask("put 0 0 1 1", "x") == ""

    async def test_sessions_are_renewed_together(
        self, one: BeanstalkClient, two: BeanstalkClient, front: Beanstalkd, node: LocalNode
    ) -> None:
        """While they are, they live; one that ended is opened anew when it is needed."""
        await one.put()
        await one.reserve()
        await two.ask("reserve-with-timeout 0")
        for _ in range(5):
            node.advance(TTL_MS - 1)
            await front.leases.renew()
        assert sum(isinstance(command, KeepAliveMany) for command in node.taken) == 5
        assert await one.ask("touch 1") == "TOUCHED"
        node.advance(TTL_MS)
        await front.leases.renew()
        assert await one.ask("touch 1") == "NOT_FOUND"
        assert await two.reserve() == 1

    async def test_who_waits_goes_on_waiting_in_a_new_session(
        self, one: BeanstalkClient, two: BeanstalkClient, node: LocalNode
    ) -> None:
        """It never hears that its node was cut off."""
        one.send("reserve")
        await until(lambda: node.parked == 1)
        node.advance(TTL_MS)
        await until(lambda: node.parked == 1)
        await two.put()
        assert await one.reply() == b"RESERVED 1 1\r\nx"

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
    @given(data=st.binary(max_size=400))
    def test_garbage_harms_nobody(self, data: bytes) -> None:
        """Whatever comes, the connection ends when the client does, and others are served."""

        async def go() -> None:
            front = Beanstalkd(around(LocalNode()))
            await front.start(HOST, 0)
            bad = await BeanstalkClient.to(*front.addresses[0])
            bad.writer.write(data)
            bad.writer.write_eof()
            await bad.reader.read()
            await bad.close()
            good = await BeanstalkClient.to(*front.addresses[0])
            assert await good.ask("list-tube-used") == "USING default"
            await good.close()
            await front.stop(1.0)

        asyncio.run(go())
