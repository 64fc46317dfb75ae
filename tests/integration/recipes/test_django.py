"""Django: an order is paid once, and the books of a day are closed once, whoever is asked."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.integration.cluster import Cluster
from tests.integration.recipes.programs import Programs, asked, module, running

pytestmark = pytest.mark.asyncio(loop_scope="package")

ORDERS = (1, 2, 3)
REQUESTS = 6


async def manage(programs: Programs, name: str, *words: str) -> tuple[int, str]:
    """A command of `manage.py`; its exit code, and what it wrote."""
    return await programs.finish(name, "python", "manage.py", *words, **environ(programs))


def environ(programs: Programs) -> dict[str, str]:
    """Settings of the shop."""
    return {"SHOP_DATABASE": str(programs.folder / "shop.db")}


def database(programs: Programs) -> contextlib.closing[sqlite3.Connection]:
    """The shop's tables."""
    return contextlib.closing(sqlite3.connect(programs.folder / "shop.db", timeout=30))


async def test_its_own_tests_pass(cluster: Cluster, tmp_path: Path) -> None:
    """`manage.py test`: repeats, refusals and a stale token, with Django's test client."""
    async with running(cluster, "django", tmp_path) as programs:
        code, said = await manage(programs, "tests", "test", "--verbosity", "2")
        assert code == 0, said
        assert "Ran 3 tests" in said


async def test_an_order_is_paid_once(cluster: Cluster, tmp_path: Path) -> None:
    """Many requests for each order at once, at two processes that were forked from one, with four
    threads each: one of them charges, and all get its receipt. Then all servers close the day.
    """
    async with running(cluster, "django", tmp_path) as programs:
        code, said = await manage(programs, "migrate", "migrate")
        assert code == 0, said
        with database(programs) as db, db:
            db.executemany(
                "INSERT INTO shop_order (id, cents, receipt, fence) VALUES (?, 500, '', 0)",
                [(order,) for order in ORDERS],
            )
        gunicorn = await programs.start(
            "gunicorn",
            *module("gunicorn", "--bind", "127.0.0.1:0", "--preload"),
            *("--workers", "2", "--threads", "4", "shop.wsgi"),
            **environ(programs),
        )
        port = (await gunicorn.until_said(r"Listening at: http://127\.0\.0\.1:(\d+)")).group(1)
        async with aiohttp.ClientSession() as http:

            async def pay(order: int) -> tuple[int, int, str]:
                url = f"http://127.0.0.1:{port}/orders/{order}/pay"
                status, body = await asked(http, "POST", url)
                return order, status, body["receipt"]

            paying = [pay(order) for order in ORDERS for _ in range(REQUESTS)]
            answers = await asyncio.gather(*paying)
        assert Counter(answer[:2] for answer in answers) == {
            (order, status): count
            for order in ORDERS
            for status, count in ((201, 1), (200, REQUESTS - 1))
        }
        assert len({(order, receipt) for order, _, receipt in answers}) == len(ORDERS)
        with database(programs) as db:
            assert db.execute("SELECT asked FROM shop_charge").fetchall() == [(1,)] * len(ORDERS)
        closing = [manage(programs, f"server-{each}", "close_day") for each in (1, 2, 3)]
        ends = await asyncio.gather(*closing)
        assert sum("closed: 1500 cents" in said for _, said in ends) == 1, ends
        for code, said in ends:
            is_elsewhere = code == 75 and "another server is at it" in said
            assert is_elsewhere or (code == 0 and "closed" in said), ends
