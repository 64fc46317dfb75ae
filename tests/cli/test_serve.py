"""`coterie serve`: settings in, settings shown, mistakes told."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from cluster.cli import main
from cluster.node.config import SETTINGS

LEAST = ["serve", "--node", "n1", "--data", "here"]


def test_every_setting_has_its_flag_but_the_hidden_ones() -> None:
    """The secret and the keys of passes: a process's arguments can be read by everybody here."""
    shown = CliRunner().invoke(main, ["serve", "--help"]).output
    for entry in SETTINGS:
        assert (f"--{entry.key.replace('_', '-')} " in shown) != entry.is_hidden


def test_print_config_shows_values_and_origins() -> None:
    """As a table, with warnings beside it."""
    shown = CliRunner().invoke(
        main,
        [*LEAST, "--print-config", "--peers", "n2=127.0.0.1:1", "--peers", "n3=127.0.0.1:2"],
        env={"COTERIE_CLUSTER": "mine", "COTERIE_SECRET": "not to be seen by anyone"},
    )
    rows = {line.split()[0]: line for line in shown.stdout.splitlines()}
    assert shown.exit_code == 0
    assert rows["cluster"].split() == ["cluster", "mine", "environment", "COTERIE_CLUSTER"]
    assert "n2=127.0.0.1:1,n3=127.0.0.1:2" in rows["peers"]
    assert "flag --peers" in rows["peers"]
    assert "not to be seen" not in shown.output


def test_print_config_speaks_json(tmp_path: Path) -> None:
    """For programs."""
    file = tmp_path / "n1.toml"
    file.write_text('node = "n1"\ndata = "d"\nheartbeat_ms = "50ms"\n', encoding="utf-8")
    shown = CliRunner().invoke(
        main, ["serve", "--config", str(file), "--print-config", "-o", "json"]
    )
    assert json.loads(shown.stdout)["heartbeat_ms"] == {"value": 50, "origin": f"file {file}"}


def test_wrong_settings_end_with_2_and_name_them_all() -> None:
    """Before anything is opened."""
    shown = CliRunner().invoke(main, ["serve", "--http", "nowhere"])
    assert shown.exit_code == 2
    assert "coterie serve: 3 settings are wrong:" in shown.stderr
    assert 'http: "nowhere" (flag --http) has no port' in shown.stderr
