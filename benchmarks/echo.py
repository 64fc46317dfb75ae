"""A server that grants everything at once: what the load tool and this machine can do at most.

RULE: speaks just enough of Coterie's API for the load tool; keeps nothing.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

_SESSION = b'{"session":"echo","ttl_ms":15000,"expires_in_ms":15000,"token":1}'
_OPENED = b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%b" % (len(_SESSION), _SESSION)
_GRANT = b'{"name":"bench","token":1,"mode":"exclusive","session":"echo"}'
_GRANTED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(_GRANT), _GRANT)


class Echo(asyncio.Protocol):
    """One connection; the load tool never has two requests under way on it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer; a request of the load tool comes in one piece."""
        is_opening = data.startswith(b"POST /v1/sessions HTTP")
        self._transport.write(_OPENED if is_opening else _GRANTED)


async def serve(port: int) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Serve on the port that the one argument names."""
    try:
        import uvloop  # noqa: PLC0415 - where it is installed
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
