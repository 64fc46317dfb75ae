"""Asking the node on behalf of clients that know no elections.

RULE: the older systems were one process: their clients take an error for an answer and often die of
it. So a question is held here until the cluster can answer it, within a patience that is longer
than any usual election. Nothing is ever asked twice that may already have happened: the node itself
repeats a request under its own id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from cluster.errors import CoterieError, Overloaded, ShuttingDown, Timeout
from cluster.machine.commands import Command
from cluster.machine.machine import Machine
from cluster.machine.outcome import Outcome
from cluster.machine.undo import undo
from cluster.node.clock import monotonic
from cluster.node.face import NodeFace
from cluster.node.pending import Failed, OnReply, Reply

PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.05


class Desk:
    """Puts commands and reads before the node and waits for its final word.

    Args:
        patience_s: how long a question may wait for a leader, or for room in a full queue.
        clock: seconds, never falling.
    """

    def __init__(
        self,
        node: NodeFace,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = monotonic,
    ):
        self._node = node
        self._patience_s = patience_s
        self._clock = clock

    @property
    def machine(self) -> Machine:
        """Local state as it is, possibly behind; see `read`."""
        return self._node.machine

    async def ask(self, command: Command, *, key: str | None = None) -> Outcome:
        """Have a command applied; its `wait_ms` comes on top of our patience.

        Raises:
            CoterieError: there is no answer; `definite` says whether it surely did not happen.
            asyncio.CancelledError: the client is gone; a parked request leaves its queue.
        """

        def submit(on_reply: OnReply) -> int:
            left_ms = max(1, round((until_s - self._clock()) * 1000))
            return self._node.submit(command, on_reply, timeout_ms=left_ms, key=key, patient=True)

        until_s = self._clock() + self._patience_s
        while True:
            error: CoterieError
            try:
                reply = await self._replied(submit, key)
            except Overloaded as full:
                error = full
            else:
                if not isinstance(reply, Failed):
                    assert reply.outcome is not None
                    return reply.outcome
                error = reply.error
            may_pass = error.definite and error.retryable and not isinstance(error, ShuttingDown)
            if not may_pass or self._clock() + _PAUSE_S >= until_s:
                raise error
            await asyncio.sleep(_PAUSE_S)

    async def read(self) -> Machine:
        """Local state, once it holds all that was acknowledged before this call.

        Raises:
            CoterieError: nobody led for longer than our patience.
        """
        until_s = self._clock() + self._patience_s
        error: CoterieError = Timeout("the cluster did not answer")
        while (left_s := until_s - self._clock()) > 0:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Reply] = loop.create_future()
            self._node.read(_settle(future), timeout_ms=max(1, round(left_s * 1000)))
            reply = await future
            if not isinstance(reply, Failed):
                return self._node.machine
            error = reply.error
            if isinstance(error, ShuttingDown):
                break
            await asyncio.sleep(_PAUSE_S)
        raise error

    async def _replied(self, submit: Callable[[OnReply], int], key: str | None) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        handle = submit(_settle(future))
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled() or not future.done():
                self._node.hang_up(handle)
            elif key is None:
                # Answered in this very moment: nobody will ever hear of it.
                self._take_back(future.result())
            raise

    def _take_back(self, reply: Reply) -> None:
        if isinstance(reply, Failed) or reply.outcome is None:
            return
        for command in undo(reply.outcome):
            # Refused where this node is leaving: what it gave ends by itself then.
            with contextlib.suppress(CoterieError):
                timeout_ms = round(self._patience_s * 1000)
                self._node.submit(command, _ignore, timeout_ms=timeout_ms, patient=True)


def _settle(future: asyncio.Future[Reply]) -> OnReply:
    def settle(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    return settle


def _ignore(reply: Reply) -> None:
    """Nobody listens."""
