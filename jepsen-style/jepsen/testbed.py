"""A cluster to do harm to: real processes, and a toxiproxy link on every way.

RULE: does what it is told and reports what is so; what goes wrong and when is a nemesis's matter,
what must be true is a checker's.

Every way from one node to another has a link of its own, as each node dials each peer on its own
outbound stream: a node's dial address is the link, and its identity is not. Every *slot* of clients
has a link of its own to every node.

The folder of a bed: `nodes/` (settings and data), `disks/` (what the disk shim keeps), `logs/` (one
file of all that a node wrote), `clocks/` (the time as each node sees it).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
import tomllib
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import aiohttp
import msgspec

import cluster
from cluster.cli import processes
from cluster.cli.local import HOST, LocalCluster, Member
from cluster.node.config import Address
from jepsen.ports import claimed_ports
from jepsen.preload.clock import NodeClock, clear_after
from jepsen.preload.disk import NodeDisk
from jepsen.progress import STILL_S, Progress, until
from jepsen.system import COTERIE, System
from jepsen.toxiproxy import Link, Server, Stream

SETTINGS: Final[Mapping[str, object]] = {
    # What is rare elsewhere happens all the time here.
    "snapshot_entries": 300,
    "segment_bytes": 1 << 20,
    "request_timeout_ms": "3s",
    "drain_timeout_ms": "2s",
}
KILLED: Final = -signal.SIGKILL
AS_ASKED: Final = 0
UNUSABLE: Final = 65
FATAL: Final = 70
CANNOT_LISTEN: Final = 71

STOP_S: Final = 40.0
"""A node stops within its drain timeout; this is far beyond."""

_LOOK_S: Final = 1.5
_READ_S: Final = 4.0
"""Longer than a node lets a request wait (see the settings)."""

_LATE_NS: Final = 3_000_000_000
"""Bytes that were held up may still arrive for so long after the end of what held them."""

_WORDS_KEPT: Final = 400


class NoLeaderError(Exception):
    """Nobody leads, as far as the nodes tell."""


@dataclass(frozen=True, slots=True)
class End:
    """A node's process has ended.

    Attributes:
        at_ns: by `time.monotonic_ns`.
        returncode: negative for a signal.
        expected: whether somebody had asked for it, or for a fault that explains it.
        words: what it said last.
        why: what is known beside the code.
    """

    node: str
    at_ns: int
    returncode: int
    expected: bool
    words: tuple[str, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        last = f': "{self.words[-1][:300]}"' if self.words else ""
        return f"{self.node} {processes.ending_of(self.returncode)}{last}"


class View(msgspec.Struct, frozen=True):
    """The cluster as one node sees it: `GET /v1/cluster`, as far as it matters here."""

    node: str
    leader: str | None
    role: str
    term: int
    commit: int
    applied: int
    digest: str
    ready: bool

    @property
    def leads(self) -> bool:
        """By its own word."""
        return self.role == "leader"


_VIEWS: Final = msgspec.json.Decoder(View)


@dataclass(slots=True)
class Watch:
    """What all nodes have ever said of themselves, held against each other.

    Attributes:
        reigns: term -> who said that it led in it, and when first (`time.monotonic_ns`).
        digests: log position -> digest -> the nodes that had it there.
        looks: how many views were seen.
    """

    reigns: dict[int, dict[str, int]] = field(default_factory=dict)
    digests: dict[int, dict[str, set[str]]] = field(default_factory=dict)
    looks: int = 0

    def note(self, view: View) -> None:
        """Remember a node's word."""
        self.looks += 1
        if view.leads:
            self.reigns.setdefault(view.term, {}).setdefault(view.node, time.monotonic_ns())
        self.digests.setdefault(view.applied, {}).setdefault(view.digest, set()).add(view.node)

    @property
    def torn_terms(self) -> dict[int, dict[str, int]]:
        """Terms with more than one leader."""
        return {term: who for term, who in self.reigns.items() if len(who) > 1}

    @property
    def diverged(self) -> dict[int, dict[str, set[str]]]:
        """Positions at which nodes had different states."""
        return {at: digests for at, digests in self.digests.items() if len(digests) > 1}

    @property
    def compared(self) -> int:
        """Positions at which more than one node was seen."""
        return sum(
            1 for digests in self.digests.values() if len(set().union(*digests.values())) > 1
        )


class Testbed(LocalCluster):
    """Nodes with everything that may be done to them. Use `opened`.

    Args:
        folder: everything is kept below it.
        ports: claimed ones: two for each node, one for each link.
        server: where links are made.
        nodes: how many.
        slots: how many slots of clients.
        settings: of every node, over those above.
        equipment: "shim" and "faketime" load these into every node.
        system: what a node is.

    Attributes:
        peers: (source, target) -> the way from one to the other.
        clients: (slot, node) -> the way of a slot's clients.
        ends: of processes, in order.
        complaints: (node, line of its log) that no healthy node writes.
        disks: node -> its disk, where there is the shim.
    """

    # No test, whatever its name says to pytest.
    __test__ = False

    def __init__(
        self,
        folder: Path,
        ports: list[int],
        server: Server,
        *,
        nodes: int = 3,
        slots: int = 4,
        settings: Mapping[str, object] | None = None,
        equipment: Collection[str] = (),
        shim: Path | None = None,
        faketime: Path | None = None,
        system: System = COTERIE,
    ):
        members = [
            Member(f"n{number}", Address(HOST, ports.pop()), Address(HOST, ports.pop()))
            for number in range(1, nodes + 1)
        ]
        super().__init__(folder / "nodes", members, on_line=self._heard, on_end=self._ended)
        self.root = folder
        self.slots = slots
        self.equipment = frozenset(equipment)
        self.system = system
        self.progress = Progress()
        self.watch = Watch()
        self.ends: list[End] = []
        self.complaints: list[tuple[str, str]] = []
        self.paused: set[str] = set()
        self.held: set[str] = set()
        # Since when, by `time.monotonic_ns`: a node stands still or is down, a link is closed.
        self._gone_ns: dict[str, int] = {}
        self._shut_ns: dict[str, int] = {}
        self._poisoned: set[str] = set()
        self._late_until_ns = 0
        self._aborted: set[str] = set()
        self._settings_of_all = {**SETTINGS, **(settings or {})}
        self._excused: dict[str, set[int]] = {name: set() for name in self.members}
        self._words: dict[str, deque[str]] = {
            name: deque(maxlen=_WORDS_KEPT) for name in self.members
        }
        self._logs: dict[str, IO[str]] = {}
        self._http: aiohttp.ClientSession | None = None
        self._proxies = asyncio.Lock()
        self._touched: set[str] = set()
        self.shim = shim if "shim" in self.equipment else None
        self.faketime = faketime if "faketime" in self.equipment else None
        self.disks = {
            name: NodeDisk(self.folder / name, folder / "disks" / name) for name in self.members
        }
        self.clocks = {name: NodeClock(folder / "clocks" / name) for name in self.members}
        self.peers = {
            (source, target): server.link(
                f"{source}-{target}", self.members[target].listen, port=ports.pop()
            )
            for source in self.members
            for target in self.members
            if source != target
        }
        self.clients = {
            (slot, name): server.link(f"c{slot}-{name}", member.http, port=ports.pop())
            for slot in range(slots)
            for name, member in self.members.items()
        }

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes."""
        return tuple(self.members)

    @property
    def majority(self) -> int:
        """How many nodes decide."""
        return len(self.members) // 2 + 1

    @property
    def slot_endpoints(self) -> dict[str, tuple[str, ...]]:
        """Node -> base URL for each slot, through its link."""
        return {
            name: tuple(
                f"http://{Address(*self.clients[slot, name].address)}" for slot in range(self.slots)
            )
            for name in self.members
        }

    def prepare(self, *, log_level: str = "info") -> None:
        """Write the settings; dial addresses are the links."""
        super().prepare(log_level=log_level)
        for name in self.members:
            file = self._settings_file(name)
            table = tomllib.loads(file.read_text(encoding="utf-8")) | self._settings_of_all
            peers: dict[str, str] = table.pop("peers")
            for (source, target), link in self.peers.items():
                if source == name:
                    peers[target] = str(Address(*link.address))
            lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
            lines += ["[peers]", *(f'{peer} = "{at}"' for peer, at in peers.items())]
            file.write_text("\n".join(lines) + "\n", encoding="utf-8")
            self.disks[name].prepare()
            self.clocks[name].prepare()

    async def start(self, *names: str) -> None:
        """Start these nodes; all when none is named. What runs is left alone."""
        for name in names or self.names:
            if name in self.running:
                continue
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self.system.arguments,
                "--config",
                str(self._settings_file(name)),
                env=self._environ(name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                process_group=0,
                preexec_fn=processes.dies_with_parent(),
            )
            self._excused[name].clear()
            self._gone_ns.pop(name, None)
            self._processes[name] = process
            self._watchers[name] = asyncio.create_task(self._watch(name, process))

    # What happens to processes.

    async def kill9(self, *names: str, children: bool = False) -> None:
        """End these nodes by SIGKILL, all at once. Those that do not run are left alone.

        Args:
            children: theirs too, at the same moment; a child dies with its parent anyway, but a
                little later.
        """
        running = [name for name in names if name in self.running]
        for name in running:
            self.excuse(name, KILLED)
            self.paused.discard(name)
            if children:
                processes.signal_group(self.pid_of(name), signal.SIGKILL)
            else:
                self.signal(name, signal.SIGKILL)
        for name in running:
            await self.ended(name)

    async def terminate(self, name: str) -> int | None:
        """Ask a node to stop, and wait until it has. One that does not is made to say where it
        stands, and that it had to be is a crash.

        Returns:
            its return code; None where it did not run.
        """
        if name not in self.running:
            return None
        self.resume(name)
        # One that has only just been started does not listen for it yet.
        self.excuse(name, -signal.SIGTERM)
        self.signal(name, signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                return await self.ended(name)
        except TimeoutError:
            self._aborted.add(name)
            self.signal(name, signal.SIGABRT)
            return await self.ended(name)

    def pause(self, *names: str) -> None:
        """Stop these nodes' clockwork: memory and connections stay, nothing moves."""
        for name in names:
            if name in self.running:
                self.paused.add(name)
                self.signal(name, signal.SIGSTOP)
                self._gone_ns.setdefault(name, time.monotonic_ns())

    def resume(self, *names: str) -> None:
        """Let paused nodes go on."""
        for name in names:
            if name in self.paused:
                self.paused.discard(name)
                self._gone_ns.pop(name, None)
                self.signal(name, signal.SIGCONT)

    async def heal(self) -> None:
        """Open every link, wake who is paused, take faults off disks and clocks, start who is down.

        Nodes in `held` stay down: whoever holds them starts them.
        """
        await self.mend_all()
        self.resume(*tuple(self.paused))
        for name in self.members:
            self.disks[name].behave()
            self.clocks[name].behave()
        await self.start(*(name for name in self.members if name not in self.held))

    def excuse(self, name: str, *returncodes: int) -> None:
        """From now on to its next start, this node may end like that."""
        self._excused[name].update(returncodes)

    # What happens to links. The library's calls block, so they run in a thread, one at a time.

    async def cut(self, *links: Link) -> None:
        """Close what is connected there, and refuse what comes."""
        await self._do(links, Link.cut)
        self._close(links)

    async def silence(self, *links: Link, stream: Stream | None = None) -> None:
        """Swallow the bytes of both streams, or of one, while connections stay open."""

        def swallow(link: Link) -> None:
            for one in ("upstream", "downstream") if stream is None else (stream,):
                link.silence(one)

        await self._do(links, swallow)
        if stream is None:
            self._close(links)

    async def poison(self, kind: str, *links: Link, stream: Stream, **attributes: int) -> None:
        """Add any toxic that the server knows."""
        self._poisoned |= {link.name for link in links if link in self.peers.values()}
        await self._do(links, lambda link: link.add(kind, stream, **attributes))

    async def mend(self, *links: Link) -> None:
        """Take everything off these links, and open them."""
        names = {link.name for link in links}
        for name in names:
            self._shut_ns.pop(name, None)
        await self._apart(links, Link.heal)
        self._touched -= names
        if self._poisoned & names:
            self._poisoned -= names
            self._late_until_ns = time.monotonic_ns() + _LATE_NS

    async def mend_all(self) -> None:
        """The same for every link that anything was done to."""
        links = (*self.peers.values(), *self.clients.values())
        await self.mend(*(link for link in links if link.name in self._touched))

    async def mend_all_clients(self) -> None:
        """The same for clients' links only."""
        await self.mend(*(link for link in self.clients.values() if link.name in self._touched))

    def between(self, some: Iterable[str], others: Iterable[str]) -> list[Link]:
        """Every way from one group of nodes to another, and back."""
        others = tuple(others)
        return [
            self.peers[way]
            for one in some
            for other in others
            for way in ((one, other), (other, one))
        ]

    # What is so.

    def link_of(self, slot: int, node: str) -> Link:
        """The way of a slot's clients to a node."""
        return self.clients[slot, node]

    def pid_of(self, name: str) -> int:
        """A node's process, the last one it had."""
        return self._processes[name].pid

    def gone_ms(self, name: str) -> int:
        """For how long a node has surely not been running, or stood still; 0 where it may run."""
        return _since_ms(self._gone_ns.get(name))

    def shut_ms(self, source: str, target: str) -> int:
        """For how long nothing has surely come from one node to another; 0 where it may."""
        link = self.peers.get((source, target))
        return 0 if link is None else _since_ms(self._shut_ns.get(link.name))

    @property
    def is_late(self) -> bool:
        """Bytes on their way between nodes may be old."""
        return bool(self._poisoned) or time.monotonic_ns() < self._late_until_ns

    async def is_ready(self, name: str) -> bool | None:
        """What a node's `/readyz` says; None where it says nothing of the kind."""
        assert self._http is not None, "the bed is not open"
        try:
            async with self._http.get(f"{self.members[name].url}/readyz") as response:
                return {200: True, 503: False}.get(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def read(self, name: str) -> str:
        """Have a node answer a linearizable read, directly: "ok", the code of its refusal, "late",
        or "unreachable".
        """
        assert self._http is not None, "the bed is not open"
        url, most = f"{self.members[name].url}/v1/locks/read", aiohttp.ClientTimeout(total=_READ_S)
        try:
            async with self._http.get(url, timeout=most) as response:
                problem = msgspec.json.decode(await response.read())
                return "ok" if response.status == 200 else str(problem.get("code"))
        except TimeoutError:
            return "late"
        except (aiohttp.ClientError, OSError, msgspec.DecodeError):
            return "unreachable"

    async def look(self, name: str) -> View | None:
        """The cluster as one node sees it, asked directly; None where it does not answer soon."""
        if name not in self.running or name in self.paused:
            return None
        assert self._http is not None, "the bed is not open"
        try:
            async with self._http.get(f"{self.members[name].url}/v1/cluster") as response:
                if response.status != 200:
                    return None
                view = _VIEWS.decode(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, msgspec.DecodeError):
            return None
        self.watch.note(view)
        self.progress.reached((name, "applied"), view.applied)
        self.progress.reached((name, "commit"), view.commit)
        return view

    async def views(self) -> dict[str, View]:
        """What every node that answers sees."""
        found = await asyncio.gather(*(self.look(name) for name in self.members))
        return {view.node: view for view in found if view is not None}

    async def leader(self) -> str | None:
        """The node that says it leads, in the highest term; None where none does."""
        leading = [view for view in (await self.views()).values() if view.leads]
        return max(leading, key=lambda view: view.term).node if leading else None

    async def until_leader(self, *, other_than: str | None = None, within_s: float = 30.0) -> str:
        """Wait for somebody who leads.

        Raises:
            NoLeaderError: nobody came.
        """
        try:
            async with asyncio.timeout(within_s):
                while True:
                    leader = await self.leader()
                    if leader is not None and leader != other_than:
                        return leader
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NoLeaderError(f"nobody has led for {within_s:g} s") from None

    async def roles(self) -> tuple[str, list[str]]:
        """The leader, and the others by name. Where nobody leads, some node stands in for it."""
        leader = await self.leader()
        if leader is None:
            leader = next(iter(self.running or self.members))
        return leader, [name for name in self.members if name != leader]

    async def until_served(self, *, still_s: float = STILL_S) -> float:
        """Wait until every node serves under one leader.

        Args:
            still_s: fail when nothing has moved for so long.
        Returns:
            seconds it took.
        Raises:
            AssertionError: they do not.
        """
        began_s = time.monotonic()

        async def served() -> bool:
            # One that ended by itself is waited for in vain.
            down = [str(end) for end in self.ends[-5:] if end.node not in self.running]
            assert len(self.running) == len(self.members), f"not all nodes run: {down}"
            views = await self.views()
            leaders = {view.leader for view in views.values()}
            return (
                len(views) == len(self.members)
                and all(view.ready for view in views.values())
                and len(leaders) == 1
                and None not in leaders
            )

        await until(served, "every node serves", still_s=still_s, moved=self.progress)
        return time.monotonic() - began_s

    async def until_level(self, *, still_s: float = STILL_S) -> dict[str, View]:
        """Wait until all nodes have applied the same position. Nothing must be going on, or little.

        Returns:
            what each saw at one position.
        Raises:
            AssertionError: they do not get there.
        """

        async def level() -> dict[str, View] | None:
            views = await self.views()
            is_level = len({view.applied for view in views.values()}) == 1
            return views if is_level and len(views) == len(self.members) else None

        return await until(level, "all nodes at one position", still_s=still_s, moved=self.progress)

    async def metrics(self, name: str) -> str:
        """A node's page of metrics; empty where it does not answer."""
        assert self._http is not None, "the bed is not open"
        try:
            async with self._http.get(f"{self.members[name].url}/metrics") as response:
                return await response.text()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return ""

    async def transfer(self, node: str, to: str | None = None) -> int:
        """Ask a node for a hand-over of leadership.

        Returns:
            status of the answer; 0 where none came.
        """
        assert self._http is not None, "the bed is not open"
        body = {} if to is None else {"to": to}
        url = f"{self.members[node].url}/v1/cluster/transfer"
        try:
            async with self._http.post(url, json=body) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    def holdings(self, name: str) -> dict[str, int]:
        """Open "descriptors" of a node's process, and its resident "memory" in MiB; zeros where the
        kernel does not tell.
        """
        process = Path(f"/proc/{self.pid_of(name)}")
        try:
            resident = int((process / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            return {"descriptors": len(list((process / "fd").iterdir())), "memory": resident >> 20}
        except OSError:
            return {"descriptors": 0, "memory": 0}

    def words(self, name: str) -> tuple[str, ...]:
        """What a node wrote last, oldest first."""
        return tuple(self._words[name])

    @property
    def crashes(self) -> list[End]:
        """Ends that nobody had asked for."""
        return [end for end in self.ends if not end.expected]

    # Opening and closing.

    async def __aenter__(self) -> Testbed:
        (self.root / "logs").mkdir(parents=True, exist_ok=True)
        for name in self.members:
            file = self.root / "logs" / f"{name}.log"
            self._logs[name] = file.open("a", encoding="utf-8", buffering=1)
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=_LOOK_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            for name in self.running:
                self.excuse(name, KILLED)
            await self.kill()
        finally:
            if self._http is not None:
                await self._http.close()
            for log in self._logs.values():
                log.close()
            for disk in self.disks.values():
                disk.close()

    async def _do(self, links: Sequence[Link], what: Callable[[Link], object]) -> None:
        self._touched |= {link.name for link in links}
        await self._apart(links, what)

    async def _apart(self, links: Sequence[Link], what: Callable[[Link], object]) -> None:
        """Do something to links in a thread. It is done when this returns, cancelled or not: what
        is half done would undo what comes after it.
        """
        async with self._proxies:
            work = asyncio.create_task(asyncio.to_thread(_each, links, what))
            try:
                await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise

    def _close(self, links: Iterable[Link]) -> None:
        for link in links:
            self._shut_ns.setdefault(link.name, time.monotonic_ns())

    def _environ(self, name: str) -> dict[str, str]:
        """Of a node: no settings of ours, the place we were imported from, what is preloaded."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COTERIE_")}
        places = [str(Path(cluster.__file__).parents[1]), *filter(None, [kept.get("PYTHONPATH")])]
        if self.system is not COTERIE:
            # Programs of ours that are no nodes as we ship them stand beside this file.
            places.insert(0, str(Path(__file__).parents[1]))
        # SIGABRT makes it write where every thread stands.
        kept["PYTHONFAULTHANDLER"] = "1"
        kept["PYTHONPATH"] = os.pathsep.join(places)
        preloaded = []
        if self.faketime is not None:
            preloaded.append(str(self.faketime))
            kept |= self.clocks[name].environ()
        if self.shim is not None:
            preloaded.append(str(self.shim))
            kept |= self.disks[name].environ()
        if preloaded:
            kept["LD_PRELOAD"] = " ".join(preloaded)
        return kept | dict(self.system.environ)

    def _heard(self, name: str, line: str) -> None:
        self._words[name].append(line)
        self._logs[name].write(line + "\n")
        if '"event":"serving"' in line:
            self.progress.mark()
        if self._is_complaint(name, line):
            self.complaints.append((name, line[:4_000]))

    def _is_complaint(self, name: str, line: str) -> bool:
        """No healthy node says so; one whose disk was made to fail may say that, and end."""
        if FATAL in self._excused[name] and "DiskFailed" in line:
            return False
        if name in self._aborted:
            return False
        return line.startswith(("Traceback", "Fatal Python error")) or any(
            word in line for word in ('"exception"', "never awaited", "never retrieved")
        )

    def _ended(self, name: str, returncode: int) -> None:
        self.paused.discard(name)
        self._gone_ns.setdefault(name, time.monotonic_ns())
        expected = returncode == AS_ASKED or returncode in self._excused[name]
        words = tuple(self._words[name])[-12:]
        why = f"it did not stop within {STOP_S:g} s of SIGTERM" if name in self._aborted else ""
        self._aborted.discard(name)
        self.ends.append(End(name, time.monotonic_ns(), returncode, expected, words, why))
        if self.faketime is not None:
            clear_after(self.pid_of(name))
        self._logs[name].write(f"--- {name} {processes.ending_of(returncode)}\n")
        self._logs[name].flush()
        self.progress.mark()


@contextlib.asynccontextmanager
async def opened(
    folder: Path,
    server: Server,
    *,
    nodes: int = 3,
    slots: int = 4,
    settings: Mapping[str, object] | None = None,
    equipment: Collection[str] = (),
    shim: Path | None = None,
    faketime: Path | None = None,
    system: System = COTERIE,
) -> AsyncIterator[Testbed]:
    """Run a cluster that serves; it ends with the block, and with us however we end.

    Args:
        folder: must not hold a cluster yet.
    """
    with contextlib.ExitStack() as claims:
        ports = claimed_ports(2 * nodes + nodes * (nodes - 1) + slots * nodes, claims)
        # The server belongs to us alone while we run.
        server.clear()
        bed = Testbed(
            folder,
            ports,
            server,
            nodes=nodes,
            slots=slots,
            settings=settings,
            equipment=equipment,
            shim=shim,
            faketime=faketime,
            system=system,
        )
        try:
            async with bed:
                bed.prepare()
                await bed.start()
                await bed.until_served()
                yield bed
        finally:
            # Journals reserve their space: many clusters would fill a small disk.
            shutil.rmtree(bed.folder, ignore_errors=True)
            shutil.rmtree(folder / "disks", ignore_errors=True)
            server.clear()


def _since_ms(began_ns: int | None) -> int:
    return 0 if began_ns is None else (time.monotonic_ns() - began_ns) // 1_000_000


def _each(links: Iterable[Link], what: Callable[[Link], object]) -> None:
    for link in links:
        what(link)
