"""Other systems' protocols, spoken to the letter, over the cluster's own primitives.

RULE: foreign words in, our commands out; no semantics of their own beyond what their clients can
see: texts, codes, units, defaults. A front holds no state that another node would need.

One module or package per system, each with its sources named at its top; `registry.py` is the table
of them. What all share: `front.py` (what a front is and what it is given), `desk.py` (asking the
node, patiently), `tcp.py` (connections), `leases.py` (what goes back when a client or its
node goes), `gohttp/` (how Go's HTTP servers answer).
"""
