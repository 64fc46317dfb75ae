"""The plugin as a project finds it that has installed Coterie: in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.testing.installed import Project, count_of, examples

pytest_plugins = ["pytester"]


def test_the_examples_of_the_page_pass(project: Project) -> None:
    """What the page on testing shows, copied as it stands; processes are started elsewhere."""
    files = examples(of_processes=False)
    for name, text in files.items():
        project.write(name, text)
    assert count_of(files) > 10
    project.run().assert_outcomes(passed=count_of(files))


def test_who_asks_for_no_fixture_pays_nothing(project: Project) -> None:
    """Nothing of ours is loaded but the plugin itself, and its package."""
    project.write(
        "test_other.py",
        "import json, sys\n"
        "def test_other():\n"
        "    names = [n for n in sys.modules if n.split('.')[0] in {'cluster', 'aiohttp', 'click'}]\n"
        "    print('loaded:', json.dumps(sorted(names)))\n",
    )
    result = project.run("-s")
    result.assert_outcomes(passed=1)
    (line,) = (line for line in result.outlines if "loaded:" in line)
    names = json.loads(line.partition("loaded:")[2].strip().removesuffix("."))
    assert names == ["cluster", "cluster.testing", "cluster.testing.plugin"]


def test_it_can_be_switched_off(project: Project) -> None:
    """By its name, before anything is loaded: a project may have a `cluster` of its own."""
    project.write(
        "test_other.py",
        "import sys\ndef test_other():\n    assert 'cluster' not in sys.modules\n",
    )
    project.run("-p", "no:coterie").assert_outcomes(passed=1)


@pytest.mark.parametrize("backend", ["asyncio", "anyio"])
def test_a_coroutine_uses_it_under(project: Project, backend: str) -> None:
    """The fixture knows no event loop, and so works under whatever plugin runs coroutines."""
    project.write(
        "test_async.py",
        "import pytest\n"
        "@pytest.fixture\n"
        "def anyio_backend():\n"
        "    return 'asyncio'\n"
        f"@pytest.mark.{backend}\n"
        "async def test_async(coterie):\n"
        "    async with coterie.client() as client, client.session(ttl='1s') as session:\n"
        "        async with session.lock('orders') as lock:\n"
        "            coterie.advance('1h')\n"
        "            assert lock.state == 'held'\n",
    )
    project.run().assert_outcomes(passed=1)


def test_workers_of_xdist_do_not_meet(project: Project) -> None:
    """Each test has a node of its own, wherever it runs."""
    project.write(
        "test_many.py",
        "import pytest\n"
        "@pytest.mark.parametrize('number', range(4))\n"
        "def test_many(coterie, number):\n"
        "    with coterie.sync_client() as client, client.session() as session:\n"
        "        assert session.lock('orders', wait='0s').acquire()\n",
    )
    project.run("-n", "2").assert_outcomes(passed=4)


def test_what_a_test_leaves_open_is_closed(project: Project) -> None:
    """Clients and their threads end with the fixture, and nothing warns."""
    project.write(
        "test_left.py",
        "import threading\n"
        "def test_left(coterie):\n"
        "    session = coterie.sync_client().session().open()\n"
        "    session.lock('orders').acquire()\n"
        "def test_then():\n"
        "    assert threading.active_count() == 1\n",
    )
    project.run().assert_outcomes(passed=2)


def test_the_list_of_fixtures_explains_them(project: Project) -> None:
    """`pytest --fixtures` says what each is for."""
    text = project.run("--fixtures").stdout.str()
    assert "A fast cluster of one node in this process" in text
    assert "A real cluster of three processes that all tests share" in text
    assert "of this test alone: empty, and gone with it" in text


def test_the_list_of_marks_explains_them(project: Project) -> None:
    """`pytest --markers` has ours, so that strict projects take them."""
    text = project.run("--markers").stdout.str()
    assert "@pytest.mark.coterie_nodes(count)" in text
    assert "@pytest.mark.coterie_log_level(level)" in text


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("coterie_nodes = many", 'coterie_nodes: "many" is no number from 1 to 9'),
        ("coterie_cluster_scope = year", 'coterie_cluster_scope: "year" is none of session'),
    ],
)
def test_a_wrong_setting_is_told(project: Project, setting: str, complaint: str) -> None:
    """With what may stand there instead, and without a traceback of ours."""
    project.set(setting)
    project.write("test_any.py", "def test_any(coterie_cluster):\n    pass\n")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{complaint}*"])


def test_a_mark_that_the_shared_cluster_cannot_obey_is_told(project: Project) -> None:
    """It is of all tests: a mark of one cannot change it."""
    project.write(
        "test_any.py",
        "import pytest\n@pytest.mark.coterie_nodes(5)\ndef test_any(coterie_cluster):\n    pass\n",
    )
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*coterie_nodes is for coterie_fresh_cluster*"])


@pytest.mark.parametrize("fixture", ["coterie", "coterie_cluster", "coterie_fresh_cluster"])
def test_a_platform_that_cannot_is_told(project: Project, fixture: str) -> None:
    """Before anything of ours is imported that would fail in words of its own."""
    elsewhere = "types.SimpleNamespace(platform='win32')"
    # To the plugin alone: others have reasons of their own to ask.
    project.write(
        "conftest.py",
        f"import types\nfrom cluster.testing import plugin\nplugin.sys = {elsewhere}\n",
    )
    project.write("test_any.py", f"def test_any({fixture}):\n    pass\n")
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*{fixture}: nodes of Coterie run on Linux and macOS*"])


def test_the_examples_are_formatted_like_ours(tmp_path: Path) -> None:
    """They are copied from there."""
    for name, text in (examples(of_processes=False) | examples(of_processes=True)).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff", "format", "--diff", "--isolated", "--line-length", "100"]
    done = subprocess.run([*ruff, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
