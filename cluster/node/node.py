"""The node: numbers commands, brings them to the leader, applies what is committed, answers.

RULE: plain object, given the time; one method does all the work (`round`). Requests go gateway →
node → (forward to the leader) → batch → log; answers are born in `apply`, on the node that was
asked. Nothing here blocks but the disk.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import cast

from cluster import errors
from cluster.machine.commands import Abandon, Command, Origin, RequestId
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome, Queued, Void, Withdrawn
from cluster.machine.undo import undo
from cluster.node import schedules
from cluster.node.batcher import Batcher
from cluster.node.clock import ClusterClock
from cluster.node.peers import ClusterStatus, NodeStatus, Peers
from cluster.node.pending import Answered, Failed, OnReply, Pending, Waiting
from cluster.node.reads import Reads
from cluster.node.settings import Counters, NodeSettings
from cluster.replication.disk import Disk
from cluster.replication.engine import Engine
from cluster.replication.engine import Outcome as ProposalOutcome
from cluster.replication.identity import Identity
from cluster.replication.journal import Journal
from cluster.replication.snapshots import Dumper, SnapshotStore
from cluster.wire import batch, commands, frames, snapshot
from cluster.wire.cbor import WireError
from cluster.wire.frames import (
    Forward,
    ForwardedRequest,
    Message,
    RaftMessage,
    ReadAnswer,
    ReadRequest,
    Refused,
    Status,
    TransferAnswer,
    TransferRequest,
)

_FORWARD_BYTES_MAX = 1 << 20
_SLOTS_PER_ROUND = 50
_SLOTS_S_MAX = 0.02


class Node:
    """One member of the cluster.

    Args:
        disk: the data folder; journal and snapshots are recovered from it.
        clock: monotonic seconds. wall_ms: milliseconds since 1970.
        send: gives one frame to a peer; may drop it. push: what was sent should leave now, as the
            disk is about to be waited for.
        dumper: makes the writer of our own snapshots.
        wake: called when a round should follow soon.
    Raises:
        IdentityMismatch: the data folder is of a cluster of other members.
        JournalCorrupt, SnapshotCorrupt, EngineFault: the data folder is damaged; the message says
            what to do. Nothing was sent.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        identity: Identity,
        disk: Disk,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
        rng: random.Random,
        send: Callable[[str, bytes], object],
        dumper: Callable[[SnapshotStore], Dumper],
        push: Callable[[], None] = lambda: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.identity = identity
        self.counters = Counters()
        self.machine = Machine()
        self.draining = False
        self._origin = Origin(identity.node, identity.boot)
        self._clock = clock
        self._wall_ms = wall_ms
        self._rng = rng
        self._send_frame = send
        self._push = push
        self._wake = wake
        self._cluster_clock = ClusterClock()
        self._pending = Pending(limit=settings.pending_max)
        self._batcher = Batcher(
            requests_max=settings.queue_requests_max, bytes_max=settings.queue_bytes_max
        )
        self._inbox: list[tuple[str, bytes]] = []
        self._inbox_bytes = 0
        self._fresh: list[int] = []
        # Parked requests of clients that are gone, until it is certain how they ended.
        self._forsaken: set[int] = set()
        self._reads = Reads()
        self._peers = Peers(settings.peers, fresh_for=2 * settings.status_every)
        # No two lives use the same numbers: an answer to a former one names an index that is too old.
        self._next_question = (identity.boot << 32) + 1
        self._transfers: dict[int, tuple[OnReply, float]] = {}
        self._handed_over: list[tuple[OnReply, float]] = []
        self._anchor_due = False
        self._listeners: dict[Callable[[], None], None] = {}
        self._told_index = 0
        # On the leader: what tasks asked up to this revision is answered, or on its way.
        self._slots_asked = 0
        now = clock()
        self._round_at = now
        self._sweep_at = now
        self._tick_at = now
        self._status_at = now
        self._leader_lost_at = now
        identity.settle_members((settings.node, *settings.peers))
        journal = Journal.open(
            disk,
            segment_bytes=settings.segment_bytes,
            newest=identity.segment,
            on_used=identity.learn_segment,
        )
        snapshots = SnapshotStore(disk)
        self.engine = Engine(
            node=settings.node,
            peers=settings.peers,
            journal=journal,
            snapshots=snapshots,
            dumper=dumper(snapshots),
            application=self,
            rng=rng,
            settings=settings.engine,
        )
        self._leadership = self.engine.leadership

    # ---- requests from the gateway

    def submit(
        self,
        command: Command,
        on_reply: OnReply,
        *,
        timeout_ms: int = 10_000,
        key: str | None = None,
        fingerprint: bytes | None = None,
        patient: bool = False,
    ) -> int:
        """Take one command; its reply comes once, later, through `on_reply`.

        Args:
            timeout_ms: until when it must be applied; a wait the command asks for comes on top.
            key, fingerprint: the client's Idempotency-Key and the digest of its request.
            patient: wait for a leader until that timeout; else for `no_leader_after` at the most.
        Returns:
            a handle for `hang_up`.
        Raises:
            Overloaded, ShuttingDown, Refused: it was not taken and surely does not happen.
        """
        if self.draining:
            raise errors.ShuttingDown("this node is shutting down; ask another one")
        pending = self._pending
        if pending.is_full:
            raise errors.Overloaded(
                f"this node has {len(pending)} requests under way; try again in a second"
            )
        body = commands.encode(command)
        if len(body) > commands.COMMAND_BYTES_MAX:
            # Here and not in the log: an entry has a bound, and a leader that finds it passed stops.
            raise errors.Refused(
                f"the request takes {len(body)} bytes in the log, and a request may take "
                f"{commands.COMMAND_BYTES_MAX} there: divide it",
                code="too_large",
                status=413,
                reason={},
            )
        seq = pending.next_seq()
        now = self._clock()
        pending.add(
            Waiting(
                ForwardedRequest(seq, body, key, fingerprint),
                on_reply,
                taken_at=now,
                deadline=now + timeout_ms / 1000,
                parks_for=getattr(command, "wait_ms", 0) / 1000,
                is_patient=patient,
            )
        )
        self._fresh.append(seq)
        self.counters.commands_taken += 1
        if self.engine.can_take_entry or not self.engine.is_leader:
            self._wake()
        # Else it goes with the round that brings the end of the entry under way.
        return seq

    def hang_up(self, handle: int) -> None:
        """The client is gone: no reply is wanted, and a parked request leaves its queue."""
        waiting = self._pending.get(handle)
        if waiting is None:
            return
        waiting.hung_up = True
        waiting.on_reply = _ignore
        if not waiting.sent:
            self._pending.settle(handle)
        elif waiting.is_parked:
            self._pending.settle(handle)
            self._abandon(handle, waiting)

    def read(self, on_ready: OnReply, *, timeout_ms: int = 10_000) -> None:
        """Call `on_ready` once the local state holds all that was acknowledged before this call."""
        self.counters.reads += 1
        self._reads.add(on_ready, self._clock() + timeout_ms / 1000)
        self._wake()

    def transfer(self, to: str | None, on_reply: OnReply) -> None:
        """Hand leadership to `to`, or to whoever is best; answered when the new leader is known."""
        names = (self.settings.node, *self.settings.peers)
        if to is not None and to not in names:
            detail = f'no node is called "{to}"; there are {", ".join(sorted(names))}'
            reason: dict[str, object] = {"nodes": sorted(names)}
            on_reply(
                Failed(errors.Refused(detail, code="node_not_found", status=404, reason=reason))
            )
            return
        if to is not None and to == self.engine.leader:
            on_reply(Answered(None, self.engine.applied_index))
            return
        if self.engine.is_leader:
            self._transfer_here(to, on_reply)
        elif self.engine.leader is None:
            on_reply(Failed(errors.NoLeader("nobody leads that could hand over")))
        else:
            question = self._ask()
            self._transfers[question] = (on_reply, self._clock() + 3.0)
            self._send(self.engine.leader, TransferRequest(question, to))
        self._wake()

    def drain(self) -> None:
        """Take no new commands; what is under way goes on, but for waits: they leave their queues.

        Nobody would be told of a grant that comes when this node has gone; the lock would stay with
        a client that does not know. Such a wait is answered ShuttingDown once it has left.
        """
        self.draining = True
        for seq, waiting in self._pending.items():
            if waiting.is_parked:
                self._withdraw(seq, waiting)

    def on_applied(self, callback: Callable[[], None], /) -> Callable[[], None]:
        """Have `callback` called after every round that moved the local state.

        It must be quick and must not raise. Returns how to end that.
        """
        self._listeners[callback] = None
        return lambda: self._listeners.pop(callback, None)

    def now_ms(self) -> int:
        """Cluster time as far as this node can tell, ms: for remaining times in reads."""
        return max(self.machine.now_ms, self._cluster_clock.guess_ms(self._clock()))

    @property
    def applied_index(self) -> int:
        """Log position that the local state reflects."""
        return self.engine.applied_index

    @property
    def under_way(self) -> int:
        """Requests taken and not yet answered, parked ones apart."""
        return len(self._pending) - self._pending.parked

    @property
    def parked(self) -> int:
        """Requests that wait in a queue of the machine."""
        return self._pending.parked

    def status(self) -> ClusterStatus:
        """What this node knows of the cluster now.

        Without rounds (the disk does not answer) nothing is learned: then nobody leads for us, and
        least of all we, as soon as others may have elected somebody.
        """
        engine, now = self.engine, self._clock()
        is_stalled = self._is_stalled(now)
        leader = None if is_stalled else engine.leader
        role = "follower" if is_stalled else engine.role
        why = self._why_not_ready(now)
        here = NodeStatus(
            id=self.settings.node,
            http=self.settings.http,
            state=role,
            applied=engine.applied_index,
            lag=max(0, engine.commit_index - engine.applied_index),
            connected=True,
            last_heard_ms=0,
            digest=self.machine.digest,
            version=self.settings.version,
            fronts=self.settings.fronts,
        )
        peers = self._peers.statuses(now, leader=leader, commit_index=engine.commit_index)
        return ClusterStatus(
            cluster=self.identity.cluster,
            node=self.settings.node,
            leader=leader,
            term=engine.term,
            commit=engine.commit_index,
            applied=engine.applied_index,
            digest=self.machine.digest,
            role=role,
            ready=why is None,
            why_not_ready=why,
            stale_ms=self.stale_ms(),
            nodes=tuple(sorted([here, *peers], key=lambda node: node.id)),
        )

    def stale_ms(self) -> int:
        """How old the local state may be: since we last heard a leader; 0 on the leader."""
        now = self._clock()
        if self.engine.is_leader:
            return int((now - self._round_at) * 1000) if self._is_stalled(now) else 0
        heard_at = self._peers.heard_at(self.engine.leader)
        if heard_at is None:
            heard_at = self._leader_lost_at
        return max(0, int((now - heard_at) * 1000))

    # ---- the driver's side

    def connected(self, peer: str) -> None:
        """Our outbound stream to `peer` is up: what may have been lost is sent again."""
        self._peers.connect(peer)
        self.engine.connected(peer)
        if peer == self.engine.leader:
            self._send_unresolved(self._clock())
        # It hears of us at the end of the next round: our term may not be on the disk yet.
        self._status_at = self._clock()
        self._wake()

    def disconnected(self, peer: str) -> None:
        """Our outbound stream to `peer` is gone."""
        self._peers.disconnect(peer)
        self.engine.disconnected(peer)

    def receive(self, peer: str, frame: bytes) -> None:
        """Queue one frame of an authenticated peer for the next round.

        What comes when too much waits already, as the disk of this round is slow, is lost: peers
        say it again, as they do after a network has lost it.
        """
        self._inbox_bytes += len(frame)
        if self._inbox_bytes <= self.settings.inbox_bytes_max:
            self._inbox.append((peer, frame))

    def round(self) -> float:
        """One round: messages, requests, one tick, disk, network.

        Returns:
            seconds until the next round is due; 0 means at once.
        Raises:
            anything: the process must stop.
        """
        if self.begin_round():
            self.engine.wait_for_disk()
        return self.end_round()

    def begin_round(self) -> bool:
        """All of a round up to the disk.

        Returns:
            whether `engine.wait_for_disk` must come before `end_round`. It may run in a thread;
            until `end_round` no other round may begin, and everything else may be called.
        """
        now = self._clock()
        # A leader may keep its place over a longer stop, where the others were stopped as well.
        stood_still = now - self._round_at - self.settings.engine.check_quorum
        if stood_still > 0 and self._cluster_clock.leads:
            self._cluster_clock.stand_still(stood_still)
        self._round_at = now
        self.counters.rounds += 1
        inbox, self._inbox, self._inbox_bytes = self._inbox, [], 0
        for peer, frame in inbox:
            self._on_frame(peer, frame, now)
        self._follow_leadership(now)
        if now >= self._sweep_at:
            self._sweep_at = now + self.settings.sweep_every
            self._sweep(now)
        if self._cluster_clock.leads and self.machine.tasks.slots:
            self._propose_slots(now)
        if self._fresh:
            self._send_fresh(now)
        if self._reads.has_new:
            self._start_reads(now)
        if self.engine.tick_wanted or now >= self._tick_at or self._has_payload(now):
            self._tick_at = now + self.settings.round_every
            self.engine.tick(self._send_ahead)
            self._follow_leadership(now)
        if self._reads.has_confirmed:
            self._reads.serve(self.engine.applied_index)
        if self.machine.index != self._told_index:
            self._told_index = self.machine.index
            for listener in list(self._listeners):
                listener()
        return self.engine.begin_flush(self._send_frame, self._push)

    def end_round(self) -> float:
        """What may be said now that the disk has it; see `round`."""
        self.engine.end_flush(self._send_frame)
        now = self._clock()
        if now >= self._status_at:
            self._tell_peers(now)
        return self._next_round(now)

    def close(self) -> None:
        """Answer everybody who waits and let the journal go; no round may follow."""
        error = errors.ShuttingDown("this node stopped before the answer came", definite=False)
        for seq in dict(self._pending.items()):
            self._fail(seq, error)
        self._reads.close()
        self.engine.close()

    # ---- what the engine drives

    def apply(self, index: int, payload: bytes) -> None:
        """Apply one committed entry and answer those of its requests that are ours."""
        entry = batch.decode(payload)
        answers = self.machine.apply(index, entry)
        self.counters.entries_applied += 1
        self.counters.commands_applied += len(answers)
        self._cluster_clock.see(self._clock(), self.machine.now_ms)
        node, boot = self._origin
        for answer in answers:
            request_node, request_boot, seq = answer.request
            if request_node == node and request_boot == boot:
                self._on_outcome(seq, answer.outcome, index)

    def skip(self, index: int) -> None:
        """A new leader's first entry: only the position moves."""
        self.machine.skip(index)

    def dump(self) -> Iterable[bytes]:
        """The machine's state in chunks."""
        return snapshot.encode(self.machine.dump())

    def load(self, index: int, chunks: Iterable[bytes]) -> None:
        """Replace the machine by a snapshot; answers that came within it are found in its tables."""
        self.machine = Machine.load(snapshot.decode(chunks))
        if self.machine.index != index:
            raise WireError(f"a snapshot of entry {index} holds a state of {self.machine.index}")
        self._cluster_clock.see(self._clock(), self.machine.now_ms)
        for seq in sorted(self._forsaken):
            outcome = self.machine.answer(RequestId(*self._origin, seq))
            if outcome is not None and type(outcome) is not Queued:
                self._on_outcome(seq, outcome, index)
        for seq, waiting in self._pending.items():
            outcome = self.machine.answer(RequestId(*self._origin, seq))
            if outcome is not None:
                self._on_outcome(seq, outcome, index)
            elif waiting.is_parked:
                self._fail(seq, errors.Timeout("the answer was given while this node was cut off"))
        for seq in self.machine.waits_of(self._origin):
            if self._pending.get(seq) is None:
                # Given up before we heard that it stands in a queue.
                self._abandon(seq, None)

    def next_payload(self) -> bytes | None:
        """Seal what is queued, or a timer entry where a deadline is due."""
        # Of the round: a stop in the middle of it shows at the begin of the next.
        now = self._round_at
        if not self._cluster_clock.leads or not self._is_due(now):
            return None
        self._anchor_due = False
        payload, count = self._batcher.seal(self._cluster_clock.now_ms(now), self._wall_ms())
        self.counters.entries_sealed += 1
        self.counters.commands_sealed += count
        return payload

    def on_outcome(self, payload: bytes, outcome: ProposalOutcome) -> None:
        """Nothing to do: every origin repeats what it has no answer to, under the same id."""

    # ---- outcomes

    def _on_outcome(self, seq: int, outcome: Outcome, index: int) -> None:
        # Not by isinstance, which takes its time with Structs: there is one for each request.
        kind = type(outcome)
        if kind is Queued:
            waiting = self._pending.park(seq)
            if waiting is None or waiting.hung_up:
                # Given up before it was applied: nobody else would take it out of its queue.
                self._abandon(seq, self._pending.settle(seq))
            elif self.draining:
                self._withdraw(seq, waiting)
        elif kind is not Void:
            # Void is the answer to a late repeat of what was answered or given up before.
            waiting = self._pending.settle(seq)
            if waiting is None:
                if seq in self._forsaken:
                    self._forsaken.discard(seq)
                    self._undo(outcome)
                return
            if waiting.hung_up and waiting.request.key is None:
                self._undo(outcome)
            if kind is Withdrawn and waiting.is_leaving:
                # Applied, so it is certain: it was never granted and never will be.
                waiting.on_reply(
                    Failed(errors.ShuttingDown("this node is shutting down; ask another one"))
                )
            else:
                waiting.on_reply(Answered(outcome, index))

    def _fail(self, seq: int, error: errors.CoterieError) -> None:
        waiting = self._pending.settle(seq)
        if waiting is not None:
            waiting.on_reply(Failed(error))
            if waiting.is_parked:
                self._abandon(seq, waiting)

    def _abandon(self, seq: int, waiting: Waiting | None) -> None:
        """Take a parked request, settled already, of a client that is gone out of its queue."""
        if waiting is not None and waiting.request.key is None:
            self._forsaken.add(seq)
        self._take_out(seq)

    def _withdraw(self, seq: int, waiting: Waiting) -> None:
        """Take a parked request out of its queue, and tell its client when it is out."""
        if not waiting.is_leaving:
            waiting.is_leaving = True
            self._take_out(seq)

    def _take_out(self, seq: int) -> None:
        """Have the machine end a wait, by a command: a replicated queue changes by the log only."""
        # Once that is applied, no answer of the wait can come any more.
        self._say(Abandon(seq), lambda _reply: self._forsaken.discard(seq))

    def _undo(self, outcome: Outcome) -> None:
        """Take back what a client was to be told that is gone, and that has no key to ask again."""
        for command in undo(outcome):
            self._say(command, _ignore)

    def _say(self, command: Command, on_reply: OnReply) -> None:
        """Submit a command of our own."""
        seq, now = self._pending.next_seq(), self._clock()
        request = ForwardedRequest(seq, commands.encode(command))
        # It must reach the log even if that takes long: nobody else would do it.
        self._pending.add(Waiting(request, on_reply, now, now + 3600.0, 0.0, hung_up=True))
        self._fresh.append(seq)
        self._wake()

    # ---- to the leader

    def _send_fresh(self, now: float) -> None:
        leader, pending = self.engine.leader, self._pending
        if leader is None:
            # They go with all that is unresolved as soon as there is a leader.
            self._fresh.clear()
            return
        if leader != self.settings.node and self._is_leader_busy():
            return
        fresh, self._fresh = self._fresh, []
        waiting = [found for seq in fresh if (found := pending.get(seq)) is not None]
        self._hand_over(waiting, now)

    def _send_unresolved(self, now: float) -> None:
        self._fresh.clear()
        self._pending.take_all_back()
        self._hand_over([waiting for _, waiting in self._pending.unparked()], now)

    def _is_leader_busy(self) -> bool:
        """It has enough of ours. More at once would fill the stream to it, and so break it."""
        return self._pending.in_hand_bytes >= self.settings.forward_bytes_max

    def _hand_over(self, waiting: list[Waiting], now: float) -> None:
        """Put requests into the leader's hands: our own batcher, or one frame per megabyte."""
        leader, pending, counters = self.engine.leader, self._pending, self.counters
        if leader is None or not waiting:
            return
        ack = pending.ack
        if leader == self.settings.node:
            for one in waiting:
                counters.commands_resent += one.sent > 0
                pending.hand_over(one, now)
                if not self._batcher.add(self._origin, ack, one.request):
                    self._refuse(one.request.seq)
            return
        part: list[ForwardedRequest] = []
        size = 0
        for place, one in enumerate(waiting):
            if not one.is_in_hand and self._is_leader_busy():
                # As answers come: they stand before all that is taken from now on.
                self._fresh += [later.request.seq for later in waiting[place:]]
                break
            counters.commands_forwarded += 1
            counters.commands_resent += one.sent > 0
            pending.hand_over(one, now)
            part.append(one.request)
            size += len(one.request.body)
            if size >= _FORWARD_BYTES_MAX or len(part) >= 1_000:
                self._send(leader, Forward(self._origin.boot, ack, tuple(part)))
                part, size = [], 0
        if part:
            self._send(leader, Forward(self._origin.boot, ack, tuple(part)))

    def _refuse(self, seq: int) -> None:
        """A leader's queue is full. Definite only if no other copy can be under way."""
        waiting = self._pending.get(seq)
        if waiting is not None and not waiting.is_parked:
            self._fail(
                seq,
                errors.Overloaded(
                    "the leader's queue is full; try again in a second", definite=waiting.sent <= 1
                ),
            )

    def _follow_leadership(self, now: float) -> None:
        """Notice a change of role, leader or term, and bring what is unresolved to the new one."""
        engine = self.engine
        leadership = engine.leadership
        if leadership != self._leadership:
            before, self._leadership = self._leadership, leadership
            if engine.leader != before[1]:
                self.counters.leader_changes += 1
            if engine.leader is None and before[1] is not None:
                self._leader_lost_at = now
            if not engine.is_leader:
                self._cluster_clock.follow()
                self._batcher.clear()
            self._status_at = now
            if engine.leader is not None:
                self._settle_handover()
                self._reads.ask_again()
                self._send_unresolved(now)
        if not self._cluster_clock.leads and engine.is_settled_leader:
            self._begin_to_lead(now)

    def _begin_to_lead(self, now: float) -> None:
        engine = self.engine
        self._slots_asked = 0
        last_term = engine.term_at(engine.first_entry_of_term - 1)
        self._cluster_clock.lead(
            now,
            applied_ms=self.machine.now_ms,
            last_term=engine.term if last_term is None else last_term,
        )
        # Anchor the time we heard of in the log, so that the next leader starts from it too.
        self._anchor_due = self._cluster_clock.now_ms(now) > self.machine.now_ms + 1_000

    def _propose_slots(self, now: float) -> None:
        """Answer what scheduled tasks ask of a leader: when they are due next.

        A few in each round, and fewer where each takes long: of a cron that missed a thousand slots
        every one is looked at. As commands of our own, so that they are repeated until they are
        applied; once for each revision while we lead, and the machine takes the first answer only.
        """
        until = self._clock() + _SLOTS_S_MAX
        for wanted in self.machine.tasks.wanting(self._slots_asked, _SLOTS_PER_ROUND):
            if self._pending.is_full or self._clock() >= until:
                return
            self._slots_asked = wanted.revision
            try:
                command = schedules.answer(wanted, self._wall_ms())
            except ValueError:
                continue  # Our rules know no such zone (any more): the next leader's may.
            seq = self._pending.next_seq()
            request = ForwardedRequest(seq, commands.encode(command))
            self._pending.add(Waiting(request, _ignore, now, now + 3600.0, 0.0, hung_up=True))
            self._fresh.append(seq)

    def _sweep(self, now: float) -> None:
        """Give up what is late, and send again what may be lost."""
        settings, leader = self.settings, self.engine.leader
        again: list[Waiting] = []
        lost_at = None if leader is not None else self._leader_lost_at
        for seq, waiting in self._pending.items():
            if now >= waiting.deadline:
                self._fail(seq, _too_late(waiting, leader))
            elif waiting.is_parked:
                continue  # It keeps its place through an election.
            elif lost_at is not None:
                # What went out already waits to hear how it ended; what did not is as late as a read.
                since = max(lost_at, waiting.taken_at) if waiting.sent else lost_at
                # What frees a place waits for any leader, but not for ever where this node goes.
                is_wanted = waiting.hung_up and not self.draining
                is_patient = is_wanted or waiting.is_patient
                if not is_patient and now - since >= settings.no_leader_after:
                    self._fail(seq, _no_leader(waiting))
            elif waiting.is_in_hand and now - waiting.sent_at >= settings.resend_after * min(
                waiting.sent, 8
            ):
                again.append(waiting)
        if again:
            self._hand_over(again, now)
        is_lost = leader is None and now - self._leader_lost_at >= settings.no_leader_after
        self._reads.sweep(now, _no_leader(None) if is_lost else None)
        for question, (on_reply, deadline) in list(self._transfers.items()):
            if now >= deadline:
                del self._transfers[question]
                on_reply(Failed(errors.Timeout("the leader did not answer")))
        late = [one for one in self._handed_over if now >= one[1]]
        if late:
            self._handed_over = [one for one in self._handed_over if now < one[1]]
            for on_reply, _ in late:
                on_reply(Failed(errors.Timeout("no new leader was seen in time")))

    # ---- reads (thesis 6.4)

    def _start_reads(self, now: float) -> None:
        leader = self.engine.leader
        if leader is None or not (self.engine.is_settled_leader or leader != self.settings.node):
            return
        reads = self._reads.take_new()
        if leader == self.settings.node:
            self.engine.read_index(lambda index: self._reads.confirm(reads, index))
        else:
            question = self._ask()
            self._reads.ask(question, reads, now)
            self._send(leader, ReadRequest(question))

    # ---- hand-over

    def _transfer_here(self, to: str | None, on_reply: OnReply) -> None:
        def on_done(error: str | None) -> None:
            if error is None:
                self._handed_over.append((on_reply, self._clock() + 3.0))
            else:
                on_reply(Failed(_transfer_error(error)))

        self.engine.transfer(to, on_done)

    def _settle_handover(self) -> None:
        """A leader is known: whoever waits for the end of a hand-over hears of it."""
        handed_over, self._handed_over = self._handed_over, []
        for on_reply, _ in handed_over:
            on_reply(Answered(None, self.engine.applied_index))

    def _on_transfer_request(self, peer: str, request: TransferRequest, now: float) -> None:
        def on_reply(reply: Answered | Failed) -> None:
            error = reply.error.code if isinstance(reply, Failed) else None
            self._send(peer, TransferAnswer(request.id, self.engine.leader, error))

        if self.engine.is_leader:
            self._transfer_here(request.to, on_reply)
        else:
            self._send(peer, TransferAnswer(request.id, self.engine.leader, "not_leader"))

    def _on_transfer_answer(self, peer: str, answer: TransferAnswer, now: float) -> None:
        known = self._transfers.pop(answer.id, None)
        if known is None:
            return
        if answer.error is None:
            known[0](Answered(None, self.engine.applied_index))
        else:
            known[0](Failed(_transfer_error(answer.error)))

    # ---- from peers

    def _on_frame(self, peer: str, frame: bytes, now: float) -> None:
        if peer not in self._peers:
            return
        try:
            message = frames.decode(frame)
        except WireError:
            # An authenticated peer of another version, or a bug: its message is void, not ours.
            self.counters.frames_refused += 1
            return
        self._peers.hear(peer, now)
        handler = _HANDLERS.get(type(message))
        if handler is not None:
            handler(self, peer, message, now)
        else:
            self.engine.receive(peer, cast(RaftMessage, message))

    def _on_forward(self, peer: str, forward: Forward, now: float) -> None:
        if not self.engine.is_leader:
            return  # The sender repeats it to the leader it hears of next.
        origin, ack = Origin(peer, forward.boot), forward.ack
        refused = [
            request.seq
            for request in forward.requests
            if not self._batcher.add(origin, ack, request)
        ]
        if refused:
            self._send(peer, Refused(forward.boot, tuple(refused), errors.Overloaded.code))

    def _on_refused(self, peer: str, refused: Refused, now: float) -> None:
        if refused.boot == self._origin.boot:
            for seq in refused.seqs:
                self._refuse(seq)

    def _on_read_request(self, peer: str, request: ReadRequest, now: float) -> None:
        self.engine.read_index(lambda index: self._send(peer, ReadAnswer(request.id, index)))

    def _on_read_answer(self, peer: str, answer: ReadAnswer, now: float) -> None:
        # A node that leads no longer says None: the sweep asks again, by then perhaps another.
        if answer.index is not None:
            self._reads.answer(answer.id, answer.index)

    def _on_status(self, peer: str, status: Status, now: float) -> None:
        self._peers.note(peer, status)
        if status.role == "leader" and status.term == self.engine.term:
            self._cluster_clock.hear(now, term=status.term, leader_ms=status.now_ms)

    def _send(self, peer: str, message: Message) -> None:
        self._send_frame(peer, frames.encode(message))

    def _ask(self) -> int:
        question, self._next_question = self._next_question, self._next_question + 1
        return question

    def _tell_peers(self, now: float) -> None:
        self._status_at = now + self.settings.status_every
        for peer in self._peers.connected:
            self._send_status(peer)

    def _send_status(self, peer: str) -> None:
        engine, settings = self.engine, self.settings
        leads = self._cluster_clock.leads
        self._send(
            peer,
            Status(
                boot=self._origin.boot,
                role=engine.role if leads or not engine.is_leader else "follower",
                term=engine.term,
                commit_index=engine.commit_index,
                applied_index=engine.applied_index,
                digest=self.machine.digest,
                http=settings.http,
                version=settings.version,
                fronts=settings.fronts,
                now_ms=self._cluster_clock.now_ms(self._round_at) if leads else 0,
            ),
        )

    # ---- status

    def _is_stalled(self, now: float) -> bool:
        """No round began for so long that a leader would have stepped down in it."""
        return now - self._round_at >= self.settings.engine.check_quorum

    def _why_not_ready(self, now: float) -> str | None:
        engine = self.engine
        if self.draining:
            return "shutting down"
        if self._is_stalled(now):
            stalled_ms = int((now - self._round_at) * 1000)
            return f"stands still for {stalled_ms} ms: its disk does not answer, or it was stopped"
        if engine.leader is None:
            return "no leader is known"
        if engine.is_leader and not engine.is_settled_leader:
            return "leads, but has not confirmed what was promised before"
        lag = engine.commit_index - engine.applied_index
        if lag > 10_000:
            return f"{lag} entries behind"
        if not engine.is_leader and not self._peers.is_connected(engine.leader):
            return "the leader is not reachable"
        return None

    def _has_payload(self, now: float) -> bool:
        """A tick would seal an entry."""
        return self._cluster_clock.leads and self.engine.can_take_entry and self._is_due(now)

    def _send_ahead(self) -> None:
        self.engine.send_ahead(self._send_frame, self._push)

    def _is_due(self, now: float) -> bool:
        """On the leader: there is something to put into an entry, be it only the time."""
        if self._batcher or self._anchor_due:
            return True
        if self.engine.last_index > self.engine.applied_index:
            # What is under way brings a time of its own; what is due then is seen when it is applied.
            return False
        deadline_ms = self.machine.next_deadline_ms()
        if deadline_ms is not None and deadline_ms <= self._cluster_clock.now_ms(now):
            return True
        slot_ms = self.machine.next_wall_ms()
        return slot_ms is not None and slot_ms <= self._wall_ms()

    def _next_round(self, now: float) -> float:
        engine = self.engine
        if engine.tick_wanted or self._inbox:
            return 0.0
        delay = max(self._tick_at - now, 0.0)
        if self._cluster_clock.leads and engine.can_take_entry:
            if self._batcher or self._fresh:
                return 0.0
            deadline_ms = self.machine.next_deadline_ms()
            if deadline_ms is not None:
                until = (deadline_ms - self._cluster_clock.now_ms(now)) / 1000
                delay = min(delay, max(until, 0.001))
            slot_ms = self.machine.next_wall_ms()
            if slot_ms is not None:
                delay = min(delay, max((slot_ms - self._wall_ms()) / 1000, 0.001))
        return delay


def _ignore(reply: Answered | Failed) -> None:
    """The reply that nobody wants."""


def _no_leader(waiting: Waiting | None) -> errors.NoLeader:
    return errors.NoLeader(
        "nobody leads: fewer than a majority of the nodes can be reached from here",
        definite=waiting is None or waiting.sent == 0,
    )


def _too_late(waiting: Waiting, leader: str | None) -> errors.CoterieError:
    if waiting.sent:
        return errors.Timeout("no answer in time; repeat with the same Idempotency-Key")
    if leader is not None:
        return errors.Overloaded("the leader did not take it in time; try again in a second")
    return _no_leader(waiting)


_TRANSFER_ERRORS = {
    "no_candidate": "no node is connected, alive and close enough behind to take over",
    "transfer_running": "another hand-over is under way",
    "transfer_timed_out": "the target did not take over in time; this leader goes on",
    "not_leader": "the node that was asked leads no longer; ask again",
}


def _transfer_error(code: str) -> errors.CoterieError:
    detail = _TRANSFER_ERRORS.get(code, "the hand-over failed")
    error = errors.Refused(detail, code=code, status=409, reason={})
    error.retryable = True
    return error


_HANDLERS: dict[type[Message], Callable[..., None]] = {
    Forward: Node._on_forward,
    Refused: Node._on_refused,
    ReadRequest: Node._on_read_request,
    ReadAnswer: Node._on_read_answer,
    Status: Node._on_status,
    TransferRequest: Node._on_transfer_request,
    TransferAnswer: Node._on_transfer_answer,
}
