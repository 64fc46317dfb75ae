"""Write the pages of the reference that are made from the code: settings, command line, HTTP.

RULE: reads the tables that the programs themselves are made from; a test keeps page and code equal.

    python docs/reference.py
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path

import click

from cluster.cli import SECTIONS, main
from cluster.gateway import health, openapi
from cluster.gateway.server import NATIVE_ROUTES
from cluster.node import config
from cluster.telemetry.metrics import Metrics

FOLDER = Path(__file__).parent / "pages" / "reference"
MADE = "<!-- Made by docs/reference.py; not to be edited. -->"

# Options that most commands have, explained once.
COMMON = ("--endpoints ", "--ca ", "--timeout ", "-o, --output", "--key ", "-h, --help")


def settings() -> str:
    """Every setting of a node."""
    lines = [
        MADE,
        "",
        "# Settings of a node",
        "",
        "A flag beats the environment beats the TOML file beats the default; `coterie serve --print-config`",
        "shows what results and where each value came from. A wrong value stops the start, with its name,",
        "its origin and the cure; all of them are named at once.",
        "",
        "A setting has one name in three spellings: `election_min_ms` in the file, `--election-min-ms` as a",
        "flag, `COTERIE_ELECTION_MIN_MS` in the environment. Secrets are no flags, as all users of a machine",
        "can read the arguments of its processes. Lengths of time are `250ms`, `30s`, or milliseconds; sizes",
        "are bytes, or `64MiB`.",
        "",
        "| setting | | default | meaning |",
        "|---|---|---|---|",
    ]
    for row in config.SETTINGS:
        shape = _cell(row.shape) + (", no flag" if row.flag is None else "")
        lines.append(f"| `{row.key}` | {shape} | {_default(row.key)} | {_cell(row.meaning)} |")
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """Every command, its options and its examples."""
    with click.Context(main, info_name="coterie", max_content_width=100) as context:
        lines = [
            MADE,
            "",
            "# Command line",
            "",
            "`coterie COMMAND --help` says the same. Most commands also know these:",
            "",
            "| option | |",
            "|---|---|",
            "| `--endpoints HOST:PORT,…` | nodes of the cluster, any of them will do; else `COTERIE_ENDPOINTS`, else ports 7101 to 7103 of this machine |",
            "| `--ca FILE` | authorities to trust for https (PEM), `host:port` means https then; else `COTERIE_CA`, else those of the system |",
            "| `-o`, `--output` | `table`, `json`, `yaml` or `name` (the one word that a script goes on with); by default tables on a terminal and lines with tabs in a pipe |",
            "| `--timeout TIME` | how long to try in all, a wait apart |",
            "| `--key TEXT` | Idempotency-Key of a write: asked again with the same one, it happens once |",
            "| `-h`, `--help` | |",
            "",
            "Colours and tables are for terminals; `NO_COLOR` is respected.",
            "",
            "## Exit codes",
            "",
            "| code | of all commands that ask the cluster |",
            "|---|---|",
            *_exits(),
            "",
            "`coterie lock` and `coterie serve` have further ones, which are told with them.",
        ]
        for title, names in SECTIONS.items():
            lines += ["", f"## {title}"]
            for name in names:
                command = main.get_command(context, name)
                assert command is not None
                lines += _command(command, name, context)
    return "\n".join(lines) + "\n"


def http() -> str:
    """Every call of the API."""
    rows = (*NATIVE_ROUTES, *health.routes(Metrics(), lambda: 0.0, NATIVE_ROUTES, ""))
    document = json.loads(openapi.document(rows, ""))
    lines = [
        MADE,
        "",
        "# HTTP API",
        "",
        "Any node answers every call. `/docs` of a node has all of it on one page, with every field, every",
        "refusal and examples that run; `/openapi.json` has the same for programs.",
        "",
        "JSON by default, the same shapes as CBOR with `Content-Type: application/cbor`. Lengths of time are",
        '`"250ms"`, `"30s"`, `"1h30m"`, ISO 8601, or integers of milliseconds; answers have integers (`*_ms`).',
        "Problems are RFC 9457 documents with `code`, `retryable` and `definite`; see",
        "[Retries and errors](../concepts/retries.md). Every write takes an `Idempotency-Key`, every read",
        "`?consistency=stale`, every answer has `Coterie-Index`, the position of the log that it reflects.",
        "",
        "| call | |",
        "|---|---|",
    ]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            summary = operation.get("summary", "")
            lines.append(f"| `{method.upper()} {path}` | {_cell(summary)} |")
    return "\n".join(lines) + "\n"


def _default(key: str) -> str:
    default = config.DEFAULTS[key]
    if default is config.REQUIRED:
        return "(needed)"
    if isinstance(default, bool):
        return "`on`" if default else "`off`"
    return (
        f"`{default}`" if isinstance(default, str | int | config.Address) and default != "" else ""
    )


def _exits() -> Iterator[str]:
    from cluster.cli.exits import EXITS  # noqa: PLC0415 - text that only this page takes apart

    for line in EXITS.splitlines():
        found = re.match(r" +(\d+)  (.*)", line)
        if found is not None:
            yield f"| {found[1]} | {_cell(found[2])} |"


def _command(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    with click.Context(command, info_name=name, parent=parent, max_content_width=100) as context:
        level = "#" * (2 + len(context.command_path.split()[1:]))
        yield from ("", f"{level} {context.command_path}", "")
        yield _prose(inspect.cleandoc(command.help or ""))
        if isinstance(command, click.Group):
            for verb in command.list_commands(context):
                found = command.get_command(context, verb)
                assert found is not None
                yield from _command(found, verb, context)
            return
        usage = " ".join(command.collect_usage_pieces(context))
        yield from ("", "```text", f"{context.command_path} {usage}", "```")
        records = [param.get_help_record(context) for param in command.params]
        own = [record for record in records if record and not record[0].startswith(COMMON)]
        if own:
            yield from ("", "| option | |", "|---|---|")
            for option, meaning in own:
                yield f"| `{_cell(option)}` | {_cell(meaning)} |"
        if command.epilog:
            text = re.sub(r"(?m)^\x08\n", "", inspect.cleandoc(command.epilog))
            yield from ("", "```text", text.strip(), "```")


def _prose(text: str) -> str:
    """Help as Markdown: nothing in it is meant as a tag, or as a pattern."""
    return re.sub(r"\x08\n?", "", text).replace("<", "&lt;").replace("*", "\\*")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"settings.md": settings, "cli.md": command_line, "http.md": http}

if __name__ == "__main__":
    for name, make in PAGES.items():
        (FOLDER / name).write_text(make(), encoding="utf-8")
