"""disks."""

from __future__ import annotations

from jepsen.nemeses.base import Fault

FAMILY = "disks"

FAULTS: tuple[Fault, ...] = ()
