"""Locks: one at a time, shared, or several in one step."""
