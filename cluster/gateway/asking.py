"""Asking the node: from its callbacks to something a handler can await.

RULE: one future per question; the node answers each exactly once. A cancelled handler (its client
hung up) leaves nothing behind: a late reply finds a future that is done and is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.errors import CoterieError
from cluster.gateway.face import NodeFace
from cluster.gateway.replies import from_error
from cluster.machine.commands import Command
from cluster.node.pending import Answered, Failed, OnReply, Reply


async def outcome_of(
    node: NodeFace,
    command: Command,
    loop: asyncio.AbstractEventLoop,
    *,
    timeout_ms: int,
    key: str | None,
    fingerprint: bytes | None,
) -> Answered:
    """Submit a command and wait for its final outcome.

    Raises:
        Problem: the node failed to get one.
        asyncio.CancelledError: the client hung up; the node has been told.
    """
    future: asyncio.Future[Reply] = loop.create_future()
    try:
        handle = node.submit(
            command, _settle(future), timeout_ms=timeout_ms, key=key, fingerprint=fingerprint
        )
    except CoterieError as error:
        raise from_error(error) from None
    try:
        reply = await future
    except asyncio.CancelledError:
        node.hang_up(handle)
        raise
    if isinstance(reply, Failed):
        raise from_error(reply.error)
    return reply


async def reply_to(
    question: Callable[[OnReply], None], loop: asyncio.AbstractEventLoop
) -> Answered:
    """Put a question that has nothing to undo (a barrier, a hand-over) and wait for the reply.

    Raises:
        Problem: the node could not do it.
    """
    future: asyncio.Future[Reply] = loop.create_future()
    question(_settle(future))
    reply = await future
    if isinstance(reply, Failed):
        raise from_error(reply.error)
    return reply


def _settle(future: asyncio.Future[Reply]) -> OnReply:
    def settle(reply: Reply) -> None:
        if not future.done():
            future.set_result(reply)

    return settle
