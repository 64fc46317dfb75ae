"""Does this token still stand? One question and one answer, for whatever is granted.

RULE: shapes only; each primitive compares.
"""

from __future__ import annotations

import msgspec

from cluster.gateway.replies import Token
from cluster.gateway.requests import Body


class CheckToken(Body, frozen=True):
    """Ask whether `token` still stands: its grant has neither ended nor been replaced."""

    token: Token


class TokenChecked(msgspec.Struct, frozen=True):
    """`valid`: a present grant has the token. `current_token`: the newest present grant's, if any."""

    valid: bool
    current_token: Token | None
