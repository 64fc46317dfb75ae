"""Limits of the machine, in one place.

RULE: constants. They are part of the law of the log: two nodes with other numbers would give other
answers to the same entry, so changing one is a change of the log's format.
"""

from __future__ import annotations

SESSIONS_MAX = 1_000_000
LOCKS_MAX = 1_000_000

OWNED_PER_SESSION_MAX = 100_000
"""What one session may hold and wait for, together: its end must stay a short step."""

WAITERS_PER_LOCK_MAX = 10_000
"""A queue is a plain list: moving this many pointers costs less than a tree would."""

FIFOS_MAX = 100_000
TICKETS_PER_FIFO_MAX = 100_000
"""A fifo that is destroyed takes its tickets along, which must stay a short step."""

FIFO_TICKETS_MAX = 1_000_000
"""Tickets of all fifos together."""

HOLDS_KEPT_MAX = 32
HOLDS_WEIGHED = 8
"""Of each fifo: how many hold times are remembered, and how many count in the mean."""

PARKED_MAX = 1_000_000
"""Requests that wait in any queue, over the whole cluster."""

EVENTS_KEPT_MAX = 50_000
"""For watchers that come back. No part of the state, so this one may differ between nodes."""

IDEMPOTENCY_KEYS_MAX = 200_000
IDEMPOTENCY_KEY_MS = 24 * 60 * 60 * 1000
"""How long (cluster time) the answer to an Idempotency-Key is remembered, counted from it."""

KEYS_FORGOTTEN_PER_ENTRY_MAX = 1_000
"""Keys over their time leave in steps of this size, so that no entry pays for a whole day."""

SESSIONS_PER_KEEPALIVE_MAX = 10_000

LENGTH_MS_MAX = 10 * 366 * 24 * 60 * 60 * 1000
"""Longest TTL or wait a command can carry (ten years). The gateway allows far less."""

NAME_BYTES_MAX = 200
META_BYTES_MAX = 16 * 1024
"""Opaque text of a session. The gateway allows less."""

RECORDS_PER_ROW_MAX = 1_000
"""Records in one row of a snapshot."""
