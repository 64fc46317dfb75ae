"""Real clusters of real processes under faults, and a judgement of what their clients saw.

The words of the field (Kyle Kingsbury's Jepsen): a *workload* says what clients do, a *nemesis* what
goes wrong, the *history* what was asked and answered and when, a *checker* whether that was allowed.

RULE: stands outside the cluster. It uses processes, sockets, signals and files as an operator or a
client could, and of `cluster` only what a client may import.
"""
