"""A member of the cluster, as plain objects that are given the time.

RULE: nothing here sleeps, but `driver.py`. The node joins machine, engine and its callers: it
numbers commands, brings them to the leader, applies what is committed and answers.
"""
