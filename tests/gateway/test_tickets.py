"""Tickets on resources over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import Api, Got, until

LAB = "/v1/resources/lab"


async def issue(api: Api, session: str, ticket: str, **more: Any) -> Got:
    """Issue a ticket of the lab."""
    return await api.post(f"{LAB}/tickets", {"session": session, "ticket": ticket, **more})


async def claim(api: Api, session: str, **more: Any) -> Got:
    """Claim a ticket of the lab."""
    return await api.post(f"{LAB}/claim", {"session": session, **more})


async def queued(api: Api, length: int) -> None:
    """Ask until so many wait."""

    async def is_so() -> bool:
        got = await api.get(f"{LAB}?consistency=stale")
        return got.status == 200 and bool(got.body["queue_length"] == length)

    await until(is_so)


async def test_a_ticket_is_issued_and_issued_again(anywhere: Api) -> None:
    """201 and where it is; then 200 with the same token, until another session takes it over."""
    provider, other = await anywhere.open(), await anywhere.open()
    made = await issue(anywhere, provider, "bench 1/a", data="x")
    assert made.status == 201
    assert made.headers["Location"] == f"{LAB}/tickets/bench%201%2Fa"
    assert made.headers["Coterie-Token"] == str(made.body["token"])
    assert made.body == {
        "name": "lab",
        "ticket": "bench 1/a",
        "token": made.body["token"],
        "session": provider,
        "created": True,
        "taken_from": None,
        "claimant": None,
    }
    again = await issue(anywhere, provider, "bench 1/a", data="y")
    assert (again.status, again.body["token"]) == (200, made.body["token"])
    shown = (await anywhere.get(made.headers["Location"])).body
    assert (shown["data"], shown["data_bytes"], shown["claimant"]) == ("y", 1, None)
    taken = await issue(anywhere, other, "bench 1/a")
    assert (taken.status, taken.body["taken_from"]) == (200, provider)
    assert taken.body["token"] > made.body["token"]


async def test_a_claim_gives_the_ticket_with_its_data(anywhere: Api) -> None:
    """And the same again to who asks again."""
    provider, claimant = await anywhere.open(), await anywhere.open()
    await issue(anywhere, provider, "a", data='{"port": 7}')
    got = await claim(anywhere, claimant)
    assert got.status == 200
    assert got.body == {
        "name": "lab",
        "ticket": "a",
        "token": got.body["token"],
        "session": claimant,
        "issuer": provider,
        "data": '{"port": 7}',
    }
    assert got.headers["Coterie-Token"] == str(got.body["token"])
    assert (await claim(anywhere, claimant)).body == got.body
    assert (await claim(anywhere, claimant, ticket="a", another=True)).body == got.body


async def test_data_may_be_any_json_value(anywhere: Api) -> None:
    """An object comes back as an object; null is no data."""
    provider, claimant = await anywhere.open(), await anywhere.open()
    data = {"port": 7, "names": ["x", None]}
    await issue(anywhere, provider, "a", data=data)
    assert (await claim(anywhere, claimant)).body["data"] == data
    assert (await anywhere.get(LAB)).body["tickets"][0]["data"] == data
    await issue(anywhere, provider, "a", data=None)
    assert (await anywhere.get(LAB)).body["tickets"][0]["data"] is None


async def test_no_free_ticket_is_refused_with_the_reason(anywhere: Api) -> None:
    """409 says how many there are, who has held one longest, and where one would stand."""
    provider, holder, other = [await anywhere.open() for _ in range(3)]
    nothing = await claim(anywhere, other)
    assert (nothing.status, nothing.code, nothing.body["tickets"]) == (409, "no_ticket_free", 0)
    await issue(anywhere, provider, "a")
    grant = await claim(anywhere, holder)
    await anywhere.advance(250)
    got = await claim(anywhere, other)
    assert (got.status, got.code) == (409, "no_ticket_free")
    assert (got.body["retryable"], got.body["definite"]) == (True, True)
    reason = {
        "name": "lab",
        "ticket": None,
        "tickets": 1,
        "claimed": 1,
        "holder": holder,
        "held_for_ms": 250,
        "holder_token": grant.body["token"],
        "queue_length": 0,
        "position": 1,
    }
    assert {name: got.body[name] for name in reason} == reason
    named = await claim(anywhere, other, ticket="b")
    assert (named.body["ticket"], named.body["holder"]) == ("b", None)


async def test_waiting_claims_are_served_in_order(anywhere: Api) -> None:
    """By an issue, and by a release."""
    provider, first, second = [await anywhere.open() for _ in range(3)]
    one = anywhere.start(claim(anywhere, first, wait="30s"))
    await queued(anywhere, 1)
    two = anywhere.start(anywhere.post(f"{LAB}/claim?wait=30s", {"session": second}))
    await queued(anywhere, 2)
    await issue(anywhere, provider, "a")
    got = await one
    assert (got.status, got.body["ticket"]) == (200, "a")
    assert not two.done()
    body = {"session": first, "ticket": "a", "token": got.body["token"]}
    released = await anywhere.post(f"{LAB}/release", body)
    assert (released.status, released.body) == (200, {"released": True})
    assert (await two).body["session"] == second


async def test_a_release_needs_the_present_token(anywhere: Api) -> None:
    """A stale token, somebody else's, and what is not there."""
    provider, holder, other = [await anywhere.open() for _ in range(3)]
    await issue(anywhere, provider, "a")
    token = (await claim(anywhere, holder)).body["token"]

    async def release(session: str, ticket: str, token: int, resource: str = "lab") -> Got:
        body = {"session": session, "ticket": ticket, "token": token}
        return await anywhere.post(f"/v1/resources/{resource}/release", body)

    stale = await release(holder, "a", token - 1)
    assert (stale.status, stale.code) == (409, "stale_token")
    assert stale.body["current_token"] == token
    stranger = await release(other, "a", token)
    assert (stranger.status, stranger.code) == (409, "not_holder")
    assert (await release(holder, "z", token)).code == "ticket_not_found"
    assert (await release(holder, "a", token, "attic")).code == "resource_not_found"
    assert (await release(holder, "a", token)).status == 200
    assert (await release(holder, "a", token)).code == "not_holder"


async def test_a_revoked_ticket_is_lost_by_its_claimant(anywhere: Api) -> None:
    """Only its issuer may; its token is good for nothing any more."""
    provider, claimant = await anywhere.open(), await anywhere.open()
    await issue(anywhere, provider, "a")
    token = (await claim(anywhere, claimant)).body["token"]
    path = f"{LAB}/tickets/a"
    check = f"{path}/check"
    assert (await anywhere.post(check, {"token": token})).body == {
        "valid": True,
        "current_token": token,
    }
    refused = await anywhere.delete(f"{path}?session={claimant}")
    assert (refused.status, refused.code) == (409, "not_issuer")
    assert (refused.body["session"], refused.body["issuer"]) == (claimant, provider)
    unnamed = await anywhere.delete(path)
    assert (unnamed.status, unnamed.body["field"]) == (400, "session")
    got = await anywhere.delete(f"{path}?session={provider}")
    assert (got.status, got.body) == (200, {"claimant": claimant, "revoked": True})
    assert (await anywhere.post(check, {"token": token})).body == {
        "valid": False,
        "current_token": None,
    }
    assert (await anywhere.get(f"/v1/sessions/{claimant}")).body["holds"] == []
    for gone_path, code in ((LAB, "resource_not_found"), (path, "ticket_not_found")):
        gone = await anywhere.get(gone_path)
        assert (gone.status, gone.code) == (404, code)
    again = await anywhere.delete(f"{LAB}/tickets/a?session={provider}")
    assert (again.status, again.code) == (404, "resource_not_found")


async def test_tickets_vanish_with_their_provider(anywhere: Api) -> None:
    """In the step that ends its session."""
    provider, claimant = await anywhere.open(), await anywhere.open()
    await issue(anywhere, provider, "a")
    await claim(anywhere, claimant)
    await anywhere.delete(f"/v1/sessions/{provider}")
    assert (await anywhere.get(LAB)).status == 404
    assert (await anywhere.get(f"/v1/sessions/{claimant}")).body["holds"] == []


async def test_a_resource_is_shown_with_everything_in_it(anywhere: Api) -> None:
    """Tickets in order of issue, who holds them, who waits for what."""
    provider, holder, other = [await anywhere.open() for _ in range(3)]
    first = (await issue(anywhere, provider, "b", data={"base64": "/w=="})).body["token"]
    second = (await issue(anywhere, provider, "a")).body["token"]
    token = (await claim(anywhere, holder)).body["token"]
    waiting = anywhere.start(claim(anywhere, other, ticket="b", wait="10s"))
    await queued(anywhere, 1)
    await anywhere.advance(125)
    body = (await anywhere.get(LAB)).body
    for ticket in body["tickets"]:
        assert ticket.pop("issued_for_ms") >= 125
    assert body == {
        "name": "lab",
        "tickets": [
            {
                "ticket": "b",
                "issuer": provider,
                "token": first,
                "data": {"base64": "/w=="},
                "data_bytes": 1,
                "claimant": holder,
                "claim_token": token,
                "held_for_ms": 125,
            },
            {
                "ticket": "a",
                "issuer": provider,
                "token": second,
                "data": None,
                "data_bytes": None,
                "claimant": None,
                "claim_token": None,
                "held_for_ms": None,
            },
        ],
        "waiters": [
            {
                "session": other,
                "ticket": "b",
                "position": 1,
                "waited_ms": 125,
                "expires_in_ms": 9_875,
            }
        ],
        "ticket_count": 2,
        "free_count": 1,
        "queue_length": 1,
    }
    waiting.cancel()


async def test_resources_are_listed_by_prefix_in_pages(anywhere: Api) -> None:
    """In order of name; `next` goes on, the last page has none."""
    session = await anywhere.open()
    for name in ("a%2F3", "a%2F1", "b", "a%2F2"):
        body = {"session": session, "ticket": "t"}
        assert (await anywhere.post(f"/v1/resources/{name}/tickets", body)).status == 201
    first = (await anywhere.get("/v1/resources?prefix=a%2F&limit=2")).body
    assert [resource["name"] for resource in first["resources"]] == ["a/1", "a/2"]
    assert first["next"] == "a/2"
    second = (await anywhere.get("/v1/resources?prefix=a%2F&limit=2&after=a%2F2")).body
    assert [resource["name"] for resource in second["resources"]] == ["a/3"]
    assert "next" not in second


async def test_data_of_the_full_length_pass(anywhere: Api) -> None:
    """64 KiB, in the longest form that JSON has for them; a byte more is too much."""
    provider, claimant = await anywhere.open(), await anywhere.open()
    assert (await issue(anywhere, provider, "a", data="\x01" * 65_536)).status == 201
    assert (await claim(anywhere, claimant)).body["data"] == "\x01" * 65_536
    more = await issue(anywhere, provider, "b", data="x" * 65_537)
    assert (more.status, more.code) == (413, "too_large")


async def test_a_picture_leaves_out_data_that_are_too_much(api: Api) -> None:
    """A mebibyte for a resource; each ticket can be asked for alone."""
    provider = await api.open()
    for number in range(17):
        await issue(api, provider, f"{number:02}", data="x" * 65_536)
    tickets = (await api.get(LAB)).body["tickets"]
    assert [ticket["data"] is None for ticket in tickets] == [False] * 16 + [True]
    assert {ticket["data_bytes"] for ticket in tickets} == {65_536}
    assert (await api.get(f"{LAB}/tickets/16")).body["data"] == "x" * 65_536


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("tickets", {"ticket": "a"}, "session"),
        ("tickets", {"session": "1-a"}, "ticket"),
        ("tickets", {"session": "1-a", "ticket": ""}, "ticket"),
        ("tickets", {"session": "1-a", "ticket": "x\x00"}, "ticket"),
        ("tickets", {"session": "1-a", "ticket": "a", "data": {"base64": 7}}, "data.base64"),
        ("tickets", {"session": "1-a", "ticket": "a", "data": {"base64": "x"}}, "data.base64"),
        ("claim", {}, "session"),
        ("claim", {"session": "1-a", "wait": "2h"}, "wait"),
        ("claim", {"session": "1-a", "ticket": 7}, "ticket"),
        ("release", {"session": "1-a", "token": 1}, "ticket"),
        ("release", {"session": "1-a", "ticket": "a"}, "token"),
        ("tickets/a/check", {}, "token"),
    ],
)
async def test_what_makes_no_sense_is_refused_by_its_field(
    api: Api, path: str, body: Any, field: str
) -> None:
    """400 names the field."""
    got = await api.post(f"{LAB}/{path}", body)
    assert (got.status, got.code, got.body["field"]) == (400, "bad_request", field)


async def test_a_dead_session_gets_nothing(api: Api) -> None:
    """410 for one that ended, 404 for one that never was."""
    session = await api.open()
    await api.delete(f"/v1/sessions/{session}")
    for ask in (issue(api, session, "a"), claim(api, session)):
        assert (await ask).status == 410
    for ask in (issue(api, "ffffff-x", "a"), claim(api, "ffffff-x")):
        assert (await ask).status == 404


async def test_cbor_carries_bytes_as_they_are(api: Api) -> None:
    """Text stays text; JSON shows the bytes as base64; problems are CBOR too."""
    session = await api.open()
    body = {"session": session, "ticket": "a", "data": b"\x00\xff"}
    made = await api.post(f"{LAB}/tickets", body, as_cbor=True)
    assert (made.status, made.headers["Content-Type"]) == (201, "application/cbor")
    got = await api.post(f"{LAB}/claim", {"session": session}, as_cbor=True)
    assert got.body["data"] == b"\x00\xff"
    assert (await claim(api, session)).body["data"] == {"base64": "AP8="}
    await issue(api, session, "a", data="text")
    got = await api.post(f"{LAB}/claim", {"session": session}, as_cbor=True)
    assert got.body["data"] == "text"
    body = {"session": session, "another": True}
    refused = await api.post(f"{LAB}/claim", body, as_cbor=True)
    assert (refused.status, refused.headers["Content-Type"]) == (409, "application/problem+cbor")
    assert refused.code == "no_ticket_free"
