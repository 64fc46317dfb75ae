"""K6: a session is never ended early, is ended soon after its time, and takes all along at once.

RULE: early and late are judged by the clock of the clients, with the stated allowances.

| f | key | invoke | ok |
|---|---|---|---|
| `session.open` | "" | `ttl_ms` | `session`, `ttl_ms` |
| `session.keepalive` | session | – | `expires_in_ms`; ended: `code` `session_expired` or `session_not_found` |
| `session.keepalive_many` | "" | `sessions` | `alive: {id: expires_in_ms}`, `expired: [id]` |
| `session.close` | session | – | – |
| `session.read` | session | – | `session`, `expires_in_ms`, `holds: [{kind, name, token}]`; ended: `code` as above |

`task.work` with a `session` renews it as well. Any refusal `session_expired` (with its `session`, or
that of the request) says that a session had ended, and so does the fact `watch.event` of it (what
`expired` or `closed`, kind `session`); `lost` events of one entry are compared with it (K10's lines).
`lock.read`, `semaphore.read` and `ticket.read` must not show a session known to have ended.

Late: judged after the last `heal` only, and only of sessions that nobody may have renewed since.
"""
