"""Exactly once: what was asked before gets the answer it got before.

RULE: stores answers, makes none. Two memories: by origin and number, for repeats a node sends when
the leader changed; by Idempotency-Key, for repeats a client sends to whichever node.

An origin's memory is bounded by what the origin has pending: `ack` says which answers will never
be asked for again. It passes over requests that the origin knows to be parked, so that one long
wait does not keep every later answer alive; such a wait goes on, and its answer is told once and
not stored. A key is remembered for a day of cluster time, or until too many others came.
Source: Ongaro's thesis 6.3 (linearizable semantics); Lee et al., RIFL (2015).
"""

from __future__ import annotations

from collections import OrderedDict
from operator import itemgetter
from typing import NamedTuple

import msgspec

from cluster.machine import limits
from cluster.machine.commands import Group, Origin, RequestId
from cluster.machine.outcome import Outcome
from cluster.machine.parked import Parked

_encode = msgspec.msgpack.Encoder().encode


class Answers:
    """What one life of one node asked, by number: the answer, or the wait for it.

    Attributes:
        boot: which life.
        ack: numbers below it are settled at the origin and forgotten here, or they wait.
    """

    __slots__ = ("ack", "boot", "by_seq")

    def __init__(self, boot: int, ack: int = 0) -> None:
        self.boot = boot
        self.ack = ack
        self.by_seq: dict[int, Outcome | Parked] = {}


class Key(NamedTuple):
    """An Idempotency-Key whose first request was answered."""

    fingerprint: bytes | None
    settled_ms: int
    outcome: Outcome
    size: int


class Requests:
    """The two memories.

    Attributes:
        origins: by node.
        keys: settled ones.
        key_bytes: of all answers to them.
    """

    __slots__ = ("_waiting_keys", "key_bytes", "keys", "origins")

    def __init__(self) -> None:
        self.origins: dict[str, Answers] = {}
        # Settled keys in the order they were settled. An OrderedDict, as a plain dict that loses
        # its first item again and again has to step over all it lost.
        self.keys: OrderedDict[str, Key] = OrderedDict()
        self.key_bytes = 0
        self._waiting_keys: dict[str, Parked] = {}

    def admit(self, group: Group) -> tuple[Answers | None, list[tuple[RequestId, Parked]]]:
        """Find the memory of a group's origin and bring it up to date.

        Returns:
            The memory, or None when the group is of a former life; and the waits of the life
            before, when this is the first group of a new one: nobody can be told any more, so the
            caller takes them out of their queues.
        """
        (node, boot), ack = group.origin, group.ack
        answers = self.origins.get(node)
        if answers is None or answers.boot < boot:
            self.origins[node] = Answers(boot, ack)
            if answers is None:
                return self.origins[node], []
            return self.origins[node], _waits(node, answers)
        if answers.boot > boot:
            return None, []
        if answers.ack < ack:
            _acknowledge(answers, ack)
        return answers, []

    def answer(self, request: RequestId) -> Outcome | Parked | None:
        """What a request was answered, or its wait; None when it is not known (any more)."""
        answers = self.origins.get(request.node)
        if answers is None or answers.boot != request.boot:
            return None
        return answers.by_seq.get(request.seq)

    def store(self, request: RequestId, outcome: Outcome) -> None:
        """Replace the wait of a request by its answer, or forget it if it was passed over."""
        answers = self.origins.get(request.node)
        if answers is None or answers.boot != request.boot or request.seq not in answers.by_seq:
            return
        if request.seq < answers.ack:
            del answers.by_seq[request.seq]
        else:
            answers.by_seq[request.seq] = outcome

    def waits_of(self, origin: Origin) -> list[int]:
        """Numbers of an origin's requests that wait, rising."""
        answers = self.origins.get(origin.node)
        if answers is None or answers.boot != origin.boot:
            return []
        return [request.seq for request, _ in _waits(origin.node, answers)]

    def find_key(self, key: str) -> tuple[bytes | None, Outcome | Parked] | None:
        """Fingerprint and answer (or wait) of the first request that came with a key."""
        settled = self.keys.get(key)
        if settled is not None:
            return settled.fingerprint, settled.outcome
        parked = self._waiting_keys.get(key)
        return None if parked is None else (parked.fingerprint, parked)

    def hold_key(self, parked: Parked) -> None:
        """Remember a key whose first request waits."""
        if parked.key is not None:
            self._waiting_keys[parked.key] = parked

    def release_key(self, parked: Parked) -> None:
        """Forget a key whose request was withdrawn: a repeat of it starts afresh."""
        if parked.key is not None:
            del self._waiting_keys[parked.key]

    def settle_key(
        self, key: str, fingerprint: bytes | None, outcome: Outcome, now_ms: int
    ) -> None:
        """Remember the answer to the first request that came with a key."""
        self._waiting_keys.pop(key, None)
        self.add_key(key, fingerprint, outcome, now_ms)
        keys = self.keys
        # An answer may be as large as the jobs that it gave out.
        while len(keys) > limits.IDEMPOTENCY_KEYS_MAX or (
            self.key_bytes > limits.IDEMPOTENCY_BYTES_MAX and len(keys) > 1
        ):
            self.key_bytes -= keys.popitem(last=False)[1].size

    def add_key(self, key: str, fingerprint: bytes | None, outcome: Outcome, now_ms: int) -> None:
        """Take in a settled key behind all others."""
        size = size_of(outcome)
        self.keys[key] = Key(fingerprint, now_ms, outcome, size)
        self.key_bytes += size

    def forget_keys(self, now_ms: int) -> None:
        """Drop keys that are over their time, a bounded number of them per entry."""
        keys = self.keys
        for _ in range(limits.KEYS_FORGOTTEN_PER_ENTRY_MAX):
            if not keys:
                return
            key = next(iter(keys))
            if keys[key].settled_ms + limits.IDEMPOTENCY_KEY_MS > now_ms:
                return
            self.key_bytes -= keys.pop(key).size


def size_of(outcome: Outcome) -> int:
    """Bytes that an answer takes, about, with all that is nested in it."""
    return len(_encode(outcome))


def _acknowledge(answers: Answers, ack: int) -> None:
    """Forget the answers below ack, but not the waits.

    Costs at most one step per number passed over, and at most one per answer kept: a far jump is
    no work.
    """
    by_seq = answers.by_seq
    if ack - answers.ack <= len(by_seq):
        below = [seq for seq in range(answers.ack, ack) if seq in by_seq]
    else:
        below = [seq for seq in by_seq if seq < ack]
    answers.ack = ack
    for seq in below:
        if not isinstance(by_seq[seq], Parked):
            del by_seq[seq]


def _waits(node: str, answers: Answers) -> list[tuple[RequestId, Parked]]:
    """Those of a life's requests that wait, in order of their numbers."""
    by_seq = answers.by_seq.items()
    waiting = [(seq, answer) for seq, answer in by_seq if isinstance(answer, Parked)]
    waiting.sort(key=itemgetter(0))
    return [(RequestId(node, answers.boot, seq), parked) for seq, parked in waiting]
