"""Whatever is sent, the answer is a document of ours, and never 500."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.gateway.server import NATIVE_ROUTES
from cluster.wire import cbor
from tests.gateway.conftest import Api

ROUTES = [route for route in NATIVE_ROUTES if route.method == "POST"]

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["30s", "PT1S", "0", "", "x" * 300, "\u0000", "a/b", "exclusive", "shared"]),
)
values: Any = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(min_value=-(2**70), max_value=2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)


def bodies(fields: tuple[str, ...]) -> Any:
    """Objects with some of the right fields, mostly wrongly filled, and anything else."""
    keys = st.one_of(st.sampled_from(fields), st.text(max_size=6)) if fields else texts
    return st.one_of(st.dictionaries(keys, values, max_size=5), values)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_any_body_is_understood_or_refused(api: Api, route: Any) -> None:
    """Wrongly filled bodies, in JSON and CBOR, and bytes that are neither."""
    fields = route.body.__struct_fields__
    path = route.path.replace("{name}", "a%2Fb").replace("{session}", "1-a")
    loop_calls: list[Any] = []

    @settings(max_examples=60, suppress_health_check=list(HealthCheck))
    @given(st.one_of(bodies(fields), st.binary(max_size=40)), st.booleans())
    def draw(body: Any, as_cbor: bool) -> None:
        loop_calls.append((body, as_cbor))

    draw()
    for body, as_cbor in loop_calls:
        data = body if isinstance(body, bytes) else _encoded(body, as_cbor)
        kind = "application/cbor" if as_cbor else "application/json"
        got = await api.post(path, data=data, headers={"Content-Type": kind})
        assert got.status < 500, (body, got.body)
        assert got.headers["Coterie-Index"].isdigit()
        if got.status >= 400:
            assert {"type", "title", "status", "detail", "code"} <= got.body.keys()


async def test_any_path_and_query_is_understood_or_refused(api: Api) -> None:
    """Odd bytes in the request line end in 2xx or 4xx."""
    drawn: list[tuple[bytes, bytes]] = []

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=30), st.binary(max_size=30))
    def draw(name: bytes, query: bytes) -> None:
        drawn.append((name, query))

    draw()
    for name, query in drawn:
        encoded = "".join(f"%{byte:02X}" for byte in name)
        asked = "".join(
            chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02x}" for byte in query
        )
        for path in (f"/v1/locks/{encoded}", f"/v1/sessions/{encoded}", f"/v1/locks?{asked}=1"):
            got = await api.get(path)
            assert got.status < 500, path


def _encoded(body: Any, as_cbor: bool) -> bytes:
    try:
        return cbor.encode(body) if as_cbor else msgspec.json.encode(body)
    except (OverflowError, ValueError):
        return str(body).encode("utf-8", "replace")
