"""Lengths of time as callers give them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.client.durations import Length, ms_of
from cluster.gateway.durations import PATTERN, parse_ms


@pytest.mark.parametrize(
    ("length", "ms"),
    [
        ("0", 0),
        ("250ms", 250),
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("0.25s", 250),
        ("1000us", 1),
        ("PT30S", 30_000),
        ("P1DT2H", 93_600_000),
        ("P2W", 1_209_600_000),
        ("PT0.5S", 500),
        ("PT1,25S", 1_250),
        (1_500, 1_500),
        (timedelta(seconds=10), 10_000),
    ],
)
def test_a_length_is_whole_milliseconds(length: Length, ms: int) -> None:
    """Of text, of a timedelta, or as it stands."""
    assert ms_of(length) == ms


@pytest.mark.parametrize(
    "length",
    [
        *("", "30", "s", "-1s", "1.0001ms", "0.5ms", "1 s", -1, timedelta(microseconds=5)),
        *("P", "PT", "P1Y", "P1M", "-PT1S", "PT0.0001S", "PT1.5H", "pt1s"),
    ],
)
def test_what_is_no_length_is_refused(length: Length) -> None:
    """With its name, so that the caller finds it."""
    with pytest.raises(ValueError, match="ttl"):
        ms_of(length, "ttl")


@pytest.mark.parametrize("length", [1.5, True, None])
def test_a_float_is_not_guessed_at(length: object) -> None:
    """Seconds or milliseconds: nobody knows."""
    with pytest.raises(TypeError, match="wait"):
        ms_of(length, "wait")  # type: ignore[arg-type]


@given(st.from_regex(PATTERN, fullmatch=True) | st.text("PTWDHMS0123456789.,usmhd", max_size=8))
def test_a_text_means_what_it_means_to_a_node(text: str) -> None:
    """The client knows nothing of the node: nothing but this test keeps both equal."""

    def said(read: object) -> int | None:
        assert callable(read)
        try:
            found: int = read(text)
        except ValueError:
            return None
        return found

    of_node, ours = said(parse_ms), said(ms_of)
    # A node cuts what is finer than a microsecond off, and refuses what is beyond its range.
    if of_node is not None and "us" not in text:
        assert ours == of_node
    if ours is not None and ours < 2**50:
        assert ours == of_node
