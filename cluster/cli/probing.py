"""Asking a peer address who listens there, without becoming anybody's peer.

RULE: the first words of a peer connection (`replication.handshake`), said without an identity. The
other side checks secret, cluster, its own name and our membership before it misses that, and
remembers nothing: so its refusal tells what it found, and a running node is not disturbed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import ssl
from dataclasses import dataclass

from cluster.node.config import Address, Config
from cluster.replication.handshake import NONCE_BYTES, Dialler, HandshakeRefused, Party, Reason

WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class _Asker(Party):
    """A party without an identity, as no node is."""

    def __post_init__(self) -> None:
        """Nothing is refused here: the other side does that, and says why."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a probe.

    Attributes:
        is_well: the peer would let this node in, as far as can be told without its identity.
        what: for people.
        cure: what to do where it is not well.
    """

    is_well: bool
    what: str
    cure: str = ""


_CURES = {
    Reason.SECRET: "give both nodes the same secret (secret_file, COTERIE_SECRET)",
    Reason.CLUSTER: "give both nodes the same cluster name, or correct the address",
    Reason.WRONG_NODE: "correct the addresses in peers: another node listens there",
    Reason.ITSELF: "give each node a name of its own, and check the address in peers",
    Reason.UNKNOWN_NODE: "name this node in the peers of that one, and start it again",
    Reason.VERSION: "bring both nodes to versions that follow one another",
}


async def probe(config: Config, peer: str, address: Address) -> Heard:
    """Dial a peer and say the first words.

    Args:
        config: of this node: its secret, its name, its certificates.
    """
    asker = _Asker(
        cluster=config.cluster,
        node=config.node,
        boot=0,
        identity="",
        secret=config.secret.encode(),
        peers=tuple(config.peers),
        known_identity=lambda _peer: None,
        learn_identity=lambda _peer, _identity: None,
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            dialler = Dialler(asker, peer, secrets.token_bytes(NONCE_BYTES))
            return await _talk(dialler, config, peer, address)
    except TimeoutError:
        return Heard(False, f"{address} says nothing", "is it a node? is a firewall in between?")
    except ssl.SSLError as error:
        why = error.reason or str(error)
        return Heard(False, f"{address}: TLS fails: {why}", "check tls_cert, tls_key and tls_ca")
    except OSError as error:
        return Heard(
            False,
            f"{address} cannot be reached: {_said(error)}",
            f"is {peer} running? is the address right, and the port open?",
        )


def _said(error: OSError) -> str:
    """What the system says, without asyncio's frame around it."""
    # Those below 0 are of name resolution, which has words of its own.
    number = error.errno or 0
    return os.strerror(number).lower() if number > 0 else error.strerror or str(error)


async def _talk(dialler: Dialler, config: Config, peer: str, address: Address) -> Heard:
    context = _tls(config)
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=context, server_hostname=peer if context else None
    )
    has_proved = False
    try:
        writer.write(dialler.hello())
        while dialler.session is None:
            data = await reader.read(1024)
            if not data:
                return Heard(False, f"{address} hangs up", "is it a node, and does it speak TLS?")
            proof = dialler.receive(data)
            has_proved = has_proved or bool(proof)
            writer.write(proof)
        return Heard(True, f"{address} lets this node in")
    except HandshakeRefused as refusal:
        # It read all there was to check, and then found no identity.
        if refusal.reason is Reason.MALFORMED and has_proved:
            return Heard(True, f"{address} knows the secret, the cluster and this node")
        cure = _CURES.get(refusal.reason, "look into the log of that node")
        return Heard(False, f"{address}: {refusal}", cure)
    finally:
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


def _tls(config: Config) -> ssl.SSLContext | None:
    """As the node itself dials: checked against the peer's name."""
    if not config.has_tls:
        return None
    assert config.tls_cert is not None
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=config.tls_ca)
    context.load_cert_chain(config.tls_cert, config.tls_key)
    return context
