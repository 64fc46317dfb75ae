"""Pages of long lists."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from cluster.gateway import paging


def lister(weights: dict[str, int]) -> Callable[[str | None, int], list[str]]:
    """Give rows as the machine does: so many after a key, in order."""
    names = sorted(weights)

    def fetch(after: str | None, limit: int) -> list[str]:
        start = 0 if after is None else bisect_right(names, after)
        return names[start : start + limit]

    return fetch


@given(
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 30_000), max_size=40),
    st.integers(1, 12),
)
def test_pages_in_a_row_are_the_whole_list(weights: dict[str, int], limit: int) -> None:
    """Following `next` to the end gives every row once, in order, and no page breaks a bound."""
    seen: list[str] = []
    after: str | None = None
    while True:
        rows, following = paging.page(
            lister(weights),
            after=after,
            limit=limit,
            key=lambda row: row,
            weight=lambda row: weights[row],
        )
        assert len(rows) <= limit
        assert len(rows) <= 1 or sum(weights[row] for row in rows) <= paging.WEIGHT_MAX
        seen += rows
        if following is None:
            break
        assert following == rows[-1]
        after = following
    assert seen == sorted(weights)


def test_one_heavy_row_makes_a_page_of_its_own() -> None:
    """A row over the bound is shown all the same: alone."""
    weights = {"a": 10**9, "b": 1}
    rows, following = paging.page(
        lister(weights), after=None, limit=10, key=str, weight=lambda row: weights[row]
    )
    assert (rows, following) == (["a"], "a")
