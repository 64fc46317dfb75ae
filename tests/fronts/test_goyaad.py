"""goyaad's front over a real socket: what its specification says, row by row."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import ConnectionLost, NoLeader, Overloaded, ShuttingDown, Timeout
from cluster.fronts.desk import Desk
from cluster.fronts.front import Surroundings
from cluster.fronts.gob.encoder import Encoder, integer, unsigned
from cluster.fronts.gob.kinds import BYTES, INT, STRING, UINT, Kind, Slice, Struct
from cluster.fronts.goyaad import front as goyaad
from cluster.fronts.goyaad import names
from cluster.fronts.goyaad.front import GoyaadFront
from cluster.fronts.goyaad.rpc import (
    JOB,
    REQUEST,
    Answers,
    BadCall,
    BrokenStream,
    Call,
    Requests,
)
from cluster.fronts.leases import TTL_MS
from cluster.machine import limits
from cluster.machine.commands.jobs import DeleteJob, PutJob, ReserveJobs, ReturnJob
from cluster.machine.outcome.jobs import JobPut, Reserved
from cluster.testing.local_node import LocalNode
from tests.fronts.goyaad_client import SECOND_NS, GoyaadClient, RpcError

HOST = "127.0.0.1"
TIMED_OUT = "No new jobs available in given timeout"


class Place:
    """A front before a node of the test's own."""

    def __init__(self) -> None:
        self.node = LocalNode()
        self.desk = Desk(self.node)
        self.now_s = 0.0
        self.front = GoyaadFront(
            Surroundings(
                node=self.node,
                desk=self.desk,
                clock=lambda: self.now_s,
                wall_ms=lambda: 0,
                draw=bytes,
                version="0",
            )
        )
        self.clients: list[GoyaadClient] = []

    async def client(self) -> GoyaadClient:
        client = await GoyaadClient.to(self.front.addresses[0])
        self.clients.append(client)
        return client

    def jobs(self, state: str) -> list[str]:
        found = self.node.machine.jobs.pictures.jobs("default", state, 0, limit=100)
        return [names.id_of(job.key, job.job) for job in found]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A front that listens, and that has nothing under way at the end."""
    place = Place()
    await place.front.start(HOST, 0)
    yield place
    for client in place.clients:
        await client.close()
    await place.front.stop(1.0)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go on until it is so."""
    async with asyncio.timeout(10.0):
        while not condition():
            await asyncio.sleep(0.001)


async def refused(answer: Awaitable[Any]) -> str:
    """The error that is the answer."""
    with pytest.raises(RpcError) as error:
        await answer
    return str(error.value)


# Put, next.


async def test_ping(place: Place) -> None:
    """Answered by the node itself."""
    assert await (await place.client()).ping() == "pong"


@pytest.mark.both_loops
async def test_a_chosen_id_is_answered_by_nothing(place: Place) -> None:
    """The job comes back under it, with its body."""
    client = await place.client()
    assert await client.put("j1", b"hi") == ""
    assert await client.next() == {"Body": b"hi", "ID": "j1"}


async def test_an_id_of_the_server_s(place: Place) -> None:
    """Decimal and increasing, told to who asked and to who takes the job."""
    client = await place.client()
    ids = [await client.put("", b"x") for _ in range(3)]
    assert ids == sorted(ids, key=int)
    assert len(set(ids)) == 3
    assert [(await client.next())["ID"] for _ in range(3)] == ids


@pytest.mark.parametrize("state", ["ready", "delayed"])
async def test_a_duplicate_of_a_pending_id(place: Place, state: str) -> None:
    """Rejected in the original's words; free again once the job was delivered."""
    client = await place.client()
    await client.put("a b", delay_ns=0 if state == "ready" else SECOND_NS)
    assert await refused(client.put("a b")) == "Rejecting job. Job with ID: a b already exists"
    place.node.advance(1_000)
    assert (await client.next())["ID"] == "a b"
    assert await client.put("a b") == ""


async def test_a_put_that_follows_a_delivery_at_once(place: Place) -> None:
    """From another connection, before the delivery's end is known: it waits for that."""
    first, second = await place.client(), await place.client()
    await first.put("a")
    for _ in range(20):
        assert (await first.next())["ID"] == "a"
        assert await second.put("a") == ""


async def test_an_id_that_somebody_works_on_is_taken(place: Place) -> None:
    """A client of beanstalkd, say, for longer than a delivery takes."""
    client = await place.client()
    await client.put("a")
    assert isinstance(await place.desk.ask(ReserveJobs(("default",))), Reserved)
    answer = client.put("a")
    await until(lambda: len(place.node.taken) > 4)
    assert not answer.done()
    place.now_s += goyaad.RESERVED_S
    assert await refused(answer) == "Rejecting job. Job with ID: a already exists"


async def test_jobs_come_in_the_order_of_their_time(place: Place) -> None:
    """Whatever the order in which they were put; equal ones first in, first out."""
    client = await place.client()
    for name, seconds in (("late", 3), ("soon", 1), ("mid", 2), ("mid2", 2)):
        await client.put(name, delay_ns=seconds * SECOND_NS)
    assert await refused(client.next()) == TIMED_OUT
    place.node.advance(1_000)
    assert (await client.next())["ID"] == "soon"
    assert await refused(client.next()) == TIMED_OUT
    place.node.advance(2_000)
    await client.put("now")
    assert [(await client.next())["ID"] for _ in range(4)] == ["mid", "mid2", "late", "now"]


async def test_a_near_job_is_not_held_up_by_a_far_one(place: Place) -> None:
    """The original freezes here: a poll while only far jobs exist."""
    client = await place.client()
    await client.put("far", delay_ns=3_600 * SECOND_NS)
    assert await refused(client.next()) == TIMED_OUT
    await client.put("near", delay_ns=SECOND_NS)
    place.node.advance(1_000)
    assert (await client.next())["ID"] == "near"


@pytest.mark.parametrize("delay_ns", [0, 1, -1, -5 * SECOND_NS, -(2**63)])
async def test_what_is_due_already_is_ready(place: Place, delay_ns: int) -> None:
    """No delay, one too small to be kept, or a time that is over."""
    client = await place.client()
    for name in ("a", "b", "c"):
        await client.put(name, delay_ns=delay_ns)
    assert [(await client.next())["ID"] for _ in range(3)] == ["a", "b", "c"]


async def test_the_more_overdue_the_sooner(place: Place) -> None:
    """A time that was over when the job was put counts like any other."""
    client = await place.client()
    for name, seconds in (("now", 0), ("2 s ago", -2), ("an hour ago", -3_600), ("1 s ago", -1)):
        await client.put(name, delay_ns=seconds * SECOND_NS)
    assert (await client.inspect(1))[0]["Delay"] == -3_600 * SECOND_NS
    order = [(await client.next())["ID"] for _ in range(4)]
    assert order == ["an hour ago", "2 s ago", "1 s ago", "now"]


async def test_chosen_ids_and_numbers_are_one_name_space(place: Place) -> None:
    """No two jobs of one name: the number of a job is taken, a chosen number is not given."""
    client = await place.client()
    number = await client.put("")
    assert await refused(client.put(number)) == (
        f"Rejecting job. Job with ID: {number} already exists"
    )
    following = str(int(number) + 2)
    assert await client.put(following) == ""
    assert await client.put("") != following
    assert sorted(place.jobs("ready")) == sorted({number, following, str(int(following) + 1)})


async def test_a_node_that_ends_in_a_delivery_loses_nothing(place: Place) -> None:
    """Nobody says how it ended: the job is there again soon, whatever its TTR."""
    client = await place.client()
    await client.put("a")
    held = await place.desk.ask(ReserveJobs(("default",), hold_ms=goyaad.HOLD_MS))
    assert isinstance(held, Reserved)
    place.node.advance(goyaad.HOLD_MS)
    assert (await client.next())["ID"] == "a"


async def test_the_longest_delay(place: Place) -> None:
    """292 years, as far as we can count: the job is there, and can be cancelled."""
    client = await place.client()
    await client.put("a", delay_ns=2**63 - 1)
    assert place.jobs("delayed") == ["a"]
    await client.cancel("a")
    assert place.jobs("delayed") == []


async def test_next_waits_and_is_woken(place: Place) -> None:
    """By a job that is put, without any polling, and by one whose time has come."""
    client = await place.client()
    waiting = client.next(10 * SECOND_NS)
    await until(lambda: place.node.parked == 1)
    asked = len(place.node.taken)
    await client.put("a")
    assert (await waiting)["ID"] == "a"
    assert len(place.node.taken) <= asked + 2
    await client.put("b", delay_ns=SECOND_NS)
    waiting = client.next(10 * SECOND_NS)
    await until(lambda: place.node.parked == 1)
    place.node.advance(1_000)
    assert (await waiting)["ID"] == "b"


async def test_next_times_out_in_the_words_clients_compare(place: Place) -> None:
    """After its time, or at once."""
    client = await place.client()
    for timeout_ns in (0, -1, -(2**63)):
        assert await refused(client.next(timeout_ns)) == TIMED_OUT
    waiting = client.next(SECOND_NS)
    await until(lambda: place.node.parked == 1)
    place.node.advance(999)
    await asyncio.sleep(0)
    assert not waiting.done()
    place.node.advance(1)
    assert await refused(waiting) == TIMED_OUT


async def test_who_waits_longest_is_first(place: Place) -> None:
    """Over all connections."""
    clients = [await place.client() for _ in range(3)]
    waiting = []
    for number, client in enumerate(clients, 1):
        waiting.append(client.next(60 * SECOND_NS))
        await until(lambda number=number: place.node.parked == number)
    for name in ("a", "b", "c"):
        await clients[0].put(name)
    assert [(await answer)["ID"] for answer in waiting] == ["a", "b", "c"]


# Cancel, inspect.


@pytest.mark.parametrize("job_id", ["", "j1", "17", "x" * 5_000, "\udcff"])
async def test_cancelling_what_is_not_there_succeeds(place: Place, job_id: str) -> None:
    """Idempotent, and after a delivery too."""
    client = await place.client()
    assert await client.cancel(job_id) == 0
    await client.put("j1")
    assert (await client.next())["ID"] == "j1"
    assert await client.cancel(job_id) == 0


@pytest.mark.parametrize("delay_ns", [0, SECOND_NS])
async def test_a_cancelled_job_never_comes(place: Place, delay_ns: int) -> None:
    """Its id is free again."""
    client = await place.client()
    await client.put("a", delay_ns=delay_ns)
    number = await client.put("", delay_ns=delay_ns)
    for name in ("a", number):
        assert await client.cancel(name) == 0
    place.node.advance(1_000)
    assert await refused(client.next()) == TIMED_OUT
    assert await client.put("a") == ""


async def test_cancelling_a_number_leaves_other_jobs_alone(place: Place) -> None:
    """A job with a name has no number here; one of another tube is none of ours."""
    client = await place.client()
    await client.put("named")
    assert isinstance(await place.desk.ask(PutJob("other", b"x")), JobPut)
    for number in ("1", "2", "01", "+1"):
        await client.cancel(number)
    assert place.jobs("ready") == ["named"]
    assert place.node.machine.jobs.pictures.job(2, 0) is not None


async def test_a_cancel_during_a_delivery_holds(place: Place) -> None:
    """The delivery fails after the cancel came: the job does not come again."""
    client = await place.client()
    await client.put("a")
    reserved = await place.desk.ask(ReserveJobs(("default",)))
    assert isinstance(reserved, Reserved)
    answer = client.cancel("a")
    await until(lambda: len(place.node.taken) > 4)
    await place.desk.ask(ReturnJob(1, reserved.jobs[0].token))
    assert await answer == 0
    assert await refused(client.next()) == TIMED_OUT


async def test_inspect_shows_and_takes_nothing(place: Place) -> None:
    """Ready ones first, by time; delays count from now."""
    client = await place.client()
    assert await client.inspect(5) == []
    await client.put("later", b"2", 2 * SECOND_NS)
    await client.put("now", b"1")
    number = await client.put("", b"3", 3 * SECOND_NS)
    place.node.advance(500)
    assert await client.inspect(10) == [
        {"ID": "now", "Body": b"1", "Delay": -SECOND_NS // 2},
        {"ID": "later", "Body": b"2", "Delay": 3 * SECOND_NS // 2},
        {"ID": number, "Body": b"3", "Delay": 5 * SECOND_NS // 2},
    ]
    assert [job["ID"] for job in await client.inspect(2)] == ["now", "later"]
    assert await client.inspect(0) == []
    assert await client.inspect(-3) == []
    assert place.jobs("ready") == ["now"]


async def test_inspect_of_many(place: Place) -> None:
    """More than one page of them."""
    client = await place.client()
    for number in range(600):
        await place.desk.ask(PutJob("default", b"x", key=f"j{number}", by_due=True))
    found = await client.inspect(2**62)
    assert [job["ID"] for job in found] == [f"j{number}" for number in range(600)]


async def test_inspect_shows_jobs_of_beanstalkd_s_clients(place: Place) -> None:
    """Which have no time of their own: theirs is when they became ready at the earliest."""
    client = await place.client()
    await place.desk.ask(PutJob("default", b"bean", delay_ms=1_000))
    assert await client.inspect(1) == [{"ID": "1", "Body": b"bean", "Delay": SECOND_NS}]
    place.node.advance(3_000)
    assert await client.inspect(1) == [{"ID": "1", "Body": b"bean", "Delay": -2 * SECOND_NS}]
    assert await client.next() == {"ID": "1", "Body": b"bean"}


# Ids and bodies.


@pytest.mark.parametrize(
    "job_id",
    ["\x00", "\x01\x02\n", "ключ", "a" * limits.JOB_KEY_LENGTH_MAX, "\udcff\udc80", "0", "é\x85"],
)
async def test_ids_are_any_bytes(place: Place, job_id: str) -> None:
    """Control characters and broken UTF-8 among them."""
    client = await place.client()
    await client.put(job_id, b"\x00\xff")
    with pytest.raises(RpcError, match="already exists"):
        await client.put(job_id)
    assert (await client.inspect(1))[0]["ID"] == job_id
    assert await client.next() == {"ID": job_id, "Body": b"\x00\xff"}
    await client.put(job_id)
    await client.cancel(job_id)
    assert place.jobs("ready") == []


@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode(errors="surrogateescape"))))
def test_an_id_is_one_key_and_back(foreign: str) -> None:
    """No two have the same; those that could be mistaken are told apart."""
    for one in (foreign, "goyaad-hex:" + foreign, "goyaad-hex:ff"):
        with contextlib.suppress(UnicodeEncodeError):
            # Lone surrogates that stand for no byte never come from a decoder.
            one.encode(errors="surrogateescape")
            key = names.key_of(one)
            assert key is not None
            assert key.encode().decode() == key
            assert not any(ord(letter) < 0x20 or 0x7F <= ord(letter) <= 0x9F for letter in key)
            assert names.id_of(key, 7) == one
    assert names.id_of(None, 7) == "7"
    assert names.id_of("goyaad-hex:zz", 7) == "goyaad-hex:zz"


async def test_what_is_too_long_is_refused(place: Place) -> None:
    """An id, a body, and a body so large that it is not even held; the connection goes on."""
    client = await place.client()
    assert "longer than 1024" in await refused(client.put("x" * 1025))
    for size in (limits.JOB_BODY_BYTES_MAX + 1, 5 * 1024 * 1024):
        assert "bytes are more than" in await refused(client.put("x", b"x" * size))
    largest = b"y" * limits.JOB_BODY_BYTES_MAX
    await client.put("x", largest)
    assert (await client.next())["Body"] == largest


# Connections.


async def test_calls_of_one_connection_go_on_side_by_side(place: Place) -> None:
    """The load test of the original: a waiting Next, puts and cancels on one connection."""
    client = await place.client()
    waiting = client.next(60 * SECOND_NS)
    await until(lambda: place.node.parked == 1)
    assert await client.ping() == "pong"
    assert await client.cancel("x") == 0
    await client.put("a")
    assert (await waiting)["ID"] == "a"
    assert client.answered.index(0) > 1


async def test_a_client_that_goes_leaves_the_queue(place: Place) -> None:
    """At once; the job goes to who is there."""
    gone, here = await place.client(), await place.client()
    gone.next(60 * SECOND_NS).cancel()
    await until(lambda: place.node.parked == 1)
    await gone.close()
    await until(lambda: place.node.parked == 0)
    await here.put("a")
    assert (await here.next())["ID"] == "a"


async def test_waits_of_a_node_that_is_cut_off_begin_anew(place: Place) -> None:
    """The cluster took them out of the queue, as it does where a node has ended; nobody is told."""
    client = await place.client()
    waiting = client.next(3_600 * SECOND_NS)
    await until(lambda: place.node.parked == 1)
    place.node.advance(TTL_MS)
    await until(lambda: sum(isinstance(one, ReserveJobs) for one in place.node.taken) == 2)
    await client.put("a")
    assert (await waiting)["ID"] == "a"


async def test_no_session_outlives_its_connection(place: Place) -> None:
    """One for all waits of a connection; none where nobody waits."""
    idle, busy = await place.client(), await place.client()
    assert await refused(idle.next()) == TIMED_OUT
    assert len(place.node.machine.core.sessions) == 0
    for _ in range(5):
        busy.next(60 * SECOND_NS).cancel()
    await until(lambda: place.node.parked == 5)
    assert len(place.node.machine.core.sessions) == 1
    await busy.close()
    await until(lambda: len(place.node.machine.core.sessions) == 0)


async def test_a_thousand_waits_are_harmless(place: Place) -> None:
    """On one connection; all are gone when it is."""
    client = await place.client()
    for _ in range(1_000):
        client.next(60 * SECOND_NS)
    await until(lambda: place.node.parked == 1_000)
    assert await client.ping() == "pong"
    client.writer.transport.abort()
    await until(lambda: place.node.parked == 0)


async def test_calls_beyond_the_limit_are_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait on the wire until one ends; when the client goes, that is noticed all the same."""
    monkeypatch.setattr(goyaad, "CALLS_MAX", 2)
    monkeypatch.setattr(goyaad, "_LOOK_S", 0.01)
    client, here = await place.client(), await place.client()
    waiting = [client.next(60 * SECOND_NS) for _ in range(2)]
    ping = client.ping()
    await until(lambda: place.node.parked == 2)
    assert await here.ping() == "pong"
    assert not ping.done()
    await here.put("a")
    assert (await waiting[0])["ID"] == "a"
    assert await ping == "pong"
    client.next(60 * SECOND_NS).cancel()
    client.ping().cancel()
    await until(lambda: place.node.parked == 2)
    client.writer.transport.abort()
    await until(lambda: place.node.parked == 0)


async def test_bytes_beyond_the_limit_are_not_read(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large puts follow one another, however many are sent at once."""
    monkeypatch.setattr(goyaad, "CALL_BYTES_MAX", 1_000)
    client = await place.client()
    answers = [client.put(f"j{number}", b"x" * 900) for number in range(20)]
    assert [await answer for answer in answers] == [""] * 20
    assert [job["ID"] for job in await client.inspect(20)] == [f"j{number}" for number in range(20)]


@pytest.mark.both_loops
async def test_a_job_whose_client_is_gone_is_not_lost(place: Place) -> None:
    """It was granted, and the client had closed before a byte was written."""
    gone, here = await place.client(), await place.client()
    await here.ping()
    gone.next(60 * SECOND_NS).cancel()
    await until(lambda: place.node.parked == 1)
    gone.writer.transport.abort()
    # In this very turn of the loop: the front has not read the end of the connection yet.
    assert isinstance(await place.desk.ask(PutJob("default", b"x", key="a")), JobPut)
    await until(lambda: place.jobs("ready") == ["a"])
    assert (await here.next())["ID"] == "a"


async def test_a_delivery_that_does_not_leave_goes_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reads nothing: it is cut off, and the next one gets the job."""
    monkeypatch.setattr(goyaad, "DELIVERY_S", 0.05)
    here = await place.client()
    _reader, deaf = await asyncio.open_connection(*place.front.addresses[0], limit=1)
    deaf.transport.pause_reading()
    body = b"x" * limits.JOB_BODY_BYTES_MAX
    encoder = Encoder()
    for number in range(40):
        await place.desk.ask(PutJob("default", body, key=f"j{number}"))
        header = {"ServiceMethod": "RPCServer.Next", "Seq": number}
        deaf.write(encoder.encode(REQUEST, header) + encoder.encode(INT, 0))
    await until(lambda: not place.jobs("reserved") and len(place.jobs("ready")) < 40)
    # Who reads has all the time that a slow machine needs.
    monkeypatch.undo()
    left = place.jobs("ready")
    assert left
    assert [(await here.next())["ID"] for _ in left] == left
    deaf.transport.abort()


async def test_a_job_whose_turn_comes_too_late_goes_back(place: Place) -> None:
    """A client that reads slowly is told that there was none, and is not cut off."""
    here = await place.client()
    size = 200
    for number in range(size):
        await here.put(f"j{number}", b"x" * 64 * 1024, delay_ns=60 * SECOND_NS)
    reader, writer = await asyncio.open_connection(*place.front.addresses[0], limit=1)
    slow = GoyaadClient(reader, writer)
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    much, ready = slow.inspect(size), slow.next(60 * SECOND_NS)
    await until(lambda: place.node.parked == 1)
    await until(lambda: any(one._turn.locked() for one in place.front._connections))
    await here.put("late")
    await until(lambda: place.jobs("reserved") == ["late"])
    place.now_s += goyaad.DELIVERY_S + 1
    slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len(await much) == size
    assert await refused(ready) == TIMED_OUT
    assert (await slow.next())["ID"] == "late"
    await slow.close()


async def test_a_half_closed_connection_is_answered(place: Place) -> None:
    """What was asked is done; a Next is told that there is nothing."""
    client = await place.client()
    answers = [client.put("a"), client.ping(), client.next(60 * SECOND_NS)]
    client.writer.write_eof()
    assert await answers[0] == ""
    assert await answers[1] == "pong"
    with contextlib.suppress(RpcError):
        await answers[2]
    await until(lambda: place.jobs("ready") == ["a"])


async def test_a_message_that_never_ends_is_not_held(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is its connection; one that is silent between two messages stays."""
    monkeypatch.setattr(goyaad, "MESSAGE_S", 0.02)
    here = await place.client()
    reader, writer = await asyncio.open_connection(*place.front.addresses[0])
    writer.write(b"\xfd\x10\x00\x00" + b"x" * 100)
    assert await reader.read() == b""
    writer.close()
    assert await here.ping() == "pong"


async def test_an_election_is_waited_for(place: Place) -> None:
    """No client ever hears of it."""
    client = await place.client()
    place.node.fail_with = NoLeader("nobody leads")
    answers = [client.put("a"), client.cancel("b"), client.inspect(0)]
    await until(lambda: len(place.node.taken) >= 2)
    assert not any(answer.done() for answer in answers[:2])
    place.node.fail_with = None
    assert [await answer for answer in answers] == ["", 0, []]


@pytest.mark.parametrize("error", [Timeout("late"), ConnectionLost("gone")])
async def test_a_wait_that_nobody_answers_begins_anew(place: Place, error: Exception) -> None:
    """Whatever became of it: any text but that of the timeout ends the original's clients."""
    client = await place.client()
    place.node.fail_with = error
    assert await refused(client.next()) == TIMED_OUT
    waiting = client.next(60 * SECOND_NS)
    await until(lambda: len(place.node.taken) >= 3)
    assert not waiting.done()
    place.node.fail_with = None
    await client.put("a")
    assert (await waiting)["ID"] == "a"


@pytest.mark.parametrize("error", [Overloaded("full"), ShuttingDown("going")])
async def test_the_end_of_a_delivery_is_not_forgotten(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A full node is asked again; of one that leaves the job comes back by itself."""
    client = await place.client()
    await client.put("a")
    submit = place.node.submit

    def refusing(command: Any, *arguments: Any, **more: Any) -> int:
        if isinstance(command, DeleteJob):
            monkeypatch.undo()
            raise error
        return submit(command, *arguments, **more)

    monkeypatch.setattr(place.node, "submit", refusing)
    assert (await client.next())["ID"] == "a"
    if isinstance(error, Overloaded):
        await until(lambda: not place.jobs("reserved"))
    place.node.advance(goyaad.HOLD_MS)
    assert place.jobs("ready") == ([] if isinstance(error, Overloaded) else ["a"])


async def test_answers_that_nobody_can_have_are_not_written(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that goes with thousands of calls under way leaves no line in the log for each."""
    client = await place.client()
    place.node.fail_with = NoLeader("nobody leads")
    answers = [client.put(str(number)) for number in range(100)]
    await until(lambda: len(place.node.taken) >= len(answers))
    client.writer.transport.abort()
    place.node.fail_with = None
    await until(lambda: place.front.connections == 0)
    assert len(place.jobs("ready")) == len(answers)
    assert not caplog.records
    for answer in answers:
        assert isinstance(answer.exception(), ConnectionError)


async def test_draining_lets_waits_go(place: Place) -> None:
    """What is under way is answered; then the connection ends."""
    client = await place.client()
    waiting = client.next(60 * SECOND_NS)
    await until(lambda: place.node.parked == 1)
    address = place.front.addresses[0]
    place.front.drain()
    assert await refused(waiting) == TIMED_OUT
    await until(lambda: place.node.parked == 0)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection(*address)


async def test_a_full_cluster_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the original blocks a put at its mark of memory."""
    client = await place.client()
    await client.put("a")
    monkeypatch.setattr(limits, "JOBS_MAX", 1)
    answer = client.put("b")
    await until(lambda: len(place.node.taken) > 2)
    assert not answer.done()
    assert (await client.next())["ID"] == "a"
    assert await answer == ""


# net/rpc.


@pytest.mark.parametrize(
    ("method", "kind", "argument", "error"),
    [
        ("Ping", INT, 0, "rpc: service/method request ill-formed: Ping"),
        ("", INT, 0, "rpc: service/method request ill-formed: "),
        ("Other.Ping", INT, 0, "rpc: can't find service Other.Ping"),
        (".Ping", INT, 0, "rpc: can't find service .Ping"),
        ("a.RPCServer.Ping", INT, 0, "rpc: can't find service a.RPCServer.Ping"),
        ("RPCServer.Pong", INT, 0, "rpc: can't find method RPCServer.Pong"),
        ("RPCServer.", INT, 0, "rpc: can't find method RPCServer."),
        (
            "RPCServer.Ping",
            STRING,
            "x",
            "gob: decoding into local type *int8, received remote type string",
        ),
        (
            "RPCServer.Next",
            UINT,
            1,
            "gob: decoding into local type *int64, received remote type uint",
        ),
        (
            "RPCServer.Cancel",
            Slice(STRING),
            [],
            "gob: decoding into local type *string, received remote type []string",
        ),
        (
            "RPCServer.InspectN",
            JOB,
            {},
            "gob: decoding into local type *int, received remote type RPCJob",
        ),
        (
            "RPCServer.PutWithID",
            STRING,
            "x",
            "gob: type mismatch in decoder: want struct type protocol.RPCJob; got non-struct",
        ),
        (
            "RPCServer.PutWithID",
            Struct("Other", (("Id", STRING),)),
            {"Id": "x"},
            "gob: type mismatch: no fields matched compiling decoder for RPCJob",
        ),
        (
            "RPCServer.PutWithID",
            Struct("J", (("ID", BYTES),)),
            {"ID": b"x"},
            "gob: wrong type (string) for received field J.ID",
        ),
    ],
)
async def test_requests_that_are_wrong(
    place: Place, method: str, kind: Kind, argument: Any, error: str
) -> None:
    """Answered as Go does, and the connection goes on."""
    client = await place.client()
    assert await refused(client.send(method, kind, argument)) == error
    assert await client.ping() == "pong"


async def test_a_type_beyond_all_telling_is_told_in_part(place: Place) -> None:
    """A thousand fields of a thousand fields of a thousand: its name would fill all memory."""
    sent = Encoder().encode(REQUEST, {"ServiceMethod": "RPCServer.Ping"})
    for number in (72, 71, 70):
        field = b"\x01\x01a\x01" + integer(number + 1) + b"\x00"
        fields = b"\x01" + unsigned(1_000) + field * 1_000 + b"\x00"
        common = b"\x01\x02" + integer(number) + b"\x00"
        definition = integer(-number) + b"\x03" + common + fields + b"\x00"
        sent += unsigned(len(definition)) + definition
    value = integer(70) + b"\x00"
    reader, writer = await asyncio.open_connection(*place.front.addresses[0])
    writer.write(sent + unsigned(len(value)) + value)
    writer.write_eof()
    told = await reader.read()
    writer.close()
    assert b"decoding into local type *int8, received remote type struct { a struct { a " in told
    assert len(told) < 2_000


async def test_fields_that_nobody_knows_are_skipped(place: Place) -> None:
    """A newer client's job; and one of an empty struct is a job without anything."""
    client = await place.client()
    newer = Struct("RPCJob", (("Zone", Slice(INT)), ("ID", STRING), ("Body", BYTES)))
    job = {"Zone": [1, 2], "ID": "a", "Body": b"b"}
    assert await client.send("RPCServer.PutWithID", newer, job) == ""
    assert await client.next() == {"ID": "a", "Body": b"b"}
    assert (await client.send("RPCServer.PutWithID", Struct("E"), {})).isdecimal()


async def test_a_header_that_cannot_be_read_ends_the_connection(place: Place) -> None:
    """Garbage, a value that is no request, a length that nobody means; others go on."""
    here = await place.client()
    for garbage in (b"\x01\x00", b"GET / HTTP/1.1\r\n\r\n", b"\xf8" + b"\xff" * 8, b"\x03\x04\x00"):
        reader, writer = await asyncio.open_connection(*place.front.addresses[0])
        writer.write(garbage)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
    assert await here.ping() == "pong"


def test_a_body_that_never_comes_is_answered() -> None:
    """As Go's server does, before it closes."""
    header = Encoder().encode(REQUEST, {"ServiceMethod": "RPCServer.Ping", "Seq": 3})
    for more, error in ((b"", "EOF"), (b"\x03", "unexpected EOF")):
        requests = Requests()
        assert list(requests.feed(header + more)) == []
        assert requests.end() == BadCall("RPCServer.Ping", 3, error)


@pytest.mark.parametrize(
    "spoilt", [b"\x03\x04\x00\x80", b"\x03\x07\x00\x00", b"\x80", b"\x03", b""]
)
@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("Ping", "rpc: service/method request ill-formed: Ping"),
        ("Other.Ping", "rpc: can't find service Other.Ping"),
        ("RPCServer.Pong", "rpc: can't find method RPCServer.Pong"),
    ],
)
def test_a_method_that_is_not_there_is_told_whatever_its_body_is(
    method: str, error: str, spoilt: bytes
) -> None:
    """Go looks for the method first, and reads past the body unseen."""
    requests = Requests()
    header = Encoder().encode(REQUEST, {"ServiceMethod": method, "Seq": 3})
    asked: list[Any] = []
    with contextlib.suppress(BrokenStream):
        asked.extend(requests.feed(header))
        asked.extend(requests.feed(spoilt))
    last = requests.end()
    assert [*asked, *([last] if last else [])] == [BadCall(method, 3, error)]


async def test_what_came_before_garbage_is_served(place: Place) -> None:
    """In one packet with it: a put that was whole is done, a body that is none is answered."""
    encoder = Encoder()
    put = encoder.encode(REQUEST, {"ServiceMethod": "RPCServer.PutWithID", "Seq": 1})
    put += encoder.encode(JOB, {"ID": "a"})
    ping = encoder.encode(REQUEST, {"ServiceMethod": "RPCServer.Ping", "Seq": 2})
    reader, writer = await asyncio.open_connection(*place.front.addresses[0])
    writer.write(put + ping + b"\x80garbage")
    answer = await reader.read()
    assert b"RPCServer.PutWithID" in answer
    assert b"gob: encoded unsigned integer out of range" in answer
    assert place.jobs("ready") == ["a"]
    writer.close()


def _conversation() -> bytes:
    encoder, out = Encoder(), b""
    calls: list[tuple[str, Kind, Any]] = [
        ("RPCServer.PutWithID", JOB, {"Body": b"hi", "ID": "a", "Delay": 5}),
        ("RPCServer.Next", INT, 7),
        ("Nobody.Next", Slice(JOB), [{"ID": "x"}, {}]),
        ("RPCServer.Cancel", STRING, "a"),
    ]
    for seq, (method, kind, argument) in enumerate(calls):
        out += encoder.encode(REQUEST, {"ServiceMethod": method, "Seq": seq})
        out += encoder.encode(kind, argument)
    return out


_STREAM = _conversation()
_ASKED = [
    Call("RPCServer.PutWithID", 0, {"Body": b"hi", "ID": "a", "Delay": 5}, 12),
    Call("RPCServer.Next", 1, 7, 3),
    BadCall("Nobody.Next", 2, "rpc: can't find service Nobody.Next"),
    Call("RPCServer.Cancel", 3, "a", 4),
]


@pytest.mark.parametrize("cut", range(len(_STREAM)))
def test_every_split_is_the_same_conversation(cut: int) -> None:
    """In two pieces, wherever it is cut."""
    requests = Requests()
    assert [*requests.feed(_STREAM[:cut]), *requests.feed(_STREAM[cut:])] == _ASKED
    assert requests.end() is None


@given(st.data())
def test_spoilt_conversations_end_or_go_on(data: st.DataObject) -> None:
    """Bytes changed, left out or added: answers, or the end, and nothing else is raised."""
    spoilt = bytearray(_STREAM)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    requests, answers = Requests(), Answers()
    try:
        for asked in requests.feed(bytes(spoilt)):
            assert answers.error(asked, "x")
    except BrokenStream:
        return
    requests.end()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(st.binary(max_size=60), st.just(_STREAM)), max_size=4))
async def test_garbage_on_the_wire_leaves_nothing_behind(place: Place, pieces: list[bytes]) -> None:
    """Whatever a stranger sends, its connection ends and nobody waits for it."""
    reader, writer = await asyncio.open_connection(*place.front.addresses[0])
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 5.0)
    writer.close()
    await until(lambda: not place.front._server.connections and not place.node.parked)
