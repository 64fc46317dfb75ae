"""Answers and refusals: the one table from outcome to status, code and body.

RULE: the only place that knows status codes. An outcome of the machine, or an error of the node,
becomes an `Answer` or a `Problem` here; how those become bytes is decided by `encode` alone.
Standard: RFC 9457 (problem documents).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from cluster.errors import CoterieError, Refused
from cluster.machine import outcome as outcomes
from cluster.wire import cbor

JSON: Final = "application/json"
CBOR: Final = "application/cbor"
PROBLEM_JSON: Final = "application/problem+json"
PROBLEM_CBOR: Final = "application/problem+cbor"
OUR_FAULT_STATUS_MIN: Final = 500
TYPE_PREFIX: Final = "urn:coterie:problem:"

Token = Annotated[int, msgspec.Meta(ge=0, le=2**62, description="fencing token")]
Ms = Annotated[int, msgspec.Meta(description="milliseconds")]


class Answer(NamedTuple):
    """A success, before it is bytes.

    Attributes:
        status: HTTP status.
        body: a Struct of ours; None for no body.
        token: fencing token given by this answer, repeated in the header Coterie-Token.
        location: path of what was made.
        raw: ready bytes and their content type, instead of a body.
    """

    status: int
    body: msgspec.Struct | None = None
    token: int | None = None
    location: str | None = None
    raw: tuple[bytes, str] | None = None


class Kind(NamedTuple):
    """What a problem's `code` always means."""

    status: int
    title: str
    retryable: bool
    definite: bool
    retry_after_s: int | None = None


class Problem(Exception):
    """A refusal or error on its way to the client.

    Attributes:
        code: key of KINDS.
        detail: what was asked, what was found, what to do.
        reason: further members of the document, for programs.
        definite: it surely did not happen; mostly as its kind.
        retryable: the same may succeed later; mostly as its kind.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        reason: Mapping[str, object] | None = None,
        *,
        definite: bool | None = None,
        retryable: bool | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(detail)
        self.code = code
        self.kind = KINDS[code]
        self.detail = detail
        self.reason = reason or {}
        self.definite = self.kind.definite if definite is None else definite
        self.retryable = self.kind.retryable if retryable is None else retryable
        self.headers = headers or {}

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.kind.status

    def document(self) -> dict[str, object]:
        """Return the members of the problem document; the standard's own come first."""
        return {
            "type": TYPE_PREFIX + self.code,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
            "definite": self.definite,
            **self.reason,
        }


# Every code the API can answer with. Codes are stable: never rename one.
KINDS: Final[Mapping[str, Kind]] = {
    "bad_request": Kind(400, "The request makes no sense", False, True),
    "not_found": Kind(404, "No such path", False, True),
    "session_not_found": Kind(404, "No such session", False, True),
    "node_not_found": Kind(404, "No such node", False, True),
    "method_not_allowed": Kind(405, "The path has no such method", False, True),
    "request_timeout": Kind(408, "The request came too slowly", True, True),
    "lock_held": Kind(409, "The lock is held", True, True),
    "stale_token": Kind(409, "The token is not the present one", False, True),
    "not_holder": Kind(409, "The session does not hold it", False, True),
    "withdrawn": Kind(409, "The request was withdrawn", True, True),
    "no_candidate": Kind(409, "No node can take over", True, True),
    "transfer_running": Kind(409, "A hand-over is under way", True, True),
    "transfer_timed_out": Kind(409, "The hand-over failed", True, True),
    "not_leader": Kind(409, "The node leads no longer", True, True),
    "session_expired": Kind(410, "The session has ended", False, True),
    "too_large": Kind(413, "The body is too large", False, True),
    "unsupported_media_type": Kind(415, "The body's type is not understood", False, True),
    "expectation_failed": Kind(417, "The expectation cannot be met", False, True),
    "idempotency_key_reused": Kind(422, "The key belongs to another request", False, True),
    "queue_full": Kind(429, "A limit is reached", True, True, 1),
    "head_too_large": Kind(431, "The head of the request is too large", False, True),
    "internal": Kind(500, "An error of ours", True, False),
    "not_supported": Kind(501, "A node of this cluster is too old for this", False, True),
    "no_leader": Kind(503, "Nobody leads the cluster", True, True, 1),
    "overloaded": Kind(503, "The node is overloaded", True, True, 1),
    "shutting_down": Kind(503, "The node is leaving", True, True, 1),
    "not_ready": Kind(503, "The node is not ready", True, True, 1),
    "timeout": Kind(504, "No answer in time", True, False),
    "connection_lost": Kind(504, "The way to the cluster broke", True, False),
}

# What any route may answer, whatever it does; routes name the others themselves.
COMMON_CODES: Final = ("bad_request", "too_large", "unsupported_media_type", "overloaded")
CLUSTER_CODES: Final = ("no_leader", "timeout")


# Answers of writes, in the words of the API.


class SessionOpened(msgspec.Struct, frozen=True):
    """A session, alive for `expires_in_ms` unless it is renewed."""

    session: str
    ttl_ms: Ms
    expires_in_ms: Ms
    token: Token


class SessionRenewed(msgspec.Struct, frozen=True):
    """The session was alive and lives on."""

    session: str
    expires_in_ms: Ms


class SessionsRenewed(msgspec.Struct, frozen=True):
    """Which of the sessions live on, and for how long; `expired` ones are ended or unknown."""

    alive: dict[str, Ms]
    expired: list[str]


class LockGranted(msgspec.Struct, frozen=True):
    """The lock is held. `mode` is exclusive or shared."""

    name: str
    token: Token
    mode: str
    session: str


class LockReleased(msgspec.Struct, frozen=True):
    """The lock was given back."""

    released: bool = True


# Members that refusals add to the problem document.


class BadRequestReason(msgspec.Struct, frozen=True):
    """`field` is the part of the request that is wrong."""

    field: str


class LockHeldReason(msgspec.Struct, frozen=True):
    """Who stands in the way. `holder` is null when only waiters do; `position` counts from 1."""

    name: str
    holder: str | None
    held_for_ms: Ms
    holder_token: Token | None
    queue_length: int
    position: int


class StaleTokenReason(msgspec.Struct, frozen=True):
    """`token` was offered, `current_token` is the newest grant."""

    name: str
    token: Token
    current_token: Token


class NotHolderReason(msgspec.Struct, frozen=True):
    """Who does not hold what."""

    name: str
    session: str


class SessionReason(msgspec.Struct, frozen=True):
    """The session that is gone."""

    session: str


class LimitReason(msgspec.Struct, frozen=True):
    """Which limit was reached."""

    what: str
    limit: int


REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "bad_request": BadRequestReason,
    "lock_held": LockHeldReason,
    "stale_token": StaleTokenReason,
    "not_holder": NotHolderReason,
    "session_not_found": SessionReason,
    "session_expired": SessionReason,
    "queue_full": LimitReason,
}


def session_not_found(session: str) -> Problem:
    """Nobody ever opened it."""
    detail = f'session "{session}" is unknown; open one with POST /v1/sessions'
    return Problem("session_not_found", detail, {"session": session})


def session_expired(session: str) -> Problem:
    """It was there."""
    detail = f'session "{session}" has ended, and what it held is freed; open a new one'
    return Problem("session_expired", detail, {"session": session})


def from_outcome(outcome: outcomes.Outcome) -> Answer:
    """Turn the machine's outcome of a command into an answer.

    Raises:
        Problem: the outcome is a refusal.
    """
    return _TABLE[type(outcome)](outcome)


def from_error(error: CoterieError) -> Problem:
    """Turn the node's error into a problem; what we have no code for is `internal`."""
    code = error.code if error.code in KINDS else "internal"
    reason = error.reason if isinstance(error, Refused) else None
    return Problem(code, error.detail, reason, definite=error.definite, retryable=error.retryable)


def encode(body: object, wants_cbor: bool) -> bytes:
    """Make the bytes of a Struct or of a problem's members."""
    if not wants_cbor:
        return _json.encode(body)
    return cbor.encode(msgspec.to_builtins(_unwrapped(body)))


def _unwrapped(body: object) -> object:
    # Stored JSON is spliced unread into JSON answers; only CBOR has to look inside.
    return _from_json.decode(_json.encode(body))


def _opened(outcome: outcomes.Opened) -> Answer:
    body = SessionOpened(outcome.session, outcome.ttl_ms, outcome.ttl_ms, outcome.token)
    return Answer(201, body, outcome.token, f"/v1/sessions/{outcome.session}")


def _renewed(outcome: outcomes.Renewed) -> Answer:
    return Answer(200, SessionRenewed(outcome.session, outcome.expires_in_ms))


def _renewed_many(outcome: outcomes.RenewedMany) -> Answer:
    return Answer(200, SessionsRenewed(dict(outcome.alive), list(outcome.gone)))


def _closed(_outcome: outcomes.Closed) -> Answer:
    return Answer(204)


def _session_not_found(outcome: outcomes.SessionNotFound) -> Answer:
    raise session_not_found(outcome.session)


def _session_expired(outcome: outcomes.SessionExpired) -> Answer:
    raise session_expired(outcome.session)


def _granted(outcome: outcomes.Granted) -> Answer:
    mode = "shared" if outcome.shared else "exclusive"
    body = LockGranted(outcome.name, outcome.token, mode, outcome.session)
    return Answer(200, body, outcome.token)


def _lock_held(outcome: outcomes.LockHeld) -> Answer:
    if outcome.holder is None:
        by = "waited for by others before you"
    else:
        by = (
            f"held by session {outcome.holder} for {outcome.held_for_ms} ms "
            f"under token {outcome.holder_token}"
        )
    raise Problem(
        "lock_held",
        f'lock "{outcome.name}" is {by}; {outcome.queue_length} in its queue, '
        f"your position is {outcome.position}; ask with a longer wait or later",
        {
            "name": outcome.name,
            "holder": outcome.holder,
            "held_for_ms": outcome.held_for_ms,
            "holder_token": outcome.holder_token,
            "queue_length": outcome.queue_length,
            "position": outcome.position,
        },
    )


def _released(_outcome: outcomes.Released) -> Answer:
    return _RELEASED


def _stale_token(outcome: outcomes.StaleToken) -> Answer:
    raise Problem(
        "stale_token",
        f'lock "{outcome.name}": token {outcome.token} is stale, '
        f"current {outcome.current_token}; acquire again",
        {
            "name": outcome.name,
            "token": outcome.token,
            "current_token": outcome.current_token,
        },
    )


def _not_holder(outcome: outcomes.NotHolder) -> Answer:
    raise Problem(
        "not_holder",
        f'lock "{outcome.name}" is not held by session {outcome.session}; acquire it first',
        {"name": outcome.name, "session": outcome.session},
    )


def _queue_full(outcome: outcomes.QueueFull) -> Answer:
    raise Problem(
        "queue_full",
        f"the limit of {outcome.limit} {outcome.what} is reached; try again later",
        {"what": outcome.what, "limit": outcome.limit},
    )


def _withdrawn(_outcome: outcomes.Withdrawn) -> Answer:
    raise Problem("withdrawn", "the request left its queue when its client hung up; ask again")


def _key_reused(outcome: outcomes.KeyReused) -> Answer:
    raise Problem(
        "idempotency_key_reused",
        f'Idempotency-Key "{outcome.key}" was used for another request; '
        "use a new key for a new request, and the same body for a repeat",
    )


def _void(_outcome: outcomes.Void) -> Answer:
    # An earlier copy of the request may have been applied, and its answer is forgotten.
    raise Problem(
        "timeout",
        "the answer was settled earlier and is no longer known; repeat with the same "
        "Idempotency-Key, or look at the state",
    )


def _undecodable(_outcome: outcomes.Undecodable) -> Answer:
    raise Problem("not_supported", "a node of this cluster does not know this command yet")


def _never(outcome: outcomes.Outcome) -> Answer:
    raise AssertionError(f"{type(outcome).__name__} is never a final answer to a client")


_TABLE: Final[Mapping[type[outcomes.Outcome], Callable[[Any], Answer]]] = {
    outcomes.Opened: _opened,
    outcomes.Renewed: _renewed,
    outcomes.RenewedMany: _renewed_many,
    outcomes.Closed: _closed,
    outcomes.SessionNotFound: _session_not_found,
    outcomes.SessionExpired: _session_expired,
    outcomes.Granted: _granted,
    outcomes.Queued: _never,
    outcomes.LockHeld: _lock_held,
    outcomes.Released: _released,
    outcomes.StaleToken: _stale_token,
    outcomes.NotHolder: _not_holder,
    outcomes.QueueFull: _queue_full,
    outcomes.Abandoned: _never,
    outcomes.Withdrawn: _withdrawn,
    outcomes.KeyReused: _key_reused,
    outcomes.Void: _void,
    outcomes.Undecodable: _undecodable,
}
OUTCOMES_KNOWN: Final = frozenset(_TABLE)

_RELEASED: Final = Answer(200, LockReleased())
_json: Final = msgspec.json.Encoder()
_from_json: Final = msgspec.json.Decoder()
