"""K15: no node ends by itself, none raises what nobody catches.

RULE: a fact that says so is enough.

Facts: `node.crash` (key = node, value `exit`, `log`: last lines), `node.traceback` (key = node, value
`text`), `node.leak` (key = node, value `what`, `from`, `to`). The runner records `node.watched` once
(value `nodes`), so that "nothing was seen" can be told from "nobody looked".
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen.checkers.reading import Complaints, facts, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict, undecided

WORDS = {
    "node.crash": "ended by itself",
    "node.traceback": "raised what nobody caught",
    "node.leak": "keeps what it does not need",
}


class Hygiene:
    """K15: nothing breaks by itself."""

    name = "K15 hygiene"

    def check(self, lines: Sequence[Line]) -> Verdict:
        complaints = Complaints(self.name)
        watched: set[str] = set()
        for line in facts(lines, "node.watched", *WORDS):
            if line.f == "node.watched":
                watched.update(map(str, line.value["nodes"]))
            else:
                complaints.add(f"{line.key} {WORDS[line.f]}", line)
        verdict = complaints.verdict(f"{tell(len(watched), 'node')} watched")
        if verdict.valid and not watched:
            return undecided(self.name, "nobody looked after the nodes")
        return verdict
