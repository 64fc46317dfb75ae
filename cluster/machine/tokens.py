"""Fencing tokens: one counter for the whole cluster.

RULE: the only place where a token is made. A token is larger than every one before it and never
behind the log: next = max(last + 1, index of the entry). The bare index would repeat, as an entry
holds many commands; the bare counter could fall behind an index a client has seen.
Source: Chubby (sequencers); Kleppmann, "How to do distributed locking" (2016).
"""

from __future__ import annotations


class Tokens:
    """Gives tokens; `last` is the newest given, `index` the entry being applied."""

    __slots__ = ("index", "last")

    def __init__(self, last: int = 0, index: int = 0) -> None:
        self.last = last
        self.index = index

    def next(self) -> int:
        """Give the next token."""
        self.last = max(self.last + 1, self.index)
        return self.last
