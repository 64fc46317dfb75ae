"""Which tubes there are: those that somebody uses or watches stay, in the machine, while empty.

RULE: counts for this node, and tells the cluster which tubes the node wants kept: a name at a time
for many connections, never a connection at a time. Nobody waits for that but who asks what there is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Final

from cluster.errors import CoterieError
from cluster.fronts.desk import Desk
from cluster.fronts.leases import Leases, Refused
from cluster.machine import limits
from cluster.machine.commands.jobs import KeepTubes
from cluster.machine.outcome import QueueFull, SessionExpired, SessionNotFound

DEFAULT: Final = "default"
_SESSION_NAME: Final = "beanstalkd tubes"


class KeptTubes:
    """Tubes in use on this node, and `default` from the first connection on.

    Attributes:
        using, watching: connections of this node, by tube.
    """

    def __init__(self, desk: Desk, leases: Leases) -> None:
        self._desk = desk
        self._leases = leases
        self.using: Counter[str] = Counter()
        self.watching: Counter[str] = Counter()
        self._session: str | None = None
        self._told: dict[str, None] = {}
        self._changed: dict[str, None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._rounds = 0
        self._settled: list[tuple[int, asyncio.Future[None]]] = []

    def use(self, name: str, *, instead_of: str | None) -> None:
        """A connection uses a tube."""
        self._count(self.using, name, 1)
        if instead_of is not None:
            self._count(self.using, instead_of, -1)

    def watch(self, name: str) -> None:
        """A connection watches a tube."""
        self._count(self.watching, name, 1)

    def ignore(self, name: str) -> None:
        """A connection watches a tube no longer."""
        self._count(self.watching, name, -1)

    def leave(self, used: str, watched: Iterable[str]) -> None:
        """A connection is over."""
        self._count(self.using, used, -1)
        for name in watched:
            self._count(self.watching, name, -1)

    def wanted(self) -> Iterable[str]:
        """Names of all that are, each once."""
        return dict.fromkeys((DEFAULT, *self.using, *self.watching))

    async def settled(self) -> None:
        """Wait until the cluster knows what changed before this call, or could not be told."""
        if self._telling is not None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            # What changed during a round goes with the next one.
            self._settled.append((self._rounds + (1 if self._changed else 0), future))
            await future

    async def stop(self) -> None:
        """Tell no more."""
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait((self._telling,))

    def _count(self, counter: Counter[str], name: str, by: int) -> None:
        counter[name] += by
        if not counter[name]:
            del counter[name]
        # What is being told may be out of date by now.
        if self._telling is not None or self.is_wanted(name) != (name in self._told):
            self._changed[name] = None
            if self._telling is None:
                self._telling = asyncio.create_task(self._tell())

    def is_wanted(self, name: str) -> bool:
        """It is there for clients of this node, whether the cluster could be told or not."""
        return name == DEFAULT or name in self.using or name in self.watching

    async def _tell(self) -> None:
        try:
            while self._changed:
                changed, self._changed = tuple(self._changed), {}
                self._rounds += 1
                for first in range(0, len(changed), limits.TUBES_PER_KEEP_MAX):
                    await self._tell_of(changed[first : first + limits.TUBES_PER_KEEP_MAX])
                self._settle(self._rounds)
        except CoterieError:
            # Whoever uses or leaves a tube next begins anew.
            if self._session is not None:
                self._leases.close(self._session)
            self._forget()
        finally:
            self._telling = None
            self._settle(self._rounds + 1)

    async def _tell_of(self, changed: tuple[str, ...]) -> None:
        keep = tuple(name for name in changed if self.is_wanted(name) and name not in self._told)
        drop = tuple(name for name in changed if not self.is_wanted(name) and name in self._told)
        if not keep and not drop:
            return
        if self._session is None:
            try:
                self._session = await self._leases.open(_SESSION_NAME, self._lost)
            except Refused:
                return
        session = self._session
        outcome = await self._desk.ask(KeepTubes(session, keep, drop))
        if isinstance(outcome, QueueFull) and drop:
            # No room to keep them is no reason to keep the others, nor to ask for ever.
            outcome = await self._desk.ask(KeepTubes(session, (), drop))
        if isinstance(outcome, (SessionExpired, SessionNotFound)):
            self._leases.lost(session)
        elif session == self._session:
            self._told |= dict.fromkeys(keep)
            for name in drop:
                self._told.pop(name, None)

    def _lost(self) -> None:
        """Our session has ended: everything is told again, by the next one."""
        self._forget()
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())

    def _forget(self) -> None:
        self._session = None
        self._told.clear()
        self._changed |= dict.fromkeys(self.wanted())

    def _settle(self, rounds: int) -> None:
        """Let those go on who waited for so many rounds."""
        waiting, self._settled = self._settled, []
        for needed, future in waiting:
            if needed > rounds:
                self._settled.append((needed, future))
            elif not future.done():
                future.set_result(None)
