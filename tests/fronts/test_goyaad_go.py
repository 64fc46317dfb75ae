"""gob and net/rpc next to Go's own: the same values, the same errors."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster.fronts.gob.decoder import Decoder
from cluster.fronts.gob.kinds import BOOL, BYTES, INT, STRING, UINT, Kind, Struct
from cluster.fronts.gob.messages import Messages
from cluster.fronts.goyaad.rpc import JOB
from tests.fronts.goyaad_client import GoyaadClient, RpcError
from tests.fronts.test_goyaad import Place, place
from tests.tools import go_programs

__all__ = ["place"]


@pytest.fixture(scope="module")
def program() -> Path:
    """The Go program of tests/foreign/goyaad."""
    return go_programs.program("goyaad")


@pytest.fixture
async def gos(program: Path) -> AsyncIterator[GoyaadClient]:
    """A client of Go's own net/rpc server."""
    process = await asyncio.create_subprocess_exec(
        program, "server", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        host, _, port = (await process.stdout.readline()).decode().strip().rpartition(":")
        async with await GoyaadClient.to((host, int(port))) as client:
            yield client
    finally:
        process.kill()
        await process.wait()


def _as_json(value: Any) -> Any:
    """A decoded value as Go's JSON has it, without what is zero."""
    match value:
        case dict():
            return {name: _as_json(one) for name, one in value.items()}
        case list():
            return [_as_json(one) for one in value]
        case bytes():
            return value.decode(errors="replace")
        case _:
            return value


def _pruned(value: Any) -> Any:
    """JSON of Go's as a decoder sees it: times and bytes left out, as are fields of zero."""
    left_out = {"When", "Bytes", "Any"}
    match value:
        case dict():
            parts = {name: _pruned(one) for name, one in value.items() if name not in left_out}
            return {name: one for name, one in parts.items() if one or isinstance(one, dict)}
        case list():
            return [_pruned(one) for one in value]
        case _:
            return value


def test_values_of_go_are_read(program: Path) -> None:
    """Of every kind there is, nested, in maps, behind interfaces and by themselves."""
    ran = subprocess.run([program, "values"], capture_output=True, text=True, check=True)
    lines = ran.stdout.splitlines()
    assert len(lines) > 15
    for line in lines:
        text, _, expected = line.partition(" ")
        decoder, found = Decoder(), []
        for message in Messages().feed(bytes.fromhex(text)):
            assert isinstance(message, bytes)
            value = decoder.message(message)
            if value is not None:
                found.append(value.value)
        (one,) = found
        want = json.loads(expected)
        if isinstance(want, dict | list) and "2020" not in expected.partition(":")[0]:
            assert _pruned(_as_json(one)) == _pruned(want), expected
        elif not isinstance(want, list):
            assert (one or None) == (want or None)
    assert '"Any":{"A":-5' in lines[1]


CALLS: list[tuple[str, Kind, Any]] = [
    ("Ping", INT, 0),
    ("", INT, 0),
    ("Other.Ping", INT, 0),
    ("a.RPCServer.Ping", INT, 0),
    ("RPCServer.Pong", JOB, {"ID": "x"}),
    ("RPCServer.", INT, 0),
    ("RPCServer.Ping", INT, 127),
    ("RPCServer.Ping", INT, 128),
    ("RPCServer.Ping", STRING, "x"),
    ("RPCServer.Next", UINT, 1),
    ("RPCServer.Next", BOOL, True),
    ("RPCServer.Next", INT, 0),
    ("RPCServer.Cancel", BYTES, b"x"),
    ("RPCServer.Cancel", INT, 7),
    ("RPCServer.Cancel", STRING, ""),
    ("RPCServer.InspectN", STRING, "x"),
    ("RPCServer.InspectN", INT, -1),
    ("RPCServer.PutWithID", STRING, "x"),
    ("RPCServer.PutWithID", Struct("Other", (("Id", STRING),)), {"Id": "x"}),
    ("RPCServer.PutWithID", Struct("J", (("ID", BYTES),)), {"ID": b"x"}),
    ("RPCServer.PutWithID", Struct("J", (("Delay", STRING),)), {}),
    ("RPCServer.PutWithID", Struct("J", (("Body", STRING), ("ID", INT))), {}),
    ("RPCServer.PutWithID", Struct("J", (("ID", STRING), ("More", INT))), {"ID": "y", "More": 1}),
    ("RPCServer.Ping", INT, 0),
]


async def test_errors_are_those_of_go(place: Place, gos: GoyaadClient) -> None:
    """Each call to Go's own server and to ours: the same result or the same text."""
    ours = await place.client()
    for method, kind, argument in CALLS:
        answers = []
        for client in (gos, ours):
            try:
                answers.append(await client.send(method, kind, argument))
            except RpcError as error:
                # There the struct is one of the program's own package.
                answers.append(str(error).replace("main.RPCJob", "protocol.RPCJob"))
        assert answers[0] == answers[1], (method, kind, argument)


class GoClient:
    """The Go client as a process: calls in, answers out, in whatever order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send(self, **call: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(call).encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return found


@pytest.fixture
async def go_client(program: Path, place: Place) -> AsyncIterator[GoClient]:
    """A Go client of our front."""
    host, port = place.front.addresses[0]
    process = await asyncio.create_subprocess_exec(
        program,
        "client",
        f"{host}:{port}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield GoClient(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_go_program_works_with_jobs(place: Place, go_client: GoClient) -> None:
    """A Next that waits, a ping past it, a put that ends it, a duplicate, a cancel, a look."""
    go_client.send(Seq=1, Call="next", Timeout=10**12)
    while not place.node.parked:
        await asyncio.sleep(0.001)
    go_client.send(Seq=2, Call="ping")
    assert (await go_client.answer())["Seq"] == 2
    go_client.send(Seq=3, Call="put", ID="a\x01", Body="aGk=")
    got = {answer["Seq"]: answer for answer in [await go_client.answer() for _ in range(2)]}
    assert (got[1]["ID"], got[1]["Body"], got[3]["Error"]) == ("a\x01", "aGk=", "")
    go_client.send(Seq=4, Call="put", ID="b", Delay=10**9)
    assert (await go_client.answer())["Error"] == ""
    go_client.send(Seq=5, Call="put", ID="b")
    error = (await go_client.answer())["Error"]
    assert error == "Rejecting job. Job with ID: b already exists"
    go_client.send(Seq=6, Call="inspect", N=5)
    assert (await go_client.answer())["Jobs"] == [{"Body": None, "ID": "b", "Delay": 10**9}]
    go_client.send(Seq=7, Call="cancel", ID="b")
    assert (await go_client.answer())["Error"] == ""
    go_client.send(Seq=8, Call="next")
    assert (await go_client.answer())["Error"] == "No new jobs available in given timeout"
    go_client.send(Seq=9, Call="put", Body="eA==")
    assert (await go_client.answer())["ID"].isdecimal()
