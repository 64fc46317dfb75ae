"""The same words without `async`: a thin shell over the asyncio client.

RULE: each call is one of the asyncio client's, run in a background thread; decides nothing.

    with SyncClient("http://n1:7101,http://n2:7102") as client:
        with client.session(ttl="10s") as session:
            with session.lock("orders", wait="30s") as lock:
                write(order, lock.token)

What differs: a thread cannot be cancelled. When something is lost, `on_state` is called (in the
background thread), every use of `token` raises `LockLost`, and so does leaving the `with`; long
work asks `lock.demand()` on its way. Sessions are renewed as long as the thread that opened them
lives. Everything may be used from any thread, and anew after a fork; what was held before the fork
is the parent's, and lost to the child.
"""

from cluster.client.sync.client import SyncClient
from cluster.client.sync.holdings import SyncSession

__all__ = ["SyncClient", "SyncSession"]
