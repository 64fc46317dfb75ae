"""What was asked, what was answered, what was broken, and when: one list, in the order it happened.

RULE: records, and judges nothing. Every time is of the one monotonic clock of the process that runs
all clients, so that the order of two lines is their order in fact.

An operation is an *invoke* and at most one completion: *ok* (it happened, this is the answer),
*fail* (it did not happen), *info* (it may have happened, now or at any later time). A process does
one operation at a time; one whose operation ended as info takes a new number, as the old operation
is open for ever.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec


class Type(StrEnum):
    """What a line says of its operation."""

    INVOKE = "invoke"
    OK = "ok"
    FAIL = "fail"
    INFO = "info"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a history.

    Attributes:
        index: its place in the history, from 0.
        time_ns: since the history began.
        process: who acts; -1 is the nemesis, whose lines are all `info`, in pairs that share `f` and
            `value` as begin and end of a fault (`value["phase"]` is "begin" or "end").
        type: see the module.
        f: what is done, in the workload's words: "acquire", "put", "kill".
        key: what it is done to, as checkers partition by it: a lock's name, a tube.
        value: arguments of an invoke, answer of an ok; made of what JSON has.
        node: which node was asked.
        error: code of the answer that is not an ok.
    """

    index: int
    time_ns: int
    process: int
    type: Type
    f: str
    key: str = ""
    value: Any = None
    node: str = ""
    error: str = ""


class Operation(msgspec.Struct, frozen=True):
    """An invoke with its completion.

    Attributes:
        end: None while it is open: the run ended first, or nobody knows (`info`).
        outcome: INVOKE where no completion came at all; treat it as INFO.
        result: value of the ok; None otherwise.
    """

    process: int
    f: str
    key: str
    value: Any
    result: Any
    outcome: Type
    start: int
    end: int | None
    start_ns: int
    end_ns: int | None
    node: str = ""
    error: str = ""

    @property
    def is_open(self) -> bool:
        """It may take effect at any time after its start."""
        return self.outcome in (Type.INFO, Type.INVOKE)


class Recorder:
    """Takes lines down as they happen.

    Args:
        file: every line is written there at once, as JSON, so that a run that dies leaves a history.
    """

    def __init__(self, file: Path | None = None):
        self.began_ns = time.monotonic_ns()
        self.lines: list[Line] = []
        self._processes = 0
        self._file = None if file is None else file.open("wb", buffering=1 << 16)

    def process(self) -> int:
        """A number for a process that was not there yet."""
        self._processes += 1
        return self._processes - 1

    def note(
        self,
        process: int,
        kind: Type,
        f: str,
        key: str = "",
        value: Any = None,
        *,
        node: str = "",
        error: str = "",
    ) -> Line:
        """Add a line, now."""
        now = time.monotonic_ns() - self.began_ns
        line = Line(len(self.lines), now, process, kind, f, key, value, node, error)
        self.lines.append(line)
        if self._file is not None:
            self._file.write(msgspec.json.encode(line) + b"\n")
        return line

    def close(self) -> None:
        """Write out what is left."""
        if self._file is not None:
            self._file.close()


def load(file: Path) -> list[Line]:
    """Read a history back.

    Raises:
        msgspec.DecodeError: a line is not one of a history.
    """
    decoder = msgspec.json.Decoder(Line)
    with file.open("rb") as lines:
        return [decoder.decode(line) for line in lines]


def operations(lines: Iterable[Line]) -> list[Operation]:
    """Pair invokes with their completions, in order of the invokes; the nemesis is left out.

    Raises:
        ValueError: a process does two things at once, or completes what it did not begin.
    """
    begun: dict[int, Line] = {}
    ends: dict[int, Line] = {}
    order: list[Line] = []
    for line in lines:
        if line.process < 0:
            continue
        if line.type is Type.INVOKE:
            if line.process in begun:
                raise ValueError(
                    f"process {line.process} does two things at once: line {line.index}"
                )
            begun[line.process] = line
            order.append(line)
            continue
        start = begun.pop(line.process, None)
        if start is None:
            raise ValueError(
                f"process {line.process} ends what it did not begin: line {line.index}"
            )
        ends[start.index] = line
    return list(_operations(order, ends))


def _operations(order: list[Line], ends: dict[int, Line]) -> Iterator[Operation]:
    for start in order:
        end = ends.get(start.index)
        is_open = end is None or end.type is Type.INFO
        yield Operation(
            process=start.process,
            f=start.f,
            key=start.key,
            value=start.value,
            result=end.value if end is not None and end.type is Type.OK else None,
            outcome=Type.INVOKE if end is None else end.type,
            start=start.index,
            end=None if is_open or end is None else end.index,
            start_ns=start.time_ns,
            end_ns=None if is_open or end is None else end.time_ns,
            node=start.node,
            error="" if end is None else end.error,
        )
