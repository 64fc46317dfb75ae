"""`coterie watch`: events as lines, streams taken up again, and when it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from aiohttp import web

from cluster.cli.watch import Watching
from tests.cli.machine import Shell, serving


def test_what_happened_is_shown_from_a_position_on(tmp_path: Path) -> None:
    """Of the wanted path and kind only, in the form that was asked for, until it is enough."""
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        shell.line("export COTERIE_SESSION=$(coterie sessions open -o name)")
        shell.line("TOKEN=$(coterie locks acquire orders -o name)")
        shell.line("coterie locks release orders --token $TOKEN")
        shell.line("coterie jobs put mail hello")
        ran = shell.line("coterie watch /locks/ --after 1 --count 2 -o json")
        told = [json.loads(line) for line in ran.out.splitlines()]
        assert [(each["what"], each["path"]) for each in told] == [
            ("granted", "/locks/orders"),
            ("released", "/locks/orders"),
        ]
        ran = shell.line("coterie watch /locks/ --after 1 --what released --count 1")
        assert ran.out.split("\t")[1:3] == ["released", "/locks/orders"]
        assert shell.line("coterie watch /tubes/ --after 1 --count 1 -o name").out == (
            "/tubes/mail/jobs/1\n"
        )


def test_an_end_without_enough_events_is_a_no(tmp_path: Path) -> None:
    """Without a number to come, it is as asked for."""
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        assert shell.line("coterie watch /locks/ --for 1ms --count 1").code == 1
        assert shell.line("coterie watch /locks/ --for 1ms").code == 0


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    """By the node, in its words."""
    with serving() as endpoint:
        ran = Shell(endpoint, tmp_path).line("coterie watch locks")
        assert (ran.code, "write /locks/" in ran.err) == (2, True)


async def test_a_broken_stream_goes_on_behind_its_last_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the next node; what is forgotten there is said."""
    asked: list[str | None] = []

    def told(what: str, at: int, **more: object) -> bytes:
        data = {"index": at, "seq": 0, "what": what, "path": "/locks/a"} | more
        return f"event: {what}\nid: {at}\ndata: {json.dumps(data)}\n\n".encode()

    async def stream(request: web.Request) -> web.StreamResponse:
        asked.append(request.query.get("after"))
        response = web.StreamResponse()
        await response.prepare(request)
        if len(asked) == 1:
            await response.write(told("granted", 7) + b": still here\nid: 9\n\n")
        else:
            await response.write(told("resync", 30, lost_after=9, **{"from": 30}))
            await response.write(told("granted", 31))
        return response

    async def cluster(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="{}", content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/watch", stream)
    app.router.add_get("/v1/cluster", cluster)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        watching = Watching(endpoints=(f"http://{host}:{port}",), count=3, output="json")
        assert await watching.run() == 0
    finally:
        await runner.cleanup()
    assert asked == [None, "9"]
    shown = capsys.readouterr()
    assert [json.loads(line)["what"] for line in shown.out.splitlines()] == [
        "granted",
        "resync",
        "granted",
    ]
    assert "events behind 9 are forgotten; going on from 30" in shown.err


async def test_nobody_there_is_told_after_a_while() -> None:
    """Nothing happened, and the exit code says so."""
    watching = Watching(endpoints=("http://127.0.0.1:1",), timeout_ms=1)
    assert await watching.run() == 4
