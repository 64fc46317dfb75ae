"""A cluster of a hundred lines: locks, a semaphore, a fifo, jobs, sessions; right, or wrong in one way.

RULE: one thing after another, in virtual time; what clients see is made of when they asked, when it
happened, and when they heard. Histories of it are right by construction, unless a defect is planted.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jepsen.history import Line, Type

MS = 1_000_000
LIMIT = 2
TTL_MS = 400
TTR_MS = 150
DELAY_MS = 200
ACCEPT_MS = 80
DONE_MS = 250

DEFECTS = {
    "two holders": "K2 mutual exclusion",
    "tokens again": "K2 tokens",
    "one unit more": "K4 capacity",
    "the last first": "K5 turns in order",
    "sessions end early": "K6 sessions",
    "sessions leave locks": "K6 sessions",
    "lost puts": "K7 jobs",
    "two workers": "K7 jobs",
    "no delay": "K7 jobs",
    "late tokens count": "K7 jobs",
    "done again": "K9 exactly once",
    "stale reads": "K12 durability",
    "events left out": "K10 streams",
    "states differ": "K11 equal replicas",
}
"""Defect → the check that has to find it."""


@dataclass(slots=True)
class Job:
    """One job."""

    id: int
    body: str
    ready_ms: float
    token: int = 0
    until_ms: float = 0.0


@dataclass(slots=True)
class State:
    """All there is."""

    token: int = 0
    sessions: dict[str, float] = field(default_factory=dict)
    locks: dict[str, tuple[str, int]] = field(default_factory=dict)
    units: dict[int, str] = field(default_factory=dict)
    line: list[str] = field(default_factory=list)
    turn: tuple[str, int] | None = None
    since_ms: float = 0.0
    jobs: dict[int, Job] = field(default_factory=dict)
    answers: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)


Answer = tuple[str, dict[str, Any]]
"""A code, empty for an ok, and the body."""


class Reference:
    """The cluster, its clients and their history.

    Args:
        seed: of all chance.
        defect: what is wrong with it; empty for nothing.
        clients: how many act at once.
    """

    def __init__(self, seed: int, defect: str = "", clients: int = 6) -> None:
        self._rng = random.Random(f"{seed}/{defect}")
        self._defect = defect
        self._clients = clients
        self._state = State()
        self._now_ms = 0.0
        self._lines: list[Line] = []
        self._processes = itertools.count()
        self._names = itertools.count(1)
        self._turns: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, length_ms: float = 4_000) -> list[Line]:
        """Let clients act, heal, and read everything at the end."""
        self._fact("node.watched", nodes=["n1", "n2"])
        self._fact("watch.ask", "w", prefix=["/locks/"], after=None)
        self._fact("watch.open", "w", after=0, applied=0)
        self._fact("watch.ask", "v", prefix=["/locks/"], after=None)
        self._fact("watch.open", "v", after=0, applied=0)
        self._ask("semaphore.set", "s", {"limit": LIMIT}, lost=0.0)
        self._drain()
        self._ask("fifo.make", "f", {"done_timeout_ms": DONE_MS}, lost=0.0)
        for _ in range(self._clients):
            self._later(self._rng.uniform(0, 50), self._client(length_ms))
        self._drain()
        self._fact("heal", election_ms=100)
        for call in self._last():
            self._ask(*call, lost=0.0)
            self._drain()
        self._told()
        return self._lines

    # Time.

    def _later(self, delay_ms: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._turns, (self._now_ms + delay_ms, next(self._order), what))

    def _drain(self) -> None:
        while self._turns:
            self._now_ms, _, what = heapq.heappop(self._turns)
            self._expire()
            what()

    def _note(self, line: Line) -> None:
        self._now_ms += 0.000_1
        values = (len(self._lines), int(self._now_ms * MS), line.process, line.type, line.f)
        self._lines.append(Line(*values, line.key, line.value, line.node, line.error))

    def _fact(self, f: str, key: str = "", **value: Any) -> None:
        self._note(Line(0, 0, -2, Type.INFO, f, key, value))

    # Clients.

    def _client(self, until_ms: float) -> Callable[[], None]:
        """One that goes on and on: opens a session, and does this and that in its name."""
        known: dict[str, Any] = {"session": None, "held": [], "jobs": [], "tickets": []}

        def go_on() -> None:
            if self._now_ms < until_ms:
                self._later(self._rng.expovariate(1 / 30), act)

        def learn(call: tuple[str, str, dict[str, Any]], answer: Answer | None) -> None:
            f, key, asked = call
            if f == "fifo.wait" and answer is not None and answer[0] == "not_your_turn":
                known["tickets"].append(asked["ticket"])
            if answer is None or answer[0] == "session_expired":
                # Who does not know what it has, or has nothing, begins anew.
                known.update(session=None, held=[], jobs=[], tickets=[])
            elif not answer[0]:
                told = answer[1]
                if f == "session.open":
                    known["session"] = told["session"]
                elif f in {"lock.acquire", "semaphore.acquire"}:
                    known["held"].append((f.replace("acquire", "release"), key, told["token"]))
                elif f == "fifo.join":
                    known["tickets"].append(told["ticket"])
                elif f == "job.reserve":
                    known["jobs"].extend((job["job"], job["token"]) for job in told["jobs"])
                elif f == "fifo.wait":
                    known["held"].append(("fifo.done", key, (asked["ticket"], told["token"])))
            go_on()

        def act() -> None:
            call = self._choose(known)
            self._ask(*call, learn=lambda answer: learn(call, answer))

        return act

    def _choose(self, known: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
        rng, session = self._rng, known["session"]
        if session is None:
            return "session.open", "", {"ttl_ms": TTL_MS}
        mine = {"session": session}
        dice = rng.random()
        if known["held"] and dice < 0.25:
            f, key, token = known["held"].pop(rng.randrange(len(known["held"])))
            if f == "fifo.done":
                return f, key, {"ticket": token[0], "token": token[1]}
            return f, key, {**mine, "token": token}
        if known["jobs"] and dice < 0.33:
            job, token = known["jobs"].pop(0)
            verb = rng.choice(("delete", "delete", "release"))
            return f"job.{verb}", "t", {"job": job, "token": token}
        if known["tickets"] and dice < 0.5:
            ticket = known["tickets"].pop(0)
            return "fifo.wait", "f", {"ticket": ticket, "wait_ms": 0}
        calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("session.keepalive", session, {}),
            ("session.read", session, {}),
            ("lock.acquire", rng.choice("xyz"), mine),
            ("lock.acquire", rng.choice("xyz"), mine),
            ("lock.read", rng.choice("xyz"), {}),
            ("semaphore.acquire", "s", {**mine, "units": 1}),
            ("semaphore.read", "s", {}),
            ("fifo.join", "f", {}),
            ("job.put", "t", self._job()),
            ("job.reserve", "t", mine),
        )
        return rng.choice(calls)

    def _job(self) -> dict[str, Any]:
        delay_ms = DELAY_MS if self._rng.random() < 0.4 else 0
        return {"body": f"b{next(self._names)}", "delay_ms": delay_ms, "ttr_ms": TTR_MS}

    def _last(self) -> list[tuple[str, str, dict[str, Any]]]:
        reads = [("lock.read", name, {}) for name in "xyz"]
        return [*reads, ("semaphore.read", "s", {}), ("job.list", "t", {})]

    def _ask(
        self,
        f: str,
        key: str,
        value: dict[str, Any],
        *,
        lost: float = 0.06,
        learn: Callable[[Answer | None], None] = lambda _: None,
    ) -> None:
        """Ask now; it happens soon, and is heard of soon after, or never. Some ask twice."""
        rng = self._rng
        if not f.endswith((".read", ".list", ".keepalive")):
            value = {**value, "request_id": f"r{next(self._names)}"}
        process = next(self._processes)
        self._note(Line(0, 0, process, Type.INVOKE, f, key, value))
        is_lost = rng.random() < lost
        is_never = is_lost and rng.random() < 0.4
        told: list[Answer] = []

        def happen() -> None:
            told.append(self._apply(f, key, value))

        def hear() -> None:
            if is_lost:
                self._note(Line(0, 0, process, Type.INFO, f, key, None, "", "late"))
                learn(None)
                return
            code, body = told[0]
            kind = Type.FAIL if code else Type.OK
            shown = {"code": code, **body} if code else body
            self._note(Line(0, 0, process, kind, f, key, shown, "", code))
            if "request_id" in value and rng.random() < 0.1:
                self._repeat(f, key, value)
            learn((code, body))

        took_ms = rng.expovariate(1 / 10)
        if not is_never:
            self._later(took_ms * (rng.uniform(1, 4) if is_lost else rng.random()), happen)
        self._later(took_ms, hear)

    def _repeat(self, f: str, key: str, value: dict[str, Any]) -> None:
        """The same request again, as by one who lost the answer."""
        process = next(self._processes)
        self._note(Line(0, 0, process, Type.INVOKE, f, key, value))
        code, body = self._apply(f, key, value)
        kind = Type.FAIL if code else Type.OK
        shown = {"code": code, **body} if code else body
        self._note(Line(0, 0, process, kind, f, key, shown, "", code))

    # The cluster.

    def _expire(self) -> None:
        self._move_on()
        ttl_ms = TTL_MS * (0.5 if self._defect == "sessions end early" else 1.0)
        state = self._state
        for session, renewed_ms in list(state.sessions.items()):
            if renewed_ms + ttl_ms < self._now_ms:
                del state.sessions[session]
                if self._defect != "sessions leave locks":
                    for name, (holder, token) in list(state.locks.items()):
                        if holder == session:
                            del state.locks[name]
                            self._event("lost", name, session, token)
                state.units = {t: s for t, s in state.units.items() if s != session}

    def _move_on(self) -> None:
        """A turn that nobody accepts is lost, one that is not done is over."""
        state = self._state
        most_ms = ACCEPT_MS if state.turn is None else DONE_MS
        while state.line and self._now_ms - state.since_ms > most_ms:
            first = state.line[0] if state.turn is None else state.turn[0]
            state.line.remove(first)
            state.turn, state.since_ms = None, state.since_ms + most_ms
            most_ms = ACCEPT_MS

    def _event(self, what: str, name: str, session: str, token: int) -> None:
        self._state.events.append(
            {"what": what, "path": f"/locks/{name}", "kind": "lock", "name": name}
            | {"session": session, "token": token}
        )

    def _apply(self, f: str, key: str, value: dict[str, Any]) -> Answer:
        request, state = value.get("request_id"), self._state
        is_forgetful = self._defect == "done again" and self._rng.random() < 0.5
        if request in state.answers and not is_forgetful:
            return state.answers[request]
        answer = self._do(f, key, value)
        if request is not None:
            state.answers[request] = answer
        return answer

    def _next(self) -> int:
        is_again = self._defect == "tokens again" and self._rng.random() < 0.1
        self._state.token += 0 if is_again else 1
        return self._state.token

    def _do(self, f: str, key: str, value: dict[str, Any]) -> Answer:
        state, session = self._state, value.get("session", "")
        if f == "session.open":
            name = f"s{next(self._names)}"
            state.sessions[name] = self._now_ms
            return "", {"session": name, "ttl_ms": TTL_MS}
        if f in {"session.keepalive", "session.read"}:
            if key not in state.sessions:
                return "session_expired", {"session": key}
            if f == "session.keepalive":
                state.sessions[key] = self._now_ms
            return "", {"session": key}
        if session and session not in state.sessions:
            return "session_expired", {"session": session}
        room, verb = f.split(".")
        does: dict[str, Callable[[str, str, dict[str, Any]], Answer]] = {
            "lock": self._lock,
            "semaphore": self._semaphore,
            "fifo": self._fifo,
            "job": self._tube,
        }
        return does[room](verb, key, value)

    def _lock(self, verb: str, name: str, value: dict[str, Any]) -> Answer:
        state, session = self._state, value.get("session", "")
        held = state.locks.get(name)
        if verb == "read":
            if held is None or (self._defect == "stale reads" and self._rng.random() < 0.3):
                return "", {"holders": [], "waiters": []}
            shown = {"session": held[0], "token": held[1], "mode": "exclusive"}
            return "", {"holders": [shown], "waiters": []}
        if verb == "release":
            if held != (session, value["token"]):
                return "stale_token", {}
            del state.locks[name]
            self._event("released", name, session, value["token"])
            return "", {"released": True}
        if held is not None and held[0] == session:
            return "", {"token": held[1], "mode": "exclusive"}
        if held is not None and not (self._defect == "two holders" and self._rng.random() < 0.3):
            return "lock_held", {"holder_token": held[1]}
        token = self._next()
        state.locks[name] = session, token
        self._event("granted", name, session, token)
        return "", {"token": token, "mode": "exclusive"}

    def _semaphore(self, verb: str, name: str, value: dict[str, Any]) -> Answer:
        state, session = self._state, value.get("session", "")
        if verb == "set":
            return "", {"limit": LIMIT}
        if verb == "read":
            holders = [{"session": s, "token": t, "units": 1} for t, s in state.units.items()]
            held = len(holders)
            free = max(0, LIMIT - held)
            return "", {"limit": LIMIT, "held": held, "free": free, "holders": holders}
        if verb == "release":
            if state.units.get(value["token"]) != session:
                return "stale_token", {}
            del state.units[value["token"]]
            return "", {"units": 1}
        if len(state.units) >= LIMIT + (self._defect == "one unit more"):
            return "semaphore_full", {"free": 0}
        token = self._next()
        state.units[token] = session
        return "", {"token": token, "units": 1}

    def _fifo(self, verb: str, name: str, value: dict[str, Any]) -> Answer:
        state, ticket = self._state, value.get("ticket")
        if verb == "make":
            return "", {"fifo": name}
        if verb == "join":
            ticket = f"t{next(self._names)}"
            state.since_ms = self._now_ms if not state.line else state.since_ms
            state.line.append(ticket)
            return "", {"ticket": ticket, "position": len(state.line)}
        if verb == "done":
            if state.turn != (ticket, value["token"]):
                return "ticket_not_found", {}
            state.turn, state.since_ms = None, self._now_ms
            state.line.remove(str(ticket))
            return "", {"done": True}
        if state.turn is not None and state.turn[0] == ticket:
            return "", {"state": "accepted", "token": state.turn[1]}
        if ticket not in state.line:
            return "ticket_not_found", {}
        first = state.line[-1 if self._defect == "the last first" else 0]
        if state.turn is not None or first != ticket:
            return "not_your_turn", {"position": state.line.index(str(ticket)) + 1}
        state.turn, state.since_ms = (str(ticket), self._next()), self._now_ms
        return "", {"state": "accepted", "token": state.turn[1]}

    def _tube(self, verb: str, tube: str, value: dict[str, Any]) -> Answer:
        state, now_ms = self._state, self._now_ms
        if verb == "put":
            job = Job(next(self._names), value["body"], now_ms + value["delay_ms"])
            if self._defect == "no delay":
                job.ready_ms = now_ms
            if not (self._defect == "lost puts" and self._rng.random() < 0.1):
                state.jobs[job.id] = job
            return "", {"job": job.id}
        if verb == "list":
            jobs = [{"job": job.id, "body": job.body} for job in state.jobs.values()]
            return "", {"jobs": jobs}
        if verb == "reserve":
            for job in state.jobs.values():
                is_free = not job.token or now_ms > job.until_ms
                is_free = is_free or (self._defect == "two workers" and self._rng.random() < 0.3)
                if is_free and job.ready_ms <= now_ms:
                    job.token, job.until_ms = self._next(), now_ms + TTR_MS
                    given = {"job": job.id, "body": job.body, "token": job.token, "ttr_ms": TTR_MS}
                    return "", {"jobs": [given]}
            return "", {"jobs": []}
        found = state.jobs.get(value["job"])
        if found is None:
            return "job_not_found", {}
        is_late = found.token != value["token"] or now_ms > found.until_ms
        if is_late and self._defect != "late tokens count":
            return "stale_token", {}
        if verb == "delete":
            del state.jobs[found.id]
        else:
            found.token = 0
        return "", {"job": found.id}

    def _told(self) -> None:
        """What two watchers heard, and what two nodes say of themselves."""
        for stream in ("w", "v"):
            for index, event in enumerate(self._state.events, 1):
                if stream == "v" and self._defect == "events left out" and index % 20 == 10:
                    continue
                self._fact("watch.event", stream, **{"index": index, "seq": 0, **event})
            self._fact("watch.bookmark", stream, index=len(self._state.events))
        for node in ("n1", "n2"):
            digest = f"{node if self._defect == 'states differ' else 'n'}-digest"
            self._fact("node.digest", node, index=9, digest=digest, final=True)
