"""Several commands over HTTP: one entry, answers in order, or all or none."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.gateway.openapi import document
from cluster.gateway.routes import Write
from cluster.gateway.server import NATIVE_ROUTES
from tests.gateway.conftest import Api


def take(name: str, session: str, **more: Any) -> dict[str, Any]:
    """A command that takes a lock."""
    return {"call": f"POST /v1/locks/{name}/acquire", "session": session, **more}


@pytest.mark.parametrize("as_cbor", [False, True])
async def test_each_command_gets_the_answer_it_would_get_alone(
    anywhere: Api, as_cbor: bool
) -> None:
    """Refusals are problem documents among them; the batch itself is carried out."""
    ann = await anywhere.open()
    commands = [
        take("a", ann),
        {"call": "POST /v1/sessions", "ttl": "30s", "name": "bob"},
        {"call": "post_locks_name_release", "name": "a", "session": ann, "token": 0},
        {"call": "POST /v1/locks/b/acquire", "body": {"session": ann, "mode": "shared"}},
        {"call": f"DELETE /v1/sessions/{ann}"},
    ]
    before = anywhere.gateway._node.applied_index
    got = await anywhere.post("/v1/batch", {"commands": commands}, as_cbor=as_cbor)
    assert got.status == 200, got.body
    assert anywhere.gateway._node.applied_index == before + 1
    results = got.body["answers"]
    assert [result["status"] for result in results] == [200, 201, 409, 200, 204]
    assert results[0]["body"]["name"] == "a"
    assert results[1]["body"]["session"].count("-") == 1
    assert results[2]["body"]["code"] == "stale_token"
    assert results[3]["body"]["mode"] == "shared"
    assert results[4]["body"] is None


async def test_a_field_is_known_by_its_name_on_the_wire(api: Api) -> None:
    """`for`, which is no name in Python, is one in a batch too; and in what is said of others."""
    commands = [
        {"call": "POST /v1/tubes/mail/jobs", "body": "x"},
        {"call": "PUT /v1/tubes/mail/pause", "for": "10s"},
    ]
    got = await api.post("/v1/batch", {"commands": commands})
    assert [result["status"] for result in got.body["answers"]] == [201, 200], got.body
    assert (await api.get("/v1/tubes/mail")).body["paused"]
    got = await api.call("PUT", "/v1/tubes/mail/pause", {"duration": "10s"})
    assert (got.status, got.body["field"]) == (400, "duration")
    assert "its fields: for" in got.body["detail"]


async def test_an_atomic_batch_does_all_or_nothing(anywhere: Api) -> None:
    """The first refusal says which command, and what it would have been told."""
    ann, bob = await anywhere.open(), await anywhere.open()
    await anywhere.acquire("b", bob)
    commands = [take("a", ann), take("b", ann), take("c", ann)]
    got = await anywhere.post("/v1/batch", {"commands": commands, "atomic": True})
    assert (got.status, got.code, got.body["at"]) == (409, "batch_refused", 1)
    assert got.body["refusal"]["code"] == "lock_held"
    assert got.body["refusal"]["holder"] == bob
    assert (await anywhere.get("/v1/locks/a")).body["holders"] == []
    got = await anywhere.post("/v1/batch", {"commands": commands[::2], "atomic": True})
    assert [result["status"] for result in got.body["answers"]] == [200, 200]


async def test_in_an_atomic_batch_each_thing_comes_once(anywhere: Api) -> None:
    """What was looked at must not change before it is done."""
    ann = await anywhere.open()
    commands = [take("a", ann), take("b", ann), take("a", ann)]
    got = await anywhere.post("/v1/batch", {"commands": commands, "atomic": True})
    assert (got.status, got.code, got.body["field"]) == (400, "bad_request", "commands[2]")
    assert "commands[0]" in got.body["detail"]


async def test_a_key_covers_the_whole_batch(anywhere: Api) -> None:
    """The same batch again gets the same answers, with the same session in it."""
    key = {"Idempotency-Key": "once"}
    body = {"commands": [{"call": "POST /v1/sessions", "ttl": "30s"}]}
    first = await anywhere.post("/v1/batch", body, headers=key)
    again = await anywhere.post("/v1/batch", body, headers=key)
    assert first.body == again.body
    body["commands"][0]["ttl"] = "31s"
    other = await anywhere.post("/v1/batch", body, headers=key)
    assert other.status == 422


async def test_bodies_that_have_a_body_are_told_apart(api: Api) -> None:
    """A job's own `body` may stand beside `call`, or under the body of the call."""
    call = "POST /v1/tubes/mail/jobs"
    commands = [
        {"call": call, "body": "one"},
        {"call": call, "body": {"base64": "AQI="}, "priority": 3},
        {"call": call, "body": {"body": "three", "priority": 1}},
    ]
    got = await api.post("/v1/batch", {"commands": commands})
    assert [result["status"] for result in got.body["answers"]] == [201, 201, 201]
    jobs = (await api.post("/v1/tubes/mail/reserve", {"limit": 3})).body["jobs"]
    assert [job["body"] for job in jobs] == ["one", "three", {"base64": "AQI="}]


async def test_query_parameters_may_stand_among_the_fields(api: Api) -> None:
    """Or in the call, as in the API."""
    ann = await api.open()
    for ticket in ("t1", "t2"):
        await api.post("/v1/resources/r/tickets", {"session": ann, "ticket": ticket})
    commands = [
        {"call": f"DELETE /v1/resources/r/tickets/t1?session={ann}"},
        {"call": "DELETE /v1/resources/r/tickets/t2", "session": ann},
    ]
    got = await api.post("/v1/batch", {"commands": commands})
    assert all(result["status"] < 300 for result in got.body["answers"]), got.body


async def test_a_place_in_a_waiting_room_comes_with_its_pass(api: Api) -> None:
    """The node signs it, as it would have alone."""
    room = {"window_size": 1, "window_interval": "1s", "active_windows": 1}
    commands = [
        {"call": "PUT /v1/rooms/sale", **room},
        {"call": "POST /v1/rooms/sale/join"},
    ]
    got = await api.post("/v1/batch", {"commands": commands})
    assert got.body["answers"][1]["body"]["token"].count(".") == 2


@pytest.mark.parametrize(
    ("commands", "field"),
    [
        ([], "commands"),
        ([{}], "commands[0].call"),
        ([{"call": 3}], "commands[0].call"),
        ([{"call": "GET /v1/locks/a"}], "commands[0].call"),
        ([{"call": "POST /v1/batch", "commands": []}], "commands[0].call"),
        ([{"call": "post_batch", "commands": []}], "commands[0].call"),
        ([{"call": "nonsense"}], "commands[0].call"),
        ([{"call": "post_locks_name_acquire", "session": "1-a"}], "commands[0].name"),
        ([take("a", "1-a"), take("a%", "1-a")], "commands[1].name"),
        ([take("a", "1-a", wait="3s")], "commands[0].wait"),
        ([take("a", "1-a", wait="soon")], "commands[0].wait"),
        ([take("a", "1-a", mood="good")], "commands[0].mood"),
        ([{"call": "POST /v1/locks/a/acquire"}], "commands[0].session"),
        ([take("a", "1-a", body={"session": "1-a"})], "commands[0].session"),
        (5 * [{"call": "POST /v1/tubes/t/reserve"}], "commands[4].call"),
        (33 * [{"call": "POST /v1/jobs/1/reserve"}], "commands[32].call"),
        (1001 * [{"call": "POST /v1/tubes/t/reserve"}], "commands"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, commands: Any, field: str) -> None:
    """With the command and the field that is wrong; nothing was carried out."""
    got = await api.post("/v1/batch", {"commands": commands})
    assert (got.status, got.body["field"]) == (400, field), got.body
    assert api.node.taken == []


async def test_what_cannot_be_looked_at_beforehand_is_no_part_of_an_atomic_batch(
    api: Api,
) -> None:
    """The refusal names what may be."""
    body = {"commands": [{"call": "POST /v1/sessions", "ttl": "3s"}], "atomic": True}
    got = await api.post("/v1/batch", body)
    assert (got.status, got.body["field"]) == (400, "commands[0].call")
    assert "POST /v1/locks/{name}/acquire" in got.body["detail"]


def test_operations_are_called_as_in_the_document() -> None:
    """Whoever reads /openapi.json can write a batch."""
    text = document(NATIVE_ROUTES, "0").decode()
    for route in NATIVE_ROUTES:
        if isinstance(route, Write):
            assert f'"operationId":"{route.operation}"' in text
