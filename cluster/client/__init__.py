"""The client: what a program needs to talk to a cluster. `from cluster import Client, SyncClient`.

RULE: knows the HTTP document, never the node; of ours it imports `cluster.errors` only, of others
aiohttp and msgspec. What to do next is decided without I/O, by values that are given the time:
`core.py` (one call: which node, again or not, what a failure means), `lease.py` (when to renew, what
may be relied on), `watching.py` (what a stream tells, and where to go on). The shells carry it out:
`aio.py` and its primitives for asyncio (`renewing.py`: many sessions, one renewal), `sync/` the same
words without it. `fencing.py` is for those who are written to.
"""
