"""A client of net/rpc with gob, for tests: as many calls at once as one likes, on one connection."""

from __future__ import annotations

import asyncio
import itertools
from types import TracebackType
from typing import Any, Self

from cluster.fronts.gob.decoder import Decoder
from cluster.fronts.gob.encoder import Encoder
from cluster.fronts.gob.kinds import INT, STRING, Kind
from cluster.fronts.gob.messages import Messages
from cluster.fronts.goyaad.rpc import JOB, REQUEST

SECOND_NS = 1_000_000_000


class RpcError(Exception):
    """What the server answered in place of a result."""


class GoyaadClient:
    """One connection; `call` may be used by many tasks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.answered: list[int] = []
        self._encoder = Encoder()
        self._seqs = itertools.count()
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def to(cls, address: tuple[str, int]) -> Self:
        return cls(*await asyncio.open_connection(*address))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._listening.cancel()
        self.writer.close()
        await asyncio.wait({self._listening})
        for future in self._calls.values():
            future.cancel()

    def send(self, method: str, kind: Kind, argument: Any) -> asyncio.Future[Any]:
        """Send a call at once; its result comes when it comes."""
        seq = next(self._seqs)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[seq] = future
        encode = self._encoder.encode
        header = encode(REQUEST, {"ServiceMethod": method, "Seq": seq})
        self.writer.write(header + encode(kind, argument))
        return future

    def put(self, job_id: str, body: bytes = b"", delay_ns: int = 0) -> asyncio.Future[Any]:
        job = {"Body": body, "ID": job_id, "Delay": delay_ns}
        return self.send("RPCServer.PutWithID", JOB, job)

    def next(self, timeout_ns: int = 0) -> asyncio.Future[Any]:
        return self.send("RPCServer.Next", INT, timeout_ns)

    def cancel(self, job_id: str) -> asyncio.Future[Any]:
        return self.send("RPCServer.Cancel", STRING, job_id)

    def inspect(self, count: int) -> asyncio.Future[Any]:
        return self.send("RPCServer.InspectN", INT, count)

    def ping(self) -> asyncio.Future[Any]:
        return self.send("RPCServer.Ping", INT, 0)

    async def _listen(self) -> None:
        messages, decoder = Messages(bytes_max=1 << 26), Decoder()
        header: dict[str, Any] | None = None
        error: Exception = ConnectionError("the server has closed")
        try:
            while data := await self.reader.read(65536):
                for message in messages.feed(data):
                    assert isinstance(message, bytes)
                    value = decoder.message(message)
                    if value is None:
                        continue
                    if header is None:
                        header = value.value
                        continue
                    self._answered(header, value.value)
                    header = None
        except ConnectionError as broken:
            error = broken
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)
        self._calls.clear()

    def _answered(self, header: dict[str, Any], value: Any) -> None:
        seq = header.get("Seq", 0)
        self.answered.append(seq)
        future = self._calls.pop(seq)
        if future.done():
            return
        if "Error" in header:
            assert value == {}
            future.set_exception(RpcError(header["Error"]))
        else:
            future.set_result(value)
