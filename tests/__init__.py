"""Tests of Coterie: a mirror of `cluster/`, the simulator, and integration with real processes.

RULE: holds nothing; it makes `tests` a package so that no other distribution's `tests` is found.
"""
