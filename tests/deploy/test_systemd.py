"""The unit: taken by systemd, hardened, and in step with the program it starts."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from cluster import app
from cluster.cli.serve import command
from cluster.node import config
from tests.deploy.files import DEPLOY

UNIT = DEPLOY / "coterie.service"
EXPOSURE_MAX = 2.0


def service() -> configparser.SectionProxy:
    """The section of the service; keys that come again overwrite."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(UNIT.read_text(encoding="utf-8"))
    return parser["Service"]


def analyze(*arguments: str, unit: Path) -> subprocess.CompletedProcess[str]:
    """Ask systemd-analyze, where it is."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine")
    return subprocess.run(
        [program, *arguments, str(unit)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    text = UNIT.read_text(encoding="utf-8")
    changed = re.sub(
        r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE
    )
    assert changed != text
    file = tmp_path / UNIT.name
    file.write_text(changed, encoding="utf-8")
    return file


def test_systemd_takes_the_unit(unit: Path) -> None:
    """Its own judgement: no unknown key, no bad value."""
    ended = analyze("verify", "--man=no", unit=unit)
    assert ended.returncode == 0 and UNIT.name not in ended.stderr, ended.stderr


def test_systemd_finds_it_hardly_exposed(unit: Path) -> None:
    """By its own measure, from 0 to 10."""
    ended = analyze("security", "--offline=true", "--no-pager", unit=unit)
    if "unrecognized option" in ended.stderr:
        pytest.skip("this systemd-analyze cannot look at files")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", ended.stdout)
    assert found is not None, ended.stderr
    assert float(found[1]) <= EXPOSURE_MAX, ended.stdout


def test_the_command_line_is_one_that_the_program_takes() -> None:
    """Word for word."""
    program, verb, *rest = shlex.split(service()["ExecStart"])
    assert Path(program).name == "coterie" and verb == "serve"
    found = command.make_context(verb, rest)
    assert found.params["file"] == Path("/etc/coterie/coterie.toml")


def test_what_the_example_writes_to_is_what_the_unit_makes() -> None:
    """The data folder is the unit's own, open to nobody else."""
    node = config.load({}, {"COTERIE_SECRET": "x" * 32}, file=DEPLOY / "coterie.toml")
    assert str(node.data) == f"/var/lib/{service()['StateDirectory']}"
    assert service()["StateDirectoryMode"] == "0700"


def test_a_node_is_given_longer_to_stop_than_it_takes() -> None:
    """And it is told to by the signal that drains."""
    assert service()["KillSignal"] == "SIGTERM"
    drain_ms = config.DEFAULTS["drain_timeout_ms"]
    assert int(service()["TimeoutStopSec"]) * 1000 > drain_ms + 2_000


def test_a_data_folder_that_must_not_be_used_is_not_tried_again() -> None:
    """The exit code is the program's."""
    assert int(service()["RestartPreventExitStatus"]) == app.EXIT_DATA
