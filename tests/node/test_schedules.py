"""Schedules: intervals and cron, where clocks are set, and what is too late."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine.commands.tasks import SKIP, Schedule, SetSlot
from cluster.machine.limits import WALL_MS_MAX
from cluster.machine.outcome.tasks import Wanted
from cluster.node.schedules import MISSED_COUNTED_MAX, Next, answer, check, following, jitter

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
BERLIN = "Europe/Berlin"


def every(every_ms: int, start_ms: int = 0, catchup_ms: int = MINUTE) -> Schedule:
    """An interval."""
    return Schedule(every_ms, start_ms, "", "", SKIP, catchup_ms, 0)


def cron(text: str, timezone: str = "UTC", catchup_ms: int = MINUTE) -> Schedule:
    """A cron."""
    return Schedule(0, 0, text, timezone, SKIP, catchup_ms, 0)


def ms(text: str) -> int:
    """Milliseconds since 1970 of an ISO time."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def slots(schedule: Schedule, after: str, count: int) -> list[str]:
    """The next slots in UTC, each asked for after the one before."""
    found: list[str] = []
    after_ms = ms(after)
    for _ in range(count):
        slot_ms, missed = following(schedule, after_ms, after_ms)
        assert slot_ms is not None
        assert missed == 0
        found.append(datetime.fromtimestamp(slot_ms / 1000, UTC).strftime("%d %H:%M"))
        after_ms = slot_ms
    return found


class TestInterval:
    def test_slots_are_multiples_since_1970(self) -> None:
        """Every five minutes is at :00, :05, and so on, whenever the task was put."""
        assert slots(every(5 * MINUTE), "2026-03-01T10:03:00Z", 2) == ["01 10:05", "01 10:10"]

    def test_slots_follow_from_the_start(self) -> None:
        """The first slot is the start, be it long ago or still to come."""
        start_ms = ms("2026-03-01T10:01:00Z")
        schedule = every(HOUR, start_ms)
        assert slots(schedule, "2026-03-01T09:00:00Z", 2) == ["01 10:01", "01 11:01"]
        assert slots(schedule, "2026-03-01T12:01:00Z", 1) == ["01 13:01"]

    def test_slots_too_late_are_missed_in_one_step(self) -> None:
        """Only those within the catch-up window are run."""
        schedule = every(1_000, catchup_ms=2_500)
        assert following(schedule, 10_000, 20_000) == Next(18_000, 7)
        assert following(schedule, 10_000, 13_500) == Next(11_000, 0)
        assert following(schedule, 10_000, 13_501) == Next(12_000, 1)

    def test_ends_with_the_last_year(self) -> None:
        """There is no slot after the year 9999."""
        assert following(every(DAY), WALL_MS_MAX - 1, 0).slot_ms is None

    @given(
        st.integers(1, 10**7), st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 10**7)
    )
    def test_slots_rise_and_none_is_left_out(
        self, every_ms: int, after_ms: int, ahead_ms: int, catchup_ms: int
    ) -> None:
        """Counted one by one, the missed ones are those before the window."""
        every_ms = max(every_ms, ahead_ms // 500)
        schedule, wall_ms = every(every_ms, 0, catchup_ms), after_ms + ahead_ms
        slot_ms, missed = following(schedule, after_ms, wall_ms)
        assert slot_ms is not None
        first = after_ms // every_ms + 1
        slow = [n * every_ms for n in range(first, first + 600)]
        late = [slot for slot in slow if slot < wall_ms - catchup_ms]
        assert missed == len(late)
        assert slot_ms == slow[len(late)]


class TestCron:
    def test_slots_are_by_the_clock_of_the_zone(self) -> None:
        """Half past eight in Berlin is half past seven in UTC, in winter."""
        assert slots(cron("30 8 * * MON-FRI", BERLIN), "2026-01-02T12:00:00Z", 2) == [
            "05 07:30",
            "06 07:30",
        ]

    def test_a_time_in_the_gap_runs_at_its_end(self) -> None:
        """29 March 2026: 02:30 is not there, so 03:00 summer time it is, once."""
        assert slots(cron("30 2 * * *", BERLIN), "2026-03-28T00:00:00Z", 3) == [
            "28 01:30",
            "29 01:00",
            "30 00:30",
        ]

    def test_a_fixed_time_in_the_repeated_hour_runs_once(self) -> None:
        """25 October 2026: 02:30 comes twice; the first one counts, even asked after it."""
        schedule = cron("30 2 * * *", BERLIN)
        assert slots(schedule, "2026-10-24T12:00:00Z", 2) == ["25 00:30", "26 01:30"]
        assert slots(schedule, "2026-10-25T01:15:00Z", 1) == ["26 01:30"]

    def test_every_hour_is_every_hour_of_real_time(self) -> None:
        """Neither gap nor repeat leaves a hole or a pair."""
        schedule = cron("0 * * * *", BERLIN)
        spring = slots(schedule, "2026-03-28T23:30:00Z", 4)
        assert spring == ["29 00:00", "29 01:00", "29 02:00", "29 03:00"]
        autumn = slots(schedule, "2026-10-24T22:30:00Z", 4)
        assert autumn == ["24 23:00", "25 00:00", "25 01:00", "25 02:00"]

    def test_six_fields_have_seconds_in_front(self) -> None:
        """For those who want more than a slot in a minute."""
        assert following(cron("*/10 * * * * *"), 5_000, 5_000) == Next(10_000, 0)

    def test_slots_too_late_are_missed_in_one_step(self) -> None:
        """Counted, and the first one within the window comes next."""
        after_ms = ms("2026-01-01T00:00:00Z")
        schedule = cron("0 * * * *", catchup_ms=90 * MINUTE)
        assert following(schedule, after_ms, after_ms + 10 * HOUR) == Next(after_ms + 9 * HOUR, 8)

    def test_a_long_time_is_passed_over(self) -> None:
        """Nobody counts a year of minutes: that much is missed at least."""
        after_ms = ms("2025-01-01T00:00:00Z")
        wall_ms = ms("2026-01-01T00:00:30Z")
        assert following(cron("* * * * *"), after_ms, wall_ms) == Next(
            ms("2026-01-01T00:00:00Z"), MISSED_COUNTED_MAX
        )

    def test_a_date_that_never_comes_has_no_slot(self) -> None:
        """After the last year there is nothing."""
        assert following(cron("0 0 1 1 *"), WALL_MS_MAX - DAY, 0).slot_ms is None

    @given(st.integers(ms("2026-01-01T00:00:00Z"), ms("2027-01-01T00:00:00Z")))
    def test_slots_rise_whatever_the_zone_does(self, after_ms: int) -> None:
        """Each slot is strictly after what was asked, where clocks are set as elsewhere."""
        for text in ("*/20 * * * *", "30 2 * * *", "15,45 1-3 * * *"):
            found = [after_ms]
            for _ in range(4):
                slot_ms, _ = following(cron(text, BERLIN), found[-1], found[-1])
                assert slot_ms is not None
                found.append(slot_ms)
            assert all(a < b for a, b in pairwise(found))


class TestCheck:
    @pytest.mark.parametrize(
        "text",
        ["", "* * *", "60 * * * *", "0 0 30 2 *", "a b c d e", "0 0 * * MON#9", "-1 * * * *"],
    )
    def test_refuses_a_cron_without_sense(self, text: str) -> None:
        """The message names it and shows how it is done."""
        with pytest.raises(ValueError, match="cron: .* makes no sense"):
            check(cron(text))
        with pytest.raises(ValueError, match="cron"):
            following(cron(text), 0, 0)

    @pytest.mark.parametrize("zone", ["", "Europe", "Mars/Olympus", "../etc/passwd", "UTC\x00"])
    def test_refuses_an_unknown_zone(self, zone: str) -> None:
        """A path is no zone either."""
        with pytest.raises(ValueError, match="timezone: .* is unknown"):
            check(cron("* * * * *", zone))

    @pytest.mark.parametrize(
        "text", ["0 12 * JAN,jul SUN", "0 0 L * *", "0 0 LW * *", "0 0 * * 5L"]
    )
    def test_takes_names_and_last_days(self, text: str) -> None:
        """What cronsim knows beside numbers."""
        check(cron(text, BERLIN))

    def test_takes_any_interval(self) -> None:
        """The gateway bounds it."""
        check(every(1))


class TestAnswer:
    def test_answers_under_the_revision_of_the_question(self) -> None:
        """The machine takes no other."""
        wanted = Wanted("p", "t", 7, every(1_000), 5_000)
        assert answer(wanted, 5_100) == SetSlot("p", "t", 7, 6_000)

    def test_jitter_is_the_same_for_the_same_slot(self) -> None:
        """Drawn from the names: two leaders agree, two tasks and two slots mostly differ."""
        schedule = every(HOUR)._replace(jitter_ms=600_000)
        wanted = Wanted("p", "t", 7, schedule, 0)
        drawn = [jitter(wanted, slot * HOUR) for slot in range(50)]
        again = wanted._replace(revision=9, after_ms=5)
        assert drawn == [jitter(again, slot * HOUR) for slot in range(50)]
        assert len(set(drawn)) > 45
        assert all(0 <= one <= 600_000 for one in drawn)
        assert jitter(wanted._replace(task="u"), 0) != drawn[0]
        assert answer(wanted, 0).jitter_ms == drawn[1]

    def test_a_slot_within_its_jitter_is_not_too_late(self) -> None:
        """It may still have to come."""
        schedule = every(1_000, catchup_ms=500)._replace(jitter_ms=5_000)
        assert following(schedule, 10_000, 16_000) == Next(11_000, 0)
