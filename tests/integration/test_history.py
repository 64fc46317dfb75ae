"""The checks of histories, fed with histories that are wrong: a checker that never complains is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cluster import NAMES, Cluster, Reply
from tests.integration.history import History, Hold, Load, check_reads


def held(token: int, granted_s: float, left_s: float | None) -> Hold:
    """A grant of the one lock of these tests."""
    return Hold("lock", f"session-{token}", token, granted_s, left_s)


def shown(token: int | None, asked_s: float, told_s: float) -> Reply:
    """An answer to a read that shows the lock held under this token, or free."""
    holders = [] if token is None else [{"session": f"session-{token}", "token": token}]
    return Reply("n1", 200, {"holders": holders}, {}, asked_s, told_s)


def refused(status: int, *, definite: bool) -> Reply:
    """An answer to a read that is none."""
    return Reply("n1", status, {"code": "no_leader", "definite": definite}, {}, 9.0, 9.5)


GOOD = [held(5, 1.0, 2.0), held(7, 3.0, 4.0), held(9, 5.0, None)]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_history_of_one_after_another_is_good(order: list[int]) -> None:
    """In whatever order clients told of their grants."""
    History([GOOD[number] for number in order]).check()


@pytest.mark.parametrize(
    ("holds", "complaint"),
    [
        ([held(5, 1.0, 2.0), held(7, 1.5, 4.0)], "two at a time"),
        ([held(7, 1.0, 2.0), held(5, 3.0, 4.0)], "two at a time"),
        ([held(5, 1.0, None), held(7, 3.0, 4.0)], "held for ever"),
        ([held(5, 1.0, 2.0), held(5, 3.0, 4.0)], "one token"),
    ],
)
def test_what_cannot_be_is_seen(holds: list[Hold], complaint: str) -> None:
    """Two holders, a token that falls, a grant that was never given back, a token used twice."""
    with pytest.raises(AssertionError, match=complaint):
        History(holds).check()


def test_one_token_for_two_locks_is_seen() -> None:
    """Tokens are the cluster's, not the lock's."""
    with pytest.raises(AssertionError, match="one token"):
        History([held(5, 1.0, 2.0), Hold("other", "session", 5, 3.0, 4.0)]).check()


@pytest.mark.parametrize(
    "reply",
    [
        shown(7, 3.5, 3.6),
        # Asked before a grant was known, it may show it or not.
        shown(5, 2.9, 3.1),
        shown(7, 2.9, 3.1),
        shown(None, 2.9, 3.1),
        # The release was under way.
        shown(None, 3.5, 4.1),
        shown(9, 6.0, 6.1),
        refused(503, definite=True),
    ],
)
def test_a_read_that_may_be_is_good(reply: Reply) -> None:
    """New, or overtaken while it was under way, or refused."""
    check_reads([reply], GOOD)


@pytest.mark.parametrize(
    "reply",
    [
        shown(5, 3.5, 3.6),
        shown(None, 3.5, 3.6),
        shown(7, 5.5, 5.6),
        shown(None, 6.0, 9.0),
        refused(503, definite=False),
        refused(500, definite=True),
    ],
)
def test_a_read_of_the_past_is_seen(reply: Reply) -> None:
    """It shows less than what was acknowledged before it was asked for, or fails in other ways."""
    with pytest.raises(AssertionError):
        check_reads([reply], GOOD)


def test_no_two_loads_use_the_same_locks(tmp_path: Path) -> None:
    """Not even when the first one is gone: its clients' own locks are held still."""
    cluster = Cluster(tmp_path, list(range(1, 1 + 2 * len(NAMES))), settings={})
    names = [Load(cluster, clients=1, locks=1).name for _ in range(20)]
    assert len(set(names)) == len(names)
