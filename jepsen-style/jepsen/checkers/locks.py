"""K2: a lock has one holder or several sharers; tokens rise for ever and none comes twice.

RULE: judges what holders knew for sure (see the package), and the order of tokens; nothing else.

Reads, besides `session.*`:

| f | key | invoke | ok |
|---|---|---|---|
| `lock.acquire` | lock | `session`, `mode` (exclusive), `wait_ms` (0), `priority` (0) | `token`, `mode`; refused: `code`, `holder_token` |
| `lock.release` | lock | `session`, `token` | – |
| `lock.check` | lock | `token` | `valid`, `current_token` |
| `lock.read` | lock | – | `holders: [{session, token, mode}]`, `waiters: [{session, mode, priority}]` in order |
| `lock.acquire_many` | "" | `session`, `locks: [{name, mode}]`, `wait_ms` | `locks: [{name, token, mode}]` |
| `lock.release_many` | "" | `session`, `locks: [{name, token}]` | – |

Tokens are the cluster's: those of semaphores, tickets, turns, reservations and runs are looked at
too for being given twice (`token` of `semaphore.acquire`, `ticket.claim`, `fifo.wait`, each job of
`job.reserve`, each task of `task.work`).
"""
