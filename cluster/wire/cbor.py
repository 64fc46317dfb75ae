"""CBOR under limits: plain values to bytes and back.

RULE: the one module that calls cbor2. Bytes from outside are read with every door shut: size and
depth limits, no indefinite lengths, no repeated or exotic map keys, no tags, nothing behind the
first item. `decode` raises WireError and nothing else, whatever the bytes.

cbor2 is generous by default: tags build regular expressions and self-containing lists, trailing
bytes are ignored. Its `loads` cannot tell where it stopped, so we read through a stream.

Standard: RFC 8949.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import cbor2
import msgspec

T = TypeVar("T")

DEPTH_MAX = 16
"""Containers inside one another; ours nest five deep at most."""

_STRUCT_KIND = type(msgspec.Struct)
_DECODERS_KEPT_MAX = 8
_KEPT_BYTES_MAX = 64 * 1024

# Every tag cbor2 has a decoder of its own for; all others go to the tag hook.
_BUILT_IN_TAGS = (
    *range(6),
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)


class WireError(ValueError):
    """The bytes (or the values in them) are not what was agreed. The text says where and why."""


def encode(value: object) -> bytes:
    """Encode plain values (None, bool, int, str, bytes, list, tuple, dict) and msgspec Structs.

    Integers must lie within -2**64 .. 2**64-1: larger ones would need a tag, which `decode`
    refuses.
    """
    # By its class's class: isinstance asks every Struct in Python whether it is one.
    if isinstance(type(value), _STRUCT_KIND):
        value = msgspec.to_builtins(value, builtin_types=(bytes,))
    return cbor2.dumps(value, default=_encode_struct)


def decode(data: bytes | memoryview, *, max_bytes: int, max_depth: int = DEPTH_MAX) -> Any:
    """Decode exactly one item that fills `data`.

    What comes back is made of None, bool, int, str, bytes, list, dict (keys: str or bytes) and,
    where nobody looks further, float, `undefined` and other simple values: follow with `convert`
    (which refuses those in every typed field) or use `decode_plain`.

    Raises:
        WireError: too long, too deep, malformed, tagged, indefinite, repeated keys, or bytes left.
    """
    if len(data) > max_bytes:
        raise WireError(f"{len(data)} bytes are more than the {max_bytes} allowed here")
    stream = io.BytesIO(data)
    try:
        decoder = _borrow(max_depth)
        decoder.fp = stream
        value = decoder.decode()
    except Exception as error:  # noqa: BLE001 - bytes of strangers: whatever it is, say no
        raise WireError(f"no CBOR of ours: {_reason(error)}") from None
    if stream.tell() != len(data):
        raise WireError(f"{len(data) - stream.tell()} bytes follow the first CBOR item")
    _give_back(decoder, max_depth, len(data))
    return value


def decode_each(items: Sequence[bytes], *, max_bytes: int, max_depth: int = DEPTH_MAX) -> list[Any]:
    """Like `decode` of each, at half the price.

    Returns:
        as many values; a WireError stands where an item cannot be decoded.
    """
    try:
        return _decode_row(items, max_bytes, max_depth)
    except Exception:  # noqa: BLE001 - bytes of strangers: whatever it is, one spoils the row
        return [_value_or_error(item, max_bytes, max_depth) for item in items]


def decode_plain(data: bytes | memoryview, *, max_bytes: int, max_depth: int = DEPTH_MAX) -> Any:
    """Like `decode`, for values that no type checks afterwards (a client's free-form object).

    Raises:
        WireError: as `decode`, and for NaN, infinities, `undefined` and other simple values.
    """
    value = decode(data, max_bytes=max_bytes, max_depth=max_depth)
    _refuse_odd(value)
    return value


def convert(value: object, kind: type[T]) -> T:
    """Check plain values field by field and make a `kind` of them.

    Give a Struct: msgspec remembers what it found out about a class, but looks at a union or any
    other annotation anew at each call (some 5 us), so tell the members of a union apart first.

    Raises:
        WireError: says which field and why, as in "Expected `int`, got `str` - at `$[2]`".
    """
    try:
        # Without builtin_types a text would pass for bytes, read as base64.
        return msgspec.convert(value, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise WireError(str(error)) from None


def _decode_row(items: Sequence[bytes], max_bytes: int, max_depth: int) -> list[Any]:
    """Decode items that stand one behind the other; each must end where its bytes do."""
    stream = io.BytesIO(b"".join(items))
    decoder = _borrow(max_depth)
    decoder.fp = stream
    decode_next, tell = decoder.decode, stream.tell
    values: list[Any] = []
    end = 0
    for item in items:
        values.append(decode_next())
        end += len(item)
        if tell() != end or len(item) > max_bytes:
            raise WireError("an item is too long, or does not end with its bytes")
    _give_back(decoder, max_depth, end)
    return values


def _value_or_error(item: bytes, max_bytes: int, max_depth: int) -> Any:
    try:
        return decode(item, max_bytes=max_bytes, max_depth=max_depth)
    except WireError as error:
        return error


def _borrow(max_depth: int) -> cbor2.CBORDecoder:
    """A decoder that nobody else uses; making one costs as much as a small decode.

    One in use is in no list, so threads never share it. One that failed is not given back: it is
    dropped with what it had buffered.
    """
    kept = _decoders.get(max_depth)
    if kept is None:
        kept = _decoders[max_depth] = []
    return kept.pop() if kept else _new_decoder(max_depth)


def _give_back(decoder: cbor2.CBORDecoder, max_depth: int, size: int) -> None:
    kept = _decoders[max_depth]
    # A decoder holds on to what it last read, so those of large items are not kept.
    if len(kept) < _DECODERS_KEPT_MAX and size <= _KEPT_BYTES_MAX:
        kept.append(decoder)


def _new_decoder(max_depth: int) -> cbor2.CBORDecoder:
    return cbor2.CBORDecoder(
        io.BytesIO(),
        max_depth=max_depth,
        allow_indefinite=False,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
        semantic_decoders=_REFUSED_TAGS,
        tag_hook=_refuse_tag,
    )


def _refuse_tag(*_arguments: object) -> NoReturn:
    raise WireError("tags are not allowed")


def _encode_struct(encoder: cbor2.CBOREncoder, value: object) -> None:
    if not isinstance(value, msgspec.Struct):
        raise TypeError(f"cannot encode {type(value).__name__}")
    encoder.encode(msgspec.to_builtins(value, builtin_types=(bytes,)))


def _refuse_odd(value: object) -> None:
    if isinstance(value, list):
        for item in value:
            _refuse_odd(item)
    elif isinstance(value, dict):
        for item in value.values():
            _refuse_odd(item)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise WireError("NaN and infinities are not allowed")
    elif value is not None and not isinstance(value, (bool, int, str, bytes)):
        raise WireError(f"simple value {value!r} is not allowed")


def _reason(error: Exception) -> str:
    # cbor2 wraps what a tag refused with; the cause says more.
    return str(error.__cause__ or error) or type(error).__name__


_REFUSED_TAGS: dict[int, Callable[..., NoReturn]] = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)
_decoders: dict[int, list[cbor2.CBORDecoder]] = {}
