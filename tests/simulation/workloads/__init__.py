"""Workloads: what clients do in a simulated storm, and who judges what they were told.

RULE: one module per workload, found by its file name; a module is imported when its workload is
wanted, never before. `base.py` has what all of them share.

A workload is a *turn* (or a whole life) of a client, and a *book*. Clients speak to nodes under
crashes, partitions and retries; the book hears every committed entry once and in order, next to a
machine that never saw a crash, and complains when a law is broken. That replies agree with the
log, that repeats take effect once, that nobody waiting is dropped, that sessions end in time, that
tokens rise and that all nodes agree is judged for every workload already (timeline.py, run.py).

How to add one, `workloads/boxes.py` (`--workload boxes` finds it, so do the drawn seeds):

    class BoxBook(Book):
        def __init__(self, complain: Complain) -> None:
            super().__init__(complain)
            self._held: dict[str, tuple[str, int]] = {}  # name → session and token

        def applied(self, entry: Entry) -> None:
            for name, (session, _) in list(self._held.items()):
                if session in entry.gone:
                    del self._held[name]
            for request, command, outcome in entry.fresh:
                if isinstance(outcome, BoxTaken):
                    entry.gave(outcome.token, outcome)
                    if outcome.name in self._held:
                        self.complain("one owner of a box", f"{outcome} at {entry.index}")
                    self._held[outcome.name] = (outcome.session, outcome.token)
                    self.count("taken")

        def check(self, machine: Machine) -> None:
            ...  # the machine must hold what the book holds

    def turn(client: Client, session: Session) -> Part:
        taken = yield from client.call(TakeBox(session.id, client.rng.choice(("b1", "b2"))))
        session.note(taken)  # sees whether the session has ended
        yield Pause(20 * MS)

    WORKLOAD = Workload("boxes", book=BoxBook, turn=turn)

Names of things must be the workload's own: in `mixed` runs all workloads share one machine.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Sequence

from tests.simulation.workloads.base import Book, Workload

__all__ = ["DEFAULT", "MIXED", "Book", "Workload", "draw", "find", "names"]

DEFAULT = "locks"
MIXED = "mixed"

_LOCKS_SHARE, _MIXED_SHARE = 0.4, 0.25


def names() -> list[str]:
    """Every workload there is, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def find(text: str) -> list[Workload]:
    """The workloads of a name, of several names with commas, or all of them ("mixed").

    Raises:
        KeyError: there is no such workload.
    """
    known = names()
    wanted = known if text == MIXED else text.split(",")
    for name in wanted:
        if name not in known:
            raise KeyError(f"no workload {name!r}; there are {', '.join([*known, MIXED])}")
    found = [importlib.import_module(f"{__name__}.{name}").WORKLOAD for name in wanted]
    for name, workload in zip(wanted, found, strict=True):
        assert workload.name == name, f"{name}.py says that it is {workload.name}"
    return found


def draw(seed: int, among: Sequence[str] | None = None) -> str:
    """The workload of a seed, where none is asked for. Locks, which all others lean on, lead."""
    others = [name for name in (names() if among is None else among) if name != DEFAULT]
    rng = random.Random(f"{seed}/workload")
    lot = rng.random()
    if not others or lot < _LOCKS_SHARE:
        return DEFAULT
    return MIXED if lot < _LOCKS_SHARE + _MIXED_SHARE else rng.choice(others)
