"""What the machine answers: one frozen value per outcome.

RULE: values only. A participle for what was done, a noun for what stands against it. Refusals are
values too (`Refusal`), never exceptions: they are replicated, stored and repeated like any answer.
One module per primitive, with its read-only pictures; `base.py` has what they share.
"""

from __future__ import annotations

from cluster.machine.outcome import (
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
from cluster.machine.outcome.base import (
    Abandoned,
    Answer,
    KeyReused,
    NotHolder,
    Outcome,
    Queued,
    QueueFull,
    Refusal,
    SessionExpired,
    SessionNotFound,
    StaleToken,
    Undecodable,
    Void,
    Withdrawn,
)
from cluster.machine.outcome.locks import (
    Granted,
    GrantedMany,
    LockHeld,
    LockInfo,
    LocksHeld,
    Released,
    ReleasedMany,
)
from cluster.machine.outcome.sessions import Closed, Opened, Renewed, RenewedMany, SessionInfo
from cluster.machine.outcome.several import Batched, BatchRefused, BatchUnfit

__all__ = [
    "MACHINE_OUTCOMES",
    "Abandoned",
    "Answer",
    "BatchRefused",
    "BatchUnfit",
    "Batched",
    "Closed",
    "Granted",
    "GrantedMany",
    "KeyReused",
    "LockHeld",
    "LockInfo",
    "LocksHeld",
    "NotHolder",
    "Opened",
    "Outcome",
    "Queued",
    "QueueFull",
    "Refusal",
    "Released",
    "ReleasedMany",
    "Renewed",
    "RenewedMany",
    "SessionExpired",
    "SessionInfo",
    "SessionNotFound",
    "StaleToken",
    "Undecodable",
    "Void",
    "Withdrawn",
]

MACHINE_OUTCOMES: tuple[type[Outcome], ...] = (
    *base.OUTCOMES,
    *sessions.OUTCOMES,
    *locks.OUTCOMES,
    *semaphores.OUTCOMES,
    *tickets.OUTCOMES,
    *fifos.OUTCOMES,
    *rooms.OUTCOMES,
    *jobs.OUTCOMES,
    *tasks.OUTCOMES,
    *several.OUTCOMES,
)
