"""The stock library in our clothes: PySyncObj 0.3.17 with its own journal, dump and rules.

RULE: nothing is guarded here. Only what the simulator must inject is replaced: clock, network,
chance, and the codec of commands (bytes instead of pickled method calls). Its files are real ones
in a folder of the run; as nothing ever syncs them, a power loss takes each of them back to what the
kernel had last written out.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable
from typing import Any

from pysyncobj.config import FAIL_REASON, SyncObjConf
from pysyncobj.node import Node as Peer
from pysyncobj.syncobj import _COMMAND_TYPE, SyncObj
from pysyncobj.transport import Transport

from cluster import errors
from cluster.machine.commands import Command, Origin, RequestId
from cluster.machine.events import History
from cluster.machine.machine import Machine
from cluster.machine.outcome import Queued
from cluster.node.pending import Answered, Failed
from cluster.replication.engine import use_clock
from cluster.wire import batch, cbor, commands, snapshot
from cluster.wire.frames import ForwardedRequest
from tests.simulation.invariants import Entry
from tests.simulation.network import MS, SECOND
from tests.simulation.world import Host, Subject

_TAGS = {"append_entries": 1, "next_node_idx": 3, "request_vote": 35, "response_vote": 36}
_FAILURES_MAX = 200
_FRAME_BYTES_MAX = 16 << 20

# What the library's documentation says about its failure codes: it did not happen.
_SAID_DEFINITE = {
    FAIL_REASON.QUEUE_FULL,
    FAIL_REASON.MISSING_LEADER,
    FAIL_REASON.DISCARDED,
    FAIL_REASON.NOT_LEADER,
    FAIL_REASON.LEADER_CHANGED,
    FAIL_REASON.REQUEST_DENIED,
}


class StockPeer(Peer):  # type: ignore[misc]
    """A peer whose place in a set is the same in every process."""

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())


class StockTransport(Transport):  # type: ignore[misc]
    """Gives messages to the simulated network."""

    def __init__(self, host: Host, peers: dict[str, StockPeer]) -> None:
        super().__init__(None, None, ())
        self._host = host
        self._peers = peers

    def send(self, peer: Peer, message: dict[str, Any]) -> bool:
        host, kind = self._host, message["type"]
        if kind in ("request_vote", "response_vote"):
            candidate = host.name if kind == "request_vote" else peer.id
            host.world.note(host.world.raft.vote, host.name, message["term"], candidate)
        host.send(peer.id, bytes([0x82, _TAGS.get(kind, 40)]) + cbor.encode(message))
        return True

    def deliver(self, peer: str, frame: bytes) -> None:
        """A message has arrived."""
        message = cbor.decode(frame[2:], max_bytes=_FRAME_BYTES_MAX)
        if "entries" in message:
            message["entries"] = [tuple(entry) for entry in message["entries"]]
        self._onMessageReceived(self._peers[peer], message)


class StockEngine(SyncObj):  # type: ignore[misc]
    """The library, with plain bytes for commands."""

    def __init__(
        self,
        host: Host,
        folder: pathlib.Path,
        transport: StockTransport,
        peers: dict[str, StockPeer],
        rng: random.Random,
        apply: Callable[[int, bytes], None],
        dump: Callable[[], bytes],
        load: Callable[[bytes], None],
    ) -> None:
        self._lots = rng
        self._apply = apply
        entries = host.world.plan.snapshot_entries
        conf = SyncObjConf(
            autoTick=False,
            dynamicMembershipChange=False,
            appendEntriesUseBatch=True,
            journalFile=str(folder / "journal"),
            fullDumpFile=str(folder / "dump"),
            useFork=False,
            raftMaxTimeout=0.9,
            logCompactionMinTime=10**9,
            logCompactionMinEntries=10**9 if entries is None else entries,
            logCompactionBatchSize=300,
        )

        def serialize(name: str, rest: tuple[Any, ...]) -> None:
            newest, before, _ = rest
            data = cbor.encode([list(newest), list(before), dump()])
            pathlib.Path(name).write_bytes(data)

        def deserialize(name: str) -> tuple[Any, ...]:
            data = pathlib.Path(name).read_bytes()
            newest, before, state = cbor.decode(data, max_bytes=_FRAME_BYTES_MAX)
            load(state)
            return tuple(newest), tuple(before), ()

        conf.serializer = serialize
        conf.deserializer = deserialize
        super().__init__(StockPeer(host.name), list(peers.values()), conf, transport=transport)

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        if command[:1] == b"\x00":
            self._apply(self._SyncObj__raftLastApplied + 1, command[1:])
        else:
            self._apply(self._SyncObj__raftLastApplied + 1, b"")

    def _SyncObj__generateRaftTimeout(self) -> float:
        conf = self._SyncObj__conf
        spread: float = conf.raftMaxTimeout - conf.raftMinTimeout
        return float(conf.raftMinTimeout + spread * self._lots.random())


class StockNode:
    """One member: library, machine, and the least that gives requests their replies."""

    def __init__(self, host: Host, folder: pathlib.Path, boot: int, rng: random.Random) -> None:
        self.machine = Machine()
        self.failures = 0
        self._host = host
        self._origin = Origin(host.name, boot)
        self._waiting: dict[int, tuple[Callable[[Any], None], float]] = {}
        self._seq = 0
        self._timer_at = 0.0
        self._peers = {name: StockPeer(name) for name in host.peers}
        self._transport = StockTransport(host, self._peers)
        self._inbox: list[tuple[str, bytes]] = []
        self.engine = StockEngine(
            host, folder, self._transport, self._peers, rng, self._apply, self._dump, self._load
        )

    # ---- the world's side -------------------------------------------------------------------

    def connected(self, peer: str) -> None:
        self._transport._onNodeConnected(self._peers[peer])

    def disconnected(self, peer: str) -> None:
        self._transport._onNodeDisconnected(self._peers[peer])

    def receive(self, peer: str, frame: bytes) -> None:
        self._inbox.append((peer, frame))

    def begin_round(self) -> bool:
        """Deliver and tick; the library's own loop logs an exception and goes on, so do we."""
        now = self._host.now()
        inbox, self._inbox = self._inbox, []
        for peer, frame in inbox:
            with self._as_its_own_loop():
                self._transport.deliver(peer, frame)
        with self._as_its_own_loop():
            self.engine.doTick(0.0)
            self.failures = 0
        if self.failures > _FAILURES_MAX:
            raise RuntimeError("every tick of the library raises")
        deadline_ms = self.machine.next_deadline_ms()
        if (
            self.engine._isLeader()
            and deadline_ms is not None
            and deadline_ms <= self._now_ms()
            and now >= self._timer_at
        ):
            self._timer_at = now + 0.1
            self._propose((), lambda _, reason: None)
        for seq in [s for s, (_, due) in self._waiting.items() if now >= due]:
            self._reply(seq, Failed(errors.Timeout("no answer in time")))
        return False

    def end_round(self) -> float:
        """Nothing is left: it waits for no disk."""
        return 0.02

    @contextlib.contextmanager
    def _as_its_own_loop(self) -> Any:
        try:
            yield
        except Exception:  # noqa: BLE001 - so does the library's own loop
            self.failures += 1
            self._host.world.count("exceptions in the library")

    def submit(
        self,
        command: Command,
        on_reply: Callable[[Any], None],
        *,
        timeout_ms: int = 10_000,
        key: str | None = None,
        fingerprint: bytes | None = None,
    ) -> int:
        self._seq = seq = self._seq + 1
        wait_ms = getattr(command, "wait_ms", 0)
        due = self._host.now() + (timeout_ms + wait_ms) / 1000
        self._waiting[seq] = (on_reply, due)
        request = ForwardedRequest(seq, commands.encode(command), key, fingerprint)

        def on_done(_: object, reason: int) -> None:
            if reason != FAIL_REASON.SUCCESS:
                definite = reason in _SAID_DEFINITE
                self._reply(seq, Failed(errors.NoLeader(f"code {reason}", definite=definite)))

        self._propose((request,), on_done)
        return seq

    def hang_up(self, seq: int) -> None:
        self._waiting.pop(seq, None)

    def read(self, on_ready: Callable[[Any], None], *, timeout_ms: int = 10_000) -> None:
        """The library has no confirmed reads: what it holds is what one gets."""
        on_ready(Answered(None, self.applied_index))

    def transfer(self, to: str | None, on_reply: Callable[[Any], None]) -> None:
        peer = None if to is None else StockPeer(to)
        self.engine.transferLeadership(peer)

    @property
    def applied_index(self) -> int:
        return int(self.engine._SyncObj__raftLastApplied)

    # ---- inside -----------------------------------------------------------------------------

    def _now_ms(self) -> int:
        # A perfect clock: cluster time is not what is tried here.
        return 1_000 + self._host.world.now_us // 1_000

    def _propose(
        self, requests: tuple[ForwardedRequest, ...], on_done: Callable[[object, int], None]
    ) -> None:
        groups = [batch.EncodedGroup(self._origin, 0, requests)] if requests else []
        payload = batch.encode(self._now_ms(), 0, groups)
        self.engine._applyCommand(payload, on_done, _COMMAND_TYPE.REGULAR)

    def _reply(self, seq: int, reply: Answered | Failed) -> None:
        waiting = self._waiting.pop(seq, None)
        if waiting is not None:
            waiting[0](reply)

    def _apply(self, index: int, payload: bytes) -> None:
        if not payload:
            self.machine.skip(index)
            return
        for answer in self.machine.apply(index, batch.decode(payload)):
            request: RequestId = answer.request
            if request[:2] == self._origin and not isinstance(answer.outcome, Queued):
                self._reply(request.seq, Answered(answer.outcome, index))

    def _dump(self) -> bytes:
        return b"".join(
            len(chunk).to_bytes(4, "big") + chunk for chunk in snapshot.encode(self.machine.dump())
        )

    def _load(self, data: bytes) -> None:
        chunks, at = [], 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            chunks.append(data[at + 4 : at + 4 + size])
            at += 4 + size
        self.machine = Machine.load(snapshot.decode(iter(chunks)))


class StockReplica:
    """The stock node as the checker sees it."""

    def __init__(self, node: StockNode) -> None:
        self._node = node
        self._engine = node.engine

    @property
    def role(self) -> str:
        return ("follower", "candidate", "leader")[self._engine._SyncObj__raftState]

    @property
    def term(self) -> int:
        return int(self._engine._SyncObj__raftCurrentTerm)

    @property
    def voted_for(self) -> str | None:
        vote: str | None = self._engine._SyncObj__votedForNodeId
        return vote

    @property
    def hard_state(self) -> tuple[int, str | None]:
        return self.term, self.voted_for

    @property
    def commit_index(self) -> int:
        return int(self._engine._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._engine._SyncObj__raftLastApplied)

    @property
    def synced_index(self) -> int:
        return 0

    @property
    def snapshot_index(self) -> int:
        return 0

    @property
    def log(self) -> list[Entry]:
        log: list[Entry] = self._engine._SyncObj__raftLog._FileJournal__journal
        return log

    @property
    def is_transferring(self) -> bool:
        return False

    @property
    def digest(self) -> object:
        return self._node.machine.digest


class StockBuilder:
    """Builds stock nodes, and is their disk. Use as a context manager: it owns a folder."""

    synced = False

    def __init__(self) -> None:
        self._root = pathlib.Path(tempfile.mkdtemp(prefix="coterie-stock-"))
        self._written: dict[str, dict[str, bytes]] = {}

    def __enter__(self) -> StockBuilder:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._root, ignore_errors=True)

    def enter(self, host: Host) -> None:
        """The library's clock is one per process."""
        use_clock(host.now)

    def build(self, host: Host) -> tuple[Subject, StockReplica, int]:
        """Start the library on the host's folder."""
        folder = self._root / host.name
        if not folder.exists():
            folder.mkdir()
            self._written[host.name] = {}
            host.world.spawn(self._write_back(host, folder), lane=host.lane)
        rng = random.Random(f"{host.world.plan.seed}/stock {host.name} {host.boot}")
        node = StockNode(host, folder, host.boot, rng)
        return node, StockReplica(node), host.boot

    def wait_for_disk(self, subject: Subject) -> None:
        """It never does."""

    def crashed(self, host: Host, subject: Subject, *, power: bool) -> None:
        """Close the files; after a power loss put back what had been written out."""
        assert isinstance(subject, StockNode)
        subject.engine._SyncObj__raftLog._destroy()
        if not power:
            return
        folder, written = self._root / host.name, self._written[host.name]
        for name in ("journal", "journal.meta", "dump"):
            path = folder / name
            if host.rng.random() < 0.3:
                continue  # The kernel happened to have written it.
            if name in written:
                path.write_bytes(written[name])
            elif path.exists():
                path.unlink()

    def now_ms(self, subject: Subject) -> int:
        """Cluster time, as a leader sees it."""
        assert isinstance(subject, StockNode)
        return subject.machine.now_ms

    def full_state(self, subject: Subject) -> bytes:
        """The snapshot it would write."""
        assert isinstance(subject, StockNode)
        return b"".join(snapshot.encode(subject.machine.dump()))

    def history(self, subject: Subject) -> History:
        """What it tells those who watch."""
        assert isinstance(subject, StockNode)
        return subject.machine.history

    def _write_back(self, host: Host, folder: pathlib.Path) -> Any:
        """The kernel writes dirty pages out now and then."""
        while True:
            yield host.rng.randrange(500 * MS, 5 * SECOND)
            for name in ("journal", "journal.meta", "dump"):
                path = folder / name
                if path.exists() and host.rng.random() < 0.7:
                    self._written[host.name][name] = path.read_bytes()
