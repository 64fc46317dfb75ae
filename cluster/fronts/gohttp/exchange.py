"""Requests as Go's handlers see them, and what they are answered.

RULE: values and their makers; no I/O but through the request's own body.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final, TypeAlias

from cluster.fronts.gohttp import documents, queries

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"

FORM_BYTES_MAX: Final = 1024 * 1024
"""Of a form; Go would take ten times that, of which no client of ours makes use."""


class BodyTooLarge(Exception):
    """The body is longer than the handler takes."""


class BodyBroken(Exception):
    """The body does not end as its head says, or is not encoded as it says."""


ReadBody: TypeAlias = Callable[[int], Awaitable[bytes]]
"""Reads at most so many bytes. Raises BodyTooLarge, BodyBroken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request.

    Texts may hold bytes that are no UTF-8, as Python's surrogates (`os.fsdecode`'s way).

    Attributes:
        path: percent-decoded.
        raw_path: as it came.
        raw_query: as it came, without the question mark; "" where there is none.
        headers: names in any case, first value of each.
        peer: the client's address and port, as Go's RemoteAddr.
        read_body: see `body`.
    """

    method: str
    path: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]
    peer: str
    read_body: ReadBody

    def query(self, name: str) -> str:
        """First value of a parameter of the query; "" where there is none."""
        return queries.first(queries.parse(self.raw_query), name)

    async def body(self, most: int) -> bytes:
        """The whole body.

        Raises:
            BodyTooLarge: it has more bytes than `most`. Answer with `closes`, as Go does.
            BodyBroken: it is not whole.
        """
        return await self.read_body(most)

    async def form(self) -> dict[str, list[str]]:
        """Parameters of a form in the body, then those of the query, as FormValue looks at them.

        A body that cannot be read is as good as none.
        """
        kind = self.headers.get("Content-Type", "")
        found: dict[str, list[str]] = {}
        try:
            if queries.is_multipart(kind):
                found = queries.parse_multipart(kind, await self.body(FORM_BYTES_MAX))
            elif queries.is_form(kind) and self.method in {"POST", "PUT", "PATCH"}:
                body = await self.body(FORM_BYTES_MAX)
                found = queries.parse(body.decode("utf-8", "surrogateescape"))
        except (BodyTooLarge, BodyBroken):
            found = {}
        asked = queries.parse(self.raw_query)
        if queries.is_multipart(kind):
            # ParseMultipartForm puts what it finds behind what the query has.
            return {name: asked.get(name, []) + found.get(name, []) for name in {**asked, **found}}
        return {name: found.get(name, []) + asked.get(name, []) for name in {**found, **asked}}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; the length and the date are added where it is written.

    Attributes:
        closes: the connection ends with it.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    closes: bool = False

    def with_header(self, name: str, value: str) -> Answer:
        """The same with one header more."""
        return replace(self, headers=(*self.headers, (name, value)))


Handler: TypeAlias = Callable[[Request, Mapping[str, str]], Awaitable[Answer]]
"""Answers one request, given what its path's parameters are."""

Serve: TypeAlias = Callable[[Request], Awaitable[Answer]]
"""Answers any request: what a router is."""


def error(text: str, status: int, *, closes: bool = False) -> Answer:
    """http.Error: a line of text."""
    return Answer(
        status,
        text.encode("utf-8", "surrogateescape") + b"\n",
        (("Content-Type", TEXT), ("X-Content-Type-Options", "nosniff")),
        closes,
    )


def text(body: str, status: int = 200) -> Answer:
    """A text written without naming its type, which Go guesses."""
    return Answer(status, body.encode("utf-8", "surrogateescape"), (("Content-Type", TEXT),))


def document(value: object, status: int = 200) -> Answer:
    """A JSON document, as an Encoder writes it: with a newline."""
    return encoded(documents.encode(value), status)


def encoded(value: bytes, status: int = 200) -> Answer:
    """The same, of JSON that was written already."""
    return Answer(status, value + b"\n", (("Content-Type", JSON),))


def not_found() -> Answer:
    """http.NotFound."""
    return error("404 page not found", HTTPStatus.NOT_FOUND)


def method_not_allowed(allow: str) -> Answer:
    """What both routers say of a path that other methods have."""
    return error("Method Not Allowed", HTTPStatus.METHOD_NOT_ALLOWED).with_header("Allow", allow)


def redirect(request: Request, path: str, status: int) -> Answer:
    """http.Redirect to another path, with the query as it was.

    Args:
        path: percent-decoded.
    """
    url = queries.clean_path(queries.escape_path(path))
    if request.raw_query:
        url += f"?{request.raw_query}"
    url = queries.escape_beyond_ascii(url)
    answer = Answer(status, headers=(("Location", url),))
    if request.method not in {"GET", "HEAD"}:
        return answer
    answer = replace(answer, headers=(("Content-Type", HTML), *answer.headers))
    if request.method == "HEAD":
        return answer
    # As Go's own replacer: these five, quotes as numbers.
    shown = html.escape(url, quote=False).replace('"', "&#34;").replace("'", "&#39;")
    page = f'<a href="{shown}">{HTTPStatus(status).phrase}</a>.\n\n'
    return replace(answer, body=page.encode())
