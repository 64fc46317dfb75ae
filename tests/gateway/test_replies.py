"""The one table from outcome to answer."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.gateway import replies
from cluster.gateway.replies import Problem
from cluster.machine import outcome as outcomes
from cluster.wire import cbor


def refusal(outcome: outcomes.Outcome) -> dict[str, object]:
    """Return the problem document of an outcome."""
    with pytest.raises(Problem) as problem:
        replies.from_outcome(outcome)
    return problem.value.document()


def test_every_outcome_has_its_row() -> None:
    """An outcome added to the machine must be added to the table."""
    assert frozenset(outcomes.MACHINE_OUTCOMES) == replies.OUTCOMES_KNOWN


def test_every_refusal_is_definite_and_every_success_is_none() -> None:
    """What the machine refuses surely did not happen; only a forgotten answer leaves doubt."""
    document = refusal(outcomes.LockHeld("orders", "1-a", 5, 7, 2, 3))
    assert document == {
        "type": "urn:coterie:problem:lock_held",
        "title": "The lock is held",
        "status": 409,
        "detail": 'lock "orders" is held by session 1-a for 5 ms under token 7; 2 in its queue, '
        "your position is 3; ask with a longer wait or later",
        "code": "lock_held",
        "retryable": True,
        "definite": True,
        "name": "orders",
        "holder": "1-a",
        "held_for_ms": 5,
        "holder_token": 7,
        "queue_length": 2,
        "position": 3,
    }
    assert refusal(outcomes.Void())["definite"] is False


def test_a_lock_that_others_wait_for_says_so() -> None:
    """Without a holder the text speaks of those who wait."""
    document = refusal(outcomes.LockHeld("orders", None, 0, None, 1, 2))
    assert "waited for by others before you" in str(document["detail"])
    assert document["holder"] is None


@pytest.mark.parametrize(
    ("outcome", "status", "code", "reason"),
    [
        (outcomes.SessionNotFound("x"), 404, "session_not_found", {"session": "x"}),
        (outcomes.SessionExpired("x"), 410, "session_expired", {"session": "x"}),
        (outcomes.StaleToken("a", 7, 9), 409, "stale_token", {"token": 7, "current_token": 9}),
        (outcomes.NotHolder("a", "x"), 409, "not_holder", {"name": "a", "session": "x"}),
        (outcomes.QueueFull("sessions", 5), 429, "queue_full", {"what": "sessions", "limit": 5}),
        (outcomes.KeyReused("k"), 422, "idempotency_key_reused", {}),
        (outcomes.Withdrawn(), 409, "withdrawn", {}),
        (outcomes.Undecodable(), 501, "not_supported", {}),
    ],
)
def test_a_refusal_has_its_status_code_and_reason(
    outcome: outcomes.Outcome, status: int, code: str, reason: dict[str, object]
) -> None:
    """Each refusal is told apart by its code and carries what a program needs."""
    document = refusal(outcome)
    assert (document["status"], document["code"]) == (status, code)
    assert reason.items() <= document.items()


@pytest.mark.parametrize(
    ("error", "status", "code", "is_definite"),
    [
        (errors.NoLeader("x"), 503, "no_leader", True),
        (errors.NoLeader("x", definite=False), 503, "no_leader", False),
        (errors.Overloaded("x"), 503, "overloaded", True),
        (errors.ShuttingDown("x"), 503, "shutting_down", True),
        (errors.Timeout("x"), 504, "timeout", False),
        (errors.Timeout("x", definite=True), 504, "timeout", True),
        (errors.ConnectionLost("x"), 504, "connection_lost", False),
        (errors.CoterieError("x"), 500, "internal", False),
        (
            errors.Refused("x", code="node_not_found", status=404, reason={"nodes": ["n1"]}),
            404,
            "node_not_found",
            True,
        ),
    ],
)
def test_an_error_of_the_node_keeps_its_doubt(
    error: errors.CoterieError, status: int, code: str, is_definite: bool
) -> None:
    """Definite or not is the node's word, never lost on the way."""
    problem = replies.from_error(error)
    assert (problem.status, problem.code, problem.definite) == (status, code, is_definite)
    assert problem.retryable == error.retryable


def test_json_and_cbor_say_the_same() -> None:
    """One document, two spellings; stored JSON is unpacked for CBOR."""
    import msgspec

    from cluster.gateway.sessions import Held, SessionView

    view = SessionView(
        "1-a", None, msgspec.Raw(b'{"host":"a"}'), 5, 4, 3, [Held("lock", "x", 9)], []
    )
    as_json = msgspec.json.decode(replies.encode(view, wants_cbor=False))
    as_cbor = cbor.decode(replies.encode(view, wants_cbor=True), max_bytes=1000)
    assert as_json == as_cbor
    assert as_json["meta"] == {"host": "a"}
