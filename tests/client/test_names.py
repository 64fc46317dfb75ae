"""What users import, and what that costs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cluster

# Libraries of the server and of the command line; the SDK may become a distribution without them.
NOT_OURS = (
    "click",
    "durationpy",
    "prometheus_client",
    "pysyncobj",
    "sortedcontainers",
    "structlog",
)


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_to_import_the_package_costs_nothing() -> None:
    """Nobody pays for what they do not use."""
    loaded = loaded_by("import cluster")
    assert not loaded & {"aiohttp", "asyncio", "msgspec", "typing"}


def test_the_sdk_needs_aiohttp_and_msgspec_only() -> None:
    """And of ours the errors, and the kit for whoever is written to."""
    loaded = loaded_by("from cluster import Client, SyncClient, LockLost, fencing")
    assert not loaded & set(NOT_OURS)
    rooms = {name.split(".")[1] for name in loaded if name.startswith("cluster.")}
    assert rooms == {"client", "errors", "fencing"}


@pytest.mark.parametrize("name", cluster.__all__)
def test_every_public_name_is_there(name: str) -> None:
    """And stays the same object."""
    assert getattr(cluster, name) is getattr(cluster, name)


def test_other_names_are_not() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="nothing_like_that"):
        _ = cluster.nothing_like_that  # type: ignore[attr-defined]
