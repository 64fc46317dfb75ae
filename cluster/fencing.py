"""Fencing: whoever is written to under a lock refuses tokens that are too old.

RULE: knows tokens and the newest it has seen; asks no cluster, and imports nothing of its client.
Source: Kleppmann, "How to do distributed locking" (fencing tokens); Chubby (sequencers).

A lock alone cannot keep a paused process from writing when it wakes up: only who is written to
can. The token of a lock rises with every grant, in the whole cluster, and never comes again; so
who has seen a newer token for a thing knows that an older one is of a holder whose time is over.

    fence = Fence()                                 # one's own service, one process
    fence.admit("orders", token)                    # raises TokenStale

    app = FencingMiddleware(app, fence)             # ASGI: headers Coterie-Lock, Coterie-Token
    web.Application(middlewares=[aiohttp_middleware(fence)])

    admit_sql(cursor, "orders", token)              # in the transaction that writes
    put_fenced(store, "orders.json", data, token)   # an object store with conditional puts

The same token may come as often as it likes: its holder may write more than once.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

from cluster.errors import Definite, Overloaded

if TYPE_CHECKING:
    from aiohttp import web

LOCK_HEADER = "Coterie-Lock"
TOKEN_HEADER = "Coterie-Token"  # noqa: S105 - the name of a header

# What changes nothing needs no token.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
TOKEN_MAX = 2**63 - 1


class TokenStale(Definite):
    """The token is older than one that was seen: its holder's time is over, nothing was written.

    Attributes:
        newest: the newest seen; None where only that it is newer is known.
    """

    code = "stale_token"
    retryable = False

    def __init__(self, resource: str, token: int, newest: int | None):
        than = "a newer one was seen" if newest is None else f"{newest} was seen"
        super().__init__(f'"{resource}": token {token} is stale, {than}; acquire the lock again')
        self.resource = resource
        self.token = token
        self.newest = newest


class Fence:
    """The newest token of each resource, in this process; from any thread.

    It forgets everything with the process, and other processes have their own: where several write
    to one place, the place itself has to check (`admit_sql`, `put_fenced`).

    Args:
        resources_max: of how many it keeps the newest token; to forget one would let old ones pass.
    """

    def __init__(self, *, resources_max: int = 100_000) -> None:
        self._most = resources_max
        self._newest: dict[str, int] = {}
        self._lock = threading.Lock()

    def admit(self, resource: str, token: int) -> None:
        """Let a token pass, and none older from here on.

        What is written under it has to be written before anything that is awaited: in between, a
        newer one may pass.

        Raises:
            TokenStale: a newer one passed before.
            Overloaded: there are too many resources.
        """
        _checked(token)
        with self._lock:
            newest = self._newest.get(resource, 0)
            if newest == 0 and len(self._newest) >= self._most:
                raise Overloaded(f"the fence knows {self._most} resources and can keep no more")
            if token < newest:
                raise TokenStale(resource, token, newest)
            self._newest[resource] = token

    def newest(self, resource: str) -> int | None:
        """The newest token that passed."""
        return self._newest.get(resource)


# HTTP.

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Refusal(msgspec.Struct, frozen=True):
    status: int
    body: bytes


def _verdict(
    fence: Fence,
    method: str,
    locks: Sequence[str],
    tokens: Sequence[str],
    *,
    resource: str | None,
    is_required: bool,
) -> _Refusal | None:
    """What a request's headers, each as often as it came, come to; None: it may pass."""
    if method in SAFE_METHODS:
        return None
    if not tokens:
        if not is_required:
            return None
        return _refusal(428, "token_missing", f"show the lock's token: {TOKEN_HEADER}: 42")
    # Two of them say nothing for sure.
    token = tokens[0].strip() if len(tokens) == 1 else ""
    lock = locks[0].strip() if len(locks) == 1 else ""
    name = lock if resource is None else resource
    if not name:
        return _refusal(
            400, "bad_request", f"say which lock the token is of: {LOCK_HEADER}: orders"
        )
    # More digits than any token has could say an older one in a newer one's place.
    is_token = token.isascii() and token.isdecimal() and len(token) <= len(str(TOKEN_MAX))
    if not is_token or not 0 < int(token) <= TOKEN_MAX:
        return _refusal(400, "bad_request", f"{TOKEN_HEADER} is no token")
    try:
        fence.admit(name, int(token))
    except TokenStale as error:
        return _refusal(409, error.code, error.detail, newest=error.newest)
    except Overloaded as error:
        return _refusal(503, error.code, error.detail)
    return None


def _refusal(status: int, code: str, detail: str, newest: int | None = None) -> _Refusal:
    problem: dict[str, object] = {
        "title": "The token was not accepted",
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": False,
        "definite": True,
    }
    if newest is not None:
        problem["current_token"] = newest
    return _Refusal(status, msgspec.json.encode(problem))


class FencingMiddleware:
    """ASGI middleware: requests that write show their token, and stale ones do not reach the app.

    Starlette, FastAPI, Django (ASGI), Quart: `app.add_middleware(FencingMiddleware, fence=fence)`,
    or around the app.

    Args:
        resource: the resource of a request's scope, where the client is not to say it by a header.
        is_required: whether writes without a token are refused (428).
    """

    def __init__(
        self,
        app: App,
        fence: Fence,
        *,
        resource: Callable[[Scope], str] | None = None,
        is_required: bool = True,
    ):
        self._app = app
        self._fence = fence
        self._resource = resource
        self._is_required = is_required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
            refusal = _verdict(
                self._fence,
                scope["method"],
                _asgi_headers(headers, LOCK_HEADER),
                _asgi_headers(headers, TOKEN_HEADER),
                resource=None if self._resource is None else self._resource(scope),
                is_required=self._is_required,
            )
            if refusal is not None:
                about = [
                    (b"content-type", b"application/problem+json"),
                    (b"content-length", str(len(refusal.body)).encode()),
                ]
                start = {"type": "http.response.start", "status": refusal.status, "headers": about}
                await send(start)
                await send({"type": "http.response.body", "body": refusal.body})
                return
        await self._app(scope, receive, send)


def _asgi_headers(headers: Iterable[tuple[bytes, bytes]], name: str) -> list[str]:
    wanted = name.lower().encode()
    return [value.decode("latin-1") for header, value in headers if header.lower() == wanted]


def aiohttp_middleware(
    fence: Fence,
    *,
    resource: Callable[[web.Request], str] | None = None,
    is_required: bool = True,
) -> Any:
    """The same for aiohttp: `web.Application(middlewares=[aiohttp_middleware(fence)])`."""
    from aiohttp import web  # noqa: PLC0415 - only who serves by aiohttp needs it

    @web.middleware
    async def middleware(
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        refusal = _verdict(
            fence,
            request.method,
            request.headers.getall(LOCK_HEADER, []),
            request.headers.getall(TOKEN_HEADER, []),
            resource=None if resource is None else resource(request),
            is_required=is_required,
        )
        if refusal is None:
            return await handler(request)
        return web.Response(
            status=refusal.status,
            body=refusal.body,
            content_type="application/problem+json",
        )

    return middleware


def headers_of(lock: str, token: int) -> dict[str, str]:
    """What a client sends with what it writes: `headers_of("orders", lock.token)`."""
    return {LOCK_HEADER: lock, TOKEN_HEADER: str(_checked(token))}


# SQL.

SQL_TABLE = """\
CREATE TABLE IF NOT EXISTS coterie_fence (
    resource TEXT PRIMARY KEY,
    token BIGINT NOT NULL
)"""
"""The newest tokens, for PostgreSQL and SQLite. Make it once, beside the tables it protects."""

_SQL_ADMIT = """\
INSERT INTO coterie_fence (resource, token) VALUES ({0}, {1})
ON CONFLICT (resource) DO UPDATE SET token = excluded.token
WHERE coterie_fence.token <= excluded.token"""

SQL_ADMIT_SQLITE = _SQL_ADMIT.format("?", "?")
SQL_ADMIT_POSTGRES = _SQL_ADMIT.format("%s", "%s")
"""Touches one row if the token may pass, and none if it is stale. The row stays locked until the
transaction ends, so that no newer token passes between it and what is written."""

SQL_GUARD_POSTGRES = """\
CREATE OR REPLACE FUNCTION coterie_refuse_stale() RETURNS trigger AS $$
BEGIN
    IF NEW.fence IS NULL OR NEW.fence < OLD.fence THEN
        RAISE EXCEPTION 'token % is stale, current %', NEW.fence, OLD.fence
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END
$$ LANGUAGE plpgsql;
CREATE OR REPLACE TRIGGER coterie_fence BEFORE UPDATE ON {table}
    FOR EACH ROW EXECUTE FUNCTION coterie_refuse_stale()"""
"""For a table with a column `fence BIGINT NOT NULL DEFAULT 0` that every update sets to the token:
the database refuses stale writers by itself, also those that forgot to ask. Fill in `{table}`."""

SQL_GUARD_SQLITE = """\
CREATE TRIGGER IF NOT EXISTS coterie_fence_{table} BEFORE UPDATE ON {table}
WHEN NEW.fence IS NULL OR NEW.fence < OLD.fence
BEGIN
    SELECT RAISE(ABORT, 'token is stale');
END"""
"""The same for SQLite."""


class Cursor(Protocol):
    """A cursor of the DB-API (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement touched."""

    def execute(self, operation: str, parameters: Any, /) -> Any:
        """Run a statement."""


def admit_sql(
    cursor: Cursor,
    resource: str,
    token: int,
    *,
    paramstyle: Literal["qmark", "format"] = "qmark",
) -> None:
    """Let a token pass, in the transaction that writes under it.

    Args:
        cursor: inside of a transaction: `sqlite3` (in its default mode), psycopg and so on.
        paramstyle: of the driver's module: qmark for `sqlite3`, format for psycopg.

    Raises:
        TokenStale: a newer one passed before; roll back.
    """
    _checked(token)
    statement = SQL_ADMIT_SQLITE if paramstyle == "qmark" else SQL_ADMIT_POSTGRES
    cursor.execute(statement, (resource, token))
    if cursor.rowcount != 1:
        raise TokenStale(resource, token, None)


# Object stores.


class Stored(msgspec.Struct, frozen=True):
    """An object as it stands. `token`: under which it was written, 0 for none."""

    data: bytes
    etag: str
    token: int


class PutConflict(Exception):
    """The object is not the one that the put was conditional on."""


class ObjectStore(Protocol):
    """A store with conditional puts, as S3 has them."""

    def get(self, key: str) -> Stored | None:
        """Read an object; None if there is none."""

    def put(self, key: str, data: bytes, *, token: int, etag: str | None) -> None:
        """Write it if it is still the one with this etag; None: if there is still none.

        Raises:
            PutConflict: it is not; nothing was written.
        """


def put_fenced(
    store: ObjectStore,
    key: str,
    data: bytes | Callable[[bytes | None], bytes],
    token: int,
    *,
    attempts_max: int = 10,
) -> None:
    """Write an object unless one with a newer token is there.

    Args:
        data: the bytes, or what makes them of those that are there (None: there are none).

    Raises:
        TokenStale: one with a newer token is there; nothing was written.
        PutConflict: others wrote between each reading and writing.
    """
    _checked(token)
    for attempt in range(1, attempts_max + 1):
        found = store.get(key)
        if found is not None and found.token > token:
            raise TokenStale(key, token, found.token)
        made = data if isinstance(data, bytes) else data(None if found is None else found.data)
        try:
            store.put(key, made, token=token, etag=None if found is None else found.etag)
        except PutConflict:
            if attempt == attempts_max:
                raise
            continue
        return


class S3Store:
    """A bucket of S3, or of what speaks it, by way of a boto3 client.

    The token is kept in the object's metadata; `If-Match` and `If-None-Match` make puts
    conditional (S3 and MinIO know both since 2024).
    """

    METADATA = "coterie-token"

    def __init__(self, client: Any, bucket: str):
        self._client = client
        self._bucket = bucket

    def get(self, key: str) -> Stored | None:
        """Read an object; None if there is none."""
        try:
            found = self._client.get_object(Bucket=self._bucket, Key=key)
        except Exception as error:
            if _s3_code(error) in {"NoSuchKey", "404"}:
                return None
            raise
        metadata: Mapping[str, str] = found.get("Metadata", {})
        token = int(metadata.get(self.METADATA, "0"))
        return Stored(found["Body"].read(), found["ETag"], token)

    def put(self, key: str, data: bytes, *, token: int, etag: str | None) -> None:
        """Write an object if it is still the one with this etag, or still not there."""
        condition = {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=data,
                Metadata={self.METADATA: str(token)},
                **condition,
            )
        except Exception as error:
            # 409: another put is under way; 404: it was deleted meanwhile.
            if _s3_code(error) in {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}:
                raise PutConflict(key) from error
            raise


def _s3_code(error: Exception) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None


def _checked(token: int) -> int:
    if isinstance(token, bool) or not isinstance(token, int) or not 0 < token <= TOKEN_MAX:
        raise ValueError(f"{token!r} is no token")
    return token
