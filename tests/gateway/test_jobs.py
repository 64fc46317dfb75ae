"""Jobs over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.gateway.conftest import Api, Got, until


async def put(api: Api, body: Any = "work", tube: str = "mail", **more: Any) -> int:
    """Put a job and give its id."""
    got = await api.post(f"/v1/tubes/{tube}/jobs", {"body": body, **more})
    assert got.status == 201, got.body
    return int(got.body["job"])


async def reserve(api: Api, tube: str = "mail", **more: Any) -> list[Any]:
    """Reserve and give the jobs."""
    got = await api.post(f"/v1/tubes/{tube}/reserve", more)
    assert got.status == 200, got.body
    return list(got.body["jobs"])


async def reserved(api: Api, **more: Any) -> tuple[int, int]:
    """Put a job, reserve it, give its id and token."""
    job = await put(api, **more)
    (taken,) = await reserve(api)
    assert taken["job"] == job
    return job, int(taken["token"])


async def act(api: Api, job: int, what: str, **body: Any) -> Got:
    """Do something to a job."""
    return await api.post(f"/v1/jobs/{job}/{what}", body)


async def state(api: Api, job: int) -> str:
    """The state of a job as GET tells it."""
    return str((await api.get(f"/v1/jobs/{job}")).body["state"])


@pytest.mark.parametrize("body", [{"to": ["ann"], "n": 1.5}, [], [None], 7, -0.5, True, {}])
async def test_a_body_may_be_any_json_value(anywhere: Api, body: Any) -> None:
    """An object comes back as an object, to who looks and to who reserves."""
    job = await put(anywhere, body)
    assert (await anywhere.get(f"/v1/jobs/{job}")).body["body"] == body
    (taken,) = await reserve(anywhere)
    assert taken["body"] == body


async def test_a_job_is_put_reserved_and_deleted(anywhere: Api) -> None:
    """The documents of the contract, and the place of the job in a header."""
    got = await anywhere.post("/v1/tubes/mail/jobs", {"body": "hello", "priority": 7, "ttr": "5s"})
    assert got.status == 201
    job = got.body["job"]
    assert got.body == {"job": job, "tube": "mail", "state": "ready"}
    assert got.headers["Location"] == f"/v1/jobs/{job}"
    (taken,) = await reserve(anywhere)
    assert taken == {
        "job": job,
        "tube": "mail",
        "body": "hello",
        "token": taken["token"],
        "ttr_ms": 5_000,
        "priority": 7,
        "attempt": 1,
        "key": None,
    }
    got = await act(anywhere, job, "delete", token=taken["token"])
    assert (got.status, got.body) == (200, {"job": job, "tube": "mail", "state": "deleted"})
    assert (await anywhere.get(f"/v1/jobs/{job}")).code == "job_not_found"


async def test_nothing_to_reserve_is_an_empty_list(anywhere: Api) -> None:
    """An answer like any other, with and without a wait that runs out."""
    assert await reserve(anywhere) == []
    waiting = anywhere.start(anywhere.post("/v1/tubes/mail/reserve", {"wait": "250ms"}))
    await until_waiting(anywhere, 1)
    await anywhere.advance(250)
    assert (await waiting).body == {"jobs": []}


async def until_waiting(api: Api, count: int, tube: str = "mail") -> None:
    """Ask until so many wait for a tube."""

    async def is_so() -> bool:
        got = await api.get(f"/v1/tubes/{tube}?consistency=stale")
        return bool(got.body["waiting"] == count)

    await until(is_so)


async def test_a_delayed_job_goes_to_who_waits_when_it_is_due(anywhere: Api) -> None:
    """Not before: no session is needed to wait."""
    job = await put(anywhere, delay="2s")
    assert await state(anywhere, job) == "delayed"
    waiting = anywhere.start(anywhere.post("/v1/tubes/mail/reserve?wait=30s", {}))
    await until_waiting(anywhere, 1)
    await anywhere.advance(2_000)
    assert (await waiting).body["jobs"][0]["job"] == job


async def test_waiting_workers_are_served_in_order(anywhere: Api) -> None:
    """Who came first gets the first job."""
    first = anywhere.start(anywhere.post("/v1/tubes/mail/reserve", {"wait": "30s"}))
    await until_waiting(anywhere, 1)
    second = anywhere.start(anywhere.post("/v1/tubes/mail/reserve", {"wait": "30s"}))
    await until_waiting(anywhere, 2)
    jobs = [await put(anywhere), await put(anywhere)]
    got = [one.body["jobs"][0]["job"] for one in await asyncio.gather(first, second)]
    assert got == jobs


async def test_jobs_are_reserved_from_several_tubes_by_priority(anywhere: Api) -> None:
    """The first over all of them; as many as asked for."""
    late = await put(anywhere, tube="a", priority=9)
    soon = await put(anywhere, tube="b", priority=-1)
    got = await anywhere.post("/v1/reserve", {"tubes": ["a", "b", "c"], "limit": 5})
    assert [job["job"] for job in got.body["jobs"]] == [soon, late]


async def test_a_late_worker_finds_its_token_stale(anywhere: Api) -> None:
    """After the TTR nobody has it, then somebody else."""
    job, token = await reserved(anywhere, ttr="1s")
    await anywhere.advance(1_000)
    for what in ("delete", "release", "bury", "touch"):
        got = await act(anywhere, job, what, token=token)
        assert (got.status, got.code) == (409, "not_reserved")
        assert (got.body["job"], got.body["token"], got.body["state"]) == (job, token, "ready")
    (again,) = await reserve(anywhere)
    assert (again["job"], again["attempt"]) == (job, 2)
    for what in ("delete", "release", "bury", "touch"):
        got = await act(anywhere, job, what, token=token)
        assert (got.status, got.code) == (409, "stale_token")
        assert got.body["current_token"] == again["token"] > token
        assert (got.body["kind"], got.body["name"]) == ("job", str(job))


async def test_a_touch_starts_the_time_anew(anywhere: Api) -> None:
    """And says until when."""
    job, token = await reserved(anywhere, ttr="2s")
    await anywhere.advance(1_500)
    got = await act(anywhere, job, "touch", token=token)
    assert got.body == {"job": job, "tube": "mail", "state": "reserved", "expires_in_ms": 2_000}
    await anywhere.advance(1_500)
    assert await state(anywhere, job) == "reserved"


async def test_a_kick_takes_a_token_as_the_others_do(anywhere: Api) -> None:
    """It makes no difference: what can be kicked is held by nobody."""
    job, token = await reserved(anywhere)
    assert (await act(anywhere, job, "kick", token=token)).code == "job_reserved"
    await act(anywhere, job, "bury", token=token)
    assert (await act(anywhere, job, "kick", token=token)).body["kicked"] is True
    assert (await act(anywhere, job, "kick", token=None)).body["kicked"] is False


async def test_a_job_is_released_buried_and_kicked(anywhere: Api) -> None:
    """Each says where the job is now."""
    job, token = await reserved(anywhere)
    got = await act(anywhere, job, "release", token=token, priority=3, delay="1m")
    assert got.body == {"job": job, "tube": "mail", "state": "delayed"}
    got = await act(anywhere, job, "kick")
    assert got.body == {"job": job, "tube": "mail", "state": "ready", "kicked": True}
    assert (await act(anywhere, job, "kick")).body["kicked"] is False
    (taken,) = await reserve(anywhere)
    assert taken["priority"] == 3
    assert (await act(anywhere, job, "kick")).code == "job_reserved"
    got = await act(anywhere, job, "bury", token=taken["token"])
    assert got.body["state"] == "buried"
    got = await anywhere.post("/v1/tubes/mail/kick", {"bound": 10})
    assert got.body == {"tube": "mail", "kicked": 1}
    assert await state(anywhere, job) == "ready"


async def test_this_very_job_is_reserved(anywhere: Api) -> None:
    """Delayed or not; a second time says who has it."""
    session = await anywhere.open()
    job = await put(anywhere, delay="1h")
    got = await act(anywhere, job, "reserve", session=session)
    assert (got.status, got.body["job"]) == (200, job)
    token = got.body["token"]
    await anywhere.advance(125)
    again = await act(anywhere, job, "reserve")
    assert (again.status, again.code) == (409, "job_reserved")
    assert again.body["session"] == session
    assert (again.body["reserved_for_ms"], again.body["expires_in_ms"]) == (125, 59_875)
    assert again.body["current_token"] == token
    refused = await act(anywhere, job, "delete")
    assert (refused.status, refused.code) == (409, "job_reserved")
    assert (await act(anywhere, 99, "reserve")).code == "job_not_found"


async def test_a_session_that_ends_gives_its_jobs_back(anywhere: Api) -> None:
    """At once; what it holds stands in its picture."""
    session = await anywhere.open()
    job = await put(anywhere)
    (taken,) = await reserve(anywhere, session=session)
    held = (await anywhere.get(f"/v1/sessions/{session}")).body["holds"]
    assert held == [{"kind": "tube", "name": "mail", "part": str(job), "token": taken["token"]}]
    await anywhere.delete(f"/v1/sessions/{session}")
    assert await state(anywhere, job) == "ready"
    got = await anywhere.post("/v1/tubes/mail/reserve", {"session": session})
    assert (got.status, got.code) == (410, "session_expired")


async def test_a_cancel_has_one_outcome(anywhere: Api) -> None:
    """True while nobody has the job; false says why."""
    job = await put(anywhere, delay="1h")
    got = await anywhere.delete(f"/v1/jobs/{job}")
    assert got.status == 200
    assert got.body == {"job": job, "cancelled": True, "state": "gone", "expires_in_ms": None}
    again = (await anywhere.delete(f"/v1/jobs/{job}")).body
    assert again == {"job": job, "cancelled": False, "state": "gone", "expires_in_ms": None}
    other, _ = await reserved(anywhere)
    got = await anywhere.delete(f"/v1/jobs/{other}")
    assert got.body == {
        "job": other,
        "cancelled": False,
        "state": "reserved",
        "expires_in_ms": 60_000,
    }


async def test_a_key_lives_once(anywhere: Api) -> None:
    """409 names the live job; it can be found and cancelled by its key."""
    job = await put(anywhere, key="order 4711", delay="1h")
    got = await anywhere.post("/v1/tubes/mail/jobs", {"body": "x", "key": "order 4711"})
    assert (got.status, got.code) == (409, "duplicate_key")
    assert (got.body["job"], got.body["state"]) == (job, "delayed")
    assert (got.body["tube"], got.body["key"]) == ("mail", "order 4711")
    found = await anywhere.get("/v1/tubes/mail/jobs?key=order%204711")
    assert [one["job"] for one in found.body["jobs"]] == [job]
    path = "/v1/tubes/mail/jobs?key=order%204711"
    assert (await anywhere.delete(path)).body["cancelled"] is True
    assert (await anywhere.delete(path)).body == {
        "job": None,
        "cancelled": False,
        "state": "gone",
        "expires_in_ms": None,
    }
    await put(anywhere, key="order 4711")
    got = await anywhere.delete("/v1/tubes/mail/jobs")
    assert (got.status, got.body["field"]) == (400, "key")


async def test_a_job_that_fails_too_often_goes_elsewhere(anywhere: Api) -> None:
    """With its history; the answer of the release says where it went."""
    letter = {"tube": "dead", "after": 2, "count_releases": True}
    job, token = await reserved(anywhere, dead_letter=letter, ttr="1s")
    seen = (await anywhere.get(f"/v1/jobs/{job}")).body
    assert seen["dead_letter"] == letter
    await anywhere.advance(1_000)
    (again,) = await reserve(anywhere)
    got = await act(anywhere, job, "release", token=again["token"], delay="1h")
    assert got.body == {"job": job, "tube": "dead", "state": "ready"}
    seen = (await anywhere.get(f"/v1/jobs/{job}")).body
    assert (seen["came_from"], seen["dead_letter"]) == ("mail", None)
    assert (seen["reserves"], seen["timeouts"], seen["releases"]) == (2, 1, 1)
    assert token != again["token"]


async def test_a_paused_tube_gives_nothing_out(anywhere: Api) -> None:
    """Until the pause is over or ended."""
    got = await anywhere.call("PUT", "/v1/tubes/mail/pause", {"for": "1m"})
    assert got.body == {"tube": "mail", "paused": True, "resumes_in_ms": 60_000}
    await put(anywhere)
    assert await reserve(anywhere) == []
    await anywhere.advance(500)
    seen = (await anywhere.get("/v1/tubes/mail")).body
    assert (seen["paused"], seen["paused_for_ms"], seen["resumes_in_ms"]) == (True, 60_000, 59_500)
    got = await anywhere.call("PUT", "/v1/tubes/mail/pause", {"for": 0})
    assert got.body == {"tube": "mail", "paused": False, "resumes_in_ms": 0}
    assert len(await reserve(anywhere)) == 1


async def test_a_job_is_shown_with_all_that_happened(anywhere: Api) -> None:
    """What beanstalkd's stats-job tells, and more."""
    session = await anywhere.open()
    job = await put(anywhere, body="b", priority=2000, key="k", delay="1s", ttr="3s")
    await anywhere.advance(1_000)
    (taken,) = await reserve(anywhere, session=session)
    await anywhere.advance(500)
    assert (await anywhere.get(f"/v1/jobs/{job}")).body == {
        "job": job,
        "tube": "mail",
        "state": "reserved",
        "body": "b",
        "key": "k",
        "priority": 2000,
        "age_ms": 1_500,
        "delay_ms": 1_000,
        "ttr_ms": 3_000,
        "time_left_ms": 2_500,
        "reserves": 1,
        "timeouts": 0,
        "releases": 0,
        "buries": 0,
        "kicks": 0,
        "came_from": None,
        "dead_letter": None,
        "token": taken["token"],
        "session": session,
        "reserved_for_ms": 500,
    }


async def test_tubes_are_counted_and_listed(anywhere: Api) -> None:
    """In order of name, with sums; an unused one shows zeros."""
    for tube in ("b", "a%2F2", "a%2F1"):
        await put(anywhere, tube=tube)
    await put(anywhere, tube="b", delay="1h", priority=5000)
    seen = (await anywhere.get("/v1/tubes/b")).body
    assert seen == {
        "tube": "b",
        "ready": 1,
        "delayed": 1,
        "reserved": 0,
        "buried": 0,
        "urgent": 1,
        "waiting": 0,
        "total_jobs": 2,
        "deletes": 0,
        "pauses": 0,
        "paused": False,
        "paused_for_ms": 0,
        "resumes_in_ms": 0,
        "oldest_wait_ms": None,
    }
    listed = (await anywhere.get("/v1/tubes?prefix=a%2F&limit=1")).body
    assert ([one["tube"] for one in listed["tubes"]], listed["next"]) == (["a/1"], "a/1")
    assert listed["totals"]["jobs"] == listed["totals"]["put"] == 4
    listed = (await anywhere.get("/v1/tubes?prefix=a%2F&after=a%2F1")).body
    assert [one["tube"] for one in listed["tubes"]] == ["a/2"]
    assert "next" not in listed
    unused = (await anywhere.get("/v1/tubes/nothing")).body
    assert (unused["tube"], unused["ready"], unused["total_jobs"]) == ("nothing", 0, 0)


async def test_jobs_are_peeked_at_and_listed(anywhere: Api) -> None:
    """In the order in which they will come, page by page; looking reserves nothing."""
    jobs = [await put(anywhere, priority=priority) for priority in (5, -5, 0, -5)]
    assert (await anywhere.get("/v1/tubes/mail/peek")).body["job"]["job"] == jobs[1]
    assert (await anywhere.get("/v1/tubes/mail/peek?state=buried")).body == {"job": None}
    seen: list[int] = []
    path = "/v1/tubes/mail/jobs?limit=3"
    while True:
        page = (await anywhere.get(path)).body
        seen += [one["job"] for one in page["jobs"]]
        if "next" not in page:
            break
        path = f"/v1/tubes/mail/jobs?limit=3&after={page['next']}"
    assert seen == [jobs[1], jobs[3], jobs[2], jobs[0]]
    await reserve(anywhere)
    held = (await anywhere.get("/v1/tubes/mail/jobs?state=reserved")).body["jobs"]
    assert [one["job"] for one in held] == [jobs[1]]


async def test_a_body_comes_back_as_it_came(anywhere: Api) -> None:
    """Text as text, bytes as bytes, in JSON and in CBOR."""
    text = await put(anywhere, "grüße")
    octets = await put(anywhere, {"base64": "/wA="})
    got = await anywhere.post("/v1/tubes/mail/jobs", {"body": b"\x00"}, as_cbor=True)
    jobs = await reserve(anywhere, limit=9)
    assert [job["body"] for job in jobs] == ["grüße", {"base64": "/wA="}, {"base64": "AA=="}]
    as_cbor = {"Accept": "application/cbor"}
    seen = [
        (await anywhere.get(f"/v1/jobs/{job}", headers=as_cbor)).body["body"]
        for job in (text, octets, got.body["job"])
    ]
    assert seen == ["grüße", b"\xff\x00", b"\x00"]


async def test_a_put_that_is_repeated_puts_once(anywhere: Api) -> None:
    """Under its Idempotency-Key it gets the same job."""
    key = {"Idempotency-Key": "put-1"}
    body = {"body": "x", "ttr": "1m"}
    first, second = [
        await anywhere.post("/v1/tubes/mail/jobs", body, headers=key) for _ in range(2)
    ]
    assert first.body == second.body
    assert (await anywhere.get("/v1/tubes/mail")).body["ready"] == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/v1/tubes/t/jobs", {}, "body"),
        ("POST", "/v1/tubes/t/jobs", {"body": None}, "body"),
        ("POST", "/v1/tubes/t/jobs", {"body": "x", "priority": 2**32}, "priority"),
        ("POST", "/v1/tubes/t/jobs", {"body": "x", "ttr": "10ms"}, "ttr"),
        ("POST", "/v1/tubes/t/jobs", {"body": "x", "delay": "soon"}, "delay"),
        ("POST", "/v1/tubes/t/jobs", {"body": "x", "key": "\n"}, "key"),
        (
            "POST",
            "/v1/tubes/t/jobs",
            {"body": "x", "dead_letter": {"tube": "t", "after": 1}},
            "dead_letter.tube",
        ),
        ("POST", "/v1/tubes/%00/jobs", {"body": "x"}, "tube"),
        ("POST", "/v1/tubes/t/reserve", {"limit": 0}, "limit"),
        ("POST", "/v1/tubes/t/reserve", {"wait": "2h"}, "wait"),
        ("POST", "/v1/reserve", {"tubes": []}, "tubes"),
        ("POST", "/v1/reserve", {"tubes": ["a", ""]}, "tubes"),
        ("POST", "/v1/jobs/x/delete", {"token": 1}, "job"),
        ("POST", "/v1/jobs/007/delete", {"token": 1}, "job"),
        ("POST", "/v1/jobs/0/delete", {"token": 1}, "job"),
        ("POST", "/v1/jobs/1/release", {}, "token"),
        ("POST", "/v1/tubes/t/kick", {"bound": 0}, "bound"),
        ("PUT", "/v1/tubes/t/pause", {}, "for"),
        ("PUT", "/v1/tubes/t/pause", {"for": -1}, "for"),
        ("GET", "/v1/tubes/t/peek?state=gone", None, "state"),
        ("GET", "/v1/tubes/t/jobs?after=zz", None, "after"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    api: Api, method: str, path: str, body: Any, field: str
) -> None:
    """400 names the field."""
    got = await api.call(method, path, body)
    assert (got.status, got.code) == (400, "bad_request"), got.body
    assert got.body["field"].startswith(field), got.body


async def test_a_body_may_have_64_kib(api: Api) -> None:
    """However it is written; one byte more is 413."""
    await put(api, "\x01" * 65_536)
    got = await api.post("/v1/tubes/mail/jobs", {"body": "x" * 65_537})
    assert (got.status, got.code) == (413, "too_large")
