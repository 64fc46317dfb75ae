"""K11: nodes that have applied the same entries have the same state.

RULE: equal index, equal digest; and at the end all nodes stand at one index.

Facts: `node.digest`, key = node, value `index` (applied), `digest`, and `final: true` for those that
were read at the end, when nothing moved any more. Reads of `GET /v1/cluster` during the run may be
given as well; the more the better.
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen.checkers.reading import Complaints, facts, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict, undecided


class Replicas:
    """K11: same entries, same state."""

    name = "K11 equal replicas"

    def check(self, lines: Sequence[Line]) -> Verdict:
        complaints = Complaints(self.name)
        by_index: dict[int, dict[str, Line]] = {}
        nodes: dict[int, set[str]] = {}
        last: dict[str, Line] = {}
        for line in facts(lines, "node.digest"):
            index, digest = int(line.value["index"]), str(line.value["digest"])
            digests = by_index.setdefault(index, {})
            digests.setdefault(digest, line)
            nodes.setdefault(index, set()).add(line.key)
            if len(digests) > 1:
                complaints.add(f"states at {index} differ: {sorted(digests)}", *digests.values())
            if line.value.get("final"):
                last[line.key] = line
        if len({int(line.value["index"]) for line in last.values()}) > 1:
            complaints.add("nodes stand at different positions at the end", *last.values())
        compared = sum(len(some) > 1 for some in nodes.values())
        if not compared:
            return undecided(self.name, "no two nodes were seen at one position")
        return complaints.verdict(
            f"{tell(compared, 'position')} at which several nodes were seen, of {len(by_index)}; "
            f"{tell(len(last), 'node')} at the end"
        )
