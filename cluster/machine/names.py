"""Names in order: the page of a list that begins with a prefix, behind one that was seen.

RULE: reads sorted names, keeps nothing. What stands behind a name is its primitive's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from sortedcontainers import SortedDict, SortedList

Sorted: TypeAlias = SortedList | SortedDict


def page(names: Sorted, prefix: str, after: str | None, limit: int) -> Iterator[str]:
    """Give at most `limit` names that start with `prefix`, in order.

    Args:
        after: the last one seen; it need not be there any more.
    """
    if after is not None and after >= prefix:
        found = names.irange(minimum=after, inclusive=(False, True))
    else:
        found = names.irange(minimum=prefix)
    for name in islice(found, limit):
        if not name.startswith(prefix):
            return
        yield name
