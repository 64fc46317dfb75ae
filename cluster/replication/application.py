"""What stands above the engine: the state machine it drives, and what it tells about proposals.

RULE: shapes only.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Protocol


class Outcome(enum.Enum):
    """What became of a proposal, told apart so that a caller knows whether to repeat it."""

    OK = "ok"
    """Committed and applied here."""
    NOT_LEADER = "not_leader"
    """Surely not appended."""
    DISCARDED = "discarded"
    """Surely overwritten by another leader's entry."""
    UNKNOWN = "unknown"
    """In the log when we were deposed: it may yet commit. Repeat with the same command id."""


class Application(Protocol):
    """What the engine drives. Exceptions out of it stop the process."""

    def apply(self, index: int, payload: bytes) -> None:
        """Apply the committed entry `index`."""

    def skip(self, index: int) -> None:
        """Entry `index` carries nothing (a new leader's first entry)."""

    def dump(self) -> Iterable[bytes]:
        """The state as of the last applied entry, in chunks; may run in a forked child."""

    def load(self, index: int, chunks: Iterable[bytes]) -> None:
        """Replace the state by a snapshot whose last entry is `index`."""

    def next_payload(self) -> bytes | None:
        """Called on a leader that can take one more entry: its payload, None for nothing."""

    def on_outcome(self, payload: bytes, outcome: Outcome) -> None:
        """What became of a payload that `next_payload` gave."""
