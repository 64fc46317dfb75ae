"""`coterie jobs work`: run a command for each job of a tube.

RULE: a job's body goes in, an exit code comes out; when a job is touched, given back or lost is
decided by the client's worker. A command never outlives its reservation.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

from cluster.cli import exits
from cluster.cli.primitives.jobs import TUBES
from cluster.cli.verbs import completer
from cluster.cli.words import (
    Duration,
    RunsCommand,
    authorities,
    cluster_options,
    handed_on,
    leave,
    say,
)

if TYPE_CHECKING:
    from cluster.client.aio import Client
    from cluster.client.jobs import Job, Worker

EPILOG = """
\b
Examples:
  coterie jobs work mail -- ./send-mail
  coterie jobs work thumbnails --concurrency 4 --on-error bury -- convert - -resize 200 out.png
  coterie jobs work mail --count 1 -- sh -c 'echo "$COTERIE_JOB of $COTERIE_TUBE"; cat'

The command finds the job's body in its standard input, and COTERIE_JOB, COTERIE_TUBE,
COTERIE_TOKEN and COTERIE_ATTEMPT in its environment. The job is touched as long as it runs, and
killed, with its process group, before the reservation could be another's. Delivery is at least
once: hand the token on with what you write.

SIGTERM or Ctrl-C lets what runs come to its end; a second one kills it and gives its job back.

Exit codes: see coterie --help
"""


class CommandFailed(Exception):
    """The command did not end with 0."""


@click.command(
    "work", cls=RunsCommand, short_help="Run a command for each job of a tube.", epilog=EPILOG
)
@click.argument("tube", shell_complete=completer(TUBES))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="How many commands run at a time.",
)
@click.option(
    "--on-error",
    type=click.Choice(["release", "bury"]),
    default="release",
    show_default=True,
    help="What becomes of a job whose command did not end with 0.",
)
@click.option(
    "--retry",
    "retry_ms",
    type=Duration(0, 3_600_000),
    default="1s",
    show_default=True,
    help="How long a released job rests; doubled with every attempt, up to an hour.",
)
@click.option("--count", type=click.IntRange(1), help="End once so many have been run.")
@click.option(
    "--timeout",
    "timeout_ms",
    type=Duration(10, 3_600_000),
    default="10s",
    show_default=True,
    help="How long to try to reach the cluster at first; later it is tried for ever.",
)
@cluster_options
def command(
    tube: str,
    command: tuple[str, ...],
    concurrency: int,
    on_error: Literal["release", "bury"],
    retry_ms: int,
    count: int | None,
    timeout_ms: int,
    endpoints: tuple[str, ...],
) -> None:
    """Run COMMAND for each job of TUBE, one after the other, until it is told to stop."""
    from cluster.client.aio import Client
    from cluster.client.core import Request
    from cluster.errors import CoterieError

    async def run() -> int:
        async with Client(endpoints, timeout_ms=timeout_ms, tls=authorities()) as client:
            await client.call(Request("GET", "/v1/cluster"))
            working = Working(client, command, endpoints, count)
            return await working.run(
                client.worker(
                    tube,
                    handle=working.handle,
                    concurrency=concurrency,
                    on_error=on_error,
                    retry=retry_ms,
                    on_lost=lambda job: say(f"job {job.id} is lost, its command was killed"),
                )
            )

    try:
        leave(asyncio.run(run()))
    except CoterieError as error:
        leave(exits.code_of(error), exits.told(error, "table", who="coterie jobs work"))


class Working:
    """One run of `coterie jobs work`.

    Args:
        words: the command and its arguments.
        endpoints: handed on, so that the command can ask the cluster too.
        count: end after so many; None for never.
    """

    def __init__(
        self,
        client: Client,
        words: Sequence[str],
        endpoints: Sequence[str],
        count: int | None,
    ):
        self._client = client
        self._words = words
        self._environ = handed_on(os.environ, endpoints)
        self._left = count
        self._worker: Worker | None = None
        self._fault: OSError | None = None

    async def run(self, worker: Worker) -> int:
        """Work until told to stop. Returns the exit code."""
        self._worker = worker
        loop = asyncio.get_running_loop()
        doing = asyncio.ensure_future(worker.run())
        asked = 0

        def on_signal() -> None:
            nonlocal asked
            asked += 1
            if asked == 1:
                worker.stop()
            else:
                doing.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        try:
            await doing
        except asyncio.CancelledError:
            return exits.INTERRUPTED
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        if self._fault is not None:
            say(f"coterie jobs work: {self._words[0]}: {self._fault.strerror}")
            return exits.USAGE
        return exits.DONE

    async def handle(self, job: Job) -> None:
        """Run the command for one job.

        Raises:
            CommandFailed: it did not end with 0, or could not be run.
        """
        try:
            await self._run(job)
        finally:
            if self._left is not None:
                self._left -= 1
                if self._left <= 0 and self._worker is not None:
                    self._worker.stop()

    async def _run(self, job: Job) -> None:
        from cluster.cli import processes

        environ = self._environ | {
            "COTERIE_JOB": str(job.id),
            "COTERIE_TUBE": job.tube,
            "COTERIE_TOKEN": str(job.token),
            "COTERIE_ATTEMPT": str(job.attempt),
        }
        try:
            # A group of its own, so that it can be ended whole, its children with it.
            child = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                env=environ,
                process_group=0,
                preexec_fn=processes.dies_with_parent(),
            )
        except OSError as error:
            # It will not be otherwise with the next job: no job is to suffer for it.
            self._fault = error
            if self._worker is not None:
                self._worker.stop()
            raise CommandFailed(str(error)) from error
        try:
            # It need not read its input.
            await child.communicate(_input_of(job.body))
        finally:
            if child.returncode is None:
                processes.signal_group(child.pid, signal.SIGKILL)
                await child.wait()
        if child.returncode != 0:
            ending = processes.ending_of(child.returncode or 0)
            say(f"job {job.id}: the command {ending}")
            raise CommandFailed(ending)


def _input_of(body: object) -> bytes:
    """What a command reads of a job: text and bytes as they are, other values as JSON."""
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)).encode()
