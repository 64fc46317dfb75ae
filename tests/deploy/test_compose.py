"""The compose files: known words only, nodes that would start, links that lead where they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any, Literal

import msgspec
import pytest

from tests.deploy.files import DEPLOY, SECRET, document, image_environ, node_of

NODES = ("n1", "n2", "n3")


class Build(msgspec.Struct, forbid_unknown_fields=True):
    context: str
    dockerfile: str


class Mount(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    target: str


class Service(msgspec.Struct, forbid_unknown_fields=True):
    """The words of the Compose Specification that we use; another one fails."""

    image: str = ""
    build: Build | None = None
    command: list[str] = []
    environment: dict[str, str] = {}
    ports: list[str] = []
    volumes: list[str] = []
    configs: list[Mount] = []
    depends_on: list[str] = []
    restart: Literal["", "no", "always", "on-failure", "unless-stopped"] = ""
    stop_grace_period: str = ""
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []
    ulimits: dict[str, int] = {}


class ConfigFile(msgspec.Struct, forbid_unknown_fields=True):
    file: str


class Project(msgspec.Struct, forbid_unknown_fields=True):
    services: dict[str, Service]
    name: str = ""
    volumes: dict[str, None] = {}
    configs: dict[str, ConfigFile] = {}


def project(name: str) -> Project:
    """A compose file, without its own fragments (x-…)."""
    found = {key: value for key, value in document(DEPLOY / name).items() if key[:2] != "x-"}
    return msgspec.convert(found, Project)


@pytest.fixture
def plain() -> Project:
    """Three nodes."""
    return project("compose.yaml")


@pytest.fixture
def proxied() -> Project:
    """What comes on top: the toxiproxy."""
    return project("compose.toxiproxy.yaml")


def environ_of(plain: Project, name: str, *over: Project) -> dict[str, str]:
    """What a node's process sees: the image's variables, then the files' in their order."""
    found = image_environ()
    for each in (plain, *over):
        found |= each.services[name].environment
    assert found["COTERIE_SECRET"].startswith("${COTERIE_SECRET:?")
    return found | {"COTERIE_SECRET": SECRET}


def links() -> dict[str, dict[str, Any]]:
    """Proxies of toxiproxy.json by name."""
    rows = json.loads((DEPLOY / "toxiproxy.json").read_text(encoding="utf-8"))
    return {row["name"]: row for row in rows}


def test_three_nodes_know_each_other(plain: Project) -> None:
    """Each would start, under its own name, with the two others as peers at the right port."""
    assert tuple(plain.services) == NODES
    nodes = {name: node_of(environ_of(plain, name)) for name in NODES}
    for name, node in nodes.items():
        assert node.node == name
        assert set(node.peers) == set(NODES) - {name}
        for peer, at in node.peers.items():
            assert (at.host, at.port) == (peer, nodes[peer].listen.port)


def test_every_node_keeps_its_data_in_a_volume_of_its_own(plain: Project) -> None:
    """Two nodes on one folder would destroy it; one without forgets its votes."""
    places = [tuple(plain.services[name].volumes[0].split(":")) for name in NODES]
    assert [source for source, _ in places] == list(NODES) == list(plain.volumes)
    assert {target for _, target in places} == {image_environ()["COTERIE_DATA"]}


def test_ports_are_published_on_the_loopback_and_lead_to_the_api(plain: Project) -> None:
    """What a node tells clients of itself is where it is published."""
    for name in NODES:
        host, outside, inside = plain.services[name].ports[0].split(":")
        node = node_of(environ_of(plain, name))
        assert host == "127.0.0.1" and int(inside) == node.http.port
        assert node.advertise_http == f"http://127.0.0.1:{outside}"


def test_no_container_has_more_than_it_needs(plain: Project, proxied: Project) -> None:
    """Read-only, no capabilities, no new privileges."""
    for service in (*plain.services.values(), proxied.services["toxiproxy"]):
        assert service.read_only and service.cap_drop == ["ALL"]
        assert service.security_opt == ["no-new-privileges:true"]


def test_a_node_is_given_longer_to_stop_than_it_takes(plain: Project) -> None:
    """Compose kills after the grace."""
    for name in NODES:
        node = node_of(environ_of(plain, name))
        grace_s = int(plain.services[name].stop_grace_period.removesuffix("s"))
        assert grace_s * 1000 > node.drain_timeout_ms + 2_000


def test_every_directed_link_has_a_proxy_of_its_own(plain: Project, proxied: Project) -> None:
    """n1 dials n2 at the proxy n1-n2, which leads to where n2 awaits its peers."""
    ports = set()
    for name in NODES:
        node = node_of(environ_of(plain, name, proxied))
        assert set(node.peers) == set(NODES) - {name}
        for peer, at in node.peers.items():
            link = links()[f"{name}-{peer}"]
            target = node_of(environ_of(plain, peer))
            assert at.host == "toxiproxy"
            assert link["listen"] == f"0.0.0.0:{at.port}"
            assert link["upstream"] == f"{peer}:{target.listen.port}"
            ports.add(at.port)
    assert len(ports) == 6


def test_every_api_has_a_proxy_that_clients_are_told_of(plain: Project, proxied: Project) -> None:
    """The address a node advertises is its proxy's, published on the loopback."""
    published = {port.split(":")[1]: port for port in proxied.services["toxiproxy"].ports}
    for name in NODES:
        node = node_of(environ_of(plain, name, proxied))
        link = links()[f"http-{name}"]
        port = node.advertise_http.rpartition(":")[2]
        assert link["listen"] == f"0.0.0.0:{port}"
        assert link["upstream"] == f"{name}:{node.http.port}"
        assert published[port] == f"127.0.0.1:{port}:{port}"
    assert "8474" in published
    assert len(links()) == 9 and all(link["enabled"] for link in links().values())


def test_the_toxiproxy_is_the_one_that_tests_use(proxied: Project) -> None:
    """One version of the tool everywhere."""
    from tests.tools.toxiproxy_server import VERSION

    assert proxied.services["toxiproxy"].image.endswith(f":{VERSION}")
    assert proxied.configs["links"].file == "./toxiproxy.json"


def test_docker_compose_takes_the_files() -> None:
    """Its own judgement, where it is installed."""
    program = shutil.which("docker")
    has_compose = program is not None and (
        subprocess.run([program, "compose", "version"], capture_output=True, check=False).returncode
        == 0
    )
    if not has_compose:
        pytest.skip("docker compose is not on this machine")
    assert program is not None
    files = ["--file", "compose.yaml", "--file", "compose.toxiproxy.yaml"]
    ended = subprocess.run(
        [program, "compose", *files, "config", "--quiet"],
        cwd=DEPLOY,
        env=os.environ | {"COTERIE_SECRET": SECRET},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
