"""Is there one order of these operations, each within its own time, that the model allows?

RULE: knows nothing of locks or clusters; a model is two pure functions. Iterative, and exact: "no"
is a proof, "yes" comes with the order, and what took too long is neither.

The search tries to take, again and again, one operation that had begun before the first of the rest
ended, and goes back where none fits. What it remembers is which operations were taken together with
the state that came of it: arriving there again by another way is of no use, nor is arriving with
more of the open ones used up. Operations of different keys cannot disturb one another, so each key
is a search of its own. Open ones are what makes it long: it is tried with few of them in a row first.

- An operation that ended as *info* is open: it may take its effect at any time after its start, or
  never. (One that has an `end` all the same can have it until then only: its session was gone.) One
  that failed is left out, it did not happen.
- Taking an operation that only looks, and fits, is never a mistake, so it is never undone. (Of one
  that could change something, but does not just now, that is not true: its change may be needed.)
- Of operations that ask and are answered the same, the one that ends first comes first: an order
  with two of them the other way round is as good with them exchanged.

Sources: Wing & Gong, "Testing and Verifying Concurrent Objects" (1993), the search; Lowe, "Testing
for linearizability" (2017), the memory and the list whose entries are lifted out and put back;
Horn & Kroening, "Faster linearizability checking via P-compositionality" (2015), the keys.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

import msgspec

from jepsen.history import Line, Operation, Type
from jepsen.verdicts import Verdict, accept, reject, undecided

State = TypeVar("State", bound=Hashable)

LOOK_AT_CLOCK_EVERY: Final = 2_048
ROWS: Final = (1, 2, 4)
"""How many open operations in a row are tried first: mostly one is what was missing, and all sets of
many are too many."""
ROW_SHARE: Final = 0.15
"""Of the budget, for each of these."""
SHRINK_S: Final = 10.0
"""What a counter-example may cost to make small; it is one at any size."""


def _no_topics(_: Operation) -> Iterable[Hashable]:
    return ()


def _not_pure(_: Operation) -> bool:
    return False


def _never_past(_: object, __: Operation) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Model(Generic[State]):
    """What one thing may answer, as if its operations came one after another.

    Attributes:
        initial: state at first; states are hashable and never changed.
        step: state and operation → whether such an answer is possible, and the state after it. An
            open operation has no answer (`result` None): the step says what it does if it happens.
        topics: what an operation is about (a token, a value). Counter-examples lose operations that
            share a topic together, so that they do not become absurd: no read of what nobody wrote.
            One that changes something and has no topic is never left out.
        is_pure: it only looks, whatever the state (it may learn what was not known). The search never
            undoes such ones, and counter-examples lose them one by one.
        is_past: it cannot come any more, whatever comes before it (a token that only rises is
            higher already). The search goes back at once where that is so of one that must come.
    """

    name: str
    initial: State
    step: Callable[[State, Operation], tuple[bool, State]]
    topics: Callable[[Operation], Iterable[Hashable]] = _no_topics
    is_pure: Callable[[Operation], bool] = _not_pure
    is_past: Callable[[State, Operation], bool] = _never_past


def nondeterministic(
    name: str,
    initial: Iterable[State],
    steps: Callable[[State, Operation], Iterable[State]],
    topics: Callable[[Operation], Iterable[Hashable]] = _no_topics,
    is_pure: Callable[[Operation], bool] = _not_pure,
) -> Model[frozenset[State]]:
    """Make a model of one whose steps may go several ways: its state is the set of all it may be in.

    Args:
        steps: every state there may be after the operation with its answer; none: it cannot be.
    """

    def step(states: frozenset[State], operation: Operation) -> tuple[bool, frozenset[State]]:
        after = frozenset(new for state in states for new in steps(state, operation))
        return bool(after), after

    return Model(name, frozenset(initial), step, topics, is_pure)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the search found.

    Attributes:
        valid: None when the time was up.
        order: indices of operations in an order that works: of all, or the longest that was found.
        stuck: indices of those of which one had to come next, and none could.
        tries: steps of the model.
    """

    valid: bool | None
    order: tuple[int, ...] = ()
    stuck: tuple[int, ...] = ()
    tries: int = 0


def search(
    model: Model[State], operations: Sequence[Operation], budget_s: float | None = None
) -> Answer:
    """Look for an order of the operations of one key.

    Args:
        operations: in any order; failed ones are ignored.
        budget_s: how long it may take; None: as long as it takes.
    """
    return _Search(model, operations, budget_s).run()


@dataclass(slots=True)
class _Choice:
    """A point of the search: what can come next here, and what was taken.

    Attributes:
        candidates: entries of calls, and below 0 the open ones, from -1.
        tried: how many of them.
        low, mask, open_mask: what was taken before; see `_Search`.
        row: how many open ones were taken last, one after another.
    """

    candidates: list[int]
    low: int
    mask: int
    open_mask: int
    state: Any
    row: int = 0
    tried: int = 0


class _Search(Generic[State]):
    """A list of entries, a call and a return for each closed operation; index 0 is its head.

    The closed operations are numbered by their calls. `low` of them, from the first, are all taken;
    `mask` has a bit for each later one that is: so it is as narrow as the history is concurrent,
    however long it is.
    """

    def __init__(
        self, model: Model[State], operations: Sequence[Operation], budget_s: float | None
    ) -> None:
        self._model = model
        self._operations = operations
        self._budget_s = budget_s
        self._deadline_s: float | None = None
        self._row_max: int | None = None
        self._is_cut = False
        lasting = [
            (number, operation)
            for number, operation in enumerate(operations)
            if operation.outcome is not Type.FAIL
        ]
        # What was put in by a checker has a process below 0 and comes first at its line.
        lasting.sort(key=lambda item: (item[1].start, item[1].process >= 0, item[0]))
        self._closed = [number for number, operation in lasting if not operation.is_open]
        self._open = [number for number, operation in lasting if operation.is_open]
        self._open_starts = [operations[number].start for number in self._open]
        self._open_ends = [operations[number].end for number in self._open]
        # Those of a kind do the same: which of them comes first makes no difference.
        kinds: dict[bytes, int] = {}
        self._kinds = [
            kinds.setdefault(msgspec.json.encode((o.f, o.value, o.result, o.is_open)), len(kinds))
            for o in operations
        ]
        self._link(operations)

    def _link(self, operations: Sequence[Operation]) -> None:
        events: list[tuple[int, int, int]] = []
        for rank, number in enumerate(self._closed):
            end = operations[number].end
            assert end is not None
            events.append((operations[number].start, 0, rank))
            events.append((end, 1, rank))
        events.sort()
        size = len(events) + 1
        self._next = [*range(1, size), 0]
        self._previous = [size - 1, *range(size - 1)]
        self._rank = [-1] + [rank for _, _, rank in events]
        self._is_call = [False] + [kind == 0 for _, kind, _ in events]
        self._position = [-1] + [position for position, _, _ in events]
        self._return_of = [0] * len(self._closed)
        for entry in range(1, size):
            if not self._is_call[entry]:
                self._return_of[self._rank[entry]] = entry

    def run(self) -> Answer:
        """Search with few open ones in a row, then with more, then without a bound."""
        began_s, tries = time.monotonic(), 0
        for row_max in ROWS if self._open else ():
            if self._budget_s is not None:
                self._deadline_s = time.monotonic() + self._budget_s * ROW_SHARE
            self._row_max, self._is_cut = row_max, False
            answer = self._attempt()
            tries += answer.tries
            # Where nothing was cut off the search was whole, and "no" is a proof.
            if answer.valid or (answer.valid is False and not self._is_cut):
                return replace(answer, tries=tries)
            self._link(self._operations)
        self._row_max = None
        if self._budget_s is not None:
            self._deadline_s = began_s + self._budget_s
        answer = self._attempt()
        return replace(answer, tries=tries + answer.tries)

    def _attempt(self) -> Answer:
        """Search, with a stack of our own."""
        operations, closed, step = self._operations, self._closed, self._model.step
        state: State = self._model.initial
        low = mask = open_mask = tries = taken = 0
        # What was taken, and the state: sets of open ones, and how many of them came last.
        seen: dict[tuple[int, int, State], list[tuple[int, int]]] = {}
        stack = [_Choice(self._candidates(state, 0, 0, 0), 0, 0, 0, state)]
        best: tuple[int, ...] = ()
        best_taken = -1
        while self._next[0]:
            choice = stack[-1]
            if choice.tried == len(choice.candidates):
                if taken > best_taken:
                    best_taken, best = taken, self._taken(stack[:-1])
                stack.pop()
                if not stack:
                    return Answer(False, best, self._stuck(best), tries)
                last = stack[-1].candidates[stack[-1].tried - 1]
                if last > 0:
                    self._put_back(last)
                    taken -= 1
                continue
            tries += 1
            if tries % LOOK_AT_CLOCK_EVERY == 0 and self._is_late():
                best = max(best, self._taken(stack[:-1]), key=len)
                return Answer(None, best, self._stuck(best), tries)
            candidate = choice.candidates[choice.tried]
            choice.tried += 1
            low, mask, open_mask, row = choice.low, choice.mask, choice.open_mask, 0
            if candidate < 0:
                operation = operations[self._open[-candidate - 1]]
                open_mask |= 1 << -candidate
                row = choice.row + 1
            else:
                rank = self._rank[candidate]
                operation = operations[closed[rank]]
                mask |= 1 << (rank - low)
                while mask & 1:
                    mask >>= 1
                    low += 1
            fits, state = step(choice.state, operation)
            # An open one that changes nothing may as well never happen.
            if not fits or (candidate < 0 and state == choice.state):
                continue
            # Who came here with fewer open ones taken could go wherever we can.
            if self._row_max is None:
                row = 0
            masks = seen.setdefault((low, mask, state), [])
            if any(less <= row and not fewer & ~open_mask for fewer, less in masks):
                continue
            masks.append((open_mask, row))
            if candidate > 0:
                self._lift(candidate)
                taken += 1
            candidates = self._candidates(state, open_mask, low, row)
            stack.append(_Choice(candidates, low, mask, open_mask, state, row))
        return Answer(True, self._taken(stack[:-1]), (), tries)

    def _taken(self, choices: Sequence[_Choice]) -> tuple[int, ...]:
        """Which operations these choices have taken; each has taken the one it tried last."""
        last = [choice.candidates[choice.tried - 1] for choice in choices]
        return tuple(
            self._open[-one - 1] if one < 0 else self._closed[self._rank[one]] for one in last
        )

    def _candidates(self, state: State, open_mask: int, low: int, row: int) -> list[int]:
        """What can come next: had begun when the first of the rest ended.

        Who ends first is tried first; open ones, which need not come at all, last.
        """
        operations, model, kinds = self._operations, self._model, self._kinds
        calls: list[int] = []
        entry = self._next[0]
        while self._is_call[entry]:
            operation = operations[self._closed[self._rank[entry]]]
            if model.is_pure(operation) and model.step(state, operation) == (True, state):
                return [entry]
            if model.is_past(state, operation):
                return []
            calls.append(entry)
            entry = self._next[entry]
        calls.sort(key=lambda call: self._return_of[self._rank[call]])
        found: dict[int, int] = {}
        for call in calls:
            found.setdefault(kinds[self._closed[self._rank[call]]], call)
        if self._row_max is not None and row >= self._row_max:
            self._is_cut = True
            return list(found.values())
        before = self._position[entry]
        # The last of those that are all taken had begun by now.
        now = operations[self._closed[low - 1]].start if low else -1
        # The newest first: what nobody answered has mostly happened soon, or never. Of a kind the
        # one that has the least time left.
        least: dict[int, float] = {}
        for at in range(bisect_right(self._open_starts, before) - 1, -1, -1):
            end = self._open_ends[at]
            if not open_mask >> at + 1 & 1 and (end is None or end >= now):
                kind, left = kinds[self._open[at]], math.inf if end is None else end
                if left <= least.get(kind, math.inf):
                    found[kind], least[kind] = -at - 1, left
        return list(found.values())

    def _is_late(self) -> bool:
        return self._deadline_s is not None and time.monotonic() > self._deadline_s

    def _lift(self, call: int) -> None:
        following, previous = self._next, self._previous
        for entry in (call, self._return_of[self._rank[call]]):
            before, after = previous[entry], following[entry]
            following[before] = after
            previous[after] = before

    def _put_back(self, call: int) -> None:
        following, previous = self._next, self._previous
        for entry in (self._return_of[self._rank[call]], call):
            following[previous[entry]] = entry
            previous[following[entry]] = entry

    def _stuck(self, order: tuple[int, ...]) -> tuple[int, ...]:
        """Those that had begun when the first of the rest ended."""
        taken = set(order)
        rest = [number for number in self._closed if number not in taken]
        ends = [end for number in rest if (end := self._operations[number].end) is not None]
        if not ends:
            return ()
        return tuple(n for n in rest if self._operations[n].start < min(ends))


# From an answer to a verdict.


def by_key(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    """The operations of each key, in their order."""
    keys: dict[str, list[Operation]] = {}
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
    return keys


def prefix(operations: Sequence[Operation], at: int) -> list[Operation]:
    """What had been seen when the line of that index was written."""
    return [
        operation if operation.end is None or operation.end <= at else _opened(operation)
        for operation in operations
        if operation.start <= at
    ]


def shrink(
    model: Model[State], operations: Sequence[Operation], budget_s: float = SHRINK_S
) -> list[Operation]:
    """Make a history that cannot be small, so that a reader sees why.

    First its shortest beginning that fails; of that all is left out that is not needed to fail,
    operations that share a topic together.
    """
    deadline_s = time.monotonic() + budget_s

    def fails(some: Sequence[Operation]) -> bool:
        left_s = deadline_s - time.monotonic()
        return left_s > 0 and search(model, some, left_s).valid is False

    kept = [operation for operation in operations if operation.outcome is not Type.FAIL]
    kept = _shortest_beginning(kept, fails)
    fixed: list[Operation] = []
    loose: list[Operation] = []
    for operation in kept:
        # What is about nothing of its own, as the making of the thing, is about everything.
        is_about = model.is_pure(operation) or bool(tuple(model.topics(operation)))
        (loose if is_about and not operation.is_open else fixed).append(operation)
    groups = _groups(model, loose)
    size = max(1, len(groups) // 2)
    while size and deadline_s > time.monotonic():
        at = 0
        while at < len(groups):
            fewer = groups[:at] + groups[at + size :]
            if fails(_flat([fixed, *fewer])):
                groups = fewer
            else:
                at += size
        size //= 2
    kept = _flat([fixed, *groups])
    for operation in list(reversed(kept)):
        others = [other for other in kept if other is not operation]
        if operation.is_open:
            # It might be what one of the others has seen.
            mine = set(model.topics(operation))
            is_needless = not any(mine.intersection(model.topics(other)) for other in others)
        else:
            is_needless = model.is_pure(operation)
        if is_needless and fails(others):
            kept = others
    return kept


@dataclass(slots=True)
class Figures:
    """What a summary tells."""

    keys: int = 0
    operations: int = 0
    open: int = 0
    tries: int = 0
    late: list[str] = field(default_factory=list)


def judge(
    check: str,
    model: Model[State],
    keys: Mapping[str, Sequence[Operation]],
    lines: Sequence[Line],
    budget_s: float = 60.0,
) -> Verdict:
    """Check the operations of every key, and make a verdict.

    Args:
        budget_s: for each key; a key that takes longer is undecided.
        lines: the whole history; operations point into it by `start` and `end`.
    """
    figures = Figures()
    for key, operations in sorted(keys.items()):
        figures.keys += 1
        asked = [o for o in operations if o.process >= 0 and o.outcome is not Type.FAIL]
        figures.operations += len(asked)
        figures.open += sum(operation.is_open for operation in asked)
        answer = search(model, operations, budget_s)
        figures.tries += answer.tries
        if answer.valid is False:
            return _complain(check, model, key, operations, lines)
        if answer.valid is None:
            figures.late.append(key)
    told = (
        f"{figures.operations} operations ({figures.open} open) on {figures.keys} keys as a "
        f"{model.name}, {figures.tries} steps"
    )
    if figures.late:
        late = ", ".join(figures.late[:5])
        return undecided(check, f"{len(figures.late)} keys took more than {budget_s:g} s: {late}")
    if not figures.operations:
        return undecided(check, f"there was nothing to judge: {told}")
    return accept(check, told)


def _complain(
    check: str,
    model: Model[State],
    key: str,
    operations: Sequence[Operation],
    lines: Sequence[Line],
) -> Verdict:
    small = shrink(model, operations)
    answer = search(model, small)
    shown = [operation for operation in small if operation.process >= 0]
    notes = ["one order that goes farthest: " + _told([small[n] for n in answer.order])]
    notes.append("none of these can come next: " + _told([small[n] for n in answer.stuck]))
    unseen = [operation for operation in small if operation.process < 0]
    if unseen:
        notes.append("might have happened meanwhile, unseen: " + _told(unseen))
    return reject(
        check,
        f'no order of the {len(operations)} operations on "{key}" makes them those of one '
        f"{model.name}; {len(shown)} of them show it",
        lines_of(shown, lines),
        *notes,
    )


def lines_of(operations: Iterable[Operation], lines: Sequence[Line]) -> list[Line]:
    """Both lines of each operation, as far as there are two."""
    found = []
    for operation in operations:
        found.append(lines[operation.start])
        if operation.end is not None and not operation.is_open:
            found.append(lines[operation.end])
    return found


def _told(operations: Sequence[Operation]) -> str:
    most = 12
    told = [
        f"{o.f} {o.value} -> {'?' if o.is_open else o.result} (process {o.process})"
        for o in operations[-most:]
    ]
    return ("… " if len(operations) > most else "") + ("; ".join(told) or "nothing")


def _opened(operation: Operation) -> Operation:
    """The same as long as nobody knows how it ends."""
    return Operation(
        process=operation.process,
        f=operation.f,
        key=operation.key,
        value=operation.value,
        result=None,
        outcome=Type.INFO,
        start=operation.start,
        end=None,
        start_ns=operation.start_ns,
        end_ns=None,
        node=operation.node,
    )


def _shortest_beginning(
    operations: list[Operation], fails: Callable[[Sequence[Operation]], bool]
) -> list[Operation]:
    ends = sorted(o.end for o in operations if o.end is not None and not o.is_open)
    low, high = 0, len(ends) - 1
    # Invariant: the beginning up to ends[high] fails, as the whole does.
    while low < high:
        middle = (low + high) // 2
        if fails(prefix(operations, ends[middle])):
            high = middle
        else:
            low = middle + 1
    shortest = prefix(operations, ends[high]) if ends else operations
    return shortest if fails(shortest) else operations


def _groups(model: Model[Any], operations: Sequence[Operation]) -> list[list[Operation]]:
    """Operations that share a topic, directly or by others; pure ones do not tie topics."""
    parent: dict[Hashable, Hashable] = {}

    def root(topic: Hashable) -> Hashable:
        parent.setdefault(topic, topic)
        while parent[topic] != topic:
            parent[topic] = parent[parent[topic]]
            topic = parent[topic]
        return topic

    topics = [tuple(model.topics(operation)) for operation in operations]
    for operation, some in zip(operations, topics, strict=True):
        if some and not model.is_pure(operation):
            for other in some[1:]:
                parent[root(other)] = root(some[0])
    groups: dict[Hashable, list[Operation]] = {}
    for number, (operation, some) in enumerate(zip(operations, topics, strict=True)):
        group = root(some[0]) if some else ("alone", number)
        groups.setdefault(group, []).append(operation)
    return list(groups.values())


def _flat(groups: Iterable[Sequence[Operation]]) -> list[Operation]:
    together = [operation for group in groups for operation in group]
    together.sort(key=lambda operation: (operation.start, operation.process >= 0))
    return together
