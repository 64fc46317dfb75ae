"""One member of a Raft group: its settings, what it knows, how it starts, how it speaks.

RULE: the lowest of the layers over PySyncObj 0.3.17: builds the library's object with our parts in
place of its own, and decides nothing about votes, entries or snapshots.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pysyncobj import syncobj
from pysyncobj.config import FAIL_REASON, SyncObjConf

from cluster.replication import library
from cluster.replication.application import Application
from cluster.replication.guard import EngineFault, PreVote, ReadIndex
from cluster.replication.journal import Journal
from cluster.replication.library import LEADER, Idle, Outbox, Peer
from cluster.replication.snapshots import SnapshotId, SnapshotStore
from cluster.wire import frames
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    RaftMessage,
    Snapshot,
    SnapshotHead,
    TermNotice,
)

REGULAR = b"\x00"
NO_OP = b"\x01"
"""The first byte of an entry: a payload from above follows, or nothing."""

_ROLES = ("follower", "candidate", "leader")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Lengths of time in seconds, sizes in bytes.

    `election_min`, `election_max`: bounds of the random election timeout. `heartbeat`: at the most
    between two appends of a leader. `check_quorum`: a leader that hears no majority for so long
    steps down. `window`: uncommitted entries a leader allows; 1 gives group commit. `apply_*`: of
    one round, where much is to be applied. `append_window_bytes`: of entries on their way to one
    follower; more than may wait for a peer would break its stream.
    """

    election_min: float = 0.4
    election_max: float = 0.9
    heartbeat: float = 0.1
    check_quorum: float = 0.9
    window: int = 1
    payload_bytes_max: int = 2 << 20
    append_bytes_max: int = 4 << 20
    append_window_bytes: int = 16 << 20
    apply_entries_max: int = 512
    apply_bytes_max: int = 256 << 10
    snapshot_entries: int = 50_000
    snapshot_bytes: int = 64 << 20
    snapshot_chunk_bytes: int = 256 << 10
    snapshot_window_bytes: int = 2 << 20
    transfer_lag_max: int = 1_000


class Member(syncobj.SyncObj):
    """A member of a Raft group of fixed membership, as far as it stands by itself."""

    def __init__(
        self,
        *,
        node: str,
        peers: Iterable[str],
        journal: Journal,
        snapshots: SnapshotStore,
        application: Application,
        rng: random.Random,
        settings: EngineSettings,
    ) -> None:
        self.settings = settings
        self.application = application
        self.journal = journal
        self.snapshots = snapshots
        # Something has happened that only a tick looks at. Most messages are done with when they
        # are taken: a round of them alone needs no tick.
        self.tick_wanted = True
        self._rng = rng
        self._peers = {name: Peer(at, name) for at, name in enumerate(sorted(peers), start=1)}
        self._out: list[tuple[str, bool, bytes]] = []
        self._is_synced = False
        self._prevote = PreVote(rng.getrandbits(48))
        self._reads = ReadIndex()
        self._leader_heard_at = float("-inf")
        self._heard_at: dict[str, float] = {}
        self._answer_beat = 0
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
            Peer(0, node), list(self._peers.values()), conf, transport=Outbox(self._on_send)
        )
        self._poller = Idle()
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
        return bool(self._SyncObj__raftState == LEADER)

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
            self._SyncObj__raftState == LEADER
            and self._SyncObj__raftLastApplied >= self._SyncObj__noopIDx
        )

    @property
    def first_entry_of_term(self) -> int:
        """On a leader: index of the entry with which its term began."""
        return int(self._SyncObj__noopIDx or 0)

    @property
    def leadership(self) -> tuple[int, str | None, int]:
        """Role, leader and term, to notice a change by comparison."""
        leader = self._SyncObj__raftLeader
        return (
            self._SyncObj__raftState,
            None if leader is None else leader.id,
            self._SyncObj__raftCurrentTerm,
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
                journal.add(NO_OP, 1, 0)
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
        self.journal.add(NO_OP, snapshot.index, snapshot.term)

    # ---- outgoing: G2 and G11

    @property
    def _outbox(self) -> Any:
        return self._SyncObj__transport

    @staticmethod
    def _now() -> float:
        return library.now()

    def _post(self, peer: str, message: RaftMessage) -> None:
        """Say it once the disk has what it promises. Appends promise nothing: see `_send_append`."""
        self._out.append((peer, False, frames.encode(message)))

    def _on_send(self, peer: Peer, message: dict[str, Any]) -> bool:
        """Take a message of the library; the uppermost layer knows them all."""
        raise NotImplementedError

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

    # ---- what all layers need

    def _floor(self) -> int:
        return max(self.commit_index, self.applied_index)

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

    def _heard(self, peer: Peer, beat: int) -> None:
        self._heard_at[peer.id] = self._now()
        self._reads.echo(peer.id, beat)

    def _fail_waiting(self) -> None:
        waiting = self._SyncObj__commandsWaitingCommit
        for index in list(waiting):
            for _, callback in waiting.pop(index):
                callback(None, FAIL_REASON.UNKNOWN_OUTCOME)
