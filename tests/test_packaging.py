"""Lock files and project file agree, and name no place that only one machine knows.

RULE: reads files of the checkout; installs and imports nothing.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements-build.lock", "requirements.lock", "requirements-dev.lock")
PIN = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[^ ;]+)(?P<marker> ; [^\\]+)? \\")
HASH = re.compile(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_holds_pins_and_hashes_and_nothing_else(lock: str) -> None:
    """Every line is an exact pin or a hash: no index, no address, no path."""
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not PIN.fullmatch(line) and not HASH.fullmatch(line)]
    assert strange == []


def test_the_locks_agree() -> None:
    """What is run and what builds is tested at the same versions."""
    build, runtime, dev = (pins(lock) for lock in LOCKS)
    assert build.items() <= dev.items()
    assert runtime.items() <= dev.items()


def test_the_runtime_lock_covers_the_project() -> None:
    """Each runtime dependency of pyproject.toml, and of its extras, is in the runtime lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [*project["dependencies"], *(line for extra in extras for line in extra)]
    assert {name_of(line) for line in wanted} <= pins("requirements.lock").keys()
    assert "pysyncobj==0.3.17" in wanted


def pins(lock: str) -> dict[str, str]:
    """Name to version, of one lock file."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    return {pin["name"]: pin["version"] for pin in PIN.finditer(text)}


def name_of(requirement: str) -> str:
    """The distribution a requirement asks for."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
