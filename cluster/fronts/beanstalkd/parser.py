"""Bytes to requests, whatever pieces they come in.

RULE: sans I/O; holds back at most one line, or one job of the longest body, beyond what it was fed.
Says what is wrong with a request in the protocol's own words, and goes on behind it as the original
does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias

from cluster.fronts.beanstalkd import replies

LINE_BYTES_MAX: Final = 224
"""Of a command line, its CR LF included."""

_UINT32_MAX: Final = 2**32 - 1
_UINT64_MAX: Final = 2**64 - 1
_TIMEOUT_S_MAX: Final = 2**31 - 1

_NAME: Final = re.compile(rb"(?!-)[A-Za-z0-9\-+/;.$_()]{1,200}")
_NUMBER: Final = re.compile(rb" *([0-9]+)")
# As strtoul has it: blanks, a sign, digits, and whatever follows.
_COUNT: Final = re.compile(rb"[ \t\n\v\f\r]*([+-]?)([0-9]+)")
_PAUSED: Final = re.compile(rb" *([A-Za-z0-9\-+/;.$_()]++) *([0-9]+)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes:
        op: its name, as `cmd-` in the statistics; empty for what was no command.
        number: a job's id, a bound, a count of seconds: whatever the one number of this op is.
        reply: what it is to be told, where that is certain without carrying it out.
    """

    op: str
    number: int = 0
    priority: int = 0
    delay_s: int = 0
    ttr_s: int = 0
    tube: str = ""
    body: bytes = b""
    reply: bytes | None = None


@dataclass(frozen=True, slots=True)
class _PutLine:
    priority: int
    delay_s: int
    ttr_s: int
    size: int
    is_exact: bool


_Parse: TypeAlias = Callable[[str, bytes], "Request | _PutLine"]
BAD: Final = Request("", reply=replies.BAD_FORMAT)
_UNKNOWN: Final = Request("", reply=replies.UNKNOWN_COMMAND)
_EXPECTED_CRLF: Final = Request("put", reply=replies.EXPECTED_CRLF)
_BAD_PUT: Final = Request("put", reply=replies.BAD_FORMAT)
_TOO_BIG: Final = Request("put", reply=replies.JOB_TOO_BIG)


class _Unfit(Exception):
    """A line that is no request."""


class Parser:
    """Feed it bytes, take requests.

    Args:
        job_bytes_max: longest body of a job.
    """

    def __init__(self, job_bytes_max: int) -> None:
        self._job_bytes_max = job_bytes_max
        self._buffer = bytearray()
        self._at = 0
        self._put: _PutLine | None = None
        self._swallow = 0
        self._is_overlong = False

    @property
    def held(self) -> int:
        """Bytes that were fed and not taken yet."""
        return len(self._buffer) - self._at

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data

    def next(self) -> Request | None:
        """The next request; None until more is fed."""
        while True:
            if self._swallow:
                if not self._swallowed():
                    return None
                return _TOO_BIG
            if self._put is not None:
                return self._body(self._put)
            line = self._line()
            if line is None:
                return None
            if line is _OVERLONG:
                return BAD
            request = _parsed(line)
            if isinstance(request, Request):
                return request
            if request.size > self._job_bytes_max:
                self._swallow = request.size + 2
            elif not request.is_exact:
                return _BAD_PUT
            else:
                self._put = request

    def _swallowed(self) -> bool:
        count = min(self._swallow, self.held)
        self._swallow -= count
        self._at += count
        return self._swallow == 0

    def _body(self, put: _PutLine) -> Request | None:
        if self.held < put.size + 2:
            return None
        end = self._at + put.size
        body = bytes(memoryview(self._buffer)[self._at : end])
        is_whole = self._buffer.startswith(b"\r\n", end)
        self._at = end + 2
        self._put = None
        if not is_whole:
            return _EXPECTED_CRLF
        return Request(
            "put",
            priority=put.priority,
            delay_s=put.delay_s,
            ttr_s=put.ttr_s,
            body=body,
        )

    def _line(self) -> bytes | None:
        """A line without its end; _OVERLONG for one that was too long, once it has ended."""
        buffer, at = self._buffer, self._at
        limit = len(buffer) if self._is_overlong else at + LINE_BYTES_MAX
        end = buffer.find(b"\r\n", at, limit)
        if end >= 0:
            self._at = end + 2
            if self._is_overlong:
                self._is_overlong = False
                return _OVERLONG
            return bytes(memoryview(buffer)[at:end])
        if self._is_overlong or self.held >= LINE_BYTES_MAX:
            # What was looked at is dropped, but for a CR whose LF may come.
            was_overlong, self._is_overlong = self._is_overlong, True
            seen = len(buffer) if was_overlong else limit
            self._at = seen - buffer.endswith(b"\r", at, seen)
            return None if was_overlong else self._line()
        return None


_OVERLONG: Final = b"\r\n"
"""No line: lines have no end in them."""


def _parsed(line: bytes) -> Request | _PutLine:
    if b"\0" in line:
        return BAD
    for op, word, parse in _TABLE:
        if line.startswith(word):
            try:
                return parse(op, line[len(word) :])
            except _Unfit:
                return BAD
    return _UNKNOWN


def _number(rest: bytes, most: int, *, is_last: bool = True) -> tuple[int, bytes]:
    match = _NUMBER.match(rest)
    if match is None:
        raise _Unfit
    number, rest = int(match[1]), rest[match.end() :]
    if number > most or (is_last and rest):
        raise _Unfit
    return number, rest


def _put(_: str, rest: bytes) -> _PutLine:
    priority, rest = _number(rest, _UINT32_MAX, is_last=False)
    delay_s, rest = _number(rest, _UINT32_MAX, is_last=False)
    ttr_s, rest = _number(rest, _UINT32_MAX, is_last=False)
    size, rest = _number(rest, _UINT32_MAX, is_last=False)
    return _PutLine(priority, delay_s, ttr_s, size, is_exact=not rest)


def _bare(op: str, rest: bytes) -> Request:
    if rest:
        raise _Unfit
    return Request(op)


def _quit(op: str, _: bytes) -> Request:
    return Request(op)


def _job(op: str, rest: bytes) -> Request:
    return Request(op, number=_number(rest, _UINT64_MAX)[0])


def _timeout(op: str, rest: bytes) -> Request:
    return Request(op, number=_number(rest, _TIMEOUT_S_MAX)[0])


def _release(op: str, rest: bytes) -> Request:
    job, rest = _number(rest, _UINT64_MAX, is_last=False)
    priority, rest = _number(rest, _UINT32_MAX, is_last=False)
    delay_s, _ = _number(rest, _UINT32_MAX)
    return Request(op, number=job, priority=priority, delay_s=delay_s)


def _bury(op: str, rest: bytes) -> Request:
    job, rest = _number(rest, _UINT64_MAX, is_last=False)
    priority, _ = _number(rest, _UINT32_MAX)
    return Request(op, number=job, priority=priority)


def _kick(op: str, rest: bytes) -> Request:
    match = _COUNT.match(rest)
    if match is None:
        raise _Unfit
    count = int(match[2])
    if count > _UINT64_MAX:
        raise _Unfit
    if match[1] == b"-":
        count = -count
    return Request(op, number=count & _UINT32_MAX)


def _tube(op: str, rest: bytes) -> Request:
    if _NAME.fullmatch(rest) is None:
        raise _Unfit
    return Request(op, tube=rest.decode())


def _pause(op: str, rest: bytes) -> Request:
    match = _PAUSED.fullmatch(rest)
    if match is None or (delay_s := int(match[2])) > _UINT32_MAX:
        raise _Unfit
    if _NAME.fullmatch(match[1]) is None:
        return Request(op, reply=replies.BAD_FORMAT)
    return Request(op, tube=match[1].decode(), delay_s=delay_s)


_PARSERS: Final[Mapping[bytes, _Parse]] = MappingProxyType(
    {
        b"put ": _put,
        b"peek ": _job,
        b"peek-ready": _bare,
        b"peek-delayed": _bare,
        b"peek-buried": _bare,
        b"reserve-with-timeout ": _timeout,
        b"reserve-job ": _job,
        b"reserve": _bare,
        b"delete ": _job,
        b"release ": _release,
        b"bury ": _bury,
        b"kick ": _kick,
        b"kick-job ": _job,
        b"touch ": _job,
        b"stats-job ": _job,
        b"stats-tube ": _tube,
        b"stats": _bare,
        b"use ": _tube,
        b"watch ": _tube,
        b"ignore ": _tube,
        b"list-tubes-watched": _bare,
        b"list-tube-used": _bare,
        b"list-tubes": _bare,
        b"quit": _quit,
        b"pause-tube": _pause,
    }
)
# In this order: of two words that begin alike the longer one stands first.
_TABLE: Final = tuple((word.strip().decode(), word, parse) for word, parse in _PARSERS.items())
