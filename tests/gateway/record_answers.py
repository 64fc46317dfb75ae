"""`python -m tests.gateway.record_answers`: writes the answers of the tour anew.

RULE: asks a machine whose clock stands and whose lots are known, so that a second recording is the
same to the byte, and what changed in it is what changed in the code.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
import msgspec

import cluster.gateway.examples
from cluster.gateway.server import Gateway, GatewaySettings
from cluster.testing.local_node import LocalNode
from tests.gateway.conftest import Api
from tests.gateway.tour import go

FILE = Path(cluster.gateway.examples.__file__).with_name("answers.json")


async def record() -> bytes:
    """Return what the file should hold."""
    numbers = itertools.count(0x3A9D1F4C)

    def token_hex(count: int) -> str:
        return f"{next(numbers) * 0x9E3779B97F4A7C15:0x}"[-2 * count :].zfill(2 * count)

    gateway = Gateway(LocalNode(), GatewaySettings(linger_ms=20, room_keys=(b"an example" * 4,)))
    await gateway.start("127.0.0.1", 0)
    answers: dict[str, Any] = {}
    try:
        async with aiohttp.ClientSession() as session:
            api = Api(gateway, None, session)
            with patch.object(secrets, "token_hex", token_hex):
                async for _, original, got in go(api):
                    # Raw pages are not shown as examples.
                    is_shown = re.search("json|event", got.headers.get("Content-Type", ""))
                    is_document = original.target == "/openapi.json"
                    body = got.body if is_shown and not is_document else None
                    assert original.key not in answers, f"twice: {original.key}"
                    answers[original.key] = body
    finally:
        await gateway.stop(grace_s=0.1)
    return msgspec.json.format(msgspec.json.encode(answers), indent=1) + b"\n"


if __name__ == "__main__":
    FILE.write_bytes(asyncio.run(record()))
