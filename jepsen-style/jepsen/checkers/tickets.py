"""K4: a ticket has one claimant, is what was issued, and reads balance: all = free + claimed.

RULE: judges what claimants had for sure: until they, the issuer, or anybody who issues or revokes
the ticket could have taken it away.

| f | key | invoke | ok |
|---|---|---|---|
| `ticket.issue` | resource | `session`, `ticket`, `data` | `token`, `created`, `claimant` |
| `ticket.revoke` | resource | `session`, `ticket` | `revoked`, `claimant` |
| `ticket.claim` | resource | `session`, `wait_ms`, `ticket` (optional) | `ticket`, `token`, `issuer`, `data`; refused: `code` |
| `ticket.release` | resource | `session`, `ticket`, `token` | – |
| `ticket.read` | resource | – | `tickets: [{ticket, issuer, token, data, claimant, claim_token}]`, `ticket_count`, `free_count`, `queue_length`; a resource that is not there: refused with `code`, as if empty |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from jepsen.checkers.reading import (
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


class Claims:
    """K4: one claimant at a time, of what was issued, and reads add up."""

    name = "K4 tickets"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        issues: dict[tuple[str, str], list[Call]] = {}
        revokes: dict[tuple[str, str], list[Call]] = {}
        for call in made:
            place = (call.key, str(call.value.get("ticket")))
            if call.f == "ticket.issue" and call.may_have_happened:
                issues.setdefault(place, []).append(call)
            elif call.f == "ticket.revoke" and call.may_have_happened:
                revokes.setdefault(place, []).append(call)
        holds = list(ticket_holds(made, lives))
        for one, other in overlaps(holds):
            complaints.add(
                f"ticket {one.what[2]!r} of {one.what[1]!r} is claimed by {one.session} under "
                f"{one.token} and by {other.session} under {other.token}",
                one.call,
                other.call,
            )
        for hold in holds:
            place = (hold.what[1], hold.what[2])
            _issued(hold, issues.get(place, []), revokes.get(place, []), complaints)
        reads = [c for c in made if c.f == "ticket.read" and c.is_ok and not is_stale(c)]
        for call in reads:
            _balance(call, issues, complaints)
        return complaints.verdict(
            f"{tell(len(holds), 'claim')} of {tell(len(issues), 'ticket')}, "
            f"{tell(len(reads), 'read')}",
            str(rates),
            seen=len(holds),
        )


def _issued(
    hold: Hold, issues: Sequence[Call], revokes: Sequence[Call], complaints: Complaints
) -> None:
    call, ticket = hold.call, hold.what[2]
    before = [issue for issue in issues if issue.start_ns < call.end_ns]
    if not before:
        complaints.add(f"ticket {ticket!r} was claimed, and nobody issued it", call)
        return
    for revoke in revokes:
        again = [issue for issue in issues if issue.end_ns > revoke.start_ns]
        is_before = revoke.is_ok and revoke.answer.get("revoked", True)
        if is_before and not again and revoke.end_ns < call.start_ns:
            complaints.add(f"ticket {ticket!r} was claimed after it was revoked", revoke, call)
            return
    data = call.answer.get("data")
    possible = [
        issue
        for issue in before
        if not any(
            other.is_ok and other.start_ns > issue.end_ns and other.end_ns < call.start_ns
            for other in before
        )
    ]
    wanted = [issue.value.get("data") for issue in possible]
    if "data" in call.answer and all(isinstance(w, str) for w in wanted) and data not in wanted:
        complaints.add(
            f"ticket {ticket!r} came with {data!r}; it was issued with {wanted!r}", *possible, call
        )


def _balance(
    call: Call, issues: Mapping[tuple[str, str], Sequence[Call]], complaints: Complaints
) -> None:
    answer = call.answer
    tickets = answer.get("tickets", [])
    names = [str(ticket["ticket"]) for ticket in tickets]
    claimed = sum(ticket.get("claimant") is not None for ticket in tickets)
    count, free = answer.get("ticket_count"), answer.get("free_count")
    if len(set(names)) != len(names):
        complaints.add(f"{call.key!r} lists a ticket twice: {names}", call)
    if count is not None and free is not None and len(names) == count and count != free + claimed:
        complaints.add(f"{call.key!r} has {count} tickets: {free} free and {claimed} claimed", call)
    if count is not None and len(names) > count:
        complaints.add(f"{call.key!r} lists {len(names)} of {count} tickets", call)
    if (
        free
        and answer.get("queue_length")
        and not any(waiter.get("ticket") for waiter in answer.get("waiters", []))
    ):
        complaints.add(f"{call.key!r} has {free} tickets free, and somebody waits", call)
    for name in names:
        if not any(issue.start_ns < call.end_ns for issue in issues.get((call.key, name), ())):
            complaints.add(f"{call.key!r} lists {name!r}, which nobody issued", call)


def ticket_holds(made: Sequence[Call], lives: Lives) -> Iterator[Hold]:
    """Every acknowledged claim, as long as neither side may have ended it."""
    taking: dict[tuple[str, str], list[Call]] = {}
    given: dict[tuple[str, str, int], int] = {}
    for call in made:
        ticket = str(call.value.get("ticket"))
        if call.f in {"ticket.issue", "ticket.revoke"} and call.may_have_happened:
            taking.setdefault((call.key, ticket), []).append(call)
        elif call.f == "ticket.release":
            place = (call.key, ticket, int(call.value.get("token") or 0))
            given[place] = min(given.get(place, call.start_ns), call.start_ns)
    for call in made:
        if call.f != "ticket.claim" or not call.is_ok:
            continue
        ticket, token = str(call.answer["ticket"]), int(call.answer["token"])
        ends = [lives.held_until_ns(call.session), lives.held_until_ns(str(call.answer["issuer"]))]
        ends.extend([given[call.key, ticket, token]] if (call.key, ticket, token) in given else [])
        for other in taking.get((call.key, ticket), []):
            if other.end_ns > call.start_ns:
                # Another issuer takes the ticket over, and along when it ends.
                is_revoke = other.f == "ticket.revoke"
                ends.append(other.start_ns if is_revoke else lives.held_until_ns(other.session))
        what = ("ticket", call.key, ticket)
        yield Hold(what, call.session, token, call, call.end_ns, min(ends))
