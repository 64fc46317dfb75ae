"""Celery beat on two machines, of which one sends: from the shell, and as a scheduler class.

The messages are judged, as they lie in the broker: in the order of sending, their tokens never
fall, and no beat has sent more than its schedule says.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Awaitable, Callable
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from jepsen.progress import progress, until

from tests.integration.cluster import Cluster
from tests.integration.recipes.programs import Program, Programs, module, running

pytestmark = pytest.mark.asyncio(loop_scope="package")

EVERY_MS = 1_000
# What systemd does with `Restart=always`: on a slow machine a session of two seconds may be lost.
KEPT_RUNNING = "while :; do sh beat.sh; done"
BEAT = module("celery", "--app", "fleet", "beat", "--loglevel", "info", "--pidfile=")


class Message(NamedTuple):
    """A message in the broker.

    Attributes:
        sent_ms: on the one clock of this machine.
        sender: process of the beat that sent it.
    """

    sent_ms: int
    token: int
    sender: int


class Broker:
    """The folder that the messages are put into."""

    def __init__(self, folder: Path):
        self.folder = folder

    def messages(self) -> list[Message]:
        """All of them, in the order of sending."""
        found = []
        for file in self.folder.glob("*.celery.msg"):
            try:
                message = json.loads(file.read_bytes())
            except (ValueError, FileNotFoundError):
                # It is being written, or was just taken by a worker.
                continue
            headers = message["headers"]
            if headers["task"] == "fleet.refresh":
                sent_ms = int(file.name.split("_")[0])
                sender = int(headers["origin"].partition("@")[0].removeprefix("gen"))
                found.append(Message(sent_ms, headers["coterie_token"], sender))
        progress.reached(self.folder, len(found))
        return sorted(found)

    async def until_sent(self, count: int, *, after: int = 0) -> int:
        """Wait for so many messages under tokens newer than this; the token of the last."""

        async def are_there() -> Message | None:
            messages = self.messages()
            # At each look: where both send, one may wait for ever for what is to come.
            judge(messages)
            newer = [message for message in messages if message.token > after]
            return newer[-1] if len(newer) >= count else None

        return (await until(are_there, f"{count} messages after token {after}")).token


def judge(messages: list[Message]) -> None:
    """See that one beat sent at a time, and each no more often than once a second."""
    tokens = [message.token for message in messages]
    assert tokens == sorted(tokens), messages
    for _, sent in groupby(messages, key=lambda message: message.token):
        times_ms = [message.sent_ms for message in sent]
        # The first may have been late, and the last not.
        assert len(times_ms) <= (times_ms[-1] - times_ms[0]) // EVERY_MS + 2, messages


async def fail_over(programs: Programs, broker: Broker, *words: str) -> Program:
    """Two beats; the one that is active dies by SIGKILL with all it has started, and the other
    goes on.

    Args:
        words: a beat.

    Returns:
        the other.
    """
    environ = {
        "QUEUE_FOLDER": str(broker.folder),
        "REFRESH_S": f"{EVERY_MS / 1_000}",
        "BEAT_TTL": "2s",
    }
    beats = [await programs.start(f"beat-{each}", *words, **environ) for each in (1, 2)]
    await broker.until_sent(2)
    active = await until(_active(beats, broker), "the beat that sent last")
    await active.end()
    token = broker.messages()[-1].token
    await broker.until_sent(2, after=token)
    judge(broker.messages())
    return next(beat for beat in beats if beat is not active)


def _active(beats: list[Program], broker: Broker) -> Callable[[], Awaitable[Program | None]]:
    """What finds the beat that sent last, if it runs still."""

    async def found() -> Program | None:
        try:
            group = os.getsid(broker.messages()[-1].sender)
        except ProcessLookupError:
            return None
        return next(beat for beat in beats if beat.pid == group)

    return found


async def test_one_beat_is_active_under_coterie_lock(cluster: Cluster, tmp_path: Path) -> None:
    """`coterie lock` is killed together with its beat; the other one's beat begins."""
    async with running(cluster, "celery_beat", tmp_path) as programs:
        broker = Broker(tmp_path / "queue")
        await fail_over(programs, broker, "sh", "-c", KEPT_RUNNING)


async def test_one_beat_sends_while_it_leads(cluster: Cluster, tmp_path: Path) -> None:
    """The scheduler class: both run, one sends; it is killed, and the other sends. A worker
    does what was sent, each once.
    """
    async with running(cluster, "celery_beat", tmp_path) as programs:
        broker = Broker(tmp_path / "queue")
        words = (*BEAT, "--scheduler", "leading:LeadingScheduler")
        survivor = await fail_over(programs, broker, *words)
        survivor.signal(signal.SIGTERM)
        await survivor.ended()
        sent = broker.messages()
        worker = await programs.start(
            "worker",
            *module("celery", "--app", "fleet", "worker", "--pool", "solo"),
            QUEUE_FOLDER=str(broker.folder),
        )

        async def are_done() -> bool:
            return not broker.messages() and len(_done(worker)) >= len(sent)

        await until(are_done, "what the worker does")
        assert _done(worker) == [message.token for message in sent]


def _done(worker: Program) -> list[int]:
    """Tokens of the messages that the worker has done."""
    return [int(token) for token in re.findall(r"sent under token (\d+)", worker.said)]
