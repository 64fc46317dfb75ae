"""Fencing: the receiver of what is written under a lock refuses tokens that are too old.

RULE: knows tokens and numbers of its own; asks no cluster.
"""
