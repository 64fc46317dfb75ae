"""Every code the API can answer with, and what it always means.

RULE: the only place that knows the status of a problem. Codes are stable: never rename one.
Standard: RFC 9110 (status codes), RFC 6585 (429, 431), RFC 9457.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Kind(NamedTuple):
    """What a problem's `code` always means."""

    status: int
    title: str
    retryable: bool
    definite: bool
    retry_after_s: int | None = None


KINDS: Final[Mapping[str, Kind]] = {
    "bad_request": Kind(400, "The request makes no sense", False, True),
    "pass_missing": Kind(401, "No pass was shown", False, True),
    "pass_invalid": Kind(401, "The pass is not one of ours", False, True),
    "not_found": Kind(404, "No such path", False, True),
    "session_not_found": Kind(404, "No such session", False, True),
    "node_not_found": Kind(404, "No such node", False, True),
    "semaphore_not_found": Kind(404, "No such semaphore", False, True),
    "resource_not_found": Kind(404, "No such resource", False, True),
    "ticket_not_found": Kind(404, "No such ticket", False, True),
    "fifo_not_found": Kind(404, "No such fifo", False, True),
    "room_not_found": Kind(404, "No such waiting room", False, True),
    "job_not_found": Kind(404, "No such job", False, True),
    "pool_not_found": Kind(404, "No such pool", False, True),
    "task_not_found": Kind(404, "No such task", False, True),
    "method_not_allowed": Kind(405, "The path has no such method", False, True),
    "request_timeout": Kind(408, "The request came too slowly", True, True),
    "lock_held": Kind(409, "The lock is held", True, True),
    "semaphore_full": Kind(409, "The semaphore has not enough units free", True, True),
    "semaphore_too_small": Kind(409, "The semaphore has not so many units", False, True),
    "semaphore_in_use": Kind(409, "The semaphore is held or waited for", True, True),
    "no_ticket_free": Kind(409, "No ticket is free", True, True),
    "wrong_kind": Kind(409, "The resource is of the other kind", False, True),
    "not_issuer": Kind(409, "Another session issued it", False, True),
    "fifo_exists": Kind(409, "There is such a fifo, with other settings", False, True),
    "fifo_in_use": Kind(409, "Tickets are in the fifo", True, True),
    "not_your_turn": Kind(409, "Others are ahead", True, True),
    "not_accepted": Kind(409, "The turn was not accepted", False, True),
    "overrides_not_allowed": Kind(409, "The fifo allows no overrides", False, True),
    "duplicate_key": Kind(409, "A live job has this key", False, True),
    "not_reserved": Kind(409, "The job is not reserved", False, True),
    "job_reserved": Kind(409, "The job is reserved", True, True),
    "task_not_scheduled": Kind(409, "The task has no schedule", False, True),
    "batch_refused": Kind(409, "One of the commands would be refused", True, True),
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
SESSION_GONE: Final = ("session_not_found", "session_expired")
