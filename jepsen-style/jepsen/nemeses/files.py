"""files."""

from __future__ import annotations

from jepsen.nemeses.base import Fault

FAMILY = "files"

FAULTS: tuple[Fault, ...] = ()
