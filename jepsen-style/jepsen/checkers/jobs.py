"""K7: no job is lost, early, with two workers at a time, or ended twice.

RULE: judges by what was put, reserved and ended for sure; bodies are unique in a history.

| f | key | invoke | ok |
|---|---|---|---|
| `job.put` | tube | `body` (unique), `delay_ms` (0), `ttr_ms` (60000), `key` | `job`; refused: `code` |
| `job.reserve` | tube | `wait_ms`, `limit`, `session` (optional) | `jobs: [{job, body, token}]` |
| `job.touch` | tube | `job`, `token` | – |
| `job.release` | tube | `job`, `token`, `delay_ms` (0) | – |
| `job.bury` | tube | `job`, `token` | – |
| `job.kick` | tube | `job` | `kicked` |
| `job.kick_tube` | tube | – | `kicked` |
| `job.delete` | tube | `job`, `token` | –; refused: `code` (`stale_token`, `job_not_found`) |
| `job.cancel` | tube | `job` | `cancelled` |
| `job.read` | tube | `job` | `job`, `state`, `body`; gone: `code` `job_not_found` |
| `job.list` | tube | – | `jobs: [{job, state, body}]`: every live job of the tube, all pages of all states |

Total queue: at the end, after draining, one `job.list` of each tube. A reservation by a worker that
hangs up while it waits may exist though nobody heard of it; it is over after its TTR. A session of a
reservation must be in the history. Jobs stay in their tube (no dead letters, or listed too).
"""
