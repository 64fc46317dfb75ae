"""`coterie serve`: settings in, settings shown, mistakes told."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner

from cluster.cli import main
from cluster.node.config import SETTINGS
from tests.cli.running import finish

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


async def test_a_data_folder_that_cannot_be_made_ends_with_65(tmp_path: Path) -> None:
    """One line that names the setting, what was found and the cure; no traceback."""
    file = tmp_path / "file"
    file.touch()
    code, _, err = await finish("serve", "--node", "n1", "--data", str(file))
    assert code == 65
    said = [json.loads(line) for line in err.splitlines()][-1]
    assert said["reason"].startswith(f'data: "{file}" cannot be used: file exists; name a folder')


@pytest.mark.parametrize("setting", ["http", "listen", "front_sync"])
async def test_an_address_that_is_taken_ends_with_71(tmp_path: Path, setting: str) -> None:
    """The setting is named, and the cure."""
    addresses = {"http": "127.0.0.1:0", "listen": "127.0.0.1:0"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses[setting] = f"127.0.0.1:{taken.getsockname()[1]}"
        flags = [f"--{key.replace('_', '-')}={address}" for key, address in addresses.items()]
        code, _, err = await finish("serve", "--node", "n1", "--data", str(tmp_path), *flags)
    assert code == 71
    said = [json.loads(line) for line in err.splitlines()][-1]
    assert said["reason"] == (
        f"{setting}: {addresses[setting]} cannot be listened on: address already in use; "
        "stop what listens there, or choose another"
    )


async def test_an_address_of_another_machine_ends_with_71(tmp_path: Path) -> None:
    """As nothing here has it."""
    flags = ("--http", "192.0.2.1:7101", "--listen", "127.0.0.1:0")
    code, _, err = await finish("serve", "--node", "n1", "--data", str(tmp_path), *flags)
    assert code == 71
    assert "http: 192.0.2.1:7101 cannot be listened on" in err
    assert "no interface of this machine has it" in err


async def test_certificates_that_are_none_end_with_2(tmp_path: Path) -> None:
    """The setting is named, and what is wanted there."""
    junk, good = tmp_path / "junk.pem", tmp_path / "good.pem"
    junk.write_text("junk\n", encoding="ascii")
    trustme.CA().cert_pem.write_to_path(str(good))
    for authority, named in ((junk, "tls_ca: "), (good, "tls_cert and tls_key: ")):
        flags = ("--tls-cert", str(junk), "--tls-key", str(junk), "--tls-ca", str(authority))
        code, _, err = await finish(
            "serve", "--node", "n1", "--data", str(tmp_path / "data"), *flags
        )
        assert code == 2
        reason = json.loads(err.splitlines()[-1])["reason"]
        assert reason.startswith(named)
        assert "cannot be used" in reason
        assert reason.endswith("(PEM)")
