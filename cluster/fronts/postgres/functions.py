"""What can be called: the functions of go-session-lock, and what drivers ask a server about itself.

RULE: names, types and results; the functions themselves are `sessionlock/calls.py`.

A task is an id and data. Programs read it as rows of their own composite type `session_task`; its
columns are a setting: `id` is the task's id, `data` all of its data, and any other column the field
of that name in the data, which are a JSON object then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from cluster.fronts.postgres import values
from cluster.fronts.postgres.failure import Failure
from cluster.fronts.postgres.values import (
    INT4,
    INT8,
    INT8S,
    TEXT,
    TEXTS,
    TYPES,
    VOID,
    Type,
)
from cluster.fronts.postgres.wire import Column
from cluster.fronts.sessionlock.calls import Calls, SessionGone
from cluster.machine.outcome.tasks import Handed

VERSION: Final = "14.0"
"""Of the PostgreSQL whose protocol and answers these are: drivers choose their ways by it."""

Row: TypeAlias = Sequence[Any]


class Result(NamedTuple):
    """Rows with their columns."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]


class Function(NamedTuple):
    """One function.

    Attributes:
        takes: types of its arguments; the last ones may be left out, down to `least`.
        gives: columns of its result; a function of one value gives one row.
        run: takes the arguments, those left out as None.
    """

    name: str
    takes: tuple[int, ...]
    least: int
    gives: tuple[Column, ...]
    is_rows: bool
    run: Callable[..., Awaitable[Sequence[Row]]]


class Identity(NamedTuple):
    """Who is connected, and to what."""

    user: str
    database: str
    version: str


class Functions:
    """All functions as one connection sees them.

    Args:
        columns: (name, type) of what `get_work` gives.
    """

    def __init__(self, calls: Calls, identity: Identity, columns: Sequence[tuple[str, str]]):
        self._calls = calls
        self._columns = tuple(column_of(name, values.BY_NAME[kind]) for name, kind in columns)
        ids = INT8S if ("id", "bigint") in columns else TEXTS
        self._by_name: Mapping[str, Function] = {
            function.name: function
            for function in (
                Function("start_session", (), 0, _one("start_session", INT8), False, self._start),
                Function("bump_session", (INT8,), 1, _one("bump_session", VOID), False, self._bump),
                Function("end_session", (INT8,), 1, _one("end_session", VOID), False, self._end),
                Function("get_work", (INT8, INT4), 2, self._columns, True, self._get_work),
                Function(
                    "finish_tasks", (ids,), 1, _one("finish_tasks", VOID), False, self._finish
                ),
                Function("add_tasks", (ids, TEXTS), 1, _one("add_tasks", VOID), False, self._add),
                *self._inner(),
                *_about(identity),
            )
        }

    def _inner(self) -> Iterator[Function]:
        """What the original's own functions call, where it changes nothing."""
        name = "throw_session_not_found"
        yield Function(name, (), 0, _one(name, VOID), False, self._throw)
        name = "get_task_count"
        yield Function(name, (), 0, _one(name, INT4), False, self._count)
        name = "get_task_count_for_session"
        yield Function(name, (INT8,), 1, _one(name, INT4), False, self._count_of)
        name = "get_tasks_for_session"
        yield Function(name, (INT8,), 1, self._columns, True, self._tasks_of)

    def find(self, name: str, count: int) -> Function | None:
        """The function of that name that takes so many arguments, if there is one."""
        function = self._by_name.get(name)
        if function is None or not function.least <= count <= len(function.takes):
            return None
        return function

    async def _start(self) -> Sequence[Row]:
        return [(await self._calls.start_session(),)]

    async def _bump(self, number: int | None) -> Sequence[Row]:
        await self._calls.bump_session(number or 0)
        return [("",)]

    async def _end(self, number: int | None) -> Sequence[Row]:
        await self._calls.end_session(number or 0)
        return [("",)]

    async def _get_work(self, number: int | None, cap: int | None) -> Sequence[Row]:
        tasks = await self._calls.get_work(number or 0, cap)
        return [tuple(self._cells(task)) for task in tasks]

    async def _throw(self) -> Sequence[Row]:
        raise SessionGone("Session not found.")

    async def _count(self) -> Sequence[Row]:
        return [(await self._calls.task_count(),)]

    async def _count_of(self, number: int | None) -> Sequence[Row]:
        return [(len(await self._calls.tasks_of(number or 0)),)]

    async def _tasks_of(self, number: int | None) -> Sequence[Row]:
        return [tuple(self._cells(task)) for task in await self._calls.tasks_of(number or 0)]

    async def _finish(self, ids: Sequence[Any] | None) -> Sequence[Row]:
        await self._calls.finish_tasks(str(id) for id in ids or () if id is not None)
        return [("",)]

    async def _add(
        self, ids: Sequence[Any] | None, data: Sequence[Any] | None = None
    ) -> Sequence[Row]:
        named = [str(id) for id in ids or () if id is not None]
        texts: Sequence[Any] = [None] * len(named) if data is None else data
        if len(texts) != len(named):
            raise Failure("22023", f"{len(named)} ids and {len(texts)} data: give one for each")
        try:
            await self._calls.add_tasks(
                [
                    (id, None if text is None else str(text).encode(errors="replace"))
                    for id, text in zip(named, texts, strict=True)
                ]
            )
        except ValueError as error:
            raise Failure("22023", str(error)) from error
        return [("",)]

    def _cells(self, task: Handed) -> Iterator[Any]:
        fields: Mapping[str, Any] | None = None
        for column in self._columns:
            if column.name == "id":
                yield task.id
            elif column.name == "data":
                yield None if task.data is None else task.data.decode(errors="replace")
            else:
                if fields is None:
                    fields = _fields_of(task)
                yield _cell(fields.get(column.name))


def columns_in(text: str) -> tuple[tuple[str, str], ...]:
    """(name, type) of each column of the setting `front_postgres_columns`."""
    parts = [part.strip().partition(" ") for part in text.split(",")]
    return tuple((name, kind) for name, _, kind in parts)


def column_of(name: str, kind: Type) -> Column:
    """A column of that type."""
    return Column(name, kind.oid, kind.size)


def _one(name: str, oid: int) -> tuple[Column, ...]:
    return (column_of(name, TYPES[oid]),)


def _about(identity: Identity) -> Iterator[Function]:
    """What drivers and pools ask when they connect, or before they lend a connection again."""
    said = {
        "version": f"PostgreSQL {VERSION} (Coterie {identity.version})",
        "current_database": identity.database,
        "current_catalog": identity.database,
        "current_schema": "public",
        "current_user": identity.user,
        "session_user": identity.user,
        "user": identity.user,
        "current_role": identity.user,
    }
    for name, text in said.items():
        yield Function(name, (), 0, _one(name, TEXT), False, _saying(text))
    name = "pg_advisory_unlock_all"
    yield Function(name, (), 0, _one(name, VOID), False, _saying(""))


def _saying(text: str) -> Callable[[], Awaitable[Sequence[Row]]]:
    async def say() -> Sequence[Row]:
        return [(text,)]

    return say


def _fields_of(task: Handed) -> Mapping[str, Any]:
    if task.data is None:
        return {}
    try:
        fields = msgspec.json.decode(task.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fields = None
    if not isinstance(fields, dict):
        raise Failure(
            "22023",
            f"the data of task {task.id[:80]!r} are no JSON object, so they have no columns",
            "Put tasks whose data are objects, or set front_postgres_columns to: id bigint, data text",
        )
    return fields


def _cell(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, (dict, list)) else value
