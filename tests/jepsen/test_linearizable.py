"""The search for an order, on histories whose answer is known, and against trying every order."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from jepsen import models
from jepsen.crosscheck import make, register_history, spoil
from jepsen.history import Line, Operation, Type
from jepsen.linearizable import (
    Model,
    by_key,
    judge,
    nondeterministic,
    prefix,
    search,
    shrink,
)

REGISTER = models.register(None)


def op(
    f: str,
    value: Any = None,
    result: Any = None,
    *,
    at: tuple[int, int | None],
    kind: Type | None = None,
    process: int = 0,
) -> Operation:
    """One operation; without an end it is open."""
    start, end = at
    outcome = kind or (Type.INFO if end is None else Type.OK)
    return Operation(process, f, "x", value, result, outcome, start, end, start, end)


def test_operations_one_after_another_are_checked_in_their_order() -> None:
    """A read sees the last write, and no other."""
    write = op("write", 1, at=(0, 1))
    assert search(REGISTER, [write, op("read", None, 1, at=(2, 3))]).valid is True
    assert search(REGISTER, [write, op("read", None, None, at=(2, 3))]).valid is False


def test_operations_at_once_may_have_come_in_any_order() -> None:
    """Two writes at once, and two reads that agree about which was last."""
    writes = [op("write", 1, at=(0, 3)), op("write", 2, at=(1, 4))]
    for last in (1, 2):
        reads = [op("read", None, last, at=(5, 6)), op("read", None, last, at=(7, 8))]
        answer = search(REGISTER, writes + reads)
        assert answer.valid is True
        assert sorted(answer.order) == [0, 1, 2, 3]
    torn = [op("read", None, 1, at=(5, 6)), op("read", None, 2, at=(7, 8))]
    assert search(REGISTER, writes + torn).valid is False


def test_an_open_operation_may_come_late_early_or_never() -> None:
    """Nobody knows when it took effect, if at all; but it did not before it began."""
    lost = op("write", 2, at=(2, None))
    first = op("write", 1, at=(0, 1))
    late = [op("read", None, 1, at=(3, 4)), op("read", None, 2, at=(5, 6))]
    never = [op("read", None, 1, at=(3, 4)), op("read", None, 1, at=(5, 6))]
    back = [op("read", None, 2, at=(3, 4)), op("read", None, 1, at=(5, 6))]
    assert search(REGISTER, [first, lost, *late]).valid is True
    assert search(REGISTER, [first, lost, *never]).valid is True
    assert search(REGISTER, [first, lost, *back]).valid is False
    early = [first, op("read", None, 2, at=(2, 3)), op("write", 2, at=(4, None))]
    assert search(REGISTER, early).valid is False


def test_an_open_operation_may_have_a_last_moment() -> None:
    """Whoever asked for it was gone then: it has come before that, or never."""
    first = op("write", 1, at=(0, 1))
    lost = op("write", 2, at=(2, 6), kind=Type.INFO)
    before = [op("read", None, 1, at=(3, 4)), op("read", None, 2, at=(5, 7))]
    after = [op("read", None, 1, at=(7, 8)), op("read", None, 2, at=(9, 10))]
    assert search(REGISTER, [first, lost, *before]).valid is True
    assert search(REGISTER, [first, lost, *after]).valid is False


def test_a_failed_operation_did_not_happen() -> None:
    """It is left out, however well it would fit."""
    failed = op("write", 2, at=(2, 3), kind=Type.FAIL)
    first = op("write", 1, at=(0, 1))
    assert search(REGISTER, [first, failed, op("read", None, 1, at=(4, 5))]).valid is True
    assert search(REGISTER, [first, failed, op("read", None, 2, at=(4, 5))]).valid is False


def test_a_write_of_the_present_value_may_be_needed_later() -> None:
    """Changing nothing just now is no reason to be taken at once: Porcupine showed the mistake."""
    history = [
        op("write", 0, at=(0, 1)),
        op("write", 0, at=(2, 9)),  # Must come after the write of 1.
        op("write", 1, at=(3, 4)),
        op("read", None, 1, at=(5, 6)),
        op("read", None, 0, at=(10, 11)),
    ]
    assert search(REGISTER, history).valid is True


def test_a_search_out_of_time_says_neither() -> None:
    """Many open operations make many orders; what is not known is not claimed."""
    rng = random.Random(3)
    adds = [op("add", 1 << number, at=(number, None)) for number in range(40)]
    reads = [op("read", None, rng.getrandbits(40), at=(100 + 2 * n, 101 + 2 * n)) for n in range(4)]
    answer = search(models.counter(), adds + reads, budget_s=0.05)
    assert answer.valid is None


def orders(operations: Sequence[Operation]) -> Iterator[Sequence[Operation]]:
    """All orders that respect time, with and without each open one."""
    closed = [o for o in operations if not o.is_open]
    maybe = [o for o in operations if o.is_open]
    for count in range(len(maybe) + 1):
        for some in itertools.combinations(maybe, count):
            for order in itertools.permutations([*closed, *some]):
                if all(
                    b.end is None or b.end > a.start
                    for at, a in enumerate(order)
                    for b in order[at + 1 :]
                ):
                    yield order


def is_possible(model: Model[Any], operations: Sequence[Operation]) -> bool:
    """Try everything."""
    for order in orders([o for o in operations if o.outcome is not Type.FAIL]):
        state = model.initial
        for operation in order:
            fits, state = model.step(state, operation)
            if not fits:
                break
        else:
            return True
    return False


def test_the_search_agrees_with_trying_every_order() -> None:
    """Small histories, good and spoilt; the seed of one that differs is its number."""
    found = {True: 0, False: 0}
    for seed in range(4_000):
        rng = random.Random(seed)
        operations = register_history(rng, has_cas=True)[: rng.randrange(3, 7)]
        if rng.random() < 0.7:
            operations = spoil(rng, operations)
        expected = is_possible(models.register(-1), operations)
        found[expected] += 1
        print(f"replay: seed {seed}")
        assert search(models.register(-1), operations).valid is expected
    assert min(found.values()) > 300


def test_a_model_that_may_go_several_ways_is_in_all_its_states() -> None:
    """A coin that is thrown unseen is what it is once it was looked at."""

    def steps(state: str, operation: Operation) -> tuple[str, ...]:
        if operation.f == "throw":
            return ("heads", "tails")
        return (state,) if operation.result == state else ()

    coin = nondeterministic("coin", ("heads",), steps)
    thrown = [op("throw", at=(0, 1)), op("look", None, "tails", at=(2, 3))]
    assert search(coin, thrown).valid is True
    assert search(coin, [*thrown, op("look", None, "heads", at=(4, 5))]).valid is False


def many_at_once(count: int, clients: int) -> list[Operation]:
    """Clients that take turns at a lock; one in 250 never hears what became of it."""
    rng = random.Random(11)
    model, state = models.lock(), models.LockState()
    operations: list[Operation] = []
    under_way: list[tuple[int, str, dict[str, Any], Any]] = []
    at = asked = token = 0
    while asked < count or under_way:
        if asked < count and len(under_way) < clients:
            session = f"s{rng.randrange(clients)}"
            own = next((g.token for g in state.grants if g.session == session), None)
            f, value = "acquire", {"session": session}
            if own and rng.random() < 0.9:
                f, value = "release", {"session": session, "token": own}
            elif rng.random() < 0.2:
                f, value = "read", {}
            result: dict[str, Any] = {"code": "no"}
            if f == "acquire" and not state.grants:
                token += 1
                result = {"token": token}
            elif f == "acquire":
                result |= {"holder_token": state.grants[0].token}
            elif f == "release" and own:
                result = {}
            elif f == "read":
                result = {
                    "holders": [{"session": g.session, "token": g.token} for g in state.grants]
                }
            fits, state = model.step(state, op(f, value, result, at=(at, at)))
            assert fits
            under_way.append((at, f, value, result))
            asked += 1
        else:
            start, f, value, result = under_way.pop(rng.randrange(len(under_way)))
            is_lost = rng.random() < 0.004
            operations.append(
                op(f, value, None if is_lost else result, at=(start, None if is_lost else at))
            )
        at += 1
    return operations


def test_ten_thousand_operations_of_one_key_take_seconds() -> None:
    """Sixteen clients at a time, and dozens of answers lost; and a no for two thousand."""
    operations = many_at_once(10_000, 16)
    assert sum(o.is_open for o in operations) > 20
    assert search(models.lock(), operations, budget_s=60).valid is True
    operations = many_at_once(2_000, 12)
    at = max(o.end or o.start for o in operations) + 1
    newest = max(o.result["token"] for o in operations if o.result and "token" in o.result)
    twice = op("acquire", {"session": "other"}, {"token": newest}, at=(at, at + 1))
    assert search(models.lock(), [*operations, twice], budget_s=60).valid is False


def test_blind_writes_of_few_values_find_their_order() -> None:
    """Twenty at a time of which most could come anywhere: who ends first is tried first."""
    rng = random.Random(11)
    operations: list[Operation] = []
    state, at, asked = None, 0, 0
    under_way: list[tuple[int, str, Any]] = []
    while asked < 5_000 or under_way:
        if asked < 5_000 and len(under_way) < 20:
            f = "write" if rng.random() < 0.5 else "read"
            under_way.append((at, f, rng.randrange(5) if f == "write" else None))
            asked += 1
        else:
            start, f, value = under_way.pop(rng.randrange(len(under_way)))
            if f == "write" and rng.random() < 0.01:
                operations.append(op(f, value, at=(start, None)))
            else:
                state = value if f == "write" else state
                operations.append(op(f, value, None if f == "write" else state, at=(start, at)))
        at += 1
    assert search(REGISTER, operations, budget_s=60).valid is True


def test_a_prefix_holds_what_was_known_then() -> None:
    """What had not ended is open, what had not begun is not there."""
    history = [op("write", 1, at=(0, 5)), op("read", None, 1, at=(1, 2)), op("read", at=(3, 4))]
    begun = prefix(history, 2)
    assert [(o.start, o.end) for o in begun] == [(0, None), (1, 2)]
    assert begun[0].is_open


def lines_of(operations: Sequence[Operation]) -> list[Line]:
    """The lines that these operations were made of."""
    lines: dict[int, Line] = {}
    for o in operations:
        lines[o.start] = Line(o.start, o.start, o.process, Type.INVOKE, o.f, o.key, o.value)
        if o.end is not None:
            lines[o.end] = Line(o.end, o.end, o.process, Type.OK, o.f, o.key, o.result)
    last = max(lines)
    return [lines.get(at, Line(at, at, -1, Type.INFO, "nothing")) for at in range(last + 1)]


def test_a_counterexample_is_small_and_no_reading_of_what_nobody_wrote() -> None:
    """Of hundreds of operations those about the value that came back are left."""
    history = []
    at = 0
    for value in range(200):
        history.append(op("write", value, at=(at, at + 1)))
        history.append(op("read", None, value, at=(at + 2, at + 3)))
        at += 4
    history.append(op("read", None, 150, at=(at, at + 1)))
    history.append(op("write", 999, at=(at + 2, at + 3)))
    small = shrink(REGISTER, history)
    assert search(REGISTER, small).valid is False
    assert len(small) == 3
    assert (small[0].f, small[0].value) == ("write", 150)
    verdict = judge("K1 register", REGISTER, {"x": history}, lines_of(history))
    assert verdict.valid is False
    assert len(verdict.counterexample) == 6
    assert "none of these can come next" in verdict.notes[1]
    assert "150" in verdict.notes[1]


def test_keys_are_judged_apart_and_counted() -> None:
    """What happens to one says nothing of another (P-compositionality)."""
    one = op("write", 1, at=(0, 1))
    two = Operation(1, "read", "y", None, None, Type.OK, 2, 3, 2, 3)
    verdict = judge("K1", REGISTER, by_key([one, two]), lines_of([one, two]))
    assert verdict.valid is True
    assert "2 operations (0 open) on 2 keys" in verdict.summary


def test_what_took_too_long_is_undecided() -> None:
    """And so the check is not passed."""
    adds = [op("add", 1 << number, at=(number, None)) for number in range(40)]
    reads = [op("read", None, -1, at=(100, 101))]
    verdict = judge("K1", models.counter(), {"x": adds + reads}, lines_of(reads), budget_s=0.05)
    assert verdict.valid is None
    assert not verdict.passed


@pytest.mark.parametrize("seed", range(40))
def test_a_counterexample_of_any_history_fails_by_itself(seed: int) -> None:
    """Made small it is still one."""
    made = next(
        made
        for made in (make(seed * 1_000 + more) for more in range(1_000))
        if made.model == "lock" and search(models.lock(), made.operations).valid is False
    )
    small = shrink(models.lock(), made.operations)
    assert search(models.lock(), small).valid is False
    assert len(small) <= len(made.operations)


def test_models_of_sets_and_semaphores_and_jobs_say_no() -> None:
    """A failing history for each."""
    grow = [op("add", 1, at=(0, 1)), op("read", None, [], at=(2, 3))]
    assert search(models.grow_set(), grow).valid is False
    assert search(models.grow_set(), [grow[0], op("read", None, [1], at=(2, 3))]).valid is True
    full = [
        op("set", {"limit": 1}, {}, at=(0, 1)),
        op("acquire", {"session": "a"}, {"token": 1}, at=(2, 3)),
        op("acquire", {"session": "b"}, {"token": 2}, at=(4, 5)),
    ]
    assert search(models.semaphore(), full).valid is False
    freed = [*full[:2], op("end", {"session": "a"}, at=(3, None), process=-1), full[2]]
    assert search(models.semaphore(), freed).valid is True
    job = [
        op("put", {}, {}, at=(0, 1)),
        op("reserve", {}, {"token": 5}, at=(2, 3)),
        op("delete", {"token": 5}, {}, at=(4, 5)),
    ]
    assert search(models.job(), job).valid is True
    again = op("reserve", {}, {"token": 6}, at=(6, 7))
    assert search(models.job(), [*job, again]).valid is False


def test_the_search_needs_no_deep_stack() -> None:
    """A chain as long as this would end a recursive search."""
    chain = [op("add", 1, at=(2 * n, 2 * n + 1)) for n in range(5_000)]
    began_s = time.monotonic()
    assert search(models.counter(), chain).valid is True
    print(f"5000 in {time.monotonic() - began_s:.2f} s")


def crowded_semaphore() -> list[Operation]:
    """Many whom nobody answered, then two grants at once whose tokens say which came first."""
    end_of_all = 200
    session = {number: f"s{number}" for number in range(20)}
    history = [
        op("set", {"limit": 2}, {}, at=(0, 1)),
        op("acquire", {"session": session[0], "units": 2}, {"token": 1}, at=(2, 3)),
        op("release", {"session": session[0], "token": 1}, at=(4, None)),
        op("set", {"limit": 4}, at=(5, None)),
        op("set", {"limit": 2}, at=(6, None)),
    ]
    for number in range(3, 18):
        history.append(op("acquire", {"session": session[number]}, at=(number + 7, None)))
        history.append(op("end", {"session": session[number]}, at=(number + 30, None)))
    holder = [{"session": session[0], "token": 1, "units": 2}]
    history.append(op("read", {}, {"limit": 2, "holders": holder}, at=(100, 101)))
    for number, token, at in ((1, 2, (102, 106)), (2, 3, (103, 105))):
        history.append(op("acquire", {"session": session[number]}, {"token": token}, at=at))
    holders = [{"session": session[n], "token": n + 1} for n in (1, 2)]
    history.append(op("read", {}, {"limit": 2, "holders": holders}, at=(107, end_of_all)))
    return history


def test_operations_that_nobody_answered_do_not_drown_the_rest() -> None:
    """With few of them in a row first, the newest first, and back at once from tokens passed."""
    answer = search(models.semaphore(), crowded_semaphore())
    assert answer.valid is True
    assert answer.tries < 10_000


@pytest.mark.parametrize("model", [models.lock(), models.semaphore()])
def test_whoever_has_ended_gets_nothing_any_more(model: Model[Any]) -> None:
    """Not after the end was known; before it, also when both were under way at once."""
    made = op("set", {"limit": 1}, {}, at=(0, 1)) if model.name == "semaphore" else None
    first = [made] if made else []
    end = op("end", {"session": "a"}, at=(2, 6), kind=Type.OK)
    early = op("acquire", {"session": "a"}, {"token": 5}, at=(3, 8))
    late = op("acquire", {"session": "a"}, {"token": 5}, at=(7, 8))
    assert search(model, [*first, end, early]).valid is True
    assert search(model, [*first, end, late]).valid is False


def test_a_full_semaphore_tells_its_limit() -> None:
    """A refusal that names another is no answer."""
    history = [
        op("set", {"limit": 1}, {}, at=(0, 1)),
        op("acquire", {"session": "a"}, {"token": 1}, at=(2, 3)),
    ]
    for limit, valid in ((1, True), (2, False)):
        told = {"code": "semaphore_full", "free": 0, "limit": limit}
        refusal = op("acquire", {"session": "b"}, told, at=(4, 5))
        assert search(models.semaphore(), [*history, refusal]).valid is valid
