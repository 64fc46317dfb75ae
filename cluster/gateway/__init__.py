"""The native API: HTTP in our own words.

RULE: JSON or CBOR to command, outcome to answer. Decides nothing that is replicated, keeps no state
of the cluster; one file per primitive, and status codes in `replies.py` only.
"""
