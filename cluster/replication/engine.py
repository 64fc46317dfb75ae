"""The engine: PySyncObj 0.3.17 from its package, subclassed and guarded from outside.

RULE: with the layers it stands on (`member.py`, `catchup.py`, `elections.py`) the only one to touch
the library's private names, each with its reason. It decides what is appended, synced, sent and
applied, and in which order; it reads neither clock nor disk nor socket itself and never looks into
a command.

One round, called from one event loop: `receive` for every message, `tick` once, `flush` once
(disk first, then network). Any exception out of a round must end the process: the memory may then
promise what the disk does not hold.

Source: Ongaro & Ousterhout (2014); Ongaro's thesis (2014). Guards G1 to G13 are explained in
`cluster/DESIGN.md`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from pysyncobj.config import FAIL_REASON

from cluster.replication.application import Application, Outcome
from cluster.replication.elections import Elections
from cluster.replication.guard import EngineFault, Pipeline, normalise
from cluster.replication.journal import Journal
from cluster.replication.library import LEADER, Peer, check_library, use_clock
from cluster.replication.member import NO_OP, REGULAR, EngineSettings
from cluster.replication.snapshots import Dumper, SnapshotStore
from cluster.wire import frames
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    PreVoteAnswer,
    PreVoteRequest,
    RaftMessage,
    Snapshot,
    SnapshotAnswer,
    TermNotice,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)

__all__ = [
    "Application",
    "Engine",
    "EngineSettings",
    "Outcome",
    "check_library",
    "use_clock",
]


class Engine(Elections):
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
        self._encoded: tuple[Append, bytes] | None = None
        self._appends_sent = 0
        self._is_notice = False
        self._answer_is_wanted = True
        self._answer_claim: int | None = None
        self._ahead: Callable[[], None] | None = None
        super().__init__(
            node=node,
            peers=peers,
            journal=journal,
            snapshots=snapshots,
            dumper=dumper,
            application=application,
            rng=rng,
            settings=settings,
        )
        self._pipelines = {name: Pipeline() for name in self._peers}

    @property
    def can_take_entry(self) -> bool:
        """Leads, knows all that is promised, and the window for one more entry is open."""
        return bool(
            self._SyncObj__raftState == LEADER
            and self._handover is None
            and self.journal[-1][1] - self._SyncObj__raftCommitIndex < self.settings.window
            and self._SyncObj__raftLastApplied >= self._SyncObj__noopIDx
        )

    # ---- a round

    def connected(self, peer: str) -> None:
        """Our outbound stream to `peer` is established."""
        self._outbox._onNodeConnected(self._peers[peer])

    def disconnected(self, peer: str) -> None:
        """Our outbound stream to `peer` is gone; what was under way on it may be lost."""
        self._outbox._onNodeDisconnected(self._peers[peer])
        self._pipelines[peer].clear()

    def receive(self, peer: str, message: RaftMessage) -> None:
        """Guard a message, then hand it to the library. `peer` comes from authentication (G11)."""
        sender = self._peers.get(peer)
        if sender is None:
            return
        kind = type(message)
        if kind is not Append and kind is not AppendAnswer:
            self.tick_wanted = True
        _HANDLERS[kind](self, sender, message)

    def tick(self, ahead: Callable[[], None] | None = None) -> None:
        """Advance: hand-over, pre-vote, stock tick, commit notice, confirmed reads.

        Args:
            ahead: called where an entry was taken before what is committed is applied; calls
                `send_ahead`, so that followers have work while this node applies and answers.
        """
        now = self._now()
        self._ahead = ahead
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
        """First third of a flush; True where `wait_for_disk` must come before `end_flush`."""
        self.send_ahead(send, push)
        return self.journal.begin_sync()

    def send_ahead(self, send: Callable[[str, bytes], object], push: Callable[[], None]) -> None:
        """Send a leader's entries: they may travel before it has written its own, for the message
        does not say that it has them. Not so where term or vote changed in this round.
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

    def close(self) -> None:
        """Let the journal's file go, without a sync: what was promised is durable already."""
        self.journal._destroy()

    def read_index(self, on_ready: Callable[[int | None], None]) -> None:
        """Ask at which index a linearizable read may be served; None where we do not lead (G12)."""
        if not self.is_leader or self.commit_index < self._SyncObj__noopIDx:
            on_ready(None)
            return
        self._reads.add(self.commit_index, on_ready)
        self._SyncObj__newAppendEntriesTime = 0
        self.tick_wanted = True

    # ---- what the library sends: G2 and G11

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
        entries, pipeline = message["entries"], self._pipelines[peer.id]
        if entries and pipeline.bytes_on_its_way >= self.settings.append_window_bytes:
            # The library has counted them as sent, and would go on with those behind them.
            self._SyncObj__raftNextIndex[peer] = message["prevLogIdx"] + 1
            self._let_out(peer)
            pipeline.is_held = True
            entries = []
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
        if entries:
            pipeline.add(entries[-1][1], len(known[1]))
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

    # ---- appends: G4 and G6

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
        pipeline = self._pipelines[peer.id]
        if answer.reset and not answer.success:
            pipeline.clear()
        elif pipeline.confirm(match):
            self._SyncObj__newAppendEntriesTime = 0
            self.tick_wanted = True
        self._heard(peer, answer.beat)
        if (
            match > self._SyncObj__raftCommitIndex
            or self._reads.waiting
            or self._handover is not None
        ):
            self.tick_wanted = True

    def _SyncObj__sendAppendEntries(self) -> None:
        """Number the heartbeat (G12), and take back whom `_let_out` let out of the loop."""
        if not self._is_notice:
            self._reads.beat += 1
        self._appends_sent += 1
        super()._SyncObj__sendAppendEntries()
        for peer in self._left_out:
            self._SyncObj__connectedNodes.add(peer)
        self._left_out.clear()

    def _step_down(self) -> None:
        super()._step_down()
        for pipeline in self._pipelines.values():
            pipeline.clear()

    def _SyncObj__deleteEntriesFrom(self, index: int) -> None:
        """A newer leader overwrites our tail: proposals in it are surely discarded (G10)."""
        waiting = self._SyncObj__commandsWaitingCommit
        for position in [i for i in waiting if i >= index]:
            for _, callback in waiting.pop(position):
                callback(None, FAIL_REASON.DISCARDED)
        super()._SyncObj__deleteEntriesFrom(index)

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

        self._applyCommand(REGULAR + payload, on_outcome)
        super()._checkCommandsToApply()
        self._SyncObj__sendAppendEntries()
        if not self._peers:
            # Alone, the flush of this round commits it.
            self.tick_wanted = True

    def _SyncObj__applyLogEntries(self) -> bool:
        """Apply, but within bounds: heartbeats must not stop after a restart."""
        commit_index = self._SyncObj__raftCommitIndex
        if self._ahead is not None and commit_index > self.applied_index and self.is_leader:
            # The window is open as soon as an entry is committed; applying it can wait for less
            # than the followers can.
            last_index = self.last_index
            self._checkCommandsToApply()
            if self.last_index > last_index:
                self._ahead()
        if commit_index > self._SyncObj__raftLastApplied + 1:
            self._SyncObj__raftCommitIndex = self._apply_bound(commit_index)
        try:
            return bool(super()._SyncObj__applyLogEntries())
        finally:
            self._SyncObj__raftCommitIndex = commit_index

    def _apply_bound(self, commit_index: int) -> int:
        """The last entry of what one round may apply; entries of a busy time are large."""
        settings, index, size = self.settings, self.applied_index, 0
        position = index + 1 - self.first_index
        for command, index, _ in self.journal[position : position + settings.apply_entries_max]:
            size += len(command)
            if index == commit_index or size >= settings.apply_bytes_max:
                break
        return index

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """No pickle: the payload goes to the application unread (i1, l1)."""
        index = self._SyncObj__raftLastApplied + 1
        kind = command[:1]
        if kind == REGULAR:
            self.application.apply(index, command[1:])
        elif kind == NO_OP:
            self.application.skip(index)
        else:
            raise EngineFault(f"entry {index} is of an unknown kind {kind!r}")


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
