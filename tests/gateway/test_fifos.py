"""Fifos over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.conftest import Api, Got, until

MADE = {
    "fifo": "q",
    "wait_timeout_ms": 21_600_000,
    "accept_timeout_ms": 60_000,
    "done_timeout_ms": 1_200_000,
    "unused_destroy_timeout_ms": 2_592_000_000,
    "allow_overrides": False,
}


async def make(api: Api, **more: Any) -> Got:
    """Make the fifo of these tests."""
    return await api.post("/v1/fifos", {"name": "q", **more})


async def take(api: Api, body: Any = None, **options: Any) -> str:
    """Take a ticket; gives its id."""
    got = await api.post("/v1/fifos/q/tickets", body, **options)
    assert got.status == 201, got.body
    return str(got.body["ticket"])


async def wait(api: Api, ticket: str, body: Any = None, **options: Any) -> Got:
    """Wait for a ticket's turn."""
    return await api.post(f"/v1/fifos/q/tickets/{ticket}/wait", body, **options)


async def done(api: Api, ticket: str, body: Any = None) -> Got:
    """End a ticket's turn."""
    return await api.post(f"/v1/fifos/q/tickets/{ticket}/done", body)


async def until_waiting(api: Api, ticket: str, count: int) -> None:
    """Ask until so many requests wait on a ticket."""

    async def is_so() -> bool:
        got = await api.get(f"/v1/fifos/q/tickets/{ticket}?consistency=stale")
        return bool(got.body["waiters"] == count)

    await until(is_so)


async def test_a_fifo_is_made_with_the_usual_times(anywhere: Api) -> None:
    """201 with its settings; the same again is 200, others are refused with what there is."""
    made = await make(anywhere)
    assert (made.status, made.body) == (201, MADE)
    assert made.headers["Location"] == "/v1/fifos/q"
    again = await make(anywhere, wait_timeout="6h", done_timeout=1_200_000)
    assert (again.status, again.body) == (200, MADE)
    other = await make(anywhere, done_timeout="10m")
    assert (other.status, other.code) == (409, "fifo_exists")
    assert other.body["done_timeout_ms"] == 1_200_000


async def test_a_fifo_without_a_name_gets_one(anywhere: Api) -> None:
    """Drawn by lot; a repeat under its key gets the same."""
    key = {"Idempotency-Key": "make"}
    first, again = [await anywhere.post("/v1/fifos", {}, headers=key) for _ in range(2)]
    other = await anywhere.post("/v1/fifos")
    assert first.status == again.status == other.status == 201
    assert first.body == again.body
    assert len({first.body["fifo"], other.body["fifo"]}) == 2


async def test_tickets_have_their_turns_in_order(anywhere: Api) -> None:
    """Take, wait, done: the next one's turn comes with the end of the first, under a new token."""
    await make(anywhere)
    first = await anywhere.post("/v1/fifos/q/tickets")
    assert first.status == 201
    assert first.body == {
        "fifo": "q",
        "ticket": first.body["ticket"],
        "state": "notified",
        "position": 1,
        "ahead": 0,
        "eta_ms": 0,
        "eta_samples": 0,
    }
    one, two = first.body["ticket"], await take(anywhere, {})
    assert first.headers["Location"] == f"/v1/fifos/q/tickets/{one}"
    turn = await wait(anywhere, one)
    assert (turn.status, turn.body["state"]) == (200, "accepted")
    assert turn.headers["Coterie-Token"] == str(turn.body["token"])
    assert (await wait(anywhere, one, {"wait": "5s"})).body == turn.body
    waiting = [anywhere.start(wait(anywhere, two, {"wait": "30s"})) for _ in range(2)]
    await until_waiting(anywhere, two, 2)
    assert (await done(anywhere, one, {"token": turn.body["token"]})).body == {"done": True}
    both = [await one for one in waiting]
    assert [got.status for got in both] == [200, 200]
    assert both[0].body == both[1].body
    assert both[0].body["token"] > turn.body["token"]
    assert (await done(anywhere, two)).body == {"done": True}


async def test_who_is_not_first_is_told_how_many_are_ahead(anywhere: Api) -> None:
    """409 with the position when the wait ends, and an estimate once there are hold times."""
    await make(anywhere)
    tickets = [await take(anywhere) for _ in range(4)]
    await wait(anywhere, tickets[0])
    got = await wait(anywhere, tickets[1])
    assert (got.status, got.code, got.body["retryable"]) == (409, "not_your_turn", True)
    assert (got.body["position"], got.body["ahead"], got.body["eta_ms"]) == (2, 1, None)
    await anywhere.advance(1_000)
    await done(anywhere, tickets[0])
    await wait(anywhere, tickets[1])
    late = anywhere.start(wait(anywhere, tickets[3], {"wait": "250ms"}))
    await until_waiting(anywhere, tickets[3], 1)
    await anywhere.advance(250)
    got = await late
    assert (got.status, got.body["position"], got.body["ahead"]) == (409, 3, 2)
    assert (got.body["eta_ms"], got.body["eta_samples"]) == (1_750, 1)


async def test_a_turn_that_nobody_accepts_or_ends_goes_on(anywhere: Api) -> None:
    """The accept timeout and the done timeout, each from its own beginning."""
    await make(anywhere, accept_timeout="1s", done_timeout="2s")
    one, two, three = [await take(anywhere) for _ in range(3)]
    waiting = anywhere.start(wait(anywhere, two, {"wait": "30s"}))
    await until_waiting(anywhere, two, 1)
    await anywhere.advance(1_000)
    assert (await waiting).status == 200
    assert (await wait(anywhere, one)).code == "ticket_not_found"
    await anywhere.advance(2_000)
    assert (await done(anywhere, two)).code == "ticket_not_found"
    got = await anywhere.get(f"/v1/fifos/q/tickets/{three}")
    assert (got.body["state"], got.body["ends_in_ms"]) == ("notified", 1_000)


async def test_a_client_that_hangs_up_accepts_nothing(anywhere: Api) -> None:
    """Its turn comes to nobody and is there for who asks next."""
    await make(anywhere)
    one, two = await take(anywhere), await take(anywhere)
    await wait(anywhere, one)
    gone = anywhere.start(wait(anywhere, two, {"wait": "30s"}))
    await until_waiting(anywhere, two, 1)
    gone.cancel()
    await until_waiting(anywhere, two, 0)
    await done(anywhere, one)
    assert (await anywhere.get(f"/v1/fifos/q/tickets/{two}")).body["state"] == "notified"


async def test_done_needs_an_accepted_turn_and_its_token(anywhere: Api) -> None:
    """Refusals that say what to do instead."""
    await make(anywhere)
    one = await take(anywhere)
    got = await done(anywhere, one)
    assert (got.status, got.code, got.body["state"]) == (409, "not_accepted", "notified")
    token = (await wait(anywhere, one)).body["token"]
    got = await done(anywhere, one, {"token": token - 1})
    assert (got.status, got.code, got.body["current_token"]) == (409, "stale_token", token)
    assert (await done(anywhere, one, {"token": token})).status == 200
    got = await done(anywhere, one, {"token": token})
    assert (got.status, got.code) == (404, "ticket_not_found")


async def test_a_ticket_is_given_up(anywhere: Api) -> None:
    """204; who waits on it hears that it is gone, and the next one moves up."""
    await make(anywhere)
    one, two, three = [await take(anywhere) for _ in range(3)]
    waiting = anywhere.start(wait(anywhere, two, {"wait": "30s"}))
    await until_waiting(anywhere, two, 1)
    assert (await anywhere.delete(f"/v1/fifos/q/tickets/{two}")).status == 204
    assert (await waiting).code == "ticket_not_found"
    assert (await anywhere.delete(f"/v1/fifos/q/tickets/{one}")).status == 204
    assert (await anywhere.delete(f"/v1/fifos/q/tickets/{one}")).status == 404
    assert (await wait(anywhere, three)).status == 200


async def test_overrides_need_a_fifo_that_allows_them(anywhere: Api) -> None:
    """Refused elsewhere; zero is none."""
    await make(anywhere)
    got = await anywhere.post("/v1/fifos/q/tickets", {"done_timeout": "1s"})
    assert (got.status, got.code) == (409, "overrides_not_allowed")
    await anywhere.post("/v1/fifos", {"name": "p", "allow_overrides": True})
    got = await anywhere.post("/v1/fifos/p/tickets", {"accept_timeout": 0})
    ticket = got.body["ticket"]
    got = await anywhere.get(f"/v1/fifos/p/tickets/{ticket}")
    assert got.body["ends_in_ms"] is None
    assert (await wait(anywhere, ticket)).code == "ticket_not_found"


async def test_a_fifo_is_shown_with_its_queue_in_pages(anywhere: Api) -> None:
    """In order, with states and waiters; `next` goes on."""
    await make(anywhere)
    tickets = [await take(anywhere) for _ in range(3)]
    token = (await wait(anywhere, tickets[0])).body["token"]
    await anywhere.advance(125)
    page = (await anywhere.get("/v1/fifos/q?limit=2")).body
    rest = (await anywhere.get(f"/v1/fifos/q?limit=2&after={page['next']}")).body
    assert [one["ticket"] for one in (*page["tickets"], *rest["tickets"])] == tickets
    assert "next" not in rest
    assert rest["tickets"][0]["position"] == 3
    assert page["tickets"][0] == {
        "fifo": "q",
        "ticket": tickets[0],
        "state": "accepted",
        "position": 1,
        "ahead": 0,
        "eta_ms": 0,
        "eta_samples": 0,
        "waiters": 0,
        "age_ms": 125,
        "in_state_for_ms": 125,
        "ends_in_ms": 1_200_000 - 125,
        "token": token,
    }
    del page["tickets"], page["next"]
    hold_times = {"count": 0, "mean_ms": None, "p90_ms": None}
    more = {"length": 3, "hold_times": hold_times, "destroyed_in_ms": None}
    assert page == {**MADE, **more}
    listed = (await anywhere.get("/v1/fifos?prefix=q")).body
    assert listed == {"fifos": [page]}


async def test_a_fifo_is_deleted_when_empty_or_by_force(anywhere: Api) -> None:
    """Its tickets protect it; who waits hears that it is gone."""
    await make(anywhere)
    _one, two = await take(anywhere), await take(anywhere)
    got = await anywhere.delete("/v1/fifos/q")
    assert (got.status, got.code, got.body["tickets"]) == (409, "fifo_in_use", 2)
    waiting = anywhere.start(wait(anywhere, two, {"wait": "30s"}))
    await until_waiting(anywhere, two, 1)
    assert (await anywhere.delete("/v1/fifos/q?force=true")).status == 204
    assert (await waiting).code == "fifo_not_found"
    assert (await anywhere.delete("/v1/fifos/q")).status == 404
    await make(anywhere)
    assert (await anywhere.delete("/v1/fifos/q?force=false")).status == 204


async def test_an_unused_fifo_is_gone(anywhere: Api) -> None:
    """And shows before how long it will be there."""
    await make(anywhere, unused_destroy_timeout="10s")
    await anywhere.advance(5_000)
    assert (await anywhere.get("/v1/fifos/q")).body["destroyed_in_ms"] == 5_000
    await anywhere.advance(5_000)
    assert (await anywhere.get("/v1/fifos/q")).code == "fifo_not_found"


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v1/fifos/none", "fifo_not_found"),
        ("DELETE", "/v1/fifos/none", "fifo_not_found"),
        ("POST", "/v1/fifos/none/tickets", "fifo_not_found"),
        ("GET", "/v1/fifos/none/tickets/x", "fifo_not_found"),
        ("POST", "/v1/fifos/none/tickets/x/wait", "fifo_not_found"),
        ("POST", "/v1/fifos/none/tickets/x/done", "fifo_not_found"),
        ("DELETE", "/v1/fifos/none/tickets/x", "fifo_not_found"),
        ("GET", "/v1/fifos/q/tickets/x", "ticket_not_found"),
        ("POST", "/v1/fifos/q/tickets/x/wait", "ticket_not_found"),
        ("POST", "/v1/fifos/q/tickets/x/done", "ticket_not_found"),
        ("DELETE", "/v1/fifos/q/tickets/x", "ticket_not_found"),
    ],
)
async def test_what_is_not_there_is_404(api: Api, method: str, path: str, code: str) -> None:
    """Fifo and ticket are told apart."""
    await make(api)
    got = await api.call(method, path)
    assert (got.status, got.code) == (404, code)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/fifos", {"name": ""}, "name"),
        ("/v1/fifos", {"name": "a\nb"}, "name"),
        ("/v1/fifos", {"wait_timeout": "-1s"}, "wait_timeout"),
        ("/v1/fifos", {"accept_timeout": "400d"}, "accept_timeout"),
        ("/v1/fifos", {"done_timeout": True}, "done_timeout"),
        ("/v1/fifos", {"unused_destroy_timeout": "soon"}, "unused_destroy_timeout"),
        ("/v1/fifos", {"allow_overrides": "true"}, "allow_overrides"),
        ("/v1/fifos/q/tickets", {"wait_timeout": "x"}, "wait_timeout"),
        ("/v1/fifos/q/tickets", {"ticket": "mine"}, "ticket"),
        ("/v1/fifos/q/tickets/x/wait", {"wait": "2h"}, "wait"),
        ("/v1/fifos/q/tickets/x/wait?wait=1s", {"wait": "1s"}, "wait"),
        ("/v1/fifos/q/tickets/x/done", {"token": -1}, "token"),
    ],
)
async def test_bad_input_names_its_field(api: Api, path: str, body: Any, field: str) -> None:
    """400, and the cure."""
    await make(api)
    got = await api.post(path, body)
    assert (got.status, got.body["field"]) == (400, field)


async def test_bad_queries_name_their_field(api: Api) -> None:
    """Of deletes and of pages."""
    await make(api)
    for call, field in (
        (api.delete("/v1/fifos/q?force=yes"), "force"),
        (api.get("/v1/fifos/q?after=x"), "after"),
        (api.get("/v1/fifos/q?limit=0"), "limit"),
        (api.get("/v1/fifos/%00"), "fifo"),
        (api.get("/v1/fifos/q/tickets/%00"), "ticket"),
    ):
        got = await call
        assert (got.status, got.body["field"]) == (400, field)


async def test_fifos_speak_cbor(api: Api) -> None:
    """The same shapes, both ways."""
    made = await api.post("/v1/fifos", {"name": "q"}, as_cbor=True)
    assert made.headers["Content-Type"] == "application/cbor"
    assert made.body == MADE
    ticket = await take(api, {}, as_cbor=True)
    other = await take(api, {}, as_cbor=True)
    got = await wait(api, other, {"wait": 0}, as_cbor=True)
    assert got.headers["Content-Type"] == "application/problem+cbor"
    assert (got.code, got.body["eta_ms"]) == ("not_your_turn", None)
    assert (await wait(api, ticket, {}, as_cbor=True)).body["state"] == "accepted"


async def test_a_retried_wait_joins_the_first(anywhere: Api) -> None:
    """Same key, one wait: both get the turn, and so does a repeat after it."""
    await make(anywhere)
    one, two = await take(anywhere), await take(anywhere)
    await wait(anywhere, one)
    key = {"Idempotency-Key": "again"}
    both = [anywhere.start(wait(anywhere, two, {"wait": "30s"}, headers=key)) for _ in range(2)]
    await until_waiting(anywhere, two, 2)
    await done(anywhere, one)
    first, second = await asyncio.gather(*both)
    third = await wait(anywhere, two, {"wait": "30s"}, headers=key)
    assert first.status == 200
    assert first.body == second.body == third.body
