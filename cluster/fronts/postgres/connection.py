"""One connection: start-up, simple and extended query, errors, the state of its transaction.

RULE: decides what is answered to which message. Statements are run one after the other; a
transaction is a word only, as every function takes effect at once and for good, so what a ROLLBACK
would undo it cannot, and says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from cluster.errors import CoterieError
from cluster.fronts.postgres import sql, values, wire
from cluster.fronts.postgres.failure import Failure
from cluster.fronts.postgres.functions import VERSION, Functions, Identity, Result, Row
from cluster.fronts.postgres.sql import Control
from cluster.fronts.postgres.statements import Prepared, Statements
from cluster.fronts.postgres.wire import Bind, Column, Malformed
from cluster.fronts.sessionlock.calls import Full, SessionGone

READ_BYTES: Final = 64 * 1024
WRITTEN_BYTES: Final = 64 * 1024
START_UP_S: Final = 60.0
"""How long a client may take to say who it is, as PostgreSQL's authentication_timeout."""

KEPT_MAX: Final = 5_000
"""Prepared statements, portals and settings of a connection, each."""

IDLE, OPEN, FAILED = b"I", b"T", b"E"

_ALWAYS: Final = {
    "server_version": VERSION,
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "default_transaction_read_only": "off",
    "in_hot_standby": "off",
    "is_superuser": "off",
}
_SHOWN: Final = {name.lower(): value for name, value in _ALWAYS.items()} | {
    "transaction_isolation": "read committed",
    "default_transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "search_path": "public",
    "max_identifier_length": "63",
    "lc_collate": "C",
}
# Names that are told and shown otherwise than in small letters.
_TOLD_AS: Final = {name.lower(): name for name in (*_ALWAYS, "application_name")}


_ENCODINGS: Final = {"utf8": "UTF8", "unicode": "UTF8", "sqlascii": "SQL_ASCII"}


class Portal:
    """A prepared statement with its values; `rows` once it was begun."""

    __slots__ = ("arguments", "formats", "prepared", "rows", "sent")

    def __init__(self, prepared: Prepared, arguments: tuple[Any, ...], formats: tuple[int, ...]):
        self.prepared = prepared
        self.arguments = arguments
        self.formats = formats
        self.rows: list[Row] | None = None
        self.sent = 0


class Line:
    """How a connection is begun and cancelled from outside.

    Attributes:
        functions_of: what the one who connects can call.
        opened: gives the process and secret of a new connection.
        cancelled: a CancelRequest named this process and secret.
        is_draining: a connection ends when it is idle.
    """

    def __init__(
        self,
        functions_of: Callable[[Identity], Functions],
        version: str,
        opened: Callable[[Connection], tuple[int, int]],
        cancelled: Callable[[int, int], None],
    ):
        self.functions_of = functions_of
        self.version = version
        self.opened = opened
        self.cancelled = cancelled
        self.is_draining = False


class Connection:
    """Serves one client from its first byte to its last.

    Attributes:
        key: process and secret that cancel what it runs; None until it has started up.
    """

    def __init__(
        self, line: Line, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._line = line
        self._reader = reader
        self._writer = writer
        self._inbox = wire.Inbox()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._statements: Statements | None = None
        self._settings = dict(_SHOWN)
        self._first_settings: dict[str, str] = {}
        self._prepared: dict[str, Prepared] = {}
        self._portals: dict[str, Portal] = {}
        self._status = IDLE
        self._did_something = False
        self._skips = False
        self._running: asyncio.Task[Any] | None = None
        self.key: tuple[int, int] | None = None

    @property
    def is_idle(self) -> bool:
        """Nothing of it is running, and no transaction is open."""
        return self._running is None and self._status == IDLE

    def cancel(self) -> None:
        """End what is running, as the client asks by another connection."""
        if self._running is not None:
            self._running.cancel()

    def say_goodbye(self) -> None:
        """Tell the client that this node is going, and close."""
        self._writer.write(
            wire.error(
                "57P01",
                "terminating connection due to administrator command",
                severity="FATAL",
                hint="This node is shutting down; connect to another one.",
            )
        )
        self._writer.close()

    async def serve(self) -> None:
        """Answer messages until the client ends or cannot be understood."""
        try:
            async with asyncio.timeout(START_UP_S):
                is_started = await self._start_up()
            if not is_started:
                return
            while (message := await self._next()) is not None:
                if message.kind == b"X":
                    return
                await self._answer(message)
                # The end of a cycle leaves before the next one is begun, which may take long.
                if self._out_bytes > WRITTEN_BYTES or message.kind in {b"Q", b"S", b"H"}:
                    await self._flush()
        except Malformed as error:
            self._say(wire.error("08P01", str(error), severity="FATAL"))
        except Failure as failure:
            self._say(wire.error(failure.code, str(failure), severity="FATAL", hint=failure.hint))
        finally:
            self._portals.clear()
            if not self._writer.is_closing():
                await self._flush()

    # Bytes.

    async def _next(self) -> wire.Message | None:
        """The next message; what was said so far goes out before we wait for it."""
        while (message := self._inbox.next()) is None:
            await self._flush()
            if self._line.is_draining and self.is_idle:
                self.say_goodbye()
                return None
            data = await self._reader.read(READ_BYTES)
            if not data:
                return None
            self._inbox.feed(data)
        return message

    def _say(self, *messages: bytes) -> None:
        self._out += messages
        self._out_bytes += sum(map(len, messages))

    async def _flush(self) -> None:
        if self._out:
            out, self._out, self._out_bytes = b"".join(self._out), [], 0
            self._writer.write(out)
            await self._writer.drain()

    # Start-up.

    async def _start_up(self) -> bool:
        """Come to an understanding. False: there is nothing more to say."""
        while (message := await self._next()) is not None:
            if len(message.body) < 4:
                raise Malformed("a start-up message without a protocol")
            code = wire.Reader(message.body).int4()
            if code in {wire.SSL_REQUEST, wire.GSS_REQUEST}:
                self._say(b"N")
            elif code == wire.CANCEL_REQUEST:
                reader = wire.Reader(message.body[4:])
                self._line.cancelled(reader.uint4(), reader.uint4())
                return False
            elif code >> 16 == wire.PROTOCOL_3_0 >> 16:
                self._begin(message.body)
                return True
            else:
                raise Failure(
                    "0A000",
                    f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: "
                    "server supports 3.0 to 3.0",
                )
        return False

    def _begin(self, body: bytes) -> None:
        version, given = wire.read_startup(body)
        user = given.get("user")
        if not user:
            raise Failure("28000", "no PostgreSQL user name specified in startup packet")
        encoding = _encoding(given.get("client_encoding", "UTF8"))
        identity = Identity(user, given.get("database") or user, self._line.version)
        try:
            self._statements = Statements(self._line.functions_of(identity))
        except ValueError as error:
            raise Failure(
                "3D000", f'database "{identity.database}" does not exist', str(error)
            ) from (error)
        self._inbox.started()
        unknown = [name for name in given if name.startswith("_pq_.")]
        if version != wire.PROTOCOL_3_0 or unknown:
            self._say(wire.negotiate(unknown))
        self._say(wire.AUTHENTICATION_OK)
        told = _ALWAYS | {
            "client_encoding": encoding,
            "session_authorization": user,
            "application_name": given.get("application_name", ""),
        }
        self._say(*(wire.parameter_status(name, value) for name, value in told.items()))
        self._settings |= {name.lower(): value for name, value in told.items()}
        self._first_settings = dict(self._settings)
        self.key = self._line.opened(self)
        self._say(wire.backend_key(*self.key), wire.ready(self._status))

    # Messages.

    async def _answer(self, message: wire.Message) -> None:
        kind = message.kind
        if kind == b"S":
            self._skips = False
            self._end_cycle()
        elif self._skips or kind in {b"H", b"c", b"d", b"f"}:
            # After an error all is skipped until the next Sync. Nobody copies here.
            return
        elif kind == b"Q":
            await self._query(message.body)
        else:
            try:
                await self._extended(kind, message.body)
            except Failure as failure:
                self._fail(failure)
                self._skips = True

    async def _query(self, body: bytes) -> None:
        """Run the statements of a simple query; the first error ends it."""
        self._prepared.pop("", None)
        self._portals.pop("", None)
        reader = wire.Reader(body)
        text = reader.text()
        reader.end()
        try:
            statements = sql.parse(text)
            if not statements:
                self._say(wire.EMPTY_QUERY)
            for statement in statements:
                prepared = self._prepare(statement, ())
                if prepared.types:
                    raise Failure("42P02", "there is no parameter $1 in a simple query")
                result = await self._run(prepared, ())
                if isinstance(result, str):
                    self._say(wire.complete(result))
                else:
                    formats = (0,) * len(result.columns)
                    rows = [_row(row, result.columns, formats) for row in result.rows]
                    self._say(wire.row_description(result.columns, formats), *rows)
                    self._say(wire.complete(_tag_of(statement, len(rows))))
        except Failure as failure:
            self._fail(failure)
        self._end_cycle()

    def _end_cycle(self) -> None:
        """Say that the next one can begin; portals end where no transaction goes on."""
        if self._status == IDLE:
            self._portals.clear()
        self._say(wire.ready(self._status))

    async def _extended(self, kind: bytes, body: bytes) -> None:
        match kind:
            case b"P":
                self._parse(wire.read_parse(body))
            case b"B":
                self._bind(wire.read_bind(body))
            case b"D":
                self._describe(*wire.read_named(body))
            case b"E":
                await self._execute(*wire.read_execute(body))
            case b"C":
                what, name = wire.read_named(body)
                kept: dict[str, Any] = self._prepared if what == "S" else self._portals
                kept.pop(name, None)
                self._say(wire.CLOSE_COMPLETE)
            case b"F":
                raise Failure("0A000", "the function call protocol is not spoken here")
            case _:
                raise Malformed(f"invalid frontend message type {kind[0]}")

    def _parse(self, message: wire.Parse) -> None:
        statements = sql.parse(message.text)
        if len(statements) > 1:
            raise Failure("42601", "cannot insert multiple commands into a prepared statement")
        if message.name and message.name in self._prepared:
            raise Failure("42P05", f'prepared statement "{message.name}" already exists')
        if message.name and len(self._prepared) - ("" in self._prepared) >= KEPT_MAX:
            raise Failure("53400", f"a connection keeps at most {KEPT_MAX} prepared statements")
        statement = statements[0] if statements else None
        self._prepared[message.name] = self._prepare(statement, message.types)
        self._say(wire.PARSE_COMPLETE)

    def _bind(self, message: Bind) -> None:
        prepared = self._statement(message.statement)
        if len(message.values) != len(prepared.types):
            raise Failure(
                "08P01",
                f"bind message supplies {len(message.values)} parameters, but prepared statement "
                f'"{message.statement}" requires {len(prepared.types)}',
            )
        if message.portal and message.portal in self._portals:
            raise Failure("42P03", f'cursor "{message.portal}" already exists')
        if message.portal and len(self._portals) - ("" in self._portals) >= KEPT_MAX:
            raise Failure("53400", f"a connection keeps at most {KEPT_MAX} portals")
        formats = _spread(message.formats, len(message.values))
        results = _spread(message.results, len(prepared.columns or ()))
        arguments = tuple(
            values.decode(raw, oid, is_binary=kind == 1)
            for raw, oid, kind in zip(message.values, prepared.types, formats, strict=True)
        )
        self._portals[message.portal] = Portal(prepared, arguments, results)
        self._say(wire.BIND_COMPLETE)

    def _describe(self, what: str, name: str) -> None:
        if what == "S":
            prepared = self._statement(name)
            self._say(wire.parameter_description(prepared.types))
            formats: Sequence[int] = (0,) * len(prepared.columns or ())
        else:
            portal = self._portal(name)
            prepared, formats = portal.prepared, portal.formats
        if prepared.columns is None:
            self._say(wire.NO_DATA)
        else:
            self._say(wire.row_description(prepared.columns, formats))

    async def _execute(self, name: str, most: int) -> None:
        portal = self._portal(name)
        prepared = portal.prepared
        if prepared.statement is None:
            self._say(wire.EMPTY_QUERY)
            return
        if portal.rows is None:
            result = await self._run(prepared, portal.arguments)
            if isinstance(result, str):
                self._say(wire.complete(result))
                return
            portal.rows = list(result.rows)
        assert prepared.columns is not None
        end = len(portal.rows) if most == 0 else min(len(portal.rows), portal.sent + most)
        some = portal.rows[portal.sent : end]
        self._say(*(_row(row, prepared.columns, portal.formats) for row in some))
        portal.sent = end
        if most and len(some) == most:
            self._say(wire.PORTAL_SUSPENDED)
        else:
            self._say(wire.complete(_tag_of(prepared.statement, len(some))))

    # Statements.

    def _prepare(self, statement: sql.Statement | None, declared: Sequence[int]) -> Prepared:
        assert self._statements is not None
        return self._statements.prepare(statement, declared)

    async def _run(self, prepared: Prepared, arguments: tuple[Any, ...]) -> Result | str:
        """Run a statement; its command tag for one without rows.

        Raises:
            Failure: it was not done, or perhaps (SQLSTATE 08007).
        """
        statement = prepared.statement
        if isinstance(statement, Control):
            return self._control(statement)
        if self._status == FAILED:
            raise Failure(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )
        assert prepared.columns is not None
        if isinstance(statement, sql.Show):
            return Result(prepared.columns, [(self._setting(statement.name),)])
        assert self._statements is not None
        assert isinstance(statement, (sql.Select, sql.From))
        running = asyncio.ensure_future(
            self._statements.rows(statement, prepared.columns, arguments)
        )
        self._running = running
        try:
            rows = await asyncio.shield(running)
        except asyncio.CancelledError:
            if not running.cancelled():
                # Not the client's wish: this node stops, and its question with it.
                running.cancel()
                raise
            raise Failure("57014", "canceling statement due to user request") from None
        except SessionGone as gone:
            raise Failure("SL001", str(gone)) from gone
        except Full as full:
            raise Failure("53400", str(full)) from full
        except CoterieError as error:
            if error.definite:
                raise Failure("57P03", f"the cluster cannot answer now: {error.detail}") from error
            raise Failure("08007", f"it may have happened: {error.detail}") from error
        finally:
            self._running = None
        self._did_something = self._status == OPEN
        return Result(prepared.columns, rows)

    def _control(self, control: Control) -> str:
        """Do what changes no data, and give the command tag of what was done."""
        verb = control.verb
        if verb in {"BEGIN", "START TRANSACTION"}:
            if self._status != IDLE:
                self._warn("25001", "there is already a transaction in progress")
            else:
                self._status, self._did_something = OPEN, False
        elif verb in {"COMMIT", "ROLLBACK"}:
            if verb == "COMMIT" and self._status == FAILED:
                verb = "ROLLBACK"
            self._end_transaction(verb, is_partly="to" in control.what)
        elif verb in {"SAVEPOINT", "RELEASE"}:
            if self._status == IDLE:
                raise Failure("25P01", f"{verb} can only be used in transaction blocks")
        elif self._status == FAILED:
            raise Failure(
                "25P02",
                "current transaction is aborted, commands ignored until end of transaction block",
            )
        elif verb == "SET":
            self._set(control.what)
        elif verb == "RESET":
            self._reset(control.what)
        elif verb == "DISCARD ALL":
            self._prepared.clear()
            self._portals.clear()
            self._reset(("all",))
        elif verb == "DEALLOCATE ALL":
            self._prepared.clear()
        elif verb == "DEALLOCATE" and control.what:
            name = control.what[0]
            if self._prepared.pop(name, None) is None:
                raise Failure("26000", f'prepared statement "{name}" does not exist')
        return verb

    def _end_transaction(self, verb: str, *, is_partly: bool) -> None:
        if self._status == IDLE:
            self._warn("25P01", "there is no transaction in progress")
            return
        if verb == "ROLLBACK" and self._did_something:
            self._warn(
                "01000",
                "nothing is undone: what the functions did in this transaction stays done",
            )
            self._did_something = False
        self._status = OPEN if is_partly else IDLE
        if not is_partly:
            self._portals.clear()

    def _set(self, words: tuple[str, ...]) -> None:
        rest = [word for word in words if word not in {"session", "local"}]
        if rest[:2] == ["time", "zone"]:
            rest[:2] = ["timezone", "to"]
        if len(rest) < 3 or rest[1] not in {"to", "="}:
            return
        name, value = rest[0].lower(), "".join(rest[2:])
        if value == "default":
            self._reset((name,))
        else:
            self._keep(name, _encoding(value) if name == "client_encoding" else value)

    def _reset(self, words: tuple[str, ...]) -> None:
        """Settings are again as they were when the client came."""
        names = tuple(self._settings) if words == ("all",) else ("".join(words),)
        for name in names:
            if name in self._first_settings:
                self._keep(name, self._first_settings[name])
            else:
                self._settings.pop(name, None)

    def _keep(self, name: str, value: str) -> None:
        """Note a setting; the client is told of those that drivers go by."""
        if name not in self._settings and len(self._settings) >= KEPT_MAX:
            raise Failure("53400", f"a connection keeps at most {KEPT_MAX} settings")
        if name in _TOLD_AS and self._settings.get(name) != value:
            self._say(wire.parameter_status(_TOLD_AS[name], value))
        self._settings[name] = value

    def _setting(self, name: str) -> str:
        value = self._settings.get(name)
        if value is None:
            raise Failure("42704", f'unrecognized configuration parameter "{name}"')
        return value

    # Odds and ends.

    def _warn(self, code: str, text: str) -> None:
        self._say(wire.notice(code, text))

    def _fail(self, failure: Failure) -> None:
        if self._status == OPEN:
            self._status = FAILED
        self._say(wire.error(failure.code, str(failure), hint=failure.hint))

    def _statement(self, name: str) -> Prepared:
        prepared = self._prepared.get(name)
        if prepared is None:
            raise Failure("26000", f'prepared statement "{name}" does not exist')
        return prepared

    def _portal(self, name: str) -> Portal:
        portal = self._portals.get(name)
        if portal is None:
            raise Failure("34000", f'portal "{name}" does not exist')
        return portal


def _encoding(asked: str) -> str:
    """An encoding that a client may have, by PostgreSQL's name for it.

    Raises:
        Failure: bytes would have to be changed for it.
    """
    encoding = _ENCODINGS.get(asked.strip("'\"").lower().replace("-", "").replace("_", ""))
    if encoding is None:
        raise Failure("22023", "only the client encoding UTF8 is spoken here")
    return encoding


def _tag_of(statement: sql.Statement | None, count: int) -> str:
    """The command tag of what gave so many rows."""
    return "SHOW" if isinstance(statement, sql.Show) else f"SELECT {count}"


def _row(row: Row, columns: Sequence[Column], formats: Sequence[int]) -> bytes:
    return wire.data_row(
        values.encode(cell, column.type, is_binary=kind == 1)
        for cell, column, kind in zip(row, columns, formats, strict=True)
    )


def _spread(formats: Sequence[int], count: int) -> tuple[int, ...]:
    """Formats of so many values: none means text, one means all.

    Raises:
        Failure: they are neither.
    """
    if any(kind not in {0, 1} for kind in formats):
        raise Failure("22023", "a format code that is neither 0 nor 1")
    if len(formats) <= 1:
        return tuple(formats or (0,)) * count
    if len(formats) != count:
        raise Failure("08P01", f"{len(formats)} format codes for {count} values")
    return tuple(formats)
