"""Go's HTTP habits: routers, queries, JSON, durations, and connections over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import NoLeader
from cluster.fronts.gohttp import documents, durations, exchange, queries
from cluster.fronts.gohttp.exchange import Answer, BodyTooLarge, Request, Serve
from cluster.fronts.gohttp.httprouter import HttpRouter
from cluster.fronts.gohttp.servemux import ServeMux
from cluster.fronts.gohttp.server import GoServer
from tests.node.scarce import scarce_descriptors

HOST = "127.0.0.1"


async def _no_body(most: int) -> bytes:
    return b""


def _request(method: str, target: str, headers: Mapping[str, str] | None = None) -> Request:
    raw_path, _, raw_query = target.partition("?")
    return Request(
        method=method,
        path=queries.unescape(raw_path),
        raw_path=raw_path,
        raw_query=raw_query,
        headers=headers or {},
        peer="127.0.0.1:5",
        read_body=_no_body,
    )


async def _show(request: Request, found: Mapping[str, str]) -> Answer:
    return exchange.document({"path": request.path, **found})


def _header(answer: Answer, name: str) -> str | None:
    return dict(answer.headers).get(name)


# Routers.

ROUTER = HttpRouter(
    [
        ("POST", "/api/v1/sessions", _show),
        ("GET", "/api/v1/sessions/:id", _show),
        ("PUT", "/api/v1/sessions/:id", _show),
        ("DELETE", "/api/v1/sessions/:id", _show),
        ("GET", "/status", _show),
    ]
)

MUX = ServeMux({"/fifo/new": _show, "/fifo/{uuid}/wait/{ticket}": _show, "GET /status": _show})


@pytest.mark.parametrize(
    ("method", "target", "status", "header"),
    [
        ("GET", "/api/v1/sessions/a", 200, None),
        ("GET", "/nothing", 404, None),
        ("POST", "/api/v1/sessions/a", 405, "DELETE, GET, OPTIONS, PUT"),
        ("GET", "/api/v1/sessions", 405, "OPTIONS, POST"),
        ("HEAD", "/api/v1/sessions/a", 405, "DELETE, GET, OPTIONS, PUT"),
        ("OPTIONS", "/api/v1/sessions/a", 200, "DELETE, GET, OPTIONS, PUT"),
        ("OPTIONS", "/nothing", 404, None),
        ("GET", "/api/v1/sessions/a/", 301, "/api/v1/sessions/a"),
        ("PUT", "/api/v1/sessions/a/?x=1", 307, "/api/v1/sessions/a?x=1"),
        ("PUT", "/API/v1/Sessions/A", 307, "/api/v1/sessions/A"),
        ("GET", "/api//v1/../v1/sessions/a", 301, "/api/v1/sessions/a"),
        ("GET", "/api/v1/sessions/a%2Fb", 404, None),
        ("GET", "/api/v1/sessions/", 404, None),
        ("PATCH", "/status", 405, "GET, OPTIONS"),
        ("GET", "//", 301, "/"),
        ("DELETE", "/x/..?a=b", 307, "/?a=b"),
        ("PATCH", "//", 404, None),
        ("GET", "/", 404, None),
    ],
)
async def test_httprouter_answers_as_it_did(
    method: str, target: str, status: int, header: str | None
) -> None:
    """Methods, slashes, cases and dots; `header` is the list of methods, or where it leads."""
    answer = await ROUTER.serve(_request(method, target))
    assert answer.status == status
    assert (_header(answer, "Allow") or _header(answer, "Location")) == header


@pytest.mark.parametrize(
    ("method", "target", "status", "header"),
    [
        ("PATCH", "/fifo/new", 200, None),
        ("GET", "/fifo/new/", 404, None),
        ("GET", "/fifo/a/wait/b%2Fc", 200, None),
        ("GET", "/fifo/%2F/wait/b", 404, None),
        ("GET", "/fifo//wait/b", 301, "/fifo/wait/b"),
        ("POST", "//fifo/new?a=b", 301, "/fifo/new?a=b"),
        ("GET", "/x/../fifo/new", 301, "/fifo/new"),
        ("HEAD", "/status", 200, None),
        ("POST", "/status", 405, "GET, HEAD"),
        ("GET", "/", 404, None),
    ],
)
async def test_servemux_answers_as_it_does(
    method: str, target: str, status: int, header: str | None
) -> None:
    """Exact paths, one segment for each name, unclean paths sent to the clean one."""
    answer = await MUX.serve(_request(method, target))
    assert answer.status == status
    assert (_header(answer, "Allow") or _header(answer, "Location")) == header


async def test_an_escaped_slash_stays_in_its_segment_in_servemux() -> None:
    """It is decoded after the path was divided."""
    answer = await MUX.serve(_request("GET", "/fifo/a/wait/b%2Fc"))
    assert json.loads(answer.body)["ticket"] == "b/c"


async def test_a_redirect_of_a_get_has_a_page() -> None:
    """And no other method's has one."""
    answer = await ROUTER.serve(_request("GET", "/status/?a=<"))
    assert answer.body == b'<a href="/status?a=&lt;">Moved Permanently</a>.\n\n'
    assert _header(answer, "Content-Type") == exchange.HTML
    assert (await ROUTER.serve(_request("PUT", "/api/v1/sessions/a/"))).body == b""


# Queries and forms.


@pytest.mark.parametrize(
    ("query", "value"),
    [
        ("a=1&a=2", "1"),
        ("b=1", ""),
        ("a=x%20y+z", "x y z"),
        ("a=%zz&a=ok", "ok"),
        ("a=1;b=2&a=3", "3"),
        ("a", ""),
        ("%61=3", "3"),
        ("a=%ff", "\udcff"),
        ("&&a==", "="),
    ],
)
def test_queries_are_read_as_net_url_does(query: str, value: str) -> None:
    """First value wins; what is broken is left out."""
    assert queries.first(queries.parse(query), "a") == value


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("+5", 5),
        ("-7", -7),
        ("", None),
        (" 1", None),
        ("1_0", None),
        ("0x1", None),
        ("٣", None),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), None),
        ("1.5", None),
        ("9" * 5000, None),
    ],
)
def test_atoi(text: str, number: int | None) -> None:
    """As strconv's: 64 bits, a sign, digits."""
    assert queries.atoi(text) == number


async def test_a_form_wins_over_the_query_and_parts_lose_to_it() -> None:
    """ParseForm puts the body first, ParseMultipartForm puts the query first."""

    async def body(most: int) -> bytes:
        return b"a=form&b=only+form"

    async def parts(most: int) -> bytes:
        return (
            b'--X\r\nContent-Disposition: form-data; name="a"\r\n\r\npart\r\n'
            b'--X\r\nContent-Disposition: form-data; name="c"\r\n\r\nonly part\r\n--X--\r\n'
        )

    def request(kind: str, read: exchange.ReadBody) -> Request:
        return Request(
            method="POST",
            path="/",
            raw_path="/",
            raw_query="a=query",
            headers={"Content-Type": kind},
            peer="",
            read_body=read,
        )

    form = await request("application/x-www-form-urlencoded; charset=utf-8", body).form()
    assert form == {"a": ["form", "query"], "b": ["only form"]}
    form = await request('multipart/form-data; boundary="X"', parts).form()
    assert form == {"a": ["query", "part"], "c": ["only part"]}


def _part(*head: str, data: str = "1") -> str:
    return "--X\r\n" + "".join(f"{line}\r\n" for line in head) + f"\r\n{data}\r\n"


_NAMED = 'Content-Disposition: form-data; name="a"'


@pytest.mark.parametrize(
    ("kind", "body", "found"),
    [
        ("", _part(_NAMED, data="x\r\n--Y") + "--X--", {"a": ["x\r\n--Y"]}),
        ("", "before\r\n" + _part(_NAMED.swapcase()) + "--X--after", {"A": ["1"]}),
        ("", _part("A: b", f"{_NAMED} ; x=y;") + _part(_NAMED) + "--X--", {"a": ["1", "1"]}),
        ("", _part('Content-Disposition: form-data; name="a\\"\\c"') + "--X--", {'a"\\c': ["1"]}),
        (
            "",
            _part(_NAMED, "Content-Transfer-Encoding: quoted-printable", data="=41") + "--X--",
            {"a": ["A"]},
        ),
        ("", _part(f'{_NAMED}; filename="f"') + "--X--", {}),
        ("", _part('Content-Disposition: attachment; name="a"') + "--X--", {}),
        ("", _part(f"{_NAMED}; name=b") + "--X--", {}),
        ("", _part("Content-Disposition: form-data; name*0*") + "--X--", {}),
        ("", _part("Content-Disposition: form-data; " + "(" * 9_000) + "--X--", {}),
        ("", _part() + "--X--", {}),
        ("", _part(_NAMED), {}),
        ("", "--X\r\n--X--", {}),
        ("", "", {}),
        ("; x*0*", _part(_NAMED) + "--X--", {}),
        ("; x=" + "a," * 500_000, _part(_NAMED) + "--X--", {"a": ["1"]}),
        ("", _part(_NAMED) * 1_000 + "--X--", {"a": ["1"] * 1_000}),
        ("", _part(_NAMED) * 1_001 + "--X--", {}),
        ("", "--X\r\n\r\n\r\n" * 100_000 + "--X--", {}),
    ],
)
def test_forms_in_parts_are_read_as_go_reads_them(
    kind: str, body: str, found: dict[str, list[str]]
) -> None:
    """Whatever is no form is none as a whole, however large it is."""
    assert queries.parse_multipart(f"multipart/form-data; boundary=X{kind}", body.encode()) == found


@given(st.text(), st.binary())
def test_any_bytes_are_a_form_or_none(kind: str, body: bytes) -> None:
    """Nothing is raised."""
    queries.parse_multipart(
        f"multipart/form-data; boundary=X{kind}", b"--X\r\n" + body + b"\r\n--X--"
    )


async def test_a_redirect_is_spelled_in_ascii() -> None:
    """Of the query only what no header can hold; the path encoded, by ServeMux twice, as in Go."""
    target = '/"%20\udcff~ü/status/?q="\udcffü%'
    router = HttpRouter([("GET", "/:name/status", _show)])
    answer = await router.serve(_request("GET", target))
    assert _header(answer, "Location") == '/%22%20%FF~%C3%BC/status?q="%FF%C3%BC%'
    answer = await MUX.serve(_request("GET", f"/{target}"))
    assert _header(answer, "Location") == '/%2522%2520%25FF~%25C3%25BC/status/?q="%FF%C3%BC%'


# JSON.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        ([], "[]"),
        (b"", '""'),
        (b"FOO", '"Rk9P"'),
        ('a"\\/\n\x01', '"a\\"\\\\/\\n\\u0001"'),
        ("<&>\u2028\x7f", '"\\u003c\\u0026\\u003e\\u2028\x7f"'),
        ("ä\udcff", '"ä\\ufffd"'),
        ({"b": 1, "a": [True, -2]}, '{"b":1,"a":[true,-2]}'),
        (1.0, "1"),
        (0.25, "0.25"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e-7, "1.5e-7"),
        (-0.0, "-0"),
    ],
)
def test_json_is_written_as_go_writes_it(value: object, text: str) -> None:
    """Escapes, base64, numbers, order."""
    assert documents.encode(value) == text.encode()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    )
)
@settings(max_examples=50)
def test_json_is_json(value: object) -> None:
    """Whatever is written is read back as what it was."""
    assert json.loads(documents.encode(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_are_read_back_as_they_were(value: float) -> None:
    """Shortest digits, as everywhere."""
    assert float(documents.encode(value)) == value


def test_maps_are_written_by_name() -> None:
    """By the bytes of their names."""
    assert documents.encode(documents.go_map({"b": 1, "a": 2, "B": 3})) == b'{"B":3,"a":2,"b":1}'


# Durations.


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("+0", 0),
        ("1h15m30.918s", 4_530_918_000_000),
        ("-1.5h", -5_400_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("3us", 3_000),
        ("3µs", 3_000),
        ("3μs", 3_000),
        ("0.3333333333333333333h", 1_200_000_000_000),
        ("-9223372036854775808ns", -(2**63)),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, ns: int) -> None:
    """Fractions, signs, units."""
    assert durations.parse(text) == ns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("3", 'time: missing unit in duration "3"'),
        ("2d", 'time: unknown unit "d" in duration "2d"'),
        (".s", 'time: invalid duration ".s"'),
        ("-", 'time: invalid duration "-"'),
        ("1h ", 'time: unknown unit "h " in duration "1h "'),
        ("9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'),
        ("ä", 'time: invalid duration "\\xc3\\xa4"'),
        ("٣s", 'time: invalid duration "\\xd9\\xa3s"'),
    ],
)
def test_what_is_no_duration_is_told_in_gos_words(text: str, message: str) -> None:
    """The texts of package time."""
    with pytest.raises(durations.BadDuration) as caught:
        durations.parse(text)
    assert str(caught.value) == message


def test_days_are_taken_where_they_are_wanted() -> None:
    """Of 24 hours, beside the other units."""
    assert durations.parse("1d12h", days=True) == 36 * durations.HOUR


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (60_000_000_000, "1m0s"),
        (4_530_918_000_000, "1h15m30.918s"),
        (-500, "-500ns"),
    ],
)
def test_durations_are_written_as_go_writes_them(ns: int, text: str) -> None:
    """Duration.String."""
    assert durations.text_of(ns) == text


@given(st.text(max_size=30) | st.from_regex(r"[-+]?([0-9]{0,25}\.?[0-9]{0,25}[a-zµ]{0,2}){0,3}"))
def test_any_text_is_a_duration_or_is_told_why_not(text: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(durations.BadDuration):
        assert -(2**63) <= durations.parse(text) < 2**63


# Connections.


@contextlib.asynccontextmanager
async def _serving(
    serve: Serve,
    *,
    waits: Callable[[str], bool] | None = None,
    connections_max: int = 100,
) -> AsyncIterator[GoServer]:
    server = GoServer("test", serve, waits=waits, connections_max=connections_max)
    await server.start(HOST, 0)
    try:
        yield server
    finally:
        await server.stop(1.0)


@contextlib.asynccontextmanager
async def _dialled(
    server: GoServer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*server.addresses[0])
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def _echo(request: Request) -> Answer:
    if request.path == "/error":
        return exchange.error("no such thing", 404)
    if request.path == "/nothing":
        return Answer()
    if request.path == "/elected":
        raise NoLeader("nobody leads")
    if request.path == "/bug":
        raise RuntimeError("a bug, for a test")
    try:
        return exchange.text((await request.body(10)).decode() or request.path)
    except BodyTooLarge:
        return exchange.error("http: request body too large", 413, closes=True)
    except exchange.BodyBroken:
        return exchange.error("broken", 400, closes=True)


def _get(path: str, *more: str) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: x\r\n{''.join(line + chr(10) for line in more)}\r\n".encode()
    )


@pytest.mark.both_loops
async def test_an_answer_has_what_gos_has_and_no_more() -> None:
    """No Server, no guessed type, a date, a length."""
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        writer.write(_get("/error"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert await reader.readexactly(14) == b"no such thing\n"
        assert head[0] == "HTTP/1.1 404 Not Found"
        assert {line.partition(":")[0] for line in head[1:-2]} == {
            "Content-Type",
            "X-Content-Type-Options",
            "Content-Length",
            "Date",
        }
        writer.write(_get("/nothing"))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        assert {line.partition(":")[0] for line in head[1:-2]} == {"Content-Length", "Date"}


@pytest.mark.both_loops
async def test_a_client_that_ends_its_side_gets_its_answers() -> None:
    """Three pipelined requests and the end, in one write."""
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        writer.write(_get("/a") + _get("/b") + _get("/c"))
        writer.write_eof()
        rest = await _rest(reader)
        assert [rest.count(b"\n/" + letter) for letter in (b"a", b"b", b"c")] == [1, 1, 1]
        assert b"Connection: close" in rest.rpartition(b"HTTP/1.1")[2]


@pytest.mark.both_loops
async def test_where_some_wait_the_others_still_answer_who_ended_its_side() -> None:
    """What takes no time is answered; who stands behind one that waits is gone with it."""

    async def serve(request: Request) -> Answer:
        if request.path == "/wait":
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return exchange.text(request.path)

    async with _serving(serve, waits=lambda target: target.startswith("/wait")) as server:
        async with _dialled(server) as (reader, writer):
            writer.write(_get("/a") + _get("/b"))
            writer.write_eof()
            rest = await _rest(reader)
            assert [rest.count(b"\n/" + letter) for letter in (b"a", b"b")] == [1, 1]
        async with _dialled(server) as (reader, writer):
            writer.write(_get("/a") + _get("/wait"))
            await reader.readuntil(b"/a")
            writer.write_eof()
            assert await _rest(reader) == b""
        await _until(lambda: server.connections == 0)


@pytest.mark.both_loops
async def test_the_end_may_come_with_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever turn of the loop: who was to wait is gone at once."""
    monkeypatch.setattr("cluster.fronts.gohttp.server.HALF_CLOSED_S", 3600.0)

    async def serve(request: Request) -> Answer:
        return await asyncio.Event().wait() or Answer()

    async with _serving(serve, waits=lambda target: True) as server:
        for turns in range(8):
            async with _dialled(server) as (reader, writer):
                writer.write(_get("/wait"))
                for _ in range(turns):
                    await asyncio.sleep(0)
                writer.write_eof()
                async with asyncio.timeout(20):
                    assert await _rest(reader) == b""


@pytest.mark.both_loops
async def test_a_large_body_is_refused_and_ends_the_connection() -> None:
    """Told by its head, or found out in chunks."""
    heads = (
        b"Content-Length: 11\r\n\r\n" + b"x" * 11,
        b"Transfer-Encoding: chunked\r\n\r\n6\r\nxxxxxx\r\n6\r\nxxxxxx\r\n0\r\n\r\n",
    )
    async with _serving(_echo) as server:
        for head in heads:
            async with _dialled(server) as (reader, writer):
                writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n" + head)
                rest = await _rest(reader)
                assert rest.startswith(b"HTTP/1.1 413 ")
                assert rest.endswith(b"http: request body too large\n")


@pytest.mark.both_loops
async def test_who_expects_100_is_told_to_go_on() -> None:
    """And then gets its answer."""
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        writer.write(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.both_loops
@pytest.mark.parametrize("path", ["/elected", "/bug"])
async def test_no_answer_is_a_cut_connection(path: str) -> None:
    """Never a status: clients of the older systems die of one."""
    async with _serving(_echo) as server:
        async with _dialled(server) as (reader, writer):
            writer.write(_get(path))
            assert await _rest(reader) == b""
        async with _dialled(server) as (reader, writer):
            writer.write(_get("/after"))
            assert (await reader.readuntil(b"/after")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.both_loops
async def test_who_hangs_up_is_no_longer_served() -> None:
    """The handler of one who waits is cancelled as soon as its client closes."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def wait(request: Request) -> Answer:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with _serving(wait, waits=lambda target: True) as server:
        async with _dialled(server) as (_, writer):
            writer.write(_get("/"))
            await begun.wait()
            writer.write_eof()
            await asyncio.wait_for(ended.wait(), 20)
        await _until(lambda: server.connections == 0)


@pytest.mark.both_loops
async def test_draining_ends_connections_with_their_last_answer() -> None:
    """One at rest may ask once more; new ones are refused; those at rest end with the server."""
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        writer.write(_get("/a"))
        await reader.readuntil(b"/a")
        async with _dialled(server) as (other, resting):
            resting.write(_get("/b"))
            await other.readuntil(b"/b")
            address = server.addresses[0]
            server.drain()
            with pytest.raises(OSError):
                await asyncio.open_connection(*address)
            writer.write(_get("/last"))
            assert b"Connection: close" in await _rest(reader)
            await server.stop(1.0)
            assert await _rest(other) == b""


@pytest.mark.both_loops
async def test_who_never_reads_its_answer_is_let_go() -> None:
    """An answer larger than all buffers does not stay in memory for ever."""

    async def large(request: Request) -> Answer:
        return Answer(body=b"x" * 64 * 1024 * 1024)

    server = GoServer("test", large, write_timeout_s=0.05)
    await server.start(HOST, 0)
    async with _dialled(server) as (_, writer):
        writer.write(_get("/"))
        await _until(lambda: server.connections == 1)
        await _until(lambda: server.connections == 0)
    await server.stop(1.0)


@pytest.mark.both_loops
async def test_over_the_limit_the_longest_at_rest_goes() -> None:
    """And where nobody rests, the new one goes."""
    hold = asyncio.Event()

    async def serve(request: Request) -> Answer:
        if request.path == "/hold":
            await hold.wait()
        return await _echo(request)

    async with (
        _serving(serve, connections_max=2) as server,
        _dialled(server) as (first, one),
        _dialled(server) as (second, two),
    ):
        one.write(_get("/a"))
        await first.readuntil(b"/a")
        two.write(_get("/hold"))
        await _until(lambda: server.in_progress == 1)
        async with _dialled(server) as (third, three):
            three.write(_get("/hold"))
            assert await _rest(first) == b""
            await _until(lambda: server.in_progress == 2)
            async with _dialled(server) as (fourth, _):
                assert await _rest(fourth) == b""
            assert server.refused == 1
            hold.set()
            for reader in (second, third):
                assert (await reader.readuntil(b"/hold")).startswith(b"HTTP/1.1 200 ")


_GET = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("parts", "heard"),
    [
        (["GET / HTTP/1.0\n\n"], ["GET "]),
        (["GET / HTTP/1.1\n", "Host: x\n", "\n"], ["GET "]),
        (["GET / HTTP/1.1\nHost: x\r\n\n"], ["GET "]),
        (["BREW / HTTP/1.1\r\nHost: x\r\n\r\n"], ["BREW "]),
        (["get /\xff?\xff HTTP/1.1\r\nHost: x\r\n\r\n"], ["get "]),
        (["M-x / HTTP/1.1\nHost: x\nContent-Length: 3\n\na\n", "\n"], ["M-x a\n\n"]),
        (["X / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n2\na\n\n0\n\n"], ["X a\n"]),
        (["GET / HTTP/1.1\nHost: x\n\nPUT / HTTP/1.1\r\nHost: x\r\n\r\n"], ["GET ", "PUT "]),
        ([_GET, "BREW / HTTP/1.1\nHost: x\n\n", _GET], ["GET ", "BREW ", "GET "]),
        ([f"{_GET}GE", _GET[2:]], ["GET ", "GET "]),
    ],
)
async def test_lines_may_end_in_lf_and_methods_be_any_word(
    parts: list[str], heard: list[str]
) -> None:
    """As for Go's server, also on a connection that has asked in the usual way before."""
    asked: list[str] = []

    async def serve(request: Request) -> Answer:
        asked.append(f"{request.method} {(await request.body(10)).decode()}")
        return Answer()

    async with _serving(serve) as server, _dialled(server) as (reader, writer):
        for part in parts:
            writer.write(part.encode("latin-1"))
            # Each in a packet of its own, as far as that can be had.
            for _ in range(20):
                await asyncio.sleep(0)
        writer.write_eof()
        answers = await _rest(reader)
        assert asked == heard
        assert answers.count(b" 200 OK\r\n") == len(heard)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\nHost: x\n\n",
    ],
)
async def test_a_body_without_an_end_leaves_nothing_in_the_log(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client ends its side while it is being read, and is told."""
    reading = asyncio.Event()

    async def serve(request: Request) -> Answer:
        reading.set()
        return await _echo(request)

    async with _serving(serve) as server, _dialled(server) as (reader, writer):
        writer.write(head + b"ab")
        await reading.wait()
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        await _until(lambda: server.connections == 0)
    assert not caplog.records


@pytest.mark.both_loops
async def test_odd_heads_are_bounded_as_the_others() -> None:
    """A mebibyte in all."""
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        writer.write(b"BREW / HTTP/1.1\nHost: x\n" + (b"X: " + b"a" * 9_000 + b"\n") * 117)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 431 ")


async def test_what_is_kept_back_for_the_disk_and_the_peers_is_no_clients() -> None:
    """Who rests makes room for who comes; where nobody rests, who comes is refused."""

    async def serve(request: Request) -> Answer:
        await released.wait()
        return exchange.text("here")

    released = asyncio.Event()
    async with _serving(serve) as server, _dialled(server) as (first, one):
        one.write(_get("/"))
        await _until(lambda: server.in_progress == 1)
        with scarce_descriptors():
            async with _dialled(server) as (second, _):
                assert await second.read() == b""
            released.set()
            assert (await first.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")
            async with _dialled(server) as (third, three):
                assert await first.read() == b""
                three.write(_get("/"))
                assert (await third.readuntil(b"here")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.both_loops
async def test_who_has_not_got_all_of_its_answer_does_not_rest() -> None:
    """It is not cut off for one that comes."""
    size = 16 * 1024 * 1024

    async def serve(request: Request) -> Answer:
        return exchange.text("a" * size)

    async with (
        _serving(serve, connections_max=1) as server,
        _dialled(server) as (first, one),
    ):
        one.write(_get("/"))
        await first.readuntil(b"\r\n\r\n")
        async with _dialled(server):
            await _until(lambda: server.refused == 1)
        assert await first.readexactly(size) == b"a" * size
        await _until(lambda: not server.in_progress)
        async with _dialled(server) as (second, two):
            two.write(_get("/"))
            assert (await second.readuntil(b" ")) == b"HTTP/1.1 "


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", b"400"),
        (b"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 1_100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_100_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"X: " + b"a" * 9_000 + b"\r\n") * 117, b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 2_000 + b"\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"4"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
        (b"GET http://x/abs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
    ],
)
async def test_what_is_no_http_is_told_so(data: bytes, status: bytes) -> None:
    """And the connection ends."""
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        writer.write(data)
        assert (await _rest(reader)).startswith(b"HTTP/1.1 " + status)


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "more",
    [
        b"X: " + b"a" * 100_000 + b"\r\n",
        (b"X: " + b"a" * 9_000 + b"\r\n") * 100,
        b"X: a\r\n" * 1_000,
    ],
)
async def test_a_head_may_be_a_mebibyte(more: bytes) -> None:
    """Cookies and proxies make long ones; Go counts all lines together, of each request anew."""
    data = b"GET /x HTTP/1.1\r\nHost: x\r\n" + more + b"\r\n"
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        for _ in range(3):
            writer.write(data)
            assert (await reader.readuntil(b"/x")).startswith(b"HTTP/1.1 200 ")
        writer.write(b"GET /" + b"a" * 900_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readuntil(b"aaa")).startswith(b"HTTP/1.1 200 ")


async def test_a_long_body_is_no_long_head() -> None:
    """Bodies have limits of their own."""
    data = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b"b" * 3_000_000

    async def told(request: Request) -> Answer:
        return Answer(body=b"%d/x" % len(await request.body(4_000_000)))

    async with _serving(told) as server, _dialled(server) as (reader, writer):
        writer.write(data + _get("/x"))
        assert (await reader.readuntil(b"3000000/x")).startswith(b"HTTP/1.1 200 ")
        assert (await reader.readuntil(b"0/x")).startswith(b"HTTP/1.1 200 ")


async def test_requests_may_come_in_any_two_pieces() -> None:
    """Every split of a request with a body gives the same answer."""
    data = b"POST /x?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
    async with _serving(_echo) as server, _dialled(server) as (reader, writer):
        for place in range(1, len(data)):
            writer.write(data[:place])
            await writer.drain()
            await asyncio.sleep(0)
            writer.write(data[place:])
            assert (await reader.readuntil(b"\r\n\r\nabc")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.both_loops
@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/\u00e4/%C3%B6".encode(), "/\u00e4/\u00f6".encode()),
        (b"/\xff?a=\xff", b"/\xff"),
        ("/a?b=\u2603".encode(), b"/a"),
    ],
)
async def test_paths_need_not_be_escaped(target: bytes, path: bytes) -> None:
    """A client like curl sends what it is given; Go takes every byte that is no control character."""

    async def told(request: Request) -> Answer:
        return Answer(body=os.fsencode(request.path + "|" + request.query("a")))

    async with _serving(told) as server, _dialled(server) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert (await reader.readuntil(b"|"))[:-1] == path
            if b"a=" in target:
                assert await reader.readexactly(1) == b"\xff"


async def test_garbage_never_stops_the_server() -> None:
    """Random bytes, half a head, half a body: all end by themselves or with the server."""

    @given(st.binary(max_size=200))
    @settings(max_examples=40)
    def pieces(data: bytes) -> None:
        found.append(data)

    found: list[bytes] = []
    pieces()
    found += [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab"]
    async with _serving(_echo) as server:
        for data in found:
            async with _dialled(server) as (reader, writer):
                writer.write(data)
                writer.write_eof()
                await _rest(reader)
        await _until(lambda: server.connections == 0)
        async with _dialled(server) as (reader, writer):
            writer.write(_get("/after"))
            assert (await reader.readuntil(b"/after")).startswith(b"HTTP/1.1 200 ")
