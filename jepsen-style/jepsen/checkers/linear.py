"""K1: the answers about each thing are those of one thing, whose steps each lie within its request.

RULE: turns what `locks`, `semaphores` and `jobs` name into operations of `jepsen.models` and asks
`jepsen.linearizable`. Reads exactly the same fields as those.

A session's end is not answered to anybody: it is put in as an operation that may happen at any time
from the moment the session's TTL may be over, or from the moment its close was sent.
"""
