"""Tools that prepare a machine for the tests.

RULE: standard library only: they run before, or without, the environment they prepare.
"""
