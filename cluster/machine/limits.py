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

JOBS_MAX = 10_000_000
JOB_BYTES_MAX = 4 * 1024 * 1024 * 1024
"""Bodies of all jobs together: every node keeps them in memory."""

JOB_BODY_BYTES_MAX = 1024 * 1024
"""Of one job. The gateway allows less."""

JOB_KEY_LENGTH_MAX = 1024
JOB_LENGTH_MS_MAX = 2**42
"""Longest delay, TTR or pause: 139 years."""

JOB_TTR_MS_MIN = 1_000
"""As in beanstalkd, where a TTR of 0 is one second."""

TUBES_MAX = 100_000
TUBES_PER_RESERVE_MAX = 1_000
TUBES_PER_KEEP_MAX = 1_000
WAITERS_PER_TUBE_MAX = 10_000
JOBS_PER_RESERVE_MAX = 1_000
RESERVED_BYTES_MAX = 1024 * 1024
"""Bodies in one answer; a single job may be as large as a job may be."""

JOBS_PER_KICK_MAX = 10_000
JOBS_DUE_PER_ENTRY_MAX = 2_000
"""Delayed jobs become ready in steps of this size: those over it a millisecond late, so that no
entry pays for a million that are due at the same time."""

SEMAPHORES_MAX = 1_000_000
SEMAPHORE_LIMIT_MAX = 1_000_000_000
GRANTS_PER_SEMAPHORE_MAX = 100_000
WAITERS_PER_SEMAPHORE_MAX = 10_000

RESOURCES_MAX = 1_000_000
TICKETS_PER_RESOURCE_MAX = 10_000
"""Free ones are a plain list, as queues are."""

WAITERS_PER_RESOURCE_MAX = 10_000
TICKET_DATA_BYTES_MAX = 64 * 1024
TICKET_DATA_BYTES_TOTAL_MAX = 512 * 1024 * 1024
"""Over all tickets there are: the state has to fit into memory, and into a snapshot."""

POOLS_MAX = 100_000
TASKS_MAX = 1_000_000
"""Tasks of all pools together."""

TASKS_PER_POOL_MAX = 100_000
"""What concerns a whole pool (replacing its tasks, its end) must stay a short step."""

TASKS_PER_COMMAND_MAX = 10_000
TASKS_PER_WORKER_MAX = 1_000
"""What one session may hold of one pool: an answer names all of it, with its data."""

TASK_DATA_BYTES_MAX = 4 * 1024
WORKERS_PER_POOL_MAX = 10_000
RUNS_PER_TASK_MAX = 100
"""Of a task whose runs may overlap."""

SLOTS_DUE_PER_ENTRY_MAX = 2_000
"""As of delayed jobs: the others fire with the entries that follow at once."""

CRON_TEXT_MAX = 100
WALL_MS_MAX = 253_402_300_799_999
"""The end of the year 9999."""

ROOMS_MAX = 100_000
WINDOW_SIZE_MAX = 1_000_000_000
ACTIVE_WINDOWS_MAX = 1_000_000

ROOM_ETA_MS_MAX = 2**53 - 1
"""What is told at the most: a number that every reader of JSON can hold."""

LOCKS_PER_COMMAND_MAX = 100
MULTI_WAITS_PER_SESSION_MAX = 100
"""Waits of one session for several locks at once: each is looked at when it is given one."""

COMMANDS_PER_BATCH_MAX = 1_000
BATCH_ANSWER_BYTES_MAX = 32 * 1024 * 1024
"""Of the answer to one batch, by the most that each of its commands may be told: it is kept whole,
stands in one record of a snapshot, and is made in one turn of a loop."""

PARKED_MAX = 1_000_000
"""Requests that wait in any queue, over the whole cluster."""

EVENTS_KEPT_MAX = 50_000
"""For watchers that come back. No part of the state, so this one may differ between nodes."""

IDEMPOTENCY_KEYS_MAX = 200_000
IDEMPOTENCY_BYTES_MAX = 256 * 1024 * 1024
"""Answers to all keys together: those that gave jobs out have the bodies in them."""

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
