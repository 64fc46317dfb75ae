"""`coterie batch`: several commands in one step of the cluster.

RULE: a file to one request, its answers to lines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cluster.cli.verbs import Verb, Word, command_alone, option, standard_input


def with_commands(told: dict[str, Any]) -> dict[str, Any]:
    """What stands in the file, as the API has it.

    Raises:
        click.BadParameter: the file cannot be read, or makes no commands.
    """
    file = told["commands"]
    try:
        text = standard_input("FILE -") if file == "-" else Path(file).read_bytes()
        commands = commands_in(text.decode())
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None
    except ValueError as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="FILE") from None
    return {**told, "commands": commands}


def commands_in(text: str) -> list[Any]:
    """Commands of a JSON list, of an object with `commands`, or of lines.

    A line is an object, or `METHOD PATH` and perhaps the fields as an object; one that is empty or
    begins with `#` says nothing.

    Raises:
        ValueError: with the line that is neither.
    """
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict) and "call" not in whole:
        whole = whole.get("commands")
    if isinstance(whole, list):
        return whole
    return [
        _command_of(line.strip(), number)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def _command_of(line: str, number: int) -> dict[str, Any]:
    at = line.find("{")
    head, body = (line, "") if at < 0 else (line[:at], line[at:])
    try:
        fields = json.loads(body) if body else {}
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from None
    if not head.strip():
        if not isinstance(fields, dict) or "call" not in fields:
            raise ValueError(f'line {number}: names no "call"')
        return fields
    if len(head.split()) != 2:
        raise ValueError(f"line {number}: is neither an object nor METHOD PATH {{…}}")
    return {"call": " ".join(head.split()), **({"body": fields} if fields else {})}


def in_order(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Each answer with its number, and what is worth a line of it."""
    rows = []
    for number, each in enumerate(answer["answers"], 1):
        body = each["body"] or {}
        said = body.get("detail") or json.dumps(body, ensure_ascii=False)
        rows.append({"at": number, "status": each["status"], "answer": said})
    return rows


VERB = Verb(
    name="batch",
    summary="Carry several commands out in one step; exit code 1 when one of them was refused.",
    call="POST /v1/batch",
    words=(
        Word(name="commands", is_required=True, shown="FILE"),
        option("atomic", "All of them or none.", kind="switch"),
    ),
    prepare=with_commands,
    view=in_order,
    columns=("at", "status", "answer"),
    name_of="status",
    yes=lambda answer: all(each["status"] < 400 for each in answer["answers"]),
    more="FILE holds a JSON list of commands as the API has them, or one command a line: an "
    "object, or METHOD PATH and the fields as an object. - is the standard input.",
    examples=(
        'echo \'POST /v1/tubes/mail/jobs {"body": "hello"}\' > step.txt',
        'echo \'POST /v1/tubes/mail/jobs {"body": "world", "delay": "1h"}\' >> step.txt',
        "coterie batch step.txt --atomic",
        'echo \'[{"call": "PUT /v1/semaphores/printers", "limit": 3}]\' | coterie batch - -o json',
    ),
)
command = command_alone(VERB)
