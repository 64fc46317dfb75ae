"""Statements: which types they take and give, and what becomes of them.

RULE: knows statements and functions, no message. Types are found out once, when a statement is
prepared: a cast says it, then what a function takes; what nothing says is text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from cluster.fronts.postgres import sql, values
from cluster.fronts.postgres.failure import Failure
from cluster.fronts.postgres.functions import Function, Functions, Row, column_of
from cluster.fronts.postgres.sql import WHAT_IS_UNDERSTOOD, Array, Call, Constant, From, Parameter
from cluster.fronts.postgres.values import BY_NAME, INT4, INT8, TEXT, TYPES, UNKNOWN
from cluster.fronts.postgres.wire import Column

PARAMETERS_MAX: Final = 100

_SHOWN_AS: Final = {
    "timezone": "TimeZone",
    "datestyle": "DateStyle",
    "intervalstyle": "IntervalStyle",
}


class Prepared(NamedTuple):
    """A prepared statement. `columns`: None where it gives no rows."""

    statement: sql.Statement | None
    types: tuple[int, ...]
    columns: tuple[Column, ...] | None


class Statements:
    """Prepares statements and runs those that call functions."""

    def __init__(self, functions: Functions):
        self._functions = functions

    def prepare(self, statement: sql.Statement | None, declared: Sequence[int]) -> Prepared:
        """Find out the types of a statement's parameters and of its columns.

        Raises:
            Failure: it calls what is not there.
        """
        types = dict(enumerate(declared, 1))
        columns: tuple[Column, ...] | None = None
        if isinstance(statement, From):
            columns = self._columns_of(statement)
            self._type(statement.call, TEXT, types)
        elif isinstance(statement, sql.Select):
            for item in statement.items:
                self._type(item.expression, TEXT, types)
            columns = tuple(self._column_of(item, types) for item in statement.items)
        elif isinstance(statement, sql.Show):
            columns = (column_of(_SHOWN_AS.get(statement.name, statement.name), TYPES[TEXT]),)
        count = max(types, default=0)
        if count > PARAMETERS_MAX:
            raise Failure("54000", f"${count} is too many parameters: use at most {PARAMETERS_MAX}")
        return Prepared(
            statement, tuple(types.get(number) or TEXT for number in range(1, count + 1)), columns
        )

    def _columns_of(self, statement: From) -> tuple[Column, ...]:
        call = statement.call
        gives = self._function(call).gives
        by_name = {column.name: column for column in gives}
        for name, _ in (*(statement.columns or ()), *statement.order):
            if name not in by_name:
                raise Failure(
                    "42703",
                    f'column "{name}" does not exist',
                    f"{call.name} gives {', '.join(by_name)}; front_postgres_columns sets that.",
                )
        if statement.counted_as is not None:
            return (column_of(statement.counted_as, TYPES[INT8]),)
        if statement.columns is None:
            return gives
        return tuple(by_name[name]._replace(name=label) for name, label in statement.columns)

    def _column_of(self, item: sql.Item, types: dict[int, int]) -> Column:
        expression = item.expression
        if isinstance(expression, Call):
            function = self._function(expression)
            if function.is_rows:
                raise Failure(
                    "0A000",
                    f"{expression.name} gives rows of several columns",
                    f"Use it in a FROM: SELECT * … {expression.name}(…).",
                )
            return function.gives[0]._replace(name=item.label)
        if isinstance(expression, Array):
            raise Failure("0A000", "an array cannot be selected here", WHAT_IS_UNDERSTOOD)
        oid = TEXT
        if isinstance(expression, Parameter):
            oid = types.get(expression.number) or TEXT
        elif isinstance(expression.value, bool):
            oid = values.BOOL
        elif isinstance(expression.value, int):
            oid = INT4 if -(2**31) <= expression.value < 2**31 else INT8
        if expression.cast is not None:
            oid = _type_named(expression.cast)
        return column_of(item.label, TYPES.get(oid, TYPES[TEXT]))

    def _type(self, expression: Any, wanted: int, types: dict[int, int]) -> None:
        """Note which types the parameters in an expression have."""
        if isinstance(expression, Parameter):
            oid = wanted if expression.cast is None else _type_named(expression.cast)
            if not types.get(expression.number):
                types[expression.number] = oid
        elif isinstance(expression, Array):
            for item in expression.items:
                self._type(item, TEXT, types)
        elif isinstance(expression, Call):
            function = self._function(expression)
            for argument, oid in zip(expression.arguments, function.takes, strict=False):
                self._type(argument, oid, types)

    async def rows(
        self, statement: sql.Select | From, columns: Sequence[Column], arguments: tuple[Any, ...]
    ) -> list[Row]:
        """Run a statement.

        Raises:
            Failure, SessionGone, Full, CoterieError: as its functions do.
        """
        if isinstance(statement, From):
            return self._picked(statement, list(await self._call(statement.call, arguments)))
        cells: list[Any] = []
        for item, column in zip(statement.items, columns, strict=True):
            if isinstance(item.expression, Call):
                cells.append((await self._call(item.expression, arguments))[0][0])
            else:
                cells.append(_value(item.expression, column.type, arguments))
        return [cells]

    def _picked(self, statement: From, rows: list[Row]) -> list[Row]:
        """What is asked for of the rows of a function."""
        call = statement.call
        gives = self._function(call).gives
        places = {column.name: place for place, column in enumerate(gives)}
        if statement.counted_as is not None:
            counted: list[Row] = [(len(rows),)]
            return counted[: statement.limit]
        # By the last of them first: sorting keeps the order of equal ones.
        for name, is_last_first in reversed(statement.order):
            place = places[name]
            kind = gives[place].type
            rows.sort(key=lambda row: _rank(row[place], kind), reverse=is_last_first)
        rows = rows[: statement.limit]
        if statement.columns is None:
            return rows
        chosen = [places[name] for name, _ in statement.columns]
        return [tuple(row[place] for place in chosen) for row in rows]

    def _function(self, call: Call) -> Function:
        """What is called.

        Raises:
            Failure: there is no such function.
        """
        function = self._functions.find(call.name, len(call.arguments))
        if function is None:
            raise _no_function(call)
        return function

    async def _call(self, call: Call, arguments: tuple[Any, ...]) -> Sequence[Row]:
        function = self._function(call)
        given = [
            _value(argument, oid, arguments)
            for argument, oid in zip(call.arguments, function.takes, strict=False)
        ]
        if not all(map(values.is_of, given, function.takes)):
            raise _no_function(call)
        return await function.run(*given)


def _no_function(call: Call) -> Failure:
    """There is none of this name that takes such arguments."""
    said = ", ".join(map(_type_said, call.arguments))
    return Failure("42883", f"function {call.name}({said}) does not exist", WHAT_IS_UNDERSTOOD)


def _type_said(expression: Any) -> str:
    """The type of an argument as PostgreSQL says it where it finds no function for it."""
    if expression.cast is not None:
        return TYPES[_type_named(expression.cast)].name
    if isinstance(expression, Array):
        return f"{_type_said(expression.items[0])}[]" if expression.items else "unknown"
    if isinstance(expression, Constant) and isinstance(expression.value, bool):
        return "boolean"
    if isinstance(expression, Constant) and isinstance(expression.value, int):
        return "integer" if -(2**31) <= expression.value < 2**31 else "bigint"
    return "unknown"


def _rank(cell: Any, oid: int) -> tuple[bool, Any]:
    """By what a cell is sorted: NULL comes last, as in PostgreSQL."""
    if cell is None:
        return True, ""
    if oid in values.INTEGERS:
        return False, cell if isinstance(cell, int) else values.integer(str(cell))
    return False, str(cell).encode(errors="replace")


def _type_named(name: str) -> int:
    kind = BY_NAME.get(name)
    if kind is None:
        raise Failure("42704", f'type "{name}" does not exist')
    return kind.oid


def _value(expression: Any, oid: int, arguments: tuple[Any, ...]) -> Any:
    """What an argument is, as the type asks for it.

    Raises:
        Failure: it is none of its type.
    """
    if isinstance(expression, Parameter):
        value = arguments[expression.number - 1]
    elif isinstance(expression, Array):
        value = [_value(item, UNKNOWN, arguments) for item in expression.items]
    elif isinstance(expression, Constant):
        value = expression.value
    else:
        raise Failure("0A000", "a function in the place of an argument is not understood")
    if isinstance(value, str) and oid not in {TEXT, UNKNOWN}:
        return values.from_text(value, oid)
    if isinstance(value, int) and oid in values.INTEGERS:
        return values.in_range(value, oid)
    return value
