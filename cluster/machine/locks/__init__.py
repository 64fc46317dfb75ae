"""Locks: one at a time, shared, or several in one step.

RULE: one book of records, kept by `book.py`; single locks and several at once both write into it.
"""
