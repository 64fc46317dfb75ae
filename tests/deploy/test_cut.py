"""The script that cuts: against a real toxiproxy, and against real nodes wired as compose does."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.machinery
import importlib.util
import re
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import ModuleType

import aiohttp
import pytest
from jepsen.ports import claimed_ports
from jepsen.progress import progress, until

from cluster.cli.local import HOST
from tests.cli.running import clean_environ, coterie
from tests.deploy.files import DEPLOY
from tests.deploy.test_compose import NODES, environ_of, links, project
from tests.deploy.test_settings import METRIC
from tests.integration.test_toxiproxy import listening
from tests.integration.toxiproxy import Server

DEADLINE_S = 60.0


def script() -> ModuleType:
    """The script as a module: its name has no ending that Python knows."""
    loader = importlib.machinery.SourceFileLoader("deploy_cut", str(DEPLOY / "cut"))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Cut:
    """The script, spoken to one toxiproxy.

    Attributes:
        said: what it printed last, by proxy.
    """

    def __init__(self, server: Server, capsys: pytest.CaptureFixture[str], endpoints: str):
        self._main = script().main
        self._more = ["--toxiproxy", f"{HOST}:{server.address[1]}", "--endpoints", endpoints]
        self._capsys = capsys
        self.said: dict[str, str] = {}
        self.error = ""

    def __call__(self, *words: str) -> int:
        """Run it; returns its exit code."""
        code: int = self._main([*words, *self._more])
        out, self.error = self._capsys.readouterr()
        self.said = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in out.splitlines())
        return code

    def spoilt(self) -> set[str]:
        """Proxies that are not open, as it says itself."""
        return {name for name, words in self.said.items() if words != "open"}


@pytest.fixture
def cut(toxiproxy: Server, capsys: pytest.CaptureFixture[str]) -> Cut:
    """The script, with proxies of three nodes that lead nowhere."""
    for name in links():
        toxiproxy.link(name, (HOST, 9))
    return Cut(toxiproxy, capsys, f"{HOST}:1")


@pytest.mark.parametrize(
    ("words", "spoilt"),
    [
        ("n1 n2", "n1-n2 n2-n1"),
        ("n1", "n1-n2 n1-n3 n2-n1 n3-n1"),
        ("n1,n2 n3", "n1-n3 n2-n3 n3-n1 n3-n2"),
        ("--one-way n1 n2", "n1-n2"),
        ("n2 --one-way", "n2-n1 n2-n3"),
        ("n1 n2 --clients", "n1-n2 n2-n1 http-n1"),
        ("slow n1 n2 200ms", "n1-n2 n2-n1"),
        ("slow n3 2s --jitter 5ms", "n3-n1 n3-n2 n1-n3 n2-n3"),
    ],
)
def test_it_spoils_what_it_is_told_to_and_heals_everything(
    cut: Cut, words: str, spoilt: str
) -> None:
    """By toxiproxy's own word, read back each time; a second time changes nothing."""
    for _ in range(2):
        assert cut(*words.split()) == 0, cut.error
        assert cut.spoilt() == set(spoilt.split())
    assert cut("heal") == 0
    assert cut.spoilt() == set()


def test_it_says_how_it_spoils(cut: Cut) -> None:
    """Cut and slow are told apart, also on one link."""
    cut("slow", "n1", "n2", "200ms", "--jitter", "5ms")
    assert cut.said["n1-n2"] == "slow by 200 ms ± 5 ms"
    cut("--one-way", "n1", "n2")
    assert cut("status") == 0
    assert cut.said["n1-n2"] == "cut, slow by 200 ms ± 5 ms"
    assert cut.said["n2-n1"] == "slow by 200 ms ± 5 ms" and cut.said["n3-n1"] == "open"


def test_it_heals_a_part(cut: Cut) -> None:
    """What is between two nodes, or all of one with its clients."""
    cut("n1", "--clients")
    cut("heal", "n1", "n2")
    assert cut.spoilt() == {"n1-n3", "n3-n1", "http-n1"}
    cut("heal", "n1")
    assert cut.spoilt() == set()


def test_it_leaves_the_toxics_of_others_alone(cut: Cut, toxiproxy: Server) -> None:
    """It heals what it did, and shows the rest."""
    link = toxiproxy.link("n1-n9", (HOST, 9))
    link.slow("upstream", latency_ms=7)
    assert cut("heal") == 0
    assert cut.said["n1-n9"] == "latency_upstream"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "say what to cut"),
        ("n1 n7", "no node n7"),
        ("n1 n2 n3", "two groups at most"),
        ("slow n1 n2 quickly", "no length of time"),
        ("slow", "say by how much"),
        ("slow 200ms", "say what to cut"),
        ("status n1", "takes no names"),
        ("--leader n1", "not both"),
        ("--leader", "does not answer"),
    ],
)
def test_it_says_what_it_cannot_do(cut: Cut, words: str, says: str) -> None:
    """Exit code 1, a sentence, and nothing changed."""
    assert cut(*words.split()) == 1
    assert says in cut.error
    cut("status")
    assert cut.spoilt() == set()


def test_it_wants_a_toxiproxy_of_ours(
    toxiproxy: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """One without our proxies is not touched, and none at all is said."""
    toxiproxy.link("theirs", (HOST, 9))
    assert Cut(toxiproxy, capsys, "")("heal") == 1
    main = script().main
    assert main(["status", "--toxiproxy", f"{HOST}:1"]) == 1
    assert "does not answer" in capsys.readouterr().err


async def test_a_cut_link_is_silent_and_healing_ends_what_was_silenced(
    toxiproxy: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is said on a cut link arrives nowhere, then or later; a new connection works."""
    heard: list[bytes] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            heard.append(line)
            writer.write(line)
            await writer.drain()

    async with listening(echo) as address:
        link = toxiproxy.link("n1-n2", address)
        for name in ("n2-n1", "http-n1", "http-n2"):
            toxiproxy.link(name, address)
        cut = Cut(toxiproxy, capsys, "")

        async def say(line: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*link.address)
            writer.write(line)
            await writer.drain()
            return reader, writer

        reader, writer = await say(b"before\n")
        assert await reader.readline() == b"before\n"
        assert await asyncio.to_thread(cut, "n1", "n2") == 0
        writer.write(b"lost\n")
        other, other_writer = await say(b"lost too\n")
        assert await asyncio.to_thread(cut, "heal") == 0
        async with asyncio.timeout(DEADLINE_S):
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b"" == await other.read()
            again, again_writer = await say(b"after\n")
            assert await again.readline() == b"after\n"
        for each in (writer, other_writer, again_writer):
            each.close()
            with contextlib.suppress(ConnectionError):
                await each.wait_closed()
    assert heard == [b"before\n", b"after\n"]


@pytest.fixture
def ports() -> Iterator[list[int]]:
    """Ports for everything that compose names, which stay ours while nobody listens."""
    with contextlib.ExitStack() as claims:
        yield claimed_ports(2 * len(NODES) + len(links()), claims)


@contextlib.asynccontextmanager
async def as_composed(server: Server, ports: list[int], folder: Path) -> AsyncIterator[list[str]]:
    """The nodes of compose.toxiproxy.yaml as processes, each told by variables alone.

    Every host and port of the files is replaced by one of the loopback, the same for the same.

    Yields:
        where the APIs are, past the proxy, in the order of the nodes.
    """
    real: dict[str, str] = {}

    def local(address: str) -> str:
        if address not in real:
            real[address] = f"{HOST}:{ports[len(real)]}"
        return real[address]

    for name, link in links().items():
        host, _, port = local(link["upstream"]).partition(":")
        through = int(local(f"toxiproxy:{link['listen'].rpartition(':')[2]}").rpartition(":")[2])
        server.link(name, (host, int(port)), port=through)
    async with contextlib.AsyncExitStack() as processes:
        for name in NODES:
            given = environ_of(project("compose.yaml"), name, project("compose.toxiproxy.yaml"))
            peers = (pair.split("=") for pair in given["COTERIE_PEERS"].split(","))
            public = given["COTERIE_ADVERTISE_HTTP"].rpartition(":")[2]
            given |= {
                "COTERIE_DATA": str(folder / name),
                "COTERIE_HTTP": local(f"{name}:7101"),
                "COTERIE_LISTEN": local(f"{name}:7201"),
                "COTERIE_PEERS": ",".join(f"{peer}={local(at)}" for peer, at in peers),
                "COTERIE_ADVERTISE_HTTP": f"http://{local(f'toxiproxy:{public}')}",
            }
            log = processes.enter_context((folder / f"{name}.log").open("wb"))
            process = await processes.enter_async_context(
                coterie("serve", environ=clean_environ(**given), stdout=log, stderr=log)
            )
            processes.callback(send, process, signal.SIGKILL)
        assert len(real) == len(ports)
        yield [local(f"{name}:7101") for name in NODES]


def send(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal, if there is still somebody to get it."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


@pytest.mark.timeout(900)
async def test_a_cluster_wired_as_compose_does_loses_its_leader_to_the_script(
    toxiproxy: Server, ports: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files make a cluster; the cut leader is not ready, another leads; healed, all serve."""
    async with (
        as_composed(toxiproxy, ports, tmp_path) as apis,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
    ):
        urls = dict(zip(NODES, apis, strict=True))
        cut = Cut(toxiproxy, capsys, ",".join(apis))

        async def view(name: str) -> dict[str, object]:
            try:
                async with http.get(f"http://{urls[name]}/v1/cluster") as answer:
                    found: dict[str, object] = await answer.json()
                    progress.reached((tmp_path, name), int(str(found["applied"])))
                    return found
            except aiohttp.ClientError:
                return {"leader": None, "ready": False}

        async def one_leader(*names: str) -> str | None:
            views = [await view(name) for name in names]
            leaders = {str(each["leader"]) if each["ready"] else None for each in views}
            return leaders.pop() if len(leaders) == 1 else None

        async def another() -> str | None:
            found = await one_leader(*(name for name in NODES if name != first))
            return found if found != first else None

        async def first_is_not_ready() -> bool | None:
            return not (await view(first))["ready"] or None

        async def all_serve() -> str | None:
            return await one_leader(*NODES)

        await until(all_serve, "three nodes under one leader")
        first = await until(all_serve, "a leader")
        assert await asyncio.to_thread(cut, "--leader") == 0, cut.error
        assert cut.spoilt() == {name for name in links() if first in name.split("-")} - {
            f"http-{first}"
        }
        await until(another, f"a leader that is not {first}")
        await until(first_is_not_ready, f"{first} to notice")
        assert await asyncio.to_thread(cut, "heal") == 0
        await until(all_serve, "all three again")
        async with http.get(f"http://{apis[0]}/metrics") as answer:
            page = await answer.text()
        assert unknown_metrics(page) == set()


def unknown_metrics(page: str) -> set[str]:
    """Metrics that the page, the rules and the board speak of and a real node does not show."""
    shown = set(re.findall(r"^([a-z_]+)", page, re.MULTILINE))
    named = {
        metric
        for file in ("README.md", "alerts.yaml", "grafana.json")
        for metric in METRIC.findall((DEPLOY / file).read_text(encoding="utf-8"))
        if not metric.endswith("_")
    }
    # A histogram shows itself as its parts.
    return {name for name in named if name not in shown and f"{name}_bucket" not in shown}
