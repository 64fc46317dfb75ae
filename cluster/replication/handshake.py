"""The first words on a peer connection: who is there, and do both know the cluster's secret?

RULE: no socket, no clock, no dice: bytes in, bytes out, nonces are given. Nothing is believed, and
no CBOR is read, before the other side has proved that it knows the secret.

    dialler                                listener
      HELLO      version, nonce      ->
                                     <-    CHALLENGE  version, nonce
      PROOF      who, whom, MAC      ->               (checks everything, remembers the identity)
                                     <-    WELCOME    who, MAC
      (checks everything)

The dialler proves itself first: a stranger who dials learns neither a name nor a MAC. Every MAC
covers all bytes said before it, so nothing can be cut, moved or replayed, and the two roles use
different labels, so nothing can be reflected. At any point a side may say REFUSED with one byte of
reason instead; that byte is not authenticated and serves the log only.

Each direction then has its own key, derived from the secret, both nonces and the whole exchange.
This authenticates; it does not hide. Who needs secrecy on the wire gives certificates (TLS).

Source: HKDF (RFC 5869) for the shape of the derivation; HMAC-SHA-256 throughout.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NoReturn

VERSION = 1
NONCE_BYTES = 32
HANDSHAKE_BYTES_MAX = 1024
"""All one side may say before it is known."""
FIELD_BYTES_MAX = 128
"""Longest cluster id, node name or identity, in UTF-8."""

# The ten bytes of a head, and the version that follows in HELLO, are the same in all versions.
_MAGIC = b"coterie"
_HEAD = struct.Struct(">7sBH")
_VERSION_AND_NONCE = struct.Struct(f">H{NONCE_BYTES}s")
_BOOT = struct.Struct(">Q")
_MAC_BYTES = 32

_HELLO, _CHALLENGE, _PROOF, _WELCOME, _REFUSED = range(1, 6)
_NAMES = {1: "HELLO", 2: "CHALLENGE", 3: "PROOF", 4: "WELCOME", 5: "REFUSED"}


class Reason(enum.IntEnum):
    """Why a handshake ended; the number is what REFUSED carries."""

    MALFORMED = 1
    VERSION = 2
    SECRET = 3
    CLUSTER = 4
    WRONG_NODE = 5
    ITSELF = 6
    UNKNOWN_NODE = 7
    IDENTITY = 8
    START = 9


class HandshakeRefused(Exception):
    """This connection is not to be used.

    Attributes:
        reason: the kind of refusal.
        peer: name the other side proved to have, None when it proved nothing.
        farewell: bytes to send before closing (empty when there is nothing to say).
    """

    def __init__(self, reason: Reason, detail: str, *, peer: str | None, farewell: bytes = b""):
        super().__init__(detail)
        self.reason = reason
        self.peer = peer
        self.farewell = farewell


@dataclass(frozen=True, slots=True)
class Party:
    """This node, as it introduces itself, and what it knows of the others.

    Attributes:
        cluster: id of the cluster; both sides must have the same.
        node: name of this node.
        boot: number of this start of the node.
        identity: random text drawn when this node's disk was first used.
        secret: the cluster's secret, never empty.
        peers: names of the other nodes.
        known_identity: identity a peer had when it was first met, or None.
        learn_identity: remember the identity of a peer met for the first time. Called at most once
            per handshake and only after the peer has proved that it knows the secret.
        starts: number of the latest start that was met of each peer, kept here.
    """

    cluster: str
    node: str
    boot: int
    identity: str
    secret: bytes = field(repr=False)
    peers: Collection[str]
    known_identity: Callable[[str], str | None] = field(repr=False)
    learn_identity: Callable[[str, str], None] = field(repr=False)
    starts: dict[str, int] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Refuse values that no handshake could carry.

        Raises:
            ValueError: an empty secret, an empty or too long name, a boot number out of range.
        """
        if not self.secret:
            raise ValueError("peers need a cluster secret")
        if not 0 <= self.boot < 2**64:
            raise ValueError(f"boot number {self.boot} does not fit 64 bits")
        for what, text in (
            ("cluster id", self.cluster),
            ("node name", self.node),
            ("identity", self.identity),
            *(("peer name", peer) for peer in self.peers),
        ):
            if not 0 < len(text.encode()) <= FIELD_BYTES_MAX:
                raise ValueError(f"{what} {text!r} must take 1 to {FIELD_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True)
class Session:
    """What a finished handshake leaves: who is there, and the key of each direction."""

    peer: str
    boot: int
    identity: str
    send_key: bytes = field(repr=False)
    receive_key: bytes = field(repr=False)


class _Side:
    """What both sides share: taking whole messages out of the stream, and the transcript."""

    def __init__(self, party: Party, nonce: bytes):
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        self.session: Session | None = None
        """Set by the call of `receive` that finishes the handshake."""
        self.rest = b""
        """What followed the last byte of the handshake."""
        self._party = party
        self._nonce = nonce
        self._buffer = b""
        self._received = 0
        self._said = b""
        self._peer: str | None = None
        self._expected = 0

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the other side.

        Not to be called again once `session` is set or after a refusal.

        Returns:
            What to send now, often nothing.

        Raises:
            HandshakeRefused: close the connection, after sending its farewell.
        """
        self._buffer += data
        answers = []
        while self.session is None:
            message = self._next_message()
            if message is None:
                break
            answers.append(self._take(*message))
        if self.session is not None:
            self.rest, self._buffer = self._buffer, b""
        return b"".join(answers)

    def _take(self, kind: int, body: bytes, whole: bytes) -> bytes:
        raise NotImplementedError

    def _next_message(self) -> tuple[int, bytes, bytes] | None:
        buffer = self._buffer
        # Strangers are told from the first byte, not when a whole head has arrived.
        if not _MAGIC.startswith(buffer[: len(_MAGIC)]):
            self._refuse(Reason.MALFORMED, "it does not speak our protocol", silent=True)
        if len(buffer) < _HEAD.size:
            return None
        _, kind, size = _HEAD.unpack_from(buffer)
        end = _HEAD.size + size
        if self._received + end > HANDSHAKE_BYTES_MAX:
            self._refuse(Reason.MALFORMED, f"more than {HANDSHAKE_BYTES_MAX} bytes of handshake")
        if kind not in (self._expected, _REFUSED):
            self._refuse(
                Reason.MALFORMED,
                f"{_NAMES.get(kind, kind)} where {_NAMES[self._expected]} was due",
            )
        if len(buffer) < end:
            return None
        self._received += end
        self._buffer = buffer[end:]
        body = buffer[_HEAD.size : end]
        if kind == _REFUSED:
            self._refused(body)
        return kind, body, buffer[:end]

    def _refused(self, body: bytes) -> NoReturn:
        try:
            reason = Reason(body[0])
        except (IndexError, ValueError):
            self._refuse(Reason.MALFORMED, "a refusal without a known reason", silent=True)
        raise HandshakeRefused(
            reason, f"the other side refused us: {_TOLD[reason]}", peer=self._peer
        )

    def _refuse(self, reason: Reason, detail: str, *, silent: bool = False) -> NoReturn:
        # A dialler that got its WELCOME has been let in: only frames may follow.
        silent = silent or self._expected == _WELCOME
        farewell = b"" if silent else _message(_REFUSED, bytes((reason,)))
        raise HandshakeRefused(reason, detail, peer=self._peer, farewell=farewell)

    def _unpack_nonce(self, body: bytes) -> bytes:
        # The version comes first and alone decides: another version may say more, or less.
        if len(body) < 2:
            self._refuse(Reason.MALFORMED, "no protocol version")
        version = int.from_bytes(body[:2], "big")
        if version != VERSION:
            self._refuse(
                Reason.VERSION, f"it speaks version {version} of the peer protocol, we {VERSION}"
            )
        if len(body) != _VERSION_AND_NONCE.size:
            self._refuse(Reason.MALFORMED, f"a nonce in {len(body)} bytes")
        nonce: bytes = _VERSION_AND_NONCE.unpack(body)[1]
        return nonce

    def _unpack_fields(self, body: bytes, texts: int) -> tuple[list[str], int, bytes]:
        """Texts, the boot number and the MAC: `body` holds exactly these."""
        values, position = [], 0
        try:
            for _ in range(texts):
                end = position + 1 + body[position]
                values.append(body[position + 1 : end].decode())
                position = end
        except (IndexError, UnicodeDecodeError):
            self._refuse(Reason.MALFORMED, "fields that do not decode")
        if len(body) - position != _BOOT.size + _MAC_BYTES:
            self._refuse(Reason.MALFORMED, "fields of the wrong length")
        (boot,) = _BOOT.unpack_from(body, position)
        return values, boot, body[-_MAC_BYTES:]

    def _check_mac(self, node: str, mac: bytes, expected: bytes) -> None:
        if not hmac.compare_digest(mac, expected):
            self._refuse(
                Reason.SECRET, f"it calls itself {node!r} and does not know our cluster secret"
            )

    def _check_identity(self, peer: str, identity: str, boot: int) -> None:
        """Meet a peer again, or for the first time."""
        known = self._party.known_identity(peer)
        if known is None:
            self._party.learn_identity(peer, identity)
        elif known != identity:
            # A node that came back with an empty or foreign disk has forgotten votes and
            # acknowledgements that the cluster counts on.
            self._refuse(
                Reason.IDENTITY,
                f"{peer} has the identity {identity}, but {known} is the one known here: was its"
                f" data directory wiped or swapped? An operator must replace the node",
            )
        latest = self._party.starts.get(peer, 0)
        if boot < latest:
            # What it promised in its later starts it does not know.
            self._refuse(
                Reason.START,
                f"{peer} is in an earlier start than one that was met here: was its data directory"
                " set back, or does a copy of it run twice?",
            )
        self._party.starts[peer] = boot


class Dialler(_Side):
    """The side that opened the connection, and wants to reach `target` and nobody else."""

    def __init__(self, party: Party, target: str, nonce: bytes):
        super().__init__(party, nonce)
        self._target = target
        self._expected = _CHALLENGE
        self._prk = b""

    def hello(self) -> bytes:
        """The first bytes to send, as soon as the connection is open."""
        self._said = _message(_HELLO, _VERSION_AND_NONCE.pack(VERSION, self._nonce))
        return self._said

    def _take(self, kind: int, body: bytes, whole: bytes) -> bytes:
        if kind == _CHALLENGE:
            return self._prove(body, whole)
        self._enter(body, whole)
        return b""

    def _prove(self, body: bytes, whole: bytes) -> bytes:
        party = self._party
        self._prk = _extract(self._nonce + self._unpack_nonce(body), party.secret)
        self._said += whole
        fields = _fields((party.cluster, party.node, self._target, party.identity), party.boot)
        mac = _mac(self._prk, b"coterie dialler", self._said + fields)
        proof = _message(_PROOF, fields + mac)
        self._said += proof
        self._expected = _WELCOME
        return proof

    def _enter(self, body: bytes, whole: bytes) -> None:
        (node, identity), boot, mac = self._unpack_fields(body, 2)
        self._check_mac(
            node, mac, _mac(self._prk, b"coterie listener", self._said + body[:-_MAC_BYTES])
        )
        self._peer = node
        if node != self._target:
            self._refuse(Reason.WRONG_NODE, f"dialled {self._target}, reached {node}")
        self._check_identity(node, identity, boot)
        forth, back = _keys(self._prk, self._said + whole)
        self.session = Session(node, boot, identity, send_key=forth, receive_key=back)


class Listener(_Side):
    """The side that was dialled; it learns who is there from the proof and from nothing else."""

    def __init__(self, party: Party, nonce: bytes):
        super().__init__(party, nonce)
        self._expected = _HELLO
        self._prk = b""

    def receive(self, data: bytes) -> bytes:
        """As `_Side.receive`. The dialler waits for WELCOME, so nothing may follow its proof."""
        answer = super().receive(data)
        if self.rest:
            self.session = None
            self._refuse(Reason.MALFORMED, "bytes before it was let in")
        return answer

    def _take(self, kind: int, body: bytes, whole: bytes) -> bytes:
        self._said += whole
        if kind == _HELLO:
            return self._challenge(body)
        return self._welcome(body)

    def _challenge(self, body: bytes) -> bytes:
        self._prk = _extract(self._unpack_nonce(body) + self._nonce, self._party.secret)
        challenge = _message(_CHALLENGE, _VERSION_AND_NONCE.pack(VERSION, self._nonce))
        self._said += challenge
        self._expected = _PROOF
        return challenge

    def _welcome(self, body: bytes) -> bytes:
        party = self._party
        (cluster, node, target, identity), boot, mac = self._unpack_fields(body, 4)
        # What was signed: all messages before this one, and its fields without head and MAC.
        before = self._said[: -len(body) - _HEAD.size] + body[:-_MAC_BYTES]
        self._check_mac(node, mac, _mac(self._prk, b"coterie dialler", before))
        self._peer = node
        if cluster != party.cluster:
            self._refuse(
                Reason.CLUSTER, f"{node} is of cluster {cluster!r}, this is {party.cluster!r}"
            )
        if node == party.node:
            self._refuse(Reason.ITSELF, f"{node} is the name of this very node")
        if target != party.node:
            self._refuse(Reason.WRONG_NODE, f"{node} dialled {target}, this is {party.node}")
        if node not in party.peers:
            self._refuse(Reason.UNKNOWN_NODE, f"{node!r} is no member of this cluster")
        if not identity:
            self._refuse(Reason.MALFORMED, f"{node} gave no identity")
        self._check_identity(node, identity, boot)
        fields = _fields((party.node, party.identity), party.boot)
        welcome = _message(
            _WELCOME, fields + _mac(self._prk, b"coterie listener", self._said + fields)
        )
        forth, back = _keys(self._prk, self._said + welcome)
        self.session = Session(node, boot, identity, send_key=back, receive_key=forth)
        return welcome


# What a refusal means to the one who was refused.
_TOLD = {
    Reason.MALFORMED: "it could not read our handshake",
    Reason.VERSION: "it speaks another version of the peer protocol",
    Reason.SECRET: "its cluster secret is not ours",
    Reason.CLUSTER: "it belongs to another cluster",
    Reason.WRONG_NODE: "it is not the node we dialled (is the address of another peer?)",
    Reason.ITSELF: "it has our own name",
    Reason.UNKNOWN_NODE: "we are no member of its cluster",
    Reason.IDENTITY: (
        "it knew another disk under our name: our data directory was wiped or swapped,"
        " and an operator must replace this node"
    ),
    Reason.START: (
        "it met a later start of this node: our data directory was set back, or a copy of it runs"
        " elsewhere"
    ),
}


def _message(kind: int, body: bytes) -> bytes:
    return _HEAD.pack(_MAGIC, kind, len(body)) + body


def _fields(texts: tuple[str, ...], boot: int) -> bytes:
    parts = []
    for text in texts:
        data = text.encode()
        parts.append(bytes((len(data),)) + data)
    return b"".join(parts) + _BOOT.pack(boot)


def _extract(nonces: bytes, secret: bytes) -> bytes:
    return hmac.digest(nonces, secret, "sha256")


def _mac(prk: bytes, label: bytes, said: bytes) -> bytes:
    return hmac.digest(prk, label + b"\0" + said, "sha256")


def _keys(prk: bytes, said: bytes) -> tuple[bytes, bytes]:
    """Key of dialler to listener, key of listener to dialler."""
    digest = hashlib.sha256(said).digest()
    forth = hmac.digest(prk, b"coterie frames forth\0" + digest, "sha256")
    back = hmac.digest(prk, b"coterie frames back\0" + digest, "sha256")
    return forth, back
