"""Outcomes and pictures of tickets.

RULE: values only; see `base.py`. Numbers 40 to 49.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
