"""A cluster on this machine: its folder and its processes, before any node runs."""

from __future__ import annotations

import json
import shlex
import socket
import stat
from pathlib import Path

import pytest

from cluster.cli import dev
from cluster.cli.local import CannotStart, LocalCluster, planned, planned_anywhere
from cluster.client.aio import ClusterState
from cluster.node.config import load


def prepared(folder: Path, count: int = 3) -> LocalCluster:
    """A cluster whose folder is ready."""
    cluster = LocalCluster(folder, planned_anywhere(count))
    cluster.prepare()
    return cluster


class TestFolder:
    """What stands in it."""

    def test_each_node_gets_settings_that_load(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its own data, all peers, one secret for all."""
        cluster = prepared(tmp_path / "new" / "folder")
        monkeypatch.setattr("sys.argv", ["/opt/bin/coterie", "dev"])
        command = cluster.command_of("n2")
        found = load({}, {}, file=Path(command[-1]))
        assert command[:3] == ("/opt/bin/coterie", "serve", "--config")
        assert (found.node, found.data) == ("n2", cluster.folder / "n2")
        assert found.peers == {name: cluster.members[name].listen for name in ("n1", "n3")}
        assert (found.http, found.warnings) == (cluster.members["n2"].http, ())

    def test_the_secret_is_made_once_and_for_its_owner(self, tmp_path: Path) -> None:
        """Starting again keeps it."""
        prepared(tmp_path)
        secret = (tmp_path / "secret").read_text(encoding="ascii")
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
        assert len(secret) > 32
        prepared(tmp_path)
        assert (tmp_path / "secret").read_text(encoding="ascii") == secret

    @pytest.mark.parametrize("count", [1, 5])
    def test_a_cluster_keeps_its_number_of_nodes(self, tmp_path: Path, count: int) -> None:
        """Nodes added by hand would outvote those that hold the data."""
        for name in ("n1", "n2", "n3"):
            (tmp_path / name).mkdir()
        prepared(tmp_path, 3)
        with pytest.raises(CannotStart, match=r"cluster of 3 nodes.*use --nodes 3, or another"):
            prepared(tmp_path, count)


class TestPorts:
    """Where the nodes listen."""

    def test_ports_follow_one_another(self) -> None:
        """From the two bases on."""
        members = planned(3, http_base=7101, peer_base=7201)
        assert [member.url for member in members] == [
            "http://127.0.0.1:7101",
            "http://127.0.0.1:7102",
            "http://127.0.0.1:7103",
        ]
        assert [member.listen.port for member in members] == [7201, 7202, 7203]

    def test_a_port_that_is_taken_is_named_with_the_cure(self, tmp_path: Path) -> None:
        """Before anything is written or started."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            cluster = LocalCluster(tmp_path / "new", planned(1, http_base=port, peer_base=port))
            with pytest.raises(CannotStart, match=rf"127\.0\.0\.1:{port} .*choose other ports"):
                cluster.prepare()
        assert not cluster.folder.exists()


class TestShown:
    """What `coterie dev` shows."""

    def test_the_welcome_has_urls_and_three_lines_that_a_shell_takes(self, tmp_path: Path) -> None:
        """At different nodes."""
        cluster = LocalCluster(tmp_path, planned(3, http_base=7101, peer_base=7201))
        state = ClusterState("local", "n1", 1, 1, 1, [], leader="n2")
        lines = dev.welcome(cluster, state).splitlines()
        tries = [line for line in lines if "curl" in line]
        assert lines[2].split() == ["n2", "http://127.0.0.1:7102", "leader"]
        assert any("http://127.0.0.1:7101/docs" in line for line in lines)
        assert len(tries) == 3
        for line, port in zip(tries, ("7101", "7102", "7103"), strict=True):
            assert any(port in word for word in shlex.split(line))

    @pytest.mark.parametrize(
        ("http_base", "words"),
        [
            (7101, ["status"]),
            (8101, ["status", "--endpoints", "127.0.0.1:8101,127.0.0.1:8102,127.0.0.1:8103"]),
        ],
    )
    def test_the_welcome_has_a_command_that_finds_the_cluster(
        self,
        http_base: int,
        words: list[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Called as we were, with endpoints where the usual ones are not these."""
        monkeypatch.setattr("sys.argv", [".venv/bin/coterie", "dev"])
        cluster = LocalCluster(tmp_path, planned(3, http_base=http_base, peer_base=7201))
        state = ClusterState("local", "n1", 1, 1, 1, [], leader="n2")
        lines = [shlex.split(line) for line in dev.welcome(cluster, state).splitlines()]
        assert [".venv/bin/coterie", *words] in lines

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            ({"event": "serving", "level": "info"}, None),
            ({"event": "slow disk", "level": "warning", "ms": 7}, "warning slow disk ms=7"),
            ({"event": "fatal", "level": "critical"}, "critical fatal"),
        ],
    )
    def test_warnings_are_shown_and_small_talk_is_not(
        self, line: dict[str, object], shown: str | None
    ) -> None:
        """As words."""
        assert dev.worth_showing(json.dumps(line), is_stopping=False) == shown

    def test_nodes_that_stop_may_miss_one_another(self) -> None:
        """Warnings are not shown then, errors are."""
        for level, shown in (("warning", None), ("error", "error gone")):
            line = json.dumps({"event": "gone", "level": level})
            assert dev.worth_showing(line, is_stopping=True) == shown

    def test_lines_that_are_no_log_are_shown_as_they_are(self) -> None:
        """Such as a traceback of a node that could not even start."""
        assert dev.worth_showing("Traceback (most recent call last):", is_stopping=True)
        assert dev.worth_showing("  ", is_stopping=False) is None
        assert dev.pretty('{"no": "event"}') == '{"no": "event"}'

    def test_an_exception_is_shown_below_its_line(self) -> None:
        """Whether it is text or a structure."""
        line = json.dumps({"event": "fatal", "level": "critical", "exception": "Traceback: x"})
        assert dev.pretty(line) == "critical fatal\nTraceback: x"


async def test_a_start_without_a_leader_says_how_long_was_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Behind what the nodes have written meanwhile."""
    monkeypatch.setattr(dev, "READY_WITHIN_S", 0.0)
    cluster, screen = prepared(tmp_path, 1), dev.Screen(is_verbose=False)
    try:
        assert await dev._show(cluster, screen) == 1
    finally:
        await cluster.kill()
    assert capsys.readouterr().err.endswith("coterie dev: no leader within 0 s\n")
