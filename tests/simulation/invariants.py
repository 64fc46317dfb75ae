"""What must hold between the nodes after every step.

RULE: reads the nodes, never moves them; remembers everything, forgives nothing. Each law is
checked against all that was ever seen, at a cost that follows what is new.
Source: Ongaro & Ousterhout, "In Search of an Understandable Consensus Algorithm", figure 3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

Entry = tuple[bytes, int, int]  # command, index, term

_NO_OP = b"\x01"


class Violation(Exception):
    """An invariant does not hold. `invariant` is its name, the same in every report."""

    def __init__(self, invariant: str, detail: str) -> None:
        super().__init__(f"{invariant}: {detail}")
        self.invariant = invariant
        self.detail = detail


class Replica(Protocol):
    """What the checker sees of one node's engine."""

    @property
    def role(self) -> str:
        """One of follower, candidate, leader."""

    @property
    def term(self) -> int: ...

    @property
    def voted_for(self) -> str | None: ...

    @property
    def hard_state(self) -> tuple[int, str | None]:
        """Term and vote as the journal has them."""

    @property
    def commit_index(self) -> int: ...

    @property
    def applied_index(self) -> int: ...

    @property
    def synced_index(self) -> int:
        """Last index of the log that is durable."""

    @property
    def snapshot_index(self) -> int:
        """Last entry that a durable snapshot holds; 0 for none."""

    @property
    def log(self) -> Sequence[Entry]:
        """Kept entries. The same tuple objects as long as they are not cut: see `_walk`."""

    @property
    def is_transferring(self) -> bool:
        """The library's own hand-over flag, which must never be set."""

    @property
    def digest(self) -> object:
        """Running digest of the state machine at `applied_index`."""


class Committed(NamedTuple):
    """One committed entry, and the term in which it was seen to be committed."""

    command: bytes
    term: int
    commit_term: int


class _Seen:
    """What was last seen of one node."""

    __slots__ = (
        "applied",
        "commit",
        "durable",
        "first",
        "last",
        "leads",
        "role",
        "shadow",
        "snapshot",
        "synced",
        "tail",
        "term",
        "vote",
    )

    def __init__(self) -> None:
        self.durable = 1  # highest committed index that surely survives a power loss here
        self.synced = 0
        self.snapshot = 0
        self.first = 1
        self.last = 0
        self.shadow: dict[int, Entry] = {}
        self.forget()

    def forget(self) -> None:
        """The process is gone, and with it all that was only in memory.

        What it had synced is still on its disk, and counts.
        """
        self.role = "down"
        self.term = -1
        self.vote: str | None = None
        self.commit = 1
        self.applied = 1
        self.leads = 0
        self.tail: Entry | None = None


class RaftInvariants:
    """Checks one node after each of its steps, against all others and the whole past.

    Args:
        names: all members.
        on_commit: called once per index, in order, when an entry is first seen committed.
        digest_at: the right digest at an index that was committed.
        synced: False for an engine that never syncs: durability is then not asked for.
    """

    def __init__(
        self,
        names: Collection[str],
        *,
        on_commit: Callable[[int, int, bytes], None],
        digest_at: Callable[[int], object],
        synced: bool = True,
    ) -> None:
        self._seen = {name: _Seen() for name in names}
        self._majority = len(names) // 2 + 1
        self._on_commit = on_commit
        self._digest_at = digest_at
        self._synced = synced
        self._registry: dict[tuple[int, int], tuple[bytes, int | None]] = {}
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[int, str], str] = {}
        # Position 0 and 1 stand for the first entry, which every log starts with.
        self.committed: list[Committed] = [Committed(b"", 0, 0)] * 2
        self._elected: set[tuple[int, str]] = set()

    @property
    def top(self) -> int:
        """Highest index known to be committed."""
        return len(self.committed) - 1

    @property
    def elections(self) -> int:
        """How many elections were won."""
        return len(self._elected)

    @property
    def leaders(self) -> dict[int, str]:
        """Who led each term."""
        return self._leaders

    # ---- what the world reports -------------------------------------------------------------

    def observe(self, name: str, replica: Replica) -> None:
        """Check one node after a step.

        Raises:
            Violation: the first law that does not hold.
        """
        seen = self._seen[name]
        self._check_hard_state(name, seen, replica)
        log = replica.log
        tail = log[-1]
        if tail is not seen.tail or log[0][1] != seen.first:
            self._walk(name, seen, log)
        commit = replica.commit_index
        if commit != seen.commit:
            self._advance(name, seen, replica, log, commit)
        synced = replica.synced_index
        if synced != seen.synced or seen.durable < self.top or seen.role == "down":
            seen.synced, seen.snapshot = synced, replica.snapshot_index
            self._check_kept(name, seen)
        role = replica.role
        if role != seen.role or (role == "leader" and seen.leads != seen.term):
            self._change_role(name, seen, role)
        applied = replica.applied_index
        if applied != seen.applied:
            self._apply(name, seen, replica, applied)

    def vote(self, name: str, term: int, candidate: str) -> None:
        """A vote has left a node (a request for votes is a vote for oneself).

        Raises:
            Violation: this node gave its vote of this term to another one.
        """
        before = self._votes.setdefault((term, name), candidate)
        if before != candidate:
            raise Violation(
                "one vote per term", f"{name} voted for {before} and {candidate} in term {term}"
            )

    def stopped(self, name: str) -> None:
        """The process of a node has ended; what it had made durable is still counted."""
        self._seen[name].forget()

    def durable(self, name: str) -> int:
        """Highest committed index that this node holds durably."""
        return self._seen[name].durable

    # ---- the laws ---------------------------------------------------------------------------

    def _check_hard_state(self, name: str, seen: _Seen, replica: Replica) -> None:
        term, vote = replica.term, replica.voted_for
        if (term, vote) != replica.hard_state:
            raise Violation(
                "hard state",
                f"{name} works with term {term} and vote {vote}, its journal has "
                f"{replica.hard_state}",
            )
        if replica.is_transferring:
            raise Violation("transfer flag", f"{name} has the library's hand-over flag set")
        if term != seen.term:
            if term < seen.term:
                raise Violation("term", f"{name} went back from term {seen.term} to {term}")
            seen.term = term
            seen.vote = None
        if vote != seen.vote:
            if seen.vote is not None:
                raise Violation(
                    "one vote per term",
                    f"{name} changed its vote of term {term} from {seen.vote} to {vote}",
                )
            seen.vote = vote

    def _walk(self, name: str, seen: _Seen, log: Sequence[Entry]) -> None:
        """Take in what is new in a log.

        A log is a list that loses its tail or its head and grows at the end. So from the first
        entry, seen from the end, that is the very object seen before at that index, everything
        before it is unchanged.
        """
        shadow = seen.shadow
        fresh: list[Entry] = []
        position = len(log) - 1
        while position >= 0 and shadow.get(log[position][1]) is not log[position]:
            fresh.append(log[position])
            position -= 1
        first, last = log[0][1], log[-1][1]
        for index in range(last + 1, seen.last + 1):
            shadow.pop(index, None)
        for index in range(seen.first, min(first, seen.last + 1)):
            shadow.pop(index, None)
        if last < seen.commit:
            raise Violation(
                "committed entries stay",
                f"{name} cut its log to {last} below its own commit index {seen.commit}",
            )
        before = log[position] if position >= 0 else None
        for entry in reversed(fresh):
            command, index, term = entry
            if before is not None and (index != before[1] + 1 or term < before[2]):
                raise Violation(
                    "log matching", f"{name} has entry {index}/{term} after {before[1]}/{before[2]}"
                )
            if command != _NO_OP or index > first:
                # The first may stand for the last entry of a snapshot: right term, no command.
                self._register(name, command, index, term, None if before is None else before[2])
                if index <= seen.commit and index <= self.top:
                    self._compare(name, index, command, term)
            shadow[index] = before = entry
        seen.first, seen.last, seen.tail = first, last, log[-1]

    def _register(
        self, name: str, command: bytes, index: int, term: int, before: int | None
    ) -> None:
        known = self._registry.get((index, term))
        if known is None:
            self._registry[index, term] = (command, before)
        elif known[0] != command:
            raise Violation(
                "log matching", f"{name} has another command at index {index} of term {term}"
            )
        elif known[1] is None:
            self._registry[index, term] = (command, before)
        elif before is not None and known[1] != before:
            raise Violation(
                "log matching",
                f"{name} has term {before} before index {index} of term {term}, "
                f"others have {known[1]}",
            )

    def _compare(self, name: str, index: int, command: bytes, term: int) -> None:
        right = self.committed[index]
        if index > 1 and (right.term != term or right.command != command):
            raise Violation(
                "committed entries never change",
                f"{name} holds term {term} as committed at index {index}, "
                f"committed was term {right.term} (in term {right.commit_term})",
            )

    def _advance(
        self, name: str, seen: _Seen, replica: Replica, log: Sequence[Entry], commit: int
    ) -> None:
        if commit < seen.commit:
            raise Violation(
                "commit index", f"{name} went back from commit {seen.commit} to {commit}"
            )
        if commit > seen.last:
            raise Violation(
                "commit index", f"{name} committed {commit}, its log ends at {seen.last}"
            )
        risen = False
        first = seen.first
        for index in range(seen.commit + 1, commit + 1):
            if index < first:
                if index > self.top:
                    raise Violation(
                        "committed entries never change",
                        f"{name} has a snapshot up to {first}, committed is only {self.top}",
                    )
                continue
            command, _, term = log[index - first]
            if index <= self.top:
                if command != _NO_OP or index > first:
                    self._compare(name, index, command, term)
            else:
                self.committed.append(Committed(command, term, replica.term))
                self._on_commit(index, term, command)
                risen = True
        seen.commit = commit
        if risen and seen.role == replica.role == "leader" and seen.leads == replica.term:
            # Figure 8 of the paper: who has an entry of an earlier term may still be outvoted.
            term = log[commit - first][2]
            if term != replica.term:
                raise Violation(
                    "leaders commit by their own term",
                    f"{name} leads term {replica.term} and commits {commit} of term {term}",
                )
        if risen and self._synced:
            seen.synced, seen.snapshot = replica.synced_index, replica.snapshot_index
            for other in self._seen.values():
                self._count_durable(other)
            self._check_majority(f"when {name} committed it")

    def _count_durable(self, seen: _Seen) -> bool:
        """Raise a node's durable mark as far as its log is durable and right; False if it fell."""
        index = min(seen.synced, self.top)
        shadow, committed = seen.shadow, self.committed
        while index >= seen.first:
            entry = shadow.get(index)
            if entry is not None and (entry[2] == committed[index].term or index == 1):
                break
            index -= 1
        # Entry 1 is the same everywhere; what a durable snapshot holds needs no log.
        index = max(1, min(seen.snapshot, self.top), index if index >= seen.first else 0)
        fell = index < seen.durable
        seen.durable = index
        return not fell

    def _check_kept(self, name: str, seen: _Seen) -> None:
        if not self._synced:
            return
        before = seen.durable
        if not self._count_durable(seen):
            self._check_majority(f"after {name} fell from {before} to {seen.durable}")
            raise Violation(
                "durability",
                f"{name} had committed entry {before} on disk and now has only {seen.durable}",
            )

    def _check_majority(self, when: str) -> None:
        marks = sorted((seen.durable for seen in self._seen.values()), reverse=True)
        if marks[self._majority - 1] < self.top:
            holders = {name: seen.durable for name, seen in self._seen.items()}
            raise Violation(
                "durability",
                f"committed entry {self.top} is not on the disks of a majority {when}: {holders}",
            )

    def _change_role(self, name: str, seen: _Seen, role: str) -> None:
        seen.role = role
        if role != "leader":
            return
        term = seen.term
        seen.leads = term
        other = self._leaders.setdefault(term, name)
        if other != name:
            raise Violation("election safety", f"{other} and {name} both lead term {term}")
        if (term, name) in self._elected:
            raise Violation("election safety", f"{name} was elected twice in term {term}")
        self._elected.add((term, name))
        self._check_completeness(name, seen, term)

    def _check_completeness(self, name: str, seen: _Seen, term: int) -> None:
        shadow = seen.shadow
        for index in range(self.top, max(seen.first, 2) - 1, -1):
            right = self.committed[index]
            if right.commit_term >= term:
                continue
            entry = shadow.get(index)
            if entry is not None and entry[0] == _NO_OP and index <= seen.first:
                continue
            if entry is None or entry[2] != right.term or entry[0] != right.command:
                raise Violation(
                    "leader completeness",
                    f"{name} leads term {term} without entry {index} of term {right.term}, "
                    f"committed in term {right.commit_term}",
                )

    def _apply(self, name: str, seen: _Seen, replica: Replica, applied: int) -> None:
        if applied < seen.applied:
            raise Violation(
                "state machine safety", f"{name} went back from {seen.applied} to {applied}"
            )
        if applied > seen.commit:
            raise Violation(
                "state machine safety", f"{name} applied {applied}, committed is {seen.commit}"
            )
        seen.applied = applied
        if replica.digest != self._digest_at(applied):
            raise Violation(
                "state machine safety", f"{name} has another state than the log says at {applied}"
            )
