"""Locks over HTTP."""

from __future__ import annotations

import asyncio

from tests.gateway.conftest import Api


async def test_a_free_lock_is_granted_under_a_token(anywhere: Api) -> None:
    """The document of the contract, the token in the header too."""
    session = await anywhere.open()
    got = await anywhere.acquire("orders", session)
    assert got.status == 200
    assert got.body == {
        "name": "orders",
        "token": got.body["token"],
        "mode": "exclusive",
        "session": session,
    }
    assert got.headers["Coterie-Token"] == str(got.body["token"])


async def test_a_repeated_acquire_gets_the_same_token(anywhere: Api) -> None:
    """Who holds the lock and asks again is told so."""
    session = await anywhere.open()
    first, again = [await anywhere.acquire("orders", session) for _ in range(2)]
    assert first.body == again.body


async def test_a_held_lock_is_refused_with_the_reason(anywhere: Api) -> None:
    """409 says who holds it, since when, under which token, and how many are ahead."""
    holder, other = await anywhere.open(), await anywhere.open()
    grant = await anywhere.acquire("orders", holder)
    await anywhere.advance(250)
    got = await anywhere.acquire("orders", other)
    assert got.status == 409
    assert got.headers["Content-Type"] == "application/problem+json"
    assert got.body["code"] == "lock_held"
    assert (got.body["retryable"], got.body["definite"]) == (True, True)
    assert got.body["holder"] == holder
    assert got.body["held_for_ms"] == 250
    assert got.body["holder_token"] == grant.body["token"]
    assert (got.body["queue_length"], got.body["position"]) == (0, 1)


async def test_a_waiter_is_granted_when_the_holder_gives_back(anywhere: Api) -> None:
    """The parked request is answered by the release of another, with a larger token."""
    holder, waiter = await anywhere.open(), await anywhere.open()
    grant = await anywhere.acquire("orders", holder)
    waiting = anywhere.start(anywhere.acquire("orders", waiter, wait="30s"))
    await anywhere.until_queued("orders", 1)
    released = await anywhere.post(
        "/v1/locks/orders/release", {"session": holder, "token": grant.body["token"]}
    )
    assert (released.status, released.body) == (200, {"released": True})
    got = await waiting
    assert (got.status, got.body["session"]) == (200, waiter)
    assert got.body["token"] > grant.body["token"]


async def test_a_wait_ends_at_its_deadline(anywhere: Api) -> None:
    """After the wait the refusal tells the place that was lost."""
    holder, first, second = [await anywhere.open() for _ in range(3)]
    await anywhere.acquire("orders", holder)
    one = anywhere.start(anywhere.acquire("orders", first, wait="10s"))
    await anywhere.until_queued("orders", 1)
    two = anywhere.start(anywhere.post("/v1/locks/orders/acquire?wait=5s", {"session": second}))
    await anywhere.until_queued("orders", 2)
    await anywhere.advance(5_000)
    got = await two
    assert (got.status, got.code) == (409, "lock_held")
    assert (got.body["queue_length"], got.body["position"]) == (1, 2)
    assert not one.done()
    one.cancel()


async def test_a_wait_is_given_once_and_is_bounded(anywhere: Api) -> None:
    """Twice, too long, or no duration: 400 names the field."""
    session = await anywhere.open()
    for query, body in (("?wait=1s", {"wait": "1s"}), ("", {"wait": "61m"}), ("?wait=x", {})):
        got = await anywhere.post(f"/v1/locks/orders/acquire{query}", {"session": session, **body})
        assert (got.status, got.body["field"]) == (400, "wait")


async def test_a_release_needs_the_present_token(anywhere: Api) -> None:
    """A stale token and a stranger are told apart, and neither frees the lock."""
    holder, other = await anywhere.open(), await anywhere.open()
    first = (await anywhere.acquire("orders", holder)).body["token"]
    path = "/v1/locks/orders/release"
    assert (await anywhere.post(path, {"session": holder, "token": first})).status == 200
    second = (await anywhere.acquire("orders", holder)).body["token"]
    stale = await anywhere.post(path, {"session": holder, "token": first})
    assert (stale.status, stale.code) == (409, "stale_token")
    assert stale.body["current_token"] == second
    stranger = await anywhere.post(path, {"session": other, "token": second})
    assert (stranger.status, stranger.code) == (409, "not_holder")
    assert (await anywhere.get("/v1/locks/orders")).body["current_token"] == second


async def test_a_shared_lock_has_several_holders(anywhere: Api) -> None:
    """Each with its own token; an exclusive request waits for all of them."""
    one, two, three = [await anywhere.open() for _ in range(3)]
    tokens = [
        (await anywhere.acquire("table", session, mode="shared")).body["token"]
        for session in (one, two)
    ]
    assert tokens == sorted(set(tokens))
    waiting = anywhere.start(anywhere.acquire("table", three, wait="10s", priority=5))
    await anywhere.until_queued("table", 1)
    await anywhere.advance(125)
    got = (await anywhere.get("/v1/locks/table")).body
    assert got == {
        "name": "table",
        "mode": "shared",
        "holders": [
            {"session": session, "token": token, "mode": "shared", "held_for_ms": 125}
            for session, token in zip((one, two), tokens, strict=True)
        ],
        "waiters": [
            {
                "session": three,
                "mode": "exclusive",
                "priority": 5,
                "position": 1,
                "waited_ms": 125,
                "expires_in_ms": 9_875,
            }
        ],
        "queue_length": 1,
        "current_token": tokens[1],
    }
    waiting.cancel()


async def test_a_free_lock_is_shown_as_free(anywhere: Api) -> None:
    """200, nobody in it: a lock needs no making."""
    got = await anywhere.get("/v1/locks/nothing")
    assert got.status == 200
    assert got.body == {
        "name": "nothing",
        "mode": None,
        "holders": [],
        "waiters": [],
        "queue_length": 0,
        "current_token": None,
    }


async def test_a_token_is_checked(anywhere: Api) -> None:
    """A resource may ask whether the token it sees is a present grant."""
    session = await anywhere.open()
    path = "/v1/locks/orders/check"
    assert (await anywhere.post(path, {"token": 1})).body == {
        "valid": False,
        "current_token": None,
    }
    token = (await anywhere.acquire("orders", session)).body["token"]
    assert (await anywhere.post(path, {"token": token})).body == {
        "valid": True,
        "current_token": token,
    }
    assert (await anywhere.post(path, {"token": token - 1})).body == {
        "valid": False,
        "current_token": token,
    }


async def test_locks_are_listed_by_prefix_in_pages(anywhere: Api) -> None:
    """In order of name; `next` goes on, the last page has none."""
    session = await anywhere.open()
    for name in ("a%2F3", "a%2F1", "b", "a%2F2"):
        assert (await anywhere.acquire(name, session)).status == 200
    first = (await anywhere.get("/v1/locks?prefix=a%2F&limit=2")).body
    assert [lock["name"] for lock in first["locks"]] == ["a/1", "a/2"]
    assert first["next"] == "a/2"
    second = (await anywhere.get("/v1/locks?prefix=a%2F&limit=2&after=a%2F2")).body
    assert [lock["name"] for lock in second["locks"]] == ["a/3"]
    assert "next" not in second


async def test_a_name_is_what_its_path_encodes(anywhere: Api) -> None:
    """Slashes, percent signs, braces and any script arrive as they were meant."""
    session = await anywhere.open()
    for encoded, name in (
        ("a%2Fb", "a/b"),
        ("a%252Fb", "a%2Fb"),
        ("%7Bx%7D", "{x}"),
        ("a+b", "a+b"),
        ("a%20b", "a b"),
        ("%E5%90%8D", "名"),
        ("%25", "%"),
        (".%2E", ".."),
    ):
        got = await anywhere.acquire(encoded, session)
        assert (got.status, got.body["name"]) == (200, name)
        assert (await anywhere.get(f"/v1/locks/{encoded}")).body["name"] == name


async def test_a_name_that_cannot_be_is_refused(anywhere: Api) -> None:
    """Empty, too long, controls, no UTF-8: 400 names the field."""
    session = await anywhere.open()
    for encoded in ("", "x" * 201, "%E5%90%8D" * 67, "%00", "%0A", "%7F", "%FF", "%C3", "%", "%zz"):
        got = await anywhere.acquire(encoded, session)
        assert (got.status, got.code) == (400, "bad_request"), encoded
        assert got.body["field"] == "name"


async def test_a_retried_acquire_joins_the_first(anywhere: Api) -> None:
    """Same key while the first still waits: one place in the queue, one grant for both."""
    holder, waiter = await anywhere.open(), await anywhere.open()
    token = (await anywhere.acquire("orders", holder)).body["token"]
    body = {"session": waiter, "wait": "30s"}
    key = {"Idempotency-Key": "again"}
    both = [
        anywhere.start(anywhere.post("/v1/locks/orders/acquire", body, headers=key))
        for _ in range(2)
    ]
    await anywhere.until_queued("orders", 1)
    await anywhere.post("/v1/locks/orders/release", {"session": holder, "token": token})
    first, second = await asyncio.gather(*both)
    assert first.status == second.status == 200
    assert first.body == second.body
