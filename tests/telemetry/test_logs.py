"""Logs: set-up and sampling."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from cluster.telemetry import logs


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Put the process's logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_lines_hold_what_was_said() -> None:
    """One object per line, of ours and of the standard library alike, with time, level and name."""
    stream = io.StringIO()
    logs.configure(log_format="json", level="info", stream=stream)
    structlog.get_logger("cluster.test").info("opened", session="1-a", odd=object)
    logging.getLogger("aiohttp").warning("slow %s", "peer")
    logging.getLogger("aiohttp").info("detail")
    structlog.get_logger("cluster.test").debug("not written")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["opened", "slow peer", "detail"]
    assert (lines[0]["session"], lines[0]["level"], lines[0]["logger"]) == (
        "1-a",
        "info",
        "cluster.test",
    )
    assert lines[0]["timestamp"].endswith("Z")


def test_an_exception_is_one_line_of_json() -> None:
    """The traceback is data, so that a line stays a line."""
    stream = io.StringIO()
    logs.configure(log_format="json", stream=stream)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        structlog.get_logger("cluster.test").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_value"] == "broken"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_holds_no_values(log_format: str) -> None:
    """Local variables are where secrets are."""
    stream = io.StringIO()
    logs.configure(log_format=log_format, stream=stream)

    def fail(secret: str) -> None:
        raise RuntimeError(len(secret))

    try:
        fail("hush".join("||"))
    except RuntimeError:
        structlog.get_logger("cluster.test").exception("failed")
    assert "test_logs.py" in stream.getvalue()
    assert "|hush|" not in stream.getvalue()


def test_auto_is_json_where_nobody_looks() -> None:
    """A stream that is no terminal gets JSON; the console is asked for by name."""
    stream = io.StringIO()
    logs.configure(stream=stream)
    structlog.get_logger("cluster.test").info("hello")
    assert stream.getvalue().startswith("{")
    stream = io.StringIO()
    logs.configure(log_format="console", stream=stream)
    structlog.get_logger("cluster.other").info("hello")
    assert "hello" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_wrong_word_is_refused() -> None:
    """The message says which words there are."""
    with pytest.raises(ValueError, match="console"):
        logs.configure(log_format="xml")
    with pytest.raises(ValueError, match="warning"):
        logs.configure(level="loud")


def test_a_flood_becomes_a_few_lines_and_a_count() -> None:
    """So many of a kind each second; the first of the next second says how many were left out."""
    sampler = logs.Sampler(per_second=2)
    assert [sampler.admit("slow", 0.1 * tick) for tick in range(5)] == [0, 0, None, None, None]
    assert sampler.admit("failed", 0.5) == 0
    assert sampler.admit("slow", 1.0) == 3
    assert sampler.admit("slow", 1.1) == 0
