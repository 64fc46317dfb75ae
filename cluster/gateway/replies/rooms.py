"""Answers about rooms.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cluster.gateway.replies.base import Reply
from cluster.machine.outcome import Outcome

REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {}
