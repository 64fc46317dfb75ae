"""Faults that a test plants into the answers of a node.

RULE: wraps rows of the gateway's table; what is answered is decided here, how it is written is not.

A planted failure is a real HTTP answer with its problem document, so that whoever asks meets it:
clients of the fixture, clients that a program makes itself, and plain HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from cluster.gateway.passes import Passes
from cluster.gateway.replies.base import Answer, Problem
from cluster.gateway.replies.kinds import KINDS
from cluster.gateway.requests import Ask
from cluster.gateway.routes import Look, Read, Route, View, Write
from cluster.machine.commands import Command


@dataclass(slots=True)
class _Planted:
    """`code` instead of an answer; None: the answer is lost after the command was applied."""

    code: str | None
    on: str
    times: int


class Faults:
    """What is planted, in order of planting. Used in the node's thread."""

    def __init__(self) -> None:
        self._planted: list[_Planted] = []

    def fail(self, code: str, *, on: str, times: int) -> None:
        """Have requests answered by a problem, without being carried out.

        Raises:
            ValueError: there is no such code.
        """
        if code not in KINDS:
            raise ValueError(f'"{code}" is no code of a problem; there are {", ".join(KINDS)}')
        self._planted.append(_Planted(code, on, times))

    def lose(self, *, on: str, times: int) -> None:
        """Have commands carried out, and their callers told that nobody knows."""
        self._planted.append(_Planted(None, on, times))

    def clear(self) -> None:
        """Take back what was not met."""
        self._planted.clear()

    def around(self, routes: Iterable[Route]) -> list[Route]:
        """The same table, with the faults in it."""
        return [self._around(route) for route in routes]

    def _around(self, route: Route) -> Route:
        if isinstance(route, Write):
            return replace(
                route,
                command=self._command(route, route.command),
                issue=self._issue(route, route.issue),
            )
        if isinstance(route, Read):
            return replace(route, view=self._view(route, route.view))
        return route

    def _command(self, route: Route, inner: Callable[[Ask], Command]) -> Callable[[Ask], Command]:
        def command(ask: Ask) -> Command:
            self._meet_failure(route)
            return inner(ask)

        return command

    def _view(self, route: Route, inner: View) -> View:
        def view(look: Look, ask: Ask) -> msgspec.Struct:
            self._meet_failure(route)
            return inner(look, ask)

        return view

    def _issue(
        self, route: Route, inner: Callable[[Answer, Passes], Answer] | None
    ) -> Callable[[Answer, Passes], Answer]:
        def issue(answer: Answer, passes: Passes) -> Answer:
            if self._met(route, is_loss=True) is not None:
                detail = "the test lost this answer; what was asked for may have happened"
                raise Problem("timeout", detail)
            return answer if inner is None else inner(answer, passes)

        return issue

    def _meet_failure(self, route: Route) -> None:
        planted = self._met(route, is_loss=False)
        if planted is not None and planted.code is not None:
            raise Problem(planted.code, "the test planted this failure")

    def _met(self, route: Route, *, is_loss: bool) -> _Planted | None:
        """The first that this request meets; it is used up once."""
        name = f"{route.method} {route.path}"
        for planted in self._planted:
            if (planted.code is None) is is_loss and planted.on in name:
                planted.times -= 1
                if planted.times <= 0:
                    self._planted.remove(planted)
                return planted
        return None
