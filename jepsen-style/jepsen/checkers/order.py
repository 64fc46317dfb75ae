"""K5: turns come in the order in which one came; nobody overtakes; a position never grows.

RULE: A is before B only where that is sure: A was answered, or seen waiting, before B asked.

| f | key | invoke | ok |
|---|---|---|---|
| `fifo.make` | fifo | `wait_timeout_ms`, `accept_timeout_ms`, `done_timeout_ms` | – |
| `fifo.join` | fifo | – | `ticket`, `position`, `state` |
| `fifo.read` | fifo | `ticket` | `ticket`, `state`, `position`, `token`; gone: `code` |
| `fifo.wait` | fifo | `ticket`, `wait_ms` | `ticket`, `state`, `token`; refused: `code` (`not_your_turn`), `position` |
| `fifo.done` | fifo | `ticket`, `token` | – |
| `fifo.leave` | fifo | `ticket` | – |

`Turns()` judges fifos. `Waiters()` judges the queues of locks and semaphores: whoever was seen in
`waiters` of a `lock.read` or `semaphore.read` before another asked (at the same or a later priority)
is granted first, if that one request is granted at all. A request that was repeated (`attempts`, or
answered by another node than it was first sent to) may have lost its place and is not judged.
"""
