"""K4: no more units are out than there are, and what is out and what is free make the limit.

RULE: judges what holders had for sure (see the package), and what reads say of themselves. A limit is
known from `semaphore.set` only.

| f | key | invoke | ok |
|---|---|---|---|
| `semaphore.set` | name | `limit` | `limit` |
| `semaphore.acquire` | name | `session`, `units` (1), `wait_ms`, `priority` | `token`, `units`; refused: `code` |
| `semaphore.release` | name | `session`, `token` | – |
| `semaphore.read` | name | – | `limit`, `held`, `free`, `holders: [{session, token, units}]`, `waiters: [{session, units, priority}]` |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jepsen.checkers.reading import Call, Complaints, Hold, Lives, Rates, calls, is_stale, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict


class Capacity:
    """K4: units out never exceed the limit, and reads add up."""

    name = "K4 capacity"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        limits = Limits(made)
        holds = list(unit_holds(made, lives))
        by_name: dict[str, list[Hold]] = {}
        for hold in holds:
            if hold.is_sure:
                by_name.setdefault(hold.what[1], []).append(hold)
        judged = 0
        for name, some in by_name.items():
            some.sort(key=lambda hold: hold.from_ns)
            active: list[Hold] = []
            for hold in some:
                active = [other for other in active if other.until_ns > hold.from_ns]
                active.append(hold)
                out = sum(other.units for other in active)
                since_ns = min(other.call.start_ns for other in active)
                most = limits.most(name, since_ns, hold.from_ns)
                judged += most is not None
                if most is not None and out > most:
                    complaints.add(
                        f"{out} units of {name!r} are out, and its limit is {most}",
                        *(other.call for other in active),
                    )
        reads = 0
        for call in made:
            if call.f == "semaphore.read" and call.is_ok and not is_stale(call):
                reads += 1
                _balance(call, limits, complaints)
        return complaints.verdict(
            f"{tell(len(holds), 'grant')} of {tell(len(limits.sets), 'semaphore')}, "
            f"{tell(reads, 'read')}",
            str(rates),
            seen=judged,
        )


def _balance(call: Call, limits: Limits, complaints: Complaints) -> None:
    answer = call.answer
    held = sum(int(holder.get("units", 1)) for holder in answer["holders"])
    if held != answer["held"] or answer["free"] != max(0, answer["limit"] - answer["held"]):
        complaints.add(
            f"{call.key!r} has {answer['held']} held and {answer['free']} free of "
            f"{answer['limit']}, and its holders have {held}",
            call,
        )
    possible = limits.possible(call.key, call.start_ns, call.end_ns)
    if possible and answer["limit"] not in possible:
        complaints.add(
            f"{call.key!r} says its limit is {answer['limit']}; it can only be {sorted(possible)}",
            call,
        )
    most = limits.most(call.key, 0, call.end_ns)
    if most is not None and held > most:
        complaints.add(f"{held} units of {call.key!r} are out; its limit was at most {most}", call)


class Limits:
    """Which limit a semaphore may have had when."""

    def __init__(self, made: Sequence[Call]) -> None:
        self.sets: dict[str, list[Call]] = {}
        for call in made:
            if call.f == "semaphore.set" and call.may_have_happened:
                self.sets.setdefault(call.key, []).append(call)

    def possible(self, name: str, from_ns: int, until_ns: int) -> set[int]:
        """All it may have been within a time; empty where it is not known."""
        sets = self.sets.get(name, [])
        found = set()
        for one in sets:
            if one.start_ns >= until_ns:
                continue
            is_replaced = any(
                two.is_ok and two.start_ns > one.end_ns and two.end_ns < from_ns for two in sets
            )
            if not is_replaced:
                found.add(int(one.value["limit"]))
        return found

    def most(self, name: str, from_ns: int, until_ns: int) -> int | None:
        """The largest of them."""
        return max(self.possible(name, from_ns, until_ns), default=None)


def unit_holds(made: Sequence[Call], lives: Lives) -> Iterator[Hold]:
    """Every acknowledged grant of units."""
    given: dict[tuple[str, int], int] = {}
    for call in made:
        if call.f == "semaphore.release":
            place = (call.key, int(call.value.get("token") or 0))
            given[place] = min(given.get(place, call.start_ns), call.start_ns)
    for call in made:
        if call.f == "semaphore.acquire" and call.is_ok:
            token = int(call.answer["token"])
            until_ns = lives.held_until_ns(call.session)
            until_ns = min(until_ns, given.get((call.key, token), until_ns))
            units = int(call.answer.get("units") or call.value.get("units") or 1)
            what = ("semaphore", call.key)
            yield Hold(what, call.session, token, call, call.end_ns, until_ns, units=units)
