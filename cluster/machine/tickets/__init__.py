"""Tickets on resources: issued by some, claimed by others.

RULE: `tickets.py` decides, `resources.py` keeps.
"""
