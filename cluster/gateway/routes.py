"""Routes as values: what may be called, with what, and what comes back.

RULE: a table and nothing else. The same rows register the handlers (`server.py`) and make the
OpenAPI document (`openapi.py`), so that the two cannot drift apart.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import msgspec

from cluster.gateway.matching import Filter
from cluster.gateway.passes import Passes
from cluster.gateway.replies import CLUSTER_CODES, COMMON_CODES, Answer
from cluster.gateway.requests import CONSISTENCY, Ask, Body, Nothing, Query, path_segment
from cluster.machine.commands import Command
from cluster.machine.machine import Machine
from cluster.node.face import NodeFace

BODY_BYTES_MAX = 64 * 1024
"""Default bound of a body; a route of large bodies sets its own, up to BODY_BYTES_LIMIT."""

BODY_BYTES_LIMIT = 1024 * 1024


class Lane(IntEnum):
    """Whose limit of requests in progress a request counts against."""

    ORDINARY = 0
    WAIT = 1
    KEEPALIVE = 2
    FREE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table; the kinds of rows below say what is done.

    Attributes:
        method: HTTP method in capitals.
        path: with names in braces; each stands for one whole segment.
        summary: one sentence for people.
        tag: heading in the document.
        body: Struct of the body.
        answer: Struct of the successful answer; None for an empty or non-JSON one.
        status: of the successful answer.
        also: further statuses that a success may have, with the same body.
        codes: problem codes beside those that every route has.
        query: its query parameters.
        lane: whose limit it counts against.
        body_bytes_max: longer bodies are refused.
        ignores_query: whatever stands in it, as probes and scrapers bring their own.
    """

    method: str
    path: str
    summary: str
    tag: str
    body: type[Body] = Nothing
    answer: type[msgspec.Struct] | None = None
    status: int = 200
    also: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    query: tuple[Query, ...] = ()
    lane: Lane = Lane.ORDINARY
    body_bytes_max: int = BODY_BYTES_MAX
    ignores_query: bool = False

    @property
    def operation(self) -> str:
        """Its name where method and path are no name: `post_locks_name_acquire`."""
        words = re.findall(r"\w+", self.path.removeprefix("/v1"))
        return "_".join((self.method.lower(), *words))

    @property
    def all_codes(self) -> tuple[str, ...]:
        """Every problem code this route can answer with, in order of the table."""
        return (*COMMON_CODES, *self.codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write(Route):
    """A replicated command. May carry an Idempotency-Key.

    Attributes:
        command: makes the command from the request, the same for the same request.
        seal: adds what is drawn by lot (a session's nonce), after the fingerprint is taken.
        issue: adds to the successful answer what only a node can sign.
    """

    command: Callable[[Ask], Command]
    seal: Callable[[Command], Command] | None = None
    issue: Callable[[Answer, Passes], Answer] | None = None

    @property
    def all_codes(self) -> tuple[str, ...]:
        return (
            *COMMON_CODES,
            *CLUSTER_CODES,
            "idempotency_key_reused",
            *self.codes,
        )


@dataclass(frozen=True, slots=True)
class Look:
    """What a read may look at: the local state, the estimate of cluster time now, and the keys."""

    machine: Machine
    now_ms: int
    passes: Passes


View: TypeAlias = Callable[[Look, Ask], msgspec.Struct]


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Route):
    """A look at the state, linearizable unless the client asks for `consistency=stale`.

    Attributes:
        view: makes the answer's body from the local state, without waiting.
        wants_pass: the header Authorization is to hold a pass.
    """

    view: View
    wants_pass: bool = False

    @property
    def all_codes(self) -> tuple[str, ...]:
        return (*COMMON_CODES, *CLUSTER_CODES, *self.codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Local(Route):
    """Answered by this node alone, or by asking its node something else than a command.

    Attributes:
        act: makes the answer; `status()` of the node is as far as most of these look.
    """

    act: Callable[[NodeFace, Ask], Awaitable[Answer]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream(Route):
    """Events as they come, linearizable from the start unless the client says otherwise.

    Attributes:
        wanted: makes of the request what is told.
        position: makes of the request, and of its Last-Event-ID, where it begins.
    """

    wanted: Callable[[Ask], Filter]
    position: Callable[[Ask, str | None], int | None]

    @property
    def all_codes(self) -> tuple[str, ...]:
        return (*COMMON_CODES, *CLUSTER_CODES, "shutting_down", *self.codes)


def read_query(*query: Query) -> tuple[Query, ...]:
    """Return the parameters of a read: the given ones and the consistency that all reads have."""
    return (*query, CONSISTENCY)


class PathReader:
    """Takes the names out of the path of one route.

    The router has matched the path, but it decodes leniently: a segment that is not UTF-8 would
    stay encoded, so that two different paths would name one lock. So we decode ourselves.
    """

    __slots__ = ("_places",)

    def __init__(self, path: str):
        self._places = [
            (index, segment[1:-1])
            for index, segment in enumerate(path.split("/"))
            if segment.startswith("{")
        ]

    def read(self, raw_path: str) -> Mapping[str, str]:
        """Return the decoded names.

        Args:
            raw_path: path of the request line without its query, still percent-encoded.

        Raises:
            Problem: a segment is not percent-encoded UTF-8.
        """
        if not self._places:
            return _NO_NAMES
        segments = raw_path.split("/")
        if "%" not in raw_path and raw_path.isascii():
            return {field: segments[index] for index, field in self._places}
        return {field: path_segment(segments[index], field) for index, field in self._places}


def matching(path: str) -> str:
    """Return the path as the router wants it: a name is any text without a slash, even none."""
    return re.sub(r"\{(\w+)\}", r"{\1:[^/]*}", path)


_NO_NAMES: Mapping[str, str] = {}
