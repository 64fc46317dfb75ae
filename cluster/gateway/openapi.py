"""The OpenAPI 3.1 document, made from the routes.

RULE: reads the table of routes and nothing else; what the table does not say is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from cluster.gateway import replies
from cluster.gateway.requests import KEY_LENGTH_MAX, NAME_BYTES_MAX, NAME_SCHEMA, SESSION_ID_SCHEMA
from cluster.gateway.routes import Local, Read, Route, Write

_REF = "#/components/schemas/{name}"


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
    schemas, components = msgspec.json.schema_components(unique, ref_template=_REF)
    schema_of = dict(zip(unique, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schema_of)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Coterie",
                "version": version,
                "summary": "Sessions, locks and more, replicated by Raft; any node answers.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "tags": [{"name": tag} for tag in dict.fromkeys(row.tag for row in rows)],
            "paths": paths,
            "components": {"schemas": components},
        }
    )


def _operation(row: Route, schema_of: dict[type[msgspec.Struct], dict[str, Any]]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": row.summary,
        "operationId": _operation_id(row),
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


def _operation_id(row: Route) -> str:
    words = re.findall(r"\w+", row.path.removeprefix("/v1"))
    return "_".join((row.method.lower(), *words))


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
    if isinstance(row, Write) and "token" in getattr(row.answer, "__struct_fields__", ()):
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
_INDEX: Final = {
    "description": "log position that the answer reflects",
    "required": True,
    "schema": {"type": "integer"},
}
