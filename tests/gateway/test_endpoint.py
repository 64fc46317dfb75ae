"""The way every request goes: limits, types, keys, errors, hang-ups."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from multidict import CIMultiDict

from cluster import errors
from cluster.machine.commands import AcquireLock
from cluster.wire import cbor
from tests.gateway.conftest import Api, MakeApi, until


async def test_an_unknown_path_is_a_problem_too(api: Api) -> None:
    """404 as a document, with a hint."""
    for path in ("/", "/v2/locks", "/v1/locks/a/b/acquire", "/v1/locks//", "/v1//locks"):
        got = await api.get(path)
        assert (got.status, got.code) == (404, "not_found"), path
        assert got.headers["Content-Type"] == "application/problem+json"
        assert got.headers["Coterie-Index"] == "0"


async def test_a_wrong_method_names_the_right_ones(api: Api) -> None:
    """405 with Allow."""
    got = await api.get("/v1/locks/orders/acquire")
    assert (got.status, got.code, got.headers["Allow"]) == (405, "method_not_allowed", "POST")
    got = await api.call("PATCH", "/v1/sessions/x")
    assert (got.status, got.headers["Allow"]) == (405, "DELETE, GET, HEAD")


async def test_a_large_body_is_refused_unread(api: Api) -> None:
    """413 by its announced length, and by its real one where none was announced."""
    large = b'{"ttl":1000,"name":"' + b"x" * 70_000 + b'"}'
    got = await api.post("/v1/sessions", data=large)
    assert (got.status, got.code) == (413, "too_large")
    assert got.headers["Connection"] == "close"

    async def pieces() -> Any:
        for start in range(0, len(large), 1000):
            yield large[start : start + 1000]

    got = await api.post("/v1/sessions", data=pieces())
    assert (got.status, got.code) == (413, "too_large")
    assert api.node.taken == []


async def test_a_compressed_body_is_refused(api: Api) -> None:
    """Nothing is unpacked, so nothing can explode."""
    got = await api.post("/v1/sessions", data=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert (got.status, got.code) == (415, "unsupported_media_type")


async def test_what_curl_says_by_default_is_json(api: Api) -> None:
    """`curl -d` works without a header; a form of another site in a browser does not."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    got = await api.post("/v1/sessions", data=b'{"ttl": "30s"}', headers=form)
    assert (got.status, got.headers["Content-Type"]) == (201, "application/json")
    from_browser = {**form, "Origin": "http://elsewhere.example"}
    got = await api.post("/v1/sessions", data=b'{"ttl": "30s"}', headers=from_browser)
    assert (got.status, got.code) == (415, "unsupported_media_type")


async def test_cbor_goes_both_ways(api: Api) -> None:
    """Asked in CBOR, answered in CBOR, problems too; Accept can ask for the other."""
    got = await api.post("/v1/sessions", {"ttl": "30s"}, as_cbor=True)
    assert (got.status, got.headers["Content-Type"]) == (201, "application/cbor")
    assert got.body["ttl_ms"] == 30_000
    got = await api.post("/v1/sessions", {"ttl": "30"}, as_cbor=True)
    assert got.headers["Content-Type"] == "application/problem+cbor"
    assert got.body["field"] == "ttl"
    got = await api.get("/v1/sessions", headers={"Accept": "application/cbor"})
    assert cbor.decode(got.raw, max_bytes=10_000)["sessions"][0]["ttl_ms"] == 30_000
    got = await api.post(
        "/v1/sessions", {"ttl": "30s"}, as_cbor=True, headers={"Accept": "application/json"}
    )
    assert json.loads(got.raw)["ttl_ms"] == 30_000


async def test_an_unknown_parameter_is_refused(api: Api) -> None:
    """A mistyped `wait` is an error, not a request without a wait."""
    session = await api.open()
    got = await api.post("/v1/locks/orders/acquire?wiat=5s", {"session": session})
    assert (got.status, got.body["field"]) == (400, "wiat")
    assert (await api.get("/v1/cluster?verbose=1")).body["field"] == "verbose"


async def test_a_bad_key_is_refused(api: Api) -> None:
    """Before anything is done."""
    got = await api.post("/v1/sessions", {"ttl": "1s"}, headers={"Idempotency-Key": "a b"})
    assert (got.status, got.body["field"]) == (400, "Idempotency-Key")
    assert api.node.taken == []


async def test_of_two_keys_none_is_chosen(api: Api) -> None:
    """Somebody on the way may have taken the other one for the key."""
    twice = CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b")])
    url = f"http://{api.host}:{api.port}/v1/sessions"
    async with api.session.post(url, json={"ttl": "1s"}, headers=twice) as got:
        assert (got.status, (await got.json(content_type=None))["field"]) == (
            400,
            "Idempotency-Key",
        )
    assert api.node.taken == []


async def test_a_stale_read_asks_nobody_and_says_how_old_it_may_be(api: Api) -> None:
    """Without a leader the default read refuses, the stale one answers."""
    await api.open()
    got = await api.get("/v1/sessions")
    assert "Coterie-Stale-Ms" not in got.headers
    api.node.leader = None
    got = await api.get("/v1/sessions")
    assert (got.status, got.code, got.headers["Retry-After"]) == (503, "no_leader", "1")
    assert (got.body["retryable"], got.body["definite"]) == (True, True)
    got = await api.get("/v1/sessions?consistency=stale")
    assert (got.status, len(got.body["sessions"])) == (200, 1)
    assert got.headers["Coterie-Stale-Ms"] == "1234"


@pytest.mark.parametrize(
    ("error", "status", "code", "is_definite"),
    [
        (errors.NoLeader("nobody leads"), 503, "no_leader", True),
        (errors.Timeout("no answer in time"), 504, "timeout", False),
        (errors.ShuttingDown("leaving"), 503, "shutting_down", True),
    ],
)
async def test_the_nodes_failures_are_problems(
    api: Api, error: errors.CoterieError, status: int, code: str, is_definite: bool
) -> None:
    """Whether it surely did not happen goes through to the client."""
    api.node.fail_with = error
    got = await api.post("/v1/sessions", {"ttl": "1s"})
    assert (got.status, got.code, got.body["definite"]) == (status, code, is_definite)
    assert ("Retry-After" in got.headers) == (status == 503)


async def test_a_node_that_takes_nothing_refuses_definitely(api: Api) -> None:
    """What the node refuses to take is a 503 like any other."""
    api.node.refuse_with = errors.Overloaded("full")
    got = await api.post("/v1/sessions", {"ttl": "1s"})
    assert (got.status, got.code, got.body["definite"]) == (503, "overloaded", True)


async def test_an_error_of_ours_is_a_problem_without_details(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """500, indefinite; what happened is in the log only."""
    api.node.refuse_with = RuntimeError("secret detail")
    got = await api.post("/v1/sessions", {"ttl": "1s"})
    assert (got.status, got.code, got.body["definite"]) == (500, "internal", False)
    assert b"secret" not in got.raw
    api.node.refuse_with = None
    assert (await api.post("/v1/sessions", {"ttl": "1s"})).status == 201


async def test_a_client_that_hangs_up_leaves_the_queue(api: Api) -> None:
    """The place in the queue goes with the connection."""
    holder, waiter = await api.open(), await api.open()
    await api.acquire("orders", holder)
    waiting = api.start(api.acquire("orders", waiter, wait="1h"))
    await api.until_queued("orders", 1)
    waiting.cancel()
    await api.until_queued("orders", 0)
    assert len(api.node.hung_up) == 1
    assert api.node.parked == 0


async def test_a_full_node_refuses_at_once_and_keeps_sessions_alive(make_api: MakeApi) -> None:
    """Over the limit 503; keepalives, waits and probes have room of their own."""
    api = await make_api(requests_max=2, keepalives_max=1, waits_max=1)
    session = await api.open()
    api.node.is_silent = True
    calls = [api.start(api.post("/v1/sessions", {"ttl": "1s"})) for _ in range(2)]
    await until_taken(api, 3)
    got = await api.acquire("orders", session)
    assert (got.status, got.code, got.body["definite"]) == (503, "overloaded", True)
    assert got.headers["Retry-After"] == "1"
    assert (await api.get("/v1/locks/orders")).status == 503
    assert (await api.get("/readyz")).status == 200
    assert (await api.get("/metrics")).status == 200
    calls.append(api.start(api.post(f"/v1/sessions/{session}/keepalive")))
    await until_taken(api, 4)
    assert (await api.post(f"/v1/sessions/{session}/keepalive")).status == 503
    calls.append(api.start(api.acquire("orders", session, wait="1s")))
    await until_taken(api, 5)
    assert isinstance(api.node.taken[-1], AcquireLock)
    assert (await api.acquire("orders", session, wait="1s")).status == 503
    for call in calls:
        call.cancel()

    async def is_empty() -> bool:
        return len(api.node.hung_up) == 4

    await until(is_empty)
    api.node.is_silent = False
    assert (await api.acquire("orders", session)).status == 200


async def until_taken(api: Api, count: int) -> None:
    """Wait until the node has taken so many commands."""

    async def is_taken() -> bool:
        return len(api.node.taken) == count

    await until(is_taken)


async def test_answers_are_not_cached_and_do_not_name_our_libraries(api: Api) -> None:
    """A cache between us and the client would be a stale read; versions are nobody's business."""
    for got in (await api.get("/v1/cluster"), await api.get("/nowhere")):
        assert got.headers["Cache-Control"] == "no-store"
        assert got.headers["Server"] == "Coterie"


async def test_a_refusal_carries_the_position_it_reflects(api: Api) -> None:
    """Also a 409: it is an answer of the log like any other."""
    holder, other = await api.open(), await api.open()
    await api.acquire("orders", holder)
    got = await api.acquire("orders", other)
    assert (got.status, got.headers["Coterie-Index"]) == (409, "4")


async def test_many_at_once_are_answered_each_its_own(api: Api) -> None:
    """A crowd before one lock: one grant, the others know who."""
    sessions = [await api.open() for _ in range(20)]
    got = await asyncio.gather(*(api.acquire("orders", session) for session in sessions))
    granted = [one for one in got if one.status == 200]
    assert len(granted) == 1
    assert {one.body["holder"] for one in got if one.status == 409} == {granted[0].body["session"]}
