"""The decisions that make stock PySyncObj safe, as values and plain objects.

RULE: no private name of the library, no disk, no socket, no clock: the engine hands in what is
needed and carries out what is decided. Each guard says which defect it answers.

Source: Ongaro & Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), section 5
(append), 6 (votes), 7 (snapshots); Ongaro's thesis (2014) 3.10 (transfer), 6.4 (read index),
9.6 (pre-vote).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

from cluster.wire.frames import Append, SnapshotHead


class EngineFault(Exception):
    """A law of Raft is broken or about to be. The process must stop; nothing may be answered."""


class LogView(Protocol):
    """What a guard needs to know of the local log."""

    @property
    def last_index(self) -> int: ...

    def term_at(self, index: int) -> int | None:
        """Term of the entry at `index`; None where the log has none (compacted or not yet)."""
        ...


@dataclass(slots=True, frozen=True)
class Normalised:
    """An append that the stock handler can take without cutting what matches.

    Attributes:
        entries: (index, term, command); those the log already has are gone.
        commit_index: never beyond what this message proves.
        claim: next index the answer must give, where the stock answer would claim too much.
    """

    prev_index: int
    prev_term: int
    entries: tuple[tuple[int, int, bytes], ...]
    commit_index: int
    claim: int | None


def normalise(append: Append, log: LogView, floor: int) -> Normalised:
    """Rewrite an append so that the stock handler deletes only from the first conflict.

    Stock cuts everything after `prev_index` even where the entries match, so a late duplicate
    erases acknowledged entries; and it would move the commit index over entries that this leader
    never vouched for.

    Args:
        append: a message of our own or a higher term.
        floor: max(commit index, applied index); everything up to it is final.
    Raises:
        EngineFault: the leader's log differs from ours at or below the floor.
    """
    prev_index, prev_term, entries = append.prev_index, append.prev_term, append.entries
    end = prev_index + len(entries)
    floor_term = log.term_at(floor)
    if floor_term is None:
        raise EngineFault(f"the log has no entry at its own commit index {floor}")
    if end < floor:
        # All of it is old news. Nothing can be checked against compacted entries.
        prev_index, prev_term, entries, end = floor, floor_term, (), floor
    elif prev_index < floor:
        entries = entries[floor - prev_index - 1 :]
        _check_floor(floor, floor_term, entries[0][1])
        prev_index, prev_term, entries = floor, floor_term, entries[1:]
    elif prev_index == floor:
        _check_floor(floor, floor_term, prev_term)

    claim = None
    if log.term_at(prev_index) == prev_term:
        known = 0
        for index, term, _ in entries:
            if log.term_at(index) != term:
                break
            prev_index, prev_term, known = index, term, known + 1
        entries = entries[known:]
        if not entries and log.last_index > prev_index:
            # Our tail may be a former leader's; keep it, but vouch only for what was proved.
            last_term = log.term_at(log.last_index)
            assert last_term is not None
            prev_index, prev_term, claim = log.last_index, last_term, end + 1
    return Normalised(prev_index, prev_term, entries, min(append.commit_index, end), claim)


def _check_floor(floor: int, ours: int, theirs: int) -> None:
    if ours != theirs:
        raise EngineFault(
            f"committed entry {floor} has term {ours} here and term {theirs} at the leader: "
            "the logs have diverged; do not delete anything, compare the data folders"
        )


def log_is_current(last: tuple[int, int], ours: tuple[int, int]) -> bool:
    """Is a log ending at `last` = (term, index) at least as new as ours? Raft, section 5.4.1."""
    return last >= ours


@dataclass(slots=True)
class PreVote:
    """Asks before it campaigns, so that a node that was away deposes nobody (defect g).

    A question carries a nonce; anything that happens in between (a leader is heard, a term or
    vote changes, the election is launched) makes the answers under way worthless.
    """

    nonce: int
    granted: set[str] = field(default_factory=set)
    go: bool = False

    def ask(self) -> int:
        """Start a new question; returns its nonce."""
        self.reset()
        return self.nonce

    def reset(self) -> None:
        self.nonce += 1
        self.granted.clear()
        self.go = False

    def answer(self, peer: str, nonce: int) -> None:
        """Count a granted pre-vote, one per peer, and only for the present question."""
        if nonce == self.nonce:
            self.granted.add(peer)


@dataclass(slots=True)
class _Read:
    beat: int
    index: int
    on_ready: Callable[[int | None], None]


@dataclass(slots=True)
class ReadIndex:
    """Confirms by a majority of echoed heartbeats that we still lead (defect g; thesis 6.4).

    No clock is involved: a read is served when a majority has answered a heartbeat that was sent
    after the read arrived, and the state has reached the commit index of that moment.
    """

    beat: int = 0
    echoed: dict[str, int] = field(default_factory=dict)
    waiting: list[_Read] = field(default_factory=list)

    def lead(self) -> None:
        """Forget the echoes of an earlier leadership."""
        self.echoed.clear()

    def add(self, commit_index: int, on_ready: Callable[[int | None], None]) -> None:
        """Wait for the next heartbeat; `on_ready` gets the index to read at, None if deposed."""
        self.waiting.append(_Read(self.beat + 1, commit_index, on_ready))

    def echo(self, peer: str, beat: int) -> None:
        if beat > self.echoed.get(peer, 0):
            self.echoed[peer] = beat

    def take_ready(self, applied_index: int, peers: Collection[str]) -> list[_Read]:
        """Reads whose heartbeat a majority (we are one of it) has echoed."""
        if not self.waiting:
            return []
        needed = (len(peers) + 1) // 2
        if needed == 0:
            confirmed = self.beat + 1
        else:
            beats = sorted((self.echoed.get(peer, 0) for peer in peers), reverse=True)
            confirmed = beats[needed - 1]
        ready = [r for r in self.waiting if r.beat <= confirmed and r.index <= applied_index]
        if ready:
            self.waiting = [
                r for r in self.waiting if r.beat > confirmed or r.index > applied_index
            ]
        return ready

    def take_all(self) -> list[_Read]:
        """Everything that waits: we lead no longer."""
        waiting, self.waiting = self.waiting, []
        return waiting


@dataclass(slots=True)
class Handover:
    """One planned transfer of leadership (thesis 3.10; defects o3, o4).

    While it runs no command enters the log. It ends by our step-down or at `deadline`.
    """

    target: str
    deadline: float
    on_done: Callable[[str | None], None]
    sent: bool = False


@dataclass(slots=True)
class Pipeline:
    """Appends with entries that one follower has not confirmed: their last entries and bytes.

    A follower that missed much is sent it in parts: all at once would be more than may wait for a
    peer, so its stream would break, and with the next one all would begin anew.

    Attributes:
        is_held: more was to be sent than may be on its way.
    """

    on_its_way: deque[tuple[int, int]] = field(default_factory=deque)
    bytes_on_its_way: int = 0
    is_held: bool = False

    def add(self, last_index: int, size: int) -> None:
        """An append of `size` bytes is sent."""
        self.on_its_way.append((last_index, size))
        self.bytes_on_its_way += size

    def confirm(self, match_index: int) -> bool:
        """The follower has all up to `match_index`; True where more was held back for that."""
        on_its_way, before = self.on_its_way, self.bytes_on_its_way
        while on_its_way and on_its_way[0][0] <= match_index:
            self.bytes_on_its_way -= on_its_way.popleft()[1]
        if not self.is_held or self.bytes_on_its_way == before:
            return False
        self.is_held = False
        return True

    def clear(self) -> None:
        """What was on its way is lost, or will be sent again."""
        self.on_its_way.clear()
        self.bytes_on_its_way = 0
        self.is_held = False


# The patience of a transfer grows to 2 ** 4 times what it began with.
_WENT_BACK_MAX = 4


@dataclass(slots=True)
class SnapshotTransfer:
    """How far one follower has got with a snapshot file; a window of bytes is in flight.

    Only progress moves the window at once. Going back to what the follower asked for last is by
    timer, so that a lost chunk costs a moment and a duplicate nothing. Each time without progress
    the timer is set to twice as long: on a slow link all is still under way, and sent again it
    would only make the link slower.
    """

    head: SnapshotHead
    progress_at: float
    acknowledged: int = 0
    asked: int = 0
    sent: int = 0
    went_back: int = 0

    def next_offset(self, now: float, *, window_bytes: int, patience: float) -> int | None:
        """Offset of the chunk to send now, None where the window is full or all is sent.

        Args:
            patience: seconds without progress before going back for the first time.
        """
        patience *= 2 ** min(self.went_back, _WENT_BACK_MAX)
        if self.sent > self.acknowledged and now - self.progress_at > patience:
            self.sent = self.acknowledged = self.asked
            self.progress_at = now
            self.went_back += 1
        if self.sent >= self.head.size or self.sent - self.acknowledged >= window_bytes:
            return None
        return self.sent

    def acknowledge(self, offset: int, now: float) -> bool:
        """The follower holds all bytes below `offset` and asks for more; True for progress."""
        self.asked = min(offset, self.head.size)
        if self.asked <= self.acknowledged:
            return False
        self.acknowledged = self.asked
        self.sent = max(self.sent, self.asked)
        self.progress_at = now
        self.went_back = 0
        return True
