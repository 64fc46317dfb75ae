"""The fencing kit: what is lost without it, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from multidict import CIMultiDict

from cluster import fencing
from cluster.client.aio import Client
from cluster.errors import Overloaded
from cluster.fencing import (
    Fence,
    FencingMiddleware,
    PutConflict,
    S3Store,
    Stored,
    TokenStale,
    admit_sql,
    aiohttp_middleware,
    headers_of,
    put_fenced,
)
from cluster.testing.place import Place, running_place


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A cluster of one, whose time stands."""
    async with running_place() as place:
        place.flows = False
        yield place


class Account:
    """A service that others write to: it keeps a number, with a fence or without."""

    def __init__(self, fence: Fence | None) -> None:
        self.balance = 0
        self._fence = fence

    def write(self, balance: int, token: int) -> None:
        if self._fence is not None:
            self._fence.admit("account", token)
        self.balance = balance


async def two_deposits(place: Place, account: Account) -> None:
    """Two tellers add one each, under a lock; the first is paused between reading and writing, for
    so long that its session ends and the second has its turn.

    As by SIGSTOP, a long collection of garbage, or a laptop that was closed: the check of `token`
    comes before the pause, and no check of its own can come after it.
    """
    async with Client(place.endpoint) as client:
        first = await client.session(ttl="10s", owner="process").open()
        lock = first.lock("account")
        await lock.acquire()
        token, seen = lock.token, account.balance
        # The pause. The cluster waits for the whole TTL, then the next one is granted.
        place.node.advance(10_001)
        async with client.session(ttl="10s") as second, second.lock("account") as mine:
            account.write(account.balance + 1, mine.token)
        # It wakes up, and knows nothing of it.
        try:
            account.write(seen + 1, token)
        except TokenStale:
            # Again, from the start, under a lock that holds.
            async with client.session(ttl="10s") as again, again.lock("account") as mine:
                account.write(account.balance + 1, mine.token)


async def test_without_a_fence_an_update_is_lost(place: Place) -> None:
    """Two deposits, and one is in the account: a lock alone is not enough."""
    account = Account(fence=None)
    await two_deposits(place, account)
    assert account.balance == 1


async def test_with_a_fence_none_is_lost(place: Place) -> None:
    """The same story; the late writer is refused, and does it anew."""
    account = Account(Fence())
    await two_deposits(place, account)
    assert account.balance == 2


class TestFence:
    """In one process."""

    def test_tokens_may_repeat_and_rise(self) -> None:
        """A holder may write as often as it likes."""
        fence = Fence()
        for token in (3, 3, 7, 7):
            fence.admit("a", token)
        fence.admit("b", 1)
        assert (fence.newest("a"), fence.newest("b"), fence.newest("c")) == (7, 1, None)

    def test_an_older_token_is_refused(self) -> None:
        """With what was seen, and what to do."""
        fence = Fence()
        fence.admit("a", 7)
        with pytest.raises(TokenStale, match='"a": token 6 is stale, 7 was seen') as caught:
            fence.admit("a", 6)
        assert (caught.value.token, caught.value.newest, caught.value.definite) == (6, 7, True)

    @pytest.mark.parametrize("token", [0, -1, True, "7", 2**63])
    def test_what_is_no_token_is_an_error(self, token: Any) -> None:
        """Not one that passes by accident."""
        with pytest.raises(ValueError, match="is no token"):
            Fence().admit("a", token)

    def test_it_forgets_nothing(self) -> None:
        """To forget a resource would let an old token pass: a full one takes no more of them."""
        fence = Fence(resources_max=1)
        fence.admit("a", 2)
        fence.admit("a", 3)
        with pytest.raises(Overloaded):
            fence.admit("b", 4)


async def serve_asgi(app: Any, method: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """One request to an ASGI app."""
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": method,
        "path": "/",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    """Says yes to everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"written"})


TWICE: CIMultiDict[str] = CIMultiDict(headers_of("orders", 6))
TWICE.add("Coterie-Token", "6")

REQUESTS: list[tuple[str, Mapping[str, str], int]] = [
    ("GET", {}, 200),
    ("POST", headers_of("orders", 7), 200),
    ("POST", headers_of("orders", 7), 200),
    ("PUT", headers_of("orders", 6), 409),
    ("PUT", headers_of("others", 6), 200),
    ("POST", {}, 428),
    ("POST", {"Coterie-Token": "8"}, 400),
    ("POST", {"Coterie-Lock": "orders", "Coterie-Token": "0"}, 400),
    ("POST", {"Coterie-Lock": "orders", "Coterie-Token": "9" * 40}, 400),
    ("POST", {"Coterie-Lock": "orders", "Coterie-Token": "-8"}, 400),
    ("POST", {"Coterie-Lock": "orders", "Coterie-Token": "0" * 19 + "1" + "9" * 20}, 400),
    ("POST", {"Coterie-Lock": "orders", "Coterie-Token": "1" + "9" * 5_000}, 400),
    ("POST", TWICE, 400),
    ("GET", headers_of("orders", 6), 200),
]


async def test_asgi_middleware_refuses_stale_writers() -> None:
    """Before the app hears of them."""
    app = FencingMiddleware(asgi_app, Fence())
    for method, headers, status in REQUESTS:
        found, body = await serve_asgi(app, method, headers)
        assert found == status, (method, headers, body)
        assert (b'"current_token":7' in body) == (status == 409)


async def test_asgi_middleware_lets_everything_else_through() -> None:
    """Lifespan and websockets are not writes; the resource may be told by the path."""
    fence = Fence()
    app = FencingMiddleware(
        asgi_app, fence, resource=lambda scope: scope["path"], is_required=False
    )
    assert (await serve_asgi(app, "POST", {}))[0] == 200
    assert (await serve_asgi(app, "POST", {"Coterie-Token": "3"}))[0] == 200
    assert fence.newest("/") == 3
    # Two tokens are not none: whatever doubled the header, a stale one does not pass by it.
    assert (await serve_asgi(app, "POST", TWICE))[0] == 400
    seen: list[str] = []

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> None:
        raise AssertionError

    await FencingMiddleware(lifespan, fence)({"type": "lifespan"}, nothing, nothing)
    assert seen == ["lifespan"]


async def test_aiohttp_middleware_refuses_stale_writers() -> None:
    """Over a real socket, as the other one."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text="written")

    app = web.Application(middlewares=[aiohttp_middleware(Fence())])
    app.router.add_route("*", "/", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with aiohttp.ClientSession() as http:
        for method, headers, status in REQUESTS:
            async with http.request(method, f"http://{host}:{port}/", headers=headers) as answer:
                body = await answer.read()
                assert answer.status == status, (method, headers, body)
                if status >= 400:
                    assert answer.content_type == "application/problem+json"
    await runner.cleanup()


class TestSql:
    """In the transaction that writes; SQLite runs here, PostgreSQL speaks the same statement."""

    @pytest.fixture
    def database(self, tmp_path: Path) -> Path:
        """A file with a table, and the fence beside it."""
        path = tmp_path / "shop.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(fencing.SQL_TABLE)
            connection.execute(
                "CREATE TABLE orders (id INTEGER PRIMARY KEY, state TEXT, "
                "fence BIGINT NOT NULL DEFAULT 0)"
            )
            connection.execute("INSERT INTO orders (id, state) VALUES (1, 'new')")
            connection.commit()
        return path

    def write(self, database: Path, state: str, token: int) -> None:
        """A writer: admit and write, or neither."""
        with closing(sqlite3.connect(database, timeout=30)) as connection, connection:
            cursor = connection.cursor()
            admit_sql(cursor, "orders", token)
            cursor.execute("UPDATE orders SET state = ? WHERE id = 1", (state,))

    def state(self, database: Path) -> str:
        with closing(sqlite3.connect(database)) as connection:
            [state] = connection.execute("SELECT state FROM orders").fetchone()
            return str(state)

    def test_a_stale_writer_changes_nothing(self, database: Path) -> None:
        """In any process that uses the database."""
        self.write(database, "paid", 5)
        self.write(database, "sent", 9)
        with pytest.raises(TokenStale):
            self.write(database, "paid again", 5)
        assert self.state(database) == "sent"
        self.write(database, "delivered", 9)
        assert self.state(database) == "delivered"

    def test_writers_at_the_same_time_never_go_back(self, database: Path) -> None:
        """Whatever order they come in, the newest token's write stands in the end."""

        def write(token: int) -> None:
            try:
                self.write(database, f"by {token}", token)
            except TokenStale:
                return

        threads = [threading.Thread(target=write, args=(token,)) for token in range(8, 0, -1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.state(database) == "by 8"

    def test_a_trigger_refuses_those_who_forgot_to_ask(self, database: Path) -> None:
        """The table guards itself by a column."""
        guard = fencing.SQL_GUARD_SQLITE.format(table="orders")
        update = "UPDATE orders SET state = ?, fence = ? WHERE id = 1"
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(guard)
            connection.execute(update, ("paid", 7))
            connection.execute(update, ("sent", 7))
            with pytest.raises(sqlite3.IntegrityError, match="stale"):
                connection.execute(update, ("late", 6))
            connection.commit()
        assert self.state(database) == "sent"


class TestPostgres:
    """The same at a real server: give its conninfo in COTERIE_TEST_POSTGRES."""

    @pytest.fixture
    def conninfo(self) -> Iterator[str]:
        """A database with the tables, which go afterwards."""
        conninfo = os.environ.get("COTERIE_TEST_POSTGRES")
        if conninfo is None:
            pytest.skip("COTERIE_TEST_POSTGRES names no PostgreSQL")
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(conninfo) as connection:
            connection.execute(fencing.SQL_TABLE)
            connection.execute(
                "CREATE TABLE fenced_orders (id INTEGER PRIMARY KEY, state TEXT, "
                "fence BIGINT NOT NULL DEFAULT 0)"
            )
            connection.execute("INSERT INTO fenced_orders (id, state) VALUES (1, 'new')")
            connection.execute(fencing.SQL_GUARD_POSTGRES.format(table="fenced_orders"))
        yield conninfo
        with psycopg.connect(conninfo) as connection:
            connection.execute("DROP TABLE fenced_orders, coterie_fence")

    def test_writers_at_the_same_time_never_go_back(self, conninfo: str) -> None:
        """The row of the fence is locked until each transaction ends; the trigger refuses too."""
        import psycopg

        def write(token: int) -> None:
            with contextlib.suppress(TokenStale), psycopg.connect(conninfo) as connection:
                cursor = connection.cursor()
                admit_sql(cursor, "orders", token, paramstyle="format")
                cursor.execute(
                    "UPDATE fenced_orders SET state = %s, fence = %s WHERE id = 1",
                    (f"by {token}", token),
                )

        threads = [threading.Thread(target=write, args=(token,)) for token in range(12, 0, -1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with psycopg.connect(conninfo) as connection:
            found = connection.execute("SELECT state, fence FROM fenced_orders").fetchone()
            assert found == ("by 12", 12)
            with pytest.raises(psycopg.errors.SerializationFailure, match="stale"):
                connection.execute("UPDATE fenced_orders SET state = 'late', fence = 3")


class S3Error(Exception):
    """An error in the form of botocore's ClientError."""

    def __init__(self, code: str):
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Bucket:
    """The two calls of a boto3 client that the store uses, with their conditions."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str, dict[str, str]]] = {}
        self.puts = 0

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key not in self.objects:
            raise S3Error("NoSuchKey")
        data, etag, metadata = self.objects[Key]
        body = type("Body", (), {"read": staticmethod(lambda: data)})
        return {"Body": body, "ETag": etag, "Metadata": metadata}

    def put_object(
        self,
        *,
        Bucket: str,
        Key: str,
        Body: bytes,
        Metadata: dict[str, str],
        IfMatch: str | None = None,
        IfNoneMatch: str | None = None,
    ) -> None:
        there = self.objects.get(Key)
        if (IfNoneMatch == "*" and there) or (IfMatch and (there is None or there[1] != IfMatch)):
            raise S3Error("PreconditionFailed")
        self.puts += 1
        self.objects[Key] = (Body, f'"{self.puts}"', Metadata)


class TestObjects:
    """An object store with conditional puts."""

    def test_a_stale_writer_changes_nothing(self) -> None:
        """The token lies with the object."""
        store = S3Store(Bucket(), "b")
        put_fenced(store, "k", b"one", 3)
        put_fenced(store, "k", lambda old: (old or b"") + b"+two", 5)
        with pytest.raises(TokenStale) as caught:
            put_fenced(store, "k", b"late", 4)
        assert caught.value.newest == 5
        found = store.get("k")
        assert found is not None
        assert (found.data, found.token) == (b"one+two", 5)

    def test_who_is_overtaken_looks_again(self) -> None:
        """Between its reading and its writing somebody wrote: an older one goes on, made anew."""
        store = S3Store(Bucket(), "b")
        overtaken = 0

        def made(old: bytes | None) -> bytes:
            nonlocal overtaken
            if overtaken < 2:
                overtaken += 1
                put_fenced(store, "k", b"%d" % overtaken, overtaken)
            return (old or b"") + b"+mine"

        put_fenced(store, "k", made, 9)
        assert store.get("k") == Stored(b"2+mine", '"3"', 9)

    def test_who_is_overtaken_for_ever_gives_up(self) -> None:
        """Without having written."""
        store = S3Store(Bucket(), "b")

        def made(old: bytes | None) -> bytes:
            put_fenced(store, "k", b"x", 1)
            return b"y"

        with pytest.raises(PutConflict):
            put_fenced(store, "k", made, 9, attempts_max=3)

    def test_other_errors_are_not_swallowed(self) -> None:
        """They say nothing about who came first."""

        class Broken(Bucket):
            def get_object(self, **_: Any) -> dict[str, Any]:
                raise S3Error("AccessDenied")

            def put_object(self, **_: Any) -> None:
                raise S3Error("AccessDenied")

        store = S3Store(Broken(), "b")
        with pytest.raises(S3Error):
            store.get("k")
        with pytest.raises(S3Error):
            store.put("k", b"", token=1, etag=None)


async def test_the_fence_is_of_one_loop_turn() -> None:
    """Tasks that admit and write without awaiting in between never write in the wrong order."""
    fence, written = Fence(), [0]

    async def write(token: int) -> None:
        await asyncio.sleep(0)
        try:
            fence.admit("a", token)
        except TokenStale:
            return
        written.append(token)

    await asyncio.gather(*(write(token) for token in (5, 3, 9, 1, 9, 7)))
    assert written == sorted(written)
