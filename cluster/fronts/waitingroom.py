"""session-queue: a virtual waiting room, for its clients.

RULE: foreign words in, our commands out; what a room does is decided in `machine/rooms.py`. Here
are its routes, its texts and its tokens; wall time is printed, signed and compared, and decides
nothing that is replicated.
Source: its Go servers at 1f456c3; net/http's ServeMux; golang-jwt 5.3.0; RFC 7519.

All nodes serve one room, which the native API calls "session-queue". Whoever needs it first makes
it, from the settings of that node; from then on the room's own settings rule, so that no two nodes
can reckon differently. A node whose settings differ says so in its log, once, and how the room is
changed: `PUT /v1/rooms/session-queue`.

The token alone says which place it is. It is honoured by its signature and its times, as in the
original: also one that another server signed with the same secret, and so also after a move from
there. The native API's passes are others, and neither is taken for the other.

What is freed of its original: no store can forget the room or make a second step of the window; a
place is an exact integer; without a leader a request waits, and no status is guessed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

import structlog

from cluster.errors import CoterieError, ShuttingDown
from cluster.fronts.front import ServedFront, Surroundings
from cluster.fronts.gohttp.exchange import Answer, Request, document, error, text
from cluster.fronts.gohttp.servemux import ServeMux
from cluster.fronts.gohttp.server import GoServer
from cluster.machine import limits
from cluster.machine.commands.rooms import JoinRoom, SetRoom
from cluster.machine.outcome.rooms import (
    ACTIVE,
    EXPIRED,
    WAITING,
    RoomInfo,
    RoomJoined,
    RoomNotFound,
    RoomSet,
)
from cluster.node.config import Config

ROOM: Final = "session-queue"
CHECK_EVERY_MS: Final = 3_000
TOKEN_LIVES_S: Final = 3 * 3_600
TOKEN_CHARACTERS_MAX: Final = 8_190

_KEY_LABEL: Final = b"coterie session-queue tokens, version 1"
_INT_MAX: Final = 2**63 - 1
_INT_MIN: Final = -(2**63)
_PART = re.compile(r"[A-Za-z0-9_-]*")
_HEADER: Final = b'{"alg":"HS256","typ":"JWT"}'

_INVALID = error("invalid token", 400)
_log = structlog.get_logger("cluster.fronts")


class TokenInvalid(Exception):
    """Whatever is wrong with it: clients are told no more."""


def make(config: Config, surroundings: Surroundings) -> WaitingRoomFront:
    """Make the front of a node's settings."""
    given = config.front_session_queue_secret.encode()
    return WaitingRoomFront(
        surroundings,
        key=given or derived_key(config.secret.encode()),
        settings=SetRoom(
            ROOM,
            config.front_session_queue_size,
            # The original takes 0, of which its checks make what any short one is.
            min(max(1, config.front_session_queue_interval_ms), limits.LENGTH_MS_MAX),
            min(config.front_session_queue_active, limits.ACTIVE_WINDOWS_MAX),
            check_every_ms=CHECK_EVERY_MS,
            only_new=True,
        ),
    )


class WaitingRoomFront(ServedFront):
    """Serves its clients on every node.

    Args:
        key: signs tokens, on every node the same.
        settings: what makes the room where there is none.
    """

    def __init__(self, surroundings: Surroundings, *, key: bytes, settings: SetRoom):
        self._node = surroundings.node
        self._desk = surroundings.desk
        self._wall_ms: Callable[[], int] = surroundings.wall_ms
        self._key = key
        self._settings = settings
        self._is_compared = False
        mux = ServeMux(
            {
                "POST /join": self._join,
                "/status": self._status,
                "/livez": self._livez,
                "/readyz": self._readyz,
            }
        )
        self._server = GoServer(ROOM, mux.serve)

    # Handlers.

    async def _join(self, _: Request, __: Mapping[str, str]) -> Answer:
        try:
            outcome = await self._desk.ask(JoinRoom(ROOM))
            if isinstance(outcome, RoomNotFound):
                await self._made()
                outcome = await self._desk.ask(JoinRoom(ROOM))
        except CoterieError as failed:
            return _failed(failed, "failed to issue token", 500)
        if not isinstance(outcome, RoomJoined):
            return error("failed to issue token", 500)
        self._compare(self._info())
        return document({"token": issue(outcome.position, self._wall_ms() // 1000, self._key)})

    async def _status(self, request: Request, _: Mapping[str, str]) -> Answer:
        shown = request.headers.get("Authorization", "")
        if not shown:
            return error("missing Authorization header", 400)
        try:
            position = verify(
                shown.removeprefix("Bearer").strip(), self._key, now_ms=self._wall_ms()
            )
        except TokenInvalid:
            return _INVALID
        try:
            await self._desk.read()
            info = self._info()
            if info is None:
                await self._made()
                info = self._info()
        except CoterieError as failed:
            return _failed(failed, "Redis not ready", 503)
        if info is None:
            return error("Redis not ready", 503)
        self._compare(info)
        return document({"position": position, "status": status_of(position, info)})

    async def _livez(self, _: Request, __: Mapping[str, str]) -> Answer:
        return text("ok")

    async def _readyz(self, _: Request, __: Mapping[str, str]) -> Answer:
        # At once, and not by waiting for a leader: who asks wants to know whether there is one.
        return text("ok") if self._node.status().ready else error("Redis not ready", 503)

    # How it is done.

    def _info(self) -> RoomInfo | None:
        machine = self._desk.machine
        return machine.rooms.info(ROOM, machine.now_ms)

    async def _made(self) -> None:
        """Make the room, unless another has made it meanwhile.

        Raises:
            CoterieError: there is no answer.
        """
        made = await self._desk.ask(self._settings)
        if not isinstance(made, RoomSet):
            _log.error("no room can be made", front=ROOM, reason=str(made))

    def _compare(self, info: RoomInfo | None) -> None:
        """Say so, once, where the room's settings are not ours."""
        if self._is_compared or info is None:
            return
        self._is_compared = True
        ours = self._settings
        wanted = (ours.window_size, ours.window_interval_ms, ours.active_windows)
        rules = (info.window_size, info.window_interval_ms, info.active_windows)
        if wanted != rules:
            _log.warning(
                "the waiting room was made with other settings, and those rule; "
                f"to change them: PUT /v1/rooms/{ROOM}",
                front=ROOM,
                size=rules[0],
                interval_ms=rules[1],
                active=rules[2],
                configured_size=wanted[0],
                configured_interval_ms=wanted[1],
                configured_active=wanted[2],
            )


def status_of(position: int, info: RoomInfo) -> str:
    """What has become of a place, also of one that nobody was given."""
    if position > info.window_end:
        return WAITING
    behind = info.window_end - info.window_size * info.active_windows
    # The room remembers what has expired, whatever its settings become.
    is_expired = position <= behind or 1 <= position <= info.expired_to
    return EXPIRED if is_expired else ACTIVE


def derived_key(secret: bytes) -> bytes:
    """The key of a cluster that was given none: every node derives the same one.

    HKDF with SHA-256 (RFC 5869), without salt, of one block.
    """
    extracted = hmac.digest(bytes(hashlib.sha256().digest_size), secret, "sha256")
    return hmac.digest(extracted, _KEY_LABEL + b"\x01", "sha256")


def issue(position: int, now_s: int, key: bytes) -> str:
    """The token of a place, byte for byte as the original signs it.

    Args:
        now_s: seconds since 1970.
    """
    claims = f'{{"exp":{now_s + TOKEN_LIVES_S},"iat":{now_s},"sub":{position}}}'
    signed = b".".join((_encoded(_HEADER), _encoded(claims.encode())))
    return b".".join((signed, _encoded(hmac.digest(key, signed, "sha256")))).decode()


def verify(token: str, key: bytes, *, now_ms: int) -> int:
    """The place that a token gives.

    Args:
        now_ms: since 1970; there is no leeway.
    Raises:
        TokenInvalid: it is not signed with the key by HS256, not of now, or gives no place.
    """
    if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii() or token.count(".") != 2:
        raise TokenInvalid
    signed, _, mark = token.rpartition(".")
    head, _, body = signed.partition(".")
    if _object(_decoded(head)).get("alg") != "HS256":
        raise TokenInvalid
    if not hmac.compare_digest(hmac.digest(key, signed.encode(), "sha256"), _decoded(mark)):
        raise TokenInvalid
    claims = _object(_decoded(body))
    expires_s, begins_s = _time(claims, "exp"), _time(claims, "nbf")
    if expires_s is not None and now_ms >= expires_s * 1000:
        raise TokenInvalid
    if begins_s is not None and now_ms < begins_s * 1000:
        raise TokenInvalid
    place = claims.get("sub")
    if not _is_number(place):
        raise TokenInvalid
    return _whole(place)


def _time(claims: Mapping[str, Any], name: str) -> int | None:
    """A time in whole seconds; None where there is none, of which 0 is one way to say so."""
    if name not in claims:
        return None
    value = claims[name]
    if not _is_number(value):
        raise TokenInvalid
    # By way of a float, as all numbers are read there: what is next to 2^63 becomes it.
    return _whole(float(value)) if value else None


def _whole(number: int | float) -> int:
    """Its integer of 64 bits; one that none holds becomes the least, as the processors do it."""
    whole = int(number)
    return whole if _INT_MIN <= whole <= _INT_MAX else _INT_MIN


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _encoded(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _decoded(part: str) -> bytes:
    """Base64 of URLs without padding; bits too many at its end are not looked at."""
    if len(part) % 4 == 1 or not _PART.fullmatch(part):
        raise TokenInvalid
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _object(data: bytes) -> dict[str, Any]:
    """A JSON object as Go reads it into a map: the last of equal names counts."""
    try:
        value = json.loads(
            data.decode("utf-8", "replace"),
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError):
        raise TokenInvalid from None
    if not isinstance(value, dict):
        raise TokenInvalid
    return value


def _integer(text: str) -> int:
    _float(text)
    return int(text)


def _float(text: str) -> float:
    """A number, wherever it stands; Go takes none that no float holds."""
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is too large")
    return number


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _failed(failed: CoterieError, said: str, status: int) -> Answer:
    """What a client is told whom the cluster could not serve."""
    if isinstance(failed, ShuttingDown):
        # Cut, as a process that ends does: clients know what to make of that.
        raise failed
    return error(said, status)
