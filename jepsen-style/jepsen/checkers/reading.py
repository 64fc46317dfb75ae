"""What all checkers read alike: calls with their answers, facts, and what sessions live for sure.

RULE: takes a history apart and judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from jepsen.history import Line, Type
from jepsen.verdicts import Verdict, accept, reject, undecided

MS: Final = 1_000_000
"""Nanoseconds."""

FOR_EVER_NS: Final = 1 << 62

NODE_STATUSES: Final = frozenset({408, 429, 502, 503, 504})
NODE_CODES: Final = frozenset(
    {
        "",
        "hung_up",
        "late",
        "lost",
        "no_leader",
        "overloaded",
        "timeout",
        "too_many_requests",
        "unavailable",
        "unreachable",
    }
)
"""What a node or a connection says, and the cluster does not."""

SESSION_GONE: Final = frozenset({"session_expired", "session_not_found"})


@dataclass(frozen=True, slots=True)
class Call:
    """A request with what came of it, all its attempts together.

    Attributes:
        f, key, value: as asked.
        answer: of an ok; of a refusal the problem, as far as it is known.
        code: of a refusal by the cluster; empty for any other end.
        is_ok, is_open: granted; nobody knows. Neither: refused, or it surely did not happen.
        start, end: indices of lines; `end` None while open.
        end_ns: FOR_EVER_NS while open.
        is_repeated: several attempts were made, so that its place in a queue may have changed.
        lines: those it was made of.
    """

    process: int
    f: str
    key: str
    value: Mapping[str, Any]
    answer: Mapping[str, Any]
    code: str
    is_ok: bool
    is_open: bool
    start: int
    end: int | None
    start_ns: int
    end_ns: int
    is_repeated: bool
    lines: tuple[Line, ...]

    @property
    def session(self) -> str:
        """In whose name it was asked; empty without."""
        if self.f in {"session.keepalive", "session.close", "session.read"}:
            return self.key
        return str(self.value.get("session") or "")

    @property
    def may_have_happened(self) -> bool:
        """It had its effect, or may have."""
        return self.is_ok or self.is_open


def calls(lines: Sequence[Line]) -> list[Call]:
    """All calls in the order in which they were begun; attempts under one `request_id` are one."""
    attempts = list(_attempts(lines))
    by_request: dict[str, list[Call]] = {}
    for call in attempts:
        request = call.value.get("request_id")
        if request:
            by_request.setdefault(str(request), []).append(call)
    made = []
    for call in attempts:
        same = by_request.get(str(call.value.get("request_id") or ""), [call])
        if len(same) == 1:
            made.append(call)
        elif same[0] is call:
            made.append(_together(same))
    return made


def attempts(lines: Sequence[Line]) -> list[Call]:
    """The same with every attempt by itself."""
    return list(_attempts(lines))


def _attempts(lines: Sequence[Line]) -> Iterator[Call]:
    ends: dict[int, Line] = {}
    begun: dict[int, Line] = {}
    starts: list[Line] = []
    for line in lines:
        if line.process < 0:
            continue
        if line.type is Type.INVOKE:
            begun[line.process] = line
            starts.append(line)
        elif (start := begun.pop(line.process, None)) is not None:
            ends[start.index] = line
    for start in starts:
        yield _call(start, ends.get(start.index))


def _call(start: Line, end: Line | None) -> Call:
    is_open = end is None or end.type is Type.INFO
    answer = end.value if end is not None and isinstance(end.value, dict) else {}
    code = ""
    if end is not None and not is_open:
        code = str(answer.get("code") or (end.error if end.type is Type.FAIL else ""))
        if code in NODE_CODES or answer.get("status") in NODE_STATUSES:
            code = ""
    moved = end is not None and bool(end.node) and bool(start.node) and end.node != start.node
    return Call(
        process=start.process,
        f=start.f,
        key=start.key,
        value=start.value if isinstance(start.value, dict) else {},
        answer={} if is_open else answer,
        code=code,
        is_ok=end is not None and end.type is Type.OK and not answer.get("code"),
        is_open=is_open,
        start=start.index,
        end=None if is_open or end is None else end.index,
        start_ns=start.time_ns,
        end_ns=FOR_EVER_NS if is_open or end is None else end.time_ns,
        is_repeated=moved or answer.get("attempts", 1) > 1,
        lines=(start,) if end is None else (start, end),
    )


def _together(same: Sequence[Call]) -> Call:
    """One request of several attempts: its first answer by the cluster is its end."""
    answered = [call for call in same if call.is_ok] or [call for call in same if call.code]
    open_ones = [call for call in same if call.is_open]
    shown = min(answered or same, key=lambda call: call.end_ns)
    is_open = not answered and bool(open_ones)
    first = same[0]
    lines = {line.index: line for call in (first, shown) for line in call.lines}
    return Call(
        process=first.process,
        f=first.f,
        key=first.key,
        value=first.value,
        answer={} if is_open else shown.answer,
        code="" if is_open else shown.code,
        is_ok=shown.is_ok,
        is_open=is_open,
        start=first.start,
        end=None if is_open else shown.end,
        start_ns=first.start_ns,
        end_ns=FOR_EVER_NS if is_open else shown.end_ns,
        is_repeated=True,
        lines=tuple(lines[index] for index in sorted(lines)),
    )


def facts(lines: Iterable[Line], *names: str) -> list[Line]:
    """Lines of no client with one of these `f`; all of them without names."""
    return [line for line in lines if line.process < 0 and (not names or line.f in names)]


def is_stale(call: Call) -> bool:
    """It asked for what a node happens to know."""
    return bool(call.value.get("consistency") == "stale")


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast the monotonic clocks of nodes ran, against that of the clients.

    Read from the nemesis' lines: a fault with "clock" in its name tells the `rate` of that clock.
    """

    fastest: float = 1.0
    slowest: float = 1.0

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Rates:
        """The widest that was."""
        rates = [
            float(line.value["rate"])
            for line in lines
            if line.process < 0
            and "clock" in line.f
            and isinstance(line.value, dict)
            and _is_rate(line.value)
        ]
        return cls(max([1.0, *rates]), min([1.0, *rates]))

    def surely_ns(self, ms: float) -> int:
        """The shortest true time in which so many ms pass for a leader."""
        return int(ms * MS / self.fastest)

    def at_most_ns(self, ms: float) -> int:
        """The longest."""
        return int(ms * MS / self.slowest)

    def __str__(self) -> str:
        if (self.fastest, self.slowest) == (1.0, 1.0):
            return "all clocks at one rate"
        return f"clocks of nodes ran at {self.slowest:g} to {self.fastest:g} of ours"


def _is_rate(value: Mapping[str, Any]) -> bool:
    rate = value.get("rate")
    return isinstance(rate, int | float) and not isinstance(rate, bool) and rate > 0


@dataclass(slots=True)
class Life:
    """What is known of a session.

    Attributes:
        opened: the call that opened it.
        renewals: acknowledged, the opening among them.
        vague: renewals that nobody answered.
        close_ns: when its close was first sent; FOR_EVER_NS if never.
        sure_until_ns: it was alive until then, but for a close.
        ended: first line that says that it had ended, and when that was heard.
    """

    session: str
    ttl_ms: int
    opened: Call
    renewals: list[Call] = field(default_factory=list)
    vague: list[Call] = field(default_factory=list)
    close_ns: int = FOR_EVER_NS
    sure_until_ns: int = 0
    ended: Line | None = None
    ended_lines: tuple[Line, ...] = ()

    @property
    def held_until_ns(self) -> int:
        """What it owns is its own until then, if nobody gives it back."""
        return min(self.sure_until_ns, self.close_ns)


class Lives:
    """All sessions that the history saw opened."""

    def __init__(self, lines: Sequence[Line], made: Sequence[Call], rates: Rates) -> None:
        self.by_session: dict[str, Life] = {}
        for call in made:
            if call.f == "session.open" and call.is_ok and call.answer.get("session"):
                session = str(call.answer["session"])
                ttl_ms = int(call.answer.get("ttl_ms") or call.value.get("ttl_ms") or 0)
                self.by_session.setdefault(session, Life(session, ttl_ms, call, [call]))
        for call in made:
            for session in _renewed(call):
                if (life := self.by_session.get(session)) is not None:
                    (life.vague if call.is_open else life.renewals).append(call)
            if call.f == "session.close" and (life := self.by_session.get(call.key)) is not None:
                life.close_ns = min(life.close_ns, call.start_ns)
            for session in _gone(call):
                if call.end is not None:
                    self._saw_end(session, lines[call.end], call.lines)
            if call.f == "session.close" and call.is_ok and call.end is not None:
                self._saw_end(call.key, lines[call.end], call.lines)
        for line in facts(lines, "watch.event"):
            value = line.value if isinstance(line.value, dict) else {}
            if value.get("kind") == "session" and value.get("what") in {"expired", "closed"}:
                self._saw_end(str(value.get("name")), line, (line,))
        for life in self.by_session.values():
            life.sure_until_ns = max(
                call.start_ns + rates.surely_ns(life.ttl_ms) for call in life.renewals
            )

    def _saw_end(self, session: str, line: Line, shown: tuple[Line, ...]) -> None:
        life = self.by_session.get(session)
        if life is not None and (life.ended is None or line.index < life.ended.index):
            life.ended, life.ended_lines = line, shown

    def held_until_ns(self, session: str) -> int:
        """See `Life`; 0 for one that is not known."""
        life = self.by_session.get(session)
        return 0 if life is None else life.held_until_ns


def _renewed(call: Call) -> Iterable[str]:
    """Whose life the call has prolonged, or may have."""
    if call.f == "session.keepalive" and call.may_have_happened:
        return (call.key,)
    if call.f == "task.work" and call.may_have_happened:
        return (call.session,)
    if call.f == "session.keepalive_many":
        if call.is_open:
            return [str(session) for session in call.value.get("sessions", ())]
        if call.is_ok:
            return [str(session) for session in call.answer.get("alive", {})]
    return ()


def _gone(call: Call) -> Iterable[str]:
    """Whose end the answer tells."""
    if call.code in SESSION_GONE:
        return (str(call.answer.get("session") or call.session),)
    if call.f == "session.keepalive_many" and call.is_ok:
        return [str(session) for session in call.answer.get("expired", ())]
    return ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that a session had for sure, from when it was told to when it may have lost it.

    Attributes:
        what: of which there can be one holder at a time: a lock, one ticket, one job.
        token: of the grant.
    """

    what: tuple[str, ...]
    session: str
    token: int
    call: Call
    from_ns: int
    until_ns: int
    shared: bool = False
    units: int = 1

    @property
    def is_sure(self) -> bool:
        """There was a time at which it was held for sure."""
        return self.from_ns < self.until_ns

    def covers(self, call: Call) -> bool:
        """It was held for the whole of a request."""
        return self.from_ns < call.start_ns and call.end_ns < self.until_ns


def overlaps(holds: Iterable[Hold]) -> Iterator[tuple[Hold, Hold]]:
    """Pairs of different grants of one thing that were held at the same time for sure."""
    by_thing: dict[tuple[str, ...], list[Hold]] = {}
    for hold in holds:
        if hold.is_sure:
            by_thing.setdefault(hold.what, []).append(hold)
    for some in by_thing.values():
        some.sort(key=lambda hold: hold.from_ns)
        active: list[Hold] = []
        for hold in some:
            active = [other for other in active if other.until_ns > hold.from_ns]
            for other in active:
                if (other.token, other.session) != (hold.token, hold.session) and not (
                    other.shared and hold.shared
                ):
                    yield other, hold
            active.append(hold)


class Complaints:
    """What is wrong, collected until a verdict is made."""

    def __init__(self, check: str) -> None:
        self._check = check
        self._found: list[tuple[str, tuple[Line, ...]]] = []

    def add(self, text: str, *shown: Call | Line | None) -> None:
        """One thing that cannot be, with the lines that show it."""
        lines: list[Line] = []
        for one in shown:
            if isinstance(one, Call):
                lines.extend(one.lines)
            elif one is not None:
                lines.append(one)
        self._found.append((text, tuple(lines)))

    def verdict(self, summary: str, *notes: str, seen: int = 1) -> Verdict:
        """Nothing wrong: the summary. Else the complaint that needs the fewest lines, then the first.

        Args:
            seen: how much there was to judge; with nothing nothing is decided.
        """
        if not self._found and not seen:
            return undecided(self._check, f"there was nothing to judge: {summary}", *notes)
        if not self._found:
            return accept(self._check, summary, *notes)
        text, lines = min(
            self._found,
            key=lambda one: (len(one[1]), one[1][-1].index if one[1] else 0),
        )
        others = [other for other, _ in self._found if other != text]
        more = [f"also: {other}" for other in others[:5]]
        if len(others) > 5:
            more.append(f"and {len(others) - 5} more")
        return reject(self._check, f"{text} ({summary})", lines, *notes, *more)


def tell(count: int, noun: str) -> str:
    """A number with its noun, as people write it."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
