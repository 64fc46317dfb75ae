"""The client: what a program needs to talk to a cluster.

RULE: knows the HTTP document, never the node; of ours it imports `cluster.errors` only. What to
do next is decided in `core.py` and `lease.py`, which do no I/O and are given the time; the shells
(`aio.py`) only carry it out.
"""
