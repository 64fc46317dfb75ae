"""The checker of Raft's laws is fed bad histories and must complain, each time by the right name."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.simulation.invariants import Entry, RaftInvariants, Violation

NAMES = ("a", "b", "c")


@dataclass
class Fake:
    """One node, as it claims to be."""

    log: list[Entry]
    term: int = 1
    role: str = "follower"
    voted_for: str | None = None
    commit_index: int = 1
    applied_index: int = 1
    synced_index: int = 1
    snapshot_index: int = 0
    is_transferring: bool = False
    digest: object = "state 1"
    stored: tuple[int, str | None] | None = field(default=None)

    @property
    def hard_state(self) -> tuple[int, str | None]:
        return (self.term, self.voted_for) if self.stored is None else self.stored


class Bench:
    """Three nodes and a checker. A log is written as a string of terms: "1123"."""

    def __init__(self) -> None:
        self.checker = RaftInvariants(
            NAMES,
            on_commit=lambda index, term, command: None,
            digest_at=lambda index: f"state {index}",
        )
        self.nodes = {name: Fake([(b"", 1, 0)]) for name in NAMES}
        for name in NAMES:
            self.see(name)

    def see(self, name: str, **changes: object) -> None:
        node = self.nodes[name]
        for key, value in changes.items():
            setattr(node, key, value)
        self.checker.observe(name, node)

    def grow(self, name: str, terms: str, *, mark: bytes = b"x") -> None:
        """Append entries of these terms, synced."""
        node = self.nodes[name]
        for digit in terms:
            index = node.log[-1][1] + 1
            node.log.append((b"%s %d" % (mark, index), index, int(digit)))
        node.synced_index = node.log[-1][1]

    def agree(self, terms: str, term: int = 1) -> None:
        """Replicate entries to all, and commit them in this term, led by a."""
        for name in NAMES:
            self.grow(name, terms)
            self.see(name, term=term)
        self.see("a", role="leader")
        top = self.nodes["a"].log[-1][1]
        for name in NAMES:
            self.see(name, commit_index=top, applied_index=top, digest=f"state {top}")


@pytest.fixture
def bench() -> Bench:
    """Three nodes that have done nothing yet."""
    return Bench()


def violated(law: str) -> pytest.RaisesExc[Violation]:
    """The law that must be named."""
    return pytest.raises(Violation, check=lambda violation: violation.invariant == law)


def test_a_good_history_passes(bench: Bench) -> None:
    """Election, replication, commit, a new leader, an overwritten tail, compaction, restart."""
    bench.agree("111")
    bench.grow("a", "1", mark=b"lost")
    bench.see("a")
    bench.see("b", term=2, voted_for="b", role="candidate")
    bench.see("b", role="leader")
    bench.grow("b", "2")
    bench.grow("c", "2")
    bench.see("c", term=2, voted_for="b")
    bench.see("b", commit_index=5, applied_index=5, digest="state 5")
    a = bench.nodes["a"]
    del a.log[4:]
    bench.grow("a", "2")
    bench.see("a", term=2, role="follower", commit_index=5, applied_index=5, digest="state 5")
    del a.log[:3]
    bench.see("a", snapshot_index=4)
    bench.checker.stopped("a")
    bench.nodes["a"] = Fake(
        list(a.log), term=2, commit_index=5, applied_index=5, synced_index=5, digest="state 5"
    )
    bench.see("a", snapshot_index=4)
    assert bench.checker.top == 5
    assert bench.checker.leaders == {1: "a", 2: "b"}


def test_two_leaders_of_one_term_are_seen(bench: Bench) -> None:
    """Election safety."""
    bench.see("a", role="leader")
    with violated("election safety"):
        bench.see("b", role="leader")


def test_a_second_election_in_the_same_term_is_seen(bench: Bench) -> None:
    """A node that forgot its term may win it twice."""
    bench.see("a", role="leader")
    bench.see("a", role="follower")
    with violated("election safety"):
        bench.see("a", role="leader")


def test_two_votes_in_one_term_are_seen(bench: Bench) -> None:
    """On the wire, also across a restart."""
    bench.checker.vote("c", 1, "a")
    bench.checker.vote("c", 1, "a")
    bench.checker.stopped("c")
    with violated("one vote per term"):
        bench.checker.vote("c", 1, "b")


def test_a_changed_vote_is_seen_in_memory(bench: Bench) -> None:
    """Before it reaches the wire."""
    bench.see("c", voted_for="a")
    with violated("one vote per term"):
        bench.see("c", voted_for="b")


def test_a_term_going_back_is_seen(bench: Bench) -> None:
    """Within one life."""
    bench.see("c", term=3)
    with violated("term"):
        bench.see("c", term=2)


def test_memory_and_journal_must_agree_on_the_hard_state(bench: Bench) -> None:
    """Term and vote that are not in the journal are not promised."""
    with violated("hard state"):
        bench.see("c", term=2, stored=(1, None))


def test_the_library_s_hand_over_flag_must_stay_down(bench: Bench) -> None:
    """It outlives its term."""
    with violated("transfer flag"):
        bench.see("c", is_transferring=True)


def test_other_commands_at_the_same_index_and_term_are_seen(bench: Bench) -> None:
    """Log matching, the entry itself."""
    bench.grow("a", "1")
    bench.see("a")
    bench.grow("b", "1", mark=b"other")
    with violated("log matching"):
        bench.see("b")


def test_other_predecessors_of_the_same_entry_are_seen(bench: Bench) -> None:
    """Log matching, what comes before."""
    bench.grow("a", "13")
    bench.see("a", term=3)
    bench.grow("b", "23")
    with violated("log matching"):
        bench.see("b", term=3)


def test_a_gap_in_a_log_is_seen(bench: Bench) -> None:
    """Indexes are contiguous."""
    bench.nodes["a"].log += [(b"x", 2, 1), (b"x", 4, 1)]
    with violated("log matching"):
        bench.see("a")


def test_a_changed_entry_in_the_middle_is_seen_when_its_tail_is_new(bench: Bench) -> None:
    """A cut and regrown log is compared from the cut on."""
    bench.agree("111")
    b = bench.nodes["b"]
    bench.see("b", commit_index=4)
    del b.log[2:]
    bench.grow("b", "22")
    with violated("committed entries never change"):
        bench.see("b", term=2)


def test_a_log_cut_below_its_commit_index_is_seen(bench: Bench) -> None:
    """What is committed here stays here."""
    bench.agree("111")
    del bench.nodes["b"].log[2:]
    with violated("committed entries stay"):
        bench.see("b")


def test_a_conflicting_commit_is_seen(bench: Bench) -> None:
    """Two nodes may not hold different entries for committed."""
    bench.grow("a", "1")
    bench.grow("b", "1")
    bench.see("b")
    bench.see("a", commit_index=2)
    bench.grow("c", "2")
    with violated("committed entries never change"):
        bench.see("c", term=2, commit_index=2)


def test_a_commit_beyond_the_log_is_seen(bench: Bench) -> None:
    """Nothing can be committed that is not there."""
    with violated("commit index"):
        bench.see("a", commit_index=2)


def test_a_commit_index_going_back_is_seen(bench: Bench) -> None:
    """Within one life."""
    bench.agree("11")
    with violated("commit index"):
        bench.see("b", commit_index=2)


def test_a_snapshot_of_uncommitted_entries_is_seen(bench: Bench) -> None:
    """A state that nobody agreed on cannot be installed."""
    with violated("committed entries never change"):
        bench.see("c", log=[(b"", 8, 1), (b"", 9, 1)], synced_index=9, commit_index=9)


def test_a_leader_without_a_committed_entry_is_seen(bench: Bench) -> None:
    """Leader completeness, for entries of earlier terms."""
    bench.grow("a", "1")
    bench.grow("b", "1")
    bench.see("b")
    bench.see("a", role="leader", commit_index=2)
    with violated("leader completeness"):
        bench.see("c", term=2, role="leader")


def test_a_late_winner_of_an_old_term_is_legal(bench: Bench) -> None:
    """It may lack what a later term has committed; it can commit nothing itself."""
    bench.grow("a", "3")
    bench.grow("b", "3")
    bench.see("b", term=3)
    bench.see("a", term=3, role="leader", commit_index=2)
    bench.see("c", term=2, role="leader")


def test_a_commit_on_too_few_disks_is_seen(bench: Bench) -> None:
    """The leader may not count itself before its sync."""
    bench.grow("a", "1")
    bench.grow("b", "1")
    bench.see("b")
    with violated("durability"):
        bench.see("a", commit_index=2, synced_index=1)


def test_a_committed_entry_that_a_power_loss_took_is_seen(bench: Bench) -> None:
    """Ever after: also in the next life of a node that acknowledged it."""
    bench.agree("111")
    bench.checker.stopped("b")
    with violated("durability"):
        bench.nodes["b"] = Fake([(b"", 1, 0)])
        bench.see("b")


def test_a_durable_snapshot_counts_before_the_journal_is_synced(bench: Bench) -> None:
    """A node that dies between the two has lost nothing; without the snapshot it has."""
    bench.agree("1111")
    replaced = {"log": [(b"\x01", 5, 1)], "synced_index": 0}
    bench.see("b", **replaced, snapshot_index=5)
    assert bench.checker.durable("b") == 5
    with violated("durability"):
        bench.see("c", **replaced, snapshot_index=0)


def test_one_node_down_does_not_break_durability(bench: Bench) -> None:
    """Its disk still counts."""
    bench.agree("11")
    bench.checker.stopped("c")
    bench.checker.stopped("b")
    bench.see("a")
    assert bench.checker.durable("b") == 3


def test_another_state_at_the_same_index_is_seen(bench: Bench) -> None:
    """State machine safety, by digest."""
    bench.agree("1")
    with violated("state machine safety"):
        bench.grow("b", "1")
        bench.grow("a", "1")
        bench.see("a")
        bench.see("b", commit_index=3, applied_index=3, digest="another state")


def test_applying_what_is_not_committed_is_seen(bench: Bench) -> None:
    """Commit is agreement, apply is effect."""
    with violated("state machine safety"):
        bench.see("a", applied_index=2)
