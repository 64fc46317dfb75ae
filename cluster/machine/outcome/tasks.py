"""Outcomes and pictures of tasks.

RULE: values only; see `base.py`. Numbers 120 to 149.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
