"""From SQL text to what is wanted: the few statements that programs of go-session-lock send.

RULE: text to values; knows no function by name and no type by meaning. What is not understood is
refused with its place in the text and with what would be understood.

    statement  = SELECT item {, item}
               | SELECT ( [alias.]* | count(*) | column {, column} ) FROM call [[AS] alias]
                 [ORDER BY column [ASC | DESC] {, …}] [LIMIT number]
               | SHOW name | SET … | RESET … | BEGIN | COMMIT | ROLLBACK | SAVEPOINT … | DISCARD …
               | DEALLOCATE … | CLOSE … | UNLISTEN … | LISTEN …
    item       = expression [[AS] label]
    expression = ( call | constant | $n | ARRAY[expression, …] | CAST(expression AS type) ) {::type}
    call       = [schema.]name ( [expression {, expression}] )
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from cluster.fronts.postgres.failure import Failure

WHAT_IS_UNDERSTOOD: Final = (
    "This is no database. It understands SELECT start_session(), SELECT bump_session($1), "
    "SELECT end_session($1), SELECT * FROM get_work($1, $2), SELECT finish_tasks($1) and "
    "SELECT add_tasks($1, $2)."
)

_DEPTH_MAX: Final = 8
TOKENS_MAX: Final = 50_000
"""Of one text. Reading this many takes a few tenths of a second, in which the node does nothing
else; a parameter has room for more."""


class Parameter(NamedTuple):
    """`$1` is number 1. `cast`: name of the type it is cast to, if any."""

    number: int
    cast: str | None = None


class Constant(NamedTuple):
    """A number, a text, a truth or NULL."""

    value: int | str | bool | None
    cast: str | None = None


class Array(NamedTuple):
    """`ARRAY[…]`."""

    items: tuple[Expression, ...]
    cast: str | None = None


class Call(NamedTuple):
    """A function, its name in small letters unless it was quoted."""

    name: str
    arguments: tuple[Expression, ...] = ()
    cast: str | None = None


Expression: TypeAlias = Parameter | Constant | Array | Call


class Item(NamedTuple):
    """One column of a SELECT without FROM."""

    expression: Expression
    label: str


class Select(NamedTuple):
    """One row of expressions."""

    items: tuple[Item, ...]


class From(NamedTuple):
    """Rows of a function.

    Attributes:
        columns: (name, label); None for all of them.
        order: (name, whether the last comes first), of the function's columns.
        limit: so many rows at most.
        counted_as: only how many rows there are is asked for, under this label.
    """

    call: Call
    columns: tuple[tuple[str, str], ...] | None
    order: tuple[tuple[str, bool], ...] = ()
    limit: int | None = None
    counted_as: str | None = None


class Show(NamedTuple):
    """A setting is asked for."""

    name: str


class Control(NamedTuple):
    """What changes no data. `verb` is its command tag: BEGIN, SET, DISCARD ALL.

    `what`: the rest in words, for those that need it.
    """

    verb: str
    what: tuple[str, ...] = ()


Statement: TypeAlias = Select | From | Show | Control


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"""
      (?P<space>   \s++ | --[^\n]*+ | /\*(?:[^*]++|\*(?!/))*+\*/ )
    | (?P<escaped> [eE]'(?:[^'\\]++|\\.|'')*+' )
    | (?P<string>  '(?:[^']++|'')*+' )
    | (?P<quoted>  "(?:[^"]++|"")++" )
    | (?P<param>   \$[0-9]{1,5}(?![0-9]) )
    | (?P<number>  [0-9]{1,40}(?![0-9.\w]) )
    | (?P<word>    [^\W\d][\w$]* )
    | (?P<op>      :: | [(),;.*=\[\]+-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_BARE_CALLS: Final = {
    "current_user",
    "session_user",
    "user",
    "current_schema",
    "current_catalog",
    "current_role",
    "current_timestamp",
}
_TRANSACTION: Final = {
    "begin": "BEGIN",
    "start": "START TRANSACTION",
    "commit": "COMMIT",
    "end": "COMMIT",
    "rollback": "ROLLBACK",
    "abort": "ROLLBACK",
    "savepoint": "SAVEPOINT",
    "release": "RELEASE",
}
_HOUSEKEEPING: Final = {
    "set": "SET",
    "reset": "RESET",
    "discard": "DISCARD",
    "deallocate": "DEALLOCATE",
    "close": "CLOSE CURSOR",
    "unlisten": "UNLISTEN",
    "listen": "LISTEN",
}


_SHOWN_BY: Final = {
    "time zone": "timezone",
    "transaction isolation level": "transaction_isolation",
}


def parse(text: str) -> list[Statement]:
    """Read the statements of a text; none for one that says nothing.

    Raises:
        Failure: one of them is not understood, so none is.
    """
    statements: list[Statement] = []
    some: list[_Token] = []
    for token in (*_tokens(text), _Token("op", ";", len(text))):
        if token.kind == "op" and token.text == ";":
            if some:
                statements.append(_Parser(some, token.at).statement())
            some = []
        else:
            some.append(token)
    return statements


def _tokens(text: str) -> Iterator[_Token]:
    at, left = 0, TOKENS_MAX
    while at < len(text):
        if left == 0:
            raise Failure(
                "54001",
                f"the statement is too complex: use at most {TOKENS_MAX} words, values and signs",
                "Pass arrays as parameters.",
            )
        left -= 1
        found = _TOKEN.match(text, at)
        if found is None:
            raise Failure(
                "42601",
                f'syntax error at or near "{text[at : at + 20]}", character {at + 1}',
                WHAT_IS_UNDERSTOOD,
            )
        kind, raw = str(found.lastgroup), found[0]
        if kind == "string":
            yield _Token("string", raw[1:-1].replace("''", "'"), at)
        elif kind == "escaped":
            yield _Token("string", _unescaped(raw[2:-1]), at)
        elif kind == "quoted":
            yield _Token("quoted", raw[1:-1].replace('""', '"'), at)
        elif kind != "space":
            yield _Token(kind, raw, at)
        at = found.end()


def _unescaped(raw: str) -> str:
    return re.sub(
        r"\\(.)|''",
        lambda found: "'" if found[1] is None else _ESCAPES.get(found[1], found[1]),
        raw,
        flags=re.DOTALL,
    )


class _Parser:
    """Reads one statement; `end` is where it ends in the text."""

    def __init__(self, tokens: list[_Token], end: int):
        self._tokens = tokens
        self._end = end
        self._at = 0
        self._depth = 0

    def statement(self) -> Statement:
        verb = self._word()
        if verb == "select":
            return self._select()
        if verb == "show":
            return self._show()
        if verb in _TRANSACTION or verb in _HOUSEKEEPING:
            return self._control(verb, tuple(map(_said, self._tokens[self._at :])))
        raise Failure("0A000", f"{verb.upper()} is not understood here", WHAT_IS_UNDERSTOOD)

    def _control(self, verb: str, rest: tuple[str, ...]) -> Control:
        if verb == "rollback" and "to" in rest:
            return Control("ROLLBACK", ("to",))
        if verb == "discard" and rest:
            return Control(f"DISCARD {rest[0].upper()}", rest)
        if verb == "close" and rest == ("all",):
            return Control("CLOSE CURSOR ALL", rest)
        if verb == "deallocate":
            names = tuple(word for word in rest if word != "prepare")
            return Control("DEALLOCATE ALL" if names == ("all",) else "DEALLOCATE", names)
        return Control(_TRANSACTION.get(verb) or _HOUSEKEEPING[verb], rest)

    def _show(self) -> Show:
        words = [token.text.lower() for token in self._tokens[self._at :]]
        if not words:
            raise self._wrong()
        name = " ".join(words).replace(" . ", ".")
        return Show(_SHOWN_BY.get(name, name))

    def _select(self) -> Select | From:
        if self._takes("*"):
            columns = None
            self._expect_word("from")
            return self._from(columns)
        first = self._at
        if self._is_name():
            self._at += 1
            if self._takes(".") and self._takes("*"):
                self._expect_word("from")
                return self._from(None)
            self._at = first
            if (label := self._counted()) is not None:
                return self._from(None)._replace(counted_as=label)
            self._at = first
        named = self._columns()
        if named is not None:
            return self._from(named)
        self._at = first
        items = [self._item()]
        while self._takes(","):
            items.append(self._item())
        self._finish()
        return Select(tuple(items))

    def _columns(self) -> tuple[tuple[str, str], ...] | None:
        """Names of columns before a FROM; None where that is not what stands there."""
        columns = []
        while True:
            if not self._is_name():
                return None
            name = self._name()
            while self._takes("."):
                if not self._is_name():
                    return None
                name = self._name()
            columns.append((name, self._label() or name))
            if self._takes(","):
                continue
            if self._peek_word() != "from":
                return None
            self._at += 1
            return tuple(columns)

    def _from(self, columns: tuple[tuple[str, str], ...] | None) -> From:
        call = self._expression()
        if not isinstance(call, Call):
            raise self._wrong()
        if self._peek_word() not in {"order", "limit"}:
            self._label()
        order: list[tuple[str, bool]] = []
        if self._peek_word() == "order":
            self._at += 1
            self._expect_word("by")
            order.append(self._ordered())
            while self._takes(","):
                order.append(self._ordered())
        limit = None
        if self._peek_word() == "limit":
            self._at += 1
            limit = int(self._take("number").text)
        self._finish()
        return From(call, columns, tuple(order), limit)

    def _counted(self) -> str | None:
        """The label of `count(*) FROM`; None where that is not what stands there."""
        if self._name() != "count" or not (self._takes("(") and self._takes("*")):
            return None
        self._expect(")")
        label = self._label() or "count"
        self._expect_word("from")
        return label

    def _ordered(self) -> tuple[str, bool]:
        """A column to go by, and whether the last comes first."""
        name = self._name()
        while self._takes("."):
            name = self._name()
        word = self._peek_word()
        if word in {"asc", "desc"}:
            self._at += 1
        return name, word == "desc"

    def _item(self) -> Item:
        expression = self._expression()
        label = self._label()
        if label is None:
            label = expression.name if isinstance(expression, Call) else "?column?"
        return Item(expression, label)

    def _label(self) -> str | None:
        if self._peek_word() == "as":
            self._at += 1
            return self._name()
        if self._is_name() and self._peek_word() != "from":
            return self._name()
        return None

    def _expression(self) -> Expression:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise Failure("54001", "the statement is nested too deeply", WHAT_IS_UNDERSTOOD)
        expression = self._bare_expression()
        while self._takes("::"):
            expression = _cast(expression, self._type())
        self._depth -= 1
        return expression

    def _bare_expression(self) -> Expression:
        if self._takes("("):
            inside = self._expression()
            self._expect(")")
            return inside
        if self._takes("-"):
            return Constant(-int(self._take("number").text))
        self._takes("+")
        token = self._next()
        if token.kind == "number":
            return Constant(int(token.text))
        if token.kind == "string":
            return Constant(token.text)
        if token.kind == "param":
            number = int(token.text[1:])
            if number == 0:
                raise Failure("42P02", "there is no parameter $0", WHAT_IS_UNDERSTOOD)
            return Parameter(number)
        self._at -= 1
        if not self._is_name():
            raise self._wrong()
        return self._word_expression(is_quoted=token.kind == "quoted")

    def _word_expression(self, *, is_quoted: bool) -> Expression:
        name = self._name()
        while self._takes("."):
            name, is_quoted = self._name(), True
        if not is_quoted:
            if name in {"null", "true", "false"}:
                return Constant({"null": None, "true": True, "false": False}[name])
            if name == "array" and self._takes("["):
                return Array(self._list("]"))
            if name == "cast" and self._takes("("):
                inside = self._expression()
                self._expect_word("as")
                cast = _cast(inside, self._type())
                self._expect(")")
                return cast
        if self._takes("("):
            return Call(name, self._list(")"))
        if name in _BARE_CALLS:
            return Call(name)
        raise Failure("42703", f'column "{name}" does not exist', WHAT_IS_UNDERSTOOD)

    def _list(self, end: str) -> tuple[Expression, ...]:
        if self._takes(end):
            return ()
        items = [self._expression()]
        while self._takes(","):
            items.append(self._expression())
        self._expect(end)
        return tuple(items)

    def _type(self) -> str:
        words = [self._name()]
        while self._takes("."):
            words = [self._name()]
        if words == ["character"] and self._peek_word() == "varying":
            words.append(self._name())
        if self._takes("("):
            self._take("number")
            self._expect(")")
        if self._takes("["):
            self._expect("]")
            return f"{' '.join(words)}[]"
        return " ".join(words)

    # One token after the other.

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _peek_word(self) -> str | None:
        token = self._peek()
        return token.text.lower() if token is not None and token.kind == "word" else None

    def _is_name(self) -> bool:
        token = self._peek()
        return token is not None and token.kind in {"word", "quoted"}

    def _next(self) -> _Token:
        token = self._peek()
        if token is None:
            raise self._wrong()
        self._at += 1
        return token

    def _take(self, kind: str) -> _Token:
        token = self._peek()
        if token is None or token.kind != kind:
            raise self._wrong()
        self._at += 1
        return token

    def _takes(self, op: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "op" or token.text != op:
            return False
        self._at += 1
        return True

    def _expect(self, op: str) -> None:
        if not self._takes(op):
            raise self._wrong()

    def _word(self) -> str:
        return self._take("word").text.lower()

    def _expect_word(self, word: str) -> None:
        if self._peek_word() != word:
            raise self._wrong()
        self._at += 1

    def _name(self) -> str:
        token = self._next()
        if token.kind == "quoted":
            return token.text
        if token.kind != "word":
            self._at -= 1
            raise self._wrong()
        return token.text.lower()

    def _finish(self) -> None:
        if self._peek() is not None:
            raise self._wrong()

    def _wrong(self) -> Failure:
        token = self._peek()
        if token is None:
            return Failure(
                "42601",
                f"syntax error at end of input, character {self._end + 1}",
                WHAT_IS_UNDERSTOOD,
            )
        return Failure(
            "42601",
            f'syntax error at or near "{token.text[:40]}", character {token.at + 1}',
            WHAT_IS_UNDERSTOOD,
        )


def _said(token: _Token) -> str:
    """A word of a statement: in small letters unless it was quoted."""
    return token.text if token.kind in {"string", "quoted"} else token.text.lower()


def _cast(expression: Expression, to: str) -> Expression:
    # Each has the field; that of the innermost cast says how the value is to be read.
    return expression if expression.cast is not None else expression._replace(cast=to)
