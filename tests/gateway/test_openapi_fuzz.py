"""Requests drawn from our document, at a cluster of three processes: what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gateway.openapi_fuzz import fuzz

EXAMPLES = 4


@pytest.mark.timeout(600)
async def test_the_document_and_the_server_agree(tmp_path: Path) -> None:
    """No server error, nothing undocumented, every body as its schema says; `make fuzz`: longer."""
    code, said = await fuzz(tmp_path, examples=EXAMPLES, seed=None)
    print(said)
    assert code == 0, f"replay: python -m tests.gateway.openapi_fuzz --examples {EXAMPLES}"
    # Every route that is no stream was tried.
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert tested is not None
    assert tested[1] == tested[3]
