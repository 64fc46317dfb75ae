"""The functions of go-session-lock as HTTP calls."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from cluster.errors import ShuttingDown, Timeout
from cluster.fronts.sessionlock.http import BODY_BYTES_MAX, SessionLockFront
from cluster.testing.local_node import LocalNode
from tests.fronts.around import around


class Caller:
    """Calls functions of a front."""

    def __init__(self, http: aiohttp.ClientSession, base: str):
        self._http = http
        self._base = base

    async def __call__(self, path: str, body: object = None, **more: Any) -> tuple[int, Any]:
        """Status, and what the answer says."""
        given = more or {"json": body}
        async with self._http.post(f"{self._base}/{path}", **given) as answer:
            text = await answer.read()
            return answer.status, await answer.json() if text else None


@contextlib.asynccontextmanager
async def calling(node: LocalNode | None = None) -> AsyncIterator[Caller]:
    """A front over a machine of its own."""
    front = SessionLockFront(around(node or LocalNode()))
    await front.start("127.0.0.1", 0)
    host, port = front.addresses[0]
    try:
        async with aiohttp.ClientSession() as http:
            yield Caller(http, f"http://{host}:{port}")
    finally:
        await front.stop(1.0)


async def test_the_five_functions_and_how_work_is_put() -> None:
    """One after the other, as the Runner calls them."""
    async with calling() as call:
        status, started = await call("start_session", data=b"")
        assert status == 200
        session = started["session_id"]
        tasks = [{"id": 1, "data": "a"}, {"id": "two"}]
        assert await call("add_tasks", {"tasks": tasks}) == (204, None)
        assert await call("bump_session", {"session_id": session}) == (204, None)
        assert await call("get_work", {"session_id": session, "tasks_per_session": 1}) == (
            200,
            {"tasks": [{"id": "1", "data": "a"}]},
        )
        assert await call("finish_tasks", {"ids": [1, "nobody's"]}) == (204, None)
        assert await call("get_work", {"session_id": session}) == (
            200,
            {"tasks": [{"id": "two", "data": None}]},
        )
        for _ in range(2):
            assert await call("end_session", {"session_id": session}) == (204, None)
        gone = (404, {"sqlstate": "SL001", "message": "Session not found."})
        assert await call("bump_session", {"session_id": session}) == gone
        assert await call("get_work", {"session_id": session}) == gone


async def test_a_pool_of_ones_own() -> None:
    """Work of one is none of another."""
    async with calling() as call:
        await call("mail/add_tasks", {"tasks": [{"id": "1"}]})
        for pool, count in (("film", 0), ("mail", 1)):
            _, started = await call(f"{pool}/start_session")
            _, work = await call(f"{pool}/get_work", started)
            assert len(work["tasks"]) == count


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("bump_session", {}, "session_id"),
        ("bump_session", {"session_id": "7"}, "session_id"),
        ("bump_session", {"session_id": 2**63}, "session_id"),
        ("get_work", {"session_id": 1, "cap": 2}, "cap"),
        ("finish_tasks", {"ids": "1"}, "ids"),
        ("add_tasks", {"tasks": [{"id": ""}]}, "use 1 to 200 bytes"),
        ("add_tasks", {"tasks": [{"id": "1", "data": "x" * 5000}]}, "use at most 4096"),
        ("%00/start_session", {}, "pool"),
    ],
)
async def test_arguments_that_cannot_be_are_named(path: str, body: object, said: str) -> None:
    """400, with the field and the cure."""
    async with calling() as call:
        status, answer = await call(path, body)
        assert (status, answer["sqlstate"]) == (400, "22023")
        assert said in answer["message"]


async def test_bodies_that_are_none() -> None:
    """No JSON, and too much of it."""
    async with calling() as call:
        status, answer = await call("bump_session", data=b"{")
        assert (status, answer["sqlstate"]) == (400, "22023")
        status, answer = await call("finish_tasks", data=io.BytesIO(b" " * (BODY_BYTES_MAX + 1)))
        assert (status, answer["sqlstate"]) == (413, "54000")


async def test_what_may_have_happened_is_told_apart() -> None:
    """503 surely did not, 504 may have."""
    node = LocalNode()
    async with calling(node) as call:
        node.fail_with = Timeout("late")
        status, answer = await call("start_session")
        assert (status, answer["sqlstate"]) == (504, "08007")
        node.fail_with = ShuttingDown("going")
        status, answer = await call("start_session")
        assert (status, answer["sqlstate"]) == (503, "57P03")


async def test_other_methods_and_paths_are_nothing() -> None:
    """405 and 404, as Go's servers say it."""
    front = SessionLockFront(around(LocalNode()))
    await front.start("127.0.0.1", 0)
    host, port = front.addresses[0]
    async with aiohttp.ClientSession(f"http://{host}:{port}") as http:
        async with http.get("/start_session") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        async with http.post("/nothing") as answer:
            assert answer.status == 404
    await front.stop(1.0)
