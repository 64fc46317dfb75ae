"""All checkers over a small cluster that is right, and over the same with one thing wrong."""

from __future__ import annotations

import msgspec
import pytest
from jepsen.checkers.durability import Durability
from jepsen.checkers.exactly_once import ExactlyOnce
from jepsen.checkers.hygiene import Hygiene
from jepsen.checkers.jobs import Jobs
from jepsen.checkers.linear import LinearJobs, LinearLocks, LinearSemaphores
from jepsen.checkers.locks import MutualExclusion, Tokens
from jepsen.checkers.order import Turns
from jepsen.checkers.progress import Progress
from jepsen.checkers.replicas import Replicas
from jepsen.checkers.semaphores import Capacity
from jepsen.checkers.sessions import Sessions
from jepsen.checkers.streams import Streams
from jepsen.history import operations
from jepsen.verdicts import Checker

from tests.jepsen.reference import DEFECTS, Reference

CHECKERS: list[Checker] = [
    LinearLocks(),
    LinearSemaphores(),
    LinearJobs(),
    MutualExclusion(),
    Tokens(),
    Capacity(),
    Turns(),
    Sessions(),
    Jobs(),
    ExactlyOnce(),
    Streams(),
    Replicas(),
    Durability(),
    Progress(),
    Hygiene(),
]

SEEDS = range(25)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_right_passes_every_check(seed: int) -> None:
    """Answers get lost, requests come twice, sessions end; nothing of it is wrong."""
    lines = Reference(seed).run()
    print(f"replay: Reference({seed}).run(), {len(lines)} lines")
    assert len(operations(lines)) > 300
    for checker in CHECKERS:
        verdict = checker.check(lines)
        assert verdict.passed, verdict


@pytest.mark.parametrize("defect", list(DEFECTS))
def test_every_defect_is_found_by_its_check(defect: str) -> None:
    """Within few seeds, and the counter-example is small."""
    wanted = next(checker for checker in CHECKERS if checker.name == DEFECTS[defect])
    found = []
    for seed in range(10):
        verdict = wanted.check(Reference(seed, defect).run())
        if verdict.valid is False:
            found.append((seed, verdict))
    print(f"{defect}: {wanted.name} in seeds {[seed for seed, _ in found]}")
    assert len(found) >= 5
    assert min(len(verdict.counterexample) for _, verdict in found) <= 8


@pytest.mark.parametrize("defect", ["two holders", "stale reads"])
def test_a_lock_that_is_not_one_is_no_one_lock(defect: str) -> None:
    """The search finds by itself what others find by what they know of locks."""
    verdicts = [LinearLocks().check(Reference(seed, defect).run()) for seed in range(10)]
    wrong = [verdict for verdict in verdicts if verdict.valid is False]
    assert len(wrong) >= 5
    assert min(len(verdict.counterexample) for verdict in wrong) <= 8


def test_a_semaphore_that_gives_too_much_is_no_one_semaphore() -> None:
    """Nor is one that gives before it was made."""
    verdicts = [LinearSemaphores().check(Reference(seed, "one unit more").run()) for seed in SEEDS]
    assert sum(verdict.valid is False for verdict in verdicts) >= 5
    unmade = [line for line in Reference(3).run() if line.f != "semaphore.set"]
    lines = [msgspec.structs.replace(line, index=index) for index, line in enumerate(unmade)]
    assert LinearSemaphores().check(lines).valid is False
    assert Capacity().check(lines).valid is None
