"""What pytest gets from the distribution: fixtures, marks and settings. `pytest --fixtures` lists them.

RULE: imports pytest and nothing of ours: every run of pytest where Coterie is installed loads this
file, whether a test asks for a fixture or not. What a fixture does is told by the class it makes.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cluster.testing.processes import ProcessCluster
    from cluster.testing.virtual import VirtualCluster

NODES_DEFAULT = "3"
LOG_LEVEL_DEFAULT = "info"
SCOPES = ("session", "package", "module", "class", "function")
LINES_SHOWN = 200

_SHARED = pytest.StashKey["ProcessCluster"]()
# Those that a test has to do with, and how many lines each had written when it began.
_OF_TEST = pytest.StashKey[dict["ProcessCluster", int]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add our settings."""
    parser.addini(
        "coterie_nodes",
        "how many nodes coterie_cluster and coterie_fresh_cluster have",
        default=NODES_DEFAULT,
    )
    parser.addini(
        "coterie_log_level",
        "log level of the nodes of coterie_cluster and coterie_fresh_cluster",
        default=LOG_LEVEL_DEFAULT,
    )
    parser.addini(
        "coterie_cluster_scope",
        f"how long one coterie_cluster lives: {', '.join(SCOPES)}",
        default="session",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say what our marks mean, and see that our settings mean something.

    Raises:
        pytest.UsageError: one does not.
    """
    _nodes(config.getini("coterie_nodes"), pytest.UsageError)
    scope = config.getini("coterie_cluster_scope")
    if scope not in SCOPES:
        raise pytest.UsageError(f'coterie_cluster_scope: "{scope}" is none of {", ".join(SCOPES)}')
    config.addinivalue_line(
        "markers", "coterie_nodes(count): how many nodes this test's coterie_fresh_cluster has"
    )
    config.addinivalue_line(
        "markers", "coterie_log_level(level): log level of this test's coterie_fresh_cluster"
    )


@pytest.fixture
def coterie() -> Iterator[VirtualCluster]:
    """A fast cluster of one node in this process, whose time stands still until it is passed.

    `coterie.client()` and `coterie.sync_client()` make clients that know its time, `coterie.url`
    is for other programs. `coterie.advance("30s")` passes time at once; `cut`, `pause`, `fail_next`
    and `lose_next` show your program what goes wrong elsewhere. For tests and coroutines alike.
    """
    _see_platform("coterie")
    from cluster.testing.virtual import VirtualCluster  # noqa: PLC0415 - see the rule

    with VirtualCluster() as cluster:
        yield cluster


def _scope(fixture_name: str, config: pytest.Config) -> str:
    scope: str = config.getini("coterie_cluster_scope")
    return scope


@pytest.fixture(scope=_scope)  # type: ignore[arg-type] # as it comes from the settings
def coterie_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    """A real cluster of three processes that all tests share; whole again before each of them.

    `coterie_cluster.urls`, `client()` and `sync_client()` lead to it; `kill("leader")`, `restart`,
    `pause`, `resume`, `leader()` and `wait_ready()` do what their names say. What one test left in
    it the next one finds: choose other names, or use `coterie_fresh_cluster`. Where a test fails,
    its report has what the nodes have written meanwhile.

    Settings: `coterie_nodes`, `coterie_log_level`, `coterie_cluster_scope`.
    """
    _see_platform("coterie_cluster")
    nodes, log_level = _settings(request.config, None)
    folder = tmp_path_factory.mktemp("coterie")
    with _processes("coterie_cluster", folder, nodes, log_level) as cluster:
        request.config.stash[_SHARED] = cluster
        yield cluster
        del request.config.stash[_SHARED]


@pytest.fixture
def coterie_fresh_cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ProcessCluster]:
    """As `coterie_cluster`, of this test alone: empty, and gone with it.

    Marks: `coterie_nodes(5)`, `coterie_log_level("debug")`.
    """
    _see_platform("coterie_fresh_cluster")
    nodes, log_level = _settings(request.config, request.node)
    folder = tmp_path_factory.mktemp("coterie")
    with _processes("coterie_fresh_cluster", folder, nodes, log_level) as cluster:
        _of_test(request.node)[cluster] = 0
        yield cluster


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Make the shared cluster whole for a test that uses it, and remember where its log stands."""
    if "coterie_cluster" not in getattr(item, "fixturenames", ()):
        return
    for mark in ("coterie_nodes", "coterie_log_level"):
        uses_fresh = "coterie_fresh_cluster" in getattr(item, "fixturenames", ())
        if item.get_closest_marker(mark) is not None and not uses_fresh:
            message = (
                f"{mark} is for coterie_fresh_cluster; coterie_cluster is shared: set {mark} in "
            )
            raise pytest.UsageError(message + "the settings of pytest")
    shared = item.config.stash.get(_SHARED, None)
    if shared is not None:
        _of_test(item)[shared] = shared.lines_heard
        shared.make_whole()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the nodes have written to the report of a test that failed."""
    report = yield
    if report.failed:
        clusters = dict(_of_test(item))
        shared = item.config.stash.get(_SHARED, None)
        if shared is not None and "coterie_cluster" in getattr(item, "fixturenames", ()):
            clusters.setdefault(shared, 0)
        for cluster, since in clusters.items():
            report.sections.append(("coterie nodes", _log_of(cluster, since)))
    if call.when == "teardown":
        _of_test(item).clear()
    return report


def _log_of(cluster: ProcessCluster, since: int) -> str:
    from cluster.testing.processes import readable  # noqa: PLC0415 - see the rule

    lines = cluster.log(since=since)
    left_out = max(0, len(lines) - LINES_SHOWN)
    head = f"({left_out} lines left out)\n" if left_out else ""
    return head + readable(lines[left_out:])


def _of_test(item: pytest.Item) -> dict[ProcessCluster, int]:
    return item.stash.setdefault(_OF_TEST, {})


def _processes(fixture: str, folder: Path, nodes: int, log_level: str) -> ProcessCluster:
    from cluster.testing.processes import CannotStart, ProcessCluster  # noqa: PLC0415 - see the rule

    try:
        return ProcessCluster(folder, nodes=nodes, log_level=log_level)
    except CannotStart as error:
        pytest.fail(f"{fixture}: {error}", pytrace=False)


def _settings(config: pytest.Config, item: pytest.Item | None) -> tuple[int, str]:
    """How many nodes, and their log level: by mark, else by setting."""
    found: dict[str, object] = {}
    for name in ("coterie_nodes", "coterie_log_level"):
        mark = None if item is None else item.get_closest_marker(name)
        if mark is not None and len(mark.args) != 1:
            pytest.fail(f"{name} takes one argument", pytrace=False)
        found[name] = config.getini(name) if mark is None else mark.args[0]
    return _nodes(found["coterie_nodes"], pytest.fail.Exception), str(found["coterie_log_level"])


def _nodes(text: object, error: type[BaseException]) -> int:
    """How many; raises `error` where it is no number, or none that makes sense."""
    if not str(text).isdecimal() or not 1 <= int(str(text)) <= 9:
        raise error(f'coterie_nodes: "{text}" is no number from 1 to 9')
    return int(str(text))


def _see_platform(fixture: str) -> None:
    if sys.platform == "win32":
        pytest.fail(
            f"{fixture}: nodes of Coterie run on Linux and macOS, not on Windows; run these tests "
            "in WSL or in a container",
            pytrace=False,
        )
