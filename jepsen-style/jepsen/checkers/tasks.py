"""K8: a task has one worker at a time, shares differ by one at most, slots come as their policy says.

RULE: judges runs that workers had for sure, and what reads of a pool say of themselves.

| f | key | invoke | ok |
|---|---|---|---|
| `task.put` | pool | `tasks: [{id, data, schedule: {every_ms, start_ms, overlap, catchup_window_ms}}]`, `give_back`, `cap` | – |
| `task.work` | pool | `session`, `limit`, `wait_ms` | `share`, `tasks: [{id, token, slot_ms}]`, `given_back: [{id, token}]` |
| `task.finish` | pool | `session`, `tasks: [{id, token}]` | `finished: [id]`, `refused` |
| `task.release` | pool | `session`, `tasks: [{id, token}]` | `released: [id]`, `refused` |
| `task.leave` | pool | `session` | – |
| `task.remove` | pool | `id` | – |
| `task.read` | pool | – | `share`, `sessions: [{session, held, share}]`, `task_count`, `run_count`, `free_count`, `tasks: [{id, state, holder, token, runs: [{slot_ms, holder, token}], fired, skipped, missed, schedule}]` |

The pool's `Work` answers all that the session holds, not only what is new. One session uses a pool
from one process at a time. `slot_ms` is wall time of the schedule.
"""
