"""`coterie completion`: what makes a shell complete our words, and names of the live cluster.

RULE: scripts are click's; names come from one short, stale read of one node. A cluster that does
not answer at once completes nothing, and no key press waits for it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from cluster.cli.words import authorities, tls_context

if TYPE_CHECKING:
    from cluster.cli.verbs import Live

SHELLS = ("bash", "zsh", "fish")
NAMES_MAX = 50
WITHIN_S = 0.5
ANSWER_BYTES_MAX = 1 << 20

EPILOG = """
\b
Examples:
  eval "$(coterie completion bash)"                # in ~/.bashrc
  eval "$(coterie completion zsh)"                 # in ~/.zshrc, behind compinit
  coterie completion fish | source                 # in ~/.config/fish/config.fish

Names of locks, sessions, tubes and so on are asked of the cluster that --endpoints or
COTERIE_ENDPOINTS names; where it does not answer within half a second, there are none.
"""


@click.command("completion", epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the script that makes SHELL complete commands, options and names."""
    from click.shell_completion import get_completion_class

    from cluster.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(main, {}, "coterie", "_COTERIE_COMPLETE")
    # Not `source()`: that of bash runs a bash first to look at its age.
    script = made.source_template % made.source_vars()
    # click's for fish (8.5) would end a name, or what is said of it, at its first comma.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'))


def names(live: Live, incomplete: str, endpoints: Iterable[str] | None) -> list[str]:
    """Names of the cluster that begin so; none where that takes long.

    Args:
        live: where they stand.
        incomplete: what was typed.
        endpoints: base URLs; None for those of the environment.
    """
    import http.client
    from urllib.parse import quote, urlsplit

    from cluster.client.core import DEFAULT_ENDPOINTS, parse_endpoints

    if endpoints is None:
        try:
            endpoints = parse_endpoints(
                os.environ.get("COTERIE_ENDPOINTS") or DEFAULT_ENDPOINTS,
                is_secure=authorities() is not None,
            )
        except ValueError:
            return []
    url = urlsplit(next(iter(endpoints)))
    path = f"{live.path}?consistency=stale&limit={NAMES_MAX}"
    if live.path != "/v1/sessions":  # Which knows no prefix: ids are drawn by lot.
        path += f"&prefix={quote(incomplete, safe='')}"
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        connection = http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=WITHIN_S, context=tls_context()
        )
    else:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=WITHIN_S)
    try:
        connection.request("GET", path)
        answer = json.loads(connection.getresponse().read(ANSWER_BYTES_MAX))
        found = [str(each[live.field]) for each in answer[live.items]]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return []
    finally:
        connection.close()
    return [name for name in found if name.startswith(incomplete)]
