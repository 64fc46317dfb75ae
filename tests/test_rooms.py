"""Would the line know its room? Certain words may be said in certain files of `cluster/` only.

RULE: reads the source, imports none of it. A red line names the room in which the thing lives;
when a word truly needs another room, change the table here and say why.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[1] / "cluster"
SOURCES = sorted(path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*.py"))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        word: a dotted name seen through the imports (`os.fsync`), standing for what is below it
            too; with `()` at its end, a call of it; with a dot before it, any attribute, name or
            text (`.call_later`). Shell patterns are allowed.
        rooms: files, or folders ending in `/`, that may say it; empty for none.
        planted: a source that says it.
    """

    word: str
    rooms: tuple[str, ...]
    planted: str


# The pace of streams is no business of the node: it is told when to look, never what to wait for;
# nor is how long a client that writes no more is kept for its answer.
TIMERS = (
    "node/driver.py",
    "replication/transport.py",
    "gateway/shortway.py",
    "gateway/watchers.py",
    "fronts/desk.py",
    "fronts/gohttp/server.py",
    "client/",
    "cli/",
    "testing/",
)
WALL_CLOCKS = ("node/clock.py", "telemetry/logs.py", "fronts/waitingroom.py")
# One class in four layers, and the list of the names they touch.
ENGINE = tuple(
    f"replication/{layer}.py" for layer in ("library", "member", "catchup", "elections", "engine")
)
LOTS = ("app.py", "node/driver.py", "client/", "cli/")

TABLE = (
    Row("time.monotonic", ("node/clock.py",), "import time\ntime.monotonic()"),
    Row("time.monotonic_ns", ("node/clock.py",), "from time import monotonic_ns as now\nnow()"),
    Row("time.perf_counter", (), "import time as t\nt.perf_counter()"),
    Row("time.time", WALL_CLOCKS, "from time import time\ntime()"),
    Row("time.time_ns", WALL_CLOCKS, "import time\ntime.time_ns()"),
    Row("time.sleep", ("client/", "cli/"), "import time\ntime.sleep(1)"),
    Row("datetime.datetime.now", WALL_CLOCKS, "import datetime as d\nd.datetime.now()"),
    Row("datetime.datetime.utcnow", (), "from datetime import datetime\ndatetime.utcnow()"),
    # A generator is made where a process begins and handed on; nobody draws from the shared one.
    Row("random.Random()", LOTS, "from random import Random\nRandom(1)"),
    Row("random.Random()", LOTS, "import random\ndef f(): return random.Random()"),
    Row("random.SystemRandom", (), "import random\nrandom.SystemRandom"),
    Row("random.[a-z]*", (), "import random\nrandom.random()"),
    Row("random.[a-z]*", (), "from random import choice"),
    Row("os.fsync", ("replication/disk.py",), "import os\nos.fsync(1)"),
    Row("os.fdatasync", ("replication/disk.py",), "from os import fdatasync\nfdatasync(1)"),
    Row("._SyncObj__*", ENGINE, "x._SyncObj__log = 1"),
    Row("._SyncObj__*", ENGINE, "f(x, '_SyncObj__log')"),
    Row("pysyncobj", ("replication/",), "import pysyncobj.node"),
    Row("cbor2", ("wire/",), "import cbor2"),
    Row("cbor2", ("wire/",), "from cbor2 import loads"),
    Row("pickle", (), "import pickle"),
    Row("marshal", (), "import marshal"),
    Row("shelve", (), "from shelve import open"),
    Row("heapq", ("machine/",), "import heapq"),
    Row("asyncio.sleep", TIMERS, "import asyncio\nasyncio.sleep(1)"),
    Row("asyncio.sleep", TIMERS, "from asyncio import sleep"),
    Row(".call_later", TIMERS, "loop.call_later(1, f)"),
    Row(".call_at", TIMERS, "loop.call_at(1, f)"),
    # Replies are built in gateway/replies.py, by our own encoder.
    Row("aiohttp.web.json_response", (), "from aiohttp import web\nweb.json_response({})"),
    Row("jwt", ("fronts/waitingroom.py",), "import jwt"),
)

# What would make two nodes, or two runs, come to different states.
# fmt: off
NOT_IN_THE_MACHINE = frozenset({
    "asyncio", "datetime", "hash", "id", "locale", "logging", "multiprocessing",
    "open", "os", "pathlib", "platform", "print", "random", "secrets",
    "socket", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
})
# fmt: on


@pytest.mark.parametrize("room", SOURCES)
def test_each_word_is_said_in_its_room(room: str) -> None:
    """No file says a word of the table that belongs to another room."""
    assert list(strangers(room, (CLUSTER / room).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.planted.replace("\n", "; "))
def test_a_planted_word_is_found(row: Row) -> None:
    """The test can fail: a word planted in a wrong room is found, in its own room it is not."""
    found = list(strangers("planted/elsewhere.py", row.planted))
    assert found
    assert all(row.word in sentence for sentence in found)
    for room in row.rooms:
        file = f"{room}any.py" if room.endswith("/") else room
        assert list(strangers(file, row.planted)) == []


@pytest.mark.parametrize(
    "planted",
    [
        "import time",
        "from os import environ",
        "import os.path",
        "import json, time",
        "def f(x): return hash(x)",
        "print(1)",
        "half = 0.5",
        "half = 1 / 2",
        "half /= 2",
        "for x in {1, 2}: pass",
        "y = [x for x in set(names)]",
    ],
)
def test_a_planted_chance_is_found_in_the_machine(planted: str) -> None:
    """Clocks, I/O, fractions and the order of sets are found in the machine, and nowhere else."""
    assert len(list(strangers("machine/locks/locks.py", planted))) == 1
    assert list(strangers("gateway/locks.py", planted)) == []


def test_words_that_only_look_alike_are_left_alone() -> None:
    """Attributes and local names that share a word with the table are no strangers."""
    innocent = """
from random import Random
from cluster.machine import jobs
def f(rng: Random, random, batch):
    rng.random(), random.random(), jobs.random, batch.time.time(), batch.sleep
"""
    assert list(strangers("gateway/jobs.py", innocent)) == []


@pytest.mark.parametrize("room", [room for room in SOURCES if not room.endswith("__main__.py")])
def test_every_module_opens_with_its_rule(room: str) -> None:
    """A file begins with a docstring that says what may live in it."""
    docstring = ast.get_docstring(ast.parse((CLUSTER / room).read_text(encoding="utf-8"))) or ""
    assert "RULE: " in docstring


def strangers(room: str, source: str) -> Iterator[str]:
    """Sentences on the words in a source that belong to another room, one for each line and word.

    Args:
        room: the file, relative to `cluster/`.
        source: its text.
    """
    tree = ast.parse(source)
    rows = [row for row in TABLE if not room.startswith(row.rooms or ("nowhere",))]
    found = {
        (line, row.word, row.rooms or "no room")
        for line, said in words(tree)
        for row in rows
        if matches(said, row.word)
    }
    for line, word, rooms in sorted(found, key=str):
        yield f"{room}:{line} says {word}, which lives in {rooms}"
    if room.startswith("machine/"):
        yield from (f"{room}:{line} says {what}" for line, what in chances(tree))


def matches(said: str, word: str) -> bool:
    """Whether what the source says is the table's word, or something below it."""
    return fnmatchcase(said, word) or said.startswith(f"{word}.")


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and word of all imports, calls, attributes, names and texts.

    What an import brought is also said by its full name wherever it is used: after
    `from os import fsync as f`, `f(1)` says `os.fsync` and `os.fsync()`.
    """
    full: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias, name in zip(node.names, imported(node), strict=True):
                yield node.lineno, name
                # `import os.path` brings `os`.
                local = alias.asname or alias.name.partition(".")[0]
                full[local] = name if alias.asname else name.removesuffix(alias.name) + local
    for node in ast.walk(tree):
        match node:
            case ast.Attribute() | ast.Name():
                dotted = ast.unparse(node)
                first, dot, rest = dotted.partition(".")
                yield node.lineno, f".{dotted.rpartition('.')[2]}"
                if first in full:
                    yield node.lineno, full[first] + dot + rest
            case ast.Call(func=ast.Attribute() | ast.Name() as called):
                first, dot, rest = ast.unparse(called).partition(".")
                if first in full:
                    yield node.lineno, f"{full[first]}{dot}{rest}()"
            case ast.Constant(value=str(text)):
                yield node.lineno, f".{text}"


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Dotted names that one import statement brings."""
    above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return [f"{above}{alias.name}" for alias in node.names]


def chances(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and kind of what may differ between nodes: clocks, I/O, fractions, order of sets."""
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom(module=str()):
                for name in imported(node):
                    if name.partition(".")[0] in NOT_IN_THE_MACHINE:
                        yield node.lineno, f"import {name}"
            case ast.Call(func=ast.Name(id=name)) if name in NOT_IN_THE_MACHINE:
                yield node.lineno, f"{name}()"
            case ast.Constant(value=float()):
                yield node.lineno, "a fraction"
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, "a division that makes a fraction"
            case ast.For(iter=walked) | ast.comprehension(iter=walked):
                match walked:
                    case (
                        ast.Set() | ast.SetComp() | ast.Call(func=ast.Name(id="set" | "frozenset"))
                    ):
                        yield walked.lineno, "the order of a set"
