"""Deadlines: one heap, and entries that are corrected when they come to the top."""

from __future__ import annotations

import random

from cluster.machine.deadlines import DISARMED, SESSION_ENDS, WAIT_ENDS, Deadlines


class Timer:
    """Something with a deadline."""

    def __init__(self, deadline_ms: int, name: str = "") -> None:
        self.deadline_ms = deadline_ms
        self.name = name


def test_pops_in_order_of_deadline_kind_and_order() -> None:
    """The earliest first; at the same time the smaller kind, then the smaller order."""
    deadlines = Deadlines()
    for name, deadline_ms, kind, order in (
        ("d", 20, SESSION_ENDS, 1),
        ("c", 10, WAIT_ENDS, 1),
        ("b", 10, SESSION_ENDS, 9),
        ("a", 10, SESSION_ENDS, 8),
    ):
        deadlines.arm(kind, order, Timer(deadline_ms, name))
    popped = []
    while (due := deadlines.pop_due(20)) is not None:
        assert isinstance(due[1], Timer)
        popped.append(due[1].name)
    assert popped == ["a", "b", "c", "d"]


def test_is_due_at_its_deadline_and_not_before() -> None:
    """One millisecond before, nothing; at the deadline, it is due."""
    deadlines, timer = Deadlines(), Timer(100)
    deadlines.arm(SESSION_ENDS, 1, timer)
    assert deadlines.pop_due(99) is None
    assert deadlines.pop_due(100) == (SESSION_ENDS, timer)
    assert timer.deadline_ms == DISARMED
    assert deadlines.pop_due(1000) is None


def test_a_renewed_timer_is_due_at_its_new_deadline_only() -> None:
    """Renewing is an assignment: the old entry neither fires nor shows."""
    deadlines, timer = Deadlines(), Timer(100)
    deadlines.arm(SESSION_ENDS, 1, timer)
    timer.deadline_ms = 250
    assert deadlines.next_ms() == 250
    assert deadlines.pop_due(249) is None
    assert deadlines.pop_due(250) == (SESSION_ENDS, timer)


def test_a_disarmed_timer_never_fires() -> None:
    """Disarming leaves nothing to wait for; disarming again changes nothing."""
    deadlines, timer = Deadlines(), Timer(100)
    deadlines.arm(WAIT_ENDS, 1, timer)
    deadlines.disarm(timer)
    deadlines.disarm(timer)
    assert len(deadlines) == 0
    assert deadlines.next_ms() is None
    assert deadlines.pop_due(1000) is None
    assert len(deadlines) == 0


def test_keepalives_do_not_grow_the_heap() -> None:
    """A thousand renewals leave one entry."""
    deadlines, timer = Deadlines(), Timer(100)
    deadlines.arm(SESSION_ENDS, 1, timer)
    for now_ms in range(1000):
        timer.deadline_ms = now_ms + 100
        assert deadlines.pop_due(now_ms) is None
    assert len(deadlines._heap) == 1


def test_dead_entries_are_swept_when_they_are_the_larger_part() -> None:
    """Disarming a thousand of a thousand and one leaves a small heap that still works."""
    deadlines, last = Deadlines(), Timer(5000)
    deadlines.arm(WAIT_ENDS, 0, last)
    timers = [Timer(1000 + order) for order in range(1000)]
    for order, timer in enumerate(timers, 1):
        deadlines.arm(WAIT_ENDS, order, timer)
    for timer in timers:
        deadlines.disarm(timer)
    assert len(deadlines) == 1
    assert len(deadlines._heap) < 100
    assert deadlines.next_ms() == 5000


def test_agrees_with_a_sorted_list(rng: random.Random) -> None:
    """Whatever is armed, renewed, disarmed and popped, a list sorted anew says the same."""
    deadlines = Deadlines()
    armed: list[tuple[int, Timer]] = []
    now_ms = 0
    for order in range(3000):
        dice = rng.random()
        if dice < 0.4:
            timer = Timer(now_ms + rng.randrange(1, 50))
            deadlines.arm(SESSION_ENDS, order, timer)
            armed.append((order, timer))
        elif dice < 0.7 and armed:
            rng.choice(armed)[1].deadline_ms += rng.randrange(30)
        elif dice < 0.85 and armed:
            _, timer = armed.pop(rng.randrange(len(armed)))
            deadlines.disarm(timer)
        else:
            now_ms += rng.randrange(10)
            expected = sorted(
                (timer.deadline_ms, number, timer)
                for number, timer in armed
                if timer.deadline_ms <= now_ms
            )
            for _, _, timer in expected:
                assert deadlines.pop_due(now_ms) == (SESSION_ENDS, timer)
            assert deadlines.pop_due(now_ms) is None
            armed = [(number, timer) for number, timer in armed if timer.deadline_ms != DISARMED]
        assert len(deadlines) == len(armed)
        assert deadlines.next_ms() == min((t.deadline_ms for _, t in armed), default=None)
