"""Coterie: a Raft-replicated coordination cluster.

RULE: holds the version, and the names that users import; those are loaded when they are asked for.
`cluster.app` wires the rooms, `cluster.client` is for users.

    from cluster import Client, SyncClient, LockLost, fencing
"""

from __future__ import annotations

# Known by its name to whoever checks types; `typing` would take longer than all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import cluster.fencing as fencing  # noqa: PLR0402 - mypy follows this one only
    from cluster.client.aio import Client
    from cluster.client.sync import SyncClient
    from cluster.errors import CoterieError, Definite, Indefinite, LockLost, Refused

__all__ = [
    "Client",
    "CoterieError",
    "Definite",
    "Indefinite",
    "LockLost",
    "Refused",
    "SyncClient",
    "__version__",
    "fencing",
]

__version__ = "0.1.0"

_HOMES = {
    "Client": "cluster.client.aio",
    "SyncClient": "cluster.client.sync",
    "fencing": "cluster.fencing",
    "CoterieError": "cluster.errors",
    "Definite": "cluster.errors",
    "Indefinite": "cluster.errors",
    "LockLost": "cluster.errors",
    "Refused": "cluster.errors",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - most who import `cluster` need none of it

    module = import_module(home)
    found = module if home.endswith(f".{name}") else getattr(module, name)
    globals()[name] = found
    return found
