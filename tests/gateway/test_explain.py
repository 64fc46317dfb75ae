"""Explanations over HTTP: who is in the way, what would help, and deadlocks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import Api, until


async def test_who_is_in_the_way_is_told_with_what_would_help(anywhere: Api) -> None:
    """Holders with token and age, who waits before, the position, and how it ends at the latest."""
    ann, bob, cid = [await anywhere.open("60s") for _ in range(3)]
    token = (await anywhere.acquire("orders", ann)).body["token"]
    anywhere.start(anywhere.acquire("orders", bob, wait="30s"))
    await anywhere.until_queued("orders", 1)
    anywhere.start(anywhere.acquire("orders", cid, wait="30s"))
    await anywhere.until_queued("orders", 2)
    got = (await anywhere.get(f"/v1/explain?session={cid}")).body
    (want,) = got["wants"]
    assert (want["want"], want["waits"], want["position"]) == ("/locks/orders", True, 2)
    assert [(one["session"], one["token"]) for one in want["holders"]] == [(ann, token)]
    assert [(one["session"], one["position"]) for one in want["ahead"]] == [(bob, 1)]
    assert want["granted_when"] == "all_gone"
    assert 0 < want["free_in_ms"] <= 60_000
    assert ann in want["advice"]
    assert (got["deadlock"], got["complete"]) == (None, True)


async def test_one_thing_may_be_asked_about_by_who_does_not_wait(api: Api) -> None:
    """Of a free one it is told that nobody is in the way."""
    ann, bob = await api.open(), await api.open()
    await api.acquire("a", ann)
    got = (await api.get(f"/v1/explain?session={bob}&want=/locks/a")).body
    (want,) = got["wants"]
    assert (want["waits"], want["position"], want["wait_ends_in_ms"]) == (False, 1, None)
    assert want["holders"][0]["session"] == ann
    (own,) = (await api.get(f"/v1/explain?session={ann}&want=/locks/a")).body["wants"]
    assert (own["holds"], own["holders"], want["holds"]) == (True, [], False)
    assert own["advice"] == 'the session holds lock "a"'
    for path in ("/locks/b", "/v1/locks/b/c", "/semaphores/s", "/resources/r", "/fifos/f"):
        got = (await api.get(f"/v1/explain?session={bob}&want={path}")).body
        assert got["wants"][0]["granted_when"] == "now", path


async def test_what_would_be_given_at_once_has_nobody_in_its_way(api: Api) -> None:
    """Though others hold some of it: explain says what acquire would."""
    ann, bob = await api.open(), await api.open()
    await api.call("PUT", "/v1/semaphores/s", {"limit": 2})
    for ticket in ("t", "u"):
        await api.post("/v1/resources/r/tickets", {"session": ann, "ticket": ticket})
    cid = await api.open()
    for who, when in ((ann, "now"), (bob, "some_gone")):
        for path, verb in (("/semaphores/s", "acquire"), ("/resources/r", "claim")):
            assert (await api.post(f"/v1{path}/{verb}", {"session": who})).status == 200
            got = (await api.get(f"/v1/explain?session={cid}&want={path}")).body
            assert got["wants"][0]["granted_when"] == when, path


async def test_who_waits_for_what_is_not_there_is_told_so(api: Api) -> None:
    """Nobody is in the way, and it is not granted now either."""
    ann = await api.open()
    api.start(api.post("/v1/tubes/mail/reserve", {"session": ann, "wait": "30s"}))

    async def waits() -> bool:
        return bool((await api.get(f"/v1/sessions/{ann}")).body["waits"])

    await until(waits)
    (want,) = (await api.get(f"/v1/explain?session={ann}")).body["wants"]
    assert (want["waits"], want["granted_when"], want["holders"]) == (True, "later", [])
    assert want["advice"].endswith("as soon as there is anything to be had")


async def test_a_deadlock_is_told_with_its_circle(api: Api) -> None:
    """Two who hold what the other one waits for."""
    ann, bob = await api.open(), await api.open()
    await api.acquire("a", ann)
    await api.acquire("b", bob)
    api.start(api.acquire("b", ann, wait="30s"))
    await api.until_queued("b", 1)
    api.start(api.acquire("a", bob, wait="30s"))
    await api.until_queued("a", 1)
    deadlock = (await api.get(f"/v1/explain?session={ann}")).body["deadlock"]
    assert deadlock["certain"] is True
    assert deadlock["circle"] == [
        {"session": ann, "want": "/locks/b", "blocked_by": bob},
        {"session": bob, "want": "/locks/a", "blocked_by": ann},
    ]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "session"),
        ("?session=", "session"),
        ("?session=1-a&want=orders", "want"),
        ("?session=1-a&want=/locks", "want"),
        ("?session=1-a&want=/locks/", "want"),
        ("?session=1-a&want=/sessions/1-a", "want"),
        ("?session=1-a&want=/houses/a", "want"),
        (f"?session=1-a&want=/locks/{'a' * 201}", "want"),
    ],
)
async def test_what_makes_no_sense_is_refused(api: Api, query: str, field: str) -> None:
    """With the field that is wrong."""
    got = await api.get(f"/v1/explain{query}")
    assert (got.status, got.body["field"]) == (400, field)


async def test_a_session_that_is_gone_waits_for_nothing(api: Api) -> None:
    """Told apart from one that never was."""
    ann = await api.open()
    await api.delete(f"/v1/sessions/{ann}")
    gone: Any = await api.get(f"/v1/explain?session={ann}")
    never: Any = await api.get("/v1/explain?session=999999-a")
    assert (gone.code, never.code) == ("session_expired", "session_not_found")
