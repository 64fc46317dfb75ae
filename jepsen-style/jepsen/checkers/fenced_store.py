"""K3: a store that checks tokens loses no update; one that does not must lose some.

RULE: the store is in the process of the clients, so the order of its lines is the order of its
writes. A write is *lost* when the next one has not read it.

| f | key | invoke | ok |
|---|---|---|---|
| `store.read` | item | `token` | `value` |
| `store.write` | item | `token`, `read` (the value this writer read), `value` (unique) | `previous` (what it overwrote); refused: code `fenced`, `newest` |

`FencedStore()` wants no lost update, and accepted tokens that never fall. `UnfencedStore()` is the
negative control for items whose store checks nothing: it is *passed only when updates were lost*, so
its workload must let some writers pause longer than their TTL, whatever the nemesis does. Each takes
`prefix` of the items that are its own (checked: "fenced/", control: "unfenced/").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from jepsen.checkers.reading import Call, Complaints, calls, tell
from jepsen.history import Line
from jepsen.verdicts import Verdict, accept, undecided


class FencedStore:
    """K3: every write has read what it overwrites, and old tokens are refused.

    Args:
        prefix: of the items whose store checks tokens.
    """

    name = "K3 fenced store"

    def __init__(self, prefix: str = "fenced/") -> None:
        self._prefix = prefix

    def check(self, lines: Sequence[Line]) -> Verdict:
        writes, refused = _writes(lines, self._prefix)
        complaints = Complaints(self.name)
        for earlier, later in _lost(writes):
            complaints.add(
                f"{later.value.get('value')!r} overwrote {later.answer.get('previous')!r} on "
                f"{later.key!r} and had read {later.value.get('read')!r}: an update is lost",
                earlier,
                later,
            )
        newest: dict[str, Call] = {}
        for write in writes:
            last = newest.get(write.key)
            if last is not None and write.value["token"] < last.value["token"]:
                complaints.add(
                    f"token {write.value['token']} was accepted on {write.key!r} after "
                    f"{last.value['token']}",
                    last,
                    write,
                )
            else:
                newest[write.key] = write
        return complaints.verdict(
            f"{tell(len(writes), 'write')} to {tell(len(newest), 'item')}, {refused} refused",
            seen=len(writes),
        )


class UnfencedStore:
    """The negative control: the same load without the check must lose updates.

    Args:
        prefix: of the items whose store checks nothing.
    """

    name = "K3 control: an unfenced store loses updates"

    def __init__(self, prefix: str = "unfenced/") -> None:
        self._prefix = prefix

    def check(self, lines: Sequence[Line]) -> Verdict:
        writes, _ = _writes(lines, self._prefix)
        lost = list(_lost(writes))
        told = f"{len(lost)} of {tell(len(writes), 'write')} lost an update"
        if not lost:
            return undecided(
                self.name, f"{told}: a load that cannot lose updates shows nothing of the fence"
            )
        earlier, later = lost[0]
        return accept(
            self.name,
            told,
            f"for example lines {[line.index for line in (*earlier.lines, *later.lines)]}"
            if earlier is not None
            else f"for example line {later.start}",
        )


def _writes(lines: Sequence[Line], prefix: str) -> tuple[list[Call], int]:
    """Accepted writes in the order of the store, and how many were refused."""
    made = [c for c in calls(lines) if c.f == "store.write" and c.key.startswith(prefix)]
    writes = [call for call in made if call.is_ok and call.end is not None]
    writes.sort(key=lambda call: call.end or 0)
    return writes, sum(bool(call.code) for call in made)


def _lost(writes: Sequence[Call]) -> Iterator[tuple[Call | None, Call]]:
    """What was overwritten unread, and by whom."""
    by_value = {(write.key, write.value.get("value")): write for write in writes}
    for write in writes:
        previous = write.answer.get("previous")
        if previous != write.value.get("read"):
            yield by_value.get((write.key, previous)), write
