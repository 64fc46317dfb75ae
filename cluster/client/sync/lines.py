"""Fifos, rooms, semaphores, resources and elections, without `async`.

RULE: words of the module of the same primitive, each run through the portal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.client.durations import Length
from cluster.client.elections import Candidacy, Election, Leader
from cluster.client.fifos import Fifo, Turn
from cluster.client.keeping import OnState
from cluster.client.rooms import Place, Room, Standing
from cluster.client.semaphores import Resource, Semaphore
from cluster.client.sync.holdings import SyncHolding
from cluster.client.sync.portal import Portal


class SyncTurn(SyncHolding[Turn]):
    """One's place in a fifo, and the turn that comes of it."""

    @property
    def ticket(self) -> str:
        """Its ticket; empty before it stands in line."""
        return self._inner.ticket

    def status(self) -> dict[str, Any]:
        """Read where the ticket stands."""
        return self._portal.run(self._inner.status())


class SyncFifo:
    """One fifo, by its name."""

    def __init__(self, portal: Portal, inner: Fifo):
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def create(
        self,
        *,
        wait_timeout: Length | None = None,
        accept_timeout: Length | None = None,
        done_timeout: Length | None = None,
        unused_destroy_timeout: Length | None = None,
        allow_overrides: bool | None = None,
    ) -> dict[str, Any]:
        """Make it; if it is there already, with the same settings, that is as good."""
        return self._portal.run(
            self._inner.create(
                wait_timeout=wait_timeout,
                accept_timeout=accept_timeout,
                done_timeout=done_timeout,
                unused_destroy_timeout=unused_destroy_timeout,
                allow_overrides=allow_overrides,
            )
        )

    def show(self) -> dict[str, Any]:
        """Read its settings and a page of its queue."""
        return self._portal.run(self._inner.show())

    def delete(self, *, force: bool = False) -> None:
        """Take it away; with `force`, also where tickets are in it."""
        self._portal.run(self._inner.delete(force=force))

    def turn(self, *, wait: Length | None = None, on_state: OnState | None = None) -> SyncTurn:
        """A turn, to be taken by `with` or `acquire`."""
        return SyncTurn(self._portal, self._inner.turn(wait=wait, on_state=on_state))


class SyncRoom:
    """One waiting room, by its name."""

    def __init__(self, portal: Portal, inner: Room):
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def set(
        self, *, window_size: int, window_interval: Length, active_windows: int
    ) -> dict[str, Any]:
        """Make it, or change how it admits."""
        return self._portal.run(
            self._inner.set(
                window_size=window_size,
                window_interval=window_interval,
                active_windows=active_windows,
            )
        )

    def show(self) -> dict[str, Any]:
        """Read its settings and figures."""
        return self._portal.run(self._inner.show())

    def delete(self) -> None:
        """Take it away, with all its places."""
        self._portal.run(self._inner.delete())

    def join(self) -> SyncPlace:
        """Take a place."""
        return SyncPlace(self._portal, self._portal.run(self._inner.join()))

    def place(self, token: str) -> SyncPlace:
        """A place that was taken before, by its pass."""
        return SyncPlace(self._portal, self._inner.place(token))


class SyncPlace:
    """A place in a room; `token` is its pass."""

    def __init__(self, portal: Portal, inner: Place):
        self._portal = portal
        self._inner = inner
        self.token = inner.token

    @property
    def standing(self) -> Standing | None:
        """As it was last told."""
        return self._inner.standing

    def status(self) -> Standing:
        """Ask where it stands."""
        return self._portal.run(self._inner.status())

    def until_active(self, *, wait: Length | None = None) -> Standing:
        """Return once it is let in."""
        return self._portal.run(self._inner.until_active(wait=wait))


class SyncSemaphore:
    """One semaphore, by its name."""

    def __init__(self, portal: Portal, inner: Semaphore):
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def set_limit(self, limit: int) -> dict[str, Any]:
        """Make it, or give it another limit."""
        return self._portal.run(self._inner.set_limit(limit))

    def show(self) -> dict[str, Any]:
        """Read its limit, holders and waiters."""
        return self._portal.run(self._inner.show())

    def delete(self) -> None:
        """Take it away."""
        self._portal.run(self._inner.delete())


class SyncResource:
    """One resource of which tickets are offered, by its name."""

    def __init__(self, portal: Portal, inner: Resource):
        self._portal = portal
        self._inner = inner
        self.name = inner.name

    def show(self) -> dict[str, Any]:
        """Read its tickets, who has them, and who waits."""
        return self._portal.run(self._inner.show())


class SyncElection:
    """The leadership of a group, seen from outside, or stood for again and again."""

    def __init__(self, portal: Portal, inner: Election):
        self._portal = portal
        self._inner = inner

    def leader(self) -> Leader | None:
        """Read who leads at the moment."""
        return self._portal.run(self._inner.leader())

    def run(self, lead: Callable[[Leading], object]) -> None:
        """Stand, lead, and stand again, until `stop`.

        Args:
            lead: what a leader does, in a thread of its own. A thread cannot be cancelled: it is to
                ask `demand()` on its way, or use `token`. The next stand waits until it is through.
        """
        self._portal.run(self._inner.run_in_threads(lambda held: lead(Leading(held))))

    def stop(self) -> None:
        """Resign, and stand no more."""
        self._portal.soon(self._inner.stop)


class Leading:
    """A leadership of ours."""

    def __init__(self, inner: Candidacy):
        self._inner = inner
        self.group = inner.group

    @property
    def token(self) -> int:
        """Its fencing token, if it may be relied on at this moment; else raises `LockLost`."""
        return self._inner.token

    def demand(self) -> None:
        """Return if we lead still; else raise `LockLost`."""
        self._inner.demand()
