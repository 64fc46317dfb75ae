"""The pinned library: another one is refused, and every private name we touch is on the list."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pysyncobj
import pytest
from pysyncobj import syncobj

from cluster.replication import catchup, elections, engine, library, member
from cluster.replication.engine import Engine
from cluster.replication.guard import EngineFault
from cluster.replication.library import (
    LIBRARY_SHA256,
    LIBRARY_VERSION,
    PRIVATE_ATTRIBUTES,
    PRIVATE_METHODS,
    check_library,
)

CURE = r"pysyncobj==0\.3\.17"

# Overridden or called, without the library's own prefix in front.
PLAIN_NAMES = {name for name in PRIVATE_METHODS + PRIVATE_ATTRIBUTES if "__" not in name}

LAYERS = (member, catchup, elections, engine)
OURS = {
    name: value
    for kind in reversed(Engine.__mro__)
    if kind.__module__.startswith("cluster.")
    for name, value in vars(kind).items()
}

# Never touched, but relied on: it must stay False (o3), which group and simulator look at.
WATCHED = {"_SyncObj__transferInProgress"}


def test_the_installed_library_is_the_one_that_was_read() -> None:
    """Version, private names and the bytes of its main file."""
    check_library()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both and the cure."""
    monkeypatch.setattr(pysyncobj.version, "VERSION", "0.3.99")
    with pytest.raises(EngineFault, match=rf"version 0\.3\.99, not {LIBRARY_VERSION}.*{CURE}"):
        check_library()


@pytest.mark.parametrize("name", PRIVATE_METHODS)
def test_a_missing_method_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An override of a name that the library no longer calls would guard nothing."""
    monkeypatch.delattr(syncobj.SyncObj, name)
    with pytest.raises(EngineFault, match=rf"{name}.*{CURE}"):
        check_library()


@pytest.mark.parametrize("name", PRIVATE_ATTRIBUTES)
def test_a_missing_attribute_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An attribute that the library renamed would be set and never read."""
    plain = name.removeprefix("_SyncObj")
    source = re.sub(
        rf"self\.{plain}\b", "self.renamed", inspect.getsource(syncobj.SyncObj.__init__)
    )
    monkeypatch.setattr(inspect, "getsource", lambda _: source)
    with pytest.raises(EngineFault, match=rf"{name}.*{CURE}"):
        check_library()


def test_a_changed_file_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A patch that keeps version and names may change any rule we rely on."""
    changed = tmp_path / "syncobj.py"
    changed.write_bytes(Path(inspect.getfile(syncobj)).read_bytes() + b"\n")
    monkeypatch.setattr(inspect, "getfile", lambda _: str(changed))
    with pytest.raises(EngineFault, match=rf"syncobj\.py was changed.*{CURE}"):
        check_library()


def test_another_expected_digest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is compared, not only computed."""
    monkeypatch.setattr(library, "LIBRARY_SHA256", LIBRARY_SHA256[::-1])
    with pytest.raises(EngineFault, match="was changed"):
        check_library()


def names_in_use() -> set[str]:
    """Every attribute and function name in the engine's layers that may be the library's."""
    found: set[str] = set()
    for layer in LAYERS:
        tree = ast.parse(Path(inspect.getfile(layer)).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            match node:
                case ast.Attribute(attr=name) | ast.FunctionDef(name=name):
                    if name.startswith("_SyncObj__") or name in PLAIN_NAMES:
                        found.add(name)
    return found


def test_every_private_name_in_use_is_on_the_list_and_the_other_way_round() -> None:
    """So an upgrade that renames one of them is refused at start, not found in a power loss."""
    listed = set(PRIVATE_METHODS) | set(PRIVATE_ATTRIBUTES)
    assert names_in_use() - listed == set()
    assert listed - names_in_use() == WATCHED


@pytest.mark.parametrize("name", [name for name in PRIVATE_METHODS if name in OURS])
def test_an_override_takes_what_the_library_passes(name: str) -> None:
    """Same parameters in the same order, so that the library's own calls reach it."""
    theirs = inspect.signature(getattr(syncobj.SyncObj, name)).parameters.values()
    ours = inspect.signature(OURS[name]).parameters.values()
    required = [p for p in theirs if p.default is p.empty]
    assert len(required) <= len(ours) <= len(theirs)


def test_no_override_is_missing_from_the_library() -> None:
    """A method of ours that carries the library's prefix replaces one that exists."""
    ours = [name for name in OURS if name.startswith("_SyncObj__")]
    assert [name for name in ours if not hasattr(syncobj.SyncObj, name)] == []
