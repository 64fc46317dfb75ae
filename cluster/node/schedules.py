"""Schedules: when a task is due next, by an interval or by cron in a time zone.

RULE: a function of schedule and wall time; reads no clock, draws no lots. The machine never asks:
rules of time zones are data of a node, so the leader works a slot out and proposes it.

Cron has five fields, or six with seconds in front, names of months and days, and `L`, `LW` and `#`
as cronsim reads them. Where clocks are set, it does as Debian's cron: a job of fixed hours and
minutes that falls into the gap runs at its end, once, and runs once in an hour that comes twice;
one with `*` in its hours or minutes runs as real time goes by. Intervals know no zones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from cluster.machine.commands.tasks import Schedule, SetSlot
from cluster.machine.limits import WALL_MS_MAX
from cluster.machine.outcome.tasks import Wanted

MISSED_COUNTED_MAX: Final = 1_000
"""So many missed slots of a cron are counted one by one; of more, the rest is passed over."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class Next(NamedTuple):
    """The next slot, in ms since 1970; None: there is none. `missed`: slots that are too late."""

    slot_ms: int | None
    missed: int


def check(schedule: Schedule) -> None:
    """See that a schedule means something.

    Raises:
        ValueError: it does not; the message names the part and what to write.
    """
    if schedule.every_ms:
        return
    _zone(schedule.timezone)
    try:
        CronSim(schedule.cron, _EPOCH)
    except CronSimError as error:
        raise ValueError(
            f'cron: "{schedule.cron}" makes no sense ({error}); write minute, hour, day of month, '
            'month and day of week, as in "*/5 8-18 * * MON-FRI"'
        ) from None


def following(schedule: Schedule, after_ms: int, wall_ms: int) -> Next:
    """Work out the first slot after a time that is not yet too late to be run.

    Args:
        after_ms: the last slot there was, or when the schedule began.
        wall_ms: now; slots that came up longer ago than the catch-up window allows are missed.

    Raises:
        ValueError: the schedule means nothing to this node.
    """
    # With its whole jitter: what is at the edge, the machine judges when it fires.
    oldest_ms = wall_ms - schedule.catchup_ms - schedule.jitter_ms
    if schedule.every_ms:
        return _of_interval(schedule, after_ms, oldest_ms)
    return _of_cron(schedule, after_ms, oldest_ms)


def answer(wanted: Wanted, wall_ms: int) -> SetSlot:
    """Answer a task's question for its next slot.

    Raises:
        ValueError: its schedule means nothing to this node.
    """
    slot_ms, missed = following(wanted.schedule, wanted.after_ms, wall_ms)
    jitter_ms = 0 if slot_ms is None else jitter(wanted, slot_ms)
    return SetSlot(wanted.pool, wanted.task, wanted.revision, slot_ms, jitter_ms, missed)


def jitter(wanted: Wanted, slot_ms: int) -> int:
    """How much later than its slot a task is due: the same for the same slot at every node."""
    most_ms = wanted.schedule.jitter_ms
    if most_ms == 0:
        return 0
    name = f"{len(wanted.pool)}/{wanted.pool}/{wanted.task}/{slot_ms}"
    lot = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(lot, "big") % (most_ms + 1)


def _of_interval(schedule: Schedule, after_ms: int, oldest_ms: int) -> Next:
    every_ms, start_ms = schedule.every_ms, schedule.start_ms
    slot_ms = start_ms + max(0, (after_ms - start_ms) // every_ms + 1) * every_ms
    missed = max(0, -((slot_ms - oldest_ms) // every_ms))
    slot_ms += missed * every_ms
    return Next(slot_ms, missed) if slot_ms <= WALL_MS_MAX else Next(None, missed)


def _of_cron(schedule: Schedule, after_ms: int, oldest_ms: int) -> Next:
    missed = 0
    for slot_ms in _cron(schedule, after_ms):
        if slot_ms >= oldest_ms:
            return Next(slot_ms, missed)
        missed += 1
        if missed == MISSED_COUNTED_MAX:
            return Next(next(_cron(schedule, oldest_ms - 1), None), missed)
    return Next(None, missed)


def _cron(schedule: Schedule, after_ms: int) -> Iterator[int]:
    """Slots of a cron after a time, rising."""
    zone = _zone(schedule.timezone)
    try:
        begin = (_EPOCH + timedelta(milliseconds=after_ms)).astimezone(zone)
        last_ms = after_ms
        for moment in CronSim(schedule.cron, begin):
            slot_ms = (moment.astimezone(UTC) - _EPOCH) // _MS
            if slot_ms > WALL_MS_MAX:
                return
            # In an hour that comes twice cronsim goes by the hands of the clock, once back with them.
            if slot_ms > last_ms:
                last_ms = slot_ms
                yield slot_ms
    except CronSimError as error:
        raise ValueError(f'cron: "{schedule.cron}" makes no sense ({error})') from None
    except OverflowError:
        return  # After the last year there is.


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f'timezone: "{name[:80]}" is unknown here; write one as in "Europe/Berlin" or "UTC"'
        ) from None
