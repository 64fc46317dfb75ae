"""The words of histories, as requests: which verb is sent where.

RULE: a table. A call's fields are those of its body as the API names them, durations as integers in
`*_ms` (the body has them without the ending: `wait_ms` is sent as `wait`); those that its path names
go there, and so does `key`, the name of the thing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from jepsen.clients import PATIENCE_S, Ask, Client, Reply


class Route(NamedTuple):
    """Where a verb goes.

    Attributes:
        path: below `/v1/`, with `{key}` and `{field}` where values stand.
        is_read: it changes nothing.
        has_key: it is sent with an Idempotency-Key, so that it may be repeated.
    """

    method: str
    path: str
    is_read: bool = False
    has_key: bool = True


def _read(path: str) -> Route:
    return Route("GET", path, is_read=True, has_key=False)


ROUTES: Final[Mapping[str, Route]] = {
    "session.open": Route("POST", "sessions"),
    # Each renewal counts from its own sending: the answer of an earlier one would promise too much.
    "session.keepalive": Route("POST", "sessions/{key}/keepalive", has_key=False),
    "session.keepalive_many": Route("POST", "sessions/keepalive", has_key=False),
    "session.close": Route("DELETE", "sessions/{key}"),
    "session.read": _read("sessions/{key}"),
    "lock.acquire": Route("POST", "locks/{key}/acquire"),
    "lock.release": Route("POST", "locks/{key}/release"),
    "lock.check": Route("POST", "locks/{key}/check", is_read=True, has_key=False),
    "lock.read": _read("locks/{key}"),
    "lock.acquire_many": Route("POST", "locks/acquire"),
    "lock.release_many": Route("POST", "locks/release"),
    "semaphore.set": Route("PUT", "semaphores/{key}"),
    "semaphore.acquire": Route("POST", "semaphores/{key}/acquire"),
    "semaphore.release": Route("POST", "semaphores/{key}/release"),
    "semaphore.read": _read("semaphores/{key}"),
    "ticket.issue": Route("POST", "resources/{key}/tickets"),
    "ticket.revoke": Route("DELETE", "resources/{key}/tickets/{ticket}?session={session}"),
    "ticket.claim": Route("POST", "resources/{key}/claim"),
    "ticket.release": Route("POST", "resources/{key}/release"),
    "ticket.read": _read("resources/{key}"),
    "fifo.make": Route("POST", "fifos"),
    "fifo.join": Route("POST", "fifos/{key}/tickets"),
    "fifo.read": _read("fifos/{key}/tickets/{ticket}"),
    "fifo.wait": Route("POST", "fifos/{key}/tickets/{ticket}/wait"),
    "fifo.done": Route("POST", "fifos/{key}/tickets/{ticket}/done"),
    "fifo.leave": Route("DELETE", "fifos/{key}/tickets/{ticket}"),
    "room.set": Route("PUT", "rooms/{key}"),
    "room.join": Route("POST", "rooms/{key}/join"),
    "room.status": _read("rooms/{key}/status"),
    "room.read": _read("rooms/{key}"),
    "job.put": Route("POST", "tubes/{key}/jobs"),
    "job.reserve": Route("POST", "tubes/{key}/reserve"),
    "job.touch": Route("POST", "jobs/{job}/touch"),
    "job.release": Route("POST", "jobs/{job}/release"),
    "job.bury": Route("POST", "jobs/{job}/bury"),
    "job.kick": Route("POST", "jobs/{job}/kick"),
    "job.kick_tube": Route("POST", "tubes/{key}/kick"),
    "job.delete": Route("POST", "jobs/{job}/delete"),
    "job.cancel": Route("DELETE", "jobs/{job}"),
    "job.read": _read("jobs/{job}"),
    "task.put": Route("PUT", "pools/{key}/tasks"),
    "task.work": Route("POST", "pools/{key}/work"),
    "task.finish": Route("POST", "pools/{key}/finish"),
    "task.release": Route("POST", "pools/{key}/release"),
    "task.leave": Route("POST", "pools/{key}/leave"),
    "task.remove": Route("DELETE", "pools/{key}/tasks/{id}"),
    "task.read": _read("pools/{key}"),
}

_UNTOLD: Final[Mapping[str, tuple[str, ...]]] = {
    # A signed pass, which is no fencing token, and as good as a password.
    "room.join": ("token",),
    # How many wait on this one ticket; elsewhere the word means a list of who waits.
    "fifo.read": ("waiters",),
}

_SLOT: Final = re.compile(r"\{(\w+)\}")


def request(
    f: str,
    key: str = "",
    fields: Mapping[str, Any] | None = None,
    *,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Ask:
    """What is sent for a verb.

    Args:
        key: name of the thing.
        fields: of the request, as a history has them.
        request_id: the Idempotency-Key; None for none.
        headers: further ones.
    """
    route = ROUTES[f]
    given = {**(fields or {}), "key": key}
    path = "/v1/" + _SLOT.sub(lambda slot: quote(str(given[slot[1]]), safe=""), route.path)
    used = {"key", *_SLOT.findall(route.path)}
    body = _in_api({name: value for name, value in given.items() if name not in used})
    if f == "fifo.make":
        body["name"] = key
    if route.method == "GET":
        query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in body.items())
        path, body = f"{path}?{query}" if query else path, {}
    return Ask(
        method=route.method,
        path=path,
        body=body if route.method in {"POST", "PUT"} and not _is_bare(f) else None,
        key=request_id,
        wait_ms=int(given.get("wait_ms") or 0),
        headers=headers or {},
        is_read=route.is_read,
    )


async def call(
    client: Client,
    f: str,
    key: str = "",
    /,
    *,
    retry_s: float = 0.0,
    patience_s: float = PATIENCE_S,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
    shown: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Reply:
    """Send a verb as one recorded operation.

    Args:
        client: who asks.
        f: the verb.
        key: name of the thing.
        retry_s, patience_s: see `Client.do`.
        request_id: the Idempotency-Key; a fresh one is drawn where the verb wants one.
        headers: further ones.
        shown: what the history is to say besides of the request.
        fields: of the request.
    """
    if request_id is None and ROUTES[f].has_key:
        request_id = client.new_key()
    ask = request(f, key, fields, request_id=request_id, headers=headers)
    return await client.do(
        f,
        key,
        {**fields, **(shown or {})},
        ask,
        retry_s=retry_s,
        patience_s=patience_s,
        untold=_UNTOLD.get(f, ()),
    )


def _is_bare(f: str) -> bool:
    return f in {"session.keepalive", "room.join", "job.kick"}


def _in_api(value: Any) -> Any:
    """Durations by the API's names, at any depth."""
    if isinstance(value, Mapping):
        return {name.removesuffix("_ms"): _in_api(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_in_api(part) for part in value]
    return value
