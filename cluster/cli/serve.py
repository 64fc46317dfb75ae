"""`coterie serve`: one node.

RULE: makes the settings and hands them over; what a node is stands in `cluster.app`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cluster.cli.words import leave, output_option, spell, table
from cluster.node import config as settings

EPILOG = """
Every setting can be given by flag, environment variable (COTERIE_HTTP for --http), or key of the
TOML file (http); the first of these wins. Examples:

\b
  coterie serve --node n1 --data /var/lib/coterie
  coterie serve --config /etc/coterie/n1.toml --print-config
  coterie serve --node n1 --data n1 --listen 10.0.0.1:7201 --http 10.0.0.1:7101 \\
      --secret-file secret --peers n2=10.0.0.2:7201,n3=10.0.0.3:7201

The secret itself is no flag, as all users of a machine can read the arguments of its processes:
give --secret-file or COTERIE_SECRET.

Exit codes: 0 stopped as asked, 2 wrong settings, 65 the data folder cannot be used, 70 a fatal
error while serving, 71 an address cannot be listened on.
"""


def add_settings(command: click.Command) -> None:
    """Add one option per setting, in the order of the table."""
    for entry in settings.SETTINGS:
        if entry.flag is None:
            continue
        default = settings.DEFAULTS[entry.key]
        shown = "" if default in (settings.REQUIRED, None, "") or entry.key == "peers" else default
        if isinstance(default, bool):
            shown = "on" if default else "off"
        elif entry.shape == "TIME":
            shown = spell(default)
        elif entry.shape == "SIZE" and default % 2**20 == 0:
            shown = f"{default >> 20}MiB"
        meaning = entry.meaning[0].upper() + entry.meaning[1:]
        command.params.append(
            click.Option(
                [entry.flag, entry.key],
                metavar=entry.shape,
                multiple=entry.key == "peers",
                help=meaning + (f"  [{shown}]" if shown != "" else ""),
            )
        )


@click.command("serve", epilog=EPILOG)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="TOML file of settings (COTERIE_CONFIG).",
)
@click.option(
    "--print-config", is_flag=True, help="Show every setting and where it came from, then end."
)
@output_option
def command(file: Path | None, print_config: bool, output: str, **flags: Any) -> None:
    """Run one node of a cluster until it is told to stop (SIGTERM, Ctrl-C).

    A stopping node finishes what it has begun and hands leadership over first.
    """
    try:
        config = settings.load(flags, os.environ, file=file)
    except settings.ConfigError as error:
        leave(2, f"coterie serve: {error}")
    if print_config:
        if output == "json":
            click.echo(config.to_json())
            return
        click.echo(table(("KEY", "VALUE", "FROM"), config.rows()))
        for warning in config.warnings:
            click.echo(f"warning: {warning}", err=True)
        return
    from cluster.app import serve

    leave(serve(config))


add_settings(command)
