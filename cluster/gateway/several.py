"""Batches over HTTP: several commands in one entry.

RULE: JSON or CBOR to command, state to picture; what it does is decided in `machine/several.py`.
What a command is called, and how its fields are read, is told by its own row of the table.

A command is `{"call": "POST /v1/locks/orders/acquire", "session": …}`: method and path as in the
API, and the fields of the call's body beside it, or under `body`. The call's operation id will do
as well (`post_locks_name_acquire`), with the names of the path among the fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NamedTuple, cast, get_type_hints

import msgspec

from cluster.gateway.passes import Passes
from cluster.gateway.replies import Answer, Problem
from cluster.gateway.replies.rooms import Unsigned
from cluster.gateway.replies.several import BatchDone, Result
from cluster.gateway.requests import Ask, Body, BodyReader, QueryReader, bad_request
from cluster.gateway.rooms import with_pass
from cluster.gateway.routes import BODY_BYTES_LIMIT, PathReader, Route, Write
from cluster.machine import limits
from cluster.machine.commands import Command, Several
from cluster.machine.commands.several import ANSWER_BYTES_MAX, SINGLE_COMMANDS
from cluster.machine.machine import Machine

CallFields = Annotated[
    dict[str, Any],
    msgspec.Meta(
        description="`call`: method and path (or operation id); beside it the fields of its body",
        extra_json_schema={
            "required": ["call"],
            "properties": {"call": {"type": "string"}},
            "examples": [
                {"call": "POST /v1/locks/orders/acquire", "session": "1-ab", "mode": "shared"}
            ],
        },
    ),
]


class Batch(Body, frozen=True):
    """Carry several commands out in one step. `atomic`: all of them or none."""

    commands: Annotated[
        list[CallFields],
        msgspec.Meta(min_length=1, max_length=limits.COMMANDS_PER_BATCH_MAX),
    ]
    atomic: bool = False


class _Call(NamedTuple):
    """One row of the table, ready to read what stands in a batch."""

    route: Write
    operation: str
    path: PathReader
    names: tuple[str, ...]
    body: BodyReader
    fields: frozenset[str]
    query: QueryReader
    queries: frozenset[str]


class _Calls:
    """All calls that may stand in a batch."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_operation: dict[str, _Call] = {}
        # By method and number of segments: few are left to compare.
        self._by_shape: dict[tuple[str, int], list[tuple[list[str], _Call]]] = {}
        self._seals: dict[type[Command], Any] = {}
        atomic = Machine().checks
        self._atomic: dict[type[Command], str] = {}
        for route in routes:
            if not isinstance(route, Write):
                continue
            kind = get_type_hints(route.command)["return"]
            segments = route.path.split("/")
            call = _Call(
                route,
                route.operation,
                PathReader(route.path),
                tuple(part[1:-1] for part in segments if part.startswith("{")),
                BodyReader(route.body),
                frozenset(route.body.__struct_encode_fields__),
                QueryReader(route.query),
                frozenset(query.name for query in route.query),
            )
            self._by_operation[call.operation] = call
            self._by_shape.setdefault((route.method, len(segments)), []).append((segments, call))
            if route.seal is not None:
                self._seals[kind] = route.seal
            if kind in atomic:
                self._atomic[kind] = f"{route.method} {route.path}"

    def command(self, batch: Ask) -> Several:
        """Make the command of a batch."""
        body: Batch = batch.body
        commands = []
        size = 0
        for at, fields in enumerate(body.commands):
            command = self._command(at, dict(fields))
            if type(command) not in SINGLE_COMMANDS:
                raise bad_request(f"commands[{at}].call", "may not stand in a batch; send it alone")
            if body.atomic and type(command) not in self._atomic:
                allowed = ", ".join(sorted(self._atomic.values()))
                raise bad_request(
                    f"commands[{at}].call",
                    f"may not stand in an atomic batch; there may: {allowed}",
                )
            if getattr(command, "wait_ms", 0) > 0:
                raise bad_request(
                    f"commands[{at}].wait", "is not for batches, which never wait; leave it out"
                )
            answer_bytes = ANSWER_BYTES_MAX.get(type(command), 0)
            size += answer_bytes
            if size > limits.BATCH_ANSWER_BYTES_MAX:
                most = limits.BATCH_ANSWER_BYTES_MAX // answer_bytes
                raise bad_request(
                    f"commands[{at}].call",
                    f"may have a large answer; a batch may have {most} of those, fewer with others",
                )
            commands.append(command)
        return Several(tuple(commands), body.atomic)

    def seal(self, command: Command) -> Command:
        """Draw for each command what is drawn by lot."""
        batch = cast(Several, command)
        sealed = tuple(
            single if (seal := self._seals.get(type(single))) is None else seal(single)
            for single in batch.commands
        )
        return msgspec.structs.replace(batch, commands=sealed)

    def _command(self, at: int, fields: dict[str, Any]) -> Command:
        where = f"commands[{at}]"
        spelled = fields.pop("call", None)
        if not isinstance(spelled, str):
            raise bad_request(
                f"{where}.call",
                "is missing, and required: method and path, as POST /v1/locks/orders/acquire",
            )
        try:
            call, ask = self._ask(spelled, fields)
            return call.route.command(ask)
        except Problem as problem:
            if problem.code != "bad_request":
                raise
            field = str(problem.reason["field"])
            detail = problem.detail.removeprefix(f"{field}: ")
            raise bad_request(f"{where}.{field}", detail) from None

    def _ask(self, spelled: str, fields: dict[str, Any]) -> tuple[_Call, Ask]:
        method, space, target = spelled.partition(" ")
        raw_path, _, raw_query = target.partition("?")
        if space:
            call = self._find(method.upper(), raw_path)
            path = call.path.read(raw_path)
        else:
            found = self._by_operation.get(spelled)
            if found is None:
                raise _no_call(spelled)
            call = found
            path = {name: _text(fields, name) for name in call.names}
        query = dict(call.query.read(raw_query))
        for name in [name for name in fields if name in call.queries - call.fields]:
            query[name] = call.query.parse(name, _text(fields, name))
        return call, Ask(path, call.body.convert(_body(call, fields)), query)

    def _find(self, method: str, raw_path: str) -> _Call:
        segments = raw_path.split("/")
        best: _Call | None = None
        for pattern, call in self._by_shape.get((method, len(segments)), ()):
            if pattern == segments:
                return call
            if best is None and all(
                part == own or part.startswith("{")
                for part, own in zip(pattern, segments, strict=True)
            ):
                best = call
        if best is None:
            raise _no_call(f"{method} {raw_path}")
        return best


def routes(others: Iterable[Route]) -> tuple[Route, ...]:
    """Return the row of batches.

    Args:
        others: the rows whose calls may stand in one.
    """
    calls = _Calls(others)
    return (
        Write(
            method="POST",
            path="/v1/batch",
            summary="Carry several commands out in one step, one by one or all or none.",
            tag="batch",
            body=Batch,
            answer=BatchDone,
            codes=("batch_refused",),
            body_bytes_max=BODY_BYTES_LIMIT,
            command=calls.command,
            seal=calls.seal,
            issue=_with_passes,
        ),
    )


def _with_passes(answer: Answer, passes: Passes) -> Answer:
    """Sign the places in waiting rooms that were given."""
    done = cast(BatchDone, answer.body)
    answers = [
        Result(result.status, with_pass(Answer(result.status, result.body), passes).body)
        if isinstance(result.body, Unsigned)
        else result
        for result in done.answers
    ]
    return answer._replace(body=BatchDone(answers))


def _body(call: _Call, fields: dict[str, Any]) -> Mapping[str, Any]:
    """The body's fields, wherever they stand."""
    body = fields.get("body")
    if not isinstance(body, dict) or ("body" in call.fields and "body" not in body):
        return fields
    if len(fields) > 1:
        other = next(name for name in fields if name != "body")
        raise bad_request(other[:80], "stands beside `body`; put all fields under it, or none")
    return body


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.pop(name, None)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise bad_request(name, "is missing, and required" if value is None else "is not text")


def _no_call(spelled: str) -> Problem:
    return bad_request(
        "call",
        f'"{spelled[:200]}" is no call that changes anything; write method and path, as '
        "POST /v1/locks/orders/acquire, or an operationId of /openapi.json",
    )
