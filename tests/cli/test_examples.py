"""Every example of every help text, run against a machine: what is shown works as it is shown."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cluster.cli import PRIMITIVES, main
from cluster.cli.verbs import Group
from tests.cli.machine import Shell, serving


def group_of(name: str) -> Group:
    """The table of a primitive."""
    found = importlib.import_module(f"cluster.cli.primitives.{name}").GROUP
    assert isinstance(found, Group)
    return found


@pytest.mark.parametrize("name", PRIMITIVES)
def test_the_examples_of_a_primitive_work_one_after_another(name: str, tmp_path: Path) -> None:
    """In the order of its verbs, on a fresh machine; each ends with 0."""
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        for line in group_of(name).examples:
            ran = shell.line(line)
            assert ran.code == 0, f"{line}\n{ran.out}{ran.err}"


@pytest.mark.parametrize("name", ["explain", "batch"])
def test_the_examples_of_other_questions_work(name: str, tmp_path: Path) -> None:
    """With a session that waits for nothing yet, and a lock that another holds."""
    verb = importlib.import_module(f"cluster.cli.{name}").VERB
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        shell.line("OTHER=$(coterie sessions open -o name)")
        shell.line("coterie locks acquire orders --session $OTHER")
        shell.line("export COTERIE_SESSION=$(coterie sessions open -o name)")
        for line in verb.examples:
            ran = shell.line(line)
            assert ran.code == 0, f"{line}\n{ran.out}{ran.err}"
        shown = CliRunner().invoke(main, [name, "--help"], terminal_width=100)
        assert all(line in shown.output for line in verb.examples)


# What makes an example end by itself, and soon.
ENDING = {"watch": "--after 1 --count 1", "top": "--count 1", "bench": "--duration 200ms"}


@pytest.mark.parametrize("name", ["status", "transfer", "top", "watch", "bench", "doctor"])
def test_the_examples_of_commands_that_look_work(name: str, tmp_path: Path) -> None:
    """With something that has happened, an end, and our address in place of theirs."""
    epilog = importlib.import_module(f"cluster.cli.{name}").EPILOG
    lines = [line.strip() for line in epilog.splitlines() if line.startswith("  coterie ")]
    assert lines
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        shell.line("SESSION=$(coterie sessions open -o name)")
        shell.line("TOKEN=$(coterie locks acquire orders --session $SESSION -o name)")
        shell.line("coterie locks release orders --session $SESSION --token $TOKEN")
        for line in lines:
            if "/etc/" in line or "/var/" in line:
                continue
            said = line.partition("  # ")[0].partition(" && ")[0].partition(" | jq")[0]
            said = re.sub(r"10\.0\.0\.[0-9:.,]+", endpoint, said).replace("--to n2", "--to n1")
            before, bar, after = said.partition(" | ")
            ran = shell.line(f"{before} {ENDING.get(name, '')}{bar}{after}")
            assert ran.code == 0, f"{said}\n{ran.out}{ran.err}"


@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_verb_explains_itself_with_an_example(name: str) -> None:
    """Its help says what it does, within the width, and shows examples of that very verb."""
    group = group_of(name)
    for verb in group.verbs:
        assert any(f"coterie {name} {verb.name}" in line for line in verb.examples), verb.name
        shown = CliRunner().invoke(main, [name, verb.name, "--help"], terminal_width=100)
        assert shown.exit_code == 0
        assert all(line in shown.output for line in verb.examples)
        assert max(map(len, shown.output.splitlines())) <= 100, verb.name
        assert verb.examples[0] in shown.output


def test_the_table_of_other_names_is_that_of_the_groups() -> None:
    """They stand twice, so that finding a command loads no other."""
    assert {name: group_of(name).also for name in PRIMITIVES} == PRIMITIVES
    for others in PRIMITIVES.values():
        for other in others:
            assert isinstance(main.get_command(click.Context(main), other), click.Group)
