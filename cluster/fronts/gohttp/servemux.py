"""The router of Go's net/http, as of Go 1.22.

RULE: paths in, handlers out. Patterns are exact: literal segments, and `{name}` for one that is not
empty; patterns that end in a slash or in `...` are not known here, as no front has any.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from cluster.fronts.gohttp import queries
from cluster.fronts.gohttp.exchange import (
    Answer,
    Handler,
    Request,
    method_not_allowed,
    not_found,
    redirect,
)


class _Pattern(NamedTuple):
    method: str
    segments: tuple[str, ...]
    handler: Handler

    def takes(self, method: str) -> bool:
        return self.method in {"", method} or (self.method == "GET" and method == "HEAD")

    def match(self, segments: list[str]) -> dict[str, str] | None:
        if len(segments) != len(self.segments):
            return None
        found: dict[str, str] = {}
        for wanted, segment in zip(self.segments, segments, strict=True):
            if wanted.startswith("{"):
                # A segment that is an escaped slash alone is to Go the end of a path, and no name.
                if segment in {"", "/"}:
                    return None
                found[wanted[1:-1]] = segment
            elif wanted != segment:
                return None
        return found


class ServeMux:
    """Sends each request to the handler of its pattern.

    Args:
        patterns: `GET /path`, or without a method for all of them; the first that matches serves.
    """

    def __init__(self, patterns: Mapping[str, Handler] | Iterable[tuple[str, Handler]]):
        pairs = patterns.items() if isinstance(patterns, Mapping) else patterns
        self._patterns = [_pattern(text, handler) for text, handler in pairs]

    async def serve(self, request: Request) -> Answer:
        """Answer one request."""
        if request.path == "*":
            return Answer(HTTPStatus.BAD_REQUEST, closes=True)
        raw = queries.escaped_path(request.raw_path, request.path)
        path = queries.clean_path(raw)
        # Decoded by segments: an escaped slash does not divide.
        segments = [queries.unescape(segment) for segment in path.split("/")[1:]]
        allowed: set[str] = set()
        for pattern in self._patterns:
            found = pattern.match(segments)
            if found is None:
                continue
            if pattern.takes(request.method):
                if path != raw:
                    break
                return await pattern.handler(request, found)
            allowed.add(pattern.method)
            if pattern.method == "GET":
                allowed.add("HEAD")
        if path != raw:
            return redirect(request, path, HTTPStatus.MOVED_PERMANENTLY)
        if allowed:
            return method_not_allowed(", ".join(sorted(allowed)))
        return not_found()


def _pattern(text: str, handler: Handler) -> _Pattern:
    method, _, path = text.rpartition(" ")
    assert path.startswith("/"), text
    return _Pattern(method.strip(), tuple(path.split("/")[1:]), handler)
