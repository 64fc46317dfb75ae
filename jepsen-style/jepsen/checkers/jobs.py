"""K7: no job is lost, early, with two workers at a time, or ended twice.

RULE: judges by what was put, reserved and ended for sure; bodies are unique in a history.

| f | key | invoke | ok |
|---|---|---|---|
| `job.put` | tube | `body` (unique), `delay_ms` (0), `ttr_ms` (60000), `key` | `job`; refused: `code` |
| `job.reserve` | tube | `wait_ms`, `limit`, `session` (optional) | `jobs: [{job, body, token}]` |
| `job.touch` | tube | `job`, `token` | – |
| `job.release` | tube | `job`, `token`, `delay_ms` (0) | – |
| `job.bury` | tube | `job`, `token` | – |
| `job.kick` | tube | `job` | `kicked` |
| `job.kick_tube` | tube | – | `kicked` |
| `job.delete` | tube | `job`, `token` | –; refused: `code` (`stale_token`, `job_not_found`) |
| `job.cancel` | tube | `job` | `cancelled` |
| `job.read` | tube | `job` | `job`, `state`, `body`; gone: `code` `job_not_found` |
| `job.list` | tube | – | `jobs: [{job, state, body}]`: every live job of the tube, all pages of all states |

Total queue: at the end, after draining, one `job.list` of each tube. A reservation by a worker that
hangs up while it waits may exist though nobody heard of it; it is over after its TTR. A session of a
reservation must be in the history. Jobs stay in their tube (no dead letters, or listed too).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jepsen.checkers.reading import Call, Complaints, Hold, Lives, Rates, calls, overlaps, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict

TTR_MS: Final = 60_000
"""Of a job that was put without one."""

ENDS: Final = frozenset({"job.delete", "job.release", "job.bury"})


@dataclass(slots=True)
class Told:
    """All that the history says of one job.

    Attributes:
        reserves: each with the token it gave.
        actions: everything that was asked of it by its id.
    """

    job: int
    put: Call | None = None
    body: Any = None
    reserves: list[tuple[Call, int]] = field(default_factory=list)
    actions: list[Call] = field(default_factory=list)

    def acts(self, f: str) -> list[Call]:
        """What was done to it by that verb, and happened or may have."""
        return [call for call in self.actions if call.f == f and call.may_have_happened]


class Jobs:
    """K7: every job is there until it is ended, once, and has one worker at a time."""

    name = "K7 jobs"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        jobs = told_of(made, complaints)
        kicks = [c for c in made if c.f == "job.kick_tube" and c.may_have_happened]
        for told in jobs.values():
            _ended_once(told, complaints)
            _early(told, kicks, rates, complaints)
            _stale(told, complaints)
        for one, other in overlaps(job_holds(jobs.values(), lives, rates)):
            complaints.add(
                f"job {one.what[1]} is reserved under {one.token} and under {other.token}",
                one.call,
                other.call,
            )
        _cancelled_while_held(jobs, lives, rates, complaints)
        _lost(jobs, made, complaints)
        puts = sum(told.put is not None for told in jobs.values())
        reserves = sum(len(told.reserves) for told in jobs.values())
        return complaints.verdict(
            f"{tell(puts, 'acknowledged put')}, {tell(reserves, 'reservation')} of "
            f"{tell(len(jobs), 'job')}",
            str(rates),
            seen=puts,
        )


def told_of(made: Sequence[Call], complaints: Complaints) -> dict[int, Told]:
    """Jobs by their id. Complains of a body that nobody put, or that is in two jobs."""
    jobs: dict[int, Told] = {}
    puts: dict[tuple[str, str], Call] = {}
    ids: dict[tuple[str, str], tuple[int, Call]] = {}

    def meet(job: int, tube: str, body: Any, call: Call) -> Told:
        told = jobs.setdefault(job, Told(job))
        if body is None:
            return told
        told.body = body
        place = (tube, str(body))
        put = puts.get(place)
        if put is None or put.start_ns > call.end_ns:
            complaints.add(f"job {job} of {tube!r} has a body that nobody put: {body!r}", call)
        other, first = ids.setdefault(place, (job, call))
        if other != job:
            complaints.add(
                f"one put of {body!r} has made two jobs, {other} and {job}", put, first, call
            )
        return told

    for call in made:
        if call.f == "job.put" and call.may_have_happened:
            puts.setdefault((call.key, str(call.value.get("body"))), call)
    for call in made:
        if call.f == "job.put" and call.is_ok:
            meet(int(call.answer["job"]), call.key, call.value.get("body"), call).put = call
        elif call.f == "job.reserve" and call.is_ok:
            for job in call.answer.get("jobs", ()):
                told = meet(int(job["job"]), call.key, job.get("body"), call)
                told.reserves.append((call, int(job["token"])))
        elif call.f == "job.list" and call.is_ok:
            for job in call.answer.get("jobs", ()):
                meet(int(job["job"]), call.key, job.get("body"), call)
        elif call.f.startswith("job.") and "job" in call.value:
            body = call.answer.get("body") if call.f == "job.read" and call.is_ok else None
            job_id = int(call.value["job"])
            meet(job_id, call.key, body, call).actions.append(call)
    return jobs


def _is_end(call: Call) -> bool:
    """It has ended the job, for sure."""
    if call.f == "job.cancel":
        return call.is_ok and bool(call.answer.get("cancelled"))
    return call.f == "job.delete" and call.is_ok


def _ended_once(told: Told, complaints: Complaints) -> None:
    """One end at most, and nothing after it."""
    ends = [call for call in told.actions if _is_end(call)]
    if len(ends) > 1:
        complaints.add(f"job {told.job} was ended twice", *ends[:2])
    for end in ends:
        for reserve, token in told.reserves:
            if reserve.start_ns > end.end_ns:
                complaints.add(
                    f"job {told.job} was given out under {token} after its end", end, reserve
                )
        for call in told.actions:
            if call.f == "job.read" and call.is_ok and call.start_ns > end.end_ns:
                complaints.add(f"job {told.job} is there after its end", end, call)


def _early(told: Told, kicks: Sequence[Call], rates: Rates, complaints: Complaints) -> None:
    """Nobody has it before its delay is over, unless it was kicked."""
    delays = [call for call in told.acts("job.release") if call.is_ok]
    delays += [told.put] if told.put is not None else []
    kicked = [*told.acts("job.kick"), *kicks]
    for delayed in delays:
        delay_ms = int(delayed.value.get("delay_ms") or 0)
        token = int(delayed.value.get("token") or 0)
        due_ns = delayed.start_ns + rates.surely_ns(delay_ms)
        for reserve, newer in told.reserves:
            if newer <= token or reserve.end_ns >= due_ns:
                continue
            if any(k.end_ns > delayed.start_ns and k.start_ns < reserve.end_ns for k in kicked):
                continue
            complaints.add(
                f"job {told.job} was given out {(due_ns - reserve.end_ns) // 1_000_000} ms before "
                f"its delay of {delay_ms} ms was over",
                delayed,
                reserve,
            )


def _stale(told: Told, complaints: Complaints) -> None:
    """A token of an earlier reservation does nothing any more."""
    for call in told.actions:
        if call.f not in ENDS | {"job.touch"} or not call.is_ok:
            continue
        token = int(call.value.get("token") or 0)
        for reserve, newer in told.reserves:
            if newer > token and reserve.end_ns < call.start_ns:
                complaints.add(
                    f"{call.f} of job {told.job} was accepted under {token}, though it had been "
                    f"given out under {newer}",
                    reserve,
                    call,
                )


def job_holds(jobs: Iterable[Told], lives: Lives, rates: Rates) -> Iterator[Hold]:
    """Reservations, from when they were told to when they may be over."""
    for told in jobs:
        put = told.put
        for reserve, token in told.reserves:
            ttr_ms = TTR_MS if put is None else int(put.value.get("ttr_ms") or TTR_MS)
            for job in reserve.answer["jobs"]:
                if job["job"] == told.job:
                    ttr_ms = int(job.get("ttr_ms") or ttr_ms)
            until_ns = reserve.start_ns + rates.surely_ns(ttr_ms)
            for call in told.actions:
                if call.value.get("token") == token and call.f == "job.touch" and call.is_ok:
                    until_ns = max(until_ns, call.start_ns + rates.surely_ns(ttr_ms))
            for call in told.actions:
                if call.value.get("token") == token and call.f in ENDS:
                    until_ns = min(until_ns, call.start_ns)
            if reserve.session:
                until_ns = min(until_ns, lives.held_until_ns(reserve.session))
            what = ("job", str(told.job))
            yield Hold(what, reserve.session, token, reserve, reserve.end_ns, until_ns)


def _cancelled_while_held(
    jobs: Mapping[int, Told], lives: Lives, rates: Rates, complaints: Complaints
) -> None:
    """What a worker has cannot be cancelled."""
    for hold in job_holds(jobs.values(), lives, rates):
        for call in jobs[int(hold.what[1])].actions:
            if call.f == "job.cancel" and _is_end(call) and hold.covers(call):
                complaints.add(
                    f"job {hold.what[1]} was cancelled while it was reserved under {hold.token}",
                    hold.call,
                    call,
                )


def _lost(jobs: Mapping[int, Told], made: Sequence[Call], complaints: Complaints) -> None:
    """Total queue: what was put is ended, or may have been, or is listed at the end."""
    lists: dict[str, Call] = {}
    for call in made:
        if call.f == "job.list" and call.is_ok:
            lists[call.key] = call
    for told in jobs.values():
        put = told.put
        if put is None or put.key not in lists:
            continue
        last = lists[put.key]
        if put.end_ns > last.start_ns:
            continue
        if any(
            call.f in {"job.delete", "job.cancel"}
            and call.may_have_happened
            and (call.is_open or _is_end(call))
            for call in told.actions
        ):
            continue
        listed = {int(job["job"]) for job in last.answer.get("jobs", ())}
        if told.job not in listed:
            complaints.add(f"job {told.job} of {put.key!r} is lost: {told.body!r}", put, last)
