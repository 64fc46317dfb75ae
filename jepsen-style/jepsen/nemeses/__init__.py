"""Nemeses: every kind of harm by its name, and the schedules made of them.

RULE: says who there is; what a fault does stands in the module of its family, how faults follow one
another in `base`.

A nemesis is a fault alone ("kill-leader"), a family ("network": its faults in shuffled turns),
"mixed" (several families at once, overlapping), or "none".
"""

from __future__ import annotations

from collections.abc import Collection

from jepsen.nemeses import clients, clocks, disks, files, network, operations, processes
from jepsen.nemeses.base import Fault, Lanes, Nemesis, Scene
from jepsen.workloads.base import Arena

__all__ = ["FAMILIES", "FAULTS", "Nemesis", "NotHereError", "Scene", "make", "names"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for room in (network, processes, operations, clients, clocks, disks, files)
    for fault in room.FAULTS
}
FAMILIES: tuple[str, ...] = tuple(dict.fromkeys(fault.family for fault in FAULTS.values()))

# Those that stop and start nodes take turns in one lane; a lane of their own would only wait.
_NODE_FAMILIES = ("processes", "operations", "disks", "clocks", "files")


class NotHereError(Exception):
    """The machine lacks what a nemesis needs; the message says what to install."""


def names() -> list[str]:
    """All that `make` knows."""
    return ["none", "mixed", *FAMILIES, *FAULTS]


def make(name: str, *, equipment: Collection[str], arena: Arena | None = None) -> Lanes:
    """A nemesis for one run.

    Args:
        equipment: what can be loaded into nodes here: "shim", "faketime".
        arena: the clients' side.
    Raises:
        KeyError: there is none of that name.
        NotHereError: it was asked for by name and needs what is not here.
    """
    here = [fault for fault in FAULTS.values() if fault.needs <= set(equipment)]
    if name == "none":
        return Lanes(name, [], arena=arena)
    if name == "mixed":
        lanes = [
            [fault for fault in here if fault.family in _NODE_FAMILIES],
            [fault for fault in here if fault.family == network.FAMILY],
            [fault for fault in here if fault.family == clients.FAMILY],
        ]
        return Lanes(name, lanes, rest_s=(0.5, 5.0), arena=arena)
    if name in FAMILIES:
        asked = [fault for fault in FAULTS.values() if fault.family == name]
    else:
        asked = [FAULTS[name]]
    missing = sorted({need for fault in asked for need in fault.needs - set(equipment)})
    if missing:
        raise NotHereError(
            f'nemesis "{name}" needs {", ".join(missing)}: '
            + "; ".join(_CURES[need] for need in missing)
        )
    return Lanes(name, [asked], arena=arena)


_CURES = {
    "faketime": "install libfaketime (Debian: apt-get install libfaketime)",
    "shim": "install a C compiler (cc on PATH; Debian: apt-get install gcc libc6-dev)",
}
