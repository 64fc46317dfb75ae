"""The engine: PySyncObj 0.3.17 from its package, subclassed and guarded from outside.

RULE: the only module that touches the library's private names, each with its reason. It decides
what is appended, synced, sent and applied, and in which order; it reads neither clock nor disk nor
socket itself and never looks into a command.

One round, called from one event loop: `receive` for every message, `tick` once, `flush` once
(disk first, then network). Any exception out of a round must end the process: the memory may then
promise what the disk does not hold.

Source: Ongaro & Ousterhout (2014); Ongaro's thesis (2014). Guards G1 to G13 are explained in
`cluster/DESIGN.md`.
"""

from __future__ import annotations

import enum
import hashlib
import inspect
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import pysyncobj
from pysyncobj import syncobj
from pysyncobj.config import FAIL_REASON, SERIALIZER_STATE, SyncObjConf
from pysyncobj.node import Node as StockNode
from pysyncobj.transport import Transport as StockTransport

from cluster.replication.guard import (
    EngineFault,
    Handover,
    PreVote,
    ReadIndex,
    SnapshotTransfer,
    log_is_current,
    normalise,
)
from cluster.replication.journal import Journal
from cluster.replication.snapshots import (
    Dumper,
    DumpFailed,
    Receiving,
    SnapshotCorrupt,
    SnapshotId,
    SnapshotRefused,
    SnapshotStore,
)
from cluster.wire import frames
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    PreVoteAnswer,
    PreVoteRequest,
    RaftMessage,
    Snapshot,
    SnapshotAnswer,
    SnapshotHead,
    TermNotice,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)

LIBRARY_VERSION = "0.3.17"
LIBRARY_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"

# What this module relies on beyond the library's public face. An upgrade means: read the diff, run
# the simulator and all its ablations again, then change the three constants.
PRIVATE_METHODS = (
    "_SyncObj__onMessageReceived",
    "_SyncObj__setCurrentTerm",
    "_SyncObj__setState",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__applyLogEntries",
    "_SyncObj__doApplyCommand",
    "_SyncObj__deleteEntriesFrom",
    "_SyncObj__generateRaftTimeout",
    "_onTick",
    "_checkCommandsToApply",
    "_applyCommand",
    "transferLeadership",
    "forceLogCompaction",
)
PRIVATE_ATTRIBUTES = (
    "_SyncObj__transport",
    "_SyncObj__raftState",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__votedForNodeId",
    "_SyncObj__raftLeader",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLog",
    "_SyncObj__serializer",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftNextIndex",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__lastResponseTime",
    "_SyncObj__connectedNodes",
    "_SyncObj__commandsWaitingCommit",
    "_SyncObj__noopIDx",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__needLoadDumpFile",
    "_SyncObj__transferInProgress",
    "_poller",
)

_REGULAR = b"\x00"
_NO_OP = b"\x01"
_FOLLOWER, _CANDIDATE, _LEADER = 0, 1, 2
_ROLES = ("follower", "candidate", "leader")


def check_library() -> None:
    """Refuse any PySyncObj but the one whose private names were read and simulated.

    Raises:
        EngineFault: names what differs.
    """
    cure = f"install exactly pysyncobj=={LIBRARY_VERSION} (pip install -r requirements.lock)"
    version = pysyncobj.version.VERSION
    if version != LIBRARY_VERSION:
        raise EngineFault(f"pysyncobj is version {version}, not {LIBRARY_VERSION}: {cure}")
    missing = [name for name in PRIVATE_METHODS if not hasattr(syncobj.SyncObj, name)]
    source = inspect.getsource(syncobj.SyncObj.__init__)
    for name in PRIVATE_ATTRIBUTES:
        plain = name.removeprefix("_SyncObj")
        if f"self.{plain}" not in source:
            missing.append(name)
    if missing:
        raise EngineFault(f"pysyncobj lacks the private names {', '.join(missing)}: {cure}")
    digest = hashlib.sha256(Path(inspect.getfile(syncobj)).read_bytes()).hexdigest()
    if digest != LIBRARY_SHA256:
        raise EngineFault(f"pysyncobj's syncobj.py was changed (sha256 {digest}): {cure}")


def use_clock(clock: Callable[[], float]) -> None:
    """Replace the library's monotonic clock (one per process). For the simulator."""
    syncobj.monotonicTime = clock


class Outcome(enum.Enum):
    """What became of a proposal, told apart so that a caller knows whether to repeat it."""

    OK = "ok"
    """Committed and applied here."""
    NOT_LEADER = "not_leader"
    """Surely not appended."""
    DISCARDED = "discarded"
    """Surely overwritten by another leader's entry."""
    UNKNOWN = "unknown"
    """In the log when we were deposed: it may yet commit. Repeat with the same command id."""


class Application(Protocol):
    """What the engine drives. Exceptions out of it stop the process."""

    def apply(self, index: int, payload: bytes) -> None:
        """Apply the committed entry `index`."""

    def skip(self, index: int) -> None:
        """Entry `index` carries nothing (a new leader's first entry)."""

    def dump(self) -> Iterable[bytes]:
        """The state as of the last applied entry, in chunks; may run in a forked child."""

    def load(self, index: int, chunks: Iterable[bytes]) -> None:
        """Replace the state by a snapshot whose last entry is `index`."""

    def next_payload(self) -> bytes | None:
        """Called on a leader that can take one more entry: its payload, None for nothing."""

    def on_outcome(self, payload: bytes, outcome: Outcome) -> None:
        """What became of a payload that `next_payload` gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Lengths of time in seconds, sizes in bytes.

    `election_min`, `election_max`: bounds of the random election timeout. `heartbeat`: at the most
    between two appends of a leader. `check_quorum`: a leader that hears no majority for so long
    steps down. `window`: uncommitted entries a leader allows; 1 gives group commit.
    """

    election_min: float = 0.4
    election_max: float = 0.9
    heartbeat: float = 0.1
    check_quorum: float = 0.9
    window: int = 1
    payload_bytes_max: int = 2 << 20
    append_bytes_max: int = 4 << 20
    apply_entries_max: int = 512
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 64 << 20
    snapshot_chunk_bytes: int = 256 << 10
    snapshot_window_bytes: int = 2 << 20
    transfer_lag_max: int = 1_000


class Peer(int, StockNode):
    """A member as the library sees it: a small number with a name.

    The library keys its tables by members and compares them by a property, in Python: a twentieth
    of a command's cost. A number does both at once, and keeps the order of a set of them the same
    in every run.
    """

    id = ""

    def __new__(cls, number: int, name: str) -> Self:
        """Make member `number` of this node's own list."""
        return super().__new__(cls, number)

    def __init__(self, number: int, name: str) -> None:
        StockNode.__init__(self, name)
        object.__setattr__(self, "id", name)


class _Outbox(StockTransport):
    """The transport as the library sees it: hands every message to the engine."""

    def __init__(self, on_send: Callable[[Peer, dict[str, Any]], bool]) -> None:
        super().__init__(None, None, ())
        self.send = on_send


class _Idle:
    """Stands where the library keeps its poller: the event loop is ours."""

    def poll(self, timeout: float) -> None:
        """Return at once."""


class _Serializer:
    """Stands where the library keeps its serializer: no pickle, no file of its own (G5)."""

    def __init__(self, engine: Engine, dumper: Dumper) -> None:
        self._engine = engine
        self._dumper = dumper
        self._previous_index = 0

    def checkSerializing(self) -> tuple[int, int | None]:
        if not self._dumper.busy:
            return SERIALIZER_STATE.NOT_SERIALIZING, None
        try:
            done = self._dumper.poll()
        except DumpFailed:
            # The log is kept, so nothing is lost; try again after a pause.
            self._engine.dump_failed()
            return SERIALIZER_STATE.FAILED, None
        if done is None:
            return SERIALIZER_STATE.SERIALIZING, None
        return SERIALIZER_STATE.SUCCESS, done.previous_index

    def serialize(self, data: tuple[Any, ...], previous_index: int) -> None:
        (_, last_index, last_term), (_, _, previous_term) = data[1], data[2]
        self._dumper.start(
            last_index, last_term, previous_index, previous_term, self._engine.application.dump
        )

    def cancel(self) -> None:
        self._dumper.cancel()

    @property
    def busy(self) -> bool:
        return self._dumper.busy

    def getTransmissionData(self, peer: Peer) -> tuple[SnapshotHead, int, bool, bytes] | None:
        return self._engine.next_snapshot_chunk(peer)

    def cancelTransmisstion(self, peer: Peer) -> None:  # the library's spelling
        self._engine.forget_transfer(peer)


class Engine(syncobj.SyncObj):
    """One member of a Raft group of fixed membership.

    Args:
        node: our name. peers: the other members' names.
        journal, snapshots: recovered from the same disk.
        dumper: writes our own snapshots in the background.
        application: the state machine and the source of commands.
        rng: draws election timeouts and nonces.
    Raises:
        EngineFault: journal and snapshots do not fit together; the message says what to do.
    """

    def __init__(
        self,
        *,
        node: str,
        peers: Iterable[str],
        journal: Journal,
        snapshots: SnapshotStore,
        dumper: Dumper,
        application: Application,
        rng: random.Random,
        settings: EngineSettings,
    ) -> None:
        self.settings = settings
        self.application = application
        self.journal = journal
        self.snapshots = snapshots
        self.elections_started = 0
        self.snapshots_installed = 0
        self.dumps_failed = 0
        # Something has happened that only a tick looks at. Most messages are done with when they
        # are taken: a round of them alone needs no tick.
        self.tick_wanted = True
        self._rng = rng
        self._peers = {name: Peer(at, name) for at, name in enumerate(sorted(peers), start=1)}
        self._out: list[tuple[str, bool, bytes]] = []
        self._is_synced = False
        self._encoded: tuple[Append, bytes] | None = None
        self._prevote = PreVote(rng.getrandbits(48))
        self._reads = ReadIndex()
        self._handover: Handover | None = None
        self._votes: set[str] = set()
        self._leader_heard_at = float("-inf")
        self._heard_at: dict[str, float] = {}
        self._forced_term: int | None = None
        self._campaign_is_handover = False
        self._deposed_at: float | None = None
        self._appends_sent = 0
        self._is_notice = False
        self._answer_is_wanted = True
        self._answer_beat = 0
        self._answer_claim: int | None = None
        self._transfers: dict[str, SnapshotTransfer] = {}
        self._receiving: tuple[int, SnapshotHead, Receiving] | None = None
        self._starved: list[Peer] = []
        self._held_deadline: float | None = None
        self._dump_not_before = float("-inf")
        # Before the base class, which reads every property of ours while it is built.
        self._fit_journal()
        conf = SyncObjConf(
            autoTick=False,
            password=None,
            journalFile=None,
            fullDumpFile=None,
            useFork=False,
            dynamicMembershipChange=False,
            commandsWaitLeader=False,
            # With batching on the library makes no notifier pipe and leaves sending to us.
            appendEntriesUseBatch=True,
            appendEntriesBatchSizeBytes=settings.append_bytes_max,
            raftMinTimeout=settings.election_min,
            raftMaxTimeout=settings.election_max,
            appendEntriesPeriod=settings.heartbeat,
            leaderFallbackTimeout=settings.check_quorum,
            connectionTimeout=max(3.5, settings.election_max),
            # Compaction is ours to trigger, by bytes and by entries.
            logCompactionMinTime=10**9,
            logCompactionMinEntries=10**12,
        )
        super().__init__(
            Peer(0, node), list(self._peers.values()), conf, transport=_Outbox(self._on_send)
        )
        self._poller = _Idle()
        self._serializer = _Serializer(self, dumper)
        # G5: without this the library pickles snapshots.
        self._SyncObj__serializer = self._serializer
        # G3: without this the log lives in memory only.
        self._SyncObj__raftLog = journal
        self._recover()

    # ---- what others may know

    @property
    def role(self) -> str:
        """follower, candidate or leader."""
        return _ROLES[self._SyncObj__raftState]

    @property
    def is_leader(self) -> bool:
        return bool(self._SyncObj__raftState == _LEADER)

    @property
    def term(self) -> int:
        return int(self._SyncObj__raftCurrentTerm)

    @property
    def voted_for(self) -> str | None:
        vote: str | None = self._SyncObj__votedForNodeId
        return vote

    @property
    def leader(self) -> str | None:
        """Name of the leader as far as we know; None while nobody leads."""
        leader = self._SyncObj__raftLeader
        return None if leader is None else str(leader.id)

    @property
    def commit_index(self) -> int:
        return int(self._SyncObj__raftCommitIndex)

    @property
    def applied_index(self) -> int:
        return int(self._SyncObj__raftLastApplied)

    @property
    def first_index(self) -> int:
        return int(self.journal[0][1])

    @property
    def last_index(self) -> int:
        return int(self.journal[-1][1])

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(self._peers)

    @property
    def is_settled_leader(self) -> bool:
        """Leads, and has applied the first entry of its own term: it knows all that is promised."""
        return bool(
            self._SyncObj__raftState == _LEADER
            and self._SyncObj__raftLastApplied >= self._SyncObj__noopIDx
        )

    @property
    def first_entry_of_term(self) -> int:
        """On a leader: index of the entry with which its term began."""
        return int(self._SyncObj__noopIDx or 0)

    @property
    def can_lead_on(self) -> bool:
        """No hand-over is under way."""
        return self._handover is None

    @property
    def leadership(self) -> tuple[int, str | None, int]:
        """Role, leader and term, to notice a change by comparison."""
        leader = self._SyncObj__raftLeader
        return (
            self._SyncObj__raftState,
            None if leader is None else leader.id,
            self._SyncObj__raftCurrentTerm,
        )

    @property
    def can_take_entry(self) -> bool:
        """Leads, knows all that is promised, and the window for one more entry is open."""
        return bool(
            self._SyncObj__raftState == _LEADER
            and self._handover is None
            and self.journal[-1][1] - self._SyncObj__raftCommitIndex < self.settings.window
            and self._SyncObj__raftLastApplied >= self._SyncObj__noopIDx
        )

    def lag_of(self, peer: str) -> int | None:
        """On a leader: entries the peer is not known to hold."""
        if not self.is_leader:
            return None
        return int(self.last_index - self._SyncObj__raftMatchIndex.get(self._peers[peer], 0))

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`; None where the log holds none."""
        position = index - self.first_index
        if position < 0 or position >= len(self.journal):
            return None
        return int(self.journal[position][2])

    def entry(self, index: int) -> tuple[int, bytes] | None:
        """(term, command) of the entry at `index`; None where the log holds none."""
        position = index - self.first_index
        if position < 0 or position >= len(self.journal):
            return None
        command, _, term = self.journal[position]
        return term, command

    # ---- a round

    def connected(self, peer: str) -> None:
        """Our outbound stream to `peer` is established."""
        self._outbox._onNodeConnected(self._peers[peer])

    def disconnected(self, peer: str) -> None:
        """Our outbound stream to `peer` is gone; what was under way on it may be lost."""
        self._outbox._onNodeDisconnected(self._peers[peer])

    def receive(self, peer: str, message: RaftMessage) -> None:
        """Guard a message, then hand it to the library. `peer` comes from authentication (G11)."""
        sender = self._peers.get(peer)
        if sender is None:
            return
        kind = type(message)
        if kind is not Append and kind is not AppendAnswer:
            self.tick_wanted = True
        _HANDLERS[kind](self, sender, message)

    def tick(self) -> None:
        """Advance: hand-over, pre-vote, stock tick, commit notice, confirmed reads."""
        now = self._now()
        self.tick_wanted = False
        self._resolve_deposed(now)
        self._consider_election(now)
        self._consider_compaction()
        commit_index, appends_sent = self.commit_index, self._appends_sent
        self._onTick(0.0)
        if self._held_deadline is not None:
            self._SyncObj__raftElectionDeadline = self._held_deadline
        if self.is_leader:
            if self.commit_index > commit_index and self._appends_sent == appends_sent:
                # G10, commit notice: else followers apply one heartbeat later.
                self._is_notice = True
                self._SyncObj__sendAppendEntries()
                self._is_notice = False
            for read in self._reads.take_ready(self.applied_index, self._peers):
                read.on_ready(read.index)
            self._step_handover(now)
        if self._SyncObj__raftCommitIndex > self._SyncObj__raftLastApplied:
            self.tick_wanted = True

    def flush(
        self, send: Callable[[str, bytes], object], push: Callable[[], None] = lambda: None
    ) -> None:
        """Disk first, then network (G2): nothing promised is unsynced.

        Args:
            send: puts a frame on its way. push: called before the disk is waited for, so that
                what was sent can leave.
        """
        if self.begin_flush(send, push):
            self.wait_for_disk()
        self.end_flush(send)

    def begin_flush(self, send: Callable[[str, bytes], object], push: Callable[[], None]) -> bool:
        """First third of a flush; True where `wait_for_disk` must come before `end_flush`.

        A leader's entries may travel while it writes its own: the message does not say that we
        have them. Not so where term or vote changed in this round.
        """
        if self.is_leader and not self.journal.hard_state_changed:
            out, self._out = self._out, []
            for peer, is_append, frame in out:
                if is_append:
                    send(peer, frame)
                else:
                    self._out.append((peer, False, frame))
            if self.journal.dirty:
                push()
        return self.journal.begin_sync()

    def wait_for_disk(self) -> None:
        """Second third: the only wait. May run in another thread while no round does."""
        self.journal.wait_for_disk()
        self._is_synced = True

    def end_flush(self, send: Callable[[str, bytes], object]) -> None:
        """Last third: what was promised is durable, so it may be said."""
        if self._is_synced:
            self._is_synced = False
            self.journal.end_sync()
        self._encoded = None
        out, self._out = self._out, []
        for peer, _, frame in out:
            send(peer, frame)

    # ---- requests from above

    def read_index(self, on_ready: Callable[[int | None], None]) -> None:
        """Ask at which index a linearizable read may be served; None where we do not lead (G12)."""
        if not self.is_leader or self.commit_index < self._SyncObj__noopIDx:
            on_ready(None)
            return
        self._reads.add(self.commit_index, on_ready)
        self._SyncObj__newAppendEntriesTime = 0
        self.tick_wanted = True

    def transfer(self, to: str | None, on_done: Callable[[str | None], None]) -> None:
        """Hand leadership over (G13).

        Args:
            to: a peer's name; None takes the caught-up one heard last.
            on_done: called with None once we lead no longer, else with an error code:
                not_leader, transfer_running, no_candidate, transfer_timed_out.
        """
        if not self.is_leader:
            on_done("not_leader")
            return
        if self._handover is not None:
            on_done("transfer_running")
            return
        now = self._now()
        fresh = now - 2 * self.settings.heartbeat
        lag_max = self.settings.transfer_lag_max
        candidates = [
            (self._heard_at.get(name, 0.0), name)
            for name, peer in self._peers.items()
            if to in (None, name)
            and peer in self._SyncObj__connectedNodes
            and self._heard_at.get(name, 0.0) >= fresh
            and self.last_index - self._SyncObj__raftMatchIndex[peer] <= lag_max
        ]
        if not candidates:
            on_done("no_candidate")
            return
        deadline = now + self.settings.election_min
        self._handover = Handover(max(candidates)[1], deadline, on_done)
        self.tick_wanted = True

    # ---- start

    def _recover(self) -> None:
        """Load term, vote and state (G3, G5)."""
        journal, snapshot = self.journal, self.snapshots.latest
        term = journal.getCurrentTerm()
        if journal[-1][2] > term:
            raise EngineFault(
                f"the log ends in term {journal[-1][2]} but the stored term is {term}: "
                "the data folder is damaged; replace this node"
            )
        start = 1 if snapshot is None else snapshot.index
        self._SyncObj__raftCurrentTerm = term
        self._SyncObj__votedForNodeId = journal.getVotedForNodeId()
        # The commit index is not stored: entries after the snapshot commit again (c9).
        self._SyncObj__raftCommitIndex = start
        self._SyncObj__raftLastApplied = start
        self._SyncObj__needLoadDumpFile = False
        journal.setRaftCommitIndex(start)
        if snapshot is not None:
            self.application.load(snapshot.index, self.snapshots.chunks(snapshot))

    def _fit_journal(self) -> None:
        """Make the journal go on where the snapshot ends, or refuse (c7, G3, G5)."""
        journal, snapshot = self.journal, self.snapshots.latest
        if snapshot is None:
            if len(journal) == 0:
                # The first entry is the same everywhere and never sent: it can be made again.
                journal.add(_NO_OP, 1, 0)
            elif journal[0][1] != 1:
                raise EngineFault(
                    f"the journal starts at entry {journal[0][1]} but there is no snapshot of "
                    "what came before: the data folder is incomplete; replace this node"
                )
            return
        if snapshot.term > journal.getCurrentTerm():
            raise EngineFault(
                f"the newest snapshot ends in term {snapshot.term} but the stored term is "
                f"{journal.getCurrentTerm()}: the data folder is damaged; replace this node"
            )
        if len(journal):
            first = journal[0][1]
            if first > snapshot.index:
                raise EngineFault(
                    f"the journal starts at entry {first}, after the end of the newest snapshot "
                    f"({snapshot.index}): the data folder is incomplete; replace this node"
                )
            position = snapshot.index - first
            if position < len(journal) and journal[position][2] == snapshot.term:
                if position > 1:
                    journal.deleteEntriesTo(position - 1)
                return
            # Stopped between the rename of a received snapshot and the sync of its journal.
        self._restart_journal(snapshot)

    def _restart_journal(self, snapshot: SnapshotId | SnapshotHead) -> None:
        """Begin the log anew behind a snapshot.

        Its last entry stands in for the command that the snapshot has swallowed. It is the first of
        the log, and the first is never sent: a follower that needs it gets the snapshot.
        """
        self.journal.clear()
        self.journal.add(_NO_OP, snapshot.index, snapshot.term)

    # ---- outgoing: G2 and G11 ----

    @property
    def _outbox(self) -> Any:
        return self._SyncObj__transport

    @staticmethod
    def _now() -> float:
        return float(syncobj.monotonicTime())

    def _post(self, peer: str, message: RaftMessage) -> None:
        """Say it once the disk has what it promises. Appends promise nothing: see `_send_append`."""
        self._out.append((peer, False, frames.encode(message)))

    def _on_send(self, peer: Peer, message: dict[str, Any]) -> bool:
        """Take a message of the library, stamp it and put it into the outbox."""
        kind, name, term = message["type"], peer.id, self.term
        if kind == "append_entries":
            self._send_append(peer, message)
        elif kind == "next_node_idx":
            self._send_append_answer(name, message)
        elif kind == "request_vote":
            self._post(
                name,
                VoteRequest(
                    term=message["term"],
                    last_index=message["last_log_index"],
                    last_term=message["last_log_term"],
                    handover=self._campaign_is_handover,
                ),
            )
        elif kind == "response_vote":
            self._post(name, VoteAnswer(term=message["term"]))
        elif kind == "timeout_now":
            # The target must hold exactly our log (G13).
            self._post(name, TimeoutNow(term=term, last_index=self.last_index))
        # Everything else (forwarded commands, utility answers) is never sent (G10, G11).
        return True

    def _send_append(self, peer: Peer, message: dict[str, Any]) -> None:
        if "serialized" in message:
            self._send_snapshot(peer, message["serialized"])
            return
        entries = message["entries"]
        append = Append(
            term=message["term"],
            # A notice carries nothing that an answer could confirm: no heartbeat, no answer.
            beat=0 if self._is_notice and not entries else self._reads.beat,
            commit_index=message["commit_index"],
            prev_index=message["prevLogIdx"],
            prev_term=message["prevLogTerm"],
            entries=tuple((index, term, command) for command, index, term in entries),
        )
        # Followers that stand at the same place get the same bytes: encode once.
        known = self._encoded
        if known is None or known[0] != append:
            self._encoded = known = (append, frames.encode(append))
        self._out.append((peer.id, True, known[1]))

    def _send_append_answer(self, peer: str, message: dict[str, Any]) -> None:
        success, reset, next_index = message["success"], message["reset"], message["next_node_idx"]
        if not success:
            # G4.6: the committed prefix always matches, so one round trip repairs any conflict.
            reset, next_index = True, self._floor() + 1
        elif not self._answer_is_wanted:
            return
        elif self._answer_claim is not None:
            next_index = self._answer_claim
        self._answer(peer, next_index, reset=reset, success=success)

    def _answer(self, peer: str, next_index: int, *, reset: bool, success: bool) -> None:
        self._post(
            peer,
            AppendAnswer(
                term=self.term,
                beat=self._answer_beat,
                next_index=next_index,
                reset=reset,
                success=success,
            ),
        )

    def _floor(self) -> int:
        return max(self.commit_index, self.applied_index)

    # ---- appends: G4 and G6 ----

    def _on_append(self, peer: Peer, append: Append) -> None:
        if not self._from_present_leader(peer, append):
            return
        normal = normalise(append, self, self._floor())
        self._answer_beat, self._answer_claim = append.beat, normal.claim
        self._answer_is_wanted = append.beat > 0 or bool(append.entries)
        self._SyncObj__onMessageReceived(
            peer,
            {
                "type": "append_entries",
                "term": append.term,
                "commit_index": normal.commit_index,
                "prevLogIdx": normal.prev_index,
                "prevLogTerm": normal.prev_term,
                "entries": [(command, index, term) for index, term, command in normal.entries],
            },
        )
        self._answer_claim = None
        if self._SyncObj__raftCommitIndex > self._SyncObj__raftLastApplied:
            self.tick_wanted = True

    def _from_present_leader(self, peer: Peer, message: Append | Snapshot) -> bool:
        """Refuse an old leader, note a live one. Called before the stock handler."""
        if message.term < self.term:
            self._post(peer.id, TermNotice(term=self.term))
            return False
        if message.term == self.term and self.is_leader:
            raise EngineFault(f"{peer.id} leads in our own term {self.term}: two leaders, stop")
        self._leader_heard_at = self._now()
        self._prevote.reset()
        return True

    def _on_append_answer(self, peer: Peer, answer: AppendAnswer) -> None:
        # G6: an answer of another term, or beyond our own log, proves nothing.
        if not self.is_leader or answer.term != self.term:
            return
        if not 1 <= answer.next_index <= self.last_index + 1:
            return
        self._SyncObj__onMessageReceived(
            peer,
            {
                "type": "next_node_idx",
                "next_node_idx": answer.next_index,
                "reset": answer.reset,
                "success": answer.success,
            },
        )
        transfer = self._transfers.get(peer.id)
        if transfer is not None and answer.success and answer.next_index > transfer.head.index:
            self.forget_transfer(peer)
        match = self._SyncObj__raftMatchIndex[peer]
        if self._SyncObj__raftNextIndex[peer] <= match:
            self._SyncObj__raftNextIndex[peer] = match + 1
        self._heard(peer, answer.beat)
        if (
            match > self._SyncObj__raftCommitIndex
            or self._reads.waiting
            or self._handover is not None
        ):
            self.tick_wanted = True

    def _heard(self, peer: Peer, beat: int) -> None:
        self._heard_at[peer.id] = self._now()
        self._reads.echo(peer.id, beat)

    def _SyncObj__sendAppendEntries(self) -> None:
        """Number the heartbeat (G12), and let starved followers out of the library's loop (j4)."""
        if not self._is_notice:
            self._reads.beat += 1
        self._appends_sent += 1
        super()._SyncObj__sendAppendEntries()
        for peer in self._starved:
            self._SyncObj__connectedNodes.add(peer)
        self._starved.clear()

    def _SyncObj__deleteEntriesFrom(self, index: int) -> None:
        """A newer leader overwrites our tail: proposals in it are surely discarded (G10)."""
        waiting = self._SyncObj__commandsWaitingCommit
        for position in [i for i in waiting if i >= index]:
            for _, callback in waiting.pop(position):
                callback(None, FAIL_REASON.DISCARDED)
        super()._SyncObj__deleteEntriesFrom(index)

    # ---- elections: G1 and G6 and G7 and G8 ----

    def _consider_election(self, now: float) -> None:
        """Run pre-vote before any election; the stock tick launches only what was allowed."""
        self._held_deadline = None
        if self._SyncObj__raftState == _LEADER:
            return
        forced = self._forced_term
        self._forced_term = None
        self._campaign_is_handover = False
        anybody = bool(self._SyncObj__connectedNodes) or not self._peers
        if forced is not None:
            is_due = forced == self.term and self._SyncObj__raftState == _FOLLOWER
            if is_due and self._SyncObj__connectedNodes:
                self._campaign_is_handover = True
                self._launch()
                return
        if self._SyncObj__raftElectionDeadline < now and not self._prevote.go:
            self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout()
            # Also where nobody can be asked: who is silent for so long does not lead us.
            self._SyncObj__raftLeader = None
            nonce = self._prevote.ask()
            for name in self._peers if anybody else ():
                self._post(
                    name,
                    PreVoteRequest(
                        term=self.term,
                        next_term=self.term + 1,
                        last_index=self.last_index,
                        last_term=self.journal[-1][2],
                        nonce=nonce,
                    ),
                )
            self._count_prevotes()
        if self._prevote.go:
            self._launch()
            return
        # The stock tick must not start an election by itself, however late it looks at the clock.
        self._held_deadline = self._SyncObj__raftElectionDeadline
        self._SyncObj__raftElectionDeadline = float("inf")

    def _launch(self) -> None:
        """Let the stock tick that follows run the election, and make older answers worthless."""
        self._prevote.reset()
        self.elections_started += 1
        self._SyncObj__raftElectionDeadline = float("-inf")

    def _count_prevotes(self) -> None:
        if len(self._prevote.granted) + 1 > (len(self._peers) + 1) / 2:
            self._prevote.go = True

    def _leader_is_alive(self) -> bool:
        if self.is_leader:
            return True
        return self._now() - self._leader_heard_at < 0.9 * self.settings.election_min

    def _log_is_current(self, last_term: int, last_index: int) -> bool:
        return log_is_current((last_term, last_index), (self.journal[-1][2], self.last_index))

    def _on_prevote_request(self, peer: Peer, request: PreVoteRequest) -> None:
        if request.next_term <= self.term:
            self._post(peer.id, TermNotice(term=self.term))
        elif not self._leader_is_alive() and self._log_is_current(
            request.last_term, request.last_index
        ):
            self._post(peer.id, PreVoteAnswer(term=self.term, nonce=request.nonce))

    def _on_prevote_answer(self, peer: Peer, answer: PreVoteAnswer) -> None:
        if not self.is_leader:
            self._prevote.answer(peer.id, answer.nonce)
            self._count_prevotes()

    def _on_vote_request(self, peer: Peer, request: VoteRequest) -> None:
        if request.term < self.term:
            self._post(peer.id, TermNotice(term=self.term))
            return
        if request.term > self.term and self._leader_is_alive() and not request.handover:
            return
        self._SyncObj__onMessageReceived(
            peer,
            {
                "type": "request_vote",
                "term": request.term,
                "last_log_index": request.last_index,
                "last_log_term": request.last_term,
            },
        )

    def _on_vote_answer(self, peer: Peer, answer: VoteAnswer) -> None:
        # G6: stock counts answers, Raft counts voters.
        if self._SyncObj__raftState != _CANDIDATE or answer.term != self.term:
            return
        if peer.id in self._votes:
            return
        self._votes.add(peer.id)
        self._SyncObj__onMessageReceived(peer, {"type": "response_vote", "term": answer.term})

    def _on_term_notice(self, peer: Peer, notice: TermNotice) -> None:
        if notice.term > self.term:
            self._SyncObj__setCurrentTerm(notice.term, None)
            self._SyncObj__setState(_FOLLOWER)
            self._SyncObj__raftLeader = None

    def _SyncObj__setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        """The one place where term and vote change: buffered here, durable in this round (G1)."""
        if term < self.term:
            raise EngineFault(f"term would go back from {self.term} to {term}")
        if term != self.term:
            self._votes.clear()
        if (term, voted_for) != (self.term, self.voted_for):
            self._prevote.reset()
        super()._SyncObj__setCurrentTerm(term, voted_for)

    def _SyncObj__setState(self, state: int) -> None:
        before = self._SyncObj__raftState
        if state == before:
            return
        super()._SyncObj__setState(state)
        if before == _LEADER:
            self._step_down()
        elif state == _LEADER:
            self._deposed_at = None
            self._reads.lead()
            self._forget_transfers()
            self._heard_at.clear()

    def _step_down(self) -> None:
        """G8: what only a leader may keep ends here."""
        now = self._now()
        # n7: the old deadline lies in the past.
        self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout()
        self._held_deadline = None
        self._deposed_at = now
        self._forget_transfers()
        for read in self._reads.take_all():
            read.on_ready(None)
        handover, self._handover = self._handover, None
        if handover is not None:
            handover.on_done(None)

    def _resolve_deposed(self, now: float) -> None:
        """Tell the owners of entries that nobody has confirmed or overwritten (h1, h2)."""
        if self._deposed_at is None or now < self._deposed_at + self.settings.election_max:
            return
        self._deposed_at = None
        self._fail_waiting()

    def _fail_waiting(self) -> None:
        waiting = self._SyncObj__commandsWaitingCommit
        for index in list(waiting):
            for _, callback in waiting.pop(index):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)

    def _SyncObj__generateRaftTimeout(self) -> float:
        low, high = self.settings.election_min, self.settings.election_max
        return low + (high - low) * self._rng.random()

    # ---- hand-over: G13 ----

    def _step_handover(self, now: float) -> None:
        handover = self._handover
        if handover is None:
            return
        if now >= handover.deadline:
            self._handover = None
            handover.on_done("transfer_timed_out")
            return
        if handover.sent:
            return
        peer = self._peers[handover.target]
        last = self.last_index
        is_level = self.commit_index == self.applied_index == last
        if is_level and self._SyncObj__raftMatchIndex[peer] == last:
            handover.sent = True
            self.transferLeadership(peer)

    def _on_timeout_now(self, peer: Peer, message: TimeoutNow) -> None:
        # Never the stock handler: its flag outlives the term (o3).
        if (
            self._SyncObj__raftState == _FOLLOWER
            and self.leader == peer.id
            and message.term == self.term
            and message.last_index == self.last_index
        ):
            self._forced_term = self.term

    # ---- commands: G9 and G10 ----

    def _checkCommandsToApply(self) -> None:
        """Take one payload from above into the log, if we lead and the window is open."""
        if not self.can_take_entry:
            return
        payload = self.application.next_payload()
        if payload is None:
            return
        if len(payload) > self.settings.payload_bytes_max:
            raise EngineFault(f"a payload of {len(payload)} bytes was sealed: never split entries")

        def on_outcome(_: object, reason: int) -> None:
            self.application.on_outcome(payload, _OUTCOMES[reason])

        self._applyCommand(_REGULAR + payload, on_outcome)
        super()._checkCommandsToApply()
        self._SyncObj__sendAppendEntries()
        if not self._peers:
            # Alone, the flush of this round commits it.
            self.tick_wanted = True

    def _SyncObj__applyLogEntries(self) -> bool:
        """Apply, but a bounded number: heartbeats must not stop after a restart."""
        commit_index = self._SyncObj__raftCommitIndex
        bound = self._SyncObj__raftLastApplied + self.settings.apply_entries_max
        self._SyncObj__raftCommitIndex = min(commit_index, bound)
        try:
            return bool(super()._SyncObj__applyLogEntries())
        finally:
            self._SyncObj__raftCommitIndex = commit_index

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """No pickle: the payload goes to the application unread (i1, l1)."""
        index = self._SyncObj__raftLastApplied + 1
        kind = command[:1]
        if kind == _REGULAR:
            self.application.apply(index, command[1:])
        elif kind == _NO_OP:
            self.application.skip(index)
        else:
            raise EngineFault(f"entry {index} is of an unknown kind {kind!r}")

    # ---- snapshots: G5 ----

    def _consider_compaction(self) -> None:
        if self._serializer.busy or self._now() < self._dump_not_before:
            return
        applied = self.applied_index - self.first_index
        settings = self.settings
        if applied < 2 or (
            applied < settings.snapshot_entries
            and self.journal.size_bytes < settings.snapshot_bytes
        ):
            return
        # A follower that is being sent a snapshot would need the next one too if the log were cut
        # now: wait for it, within bounds.
        limit_entries, limit_bytes = 4 * settings.snapshot_entries, 4 * settings.snapshot_bytes
        if self._transfer_is_moving() and (
            applied < limit_entries and self.journal.size_bytes < limit_bytes
        ):
            return
        self.forceLogCompaction()

    def dump_failed(self) -> None:
        """A snapshot of our own could not be written; the next try is due in ten seconds."""
        self.dumps_failed += 1
        self._dump_not_before = self._now() + 10.0

    def _transfer_is_moving(self) -> bool:
        now = self._now()
        return any(now - t.progress_at < 5.0 for t in self._transfers.values())

    def next_snapshot_chunk(self, peer: Peer) -> tuple[SnapshotHead, int, bool, bytes] | None:
        """The chunk to send to `peer` now, in the shape the library expects; None to wait."""
        now = self._now()
        transfer = self._transfers.get(peer.id)
        if transfer is None:
            latest = self.snapshots.latest
            if latest is None:
                return None
            # A newer snapshot of ours must not pull the file away from under its reader.
            self.snapshots.hold(latest)
            transfer = SnapshotTransfer(_head_of(latest), now)
            self._transfers[peer.id] = transfer
        settings = self.settings
        offset = transfer.next_offset(
            now, window_bytes=settings.snapshot_window_bytes, patience=2.5 * settings.heartbeat
        )
        if offset is None:
            return None
        data = self.snapshots.read(_id_of(transfer.head), offset, settings.snapshot_chunk_bytes)
        transfer.sent = offset + len(data)
        # Never flagged "last": the transfer ends when the follower's append answer says success.
        return transfer.head, offset, False, data

    def forget_transfer(self, peer: Peer) -> None:
        """The peer has all of it, or is not connected and will begin anew."""
        transfer = self._transfers.pop(peer.id, None)
        if transfer is not None:
            self.snapshots.release(_id_of(transfer.head))

    def _forget_transfers(self) -> None:
        for peer in self._peers.values():
            self.forget_transfer(peer)

    def _send_snapshot(
        self, peer: Peer, chunk: tuple[SnapshotHead, int, bool, bytes] | None
    ) -> None:
        if chunk is None:
            # j4: the library's only way out of its loop is a peer that is not connected.
            self._SyncObj__connectedNodes.discard(peer)
            self._starved.append(peer)
            head, offset, data = None, 0, b""
        else:
            head, offset, _, data = chunk
        self._post(
            peer.id,
            Snapshot(term=self.term, beat=self._reads.beat, head=head, offset=offset, data=data),
        )

    def _on_snapshot_answer(self, peer: Peer, answer: SnapshotAnswer) -> None:
        if not self.is_leader or answer.term != self.term:
            return
        # A long transfer is a sign of life; without this the leader would step down during it.
        self._SyncObj__lastResponseTime[peer] = self._now()
        self._heard(peer, answer.beat)
        transfer = self._transfers.get(peer.id)
        if transfer is None or transfer.head.index != answer.index:
            return
        if transfer.acknowledge(answer.offset, self._now()):
            self._SyncObj__newAppendEntriesTime = 0

    def _on_snapshot(self, peer: Peer, message: Snapshot) -> None:
        if not self._from_present_leader(peer, message):
            return
        self._answer_beat, self._answer_is_wanted = message.beat, True
        # Renews deadline, leader and term, and nothing else (defect e).
        self._SyncObj__onMessageReceived(
            peer,
            {
                "type": "append_entries",
                "term": message.term,
                "commit_index": 0,
                "serialized": None,
            },
        )
        head = message.head
        if head is None:
            self._acknowledge_snapshot(peer, 0, 0)
        elif head.index <= self._floor():
            self._drop_receiving()
            self._answer(peer.id, self._floor() + 1, reset=True, success=True)
        elif self.term_at(head.index) == head.term:
            # n4: we hold its last entry, hence all before it; keep our acknowledged tail.
            self._drop_receiving()
            self._SyncObj__raftCommitIndex = head.index
            self.journal.setRaftCommitIndex(head.index)
            self._answer(peer.id, head.index + 1, reset=True, success=True)
        else:
            self._collect(peer, head, message)

    def _collect(self, peer: Peer, head: SnapshotHead, message: Snapshot) -> None:
        """Take one chunk; with the last one, verify, store and load the whole."""
        known = self._receiving
        if known is not None and known[0] == message.term and head.index < known[1].index:
            return  # A late chunk of an older transfer. A new leader may well begin lower.
        try:
            if known is None or known[1] != head:
                self._drop_receiving()
                known = message.term, head, self.snapshots.begin(_id_of(head))
            self._receiving = message.term, head, known[2]
            receiving = known[2]
            wanted = receiving.append(message.offset, message.data)
            if wanted < head.size:
                self._acknowledge_snapshot(peer, head.index, wanted)
                return
            # n8: our own dump would trim the log to a place that is gone.
            self._serializer.cancel()
            if self.journal.hard_state_changed:
                # The file must not have its name before the journal has its term: a power loss in
                # between would leave a snapshot that the journal cannot go on from.
                self.journal.sync()
            received = receiving.finish()
        except (SnapshotCorrupt, SnapshotRefused):
            # Ours is still in place. Ask for this one again from the start.
            self._drop_receiving()
            self._acknowledge_snapshot(peer, head.index, 0)
            return
        self._receiving = None
        self._install(received)
        self._answer(peer.id, head.index + 1, reset=True, success=True)

    def _install(self, received: SnapshotId) -> None:
        self.application.load(received.index, self.snapshots.chunks(received))
        # Also what lay behind the snapshot: our log is gone, it may be in others (h2).
        self._fail_waiting()
        self._restart_journal(received)
        self._SyncObj__raftLastApplied = received.index
        self._SyncObj__raftCommitIndex = max(self.commit_index, received.index)
        self.journal.setRaftCommitIndex(self.commit_index)
        self.snapshots_installed += 1

    def _drop_receiving(self) -> None:
        if self._receiving is not None:
            self._receiving[2].abort()
            self._receiving = None

    def _acknowledge_snapshot(self, peer: Peer, index: int, offset: int) -> None:
        self._post(
            peer.id,
            SnapshotAnswer(term=self.term, beat=self._answer_beat, index=index, offset=offset),
        )


def _head_of(snapshot: SnapshotId) -> SnapshotHead:
    return SnapshotHead(
        index=snapshot.index,
        term=snapshot.term,
        previous_index=snapshot.previous_index,
        previous_term=snapshot.previous_term,
        size=snapshot.size,
        crc=snapshot.crc,
    )


def _id_of(head: SnapshotHead) -> SnapshotId:
    return SnapshotId(
        index=head.index,
        term=head.term,
        previous_index=head.previous_index,
        previous_term=head.previous_term,
        size=head.size,
        crc=head.crc,
    )


_OUTCOMES = {
    FAIL_REASON.SUCCESS: Outcome.OK,
    FAIL_REASON.QUEUE_FULL: Outcome.NOT_LEADER,
    FAIL_REASON.MISSING_LEADER: Outcome.NOT_LEADER,
    FAIL_REASON.NOT_LEADER: Outcome.NOT_LEADER,
    FAIL_REASON.DISCARDED: Outcome.DISCARDED,
    FAIL_REASON.UNKNOWN_OUTCOME: Outcome.UNKNOWN,
}

_HANDLERS: dict[type[RaftMessage], Callable[[Engine, Peer, Any], None]] = {
    Append: Engine._on_append,
    AppendAnswer: Engine._on_append_answer,
    Snapshot: Engine._on_snapshot,
    SnapshotAnswer: Engine._on_snapshot_answer,
    VoteRequest: Engine._on_vote_request,
    VoteAnswer: Engine._on_vote_answer,
    PreVoteRequest: Engine._on_prevote_request,
    PreVoteAnswer: Engine._on_prevote_answer,
    TimeoutNow: Engine._on_timeout_now,
    TermNotice: Engine._on_term_notice,
}
