"""clocks."""

from __future__ import annotations

from jepsen.nemeses.base import Fault

FAMILY = "clocks"

FAULTS: tuple[Fault, ...] = ()
