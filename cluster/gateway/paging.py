"""Pages of long lists, bounded by what is in the rows as well as by their number.

RULE: pure. A row may be heavy (ten thousand waiters of one lock), and all of a page is made in one
turn of the loop: so a page ends early when it has grown heavy, and says where to go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

WEIGHT_MAX = 20_000
"""Entries of all rows of a page together; some ten milliseconds of work."""

_CHUNK = 8


class Listed(Protocol[T]):
    """A primitive that lists its things by name."""

    def list(
        self, now_ms: int, *, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[T]: ...


def _light(_row: Any) -> int:
    return 1


def named(
    things: Listed[T],
    now_ms: int,
    query: Mapping[str, Any],
    *,
    key: Callable[[T], str],
    weight: Callable[[T], int] = _light,
) -> tuple[list[T], str | None]:
    """Collect a page of a primitive's things, as the query's `prefix`, `after` and `limit` ask.

    Returns:
        as `page`.
    """
    prefix = query["prefix"]
    return page(
        lambda after, limit: things.list(now_ms, prefix=prefix, after=after, limit=limit),
        after=query["after"],
        limit=query["limit"],
        key=key,
        weight=weight,
    )


def page(
    fetch: Callable[[str | None, int], list[T]],
    *,
    after: str | None,
    limit: int,
    key: Callable[[T], str],
    weight: Callable[[T], int],
) -> tuple[list[T], str | None]:
    """Collect rows until there are `limit`, or they are heavy, or there are no more.

    Args:
        fetch: gives at most so many rows after a key, in order; None: from the start.
        after: where the last page ended.
        limit: rows of this page at most.
        key: of a row, what `after` takes.
        weight: how many entries are in a row.
    Returns:
        the rows, and the key to go on after; None when that was all.
    """
    rows: list[T] = []
    left = WEIGHT_MAX
    while True:
        # One more than needed tells whether there is a next page.
        wanted = min(_CHUNK, limit + 1 - len(rows))
        found = fetch(after, wanted)
        for row in found:
            if rows and (len(rows) == limit or left < weight(row)):
                return rows, key(rows[-1])
            rows.append(row)
            left -= weight(row)
        if len(found) < wanted:
            return rows, None
        after = key(rows[-1])
