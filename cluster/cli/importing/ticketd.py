"""ticketd's snapshot: `sessions.gob` and `resources.gob`.

RULE: bytes to values; what is asked of the cluster follows in `commands.py`, as tickets need the
sessions that are opened for them.

Each file is a gob stream of structs, one for each record. Sessions are nested in tickets and tickets
in sessions; of nested ones only the id counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from cluster.cli.importing.wishes import SourceError
from cluster.fronts.gob.decoder import Decoder
from cluster.fronts.gob.kinds import GobError
from cluster.fronts.gob.messages import Messages

FILE_BYTES_MAX: Final = 1 << 30
VALUES_MAX: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Session:
    """One session, as it stood."""

    id: str
    name: str
    src: str
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket, or the one ticket of a lock."""

    resource: str
    name: str
    data: bytes
    issuer: str | None
    claimant: str | None
    is_lock: bool


def sessions(data: bytes) -> list[Session]:
    """All sessions.

    Raises:
        SourceError: it is no such file.
    """
    return [
        Session(_text(one, "Id"), _text(one, "Name"), _text(one, "Src"), _typed(one, "Ttl", int, 0))
        for one in _structs(data)
    ]


def tickets(data: bytes) -> list[Ticket]:
    """All tickets of all resources, in order of their names.

    Raises:
        SourceError: it is no such file.
    """
    found = []
    for resource in _structs(data):
        name, is_lock = _text(resource, "Name"), _typed(resource, "IsLock", bool, False)
        held: dict[Any, Any] = _typed(resource, "Tickets", dict, {})
        for ticket_name, one in sorted(held.items()):
            data_of: bytes = _typed(one, "Data", bytes, b"")
            issuer, claimant = (_id_of(one, who) for who in ("Issuer", "Claimant"))
            found.append(Ticket(name, ticket_name, data_of, issuer, claimant, is_lock))
    return sorted(found, key=lambda one: (one.resource, one.name))


def _structs(data: bytes) -> list[dict[str, Any]]:
    decoder, found = Decoder(values_max=VALUES_MAX), []
    messages = Messages(bytes_max=FILE_BYTES_MAX)
    try:
        for message in messages.feed(data):
            assert isinstance(message, bytes)
            try:
                value = decoder.message(message)
            except GobError as error:
                if "duplicate type" not in str(error):
                    raise
                # Each record by an encoder of its own: its types begin anew.
                decoder = Decoder(values_max=VALUES_MAX)
                value = decoder.message(message)
            if value is not None:
                if not isinstance(value.value, dict):
                    raise SourceError("is not of ticketd: a record that is no struct")
                found.append(value.value)
    except GobError as error:
        raise SourceError(f"is not of ticketd: {error}") from None
    if not messages.is_between:
        raise SourceError("ends in the middle of a record")
    return found


def _typed(one: object, name: str, kind: type, default: Any) -> Any:
    if not isinstance(one, dict):
        raise SourceError("is not of ticketd: a record of another shape")
    value = one.get(name, default)
    if not isinstance(value, kind):
        raise SourceError(f"is not of ticketd: a {name} that is no {kind.__name__}")
    return value


def _text(one: object, name: str) -> str:
    text: str = _typed(one, name, str, "")
    return text


def _id_of(one: object, who: str) -> str | None:
    nested = _typed(one, who, dict, {})
    return _text(nested, "Id") or None
