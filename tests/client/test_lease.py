"""The client's own view of a session's time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.client.lease import Lease, Tenure, margin_ms_of


def opened(ttl_ms: int = 10_000) -> Lease:
    """A lease whose session was opened by a request sent at 1,000."""
    return Lease.opened(ttl_ms=ttl_ms, expires_in_ms=ttl_ms, sent_ms=1_000)


def test_a_lease_counts_from_when_the_request_was_sent() -> None:
    """Margins lie before its end: first the work is asked to end, then it is ended."""
    lease = opened()
    assert (lease.ends_ms, lease.kill_at_ms, lease.term_at_ms) == (11_000, 10_000, 9_000)
    assert lease.try_at_ms == 3_000


def test_a_renewal_moves_everything_on() -> None:
    """Counted from its own sending."""
    lease = opened().renewed(expires_in_ms=10_000, sent_ms=3_000)
    assert (lease.ends_ms, lease.try_at_ms) == (13_000, 5_000)


def test_an_older_renewal_that_answers_late_never_shortens_the_lease() -> None:
    """Answers may overtake one another."""
    newer = opened().renewed(expires_in_ms=10_000, sent_ms=5_000)
    assert newer.renewed(expires_in_ms=10_000, sent_ms=3_000) == newer


def test_an_answer_never_promises_more_than_the_ttl() -> None:
    """A longer promise is not believed."""
    assert opened().renewed(expires_in_ms=99_000, sent_ms=1_000).ends_ms == 11_000


def test_a_missed_renewal_is_tried_again_soon_and_changes_nothing_else() -> None:
    """Only success counts."""
    lease = opened().missed(4_000)
    assert (lease.try_at_ms, lease.ends_ms) == (4_250, 11_000)


@pytest.mark.parametrize(
    ("now_ms", "must_term", "must_kill"),
    [(8_999, False, False), (9_000, True, False), (9_999, True, False), (10_000, True, True)],
)
def test_work_ends_in_two_steps_before_the_lease_does(
    now_ms: int, must_term: bool, must_kill: bool
) -> None:
    """First the request, then force."""
    assert opened().must_term(now_ms) is must_term
    assert opened().must_kill(now_ms) is must_kill


def test_a_lease_that_is_reported_lost_ends_work_at_once() -> None:
    """By force: another may hold the lock already."""
    lost = opened().reported_lost("expired")
    assert lost.must_term(1_000)
    assert lost.must_kill(1_000)
    assert lost.lost == "expired"


@given(st.integers(100, 10**9))
def test_three_renewals_fit_before_the_work_must_end(ttl_ms: int) -> None:
    """For every TTL, and the margins never take up the whole of it."""
    lease = opened(ttl_ms)
    assert 0 < margin_ms_of(ttl_ms) * 4 < ttl_ms
    assert 1_000 < lease.term_at_ms < lease.kill_at_ms < lease.ends_ms
    assert 1_000 + 3 * lease.every_ms <= lease.term_at_ms


def test_a_tenure_tells_each_fall_once() -> None:
    """Held, then grace, then lost; looking again tells nothing."""
    tenure = Tenure(opened())
    told = [tenure.look(now_ms) for now_ms in (8_999, 9_000, 9_500, 10_000, 10_500, 11_000)]
    assert told == [None, "grace", None, "lost", None, None]


def test_a_renewal_in_grace_leads_back() -> None:
    """And is told."""
    tenure = Tenure(opened())
    assert tenure.look(9_000) == "grace"
    tenure.renewed(tenure.lease.renewed(expires_in_ms=10_000, sent_ms=8_500), 9_100)
    assert tenure.look(9_100) == "held"
    assert tenure.lease.changes_at_ms(9_100) == 16_500


def test_nothing_leads_back_from_lost() -> None:
    """Neither a renewal that answers too late, nor one that the loss overtook."""
    late = Tenure(opened())
    late.renewed(late.lease.renewed(expires_in_ms=10_000, sent_ms=9_000), 10_000)
    assert late.look(10_000) == "lost"
    late.renewed(late.lease.renewed(expires_in_ms=10_000, sent_ms=9_000), 10_001)
    assert late.standing(10_001) == "lost"
    assert "was not renewed for 9000 ms" in late.why_lost()

    told = Tenure(opened())
    told.lose("the session has ended")
    told.lose("said twice")
    assert told.look(1_001) == "lost"
    assert told.why_lost() == "the session has ended"


def test_who_slept_through_the_grace_is_told_of_the_loss_alone() -> None:
    """The standing is asked at every use, and does not wait for a look."""
    tenure = Tenure(opened())
    assert tenure.standing(60_000) == "lost"
    assert tenure.look(60_000) == "lost"
    assert tenure.look(60_001) is None


def test_the_next_change_is_known() -> None:
    """Two falls, then the end."""
    lease = opened()
    moments = [lease.changes_at_ms(now_ms) for now_ms in (1_000, 9_000, 10_000, 11_000)]
    assert moments == [9_000, 10_000, 11_000, 11_000]


def test_a_late_answer_to_an_older_renewal_does_not_shorten_a_newer_lease() -> None:
    """Two were under way at once: each made its lease of the one that stood when it was sent."""
    tenure = Tenure(Lease.opened(ttl_ms=10_000, expires_in_ms=10_000, sent_ms=0))
    before = tenure.lease
    newer = before.renewed(expires_in_ms=10_000, sent_ms=5_000)
    older = before.renewed(expires_in_ms=10_000, sent_ms=1_000)
    tenure.renewed(newer, 5_010)
    tenure.renewed(older, 5_020)
    assert tenure.lease == newer
