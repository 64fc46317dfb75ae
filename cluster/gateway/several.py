"""Batches over HTTP: several commands in one entry.

RULE: JSON or CBOR to command, state to picture; what it does is decided in `machine/`.
"""

from __future__ import annotations

from cluster.gateway.routes import Route

ROUTES: tuple[Route, ...] = ()
