"""Plain requests told from all others by their first bytes, with a grammar stricter than HTTP's.

RULE: bytes in, values out, no I/O. A request is plain only where no two readers of HTTP could
disagree on what it says or where it ends; whatever else a client may send is not wrong but not
ours: it goes to aiohttp unread.
Standard: RFC 9112 (HTTP/1.1), sections 3, 5, 6 and 11.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import unquote

from cluster.gateway.requests import wants_cbor

HEAD_BYTES_MAX: Final = 4096
FIELDS_MAX: Final = 64
HEADS_KEPT_MAX: Final = 512

END: Final = b"\r\n\r\n"
"""What ends every head."""


class Head(NamedTuple):
    """What the header fields of a plain request say.

    Attributes:
        length: of the body, bytes.
        content_type: as it came, but None for what curl says of any body.
        cbor: the answer is wanted as CBOR.
        key: the Idempotency-Key.
        authorization: the header as it came.
    """

    length: int
    content_type: str | None
    cbor: bool
    key: str | None
    authorization: str | None = None

    @property
    def is_own(self) -> bool:
        """It is this client's, or even this request's own: not worth remembering."""
        return self.key is not None or self.authorization is not None


class PlainRequest(NamedTuple):
    """One plain request, found at the start of some bytes.

    Attributes:
        path, query: of the request line, still percent-encoded.
        body_at: where its body begins.
        size: where it ends; the bytes may end before.
    """

    method: str
    path: str
    query: str
    head: Head
    body_at: int
    size: int


class HeadReader:
    """Reads heads. Clients repeat themselves: the same fields are read once."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}

    def read(self, data: bytes, head_end: int) -> PlainRequest | None:
        """Return the request that `data` begins with; None where it is not plain.

        Args:
            head_end: where the first END is.
        """
        line_end = data.find(b"\r\n")
        line = _LINE.fullmatch(data, 0, line_end)
        if line is None or not 0 < head_end - line_end <= HEAD_BYTES_MAX:
            return None
        block = data[line_end + 2 : head_end]
        head = self._known.get(block) or self._learn(block)
        if head is None:
            return None
        method, path, query = line.groups(b"")
        body_at = head_end + len(END)
        return PlainRequest(
            method.decode(), path.decode(), query.decode(), head, body_at, body_at + head.length
        )

    def _learn(self, block: bytes) -> Head | None:
        head = read_fields(block)
        if head is not None and not head.is_own:
            if len(self._known) >= HEADS_KEPT_MAX:
                # Simpler than forgetting the oldest, and as good: the usual ones are back at once.
                self._known.clear()
            self._known[block] = head
        return head


def read_fields(block: bytes) -> Head | None:
    """Return what the header fields say; None where one of them is not plain.

    Args:
        block: all header lines, without the last line end.
    """
    fields: dict[bytes, str] = {}
    for line in block.split(b"\r\n"):
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name = field[1].lower()
        # A repeated field is read differently here and there, so none is plain.
        if name in fields or _ODD.fullmatch(name) or len(fields) == FIELDS_MAX:
            return None
        fields[name] = field[2].decode()
    length = fields.get(b"content-length", "0")
    if (
        b"host" not in fields
        or not _LENGTH.fullmatch(length)
        or fields.get(b"connection", "keep-alive").lower() != "keep-alive"
    ):
        return None
    content_type = body_type(fields.get(b"content-type"), has_origin=False)
    return Head(
        int(length),
        content_type,
        wants_cbor(fields.get(b"accept"), content_type),
        fields.get(b"idempotency-key"),
        fields.get(b"authorization"),
    )


def body_type(content_type: str | None, *, has_origin: bool) -> str | None:
    """Return the type that a body is read as.

    `curl -d` says of any body that it is a form. A page in a browser that posts a form to us across
    sites says the same, but always with its origin: that stays refused.
    """
    return None if content_type == _CURLS_DEFAULT and not has_origin else content_type


T = TypeVar("T")


class Paths(Generic[T]):
    """Finds what a method and a path lead to, where that is beyond doubt.

    Args:
        rows: method, path with names in braces, what it leads to.
    """

    __slots__ = ("_roots",)

    def __init__(self, rows: Iterable[tuple[str, str, T]]):
        self._roots: dict[str, _Branch[T]] = {}
        for method, path, leaf in rows:
            branch = self._roots.setdefault(method, _Branch())
            for segment in path.split("/"):
                name = None if segment.startswith("{") else segment
                branch = branch.below.setdefault(name, _Branch())
            branch.leaf = leaf

    def find(self, method: str, path: str) -> T | None:
        """Return what is there, or None: then it is for aiohttp's router to say.

        Args:
            path: as it came, still percent-encoded.
        """
        branch = self._roots.get(method)
        if branch is None or "/." in path:
            # Dots may mean another place to somebody on the way.
            return None
        for segment in path.split("/"):
            below = branch.below
            # A word of ours goes before a name, without a second try.
            branch = below.get(segment)
            if branch is None:
                branch = below.get(None)
                if branch is None:
                    return None
                # An encoded word may be the word to somebody, and a name to somebody else.
                if len(below) > 1 and "%" in segment and unquote(segment, "latin-1") in below:
                    return None
        return branch.leaf


class _Branch(Generic[T]):
    __slots__ = ("below", "leaf")

    def __init__(self) -> None:
        self.below: dict[str | None, _Branch[T]] = {}
        self.leaf: T | None = None


_CURLS_DEFAULT: Final = "application/x-www-form-urlencoded"
_LINE = re.compile(
    rb"(GET|POST|PUT|DELETE|HEAD|PATCH|OPTIONS)"
    rb" (/[A-Za-z0-9/%._~!$&'()*+,;=:@-]{0,2000})"
    rb"(?:\?([A-Za-z0-9/?%._~!$&'()*+,;=:@-]{0,2000}))? HTTP/1\.1"
)
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}): *([!-~](?:[ -~]*[!-~])?)")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,6}")
# What changes how a message is framed, answered or trusted.
_ODD = re.compile(
    rb"transfer-encoding|te|trailer|expect|upgrade|http2-settings|content-encoding|origin|cookie"
    rb"|keep-alive|proxy-.*|sec-.*"
)
