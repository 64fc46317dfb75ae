"""The router julienschmidt/httprouter 1.3.0 with its settings as they are by default.

RULE: paths in, handlers out. Patterns have literal segments, and `:name` for one that is not empty.
It matches the decoded path, so an escaped slash divides.
"""

from __future__ import annotations

from collections.abc import Iterable
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
    segments: tuple[str, ...]
    handler: Handler

    def match(self, path: str) -> dict[str, str] | None:
        segments = path.split("/")[1:]
        if len(segments) != len(self.segments):
            return None
        found: dict[str, str] = {}
        for wanted, segment in zip(self.segments, segments, strict=True):
            if wanted.startswith(":"):
                if not segment:
                    return None
                found[wanted[1:]] = segment
            elif wanted != segment:
                return None
        return found

    def corrected(self, path: str) -> str | None:
        """The path with our own letters' case, where it differs in that alone."""
        segments = path.split("/")[1:]
        if len(segments) != len(self.segments):
            return None
        kept: list[str] = []
        for wanted, segment in zip(self.segments, segments, strict=True):
            if wanted.startswith(":"):
                if not segment:
                    return None
                kept.append(segment)
            elif wanted.lower() == segment.lower():
                kept.append(wanted)
            else:
                return None
        return "/" + "/".join(kept)


class HttpRouter:
    """Sends each request to the handler of its method and path.

    Args:
        routes: method, pattern and handler. No pattern ends in a slash.
    """

    def __init__(self, routes: Iterable[tuple[str, str, Handler]]):
        self._trees: dict[str, list[_Pattern]] = {}
        for method, pattern, handler in routes:
            segments = tuple(pattern.split("/")[1:])
            self._trees.setdefault(method, []).append(_Pattern(segments, handler))

    async def serve(self, request: Request) -> Answer:
        """Answer one request."""
        method, path = request.method, request.path
        tree = self._trees.get(method)
        if tree is not None:
            for pattern in tree:
                found = pattern.match(path)
                if found is not None:
                    return await pattern.handler(request, found)
            elsewhere = self._elsewhere(tree, path)
            if elsewhere is not None:
                is_get = method == "GET"
                status = HTTPStatus.MOVED_PERMANENTLY if is_get else HTTPStatus.TEMPORARY_REDIRECT
                return redirect(request, elsewhere, status)
        allow = self._allowed(path, method)
        if not allow:
            return not_found()
        if method == "OPTIONS":
            return Answer(headers=(("Allow", allow),))
        return method_not_allowed(allow)

    def _elsewhere(self, tree: list[_Pattern], path: str) -> str | None:
        """Where a path leads that is wrong by a slash at its end, by case or by being unclean."""
        if path == "/":
            return None
        without = path.removesuffix("/")
        if without != path and any(pattern.match(without) is not None for pattern in tree):
            return without
        clean = queries.clean_path(path).removesuffix("/")
        if not clean:
            # Its tree takes the root for a path that lacks but a slash, whatever it holds.
            return "/"
        corrected = (pattern.corrected(clean) for pattern in tree)
        return next((found for found in corrected if found is not None), None)

    def _allowed(self, path: str, method: str) -> str:
        """Methods that the path has, but for the present one, and OPTIONS; "" where it has none."""
        if path == "*":
            found = set(self._trees)
        else:
            found = {
                other
                for other, tree in self._trees.items()
                if other not in {method, "OPTIONS"}
                and any(pattern.match(path) is not None for pattern in tree)
            }
        return ", ".join(sorted({*found, "OPTIONS"})) if found else ""
