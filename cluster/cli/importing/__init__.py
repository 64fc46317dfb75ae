"""`coterie import`: what other systems left on disk, written into a running cluster.

RULE: a source module reads files into wishes (`wishes.py`) and does no I/O beyond that; `carry.py`
alone talks to the cluster, by the same HTTP API as everybody. What the API cannot take is said, with
what would be needed.

Every request carries an Idempotency-Key made of what is imported. So an import that was interrupted
is simply run again, and adds nothing twice: for as long as the cluster remembers keys, which is a
day, and the last 200,000 of them.
"""

from cluster.cli.importing.commands import command

__all__ = ["command"]
