"""Outcomes and pictures of jobs.

RULE: values only; see `base.py`. Numbers 80 to 119.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
