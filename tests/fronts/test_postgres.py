"""The PostgreSQL front, by a real driver (psycopg) and byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import errors, sql

from cluster.errors import NoLeader, Timeout
from cluster.fronts.postgres import connection, wire
from cluster.fronts.postgres.front import PostgresFront
from cluster.fronts.postgres.functions import columns_in
from cluster.testing.local_node import LocalNode
from tests.fronts.around import around

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def serving(
    node: LocalNode | None = None, columns: str = "id bigint, data text"
) -> AsyncIterator[PostgresFront]:
    """A front over a machine of its own."""
    front = PostgresFront(around(node or LocalNode()), columns_in(columns))
    await front.start(HOST, 0)
    try:
        yield front
    finally:
        await front.stop(1.0)


async def connected(
    front: PostgresFront, *, database: str = "session-lock", autocommit: bool = True, **more: object
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """A connection of psycopg."""
    host, port = front.addresses[0]
    return await psycopg.AsyncConnection.connect(
        host=host,
        port=port,
        user="worker",
        dbname=database,
        autocommit=autocommit,
        sslmode="prefer",
        **more,  # type: ignore[arg-type]
    )


async def one(connection: psycopg.AsyncConnection[tuple[object, ...]], text: str, *given: object):
    """First value of the first row."""
    cursor = await connection.execute(text, given or None)  # type: ignore[call-overload]
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


class TestDriver:
    @pytest.mark.parametrize("is_binary", [False, True])
    async def test_the_five_functions(self, is_binary: bool) -> None:
        """Sessions, work with data, finishing; text and binary results."""
        async with serving() as front:
            db = await connected(front)
            session = await one(db, "SELECT start_session()")
            assert isinstance(session, int)
            await db.execute("SELECT add_tasks(%s, %s)", ([1, 2, 3], ["a", None, "ü"]))
            cursor = db.cursor(binary=is_binary)
            await cursor.execute("SELECT * FROM get_work(%s, %s)", (session, 2))
            assert await cursor.fetchall() == [(1, "a"), (2, None)]
            await db.execute("SELECT bump_session(%s)", (session,))
            await db.execute("SELECT finish_tasks(%s)", ([1, 2],))
            await cursor.execute("SELECT * FROM get_work(%s, NULL)", (session,))
            assert await cursor.fetchall() == [(3, "ü")]
            await db.execute("SELECT end_session(%s)", (session,))
            await db.close()

    async def test_a_dead_session_is_sl001(self) -> None:
        """The code by which the Runner knows that it needs a new one."""
        async with serving() as front:
            db = await connected(front)
            for text in ("SELECT bump_session(%s)", "SELECT * FROM get_work(%s, 1)"):
                with pytest.raises(psycopg.Error) as raised:
                    await db.execute(text, (4711,))
                assert raised.value.sqlstate == "SL001"
                assert raised.value.diag.message_primary == "Session not found."
            assert await one(db, "SELECT 1") == 1
            await db.close()

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("nosuch()", "nosuch()"),
            ("get_work(7)", "get_work(integer)"),
            ("bump_session(7::bigint, 'x', NULL)", "bump_session(bigint, unknown, unknown)"),
            ("end_session(12345678901, true)", "end_session(bigint, boolean)"),
            ("finish_tasks(ARRAY[1, 2], ARRAY['x'::text])", "finish_tasks(integer[], text[])"),
            ("finish_tasks(5)", "finish_tasks(integer)"),
            ("finish_tasks(true)", "finish_tasks(boolean)"),
            ("end_session(ARRAY[1])", "end_session(integer[])"),
            ("bump_session(false)", "bump_session(boolean)"),
            ("add_tasks('{1}', 5)", "add_tasks(unknown, integer)"),
        ],
    )
    async def test_a_function_that_is_not_there_is_named_with_its_types(
        self, text: str, said: str
    ) -> None:
        """In the words of PostgreSQL."""
        async with serving() as front:
            db = await connected(front)
            with pytest.raises(psycopg.Error) as raised:
                await db.execute(sql.SQL("SELECT " + text))
            assert raised.value.sqlstate == "42883"
            assert raised.value.diag.message_primary == f"function {said} does not exist"
            assert await one(db, "SELECT 1") == 1
            await db.close()

    async def test_a_number_is_no_array(self) -> None:
        """Nor if it comes as a parameter."""
        async with serving() as front:
            db = await connected(front)
            with pytest.raises(errors.UndefinedFunction):
                await db.execute("SELECT finish_tasks(%s)", (5,))
            assert await one(db, "SELECT 1") == 1
            await db.close()

    @pytest.mark.parametrize(
        ("text", "rows"),
        [
            ("* FROM get_work(%s, 9) ORDER BY id", [(2, "c"), (10, "a"), (11, None), (30, "b")]),
            ("w.id FROM get_work(%s, 9) AS w ORDER BY w.id DESC LIMIT 2", [(30,), (11,)]),
            ("id FROM get_work(%s, 9) w ORDER BY data ASC, id", [(10,), (30,), (2,), (11,)]),
            ("id FROM get_work(%s, 9) ORDER BY data DESC LIMIT 1", [(11,)]),
            ("count(*) FROM get_work(%s, 9)", [(4,)]),
            ("count(*) AS n FROM get_work(%s, 3) w", [(3,)]),
            ("* FROM get_work(%s, 9) LIMIT 0", []),
        ],
    )
    async def test_rows_in_order_and_counted(
        self, text: str, rows: list[tuple[object, ...]]
    ) -> None:
        """As a database would: numbers as numbers, NULL last."""
        async with serving() as front:
            db = await connected(front)
            session = await one(db, "SELECT start_session()")
            tasks = ([10, 30, 2, 11], ["a", "b", "c", None])
            await db.execute("SELECT add_tasks(%s, %s)", tasks)
            cursor = await db.execute(sql.SQL("SELECT " + text), (session,))
            assert await cursor.fetchall() == rows
            with pytest.raises(psycopg.Error) as raised:
                await db.execute("SELECT * FROM get_work(%s, 9) ORDER BY other", (session,))
            assert raised.value.sqlstate == "42703"
            await db.close()

    async def test_what_the_functions_of_the_original_call(self) -> None:
        """Counts and tasks without a bump; and the error itself."""
        async with serving() as front:
            db = await connected(front)
            assert await one(db, "SELECT get_task_count()") == 0
            first = await one(db, "SELECT start_session()")
            second = await one(db, "SELECT start_session()")
            await db.execute("SELECT add_tasks(%s, %s)", ([1, 2, 3], ["a", "b", "c"]))
            await db.execute("SELECT w.* FROM get_work(%s, %s) w", (first, 9))
            assert await one(db, "SELECT get_task_count()") == 3
            for session, held in ((first, [(1, "a"), (2, "b")]), (second, []), (4711, [])):
                text = "SELECT get_task_count_for_session(%s)"
                assert await one(db, text, session) == len(held)
                text = "SELECT * FROM get_tasks_for_session(%s)"
                assert await (await db.execute(text, (session,))).fetchall() == held
            with pytest.raises(psycopg.Error) as raised:
                await db.execute("SELECT throw_session_not_found()")
            assert raised.value.sqlstate == "SL001"
            await db.close()

    async def test_prepared_statements_are_used_again(self) -> None:
        """Psycopg prepares what it sends often."""
        async with serving() as front:
            db = await connected(front)
            session = await one(db, "SELECT start_session()")
            for _ in range(12):
                await db.execute("SELECT bump_session(%s)", (session,), prepare=True)
            await db.close()

    async def test_a_pipeline(self) -> None:
        """Many statements before the first answer."""
        async with serving() as front:
            db = await connected(front)
            session = await one(db, "SELECT start_session()")
            async with db.pipeline():
                cursors = [
                    await db.execute("SELECT bump_session(%s)", (session,)) for _ in range(50)
                ]
            assert [await cursor.fetchone() for cursor in cursors] == [("",)] * 50
            await db.close()

    async def test_a_transaction_is_a_word(self) -> None:
        """Commit and rollback are taken; what was done stays, and a warning says so."""
        async with serving() as front:
            db = await connected(front, autocommit=False)
            notices: list[str] = []
            db.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
            session = await one(db, "SELECT start_session()")
            await db.rollback()
            assert "nothing is undone" in notices[0]
            await db.execute("SELECT bump_session(%s)", (session,))
            await db.commit()
            with pytest.raises(psycopg.Error):
                await db.execute("SELECT bump_session(%s)", (4711,))
            with pytest.raises(errors.InFailedSqlTransaction):
                await db.execute("SELECT start_session()")
            await db.rollback()
            async with db.transaction():
                await db.execute("SELECT bump_session(%s)", (session,))
            await db.close()

    @pytest.mark.parametrize("word", ["COMMIT", "END"])
    async def test_the_end_of_a_failed_transaction_is_a_rollback(self, word: str) -> None:
        """Whatever was asked for: drivers tell by this word that a commit did not happen."""
        async with serving() as front:
            db = await connected(front)
            await db.execute("BEGIN")
            with pytest.raises(psycopg.Error):
                await db.execute("SELECT bump_session(4711)")
            assert (await db.execute(sql.SQL(word))).statusmessage == "ROLLBACK"
            assert (await db.execute("BEGIN")).statusmessage == "BEGIN"
            assert (await db.execute(sql.SQL(word))).statusmessage == "COMMIT"
            await db.close()

    @pytest.mark.parametrize(
        ("asked", "told"),
        [("utf-8", "UTF8"), ("Unicode", "UTF8"), ("SQL_ASCII", "SQL_ASCII")],
    )
    async def test_an_encoding_that_changes_no_byte_is_taken(self, asked: str, told: str) -> None:
        """SQL_ASCII is what psql asks for in the locale C; it means bytes as they are."""
        async with serving() as front:
            db = await connected(front, client_encoding=asked)
            assert db.info.parameter_status("client_encoding") == told
            assert await one(db, "SHOW client_encoding") in (told, told.encode())
            await db.execute("SET client_encoding TO 'UTF8'")
            assert db.info.parameter_status("client_encoding") == "UTF8"
            await db.execute(sql.SQL(f"SET client_encoding = {asked!r}"))
            assert db.info.parameter_status("client_encoding") == told
            with pytest.raises(psycopg.Error) as raised:
                await db.execute("SET client_encoding TO 'LATIN1'")
            assert raised.value.sqlstate == "22023"
            await db.close()

    async def test_settings_are_shown_as_they_were_set(self) -> None:
        """In their own letters, and drivers are told of those that they go by."""
        async with serving() as front:
            db = await connected(front, application_name="first")
            told = db.info.parameter_status
            assert told("application_name") == "first"
            await db.execute("SET application_name = 'My App'")
            cursor = await db.execute("SHOW application_name")
            assert (cursor.statusmessage, await cursor.fetchone()) == ("SHOW", ("My App",))
            assert told("application_name") == "My App"
            await db.execute("SET TIME ZONE 'Europe/Berlin'")
            assert told("TimeZone") == await one(db, "SHOW timezone") == "Europe/Berlin"
            await db.execute("SET timezone TO DEFAULT")
            assert told("TimeZone") == await one(db, "SHOW timezone") == "UTC"
            await db.execute("RESET ALL")
            assert told("application_name") == await one(db, "SHOW application_name") == "first"
            for asked, named in (
                ("timezone", "TimeZone"),
                ("datestyle", "DateStyle"),
                ("transaction isolation level", "transaction_isolation"),
            ):
                cursor = await db.execute(sql.SQL(f"SHOW {asked}"))
                assert cursor.description is not None
                assert cursor.description[0].name == named
            await db.close()

    async def test_columns_are_those_of_the_setting(self) -> None:
        """Fields of a JSON object, each with its type; a column of two names is chosen by name."""
        columns = "id text, name text, tries integer, is_hot boolean, more json"
        async with serving(columns=columns) as front:
            db = await connected(front)
            session = await one(db, "SELECT start_session()")
            data = '{"name": "mail", "tries": 3, "is_hot": true, "more": {"a": [1]}}'
            await db.execute("SELECT add_tasks(%s, %s)", (["t-1", "t-2"], [data, None]))
            for is_binary in (False, True):
                cursor = db.cursor(binary=is_binary)
                await cursor.execute("SELECT * FROM get_work(%s, 5)", (session,))
                assert await cursor.fetchall() == [
                    ("t-1", "mail", 3, True, {"a": [1]}),
                    ("t-2", None, None, None, None),
                ]
            await cursor.execute("SELECT w.tries AS n, id FROM get_work(%s, 5) AS w", (session,))
            assert await cursor.fetchone() == (3, "t-1")
            assert [column.name for column in cursor.description or ()] == ["n", "id"]
            await db.execute("SELECT finish_tasks(%s)", (["t-1"],))
            with pytest.raises(errors.UndefinedColumn, match="speed"):
                await db.execute("SELECT speed FROM get_work(%s, 5)", (session,))
            await db.execute("SELECT add_tasks(%s, %s)", (["t-3"], ["no object"]))
            with pytest.raises(errors.InvalidParameterValue, match="JSON object") as raised:
                await db.execute("SELECT * FROM get_work(%s, 5)", (session,))
            assert "front_postgres_columns" in (raised.value.diag.message_hint or "")
            await db.close()

    async def test_an_id_that_is_no_number_says_which_setting_to_change(self) -> None:
        """Columns are bigint as in the templates, unless told otherwise."""
        async with serving() as front:
            db = await connected(front)
            session = await one(db, "SELECT start_session()")
            await db.execute("SELECT add_tasks('{1,2}')")
            with pytest.raises(errors.InvalidTextRepresentation, match="bigint"):
                await db.execute("SELECT add_tasks('{x}')")
            await db.execute("SELECT finish_tasks(ARRAY[1, 2]::bigint[])")
            assert not (
                await (await db.execute(f"SELECT * FROM get_work({session}, 1)")).fetchall()
            )
            await db.close()

    async def test_databases_are_pools(self) -> None:
        """Work of one is none of another."""
        async with serving() as front:
            mail, film = (
                await connected(front, database="mail"),
                await connected(front, database="film"),
            )
            await mail.execute("SELECT add_tasks('{7}')")
            for db, found in ((film, 0), (mail, 1)):
                session = await one(db, "SELECT start_session()")
                rows = await (await db.execute(f"SELECT * FROM get_work({session}, 9)")).fetchall()
                assert len(rows) == found
                assert await one(db, "SELECT current_database()") in {"mail", "film"}
                await db.close()

    @pytest.mark.parametrize(
        "text",
        [
            "SELECT pg_catalog.version()",
            "SELECT current_schema()",
            "SHOW transaction isolation level",
            "SHOW standard_conforming_strings",
            "SET client_encoding TO 'UTF8'",
            "SET SESSION application_name = 'x'",
            "SELECT CAST('test plain returns' AS VARCHAR(60)) AS anon_1",
            "SELECT pg_advisory_unlock_all(); CLOSE ALL; UNLISTEN *; RESET ALL;",
            "DISCARD ALL",
            "DEALLOCATE ALL",
            "BEGIN; SAVEPOINT a; RELEASE a; ROLLBACK TO SAVEPOINT a; COMMIT",
            "",
            "-- only a word",
        ],
    )
    async def test_what_drivers_and_pools_say_beside(self, text: str) -> None:
        """psycopg, SQLAlchemy, asyncpg, pgx, lib/pq on connecting and on giving back."""
        async with serving() as front:
            db = await connected(front)
            await db.execute(sql.SQL(text))  # type: ignore[arg-type]
            assert await one(db, "SELECT 1") == 1
            await db.close()

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("SELECT * FROM jobs", "42703"),
            ("INSERT INTO tasks VALUES (1)", "0A000"),
            ("SELECT start_session(", "42601"),
            ("SELECT 'open", "42601"),
            ("SELECT nothing()", "42883"),
            ("SELECT bump_session()", "42883"),
            ("SELECT bump_session('x')", "22P02"),
            ("SELECT get_work(1, 2)", "0A000"),
            ("SELECT 1::money", "42704"),
            ("SELECT ((((((((((1))))))))))", "54001"),
            ("SHOW nonsense", "42704"),
            ("SET client_encoding TO 'LATIN1'", "22023"),
            ("DEALLOCATE nobody", "26000"),
            ("SELECT $1", "42P02"),
        ],
    )
    async def test_what_is_not_understood_is_said_by_name(self, text: str, code: str) -> None:
        """With an SQLSTATE, and the connection goes on."""
        async with serving() as front:
            db = await connected(front)
            with pytest.raises(psycopg.Error) as raised:
                await _simple(db, text)
            assert raised.value.sqlstate == code
            assert await one(db, "SELECT 1") == 1
            await db.close()

    async def test_without_a_leader_the_client_hears_the_truth(self) -> None:
        """Definite and indefinite are told apart by their codes."""
        node = LocalNode()
        async with serving(node) as front:
            db = await connected(front)
            node.fail_with = Timeout("late")
            with pytest.raises(psycopg.Error) as raised:
                await one(db, "SELECT start_session()")
            assert raised.value.sqlstate == "08007"
            node.fail_with = NoLeader("nobody")
            asking = asyncio.create_task(one(db, "SELECT start_session()"))
            await asyncio.sleep(0)
            node.fail_with = None
            assert await asking
            await db.close()

    async def test_a_statement_can_be_cancelled(self) -> None:
        """From another connection, as PostgreSQL does it."""
        node = LocalNode()
        async with serving(node) as front:
            db = await connected(front)
            node.is_silent = True
            asking = asyncio.create_task(one(db, "SELECT start_session()"))
            while not node.taken:
                await asyncio.sleep(0)
            await db.cancel_safe()
            with pytest.raises(errors.QueryCanceled):
                await asking
            node.is_silent = False
            assert await one(db, "SELECT 1") == 1
            await db.close()

    async def test_a_node_that_goes_says_goodbye(self) -> None:
        """An idle connection is told; a pool connects to another node."""
        async with serving() as front:
            db = await connected(front)
            front.drain()
            with pytest.raises(psycopg.OperationalError):
                await db.execute("SELECT 1")
            await db.close()

    async def test_a_busy_connection_ends_when_it_has_its_answer(self) -> None:
        """And then is told like the others."""
        node = LocalNode()
        async with serving(node) as front:
            db = await connected(front)
            node.fail_with = NoLeader("nobody leads")
            asking = asyncio.create_task(one(db, "SELECT start_session()"))
            while not node.taken:
                await asyncio.sleep(0)
            front.drain()
            node.fail_with = None
            assert await asking
            with pytest.raises(psycopg.OperationalError):
                await db.execute("SELECT 1")
            await db.close()


async def _simple(db: psycopg.AsyncConnection[tuple[object, ...]], text: str) -> None:
    """By the simple protocol, which takes any text."""
    cursor = psycopg.AsyncRawCursor(db)
    await cursor.execute(text.encode())


class TestBytes:
    async def test_ssl_and_gss_are_declined(self) -> None:
        """By one letter each; then the same connection goes on in the clear."""
        async with serving() as front:
            reader, writer = await asyncio.open_connection(*front.addresses[0])
            for code in (wire.SSL_REQUEST, wire.GSS_REQUEST):
                writer.write(struct.pack("!ii", 8, code))
                assert await reader.readexactly(1) == b"N"
            writer.write(_startup(user="u"))
            assert (await reader.readexactly(9)) == wire.AUTHENTICATION_OK
            writer.close()

    async def test_a_newer_protocol_is_talked_down(self) -> None:
        """3.2 and options of it: what is spoken is 3.0."""
        async with serving() as front:
            reader, writer = await asyncio.open_connection(*front.addresses[0])
            writer.write(_startup(version=196_610, user="u", **{"_pq_.x": "1"}))
            assert (await reader.readexactly(1)) == b"v"
            writer.close()

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (struct.pack("!ii", 8, 131_072), "0A000"),
            (struct.pack("!i", 3), "08P01"),
            (struct.pack("!i", 20_000), "08P01"),
            (struct.pack("!i", -1), "08P01"),
            (struct.pack("!ii", 9, 196_608) + b"\0", "28000"),
            (struct.pack("!ii", 10, 196_608) + b"u\0", "08P01"),
        ],
    )
    async def test_a_bad_start_is_told_and_closed(self, data: bytes, code: str) -> None:
        """FATAL, then the end."""
        async with serving() as front:
            reader, writer = await asyncio.open_connection(*front.addresses[0])
            writer.write(data)
            answer = await reader.read()
            assert answer.startswith(b"E") and f"C{code}\0".encode() in answer
            writer.close()

    async def test_who_never_says_who_it_is_is_sent_away(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a minute; one that has is not."""
        async with serving() as front:
            here = await connected(front)
            monkeypatch.setattr(connection, "START_UP_S", 0.0)
            reader, writer = await asyncio.open_connection(*front.addresses[0])
            writer.write(_startup(user="u")[:-1])
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()
            assert await one(here, "SELECT 1") == 1
            await here.close()

    async def test_every_split_of_a_conversation_is_the_same(self) -> None:
        """One byte at a time, and all at once."""
        talk = _startup(user="u", database="d") + _talk()
        async with serving() as front:
            whole = await _said(front, [talk])
            assert whole.count(b"SELECT 1\0") == 3
            singles = await _said(front, [talk[at : at + 1] for at in range(len(talk))])
            assert _without_key(singles) == _without_key(whole)

    async def test_a_portal_lives_as_long_as_its_transaction(self) -> None:
        """Outside of one until the next Sync, so that whoever closes none can go on for ever."""
        async with serving() as front:
            one, two, sync = _bound("one"), _bound("two"), wire.message(b"S")
            alone = await _said(front, [_startup(user="u"), one, sync, one, sync, two, sync])
            assert alone.count(wire.BIND_COMPLETE) == 3
            assert b"C34000\0" in await _said(
                front, [_startup(user="u"), one, sync, _executed("one"), sync]
            )
            begin, end = (wire.message(b"Q", word) for word in (b"BEGIN\0", b"COMMIT\0"))
            within = [begin, one, sync, _executed("one"), sync]
            assert b"SELECT 1\0" in await _said(front, [_startup(user="u"), *within])
            assert b"C42P03\0" in await _said(front, [_startup(user="u"), *within, one, sync])
            after = [*within, end, _executed("one"), sync]
            assert b"C34000\0" in await _said(front, [_startup(user="u"), *after])

    async def test_an_answer_does_not_wait_for_the_next_query(self) -> None:
        """Which came together with it, and has to wait for a leader."""
        node = LocalNode()
        async with serving(node) as front:
            reader, writer = await asyncio.open_connection(*front.addresses[0])
            node.fail_with = NoLeader("nobody leads")
            queries = (b"SELECT 1\0", b"SELECT start_session()\0")
            writer.write(
                _startup(user="u") + b"".join(wire.message(b"Q", text) for text in queries)
            )
            async with asyncio.timeout(20):
                await reader.readuntil(b"SELECT 1\0" + wire.ready(b"I"))
                node.fail_with = None
                await reader.readuntil(b"SELECT 1\0" + wire.ready(b"I"))
            writer.close()

    async def test_a_simple_query_ends_what_has_no_name(self) -> None:
        """The unnamed statement and the unnamed portal."""
        async with serving() as front:
            query = wire.message(b"Q", b"SELECT 1\0")
            begin = wire.message(b"Q", b"BEGIN\0")
            unnamed = [_startup(user="u"), begin, _bound("", "")]
            told = await _said(front, [*unnamed, query, _executed("")])
            assert b"C34000\0" in told
            told = await _said(front, [*unnamed, query, wire.message(b"D", b"S\0")])
            assert b"C26000\0" in told

    async def test_what_a_connection_keeps_is_bounded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Settings, statements and portals; what has no name is replaced all the same."""
        monkeypatch.setattr(connection, "KEPT_MAX", 40)
        async with serving() as front:
            sets = [wire.message(b"Q", b"SET a%d = 1\0" % number) for number in range(40)]
            assert b"C53400\0" in await _said(front, [_startup(user="u"), *sets])
            again = wire.message(b"Q", b"SET a = 1\0") * 100
            assert b"C53400\0" not in await _said(front, [_startup(user="u"), again])
            begin = wire.message(b"Q", b"BEGIN\0")
            many = b"".join(_bound(f"p{number}", f"s{number}") for number in range(40))
            full = [_startup(user="u"), begin, many, _bound("", "") * 2]
            assert b"C53400\0" not in await _said(front, full)
            assert b"C53400\0" in await _said(front, [*full, _bound("p40", "s40")])

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_garbage_ends_one_connection_at_most(self, data: st.DataObject) -> None:
        """Mutated conversations: an answer or an end, and the next client is served."""
        talk = bytearray(_startup(user="u", database="d") + _talk())
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(talk) - 1))
            talk[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))

        async def run() -> None:
            async with serving() as front:
                await _said(front, [bytes(talk)])
                assert b"SELECT 1\0" in await _said(
                    front, [_startup(user="u", database="d") + _talk()]
                )

        asyncio.run(run())


def _startup(*, version: int = wire.PROTOCOL_3_0, **given: str) -> bytes:
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in given.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, version) + body


def _talk() -> bytes:
    """A simple query, a prepared one with its portal read in two parts, an error, the end."""
    parse = b"s\0SELECT $1::int4\0" + struct.pack("!hi", 1, 23)
    bind = b"p\0s\0" + struct.pack("!hhhi4shh", 1, 1, 1, 4, b"\0\0\0\7", 1, 1)
    return b"".join(
        wire.message(kind, body)
        for kind, body in (
            (b"Q", b"SELECT 1\0"),
            (b"P", parse),
            (b"D", b"Ss\0"),
            (b"B", bind),
            (b"D", b"Pp\0"),
            (b"E", b"p\0" + struct.pack("!i", 0)),
            (b"C", b"Pp\0"),
            (b"S", b""),
            (b"P", b"\0SELEC\0" + struct.pack("!h", 0)),
            (b"E", b"\0" + struct.pack("!i", 0)),
            (b"S", b""),
            (b"Q", b"SELECT 2 AS two\0"),
            (b"X", b""),
        )
    )


def _bound(portal: str, statement: str = "") -> bytes:
    """A statement of its own, and its portal."""
    text = f"{statement}\0SELECT 1\0".encode() + struct.pack("!h", 0)
    close = wire.message(b"C", f"S{statement}\0".encode())
    bind = f"{portal}\0{statement}\0".encode() + struct.pack("!hhh", 0, 0, 0)
    return close + wire.message(b"P", text) + wire.message(b"B", bind)


def _executed(portal: str) -> bytes:
    return wire.message(b"E", f"{portal}\0".encode() + struct.pack("!i", 0))


async def _said(front: PostgresFront, parts: list[bytes]) -> bytes:
    reader, writer = await asyncio.open_connection(*front.addresses[0])
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        writer.write_eof()
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _without_key(answer: bytes) -> bytes:
    at = answer.index(b"K\0\0\0\x0c")
    return answer[:at] + answer[at + 13 :]
