"""Benchmarks: Coterie beside etcd, on this machine, in the same run. See README.md.

RULE: measures and reports; asserts nothing about time. Only run.py prints results.
"""
