"""Votes, terms and leadership: who may campaign, who is heard, who hands over.

RULE: guards G1, G6 (votes), G7, G8 and G13. The library runs an election only when it was allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.replication.catchup import CatchUp
from cluster.replication.guard import EngineFault, Handover, log_is_current
from cluster.replication.library import CANDIDATE, FOLLOWER, LEADER, Peer
from cluster.wire.frames import (
    PreVoteAnswer,
    PreVoteRequest,
    TermNotice,
    TimeoutNow,
    VoteAnswer,
    VoteRequest,
)


class Elections(CatchUp):
    """A member that takes part in elections."""

    _SyncObj__raftElectionDeadline: float

    def __init__(self, **parts: Any) -> None:
        """Args: as for CatchUp."""
        self.elections_started = 0
        self._votes: set[str] = set()
        self._forced_term: int | None = None
        self._campaign_is_handover = False
        self._held_deadline: float | None = None
        self._deposed_at: float | None = None
        self._handover: Handover | None = None
        super().__init__(**parts)

    # ---- hand-over: G13

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
            self._SyncObj__raftState == FOLLOWER
            and self.leader == peer.id
            and message.term == self.term
            and message.last_index == self.last_index
        ):
            self._forced_term = self.term

    # ---- elections: G1, G6, G7 and G8

    def _consider_election(self, now: float) -> None:
        """Run pre-vote before any election; the stock tick launches only what was allowed."""
        self._held_deadline = None
        if self._SyncObj__raftState == LEADER:
            return
        forced = self._forced_term
        self._forced_term = None
        self._campaign_is_handover = False
        anybody = bool(self._SyncObj__connectedNodes) or not self._peers
        if forced is not None:
            is_due = forced == self.term and self._SyncObj__raftState == FOLLOWER
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
        if self._SyncObj__raftState != CANDIDATE or answer.term != self.term:
            return
        if peer.id in self._votes:
            return
        self._votes.add(peer.id)
        self._SyncObj__onMessageReceived(peer, {"type": "response_vote", "term": answer.term})

    def _on_term_notice(self, peer: Peer, notice: TermNotice) -> None:
        if notice.term > self.term:
            self._SyncObj__setCurrentTerm(notice.term, None)
            self._SyncObj__setState(FOLLOWER)
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
        if before == LEADER:
            self._step_down()
        elif state == LEADER:
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

    def _SyncObj__generateRaftTimeout(self) -> float:
        low, high = self.settings.election_min, self.settings.election_max
        return low + (high - low) * self._rng.random()
