"""katexochen/sync's FIFO service, row by row, over real sockets against the real machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysyncobj import syncobj

from cluster.errors import NoLeader, ShuttingDown, Timeout
from cluster.fronts import sync
from cluster.fronts.desk import Desk
from cluster.fronts.front import Surroundings
from cluster.fronts.registry import MAKERS
from cluster.fronts.sync import SyncFront, parse_uuid
from cluster.machine import limits
from cluster.machine.commands import Command
from cluster.machine.commands.fifos import (
    AwaitTurn,
    CreateFifo,
    DestroyFifo,
    JoinFifo,
    LeaveFifo,
)
from cluster.machine.outcome.fifos import FifoInfo, HoldInfo
from cluster.node import config
from cluster.testing.local_node import LocalNode
from tests.fronts.asking import Asker, around, asking, until
from tests.gateway.solo_node import SoloNode

HOUR_MS = 3_600_000
TEXT = "text/plain; charset=utf-8"
NOBODY = "11111111-2222-4333-8444-555555555555"


@pytest.fixture
async def api() -> AsyncIterator[Asker]:
    """The front before a node alone, whose time the test moves."""
    node = LocalNode()
    async with asking(SyncFront(around(node)), node) as asker:
        yield asker


@pytest.fixture
async def strict() -> AsyncIterator[Asker]:
    """The same with the durations of the original's code."""
    node = LocalNode()
    async with asking(SyncFront(around(node), is_strict=True), node) as asker:
        yield asker


async def made(api: Asker, query: str = "") -> str:
    """Make a fifo; gives its UUID."""
    got = await api.get(f"/fifo/new{query}")
    assert got.status == 200, got
    return str(json.loads(got.body)["uuid"])


async def taken(api: Asker, fifo: str, query: str = "") -> str:
    """Take a ticket; gives its UUID."""
    got = await api.get(f"/fifo/{fifo}/ticket{query}")
    assert got.status == 200, got
    return str(json.loads(got.body)["ticket"])


def info(api: Asker, fifo: str) -> FifoInfo:
    """The native picture of a fifo."""
    found = api.node.machine.fifos.info(fifo, api.node.now_ms())
    assert found is not None
    return found  # type: ignore[no-any-return]


def line(api: Asker, fifo: str) -> list[tuple[str, str]]:
    """Tickets and their states."""
    turns = api.node.machine.fifos.turns(fifo, api.node.now_ms())
    return [(turn.ticket, turn.state) for turn in turns]


class TestNew:
    async def test_gives_a_uuid_of_version_4(self, api: Asker) -> None:
        """As one JSON document with a newline, and nothing beside."""
        got = await api.get("/fifo/new")
        assert re.fullmatch(rb'\{"uuid":"[0-9a-f-]{36}"\}\n', got.body)
        assert uuid.UUID(json.loads(got.body)["uuid"]).version == 4
        assert got.headers["Content-Type"] == "application/json"
        assert set(got.headers) == {"Content-Type", "Content-Length", "Date"}

    async def test_has_the_codes_defaults(self, api: Asker) -> None:
        """6h, 1m, 20m and 720h; no overrides."""
        fifo = await made(api)
        assert info(api, fifo) == FifoInfo(
            fifo, 6 * HOUR_MS, 60_000, 1_200_000, 720 * HOUR_MS, False, 0, 720 * HOUR_MS,
            HoldInfo(0, None, None),
        )  # fmt: skip

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "QUERY", "HEAD"])
    async def test_takes_every_method(self, api: Asker, method: str) -> None:
        """Its patterns name none."""
        got = await api.call(method, "/fifo/new?wait_timeout=1s")
        assert got.status == 200
        (fifo,) = api.node.machine.fifos
        assert fifo.wait_timeout_ms == 1_000
        assert (got.body == b"") == (method == "HEAD")

    @pytest.mark.parametrize(
        ("text", "ms"),
        [
            ("", 60_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1d12h", 129_600_000),
            ("1.5s", 1_500),
            ("0", 0),
            ("0s", 0),
            ("-0h", 0),
            ("1ns", 1),
            ("1000001ns", 2),
            ("-5s", sync.AT_ONCE_MS),
            ("2500000h", limits.LENGTH_MS_MAX),
        ],
    )
    async def test_reads_durations_and_days(self, api: Asker, text: str, ms: int) -> None:
        """Zero is none, as its README has it; less than nothing is at once."""
        fifo = await made(api, f"?accept_timeout={text}")
        assert info(api, fifo).accept_timeout_ms == ms

    @pytest.mark.parametrize(("text", "ms"), [("0", 1), ("-1h", 1), ("1s", 1_000), ("", 60_000)])
    async def test_strictly_zero_is_at_once(self, strict: Asker, text: str, ms: int) -> None:
        """As its code has it."""
        fifo = await made(strict, f"?accept_timeout={text}")
        assert info(strict, fifo).accept_timeout_ms == ms

    async def test_strictly_there_are_no_days(self, strict: Asker) -> None:
        """Go's own grammar."""
        got = await strict.get("/fifo/new?done_timeout=2d")
        assert got.said == (400, "invalid done timeout\n")

    async def test_what_is_unused_at_once_goes_when_the_original_would_look(
        self, strict: Asker
    ) -> None:
        """Every five minutes; else nobody could use it at all."""
        fifo = await made(strict, "?unused_destroy_timeout=0")
        assert info(strict, fifo).unused_destroy_ms == sync.COLLECTED_EVERY_MS

    async def test_complains_in_order(self, api: Asker) -> None:
        """Of the first bad one of four."""
        names = ["wait", "accept", "done", "unused_destroy"]
        query = "&".join(f"{name}_timeout=soon" for name in reversed(names))
        for name in names:
            got = await api.get(f"/fifo/new?{query}")
            assert got.said == (400, f"invalid {name.replace('_', ' ')} timeout\n")
            assert got.headers["Content-Type"] == TEXT
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            query = query.replace(f"&{name}_timeout=soon", "").replace(f"{name}_timeout=soon", "")
        assert api.node.machine.counts().fifos == 0

    @pytest.mark.parametrize(
        ("text", "allowed"), [("true", True), ("True", False), ("1", False), ("", False)]
    )
    async def test_overrides_are_allowed_by_one_word(
        self, api: Asker, text: str, allowed: bool
    ) -> None:
        """Exactly `true`."""
        fifo = await made(api, f"?allow_overrides={text}")
        assert info(api, fifo).allow_overrides is allowed

    @pytest.mark.parametrize("head", ["name*0*", "(" * 9_000])
    async def test_a_form_that_is_none_is_as_good_as_none(self, api: Asker, head: str) -> None:
        """Its query counts, as for Go's handlers."""
        form = f"--X\r\nContent-Disposition: form-data; {head}\r\n\r\n1s\r\n--X--"
        headers = {"Content-Type": "multipart/form-data; boundary=X"}
        path = "/fifo/new?wait_timeout=2s"
        assert (await api.call("POST", path, data=form, headers=headers)).status == 200
        (fifo,) = api.node.machine.fifos
        assert fifo.wait_timeout_ms == 2_000

    async def test_a_form_wins_over_the_query(self, api: Asker) -> None:
        """As FormValue looks."""
        data = {"wait_timeout": "7s", "allow_overrides": "true"}
        got = await api.call("POST", "/fifo/new?wait_timeout=1s&done_timeout=2s", data=data)
        fifo = json.loads(got.body)["uuid"]
        assert info(api, fifo).wait_timeout_ms == 7_000
        assert info(api, fifo).done_timeout_ms == 2_000
        assert info(api, fifo).allow_overrides

    async def test_a_full_house_is_its_database_error(
        self, api: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no other word for it."""
        monkeypatch.setattr(limits, "FIFOS_MAX", 0)
        assert (await api.get("/fifo/new")).said == (500, "db create failed\n")


class TestTicket:
    async def test_stands_at_the_end_and_the_first_is_notified(self, api: Asker) -> None:
        """Nobody has to be waiting."""
        fifo = await made(api)
        got = await api.get(f"/fifo/{fifo}/ticket")
        assert re.fullmatch(rb'\{"ticket":"[0-9a-f-]{36}"\}\n', got.body)
        assert got.headers["Content-Type"] == "application/json"
        first = json.loads(got.body)["ticket"]
        assert uuid.UUID(first).version == 4
        second = await taken(api, fifo)
        assert line(api, fifo) == [(first, "notified"), (second, "waiting")]

    @pytest.mark.parametrize("text", ["nonsense", "1", NOBODY[:-1], f"{NOBODY}0", "%20", "%ff"])
    async def test_of_no_uuid_is_a_bad_request(self, api: Asker, text: str) -> None:
        """Whatever it is."""
        assert (await api.get(f"/fifo/{text}/ticket")).said == (400, "invalid uuid\n")

    async def test_of_no_fifo_is_not_found(self, api: Asker) -> None:
        """Before its parameters are looked at."""
        got = await api.get(f"/fifo/{NOBODY}/ticket?wait_timeout=soon")
        assert got.said == (404, "fifo not found\n")
        got = await api.get(f"/fifo/{uuid.UUID(int=0)}/ticket")
        assert got.said == (404, "fifo not found\n")

    async def test_every_spelling_of_its_fifo_will_do(self, api: Asker) -> None:
        """All that google/uuid takes."""
        fifo = await made(api)
        bare = fifo.replace("-", "")
        for text in (f"urn:uuid:{fifo}", f"{{{fifo}}}", bare, fifo.upper(), f"URN:UUID:{fifo}"):
            assert (await api.get(f"/fifo/{text}/ticket")).status == 200
        assert info(api, fifo).length == 5

    async def test_brings_its_own_times_where_it_may(self, api: Asker) -> None:
        """And complains of bad ones in order."""
        fifo = await made(api, "?allow_overrides=true")
        ticket = await taken(api, fifo, "?wait_timeout=3s&accept_timeout=0&done_timeout=1d")
        found = api.node.machine.fifos._tickets[ticket]
        times = (found.wait_timeout_ms, found.accept_timeout_ms, found.done_timeout_ms)
        assert times == (3_000, 0, 86_400_000)
        for query, said in (
            ("done_timeout=x&accept_timeout=x&wait_timeout=x", "invalid wait timeout\n"),
            ("done_timeout=x&accept_timeout=x", "invalid accept timeout\n"),
            ("done_timeout=x&unused_destroy_timeout=x", "invalid done timeout\n"),
        ):
            assert (await api.get(f"/fifo/{fifo}/ticket?{query}")).said == (400, said)
        assert info(api, fifo).length == 1

    async def test_elsewhere_its_times_are_left_out(self, api: Asker) -> None:
        """In silence, even if they are none."""
        fifo = await made(api)
        for query in ("?wait_timeout=3s", "?wait_timeout=soon&done_timeout=3s"):
            ticket = await taken(api, fifo, query)
            found = api.node.machine.fifos._tickets[ticket]
            assert (found.wait_timeout_ms, found.done_timeout_ms) == (6 * HOUR_MS, 1_200_000)

    async def test_a_full_queue_is_its_database_error(
        self, api: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no other word for it."""
        fifo = await made(api)
        monkeypatch.setattr(limits, "TICKETS_PER_FIFO_MAX", 0)
        assert (await api.get(f"/fifo/{fifo}/ticket")).said == (500, "db create failed\n")


class TestWait:
    async def test_of_the_head_is_at_once_and_accepts_it(self, api: Asker) -> None:
        """With an empty body of no type; again and again the same."""
        fifo = await made(api)
        ticket = await taken(api, fifo)
        for _ in range(3):
            got = await api.get(f"/fifo/{fifo}/wait/{ticket}")
            assert got.said == (200, "")
            assert set(got.headers) == {"Content-Length", "Date"}
        assert line(api, fifo) == [(ticket, "accepted")]

    async def test_of_another_waits_for_its_turn_and_all_are_told(self, api: Asker) -> None:
        """Any number of callers on one ticket, each released by the `done` before it."""
        fifo = await made(api)
        first, second = await taken(api, fifo), await taken(api, fifo)
        await api.get(f"/fifo/{fifo}/wait/{first}")
        waiting = [
            await api.begin(f"/fifo/{fifo}/wait/{second}", parked=place) for place in range(1, 5)
        ]
        assert not any(one.done() for one in waiting)
        assert (await api.get(f"/fifo/{fifo}/done/{first}")).said == (200, "")
        assert {(await one).said for one in waiting} == {(200, "")}
        assert line(api, fifo) == [(second, "accepted")]

    async def test_ends_after_its_time_and_the_ticket_keeps_its_place(self, api: Asker) -> None:
        """408 for each call by itself."""
        fifo = await made(api, "?wait_timeout=30s&accept_timeout=0")
        await taken(api, fifo)
        second = await taken(api, fifo)
        for _ in range(2):
            asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
            api.node.advance(29_999)
            await asyncio.sleep(0)
            assert not asked.done()
            api.node.advance(1)
            assert (await asked).said == (408, "wait timeout reached\n")
        assert line(api, fifo)[1] == (second, "waiting")

    async def test_without_a_timeout_it_waits_on(self, api: Asker) -> None:
        """Zero is none."""
        fifo = await made(api, "?wait_timeout=0&accept_timeout=0&unused_destroy_timeout=1s")
        first, second = await taken(api, fifo), await taken(api, fifo)
        asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
        api.node.advance(1_000 * HOUR_MS)
        await api.get(f"/fifo/{fifo}/done/{first}")
        assert (await asked).status == 200

    async def test_strictly_zero_has_no_patience(self, strict: Asker) -> None:
        """408 at once, but for the head."""
        fifo = await made(strict, "?wait_timeout=0")
        first, second = await taken(strict, fifo), await taken(strict, fifo)
        assert (await strict.get(f"/fifo/{fifo}/wait/{first}")).status == 200
        asked = await strict.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
        strict.node.advance(1)
        assert (await asked).status == 408

    async def test_is_released_by_done_on_its_own_ticket(self, api: Asker) -> None:
        """Whoever says so, and although it was not its turn."""
        fifo = await made(api)
        await taken(api, fifo)
        second = await taken(api, fifo)
        asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
        assert (await api.get(f"/fifo/{fifo}/done/{second}")).status == 200
        assert (await asked).said == (200, "")

    async def test_asks_no_one_before_it_stands(self, api: Asker) -> None:
        """A hundred waits and a `done` in one burst: who came before it is never too late."""
        fifo = await made(api)
        ticket, other = await taken(api, fifo), await taken(api, fifo)
        await api.get(f"/fifo/{fifo}/wait/{ticket}")
        reader, writer = await asyncio.open_connection(*api.address)
        burst = [f"/fifo/{fifo}/wait/{ticket}"] * 100 + [f"/fifo/{fifo}/done/{ticket}"]
        for path in burst:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        heads = [await reader.readuntil(b"\r\n\r\n") for _ in burst]
        assert {head.split(b"\r\n")[0] for head in heads} == {b"HTTP/1.1 200 OK"}
        waits = [asyncio.create_task(api.get(f"/fifo/{fifo}/wait/{other}")) for _ in range(50)]
        assert {(await one).status for one in waits} == {200}
        writer.close()

    @pytest.mark.both_loops
    async def test_done_lets_those_wait_who_came_before_it(self) -> None:
        """Also who still stands in the kernel's queue, while `done` comes on an open connection."""
        node = LocalNode()
        async with asking(SyncFront(around(node)), node) as api:
            fifo = await made(api)
            tickets = [await taken(api, fifo) for _ in range(2)]
            await api.get(f"/fifo/{fifo}/wait/{tickets[0]}")
            reader, writer = await asyncio.open_connection(*api.address)
            open_already = writer.get_extra_info("socket")
            await until(lambda: api.front.connections == 2)  # type: ignore[attr-defined]
            # Nothing of this loop runs from here on until all of it is sent.
            waiting = [socket.create_connection(api.address) for _ in range(200)]
            for place, one in enumerate(waiting):
                path = f"/fifo/{fifo}/wait/{tickets[place % 2]}"
                one.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            done = f"GET /fifo/{fifo}/done/{tickets[0]} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            os.write(open_already.fileno(), done)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            await until(lambda: node.parked == 0)
            loop = asyncio.get_running_loop()
            for one in waiting:
                one.setblocking(False)
                assert (await loop.sock_recv(one, 100)).startswith(b"HTTP/1.1 200")
                one.close()
            assert line(api, fifo) == [(tickets[1], "accepted")]
            writer.close()

    @pytest.mark.both_loops
    async def test_done_lets_those_ask_who_had_connected_before_it(self) -> None:
        """A busy client may connect long before its request goes out."""
        node = LocalNode()
        async with asking(SyncFront(around(node), newcomers_s=60.0), node) as api:
            fifo = await made(api)
            ticket = await taken(api, fifo)
            await api.get(f"/fifo/{fifo}/wait/{ticket}")
            reader, writer = await asyncio.open_connection(*api.address)
            gone = (await asyncio.open_connection(*api.address))[1]
            await until(lambda: api.front.connections == 3)  # type: ignore[attr-defined]
            done = asyncio.create_task(api.get(f"/fifo/{fifo}/done/{ticket}"))
            for _ in range(1_000):
                await asyncio.sleep(0)
            writer.write(f"GET /fifo/{fifo}/wait/{ticket} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert not done.done()
            gone.close()
            assert (await done).said == (200, "")
            writer.close()

    async def test_a_full_house_is_its_queue_error(
        self, api: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """There is no other word for it."""
        fifo = await made(api)
        await taken(api, fifo)
        second = await taken(api, fifo)
        monkeypatch.setattr(limits, "PARKED_MAX", 0)
        got = await api.get(f"/fifo/{fifo}/wait/{second}")
        assert got.said == (500, "updating ticket queue failed\n")


class TestDone:
    async def test_promotes_the_next(self, api: Asker) -> None:
        """In whatever state the ticket was; a second time there is none."""
        fifo = await made(api)
        tickets = [await taken(api, fifo) for _ in range(4)]
        await api.get(f"/fifo/{fifo}/wait/{tickets[0]}")
        for gone in (2, 0, 1):
            got = await api.get(f"/fifo/{fifo}/done/{tickets[gone]}")
            assert got.said == (200, "")
            assert set(got.headers) == {"Content-Length", "Date"}
            again = await api.get(f"/fifo/{fifo}/done/{tickets[gone]}")
            assert again.said == (404, "ticket not found\n")
        assert line(api, fifo) == [(tickets[3], "notified")]

    async def test_happens_even_if_nobody_hears_the_answer(self, api: Asker) -> None:
        """Its caller may leave at once."""
        fifo = await made(api)
        ticket = await taken(api, fifo)
        _, writer = await asyncio.open_connection(*api.address)
        writer.write(f"GET /fifo/{fifo}/done/{ticket} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        writer.close()
        await until(lambda: not line(api, fifo))


@pytest.mark.parametrize("call", ["wait", "done"])
class TestWaitAndDone:
    @pytest.mark.parametrize("text", ["nonsense", NOBODY[1:], "%7B", "%ff"])
    async def test_of_no_uuid_is_a_bad_request(self, api: Asker, call: str, text: str) -> None:
        """Whatever the fifo."""
        got = await api.get(f"/fifo/nonsense/{call}/{text}")
        assert got.said == (400, "invalid ticket uuid\n")
        assert got.headers["Content-Type"] == TEXT

    async def test_of_no_ticket_is_not_found(self, api: Asker, call: str) -> None:
        """Whether there is such a fifo, or could be."""
        fifo = await made(api)
        for part in (fifo, NOBODY, "nonsense", fifo.upper(), "%0a", "%ff", "x" * 300):
            got = await api.get(f"/fifo/{part}/{call}/{NOBODY}")
            assert got.said == (404, "ticket not found\n"), part

    async def test_of_another_fifo_is_a_bad_request(self, api: Asker, call: str) -> None:
        """The fifo's text is compared with the canonical one; of the ticket any spelling will do."""
        fifo, other = await made(api), await made(api)
        ticket = await taken(api, fifo)
        for part in (other, NOBODY, fifo.upper(), f"{{{fifo}}}", fifo.replace("-", ""), "%0a"):
            got = await api.get(f"/fifo/{part}/{call}/{ticket}")
            assert got.said == (400, "ticket does not belong to fifo\n"), part
        assert line(api, fifo) == [(ticket, "notified")]
        got = await api.get(f"/fifo/{fifo}/{call}/urn:uuid:{ticket.upper()}")
        assert got.said == (200, "")

    async def test_of_a_fifo_that_went_is_not_found(self, api: Asker, call: str) -> None:
        """Its tickets went with it."""
        fifo = await made(api, "?unused_destroy_timeout=10s&accept_timeout=0")
        ticket = await taken(api, fifo)
        api.node.advance(10_000)
        got = await api.get(f"/fifo/{fifo}/{call}/{ticket}")
        assert got.said == (404, "ticket not found\n")


class TestTimeouts:
    async def test_a_turn_nobody_accepts_goes_to_the_next(self, api: Asker) -> None:
        """The ticket is gone, and a wait for it comes too late."""
        fifo = await made(api, "?accept_timeout=5s")
        first, second = await taken(api, fifo), await taken(api, fifo)
        asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
        api.node.advance(4_999)
        assert line(api, fifo)[0] == (first, "notified")
        api.node.advance(1)
        assert (await asked).status == 200
        assert line(api, fifo) == [(second, "accepted")]
        got = await api.get(f"/fifo/{fifo}/wait/{first}")
        assert got.said == (404, "ticket not found\n")

    async def test_a_turn_that_is_not_done_goes_to_the_next(self, api: Asker) -> None:
        """Its clock is armed by the acceptance itself, with nobody calling in between."""
        fifo = await made(api, "?done_timeout=8s")
        first, second = await taken(api, fifo), await taken(api, fifo)
        asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
        await api.get(f"/fifo/{fifo}/wait/{first}")
        api.node.advance(8_000)
        assert (await asked).status == 200
        got = await api.get(f"/fifo/{fifo}/done/{first}")
        assert got.said == (404, "ticket not found\n")

    async def test_zero_never_ends_a_turn(self, api: Asker) -> None:
        """As its README promises."""
        fifo = await made(api, "?accept_timeout=0&done_timeout=0&unused_destroy_timeout=0")
        first, second = await taken(api, fifo), await taken(api, fifo)
        api.node.advance(1_000 * HOUR_MS)
        await api.get(f"/fifo/{fifo}/wait/{first}")
        api.node.advance(1_000 * HOUR_MS)
        assert line(api, fifo) == [(first, "accepted"), (second, "waiting")]

    async def test_an_unused_fifo_goes_with_its_tickets(self, api: Asker) -> None:
        """A ticket, a wait and `done` are uses; who waits is never driven out."""
        fifo = await made(api, "?unused_destroy_timeout=10s&accept_timeout=0")
        first, second = await taken(api, fifo), await taken(api, fifo)
        asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
        api.node.advance(30_000)
        await api.get(f"/fifo/{fifo}/done/{first}")
        assert (await asked).status == 200
        api.node.advance(9_999)
        assert line(api, fifo) == [(second, "accepted")]
        api.node.advance(1)
        assert (await api.get(f"/fifo/{fifo}/ticket")).said == (404, "fifo not found\n")
        assert api.node.machine.counts().fifo_tickets == 0

    @pytest.mark.parametrize(
        ("accepts", "said"), [(False, "was not accepted in time"), (True, "was not marked as done")]
    )
    async def test_a_wait_that_meets_the_end_of_its_ticket_is_told_which(
        self, accepts: bool, said: str
    ) -> None:
        """It came while the ticket was there, and was held over the end of its time."""
        node = LocalNode()
        async with asking(SyncFront(around(node)), node) as api:
            fifo = await made(api, "?accept_timeout=5s&done_timeout=5s")
            ticket = await taken(api, fifo)
            if accepts:
                await api.get(f"/fifo/{fifo}/wait/{ticket}")
            node.fail_with = NoLeader("nobody leads")
            asked = asyncio.create_task(api.get(f"/fifo/{fifo}/wait/{ticket}"))
            taken_before = len(node.taken)
            await until(lambda: len(node.taken) > taken_before)
            assert isinstance(node.taken[-1], AwaitTurn)
            node.advance(5_000)
            node.fail_with = None
            got = await asked
            assert got.status == 410
            assert got.body.decode().startswith(f"ticket {ticket} {said}")
            assert got.body.endswith(b" in time\n")


class TestClientsThatGo:
    async def test_a_waiter_that_went_accepts_nothing(self, api: Asker) -> None:
        """Its ticket keeps its place, is notified in its turn, and lost in time."""
        fifo = await made(api, "?accept_timeout=5s")
        tickets = [await taken(api, fifo) for _ in range(3)]
        gone = await api.begin(f"/fifo/{fifo}/wait/{tickets[1]}", parked=1)
        last = await api.begin(f"/fifo/{fifo}/wait/{tickets[2]}", parked=2)
        gone.cancel()
        await until(lambda: api.node.parked == 1)
        await api.get(f"/fifo/{fifo}/done/{tickets[0]}")
        assert line(api, fifo)[0] == (tickets[1], "notified")
        api.node.advance(5_000)
        assert (await last).status == 200

    @pytest.mark.parametrize(
        ("path", "first", "then"),
        [("/fifo/new", CreateFifo, DestroyFifo), ("/fifo/{fifo}/ticket", JoinFifo, LeaveFifo)],
    )
    async def test_what_was_made_for_one_that_went_is_taken_back(
        self, path: str, first: type[Command], then: type[Command]
    ) -> None:
        """A GET that is sent twice by its transport leaves one thing, not two."""
        node = LocalNode()
        async with asking(SyncFront(around(node)), node) as api:
            fifo = await made(api)
            before = node.machine.counts()
            node.fail_with = NoLeader("nobody leads")
            asked = asyncio.create_task(api.get(path.format(fifo=fifo)))
            taken_before = len(node.taken)
            await until(lambda: len(node.taken) > taken_before)
            assert isinstance(node.taken[-1], first)
            asked.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asked
            await until(lambda: api.front.connections == 0)  # type: ignore[attr-defined]
            node.fail_with = None
            await until(lambda: isinstance(node.taken[-1], then))
            assert node.machine.counts() == before

    async def test_what_is_never_answered_ends_with_the_front(self) -> None:
        """Nothing is left behind, whatever the cluster does."""
        node = LocalNode()
        async with asking(SyncFront(around(node)), node) as api:
            node.is_silent = True
            asked = asyncio.create_task(api.get("/fifo/new"))
            await until(lambda: len(node.taken) > 0)
            asked.cancel()
            await until(lambda: api.front.connections == 0)  # type: ignore[attr-defined]
            await api.front.stop(0.0)

    async def test_a_thousand_waits_do_no_harm(self, api: Asker) -> None:
        """They stand and leave, and nothing of them stays: no request, no wait, no descriptor."""
        fifo = await made(api, "?accept_timeout=0&wait_timeout=0")
        tickets = [await taken(api, fifo) for _ in range(11)]
        await api.get(f"/fifo/{fifo}/wait/{tickets[0]}")
        before = _descriptors()
        waiting = []
        for place in range(1_000):
            reader, writer = await asyncio.open_connection(*api.address)
            path = f"/fifo/{fifo}/wait/{tickets[1 + place % 10]}"
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            waiting.append((reader, writer))
        await until(lambda: api.node.parked == 1_000)
        assert (await api.get(f"/fifo/{fifo}/wait/{tickets[0]}")).status == 200
        assert api.node.machine.counts().parked == 1_000
        for place, (_, writer) in enumerate(waiting):
            if place % 10:
                writer.transport.abort()
        await until(lambda: api.node.parked == 100)
        await api.get(f"/fifo/{fifo}/done/{tickets[0]}")
        for reader, writer in waiting[::10]:
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
            writer.close()
        assert line(api, fifo)[0] == (tickets[1], "accepted")
        await until(lambda: _descriptors() <= before)
        counts = api.node.machine.counts()
        assert (counts.parked, counts.fifo_tickets) == (0, 10)
        assert api.node.machine.next_deadline_ms() is not None
        assert api.node.parked == api.node.under_way == 0


class TestCluster:
    async def test_an_election_is_waited_for(self) -> None:
        """No client ever hears of one."""
        node = LocalNode()
        async with asking(SyncFront(around(node)), node) as api:
            node.fail_with = NoLeader("nobody leads")
            asked = asyncio.create_task(api.get("/fifo/new"))
            await until(lambda: len(node.taken) > 0)
            assert not asked.done()
            node.fail_with = None
            assert (await asked).status == 200

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("/fifo/new", "db create failed\n"),
            (f"/fifo/{NOBODY}/ticket", "db query failed\n"),
            (f"/fifo/{NOBODY}/wait/{NOBODY}", "updating ticket queue failed\n"),
            (f"/fifo/{NOBODY}/done/{NOBODY}", "db delete failed\n"),
            (f"/fifo/x/done/{NOBODY}", "db delete failed\n"),
        ],
    )
    async def test_without_an_answer_it_is_a_database_error(self, path: str, said: str) -> None:
        """In the end; a node that leaves says nothing, as a process that ended would."""
        node = LocalNode()
        bare = around(node)
        desk = Desk(node, patience_s=0.01)
        front = SyncFront(
            Surroundings(
                node=node,
                desk=desk,
                clock=bare.clock,
                wall_ms=bare.wall_ms,
                draw=bare.draw,
                version="0",
            )
        )
        async with asking(front, node) as api:
            node.fail_with = Timeout("late")
            assert (await api.get(path)).said == (500, said)
            node.fail_with = ShuttingDown("leaving")
            with pytest.raises(aiohttp.ClientConnectionError):
                await api.get(path)

    async def test_natives_see_and_use_the_same_things(self, api: Asker) -> None:
        """A fifo made here is a fifo, and one of such a name is found here."""
        await api.front._desk.ask(CreateFifo(NOBODY, 0, 0, 0, 0))  # type: ignore[attr-defined]
        ticket = await taken(api, NOBODY)
        assert line(api, NOBODY) == [(ticket, "notified")]

    async def test_is_made_by_its_row_of_the_table(self) -> None:
        """With its own switch."""
        node = LocalNode()
        flags = {"node": "n1", "data": "d", "front_sync": "127.0.0.1:0", "front_sync_strict": "on"}
        front = MAKERS["sync"](config.load(flags, {}), around(node))
        async with asking(front, node) as api:
            assert (await api.get("/fifo/new?wait_timeout=1d")).status == 400

    async def test_works_on_a_real_node(self, tmp_path: Path) -> None:
        """Replication, journal and snapshot below it, alone in its cluster."""
        solo = SoloNode(tmp_path)
        try:
            solo.lead()
            async with asking(SyncFront(around(solo.node)), solo.node) as api:
                fifo = await made(api, "?done_timeout=5s")
                first, second = await taken(api, fifo), await taken(api, fifo)
                assert (await api.get(f"/fifo/{fifo}/wait/{first}")).status == 200
                asked = await api.begin(f"/fifo/{fifo}/wait/{second}", parked=1)
                solo.advance(5_000)
                assert (await asked).status == 200
                assert (await api.get(f"/fifo/{fifo}/done/{second}")).status == 200
        finally:
            solo.close()
            syncobj.monotonicTime = _MONOTONIC


class TestRouter:
    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/fifo",
            "/fifo/",
            "/fifo/new/",
            "/fifo/ticket",
            f"/fifo/{NOBODY}",
            f"/fifo/{NOBODY}/ticket/",
            f"/fifo/{NOBODY}/wait",
            f"/fifo/{NOBODY}/wait/",
            f"/fifo/{NOBODY}/done/{NOBODY}/",
            f"/fifo/{NOBODY}/wait/{NOBODY}/x",
        ],
    )
    async def test_other_paths_are_not_found(self, api: Asker, path: str) -> None:
        """A slash at the end is another path."""
        assert (await api.get(path)).said == (404, "404 page not found\n")

    async def test_unclean_paths_are_redirected(self, api: Asker) -> None:
        """As Go's client follows."""
        got = await api.get("/fifo//new?wait_timeout=1s")
        assert (got.status, got.headers["Location"]) == (301, "/fifo/new?wait_timeout=1s")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (NOBODY, True),
        (NOBODY.upper(), True),
        (NOBODY.replace("-", ""), True),
        (f"urn:uuid:{NOBODY}", True),
        (f"{{{NOBODY}}}", True),
        (f"<{NOBODY}>", True),
        (f"xyz:uuid:{NOBODY}", False),
        (f"\udcff{NOBODY}x", True),
        (f"é{NOBODY}", False),
        (NOBODY.replace("-", "_"), False),
        (NOBODY[:-1] + "g", False),
        (NOBODY[:-1] + "١", False),
        ("", False),
    ],
)
def test_uuids_are_read_as_google_uuid_reads_them(text: str, is_one: bool) -> None:
    """Five spellings, and of braces only the room for them."""
    assert parse_uuid(text) == (NOBODY if is_one else None)


_SEGMENT = st.sampled_from([NOBODY, "%7B" + NOBODY + "%7D", "new", "", "..", "%2e", "%", "é"]) | (
    st.text(max_size=40).map(lambda text: "".join(f"%{byte:02x}" for byte in text.encode()))
)


@given(
    path=st.lists(
        st.sampled_from(["fifo", "ticket", "wait", "done", "new"]) | _SEGMENT, max_size=5
    ),
    query=st.text(max_size=60),
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT"]),
    junk=st.binary(max_size=60),
    cut=st.integers(0, 400),
)
@settings(max_examples=60)
def test_no_request_whatever_harms_it(
    path: list[str], query: str, method: str, junk: bytes, cut: int
) -> None:
    """Cut anywhere, followed by garbage: it answers or closes, and serves the next one."""

    async def run() -> None:
        node = LocalNode()
        async with asking(SyncFront(around(node)), node) as api:
            target = "/" + "/".join(path) + "?wait_timeout=" + query
            head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            data = head.encode("utf-8", "replace") + junk
            cut_at = min(cut, len(data))
            reader, writer = await asyncio.open_connection(*api.address)
            with contextlib.suppress(ConnectionError):
                writer.write(data[:cut_at])
                await writer.drain()
                writer.write(data[cut_at:])
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 5.0)
            writer.close()
            assert (await api.get("/fifo/new")).status == 200

    asyncio.run(run())


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


_MONOTONIC: Any = syncobj.monotonicTime
