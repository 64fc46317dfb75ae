"""Examples: requests that belong together, and what they are answered.

RULE: values and how they are read; the requests themselves are in `tour.py`, and their answers in
`answers.json`, as a real machine gave them. The tests send every request to a real cluster.

A request may use what an answer before it gave: `"<worker>"` in its path or body stands for what
was kept as `worker`. Shown are the values of the recorded answers, so that all fit together.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Final, NamedTuple

import msgspec

from cluster.gateway.routes import Route

Plain = Any
"""A value as JSON has it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the tour.

    Attributes:
        title: what it shows, in a few words; unique within its route.
        call: method and path, with its query, as in a batch.
        body: None for none.
        status: of its answer.
        keep: names under which later steps know parts of its answer: dotted paths into it.
        headers: further header fields.
        streams: the answer does not end by itself.
    """

    title: str
    call: str
    body: Plain = None
    status: int = 200
    keep: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: bool = False

    @property
    def key(self) -> str:
        """Its name among the recorded answers."""
        return f"{self.call}: {self.title}"

    @property
    def method(self) -> str:
        return self.call.partition(" ")[0]

    @property
    def target(self) -> str:
        """Path and query."""
        return self.call.partition(" ")[2]

    def route(self, routes: Iterable[Route]) -> Route:
        """Return the row of the table that serves it.

        Raises:
            LookupError: none does.
        """
        segments = self.target.partition("?")[0].split("/")
        for row in sorted(routes, key=lambda row: row.path.count("{")):
            parts = row.path.split("/")
            if row.method == self.method and len(parts) == len(segments):
                pairs = zip(parts, segments, strict=True)
                if all(part == segment or part.startswith("{") for part, segment in pairs):
                    return row
        raise LookupError(f"no route for {self.call}")

    def filled(self, kept: Mapping[str, Plain]) -> Step:
        """Put in what is known by name.

        Raises:
            KeyError: nothing was kept under a name.
        """
        return Step(
            self.title,
            _fill(self.call, kept),
            _fill(self.body, kept),
            self.status,
            self.keep,
            _fill(dict(self.headers), kept),
            self.streams,
        )

    def kept(self, answer: Plain) -> dict[str, Plain]:
        """What later steps are to know of its answer."""
        return {name: _at(answer, path.split(".")) for name, path in self.keep.items()}


class Shown(NamedTuple):
    """One step with real values in it, and its answer; None where that has no body to show."""

    step: Step
    answer: Plain


def shown(tour: Iterable[Step], answers: Mapping[str, Plain]) -> Iterator[Shown]:
    """Go through the tour with recorded answers; what was never recorded is left out."""
    kept: dict[str, Plain] = {}
    for step in tour:
        if step.key not in answers:
            continue
        answer = answers[step.key]
        with contextlib.suppress(KeyError):
            yield Shown(step.filled(kept), answer)
            kept |= step.kept(answer)


def recorded() -> dict[str, Plain]:
    """The answers to the steps of the tour, by their keys."""
    text = resources.files("cluster.gateway").joinpath("answers.json").read_bytes()
    answers: dict[str, Plain] = msgspec.json.decode(text)
    return answers


def _fill(value: Plain, kept: Mapping[str, Plain]) -> Plain:
    if isinstance(value, dict):
        return {key: _fill(item, kept) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, kept) for item in value]
    if not isinstance(value, str):
        return value
    if whole := _NAMED.fullmatch(value):
        return kept[whole[1]]
    return _NAMED.sub(lambda match: str(kept[match[1]]), value)


def _at(value: Plain, path: list[str]) -> Plain:
    for part in path:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


_NAMED: Final = re.compile(r"<(\w+)>")
