"""Commands: values to bytes and back.

RULE: a command that leaves this module is whole: every field has its type, its range and its length.
On the wire it is a CBOR array whose first item is the command's number.
"""

from __future__ import annotations

import re

from cluster.machine import limits
from cluster.machine.commands import (
    MACHINE_COMMANDS,
    AcquireLock,
    Command,
    OpenSession,
    ReleaseLock,
)
from cluster.wire import cbor
from cluster.wire.cbor import WireError

COMMAND_BYTES_MAX = 1024 * 1024 + 64 * 1024
"""Room for a KeepAliveMany of the largest size; every other command is far smaller."""

_DEPTH_MAX = 4

_KINDS: dict[int, type[Command]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]  # the tags of commands are integers
    for kind in MACHINE_COMMANDS
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def encode(command: Command) -> bytes:
    """Encode one command.

    Ranges are not looked at: the gateway has explained them to the client, and a command that
    slips through is answered Undecodable by every node alike.

    Raises:
        WireError: a text in it cannot be written as UTF-8, or a number does not fit 64 bits.
    """
    try:
        return cbor.encode(command)
    except (TypeError, ValueError, OverflowError) as error:
        raise WireError(f"{type(command).__name__} cannot be encoded: {error}") from error


def decode(data: bytes | memoryview) -> Command:
    """Decode one command.

    Raises:
        WireError: these bytes make no command this version knows. Nothing else is ever raised.
    """
    value = cbor.decode(data, max_bytes=COMMAND_BYTES_MAX, max_depth=_DEPTH_MAX)
    if type(value) is not list or not value or type(value[0]) is not int:
        raise WireError("a command is an array that starts with its number")
    kind = _KINDS.get(value[0])
    if kind is None:
        raise WireError(f"no command has the number {value[0]}")
    command = cbor.convert(value, kind)
    if isinstance(command, (AcquireLock, ReleaseLock)):
        _check_name("name", command.name)
    elif isinstance(command, OpenSession):
        _check_name("nonce", command.nonce)
        if command.name is not None:
            _check_name("name", command.name)
    return command


def _check_name(field: str, name: str) -> None:
    # Plain ASCII is nearly every name; the type has bounded its length already.
    if name.isascii() and name.isprintable():
        return
    if len(name.encode()) > limits.NAME_BYTES_MAX:
        raise WireError(f"{field}: more than {limits.NAME_BYTES_MAX} bytes of UTF-8")
    if _CONTROL.search(name):
        raise WireError(f"{field}: control characters are not allowed")
