"""What a plant is: a bug, where it is hunted, and the checks that must find it.

RULE: values, and the two or three ways to patch. Imports nothing of the simulator.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

Patch = Callable[[], AbstractContextManager[Any]]
"""Plants the bug while the context is open."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A hunt in the simulator: whole clusters in virtual time, seed after seed from 0.

    Attributes:
        laws: of the simulator; one of them must break.
        profile, workload: of faults and of clients, by their names in `tests.simulation`.
        nodes: how many; None as the profile says.
        seconds: virtual, under faults, of each seed.
        budget: seeds after which it must have been found.
        faults: weights over those of the profile.
        settings: fields of the plan over those of the profile; `faults` among them are all there are.
    """

    laws: frozenset[str]
    profile: str = "storm-tcp"
    workload: str = "locks"
    nodes: int | None = None
    seconds: float = 25.0
    budget: int = 20
    faults: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Real:
    """A hunt with real processes: `python jepsen-style --workload … --nemesis … --plant …`.

    Attributes:
        checks: one of them must not be valid.
        seconds: under faults, of each run.
        budget: runs, of one seed each, after which it must have been found.
    """

    checks: frozenset[str]
    workload: str
    nemesis: str
    seconds: float = 12.0
    budget: int = 3


@dataclass(frozen=True, slots=True)
class Plant:
    """One bug.

    Attributes:
        name: on command lines.
        what: goes wrong, in a few words.
        layer: the guard it switches off, by its number in the engine's notes, or its room.
        plant: does it.
        simulated, real: where it is hunted; at least one of them.
    """

    name: str
    what: str
    layer: str
    plant: Patch
    simulated: Simulated | None = None
    real: Real | None = None


@contextlib.contextmanager
def replaced(owner: Any, **attributes: Any) -> Iterator[None]:
    """Give a class or module other attributes; those must be there already."""
    with ExitStack() as stack:
        for name, value in attributes.items():
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


@contextlib.contextmanager
def together(*patches: AbstractContextManager[Any]) -> Iterator[None]:
    """Several patches as one."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        yield


@contextlib.contextmanager
def planted(plant: Plant | None) -> Iterator[None]:
    """Have the bug while the block runs; None for none."""
    with contextlib.nullcontext() if plant is None else plant.plant():
        yield
