"""FastAPI on two servers: nothing is sold twice, the queue is one, and mails outlive a server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from jepsen.progress import progress, until

from cluster.client.aio import Client
from cluster.client.rooms import Room
from tests.integration.cluster import Cluster
from tests.integration.recipes.programs import Program, Programs, asked, module, running

pytestmark = pytest.mark.asyncio(loop_scope="package")

STOCK = 5
BUYERS = 9
MAILS = 6


async def start(programs: Programs, name: str) -> tuple[Program, str]:
    """A server, and its address."""
    server = await programs.start(
        name,
        *module("uvicorn", "shop:app", "--port", "0"),
        SHOP_DATABASE=str(programs.folder / "shop.db"),
    )
    return server, (await server.until_said(r"running on (http://127\.0\.0\.1:\d+)")).group(1)


async def test_two_servers_are_one_shop(cluster: Cluster, tmp_path: Path) -> None:
    """As many buyers as one likes, at both servers at once: what there was is sold, and no more.
    A queue page at one server goes on at the other. One server dies; its mails are sent.
    """
    async with running(cluster, "fastapi", tmp_path) as programs, aiohttp.ClientSession() as http:
        one, two = await asyncio.gather(start(programs, "one"), start(programs, "two"))
        urls = [one[1], two[1]]
        await _sell_out(http, urls)
        async with Client(programs.endpoints, timeout_ms=120_000) as client:
            await _queue(client.room("shop sale"), urls)
        for number in range(MAILS):
            mail = {"address": f"{number}@example.com"}
            status, body = await asked(http, "POST", f"{urls[number % 2]}/mails", json=mail)
            assert (status, body["is_new"]) == (202, True)
        one[0].signal(signal.SIGKILL)
        await one[0].ended()
        await until(_are_sent(tmp_path / "shop.db"), "all mails")
        two[0].signal(signal.SIGTERM)
        await two[0].ended()
        assert "Application shutdown complete" in two[0].said


async def _sell_out(http: aiohttp.ClientSession, urls: list[str]) -> None:
    assert (await asked(http, "PUT", f"{urls[0]}/items/shoe", json={"left": STOCK}))[0] == 200

    async def buy(number: int) -> int:
        return (await asked(http, "POST", f"{urls[number % 2]}/items/shoe"))[0]

    bought = Counter(await asyncio.gather(*(buy(number) for number in range(BUYERS))))
    assert bought == {201: STOCK, 410: BUYERS - STOCK}


async def _queue(sale: Room, urls: list[str]) -> None:
    """The first visitor is let in at once; two wait until the sale lets more in, at any server."""
    await sale.set(window_size=1, window_interval="1h", active_windows=100)
    async with contextlib.AsyncExitStack() as stack:
        visitors = [await stack.enter_async_context(_visitor()) for _ in range(3)]
        pages = [await _page(visitor, urls[0]) for visitor in visitors]
        assert "Welcome" in pages[0]
        assert "1. in the queue" in pages[1]
        assert "2. in the queue" in pages[2]
        assert "2. in the queue" in await _page(visitors[2], urls[1])
        await sale.set(window_size=1, window_interval="100ms", active_windows=100_000)

        async def is_in() -> bool:
            return "Welcome" in await _page(visitors[2], urls[1])

        await until(is_in, "the last visitor let in")
        assert "Welcome" in await _page(visitors[1], urls[1])


def _visitor() -> aiohttp.ClientSession:
    """Somebody with cookies of their own, who takes both servers for one."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def _page(visitor: aiohttp.ClientSession, url: str) -> str:
    async with visitor.get(f"{url}/sale") as response:
        assert response.status == 200
        page = await response.text()
        assert ("Refresh" in response.headers) == ("in the queue" in page)
        return page


def _are_sent(database: Path) -> Callable[[], Awaitable[bool]]:
    async def are_sent() -> bool:
        with contextlib.closing(sqlite3.connect(database, timeout=30)) as db:
            found = [address for (address,) in db.execute("SELECT address FROM outbox")]
        progress.reached(database, len(found))
        return sorted(found) == [f"{number}@example.com" for number in range(MAILS)]

    return are_sent
