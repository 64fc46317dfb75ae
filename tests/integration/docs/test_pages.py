"""Every example of the documentation, run as it stands, page by page, at one real cluster.

Pages show the ports that `coterie dev` uses, and its folder `.coterie`; here both are those of the
cluster of the test. What is not run is listed in tests/docs/test_pages.py, page by page.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from cluster.client.aio import Client
from cluster.client.core import Request
from tests.docs.comparing import is_shown
from tests.docs.pages import ELSEWHERE, Block, blocks_of, commands_of, pages, text_of
from tests.integration.cluster import NAMES, Cluster, started
from tests.integration.docs.shell import Forker, Shell

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The cluster of all pages."""
    async with started(tmp_path_factory.mktemp("docs")) as cluster:
        yield cluster


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """What the examples of pages use beside ours."""
    missing = [tool for tool in ("bash", "curl", "jq", "pgrep") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Forker]:
    """What runs Python quickly."""
    async with Forker(tmp_path_factory.mktemp("desk")) as forker:
        yield forker


def run_pages() -> list[str]:
    """Pages with examples to be run here."""
    return [
        page
        for page in pages()
        if not ELSEWHERE.fullmatch(page)
        and any(block.is_run for block in blocks_of(page, text_of(page)))
    ]


@pytest.mark.parametrize("page", run_pages())
async def test_the_examples_of_a_page_work(
    page: str, cluster: Cluster, forker: Forker, tmp_path: Path
) -> None:
    """In their order; each prints what the page shows."""
    await cluster.make_whole()
    await end_all_sessions(cluster)
    place = Place(cluster)
    folder = tmp_path / re.sub(r"\W", "-", page)
    folder.mkdir()
    variables = {"COTERIE_ENDPOINTS": ",".join(place.endpoints)}
    async with Shell(forker.desk, folder, variables) as shell:
        before: str | None = None
        for block in blocks_of(page, text_of(page)):
            if block.is_output:
                assert before is not None, f"{page}:{block.line}: of what is this the output?"
                assert is_shown(block.text, before), told(block, block.text, before)
            elif block.is_run and block.language == "console":
                await run_console(block, shell, place)
            elif block.is_run:
                program = folder / f"line-{block.line}.py"
                program.write_text(place.here(block.text), encoding="utf-8")
                ran = await shell.run(f"python {program.name}")
                before = place.there(ran.printed)
                assert ran.code == 0, told(block, "exit code 0", f"{ran.code}\n{before}")


async def test_every_metric_is_told(cluster: Cluster) -> None:
    """What a node shows and what the page tells of are the same."""
    await cluster.make_whole()
    async with aiohttp.ClientSession() as http:
        url = f"{cluster.members[NAMES[0]].url}/metrics"
        async with http.get(url) as response:
            page = await response.text()
    shown = set(re.findall(r"(?m)^# TYPE (coterie_\w+) ", page))
    told = set(re.findall(r"`(coterie_\w+)`", text_of("reference/metrics.md")))
    assert {name for name in shown if not name.endswith("_created")} == told


class Place:
    """Ports and folder as the pages have them, and as they are here."""

    def __init__(self, cluster: Cluster):
        self.endpoints = [cluster.members[name].url for name in NAMES]
        ports = [str(cluster.members[name].http.port) for name in NAMES]
        self._here = {f"710{number}": port for number, port in enumerate(ports, start=1)}
        self._there = {port: shown for shown, port in self._here.items()}
        self._folder = str(cluster.folder)

    def here(self, text: str) -> str:
        """What a page says, for this cluster."""
        text = re.sub(r"\b710[123]\b", lambda found: self._here[found[0]], text)
        return text.replace(".coterie/", f"{self._folder}/")

    def there(self, text: str) -> str:
        """What was printed here, as a page would show it."""
        ports = "|".join(self._there)
        text = re.sub(rf"\b({ports})\b", lambda found: self._there[found[0]], text)
        return text.replace(f"{self._folder}/", ".coterie/")


async def run_console(block: Block, shell: Shell, place: Place) -> None:
    """Run the commands of a block. One that fails is to be seen to fail, by what it prints."""
    for command in commands_of(block):
        ran = await shell.run(place.here(command.text))
        printed = place.there(ran.printed)
        where = f"{block.page}:{command.line}: {command.text}"
        assert ran.code == 0 or command.output, f"{where}\nexit code {ran.code}\n{printed}"
        if command.output or printed.strip():
            assert is_shown(command.output, printed), (
                f"{where}\n--- shown\n{command.output}\n--- printed\n{printed}"
            )


def told(block: Block, shown: str, printed: str) -> str:
    """For people."""
    return f"{block.page}:{block.line}\n--- shown\n{shown}\n--- printed\n{printed}"


async def end_all_sessions(cluster: Cluster) -> None:
    """So that no page is in the way of the next."""
    async with Client([cluster.members[name].url for name in NAMES]) as client:
        while sessions := await listed(client):
            for session in sessions:
                await client.close_session(session)


async def listed(client: Client) -> list[str]:
    """Ids of live sessions."""
    answer = await client.call(Request("GET", "/v1/sessions"))
    return [session["session"] for session in answer.body["sessions"]]
