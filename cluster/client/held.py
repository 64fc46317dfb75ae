"""Something held for a time: its token, its standing, and leaving it.

RULE: what is true of all that is held; how it is taken and given back is told by its kind.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, ClassVar, Literal, Self, TypeAlias

import msgspec

from cluster.client.durations import Length
from cluster.client.keeping import Keeper, OnState, Scope, call_safely
from cluster.client.lease import Standing
from cluster.errors import LockLost

State: TypeAlias = Literal["free"] | Standing
"""What may be relied on; `free`: not held, or given back."""


class Grant(msgspec.Struct, frozen=True):
    """What the cluster gave.

    Attributes:
        token: its fencing token; of several, the newest.
        body: the answer as it came.
    """

    token: int
    body: dict[str, Any]


class Held:
    """Something held: `acquire`, `release`, or `async with`, one grant at a time.

    Inside `async with` the task is cancelled when it is lost, and `LockLost` is raised on the way
    out.
    """

    kind: ClassVar[str]

    def __init__(self, name: str, *, on_state: OnState | None = None):
        self.name = name
        self._on_state = on_state
        self._grant: Grant | None = None
        self._why_lost: str | None = None
        # The keeper must not refer to us: it ends when nobody else does.
        self._key = object()
        self._scope: Scope | None = None

    @property
    def keeper(self) -> Keeper:
        """What keeps it."""
        raise NotImplementedError

    async def acquire(self, wait: Length | None = None) -> int:
        """Take it, waiting for it at most `wait`; returns its token."""
        raise NotImplementedError

    async def release(self) -> None:
        """Give it back."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.state}>"

    async def __aenter__(self) -> Self:
        await self.acquire()
        self._enter_scope()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit_scope(kind, error, traceback)
        if self._grant is not None:
            try:
                await self.release()
            except LockLost:
                # What the body raised says more; but where it ended well, it did so in vain.
                if kind is None:
                    raise

    def _enter_scope(self) -> None:
        """From here on the task is cancelled when it is lost."""
        scope = Scope(self.keeper, loss=self.loss)
        try:
            scope.enter()
        except LockLost:
            self.forget()
            raise
        self._scope = scope

    def _exit_scope(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Up to here.

        Raises:
            LockLost: it was lost; it is forgotten.
        """
        scope, self._scope = self._scope, None
        assert scope is not None
        try:
            scope.exit(kind, error, traceback)
        except LockLost:
            self.forget()
            raise

    def forget(self) -> None:
        """It is lost: nothing is to be given back."""
        if self._grant is not None:
            # Who found out by using it may have been faster than the timer that tells.
            self.keeper.look()
            self._grant = None
            self.keeper.unlisten(self._key)
            self._forgotten()

    @property
    def token(self) -> int:
        """Its fencing token, if it may be relied on at this moment.

        Raises:
            LockLost: it may not.
        """
        return self._demanded().token

    @property
    def state(self) -> State:
        """What may be relied on, by the clock."""
        if self._grant is None:
            return "free"
        return "lost" if self._why_lost is not None else self.keeper.standing

    @property
    def left_ms(self) -> int:
        """For how long it may be relied on if no renewal succeeds."""
        return self.keeper.left_ms if self.state in {"held", "grace"} else 0

    def demand(self) -> None:
        """Return if it is held and may be relied on.

        Raises:
            LockLost: it may not.
        """
        self._demanded()

    def _demanded(self) -> Grant:
        """The grant, if it may be relied on; looked at once, as other threads may give it back.

        Raises:
            LockLost: it may not.
        """
        grant = self._grant
        if grant is None or self._why_lost is not None or self.keeper.standing == "lost":
            raise self.loss()
        return grant

    def loss(self) -> LockLost:
        """The error that says that it is lost, and why."""
        grant = self._grant
        token = None if grant is None else grant.token
        if self._why_lost is not None:
            why = self._why_lost
        elif grant is None:
            why = "it is not held"
        else:
            why = str(self.keeper.loss())
        under = "" if token is None else f" (token {token})"
        detail = f'{self.kind} "{self.name}"{under} is lost: {why}'
        return LockLost(detail, kind=self.kind, name=self.name, token=token)

    def _lose(self, why: str) -> None:
        if self._why_lost is not None:
            return
        self._why_lost = why
        # What becomes of its session later is nothing that it was told of.
        self.keeper.unlisten(self._key)
        if self._on_state is not None:
            # The owner is cancelled, whatever it makes of it.
            loop = asyncio.get_running_loop()
            call_safely(loop, f"told that {self.name} is lost", self._on_state, "lost")
        if self._scope is not None:
            self._scope.fire(self.loss())

    def _forgotten(self) -> None:
        """It is lost, and nothing is to be given back."""
