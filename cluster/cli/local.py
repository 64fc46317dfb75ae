"""A cluster on this machine: its folder, and one process per node.

RULE: starts, watches and ends processes of `coterie serve`; tells nobody anything. Who shows it
(`dev`, `demo`, tests) is told by callbacks and values.

The folder holds the cluster's secret, and for each node its settings (`n1.toml`) and its data
(`n1/`), so that one node can be started by hand: `coterie serve --config FOLDER/n1.toml`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cluster
from cluster.cli import processes
from cluster.client.aio import Client, ClusterState
from cluster.client.core import Policy
from cluster.errors import CoterieError
from cluster.node.config import Address

HOST = "127.0.0.1"
PROBE = Policy(attempt_ms=1_000, connect_ms=500)
LOOK_EVERY_S = 0.05


class CannotStart(Exception):
    """The cluster cannot be started; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One node of a local cluster. `fronts`: where each compatible front listens, by its name."""

    name: str
    http: Address
    listen: Address
    fronts: Mapping[str, Address] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Base URL of its API."""
        return f"http://{self.http}"


def planned(
    count: int, *, http_base: int, peer_base: int, fronts: Sequence[str] = (), front_base: int = 0
) -> tuple[Member, ...]:
    """Members n1, n2, … on consecutive ports.

    Args:
        fronts: names of those that every node serves.
        front_base: port of the first node's first front; the next front begins ten ports later.
    """
    return tuple(
        Member(
            f"n{number + 1}",
            Address(HOST, http_base + number),
            Address(HOST, peer_base + number),
            {
                name: Address(HOST, front_base + 10 * row + number)
                for row, name in enumerate(fronts)
            },
        )
        for number in range(count)
    )


def planned_anywhere(count: int, *, fronts: Sequence[str] = ()) -> tuple[Member, ...]:
    """Members on ports that are free now."""
    each = 2 + len(fronts)
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(each * count):
            taken = held.enter_context(socket.socket())
            taken.bind((HOST, 0))
            ports.append(taken.getsockname()[1])
    return tuple(
        Member(
            f"n{number + 1}",
            Address(HOST, ports[each * number]),
            Address(HOST, ports[each * number + 1]),
            {
                name: Address(HOST, ports[each * number + 2 + row])
                for row, name in enumerate(fronts)
            },
        )
        for number in range(count)
    )


class LocalCluster:
    """The processes of a cluster on this machine. Everything it starts ends with it.

    Args:
        folder: secret, settings and data; made where it is not there.
        members: who they are. A folder keeps its number of nodes for ever.
        on_line: called with a node's name and each line it writes.
        on_end: called with a node's name and return code when its process ends.
    """

    def __init__(
        self,
        folder: Path,
        members: Iterable[Member],
        *,
        on_line: Callable[[str, str], None] = lambda name, line: None,
        on_end: Callable[[str, int], None] = lambda name, returncode: None,
    ):
        self.folder = folder
        self.members = {member.name: member for member in members}
        self._on_line = on_line
        self._on_end = on_end
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._watchers: dict[str, asyncio.Task[None]] = {}

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Base URLs of all members."""
        return tuple(member.url for member in self.members.values())

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the members whose processes run."""
        return tuple(
            name for name, process in self._processes.items() if process.returncode is None
        )

    def command_of(self, name: str) -> tuple[str, ...]:
        """How to start one node by hand."""
        return (*our_command(), "serve", "--config", str(self._settings_file(name)))

    def prepare(self, *, log_level: str = "info") -> None:
        """Make the folder ready, and see that all ports are free.

        Raises:
            CannotStart: the folder holds a cluster of another size, or a port is taken.
        """
        self._check_size()
        for member in self.members.values():
            for address in (member.http, member.listen, *member.fronts.values()):
                _check_free(address)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_secret()
        for name in self.members:
            self._settings_file(name).write_text(self._settings(name, log_level), encoding="utf-8")

    async def start(self, *names: str) -> None:
        """Start these nodes; all when none is named."""
        for name in names or tuple(self.members):
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                # Not from the working folder, which may hold another "cluster".
                "-P",
                "-m",
                "cluster.cli",
                "serve",
                "--config",
                str(self._settings_file(name)),
                env=_node_environ(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C at the terminal is ours to pass on, in order.
                process_group=0,
                preexec_fn=processes.dies_with_parent(),
            )
            self._processes[name] = process
            self._watchers[name] = asyncio.create_task(self._watch(name, process))

    def signal(self, name: str, number: int) -> None:
        """Send a signal to one node."""
        process = self._processes[name]
        if process.returncode is None:
            process.send_signal(number)

    async def ended(self, name: str) -> int:
        """Wait for the end of one node's process.

        Returns:
            its return code.
        """
        await asyncio.wait({self._watchers[name]})
        returncode = self._processes[name].returncode
        assert returncode is not None
        return returncode

    async def stop(self, *, grace_s: float = 10.0) -> tuple[str, ...]:
        """Stop all nodes: they are asked to, and killed when the grace is over.

        Returns:
            names of those that had to be killed.
        """
        for name in self.running:
            self.signal(name, signal.SIGTERM)
        watchers = set(self._watchers.values())
        if watchers:
            await asyncio.wait(watchers, timeout=grace_s)
        return await self.kill()

    async def kill(self) -> tuple[str, ...]:
        """End all nodes at once.

        Returns:
            names of those that still ran.
        """
        left = self.running
        for name in left:
            self.signal(name, signal.SIGKILL)
        if self._watchers:
            await asyncio.wait(set(self._watchers.values()))
        return left

    async def state(self, name: str) -> ClusterState | None:
        """The cluster as one node sees it; None where that node does not answer."""
        try:
            async with Client(self.members[name].url, policy=PROBE, timeout_ms=1_000) as client:
                return await client.cluster()
        except CoterieError:
            return None

    async def until_ready(self, *names: str, within_s: float) -> ClusterState:
        """Wait until these nodes (all that run when none is named) know one leader and serve.

        Raises:
            CannotStart: a node ended meanwhile.
            TimeoutError: they did not become ready in time.
        """
        expected = names or self.running
        async with asyncio.timeout(within_s):
            while True:
                for name in expected:
                    if name not in self.running:
                        returncode = self._processes[name].returncode or 0
                        raise CannotStart(f"{name} {processes.ending_of(returncode)}")
                states = await asyncio.gather(*(self.state(name) for name in expected))
                found = [state for state in states if state is not None and state.ready]
                leaders = {state.leader for state in found}
                if len(found) == len(expected) and len(leaders) == 1 and None not in leaders:
                    return found[0]
                await asyncio.sleep(LOOK_EVERY_S)

    async def _watch(self, name: str, process: asyncio.subprocess.Process) -> None:
        """Pass on what a node writes until it ends."""
        assert process.stdout is not None
        rest = b""
        while chunk := await process.stdout.read(65_536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._on_line(name, line.decode(errors="replace"))
        if rest:
            self._on_line(name, rest.decode(errors="replace"))
        self._on_end(name, await process.wait())

    def _settings_file(self, name: str) -> Path:
        return self.folder / f"{name}.toml"

    def _settings(self, name: str, log_level: str) -> str:
        """TOML of one node. Its strings are JSON's, as far as these go."""
        member = self.members[name]
        settings = {
            "cluster": "local",
            "node": name,
            "data": name,
            "http": str(member.http),
            "listen": str(member.listen),
            "secret_file": "secret",
            "log_format": "json",
            "log_level": log_level,
        }
        for front, address in member.fronts.items():
            settings[f"front_{front.replace('-', '_')}"] = str(address)
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        lines += ["", "[peers]"]
        lines += [f'{peer} = "{other.listen}"' for peer, other in self.members.items()]
        return "\n".join(lines) + "\n"

    def _make_secret(self) -> None:
        secret, fresh = self.folder / "secret", self.folder / "secret.new"
        if secret.exists():
            return
        # Closed to others before it holds anything, and whole before it has its name.
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(32) + "\n", encoding="ascii")
        fresh.rename(secret)

    def _check_size(self) -> None:
        """A cluster grows and shrinks by agreement of its nodes only: nodes that are added by
        hand outvote those that hold the data.
        """
        known = {
            path.name
            for path in self.folder.glob("n*")
            if path.is_dir() and re.fullmatch(r"n[0-9]+", path.name)
        }
        if known and known != set(self.members):
            raise CannotStart(
                f"{self.folder} holds a cluster of {len(known)} nodes, not of "
                f"{len(self.members)}: use --nodes {len(known)}, or another folder by --data"
            )


def our_command() -> tuple[str, ...]:
    """How we were called ourselves: the script need not be on the PATH."""
    itself = Path(sys.argv[0])
    return (str(itself),) if itself.name == "coterie" else (sys.executable, "-m", "cluster.cli")


def _node_environ() -> dict[str, str]:
    """Our environment without settings, which would override a node's file, and with the place
    that we were imported from.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COTERIE_")}
    places = [str(Path(cluster.__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
    return kept | {"PYTHONPATH": os.pathsep.join(places)}


def _check_free(address: Address) -> None:
    with socket.socket() as probe:
        # As servers do: a port that only lingers from earlier connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CannotStart(
                f"{address} cannot be listened on: {error.strerror}. Stop what uses it (perhaps "
                'another "coterie dev"), or choose other ports by --http-base, --peer-base and --front-base'
            ) from None
