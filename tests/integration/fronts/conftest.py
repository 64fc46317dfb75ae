"""The one cluster that all tests of fronts share.

RULE: fixtures only. A test module has `pytestmark = pytest.mark.asyncio(loop_scope="session")`, asks
for `cluster`, and leaves nothing behind that others could meet: names of its own, a node it killed
comes back by itself with the next test.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.fronts.cluster import FrontCluster, started


# One for all of them; it ends before other integration tests begin, which count processes.
@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FrontCluster]:
    """The cluster of this package."""
    async with started(tmp_path_factory.mktemp("fronts")) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(running: FrontCluster) -> FrontCluster:
    """The same, whole: all three serve under one leader."""
    await running.make_whole()
    return running
