"""Tasks: pools of work in fair shares, and their schedules.

RULE: `tasks.py` decides who does what, `slots.py` when; `pools.py` is what they are made of.
"""
