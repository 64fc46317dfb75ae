"""How fast is a peer stream? Two processes on the loopback, one sends, one counts.

Prints figures, asserts none: `python -m tests.replication.bench_transport [--uvloop]`.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

from cluster.replication.transport import Transport

SECONDS = 2.0
WAITING_BYTES_MAX = 8_000_000
# Frames of a turn of the loop: a leader's round sends one or two, a catch-up sends large ones.
CASES = ((120, 1), (120, 64), (1_500, 16), (65_536, 4), (1_048_576, 1))


class Counter:
    """A receiver that answers every thousandth frame, so that the sender knows of it."""

    def __init__(self) -> None:
        self.transport: Transport
        self.frames = 0
        self.heard = 0

    def on_frame(self, peer: str, data: bytes) -> None:
        if data == b"enough":
            self.transport.send(peer, b"done")
        elif data == b"done":
            self.heard += 1
        elif data == b"ping":
            self.transport.send(peer, b"pong")
            self.transport.flush()
        elif data == b"pong":
            self.heard += 1
        else:
            self.frames += 1

    def on_connected(self, peer: str) -> None:
        pass

    def on_disconnected(self, peer: str) -> None:
        pass


async def node(name: str, listen: socket.socket, peer: str, dial: tuple[str, int]) -> Counter:
    """Start one node, connected with its peer."""
    counter = Counter()
    counter.transport = Transport(
        cluster="bench",
        node=name,
        boot=1,
        identity=name,
        secret=b"a secret of the benchmark",
        listen=listen,
        peers={peer: dial},
        receiver=counter,
        known_identity=lambda _: None,
        learn_identity=lambda *_: None,
        clock=time.monotonic,
        rng=random.Random(name),
    )
    await counter.transport.start()
    while not counter.transport.connected:
        await asyncio.sleep(0.01)
    return counter


async def count(listen: socket.socket, dial: tuple[str, int]) -> None:
    """The other process: receive until the sender is gone."""
    counter = await node("n2", listen, "n1", dial)
    while counter.transport.connected:
        await asyncio.sleep(0.05)
    await counter.transport.close()


async def send(listen: socket.socket, dial: tuple[str, int]) -> None:
    """Send every case for a while, then measure round trips."""
    counter = await node("n1", listen, "n2", dial)
    transport = counter.transport
    for size, burst in CASES:
        frame, sent, heard = bytes(size), 0, counter.heard
        began, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < SECONDS:
            for _ in range(burst):
                transport.send("n2", frame)
            sent += burst
            transport.flush()
            await asyncio.sleep(0)
            while transport._outbound["n2"].waiting_bytes() > WAITING_BYTES_MAX:
                await asyncio.sleep(0.0005)
        cpu = time.process_time() - cpu
        transport.send("n2", b"enough")
        while counter.heard == heard:
            await asyncio.sleep(0.001)
        took = time.perf_counter() - began
        print(
            f"{size:>9} B, {burst:>2} a turn: {sent / took:>9,.0f} frames/s"
            f" {sent * size / took / 1e6:>7,.0f} MB/s {cpu / sent * 1e6:>7.1f} us CPU per frame sent"
        )
    trips, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        heard = counter.heard
        transport.send("n2", b"ping")
        transport.flush()
        while counter.heard == heard:
            await asyncio.sleep(0)
        trips += 1
    print(f"round trip: {(time.perf_counter() - began) / trips * 1e6:.0f} us")
    await transport.close()


def run(work: Callable[..., Coroutine[Any, Any, None]], fast: bool, *arguments: object) -> None:
    """Run one side in its own event loop."""
    if fast:
        import uvloop

        uvloop.run(work(*arguments))
    else:
        asyncio.run(work(*arguments))


def main() -> None:
    """Bind two sockets, start the other process, send."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uvloop", action="store_true", help="use uvloop in both processes")
    fast = parser.parse_args().uvloop
    one, two = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    where = one.getsockname(), two.getsockname()
    other = multiprocessing.get_context("fork").Process(
        target=run, args=(count, fast, two, where[0]), daemon=True
    )
    other.start()
    two.close()
    run(send, fast, one, where[1])
    other.join()


if __name__ == "__main__":
    main()
