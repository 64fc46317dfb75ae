"""Tasks over a real socket: every route, every refusal, JSON and CBOR."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import Api, Got, until

EVERY = {"every": "5m"}


async def put(api: Api, *ids: str, pool: str = "p", **more: Any) -> Got:
    """Put tasks without data."""
    body = {"tasks": [{"id": id} for id in ids], **more}
    return await api.call("PUT", f"/v1/pools/{pool}/tasks", body)


async def work(api: Api, session: str, pool: str = "p", **more: Any) -> Got:
    """Ask for work."""
    return await api.post(f"/v1/pools/{pool}/work", {"session": session, **more})


def held(got: Got) -> list[dict[str, Any]]:
    """What a finish or release wants, from an answer to work."""
    return [{"id": task["id"], "token": task["token"]} for task in got.body["tasks"]]


class TestPut:
    async def test_counts_what_it_did(self, anywhere: Api) -> None:
        """New, changed, same and gone ones, and how many there are."""
        first = await put(anywhere, "a", "b")
        assert first.status == 200
        assert first.body == {
            "pool": "p",
            "added": 2,
            "updated": 0,
            "unchanged": 0,
            "removed": 0,
            "total": 2,
        }
        body = {"tasks": [{"id": "a"}, {"id": "b", "data": "x"}, {"id": "c"}]}
        again = await anywhere.call("PUT", "/v1/pools/p/tasks", body)
        counts = [again.body[word] for word in ("added", "updated", "unchanged", "removed")]
        assert counts == [1, 1, 1, 0]
        replaced = await put(anywhere, "c", "d", replace=True)
        counts = [replaced.body[word] for word in ("added", "updated", "unchanged", "removed")]
        assert counts == [1, 0, 1, 2]
        assert replaced.body["total"] == 2

    async def test_takes_any_json_value_as_data(self, anywhere: Api) -> None:
        """An object comes back as an object; put again, it is the same."""
        body = {"tasks": [{"id": "a", "data": {"url": "x", "n": [1, None]}}]}
        assert (await anywhere.call("PUT", "/v1/pools/p/tasks", body)).body["added"] == 1
        assert (await anywhere.call("PUT", "/v1/pools/p/tasks", body)).body["unchanged"] == 1
        given = (await work(anywhere, await anywhere.open())).body["tasks"]
        assert given[0]["data"] == body["tasks"][0]["data"]

    async def test_makes_an_empty_pool(self, api: Api) -> None:
        """No tasks at all are fine: workers may wait for some."""
        assert (await put(api, cap=3, give_back=True)).body["total"] == 0
        shown = (await api.get("/v1/pools/p")).body
        assert (shown["cap"], shown["give_back"], shown["tasks"]) == (3, True, [])
        await put(api, cap=0)
        shown = (await api.get("/v1/pools/p")).body
        assert (shown["cap"], shown["give_back"]) == (None, True)

    @pytest.mark.parametrize(
        ("task", "field"),
        [
            ({"id": ""}, "tasks[0].id"),
            ({"id": "a\n"}, "tasks[0].id"),
            ({"id": "a", "data": 2**64}, "tasks[0].data"),
            ({"id": "a", "schedule": {}}, "tasks[0].schedule"),
            ({"id": "a", "schedule": ""}, "tasks[0].schedule"),
            ({"id": "a", "schedule": "10ms"}, "tasks[0].schedule"),
            ({"id": "a", "schedule": "soon"}, "tasks[0].schedule"),
            ({"id": "a", "schedule": "@every soon"}, "tasks[0].schedule"),
            ({"id": "a", "schedule": "61 * * * *"}, "tasks[0].schedule"),
            ({"id": "a", "schedule": {"every": "1h", "cron": "* * * * *"}}, "tasks[0].schedule"),
            ({"id": "a", "schedule": {"every": "10ms"}}, "tasks[0].schedule.every"),
            (
                {"id": "a", "schedule": {"every": "1m", "timezone": "UTC"}},
                "tasks[0].schedule.timezone",
            ),
            ({"id": "a", "schedule": {"every": "1m", "start": "soon"}}, "tasks[0].schedule.start"),
            (
                {"id": "a", "schedule": {"every": "1m", "start": "2026-01-01T00:00:00"}},
                "tasks[0].schedule.start",
            ),
            ({"id": "a", "schedule": {"every": "1m", "start": -1}}, "tasks[0].schedule.start"),
            ({"id": "a", "schedule": {"cron": "61 * * * *"}}, "tasks[0].schedule.cron"),
            (
                {"id": "a", "schedule": {"cron": "* * * * *", "timezone": "Mars"}},
                "tasks[0].schedule.timezone",
            ),
            ({"id": "a", "schedule": {"cron": "* * * * *", "start": 1}}, "tasks[0].schedule.start"),
            (
                {"id": "a", "schedule": {"every": "1m", "catchup_window": 5}},
                "tasks[0].schedule.catchup_window",
            ),
            ({"id": "a", "schedule": {"every": "1m", "jitter": "3d"}}, "tasks[0].schedule.jitter"),
            (
                {"id": "a", "schedule": {"every": "1m", "overlap": "no"}},
                "tasks[0].schedule.overlap",
            ),
            ({"id": "a", "when": 1}, "tasks[0].when"),
        ],
    )
    async def test_names_the_part_that_is_wrong(
        self, api: Api, task: dict[str, Any], field: str
    ) -> None:
        """400, with the field in it, and nothing put."""
        got = await api.call("PUT", "/v1/pools/p/tasks", {"tasks": [task]})
        assert (got.status, got.code) == (400, "bad_request"), got.body
        assert got.body["field"] == field
        assert (await api.get("/v1/pools/p")).status == 404

    async def test_refuses_an_id_twice_and_too_much_data(self, api: Api) -> None:
        """Both name the task."""
        got = await put(api, "a", "b", "a")
        assert (got.status, got.body["field"]) == (400, "tasks[2].id")
        body = {"tasks": [{"id": "a", "data": "x" * 4097}]}
        got = await api.call("PUT", "/v1/pools/p/tasks", body)
        assert (got.status, got.code) == (413, "too_large")

    async def test_repeats_its_answer_under_a_key(self, anywhere: Api) -> None:
        """A retry is harmless."""
        head = {"Idempotency-Key": "k1"}
        body = {"tasks": [{"id": "a"}]}
        first, again = [
            await anywhere.call("PUT", "/v1/pools/p/tasks", body, headers=head) for _ in range(2)
        ]
        assert (first.status, first.body) == (again.status, again.body)
        assert first.body["added"] == 1


class TestWork:
    async def test_gives_fair_shares_under_tokens(self, anywhere: Api) -> None:
        """Half each for two; what is held comes again."""
        one, two = await anywhere.open(), await anywhere.open()
        await put(anywhere, "a", "b", "c", "d")
        assert (await work(anywhere, one, limit=1)).body["share"] == 4
        second = (await work(anywhere, two)).body
        assert [task["id"] for task in second["tasks"]] == ["b", "c"]
        first = (await work(anywhere, one)).body
        assert [task["id"] for task in first["tasks"]] == ["a", "d"]
        assert (first["pool"], first["session"], first["share"]) == ("p", one, 2)
        assert first["given_back"] == []
        tokens = [task["token"] for task in (*first["tasks"], *second["tasks"])]
        assert len(set(tokens)) == 4
        assert (await work(anywhere, one)).body == first

    async def test_data_come_back_as_they_were_sent(self, api: Api) -> None:
        """Text as text, bytes as bytes, in JSON and CBOR."""
        session = await api.open()
        tasks = [
            {"id": "a", "data": "grün"},
            {"id": "b", "data": {"base64": "/w=="}},
            {"id": "c"},
        ]
        await api.call("PUT", "/v1/pools/p/tasks", {"tasks": tasks})
        got = await work(api, session)
        assert [task["data"] for task in got.body["tasks"]] == ["grün", {"base64": "/w=="}, None]
        got = await api.post("/v1/pools/p/work", {"session": session}, as_cbor=True)
        assert [task["data"] for task in got.body["tasks"]] == ["grün", b"\xff", None]
        body = {"tasks": [{"id": "d", "data": b"\x00\x01"}]}
        got = await api.call("PUT", "/v1/pools/p/tasks", body, as_cbor=True)
        assert got.body["added"] == 1
        got = await api.get("/v1/pools/p/tasks/d")
        assert got.body["data"] == {"base64": "AAE="}

    async def test_waits_for_work(self, anywhere: Api) -> None:
        """The parked request is answered when there is something to do."""
        session = await anywhere.open()
        await put(anywhere)
        waiting = anywhere.start(work(anywhere, session, wait="30s"))

        async def is_waiting() -> bool:
            shown = await anywhere.get("/v1/pools/p?consistency=stale")
            return [one["waiting"] for one in shown.body["sessions"]] == [True]

        await until(is_waiting)
        await put(anywhere, "a")
        got = await waiting
        assert [task["id"] for task in got.body["tasks"]] == ["a"]

    async def test_a_wait_that_is_over_gets_nothing(self, api: Api) -> None:
        """200 with no tasks: ask again."""
        session = await api.open()
        await put(api)
        waiting = api.start(work(api, session, wait="5s"))

        async def is_waiting() -> bool:
            return api.node.parked == 1

        await until(is_waiting)
        await api.advance(5_000)
        got = await waiting
        assert (got.status, got.body["tasks"], got.body["share"]) == (200, [], 0)

    async def test_is_a_keepalive(self, api: Api) -> None:
        """Who works lives on."""
        session = await api.open(ttl="10s")
        await put(api)
        for _ in range(3):
            await api.advance(9_000)
            assert (await work(api, session)).status == 200
        await api.advance(10_000)
        got = await work(api, session)
        assert (got.status, got.code) == (410, "session_expired")

    async def test_tasks_of_a_dead_session_are_for_the_next(self, anywhere: Api) -> None:
        """Under new tokens; the old ones finish nothing."""
        one, two = await anywhere.open(), await anywhere.open()
        await put(anywhere, "a", "b")
        before = held(await work(anywhere, one))
        await anywhere.delete(f"/v1/sessions/{one}")
        after = held(await work(anywhere, two))
        assert [task["id"] for task in after] == ["a", "b"]
        got = await anywhere.post("/v1/pools/p/finish", {"session": two, "tasks": before})
        assert got.body == {
            "finished": [],
            "refused": [
                {"id": old["id"], "code": "stale_token", "current_token": new["token"]}
                for old, new in zip(before, after, strict=True)
            ],
        }

    async def test_gives_back_the_surplus(self, api: Api) -> None:
        """It is told which, newest first, and the newcomer gets them."""
        one, two = await api.open(), await api.open()
        await put(api, "a", "b", "c", "d", give_back=True)
        first = held(await work(api, one))
        assert (await work(api, two)).body["tasks"] == []
        got = await work(api, one)
        assert held(got) == first[:2]
        assert got.body["given_back"] == [first[3], first[2]]
        assert [task["id"] for task in held(await work(api, two))] == ["c", "d"]

    async def test_refuses_strangers_and_unknown_pools(self, api: Api) -> None:
        """404 with what to do."""
        session = await api.open()
        await put(api)
        assert (await work(api, "ff-x")).code == "session_not_found"
        got = await work(api, session, pool="q")
        assert (got.status, got.code, got.body["pool"]) == (404, "pool_not_found", "q")
        assert (await work(api, session, limit=0)).code == "bad_request"


class TestHandIn:
    async def test_finishes_what_is_held(self, anywhere: Api) -> None:
        """A finished task is gone; a repeat is refused task by task."""
        session = await anywhere.open()
        await put(anywhere, "a", "b")
        mine = held(await work(anywhere, session))
        body = {"session": session, "tasks": [mine[0], {"id": "x", "token": 1}]}
        got = await anywhere.post("/v1/pools/p/finish", body)
        assert got.body == {
            "finished": ["a"],
            "refused": [{"id": "x", "code": "task_not_found", "current_token": None}],
        }
        assert (await anywhere.get("/v1/pools/p/tasks/a")).code == "task_not_found"
        assert held(await work(anywhere, session)) == mine[1:]

    async def test_hands_tasks_back(self, api: Api) -> None:
        """To the end of the line; a repeat holds it no longer."""
        session = await api.open()
        await put(api, "a", "b", cap=1)
        mine = held(await work(api, session))
        body = {"session": session, "tasks": mine}
        got = await api.post("/v1/pools/p/release", body)
        assert got.body == {"released": ["a"], "refused": []}
        got = await api.post("/v1/pools/p/release", body)
        assert got.body["refused"][0]["code"] == "not_holder"
        assert [task["id"] for task in held(await work(api, session))] == ["b"]

    async def test_leaves_the_pool(self, api: Api) -> None:
        """Everything goes back; leaving twice is fine."""
        session = await api.open()
        await put(api, "a", "b")
        await work(api, session)
        got = await api.post("/v1/pools/p/leave", {"session": session})
        assert got.body == {"left": True, "freed": 2}
        got = await api.post("/v1/pools/p/leave", {"session": session})
        assert got.body == {"left": True, "freed": 0}
        assert (await api.get("/v1/pools/p")).body["sessions"] == []

    @pytest.mark.parametrize("call", ["finish", "release", "leave"])
    async def test_refuses_strangers_and_unknown_pools(self, api: Api, call: str) -> None:
        """As work does."""
        body: dict[str, Any] = {"session": "ff-x"}
        if call != "leave":
            body["tasks"] = [{"id": "a", "token": 1}]
        assert (await api.post(f"/v1/pools/p/{call}", body)).code == "session_not_found"
        body["session"] = await api.open()
        assert (await api.post(f"/v1/pools/p/{call}", body)).code == "pool_not_found"


class TestRemove:
    async def test_takes_a_task_from_its_holder(self, api: Api) -> None:
        """Its finish comes too late."""
        session = await api.open()
        await put(api, "a")
        mine = held(await work(api, session))
        got = await api.delete("/v1/pools/p/tasks/a")
        assert (got.status, got.body) == (200, {"removed": True, "holders": [session]})
        assert (await api.delete("/v1/pools/p/tasks/a")).code == "task_not_found"
        body = {"session": session, "tasks": mine}
        got = await api.post("/v1/pools/p/finish", body)
        assert got.body["refused"][0]["code"] == "task_not_found"

    async def test_takes_a_pool_away(self, api: Api) -> None:
        """With its tasks, and whoever works there hears of it next time."""
        session = await api.open()
        await put(api, "a", "b")
        await work(api, session)
        got = await api.delete("/v1/pools/p")
        assert (got.status, got.body) == (200, {"removed": True, "tasks": 2})
        assert (await api.delete("/v1/pools/p")).code == "pool_not_found"
        assert (await api.delete("/v1/pools/p/tasks/a")).code == "pool_not_found"
        assert (await work(api, session)).code == "pool_not_found"
        assert (await api.get(f"/v1/sessions/{session}")).body["holds"] == []


class TestSchedules:
    @pytest.mark.parametrize(
        ("text", "schedule"),
        [
            ("30s", {"every": 30_000}),
            ("@every 1h30m", {"every": "90m"}),
            ("PT5M", {"every": "5m"}),
            ("*/5 8-18 * * MON-FRI", {"cron": "*/5 8-18 * * MON-FRI"}),
            ("0 0 6 * * *", {"cron": "0 0 6 * * *", "timezone": "UTC"}),
        ],
    )
    async def test_one_may_be_a_text_alone(self, api: Api, text: str, schedule: Any) -> None:
        """A length of time or a cron: the same as written out."""
        tasks = [{"id": "text", "schedule": text}, {"id": "whole", "schedule": schedule}]
        put = await api.call("PUT", "/v1/pools/p/tasks", {"tasks": tasks})
        assert put.status == 200, put.body
        kept = [
            (await api.get(f"/v1/pools/p/tasks/{id}")).body["schedule"] for id in ("text", "whole")
        ]
        assert kept[0] == kept[1] is not None

    async def test_a_scheduled_task_waits_for_its_slot(self, api: Api) -> None:
        """Nothing to do until then, unless it is run by hand."""
        session = await api.open()
        body = {"tasks": [{"id": "a", "schedule": EVERY}]}
        await api.call("PUT", "/v1/pools/p/tasks", body)
        assert (await work(api, session)).body["tasks"] == []
        got = await api.post("/v1/pools/p/tasks/a/run")
        assert (got.status, got.body) == (200, {"run": "started"})
        assert (await api.post("/v1/pools/p/tasks/a/run")).body == {"run": "skipped"}
        mine = (await work(api, session)).body["tasks"]
        assert [(task["id"], task["slot_ms"]) for task in mine] == [("a", 0)]
        tasks = [{"id": "a", "token": mine[0]["token"]}]
        got = await api.post("/v1/pools/p/finish", {"session": session, "tasks": tasks})
        assert got.body["finished"] == ["a"]
        shown = (await api.get("/v1/pools/p/tasks/a")).body
        assert (shown["state"], shown["fired"], shown["skipped"]) == ("scheduled", 1, 1)

    async def test_shows_schedules_in_full(self, api: Api) -> None:
        """With defaults filled in, and lengths in ms."""
        cron = {
            "cron": "30 8 * * MON-FRI",
            "timezone": "Europe/Berlin",
            "overlap": "buffer",
            "catchup_window": "2h",
            "jitter": "10s",
            "paused": True,
        }
        every = {"every": "1h", "start": "2026-03-01T09:00:00+01:00"}
        tasks = [{"id": "a", "schedule": cron}, {"id": "b", "schedule": every}]
        await api.call("PUT", "/v1/pools/p/tasks", {"tasks": tasks})
        a, b = (await api.get("/v1/pools/p")).body["tasks"]
        assert a["schedule"] == {
            "every_ms": None,
            "start_ms": None,
            "cron": "30 8 * * MON-FRI",
            "timezone": "Europe/Berlin",
            "overlap": "buffer",
            "catchup_window_ms": 7_200_000,
            "jitter_ms": 10_000,
            "paused": True,
        }
        assert (a["state"], b["state"]) == ("paused", "scheduled")
        assert (b["schedule"]["every_ms"], b["schedule"]["start_ms"]) == (
            3_600_000,
            1_772_352_000_000,
        )
        assert (b["schedule"]["overlap"], b["schedule"]["catchup_window_ms"]) == ("skip", 60_000)
        same = await api.call("PUT", "/v1/pools/p/tasks", {"tasks": tasks})
        assert same.body["unchanged"] == 2

    async def test_pauses_and_resumes(self, api: Api) -> None:
        """Only what has a schedule; twice is fine."""
        tasks = [{"id": "a", "schedule": {"cron": "* * * * *"}}, {"id": "b"}]
        await api.call("PUT", "/v1/pools/p/tasks", {"tasks": tasks})
        for call, paused in (("pause", True), ("pause", True), ("resume", False)):
            got = await api.post(f"/v1/pools/p/tasks/a/{call}")
            assert (got.status, got.body) == (200, {"paused": paused})
        for call in ("pause", "resume", "run"):
            got = await api.post(f"/v1/pools/p/tasks/b/{call}")
            assert (got.status, got.code) == (409, "task_not_scheduled")
            assert (await api.post(f"/v1/pools/p/tasks/c/{call}")).code == "task_not_found"
            assert (await api.post(f"/v1/pools/q/tasks/c/{call}")).code == "pool_not_found"


class TestReading:
    async def test_shows_who_is_at_what(self, api: Api) -> None:
        """Holder, token, since when; sessions with what they hold and their shares."""
        one, two = await api.open(), await api.open()
        await put(api, "a", "b", "c")
        await work(api, one, limit=1)
        await api.advance(500)
        await work(api, two, limit=1)
        shown = (await api.get("/v1/pools/p")).body
        assert (shown["task_count"], shown["run_count"], shown["free_count"]) == (3, 3, 1)
        assert shown["share"] == 2
        assert shown["sessions"] == [
            {"session": one, "held": 1, "share": 2, "joined_for_ms": 500, "waiting": False},
            {"session": two, "held": 1, "share": 2, "joined_for_ms": 0, "waiting": False},
        ]
        a, _, c = shown["tasks"]
        assert (a["state"], a["holder"], a["held_for_ms"]) == ("held", one, 500)
        assert a["runs"] == [
            {"slot_ms": None, "holder": one, "token": a["token"], "held_for_ms": 500}
        ]
        assert (c["state"], c["holder"], c["token"]) == ("free", None, None)
        assert (await api.get("/v1/pools/p/tasks/a")).body == a

    async def test_pages_through_tasks_and_pools(self, api: Api) -> None:
        """In order of id and of name; `next` goes into `after`."""
        await put(api, pool="p%2F2")
        await put(api, pool="q")
        page = (await api.get("/v1/pools?prefix=p")).body
        assert [pool["pool"] for pool in page["pools"]] == ["p/2"]
        page = (await api.get("/v1/pools?limit=1")).body
        assert (page["pools"][0]["pool"], page["next"]) == ("p/2", "p/2")
        page = (await api.get("/v1/pools?limit=1&after=p/2")).body
        assert page["pools"][0] == {
            "pool": "q",
            "cap": None,
            "give_back": False,
            "task_count": 0,
            "run_count": 0,
            "free_count": 0,
            "session_count": 0,
            "share": 0,
        }
        assert "next" not in page
        await put(api, "b", "a", "c", pool="q")
        shown = (await api.get("/v1/pools/q?limit=2")).body
        assert ([task["id"] for task in shown["tasks"]], shown["next"]) == (["a", "b"], "b")
        shown = (await api.get("/v1/pools/q?after=b")).body
        assert [task["id"] for task in shown["tasks"]] == ["c"]

    async def test_says_what_is_missing(self, api: Api) -> None:
        """404 for pools and tasks."""
        await put(api, "a")
        assert (await api.get("/v1/pools/q")).code == "pool_not_found"
        assert (await api.get("/v1/pools/q/tasks/a")).code == "pool_not_found"
        assert (await api.get("/v1/pools/p/tasks/b")).code == "task_not_found"

    async def test_metrics_count_pools_and_tasks(self, api: Api) -> None:
        """With all that the machine counts."""
        await put(api, "a", "b")
        text = (await api.get("/metrics")).body
        assert "coterie_machine_pools 1" in text
        assert "coterie_machine_tasks 2" in text
