"""Peer connections: authenticated streams of frames over asyncio.

RULE: moves bytes, does not read them. Whose bytes they are is decided by the handshake, whether
they are whole by a tag; what they mean is decided elsewhere.

Every node dials every peer and only sends on the stream it dialled; what a peer has to say arrives
on the stream that the peer dialled. So a one-way cut of the network is a one-way cut of messages,
and there is one live connection per direction. A dial address is configuration apart from the
peer's identity: a proxy may stand there.

A frame: length u32, tag 16 bytes (keyed BLAKE2b over a frame counter and the payload), payload.
A frame without payload is a sign of life: the dialler gives one every `ping_s`, and the listener
answers, at the same pace, that bytes arrived. A dialler that hears nothing for `silence_s` closes:
so `connected` does not believe in a peer whose process hangs or whose packets vanish.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import socket
import ssl
import struct
from collections.abc import Callable, KeysView, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Protocol, cast

from cluster.replication.handshake import (
    NONCE_BYTES,
    Dialler,
    HandshakeRefused,
    Listener,
    Party,
    Session,
)
from cluster.wire.frames import FRAME_BYTES_MAX

logger = logging.getLogger(__name__)

BUFFER_BYTES_MAX = 64 * 2**20
"""Bytes that may wait for one peer; beyond it the connection is reset."""
STRANGERS_MAX = 64
"""Connections that may be in their handshake at a time; the oldest makes room."""
ERRORS_TOLD_MAX = 8
"""Different errors of one peer that are logged between two connections to it."""

_HEAD_BYTES = 20
_HEAD = struct.Struct(">I16s").pack
_TAG_BYTES = 16
# Payloads from this size on are written by themselves instead of being copied beside others.
_ALONE_BYTES = 64 * 1024
# A peer that sends but does not read gets no more than this of our signs of life.
_UNREAD_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the transport is. All in seconds.

    Attributes:
        ping_s: between two signs of life.
        silence_s: a dialler that heard nothing for so long gives the connection up; a listener
            waits twice as long.
        handshake_s: from accept (or the first packet of a dial) to the end of the handshake.
        redial_min_s: wait after the first failed dial; doubles with each further one.
        redial_max_s: longest wait between dials.
        steady_s: a connection that lived so long is dialled again at once when it is lost.
        goodbye_s: time for what is buffered to leave when the transport is closed.
    """

    ping_s: float = 0.5
    silence_s: float = 2.0
    handshake_s: float = 2.0
    redial_min_s: float = 0.05
    redial_max_s: float = 1.0
    steady_s: float = 0.5
    goodbye_s: float = 0.5


class Dice(Protocol):
    """What is needed of a `random.Random`."""

    def random(self) -> float:
        """A number from 0 to below 1."""


class Receiver(Protocol):
    """Who gets the frames. Called in the event loop; what it raises ends the connection."""

    def on_frame(self, peer: str, data: bytes) -> None:
        """One whole frame of an authenticated peer. All frames of one read come in a burst."""

    def on_connected(self, peer: str) -> None:
        """Our outbound stream to this peer is open: `send` works."""

    def on_disconnected(self, peer: str) -> None:
        """Our outbound stream to this peer is gone, and what it had buffered may be lost."""


@dataclass(slots=True)
class PeerStats:
    """Counters of one peer, never reset. Payload bytes; signs of life are not counted.

    Attributes:
        connects: times our outbound stream was established.
        accepts: times the peer's own stream was established.
        last_error: why our last dial or connection failed, None when nothing ever did.
        last_refusal: why we last refused a stream that the peer dialled.
    """

    bytes_in: int = 0
    bytes_out: int = 0
    frames_in: int = 0
    frames_out: int = 0
    connects: int = 0
    accepts: int = 0
    last_error: str | None = None
    last_refusal: str | None = None

    @property
    def reconnects(self) -> int:
        """Times the outbound stream was established again."""
        return max(0, self.connects - 1)


@dataclass(slots=True)
class StrangerStats:
    """Connections that never became a peer's.

    Attributes:
        refused: how many, since the start.
        last_error: why the last one was refused.
    """

    refused: int = 0
    last_error: str | None = None


class Transport:
    """All connections of one node with its peers. Lives in one event loop, uses no thread.

    Args:
        cluster: id of the cluster.
        node: name of this node.
        boot: number of this start of the node; peers refuse one below what they met before.
        identity: random text drawn when this node's disk was first used.
        secret: the cluster's secret; never empty.
        listen: (host, port), port 0 for any free one, or a socket that is already bound.
        peers: name of each other node and the (host, port) to dial for it.
        receiver: gets frames and changes of connection.
        known_identity: the identity remembered for a peer, or None when it was never met.
        learn_identity: remember a peer's identity, durably, before returning.
        clock: monotonic seconds.
        rng: draws the jitter of redials (never a secret).
        ssl_server: TLS of the listener; have it demand certificates (`ssl.CERT_REQUIRED`).
        ssl_client: TLS of the dials. The certificate is checked against the *name of the peer*,
            not against the dial address, unless the context says `check_hostname = False`.
        frame_bytes_max: longest payload, the same on all nodes.
        buffer_bytes_max: bytes that may wait for one peer.
        pace: see `Pace`.

    Raises:
        ValueError: a value that no handshake could carry (see `Party`).
    """

    def __init__(
        self,
        *,
        cluster: str,
        node: str,
        boot: int,
        identity: str,
        secret: bytes,
        listen: tuple[str, int] | socket.socket,
        peers: Mapping[str, tuple[str, int]],
        receiver: Receiver,
        known_identity: Callable[[str], str | None],
        learn_identity: Callable[[str, str], None],
        clock: Callable[[], float],
        rng: Dice,
        ssl_server: ssl.SSLContext | None = None,
        ssl_client: ssl.SSLContext | None = None,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        buffer_bytes_max: int = BUFFER_BYTES_MAX,
        pace: Pace | None = None,
    ):
        self.stats: dict[str, PeerStats] = {peer: PeerStats() for peer in peers}
        self.strangers = StrangerStats()
        # Why a peer could not be reached, as far as the log has it, since it last was.
        self._told: dict[str, set[str]] = {peer: set() for peer in peers}
        self._party = Party(
            cluster=cluster,
            node=node,
            boot=boot,
            identity=identity,
            secret=secret,
            peers=tuple(peers),
            known_identity=known_identity,
            learn_identity=learn_identity,
        )
        self._listen = listen
        self._dial_addresses = dict(peers)
        self._receiver = receiver
        self._clock = clock
        self._rng = rng
        self._ssl_server = ssl_server
        self._ssl_client = ssl_client
        self._frame_bytes_max = frame_bytes_max
        self._buffer_bytes_max = buffer_bytes_max
        self._pace = pace or Pace()
        self._socket: socket.socket | None = None
        self._outbound: dict[str, _Outbound] = {}
        self._inbound: dict[str, _Inbound] = {}
        self._open: dict[_Wire, None] = {}
        # Handshakes under way, oldest first.
        self._welcoming: dict[asyncio.Task[None], None] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._redial_now: dict[str, asyncio.Event] = {}
        self._unflushed: list[_Outbound] = []
        self._flush_is_due = False
        self._is_closed = False

    async def start(self) -> None:
        """Listen, and begin to dial all peers. Returns before any peer is connected.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._socket = _listening_socket(self._listen)
        self._listen_again()
        self._tasks.append(asyncio.create_task(self._show_life()))
        for peer in self._dial_addresses:
            self._redial_now[peer] = asyncio.Event()
            self._tasks.append(asyncio.create_task(self._keep_dialling(peer)))

    async def close(self) -> None:
        """Close everything; what was sent before gets a moment to leave. May be called twice.

        The receiver is not called any more from here on.
        """
        if self._is_closed:
            return
        self.flush()
        self._is_closed = True
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
        tasks = [*self._tasks, *self._welcoming]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        wires = list(self._open)
        for wire in wires:
            wire.close()
        try:
            async with asyncio.timeout(self._pace.goodbye_s):
                for wire in wires:
                    await wire.lost.wait()
        except TimeoutError:
            pass
        for wire in wires:
            wire.abort()
            await wire.lost.wait()
        self._outbound.clear()
        self._inbound.clear()

    @property
    def port(self) -> int:
        """The port really listened on. To be read after `start`."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def connected(self) -> KeysView[str]:
        """Peers to which our outbound stream is established and authenticated: a live view."""
        return self._outbound.keys()

    def send(self, peer: str, frame: bytes) -> bool:
        """Put a frame on its way to a peer. Never blocks.

        All frames of one turn of the event loop go out together, at its end or at `flush`.

        Returns:
            False when it surely does not go: not connected; longer than a peer would take (a bug
            of the sender, logged); or too much is waiting for this peer already (then the
            connection is reset: Raft repairs what that loses). True promises nothing.
        """
        wire = self._outbound.get(peer)
        if wire is None or wire.is_dead:
            return False
        size = len(frame)
        if not 0 < size <= self._frame_bytes_max:
            self._note(peer, f"a frame of {size} bytes, not of 1 to {self._frame_bytes_max}")
            return False
        if wire.waiting_bytes() + size > self._buffer_bytes_max:
            wire.fail(f"more than {self._buffer_bytes_max} bytes wait to be sent")
            return False
        if not wire.outbox:
            self._unflushed.append(wire)
            if not self._flush_is_due:
                self._flush_is_due = True
                asyncio.get_running_loop().call_soon(self._flush_later)
        wire.put(frame)
        stats = wire.stats
        stats.frames_out += 1
        stats.bytes_out += size
        return True

    def flush(self) -> None:
        """Hand what was sent to the sockets now: before the loop is blocked by a sync, and at the end
        of a round. Without it that happens in the next turn of the event loop.
        """
        wires, self._unflushed = self._unflushed, []
        for wire in wires:
            wire.flush()

    def _flush_later(self) -> None:
        self._flush_is_due = False
        self.flush()

    # The listening side.

    def _listen_again(self) -> None:
        if self._socket is not None and not self._is_closed:
            asyncio.get_running_loop().add_reader(self._socket, self._accept, self._socket)

    def _accept(self, listener: socket.socket) -> None:
        """Take one caller per turn of the loop, so that those before it get on."""
        # Not with loop.sock_accept: cancelled at the wrong moment it loses an open socket.
        try:
            connection, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the caller stays in the queue, and the listener stays.
            self._note_stranger(f"accept failed: {error}")
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(self._pace.redial_min_s, self._listen_again)
            return
        if len(self._welcoming) >= STRANGERS_MAX:
            # A peer needs a few milliseconds for its handshake. So whoever is here longest is no
            # peer, and a crowd of strangers cannot lock the peers out.
            next(iter(self._welcoming)).cancel("too many handshakes at a time")
        wire = _Inbound(self, _text(address), Listener(self._party, os.urandom(NONCE_BYTES)))
        task = asyncio.create_task(self._welcome(wire, connection))
        self._welcoming[task] = None
        task.add_done_callback(partial(self._welcomed, wire, connection))

    def _welcomed(
        self, wire: _Inbound, connection: socket.socket, task: asyncio.Task[None]
    ) -> None:
        self._welcoming.pop(task, None)
        if not wire.is_taken:
            connection.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _welcome(self, wire: _Inbound, connection: socket.socket) -> None:
        """See one caller through TLS and handshake, within the time there is for both."""
        loop = asyncio.get_running_loop()
        try:
            connection.setblocking(False)
            # asyncio sets this on sockets that it dialled or accepted itself only.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # From here on the event loop closes the socket, whatever happens.
            wire.is_taken = True
            async with asyncio.timeout(self._pace.handshake_s):
                await loop.connect_accepted_socket(
                    lambda: wire,
                    connection,
                    ssl=self._ssl_server,
                    ssl_handshake_timeout=self._pace.handshake_s if self._ssl_server else None,
                )
                await wire.ready.wait()
        except TimeoutError:
            wire.given_up("no handshake in time")
        except asyncio.CancelledError as cancelled:
            wire.given_up(str(cancelled) or "this node is closing")
            raise
        except OSError as error:
            wire.fail(f"TLS: {error}" if self._ssl_server else str(error))
        finally:
            if not wire.was_open:
                self._note_refusal(wire)

    def _adopt(self, wire: _Inbound, session: Session) -> None:
        """An inbound connection has become a peer's: it replaces the one before."""
        peer = session.peer
        old = self._inbound.get(peer)
        self._inbound[peer] = wire
        wire.stats.accepts += 1
        if old is not None:
            # What the old connection still holds is dropped: frames of before must not overtake.
            old.fail("replaced by a newer connection of the same peer")
        logger.info("peer %s connected to us from %s", peer, wire.address)
        # It lives: do not wait for the next dial.
        self._redial_now[peer].set()

    def _left(self, wire: _Inbound) -> None:
        session = wire.session
        if session is None:
            self._note_refusal(wire)
        elif self._inbound.get(session.peer) is wire:
            del self._inbound[session.peer]
            logger.info("peer %s is no longer connected to us: %s", session.peer, wire.error)

    def _note_refusal(self, wire: _Inbound) -> None:
        error = wire.error or "it went away"
        stats = self.stats.get(wire.refused_peer or "")
        if stats is None:
            self._note_stranger(f"{wire.address}: {error}")
        elif stats.last_refusal != error:
            stats.last_refusal = error
            logger.warning("peer %s at %s refused: %s", wire.refused_peer, wire.address, error)

    def _note_stranger(self, error: str) -> None:
        if self._is_closed:
            return
        strangers = self.strangers
        strangers.refused += 1
        # Anyone can connect: one line per power of two and no more.
        if strangers.refused & (strangers.refused - 1) == 0:
            logger.warning("connection %d refused: %s", strangers.refused, error)
        strangers.last_error = error

    # The dialling side.

    async def _keep_dialling(self, peer: str) -> None:
        pace, redial_now, wait_s = self._pace, self._redial_now[peer], self._pace.redial_min_s
        while True:
            redial_now.clear()
            wire = await self._dial(peer)
            if wire is not None:
                since = self._clock()
                await wire.lost.wait()
                if self._clock() - since >= pace.steady_s:
                    wait_s = pace.redial_min_s
                    continue
            # Half to the whole of the wait, so that nodes cut off together do not come together.
            pause_s = wait_s * (1 + self._rng.random()) / 2
            wait_s = min(wait_s * 2, pace.redial_max_s)
            if wire is not None:
                # Two nodes that let each other in and throw each other out must not spin.
                await asyncio.sleep(pause_s)
                continue
            try:
                async with asyncio.timeout(pause_s):
                    await redial_now.wait()
            except TimeoutError:
                pass

    async def _dial(self, peer: str) -> _Outbound | None:
        """One attempt: an established connection, or None and a note of why not."""
        host, port = self._dial_addresses[peer]
        wire = _Outbound(self, peer, Dialler(self._party, peer, os.urandom(NONCE_BYTES)))
        try:
            async with asyncio.timeout(self._pace.handshake_s):
                await asyncio.get_running_loop().create_connection(
                    lambda: wire,
                    host,
                    port,
                    ssl=self._ssl_client,
                    server_hostname=peer if self._ssl_client else None,
                )
                await wire.ready.wait()
        except TimeoutError:
            wire.given_up("no handshake in time")
        except asyncio.CancelledError:
            if wire.session is None:
                wire.given_up("this node is closing")
            raise
        except (OSError, UnicodeError) as error:
            wire.fail(f"{error}")
        if wire.session is None:
            self._note(peer, f"dialling {host}:{port}: {wire.error}")
            return None
        return wire

    def _established(self, wire: _Outbound) -> None:
        self._outbound[wire.peer] = wire
        wire.stats.connects += 1
        self._told[wire.peer].clear()
        logger.info("connected to peer %s", wire.peer)
        self._receiver.on_connected(wire.peer)

    def _lost(self, wire: _Outbound) -> None:
        if self._is_closed or self._outbound.get(wire.peer) is not wire:
            return
        del self._outbound[wire.peer]
        self._note(wire.peer, wire.error or "it closed the connection")
        self._receiver.on_disconnected(wire.peer)

    def _note(self, peer: str, error: str) -> None:
        self.stats[peer].last_error = error
        # A peer that is down is dialled every second, and behind a proxy it fails in turns in one
        # way and another: say each once until it is connected again.
        told = self._told[peer]
        if error not in told and len(told) < ERRORS_TOLD_MAX:
            told.add(error)
            logger.warning("not connected to peer %s: %s", peer, error)

    # Signs of life.

    async def _show_life(self) -> None:
        ping_s, silence_s = self._pace.ping_s, self._pace.silence_s
        before = self._clock()
        while True:
            await asyncio.sleep(ping_s)
            now = self._clock()
            if now - before > silence_s / 2:
                # It was this process that slept (or was stopped): what the others said meanwhile
                # is still to be read.
                for wire in (*self._outbound.values(), *self._inbound.values()):
                    wire.heard_s = now
            before = now
            for outbound in tuple(self._outbound.values()):
                if now - outbound.heard_s > silence_s:
                    outbound.fail(f"nothing heard for {silence_s:g} s")
                else:
                    outbound.show_life()
            for inbound in tuple(self._inbound.values()):
                if now - inbound.heard_s > 2 * silence_s:
                    inbound.fail(f"nothing heard for {2 * silence_s:g} s")
                elif inbound.has_heard:
                    inbound.has_heard = False
                    inbound.show_life()


class _Wire(asyncio.Protocol):
    """One connection: first a handshake, then frames."""

    def __init__(self, owner: Transport, side: Dialler | Listener):
        self.ready = asyncio.Event()
        """The handshake is over, or the connection: `session` tells which."""
        self.lost = asyncio.Event()
        self.session: Session | None = None
        self.error: str | None = None
        self.refused_peer: str | None = None
        """Who it proved to be before it was refused all the same."""
        self.is_dead = False
        self.heard_s = owner._clock()
        self.has_heard = False
        self.stats = PeerStats()
        self._owner = owner
        self._side = side
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._needed = _HEAD_BYTES
        self._sent = 0
        self._received = 0

    @property
    def was_open(self) -> bool:
        """It came as far as a connection, over TLS where there is TLS."""
        return self._transport is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._owner._open[self] = None
        if self.is_dead:
            self._transport.abort()
        elif isinstance(self._side, Dialler):
            self._transport.write(self._side.hello())

    def data_received(self, data: bytes) -> None:
        if self.is_dead:
            return
        if self.session is None:
            data = self._shake_hands(data)
            if not data or self.is_dead:
                return
        self.heard_s = self._owner._clock()
        self.has_heard = True
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._needed:
                return
            data = bytes(buffer)
            buffer.clear()
        self._take_frames(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.lost.is_set():
            return  # `given_up` said so already.
        if self.error is None:
            self.error = str(exc) if exc else "it closed the connection"
        self.is_dead = True
        self._buffer.clear()
        del self._owner._open[self]
        self.on_lost()
        self.ready.set()
        self.lost.set()

    def fail(self, error: str) -> None:
        """End the connection for a reason that will be told; the rest follows in a later turn."""
        if not self.is_dead:
            self.error = error
            self.is_dead = True
        self.abort()

    def abort(self) -> None:
        """End the connection without ceremony. Harmless when it has ended."""
        # asyncio's transports take no call once they have reported the loss.
        if self._transport is not None and not self.lost.is_set():
            self._transport.abort()

    def given_up(self, error: str) -> None:
        """The event loop was stopped in handing the connection over. If it was open already, uvloop
        (0.23) never tells of its end.
        """
        self.fail(error)
        if self.was_open:
            self.connection_lost(None)

    def close(self) -> None:
        """Close after what is buffered has left."""
        self.is_dead = True
        if self._transport is not None and not self.lost.is_set():
            self._transport.close()

    def show_life(self) -> None:
        """Send a frame without payload, unless the other side reads nothing or is busy reading."""
        assert self._transport is not None
        waiting = self._transport.get_write_buffer_size()
        if not self.is_dead and waiting < _UNREAD_BYTES_MAX:
            self._transport.write(self.seal(b""))

    def seal(self, payload: bytes) -> bytes:
        """Length and tag of the next frame."""
        tag = self._send_tag.copy()
        tag.update(self._sent.to_bytes(8, "big"))
        tag.update(payload)
        self._sent += 1
        return _HEAD(len(payload), tag.digest())

    def on_session(self, session: Session) -> None:
        raise NotImplementedError

    def on_frame(self, payload: bytes) -> None:
        raise NotImplementedError

    def on_lost(self) -> None:
        raise NotImplementedError

    def _shake_hands(self, data: bytes) -> bytes:
        """Give the handshake what arrived. Returns what follows it."""
        assert self._transport is not None
        try:
            answer = self._side.receive(data)
        except HandshakeRefused as refused:
            if refused.farewell:
                self._transport.write(refused.farewell)
            self.error = str(refused)
            self.refused_peer = refused.peer
            self.close()
            return b""
        if answer:
            self._transport.write(answer)
        session = self._side.session
        if session is None:
            return b""
        self.session = session
        self._send_tag = blake2b(key=session.send_key, digest_size=_TAG_BYTES)
        self._receive_tag = blake2b(key=session.receive_key, digest_size=_TAG_BYTES)
        self.heard_s = self._owner._clock()
        self.stats = self._owner.stats[session.peer]
        self.on_session(session)
        self.ready.set()
        return self._side.rest

    def _take_frames(self, data: bytes) -> None:
        """Hand over all whole frames at the start of `data`, keep the rest."""
        position, end = 0, len(data)
        longest, receive_tag = self._owner._frame_bytes_max, self._receive_tag
        needed = _HEAD_BYTES
        while end - position >= _HEAD_BYTES:
            size = int.from_bytes(data[position : position + 4], "big")
            if size > longest:
                self.fail(f"a frame of {size} bytes; {longest} are allowed")
                return
            start = position + _HEAD_BYTES
            if end - start < size:
                needed = _HEAD_BYTES + size
                break
            payload = data[start : start + size]
            tag = receive_tag.copy()
            tag.update(self._received.to_bytes(8, "big"))
            tag.update(payload)
            if not hmac.compare_digest(tag.digest(), data[position + 4 : start]):
                self.fail(f"the tag of frame {self._received} is wrong")
                return
            self._received += 1
            position = start + size
            if size:
                self.on_frame(payload)
                if self.is_dead:
                    return
        self._needed = needed
        if position < end:
            self._buffer += memoryview(data)[position:]


class _Inbound(_Wire):
    """A connection that somebody dialled to us: the peer's frames."""

    def __init__(self, owner: Transport, address: str, side: Listener):
        super().__init__(owner, side)
        self.address = address
        self.is_taken = False
        """The event loop has the socket."""

    def on_session(self, session: Session) -> None:
        self._peer = session.peer
        self._deliver = self._owner._receiver.on_frame
        self._owner._adopt(self, session)

    def on_frame(self, payload: bytes) -> None:
        stats = self.stats
        stats.frames_in += 1
        stats.bytes_in += len(payload)
        self._deliver(self._peer, payload)

    def on_lost(self) -> None:
        self._owner._left(self)


class _Outbound(_Wire):
    """A connection that we dialled: our frames, and the peer's signs of life."""

    def __init__(self, owner: Transport, peer: str, side: Dialler):
        super().__init__(owner, side)
        self.peer = peer
        self.outbox: list[bytes] = []
        self._outbox_bytes = 0

    def waiting_bytes(self) -> int:
        """Bytes that the socket has not taken yet."""
        assert self._transport is not None
        return self._outbox_bytes + self._transport.get_write_buffer_size()

    def put(self, payload: bytes) -> None:
        """Add a frame to the outbox."""
        self.outbox += (self.seal(payload), payload)
        self._outbox_bytes += _HEAD_BYTES + len(payload)

    def show_life(self) -> None:
        # Tags count: what was sealed before goes first.
        self.flush()
        super().show_life()

    def flush(self) -> None:
        """Write the outbox to the socket, in few calls and with few copies."""
        outbox, self.outbox = self.outbox, []
        size, self._outbox_bytes = self._outbox_bytes, 0
        transport = self._transport
        if not outbox or self.is_dead or transport is None:
            return
        if size < _ALONE_BYTES:
            transport.write(b"".join(outbox))
            return
        together: list[bytes] = []
        for part in outbox:
            if len(part) < _ALONE_BYTES:
                together.append(part)
                continue
            transport.write(b"".join(together))
            together.clear()
            transport.write(part)
        if together:
            transport.write(b"".join(together))

    def on_session(self, session: Session) -> None:
        self._owner._established(self)

    def on_frame(self, payload: bytes) -> None:
        self.fail("it sent a frame on our stream")

    def on_lost(self) -> None:
        self._owner._lost(self)


def _listening_socket(listen: tuple[str, int] | socket.socket) -> socket.socket:
    if isinstance(listen, socket.socket):
        listener = listen
        listener.listen(128)
    else:
        family = socket.AF_INET6 if ":" in listen[0] else socket.AF_INET
        listener = socket.create_server(listen, family=family, backlog=128)
    listener.setblocking(False)
    return listener


def _text(address: tuple[object, ...] | str) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else address
