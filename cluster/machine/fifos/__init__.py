"""Fifos: turns in order, accepted in time.

RULE: `fifos.py` decides, the other modules are what it decides about.
"""
