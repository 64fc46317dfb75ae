"""Who lives in a data folder: cluster, members, a random name drawn once, how often it started.

It also knows the newest segment of the journal: a segment that was removed leaves no trace in the
others, and with it would go votes and entries that this node has promised.

RULE: durable before anything is said to anybody. The random name lets peers refuse a node that
comes back under its old name with an empty disk: its votes and acknowledgements are forgotten, and
counting it would break every promise. The boot number makes request ids of two lives distinct.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection

import msgspec

from cluster.replication.disk import Disk

_NAME = "identity"
_TEMPORARY = "identity.tmp"


class IdentityMismatch(Exception):
    """The data folder belongs to somebody else, or is damaged. The message says what to do."""


class _Stored(msgspec.Struct, forbid_unknown_fields=True):
    cluster: str
    node: str
    unique: str
    boot: int
    peers: dict[str, str]
    segment: int = 0
    members: list[str] = []


class Identity:
    """The identity of one start of one node.

    Attributes:
        unique: random name of this data folder.
        boot: rises by one with every start, durable before the start goes on.
    """

    def __init__(self, disk: Disk, stored: _Stored) -> None:
        self._disk = disk
        self._stored = stored

    @classmethod
    def open(cls, disk: Disk, *, cluster: str, node: str, fresh_unique: str) -> Identity:
        """Read the identity of a data folder, or found it, and count this start.

        Args:
            fresh_unique: random name to use if the folder is new.
        Raises:
            IdentityMismatch: another cluster's or node's folder, or one without its identity.
        """
        names = disk.names()
        if _NAME in names:
            stored = _parse(disk.read(_NAME))
            for what, ours, theirs in (
                ("cluster", cluster, stored.cluster),
                ("node", node, stored.node),
            ):
                if ours != theirs:
                    raise IdentityMismatch(
                        f'the data folder belongs to {what} "{theirs}", this is "{ours}": '
                        "use its own folder for each node"
                    )
        elif any(name.endswith((".seg", ".snap")) for name in names):
            raise IdentityMismatch(
                "the data folder holds a journal but no identity: restore the missing file, or "
                "replace this node"
            )
        else:
            stored = _Stored(cluster, node, fresh_unique, 0, {})
        stored.boot += 1
        identity = cls(disk, stored)
        identity._store()
        return identity

    @property
    def cluster(self) -> str:
        return self._stored.cluster

    @property
    def node(self) -> str:
        return self._stored.node

    @property
    def unique(self) -> str:
        return self._stored.unique

    @property
    def boot(self) -> int:
        return self._stored.boot

    @property
    def segment(self) -> int:
        """The newest segment of the journal that was written to: without it nothing may start."""
        return self._stored.segment

    def learn_segment(self, number: int) -> None:
        """Remember a new segment, durably, before anything relies on what is in it."""
        self._stored.segment = number
        self._store()

    def settle_members(self, members: Collection[str]) -> None:
        """Remember who the members are, ourselves among them; from now on they stay the same.

        A majority of one set of members need not meet a majority of another: what one of them had
        promised would be unknown to the other.

        Raises:
            IdentityMismatch: they were others before.
        """
        named, known = sorted(members), self._stored.members
        if not known:
            self._stored.members = named
            self._store()
        elif known != named:
            raise IdentityMismatch(
                f"the data folder belongs to a cluster of {', '.join(known)}, and the settings name "
                f"{', '.join(named)}: the members of a cluster are those it was made with; set "
                '"peers" as it was'
            )

    def known_peer(self, peer: str) -> str | None:
        """The random name that `peer` had when we first met; None if we never did."""
        return self._stored.peers.get(peer)

    def learn_peer(self, peer: str, unique: str) -> None:
        """Remember a peer's random name, durably: from now on no other is accepted."""
        if self._stored.peers.get(peer) != unique:
            self._stored.peers[peer] = unique
            self._store()

    def _store(self) -> None:
        disk = self._disk
        body = msgspec.json.encode(self._stored)
        if _TEMPORARY in disk.names():
            disk.unlink(_TEMPORARY)
        file = disk.create(_TEMPORARY)
        file.append(b"%08x %s\n" % (zlib.crc32(body), body))
        file.sync()
        file.close()
        disk.rename(_TEMPORARY, _NAME)
        disk.sync_directory()


def _parse(data: bytes) -> _Stored:
    cure = "restore it from a copy, or replace this node"
    checksum, _, body = data.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        raise IdentityMismatch(f"the identity file is damaged: {cure}")
    try:
        return msgspec.json.decode(body, type=_Stored)
    except msgspec.MsgspecError as error:
        raise IdentityMismatch(f"the identity file cannot be read ({error}): {cure}") from None
