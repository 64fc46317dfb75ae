"""Transcripts: what was said to a machine and what it answered, as text for people.

RULE: reads and writes text; the machine decides. A transcript in `tests/transcripts/` is a list of
entries, each of them requests above a line and answers below it:

    entry 3 at 40 ms
      n1/2  AcquireLock session=1-ann name=orders wait_ms=500
      ----
      n1/2  Queued name=orders position=1

`n1/2` is request 2 of node n1 (`n1.2/1`: of its second life). A request may carry `ack=N`, `key=K`
and `print=F`; a value that starts with a bracket is JSON in single quotes, with bytes in base64.
`entry 3 at 40 ms, wall 9000 ms` says what the leader's wall clock shows, otherwise 0. `(reload)`
alone on a line replaces the machine by one loaded from its own snapshot. Lines that start with #
are kept as they are.

`python -m tests.machine.transcripts --write` writes the answers anew: then read the difference.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import msgspec

from cluster.machine.commands import MACHINE_COMMANDS, Batch, Command, Group, Origin, Request
from cluster.machine.machine import Machine
from cluster.machine.outcome import Answer
from cluster.wire import snapshot

FOLDER = Path(__file__).parent.parent / "transcripts"

_ENTRY = re.compile(r"entry (\d+) at (\d+) ms(?:, wall (\d+) ms)?")
_REQUEST = re.compile(r"  (\w+)(?:\.(\d+))?/(\d+)  (\w+)(.*)")
_COMMANDS: dict[str, type[Command]] = {kind.__name__: kind for kind in MACHINE_COMMANDS}


def replay(text: str) -> str:
    """Run a transcript's requests; gives the transcript with the answers they get."""
    machine = Machine()
    lines: list[str] = []
    entry: tuple[int, int, int] | None = None
    requests: list[tuple[Origin, int, Request]] = []
    is_asking = False

    def finish() -> None:
        nonlocal entry, requests
        if entry is not None:
            index, now_ms, wall_ms = entry
            answers = machine.apply(index, Batch(now_ms, wall_ms, _groups(requests)))
            lines.append("  ----")
            lines.extend(f"  {_show(answer)}" for answer in answers)
            lines.append("")
        entry, requests = None, []

    for line in text.splitlines():
        if line.startswith("#") or line == "(reload)":
            finish()
            is_asking = False
            lines.append(line)
            if line == "(reload)":
                machine = Machine.load(snapshot.decode(snapshot.encode(machine.dump())))
                lines.append("")
        elif match := _ENTRY.fullmatch(line):
            finish()
            is_asking = True
            entry = (int(match[1]), int(match[2]), int(match[3] or 0))
            lines.append(line)
        elif line == "  ----":
            is_asking = False
        elif is_asking and line:
            match = _REQUEST.fullmatch(line)
            if match is None:
                raise ValueError(f"no request: {line!r}")
            requests.append(_request(match))
            lines.append(line)
    finish()
    return "\n".join(lines).rstrip() + "\n"


def _request(match: re.Match[str]) -> tuple[Origin, int, Request]:
    fields: dict[str, object] = {}
    for word in shlex.split(match[5]):
        name, _, value = word.partition("=")
        if name == "sessions":
            fields[name] = tuple(value.split(","))
        else:
            fields[name] = _numbered(msgspec.json.decode(value)) if value[:1] == "[" else value
    ack = int(str(fields.pop("ack", 0)))
    key, fingerprint = fields.pop("key", None), fields.pop("print", None)
    command: Command | None = None
    if match[4] != "Garbage":
        kind = _COMMANDS[match[4]]
        # As a Struct that is no array: then fields have names.
        names = kind.__struct_fields__
        missing = [name for name in fields if name not in names]
        if missing:
            raise ValueError(f"{match[4]} has no {missing}")
        defaults = dict(zip(reversed(names), reversed(kind.__struct_defaults__), strict=False))
        values = [fields.get(name, defaults.get(name)) for name in names]
        tag = kind.__struct_config__.tag
        command = msgspec.convert([tag, *values], kind, strict=False)
    request = Request(
        int(match[3]),
        command,
        None if key is None else str(key),
        None if fingerprint is None else str(fingerprint).encode(),
    )
    return Origin(match[1], int(match[2] or 1)), ack, request


def _numbered(items: list[object]) -> list[object]:
    """Commands within a batch are written by name: `[["KeepAlive","1-ann"],…]`."""
    return [
        [_COMMANDS[item[0]].__struct_config__.tag, *item[1:]]
        if isinstance(item, list) and item and item[0] in _COMMANDS
        else item
        for item in items
    ]


def _groups(requests: list[tuple[Origin, int, Request]]) -> tuple[Group, ...]:
    """Neighbours of one origin make one group."""
    groups: list[Group] = []
    for origin, ack, request in requests:
        if groups and groups[-1].origin == origin:
            last = groups[-1]
            groups[-1] = Group(origin, max(last.ack, ack), (*last.requests, request))
        else:
            groups.append(Group(origin, ack, (request,)))
    return tuple(groups)


def _show(answer: Answer) -> str:
    node, boot, seq = answer.request
    outcome = answer.outcome
    fields = " ".join(
        f"{name}={_plain(getattr(outcome, name))}" for name in outcome.__struct_fields__
    )
    life = "" if boot == 1 else f".{boot}"
    return f"{node}{life}/{seq}  {type(outcome).__name__} {fields}".rstrip()


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ",".join(_plain(item) for item in value) + "]"
    return str(value)


def main() -> int:
    """Check all transcripts, or write their answers anew."""
    wrong = 0
    for path in sorted(FOLDER.glob("*.txt")):
        text = path.read_text()
        replayed = replay(text)
        if text != replayed:
            wrong += 1
            print(path.name)
            if "--write" in sys.argv:
                path.write_text(replayed)
    return 1 if wrong and "--write" not in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
