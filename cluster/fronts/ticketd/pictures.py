"""ticketd's JSON documents: sessions, tickets and resources, from the machine's state.

RULE: values out, in ticketd's order of fields; reads the state and changes nothing.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from cluster.fronts.gohttp.documents import go_map
from cluster.machine.machine import Machine
from cluster.machine.outcome.tickets import TicketClaimed, TicketInfo
from cluster.machine.sessions import Session
from cluster.machine.tickets.resources import CLAIMED, ISSUED, KIND, Resource

Document = dict[str, Any]

NO_TICKET: Final[Document] = {
    "Name": "",
    "ResourceName": "",
    "Data": None,
    "Issuer": None,
    "Claimant": None,
}


class Meta(NamedTuple):
    """What a session of ours says of itself.

    Attributes:
        src: the client's address and port.
        ttl: as it was given, ms; may be zero or less.
        name: as it was given.
    """

    src: str
    ttl: int
    name: str

    def encode(self) -> bytes:
        """As a session's `meta`: a JSON object, as the native API's clients write."""
        return msgspec.json.encode({"ticketd": self._asdict()})


class _Own(msgspec.Struct, frozen=True):
    src: str
    ttl: int
    name: str


class _Meta(msgspec.Struct, frozen=True):
    ticketd: _Own


def session(machine: Machine, found: Session) -> Document:
    """A session with its tickets."""
    issued: list[Document] = []
    claimed: list[Document] = []
    for kind, name, part in found.owned:
        if kind != KIND:
            continue
        into, wanted = (
            (issued, part.removeprefix(ISSUED))
            if part.startswith(ISSUED)
            else (claimed, part.removeprefix(CLAIMED))
        )
        info = machine.tickets.ticket(name, wanted, machine.now_ms)
        if info is not None:
            into.append(ticket(machine, info))
    return {**_bare(found), "Tickets": claimed, "Issuances": issued}


def claim(machine: Machine, outcome: TicketClaimed) -> Document:
    """A ticket as it was claimed, whatever has become of it since."""
    return {
        "Name": outcome.ticket,
        "ResourceName": outcome.name,
        "Data": outcome.data,
        "Issuer": _somebody(machine, outcome.issuer),
        "Claimant": _somebody(machine, outcome.session),
    }


def ticket(machine: Machine, info: TicketInfo) -> Document:
    """A ticket, with those who issued it and hold it."""
    return {
        "Name": info.ticket,
        "ResourceName": info.name,
        "Data": info.data,
        "Issuer": _somebody(machine, info.issuer),
        "Claimant": None if info.claim is None else _somebody(machine, info.claim[0]),
    }


def resource(machine: Machine, name: str, found: Resource) -> Document:
    """A resource with all its tickets."""
    tickets: dict[str, Document] = {}
    for one in found.tickets:
        info = machine.tickets.ticket(name, one, machine.now_ms)
        if info is not None:
            tickets[one] = ticket(machine, info)
    return {"Name": name, "IsLock": found.is_lock, "Tickets": go_map(tickets)}


def belongs(found: Session) -> bool:
    """A dump shows it: it was opened here, or has tickets."""
    return found.sweep_ms > 0 or any(thing[0] == KIND for thing in found.owned)


def _somebody(machine: Machine, session_id: str) -> Document | None:
    """A session as it is shown inside of a ticket; None for one that is over."""
    found = machine.sessions.get(session_id)
    return None if found is None else {**_bare(found), "Tickets": [], "Issuances": []}


def _bare(found: Session) -> Document:
    own = Meta("", found.ttl_ms, found.name or "")
    if found.sweep_ms and found.meta is not None:
        own = _meta(found.meta) or own
    return {"Name": own.name, "Id": found.id, "Src": own.src, "Ttl": own.ttl}


def _meta(data: bytes) -> Meta | None:
    try:
        found = msgspec.json.decode(data, type=_Meta).ticketd
    except msgspec.MsgspecError:
        return None
    return Meta(found.src, found.ttl, found.name)
