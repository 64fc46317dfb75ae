"""YAML of ours, read by another's reader: what comes back is what went in."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
import yaml
from hypothesis import given

from cluster.cli.yaml import emit

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=12)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_a_reader_gets_back_what_was_written(value: Any) -> None:
    """Whatever JSON can hold."""
    assert yaml.safe_load(emit(value)) == value


@pytest.mark.parametrize(
    "text", ["yes", "No", "null", "1e3", "0x1f", "12:30:00", "~", "- a", "a: b", "", " a", "#", "="]
)
def test_a_text_that_could_be_taken_for_something_else_is_quoted(text: str) -> None:
    """By the rules of JSON."""
    assert emit(text) == f'"{text}"'


def test_it_reads_well() -> None:
    """Lists stand as deep as their key; what is empty stays in its line."""
    value = {"name": "orders", "holders": [{"token": 5, "meta": {}}, {"token": 6}], "waiters": []}
    assert emit(value).split("\n") == [
        "name: orders",
        "holders:",
        "- token: 5",
        "  meta: {}",
        "- token: 6",
        "waiters: []",
    ]
    assert emit({}) == "{}"
    assert emit([[1, [2]], "b c"]) == "- - 1\n  - - 2\n- b c"
