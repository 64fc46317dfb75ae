"""What is held under a session: locks, several locks at once, units of semaphores, tickets.

RULE: what each kind asks for and gives back; how it is held is told once, in `taking.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cluster.client.core import Request, new_key, path_of
from cluster.client.durations import Length
from cluster.client.held import Grant
from cluster.client.keeping import OnState
from cluster.client.payloads import Payload, payload_in, payload_of
from cluster.client.taking import Holding

if TYPE_CHECKING:
    from cluster.client.session import Session


class Lock(Holding):
    """One lock, held alone or shared with others who share it.

    Tasks of one session that ask for the same lock take turns, also where they would share it: to
    the cluster they are one. Use a session each where they are to share.
    """

    kind: ClassVar[str] = "lock"

    def __init__(
        self,
        session: Session,
        name: str,
        *,
        wait: Length = "30s",
        is_shared: bool = False,
        priority: int = 0,
        on_state: OnState | None = None,
    ):
        super().__init__(session, name, wait=wait, on_state=on_state)
        self.is_shared = is_shared
        self._priority = priority

    def _wanted(self) -> tuple[str, dict[str, object]]:
        body: dict[str, object] = {"mode": "shared"} if self.is_shared else {}
        if self._priority:
            body["priority"] = self._priority
        return path_of("locks", self.name, "acquire"), body

    def _returning(self, grant: Grant) -> Request:
        body = {"session": self.session.id, "token": grant.token}
        return Request("POST", path_of("locks", self.name, "release"), body, key=new_key())

    async def _is_valid(self, grant: Grant, timeout_ms: int | None) -> bool:
        client = self.session.client
        return (await client.check(self.name, grant.token, timeout_ms=timeout_ms)).valid

    def _names_alone(self) -> tuple[str, ...]:
        return (self.name,)


class Locks(Holding):
    """Several locks, granted in one step. `token` is the newest of their `tokens`."""

    kind: ClassVar[str] = "lock"

    def __init__(
        self,
        session: Session,
        names: tuple[str, ...],
        shared: tuple[str, ...] = (),
        *,
        wait: Length = "30s",
        priority: int = 0,
        on_state: OnState | None = None,
    ):
        self._modes = dict.fromkeys(names, "exclusive") | dict.fromkeys(shared, "shared")
        if not self._modes or len(self._modes) < len(names) + len(shared):
            raise ValueError("name at least one lock, and each once")
        super().__init__(session, ", ".join(self._modes), wait=wait, on_state=on_state)
        self._priority = priority

    @property
    def tokens(self) -> Mapping[str, int]:
        """Fencing token of each, if they may be relied on at this moment.

        Raises:
            LockLost: they may not.
        """
        return _tokens_in(self._demanded())

    def _wanted(self) -> tuple[str, dict[str, object]]:
        locks = [{"name": name, "mode": mode} for name, mode in self._modes.items()]
        body: dict[str, object] = {"locks": locks}
        if self._priority:
            body["priority"] = self._priority
        return path_of("locks", "acquire"), body

    def _granted(self, body: dict[str, Any]) -> Grant:
        return Grant(max(lock["token"] for lock in body["locks"]), body)

    def _returning(self, grant: Grant) -> Request:
        locks = [{"name": name, "token": token} for name, token in _tokens_in(grant).items()]
        body = {"session": self.session.id, "locks": locks}
        return Request("POST", path_of("locks", "release"), body, key=new_key())

    async def _is_valid(self, grant: Grant, timeout_ms: int | None) -> bool:
        client = self.session.client
        for name, token in _tokens_in(grant).items():
            if not (await client.check(name, token, timeout_ms=timeout_ms)).valid:
                return False
        return True

    def _names_alone(self) -> tuple[str, ...]:
        return tuple(sorted(self._modes))


class Units(Holding):
    """Units of a semaphore, each grant under a token of its own."""

    kind: ClassVar[str] = "semaphore"

    def __init__(
        self,
        session: Session,
        name: str,
        units: int = 1,
        *,
        wait: Length = "30s",
        priority: int = 0,
        on_state: OnState | None = None,
    ):
        super().__init__(session, name, wait=wait, on_state=on_state)
        self.units = units
        self._priority = priority

    def _wanted(self) -> tuple[str, dict[str, object]]:
        body: dict[str, object] = {"units": self.units}
        if self._priority:
            body["priority"] = self._priority
        return path_of("semaphores", self.name, "acquire"), body

    def _returning(self, grant: Grant) -> Request:
        body = {"session": self.session.id, "token": grant.token}
        return Request("POST", path_of("semaphores", self.name, "release"), body, key=new_key())

    async def _is_valid(self, grant: Grant, timeout_ms: int | None) -> bool:
        return await _check(
            self.session, path_of("semaphores", self.name, "check"), grant.token, timeout_ms
        )


class Claim(Holding):
    """A ticket that another session issued.

    It can be taken away: when its issuer revokes it or ends. After each renewal of the session the
    cluster is asked, so that this is known within two renewals.
    """

    kind: ClassVar[str] = "ticket"

    def __init__(
        self,
        session: Session,
        name: str,
        ticket: str | None = None,
        *,
        wait: Length = "30s",
        on_state: OnState | None = None,
    ):
        super().__init__(session, name, wait=wait, on_state=on_state)
        self._asked = ticket

    @property
    def ticket(self) -> str:
        """Which one it is.

        Raises:
            LockLost: it is held no more.
        """
        name: str = self._demanded().body["ticket"]
        return name

    @property
    def issuer(self) -> str:
        """Session that offers it.

        Raises:
            LockLost: it is held no more.
        """
        issuer: str = self._demanded().body["issuer"]
        return issuer

    @property
    def data(self) -> Payload | None:
        """What its issuer says of it.

        Raises:
            LockLost: it is held no more.
        """
        found: Payload | None = payload_in(self._demanded().body["data"])
        return found

    def _wanted(self) -> tuple[str, dict[str, object]]:
        # A session may claim several at a time; each claim is to be one of its own.
        body: dict[str, object] = {"another": True}
        if self._asked is not None:
            body = {"ticket": self._asked}
        return path_of("resources", self.name, "claim"), body

    def _granted(self, body: dict[str, Any]) -> Grant:
        self.session.watch_over(self)
        return super()._granted(body)

    def _returning(self, grant: Grant) -> Request:
        body = {
            "session": self.session.id,
            "ticket": grant.body["ticket"],
            "token": grant.token,
        }
        return Request("POST", path_of("resources", self.name, "release"), body, key=new_key())

    async def _is_valid(self, grant: Grant, timeout_ms: int | None) -> bool:
        path = path_of("resources", self.name, "tickets", grant.body["ticket"], "check")
        return await _check(self.session, path, grant.token, timeout_ms)

    def _names_alone(self) -> tuple[str, ...]:
        # A ticket by name is given again to the session that has it, as a lock is.
        return () if self._asked is None else (f"{self.name}\0{self._asked}",)


class Offer:
    """A ticket that a session of ours offers; it goes with the session, or when it is revoked."""

    def __init__(self, session: Session, resource: str, ticket: str, token: int):
        self.session = session
        self.resource = resource
        self.ticket = ticket
        self.token = token

    @classmethod
    async def issued(
        cls, session: Session, resource: str, ticket: str, data: Payload | None
    ) -> Offer:
        """Issue it."""
        body: dict[str, object] = {"session": session.id, "ticket": ticket}
        if data is not None:
            body["data"] = payload_of(data)
        session.keeper.demand()
        path = path_of("resources", resource, "tickets")
        answer = await session.client.call(Request("POST", path, body, key=new_key()))
        return cls(session, resource, ticket, answer.body["token"])

    async def revoke(self) -> None:
        """Take it back; who claimed it loses it in the same step."""
        path = path_of("resources", self.resource, "tickets", self.ticket)
        request = Request("DELETE", f"{path}?session={self.session.id}", key=new_key())
        await self.session.client.call(request)


def _tokens_in(grant: Grant) -> dict[str, int]:
    return dict(_each(grant.body["locks"]))


def _each(locks: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    for lock in locks:
        yield lock["name"], lock["token"]


async def _check(session: Session, path: str, token: int, timeout_ms: int | None) -> bool:
    request = Request("POST", path, {"token": token}, is_repeatable=True)
    answer = await session.client.call(request, timeout_ms=timeout_ms)
    return answer.body["valid"] is True
