"""Queries, forms and paths as Go's net/url reads them, and whole numbers as strconv does.

RULE: texts in, values out, no I/O. Bytes that are no UTF-8 travel as Python's surrogates.
"""

from __future__ import annotations

import binascii
import re
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ATOI = re.compile(r"[+-]?[0-9]+")

# A parameter of a header, as package mime reads it: a word or a text in quotes.
_PARAMETER = re.compile(
    r'[ \t]*;[ \t]*([^ \t;="]++)=(?:"((?:[^"\\]++|\\.)*+)"|([^ \t;="]++))[ \t]*'
)
_ESCAPED = re.compile(r'\\([()<>@,;:\\"/\[\]?=])')

# net/url, validEncoded of a path.
_VALID_PATH = re.compile(r"[A-Za-z0-9\-_.~!$&'()*+,;=:@\[\]/%]*")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")

INT_MAX: Final = 2**63 - 1
INT_MIN: Final = -(2**63)

PAIRS_MAX: Final = 10_000
"""Of one query; the rest is not looked at."""

PARTS_MAX: Final = 1_000
"""Of one form, as Go has it; one with more is none."""


class BadEscape(ValueError):
    """A percent sign that is followed by no two hexadecimal digits."""


def unescape(text: str, *, plus_is_blank: bool = False) -> str:
    """Take percent escapes away.

    Raises:
        BadEscape: there is one that is none.
    """
    if plus_is_blank:
        text = text.replace("+", " ")
    if "%" not in text:
        return text
    if _BAD_ESCAPE.search(text):
        raise BadEscape(text)
    data = unquote_to_bytes(text.encode("utf-8", "surrogateescape"))
    return data.decode("utf-8", "surrogateescape")


def escape_path(path: str) -> str:
    """Percent-encode a path."""
    return quote_from_bytes(path.encode("utf-8", "surrogateescape"), safe="$&+,/:;=@")


def escape_beyond_ascii(text: str) -> str:
    """Percent-encode what no header can hold."""
    if text.isascii():
        return text
    data = text.encode("utf-8", "surrogateescape")
    return _BEYOND_ASCII.sub(lambda run: quote_from_bytes(run[0]).encode(), data).decode()


def escaped_path(raw_path: str, path: str) -> str:
    """URL.EscapedPath: the path as it came where that is a proper encoding, else encoded anew."""
    return raw_path if _VALID_PATH.fullmatch(raw_path) else escape_path(path)


def clean_path(path: str) -> str:
    """Shortest equal path: no doubled slashes, no dots; a slash at its end stays."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in {"", "."}:
            kept.append(part)
    cleaned = "/" + "/".join(kept)
    return cleaned + "/" if path.endswith("/") and cleaned != "/" else cleaned


def parse(query: str) -> dict[str, list[str]]:
    """All parameters, leaving out what Go leaves out: broken escapes, and semicolons."""
    found: dict[str, list[str]] = {}
    for pair in query.split("&", PAIRS_MAX)[:PAIRS_MAX]:
        if not pair or ";" in pair:
            continue
        name, _, value = pair.partition("=")
        try:
            name = unescape(name, plus_is_blank=True)
            value = unescape(value, plus_is_blank=True)
        except BadEscape:
            continue
        found.setdefault(name, []).append(value)
    return found


def first(found: dict[str, list[str]], name: str) -> str:
    """First value of a parameter; "" where there is none."""
    values = found.get(name)
    return values[0] if values else ""


def atoi(text: str) -> int | None:
    """strconv.Atoi: a decimal number of 64 bits with or without a sign; None for all else."""
    if len(text) > 100 or not _ATOI.fullmatch(text):
        return None
    number = int(text)
    return number if INT_MIN <= number <= INT_MAX else None


def is_form(content_type: str) -> bool:
    """It says that the body is a form like a query."""
    return _is_of(content_type, "application/x-www-form-urlencoded")


def is_multipart(content_type: str) -> bool:
    """It says that the body is a form in parts."""
    return _is_of(content_type, "multipart/form-data")


def parse_multipart(content_type: str, body: bytes) -> dict[str, list[str]]:
    """The values of a form in parts; files are left out, and so is all of a form that is none."""
    boundary = _parameters(content_type).get("boundary", "").encode("utf-8", "surrogateescape")
    if not boundary:
        return {}
    # What stands before the first boundary is nobody's; each takes the line end before it.
    _, *parts = (b"\r\n" + body).split(b"\r\n--" + boundary, PARTS_MAX + 1)
    found: dict[str, list[str]] = {}
    for part in parts:
        if part.startswith(b"--"):
            return found
        head, blank, data = part.partition(b"\r\n\r\n")
        blanks, *lines = head.split(b"\r\n")
        if not blank or blanks.strip(b" \t"):
            break
        headers: dict[str, str] = {}
        for line in reversed(lines):
            name, _, value = line.decode("utf-8", "surrogateescape").partition(":")
            headers[name.lower()] = value.strip()
        kind = headers.get("content-disposition", "")
        told = _parameters(kind) if _is_of(kind, "form-data") else {}
        if not told.get("name") or told.get("filename"):
            continue
        if headers.get("content-transfer-encoding", "").lower() == "quoted-printable":
            data = binascii.a2b_qp(data)
        found.setdefault(told["name"], []).append(data.decode("utf-8", "surrogateescape"))
    return {}


def _is_of(header: str, kind: str) -> bool:
    """What a header says before its parameters."""
    return header.partition(";")[0].strip().lower() == kind


def _parameters(header: str) -> dict[str, str]:
    """What a header says behind its first word; nothing where that is not well written."""
    header = header.rstrip("; \t")
    at = header.find(";")
    found: dict[str, str] = {}
    while 0 <= at < len(header):
        one = _PARAMETER.match(header, at)
        if one is None or one[1].lower() in found:
            return {}
        value = one[3] if one[2] is None else _ESCAPED.sub(r"\1", one[2])
        found[one[1].lower()] = value
        at = one.end()
    return found
