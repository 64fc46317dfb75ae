"""SQL text and values of the PostgreSQL front, without a connection."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.fronts.postgres import values
from cluster.fronts.postgres.failure import Failure
from cluster.fronts.postgres.sql import (
    TOKENS_MAX,
    Array,
    Call,
    Constant,
    Control,
    From,
    Item,
    Parameter,
    Select,
    Show,
    parse,
)
from cluster.fronts.postgres.values import INT4, INT8, INT8S, TEXT, TEXTS
from cluster.fronts.postgres.wire import Inbox, Malformed

WORK = Call("get_work", (Parameter(1), Parameter(2)))


class TestSql:
    @pytest.mark.parametrize(
        "text",
        [
            "SELECT * FROM get_work($1, $2)",
            "select*from get_work($1,$2);",
            '  SELECT * -- all\n FROM public."get_work"( $1 , /* cap */ $2 ) AS w ; ;',
            "SELECT * FROM GET_WORK($1, $2) w",
            "SELECT w.* FROM get_work($1, $2) AS w",
        ],
    )
    def test_one_statement_in_many_spellings(self, text: str) -> None:
        """Case, space, comments, quotes, schemas and aliases do not matter."""
        assert parse(text) == [From(WORK, None)]

    def test_columns_by_name(self) -> None:
        """With labels, qualified or not."""
        assert parse('SELECT id, w.data AS "Body" FROM get_work($1, $2) w') == [
            From(WORK, (("id", "id"), ("data", "Body")))
        ]

    def test_casts_say_types(self) -> None:
        """In both notations; the innermost counts."""
        for text in ("$1::int8[]", "CAST($1 AS int8[])", "($1::pg_catalog.int8[])::text"):
            (statement,) = parse(f"SELECT finish_tasks({text})")
            call = Call("finish_tasks", (Parameter(1, "int8[]"),))
            assert statement == Select((Item(call, "finish_tasks"),))

    def test_constants(self) -> None:
        """Numbers, texts in two notations, truths, NULL, arrays."""
        (statement,) = parse("SELECT f(-1, 'it''s', E'a\\'\\n', NULL, true, ARRAY[1, '2'])")
        assert isinstance(statement, Select)
        (item,) = statement.items
        assert isinstance(item.expression, Call)
        assert item.expression.arguments == (
            Constant(-1),
            Constant("it's"),
            Constant("a'\n"),
            Constant(None),
            Constant(True),
            Array((Constant(1), Constant("2"))),
        )

    def test_several_statements(self) -> None:
        """Divided by semicolons, of which strings are no part."""
        assert parse("BEGIN; SHOW a; SELECT ';'; COMMIT") == [
            Control("BEGIN"),
            Show("a"),
            Select((Item(Constant(";"), "?column?"),)),
            Control("COMMIT"),
        ]

    @pytest.mark.parametrize("text", [";", "1,", "begin;", "/**/", "'' "])
    def test_a_text_of_too_many_words_is_refused(self, text: str) -> None:
        """A megabyte of them would keep the node from everything else for seconds."""
        with pytest.raises(Failure) as raised:
            parse("SELECT 1" + f" {text}" * TOKENS_MAX)
        assert raised.value.code == "54001"

    @pytest.mark.parametrize("sign", ["'", '"', "e'", "/*"])
    def test_what_has_no_end_is_refused(self, sign: str) -> None:
        """Where it begins."""
        with pytest.raises(Failure, match=r"character [89]$") as raised:
            parse("SELECT " + sign + "''\"\"" * 100_000 + sign[-1] * 2)
        assert raised.value.code == "42601"

    @given(st.text(max_size=60))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        """With an SQLSTATE, never with another error."""
        try:
            parse(f"SELECT {text}")
        except Failure as failure:
            assert len(failure.code) == 5

    @given(st.lists(st.sampled_from([*"(),;.*=[]-+':\"$1aE ", "::", "select ", "from "])))
    def test_any_tokens_are_read_or_refused(self, parts: list[str]) -> None:
        """Statements that look like some."""
        try:
            parse("".join(parts))
        except Failure as failure:
            assert failure.code in {"42601", "42703", "42P02", "54001", "0A000"}


class TestValues:
    @pytest.mark.parametrize(
        ("text", "items"),
        [
            ("{}", []),
            ("{ }", []),
            ("{1,2}", ["1", "2"]),
            (' { "a b" , NULL,null,"NULL","" } ', ["a b", None, None, "NULL", ""]),
            (r'{"a\"b\\",x\y}', ['a"b\\', "xy"]),
        ],
    )
    def test_arrays_as_text(self, text: str, items: list[str | None]) -> None:
        """As PostgreSQL takes them."""
        assert values.array(text) == items

    @pytest.mark.parametrize(
        "text", ["", "1,2", "{", "{1", "{1,}", "{,}", '{"a}', '{"a"b}', "{{1}}"]
    )
    def test_what_is_no_array(self, text: str) -> None:
        """22P02, as there."""
        with pytest.raises(Failure, match="malformed array literal") as raised:
            values.array(text)
        assert raised.value.code == "22P02"

    def test_an_array_of_too_many_items_is_refused(self) -> None:
        """In both formats; no pool has so many tasks."""
        count = values.ITEMS_MAX
        assert values.array("{1" + ",1" * (count - 1) + "}") == ["1"] * count
        nulls = struct.pack("!iiiii", 1, 1, INT8, count + 1, 1) + b"\xff" * 4 * (count + 1)
        for raw, is_binary in ((b"{1" + b",1" * count + b"}", False), (nulls, True)):
            with pytest.raises(Failure, match="at most") as raised:
                values.decode(raw, INT8S, is_binary=is_binary)
            assert raised.value.code == "54000"

    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"))))
    def test_a_quoted_array_comes_back(self, items: list[str]) -> None:
        """Whatever is in it."""
        quoted = ",".join(
            '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in items
        )
        assert values.decode(f"{{{quoted}}}".encode(), TEXTS, is_binary=False) == items

    @given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=20))
    def test_a_binary_array_comes_back(self, items: list[int | None]) -> None:
        """With its NULLs."""
        raw = struct.pack("!iiiii", 1, 1, INT8, len(items), 1) + b"".join(
            b"\xff\xff\xff\xff" if item is None else struct.pack("!iq", 8, item) for item in items
        )
        assert values.decode(raw, INT8S, is_binary=True) == items
        assert values.decode(struct.pack("!iii", 0, 0, INT8), INT8S, is_binary=True) == []

    @given(st.binary(max_size=80), st.sampled_from([INT8S, TEXTS, INT4, INT8, TEXT, 1700, 3802]))
    def test_any_bytes_are_a_value_or_refused(self, raw: bytes, oid: int) -> None:
        """In both formats."""
        for is_binary in (False, True):
            try:
                values.decode(raw, oid, is_binary=is_binary)
            except Failure as failure:
                assert failure.code in {"22P02", "22P03", "22021", "0A000"}

    @pytest.mark.parametrize(
        ("value", "oid", "text", "binary"),
        [
            (7, INT4, b"7", b"\0\0\0\7"),
            ("-7", INT8, b"-7", b"\xff" * 7 + b"\xf9"),
            (True, values.BOOL, b"t", b"\1"),
            ("ü", TEXT, "ü".encode(), "ü".encode()),
            ("{}", values.JSONB, b"{}", b"\1{}"),
            ("", values.VOID, b"", b""),
            (None, TEXT, None, None),
        ],
    )
    def test_results(self, value: Any, oid: int, text: bytes, binary: bytes) -> None:
        """In both formats."""
        assert values.encode(value, oid, is_binary=False) == text
        assert values.encode(value, oid, is_binary=True) == binary

    @pytest.mark.parametrize(
        ("text", "oid", "code", "said"),
        [
            (str(2**63), INT8, "22003", f'value "{2**63}" is out of range for type bigint'),
            (str(-(2**63) - 1), INT8, "22003", "out of range for type bigint"),
            ("9" * 50, INT8, "22003", "out of range for type bigint"),
            (str(2**31), INT4, "22003", f'value "{2**31}" is out of range for type integer'),
            (f"{{1,{2**63}}}", values.INT8S, "22003", "out of range for type bigint"),
            ("x", INT4, "22P02", 'invalid input syntax for type integer: "x"'),
            ("1.0", INT8, "22P02", 'invalid input syntax for type bigint: "1.0"'),
            ("", INT8, "22P02", 'invalid input syntax for type bigint: ""'),
        ],
    )
    def test_what_is_no_integer_of_its_type(
        self, text: str, oid: int, code: str, said: str
    ) -> None:
        """In the words of PostgreSQL."""
        with pytest.raises(Failure, match=re.escape(said)) as raised:
            values.from_text(text, oid)
        assert raised.value.code == code

    def test_integers_at_their_ends(self) -> None:
        """The smallest and the largest are taken, and blanks around them."""
        assert values.from_text(f" {2**63 - 1} ", INT8) == 2**63 - 1
        assert values.from_text(str(-(2**63)), INT8) == -(2**63)
        assert values.from_text("+2147483647", INT4) == 2**31 - 1

    def test_a_number_out_of_range(self) -> None:
        """Of its column's type."""
        with pytest.raises(Failure, match="out of range for type integer") as raised:
            values.encode(2**31, INT4, is_binary=True)
        assert raised.value.code == "22003"


@given(st.lists(st.binary(max_size=30), max_size=6))
def test_any_bytes_are_messages_or_malformed(parts: list[bytes]) -> None:
    """However they are cut."""
    inbox = Inbox()
    inbox.started()
    try:
        for part in parts:
            inbox.feed(part)
            while (message := inbox.next()) is not None:
                assert len(message.kind) == 1
    except Malformed:
        pass
