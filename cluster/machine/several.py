"""Several commands in one entry: one after the other, or all of them or none.

RULE: knows no primitive by name: handlers carry out, and checks tell beforehand what would be
refused. A plain batch is as if its commands had come one by one in one entry, with what each frees
being granted before the next. In an all-or-nothing one every command is looked at first, with
limits as if all the others were there already; and as no two of them touch the same thing, nothing
that was looked at changes until all is done. So nothing freed is granted in between, either.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.machine.commands.base import Command, RequestId
from cluster.machine.commands.several import Several
from cluster.machine.core import Core
from cluster.machine.outcome.base import Outcome
from cluster.machine.outcome.several import Batched, BatchRefused, BatchUnfit
from cluster.machine.parked import Parked
from cluster.machine.primitive import Check, Handler


class Batches:
    """Carries batches out."""

    def __init__(
        self,
        core: Core,
        handlers: Mapping[type[Command], Handler],
        checks: Mapping[type[Command], Check],
    ) -> None:
        """Start.

        Args:
            handlers: of every command.
            checks: of those that may stand in an all-or-nothing batch.
        """
        self._core = core
        self._handlers = handlers
        self._checks = checks

    def carry_out(self, command: Several, request_id: RequestId) -> Outcome:
        """Carry out a batch."""
        if command.atomic:
            refusal = self._unfit(command) or self._refused(command)
            if refusal is not None:
                return refusal
        outcomes = []
        for single in command.commands:
            outcome = self._handlers[type(single)](single, request_id)
            assert not isinstance(outcome, Parked), "a command of a batch waits"
            outcomes.append(outcome)
            if not command.atomic:
                self._core.settle()
        return Batched(tuple(outcomes))

    def _unfit(self, command: Several) -> BatchUnfit | None:
        touched: dict[tuple[str, ...], int] = {}
        for at, single in enumerate(command.commands):
            check = self._checks.get(type(single))
            if check is None:
                return BatchUnfit(at, None)
            thing = check.thing(single)
            if thing and (other := touched.setdefault(thing, at)) != at:
                return BatchUnfit(at, other)
        return None

    def _refused(self, command: Several) -> BatchRefused | None:
        core = self._core
        core.headroom = len(command.commands)
        try:
            for at, single in enumerate(command.commands):
                refusal = self._checks[type(single)].refusal(single)
                if refusal is not None:
                    return BatchRefused(at, refusal)
        finally:
            core.headroom = 1
        return None
