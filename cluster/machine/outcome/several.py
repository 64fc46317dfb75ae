"""Outcomes and pictures of several.

RULE: values only; see `base.py`. Numbers 150 to 159.
"""

from __future__ import annotations

from cluster.machine.outcome.base import Outcome

OUTCOMES: tuple[type[Outcome], ...] = ()
