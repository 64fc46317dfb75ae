"""The OpenAPI 3.1 document, made from the routes.

RULE: reads the table of routes and nothing else; what the table does not say is not documented.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec

from cluster.gateway import replies
from cluster.gateway.examples import Shown, Step, recorded, shown
from cluster.gateway.requests import KEY_LENGTH_MAX, NAME_BYTES_MAX, NAME_SCHEMA, SESSION_ID_SCHEMA
from cluster.gateway.routes import Local, Read, Route, Stream, Write
from cluster.gateway.tour import TOUR

_EVENTS: Final = "text/event-stream"
_REF: Final = "#/components/schemas/{name}"


class ProblemDocument(msgspec.Struct, frozen=True):
    """RFC 9457. `definite`: it surely did not happen. `retryable`: it may succeed later."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool
    definite: bool


def document(routes: Iterable[Route], version: str) -> bytes:
    """Return the document as JSON.

    Args:
        routes: every route of the server, in the order they are shown.
        version: of the product.
    """
    rows = tuple(routes)
    structs: list[type[msgspec.Struct]] = [ProblemDocument, *replies.REASONS.values()]
    for row in rows:
        structs.append(row.body)
        if row.answer is not None:
            structs.append(row.answer)
    unique = list(dict.fromkeys(structs))
    schemas, components = _with_short_names(
        *msgspec.json.schema_components(unique, ref_template=_REF)
    )
    schema_of = dict(zip(unique, schemas, strict=True))
    examples = _examples(rows)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        operation = _operation(row, schema_of)
        _add_examples(operation, row, examples.get((row.method, row.path), []))
        paths.setdefault(row.path, {})[row.method.lower()] = operation
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Coterie",
                "version": version,
                "summary": "Sessions, locks and more, replicated by Raft; any node answers.",
                "description": _DESCRIPTION,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [
                {"name": tag, "description": _TAGS.get(tag, "")}
                for tag in dict.fromkeys(row.tag for row in rows)
            ],
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _with_short_names(
    schemas: Iterable[dict[str, Any]], components: dict[str, Any]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Say `FifosTicketView` where two modules have a `TicketView`, instead of a whole path."""
    short = {}
    for name in components:
        *rooms, own = name.split(".")
        short[name] = f"{rooms[-1].title()}{own}" if rooms else own
    refs = {_REF.format(name=name): _REF.format(name=own) for name, own in short.items()}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: refs.get(item, item) if key == "$ref" else renamed(item)
                for key, item in value.items()
            }
        return [renamed(item) for item in value] if isinstance(value, list) else value

    return (
        [renamed(schema) for schema in schemas],
        {short[name]: renamed(schema) for name, schema in components.items()},
    )


def _examples(rows: tuple[Route, ...]) -> dict[tuple[str, str], list[Shown]]:
    """The steps of the tour by method and path. A server of other routes shows what it has."""
    found: dict[tuple[str, str], list[Shown]] = {}
    for one in shown(TOUR, recorded()):
        with contextlib.suppress(LookupError):
            row = one.step.route(rows)
            found.setdefault((row.method, row.path), []).append(one)
    return found


def _add_examples(operation: dict[str, Any], row: Route, steps: list[Shown]) -> None:
    """Put examples where programs look for them, and whole ones beside them for people."""
    for step, answer in steps:
        # Who is refused for a wrong body shows no body to copy.
        is_good = step.body is not None and step.status != HTTPStatus.BAD_REQUEST
        if is_good and "requestBody" in operation:
            content = operation["requestBody"]["content"][replies.JSON]
            content.setdefault("examples", {})[step.title] = {"value": step.body}
        content = operation["responses"][str(step.status)].get("content", {})
        for kind in (replies.JSON, replies.PROBLEM_JSON, _EVENTS):
            if answer is not None and kind in content:
                content[kind].setdefault("examples", {})[step.title] = {"value": answer}
    good = [step for step, _ in steps if step.status < HTTPStatus.BAD_REQUEST]
    for parameter in operation.get("parameters", ()) if good else ():
        value = _parameter_of(row, good[0], parameter)
        if value is not None:
            parameter["example"] = value
    operation["x-examples"] = [
        {
            "title": step.title,
            "target": step.target,
            "status": step.status,
            **({"headers": step.headers} if step.headers else {}),
            **({} if step.body is None else {"body": step.body}),
            **({} if answer is None else {"answer": answer}),
        }
        for step, answer in steps
    ]


def _parameter_of(row: Route, step: Step, parameter: Mapping[str, Any]) -> object:
    path, _, query = step.target.partition("?")
    if parameter["in"] == "path":
        place = row.path.split("/").index(f"{{{parameter['name']}}}")
        return unquote(path.split("/")[place])
    if parameter["in"] == "query":
        values = parse_qs(query).get(parameter["name"])
        if values is not None:
            is_text = parameter["schema"].get("type") == "string"
            return values[0] if is_text else msgspec.json.decode(values[0])
    return None


def _operation(row: Route, schema_of: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.summary,
        "operationId": row.operation,
        "tags": [row.tag],
        "responses": _responses(row, schema_of),
    }
    if parameters := [*_path_parameters(row), *_query_parameters(row), *_header_parameters(row)]:
        operation["parameters"] = parameters
    if row.method not in {"GET", "DELETE"} and row.body.__struct_fields__:
        schema = schema_of[row.body]
        required = any(
            item.default is msgspec.NODEFAULT and item.default_factory is msgspec.NODEFAULT
            for item in msgspec.structs.fields(row.body)
        )
        operation["requestBody"] = {"required": required, "content": _content(schema)}
    return operation


def _path_parameters(row: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"1..{NAME_BYTES_MAX} bytes of UTF-8, percent-encoded",
            "schema": dict(_PATH_SCHEMAS.get(name, NAME_SCHEMA)),
        }
        for name in re.findall(r"\{(\w+)\}", row.path)
    ]


def _query_parameters(row: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": query.name,
            "in": "query",
            "required": query.is_required,
            "description": query.meaning,
            "schema": dict(query.schema),
        }
        for query in row.query
    ]


def _header_parameters(row: Route) -> list[dict[str, Any]]:
    if isinstance(row, Read) and row.wants_pass:
        return [
            {
                "name": "Authorization",
                "in": "header",
                "required": False,
                "description": "Bearer, and the pass that join gave",
                "schema": {"type": "string"},
            }
        ]
    if not isinstance(row, Write):
        return []
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "same key and same body: the first answer again, after failover too",
            "schema": {"type": "string", "pattern": f"^[!-~]{{1,{KEY_LENGTH_MAX}}}$"},
        }
    ]


def _responses(row: Route, schema_of: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    success: dict[str, Any] = {"description": row.summary, "headers": _headers(row)}
    if row.answer is not None:
        success["content"] = _content(schema_of[row.answer])
    elif isinstance(row, Local):
        success["content"] = {"*/*": {}}
    elif isinstance(row, Stream):
        success["content"] = {_EVENTS: {"schema": {"type": "string"}}}
    responses: dict[str, Any] = {str(status): success for status in (row.status, *row.also)}
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(row.all_codes):
        by_status.setdefault(replies.KINDS[code].status, []).append(code)
    for status, codes in sorted(by_status.items()):
        schema = {"schema": _problem(codes, schema_of)}
        responses[str(status)] = {
            "description": "; ".join(f"{code}: {replies.KINDS[code].title}" for code in codes),
            "headers": _problem_headers(codes),
            "content": {replies.PROBLEM_JSON: schema, replies.PROBLEM_CBOR: schema},
        }
    return responses


def _problem(
    codes: list[str], schema_of: dict[type[msgspec.Struct], dict[str, Any]]
) -> dict[str, Any]:
    choices = [
        {
            "allOf": [
                schema_of[ProblemDocument],
                *([schema_of[replies.REASONS[code]]] if code in replies.REASONS else []),
                {"properties": {"code": {"const": code}}},
            ]
        }
        for code in codes
    ]
    return choices[0] if len(choices) == 1 else {"oneOf": choices}


def _headers(row: Route) -> dict[str, Any]:
    headers = {"Coterie-Index": _INDEX}
    if isinstance(row, Write) and _gives_token(row.answer):
        headers["Coterie-Token"] = {
            "description": "the fencing token given",
            "schema": {"type": "integer"},
        }
    if isinstance(row, Write) and 201 in (row.status, *row.also):
        headers["Location"] = {
            "description": "path of what was made",
            "schema": {"type": "string", "format": "uri-reference"},
        }
    if isinstance(row, Read):
        headers["Coterie-Stale-Ms"] = {
            "description": "on stale reads: how long ago this node last heard from a leader",
            "schema": {"type": "integer"},
        }
    return headers


def _gives_token(answer: type[msgspec.Struct] | None) -> bool:
    fields = () if answer is None else msgspec.structs.fields(answer)
    return any(item.name == "token" and item.type is not str for item in fields)


def _problem_headers(codes: list[str]) -> dict[str, Any]:
    headers = {"Coterie-Index": _INDEX}
    if any(replies.KINDS[code].retry_after_s is not None for code in codes):
        headers["Retry-After"] = {
            "description": "seconds after which to try again",
            "schema": {"type": "integer"},
        }
    if any(replies.KINDS[code].status == HTTPStatus.UNAUTHORIZED for code in codes):
        headers["WWW-Authenticate"] = {
            "description": "what is wanted in Authorization",
            "schema": {"type": "string"},
        }
    return headers


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {replies.JSON: {"schema": schema}, replies.CBOR: {"schema": schema}}


# What is named otherwise than things are. Jobs are numbered.
_PATH_SCHEMAS: Final[Mapping[str, Mapping[str, object]]] = {
    "session": SESSION_ID_SCHEMA,
    "job": {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
}
_DESCRIPTION: Final = (
    "Any node takes any request and answers for the whole cluster. Bodies are JSON or CBOR "
    "(`Content-Type`, `Accept`); lengths of time are text as in `30s` or whole milliseconds. "
    "What is refused is a problem document (RFC 9457): `code` is stable, `definite` says that it "
    "surely did not happen, `retryable` that it may succeed later. A write with an "
    "`Idempotency-Key` is done once, however often and at whatever node it is repeated. Tokens "
    "are fencing tokens: they rise for ever, over all things."
)

_TAGS: Final[Mapping[str, str]] = {
    "sessions": "Who you are to the cluster, for as long as you say so in time. "
    "Everything that a session holds is freed in the step that ends it.",
    "locks": "Exclusive or shared, fair, fenced by tokens; several at once, or none.",
    "semaphores": "So many units and no more, handed out in order.",
    "tickets": "What some sessions offer, others claim: each ticket to one of them at a time.",
    "fifos": "Turns in order, for clients without a session: a ticket is all they need.",
    "rooms": "Waiting rooms: a window lets so many in at a time; a pass can be checked anywhere.",
    "jobs": "Tubes of jobs: delayed, by priority, reserved for a while, buried, cancelled once.",
    "tasks": "Pools of work in fair shares among sessions; schedules that fire once per slot.",
    "batch": "Several commands in one step of the log.",
    "watch": "Events as they happen, from any position that is still remembered.",
    "explain": "Who stands in whose way.",
    "cluster": "The nodes, and who leads them.",
    "health": "For probes, scrapers and readers.",
}

_INDEX: Final = {
    "description": "log position that the answer reflects",
    "required": True,
    "schema": {"type": "integer"},
}
