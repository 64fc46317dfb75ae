"""Asking the node: from its callbacks to something a handler can await.

RULE: one future per question; the node answers each exactly once. A cancelled handler (its client
hung up) leaves nothing behind: a late reply finds a future that is done and is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cluster.gateway.replies import from_error
from cluster.node.face import NodeFace
from cluster.node.pending import Answered, Failed, OnReply, Reply


async def final_reply(
    submit: Callable[[OnReply], int], node: NodeFace, loop: asyncio.AbstractEventLoop
) -> Reply:
    """Submit a command and wait for the node's final word on it.

    Args:
        submit: gives the command to the node; returns the handle for `hang_up`.

    Raises:
        Problem: the node did not take it.
        asyncio.CancelledError: the client hung up; the node has been told.
    """
    future: asyncio.Future[Reply] = loop.create_future()
    handle = submit(_settle(future))
    try:
        return await future
    except asyncio.CancelledError:
        node.hang_up(handle)
        raise


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
