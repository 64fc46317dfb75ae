"""The command line as a whole: help, names, shared options."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cluster import __version__
from cluster.cli import COMMANDS, main
from cluster.cli.words import Duration, EndpointList, spell, table


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    """Its help tells what it does, how it is used, and stays within the width."""
    shown = CliRunner().invoke(main, [name, "--help"], terminal_width=100)
    assert shown.exit_code == 0
    assert f"coterie {name}" in shown.output or name == "demo"
    assert max(map(len, shown.output.splitlines())) <= 100


def commands_in(
    group: click.Group, context: click.Context, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """The words of every command, with those of groups."""
    yield path
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from commands_in(found, context, (*path, name))
        else:
            yield (*path, name)


def test_help_fits_a_terminal_of_80_columns() -> None:
    """Whole sentences, wrapped; only an example, which is to be copied, may be longer."""
    for words in commands_in(main, click.Context(main)):
        shown = CliRunner().invoke(main, [*words, "--help"], terminal_width=80)
        for line in shown.output.splitlines():
            is_example = line.startswith("    ") and "coterie " in line
            assert len(line) <= 80 or is_example, (words, line)
            assert not re.search(r"\w\.\.\.$", line) or "Usage:" in line, (words, line)


def test_help_lists_the_commands() -> None:
    """In the order in which one meets them."""
    shown = CliRunner().invoke(main, ["--help"]).output
    places = [shown.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


def test_the_version_is_told() -> None:
    """That of the package."""
    assert __version__ in CliRunner().invoke(main, ["--version"]).output


def test_an_unknown_command_is_refused() -> None:
    """With exit code 2, and what may have been meant."""
    shown = CliRunner().invoke(main, ["stauts"])
    assert shown.exit_code == 2
    assert "No such command 'stauts'. Did you mean \"status\"?" in shown.output
    assert "Did you mean" not in CliRunner().invoke(main, ["xyzzy"]).output
    assert "No such option" in CliRunner().invoke(main, ["-x"]).output


def test_an_interrupt_has_its_exit_code_whenever_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also while a command is still loaded, and for those that have no care of their own."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cluster.cli.importlib.import_module", interrupted)
    shown = CliRunner().invoke(main, ["demo"])
    assert (shown.exit_code, shown.output) == (130, "")


def test_columns_are_as_wide_as_they_need_to_be() -> None:
    """None is a dash, and no blanks end a line."""
    assert table(("A", "LONG"), [("xyz", None), (1, "b")]) == "A    LONG\nxyz  -\n1    b"


@pytest.mark.parametrize(
    ("value_ms", "text"),
    [(0, "0ms"), (250, "250ms"), (1_500, "1500ms"), (30_000, "30s"), (86_400_000, "1d")],
)
def test_lengths_of_time_are_spelt_in_their_largest_unit(value_ms: int, text: str) -> None:
    """As one would type them."""
    assert spell(value_ms) == text


def test_options_name_the_cure() -> None:
    """A length out of range, and an endpoint that is none."""
    with pytest.raises(click.BadParameter, match="use 1s to 1m"):
        Duration(1_000, 60_000).convert("2m", None, None)
    with pytest.raises(click.BadParameter, match="use host:port"):
        EndpointList().convert("nowhere", None, None)
