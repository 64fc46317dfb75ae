"""Coterie: a Raft-replicated coordination cluster.

RULE: holds the version and nothing else. `cluster.app` wires the rooms, `cluster.client` is for users.
"""

__version__ = "0.1.0"
