"""The transport over real sockets: ordered, authenticated, bounded, and honest about who is there.

No test measures time: each waits for a fact, with a deadline that only a broken run reaches.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pickle
import random
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path

import pytest
import trustme

from cluster.replication import transport as transport_module
from cluster.replication.handshake import Dialler, Listener, Party, Session
from cluster.replication.transport import ERRORS_TOLD_MAX, STRANGERS_MAX, Pace, Transport

SECRET = b"correct horse battery staple"
DEADLINE_S = 20.0
HASTY = Pace(
    ping_s=0.02,
    silence_s=0.4,
    handshake_s=0.4,
    redial_min_s=0.01,
    redial_max_s=0.05,
    steady_s=0.01,
    goodbye_s=0.2,
)

# Gives nobody up for being silent or slow: what is closed is closed for another reason.
PATIENT = Pace(silence_s=600.0, handshake_s=600.0, goodbye_s=DEADLINE_S)


class Recorder:
    """A receiver that keeps what it is told."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, bytes]] = []
        self.events: list[str] = []

    def on_frame(self, peer: str, data: bytes) -> None:
        assert type(data) is bytes
        self.frames.append((peer, data))

    def on_connected(self, peer: str) -> None:
        self.events.append(f"+{peer}")

    def on_disconnected(self, peer: str) -> None:
        self.events.append(f"-{peer}")


class Node:
    """A transport, what it received, and the identities it remembers."""

    def __init__(
        self,
        name: str,
        listen: tuple[str, int] | socket.socket,
        peers: dict[str, tuple[str, int]],
        **changes: object,
    ):
        self.name = name
        self.received = Recorder()
        self.known: dict[str, str] = {}
        values: dict[str, object] = {
            "cluster": "demo",
            "boot": 1,
            "identity": f"disk-of-{name}",
            "secret": SECRET,
            "known_identity": self.known.get,
            "learn_identity": self.known.__setitem__,
            "clock": time.monotonic,
            "rng": random.Random(name),
        }
        self.transport = Transport(
            node=name,
            listen=listen,
            peers=peers,
            receiver=self.received,
            **{**values, **changes},  # type: ignore[arg-type]
        )

    @property
    def frames(self) -> list[tuple[str, bytes]]:
        return self.received.frames

    @property
    def events(self) -> list[str]:
        return self.received.events


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[None]:
    """Start the nodes, and close them at the end."""
    try:
        for node in nodes:
            await node.transport.start()
        yield
    finally:
        for node in nodes:
            await node.transport.close()


async def until(fact: Callable[[], object]) -> None:
    """Let the loop run until the fact holds."""
    async with asyncio.timeout(DEADLINE_S):
        while not fact():
            await asyncio.sleep(0.002)


def bound() -> socket.socket:
    """A socket bound to a free port of the loopback, not yet listening."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    return listener


def address(listener: socket.socket) -> tuple[str, int]:
    """Where a bound socket can be dialled."""
    host, port = listener.getsockname()
    return host, port


def pair(**changes: object) -> tuple[Node, Node]:
    """Two nodes, n1 and n2, that dial each other."""
    one, two = bound(), bound()
    return (
        Node("n1", one, {"n2": address(two)}, **changes),
        Node("n2", two, {"n1": address(one)}, **changes),
    )


async def connected(*nodes: Node) -> None:
    """Wait until every node has its streams to all its peers."""
    await until(
        lambda: all(node.transport.connected == node.transport.stats.keys() for node in nodes)
    )


class Relay:
    """A proxy in front of one address: it can cut, swallow, hold back, record and change bytes."""

    def __init__(self, target: tuple[str, int]):
        self.target = target
        self.listener = bound()
        self.address = address(self.listener)
        self.is_cut = False
        self.swallows_forth = False
        self.swallows_back = False
        self.holds = asyncio.Event()
        self.holds.set()
        self.change: Callable[[bytes], bytes] = lambda data: data
        self.forth = b""
        self.writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Relay:
        self.server = await asyncio.start_server(self._serve, sock=self.listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        self.cut()
        await until(lambda: not self.writers)
        await self.server.wait_closed()

    def cut(self) -> None:
        """Reset what is open, refuse what comes."""
        self.is_cut = True
        for writer in self.writers:
            writer.transport.abort()

    def heal(self) -> None:
        """Let connections through again."""
        self.is_cut = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            if self.is_cut:
                return
            back_reader, back_writer = await asyncio.open_connection(*self.target)
            self.writers.add(back_writer)
            try:
                await asyncio.gather(
                    self._forth(reader, back_writer), self._back(back_reader, writer)
                )
            finally:
                await self._end(back_writer)
        except OSError:
            pass
        finally:
            await self._end(writer)

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except OSError:
            pass
        self.writers.discard(writer)

    async def _forth(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.holds.wait()
            self.forth += data
            if not self.swallows_forth:
                writer.write(self.change(data))
                await writer.drain()
        raise ConnectionError

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if not self.swallows_back:
                writer.write(data)
                await writer.drain()
        raise ConnectionError


class Caller:
    """A hand-made n2 that dials a node with a plain socket, to say what no node would say."""

    def __init__(self, node: Node, *, secret: bytes = SECRET):
        self.node = node
        self.party = party("n2", secret=secret)
        self.sent = 0

    async def __aenter__(self) -> Caller:
        self.reader, self.writer = await asyncio.open_connection(*address_of(self.node))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    async def enter(self) -> Session:
        """Go through the handshake."""
        side = Dialler(self.party, self.node.name, os.urandom(32))
        self.writer.write(side.hello())
        while side.session is None:
            self.writer.write(side.receive(await self.reader.read(1000)))
        self.session = side.session
        return side.session

    def frame(self, payload: bytes, counter: int | None = None) -> bytes:
        """The bytes of the next frame, or of the one of this number."""
        if counter is None:
            counter, self.sent = self.sent, self.sent + 1
        return seal(self.session.send_key, counter, payload)

    async def is_closed(self) -> bool:
        """Wait for the other side to close."""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while await self.reader.read(65536):
                    pass
            except ConnectionError:
                pass
        return True


def party(name: str, *, secret: bytes = SECRET) -> Party:
    """The hand-made member of this name."""
    return Party(
        cluster="demo",
        node=name,
        boot=1,
        identity=f"disk-of-{name}",
        secret=secret,
        peers=[peer for peer in ("n1", "n2") if peer != name],
        known_identity=lambda _: None,
        learn_identity=lambda *_: None,
    )


def seal(key: bytes, counter: int, payload: bytes) -> bytes:
    """The documented format of a frame, written a second time."""
    tag = blake2b(counter.to_bytes(8, "big") + payload, key=key, digest_size=16).digest()
    return len(payload).to_bytes(4, "big") + tag + payload


def lonely(**changes: object) -> Node:
    """A node n1 whose peer n2 does not exist: nobody listens at its address."""
    nobody = bound()
    where = address(nobody)
    nobody.close()
    return Node("n1", ("127.0.0.1", 0), {"n2": where}, **changes)


# Ordinary life.


@pytest.mark.both_loops
async def test_frames_arrive_whole_and_in_order() -> None:
    """Both ways at once, empty turns and full ones, sizes from one byte to megabytes."""
    one, two = pair()
    lots = random.Random(1)
    sizes = [1, 2, 19, 20, 21, 65_535, 65_536, 65_537, 3_000_000, 1, 1_000_000]
    sizes += [lots.randrange(1, 3000) for _ in range(300)]
    frames = [lots.randbytes(size) for size in sizes]
    async with running(one, two):
        await connected(one, two)
        for at, frame in enumerate(frames):
            assert one.transport.send("n2", frame)
            assert two.transport.send("n1", frame[::-1])
            if at % 7 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(one.frames) == len(two.frames) == len(frames))
    assert two.frames == [("n1", frame) for frame in frames]
    assert one.frames == [("n2", frame[::-1]) for frame in frames]
    stats = one.transport.stats["n2"]
    assert (stats.frames_out, stats.bytes_out) == (len(frames), sum(sizes))
    assert (stats.frames_in, stats.bytes_in) == (len(frames), sum(sizes))


@pytest.mark.both_loops
async def test_three_nodes_find_each_other_in_any_order() -> None:
    """Whoever starts first dials until the others are there; each learns all identities."""
    sockets = {name: bound() for name in ("n1", "n2", "n3")}
    nodes = [
        Node(
            name,
            listener,
            {peer: address(other) for peer, other in sockets.items() if peer != name},
        )
        for name, listener in sockets.items()
    ]
    async with running(*nodes):
        await connected(*nodes)
        assert nodes[0].known == {"n2": "disk-of-n2", "n3": "disk-of-n3"}
        assert nodes[0].events == [f"+{peer}" for peer in nodes[0].transport.connected]


async def test_frames_of_one_turn_leave_together() -> None:
    """A hundred small frames are one write, hence one read at the other side."""
    async with sent_to_by_hand() as (node, session, connection):
        for number in range(100):
            node.transport.send("n2", b"%03d" % number)
        node.transport.flush()
        # Nothing of the loop has run: what is here left in that one call.
        data = connection.recv(65536)
    # Signs of life take numbers too; only their count before ours is unknown.
    expected = [
        b"".join(
            seal(session.receive_key, first + number, b"%03d" % number) for number in range(100)
        )
        for first in range(10)
    ]
    assert any(data.endswith(frames) for frames in expected)


@asynccontextmanager
async def sent_to_by_hand() -> AsyncIterator[tuple[Node, Session, socket.socket]]:
    """A node n1 that is connected to a plain socket which plays the listener n2."""
    listener = bound()
    listener.listen()
    listener.setblocking(False)
    node = Node("n1", ("127.0.0.1", 0), {"n2": address(listener)}, pace=PATIENT)
    loop = asyncio.get_running_loop()
    async with running(node):
        connection, _ = await loop.sock_accept(listener)
        with listener, connection:
            side = Listener(party("n2"), os.urandom(32))
            while side.session is None:
                data = await loop.sock_recv(connection, 1000)
                await loop.sock_sendall(connection, side.receive(data))
            await connected(node)
            connection.setblocking(True)
            connection.settimeout(DEADLINE_S)
            yield node, side.session, connection


@pytest.mark.both_loops
async def test_small_frames_are_not_delayed_by_the_kernel() -> None:
    """TCP_NODELAY is on, on the stream we dial and on the one that is dialled to us."""
    one, two = pair()
    async with running(one, two):
        await connected(one, two)
        wires = [*one.transport._outbound.values(), *one.transport._inbound.values()]
        for wire in wires:
            assert wire._transport is not None
            connection = wire._transport.get_extra_info("socket")
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_sending_to_nobody_says_so() -> None:
    """No connection, an unknown name, a frame that is too long: False, and nothing is kept."""
    one, two = pair(frame_bytes_max=1000)
    assert not one.transport.send("n2", b"early")
    async with running(one, two):
        await connected(one, two)
        assert not one.transport.send("n3", b"who?")
        assert not one.transport.send("n2", b"x" * 1001)
        assert not one.transport.send("n2", b"")
        assert one.transport.send("n2", b"x" * 1000)
        await until(lambda: two.frames)
        assert two.frames == [("n1", b"x" * 1000)]
    assert not one.transport.send("n2", b"late")


async def test_what_was_sent_before_closing_arrives() -> None:
    """A leader's last words, its hand-over, are not lost by its leaving."""
    one, two = pair(pace=PATIENT)
    # More than the kernel's buffers take at once.
    farewell = b"farewell" * 2_000_000
    async with running(one, two):
        await connected(one, two)
        one.transport.send("n2", farewell)
        await one.transport.close()
        await until(lambda: two.frames)
        assert two.frames == [("n1", farewell)]
        # Who closes on purpose needs no calls any more.
        assert one.events == ["+n2"]


async def test_closing_twice_or_before_anything_happened_is_harmless() -> None:
    """Shutdown may come at any moment."""
    node = lonely()
    await node.transport.start()
    await node.transport.close()
    await node.transport.close()


# Losing each other.


@pytest.mark.both_loops
async def test_a_peer_that_dies_is_missed_and_found_again() -> None:
    """The stream is gone when its process is; a new process under the same name is dialled."""
    one, two = pair()
    async with running(one, two):
        await connected(one, two)
        where = two.transport.port
        await two.transport.close()
        await until(lambda: not one.transport.connected)
        assert one.events == ["+n2", "-n2"]
        assert not one.transport.send("n2", b"nobody hears this")
        peers = {"n1": ("127.0.0.1", one.transport.port)}
        again = Node("n2", ("127.0.0.1", where), peers, boot=2)
        async with running(again):
            await connected(one, again)
            assert one.events == ["+n2", "-n2", "+n2"]
            assert one.transport.stats["n2"].reconnects == 1
            assert one.transport.send("n2", b"welcome back")
            await until(lambda: again.frames)
            assert again.frames == [("n1", b"welcome back")]


async def test_a_cut_in_one_direction_is_a_cut_in_one_direction() -> None:
    """n1 cannot reach n2, while n2 still reaches n1; after the cut both do."""
    one, two = bound(), bound()
    async with Relay(address(two)) as relay:
        first = Node("n1", one, {"n2": relay.address}, pace=HASTY)
        second = Node("n2", two, {"n1": address(one)}, pace=HASTY)
        async with running(first, second):
            await connected(first, second)
            relay.cut()
            await until(lambda: not first.transport.connected)
            assert second.transport.send("n1", b"still here")
            await until(lambda: first.frames)
            assert first.frames == [("n2", b"still here")]
            assert second.events == ["+n1"]
            relay.heal()
            await connected(first, second)
            assert first.transport.send("n2", b"back")
            await until(lambda: second.frames)


@pytest.mark.parametrize("swallow", ["swallows_forth", "swallows_back"])
async def test_a_silent_cut_is_noticed(swallow: str) -> None:
    """Packets vanish and nothing closes: the missing signs of life tell, in both directions."""
    one, two = bound(), bound()
    async with Relay(address(two)) as relay:
        first = Node("n1", one, {"n2": relay.address}, pace=HASTY)
        second = Node("n2", two, {"n1": address(one)}, pace=HASTY)
        async with running(first, second):
            await connected(first, second)
            setattr(relay, swallow, True)
            await until(lambda: "-n2" in first.events)
            assert "nothing heard" in (first.transport.stats["n2"].last_error or "")
            setattr(relay, swallow, False)
            await connected(first, second)


async def test_a_long_silence_of_our_own_loop_is_not_the_peers() -> None:
    """After the process was stopped or blocked, peers that are well stay connected."""
    one, two = pair(pace=HASTY)
    async with running(one, two):
        await connected(one, two)
        # The clock leaps, as it does for a process that was stopped.
        leap, clock = 100.0, one.transport._clock
        one.transport._clock = lambda: clock() + leap
        rounds = one.transport._outbound["n2"]._sent + 5
        await until(lambda: one.transport._outbound["n2"]._sent > rounds)
        assert one.events == ["+n2"]


async def test_a_peer_that_reads_nothing_is_given_up() -> None:
    """Beyond the limit of what may wait, send says no and the connection is reset."""
    async with sent_to_by_hand() as (node, _, _):
        node.transport._buffer_bytes_max = 10_000_000
        sent = 0
        while node.transport.send("n2", bytes(100_000)):
            sent += 100_000
            await asyncio.sleep(0)
        # What the kernel's buffers hold comes on top.
        assert sent < 40_000_000
        await until(lambda: node.events == ["+n2", "-n2"])
        assert "wait to be sent" in (node.transport.stats["n2"].last_error or "")


async def test_a_newer_connection_replaces_the_older() -> None:
    """One live connection per direction: what the old one still holds is dropped."""
    node = lonely()
    async with running(node), Caller(node) as old, Caller(node) as new:
        await old.enter()
        old.writer.write(old.frame(b"one"))
        await until(lambda: node.frames)
        # Half of it is there when the new connection comes.
        half = old.frame(b"residue" * 1000)
        old.writer.write(half[:3000])
        await new.enter()
        old.writer.write(half[3000:])
        new.writer.write(new.frame(b"two"))
        await until(lambda: len(node.frames) > 1)
        assert await old.is_closed()
        assert node.frames == [("n2", b"one"), ("n2", b"two")]
        assert node.transport.stats["n2"].accepts == 2


# Strangers.


class Trap:
    """Loading its pickle creates a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


async def test_a_pickle_does_nothing(tmp_path: Path) -> None:
    """Neither before the handshake nor as the frame of an authenticated peer is it loaded."""
    bomb = pickle.dumps(Trap(tmp_path / "loaded"))
    node = lonely()
    async with running(node):
        for data in (bomb, len(bomb).to_bytes(4, "big") + bomb):
            async with Caller(node) as stranger:
                stranger.writer.write(data)
                assert await stranger.is_closed()
        async with Caller(node) as caller:
            await caller.enter()
            caller.writer.write(caller.frame(bomb))
            await until(lambda: node.frames)
        assert node.frames == [("n2", bomb)]
    assert not (tmp_path / "loaded").exists()
    # The trap itself works.
    pickle.loads(bomb)
    assert (tmp_path / "loaded").exists()


@pytest.mark.both_loops
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(2_000_000),
        b"\xff" * 2_000_000,
        b"coterie\x01\xff\xff",
        b"coterie\x03\x00\x00",
        b"coterie\x01\x00\x00",
        b"\x16\x03\x01\x02\x00\x01",
    ],
    ids=["HTTP", "zeros", "ones", "long", "proof first", "empty hello", "TLS"],
)
async def test_garbage_is_closed_at_once(data: bytes) -> None:
    """No timeout is waited for, nobody else is disturbed."""
    one, two = pair(pace=PATIENT)
    async with running(one, two):
        await connected(one, two)
        async with Caller(one) as stranger:
            stranger.writer.write(data)
            assert await stranger.is_closed()
        await until(lambda: one.transport.strangers.refused == 1)
        assert one.events == ["+n2"]
        assert two.events == ["+n1"]


@pytest.mark.parametrize(
    "said", [b"", b"cot", b"coterie\x01\x00\x22\x00\x01" + bytes(32)], ids=["", "half", "hello"]
)
async def test_a_handshake_that_does_not_go_on_is_closed(said: bytes) -> None:
    """Silence after nothing, after half a head, after a whole hello: the time is limited."""
    node = lonely(pace=HASTY)
    async with running(node), Caller(node) as stranger:
        stranger.writer.write(said)
        assert await stranger.is_closed()
        await until(lambda: node.transport.strangers.refused == 1)
        assert "no handshake in time" in (node.transport.strangers.last_error or "")
        assert not node.transport._open


async def test_a_slow_trickle_gains_no_time() -> None:
    """A byte now and then does not prolong a handshake."""
    node = lonely(pace=HASTY)
    async with running(node), Caller(node) as stranger:
        for byte in b"coterie\x01\x00\x22\x00\x01" + bytes(32):
            stranger.writer.write(bytes((byte,)))
            await asyncio.sleep(0.02)
        assert await stranger.is_closed()


async def test_a_crowd_of_strangers_does_not_lock_a_peer_out() -> None:
    """Connections without a handshake are few at a time, and the oldest make room."""
    one, two = bound(), bound()
    node = Node("n1", one, {"n2": address(two)}, pace=PATIENT)
    async with running(node):
        crowd = [await asyncio.open_connection(*address(one)) for _ in range(3 * STRANGERS_MAX)]
        await until(lambda: node.transport.strangers.refused >= 2 * STRANGERS_MAX)
        assert len(node.transport._open) <= STRANGERS_MAX
        peer = Node("n2", two, {"n1": address(one)})
        async with running(peer):
            await connected(node, peer)
        for _, writer in crowd:
            writer.transport.abort()
            try:
                await writer.wait_closed()
            except OSError:
                pass


@pytest.mark.both_loops
async def test_a_node_out_of_descriptors_listens_on() -> None:
    """An accept that fails costs a pause, not the listener, and no caller is lost."""
    node = lonely(pace=HASTY)
    async with running(node):
        listener = node.transport._socket
        assert listener is not None

        class Exhausted:
            getsockname = listener.getsockname
            fileno = listener.fileno

            def accept(self) -> tuple[socket.socket, object]:
                raise OSError(errno.EMFILE, "Too many open files")

        asyncio.get_running_loop().remove_reader(listener)
        node.transport._socket = Exhausted()  # type: ignore[assignment]
        node.transport._listen_again()
        async with Caller(node) as caller:
            await until(lambda: node.transport.strangers.refused)
            assert "Too many open files" in (node.transport.strangers.last_error or "")
            node.transport._socket = listener
            await caller.enter()
            caller.writer.write(caller.frame(b"patience"))
            await until(lambda: node.frames)


@pytest.mark.both_loops
@pytest.mark.parametrize("side", ["_Outbound", "_Inbound"])
async def test_closing_as_a_connection_comes_to_be_ends(
    side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also on uvloop, which never tells of the end of a connection that it gave up so early."""
    one, two = pair()
    node = one if side == "_Outbound" else two
    kind = getattr(transport_module, side)
    made: list[object] = []
    tell = kind.connection_made

    def connection_made(wire: object, transport: object) -> None:
        tell(wire, transport)
        if not made:
            made.append(wire)
            for task in (*node.transport._tasks, *node.transport._welcoming):
                task.cancel()

    monkeypatch.setattr(kind, "connection_made", connection_made)
    async with running(one, two):
        await until(lambda: made)
        async with asyncio.timeout(DEADLINE_S):
            await node.transport.close()
        assert made[0].lost.is_set()  # type: ignore[attr-defined]


async def test_closing_while_peers_knock_loses_no_socket() -> None:
    """Whatever moment a caller arrives at, its connection is closed (a lost one would warn)."""
    for turns in range(12):
        node = lonely()
        await node.transport.start()
        knocker = asyncio.create_task(asyncio.open_connection(*address_of(node)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await node.transport.close()
        try:
            _, writer = await knocker
        except OSError:
            continue
        writer.transport.abort()
        try:
            await writer.wait_closed()
        except OSError:
            pass


def address_of(node: Node) -> tuple[str, int]:
    """Where this node listens."""
    return "127.0.0.1", node.transport.port


async def test_a_replayed_handshake_is_refused() -> None:
    """Every byte that a good dialler said, said again, opens nothing."""
    one, two = bound(), bound()
    async with Relay(address(two)) as relay:
        first = Node("n1", one, {"n2": relay.address})
        second = Node("n2", two, {"n1": address(one)})
        async with running(first, second):
            await connected(first, second)
            first.transport.send("n2", b"once")
            await until(lambda: second.frames)
            async with Caller(second) as replayer:
                replayer.writer.write(relay.forth)
                assert await replayer.is_closed()
            async with Caller(second) as replayer:
                # More patient: it waits for the challenge before it replays the proof.
                replayer.writer.write(relay.forth[:44])
                await replayer.reader.readexactly(44)
                replayer.writer.write(relay.forth[44:])
                assert await replayer.is_closed()
            assert second.frames == [("n1", b"once")]
            assert second.transport.stats["n1"].accepts == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"secret": b"another"}, "its cluster secret is not ours"),
        ({"cluster": "prod"}, "another cluster"),
        ({"identity": "a-new-disk"}, "data directory was wiped or swapped"),
    ],
    ids=["secret", "cluster", "identity"],
)
async def test_who_is_not_the_peer_is_refused_for_a_reason(
    changes: dict[str, object], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither stream comes up, and both logs say why, without the secret."""
    caplog.set_level(logging.DEBUG)
    one, two = bound(), bound()
    first = Node("n1", one, {"n2": address(two)}, pace=HASTY)
    second = Node("n2", two, {"n1": address(one)}, **{"pace": HASTY, **changes})  # type: ignore[arg-type]
    first.known["n2"] = "disk-of-n2"
    async with running(first, second):
        await until(lambda: reason in (second.transport.stats["n1"].last_error or ""))
        await until(
            lambda: first.transport.strangers.last_error or first.transport.stats["n2"].last_refusal
        )
        assert not first.transport.connected
        assert not first.frames
    assert reason in caplog.text
    assert "correct horse" not in caplog.text


# Damage on an authenticated connection.


async def test_a_flipped_byte_closes_the_connection() -> None:
    """The frame is not delivered, the stream is dialled anew, later frames arrive."""
    one, two = bound(), bound()
    async with Relay(address(two)) as relay:
        first = Node("n1", one, {"n2": relay.address})
        second = Node("n2", two, {"n1": address(one)})
        async with running(first, second):
            await connected(first, second)
            relay.change = lambda data: data.replace(b"true", b"trve")
            first.transport.send("n2", b"this is true")
            await until(lambda: first.events == ["+n2", "-n2", "+n2"])
            first.transport.send("n2", b"this is news")
            await until(lambda: second.frames)
            assert second.frames == [("n1", b"this is news")]


async def test_frames_repeated_swapped_or_too_long_close_the_connection() -> None:
    """Each frame has its number, and a length that is checked before it is waited for."""
    node = lonely(pace=PATIENT)
    async with running(node):
        async with Caller(node) as caller:
            await caller.enter()
            frame = caller.frame(b"once")
            caller.writer.write(frame + frame)
            assert await caller.is_closed()
        async with Caller(node) as caller:
            await caller.enter()
            caller.writer.write(caller.frame(b"second", counter=1))
            assert await caller.is_closed()
        async with Caller(node) as caller:
            await caller.enter()
            caller.writer.write((16 * 2**20 + 1).to_bytes(4, "big") + bytes(16))
            assert await caller.is_closed()
        assert node.frames == [("n2", b"once")]


async def test_a_frame_without_the_key_closes_the_connection() -> None:
    """Who takes over a connection without its key says nothing."""
    node = lonely()
    async with running(node), Caller(node) as caller:
        session = await caller.enter()
        caller.writer.write(seal(session.receive_key, 0, b"reflected"))
        assert await caller.is_closed()
        assert node.frames == []


async def test_a_frame_on_the_stream_that_we_dialled_closes_it() -> None:
    """The peer has its own stream to speak on; ours carries its signs of life and no more."""
    async with sent_to_by_hand() as (node, session, connection):
        connection.sendall(seal(session.send_key, 0, b""))
        connection.sendall(seal(session.send_key, 1, b"by the wrong door"))
        await until(lambda: node.events == ["+n2", "-n2"])
        assert node.frames == []


async def test_a_frame_in_many_small_pieces_arrives() -> None:
    """The cut of the stream does not matter: byte by byte is as good as whole."""
    node = lonely()
    async with running(node), Caller(node) as caller:
        await caller.enter()
        expected = [("n2", b"x" * size) for size in (1, 30, 2)]
        for byte in b"".join(caller.frame(frame) for _, frame in expected):
            caller.writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        await until(lambda: node.frames == expected)


# TLS.


def contexts(authority: trustme.CA, name: str | None) -> dict[str, ssl.SSLContext]:
    """Mutual TLS of a node with a certificate for this name, or with none."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    for context in (server, client):
        authority.configure_trust(context)
        if name is not None:
            authority.issue_cert(name).configure_cert(context)
    return {"ssl_server": server, "ssl_client": client}


@pytest.mark.both_loops
async def test_peers_with_certificates_meet() -> None:
    """Mutual TLS: certificates are for the names of the nodes, whatever address is dialled."""
    authority = trustme.CA()
    one, two = bound(), bound()
    first = Node("n1", one, {"n2": address(two)}, **contexts(authority, "n1"))
    second = Node("n2", two, {"n1": address(one)}, **contexts(authority, "n2"))
    async with running(first, second):
        await connected(first, second)
        first.transport.send("n2", b"x" * 2_000_000)
        await until(lambda: second.frames)
        assert second.frames == [("n1", b"x" * 2_000_000)]


@pytest.mark.both_loops
@pytest.mark.parametrize("name", [None, "n3"])
async def test_a_peer_without_its_certificate_is_refused(name: str | None) -> None:
    """Knowing the secret is not enough: no certificate, or that of another node."""
    authority = trustme.CA()
    one, two = bound(), bound()
    first = Node("n1", one, {"n2": address(two)}, pace=HASTY, **contexts(authority, "n1"))
    second = Node("n2", two, {"n1": address(one)}, pace=HASTY, **contexts(authority, name))
    async with running(first, second):
        await until(lambda: first.transport.stats["n2"].last_error)
        if name is None:
            await until(lambda: second.transport.stats["n1"].last_error)
            assert not second.transport.connected
        assert not first.transport.connected


async def test_errors_that_take_turns_are_logged_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A proxy whose peer is down answers now so, now so, for hours; the log says it in two lines."""
    caplog.set_level(logging.INFO)
    proxy = bound()
    at = address(proxy)
    node = Node("n1", ("127.0.0.1", 0), {"n2": at}, pace=HASTY)
    loop = asyncio.get_running_loop()
    async with running(node):
        for _ in range(4):
            # Refused while nobody listens, closed at once while somebody does.
            await until(lambda: "Connect call" in (node.transport.stats["n2"].last_error or ""))
            proxy.listen()
            proxy.setblocking(False)
            connection, _ = await loop.sock_accept(proxy)
            connection.close()
            await until(lambda: "Connect call" not in (node.transport.stats["n2"].last_error or ""))
            proxy.close()
            proxy = socket.socket()
            proxy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            proxy.bind(at)
        said = [r.getMessage() for r in caplog.records if "not connected" in r.getMessage()]
        assert len(said) == len(set(said))
        assert 2 <= len(said) <= ERRORS_TOLD_MAX
        # Connected, and gone again: that is news.
        second = Node("n2", proxy, {"n1": ("127.0.0.1", node.transport.port)}, pace=HASTY)
        async with running(second):
            await until(lambda: "n2" in node.transport.connected)
        await until(lambda: "n2" not in node.transport.connected)
        await until(lambda: "Connect call" in (node.transport.stats["n2"].last_error or ""))
        again = [r.getMessage() for r in caplog.records if "not connected" in r.getMessage()]
        assert len(again) > len(said)


async def test_a_plain_dial_to_a_tls_port_is_refused() -> None:
    """And the other way round: a TLS greeting on a plain port is garbage (see there)."""
    authority = trustme.CA()
    node = lonely(pace=HASTY, **contexts(authority, "n1"))
    async with running(node), Caller(node) as stranger:
        stranger.writer.write(b"coterie\x01\x00\x22\x00\x01" + bytes(32))
        assert await stranger.is_closed()
        await until(lambda: node.transport.strangers.refused == 1)
