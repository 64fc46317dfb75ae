"""K9: a request that is repeated gets the first answer again, whoever is asked, whenever.

RULE: any `f`; operations whose invoke has the same `request_id` are attempts of one request. The same
`request_id` is never used for another `f`, `key` or body.

- all ok answers are equal, member by member (`attempts` and `index` left out);
- an answer of the machine stays: one that was refused (by a code of the machine) is never granted
  later, and the other way round; codes of a node (`no_leader`, `overloaded`, `unreachable`, …) say
  nothing;
- `idempotency_key_reused` never comes.

That an effect came once is seen by the others: two jobs for one put (K7), two places (K4).
"""

from __future__ import annotations

from collections.abc import Sequence

from jepsen.checkers.reading import Call, Complaints, attempts, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict, undecided

PASSING = frozenset({"index", "attempts"})
"""Members of an answer that say something of the attempt."""


class ExactlyOnce:
    """K9: every attempt of one request gets the same answer."""

    name = "K9 exactly once"

    def check(self, lines: Sequence[Line]) -> Verdict:
        complaints = Complaints(self.name)
        requests: dict[str, list[Call]] = {}
        for call in attempts(lines):
            if call.value.get("request_id"):
                requests.setdefault(str(call.value["request_id"]), []).append(call)
        repeated = {id: some for id, some in requests.items() if len(some) > 1}
        compared = 0
        for id, some in repeated.items():
            answered = [call for call in some if call.is_ok or call.code]
            compared += max(0, len(answered) - 1)
            for call in answered:
                if call.code == "idempotency_key_reused":
                    complaints.add(f"request {id} is said to be another than it was", some[0], call)
            said = [call for call in answered if call.code != "idempotency_key_reused"]
            for other in said[1:]:
                if _answer(other) != _answer(said[0]):
                    complaints.add(f"request {id} was answered in two ways", said[0], other)
        if not compared and len(requests) > 0:
            return undecided(
                self.name, f"none of {tell(len(requests), 'request')} was answered twice"
            )
        return complaints.verdict(
            f"{tell(len(repeated), 'request')} of {len(requests)} repeated, {compared} answers "
            "compared with the first"
        )


def _answer(call: Call) -> object:
    if call.code:
        return call.code
    return {name: value for name, value in call.answer.items() if name not in PASSING}
