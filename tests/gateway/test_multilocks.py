"""Several locks over HTTP: all or none."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import Api


def wanted(*names: str) -> list[dict[str, Any]]:
    """Locks asked for."""
    return [{"name": name} for name in names]


@pytest.mark.parametrize("as_cbor", [False, True])
async def test_several_locks_are_taken_and_given_back(anywhere: Api, as_cbor: bool) -> None:
    """In order of name, each with its token and mode."""
    ann = await anywhere.open()
    locks = [{"name": "b", "mode": "shared"}, {"name": "a"}]
    body = {"session": ann, "locks": locks}
    got = await anywhere.post("/v1/locks/acquire", body, as_cbor=as_cbor)
    assert got.status == 200, got.body
    assert got.body["session"] == ann
    modes = [(lock["name"], lock["mode"]) for lock in got.body["locks"]]
    assert modes == [("a", "exclusive"), ("b", "shared")]
    tokens = [{"name": lock["name"], "token": lock["token"]} for lock in got.body["locks"]]
    body = {"session": ann, "locks": tokens}
    stale = [tokens[0], {"name": "b", "token": 0}]
    refused = await anywhere.post("/v1/locks/release", {"session": ann, "locks": stale})
    assert (refused.status, refused.code) == (409, "stale_token")
    got = await anywhere.post("/v1/locks/release", body, as_cbor=as_cbor)
    assert got.body == {"names": ["a", "b"], "released": True}
    again = await anywhere.post("/v1/locks/release", body)
    assert (again.status, again.code, again.body["name"]) == (409, "not_holder", "a")


async def test_the_refusal_names_the_first_in_the_way_and_all(anywhere: Api) -> None:
    """`blocked` has them all, and nothing was taken."""
    ann, bob = await anywhere.open(), await anywhere.open()
    await anywhere.acquire("b", ann)
    body = {"session": bob, "locks": wanted("c", "b", "a")}
    got = await anywhere.post("/v1/locks/acquire", body)
    assert (got.status, got.code) == (409, "lock_held")
    assert (got.body["name"], got.body["holder"], got.body["blocked"]) == ("b", ann, ["b"])
    assert (await anywhere.get("/v1/locks/a")).body["holders"] == []


async def test_a_wait_ends_with_all_of_them(anywhere: Api) -> None:
    """It waits in every queue, and is granted when the last one comes free."""
    ann, bob = await anywhere.open(), await anywhere.open()
    held = await anywhere.acquire("b", ann)
    body = {"session": bob, "locks": wanted("a", "b"), "wait": "30s"}
    waiting = anywhere.start(anywhere.post("/v1/locks/acquire", body))
    await anywhere.until_queued("a", 1)
    session = (await anywhere.get(f"/v1/sessions/{bob}")).body
    assert [waited["name"] for waited in session["waits"]] == ["a", "b"]
    await anywhere.post("/v1/locks/b/release", {"session": ann, "token": held.body["token"]})
    got = await waiting
    assert [lock["name"] for lock in got.body["locks"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("locks", "field"),
    [
        ([], "locks"),
        (wanted("a", "a"), "locks[1].name"),
        (wanted(""), "locks[0].name"),
        (wanted(*map(str, range(101))), "locks"),
        ([{"name": "a", "mode": "odd"}], "locks[0].mode"),
        ([{"name": "a", "token": 1}], "locks[0].token"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, locks: Any, field: str) -> None:
    """With the field that is wrong."""
    body = {"session": "1-a", "locks": locks}
    got = await api.post("/v1/locks/acquire", body)
    assert (got.status, got.body["field"]) == (400, field)


async def test_an_ended_session_gets_none(anywhere: Api) -> None:
    """As everywhere."""
    body = {"session": "9999999-a", "locks": wanted("a")}
    got = await anywhere.post("/v1/locks/acquire", body)
    assert (got.status, got.code) == (404, "session_not_found")
    body = {"session": "9999999-a", "locks": [{"name": "a", "token": 1}]}
    got = await anywhere.post("/v1/locks/release", body)
    assert (got.status, got.code) == (404, "session_not_found")
