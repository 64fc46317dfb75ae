"""Replication: the log, the votes and the snapshots, on disk and between the nodes.

RULE: moves bytes, does not read them. What a command means is the machine's business.
"""
