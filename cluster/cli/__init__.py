"""The command line: one node, local clusters, and everything that a cluster does.

RULE: words to calls and answers to words. A command is loaded when it is asked for, and heavy
libraries inside it when they are needed: start-up is felt.
"""

from __future__ import annotations

import difflib
import importlib
import os
from typing import Any

import click

from cluster import __version__
from cluster.cli.exits import EXITS, INTERRUPTED

SECTIONS: dict[str, tuple[str, ...]] = {
    "Run": ("serve", "dev", "demo", "import"),
    "Look": ("status", "top", "watch", "explain", "doctor"),
    "Coordinate": (
        "lock",
        "sessions",
        "locks",
        "semaphores",
        "resources",
        "fifos",
        "rooms",
        "jobs",
        "tasks",
        "batch",
    ),
    "Operate": ("transfer", "bench", "completion"),
}
COMMANDS = tuple(name for names in SECTIONS.values() for name in names)

# Primitives under the names by which one may look for them.
PRIMITIVES = {
    "sessions": ("session",),
    "locks": (),
    "semaphores": ("semaphore",),
    "resources": ("resource", "tickets", "ticket"),
    "fifos": ("fifo",),
    "rooms": ("room",),
    "jobs": ("job", "tubes", "tube"),
    "tasks": ("task", "pools", "pool"),
}
_ALSO = {other: name for name, others in PRIMITIVES.items() for other in others}
_LOCK_VERBS = frozenset(
    {"acquire", "acquire-all", "check", "list", "release", "release-all", "show"}
)
# Verbs that are more than one call: they run commands.
_RUNNERS = {"locks": ("run", "lock"), "jobs": ("work", "working")}
# No module can have the name of a keyword.
_MODULES = {"import": "importing"}

# Of a help: it is wrapped, not cut.
SENTENCE_MAX = 200

EPILOG = f"""
Begin with: coterie demo

Answers are tables on a terminal and lines with tabs in a pipe; -o json and -o yaml are for
programs, and -o name prints the one word that a script goes on with. NO_COLOR is respected.
{EXITS}"""


class LazyGroup(click.Group):
    """Commands that are modules of this package, each holding its own as `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load one command; None where there is no such."""
        name = _ALSO.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        if name in PRIMITIVES:
            from cluster.cli.verbs import command_of

            primitive = importlib.import_module(f"cluster.cli.primitives.{name}")
            made = command_of(primitive.GROUP)
            if name in _RUNNERS:
                verb, runner = _RUNNERS[name]
                made.add_command(importlib.import_module(f"cluster.cli.{runner}").command, verb)
            return made
        module = _MODULES.get(name, name)
        found: click.Command = importlib.import_module(f"cluster.cli.{module}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; `lock acquire …` is `locks acquire …`, unless a command follows `--`."""
        if args[0] == "lock" and len(args) > 1 and args[1] in _LOCK_VERBS and "--" not in args:
            args = ["locks", *args[1:]]
        # click looks for near words among commands that are loaded, and none of ours are.
        if not args[0].startswith("-") and args[0] not in (*COMMANDS, *_ALSO):
            near = difflib.get_close_matches(args[0], (*COMMANDS, *_ALSO), n=1)
            meant = f' Did you mean "{near[0]}"?' if near else ""
            ctx.fail(f"No such command '{args[0]}'.{meant}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Carry it out; an interrupt ends all commands alike, also while they are loaded."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for."""
        for title, names in SECTIONS.items():
            with formatter.section(title):
                rows = []
                for name in names:
                    found = self.get_command(ctx, name)
                    assert found is not None
                    rows.append((name, found.get_short_help_str(SENTENCE_MAX)))
                formatter.write_dl(rows)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def main() -> None:
    """Coterie: sessions, locks and queues that survive the loss of a node."""
    if os.environ.get("NO_COLOR"):
        click.get_current_context().color = False
