"""Bugs of the machine as such: time, tokens, sessions, what was answered, snapshots.

RULE: patches of `cluster.machine` that concern no single primitive.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Final

import msgspec

from cluster.machine import snapshot as snapshot_module
from cluster.machine.commands import RequestId
from cluster.machine.core import Core
from cluster.machine.machine import Machine
from cluster.machine.outcome import Void
from cluster.machine.parked import Parked
from cluster.machine.requests import Requests
from cluster.machine.rooms import Rooms
from cluster.machine.sessions import Session
from cluster.machine.tokens import Tokens
from jepsen.zoo.species import Plant, Real, Simulated, replaced, together

Off = AbstractContextManager[Any]


def _requests_forgotten() -> Off:
    """The machine does not remember what it answered: a repeat takes effect again."""
    answer = Machine._answer

    def amnesiac(self: Machine, memory: Any, request_id: RequestId, request: Any) -> Any:
        memory.by_seq.pop(request_id.seq, None)
        return answer(self, memory, request_id, request)

    return replaced(Machine, _answer=amnesiac)


def _keys_forgotten() -> Off:
    """Idempotency-Keys are ignored."""
    return replaced(Requests, find_key=lambda self, key: None)


def _keys_of_one_node() -> Off:
    """An Idempotency-Key is known only at the node that it came to first."""
    first = Machine._first_answer

    def local(self: Machine, request_id: RequestId, request: Any) -> Any:
        if request.key is not None:
            key = f"{request_id.node}/{request.key}"
            request = msgspec.structs.replace(request, key=key)
        return first(self, request_id, request)

    return replaced(Machine, _first_answer=local)


def _void_answered() -> Off:
    """A late repeat of a settled request is taken for a new one."""
    answer = Machine._answer

    def gullible(self: Machine, memory: Any, request_id: RequestId, request: Any) -> Any:
        outcome = answer(self, memory, request_id, request)
        if isinstance(outcome, Void):
            return self._first_answer(request_id, request)
        return outcome

    return replaced(Machine, _answer=gullible)


def _token_repeated() -> Off:
    """Tokens are the index of the entry: two grants of one entry have the same."""

    def index_only(self: Tokens) -> int:
        self.last = max(self.last, self.index)
        return self.last

    return replaced(Tokens, next=index_only)


def _tokens_from_the_start() -> Off:
    """A machine that was loaded from a snapshot counts its tokens from behind."""
    load = snapshot_module.load

    def behind(machine: Machine, rows: Any) -> None:
        load(machine, rows)
        machine.tokens.last -= 5

    return replaced(snapshot_module, load=behind)


def _renewals_halved() -> Off:
    """A keepalive gives half a TTL."""

    def stingy(self: Session, now_ms: int) -> None:
        self.deadline_ms = max(self.deadline_ms, now_ms + self.ttl_ms // 2)

    return replaced(Session, renew=stingy)


def _late_renewals_taken() -> Off:
    """A session ends a second late: a keepalive after its deadline still counts."""

    def lenient(self: Session, now_ms: int) -> None:
        self.deadline_ms = now_ms + self.ttl_ms + 1_000

    return replaced(Session, renew=lenient)


def _half_freed() -> Off:
    """Of what a session held only the first half is freed in the step that ends it."""
    end = Core.end

    def careless(self: Core, session: Session, why: str) -> None:
        kept = list(session.owned)[: (len(session.owned) + 1) // 2]
        session.owned = {thing: session.owned[thing] for thing in kept}
        end(self, session, why)

    return replaced(Core, end=careless)


def _waits_forgotten() -> Off:
    """Who waits is told nothing when its time is over: it is only taken out of the queue."""

    def silent(self: Core, parked: Parked) -> None:
        self._unpark(parked)
        for request in parked.requests:
            answers = self.requests.origins.get(request.node)
            if answers is not None:
                answers.by_seq.pop(request.seq, None)
        self.requests.release_key(parked)
        self._leave(parked)

    return replaced(Core, wait_ended=silent)


def _answers_not_in_snapshots() -> Off:
    """A snapshot leaves out what was answered; who waits is in it."""
    answers = snapshot_module._answers

    def forgetful(machine: Machine) -> Any:
        return (record for record in answers(machine) if record[1][2] is None)

    return replaced(snapshot_module, _answers=forgetful)


def _keys_not_in_snapshots() -> Off:
    """A snapshot leaves out the Idempotency-Keys."""
    return replaced(snapshot_module, _keys=lambda machine: iter(()))


def _rooms_not_in_snapshots() -> Off:
    """A snapshot leaves out one primitive's table."""
    return replaced(Rooms, _dump=lambda self: iter(()))


def _own_way() -> Off:
    """A machine that was loaded from a snapshot does not do as others do: it adds an hour of TTL.

    What nodes have in common is only what the log says; this is the bug that a comparison of their
    digests is for.
    """
    load, renew = snapshot_module.load, Session.renew
    loaded: set[int] = set()

    def marked(machine: Machine, rows: Any) -> None:
        load(machine, rows)
        for session in machine.sessions:
            loaded.add(session.token)

    def odd(self: Session, now_ms: int) -> None:
        renew(self, now_ms)
        if self.token in loaded:
            self.deadline_ms += 1

    return together(replaced(snapshot_module, load=marked), replaced(Session, renew=odd))


_ONCE = frozenset({"exactly once", "the machine raises nothing"})
_SNAPSHOT = frozenset(
    {"state machine safety", "equal states", "snapshots lose nothing", "exactly once"}
)

PLANTS: Final = (
    Plant(
        "plant-requests",
        "answers not remembered",
        "machine",
        _requests_forgotten,
        Simulated(_ONCE, settings={"key_share": 0.2}),
    ),
    Plant(
        "plant-keys",
        "Idempotency-Keys ignored",
        "machine",
        _keys_forgotten,
        Simulated(_ONCE),
        Real(frozenset({"K9 exactly once"}), "exactly-once", "kill-leader"),
    ),
    Plant(
        "plant-key-node",
        "an Idempotency-Key is forgotten on another node",
        "machine",
        _keys_of_one_node,
        Simulated(_ONCE),
        Real(frozenset({"K9 exactly once"}), "exactly-once", "none", 8.0),
    ),
    Plant(
        "plant-void",
        "late repeats taken for new",
        "machine",
        _void_answered,
        Simulated(_ONCE, "storm-harsh"),
    ),
    Plant(
        "plant-tokens",
        "a token given twice",
        "machine",
        _token_repeated,
        Simulated(
            frozenset(
                {"the machine raises nothing", "tokens rise", "a node starts on what it wrote"}
            )
        ),
        Real(frozenset({"K2 tokens", "K15 hygiene"}), "shared-locks", "none", 8.0),
    ),
    Plant(
        "plant-tokens-loaded",
        "tokens reused after a snapshot",
        "machine",
        _tokens_from_the_start,
        Simulated(
            _SNAPSHOT | {"tokens rise"},
            settings={"snapshot_entries": 10},
        ),
    ),
    Plant(
        "plant-renewals",
        "a keepalive gives half a TTL",
        "machine",
        _renewals_halved,
        Simulated(frozenset({"no session ends early", "sessions", "locks"})),
        Real(frozenset({"K6 sessions"}), "sessions", "none", 8.0),
    ),
    Plant(
        "plant-late-end",
        "sessions end a second late",
        "machine",
        _late_renewals_taken,
        Simulated(frozenset({"sessions", "sessions end in time", "locks"})),
    ),
    Plant(
        "plant-half-freed",
        "what a session held is not freed in one step",
        "machine",
        _half_freed,
        Simulated(frozenset({"locks", "a session takes all along"}), workload="multilocks"),
        Real(
            frozenset({"K6 sessions", "K13 progress", "K15 hygiene"}), "multilocks", "client-pause"
        ),
    ),
    Plant(
        "plant-waits",
        "a wait that is over is told nothing",
        "machine",
        _waits_forgotten,
        Simulated(frozenset({"no waiter is lost", "every request is answered"})),
    ),
    Plant(
        "plant-snapshot-answers",
        "the request table is not in a snapshot",
        "machine",
        _answers_not_in_snapshots,
        Simulated(_SNAPSHOT, settings={"snapshot_entries": 10}),
    ),
    Plant(
        "plant-snapshot-keys",
        "Idempotency-Keys are not in a snapshot",
        "machine",
        _keys_not_in_snapshots,
        Simulated(_SNAPSHOT, settings={"snapshot_entries": 10}),
    ),
    Plant(
        "plant-snapshot-table",
        "a primitive's table is not in a snapshot",
        "machine",
        _rooms_not_in_snapshots,
        Simulated(_SNAPSHOT | {"places"}, workload="rooms", settings={"snapshot_entries": 10}),
    ),
    Plant(
        "plant-own-way",
        "after a snapshot a node goes its own way",
        "machine",
        _own_way,
        Simulated(_SNAPSHOT | {"sessions"}, settings={"snapshot_entries": 10}),
    ),
)
