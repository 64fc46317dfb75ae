"""Whatever `deploy/` names exists: settings, files, metrics, ports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.node import config
from cluster.node.config import Address
from tests.deploy.files import DEPLOY, ROOT, SETTINGS, VARIABLE, document, every_file

METRIC = re.compile(r"\b(?:coterie_(?!node\b)[a-z0-9_]+|process_[a-z_]+)\b")
PORTS = {config.DEFAULTS["http"].port, config.DEFAULTS["listen"].port}


@pytest.mark.parametrize("file", every_file(), ids=lambda file: file.name)
def test_every_variable_is_a_setting(file: Path) -> None:
    """A COTERIE_ name that no node reads would be ignored in silence."""
    named = set(VARIABLE.findall(file.read_text(encoding="utf-8")))
    # Named to warn of it: what Kubernetes would add.
    assert named - SETTINGS <= {"COTERIE_PORT"}


def test_the_page_names_the_ports_of_the_code() -> None:
    """The two that every node has, and every front that can be switched on."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for port in PORTS:
        assert f"| {port} |" in text
    for front in config.FRONTS:
        assert f"front_{front.replace('-', '_')}" in text


@pytest.mark.parametrize("name", ["README.md", "alerts.yaml", "grafana.json"])
def test_every_metric_is_one_that_nodes_show(name: str) -> None:
    """By the names in the sources; a real page is asked in test_cut.py."""
    known = known_metrics()
    text = (DEPLOY / name).read_text(encoding="utf-8")
    unknown = {
        metric
        for metric in METRIC.findall(text)
        if metric not in known and not metric.endswith("_") and not metric.startswith("process_")
    }
    assert unknown == set()


def known_metrics() -> set[str]:
    """Names as Prometheus sees them, from the sources that make them."""
    from cluster.machine.machine import Counts
    from cluster.node.settings import Counters

    known = {f"coterie_machine_{field}" for field in Counts.__struct_fields__}
    known |= {f"coterie_node_{field}_total" for field in Counters.__dataclass_fields__}
    for place in ("gateway/figures.py", "telemetry/metrics.py"):
        tree = ast.parse((ROOT / "cluster" / place).read_text(encoding="utf-8"))
        names = {
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and re.fullmatch(r"coterie_[a-z_]+", node.value)
        }
        known |= {f"{name}{end}" for name in names for end in ("", "_total", "_bucket")}
    return known


def test_the_alerts_are_whole() -> None:
    """A name, an expression, a severity and a sentence each; names are unique."""
    (group,) = document(DEPLOY / "alerts.yaml")["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert len(set(names)) == len(names) > 5
    for rule in group["rules"]:
        assert rule["expr"] and rule["annotations"]["summary"].endswith(".")
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["expr"].count("(") == rule["expr"].count(")")


def test_the_board_has_no_panel_on_another() -> None:
    """Twenty-four columns wide, every panel with something to show."""
    panels = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24 and not cells & taken
        taken |= cells
        assert all('{job="$job"}' in target["expr"] for target in panel["targets"])


def test_the_page_links_files_that_are_there() -> None:
    """Relative links lead somewhere, and every file of the folder is told of."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!#)([^)]+)\)", text):
        assert (DEPLOY / link.partition("#")[0]).exists(), link
    untold = [
        file.name
        for file in every_file()
        if file.name != "README.md" and file.name not in text and file.parent == DEPLOY
    ]
    assert untold == []


def test_an_example_of_settings_makes_a_node() -> None:
    """coterie.toml is what one node of three needs, once its secret is there."""
    node = config.load({}, {"COTERIE_SECRET": "x" * 32}, file=DEPLOY / "coterie.toml")
    assert node.http.port in PORTS and node.listen.port in PORTS
    assert len(node.peers) == 2 and node.node not in node.peers
    assert all(
        isinstance(at, Address) and at.port == node.listen.port for at in node.peers.values()
    )


@pytest.mark.parametrize("rules", ["check", "format"])
def test_the_script_keeps_the_rules_of_the_house(rules: str) -> None:
    """Ruff looks at what it is told of; a name without .py is none of it."""
    more = ["--check"] if rules == "format" else []
    ended = subprocess.run(
        [sys.executable, "-m", "ruff", rules, *more, "--no-cache", str(DEPLOY / "cut")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
