"""Passes: a place in a waiting room as a signed text that any node can check.

RULE: values to text and back, no I/O and no clock. The machine gave the place and said when; here
it is only signed, so that the same place always has the same pass.
Standard: RFC 7515 (compact JWS) and RFC 7519 (JWT), HS256 only; RFC 5869 (HKDF) for derived keys.

A pass has no end of its own: what has become of its place is the room's business.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeVar

import msgspec

PASS_BYTES_MAX: Final = 2048
KEY_LABEL: Final = b"coterie waiting room passes, version 1"

T = TypeVar("T")


class PassInvalid(Exception):
    """This is no pass of ours; the text says why, for people."""


class Pass(msgspec.Struct, frozen=True):
    """What a pass says; its fields are the claims, in the order in which they are signed.

    Attributes:
        iat: when the place was given, seconds since 1970.
        room: its name. made: the token of its making.
        sub: the place, as text, since the standard wants a text.
    """

    iat: int
    room: str
    made: int
    sub: Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,18}$")]

    @property
    def position(self) -> int:
        """The place."""
        return int(self.sub)


class Passes:
    """Signs with the first of its keys and believes in all: so keys are changed without a break."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Sequence[bytes]):
        if not keys:
            raise ValueError("passes need a key")
        self._keys = tuple(keys)

    def issue(self, room: str, made: int, position: int, wall_ms: int) -> str:
        """Return the pass of a place, the same for the same place."""
        claims = Pass(wall_ms // 1000, room, made, str(position))
        return sign(msgspec.json.encode(claims), self._keys[0])

    def read(self, text: str) -> Pass:
        """Return what a pass says.

        Raises:
            PassInvalid: it was not signed with a key of ours, or says something else.
        """
        return verify(text, self._keys, Pass)


def sign(claims: bytes, key: bytes) -> str:
    """Return a JWT of claims that are JSON already."""
    text = b".".join((_HEADER, _encoded(claims)))
    return b".".join((text, _encoded(_signature(text, key)))).decode()


def verify(text: str, keys: Sequence[bytes], kind: type[T]) -> T:
    """Return the claims of a JWT. Times in them are the caller's to judge.

    Raises:
        PassInvalid: none of the keys signed it, it is not HS256, or its claims are others.
    """
    if len(text) > PASS_BYTES_MAX or not text.isascii() or text.count(".") != 2:
        raise PassInvalid("it is no JWT")
    signed, _, mark = text.rpartition(".")
    head, _, claims = signed.partition(".")
    header = _json(_decoded(head), dict[str, Any])
    if header.get("alg") != "HS256" or "crit" in header:
        raise PassInvalid("it is not signed with HS256")
    signature = _decoded(mark)
    # All keys, whichever fits: how long it takes tells nothing.
    fits = [hmac.compare_digest(_signature(signed.encode(), key), signature) for key in keys]
    if not any(fits):
        raise PassInvalid("its signature is of none of our keys")
    return _json(_decoded(claims), kind)


def derived_key(secret: bytes) -> bytes:
    """Return the key of a cluster that was given none: every node derives the same one.

    HKDF with SHA-256, without salt, of one block.
    """
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, KEY_LABEL + b"\x01", "sha256")


def _signature(text: bytes, key: bytes) -> bytes:
    return hmac.digest(key, text, "sha256")


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _decoded(text: str) -> bytes:
    """Decode one part, which is spelled in one way only."""
    data = text.encode()
    try:
        decoded = urlsafe_b64decode(data + b"=" * (-len(data) % 4))
    except binascii.Error:
        raise PassInvalid("it is no JWT") from None
    if _encoded(decoded) != data:
        raise PassInvalid("it is no JWT")
    return decoded


def _json(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise PassInvalid("its claims are not those of a place") from None


_HEADER: Final = _encoded(b'{"alg":"HS256","typ":"JWT"}')
