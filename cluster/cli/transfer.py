"""`coterie transfer`: hand leadership to another node.

RULE: one call, one sentence.
"""

from __future__ import annotations

import asyncio

import click

from cluster.cli import exits
from cluster.cli.words import endpoints_option, leave

EPILOG = """
\b
Examples:
  coterie transfer              # to the node that is furthest
  coterie transfer --to n2

\b
Exit codes: see coterie --help
"""


@click.command("transfer", epilog=EPILOG)
@click.option("--to", metavar="NODE", help="Who is to lead.")
@endpoints_option
def command(to: str | None, endpoints: tuple[str, ...]) -> None:
    """Hand leadership over, before maintenance of the leader's machine for instance."""
    from cluster.client.aio import Client
    from cluster.errors import CoterieError

    async def run() -> str | None:
        async with Client(endpoints) as client:
            return (await client.transfer(to)).leader

    try:
        leader = asyncio.run(run())
    except CoterieError as error:
        leave(exits.code_of(error), f"coterie transfer: {error.detail}")
    click.echo(f"{leader} leads" if leader else "handed over; the asked node knows no leader yet")
