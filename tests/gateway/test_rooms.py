"""Waiting rooms over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jwt
import pytest

from cluster.testing.local_node import LocalNode
from tests.gateway.conftest import Api, Got, MakeApi
from tests.gateway.solo_node import SoloNode

KEY, OTHER = b"the first key of these tests" * 3, b"the second key of these tests" * 3
SETTINGS = {"window_size": 2, "window_interval": "1s", "active_windows": 2}
MADE = {"room": "r", "window_size": 2, "window_interval_ms": 1_000, "active_windows": 2}


async def join(api: Api, **options: Any) -> Got:
    """Take a place."""
    got = await api.post("/v1/rooms/r/join", **options)
    assert got.status == 201, got.body
    return got


async def status(api: Api, token: str, **options: Any) -> Got:
    """Show a pass."""
    headers = {"Authorization": f"Bearer {token}", **options.pop("headers", {})}
    return await api.get("/v1/rooms/r/status", headers=headers, **options)


async def test_a_room_is_made_and_changed(anywhere: Api) -> None:
    """201 where there was none, 200 after that; the room stays the same."""
    made = await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    assert (made.status, made.body) == (201, {**MADE, "room_token": made.body["room_token"]})
    same = await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    assert (same.status, same.body) == (200, made.body)
    changed = await anywhere.call("PUT", "/v1/rooms/r", {**SETTINGS, "window_size": 5})
    assert (changed.status, changed.body) == (200, {**made.body, "window_size": 5})


async def test_places_are_admitted_window_by_window(anywhere: Api) -> None:
    """Waiting with what is ahead and how long, then active, then expired."""
    await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    places = [await join(anywhere) for _ in range(4)]
    first, fourth = places[0].body, places[3].body
    assert {**first, "token": ""} == {
        "token": "",
        "room": "r",
        "position": 1,
        "status": "active",
        "ahead": 0,
        "eta_ms": 0,
    }
    assert {**fourth, "token": ""} == {
        "token": "",
        "room": "r",
        "position": 4,
        "status": "waiting",
        "ahead": 1,
        "eta_ms": 1_000,
    }
    got = await status(anywhere, fourth["token"])
    assert got.status == 200
    assert got.body == {"position": 4, "status": "waiting", "ahead": 1, "eta_ms": 1_000}
    await anywhere.advance(1_000)
    got = await status(anywhere, fourth["token"])
    assert got.body == {"position": 4, "status": "active", "ahead": 0, "eta_ms": 0}
    await join(anywhere)
    await anywhere.advance(1_000)
    assert (await status(anywhere, first["token"])).body["status"] == "expired"
    shown = (await anywhere.get("/v1/rooms/r")).body
    assert shown == {
        **MADE,
        "room_token": shown["room_token"],
        "joined": 5,
        "waiting": 0,
        "active": 3,
        "expired": 2,
        "window_end": 6,
        "next_slide_in_ms": None,
    }
    assert (await anywhere.get("/v1/rooms")).body == {"rooms": [shown]}


async def test_a_retried_join_is_the_same_place_and_pass(anywhere: Api) -> None:
    """Same key, same answer, to the letter."""
    await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    first, again = [await join(anywhere, headers={"Idempotency-Key": "j"}) for _ in range(2)]
    assert first.raw == again.raw
    assert (await join(anywhere)).body["position"] == 2


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "pass_missing"),
        ({"Authorization": "Basic eDp5"}, "pass_invalid"),
        ({"Authorization": "Bearer"}, "pass_invalid"),
        ({"Authorization": "Bearer nonsense"}, "pass_invalid"),
        ({"Authorization": "Bearer a.b.c"}, "pass_invalid"),
    ],
)
async def test_what_is_no_pass_is_challenged(
    anywhere: Api, headers: dict[str, str], code: str
) -> None:
    """401 with WWW-Authenticate, and the cure."""
    await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    got = await anywhere.get("/v1/rooms/r/status", headers=headers)
    assert (got.status, got.code) == (401, code)
    assert got.headers["WWW-Authenticate"].startswith('Bearer realm="coterie waiting room"')
    assert ('error="invalid_token"' in got.headers["WWW-Authenticate"]) == (code != "pass_missing")


async def test_a_pass_is_of_one_room(anywhere: Api) -> None:
    """Neither of another room nor of a former one of its name."""
    await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    await anywhere.call("PUT", "/v1/rooms/s", SETTINGS)
    token = (await join(anywhere)).body["token"]
    headers = {"Authorization": f"Bearer {token}"}
    other = await anywhere.get("/v1/rooms/s/status", headers=headers)
    assert (other.status, other.code) == (401, "pass_invalid")
    assert (await anywhere.delete("/v1/rooms/r")).status == 204
    gone = await status(anywhere, token)
    assert (gone.status, gone.code) == (404, "room_not_found")
    await anywhere.call("PUT", "/v1/rooms/r", SETTINGS)
    former = await status(anywhere, token)
    assert (former.status, former.code) == (401, "pass_invalid")


async def test_any_node_with_the_keys_believes_a_pass(make_api: MakeApi) -> None:
    """Two gateways of one cluster; keys are changed one node after the other."""
    node = LocalNode()
    old = await make_api(node, room_keys=(KEY,))
    both = await make_api(node, room_keys=(OTHER, KEY))
    alone = await make_api(node)
    await old.call("PUT", "/v1/rooms/r", SETTINGS)
    token = (await join(old)).body["token"]
    assert jwt.decode(token, KEY, algorithms=["HS256"])["room"] == "r"
    assert (await status(both, token)).body["position"] == 1
    fresh = (await join(both)).body["token"]
    assert jwt.decode(fresh, OTHER, algorithms=["HS256"])["sub"] == "2"
    assert (await status(old, fresh)).code == "pass_invalid"
    assert (await status(alone, token)).code == "pass_invalid"


async def test_places_survive_a_restart(make_api: MakeApi, solo: Callable[[], SoloNode]) -> None:
    """The same pass at the node's next life, and the next place follows the last."""
    node = solo()
    api = await make_api(node.node, room_keys=(KEY,))
    await api.call("PUT", "/v1/rooms/r", SETTINGS)
    token = (await join(api)).body["token"]
    node.close()
    again = await make_api(solo().node, room_keys=(KEY,))
    assert (await status(again, token)).body["position"] == 1
    assert (await join(again)).body["position"] == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "window_size"),
        ({**SETTINGS, "window_size": 0}, "window_size"),
        ({**SETTINGS, "window_size": 10**10}, "window_size"),
        ({**SETTINGS, "window_interval": "10ms"}, "window_interval"),
        ({**SETTINGS, "window_interval": "2y"}, "window_interval"),
        ({**SETTINGS, "active_windows": 0}, "active_windows"),
        ({**SETTINGS, "more": 0}, "more"),
    ],
)
async def test_bad_settings_name_their_field(api: Api, body: Any, field: str) -> None:
    """400, and the cure."""
    got = await api.call("PUT", "/v1/rooms/r", body)
    assert (got.status, got.body["field"]) == (400, field)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/rooms/none"),
        ("GET", "/v1/rooms/none/status"),
        ("POST", "/v1/rooms/none/join"),
        ("DELETE", "/v1/rooms/none"),
    ],
)
async def test_what_is_not_there_is_404(api: Api, method: str, path: str) -> None:
    """Whatever is asked of it."""
    got = await api.call(method, path)
    assert (got.status, got.code, got.body["name"]) == (404, "room_not_found", "none")


async def test_rooms_speak_cbor(api: Api) -> None:
    """The same shapes, both ways."""
    made = await api.call("PUT", "/v1/rooms/r", SETTINGS, as_cbor=True)
    assert made.headers["Content-Type"] == "application/cbor"
    taken = await join(api, headers={"Accept": "application/cbor"})
    assert (taken.headers["Content-Type"], taken.body["position"]) == ("application/cbor", 1)
    got = await status(api, "x", headers={"Accept": "application/cbor"})
    assert (got.headers["Content-Type"], got.code) == ("application/problem+cbor", "pass_invalid")
