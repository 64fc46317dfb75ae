"""One exception per code by which a node refuses, with the reason as attributes.

RULE: mirrors the table of the HTTP document; a test keeps both equal. Nothing is decided here.

    try:
        async with session.lock("orders", wait=0):
            ...
    except LockHeld as refusal:
        print(refusal.holder, refusal.held_for_ms, refusal.position)

A class names the members of its reason as annotations. One that an older node did not send is None.
A code that is newer than this client is raised as plain `Refused`.
"""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from cluster.errors import ConnectionLost, CoterieError, Definite, Indefinite, Refused


class Told(Refused):
    """A refusal whose code is known here.

    Attributes:
        words: members of the reason, each an attribute.
    """

    words: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        # Texts, as annotations are not evaluated; only their names are of interest.
        own = inspect.get_annotations(cls)
        cls.words = (*cls.words, *(word for word in own if word not in cls.words))

    def __init__(
        self,
        detail: str,
        *,
        status: int = 409,
        reason: dict[str, object] | None = None,
        code: str | None = None,
    ):
        reason = {} if reason is None else reason
        super().__init__(
            detail, code=type(self).code if code is None else code, status=status, reason=reason
        )
        for word in self.words:
            setattr(self, word, reason.get(word))


class NotFound(Told):
    """There is no such thing."""

    code = "not_found"


class BadRequest(Told):
    """The request makes no sense; `field` is the part that is wrong."""

    code = "bad_request"
    field: str


class PassMissing(Told):
    """No pass was shown."""

    code = "pass_missing"


class PassInvalid(Told):
    """The pass is not one of this cluster."""

    code = "pass_invalid"


class SessionNotFound(NotFound):
    """Nobody ever opened the session."""

    code = "session_not_found"
    session: str


class NodeNotFound(NotFound):
    """The cluster has no such node."""

    code = "node_not_found"


class SemaphoreNotFound(NotFound):
    """The semaphore was never given a limit."""

    code = "semaphore_not_found"
    name: str


class ResourceNotFound(NotFound):
    """Nobody offers tickets of it."""

    code = "resource_not_found"
    name: str


class TicketNotFound(NotFound):
    """The ticket was revoked, is over, or never was."""

    code = "ticket_not_found"
    name: str
    ticket: str


class FifoNotFound(NotFound):
    """There is no such fifo."""

    code = "fifo_not_found"
    name: str


class RoomNotFound(NotFound):
    """There is no such waiting room."""

    code = "room_not_found"
    name: str


class JobNotFound(NotFound):
    """The job is done, deleted or cancelled, or never was."""

    code = "job_not_found"
    job: int


class PoolNotFound(NotFound):
    """There is no such pool."""

    code = "pool_not_found"
    pool: str


class TaskNotFound(NotFound):
    """The pool has no such task."""

    code = "task_not_found"
    pool: str
    task: str


class MethodNotAllowed(Told):
    """The path has no such method."""

    code = "method_not_allowed"


class RequestTimeout(Told):
    """The request came too slowly."""

    code = "request_timeout"


class Occupied(Told):
    """Somebody has what was asked for; `holder` is None where only waiters are in the way."""

    code = "occupied"
    name: str
    holder: str | None
    held_for_ms: int
    holder_token: int | None
    queue_length: int


class LockHeld(Occupied):
    """The lock is held. `blocked`: where several were asked for, all that cannot be had."""

    code = "lock_held"
    position: int
    blocked: list[str] | None


class SemaphoreFull(Occupied):
    """The semaphore has not enough units free."""

    code = "semaphore_full"
    position: int
    units: int
    free: int
    missing: int
    limit: int
    holders: int


class SemaphoreTooSmall(Told):
    """More units were asked for than the semaphore has."""

    code = "semaphore_too_small"
    name: str
    units: int
    limit: int


class SemaphoreInUse(Occupied):
    """The semaphore is held or waited for, and cannot go."""

    code = "semaphore_in_use"
    holders: int


class NoTicketFree(Occupied):
    """No ticket of the resource is free."""

    code = "no_ticket_free"
    position: int
    ticket: str | None
    tickets: int
    claimed: int


class WrongKind(Told):
    """The resource is of the other kind: a lock, or a holder of tickets."""

    code = "wrong_kind"
    name: str
    is_lock: bool


class NotIssuer(Told):
    """Another session issued the ticket."""

    code = "not_issuer"
    name: str
    ticket: str
    session: str
    issuer: str


class FifoExists(Told):
    """There is such a fifo, with other settings."""

    code = "fifo_exists"
    name: str
    wait_timeout_ms: int
    accept_timeout_ms: int
    done_timeout_ms: int
    unused_destroy_timeout_ms: int
    allow_overrides: bool


class FifoInUse(Told):
    """Tickets are in the fifo."""

    code = "fifo_in_use"
    name: str
    tickets: int


class NotYourTurn(Told):
    """Others are ahead; the ticket keeps its place."""

    code = "not_your_turn"
    name: str
    ticket: str
    position: int
    ahead: int
    eta_ms: int | None
    eta_samples: int


class NotAccepted(Told):
    """The turn was not accepted, and cannot be done."""

    code = "not_accepted"
    name: str
    ticket: str
    state: str
    position: int


class OverridesNotAllowed(Told):
    """The fifo takes no times of a ticket's own."""

    code = "overrides_not_allowed"
    name: str


class DuplicateKey(Told):
    """A live job has this key."""

    code = "duplicate_key"
    tube: str
    key: str
    job: int
    state: str


class NotReserved(Told):
    """The job is not reserved: the token is stale."""

    code = "not_reserved"
    job: int
    token: int
    state: str


class JobReserved(Told):
    """A worker has the job."""

    code = "job_reserved"
    job: int
    session: str | None
    reserved_for_ms: int
    expires_in_ms: int
    current_token: int


class TaskNotScheduled(Told):
    """The task has no schedule."""

    code = "task_not_scheduled"
    pool: str
    task: str


class BatchRefused(Told):
    """The command at position `at` would be refused; nothing was done."""

    code = "batch_refused"
    at: int
    refusal: dict[str, Any]


class StaleToken(Told):
    """The token is not the present one: somebody else was granted it since."""

    code = "stale_token"
    kind: str
    name: str
    token: int
    current_token: int


class NotHolder(Told):
    """The session does not hold it."""

    code = "not_holder"
    kind: str
    name: str
    session: str


class Withdrawn(Told):
    """The request left its queue, as the node took its client for gone."""

    code = "withdrawn"


class NoCandidate(Told):
    """No node can take the leadership over."""

    code = "no_candidate"


class TransferRunning(Told):
    """Another hand-over is under way."""

    code = "transfer_running"


class TransferTimedOut(Told):
    """The hand-over failed."""

    code = "transfer_timed_out"


class NotLeader(Told):
    """The node leads no longer."""

    code = "not_leader"


class SessionExpired(Told):
    """The session has ended, and what it held is freed."""

    code = "session_expired"
    session: str


class TooLarge(Told):
    """The body is too large."""

    code = "too_large"


class UnsupportedMediaType(Told):
    """The body's type is not understood."""

    code = "unsupported_media_type"


class ExpectationFailed(Told):
    """The expectation cannot be met."""

    code = "expectation_failed"


class IdempotencyKeyReused(Told):
    """The key belongs to another request."""

    code = "idempotency_key_reused"


class QueueFull(Told):
    """A limit of the cluster is reached."""

    code = "queue_full"
    what: str
    limit: int


class HeadTooLarge(Told):
    """The head of the request is too large."""

    code = "head_too_large"


class NotSupported(Definite):
    """A node of the cluster is too old for this."""

    code = "not_supported"
    retryable = False


class NotReady(Definite):
    """The node is not ready."""

    code = "not_ready"


class Internal(Indefinite):
    """An error of the node's own."""

    code = "internal"


def _below(kind: type[Told]) -> list[type[Told]]:
    return [kind, *(each for below in kind.__subclasses__() for each in _below(below))]


# `Told` and `Occupied` are families only; no node says so.
REFUSALS: dict[str, type[Told]] = {
    kind.code: kind for kind in _below(Told) if kind not in (Told, Occupied)
}
FAILURES: dict[str, type[CoterieError]] = {
    "not_supported": NotSupported,
    "not_ready": NotReady,
    "internal": Internal,
    "connection_lost": ConnectionLost,
}
