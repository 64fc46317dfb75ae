"""Outcomes and pictures of fifos.

RULE: values only; see `base.py`. Numbers 50 to 69.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
