"""The tour: an example of every route, in an order in which they work.

RULE: values only. A new route wants a step here; the tests say so, send all steps to a real
cluster, and compare with `answers.json`, which `python -m tests.gateway.record_answers` writes.
"""

from __future__ import annotations

from typing import Final

from cluster.gateway.examples import Step

_SESSIONS: Final = (
    Step(
        "open a session",
        "POST /v1/sessions",
        {"ttl": "60s", "name": "worker 1", "meta": {"host": "a7"}},
        201,
        {"worker": "session"},
    ),
    Step("with a TTL only", "POST /v1/sessions", {"ttl": "60s"}, 201, {"other": "session"}),
    Step(
        "renew two sessions",
        "POST /v1/sessions/keepalive",
        {"sessions": ["<worker>", "<other>"]},
    ),
    Step("renew a session", "POST /v1/sessions/<worker>/keepalive"),
)

_LOCKS: Final = (
    Step(
        "take a lock, or wait for it",
        "POST /v1/locks/orders/acquire",
        {"session": "<worker>", "wait": "5s"},
        keep={"lock": "token"},
    ),
    Step(
        "held by another",
        "POST /v1/locks/orders/acquire",
        {"session": "<other>", "mode": "shared"},
        409,
    ),
    Step(
        "what would it have to wait for?",
        "GET /v1/explain?session=<other>&want=/locks/orders",
    ),
    Step("is my token still good?", "POST /v1/locks/orders/check", {"token": "<lock>"}),
    Step("who holds it?", "GET /v1/locks/orders"),
    Step("what a session holds", "GET /v1/sessions/<worker>"),
    Step("a page of sessions", "GET /v1/sessions?limit=10"),
    Step("locks by prefix", "GET /v1/locks?prefix=ord&limit=10"),
    Step(
        "give it back",
        "POST /v1/locks/orders/release",
        {"session": "<worker>", "token": "<lock>"},
    ),
    Step("what happens to locks", "GET /v1/watch?prefix=/locks/&after=1", streams=True),
    Step("the same, for those who poll", "GET /v1/events?prefix=/locks/&after=1&limit=10"),
    Step(
        "two accounts, or none",
        "POST /v1/locks/acquire",
        {
            "session": "<worker>",
            "locks": [{"name": "account 1"}, {"name": "account 2", "mode": "shared"}],
            "wait": "5s",
        },
        keep={"first": "locks.0.token", "second": "locks.1.token"},
    ),
    Step(
        "give both back",
        "POST /v1/locks/release",
        {
            "session": "<worker>",
            "locks": [
                {"name": "account 1", "token": "<first>"},
                {"name": "account 2", "token": "<second>"},
            ],
        },
    ),
)

_SEMAPHORES: Final = (
    Step("three printers", "PUT /v1/semaphores/printers", {"limit": 3}, 201),
    Step(
        "take two of them, or wait",
        "POST /v1/semaphores/printers/acquire",
        {"session": "<worker>", "units": 2, "wait": "5s"},
        keep={"units": "token"},
    ),
    Step(
        "too few are free",
        "POST /v1/semaphores/printers/acquire",
        {"session": "<other>", "units": 2},
        409,
    ),
    Step("is my token still good?", "POST /v1/semaphores/printers/check", {"token": "<units>"}),
    Step("who holds them?", "GET /v1/semaphores/printers"),
    Step("semaphores by prefix", "GET /v1/semaphores?prefix=pri"),
    Step(
        "give both back",
        "POST /v1/semaphores/printers/release",
        {"session": "<worker>", "token": "<units>"},
    ),
    Step("no printers any more", "DELETE /v1/semaphores/printers"),
)

_TICKETS: Final = (
    Step(
        "offer a GPU",
        "POST /v1/resources/gpus/tickets",
        {"session": "<worker>", "ticket": "gpu-1", "data": "10.0.0.7:9000"},
        201,
    ),
    Step(
        "offer it with other data",
        "POST /v1/resources/gpus/tickets",
        {"session": "<worker>", "ticket": "gpu-1", "data": {"base64": "AP8="}},
    ),
    Step(
        "claim one, or wait",
        "POST /v1/resources/gpus/claim",
        {"session": "<other>", "wait": "5s"},
        keep={"claim": "token"},
    ),
    Step(
        "is my token still good?",
        "POST /v1/resources/gpus/tickets/gpu-1/check",
        {"token": "<claim>"},
    ),
    Step("one ticket", "GET /v1/resources/gpus/tickets/gpu-1"),
    Step("all GPUs", "GET /v1/resources/gpus"),
    Step("resources", "GET /v1/resources?limit=10"),
    Step(
        "give it back",
        "POST /v1/resources/gpus/release",
        {"session": "<other>", "ticket": "gpu-1", "token": "<claim>"},
    ),
    Step("take the offer back", "DELETE /v1/resources/gpus/tickets/gpu-1?session=<worker>"),
)

_FIFOS: Final = (
    Step("make a fifo", "POST /v1/fifos", {"name": "checkout", "accept_timeout": "30s"}, 201),
    Step("it is there already", "POST /v1/fifos", {"name": "checkout", "accept_timeout": "30s"}),
    Step("stand in line", "POST /v1/fifos/checkout/tickets", {}, 201, {"mine": "ticket"}),
    Step("behind somebody", "POST /v1/fifos/checkout/tickets", {}, 201, {"next": "ticket"}),
    Step("how long still?", "GET /v1/fifos/checkout/tickets/<next>"),
    Step(
        "accept the turn",
        "POST /v1/fifos/checkout/tickets/<mine>/wait",
        {"wait": "5s"},
        keep={"turn": "token"},
    ),
    Step("not yet", "POST /v1/fifos/checkout/tickets/<next>/wait", {}, 409),
    Step("the fifo and its queue", "GET /v1/fifos/checkout?limit=10"),
    Step("fifos", "GET /v1/fifos?limit=10"),
    Step(
        "done: the next, please", "POST /v1/fifos/checkout/tickets/<mine>/done", {"token": "<turn>"}
    ),
    Step("give a ticket up", "DELETE /v1/fifos/checkout/tickets/<next>", status=204),
    Step("no fifo any more", "DELETE /v1/fifos/checkout?force=true", status=204),
)

_ROOMS: Final = (
    Step(
        "let a hundred in every half minute",
        "PUT /v1/rooms/sale",
        {"window_size": 100, "window_interval": "30s", "active_windows": 2},
        201,
    ),
    Step("take a place", "POST /v1/rooms/sale/join", status=201, keep={"pass": "token"}),
    Step(
        "may I come in?",
        "GET /v1/rooms/sale/status",
        headers={"Authorization": "Bearer <pass>"},
    ),
    Step("without a pass", "GET /v1/rooms/sale/status", status=401),
    Step("figures of the room", "GET /v1/rooms/sale"),
    Step("rooms", "GET /v1/rooms?limit=10"),
    Step("no room any more", "DELETE /v1/rooms/sale", status=204),
)

_JOBS: Final = (
    Step(
        "put a job",
        "POST /v1/tubes/mail/jobs",
        {"body": "welcome ann@example.com", "ttr": "60s", "key": "welcome ann"},
        201,
        {"job": "job"},
    ),
    Step(
        "a second one under the same key",
        "POST /v1/tubes/mail/jobs",
        {"body": "welcome ann@example.com", "key": "welcome ann"},
        409,
    ),
    Step("one job", "GET /v1/jobs/<job>"),
    Step("ready jobs of a tube", "GET /v1/tubes/mail/jobs?state=ready&limit=10"),
    Step("the first of them", "GET /v1/tubes/mail/peek?state=ready"),
    Step(
        "take the first, or wait",
        "POST /v1/tubes/mail/reserve",
        {"wait": "5s"},
        keep={"held": "jobs.0.token"},
    ),
    Step("it takes longer", "POST /v1/jobs/<job>/touch", {"token": "<held>"}),
    Step(
        "later, please",
        "POST /v1/jobs/<job>/release",
        {"token": "<held>", "priority": 10},
    ),
    Step(
        "the first of two tubes",
        "POST /v1/reserve",
        {"tubes": ["mail", "sms"], "session": "<worker>", "limit": 5},
        keep={"again": "jobs.0.token"},
    ),
    Step("set it aside", "POST /v1/jobs/<job>/bury", {"token": "<again>"}),
    Step("take it up again", "POST /v1/jobs/<job>/kick"),
    Step("this very job", "POST /v1/jobs/<job>/reserve", {}, keep={"last": "token"}),
    Step("done", "POST /v1/jobs/<job>/delete", {"token": "<last>"}),
    Step(
        "in an hour",
        "POST /v1/tubes/mail/jobs",
        {"body": "remind ann@example.com", "delay": "1h"},
        201,
        {"later": "job"},
    ),
    Step("cancel it", "DELETE /v1/jobs/<later>"),
    Step(
        "with a dead letter tube",
        "POST /v1/tubes/mail/jobs",
        {
            "body": {"base64": "AAEC"},
            "key": "import 7",
            "dead_letter": {"tube": "failed", "after": 3},
        },
        201,
    ),
    Step("cancel by key", "DELETE /v1/tubes/mail/jobs?key=import%207"),
    Step("kick up to ten", "POST /v1/tubes/mail/kick", {"bound": 10}),
    Step("a pause", "PUT /v1/tubes/mail/pause", {"for": "10s"}),
    Step("one tube", "GET /v1/tubes/mail"),
    Step("tubes", "GET /v1/tubes?limit=10"),
)

_TASKS: Final = (
    Step(
        "something to do once, something to do every Monday",
        "PUT /v1/pools/reports/tasks",
        {
            "tasks": [
                {"id": "import 7", "data": "s3://in/7"},
                {
                    "id": "weekly",
                    "schedule": {"cron": "0 6 * * 1", "timezone": "Europe/Berlin"},
                },
            ]
        },
    ),
    Step(
        "my share of it",
        "POST /v1/pools/reports/work",
        {"session": "<worker>", "wait": "5s"},
        keep={"task": "tasks.0.token"},
    ),
    Step("one task", "GET /v1/pools/reports/tasks/import%207"),
    Step("the pool", "GET /v1/pools/reports?limit=10"),
    Step("pools", "GET /v1/pools?limit=10"),
    Step(
        "somebody else may do it",
        "POST /v1/pools/reports/release",
        {"session": "<worker>", "tasks": [{"id": "import 7", "token": "<task>"}]},
    ),
    Step(
        "work again",
        "POST /v1/pools/reports/work",
        {"session": "<worker>"},
        keep={"anew": "tasks.0.token"},
    ),
    Step(
        "done",
        "POST /v1/pools/reports/finish",
        {"session": "<worker>", "tasks": [{"id": "import 7", "token": "<anew>"}]},
    ),
    Step("not for now", "POST /v1/pools/reports/tasks/weekly/pause"),
    Step("go on", "POST /v1/pools/reports/tasks/weekly/resume"),
    Step("now, besides its schedule", "POST /v1/pools/reports/tasks/weekly/run"),
    Step("work here no more", "POST /v1/pools/reports/leave", {"session": "<worker>"}),
    Step("one task less", "DELETE /v1/pools/reports/tasks/weekly"),
    Step("no pool any more", "DELETE /v1/pools/reports"),
)

_SEVERAL: Final = (
    Step(
        "a lock and a job in one step, or neither",
        "POST /v1/batch",
        {
            "commands": [
                {"call": "POST /v1/locks/orders/acquire", "session": "<worker>"},
                {"call": "POST /v1/tubes/mail/jobs", "body": {"body": "order 17"}},
            ],
            "atomic": True,
        },
    ),
)

_ENDS: Final = (
    Step("end a session", "DELETE /v1/sessions/<other>", status=204),
    Step("it has ended", "GET /v1/sessions/<other>", status=410),
    Step("it is unknown", "POST /v1/sessions/0-nobody/keepalive", status=404),
    Step("a field that is not there", "POST /v1/sessions", {"tll": "60s"}, 400),
)

_CLUSTER: Final = (
    Step("the cluster as this node sees it", "GET /v1/cluster"),
    Step("alive", "GET /livez"),
    Step("ready", "GET /readyz"),
    Step("figures", "GET /metrics"),
    Step("this document", "GET /openapi.json"),
    Step("this document, to read", "GET /docs"),
    Step("hand the lead over", "POST /v1/cluster/transfer", {}),
)

TOUR: Final[tuple[Step, ...]] = (
    *_SESSIONS,
    *_LOCKS,
    *_SEMAPHORES,
    *_TICKETS,
    *_FIFOS,
    *_ROOMS,
    *_JOBS,
    *_TASKS,
    *_SEVERAL,
    *_ENDS,
    *_CLUSTER,
)
