"""K2: a lock has one holder or several sharers; tokens rise for ever and none comes twice.

RULE: judges what holders knew for sure (see the package), and the order of tokens; nothing else.

Reads, besides `session.*`:

| f | key | invoke | ok |
|---|---|---|---|
| `lock.acquire` | lock | `session`, `mode` (exclusive), `wait_ms` (0), `priority` (0) | `token`, `mode`; refused: `code`, `holder_token` |
| `lock.release` | lock | `session`, `token` | – |
| `lock.check` | lock | `token` | `valid`, `current_token` |
| `lock.read` | lock | – | `holders: [{session, token, mode}]`, `waiters: [{session, mode, priority}]` in order |
| `lock.acquire_many` | "" | `session`, `locks: [{name, mode}]`, `wait_ms` | `locks: [{name, token, mode}]` |
| `lock.release_many` | "" | `session`, `locks: [{name, token}]` | – |

Tokens are the cluster's: those of semaphores, tickets, turns, reservations and runs are looked at
too for being given twice (`token` of `semaphore.acquire`, `ticket.claim`, `fifo.wait`, each job of
`job.reserve`, each task of `task.work`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jepsen.checkers.reading import Call, Complaints, Hold, Lives, Rates, calls, overlaps, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict

TOLD = frozenset({"semaphore.acquire", "ticket.claim", "fifo.wait", "job.reserve", "task.work"})
"""Calls besides those of locks whose answers have tokens of grants."""


class MutualExclusion:
    """K2: one holder, or several sharers."""

    name = "K2 mutual exclusion"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        holds = list(lock_holds(made, lives))
        for one, other in overlaps(holds):
            complaints.add(
                f"{one.what[1]!r} is held by {one.session} under {one.token} and by "
                f"{other.session} under {other.token}",
                one.call,
                other.call,
                _last_sure(one, lives),
                _last_sure(other, lives),
            )
        sure = sum(hold.is_sure for hold in holds)
        keys = len({hold.what for hold in holds})
        summary = f"{tell(len(holds), 'grant')} of {tell(keys, 'lock')}, {sure} held for sure"
        return complaints.verdict(summary, str(rates), seen=len(holds))


def _last_sure(hold: Hold, lives: Lives) -> Call | None:
    """The renewal that makes sure that it was held."""
    life = lives.by_session.get(hold.session)
    return None if life is None else max(life.renewals, key=lambda call: call.start_ns)


def lock_holds(made: Sequence[Call], lives: Lives) -> Iterator[Hold]:
    """Every acknowledged grant of a lock, by one call or another, once."""
    given: dict[tuple[str, str, int], int] = {}
    alone: dict[tuple[str, str], list[Call]] = {}
    for call in made:
        for name, session, token in _given_back(call):
            place = (name, session, token)
            given[place] = min(given.get(place, call.start_ns), call.start_ns)
        for name, mode in _wanted(call):
            if mode == "exclusive":
                alone.setdefault((name, call.session), []).append(call)
    seen: set[tuple[str, str, int]] = set()
    for call in made:
        for name, token, mode in grants(call):
            place = (name, call.session, token)
            if place in seen:
                continue
            seen.add(place)
            until_ns = min(
                given.get(place, lives.held_until_ns(call.session)),
                lives.held_until_ns(call.session),
            )
            if mode == "shared":
                # Who asks for it alone gets another token in its place.
                later = [
                    c.start_ns
                    for c in alone.get((name, call.session), [])
                    if c.start_ns > call.start_ns
                ]
                until_ns = min([until_ns, *later])
            yield Hold(
                ("lock", name), call.session, token, call, call.end_ns, until_ns, mode == "shared"
            )


def grants(call: Call) -> Iterator[tuple[str, int, str]]:
    """Name, token and mode of every lock that the call was granted."""
    if not call.is_ok:
        return
    if call.f == "lock.acquire" and "token" in call.answer:
        mode = call.answer.get("mode") or call.value.get("mode", "exclusive")
        yield call.key, int(call.answer["token"]), str(mode)
    elif call.f == "lock.acquire_many":
        for lock in call.answer.get("locks", ()):
            yield str(lock["name"]), int(lock["token"]), str(lock.get("mode", "exclusive"))


def _wanted(call: Call) -> Iterator[tuple[str, str]]:
    if call.f == "lock.acquire":
        yield call.key, str(call.value.get("mode", "exclusive"))
    elif call.f == "lock.acquire_many":
        for lock in call.value.get("locks", ()):
            yield str(lock["name"]), str(lock.get("mode", "exclusive"))


def _given_back(call: Call) -> Iterator[tuple[str, str, int]]:
    if call.f == "lock.release":
        yield call.key, call.session, int(call.value.get("token") or 0)
    elif call.f == "lock.release_many":
        for lock in call.value.get("locks", ()):
            yield str(lock["name"]), call.session, int(lock["token"])


@dataclass(frozen=True, slots=True)
class Given:
    """A token that somebody was told.

    Attributes:
        scope: within which tokens rise.
        owner: what it was given for; the same again may be told again.
        is_fresh: it was made within the call, for sure.
    """

    scope: tuple[str, ...]
    owner: tuple[str, ...]
    token: int
    call: Call
    is_fresh: bool


class Tokens:
    """K2: no token is given twice, and a later grant has a larger one."""

    name = "K2 tokens"

    def check(self, lines: Sequence[Line]) -> Verdict:
        complaints = Complaints(self.name)
        all_given = list(_tokens(calls(lines)))
        first: dict[int, Given] = {}
        for given in all_given:
            other = first.setdefault(given.token, given)
            if other.owner != given.owner:
                complaints.add(
                    f"token {given.token} was given for {'/'.join(other.owner)} and for "
                    f"{'/'.join(given.owner)}",
                    other.call,
                    given.call,
                )
        scopes: dict[tuple[str, ...], list[Given]] = {
            ("all",): [g for g in all_given if g.is_fresh]
        }
        for given in all_given:
            scopes.setdefault(given.scope, []).append(given)
        for scope, some in scopes.items():
            for earlier, later in _falling(some):
                complaints.add(
                    f"token {later.token} of {'/'.join(later.owner)} came after {earlier.token} "
                    f"of {'/'.join(earlier.owner)} ({'/'.join(scope)})",
                    earlier.call,
                    later.call,
                )
        things = len(scopes) - 1
        return complaints.verdict(
            f"{tell(len(all_given), 'token')} given for {tell(things, 'thing')}",
            seen=len(all_given),
        )


def _falling(some: list[Given]) -> Iterator[tuple[Given, Given]]:
    """Pairs of which the second was asked for after the first was told, and is not larger."""
    told = sorted(some, key=lambda given: given.call.end_ns)
    at = 0
    newest: Given | None = None
    owners: dict[tuple[str, ...], set[int]] = {}
    for given in sorted(some, key=lambda given: given.call.start_ns):
        while at < len(told) and told[at].call.end_ns < given.call.start_ns:
            if newest is None or told[at].token > newest.token:
                newest = told[at]
            at += 1
        known = owners.setdefault(given.owner, set())
        is_known = given.token in known
        known.add(given.token)
        if newest is None or is_known or not given.is_fresh:
            continue
        if given.token <= newest.token:
            yield newest, given


def _tokens(made: Sequence[Call]) -> Iterator[Given]:
    vague: set[tuple[str, ...]] = set()
    for call in made:
        session = call.session
        if call.is_open:
            # Who may have it already is told its old token.
            vague.update(("lock", name, session) for name, _ in _wanted(call))
            if call.f == "ticket.claim":
                vague.add(("ticket", call.key, session))
        if not call.is_ok:
            continue
        for name, token, _ in grants(call):
            owner: tuple[str, ...] = ("lock", name, session)
            yield Given(("lock", name), owner, token, call, owner not in vague)
        if call.f not in TOLD:
            continue
        token = int(call.answer.get("token") or 0)
        ticket = str(call.answer.get("ticket") or call.value.get("ticket"))
        if call.f == "semaphore.acquire" and token:
            owner = ("semaphore", call.key, session)
            yield Given(("semaphore", call.key), owner, token, call, is_fresh=True)
        elif call.f == "ticket.claim" and token:
            is_fresh = ("ticket", call.key, session) not in vague
            owner = ("ticket", call.key, ticket, session)
            yield Given(("ticket", call.key, ticket), owner, token, call, is_fresh)
        elif call.f == "fifo.wait" and token:
            owner = ("fifo", call.key, ticket)
            yield Given(("fifo", call.key), owner, token, call, is_fresh=False)
        elif call.f == "job.reserve":
            for job in call.answer.get("jobs", ()):
                owner = ("job", str(job["job"]))
                yield Given(owner, owner, int(job["token"]), call, is_fresh=True)
        elif call.f == "task.work":
            for task in call.answer.get("tasks", ()):
                owner = ("task", call.key, str(task["id"]), session)
                yield Given(owner[:3], owner, int(task["token"]), call, is_fresh=False)
