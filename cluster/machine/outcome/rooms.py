"""Outcomes and pictures of rooms.

RULE: values only; see `base.py`. Numbers 70 to 79.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
