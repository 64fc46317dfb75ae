"""How each contender spells the same five wishes over HTTP with JSON.

RULE: bytes of requests and what is read from answers; knows no connection and no clock.

Both are asked for the same thing: a lease with a time to live, a lock bound to it, the lock given
back by the proof of ownership that the grant gave (Coterie's token, etcd's key).
"""

from __future__ import annotations

import base64
import json
import re
from typing import Protocol

from benchmarks.exchange import request

_TOKEN = re.compile(rb'"token": ?(\d+)')
_SESSION = re.compile(rb'"session": ?"([^"]+)"')
_LEASE = re.compile(rb'"ID":"?(\d+)')
_KEY = re.compile(rb'"key":"([^"]+)"')
_LEASE_ALIVE = re.compile(rb'"TTL":"?[1-9]')


class Dialect(Protocol):
    """Requests are whole HTTP messages; `session` and `grant` are as the contender spells them."""

    def open(self, ttl_ms: int) -> bytes:
        """Ask for a lease."""

    def opened(self, status: int, body: bytes) -> str | None:
        """Return the lease, or None where it was refused."""

    def renew(self, session: str) -> bytes:
        """Keep the lease alive."""

    def renewed(self, status: int, body: bytes) -> bool:
        """Tell whether it lives on."""

    def close(self, session: str) -> bytes:
        """Give the lease back, and all that hangs on it."""

    def acquire(self, session: str, name: str) -> bytes:
        """Ask for the lock."""

    def granted(self, status: int, body: bytes) -> str | None:
        """Return the proof of ownership, or None where the lock was refused."""

    def release(self, session: str, name: str, grant: str) -> bytes:
        """Give the lock back."""

    def released(self, status: int, body: bytes) -> bool:
        """Tell whether it was."""


class CoterieDialect:
    """Coterie's native API, version 1."""

    def open(self, ttl_ms: int) -> bytes:
        return request("POST", "/v1/sessions", b'{"ttl":%d}' % ttl_ms)

    def opened(self, status: int, body: bytes) -> str | None:
        found = _SESSION.search(body) if status == 201 else None
        return None if found is None else found[1].decode()

    def renew(self, session: str) -> bytes:
        return request("POST", f"/v1/sessions/{session}/keepalive")

    def renewed(self, status: int, body: bytes) -> bool:
        return status == 200

    def close(self, session: str) -> bytes:
        return request("DELETE", f"/v1/sessions/{session}")

    def acquire(self, session: str, name: str) -> bytes:
        body = b'{"session":"%b"}' % session.encode()
        return request("POST", f"/v1/locks/{name}/acquire", body)

    def granted(self, status: int, body: bytes) -> str | None:
        found = _TOKEN.search(body) if status == 200 else None
        return None if found is None else found[1].decode()

    def release(self, session: str, name: str, grant: str) -> bytes:
        body = b'{"session":"%b","token":%b}' % (session.encode(), grant.encode())
        return request("POST", f"/v1/locks/{name}/release", body)

    def released(self, status: int, body: bytes) -> bool:
        return status == 200


class EtcdDialect:
    """etcd's gateway from JSON to gRPC: leases and the lock service."""

    def open(self, ttl_ms: int) -> bytes:
        return request("POST", "/v3/lease/grant", b'{"TTL":%d}' % max(1, ttl_ms // 1000))

    def opened(self, status: int, body: bytes) -> str | None:
        found = _LEASE.search(body) if status == 200 else None
        return None if found is None else found[1].decode()

    def renew(self, session: str) -> bytes:
        return request("POST", "/v3/lease/keepalive", b'{"ID":"%b"}' % session.encode())

    def renewed(self, status: int, body: bytes) -> bool:
        return status == 200 and _LEASE_ALIVE.search(body) is not None

    def close(self, session: str) -> bytes:
        return request("POST", "/v3/lease/revoke", b'{"ID":"%b"}' % session.encode())

    def acquire(self, session: str, name: str) -> bytes:
        coded = base64.b64encode(name.encode())
        body = b'{"name":"%b","lease":"%b"}' % (coded, session.encode())
        return request("POST", "/v3/lock/lock", body)

    def granted(self, status: int, body: bytes) -> str | None:
        found = _KEY.search(body) if status == 200 else None
        return None if found is None else found[1].decode()

    def release(self, session: str, name: str, grant: str) -> bytes:
        return request("POST", "/v3/lock/unlock", b'{"key":"%b"}' % grant.encode())

    def released(self, status: int, body: bytes) -> bool:
        return status == 200


DIALECTS: dict[str, Dialect] = {"coterie": CoterieDialect(), "etcd": EtcdDialect()}


def reason_of(status: int, body: bytes) -> str:
    """Name a refusal in a few words: its status and the code or message it carries."""
    try:
        said = json.loads(body)
        code = said.get("code") if isinstance(said.get("code"), str) else said.get("error")
    except (ValueError, AttributeError):
        code = None
    return f"{status} {code or ''}".strip()[:80]
