"""Would the line know its room? Certain words may be said in certain files of `cluster/` only.

RULE: reads the source, imports none of it. A red line names the room in which the thing lives;
when a word truly needs another room, change the table here and say why.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CLUSTER = Path(__file__).parents[1] / "cluster"
SOURCES = sorted(path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*.py"))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        word: a dotted name as imported (`os.fsync`), standing for what is below it too; with a
            leading dot, the name of any attribute (`.call_later`); with a trailing `*`, what an
            attribute, a name or a text begins with.
        rooms: files, or folders ending in `/`, that may say it; empty for none.
        planted: a source that says it.
    """

    word: str
    rooms: tuple[str, ...]
    planted: str


TIMERS = ("node/driver.py", "replication/transport.py", "client/", "cli/")
WALL_CLOCKS = ("node/clock.py", "telemetry/logs.py", "fronts/waitingroom.py")
LOTS = ("client/", "replication/engine.py")

TABLE = (
    Row("time.monotonic", ("node/clock.py",), "import time\ntime.monotonic()"),
    Row("time.monotonic_ns", ("node/clock.py",), "from time import monotonic_ns as now\nnow()"),
    Row("time.perf_counter", (), "import time as t\nt.perf_counter()"),
    Row("time.time", WALL_CLOCKS, "from time import time\ntime()"),
    Row("time.time_ns", WALL_CLOCKS, "import time\ntime.time_ns()"),
    Row("time.sleep", ("client/", "cli/"), "import time\ntime.sleep(1)"),
    Row("datetime.datetime.now", WALL_CLOCKS, "import datetime as d\nd.datetime.now()"),
    Row("datetime.datetime.utcnow", (), "from datetime import datetime\ndatetime.utcnow()"),
    Row("random", LOTS, "from random import Random\nRandom(1)"),
    Row("os.fsync", ("replication/disk.py",), "import os\nos.fsync(1)"),
    Row("os.fdatasync", ("replication/disk.py",), "from os import fdatasync\nfdatasync(1)"),
    Row("_SyncObj__*", ("replication/engine.py", "replication/guard.py"), "x._SyncObj__log = 1"),
    Row("_SyncObj__*", ("replication/engine.py", "replication/guard.py"), "f(x, '_SyncObj__log')"),
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

LONG_WORDS = frozenset(row.word for row in TABLE if "." in row.word[1:])

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
    assert [row.word in found for found in strangers("planted/elsewhere.py", row.planted)] == [True]
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
    assert len(list(strangers("machine/locks.py", planted))) == 1
    assert list(strangers("gateway/locks.py", planted)) == []


def test_words_that_only_look_alike_are_left_alone() -> None:
    """Attributes and local names that share a word with the table are no strangers."""
    innocent = "from cluster.machine import jobs\nself.random = jobs.random\nbatch.time.time()"
    assert list(strangers("gateway/jobs.py", innocent)) == []


@pytest.mark.parametrize("room", [room for room in SOURCES if not room.endswith("__main__.py")])
def test_every_module_opens_with_its_rule(room: str) -> None:
    """A file begins with a docstring that says what may live in it."""
    docstring = ast.get_docstring(ast.parse((CLUSTER / room).read_text(encoding="utf-8"))) or ""
    assert "RULE: " in docstring


def strangers(room: str, source: str) -> Iterator[str]:
    """Sentences on the words in a source that belong to another room, one for each place.

    Args:
        room: the file, relative to `cluster/`.
        source: its text.
    """
    tree = ast.parse(source)
    for line, said in words(tree):
        for row in {row.word: row for row in TABLE}.values():
            if matches(said, row.word) and not room.startswith(row.rooms or ("nowhere",)):
                yield f"{room}:{line} says {row.word}, which lives in {row.rooms or 'no room'}"
    if room.startswith("machine/"):
        yield from (f"{room}:{line} says {what}" for line, what in chances(tree))


def matches(said: str, word: str) -> bool:
    """Whether what the source says is the table's word, or something below it."""
    if word.endswith("*"):
        return said.lstrip(".").startswith(word[:-1])
    return said == word or said.startswith(f"{word}.")


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and word of all imports, names seen through their imports, attributes and texts.

    A name that an import brought is said where it is imported (`from os import fsync`) and, when
    the import brought a module, where something in it is used (`os.fsync`).
    """
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias, name in zip(node.names, imported(node), strict=True):
                local = alias.asname or alias.name.partition(".")[0]
                modules[local] = name if alias.asname else name.removesuffix(alias.name) + local
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from ((node.lineno, name) for name in imported(node))
            case ast.Attribute(attr=attribute):
                yield node.lineno, f".{attribute}"
                dotted = ast.unparse(node)
                first, _, rest = dotted.partition(".")
                # `import random` is said once, at its import; below it only longer words count.
                if first in modules and (found := f"{modules[first]}.{rest}") in LONG_WORDS:
                    yield node.lineno, found
            case ast.Constant(value=str(text)):
                yield node.lineno, f".{text}"
            case ast.Name(id=name):
                yield node.lineno, f".{name}"


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
