"""Server-sent events for tests: a stream that is read message by message."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, NamedTuple

import aiohttp
import msgspec
import yarl

from tests.gateway.conftest import Api

WITHIN_S = 10.0


class Message(NamedTuple):
    """One message, as a browser would make it of the lines."""

    what: str
    id: int | None
    data: Any


class Stream:
    """A watcher. Leaving it hangs up.

    Attributes:
        last_id: what a browser would come back with.
        heartbeats: comments so far.
    """

    def __init__(self, api: Api, query: str = "", last_id: int | None = None):
        self._api = api
        self._url = f"http://{api.host}:{api.port}/v1/watch{query}"
        self._headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
        self._response: aiohttp.ClientResponse | None = None
        self.last_id = last_id
        self.heartbeats = 0

    async def __aenter__(self) -> Stream:
        url = yarl.URL(self._url, encoded=True)
        self._response = await self._api.session.get(url, headers=self._headers)
        assert self._response.status == 200, await self._response.text()
        assert self._response.content_type == "text/event-stream"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._response is not None
        self._response.close()

    async def next(self) -> Message:
        """The next message; comments and ids alone are noted on the way."""
        async with asyncio.timeout(WITHIN_S):
            while True:
                fields = await self._block()
                if "id" in fields:
                    self.last_id = int(fields["id"])
                if "data" in fields:
                    id = int(fields["id"]) if "id" in fields else None
                    return Message(fields["event"], id, msgspec.json.decode(fields["data"]))
                self.heartbeats += 1

    async def beat(self) -> None:
        """Wait for a sign of life."""
        async with asyncio.timeout(WITHIN_S):
            fields = await self._block()
        assert "data" not in fields, fields
        self.heartbeats += 1
        self.last_id = int(fields.get("id", self.last_id or 0))

    async def ended(self) -> bool:
        """Whether the server ends the stream now."""
        assert self._response is not None
        async with asyncio.timeout(WITHIN_S):
            return await self._response.content.read() == b""

    async def _block(self) -> dict[str, str]:
        assert self._response is not None
        fields: dict[str, str] = {}
        while line := (await self._response.content.readline()).decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            fields[name] = value
        assert fields, "the stream ended"
        return fields
