"""The manifests: valid by Kubernetes' own schemas, and right for a cluster that votes."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest

import cluster
from cluster.cli.serve import command
from cluster.node import config
from cluster.node.config import ConfigError
from tests.deploy.files import KUBERNETES, SECRET, document, documents, node_of

# The oldest we mean to serve, and the newest that the library knows.
VERSIONS = ("1.31", kubernetes_validate.latest_version())
MANIFESTS = sorted(
    file.name for file in KUBERNETES.glob("*.yaml") if file.name != "kustomization.yaml"
)


def kind(name: str, named: str = "coterie") -> dict[str, Any]:
    """The object of a kind."""
    found = [
        each
        for file in MANIFESTS
        for each in documents(KUBERNETES / file)
        if each["kind"] == name and each["metadata"]["name"] == named
    ]
    (only,) = found
    return only


def pod() -> dict[str, Any]:
    """The pod that the StatefulSet makes."""
    spec: dict[str, Any] = kind("StatefulSet")["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    """Its only container."""
    (only,) = pod()["containers"]
    return dict(only)


def environ_of(number: int) -> dict[str, str]:
    """What the node in one pod sees, with references resolved as Kubernetes does."""
    found: dict[str, str] = {}
    for each in container()["env"]:
        if "value" in each:
            value = each["value"]
        elif "fieldRef" in each["valueFrom"]:
            assert each["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
            value = f"coterie-{number}"
        else:
            assert each["valueFrom"]["secretKeyRef"] == {"name": "coterie", "key": "secret"}
            value = SECRET
        # Only variables named before it are known.
        found[each["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", MANIFESTS)
def test_every_object_is_valid_by_the_schema(file: str, version: str) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    for each in documents(KUBERNETES / file):
        kubernetes_validate.validate(each, version, strict=True)


def test_the_kustomization_takes_everything_but_the_example() -> None:
    """A secret is made by hand, not applied from a file."""
    resources = document(KUBERNETES / "kustomization.yaml")["resources"]
    assert sorted(resources) == [name for name in MANIFESTS if ".example." not in name]


def test_kubectl_builds_the_whole() -> None:
    """Kustomize's own judgement, where kubectl is installed."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not on this machine")
    ended = subprocess.run(
        [program, "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("\nkind: ") == 5


def test_every_pod_makes_a_node() -> None:
    """Its name is the pod's, its peers are the others, at the port where they await it."""
    replicas = kind("StatefulSet")["spec"]["replicas"]
    nodes = [node_of(environ_of(number)) for number in range(replicas)]
    names = {f"coterie-{number}" for number in range(replicas)}
    service = kind("StatefulSet")["spec"]["serviceName"]
    for node in nodes:
        assert set(node.peers) == names - {node.node}
        assert node.advertise_http == f"http://{node.node}.{service}:{node.http.port}"
        for peer, at in node.peers.items():
            assert (at.host, at.port) == (f"{peer}.{service}", node.listen.port)
        mounts = [mount["mountPath"] for mount in container()["volumeMounts"]]
        # Below the mount: the root of a volume may hold things of its file system.
        assert any(str(node.data).startswith(f"{mount}/") for mount in mounts)


def test_the_command_line_is_one_that_the_program_takes() -> None:
    """The image brings the program; the manifest its arguments."""
    first, *rest = container()["args"]
    assert first == "serve"
    command.make_context(first, rest)


def test_ports_agree_from_the_service_to_the_socket() -> None:
    """By name, so that a number stands in one place."""
    node = node_of(environ_of(0))
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": node.http.port, "peers": node.listen.port}
    for name in ("coterie", "coterie-peers"):
        for port in kind("Service", name)["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]
    assert node.http.is_wildcard and node.listen.is_wildcard


def test_nodes_find_each_other_before_they_are_ready() -> None:
    """They start together, and have names without being ready: else nobody ever would be."""
    peers = kind("Service", kind("StatefulSet")["spec"]["serviceName"])["spec"]
    assert peers["clusterIP"] == "None" and peers["publishNotReadyAddresses"] is True
    assert kind("StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"
    assert "publishNotReadyAddresses" not in kind("Service")["spec"]


def test_one_node_at_a_time_may_be_missing() -> None:
    """By eviction, by update, or by the loss of a machine."""
    assert kind("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert kind("StatefulSet")["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    (term,) = pod()["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"


def test_all_selectors_mean_the_same_pods() -> None:
    """The labels of the template."""
    labels = kind("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = [
        kind("StatefulSet")["spec"]["selector"]["matchLabels"],
        kind("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        kind("Service")["spec"]["selector"],
        kind("Service", "coterie-peers")["spec"]["selector"],
    ]
    assert all(selector == labels for selector in selectors)


def test_a_data_folder_outlives_its_pod() -> None:
    """A claim per node, kept when the set is scaled or deleted."""
    spec = kind("StatefulSet")["spec"]
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == container()["volumeMounts"][0]["name"]
    kept = {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["persistentVolumeClaimRetentionPolicy"] == kept


def test_only_who_does_not_answer_at_all_is_started_again() -> None:
    """A node that is cut off is alive and not ready: to restart it would help nobody."""
    assert container()["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    for probe in ("livenessProbe", "startupProbe"):
        assert container()[probe]["httpGet"] == {"path": "/livez", "port": "http"}
    startup = container()["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_a_pod_is_given_longer_to_end_than_it_takes() -> None:
    """The pause for clients to hear of it, the drain, and a reserve."""
    pause_s = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    drain_s = node_of(environ_of(0)).drain_timeout_ms / 1000
    assert pod()["terminationGracePeriodSeconds"] >= pause_s + drain_s + 10


def test_the_pod_has_no_privilege() -> None:
    """No root, nothing to write but its data, no capability, no token of the API."""
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] == 10001
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_peers_are_reached_by_peers_only() -> None:
    """The policy names ports that the pod has, and lets nobody else in at the peers' one."""
    spec = kind("NetworkPolicy")["spec"]
    names = {port["name"] for port in container()["ports"]}
    for rule in spec["ingress"]:
        for port in rule["ports"]:
            assert port["port"] in names
            if port["port"] == "peers":
                assert rule["from"] == [{"podSelector": spec["podSelector"]}]
    assert {"Ingress", "Egress"} == set(spec["policyTypes"])


def test_the_example_of_a_secret_makes_no_node() -> None:
    """Whoever applies it unchanged is told so by the node."""
    value = kind("Secret")["stringData"]["secret"]
    assert len(value) < config.SECRET_LENGTH_MIN
    with pytest.raises(ConfigError, match="secret"):
        node_of(environ_of(0) | {"COTERIE_SECRET": value})


def test_the_image_is_of_this_version() -> None:
    """A release moves the manifest too."""
    assert container()["image"] == f"coterie:{cluster.__version__}"
