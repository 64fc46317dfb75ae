"""Sessions and what is held under them, without `async`.

RULE: words of `cluster.client.session` and `holdings`, each run through the portal.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from cluster.client.durations import Length
from cluster.client.elections import Candidacy
from cluster.client.held import Held, State
from cluster.client.holdings import Claim, Lock, Locks, Offer, Units
from cluster.client.keeping import OnState
from cluster.client.payloads import Payload
from cluster.client.session import Session
from cluster.client.sync.portal import Portal
from cluster.client.taking import Holding
from cluster.errors import LockLost

if TYPE_CHECKING:
    from cluster.client.aio import Client

T = TypeVar("T")
H = TypeVar("H", bound=Held)
G = TypeVar("G", bound=Holding)


class SyncHolding(Generic[H]):
    """Something held; see `cluster.client.held.Held`."""

    def __init__(self, portal: Portal, inner: H):
        self._portal = portal
        self._inner = inner

    def __repr__(self) -> str:
        return repr(self._inner)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        inner = self._inner
        if inner.state == "free":
            return
        try:
            if self._portal.is_closed:
                # Its session was closed with the client, by another thread.
                raise inner.loss()
            self._portal.run(_left(inner, error))
        except LockLost as loss:
            raise_loss(loss, error)

    def acquire(self, wait: Length | None = None) -> int:
        """Take it, standing in its queue for at most `wait`; returns its token."""
        was_free = self._inner.state == "free"
        try:
            return self._portal.run(self._inner.acquire(wait))
        except Exception:
            raise
        except BaseException:
            # An interrupt that came in the very moment of the grant found nothing to cancel. A
            # client that is closed meanwhile holds nothing any more.
            if was_free:
                with contextlib.suppress(LockLost, RuntimeError):
                    self._portal.run(_given_up(self._inner))
            raise

    def release(self) -> None:
        """Give it back."""
        self._portal.run(self._inner.release())

    def demand(self) -> None:
        """Return if it may be relied on at this moment; else raise `LockLost`."""
        self._inner.demand()

    @property
    def name(self) -> str:
        """Of what is held."""
        return self._inner.name

    @property
    def token(self) -> int:
        """Its fencing token, if it may be relied on at this moment; else raises `LockLost`."""
        return self._inner.token

    @property
    def state(self) -> State:
        """What may be relied on, by the clock."""
        return self._inner.state

    @property
    def left_ms(self) -> int:
        """For how long it may be relied on if no renewal succeeds."""
        return self._inner.left_ms


class SyncSessionHolding(SyncHolding[G]):
    """Something held under a session; see `cluster.client.taking.Holding`."""

    def check(self) -> bool:
        """Ask the cluster whether it is still held."""
        return self._portal.run(self._inner.check())


class SyncLock(SyncSessionHolding[Lock]):
    """One lock."""


class SyncLocks(SyncSessionHolding[Locks]):
    """Several locks, granted in one step."""

    @property
    def tokens(self) -> Mapping[str, int]:
        """Fencing token of each."""
        return self._inner.tokens


class SyncUnits(SyncSessionHolding[Units]):
    """Units of a semaphore."""

    @property
    def units(self) -> int:
        """How many."""
        return self._inner.units


class SyncClaim(SyncSessionHolding[Claim]):
    """A ticket that another session issued."""

    @property
    def ticket(self) -> str:
        """Which one it is."""
        return self._inner.ticket

    @property
    def issuer(self) -> str:
        """Session that offers it."""
        return self._inner.issuer

    @property
    def data(self) -> Payload | None:
        """What its issuer says of it."""
        return self._inner.data


class SyncCandidacy(SyncSessionHolding[Candidacy]):
    """A candidate for a leadership."""

    @property
    def group(self) -> str:
        """Whose leadership it is."""
        return self._inner.group

    def resign(self) -> None:
        """Lead no more."""
        self._portal.run(self._inner.resign())


class SyncOffer:
    """A ticket that a session of ours offers."""

    def __init__(self, portal: Portal, inner: Offer):
        self._portal = portal
        self._inner = inner
        self.resource = inner.resource
        self.ticket = inner.ticket
        self.token = inner.token

    def revoke(self) -> None:
        """Take it back; who claimed it loses it in the same step."""
        self._portal.run(self._inner.revoke())


class SyncSession:
    """A session, renewed as long as the thread that opened it lives."""

    def __init__(
        self,
        portal: Portal,
        client: Client,
        *,
        ttl: Length = "10s",
        name: str | None = None,
        meta: Mapping[str, object] | None = None,
        owner: threading.Thread | Literal["process"] | None = None,
        on_state: OnState | None = None,
    ):
        self._portal = portal
        self._inner = Session(client, ttl=ttl, name=name, meta=meta, owner=owner, on_state=on_state)

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        loss = self._inner.keeper.loss() if self._inner.state == "lost" else None
        self.close()
        if loss is not None:
            raise_loss(loss, error)

    def open(self) -> Self:
        """Open it and keep it alive from here on."""
        self._portal.run(self._inner.open(owner=threading.current_thread()))
        return self

    def close(self) -> None:
        """End it; what it holds is free at once."""
        if not self._portal.is_closed:
            # The client, closed by another thread, has ended it.
            self._portal.run(self._inner.close())

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return self._inner.id

    @property
    def ttl_ms(self) -> int:
        """How long the cluster waits for a sign of life."""
        return self._inner.ttl_ms

    @property
    def token(self) -> int:
        """Token of its opening; raises `LockLost` when it may be relied on no more."""
        return self._inner.token

    @property
    def state(self) -> State:
        """What may be relied on, by the clock."""
        return self._inner.state

    @property
    def left_ms(self) -> int:
        """For how long what it holds may be relied on if no renewal succeeds."""
        return self._inner.left_ms

    def lock(
        self,
        name: str,
        *,
        wait: Length = "30s",
        shared: bool = False,
        priority: int = 0,
        on_state: OnState | None = None,
    ) -> SyncLock:
        """A lock, to be taken by `with` or `acquire`."""
        inner = self._inner.lock(
            name, wait=wait, shared=shared, priority=priority, on_state=on_state
        )
        return SyncLock(self._portal, inner)

    def locks(
        self,
        *names: str,
        shared: tuple[str, ...] = (),
        wait: Length = "30s",
        priority: int = 0,
        on_state: OnState | None = None,
    ) -> SyncLocks:
        """Several locks, all or none."""
        inner = self._inner.locks(
            *names, shared=shared, wait=wait, priority=priority, on_state=on_state
        )
        return SyncLocks(self._portal, inner)

    def semaphore(
        self,
        name: str,
        *,
        units: int = 1,
        wait: Length = "30s",
        priority: int = 0,
        on_state: OnState | None = None,
    ) -> SyncUnits:
        """Units of a semaphore."""
        inner = self._inner.semaphore(
            name, units=units, wait=wait, priority=priority, on_state=on_state
        )
        return SyncUnits(self._portal, inner)

    def claim(
        self,
        resource: str,
        *,
        ticket: str | None = None,
        wait: Length = "30s",
        on_state: OnState | None = None,
    ) -> SyncClaim:
        """A ticket of a resource."""
        inner = self._inner.claim(resource, ticket=ticket, wait=wait, on_state=on_state)
        return SyncClaim(self._portal, inner)

    def issue(self, resource: str, ticket: str, data: Payload | None = None) -> SyncOffer:
        """Offer a ticket of a resource."""
        return SyncOffer(self._portal, self._run(self._inner.issue(resource, ticket, data)))

    def candidate(self, group: str, *, wait: Length = "1h") -> SyncCandidacy:
        """A candidate for the leadership of a group; `with` waits until it is elected."""
        return SyncCandidacy(self._portal, self._inner.candidate(group, wait=wait))

    def explain(self, want: str | None = None) -> dict[str, Any]:
        """Who is in the way of this session, since when, and what would help."""
        return self._run(self._inner.explain(want))

    def _run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self._portal.run(doing)


def raise_loss(loss: LockLost, error: BaseException | None) -> None:
    """What leaving a `with` raises that was lost: as the asyncio scope does."""
    if error is None:
        raise loss from None
    if isinstance(error, Exception) and not isinstance(error, LockLost):
        raise loss from error


async def _given_up(holding: Held) -> None:
    """Give back what was granted after all."""
    if holding.state != "free":
        await holding.release()


async def _left(holding: Held, error: BaseException | None) -> None:
    """Give back what was held, or raise what its loss was."""
    if holding.state == "lost":
        loss = holding.loss()
        holding.forget()
        raise loss
    try:
        await holding.release()
    except LockLost:
        # What the body raised says more.
        if error is None:
            raise
