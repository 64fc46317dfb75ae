"""Tests over real sockets and real processes.

RULE: loopback and ephemeral ports only; what a test starts ends with it.
"""
