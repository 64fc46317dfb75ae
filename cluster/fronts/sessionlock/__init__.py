"""go-session-lock: its five database functions over our tasks.

RULE: `calls.py` is what the functions do; `http.py` and `cluster/fronts/postgres` are two ways to
call them.
"""
