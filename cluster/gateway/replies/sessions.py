"""Answers about sessions.

RULE: outcome to answer or problem, nothing else; see `base.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from cluster.gateway.replies.base import Answer, Ms, Reply, Token
from cluster.machine import outcome as outcomes
from cluster.machine.outcome import Outcome


class SessionOpened(msgspec.Struct, frozen=True):
    """A session, alive for `expires_in_ms` unless it is renewed."""

    session: str
    ttl_ms: Ms
    expires_in_ms: Ms
    token: Token


class SessionRenewed(msgspec.Struct, frozen=True):
    """The session was alive and lives on."""

    session: str
    expires_in_ms: Ms


class SessionsRenewed(msgspec.Struct, frozen=True):
    """Which of the sessions live on, and for how long; `expired` ones are ended or unknown."""

    alive: dict[str, Ms]
    expired: list[str]


def _opened(outcome: outcomes.Opened) -> Answer:
    body = SessionOpened(outcome.session, outcome.ttl_ms, outcome.ttl_ms, outcome.token)
    return Answer(201, body, outcome.token, f"/v1/sessions/{outcome.session}")


def _renewed(outcome: outcomes.Renewed) -> Answer:
    return Answer(200, SessionRenewed(outcome.session, outcome.expires_in_ms))


def _renewed_many(outcome: outcomes.RenewedMany) -> Answer:
    return Answer(200, SessionsRenewed(dict(outcome.alive), list(outcome.gone)))


def _closed(_outcome: outcomes.Closed) -> Answer:
    return Answer(204)


REASONS: Final[Mapping[str, type[msgspec.Struct]]] = {}

REPLIES: Final[Mapping[type[Outcome], Reply]] = {
    outcomes.Opened: _opened,
    outcomes.Renewed: _renewed,
    outcomes.RenewedMany: _renewed_many,
    outcomes.Closed: _closed,
}
