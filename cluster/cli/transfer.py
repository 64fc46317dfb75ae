"""`coterie transfer`: hand leadership to another node.

RULE: one call, one sentence.
"""

from __future__ import annotations

import asyncio

import click

from cluster.cli import exits, rendering
from cluster.cli.verbs import form_option, timeout_option
from cluster.cli.words import authorities, cluster_options, leave

EPILOG = """
\b
Examples:
  coterie transfer              # to the node that is furthest
  coterie transfer --to n2 -o name

Exit codes: see coterie --help
"""


@click.command("transfer", epilog=EPILOG)
@click.option("--to", metavar="NODE", help="Who is to lead.")
@timeout_option
@cluster_options
@form_option
def command(
    to: str | None, timeout_ms: int, endpoints: tuple[str, ...], output: str | None
) -> None:
    """Hand leadership over, before maintenance of the leader's machine for instance."""
    from cluster.client.aio import Client, Leadership
    from cluster.errors import CoterieError

    async def run() -> Leadership:
        async with Client(endpoints, timeout_ms=timeout_ms, tls=authorities()) as client:
            return await client.transfer(to)

    try:
        led = asyncio.run(run())
    except CoterieError as error:
        leave(exits.code_of(error), exits.told(error, output or "table", who="coterie transfer"))
    if output in {"json", "yaml"}:
        click.echo(rendering.as_data({"leader": led.leader, "term": led.term}, output))
    elif output == "name":
        click.echo(led.leader or "")
    else:
        words = "handed over; the asked node knows no leader yet"
        click.echo(f"{led.leader} leads" if led.leader else words)
