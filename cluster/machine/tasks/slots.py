"""Slots: what scheduled tasks wait for, and what happens when it comes.

RULE: a function of state, wall time of the entry and command. What a schedule's texts mean, and so
when a slot is, nodes know (`cluster/node/schedules.py`): a task *wants* its next slot, the leader
works it out and proposes it, the machine keeps it and fires it once.

A slot's time is wall time. The wall clock may jump, slots may not: each slot of a task lies after
its last one, whatever the clock does, and is one of fired, skipped (a run was still under way) or
missed (it came up later than the catch-up window allows).
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from sortedcontainers import SortedDict

from cluster.machine.commands.tasks import ALLOW, BUFFER, Schedule, SetSlot
from cluster.machine.core import Core
from cluster.machine.deadlines import TASK_SLOT
from cluster.machine.events import Event
from cluster.machine.limits import RUNS_PER_TASK_MAX
from cluster.machine.outcome.tasks import Wanted
from cluster.machine.tasks.pools import KIND, Slot, Task, Timing


class Slots:
    """Timers of scheduled tasks, and the questions that leaders answer."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._wanting = SortedDict()

    def __len__(self) -> int:
        """How many tasks want to know their next slot."""
        return len(self._wanting)

    def schedule(self, task: Task, schedule: Schedule, paused: bool) -> None:
        """Give a task a schedule, or another one; its first slot lies after now."""
        before, core = task.timing, self._core
        timing = Timing(schedule, paused, core.tokens.next(), core.wall_ms)
        if before is not None:
            self._stop(before)
            timing.after_ms = max(timing.after_ms, before.after_ms)
            timing.buffered_ms = before.buffered_ms
            timing.fired = before.fired
            timing.skipped = before.skipped
            timing.missed = before.missed
        task.timing = timing
        self.restore(task)

    def unschedule(self, task: Task) -> None:
        """Take a task's schedule away; its runs stay."""
        assert task.timing is not None
        self._stop(task.timing)
        task.timing = None

    def pause(self, task: Task, paused: bool) -> None:
        """Let a schedule stand still, or go on after now."""
        timing, core = task.timing, self._core
        assert timing is not None
        if timing.paused == paused:
            return
        timing.paused = paused
        if paused:
            self._stop(timing)
        else:
            timing.after_ms = max(timing.after_ms, core.wall_ms)
            self._want(task, timing)
        self._tell("paused" if paused else "resumed", task, ())

    def set(self, task: Task, command: SetSlot) -> bool:
        """Take the answer of a leader. False: it is void."""
        timing, slot_ms = task.timing, command.slot_ms
        if timing is None or self._wanting.get(command.revision) is not task:
            return False
        if slot_ms is not None and slot_ms <= timing.after_ms:
            return False
        del self._wanting[command.revision]
        if command.missed:
            timing.missed += command.missed
            self._tell("missed", task, (("slots", command.missed),))
        if slot_ms is None:
            timing.is_over = True
        else:
            self.arm(task, timing, slot_ms, slot_ms + command.jitter_ms)
        return True

    def arm(self, task: Task, timing: Timing, slot_ms: int, due_ms: int) -> None:
        """Set the timer of a slot."""
        timing.slot = Slot(task, slot_ms, due_ms)
        self._core.wall_deadlines.arm(TASK_SLOT, timing.revision, timing.slot)

    def due(self, slot: Slot) -> None:
        """A slot has come: a run, unless it is too late; then the next one is wanted."""
        task = slot.task
        timing = task.timing
        assert timing is not None
        timing.slot = None
        timing.after_ms = slot.slot_ms
        if self._core.wall_ms - slot.due_ms > timing.schedule.catchup_ms:
            timing.missed += 1
            self._tell("missed", task, (("slot_ms", slot.slot_ms), ("slots", 1)))
        else:
            self.fire(task, slot.slot_ms)
        self._want(task, timing)

    def fire(self, task: Task, slot_ms: int) -> str:
        """Make a run for a slot, as the schedule's overlap says.

        Returns:
            "started", "buffered" or "skipped".
        """
        timing = task.timing
        assert timing is not None
        overlap = timing.schedule.overlap
        if not task.runs or (overlap == ALLOW and len(task.runs) < RUNS_PER_TASK_MAX):
            self._start(task, timing, slot_ms)
            return "started"
        if overlap == BUFFER and timing.buffered_ms is None:
            timing.buffered_ms = slot_ms
            self._tell("buffered", task, (("slot_ms", slot_ms),))
            return "buffered"
        timing.skipped += 1
        self._tell("skipped", task, (("slot_ms", slot_ms),))
        return "skipped"

    def ended(self, task: Task) -> None:
        """The last run of a task is over: a slot that waits for that goes on."""
        timing = task.timing
        assert timing is not None
        if timing.buffered_ms is not None:
            slot_ms, timing.buffered_ms = timing.buffered_ms, None
            self._start(task, timing, slot_ms)

    def wanting(self, after: int, limit: int) -> list[Wanted]:
        """At most so many questions with a revision above `after`, in order of revision."""
        revisions = self._wanting.irange(minimum=after, inclusive=(False, True))
        return [self._wanting[revision].wanted for revision in islice(revisions, limit)]

    def restore(self, task: Task) -> None:
        """Ask the question of a task anew that was asked under its revision."""
        timing = task.timing
        assert timing is not None
        if timing.is_wanting:
            self._wanting[timing.revision] = task

    def _want(self, task: Task, timing: Timing) -> None:
        timing.revision = self._core.tokens.next()
        timing.is_over = False
        self.restore(task)

    def _stop(self, timing: Timing) -> None:
        self._wanting.pop(timing.revision, None)
        if timing.slot is not None:
            self._core.wall_deadlines.disarm(timing.slot)
            timing.slot = None

    def _start(self, task: Task, timing: Timing, slot_ms: int) -> None:
        timing.fired += 1
        task.pool.add_run(task, slot_ms)
        self._core.unsettle(KIND, task.pool.name)
        self._tell("fired", task, (("slot_ms", slot_ms),))

    def _tell(self, what: str, task: Task, more: tuple[tuple[str, Any], ...]) -> None:
        named = (("task", task.id), *more)
        self._core.events.append(Event(what, KIND, task.pool.name, more=named))
