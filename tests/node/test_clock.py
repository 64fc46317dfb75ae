"""Cluster time: runs with the leader, stands still without one, and never falls in the log."""

from __future__ import annotations

import random

from cluster.node import clock
from cluster.node.clock import ClusterClock


def test_a_leader_moves_cluster_time_from_where_the_log_left_it() -> None:
    """With its own monotonic clock, whatever that shows."""
    cluster = ClusterClock()
    assert not cluster.leads
    cluster.lead(500.0, applied_ms=7_000, last_term=1)
    assert cluster.leads
    assert [cluster.now_ms(at) for at in (500.0, 500.25, 503.0)] == [7_000, 7_250, 10_000]


def test_cluster_time_stands_still_while_nobody_leads() -> None:
    """An election takes no time from any lease."""
    cluster = ClusterClock()
    cluster.lead(500.0, applied_ms=7_000, last_term=1)
    last = cluster.now_ms(501.0)
    cluster.follow()
    assert not cluster.leads
    cluster.lead(900.0, applied_ms=last, last_term=1)
    assert cluster.now_ms(900.0) == last


def test_a_time_in_which_the_leader_stood_still_is_left_out() -> None:
    """It goes on from where it was, and at its own pace."""
    cluster = ClusterClock()
    cluster.lead(500.0, applied_ms=7_000, last_term=1)
    cluster.stand_still(3_600.0)
    assert [cluster.now_ms(at) for at in (4_100.0, 4_101.0)] == [7_000, 8_000]


def test_the_last_leaders_word_counts_when_nobody_led_in_between() -> None:
    """Else every change of leader would stretch all leases by what no entry had recorded."""
    cluster = ClusterClock()
    cluster.hear(10.0, term=4, leader_ms=9_000)
    cluster.lead(11.0, applied_ms=7_000, last_term=4)
    assert cluster.now_ms(11.0) == 9_000


def test_a_word_of_another_term_does_not_count() -> None:
    """Its clock may have run beside that of a later leader, whose leases would end early."""
    for last_term in (3, 5):
        cluster = ClusterClock()
        cluster.hear(10.0, term=4, leader_ms=9_000)
        cluster.lead(11.0, applied_ms=7_000, last_term=last_term)
        assert cluster.now_ms(11.0) == 7_000


def test_an_older_word_than_the_log_takes_nothing_back() -> None:
    """The log is what counts; a word can only add."""
    cluster = ClusterClock()
    cluster.hear(10.0, term=4, leader_ms=6_000)
    cluster.lead(11.0, applied_ms=7_000, last_term=4)
    assert cluster.now_ms(11.0) == 7_000


def test_time_never_falls_over_any_chain_of_leaders(rng: random.Random) -> None:
    """Each applies what the one before sealed, hears some of its words, and goes on from there."""
    clocks = [ClusterClock() for _ in range(3)]
    origins = [rng.uniform(0, 1e5) for _ in clocks]
    now, sealed = 0.0, 0
    for term in range(1, 200):
        now += rng.uniform(0, 3)
        leader = rng.randrange(3)
        clocks[leader].lead(origins[leader] + now, applied_ms=sealed, last_term=term - 1)
        for _ in range(rng.randrange(5)):
            now += rng.uniform(0, 2)
            said = clocks[leader].now_ms(origins[leader] + now)
            if rng.random() < 0.5:
                assert said >= sealed
                sealed = said
            for other in range(3):
                if other != leader and rng.random() < 0.5:
                    clocks[other].hear(origins[other] + now, term=term, leader_ms=said)
        clocks[leader].follow()
        # Never ahead of the time that has passed: no lease ends early.
        assert sealed <= now * 1000


def test_a_followers_guess_goes_on_for_a_moment_only() -> None:
    """It is for reading remaining times; a follower that hears nothing must not run ahead."""
    cluster = ClusterClock()
    cluster.see(10.0, 5_000)
    assert [cluster.guess_ms(at) for at in (10.0, 10.5, 11.0, 60.0)] == [5_000, 5_500, 6_000, 6_000]
    cluster.see(60.0, 4_000)
    assert cluster.guess_ms(60.0) == 6_000
    cluster.see(60.0, 20_000)
    assert cluster.guess_ms(60.25) == 20_250


def test_a_leaders_guess_is_its_time() -> None:
    """Reads and writes on it show the same clock."""
    cluster = ClusterClock()
    cluster.lead(500.0, applied_ms=7_000, last_term=1)
    assert cluster.guess_ms(504.0) == cluster.now_ms(504.0) == 11_000


def test_the_process_clocks_are_of_the_promised_kind() -> None:
    """Seconds that never fall, and milliseconds since 1970."""
    assert clock.monotonic() <= clock.monotonic()
    assert clock.wall_ms() > 1_600_000_000_000
