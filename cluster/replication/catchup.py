"""Snapshots as the engine needs them: made, sent in chunks, received, put in place of a log.

RULE: guard G5, all of it: the library's own serializer and transfer are never used.
"""

from __future__ import annotations

import logging
from typing import Any

from pysyncobj.config import SERIALIZER_STATE

from cluster.replication.guard import SnapshotTransfer
from cluster.replication.library import Peer
from cluster.replication.member import Member
from cluster.replication.snapshots import (
    Dumper,
    DumpFailed,
    Receiving,
    SnapshotCorrupt,
    SnapshotId,
    SnapshotRefused,
)
from cluster.wire.frames import Snapshot, SnapshotAnswer, SnapshotHead

logger = logging.getLogger(__name__)


class CatchUp(Member):
    """A member that makes snapshots, and catches up, or lets others catch up, by them."""

    def __init__(self, *, dumper: Dumper, **parts: Any) -> None:
        """Args: dumper writes our own snapshots in the background; the rest as for Member."""
        self.snapshots_installed = 0
        self.dumps_failed = 0
        self._transfers: dict[str, SnapshotTransfer] = {}
        self._receiving: tuple[int, SnapshotHead, Receiving] | None = None
        self._not_taken: tuple[SnapshotHead, type[Exception]] | None = None
        self._left_out: list[Peer] = []
        self._dump_not_before = float("-inf")
        super().__init__(**parts)
        self._serializer = _Serializer(self, dumper)
        # Without this the library pickles snapshots.
        self._SyncObj__serializer = self._serializer

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

    def dump_failed(self, error: DumpFailed) -> None:
        """A snapshot of our own could not be written; the next try is due in ten seconds."""
        logger.warning("no snapshot was written, the log is kept and grows: %s", error)
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
            self._let_out(peer)
            head, offset, data = None, 0, b""
        else:
            head, offset, _, data = chunk
        self._post(
            peer.id,
            Snapshot(term=self.term, beat=self._reads.beat, head=head, offset=offset, data=data),
        )

    def _let_out(self, peer: Peer) -> None:
        """Have the library send no more to `peer` for now (j4): the only way out of its loop is a
        peer that is not connected. It is again as soon as that loop has ended.
        """
        self._SyncObj__connectedNodes.discard(peer)
        self._left_out.append(peer)

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
        except (SnapshotCorrupt, SnapshotRefused) as error:
            # Ours is still in place. Ask for this one again from the start.
            self._drop_receiving()
            if self._not_taken != (head, type(error)):
                # Once: it is asked for until there is room, or a whole one.
                self._not_taken = head, type(error)
                logger.warning("a snapshot that %s sends was not taken: %s", peer.id, error)
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


class _Serializer:
    """Stands where the library keeps its serializer: no pickle, no file of its own (G5)."""

    def __init__(self, engine: CatchUp, dumper: Dumper) -> None:
        self._engine = engine
        self._dumper = dumper

    def checkSerializing(self) -> tuple[int, int | None]:
        if not self._dumper.busy:
            return SERIALIZER_STATE.NOT_SERIALIZING, None
        try:
            done = self._dumper.poll()
        except DumpFailed as error:
            # The log is kept, so nothing is lost; try again after a pause.
            self._engine.dump_failed(error)
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
