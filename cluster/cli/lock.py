"""`coterie lock`: run a command while holding a lock.

RULE: options to a wish; how it is fulfilled stands in `holding.py`.
"""

from __future__ import annotations

import asyncio
import os

import click

from cluster.cli.primitives.locks import LOCKS
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

EPILOG = """
\b
Examples:
  coterie lock nightly-backup -- ./backup.sh
  coterie lock deploy --wait 10m -- make deploy
  coterie lock cron/report --wait 0 -q -- ./report   # where it runs already, leave it

The command gets COTERIE_LOCK, COTERIE_SESSION and COTERIE_TOKEN. The token rises with every grant:
hand it on with what you write, and have the receiver refuse smaller ones.

When the session cannot be renewed, the command gets SIGTERM two margins before the TTL is over,
counted here from when the last successful renewal was sent, and SIGKILL one margin before (a
margin is a tenth of the TTL, at least 200 ms). With the default of 10 s: after 8 s and 9 s. When
the cluster reports the lock lost, SIGKILL at once. All of it goes to the command's process group.

\b
Exit codes: that of the command, 128 + N when signal N ended it, or
   69  the cluster could not be reached, and the command was not begun
   75  the lock was not granted in time
   76  the lock was lost, and the command was ended
  126  the command cannot be run
  127  there is no such command

To take, give back and look at locks by hand: coterie locks --help
"""


@click.command(
    "lock", cls=RunsCommand, short_help="Run a command while holding a lock.", epilog=EPILOG
)
@click.argument("name", shell_complete=completer(LOCKS))
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--wait",
    "wait_ms",
    type=Duration(0, 3_600_000),
    default="30s",
    show_default=True,
    help="How long to stand in the lock's queue; 0 asks once.",
)
@click.option(
    "--ttl",
    "ttl_ms",
    type=Duration(1_000, 30 * 86_400_000),
    default="10s",
    show_default=True,
    help="After so long without a sign of life from here the lock is free for others.",
)
@click.option(
    "--reach",
    "reach_ms",
    type=Duration(100, 3_600_000),
    default="10s",
    show_default=True,
    help="How long to try to reach the cluster.",
)
@click.option(
    "-q",
    "--quiet",
    "is_quiet",
    is_flag=True,
    help="Say nothing where the lock is another's: exit code 75 does, and cron mails no line.",
)
@cluster_options
def command(
    name: str,
    command: tuple[str, ...],
    wait_ms: int,
    ttl_ms: int,
    reach_ms: int,
    is_quiet: bool,
    endpoints: tuple[str, ...],
) -> None:
    """Run COMMAND while holding the lock NAME, and end it before the lock could be another's."""
    from cluster.cli import holding
    from cluster.client.aio import Client
    from cluster.client.core import Policy

    wish = holding.Wish(
        name=name,
        command=command,
        ttl_ms=ttl_ms,
        wait_ms=wait_ms,
        reach_ms=reach_ms,
        is_quiet=is_quiet,
        label=holding.default_label(name),
        # Without its arguments: sessions can be listed by all, and some arguments are secrets.
        meta={"command": command[0][:200], "host": os.uname().nodename, "pid": os.getpid()},
    )
    # Two nodes can be asked within the time of one renewal.
    policy = Policy(attempt_ms=max(100, min(2_000, ttl_ms // 10)), connect_ms=500)

    async def run() -> int:
        async with Client(endpoints, policy=policy, tls=authorities()) as client:
            return await holding.Holding(
                client,
                wish,
                environ=handed_on(os.environ, endpoints),
                say=lambda text: say(f"coterie lock: {text}"),
            ).run()

    leave(asyncio.run(run()))
