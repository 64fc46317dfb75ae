"""What answers and problems are, and the answers that all primitives share.

RULE: an outcome of the machine, or an error of the node, becomes an `Answer` or a `Problem`; how
those become bytes is decided by `encode` alone.
Standard: RFC 9457 (problem documents).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec

from cluster.errors import CoterieError, Refused
from cluster.gateway.replies.kinds import KINDS
from cluster.gateway.replies.payloads import Octets
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
        fields: further header fields.
    """

    status: int
    body: msgspec.Struct | None = None
    token: int | None = None
    location: str | None = None
    raw: tuple[bytes, str] | None = None
    fields: tuple[tuple[str, str], ...] = ()


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


# Members that refusals add to the problem document.


class BadRequestReason(msgspec.Struct, frozen=True):
    """`field` is the part of the request that is wrong."""

    field: str


class StaleTokenReason(msgspec.Struct, frozen=True):
    """`token` was offered, `current_token` is the newest grant."""

    kind: str
    name: str
    token: Token
    current_token: Token


class NotHolderReason(msgspec.Struct, frozen=True):
    """Who does not hold what."""

    kind: str
    name: str
    session: str


class SessionReason(msgspec.Struct, frozen=True):
    """The session that is gone."""

    session: str


class LimitReason(msgspec.Struct, frozen=True):
    """Which limit was reached."""

    what: str
    limit: int


def session_not_found(session: str) -> Problem:
    """Nobody ever opened it."""
    detail = f'session "{session}" is unknown; open one with POST /v1/sessions'
    return Problem("session_not_found", detail, {"session": session})


def session_expired(session: str) -> Problem:
    """It was there."""
    detail = f'session "{session}" has ended, and what it held is freed; open a new one'
    return Problem("session_expired", detail, {"session": session})


def from_error(error: CoterieError) -> Problem:
    """Turn the node's error into a problem; what we have no code for is `internal`."""
    code = error.code if error.code in KINDS else "internal"
    reason = error.reason if isinstance(error, Refused) else None
    return Problem(code, error.detail, reason, definite=error.definite, retryable=error.retryable)


def encode(body: object, wants_cbor: bool) -> bytes:
    """Make the bytes of a Struct or of a problem's members."""
    if not wants_cbor:
        return _json.encode(body)
    return cbor.encode(msgspec.to_builtins(body, builtin_types=(bytes,), enc_hook=_for_cbor))


def _for_json(value: object) -> object:
    assert isinstance(value, Octets), f"{type(value).__name__} in an answer"
    return {"base64": value.data}


def _for_cbor(value: object) -> object:
    # Stored JSON is spliced unread into JSON answers; only CBOR has to look inside.
    if isinstance(value, msgspec.Raw):
        return _from_json.decode(value)
    assert isinstance(value, Octets), f"{type(value).__name__} in an answer"
    return value.data


def _session_not_found(outcome: outcomes.SessionNotFound) -> Answer:
    raise session_not_found(outcome.session)


def _session_expired(outcome: outcomes.SessionExpired) -> Answer:
    raise session_expired(outcome.session)


def _stale_token(outcome: outcomes.StaleToken) -> Answer:
    raise Problem(
        "stale_token",
        f'{outcome.kind} "{outcome.name}": token {outcome.token} is stale, '
        f"current {outcome.current_token}; acquire again",
        {
            "kind": outcome.kind,
            "name": outcome.name,
            "token": outcome.token,
            "current_token": outcome.current_token,
        },
    )


def _not_holder(outcome: outcomes.NotHolder) -> Answer:
    raise Problem(
        "not_holder",
        f'{outcome.kind} "{outcome.name}" is not held by session {outcome.session}; '
        "acquire it first",
        {"kind": outcome.kind, "name": outcome.name, "session": outcome.session},
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


def never(outcome: outcomes.Outcome) -> Answer:
    """Stand in the table for an outcome that no client of ours is ever told."""
    raise AssertionError(f"{type(outcome).__name__} is never a final answer to a client")


Reply: TypeAlias = Callable[[Any], Answer]
"""Makes the answer of one type of outcome, or raises its Problem."""

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "bad_request": BadRequestReason,
    "stale_token": StaleTokenReason,
    "not_holder": NotHolderReason,
    "session_not_found": SessionReason,
    "session_expired": SessionReason,
    "queue_full": LimitReason,
}

REPLIES: Final[Mapping[type[outcomes.Outcome], Reply]] = {
    outcomes.SessionNotFound: _session_not_found,
    outcomes.SessionExpired: _session_expired,
    outcomes.Queued: never,
    outcomes.StaleToken: _stale_token,
    outcomes.NotHolder: _not_holder,
    outcomes.QueueFull: _queue_full,
    outcomes.Abandoned: never,
    outcomes.Withdrawn: _withdrawn,
    outcomes.KeyReused: _key_reused,
    outcomes.Void: _void,
    outcomes.Undecodable: _undecodable,
}

_json: Final = msgspec.json.Encoder(enc_hook=_for_json)
_from_json: Final = msgspec.json.Decoder()
