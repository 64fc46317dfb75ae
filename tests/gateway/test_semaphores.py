"""Semaphores over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import Api, Got, until

DOCK = "/v1/semaphores/dock"


async def put(api: Api, limit: Any, name: str = "dock", **options: Any) -> Got:
    """Make or resize a semaphore."""
    return await api.call("PUT", f"/v1/semaphores/{name}", {"limit": limit}, **options)


async def acquire(api: Api, session: str, **more: Any) -> Got:
    """Ask for units of the dock."""
    return await api.post(f"{DOCK}/acquire", {"session": session, **more})


async def queued(api: Api, length: int) -> None:
    """Ask until so many wait."""

    async def is_so() -> bool:
        got = await api.get(f"{DOCK}?consistency=stale")
        return bool(got.body["queue_length"] == length)

    await until(is_so)


async def test_a_semaphore_is_made_and_resized(anywhere: Api) -> None:
    """One call for both, which says which of the two it was."""
    made = await put(anywhere, 2)
    assert (made.status, made.body) == (
        201,
        {
            "name": "dock",
            "limit": 2,
            "created": True,
            "resized": False,
            "previous_limit": None,
            "held": 0,
            "free": 2,
            "holder_count": 0,
            "queue_length": 0,
        },
    )
    again = (await put(anywhere, 2)).body
    assert (again["created"], again["resized"], again["previous_limit"]) == (False, False, 2)
    resized = (await put(anywhere, 5)).body
    assert (resized["created"], resized["resized"], resized["previous_limit"]) == (False, True, 2)


async def test_units_are_granted_under_a_token(anywhere: Api) -> None:
    """In the body and in the header; each acquire is a grant of its own."""
    await put(anywhere, 3)
    session = await anywhere.open()
    got = await acquire(anywhere, session)
    assert got.status == 200
    assert got.body == {
        "name": "dock",
        "token": got.body["token"],
        "units": 1,
        "session": session,
    }
    assert got.headers["Coterie-Token"] == str(got.body["token"])
    more = await acquire(anywhere, session, units=2)
    assert more.body["token"] > got.body["token"]
    shown = (await anywhere.get(f"/v1/sessions/{session}")).body["holds"]
    assert [(held["kind"], held["name"], held["token"]) for held in shown] == [
        ("semaphore", "dock", got.body["token"]),
        ("semaphore", "dock", more.body["token"]),
    ]


async def test_a_full_semaphore_is_refused_with_the_reason(anywhere: Api) -> None:
    """409 says what is free of which limit, who has held longest, and what would help."""
    await put(anywhere, 3)
    holder, other = await anywhere.open(), await anywhere.open()
    grant = await acquire(anywhere, holder, units=2)
    await anywhere.advance(250)
    got = await acquire(anywhere, other, units=3)
    assert got.headers["Content-Type"] == "application/problem+json"
    assert (got.status, got.code) == (409, "semaphore_full")
    assert (got.body["retryable"], got.body["definite"]) == (True, True)
    reason = {
        "name": "dock",
        "units": 3,
        "free": 1,
        "missing": 2,
        "limit": 3,
        "holders": 1,
        "holder": holder,
        "held_for_ms": 250,
        "holder_token": grant.body["token"],
        "queue_length": 0,
        "position": 1,
    }
    assert {name: got.body[name] for name in reason} == reason
    assert "2 have to come back first" in got.body["detail"]


async def test_more_units_than_there_are_is_refused_for_good(anywhere: Api) -> None:
    """Whatever the wait; a closed semaphore says so, and may be waited for."""
    await put(anywhere, 2)
    session = await anywhere.open()
    got = await acquire(anywhere, session, units=3, wait="30s")
    assert (got.status, got.code) == (409, "semaphore_too_small")
    assert (got.body["units"], got.body["limit"], got.body["retryable"]) == (3, 2, False)
    await put(anywhere, 0)
    closed = await acquire(anywhere, session)
    assert (closed.code, closed.body["holder"]) == ("semaphore_full", None)
    assert "it is closed until its limit is raised" in closed.body["detail"]


async def test_waiters_are_granted_in_order(anywhere: Api) -> None:
    """By a release, and by a higher limit."""
    await put(anywhere, 1)
    holder, first, second = [await anywhere.open() for _ in range(3)]
    token = (await acquire(anywhere, holder)).body["token"]
    one = anywhere.start(acquire(anywhere, first, wait="30s"))
    await queued(anywhere, 1)
    two = anywhere.start(anywhere.post(f"{DOCK}/acquire?wait=30s", {"session": second}))
    await queued(anywhere, 2)
    released = await anywhere.post(f"{DOCK}/release", {"session": holder, "token": token})
    assert (released.status, released.body) == (200, {"units": 1, "released": True})
    assert (await one).body["session"] == first
    assert not two.done()
    await put(anywhere, 2)
    assert (await two).body["session"] == second


async def test_a_part_of_a_grant_goes_back(anywhere: Api) -> None:
    """`units` of a release: so many, and the grant keeps the rest under its token."""
    session = await anywhere.open()
    await anywhere.call("PUT", DOCK, {"limit": 3})
    granted = await anywhere.post(f"{DOCK}/acquire", {"session": session, "units": 3})
    part = {"session": session, "token": granted.body["token"], "units": 1}
    released = await anywhere.post(f"{DOCK}/release", part)
    assert (released.status, released.body) == (200, {"units": 1, "released": True})
    (holder,) = (await anywhere.get(DOCK)).body["holders"]
    assert (holder["token"], holder["units"]) == (granted.body["token"], 2)
    rest = await anywhere.post(f"{DOCK}/release", {**part, "units": 2})
    assert rest.body == {"units": 2, "released": True}
    assert (await anywhere.post(f"{DOCK}/release", {**part, "units": 0})).status == 400


async def test_a_release_needs_the_present_token(anywhere: Api) -> None:
    """A stale token, somebody else's, and no semaphore at all."""
    await put(anywhere, 2)
    holder, other = await anywhere.open(), await anywhere.open()
    first = (await acquire(anywhere, holder)).body["token"]
    second = (await acquire(anywhere, other)).body["token"]
    path = f"{DOCK}/release"
    assert (await anywhere.post(path, {"session": holder, "token": first})).status == 200
    stale = await anywhere.post(path, {"session": holder, "token": first})
    assert (stale.status, stale.code) == (409, "stale_token")
    assert stale.body["current_token"] == second
    stranger = await anywhere.post(path, {"session": holder, "token": second})
    assert (stranger.status, stranger.code) == (409, "not_holder")
    missing = await anywhere.post(
        "/v1/semaphores/pier/release", {"session": holder, "token": second}
    )
    assert (missing.status, missing.code) == (404, "semaphore_not_found")


async def test_one_that_nobody_made_is_missing(anywhere: Api) -> None:
    """404 says how to make it; a check of it is simply not valid."""
    session = await anywhere.open()
    for got in (
        await acquire(anywhere, session),
        await anywhere.get(DOCK),
        await anywhere.delete(DOCK),
    ):
        assert (got.status, got.code, got.body["name"]) == (404, "semaphore_not_found", "dock")
    checked = await anywhere.post(f"{DOCK}/check", {"token": 1})
    assert (checked.status, checked.body) == (200, {"valid": False, "current_token": None})


async def test_one_in_use_is_not_deleted(anywhere: Api) -> None:
    """409 says who; afterwards it can be."""
    await put(anywhere, 1)
    session = await anywhere.open()
    token = (await acquire(anywhere, session)).body["token"]
    got = await anywhere.delete(DOCK)
    assert (got.status, got.code) == (409, "semaphore_in_use")
    assert (got.body["holders"], got.body["holder"]) == (1, session)
    assert (got.body["holder_token"], got.body["queue_length"]) == (token, 0)
    await anywhere.delete(f"/v1/sessions/{session}")
    gone = await anywhere.delete(DOCK)
    assert (gone.status, gone.body) == (200, {"deleted": True})


async def test_a_semaphore_is_shown_with_everybody_in_it(anywhere: Api) -> None:
    """Holders in order of grant, waiters in order of the queue."""
    await put(anywhere, 2)
    one, two = await anywhere.open(), await anywhere.open()
    token = (await acquire(anywhere, one, units=2)).body["token"]
    waiting = anywhere.start(acquire(anywhere, two, wait="10s", priority=5))
    await queued(anywhere, 1)
    await anywhere.advance(125)
    assert (await anywhere.get(DOCK)).body == {
        "name": "dock",
        "limit": 2,
        "held": 2,
        "free": 0,
        "holders": [{"session": one, "token": token, "units": 2, "held_for_ms": 125}],
        "waiters": [
            {
                "session": two,
                "units": 1,
                "priority": 5,
                "position": 1,
                "waited_ms": 125,
                "expires_in_ms": 9_875,
            }
        ],
        "queue_length": 1,
        "current_token": token,
    }
    assert (await anywhere.post(f"{DOCK}/check", {"token": token})).body == {
        "valid": True,
        "current_token": token,
    }
    waiting.cancel()


async def test_semaphores_are_listed_by_prefix_in_pages(anywhere: Api) -> None:
    """In order of name; `next` goes on, the last page has none."""
    for name in ("a%2F3", "a%2F1", "b", "a%2F2"):
        assert (await put(anywhere, 1, name)).status == 201
    first = (await anywhere.get("/v1/semaphores?prefix=a%2F&limit=2")).body
    assert [semaphore["name"] for semaphore in first["semaphores"]] == ["a/1", "a/2"]
    assert first["next"] == "a/2"
    second = (await anywhere.get("/v1/semaphores?prefix=a%2F&limit=2&after=a%2F2")).body
    assert [semaphore["name"] for semaphore in second["semaphores"]] == ["a/3"]
    assert "next" not in second


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/v1/semaphores/dock", {}, "limit"),
        ("PUT", "/v1/semaphores/dock", {"limit": -1}, "limit"),
        ("PUT", "/v1/semaphores/dock", {"limit": 1.5}, "limit"),
        ("PUT", "/v1/semaphores/dock", {"limit": 10**12}, "limit"),
        ("PUT", "/v1/semaphores/%00", {"limit": 1}, "name"),
        ("POST", "/v1/semaphores/dock/acquire", {}, "session"),
        ("POST", "/v1/semaphores/dock/acquire", {"session": "1-a", "units": 0}, "units"),
        ("POST", "/v1/semaphores/dock/acquire", {"session": "1-a", "wait": "2h"}, "wait"),
        ("POST", "/v1/semaphores/dock/acquire", {"session": "1-a", "unit": 1}, "unit"),
        ("POST", "/v1/semaphores/dock/release", {"session": "1-a"}, "token"),
        ("POST", "/v1/semaphores/dock/check", {"token": "x"}, "token"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_field(
    api: Api, method: str, path: str, body: Any, field: str
) -> None:
    """400 names the field."""
    got = await api.call(method, path, body)
    assert (got.status, got.code, got.body["field"]) == (400, "bad_request", field)


async def test_a_dead_session_gets_nothing(api: Api) -> None:
    """410 for one that ended, 404 for one that never was."""
    await put(api, 1)
    session = await api.open()
    await api.delete(f"/v1/sessions/{session}")
    assert (await acquire(api, session)).status == 410
    assert (await acquire(api, "ffffff-x")).status == 404


async def test_cbor_says_the_same(api: Api) -> None:
    """Bodies, answers and problems."""
    session = await api.open()
    assert (await put(api, 1, as_cbor=True)).body["created"] is True
    path, body = f"{DOCK}/acquire", {"session": session}
    got = await api.post(path, body, as_cbor=True)
    assert (got.status, got.headers["Content-Type"]) == (200, "application/cbor")
    assert got.body["units"] == 1
    full = await api.post(path, body, as_cbor=True)
    assert (full.status, full.headers["Content-Type"]) == (409, "application/problem+cbor")
    assert (full.code, full.body["holder"]) == ("semaphore_full", session)


async def test_a_retry_under_its_key_takes_no_more_units(api: Api) -> None:
    """The first grant again, though a second would fit."""
    await put(api, 5)
    session = await api.open()
    key = {"Idempotency-Key": "once"}
    body = {"session": session, "units": 2}
    first, again = [await api.post(f"{DOCK}/acquire", body, headers=key) for _ in range(2)]
    assert first.body == again.body
    assert (await api.get(DOCK)).body["held"] == 2
