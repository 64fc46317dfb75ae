"""Jobs: put into tubes, reserved, done, given back or cancelled.

RULE: `jobs.py` decides, `stock.py` moves, `tubes.py` is what they are made of.
"""
