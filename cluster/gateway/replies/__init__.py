"""Answers and refusals: the one table from outcome to status, code and body.

RULE: the only place that knows status codes. One module per primitive; what they share is in
`base.py`, what a problem's code means in `kinds.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cluster.gateway.replies import (
    base,
    fifos,
    jobs,
    locks,
    rooms,
    semaphores,
    sessions,
    several,
    tasks,
    tickets,
)
from cluster.gateway.replies.base import (
    CBOR,
    JSON,
    OUR_FAULT_STATUS_MIN,
    PROBLEM_CBOR,
    PROBLEM_JSON,
    Answer,
    Ms,
    Problem,
    Reply,
    Token,
    encode,
    from_error,
    session_expired,
    session_not_found,
)
from cluster.gateway.replies.kinds import CLUSTER_CODES, COMMON_CODES, KINDS, Kind
from cluster.gateway.replies.locks import LockGranted, LockReleased
from cluster.gateway.replies.payloads import Octets, OptionalPayload, Payload, from_bytes
from cluster.gateway.replies.sessions import SessionOpened, SessionRenewed, SessionsRenewed
from cluster.machine.outcome import Outcome

__all__ = [
    "CBOR",
    "CLUSTER_CODES",
    "COMMON_CODES",
    "JSON",
    "KINDS",
    "OUR_FAULT_STATUS_MIN",
    "PROBLEM_CBOR",
    "PROBLEM_JSON",
    "REASONS",
    "Answer",
    "Kind",
    "LockGranted",
    "LockReleased",
    "Ms",
    "Octets",
    "OptionalPayload",
    "Payload",
    "Problem",
    "Reply",
    "SessionOpened",
    "SessionRenewed",
    "SessionsRenewed",
    "Token",
    "encode",
    "from_bytes",
    "from_error",
    "from_outcome",
    "session_expired",
    "session_not_found",
]

_MODULES: Final = (
    base,
    sessions,
    locks,
    semaphores,
    tickets,
    fifos,
    rooms,
    jobs,
    tasks,
)

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    code: reason for module in (*_MODULES, several) for code, reason in module.REASONS.items()
}
"""Members that refusals add to the problem document, by code."""


def from_outcome(outcome: Outcome) -> Answer:
    """Turn the machine's outcome of a command into an answer.

    Raises:
        Problem: the outcome is a refusal.
    """
    return _TABLE[type(outcome)](outcome)


_TABLE: Final[Mapping[type[Outcome], Reply]] = {
    **{outcome: reply for module in _MODULES for outcome, reply in module.REPLIES.items()},
    # What a batch is told is made of what its commands are told.
    **several.replies(from_outcome),
}
OUTCOMES_KNOWN: Final = frozenset(_TABLE)
