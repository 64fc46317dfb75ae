"""K10: what watchers are told is ordered, unique, gap-free, the same for all, and goes on.

RULE: compares streams with one another, and with what was acknowledged. All lines are facts
(`process` below 0, `info`), key is the stream's own name, unique for one watcher over all its
resumes, in the order in which it heard.

| f | value |
|---|---|
| `watch.ask` | `prefix: [..]`, `after` (what it sent as Last-Event-ID or `after`; null: the present), `node` |
| `watch.open` | `after`, `applied`: data of the `open` message |
| `watch.event` | the event's JSON as it came: `index`, `seq`, `what`, `path`, `kind`, `name`, `session`, `token`, … |
| `watch.bookmark` | `index`: an `id` that came without an event (heartbeat) |
| `watch.resync` | `lost_after`, `from`: what is between is said to be lost |
| `watch.end` | `why`: cut, bye, stopped |

`GET /v1/events` pages may be recorded as a stream too: `watch.ask`, its events, and `next` as
`watch.bookmark` (`watch.resync` where `lost`).

The events of one entry have its `id` only with the last of them: a resume from an id repeats
nothing and leaves out nothing; one that was cut within an entry hears that entry again, whole. So
after a new `watch.open` events behind its `after` may come again; that is the only repetition.
Grants acknowledged in the history (`lock.acquire` with `token`) whose entry a stream covers from
before they were asked to after their answer must be among its events (needs `index`, the
Coterie-Index of the answer, in the ok's value).
"""
