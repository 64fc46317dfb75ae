"""Lengths of time as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.gateway import durations


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("250ms", 250),
        ("30s", 30_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("1w", 604_800_000),
        ("1.5s", 1_500),
        ("0.001s", 1),
        ("2000us", 2),
        ("0", 0),
        ("0s", 0),
        ("PT30S", 30_000),
        ("PT0.25S", 250),
        ("PT0,25S", 250),
        ("P1DT2H", 93_600_000),
        ("P2W", 1_209_600_000),
        ("PT1H30M", 5_400_000),
    ],
)
def test_usual_spellings_are_read(text: str, ms: int) -> None:
    """Go's and ISO 8601's spellings give exact milliseconds."""
    assert durations.parse_ms(text) == ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5 parsecs",
        "30",
        "-5s",
        "+5s",
        "5 s",
        "s",
        "1y",
        "1mm",
        "1e3s",
        "٣s",
        "P1Y",
        "P1M",
        "P",
        "PT",
        "P1DT",
        "PT-5S",
        "pt5s",
        "1h 30m",
        "0x5s",
        "1..5s",
        "NaNs",
        "infs",
        "9" * 200 + "s",
        "1s\n",
    ],
)
def test_what_is_no_duration_is_refused_with_a_cure(text: str) -> None:
    """Signs, calendars, blanks and bare numbers are refused, and the message shows good ones."""
    with pytest.raises(ValueError, match=r'is not a duration; use e\.g\. "30s"'):
        durations.parse_ms(text)


@given(st.from_regex(durations.PATTERN, fullmatch=True))
def test_the_documented_pattern_means_durations(text: str) -> None:
    """What matches is a length, or too fine or too long for one: never "not a duration"."""
    try:
        durations.parse_ms(text)
    except ValueError as error:
        assert "is not a duration" not in str(error) or len(text) > durations.TEXT_MAX


def test_what_is_finer_than_a_millisecond_is_refused() -> None:
    """Nothing is rounded in silence."""
    for text in ("1us", "0.0001s", "PT0.0001S", "1.5ms"):
        with pytest.raises(ValueError, match="finer than a millisecond"):
            durations.parse_ms(text)


def test_what_is_beyond_time_is_refused() -> None:
    """A number too large for the library is our refusal, not its exception."""
    with pytest.raises(ValueError, match="out of range"):
        durations.parse_ms("999999999999w")


@given(st.integers(min_value=0, max_value=10**11))
def test_a_spelled_length_reads_back(ms: int) -> None:
    """What we write in messages can be sent to us."""
    assert durations.parse_ms(durations.spell(ms)) == ms


@given(st.text(max_size=80))
def test_any_text_is_a_length_or_a_refusal(text: str) -> None:
    """No text makes anything but milliseconds or a ValueError."""
    try:
        assert durations.parse_ms(text) >= 0
    except ValueError:
        pass
