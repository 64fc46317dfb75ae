"""Outcomes and pictures of semaphores.

RULE: values only; see `base.py`. Numbers 20 to 29.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
