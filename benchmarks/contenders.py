"""The clusters under test: three processes on the loopback, started, watched, killed, ended.

RULE: knows how each contender is run and asked for its state; measures nothing. All calls block and
come from the main thread (see processes.dies_with_us).
"""

from __future__ import annotations

import http.client
import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import processes

REPOSITORY = Path(__file__).parents[1]
NODES = 3
PATIENCE_S = 30.0
ASK_TIMEOUT_S = 2.0
POLL_S = 0.02


class Unsettled(Exception):
    """The cluster did not come to rest in time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one node says of itself: who leads (as the contender names nodes), how far it is."""

    node: str
    leader: str
    applied: int


class Contender(ABC):
    """One cluster of three nodes, numbered from 0."""

    name: str

    def __init__(self, folder: Path, rng: random.Random):
        self.folder = folder / self.name
        self.folder.mkdir()
        self.ports = processes.free_ports(NODES, rng)
        self.peer_ports = processes.free_ports(NODES, rng)
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * NODES

    @property
    @abstractmethod
    def version(self) -> str:
        """What is measured."""

    @abstractmethod
    def command(self, number: int) -> Sequence[str]:
        """Return the command line of a node."""

    @abstractmethod
    def look(self, number: int) -> Seen | None:
        """Ask a node; None while it does not know a leader. OSError while it does not answer."""

    @abstractmethod
    def hand_over(self, leader: int, to: int) -> tuple[str, str, bytes]:
        """Return method, path and body that make `leader` hand over to `to`."""

    def environment(self) -> dict[str, str]:
        """Return the environment of a node: ours without any setting."""
        return {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("COTERIE_", "ETCD_"))
        }

    def pid(self, number: int) -> int:
        """Return the process id of a running node."""
        process = self._processes[number]
        assert process is not None
        return process.pid

    def start(self) -> int:
        """Start all nodes that are not running; return the leader once all agree."""
        for number in range(NODES):
            if self._processes[number] is None:
                self.start_node(number)
        return self.settled()

    def start_node(self, number: int) -> None:
        """Start one node; it keeps its data."""
        self._processes[number] = processes.start(
            self.command(number),
            log=self.log(number),
            environment=self.environment(),
            folder=REPOSITORY,
        )

    def kill_node(self, number: int) -> None:
        """End a node as a power cut would, its disk cache apart."""
        process = self._processes[number]
        assert process is not None
        process.kill()
        self._processes[number] = None
        process.wait()

    def pause(self) -> None:
        """Freeze all nodes, so that they take nothing from who is measured."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let frozen nodes go on; `settled` waits for what follows."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process is not None:
                process.send_signal(number)

    def stop(self) -> None:
        """End all nodes."""
        self.resume()
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.terminate()
        for number, process in enumerate(self._processes):
            if process is not None:
                processes.end(process)
            self._processes[number] = None

    def log(self, number: int) -> Path:
        """Return the file a node's output goes to."""
        return self.folder / f"node{number}.log"

    def settled(self) -> int:
        """Wait until all nodes name one leader and have applied the same; return the leader.

        Raises:
            Unsettled: that did not happen in time; the message has the end of each log.
        """
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for number, process in enumerate(self._processes):
                if process is not None and process.poll() is not None:
                    raise Unsettled(self._story(f"node {number} ended: {process.returncode}"))
            leader = self._agreed()
            if leader is not None:
                return leader
            time.sleep(POLL_S)
        raise Unsettled(self._story("no rest"))

    def ask(self, number: int, method: str, path: str, body: bytes = b"") -> dict[str, Any]:
        """Ask a node over a connection of its own.

        Raises:
            OSError: no answer, or none that means success.
        """
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.ports[number], timeout=ASK_TIMEOUT_S
        )
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{self.name}: node {number} broke off ({error!r})") from error
        finally:
            connection.close()
        if answer.status >= 300:
            raise OSError(f"{self.name}: {method} {path}: {answer.status} {data[:200]!r}")
        said: dict[str, Any] = json.loads(data) if data else {}
        return said

    def _agreed(self) -> int | None:
        seen = []
        for number in range(NODES):
            try:
                seen.append(self.look(number))
            except OSError:
                return None
        if None in seen:
            return None
        views = [view for view in seen if view is not None]
        leaders = {view.leader for view in views}
        applied = [view.applied for view in views]
        # The nodes are asked one after the other; a timer's entry may come in between.
        if len(leaders) != 1 or max(applied) - min(applied) > 5:
            return None
        names = [view.node for view in views]
        leader = leaders.pop()
        return names.index(leader) if leader in names else None

    def _story(self, what: str) -> str:
        lines = [f"{self.name}: {what}"]
        for number in range(NODES):
            log = self.log(number)
            tail = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
            lines += [f"  node {number}: {line}" for line in tail]
        return "\n".join(lines)


class Coterie(Contender):
    """Three processes of `coterie serve` of this checkout, every setting at its default."""

    name = "coterie"

    def __init__(self, folder: Path, rng: random.Random, wrapper: Sequence[str] = ()):
        """Make a cluster that does not run yet.

        Args:
            wrapper: arguments for Python that stand in for `-m cluster.cli`; `{node}` in them is
                the node's number.
        """
        super().__init__(folder, rng)
        self._wrapper = wrapper or ("-m", "cluster.cli")
        self._secret = secrets.token_hex(16)

    @property
    def version(self) -> str:
        from cluster import __version__  # noqa: PLC0415 - etcd can be measured without it

        return f"Coterie {__version__}"

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "COTERIE_SECRET": self._secret}

    def command(self, number: int) -> Sequence[str]:
        peers = ",".join(f"n{i}=127.0.0.1:{port}" for i, port in enumerate(self.peer_ports))
        return (
            sys.executable,
            *(part.format(node=number) for part in self._wrapper),
            "serve",
            *("--cluster", "bench"),
            *("--node", f"n{number}"),
            *("--data", str(self.folder / f"n{number}")),
            *("--http", f"127.0.0.1:{self.ports[number]}"),
            *("--listen", f"127.0.0.1:{self.peer_ports[number]}"),
            *("--peers", peers),
        )

    def look(self, number: int) -> Seen | None:
        said = self.ask(number, "GET", "/v1/cluster")
        if said["leader"] is None or not said["ready"]:
            return None
        return Seen(said["node"], said["leader"], said["applied"])

    def hand_over(self, leader: int, to: int) -> tuple[str, str, bytes]:
        return "POST", "/v1/cluster/transfer", json.dumps({"to": f"n{to}"}).encode()


class Etcd(Contender):
    """Three processes of etcd as packaged, every setting at its default but for the log."""

    name = "etcd"

    @staticmethod
    def is_installed() -> bool:
        """Tell whether there is an `etcd` on PATH."""
        return shutil.which("etcd") is not None

    @property
    def version(self) -> str:
        said = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True)
        return said.stdout.splitlines()[0].replace("Version: ", "")

    def command(self, number: int) -> Sequence[str]:
        client = f"http://127.0.0.1:{self.ports[number]}"
        peer = f"http://127.0.0.1:{self.peer_ports[number]}"
        cluster = ",".join(
            f"n{i}=http://127.0.0.1:{port}" for i, port in enumerate(self.peer_ports)
        )
        return (
            "etcd",
            *("--name", f"n{number}"),
            *("--data-dir", str(self.folder / f"n{number}")),
            *("--listen-client-urls", client),
            *("--advertise-client-urls", client),
            *("--listen-peer-urls", peer),
            *("--initial-advertise-peer-urls", peer),
            *("--initial-cluster", cluster),
            *("--initial-cluster-state", "new"),
            *("--initial-cluster-token", "bench"),
            *("--logger", "zap"),
            *("--log-level", "error"),
        )

    def look(self, number: int) -> Seen | None:
        said = self.ask(number, "POST", "/v3/maintenance/status", b"{}")
        if said.get("leader", "0") == "0":
            return None
        return Seen(said["header"]["member_id"], said["leader"], int(said["raftAppliedIndex"]))

    def hand_over(self, leader: int, to: int) -> tuple[str, str, bytes]:
        target = self.look(to)
        assert target is not None
        body = json.dumps({"targetID": target.node}).encode()
        return "POST", "/v3/maintenance/transfer-leadership", body
