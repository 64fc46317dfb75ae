"""The state machine: a pure function of (state, entry).

RULE: no clock, no randomness, no I/O, no iteration over sets, integers for time and order. The
same log gives the same bytes on every node.
"""
