"""The story of a seed: what happened when, and a running hash that says whether it happened again.

RULE: listens only. Nothing in the simulation may depend on whether the story is kept.
"""

from __future__ import annotations

import zlib


class Trace:
    """Lines for a reader and a hash for a machine.

    The hash covers every step and every byte sent, whether lines are kept or not: two runs with
    the same hash did the same.
    """

    __slots__ = ("hash", "lines", "tail_max")

    def __init__(self, *, keep: bool = False, tail_max: int | None = None) -> None:
        """With `keep` every line is kept, or the last `tail_max` of them."""
        self.hash = 0
        self.lines: list[str] | None = [] if keep else None
        self.tail_max = tail_max

    @property
    def wanted(self) -> bool:
        """Lines are kept: only then is it worth making one."""
        return self.lines is not None

    def mark(self, time_us: int, what: bytes) -> None:
        """Count one step into the hash."""
        self.hash = zlib.crc32(what, zlib.crc32(b"%d" % time_us, self.hash))

    def say(self, time_us: int, who: str, text: str) -> None:
        """Keep one line: virtual time, actor, what happened."""
        if self.lines is None:
            return
        self.lines.append(f"{time_us / 1e6:10.6f}  {who:<8} {text}")
        if self.tail_max is not None and len(self.lines) > 2 * self.tail_max:
            del self.lines[: -self.tail_max]

    def story(self) -> str:
        """All lines kept, oldest first."""
        lines = self.lines or []
        if self.tail_max is not None:
            lines = lines[-self.tail_max :]
        return "\n".join(lines)
