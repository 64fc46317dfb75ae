"""Checkers: one module for each row K of the checks, and the words they read.

RULE: what a history says, and what must be true of it. Each module names in its docstring exactly
the fields it reads; nothing else is looked at.

The vocabulary, common part. A workload records *what it asked* and *what it was answered*:

- `f` is `room.verb`, so that mixed runs stay clear: `lock.acquire`, `job.put`, `session.keepalive`.
- `key` is the name of the thing: lock, semaphore, resource, fifo, room, tube (also for what is done
  to one job), pool; for `session.*` the session's id (empty for `session.open`); for `watch.*` the
  stream's own name.
- `value` of an invoke: an object with the request's fields by their names in the API, durations as
  integers in `*_ms` (`wait_ms`, `ttl_ms`), the names in the path too (`job`, `ticket`). What is left
  out has the API's default. Two further members any request may have:
  `request_id`, the Idempotency-Key: operations that share it are attempts of one request and are
  judged together as one operation (K9 compares their answers);
  `consistency`: "stale" makes a read one that only K10 and K15 care for.
- `value` of an ok: the answer's JSON as it came, or at least the members named here. `attempts`
  (more than 1) where one operation hides several attempts: its place in a queue may have changed.
- Refusals that are answers ("held by another") may be an ok whose value is the problem document,
  with its `code`, or a fail with that code in `error` (and the problem as `value`, where it is
  known). Both are read the same. `no_leader`, `overloaded`, `unreachable` are plain fails.
- Facts are lines of no client: `process` below 0 (the runner's, the nemesis', watchers'), type
  `info`, in the order they were learned. `heal` is one: everything is mended and every node
  serves; what comes after the last `heal` is the calm in which K6 and K13 judge lateness.
- Settling: a workload ends with linearizable reads of all it has used (the `*.read`, `job.list`).

Sessions bind everything: `session.open`, `session.keepalive`, `session.keepalive_many`,
`session.close`, `session.read` are recorded by every workload that has any (fields in `sessions`).
A session that another part of the run opened, and that is not in the history, is never taken to be
alive for sure, so nothing that it holds can be judged.

Time: a holder holds *for sure* from the moment it was told to the first of: its own request to give
it back was sent; the session's close was sent; the last acknowledged renewal was *sent* longer ago
than its TTL. All of one monotonic clock. Where the nemesis changes the rate of nodes' monotonic clocks, its lines
(with "clock" in `f`) tell the `rate`, and checkers allow for the widest; their notes say so.

Who there is, each made without arguments (the allowances are keywords):

| row | module | classes |
|---|---|---|
| K1 | `linear` | `LinearLocks`, `LinearSemaphores`, `LinearJobs` |
| K2 | `locks` | `MutualExclusion`, `Tokens` |
| K3 | `fenced_store` | `FencedStore`, `UnfencedStore` (the control) |
| K4 | `semaphores`, `tickets`, `rooms` | `Capacity`, `Claims`, `Places` |
| K5 | `order` | `Turns`, `Waiters` |
| K6 | `sessions` | `Sessions` |
| K7 | `jobs` | `Jobs` |
| K8 | `tasks` | `Tasks` |
| K9 | `exactly_once` | `ExactlyOnce` |
| K10 | `streams` | `Streams` |
| K11 | `replicas` | `Replicas` (the runner's) |
| K12 | `durability` | `Durability` (every workload's) |
| K13 | `progress` | `Progress` (the runner's) |
| K15 | `hygiene`, `status` | `Hygiene`, `Status` (the runner's) |
"""
