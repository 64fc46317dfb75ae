"""K8: a task has one worker at a time, shares differ by one at most, slots come as their policy says.

RULE: judges runs that workers had for sure, and what reads of a pool say of themselves.

| f | key | invoke | ok |
|---|---|---|---|
| `task.put` | pool | `tasks: [{id, data, schedule: {every_ms, start_ms, overlap, catchup_window_ms}}]`, `give_back`, `cap` | – |
| `task.work` | pool | `session`, `limit`, `wait_ms` | `share`, `tasks: [{id, token, slot_ms}]`, `given_back: [{id, token}]` |
| `task.finish` | pool | `session`, `tasks: [{id, token}]` | `finished: [id]`, `refused` |
| `task.release` | pool | `session`, `tasks: [{id, token}]` | `released: [id]`, `refused` |
| `task.leave` | pool | `session` | – |
| `task.remove` | pool | `id` | – |
| `task.read` | pool | – | `share`, `sessions: [{session, held, share}]`, `task_count`, `run_count`, `free_count`, `tasks: [{id, state, holder, token, runs: [{slot_ms, holder, token}], fired, skipped, missed, schedule: {every_ms, paused}, next_slot_ms, buffered_slot_ms}]` |

The pool's `Work` answers all that the session holds, not only what is new. One session uses a pool
from one process at a time. `slot_ms` is wall time of the schedule.

Slots are counted between two reads: what was fired, skipped, missed and buffered since must be as many
as there are slots from the one's `next_slot_ms` to the other's, whatever clocks and nodes did between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepsen.checkers.reading import (
    FOR_EVER_NS,
    Call,
    Complaints,
    Hold,
    Lives,
    Rates,
    calls,
    is_stale,
    overlaps,
    tell,
)
from jepsen.history import Line
from jepsen.verdicts import Verdict


class Tasks:
    """K8: one worker for each run, fair shares, slots as the schedule says."""

    name = "K8 tasks"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        pools = sorted({call.key for call in made if call.f.startswith("task.")})
        holds = 0
        reads = slots = 0
        for pool in pools:
            some = [call for call in made if call.key == pool and call.f.startswith("task.")]
            schedules = _schedules(some)
            held = list(_task_holds(pool, some, schedules, lives))
            holds += len(held)
            for one, other in overlaps(held):
                complaints.add(
                    f"task {one.what[2]!r} of {pool!r} is held by {one.session} under {one.token} "
                    f"and by {other.session} under {other.token}",
                    one.call,
                    other.call,
                )
            _done_once(pool, some, complaints)
            _given(pool, some, schedules, complaints)
            looks = [call for call in some if call.f == "task.read" and call.is_ok]
            reads += len(looks)
            _reads(pool, looks, complaints)
            slots += _slots(pool, some, looks, complaints)
        return complaints.verdict(
            f"{tell(holds, 'run')} given out of {tell(len(pools), 'pool')}, {tell(reads, 'read')}, "
            f"{tell(slots, 'slot')} counted",
            str(rates),
            seen=holds,
        )


def _schedules(some: Sequence[Call]) -> dict[str, Mapping[str, Any]]:
    """Of the tasks that have one; the last that was put."""
    return {
        str(task["id"]): task["schedule"]
        for call in some
        if call.f == "task.put"
        for task in call.value.get("tasks", ())
        if task.get("schedule")
    }


def _task_holds(
    pool: str,
    some: Sequence[Call],
    schedules: Mapping[str, Mapping[str, Any]],
    lives: Lives,
) -> Iterator[Hold]:
    """Runs, from when they were told to when their worker may have lost them."""
    removed: dict[str, list[int]] = {}
    given: dict[tuple[str, int], int] = {}
    works: dict[str, list[Call]] = {}
    for call in some:
        if call.f == "task.remove":
            removed.setdefault(str(call.value.get("id")), []).append(call.start_ns)
        elif call.f in {"task.finish", "task.release"}:
            for task in call.value.get("tasks", ()):
                place = (str(task["id"]), int(task["token"]))
                given[place] = min(given.get(place, call.start_ns), call.start_ns)
        elif call.f in {"task.work", "task.leave"}:
            works.setdefault(call.session, []).append(call)
    seen: set[tuple[str, int]] = set()
    for call in some:
        if call.f != "task.work" or not call.is_ok:
            continue
        for task in call.answer.get("tasks", ()):
            id, token = str(task["id"]), int(task["token"])
            if (id, token) in seen:
                continue
            seen.add((id, token))
            ends = [lives.held_until_ns(call.session), given.get((id, token), FOR_EVER_NS)]
            ends += [ns for ns in removed.get(id, ()) if ns > call.start_ns]
            ends += [
                later.start_ns
                for later in works[call.session]
                if later.start_ns > call.start_ns and not _still_has(later, token)
            ]
            allows = schedules.get(id, {}).get("overlap") == "allow"
            what = ("task", pool, id, str(task.get("slot_ms"))) if allows else ("task", pool, id)
            yield Hold(what, call.session, token, call, call.end_ns, min(ends))


def _still_has(work: Call, token: int) -> bool:
    """The worker was told again that it has it."""
    return work.is_ok and any(task["token"] == token for task in work.answer.get("tasks", ()))


def _done_once(pool: str, some: Sequence[Call], complaints: Complaints) -> None:
    """A run is finished once, and is nobody's afterwards."""
    done: dict[tuple[str, int], Call] = {}
    for call in some:
        if call.f != "task.finish" or not call.is_ok:
            continue
        tokens = {str(task["id"]): int(task["token"]) for task in call.value.get("tasks", ())}
        for id in call.answer.get("finished", ()):
            other = done.setdefault((str(id), tokens[str(id)]), call)
            if other is not call:
                complaints.add(
                    f"task {id!r} of {pool!r} was finished twice under {tokens[str(id)]}",
                    other,
                    call,
                )
    for call in some:
        if call.f != "task.work" or not call.is_ok:
            continue
        for task in call.answer.get("tasks", ()):
            end = done.get((str(task["id"]), int(task["token"])))
            if end is not None and end.end_ns < call.start_ns:
                complaints.add(
                    f"task {task['id']!r} of {pool!r} is held under {task['token']}, which had "
                    "been finished",
                    end,
                    call,
                )


def _given(
    pool: str,
    some: Sequence[Call],
    schedules: Mapping[str, Mapping[str, Any]],
    complaints: Complaints,
) -> None:
    """Only what was put, only slots of the schedule, and new ones only up to one's share."""
    puts: dict[str, Call] = {}
    for call in some:
        if call.f == "task.put" and call.may_have_happened:
            for task in call.value.get("tasks", ()):
                puts.setdefault(str(task["id"]), call)
    seen: set[int] = set()
    for call in some:
        if call.f != "task.work" or not call.is_ok:
            continue
        tasks = call.answer.get("tasks", ())
        tokens = {int(task["token"]) for task in tasks}
        # What was told to another attempt that nobody heard is not new, and may be over the share.
        is_new = bool(tokens - seen) and not call.is_repeated
        seen |= tokens
        if (
            is_new
            and len(tasks) > call.answer.get("share", len(tasks))
            and not _is_vague(call, some)
        ):
            complaints.add(
                f"{call.session} got {len(tasks)} tasks of {pool!r}, and its share is "
                f"{call.answer['share']}",
                call,
            )
        for task in tasks:
            id, slot_ms = str(task["id"]), task.get("slot_ms")
            put = puts.get(id)
            if put is None or put.start_ns > call.end_ns:
                complaints.add(f"task {id!r} of {pool!r} was given out, and nobody put it", call)
            every_ms = schedules.get(id, {}).get("every_ms")
            start_ms = schedules.get(id, {}).get("start_ms") or 0
            if slot_ms is not None and every_ms and (slot_ms - start_ms) % every_ms:
                complaints.add(f"task {id!r} of {pool!r} runs at {slot_ms}, which is no slot", call)


def _is_vague(call: Call, some: Sequence[Call]) -> bool:
    """An earlier request of the session was never answered: what is new is not known."""
    return any(
        other.f == "task.work" and other.is_open and other.session == call.session
        for other in some
        if other.start_ns < call.start_ns
    )


def _reads(pool: str, looks: Sequence[Call], complaints: Complaints) -> None:
    """A picture of a pool adds up; what has become of slots is counted up only."""
    last: dict[str, tuple[Call, Mapping[str, Any]]] = {}
    for call in sorted(looks, key=lambda call: call.end_ns):
        if is_stale(call):
            continue
        answer = call.answer
        sessions = answer.get("sessions") or []
        shares = [int(one["share"]) for one in sessions]
        if shares and max(shares) - min(shares) > 1:
            complaints.add(f"shares of {pool!r} differ by more than one: {shares}", call)
        runs, free = answer.get("run_count"), answer.get("free_count")
        held = sum(int(one["held"]) for one in sessions)
        if runs is not None and free is not None and runs != held + free:
            complaints.add(f"{pool!r} has {runs} runs, {free} free and {held} held", call)
        if shares and runs is not None and max(shares) > -(-runs // len(shares)):
            complaints.add(
                f"a share of {pool!r} is {max(shares)}, of {runs} runs for {len(shares)}", call
            )
        for task in answer.get("tasks") or ():
            id = str(task["id"])
            earlier, before = last.get(id, (call, task))
            is_after = earlier.end_ns < call.start_ns
            for count in ("fired", "skipped", "missed"):
                if is_after and (task.get(count) or 0) < (before.get(count) or 0):
                    complaints.add(
                        f"task {id!r} of {pool!r} has {task.get(count)} slots {count}, and had "
                        f"{before.get(count)}",
                        earlier,
                        call,
                    )
            last[id] = (call, task)


def _slots(pool: str, some: Sequence[Call], looks: Sequence[Call], complaints: Complaints) -> int:
    """Every slot becomes one of four things, once. Returns how many slots were counted."""
    changes: dict[str, list[Call]] = {}
    for call in some:
        ids = [str(call.value.get("id"))]
        if call.f == "task.put":
            ids = [str(task["id"]) for task in call.value.get("tasks", ())]
        elif call.f not in {"task.pause", "task.resume", "task.remove", "task.run"}:
            continue
        for id in ids:
            changes.setdefault(id, []).append(call)
    counted = 0
    last: dict[str, tuple[Call, int, int]] = {}
    for call in sorted(looks, key=lambda call: call.end_ns):
        for task in call.answer.get("tasks") or ():
            id, every_ms = str(task["id"]), (task.get("schedule") or {}).get("every_ms")
            next_ms = task.get("next_slot_ms")
            if is_stale(call) or not every_ms or next_ms is None:
                # The next slot is being asked for: what lies between is not told yet.
                continue
            count = sum(int(task.get(name) or 0) for name in ("fired", "skipped", "missed"))
            count += task.get("buffered_slot_ms") is not None
            if id in last:
                earlier, before, next_before = last[id]
                is_after = earlier.end_ns < call.start_ns
                is_same = not any(
                    change.end_ns > earlier.start_ns and change.start_ns < call.end_ns
                    for change in changes.get(id, ())
                )
                if not is_after:
                    continue
                slots, rest = divmod(next_ms - next_before, every_ms)
                if is_same:
                    counted += slots
                    if rest or count - before != slots:
                        complaints.add(
                            f"task {id!r} of {pool!r} had {slots} slots, and tells of "
                            f"{count - before}",
                            earlier,
                            call,
                        )
            last[id] = call, count, next_ms
    return counted
