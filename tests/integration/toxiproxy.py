"""Toxiproxy for tests: the session's server, and its links.

RULE: fixtures only; the server and its links are jepsen's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from jepsen.toxiproxy import Address, Link, NotAsAskedError, Server, serve

from tests.tools import toxiproxy_server as tool

__all__ = ["Address", "Link", "NotAsAskedError", "Server", "serve"]


@pytest.fixture(scope="session")
def toxiproxy_server() -> Iterator[Server]:
    """The session's toxiproxy-server; use the fixture `toxiproxy` in a test."""
    program = tool.find()
    if program is None:
        missing = (
            "toxiproxy-server is not on this machine: run `make toxiproxy` and see what it says"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with serve(program) as server:
        yield server


@pytest.fixture
def toxiproxy(toxiproxy_server: Server) -> Iterator[Server]:
    """The session's server without any link, before and after the test."""
    toxiproxy_server.clear()
    yield toxiproxy_server
    toxiproxy_server.clear()
