"""K12: what was acknowledged is there: a later read shows every effect that nobody could have undone.

RULE: only linearizable reads, and only effects that were sure for the whole of the read: granted
before it was asked, and not possibly given back, expired or revoked before it was answered.

Reads what `locks`, `semaphores`, `tickets`, `sessions`, `jobs`, `order`, `rooms` and `tasks` name:
`lock.read`, `semaphore.read`, `ticket.read`, `session.read`, `job.read`, `job.list`, `fifo.read`,
`room.read` (`joined`), `task.read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from jepsen.checkers.locks import lock_holds
from jepsen.checkers.reading import Call, Complaints, Hold, Lives, Rates, calls, is_stale, tell
from jepsen.checkers.semaphores import unit_holds
from jepsen.checkers.tickets import ticket_holds
from jepsen.history import Line
from jepsen.verdicts import Verdict


class Durability:
    """K12: reads show what must be there."""

    name = "K12 durability"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        held: dict[tuple[str, str], list[Hold]] = {}
        holds = chain(lock_holds(made, lives), unit_holds(made, lives), ticket_holds(made, lives))
        for hold in holds:
            if hold.is_sure:
                held.setdefault((hold.what[0], hold.what[1]), []).append(hold)
        seen = reads = 0
        for read in made:
            room, _, verb = read.f.partition(".")
            if verb != "read" or is_stale(read) or not (read.is_ok or read.code):
                continue
            reads += 1
            for hold in held.get((room, read.key), ()):
                if hold.covers(read):
                    seen += 1
                    _is_shown(hold, read, complaints)
        seen += _sessions(made, lives, complaints)
        seen += _tickets(made, lives, complaints)
        seen += _jobs(made, complaints)
        seen += _tasks(made, complaints)
        return complaints.verdict(
            f"{tell(reads, 'read')}, {tell(seen, 'effect')} that had to be shown", str(rates)
        )


def _is_shown(hold: Hold, read: Call, complaints: Complaints) -> None:
    answer = read.answer
    if hold.what[0] == "ticket":
        shown = [
            (str(t["claimant"]), t.get("claim_token"))
            for t in answer.get("tickets") or ()
            if str(t["ticket"]) == hold.what[2]
        ]
        # A long list has further pages.
        if read.is_ok and len(answer.get("tickets") or ()) < answer.get("ticket_count", 0):
            return
    else:
        shown = [(str(h["session"]), h.get("token")) for h in answer.get("holders") or ()]
    if (hold.session, hold.token) not in shown:
        complaints.add(
            f"{hold.session} holds {'/'.join(hold.what[1:])!r} under {hold.token}, and a read "
            f"shows {shown}",
            hold.call,
            read,
        )


def _sessions(made: Sequence[Call], lives: Lives, complaints: Complaints) -> int:
    """A session that lives is known."""
    seen = 0
    for read in made:
        if read.f != "session.read" or not (read.is_ok or read.code) or is_stale(read):
            continue
        life = lives.by_session.get(read.key)
        if life is None or life.opened.end_ns > read.start_ns:
            continue
        if read.end_ns < life.held_until_ns:
            seen += 1
            if not read.is_ok:
                complaints.add(
                    f"session {read.key} lives, and a read says {read.code}", life.opened, read
                )
    return seen


def _tickets(made: Sequence[Call], lives: Lives, complaints: Complaints) -> int:
    """A ticket that was issued is listed, until it is revoked or its issuer may have ended."""
    seen = 0
    about: dict[tuple[str, str], list[Call]] = {}
    for call in made:
        if call.f in {"ticket.issue", "ticket.revoke"} and call.may_have_happened:
            about.setdefault((call.key, str(call.value.get("ticket"))), []).append(call)
    for read in made:
        if read.f != "ticket.read" or not (read.is_ok or read.code) or is_stale(read):
            continue
        listed = {str(ticket["ticket"]) for ticket in read.answer.get("tickets") or ()}
        if len(listed) < read.answer.get("ticket_count", 0):
            continue
        for (resource, ticket), some in about.items():
            if resource != read.key:
                continue
            before = [c for c in some if c.start_ns < read.end_ns]
            issued = [c for c in before if c.is_ok and c.f == "ticket.issue"]
            surely = [c for c in issued if c.end_ns < read.start_ns]
            if not surely or any(c.f == "ticket.revoke" for c in before):
                continue
            # Whoever issued it may own it, and take it along.
            ends = [lives.held_until_ns(c.session) for c in before]
            if min(ends) < read.end_ns:
                continue
            seen += 1
            if ticket not in listed:
                complaints.add(
                    f"ticket {ticket!r} of {resource!r} was issued, and is not listed",
                    surely[-1],
                    read,
                )
    return seen


def _jobs(made: Sequence[Call], complaints: Complaints) -> int:
    """A job that was put and not ended is there."""
    puts = {int(c.answer["job"]): c for c in made if c.f == "job.put" and c.is_ok}
    ended: dict[int, int] = {}
    for call in made:
        if call.f in {"job.delete", "job.cancel"} and call.may_have_happened:
            job = int(call.value["job"])
            ended[job] = min(ended.get(job, call.start_ns), call.start_ns)
    seen = 0
    for read in made:
        if read.f != "job.read" or not (read.is_ok or read.code):
            continue
        job = int(read.value["job"])
        put = puts.get(job)
        if put is None or put.end_ns > read.start_ns:
            continue
        if job in ended and ended[job] < read.end_ns:
            continue
        seen += 1
        if not read.is_ok:
            complaints.add(f"job {job} was put, and a read says {read.code}", put, read)
        elif "body" in read.answer and read.answer["body"] != put.value.get("body"):
            complaints.add(f"job {job} has another body than it was put with", put, read)
    return seen


def _tasks(made: Sequence[Call], complaints: Complaints) -> int:
    """A task that was put, and that nobody finished or removed, is listed."""
    seen = 0
    gone: dict[tuple[str, str], int] = {}
    puts: dict[tuple[str, str], Call] = {}
    for call in made:
        ids: list[str] = []
        if call.f == "task.finish":
            ids = [str(task["id"]) for task in call.value.get("tasks", ())]
        elif call.f == "task.remove":
            ids = [str(call.value.get("id"))]
        for id in ids:
            gone[call.key, id] = min(gone.get((call.key, id), call.start_ns), call.start_ns)
        if call.f == "task.put" and call.is_ok:
            for task in call.value.get("tasks", ()):
                puts.setdefault((call.key, str(task["id"])), call)
    replaced = {c.key for c in made if c.f == "task.put" and c.value.get("replace")}
    for read in made:
        if read.f != "task.read" or not read.is_ok or is_stale(read) or read.key in replaced:
            continue
        listed = {str(task["id"]) for task in read.answer.get("tasks") or ()}
        if len(listed) < read.answer.get("task_count", 0):
            continue
        for (pool, id), put in puts.items():
            if pool != read.key or put.end_ns > read.start_ns:
                continue
            if gone.get((pool, id), read.end_ns) < read.end_ns:
                continue
            seen += 1
            if id not in listed:
                complaints.add(f"task {id!r} of {pool!r} was put, and is not listed", put, read)
    return seen
