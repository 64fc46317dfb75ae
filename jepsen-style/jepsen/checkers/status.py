"""K15: what a node says of itself and of its leader is so, or was so a moment ago.

RULE: a word that a node could still believe, or that a busy machine delayed, is no lie. A lie is the
same untrue word at every look for a whole second in which the node was awake.

Facts, both with key = node and `asked_ns` (when it was asked, in the history's time; the line's own
time is when the answer was there):

- `node.view`: its `GET /v1/cluster` (`role`, `leader`, `term`, `ready`), what `GET /readyz` said just
  after (`readyz`), and what the bed knew as it was asked: for how long the leader that the node names
  had not been running at all (`gone_ms`) and the way to it had been closed (`shut_ms`), and whether
  bytes between nodes were made late (`late`): then old words are young to those who hear them, and
  nothing is judged.
- `node.read`: a linearizable read there; `outcome` is "ok", the code of a refusal, or "late".

What is untrue:

- it leads, and another has led in a later term for longer than a leader goes on unheard;
- it is ready in a term that another has ended for longer than that and one more election timeout;
- it is ready, and knows of no leader;
- it is ready, and its leader has not been running for longer than a follower waits;
- it is ready, and there has been no way to its leader for longer than a silent connection is borne;
- `/readyz` says something else;
- it is ready for five seconds with a leader that runs and is in reach, and answers no read.

A node that was killed, stopped or starved says nothing meanwhile, and its first word afterwards may be
one of before: a pause between two looks counts for as much as a node that answers is looked at anew.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from jepsen.checkers.reading import MS, Complaints, facts, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict, undecided

ELECTION_MS: Final = 900
"""The longest election timeout; also how long a leader goes on that no majority answers."""

SILENCE_MS: Final = 2_500
"""A connection on which nothing comes back is given up within this."""

TRUTH_MS: Final = 1_000
AWAKE_MS: Final = 600
"""At the most so much of the time between two looks is taken as spent awake."""

SERVED_MS: Final = 5_000


@dataclass(slots=True)
class _Run:
    """Looks in a row at one node that say the same untrue thing."""

    what: str = ""
    awake_ms: int = 0
    lines: list[Line] = field(default_factory=list)

    def add(self, what: str, line: Line) -> None:
        """One more; one that says something else, or nothing untrue, begins anew."""
        if what != self.what:
            self.what, self.awake_ms, self.lines = what, 0, []
        if not what:
            return
        if self.lines:
            gap_ms = (line.time_ns - self.lines[-1].time_ns) // MS
            self.awake_ms += min(gap_ms, AWAKE_MS)
        self.lines.append(line)


class _Reigns:
    """Who was known to lead in which term, and since when."""

    def __init__(self) -> None:
        self._since_ns: list[int] = []
        self._lines: list[Line] = []

    def note(self, line: Line) -> None:
        """Somebody says that it leads; only terms that rise are of interest."""
        if line.value["role"] == "leader" and (
            not self._lines or int(line.value["term"]) > int(self._lines[-1].value["term"])
        ):
            self._since_ns.append(line.time_ns)
            self._lines.append(line)

    def known(self, at_ns: int) -> Line | None:
        """The newest leader that was known by then."""
        found = bisect.bisect_right(self._since_ns, at_ns)
        return self._lines[found - 1] if found else None


class Status:
    """K15: the status endpoint tells the truth within a second."""

    name = "K15 status"

    def check(self, lines: Sequence[Line]) -> Verdict:
        complaints = Complaints(self.name)
        looks = facts(lines, "node.view")
        if not looks:
            return undecided(self.name, "no node was asked how it stands")
        reigns = _Reigns()
        runs: dict[str, _Run] = {}
        judged = 0
        for line in looks:
            reigns.note(line)
            run = runs.setdefault(line.key, _Run())
            if line.value["late"]:
                run.add("", line)
                continue
            judged += 1
            what, witness = _untrue(line, reigns)
            run.add(what, line)
            if run.awake_ms >= TRUTH_MS:
                complaints.add(
                    f"{line.key} {what}, and said so for another {_length_ms(run.lines)} ms",
                    witness,
                    run.lines[0],
                    line,
                )
                run.add("", line)
        reads = facts(lines, "node.read")
        for node in runs:
            _served(
                node,
                [line for line in looks if line.key == node],
                [line for line in reads if line.key == node],
                complaints,
            )
        return complaints.verdict(
            f"{tell(judged, 'look')} at {tell(len(runs), 'node')} judged, of {len(looks)}; "
            f"{tell(len(reads), 'read')} beside them"
        )


def _untrue(line: Line, reigns: _Reigns) -> tuple[str, Line | None]:
    """What is not so in an answer, and the line that shows it; empty where nothing is."""
    value, asked_ns = line.value, int(line.value["asked_ns"])
    term, leader, ready = int(value["term"]), value["leader"], bool(value["ready"])
    if value["role"] == "leader":
        newer = reigns.known(asked_ns - ELECTION_MS * MS)
        if newer is not None and int(newer.value["term"]) > term:
            return f"leads in term {term} after {_reign(newer)}", newer
    if ready:
        newer = reigns.known(asked_ns - 2 * ELECTION_MS * MS)
        if newer is not None and int(newer.value["term"]) > term:
            return f"is ready in term {term} after {_reign(newer)}", newer
        if leader is None:
            return "is ready, and knows of no leader", None
        if leader != line.key and int(value["gone_ms"]) >= ELECTION_MS:
            return f"is ready under {leader}, which does not run", None
        if leader != line.key and int(value["shut_ms"]) >= SILENCE_MS:
            return f"is ready under {leader}, to which there is no way", None
    if bool(value["readyz"]) != ready:
        return f"is {'' if ready else 'not '}ready, and /readyz says the opposite", None
    return "", None


def _reign(line: Line) -> str:
    return f"{line.key} has led in term {line.value['term']}"


def _length_ms(some: Sequence[Line]) -> int:
    return (some[-1].time_ns - some[0].time_ns) // MS


def _served(
    node: str, looks: Sequence[Line], reads: Sequence[Line], complaints: Complaints
) -> None:
    """Who is ready all the time answers a read now and then."""
    answered = sorted(line.time_ns for line in reads if line.value["outcome"] == "ok")
    for some in _ready_runs(looks):
        run = _Run()
        for line in some:
            # A read that is answered shows that it served until then.
            after = bisect.bisect_left(answered, run.lines[0].time_ns) if run.lines else 0
            if run.lines and after < len(answered) and answered[after] <= line.time_ns:
                run.add("", line)
            run.add("is ready", line)
            if run.awake_ms < SERVED_MS:
                continue
            first = run.lines[0]
            asked = [
                read
                for read in reads
                if int(read.value["asked_ns"]) >= first.time_ns and read.time_ns <= line.time_ns
            ]
            if asked:
                complaints.add(
                    f"{node} is ready, and has answered no read for {_length_ms(run.lines)} ms",
                    first,
                    asked[-1],
                    line,
                )
                break


def _ready_runs(looks: Sequence[Line]) -> Iterator[list[Line]]:
    """Looks in a row at a node that says it is ready, with a leader that is there."""
    some: list[Line] = []
    for line in looks:
        value = line.value
        if value["ready"] and not (value["late"] or value["gone_ms"] or value["shut_ms"]):
            some.append(line)
            continue
        if some:
            yield some
        some = []
    if some:
        yield some
