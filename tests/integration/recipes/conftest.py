"""One cluster for the recipes.

RULE: fixtures only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.cluster import Cluster, started


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """Three nodes for all recipes that one process of the test run tries."""
    async with started(tmp_path_factory.mktemp("recipes")) as cluster:
        yield cluster
