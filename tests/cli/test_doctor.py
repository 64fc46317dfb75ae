"""`coterie doctor`: what is wrong is found, said, and comes with a cure."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.cli import checkup
from cluster.cli.checkup import Finding, worst
from cluster.cli.doctor import examine
from cluster.cli.probing import probe
from cluster.node import config as settings
from cluster.node.config import Address, Config
from cluster.replication.handshake import HandshakeRefused, Listener, Party
from tests.cli.machine import Shell, serving
from tests.cli.test_status import node, state

SECRET = "a secret of all nodes"


def config_of(tmp_path: Path, **more: Any) -> Config:
    """Settings of node n1, whose ports nobody has."""
    flags = {"node": "n1", "data": str(tmp_path / "n1"), "http": "127.0.0.1:0"}
    flags |= {"listen": "127.0.0.1:0"} | more
    return settings.load(flags, {"COTERIE_SECRET": SECRET})


@asynccontextmanager
async def peer(**more: Any) -> AsyncIterator[tuple[Address, list[str]]]:
    """The first words of node n2: where it listens, and the identities it has learned."""
    learned: list[str] = []
    named: dict[str, Any] = {"cluster": "coterie", "node": "n2", "peers": ("n1", "n3")}
    named |= {"secret": SECRET.encode()} | more
    party = Party(
        boot=1,
        identity="i2",
        known_identity=lambda _peer: None,
        learn_identity=lambda peer, _identity: learned.append(peer),
        **named,
    )

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener = Listener(party, bytes(32))
        try:
            while data := await reader.read(1024):
                writer.write(listener.receive(data))
        except HandshakeRefused as refusal:
            writer.write(refusal.farewell)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield Address(*server.sockets[0].getsockname()[:2]), learned


class TestPeers:
    """What a peer says to somebody without an identity."""

    async def test_a_peer_that_would_let_us_in_is_well(self, tmp_path: Path) -> None:
        """And it remembers nothing of us."""
        async with peer() as (address, learned):
            heard = await probe(config_of(tmp_path), "n2", address)
        assert (heard.is_well, learned) == (True, []), heard

    @pytest.mark.parametrize(
        ("more", "said", "cure"),
        [
            ({"secret": b"quite another secret"}, "secret is not ours", "the same secret"),
            ({"cluster": "other"}, "another cluster", "the same cluster name"),
            ({"node": "n3"}, "not the node we dialled", "correct the addresses"),
            ({"peers": ("n3",)}, "no member", "name this node in the peers of that one"),
            ({"node": "n1", "peers": ("n2",)}, "our own name", "a name of its own"),
        ],
    )
    async def test_what_parts_us_is_named_with_its_cure(
        self, tmp_path: Path, more: dict[str, Any], said: str, cure: str
    ) -> None:
        """By the reason of its refusal."""
        async with peer(**more) as (address, learned):
            heard = await probe(config_of(tmp_path), "n2", address)
        assert (heard.is_well, learned) == (False, [])
        assert said in heard.what
        assert cure in heard.cure

    async def test_nobody_there_is_told(self, tmp_path: Path) -> None:
        """With what the system says."""
        async with peer() as (address, _):
            pass
        heard = await probe(config_of(tmp_path), "n2", address)
        assert heard.what == f"{address} cannot be reached: connection refused"
        assert not heard.is_well


class TestMachine:
    """This machine."""

    def test_a_folder_on_a_good_disk_is_well(self, tmp_path: Path) -> None:
        """It need not be there yet, and nothing stays behind."""
        config = config_of(tmp_path, segment_bytes="4KiB", snapshot_bytes="4KiB")
        findings = checkup.data_folder(config) + checkup.sync_speed(config)
        assert {each.state for each in findings} <= {"ok", "warning"}
        assert "made at the first start" in findings[0].found
        assert "ms median" in findings[1].found
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_too_small_is_wrong(self, tmp_path: Path) -> None:
        """For a journal and its snapshots."""
        (found,) = checkup.disk_space(replace(config_of(tmp_path), snapshot_bytes=2**60))
        assert (found.state, "are needed" in found.found) == ("wrong", True)

    def test_a_port_is_free_taken_or_our_own(self, tmp_path: Path) -> None:
        """One that another has is wrong, unless it is this node that runs."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            config = config_of(tmp_path, http=f"127.0.0.1:{other.getsockname()[1]}")
            http, listen = checkup.addresses(config, is_running=False)
            assert (http.state, listen.state) == ("wrong", "ok")
            assert "stop what listens there" in http.cure
            assert checkup.addresses(config, is_running=True)[0].state == "ok"
        config = config_of(tmp_path, http="192.0.2.1:7101")
        assert "no interface" in checkup.addresses(config, is_running=False)[0].cure


class TestCluster:
    """What the nodes say of themselves."""

    def test_all_well_is_told(self) -> None:
        """Who leads, that all are near, of one version, and of one mind."""
        found = checkup.cluster_health({"http://n1": state()}, {}, None)
        assert [(each.check, each.state) for each in found] == [
            ("cluster", "ok"),
            ("lag", "ok"),
            ("versions", "ok"),
            ("digests", "ok"),
        ]
        assert "3 of 3 nodes" in found[-1].found

    @pytest.mark.parametrize(
        ("more", "check", "how"),
        [
            ({"leader": None}, "cluster", "wrong"),
            ({"nodes": [node("n1"), node("n2", digest="bb")]}, "cluster", "wrong"),
            ({"nodes": [node("n1"), node("n2", lag=50_000)]}, "lag", "warning"),
            ({"nodes": [node("n1"), node("n2", version="2")]}, "versions", "warning"),
        ],
    )
    def test_what_is_wrong_is_found(self, more: dict[str, Any], check: str, how: str) -> None:
        """With a cure."""
        findings = checkup.cluster_health({"http://n1": state(**more)}, {}, None)
        bad = [each for each in findings if each.state != "ok"]
        assert [(each.check, each.state) for each in bad] == [(check, how)]
        assert bad[0].cure

    def test_a_clock_that_is_off_is_told(self) -> None:
        """Dates have whole seconds, so that a little is nothing."""
        (found,) = checkup.clock_skew({"n1": 1_000, "n2": 61_500}, 1_500)
        assert (found.state, found.found) == ("warning", "n2 is +60 s from here")
        assert checkup.clock_skew({"n1": 1_000}, 2_500)[0].state == "ok"
        assert checkup.clock_skew({}, 0) == []

    def test_the_worst_counts(self) -> None:
        """Of many findings."""
        some = [Finding("a", "ok", ""), Finding("b", "warning", "")]
        assert worst(some) == "warning"
        assert worst([*some, Finding("c", "wrong", "")]) == "wrong"


async def test_a_node_that_does_not_run_yet_is_examined(tmp_path: Path) -> None:
    """Its machine and its peers are; the cluster cannot be asked."""
    async with peer(peers=("n1",)) as (address, _):
        config = config_of(tmp_path, peers=f"n2={address}")
        found = {each.check: each.state for each in await examine(config, None, 500)}
    assert found["node"] == "warning"
    assert found["peer n2"] == "ok"
    assert {"data folder", "disk space", "disk sync", "open files", "port http"} <= found.keys()
    assert "cluster" not in found


def test_a_running_cluster_is_looked_at(tmp_path: Path) -> None:
    """By its endpoints alone: 0 when nothing is wrong."""
    with serving() as endpoint:
        ran = Shell(endpoint, tmp_path).line("coterie doctor -o json")
    found = {each["check"]: each["state"] for each in json.loads(ran.out)["findings"]}
    assert (ran.code, found["cluster"], found["clock"]) == (0, "ok", "ok")


def test_nobody_there_and_wrong_settings_are_told(tmp_path: Path) -> None:
    """1 when something is wrong, 2 when the settings are."""
    with serving() as endpoint:
        pass
    shell = Shell(endpoint, tmp_path)
    assert shell.line("coterie doctor").code == 1
    ran = shell.line("coterie doctor --node n1 -o table")
    assert ran.code == 2
    assert ran.out.startswith("WRONG    settings  ")
