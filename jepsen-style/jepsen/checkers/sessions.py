"""K6: a session is never ended early, is ended soon after its time, and takes all along at once.

RULE: early and late are judged by the clock of the clients, with the stated allowances.

| f | key | invoke | ok |
|---|---|---|---|
| `session.open` | "" | `ttl_ms` | `session`, `ttl_ms` |
| `session.keepalive` | session | – | `expires_in_ms`; ended: `code` `session_expired` or `session_not_found` |
| `session.keepalive_many` | "" | `sessions` | `alive: {id: expires_in_ms}`, `expired: [id]` |
| `session.close` | session | – | – |
| `session.read` | session | – | `session`, `expires_in_ms`, `holds: [{kind, name, token}]`; ended: `code` as above |

`task.work` with a `session` renews it as well. Any refusal `session_expired` (with its `session`, or
that of the request) says that a session had ended, and so does the fact `watch.event` of it (what
`expired` or `closed`, kind `session`); `lost` events of one entry are compared with it (K10's lines).
`lock.read`, `semaphore.read` and `ticket.read` must not show a session known to have ended.

Late: judged after the last `heal` only, and only of sessions that nobody may have renewed since.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from jepsen.checkers.reading import (
    MS,
    Call,
    Complaints,
    Life,
    Lives,
    Rates,
    calls,
    facts,
    is_stale,
    tell,
)
from jepsen.history import Line
from jepsen.verdicts import Verdict

LATE_MS: Final = 2_000
"""How late the end of a session may be once all is mended: the published 50 ms, 0.5 s for a change
of leader, and what two busy cores may add. Stated in the verdict."""

READS: Final = frozenset({"lock.read", "semaphore.read", "ticket.read"})


class Sessions:
    """K6: the TTL contract, and that a session takes along what it has.

    Args:
        late_ms: how late an end may be after the last `heal`.
    """

    name = "K6 sessions"

    def __init__(self, late_ms: int = LATE_MS) -> None:
        self._late_ms = late_ms

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        lives = Lives(lines, made, rates)
        complaints = Complaints(self.name)
        ended = 0
        for life in lives.by_session.values():
            ended += life.ended is not None
            _early(life, rates, complaints)
        looks = _shown(made, lives, complaints)
        judged = self._late(made, lines, lives, rates, complaints)
        _in_one_step(lines, complaints)
        return complaints.verdict(
            f"{tell(len(lives.by_session), 'session')}, {ended} seen to end, {judged} looked at for "
            f"lateness, {tell(looks, 'read')}",
            f"an end may be {self._late_ms} ms late after healing",
            str(rates),
            seen=len(lives.by_session),
        )

    def _late(
        self,
        made: Sequence[Call],
        lines: Sequence[Line],
        lives: Lives,
        rates: Rates,
        complaints: Complaints,
    ) -> int:
        """Signs of life in the calm, of sessions whose time is over. Returns how many were judged."""
        healed = facts(lines, "heal")
        if not healed:
            return 0
        heal_ns = healed[-1].time_ns
        signs: dict[str, list[Call]] = {}
        for call in made:
            if call.is_ok and call.start_ns > heal_ns:
                for session in _signs(call):
                    signs.setdefault(session, []).append(call)
        judged = 0
        for session, life in lives.by_session.items():
            if life.vague:
                continue
            judged += 1
            for sign in signs.get(session, ()):
                last = max(
                    (renewal for renewal in life.renewals if renewal.start_ns < sign.start_ns),
                    key=lambda renewal: renewal.end_ns,
                    default=None,
                )
                if last is None or last.end_ns > sign.start_ns:
                    continue
                # Time stood still while nobody led, so all of it may be left at the healing.
                due_ns = max(last.end_ns, heal_ns) + rates.at_most_ns(life.ttl_ms)
                late_ns = sign.start_ns - due_ns
                if late_ns > self._late_ms * MS:
                    complaints.add(
                        f"session {session} lives {late_ns // MS} ms after its TTL of "
                        f"{life.ttl_ms} ms",
                        last,
                        healed[-1],
                        sign,
                    )
        return judged


def _early(life: Life, rates: Rates, complaints: Complaints) -> None:
    """It ended although its TTL could not be over, or it was renewed after its end."""
    if life.ended is None:
        return
    for renewal in life.renewals:
        if renewal.start_ns > life.ended.time_ns:
            complaints.add(
                f"session {life.session} was renewed after it had ended",
                *life.ended_lines,
                renewal,
            )
            return
    if life.close_ns < life.ended.time_ns:
        return
    for renewal in life.renewals:
        left_ns = renewal.start_ns + rates.surely_ns(life.ttl_ms) - life.ended.time_ns
        if left_ns > 0:
            complaints.add(
                f"session {life.session} ended {left_ns // MS} ms before its TTL of "
                f"{life.ttl_ms} ms",
                renewal,
                *life.ended_lines,
            )
            return


def _signs(call: Call) -> Iterable[str]:
    """Who is alive, as the answer says. What may be an old answer again is no sign."""
    if call.f in {"session.read", "session.keepalive"} and not is_stale(call):
        return (call.key,)
    if call.f in READS and not is_stale(call):
        return holders(call)
    return ()


def holders(call: Call) -> list[str]:
    """Sessions that a read shows, as holders or waiting."""
    answer = call.answer
    found = [holder.get("session") for holder in answer.get("holders") or ()]
    found += [waiter.get("session") for waiter in answer.get("waiters") or ()]
    for ticket in answer.get("tickets") or ():
        found += [ticket.get("issuer"), ticket.get("claimant")]
    return [str(session) for session in found if session]


def _shown(made: Sequence[Call], lives: Lives, complaints: Complaints) -> int:
    """No read that was asked for after a session's end shows it anywhere."""
    reads = 0
    for call in made:
        if not call.is_ok or is_stale(call):
            continue
        if call.f == "session.read":
            shown = [call.key]
        elif call.f in READS:
            shown = holders(call)
        else:
            continue
        reads += 1
        for session in shown:
            life = lives.by_session.get(session)
            if life is not None and life.ended and life.ended.time_ns < call.start_ns:
                complaints.add(
                    f"session {session} had ended, and {call.f} of {call.key!r} shows it",
                    *life.ended_lines,
                    call,
                )
    return reads


def _in_one_step(lines: Sequence[Line], complaints: Complaints) -> None:
    """What a session loses by its end is lost at the very position of that."""
    ends: dict[str, Line] = {}
    lost: list[Line] = []
    for line in facts(lines, "watch.event"):
        value = line.value
        if value.get("kind") == "session" and value.get("what") in {"expired", "closed"}:
            ends.setdefault(str(value.get("name")), line)
        elif value.get("what") == "lost" and value.get("kind") in {"lock", "semaphore"}:
            lost.append(line)
    for line in lost:
        end = ends.get(str(line.value.get("session")))
        if end is not None and end.value["index"] != line.value["index"]:
            complaints.add(
                f"session {line.value['session']} ended at {end.value['index']}, and lost "
                f"{line.value.get('name')!r} at {line.value['index']}",
                end,
                line,
            )
