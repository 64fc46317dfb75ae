"""Going through the tour of examples, at any gateway.

RULE: sends what the tour says and gives what came back; judges nothing but the status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, NamedTuple

import yarl

from cluster.gateway.examples import Step
from cluster.gateway.tour import TOUR
from tests.gateway.conftest import Api, Got


class Went(NamedTuple):
    """One step with real values in it, as the tour has it, and its answer."""

    step: Step
    original: Step
    got: Got


async def go(api: Api, tour: Iterable[Step] = TOUR) -> AsyncIterator[Went]:
    """Send every step in order; each must be answered as it says."""
    kept: dict[str, Any] = {}
    for original in tour:
        step = original.filled(kept)
        target = step.target.replace(" ", "%20")
        if step.streams:
            got = await begin(api, target)
        else:
            got = await api.call(step.method, target, step.body, headers=dict(step.headers))
        assert got.status == step.status, f"{step.call}: {got.status} {got.body}"
        kept |= step.kept(got.body)
        yield Went(step, original, got)


async def begin(api: Api, target: str) -> Got:
    """Read a stream up to its second event, and leave."""
    url = yarl.URL(f"http://{api.host}:{api.port}{target}", encoded=True)
    async with api.session.get(url) as response:
        raw = b""
        while raw.count(b"\n\n") < 2:
            raw += await response.content.readline()
        return Got(response.status, response.headers, raw, raw.decode())
