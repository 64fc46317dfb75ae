"""K1: the answers about each lock are those of one lock, whose steps each lie within its request.

RULE: turns what `locks` names into operations of the model `jepsen.models.locks` and asks
`jepsen.linearizable`. Reads exactly the same fields as `locks`.

A session's end is not answered to anybody: it is put in as an operation that may happen at any time
from the moment the session's TTL may be over, or from the moment its close was sent.
"""
