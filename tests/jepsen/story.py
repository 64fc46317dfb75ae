"""Histories told by hand: who asked what when, and what came of it.

RULE: builds lines, and knows nothing of what they should mean.
"""

from __future__ import annotations

from typing import Any

from jepsen.history import Line, Type

MS = 1_000_000


class Asked:
    """A request that has not been answered yet."""

    def __init__(self, process: int, f: str, key: str, node: str) -> None:
        self.process = process
        self.f = f
        self.key = key
        self.node = node


class Story:
    """A history in the making, on a clock of its own.

    Attributes:
        lines: so far.
        now_ms: since it began.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.now_ms = 0.0
        self._processes = 0

    def wait(self, ms: float) -> None:
        """Let time go by."""
        self.now_ms += ms

    def begin(self, f: str, key: str = "", /, node: str = "n1", **value: Any) -> Asked:
        """Somebody asks."""
        self._processes += 1
        asked = Asked(self._processes, f, key, node)
        self._note(asked, Type.INVOKE, value)
        return asked

    def ok(self, asked: Asked, /, **answer: Any) -> None:
        """And is answered."""
        self._note(asked, Type.OK, answer)

    def refuse(self, asked: Asked, code: str, /, **problem: Any) -> None:
        """And is refused."""
        self._note(asked, Type.FAIL, {"code": code, **problem}, error=code)

    def lose(self, asked: Asked) -> None:
        """And never hears what came of it."""
        self._note(asked, Type.INFO, None, error="late")

    def did(
        self, f: str, key: str = "", asked: dict[str, Any] | None = None, /, **answer: Any
    ) -> None:
        """One request that is answered at once."""
        self.ok(self.begin(f, key, **(asked or {})), **answer)

    def was_refused(self, f: str, key: str, code: str, /, **value: Any) -> None:
        """One request that is refused at once."""
        self.refuse(self.begin(f, key, **value), code)

    def session(self, name: str, ttl_ms: int = 10_000) -> None:
        """One opens a session."""
        self.did("session.open", "", {"ttl_ms": ttl_ms}, session=name, ttl_ms=ttl_ms)

    def fact(self, f: str, key: str = "", /, **value: Any) -> None:
        """Something that no client did."""
        self._add(Line(len(self.lines), 0, -2, Type.INFO, f, key, value))

    def _note(self, asked: Asked, kind: Type, value: Any, error: str = "") -> None:
        self._add(
            Line(
                len(self.lines),
                0,
                asked.process,
                kind,
                asked.f,
                asked.key,
                value,
                asked.node,
                error,
            )
        )

    def _add(self, line: Line) -> None:
        self.now_ms += 1
        made = Line(
            line.index,
            int(self.now_ms * MS),
            line.process,
            line.type,
            line.f,
            line.key,
            line.value,
            line.node,
            line.error,
        )
        self.lines.append(made)
