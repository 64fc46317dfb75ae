"""Lengths of time as callers give them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cluster.client.durations import Length, ms_of


@pytest.mark.parametrize(
    ("length", "ms"),
    [
        ("0", 0),
        ("250ms", 250),
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("0.25s", 250),
        (1_500, 1_500),
        (timedelta(seconds=10), 10_000),
    ],
)
def test_a_length_is_whole_milliseconds(length: Length, ms: int) -> None:
    """Of text, of a timedelta, or as it stands."""
    assert ms_of(length) == ms


@pytest.mark.parametrize(
    "length", ["", "30", "s", "-1s", "1.0001ms", "0.5ms", "1 s", -1, timedelta(microseconds=5)]
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
