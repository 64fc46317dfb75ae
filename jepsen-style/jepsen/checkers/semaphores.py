"""K4: no more units are out than there are, and what is out and what is free make the limit.

RULE: judges what holders had for sure (see the package), and what reads say of themselves.

| f | key | invoke | ok |
|---|---|---|---|
| `semaphore.set` | name | `limit` | `limit` |
| `semaphore.acquire` | name | `session`, `units` (1), `wait_ms`, `priority` | `token`, `units`; refused: `code` |
| `semaphore.release` | name | `session`, `token` | – |
| `semaphore.read` | name | – | `limit`, `held`, `free`, `holders: [{session, token, units}]`, `waiters: [{session, units, priority}]` |
"""
