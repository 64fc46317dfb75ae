"""Messages: where they end in a stream of bytes that arrive as they like.

RULE: sans I/O; holds at most one unfinished message, and of one that is too large nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from cluster.fronts.gob.kinds import GobError

MESSAGE_BYTES_MAX: Final = 2 * 1024 * 1024
SWALLOW_BYTES_MAX: Final = 1 << 30
"""Go's own limit: beyond it a stream is taken for garbage."""

_LENGTH_BYTES_MAX = 9


@dataclass(frozen=True, slots=True)
class Oversized:
    """A message that was larger than we take; it was dropped as it came."""

    size: int


Message: TypeAlias = bytes | Oversized


class Messages:
    """Cuts a stream into messages.

    Args:
        bytes_max: of one message that is kept.
        swallow_max: of one that is dropped; what claims to be larger ends the stream.
    """

    def __init__(
        self, *, bytes_max: int = MESSAGE_BYTES_MAX, swallow_max: int = SWALLOW_BYTES_MAX
    ) -> None:
        self._bytes_max = bytes_max
        self._swallow_max = swallow_max
        self._held = bytearray()
        self._needed = 0
        self._swallowing = 0
        self._size = 0

    @property
    def is_between(self) -> bool:
        """Nothing of a message has come that is not finished."""
        return not self._held and not self._swallowing

    def feed(self, data: bytes) -> Iterator[Message]:
        """Take in what arrived; gives the messages that are whole now, without their lengths.

        Raises:
            GobError: after the messages before it: no stream begins a message so. Nothing can be
                read after it.
        """
        found: list[Message] = []
        broken: GobError | None = None
        try:
            self._cut(data, found)
        except GobError as error:
            broken = error
        yield from found
        if broken is not None:
            raise broken

    def _cut(self, data: bytes, found: list[Message]) -> None:
        if self._swallowing:
            dropped = min(self._swallowing, len(data))
            self._swallowing -= dropped
            if self._swallowing:
                return
            found.append(Oversized(self._size))
            data = data[dropped:]
        held = self._held
        held += data
        # A message that is not whole is not looked at again before it is.
        if len(held) < self._needed:
            return
        at = 0
        while at < len(held):
            head = _length(held, at)
            if head is None:
                break
            size, begin = head
            if size > self._bytes_max:
                if size > self._swallow_max:
                    raise GobError("invalid message length")
                have = len(held) - begin
                if have < size:
                    self._size, self._swallowing = size, size - have
                    held.clear()
                    self._needed = 0
                    return
                found.append(Oversized(size))
            elif begin + size > len(held):
                self._needed = begin + size - at
                break
            else:
                found.append(bytes(held[begin : begin + size]))
            at = begin + size
        else:
            self._needed = 0
        if at:
            del held[:at]


def _length(held: bytearray, at: int) -> tuple[int, int] | None:
    """A message's length and where it begins; None where the length is not there yet."""
    first = held[at]
    if first < 0x80:
        return first, at + 1
    count = 256 - first
    if count >= _LENGTH_BYTES_MAX:
        raise GobError("gob: encoded unsigned integer out of range")
    end = at + 1 + count
    if end > len(held):
        return None
    return int.from_bytes(held[at + 1 : end]), end
