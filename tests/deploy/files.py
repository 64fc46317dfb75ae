"""What the tests of `deploy/` read, and what a node would make of it.

RULE: reads files and applies the node's own rules to them; judges nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cluster.node import config
from cluster.node.config import Config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SECRET = "a secret that is long enough"
VARIABLE = re.compile(r"\bCOTERIE_[A-Z0-9_]+\b")

SETTINGS = frozenset(
    config.ENVIRONMENT_PREFIX + name
    for name in (*(entry.key.upper() for entry in config.SETTINGS), *config.OTHER_VARIABLES)
)


def documents(file: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    with file.open(encoding="utf-8") as text:
        return list(yaml.safe_load_all(text))


def document(file: Path) -> dict[str, Any]:
    """The one document of a YAML file."""
    (only,) = documents(file)
    return only


def node_of(environ: Mapping[str, str]) -> Config:
    """The settings a node would have in such an environment; wrong ones raise ConfigError."""
    return config.load({}, environ)


def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile: the word, and the rest with continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word, re.sub(r"\s+", " ", rest).strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def image_environ() -> dict[str, str]:
    """Variables that the image sets, of ours."""
    pairs: dict[str, str] = {}
    for word, rest in dockerfile():
        if word == "ENV":
            pairs |= dict(re.findall(r"(\w+)=(\S+)", rest))
    return {name: value for name, value in pairs.items() if name.startswith("COTERIE_")}


def every_file() -> list[Path]:
    """All files of `deploy/`."""
    return [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]
