"""Every guard switched off in turn: does anybody notice?

RULE: production code has no switches; each ablation replaces methods of production classes for the
time of one run, from outside. What nothing notices needs a better fault, or is no guard.

Planted bugs above the engine (requests, clock, locks) stand beside them: the checks must find these
too.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from cluster import errors
from cluster.machine.commands import RequestId
from cluster.machine.machine import Machine
from cluster.machine.outcome import Void
from cluster.machine.requests import Requests
from cluster.machine.tokens import Tokens
from cluster.node import node as node_module
from cluster.node.clock import ClusterClock
from cluster.node.node import Node
from cluster.replication import engine as engine_module
from cluster.replication import journal as journal_module
from cluster.replication.disk import DiskFailed
from cluster.replication.engine import Engine
from cluster.replication.guard import Normalised, ReadIndex, normalise
from cluster.replication.identity import Identity
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
from tests.simulation.disk import Inode, SimDisk
from tests.simulation.plan import Plan
from tests.simulation.run import GuardedBuilder
from tests.simulation.world import Builder

Patches = Iterator[None]
Change = Callable[[Plan], Plan]


def _same(plan: Plan) -> Plan:
    return plan


@dataclass(frozen=True, slots=True)
class Ablation:
    """One guard off.

    Attributes:
        guard: its number in the engine's notes, or the room a planted bug lives in.
        what: what is switched off, in a few words.
        off: context manager that does it.
        profile: the faults that show it best.
        nodes: how many; None as the profile says.
        change: a last word on the plan.
    """

    guard: str
    what: str
    off: Callable[[], contextlib.AbstractContextManager[Any]]
    profile: str = "storm-tcp"
    nodes: int | None = None
    change: Change = _same


def _replaced(owner: Any, **attributes: Any) -> contextlib.AbstractContextManager[Any]:
    stack = contextlib.ExitStack()
    for name, value in attributes.items():
        stack.enter_context(mock.patch.object(owner, name, value))
    return stack


def _handled(
    kind: type, handler: Callable[[Engine, Any, Any], None]
) -> contextlib.AbstractContextManager[Any]:
    """Another handler for one kind of message."""
    return _replaced(engine_module, _HANDLERS={**engine_module._HANDLERS, kind: handler})


# ---- G1 to G3: what is promised is on the disk ---------------------------------------------------


def _hard_state_not_loaded() -> Any:
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

    stack = contextlib.ExitStack()
    stack.enter_context(_replaced(Engine, _recover=forgetful))
    stack.enter_context(_replaced(journal_module._Replay, _refuse=lenient))
    return stack


def _vote_not_loaded() -> Any:
    """The term is kept, the vote in it forgotten."""
    recover = Engine._recover

    def forgetful(self: Engine) -> None:
        self.journal._vote = None
        self.journal.setCurrentTerm(self.journal._term, None)
        recover(self)

    return _replaced(Engine, _recover=forgetful)


def _unsynced(prefix: str) -> Any:
    """Syncs of these files return at once and do nothing."""
    sync = SimDisk.sync_inode

    def lazy(self: SimDisk, inode: Inode, name: str) -> None:
        if not name.startswith(prefix):
            sync(self, inode, name)

    return _replaced(SimDisk, sync_inode=lazy)


def _directory_not_synced() -> Any:
    """Names are never made durable."""
    return _replaced(SimDisk, sync_directory=lambda self: None)


def _send_before_sync() -> Any:
    """The network first, the disk after it."""

    def begin_flush(
        self: Engine, send: Callable[[str, bytes], object], push: Callable[[], None]
    ) -> bool:
        out, self._out = self._out, []
        for peer, _, frame in out:
            send(peer, frame)
        return bool(self.journal.begin_sync())

    return _replaced(Engine, begin_flush=begin_flush)


def _failed_sync_ignored() -> Any:
    """A failed sync is logged, and life goes on."""
    wait = Journal.wait_for_disk

    def careless(self: Journal) -> None:
        with contextlib.suppress(DiskFailed):
            wait(self)

    return _replaced(Journal, wait_for_disk=careless)


def _commit_index_trusted() -> Any:
    """A start takes its whole log for committed (c9)."""
    recover = Engine._recover

    def trusting(self: Engine) -> None:
        recover(self)
        self._SyncObj__raftCommitIndex = self.last_index

    return _replaced(Engine, _recover=trusting)


# ---- G4: appends ---------------------------------------------------------------------------------


def _not_normalised() -> Any:
    """The stock handler gets appends as they come."""

    def as_it_is(append: Append, log: object, floor: int) -> Normalised:
        return Normalised(
            append.prev_index, append.prev_term, append.entries, append.commit_index, None
        )

    return _replaced(engine_module, normalise=as_it_is)


def _claims_too_much() -> Any:
    """An append that proved little is answered as if our whole log were the leader's (G4.4)."""

    def generous(append: Append, log: Any, floor: int) -> Normalised:
        return replace(normalise(append, log, floor), claim=None)

    return _replaced(engine_module, normalise=generous)


def _commit_beyond_proof() -> Any:
    """The commit index of an append counts for our whole log, not for what it proved (G4.5)."""

    def generous(append: Append, log: Any, floor: int) -> Normalised:
        normal = normalise(append, log, floor)
        return replace(normal, commit_index=append.commit_index)

    return _replaced(engine_module, normalise=generous)


# ---- G5: snapshots -------------------------------------------------------------------------------


def _snapshot_commits() -> Any:
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

    stack = contextlib.ExitStack()
    stack.enter_context(_replaced(Engine, _send_snapshot=sending))
    stack.enter_context(_handled(Snapshot, receiving))
    return stack


def _tail_dropped() -> Any:
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


def _starved_stay_connected() -> Any:
    """A follower for which there is no chunk is asked again at once (j4)."""
    send = Engine._send_snapshot

    def sending(self: Engine, peer: Any, chunk: Any) -> None:
        send(self, peer, chunk)
        if chunk is None:
            self._SyncObj__connectedNodes.add(peer)

    return _replaced(Engine, _send_snapshot=sending)


# ---- G6, G7: answers and votes -------------------------------------------------------------------


def _handler(kind: type, change: Callable[[Engine, Any], Any]) -> Any:
    """Let a message be changed on its way to its handler."""
    handle = engine_module._HANDLERS[kind]

    def changed(self: Engine, peer: Any, message: Any) -> None:
        handle(self, peer, change(self, message))

    return _handled(kind, changed)


def _answer_of_any_term() -> Any:
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


def _votes_counted_not_voters() -> Any:
    """A vote that arrives twice counts twice (n2)."""

    def forget(self: Engine, answer: VoteAnswer) -> VoteAnswer:
        self._votes.clear()
        return answer

    return _handler(VoteAnswer, forget)


def _votes_without_prevote() -> Any:
    """Both at once: repeated votes count, and nothing stands before an election."""
    stack = contextlib.ExitStack()
    stack.enter_context(_votes_counted_not_voters())
    stack.enter_context(_no_prevote())
    return stack


def _next_index_below_match() -> Any:
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


def _no_prevote() -> Any:
    """Everybody campaigns when its time is up, and everybody listens (g)."""
    count = Engine._count_prevotes

    def at_once(self: Engine) -> None:
        self._prevote.go = True

    assert count is not None
    return _replaced(Engine, _count_prevotes=at_once, _leader_is_alive=lambda self: False)


def _no_term_notice() -> Any:
    """A node with a higher term is left alone with it."""

    def quiet(self: Engine, peer: Any, request: PreVoteRequest) -> None:
        if request.next_term > self.term:
            handle(self, peer, request)

    handle = engine_module._HANDLERS[PreVoteRequest]
    post = Engine._post

    def post_no_notice(self: Engine, peer: str, message: Any) -> None:
        if not isinstance(message, TermNotice):
            post(self, peer, message)

    stack = contextlib.ExitStack()
    stack.enter_context(_replaced(Engine, _post=post_no_notice))
    stack.enter_context(_handled(PreVoteRequest, quiet))
    return stack


# ---- G12, G13: reads and hand-over ---------------------------------------------------------------


def _reads_not_confirmed() -> Any:
    """A leader serves reads because it believes to lead."""

    def take_all(self: ReadIndex, applied_index: int, peers: object) -> list[Any]:
        ready = [read for read in self.waiting if read.index <= applied_index]
        self.waiting = [read for read in self.waiting if read.index > applied_index]
        return ready

    return _replaced(ReadIndex, take_ready=take_all)


def _stock_hand_over() -> Any:
    """The target of a hand-over uses the library's own handler (o3)."""

    def stock(self: Engine, peer: Any, message: Any) -> None:
        self._SyncObj__onMessageReceived(peer, {"type": "timeout_now", "term": message.term})

    return _handled(TimeoutNow, stock)


def _no_flag() -> Any:
    """The campaign of a hand-over looks like any other."""
    launch = Engine._launch

    def plain(self: Engine) -> None:
        self._campaign_is_handover = False
        launch(self)

    return _replaced(Engine, _launch=plain)


def _commands_not_held() -> Any:
    """A leader takes commands into its log while it hands over."""
    check = Engine._checkCommandsToApply

    def careless(self: Engine) -> None:
        handover, self._handover = self._handover, None
        check(self)
        if self.is_leader:
            self._handover = handover

    return _replaced(Engine, _checkCommandsToApply=careless)


def _no_commit_notice() -> Any:
    """Followers hear of a commit with the next heartbeat."""
    tick = Engine._onTick

    def pretending(self: Engine, wait: float) -> None:
        tick(self, wait)
        self._appends_sent += 1

    return _replaced(Engine, _onTick=pretending)


# ---- planted bugs above the engine ---------------------------------------------------------------


def _requests_forgotten() -> Any:
    """The machine does not remember what it answered: a repeat takes effect again."""
    answer = Machine._answer

    def amnesiac(self: Machine, memory: Any, request_id: RequestId, request: Any) -> Any:
        memory.by_seq.pop(request_id.seq, None)
        return answer(self, memory, request_id, request)

    return _replaced(Machine, _answer=amnesiac)


def _keys_forgotten() -> Any:
    """Idempotency-Keys are ignored."""
    return _replaced(Requests, find_key=lambda self, key: None)


def _boot_not_counted() -> Any:
    """Every life of a node numbers its requests alike."""
    return _replaced(Identity, boot=property(lambda self: 1))


def _void_answered() -> Any:
    """A late repeat of a settled request is taken for a new one."""
    answer = Machine._answer

    def gullible(self: Machine, memory: Any, request_id: RequestId, request: Any) -> Any:
        outcome = answer(self, memory, request_id, request)
        if isinstance(outcome, Void):
            return self._first_answer(request_id, request)
        return outcome

    return _replaced(Machine, _answer=gullible)


def _token_repeated() -> Any:
    """Tokens are the index of the entry."""

    def index_only(self: Tokens) -> int:
        self.last = max(self.last, self.index)
        return self.last

    return _replaced(Tokens, next=index_only)


def _queue_barged() -> Any:
    """Whoever asks while a lock is shared gets it, whatever is held."""
    from cluster.machine.locks import locks as locks_module

    return _replaced(locks_module, is_compatible=lambda lock, shared: True)


def _own_clock() -> Any:
    """A new leader starts cluster time from its own clock."""
    lead = ClusterClock.lead

    def own(self: ClusterClock, now: float, *, applied_ms: int, last_term: int) -> None:
        lead(self, now, applied_ms=max(applied_ms, int(now * 1000)), last_term=last_term)

    return _replaced(ClusterClock, lead=own)


def _any_leaders_clock() -> Any:
    """What any leader ever said of its clock counts for the next one."""
    lead = ClusterClock.lead

    def gullible(self: ClusterClock, now: float, *, applied_ms: int, last_term: int) -> None:
        lead(self, now, applied_ms=applied_ms, last_term=self._hint[0])

    return _replaced(ClusterClock, lead=gullible)


def _late_is_never() -> Any:
    """A request without an answer in time is reported as surely not done."""
    return _replaced(
        node_module,
        _too_late=lambda waiting: errors.Timeout("no answer in time", definite=True),
        _no_leader=lambda waiting: errors.NoLeader("nobody leads", definite=True),
    )


def _never_sent_again() -> Any:
    """What a leader change has swallowed is not sent to the next leader."""

    def once(self: Node, now: float) -> None:
        self._send_fresh(now)

    return _replaced(Node, _send_unresolved=once)


def _local_reads() -> Any:
    """A node answers reads from what it has."""

    def at_once(self: Node, on_ready: Any, *, timeout_ms: int = 10_000) -> None:
        from cluster.node.pending import Answered

        on_ready(Answered(None, self.engine.applied_index))

    return _replaced(Node, read=at_once)


def _no_timers() -> Any:
    """A leader proposes nothing while nobody asks."""
    return _replaced(Machine, next_deadline_ms=lambda self: None)


def _transfers(plan: Plan) -> Plan:
    return replace(plan, faults={**plan.faults, "transfer": 20})


def _compact_often(plan: Plan) -> Plan:
    return replace(plan, snapshot_entries=10)


def _stopping(plan: Plan) -> Plan:
    return replace(plan, stop_share=0.003)


def _keyless(plan: Plan) -> Plan:
    return replace(plan, key_share=0.2)


def _sick(plan: Plan) -> Plan:
    return replace(plan, faults={**plan.faults, "sick_disk": 20})


ABLATIONS: Mapping[str, Ablation] = {
    "g1-hard-state": Ablation(
        "G1", "term and vote not loaded", _hard_state_not_loaded, "elections"
    ),
    "g1-vote": Ablation("G1", "vote not loaded", _vote_not_loaded, "elections"),
    "g1-errors": Ablation(
        "G1", "a failed write or sync is ignored", _failed_sync_ignored, change=_sick
    ),
    "g2-no-sync": Ablation("G2", "the journal is never synced", lambda: _unsynced("journal-")),
    "g2-order": Ablation(
        "G2", "sent first, synced after", _send_before_sync, "stops", change=_stopping
    ),
    "g3-commit": Ablation("G3", "a start trusts its whole log (c9)", _commit_index_trusted),
    "g4": Ablation("G4", "appends not normalised", _not_normalised),
    "g4-claim": Ablation("G4", "an answer claims our whole log", _claims_too_much, "tails"),
    "g4-commit": Ablation("G4", "commit index beyond the proof", _commit_beyond_proof, "tails"),
    "g5-commit": Ablation("G5", "snapshot messages commit (e)", _snapshot_commits),
    "g5-tail": Ablation(
        "G5", "a snapshot drops the tail (n4)", _tail_dropped, "storm-harsh", change=_compact_often
    ),
    "g5-sync": Ablation(
        "G5", "snapshots never synced (c10)", lambda: _unsynced("snapshot-"), change=_compact_often
    ),
    "g5-names": Ablation("G5", "names never synced", _directory_not_synced, change=_compact_often),
    "g5-spin": Ablation(
        "G5",
        "a starved follower is asked again at once (j4)",
        _starved_stay_connected,
        change=_compact_often,
    ),
    "g6-term": Ablation(
        "G6", "answers of old terms count (n1)", _answer_of_any_term, "slow-answers", 5
    ),
    "g6-voters": Ablation(
        "G6", "votes counted, not voters (n2)", _votes_counted_not_voters, "repeated-votes", 5
    ),
    "g6-voters-g7": Ablation(
        "G6", "the same, without pre-vote", _votes_without_prevote, "repeated-votes", 5
    ),
    "g6-next": Ablation(
        "G6", "next index at or below match", _next_index_below_match, "slow-answers", 5
    ),
    "g7-notice": Ablation("G7", "no word to an old term", _no_term_notice, "overtaken"),
    "g12": Ablation("G12", "reads not confirmed by a majority", _reads_not_confirmed, "partitions"),
    "g13-stock": Ablation(
        "G13", "the library's own target of a hand-over (o3)", _stock_hand_over, change=_transfers
    ),
    "g7-returning": Ablation("G7", "no pre-vote, no stickiness (g)", _no_prevote, "returning"),
    "g10-notice": Ablation("G10", "no notice of a commit", _no_commit_notice, "quiet"),
    "g13-flag": Ablation("G13", "no flag on the planned campaign", _no_flag, "planned"),
    "g13-held": Ablation("G13", "commands taken during a hand-over", _commands_not_held, "planned"),
    "g13-healthy": Ablation(
        "G13", "the library's own target, healthy cluster", _stock_hand_over, "planned"
    ),
    "plant-timers": Ablation("node", "no timer entries", _no_timers),
    "plant-requests": Ablation(
        "machine", "answers not remembered", _requests_forgotten, change=_keyless
    ),
    "plant-keys": Ablation("machine", "Idempotency-Keys ignored", _keys_forgotten),
    "plant-void": Ablation("machine", "late repeats taken for new", _void_answered, "storm-harsh"),
    "plant-tokens": Ablation("machine", "the index for a token", _token_repeated),
    "plant-barge": Ablation("machine", "every request is compatible", _queue_barged),
    "plant-boot": Ablation("node", "starts not counted", _boot_not_counted),
    "plant-clock": Ablation("node", "leases by the leader's own clock", _own_clock),
    "plant-hint": Ablation("node", "any leader's word on its clock", _any_leaders_clock, "idle"),
    "plant-definite": Ablation("node", "late is said to be never", _late_is_never),
    "plant-reads": Ablation("node", "reads from local state", _local_reads),
}


STOCK_PROFILES = ("calm", "calm-compacting", "storm-tcp", "storm-harsh")


@contextlib.contextmanager
def prepare(ablation: Ablation) -> Iterator[tuple[Builder, Change]]:
    """Switch one guard off; gives the builder and the change to the plan."""
    with ablation.off():
        yield GuardedBuilder(), ablation.change


def table(
    seeds: Sequence[int], seconds: float, workers: int, only: str | None = None
) -> Iterator[str]:
    """Run every ablation, and the stock library, over the seeds; lines of a table as they come.

    `only`: names that begin so, with commas between; "stock" is the library.
    """
    from tests.simulation.report import Job, run_jobs

    yield "| switched off | guard | faults | hit/run | first seed | what breaks (seeds) |"
    yield "|---|---|---|---|---|---|"
    runs: list[tuple[str, str, list[Job]]] = [
        (
            f"{ablation.what} (`{name}`)",
            ablation.guard,
            [Job(seed, ablation.profile, ablation.nodes, seconds, ablation=name) for seed in seeds],
        )
        for name, ablation in ABLATIONS.items()
        if only is None or name.startswith(tuple(only.split(",")))
    ]
    is_stock_wanted = only is None or "stock" in only.split(",")
    for profile in STOCK_PROFILES if is_stock_wanted else ():
        jobs = [Job(seed, profile, None, seconds, engine="stock") for seed in seeds]
        runs.append(("everything: the stock library", "all", jobs))
    for what, guard, jobs in runs:
        broken: Counter[str] = Counter()
        first: int | None = None
        for job, result in run_jobs(jobs, workers):
            if result.invariant is not None:
                broken[result.invariant] += 1
                first = job.seed if first is None else first
        laws = ", ".join(f"{law} ({count})" for law, count in broken.most_common())
        hit = f"{broken.total()}/{len(jobs)}"
        yield f"| {what} | {guard} | {jobs[0].profile} | {hit} | {first} | {laws or 'nothing'} |"


if __name__ == "__main__":
    from tests.simulation.__main__ import main

    main(["--table", *sys.argv[1:]])
