"""Bugs of the engine, its journal and its snapshots: every guard switched off in turn.

RULE: patches of `cluster.replication`, each named by what the engine's notes call the guard. They
hold in the simulator and in a real process alike.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Final
from unittest import mock

from cluster.replication import disk as disk_module
from cluster.replication import engine as engine_module
from cluster.replication import journal as journal_module
from cluster.replication import snapshots as snapshots_module
from cluster.replication.disk import DiskFailed, OsDisk
from cluster.replication.engine import Engine
from cluster.replication.guard import Normalised, ReadIndex, normalise
from cluster.replication.journal import Journal
from cluster.wire.frames import (
    Append,
    AppendAnswer,
    PreVoteRequest,
    Snapshot,
    TermNotice,
    TimeoutNow,
    VoteAnswer,
)
from jepsen.zoo.species import Plant, Real, Simulated, replaced, together

Off = AbstractContextManager[Any]

_LOST = frozenset({"K12 durability", "K1 linearizable locks", "K2 tokens", "K15 hygiene"})
_TORN = frozenset({"K2 mutual exclusion", "K11 equal replicas"})


def _handled(kind: type, handler: Callable[[Engine, Any, Any], None]) -> Off:
    """Another handler for one kind of message."""
    return replaced(engine_module, _HANDLERS={**engine_module._HANDLERS, kind: handler})


def _simulated_disk() -> Any:
    """The simulator's disk; None where no simulator is there."""
    module = sys.modules.get("tests.simulation.disk")
    return None if module is None else module.SimDisk


# ---- G1 to G3: what is promised is on the disk ---------------------------------------------------


def _hard_state_not_loaded() -> Off:
    """Term and vote start from the log, as if they had never been stored."""
    recover, refuse = Engine._recover, journal_module._Replay._refuse

    def forgetful(self: Engine) -> None:
        journal = self.journal
        journal._term = journal[-1][2]
        journal._vote = None
        journal.setCurrentTerm(journal._term, None)
        recover(self)

    def lenient(self: Any, reason: str) -> None:
        # What was written in a forgotten term stands before what was written in an earlier one.
        if not reason.startswith("term "):
            refuse(self, reason)

    return together(
        replaced(Engine, _recover=forgetful),
        replaced(journal_module._Replay, _refuse=lenient),
    )


def _vote_not_loaded() -> Off:
    """The term is kept, the vote in it forgotten."""
    recover = Engine._recover

    def forgetful(self: Engine) -> None:
        self.journal._vote = None
        self.journal.setCurrentTerm(self.journal._term, None)
        recover(self)

    return replaced(Engine, _recover=forgetful)


def _unsynced(prefix: str) -> Off:
    """Syncs of these files return at once and do nothing."""
    sync = disk_module._OsFile.sync

    def lazy(self: Any) -> None:
        if not self._name.startswith(prefix):
            sync(self)

    real, simulated = replaced(disk_module._OsFile, sync=lazy), _simulated_disk()
    if simulated is None:
        return real
    sync_inode = simulated.sync_inode

    def lazy_inode(self: Any, inode: Any, name: str) -> None:
        if not name.startswith(prefix):
            sync_inode(self, inode, name)

    return together(real, replaced(simulated, sync_inode=lazy_inode))


def _journal_not_synced() -> Off:
    """The journal is written and never synced."""
    return _unsynced("journal-")


def _snapshots_not_synced() -> Off:
    """Snapshots are written and never synced."""
    return _unsynced("snapshot-")


def _directory_not_synced() -> Off:
    """Names are never made durable."""
    real, simulated = replaced(OsDisk, sync_directory=lambda self: None), _simulated_disk()
    if simulated is None:
        return real
    return together(real, replaced(simulated, sync_directory=lambda self: None))


def _send_before_sync() -> Off:
    """The network first, the disk after it."""

    def begin_flush(
        self: Engine, send: Callable[[str, bytes], object], push: Callable[[], None]
    ) -> bool:
        out, self._out = self._out, []
        for peer, _, frame in out:
            send(peer, frame)
        return bool(self.journal.begin_sync())

    return replaced(Engine, begin_flush=begin_flush)


def _failed_sync_ignored() -> Off:
    """A failed sync is logged, and life goes on."""
    wait = Journal.wait_for_disk

    def careless(self: Journal) -> None:
        with contextlib.suppress(DiskFailed):
            wait(self)

    return replaced(Journal, wait_for_disk=careless)


def _commit_index_trusted() -> Off:
    """A start takes its whole log for committed (c9)."""
    recover = Engine._recover

    def trusting(self: Engine) -> None:
        recover(self)
        self._SyncObj__raftCommitIndex = self.last_index

    return replaced(Engine, _recover=trusting)


# ---- G4: appends ---------------------------------------------------------------------------------


def _not_normalised() -> Off:
    """The stock handler gets appends as they come."""

    def as_it_is(append: Append, log: object, floor: int) -> Normalised:
        return Normalised(
            append.prev_index, append.prev_term, append.entries, append.commit_index, None
        )

    return replaced(engine_module, normalise=as_it_is)


def _claims_too_much() -> Off:
    """An append that proved little is answered as if our whole log were the leader's (G4.4)."""

    def generous(append: Append, log: Any, floor: int) -> Normalised:
        return replace(normalise(append, log, floor), claim=None)

    return replaced(engine_module, normalise=generous)


def _commit_beyond_proof() -> Off:
    """The commit index of an append counts for our whole log, not for what it proved (G4.5)."""

    def generous(append: Append, log: Any, floor: int) -> Normalised:
        normal = normalise(append, log, floor)
        return replace(normal, commit_index=append.commit_index)

    return replaced(engine_module, normalise=generous)


# ---- G5: snapshots -------------------------------------------------------------------------------


def _snapshot_commits() -> Off:
    """Snapshot messages move the commit index to min(leader's, own last index), as in stock (e)."""
    commits: dict[tuple[int, int], int] = {}
    send, receive = Engine._send_snapshot, Engine._on_snapshot

    def sending(self: Engine, peer: Any, chunk: Any) -> None:
        commits[self.term, self._reads.beat] = self.commit_index
        send(self, peer, chunk)

    def receiving(self: Engine, peer: Any, message: Snapshot) -> None:
        receive(self, peer, message)
        said = min(commits.get((message.term, message.beat), 0), self.last_index)
        if message.term == self.term and said > self.commit_index:
            self._SyncObj__raftCommitIndex = said

    return together(
        replaced(Engine, _send_snapshot=sending),
        _handled(Snapshot, receiving),
    )


def _tail_dropped() -> Off:
    """A snapshot replaces the whole log, also the acknowledged entries after it (n4)."""
    receive = engine_module._HANDLERS[Snapshot]

    def nothing(self: Engine, index: int) -> None:
        """No entry is known here."""

    def receiving(self: Engine, peer: Any, message: Snapshot) -> None:
        head = message.head
        if head is None or head.index <= self._floor():
            receive(self, peer, message)
            return
        with mock.patch.object(Engine, "term_at", nothing):
            receive(self, peer, message)

    return _handled(Snapshot, receiving)


def _starved_stay_connected() -> Off:
    """A follower for which there is no chunk is asked again at once (j4)."""
    send = Engine._send_snapshot

    def sending(self: Engine, peer: Any, chunk: Any) -> None:
        send(self, peer, chunk)
        if chunk is None:
            self._SyncObj__connectedNodes.add(peer)

    return replaced(Engine, _send_snapshot=sending)


# ---- G6, G7: answers and votes -------------------------------------------------------------------


def _handler(kind: type, change: Callable[[Engine, Any], Any]) -> Off:
    """Let a message be changed on its way to its handler."""
    handle = engine_module._HANDLERS[kind]

    def changed(self: Engine, peer: Any, message: Any) -> None:
        handle(self, peer, change(self, message))

    return _handled(kind, changed)


def _answer_of_any_term() -> Off:
    """Append answers of earlier terms count (n1)."""

    def of_now(self: Engine, answer: AppendAnswer) -> AppendAnswer:
        return AppendAnswer(
            term=self.term,
            beat=answer.beat if answer.term == self.term else 0,
            next_index=answer.next_index,
            reset=answer.reset,
            success=answer.success,
        )

    return _handler(AppendAnswer, of_now)


def _votes_counted_not_voters() -> Off:
    """A vote that arrives twice counts twice (n2)."""

    def forget(self: Engine, answer: VoteAnswer) -> VoteAnswer:
        self._votes.clear()
        return answer

    return _handler(VoteAnswer, forget)


def _votes_without_prevote() -> Off:
    """Both at once: repeated votes count, and nothing stands before an election."""
    return together(
        _votes_counted_not_voters(),
        _no_prevote(),
    )


def _next_index_below_match() -> Off:
    """The next index may fall to or below what is known to match (G6)."""

    def on_answer(self: Engine, peer: Any, answer: AppendAnswer) -> None:
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
        self._heard(peer, answer.beat)

    return _handled(AppendAnswer, on_answer)


def _no_prevote() -> Off:
    """Everybody campaigns when its time is up, and everybody listens (g)."""
    count = Engine._count_prevotes

    def at_once(self: Engine) -> None:
        self._prevote.go = True

    assert count is not None
    return replaced(Engine, _count_prevotes=at_once, _leader_is_alive=lambda self: False)


def _no_term_notice() -> Off:
    """A node with a higher term is left alone with it."""

    def quiet(self: Engine, peer: Any, request: PreVoteRequest) -> None:
        if request.next_term > self.term:
            handle(self, peer, request)

    handle = engine_module._HANDLERS[PreVoteRequest]
    post = Engine._post

    def post_no_notice(self: Engine, peer: str, message: Any) -> None:
        if not isinstance(message, TermNotice):
            post(self, peer, message)

    return together(
        replaced(Engine, _post=post_no_notice),
        _handled(PreVoteRequest, quiet),
    )


# ---- G12, G13: reads and hand-over ---------------------------------------------------------------


def _reads_not_confirmed() -> Off:
    """A leader serves reads because it believes to lead."""

    def take_all(self: ReadIndex, applied_index: int, peers: object) -> list[Any]:
        ready = [read for read in self.waiting if read.index <= applied_index]
        self.waiting = [read for read in self.waiting if read.index > applied_index]
        return ready

    return replaced(ReadIndex, take_ready=take_all)


def _stock_hand_over() -> Off:
    """The target of a hand-over uses the library's own handler (o3)."""

    def stock(self: Engine, peer: Any, message: Any) -> None:
        self._SyncObj__onMessageReceived(peer, {"type": "timeout_now", "term": message.term})

    return _handled(TimeoutNow, stock)


def _no_flag() -> Off:
    """The campaign of a hand-over looks like any other."""
    launch = Engine._launch

    def plain(self: Engine) -> None:
        self._campaign_is_handover = False
        launch(self)

    return replaced(Engine, _launch=plain)


def _commands_not_held() -> Off:
    """A leader takes commands into its log while it hands over."""
    check = Engine._checkCommandsToApply

    def careless(self: Engine) -> None:
        handover, self._handover = self._handover, None
        check(self)
        if self.is_leader:
            self._handover = handover

    return replaced(Engine, _checkCommandsToApply=careless)


def _no_commit_notice() -> Off:
    """Followers hear of a commit with the next heartbeat."""
    tick = Engine._onTick

    def pretending(self: Engine, wait: float) -> None:
        tick(self, wait)
        self._appends_sent += 1

    return replaced(Engine, _onTick=pretending)


class _Equal(int):
    """A number that differs from none."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


class _EqualBytes(bytes):
    """Bytes that differ from none."""

    __slots__ = ()

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = bytes.__hash__


class _Lenient:
    """Head of a record whose checksum agrees with any."""

    size = journal_module._PREFIX.size
    pack = journal_module._PREFIX.pack

    @staticmethod
    def unpack_from(data: bytes, offset: int = 0) -> tuple[int, int]:
        """Length, and a checksum that is right."""
        length, crc = _PREFIX.unpack_from(data, offset)
        return length, _Equal(crc)


_PREFIX: Final = journal_module._PREFIX


def _checksums_not_compared() -> Off:
    """What stands in a journal is taken as it is: flipped bits, and whatever a power loss tore."""
    return replaced(journal_module, _PREFIX=_Lenient)


def _rot_is_torn() -> Off:
    """What is broken in the midst of a journal is cut off, as if it were a torn end."""
    return replaced(journal_module, _batch_behind=lambda *of: None)


def _snapshots_not_verified() -> Off:
    """What stands in a snapshot is taken as it is."""

    class Sha:
        def __init__(self) -> None:
            self._sha = hashlib.sha256()
            self.update = self._sha.update
            self.copy = Sha

        def digest(self) -> bytes:
            return _EqualBytes(self._sha.digest())

    def crc32(data: bytes, value: int = 0) -> int:
        return _Equal(zlib.crc32(data, value))

    return replaced(snapshots_module, crc32=crc32, _SHA256=Sha())


def _more_committed(enough: Callable[[Engine, int], bool]) -> Off:
    """A leader commits whatever is enough, and not what the library's rule says."""
    tick = Engine._onTick

    def generous(self: Engine, wait: float) -> None:
        if self.is_leader:
            commit = self.commit_index
            while commit < self.last_index and enough(self, commit + 1):
                commit += 1
            if commit > self.commit_index:
                self._SyncObj__raftCommitIndex = commit
                self.journal.setRaftCommitIndex(commit)
        tick(self, wait)

    return replaced(Engine, _onTick=generous)


def _old_terms_committed() -> Off:
    """A majority that holds an entry of an earlier term commits it (Raft, figure 8)."""

    def held(self: Engine, index: int) -> bool:
        match = self._SyncObj__raftMatchIndex
        holders = 1 + sum(match[peer] >= index for peer in self._peers.values())
        return bool(holders > (len(self._peers) + 1) / 2)

    return _more_committed(held)


def _acknowledged_before_commit() -> Off:
    """What the leader has in its own log is committed: nobody else is waited for."""
    return _more_committed(lambda self, index: True)


def _two_tails(laws: frozenset[str]) -> Simulated:
    """A hunt among logs that differ in long tails, over streams that lose nothing."""
    return Simulated(
        laws,
        "elections",
        nodes=3,
        settings={
            "faults": {"two_tails": 10},
            "gap_us": (500_000, 1_500_000),
            "snapshot_entries": 1_000,
            "window": 12,
            "clients": 12,
            "think_us": 20_000,
            "append_bytes_max": 2_000,
        },
    )


PLANTS: Final = (
    Plant(
        "g1-hard-state",
        "term and vote not loaded",
        "G1",
        _hard_state_not_loaded,
        Simulated(frozenset({"one vote per term"}), "elections"),
    ),
    Plant(
        "g1-vote",
        "vote not loaded: not durable",
        "G1",
        _vote_not_loaded,
        Simulated(frozenset({"one vote per term"}), "elections"),
    ),
    Plant(
        "g1-errors",
        "a failed write or sync is ignored",
        "G1",
        _failed_sync_ignored,
        Simulated(
            frozenset({"a node starts on what it wrote", "durability"}), faults={"sick_disk": 20}
        ),
    ),
    Plant(
        "g2-no-sync",
        "the journal is never synced",
        "G2",
        _journal_not_synced,
        Simulated(frozenset({"a node starts on what it wrote", "durability"})),
        Real(_LOST, "locks", "power-all"),
    ),
    Plant(
        "g2-order",
        "sent first, synced after",
        "G2",
        _send_before_sync,
        Simulated(frozenset({"durability"}), "stops", settings={"stop_share": 0.003}),
    ),
    Plant(
        "g3-commit",
        "a start trusts its whole log (c9)",
        "G3",
        _commit_index_trusted,
        Simulated(frozenset({"durability", "committed entries never change"})),
    ),
    Plant(
        "g4",
        "appends not normalised",
        "G4",
        _not_normalised,
        Simulated(frozenset({"durability", "a round raises nothing"})),
    ),
    Plant(
        "g4-claim",
        "an answer claims our whole log",
        "G4",
        _claims_too_much,
        _two_tails(frozenset({"durability"})),
    ),
    Plant(
        "g4-commit",
        "commit index beyond the proof",
        "G4",
        _commit_beyond_proof,
        _two_tails(frozenset({"committed entries never change"})),
    ),
    Plant(
        "g5-commit",
        "snapshot messages commit (e)",
        "G5",
        _snapshot_commits,
        Simulated(frozenset({"committed entries never change"})),
    ),
    Plant(
        "g5-tail",
        "a snapshot drops the tail (n4)",
        "G5",
        _tail_dropped,
        Simulated(frozenset({"durability"}), "storm-harsh", settings={"snapshot_entries": 10}),
    ),
    Plant(
        "g5-sync",
        "snapshots never synced (c10)",
        "G5",
        _snapshots_not_synced,
        Simulated(frozenset({"a node starts on what it wrote"}), settings={"snapshot_entries": 10}),
    ),
    Plant(
        "g5-names",
        "names never synced",
        "G5",
        _directory_not_synced,
        Simulated(
            frozenset({"a node starts on what it wrote", "durability"}),
            settings={"snapshot_entries": 10},
        ),
    ),
    Plant(
        "g5-spin",
        "a starved follower is asked again at once (j4)",
        "G5",
        _starved_stay_connected,
        Simulated(frozenset({"no busy loop"}), settings={"snapshot_entries": 10}),
    ),
    Plant(
        "g6-term",
        "answers of old terms count (n1)",
        "G6",
        _answer_of_any_term,
        Simulated(frozenset({"durability"}), "slow-answers", nodes=5, budget=60),
    ),
    Plant(
        "g6-voters",
        "votes counted, not voters (n2)",
        "G6",
        _votes_counted_not_voters,
        Simulated(
            frozenset({"election safety"}),
            "repeated-votes",
            nodes=5,
            budget=40,
            faults={"crash_in_election": 5, "partition": 5},
            # Short timeouts make rivals.
            settings={"election_max": 0.42},
        ),
    ),
    Plant(
        "g6-voters-g7",
        "the same, without pre-vote",
        "G6",
        _votes_without_prevote,
        Simulated(frozenset({"election safety", "leader completeness"}), "repeated-votes", nodes=5),
    ),
    Plant(
        "g6-next",
        "next index at or below match",
        "G6",
        _next_index_below_match,
        Simulated(frozenset({"works again after healing"}), "slow-answers", nodes=5),
    ),
    Plant(
        "g7-notice",
        "no word to an old term",
        "G7",
        _no_term_notice,
        Simulated(frozenset({"works again after healing"}), "overtaken"),
    ),
    Plant(
        "g7-returning",
        "no pre-vote, no stickiness (g)",
        "G7",
        _no_prevote,
        Simulated(frozenset({"a leader is there", "a healthy leader stays"}), "returning"),
    ),
    Plant(
        "g10-notice",
        "no notice of a commit",
        "G10",
        _no_commit_notice,
        Simulated(frozenset({"followers apply at once"}), "quiet"),
    ),
    Plant(
        "g12",
        "reads not confirmed by a majority: stale",
        "G12",
        _reads_not_confirmed,
        Simulated(frozenset({"reads miss nothing"}), "partitions"),
        Real(frozenset({"K1 linearizable locks"}), "locks", "client-sees-old-leader"),
    ),
    Plant(
        "g13-stock",
        "the library's own target of a hand-over (o3)",
        "G13",
        _stock_hand_over,
        Simulated(frozenset({"transfer flag"}), faults={"transfer": 20}),
    ),
    Plant(
        "g13-flag",
        "no flag on the planned campaign",
        "G13",
        _no_flag,
        Simulated(frozenset({"a leader is there", "a hand-over works"}), "planned"),
    ),
    Plant(
        "g13-held",
        "commands taken during a hand-over",
        "G13",
        _commands_not_held,
        Simulated(frozenset({"a leader is there", "a hand-over works"}), "planned"),
    ),
    Plant(
        "g13-healthy",
        "the library's own target, healthy cluster",
        "G13",
        _stock_hand_over,
        Simulated(frozenset({"transfer flag"}), "planned"),
    ),
    Plant(
        "raft-minority",
        "acknowledged before a majority has it",
        "engine",
        _acknowledged_before_commit,
        Simulated(frozenset({"durability", "committed entries never change"})),
        Real(_LOST | _TORN, "locks", "leader-alone"),
    ),
    Plant(
        "raft-old-term",
        "a majority commits entries of earlier terms (figure 8)",
        "engine",
        _old_terms_committed,
        Simulated(
            frozenset({"leaders commit by their own term"}),
            "tails",
            nodes=3,
            budget=60,
            settings={
                # Less than a tail: its first part gets to a majority before what is new does.
                "append_bytes_max": 1_500,
                "clients": 8,
                "think_us": 5_000,
                "faults": {"see_saw": 10, "two_tails": 10, "crash": 5},
                "gap_us": (500_000, 1_500_000),
            },
        ),
    ),
    Plant(
        "journal-crc",
        "checksums of the journal not compared: torn tails and flipped bits are taken",
        "journal",
        _checksums_not_compared,
        Simulated(
            frozenset({"log matching", "durability", "committed entries never change"}),
            nodes=5,
            faults={"flip_journal": 4},
        ),
    ),
    Plant(
        "journal-rot",
        "rot in the journal taken for a torn end",
        "journal",
        _rot_is_torn,
        Simulated(frozenset({"rot is refused"}), nodes=5, faults={"flip_journal": 4}),
    ),
    Plant(
        "snapshot-crc",
        "checksums of snapshots not compared",
        "snapshots",
        _snapshots_not_verified,
        Simulated(
            frozenset({"a node starts on what it wrote", "equal states", "state machine safety"}),
            faults={"flip": 40},
            settings={"snapshot_entries": 10},
        ),
    ),
)
