"""K4 and K5: places come in order and once, the window goes forward only, and not too fast.

RULE: judges acknowledged places, and what reads say of themselves.

| f | key | invoke | ok |
|---|---|---|---|
| `room.set` | room | `window_size`, `window_interval_ms`, `active_windows` | – |
| `room.join` | room | – | `position`, `status`, `ahead` |
| `room.status` | room | `position` (that of the pass that is shown) | `position`, `status`, `ahead` |
| `room.read` | room | – | `joined`, `waiting`, `active`, `expired`, `window_end` |

Rooms are not deleted and made again under one name within a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from jepsen.checkers.reading import Call, Complaints, Rates, calls, is_stale, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict

ORDER = ("waiting", "active", "expired")


class Places:
    """K4 and K5: numbered places, and a window that goes on."""

    name = "K4 waiting room"

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = calls(lines)
        rates = Rates.of(lines)
        complaints = Complaints(self.name)
        rooms = sorted({call.key for call in made if call.f.startswith("room.")})
        joins = 0
        for room in rooms:
            some = [call for call in made if call.key == room and call.f.startswith("room.")]
            joined = [call for call in some if call.f == "room.join" and call.is_ok]
            joins += len(joined)
            _places(room, joined, complaints)
            _statuses(room, some, complaints)
            _counts(room, some, complaints)
            _window(room, some, complaints, rates)
        return complaints.verdict(
            f"{tell(joins, 'place')} in {tell(len(rooms), 'room')}", str(rates), seen=joins
        )


def _places(room: str, joined: Sequence[Call], complaints: Complaints) -> None:
    """Each number once, and larger for who came later."""
    first: dict[int, Call] = {}
    for call in joined:
        position = int(call.answer["position"])
        other = first.setdefault(position, call)
        if other is not call:
            complaints.add(f"place {position} of {room!r} was given twice", other, call)
    ended = sorted(joined, key=lambda call: call.end_ns)
    at, most = 0, None
    for call in joined:
        while at < len(ended) and ended[at].end_ns < call.start_ns:
            if most is None or ended[at].answer["position"] > most.answer["position"]:
                most = ended[at]
            at += 1
        if most is not None and call.answer["position"] < most.answer["position"]:
            complaints.add(
                f"who came later to {room!r} got place {call.answer['position']}, before "
                f"{most.answer['position']}",
                most,
                call,
            )


def _statuses(room: str, some: Sequence[Call], complaints: Complaints) -> None:
    """A place waits, is active, expires, and never goes back; who is ahead becomes fewer."""
    last: dict[int, list[Call]] = {}
    seen = sorted(
        (c for c in some if c.f in {"room.join", "room.status"} and c.is_ok and not is_stale(c)),
        key=lambda call: call.start_ns,
    )
    for call in seen:
        position = int(call.answer["position"])
        if call.f == "room.status" and call.value.get("position") not in {None, position}:
            complaints.add(
                f"the pass of place {call.value['position']} of {room!r} shows {position}", call
            )
        for other in last.get(position, []):
            if other.end_ns < call.start_ns:
                before, after = other.answer["status"], call.answer["status"]
                if ORDER.index(after) < ORDER.index(before):
                    complaints.add(
                        f"place {position} of {room!r} was {before}, and is {after} again",
                        other,
                        call,
                    )
                if (call.answer.get("ahead") or 0) > (other.answer.get("ahead") or 0):
                    complaints.add(f"more are ahead of place {position} of {room!r}", other, call)
        # Two that ended last are enough to see a step back.
        last[position] = [*last.get(position, [])[-1:], call]


def _counts(room: str, some: Sequence[Call], complaints: Complaints) -> None:
    """A read adds up, has all who joined before, and nobody who did not ask."""
    joins = [call for call in some if call.f == "room.join"]
    sizes = [call.value for call in some if call.f == "room.set" and call.may_have_happened]
    for call in some:
        if call.f != "room.read" or not call.is_ok or is_stale(call):
            continue
        answer = call.answer
        if answer["joined"] != answer["waiting"] + answer["active"] + answer["expired"]:
            complaints.add(f"the places of {room!r} do not add up", call)
        asked = sum(join.may_have_happened and join.start_ns < call.end_ns for join in joins)
        surely = sum(join.is_ok and join.end_ns < call.start_ns for join in joins)
        if not surely <= answer["joined"] <= asked:
            complaints.add(
                f"{answer['joined']} have joined {room!r}; it must be {surely} to {asked}", call
            )
        most = max((s["window_size"] * s["active_windows"] for s in sizes), default=None)
        if most is not None and answer["active"] > most:
            complaints.add(f"{answer['active']} are active in {room!r}, of {most} at most", call)


def _window(room: str, some: Sequence[Call], complaints: Complaints, rates: Rates) -> None:
    """The window never goes back, and takes no step before its interval is over."""
    sets = [call for call in some if call.f == "room.set" and call.may_have_happened]
    reads = [
        call
        for call in some
        if call.f == "room.read" and call.is_ok and "window_end" in call.answer
    ]
    for earlier, later in pairwise(sorted(reads, key=lambda call: call.end_ns)):
        if earlier.end_ns >= later.start_ns:
            continue
        before, after = earlier.answer["window_end"], later.answer["window_end"]
        if after < before:
            complaints.add(f"the window of {room!r} went back", earlier, later)
        if len({(s.value["window_size"], s.value["window_interval_ms"]) for s in sets}) == 1:
            size = sets[0].value["window_size"]
            interval_ns = rates.surely_ns(sets[0].value["window_interval_ms"])
            steps = (later.end_ns - earlier.start_ns) // max(1, interval_ns) + 1
            if after - before > size * steps:
                complaints.add(
                    f"the window of {room!r} went on by {after - before} places, {steps} steps of "
                    f"{size} at most",
                    earlier,
                    later,
                )
