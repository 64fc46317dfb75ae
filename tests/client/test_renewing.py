"""Renewals of several sessions in one request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster.client.aio import Client
from cluster.client.core import Answer, Request
from cluster.client.refusals import SessionExpired
from cluster.client.renewing import SESSIONS_MAX, renewed_in
from cluster.errors import Indefinite, Timeout
from cluster.gateway.sessions import KEEPALIVES_MAX
from cluster.testing.place import Place, running_place

pytestmark = pytest.mark.both_loops


class Counting(Client):
    """A client that notes how many sessions each of its renewals names, and may be kept from them."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.sent: list[int] = []
        self.is_deaf = False

    async def call(self, request: Request, **patience: Any) -> Answer:
        if not request.path.endswith("keepalive"):
            return await super().call(request, **patience)
        named: Any = {} if request.body is None else request.body
        self.sent.append(len(named.get("sessions", "1")))
        if self.is_deaf:
            raise Timeout("no answer")
        return await super().call(request, **patience)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A cluster of one."""
    async with running_place() as place:
        yield place


async def until_renewed(client: Counting, times: int) -> None:
    """Return when so many sessions were renewed; the test's time limit is the deadline."""
    while sum(client.sent) < times:
        await asyncio.sleep(0.01)


async def test_sessions_that_are_due_together_are_one_request(place: Place) -> None:
    """They fall into step, whenever they were opened; one alone is asked for by its name."""
    async with Counting(place.endpoint) as client, contextlib.AsyncExitStack() as stack:
        told: list[str] = []
        await stack.enter_async_context(client.session(ttl="1s", on_state=told.append))
        await until_renewed(client, 1)
        assert client.sent == [1]
        for _ in range(9):
            await stack.enter_async_context(client.session(ttl="1s", on_state=told.append))
            await asyncio.sleep(0.01)
        client.sent.clear()
        await until_renewed(client, 60)
        assert max(client.sent) == 10
        assert len(client.sent) < 30
        assert told == []


async def test_the_one_that_is_over_is_lost_alone(place: Place) -> None:
    """The others live on."""
    async with Counting(place.endpoint) as client:
        sessions = [await client.session(ttl="1s", owner="process").open() for _ in range(5)]
        await client.close_session(sessions[2].id)
        while sessions[2].state != "lost":
            await asyncio.sleep(0.01)
        assert "is over" in str(sessions[2].keeper.loss())
        await until_renewed(client, sum(client.sent) + 10)
        assert [session.state for session in sessions] == ["held"] * 2 + ["lost"] + ["held"] * 2


async def test_a_renewal_that_fails_fails_for_all_and_is_tried_again(place: Place) -> None:
    """Each tries again on its own account; none is lost as long as there is time."""
    async with Counting(place.endpoint) as client:
        sessions = [await client.session(ttl="2s", owner="process").open() for _ in range(3)]
        client.is_deaf = True
        await until_renewed(client, 3)
        client.is_deaf = False
        client.sent.clear()
        await until_renewed(client, 6)
        assert [session.state for session in sessions] == ["held"] * 3


async def test_closing_one_of_them_leaves_the_others_alone(place: Place) -> None:
    """Also while their renewal is on its way."""
    async with Counting(place.endpoint) as client:
        sessions = [await client.session(ttl="1s", owner="process").open() for _ in range(4)]
        await until_renewed(client, 2)
        await sessions[0].close()
        client.sent.clear()
        await until_renewed(client, 9)
        assert [session.state for session in sessions] == ["free"] + ["held"] * 3


def test_an_answer_tells_of_each() -> None:
    """One that leaves a session out, or is none, says nothing about any."""
    body: dict[str, Any] = {"alive": {"a": 5}, "expired": ["b"]}
    found = renewed_in(body, ["a", "b"], 7)
    assert {session: (each.expires_in_ms, each.sent_ms) for session, each in found.items()} == {
        "a": (5, 7)
    }
    shapes: list[dict[str, object]] = [
        {},
        {"alive": {"a": 5}, "expired": []},
        {"alive": [], "expired": []},
    ]
    for nonsense in shapes:
        with pytest.raises(Indefinite):
            renewed_in(nonsense, ["a", "b"], 7)


def test_a_node_takes_as_many_as_are_sent() -> None:
    """The client knows nothing of the node: nothing but this test keeps both in order."""
    assert SESSIONS_MAX <= KEEPALIVES_MAX
    assert SessionExpired.code == "session_expired"
