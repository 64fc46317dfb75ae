"""The command line: `coterie serve`, `dev`, `demo`, `status`, `lock`, `transfer`, `import`.

RULE: words to calls and answers to words. A command is loaded when it is asked for, and heavy
libraries inside it when they are needed: start-up is felt.
"""

from __future__ import annotations

import importlib

import click

from cluster import __version__

COMMANDS = ("serve", "dev", "demo", "status", "lock", "transfer", "import")

# No module can have the name of a keyword.
_MODULES = {"import": "importing"}


class LazyGroup(click.Group):
    """Commands that are modules of this package, each holding its own as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None where there is no such."""
        if cmd_name not in COMMANDS:
            return None
        module = _MODULES.get(cmd_name, cmd_name)
        found: click.Command = importlib.import_module(f"cluster.cli.{module}").command
        return found


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with: coterie demo",
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def main() -> None:
    """Coterie: sessions, locks and queues that survive the loss of a node."""
