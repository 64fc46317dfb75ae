"""Sessions over HTTP."""

from __future__ import annotations

import msgspec

from cluster.machine import ksuids
from cluster.machine.commands import OpenSession
from tests.gateway.conftest import Api


async def test_a_session_is_opened_with_its_ttl_and_token(anywhere: Api) -> None:
    """201 with the document of the contract; the token is in the header too."""
    got = await anywhere.post(
        "/v1/sessions", {"ttl": "30s", "name": "w1", "meta": {"b": 1, "a": 2}}
    )
    assert got.status == 201
    session, token = got.body["session"], got.body["token"]
    assert got.body == {
        "session": session,
        "ttl_ms": 30_000,
        "expires_in_ms": 30_000,
        "token": token,
    }
    assert got.headers["Coterie-Token"] == str(token)
    assert got.headers["Location"] == f"/v1/sessions/{session}"
    assert int(got.headers["Coterie-Index"]) >= 1


async def test_a_session_shows_who_it_is_and_what_it_has(anywhere: Api) -> None:
    """Owner, TTL, what it holds and what it waits for."""
    holder = await anywhere.open(name="w1", meta={"host": "a"})
    waiter = await anywhere.open()
    grant = await anywhere.acquire("orders", holder)
    queued = anywhere.start(anywhere.acquire("orders", waiter, wait="10s"))
    await anywhere.until_queued("orders", 1)
    got = await anywhere.get(f"/v1/sessions/{holder}")
    assert got.status == 200
    assert got.body == {
        "session": holder,
        "name": "w1",
        "meta": {"host": "a"},
        "ttl_ms": 30_000,
        "expires_in_ms": 30_000,
        "token": got.body["token"],
        "holds": [{"kind": "lock", "name": "orders", "token": grant.body["token"]}],
        "waits": [],
    }
    waits = (await anywhere.get(f"/v1/sessions/{waiter}")).body
    assert waits["waits"] == [{"kind": "lock", "name": "orders", "position": 1}]
    assert (waits["name"], waits["meta"]) == (None, None)
    queued.cancel()


async def test_a_keepalive_renews_for_the_whole_ttl(anywhere: Api) -> None:
    """Half-way through, a keepalive starts the TTL anew."""
    session = await anywhere.open(ttl="10s")
    await anywhere.advance(6_000)
    got = await anywhere.post(f"/v1/sessions/{session}/keepalive")
    assert (got.status, got.body) == (200, {"session": session, "expires_in_ms": 10_000})
    await anywhere.advance(6_000)
    assert (await anywhere.get(f"/v1/sessions/{session}")).body["expires_in_ms"] == 4_000


async def test_an_expired_session_is_gone_and_says_so(anywhere: Api) -> None:
    """410 for what was, 404 for what never was, by every call."""
    session = await anywhere.open(ttl="1s")
    await anywhere.advance(1_000)
    for method, path in (
        ("POST", f"/v1/sessions/{session}/keepalive"),
        ("GET", f"/v1/sessions/{session}"),
        ("DELETE", f"/v1/sessions/{session}"),
    ):
        got = await anywhere.call(method, path)
        assert (got.status, got.code) == (410, "session_expired")
        assert got.body["session"] == session
        assert (got.body["retryable"], got.body["definite"]) == (False, True)
        got = await anywhere.call(method, path.replace(session, "nobody"))
        assert (got.status, got.code) == (404, "session_not_found")
    assert (await anywhere.acquire("orders", session)).status == 410
    assert (await anywhere.acquire("orders", "nobody")).status == 404


async def test_many_keepalives_go_in_one_call(anywhere: Api) -> None:
    """Those that are gone are named, the others live on."""
    first, second = await anywhere.open(ttl="5s"), await anywhere.open(ttl="60s")
    await anywhere.advance(5_000)
    got = await anywhere.post("/v1/sessions/keepalive", {"sessions": [second, first, "nobody"]})
    assert got.status == 200
    assert got.body == {"alive": {second: 60_000}, "expired": [first, "nobody"]}


async def test_a_closed_session_frees_what_it_held(anywhere: Api) -> None:
    """204 without a body, and the lock is free in the same step."""
    session = await anywhere.open()
    await anywhere.acquire("orders", session)
    got = await anywhere.delete(f"/v1/sessions/{session}")
    assert (got.status, got.raw) == (204, b"")
    assert "Content-Type" not in got.headers
    assert (await anywhere.get("/v1/locks/orders")).body["holders"] == []
    assert (await anywhere.delete(f"/v1/sessions/{session}")).status == 410


async def test_sessions_are_listed_in_pages(anywhere: Api) -> None:
    """In order of opening; `next` goes on where the page ended, and the last page has none."""
    sessions = [await anywhere.open() for _ in range(5)]
    first = (await anywhere.get("/v1/sessions?limit=2")).body
    assert [one["session"] for one in first["sessions"]] == sessions[:2]
    second = (await anywhere.get(f"/v1/sessions?limit=3&after={first['next']}")).body
    assert [one["session"] for one in second["sessions"]] == sessions[2:]
    assert "next" not in second
    assert (await anywhere.get("/v1/sessions?after=nobody")).code == "bad_request"


async def test_a_page_may_end_with_a_session_of_another_cluster(api: Api) -> None:
    """Its id tells no place in the order, but it is known while it lives."""
    taken = OpenSession("x", 30_000, ksuid=bytes(range(235, 255)))
    api.node.submit(taken, lambda _reply: None)
    behind = await api.open()
    first = (await api.get("/v1/sessions?limit=1")).body
    assert first["next"] == ksuids.text_of(bytes(range(235, 255)))
    second = (await api.get(f"/v1/sessions?limit=1&after={first['next']}")).body
    assert [one["session"] for one in second["sessions"]] == [behind]


async def test_the_same_key_opens_one_session(anywhere: Api) -> None:
    """A repeat gets the first answer, however it is spelled; another body is refused."""
    key = {"Idempotency-Key": "k-1"}
    first = await anywhere.post("/v1/sessions", {"ttl": "30s", "name": "w"}, headers=key)
    again = await anywhere.post("/v1/sessions", {"name": "w", "ttl": 30_000}, headers=key)
    as_cbor = await anywhere.post(
        "/v1/sessions", {"ttl": "PT30S", "name": "w"}, headers=key, as_cbor=True
    )
    assert first.body == again.body == as_cbor.body
    assert first.status == again.status == as_cbor.status == 201
    other = await anywhere.post("/v1/sessions", {"ttl": "31s", "name": "w"}, headers=key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert len((await anywhere.get("/v1/sessions")).body["sessions"]) == 1


async def test_a_session_wants_a_sensible_ttl(anywhere: Api) -> None:
    """The refusal names the field and the cure, and opens nothing."""
    ttl: object
    for ttl in ("5 parsecs", "99ms", "31d", 99, -1, 10**40, True, None, [], 1.5):
        got = await anywhere.post("/v1/sessions", {"ttl": ttl})
        assert (got.status, got.code, got.body["field"]) == (400, "bad_request", "ttl"), ttl
    got = await anywhere.post("/v1/sessions", {})
    assert got.body["detail"] == "ttl: is missing, and required"
    got = await anywhere.post("/v1/sessions", data=b'{"ttl":1000}')
    assert got.status == 201
    assert msgspec.json.decode(got.raw)["ttl_ms"] == 1000
