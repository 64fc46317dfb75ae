"""Commands: values to bytes and back.

RULE: a command that leaves this module is whole: every field has its type, its range and its length.
On the wire it is a CBOR array whose first item is the command's number.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import reduce
from operator import attrgetter, or_
from typing import Any, cast

import msgspec

from cluster.machine import limits
from cluster.machine.commands import MACHINE_COMMANDS, Command
from cluster.wire import cbor
from cluster.wire.cbor import WireError

COMMAND_BYTES_MAX = 1024 * 1024 + 64 * 1024
"""Room for a KeepAliveMany of the largest size; every other command is far smaller."""

_DEPTH_MAX = 8

_KINDS: dict[int, type[Command]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]  # the tags of commands are integers
    for kind in MACHINE_COMMANDS
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Many at a time, msgspec tells their kinds apart itself; of one it would look at the union anew.
_Row: type[Any] = msgspec.defstruct(
    "_Row",
    [("commands", tuple[reduce(or_, MACHINE_COMMANDS), ...])],  # type: ignore[misc]
    frozen=True,
    array_like=True,
    forbid_unknown_fields=True,
)


def encode(command: Command) -> bytes:
    """Encode one command.

    Ranges are not looked at: the gateway has explained them to the client, and a command that
    slips through is answered Undecodable by every node alike.

    Raises:
        WireError: a text in it cannot be written as UTF-8, or a number does not fit 64 bits.
    """
    try:
        # Written here, as a call of the encoder for each command costs twice as much.
        parts = [_HEADS[type(command)]]
        for value in msgspec.structs.astuple(command):
            kind = type(value)
            if kind is str:
                text = value.encode()
                size = len(text)
                parts.append(_TEXT_HEADS[size] if size < 256 else _LONG_TEXT(0x7A, size))
                parts.append(text)
            elif kind is bool:
                parts.append(b"\xf5" if value else b"\xf4")
            elif kind is int and 0 <= value < 2**32:
                if value < 24:
                    parts.append(_SMALL[value])
                elif value < 256:
                    parts.append(_U8(0x18, value))
                elif value < 65536:
                    parts.append(_U16(0x19, value))
                else:
                    parts.append(_U32(0x1A, value))
            else:
                parts.append(cbor.encode(value))
        return b"".join(parts)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"{type(command).__name__} cannot be encoded: {error}") from error


def decode(data: bytes | memoryview) -> Command:
    """Decode one command.

    Raises:
        WireError: these bytes make no command this version knows. Nothing else is ever raised.
    """
    return _made(cbor.decode(data, max_bytes=COMMAND_BYTES_MAX, max_depth=_DEPTH_MAX))


def decode_each(bodies: Sequence[bytes]) -> list[Command | None]:
    """Decode many at a third of the price, each as if it stood alone; None for one that is bad."""
    if len(bodies) == 1:
        # One client at a time: a row of one costs more than it saves.
        try:
            return [decode(bodies[0])]
        except WireError:
            return [None]
    values = cbor.decode_each(bodies, max_bytes=COMMAND_BYTES_MAX, max_depth=_DEPTH_MAX)
    try:
        row = cbor.convert((values,), _Row)
        for command in row.commands:
            _check_texts(command)
        return list(row.commands)
    except WireError:
        # One bad one spoils the row: judge each alone.
        return [_made_or_none(value) for value in values]


def _made_or_none(value: object) -> Command | None:
    try:
        return _made(value)
    except WireError:
        return None


def _made(value: object) -> Command:
    if type(value) is not list or not value or type(value[0]) is not int:
        raise WireError("a command is an array that starts with its number")
    kind = _KINDS.get(value[0])
    if kind is None:
        raise WireError(f"no command has the number {value[0]}")
    command = cbor.convert(value, kind)
    _check_texts(command)
    return command


def _check_texts(command: Command) -> None:
    for get in _TEXTS[type(command)]:
        name = get(command)
        # Plain ASCII is nearly every name; the type has bounded its length already.
        if name is not None and not (name.isascii() and name.isprintable()):
            _check_text(name)
    if type(command) in _HAS_TEXTS_INSIDE:
        for name in command.texts_inside():
            _check_text(name)


def is_name(text: str) -> bool:
    """Whether a command can carry it as a name of something."""
    try:
        _check_text(text)
    except (WireError, UnicodeEncodeError):
        return False
    return 0 < len(text) <= limits.NAME_BYTES_MAX


def _check_text(name: str) -> None:
    if name.isascii() and name.isprintable():
        return
    if len(name.encode()) > limits.NAME_BYTES_MAX:
        raise WireError(f"a name of more than {limits.NAME_BYTES_MAX} bytes of UTF-8")
    if _CONTROL.search(name):
        raise WireError("control characters are not allowed in a name")


def _head_of(kind: type[Command]) -> bytes:
    number = cast(int, kind.__struct_config__.tag)
    return bytes([0x80 + 1 + len(kind.__struct_fields__)]) + cbor.encode(number)


_TEXTS: dict[type[Command], tuple[Callable[[Command], str | None], ...]] = {
    kind: tuple(attrgetter(field) for field in kind.texts) for kind in MACHINE_COMMANDS
}
_HAS_TEXTS_INSIDE = frozenset(
    kind for kind in MACHINE_COMMANDS if kind.texts_inside is not Command.texts_inside
)
_HEADS = {kind: _head_of(kind) for kind in MACHINE_COMMANDS}
_SMALL = [bytes([number]) for number in range(24)]
_TEXT_HEADS = [bytes([0x60 + n] if n < 24 else [0x78, n]) for n in range(256)]
_LONG_TEXT = struct.Struct(">BI").pack
_U8 = struct.Struct(">BB").pack
_U16 = struct.Struct(">BH").pack
_U32 = struct.Struct(">BI").pack
