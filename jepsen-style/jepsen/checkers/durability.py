"""K12: what was acknowledged is there: a later read shows every effect that nobody could have undone.

RULE: only linearizable reads, and only effects that were sure for the whole of the read: granted
before it was asked, and not possibly given back, expired or revoked before it was answered.

Reads what `locks`, `semaphores`, `tickets`, `sessions`, `jobs`, `order`, `rooms` and `tasks` name:
`lock.read`, `semaphore.read`, `ticket.read`, `session.read`, `job.read`, `job.list`, `fifo.read`,
`room.read` (`joined`), `task.read`.
"""
