"""The zoo: bugs that we planted ourselves, and who finds them.

RULE: production code has no switches. A bug is a patch of classes of `cluster`, applied from outside
for the time of a run: around a simulated cluster, or in a node's process before its entry point is
called (`serve.py`, which refuses to without COTERIE_ZOO=1). Each names the check that must find it;
a bug that nothing finds is a check or a fault that is missing.

`species.py` says what a plant is; `engine.py`, `node.py`, `machine.py`, `primitives.py` hold the
bugs by layer; `registry.py` has them all; `hunt.py` looks for them, and looks again without the bug;
`python -m jepsen.zoo` does so for all and writes the table.
"""
