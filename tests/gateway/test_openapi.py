"""The OpenAPI document: valid, complete, and its examples work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from cluster.cli.local import LocalCluster, planned_anywhere
from cluster.gateway import health, openapi
from cluster.gateway.replies import CBOR, JSON, PROBLEM_CBOR, PROBLEM_JSON
from cluster.gateway.routes import Route
from cluster.gateway.server import NATIVE_ROUTES
from cluster.gateway.tour import TOUR
from cluster.telemetry.metrics import Metrics
from tests.gateway import record_answers
from tests.gateway.conftest import Api
from tests.gateway.tour import go

ROUTES: tuple[Route, ...] = (
    *NATIVE_ROUTES,
    *health.routes(Metrics(), lambda: 0.0, NATIVE_ROUTES, "1"),
)


@pytest.fixture(scope="module")
def document() -> Any:
    """The document of the whole server."""
    return msgspec.json.decode(openapi.document(ROUTES, "1"))


def operations(document: Any) -> list[tuple[str, str, Any]]:
    """Method, path and operation, of all."""
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def references(value: Any) -> list[str]:
    """Collect every $ref."""
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [one for item in value.values() for one in references(item)]
    return [one for item in value for one in references(item)] if isinstance(value, list) else []


def test_the_document_is_valid(document: Any) -> None:
    """By somebody else's reading of OpenAPI 3.1."""
    OpenAPIV31SpecValidator(document).validate()


def test_the_document_has_every_route_and_no_other(document: Any) -> None:
    """Each once, under an id of its own; every reference leads somewhere."""
    assert sorted((method, path) for method, path, _ in operations(document)) == sorted(
        (row.method, row.path) for row in ROUTES
    )
    ids = Counter(operation["operationId"] for _, _, operation in operations(document))
    assert set(ids.values()) == {1}
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    assert not [name for name in schemas if not name.isidentifier()]
    assert all(tag["description"] for tag in document["tags"])


def test_an_operation_says_all_that_it_takes_and_gives(document: Any) -> None:
    """Parameters, body, statuses, both types of content, header fields of both kinds of answers."""
    acquire = document["paths"]["/v1/locks/{name}/acquire"]["post"]
    assert set(acquire["responses"]) >= {"200", "400", "404", "409", "410", "413", "422", "503"}
    names = [parameter["name"] for parameter in acquire["parameters"]]
    assert names == ["name", "wait", "Idempotency-Key"]
    assert set(acquire["responses"]["200"]["content"]) == {JSON, CBOR}
    assert set(acquire["responses"]["409"]["content"]) == {PROBLEM_JSON, PROBLEM_CBOR}
    assert set(acquire["responses"]["200"]["headers"]) == {"Coterie-Index", "Coterie-Token"}
    assert set(acquire["responses"]["503"]["headers"]) == {"Coterie-Index", "Retry-After"}
    body = document["components"]["schemas"]["Acquire"]
    assert (body["required"], body["additionalProperties"]) == (["session"], False)
    revoke = document["paths"]["/v1/resources/{name}/tickets/{ticket}"]["delete"]
    (session,) = (one for one in revoke["parameters"] if one["name"] == "session")
    assert session["required"]


def test_every_route_has_an_example(document: Any) -> None:
    """A new route wants a step in cluster/gateway/tour.py."""
    without = [
        f"{method} {path}"
        for method, path, operation in operations(document)
        if not any(one["status"] < 400 for one in operation["x-examples"])
    ]
    assert not without
    assert Counter(step.key for step in TOUR).most_common(1)[0][1] == 1
    for step in TOUR:
        step.route(ROUTES)


async def test_the_answers_are_those_of_the_machine() -> None:
    """After a change: python -m tests.gateway.record_answers."""
    assert record_answers.FILE.read_bytes() == await record_answers.record()


def test_examples_are_what_the_schemas_say(document: Any) -> None:
    """Bodies, answers, problems and parameters."""
    count = 0
    for method, path, operation in operations(document):
        for place in (operation.get("requestBody", {}), *operation["responses"].values()):
            for media in place.get("content", {}).values():
                for title, example in media.get("examples", {}).items():
                    where = f"{method} {path}: {title}"
                    check(document, media["schema"], example["value"], where)
                    count += 1
        for parameter in operation.get("parameters", ()):
            if "example" in parameter:
                check(document, parameter["schema"], parameter["example"], f"{method} {path}")
    assert count > len(TOUR)


def check(document: Any, schema: Any, value: Any, where: str) -> None:
    """A value fits a schema of the document."""
    whole = {"components": document["components"], "allOf": [schema]}
    errors = [error.message for error in Draft202012Validator(whole).iter_errors(value)]
    assert not errors, f"{where}: {errors}"


@pytest.mark.timeout(300)
async def test_every_example_works_at_a_real_cluster(tmp_path: Path) -> None:
    """Three processes, one of them asked; each step in order, each answered as the document says."""
    cluster = LocalCluster(tmp_path, planned_anywhere(3))
    cluster.prepare(log_level="error")
    try:
        await cluster.start()
        await cluster.until_ready(within_s=60.0)
        async with aiohttp.ClientSession() as session:
            member = cluster.members["n2"]
            api = Api.at(member.http.host, member.http.port, session)
            went = [step.call async for step, _, _ in go(api)]
    finally:
        await cluster.kill()
    assert len(went) == len(TOUR)
