"""What clients do to stock PySyncObj, and who judges them: registers, counters, locks.

RULE: the history and the checkers are those of our own cluster; only paths and bodies differ. No
operation is repeated: the library has no request ids.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ClassVar, Final

from jepsen import models
from jepsen.checkers.locks import MutualExclusion
from jepsen.clients import Ask, Client, Links, Reply
from jepsen.history import Line, Operation, Type, operations
from jepsen.linearizable import Model, judge, lines_of
from jepsen.stock.serve import HOLD_S
from jepsen.verdicts import Checker, Verdict, accept, reject, undecided
from jepsen.workloads.acting import SETTLE_S, Acting
from jepsen.workloads.base import Arena, Workload

KEYS: Final = ("a", "b", "c")
HOLD_MS: Final = int(HOLD_S * 1_000)
BUDGET_S: Final = 20.0


class Linear:
    """K1 and K12: the answers about each thing are those of one thing; the last reads count too.

    Args:
        room: of the operations that are looked at.
    """

    def __init__(self, room: str, model: Model[Any]) -> None:
        self.name = f"K1 linearizable {room}s"
        self._room = room
        self._model = model

    def check(self, lines: Sequence[Line]) -> Verdict:
        keys: dict[str, list[Operation]] = {}
        for operation in operations(lines):
            room, _, f = operation.f.partition(".")
            if room == self._room:
                keys.setdefault(operation.key, []).append(_plain(operation, f))
        return judge(self.name, self._model, keys, lines, BUDGET_S)


class Kept:
    """K12: no read is without what was acknowledged before it was asked.

    What `Linear` decides as well, but for histories with so many open operations that it cannot.

    Args:
        room: "register" or "counter".
    """

    name = "K12 durability"

    def __init__(self, room: str) -> None:
        self._room = room

    def check(self, lines: Sequence[Line]) -> Verdict:
        made = [_plain(one, one.f.partition(".")[2]) for one in self._own(lines)]
        reads = [one for one in made if one.f == "read" and one.outcome is Type.OK]
        changes = [one for one in made if one.f != "read" and one.outcome is Type.OK]
        for read in reads:
            known = [
                one
                for one in changes
                if one.key == read.key and one.end is not None and one.end < read.start
            ]
            lost = self._lost(read, known)
            if lost:
                return reject(self.name, lost, lines_of([*known[-3:], read], lines))
        if not reads or not changes:
            return undecided(self.name, f"{len(reads)} reads, {len(changes)} acknowledged changes")
        return accept(self.name, f"{len(reads)} reads, {len(changes)} acknowledged changes")

    def _own(self, lines: Sequence[Line]) -> list[Operation]:
        return [one for one in operations(lines) if one.f.startswith(f"{self._room}.")]

    def _lost(self, read: Operation, known: Sequence[Operation]) -> str:
        if self._room == "register":
            if known and read.result is None:
                return f"{read.key!r} is empty after {len(known)} acknowledged writes"
            return ""
        least = sum(one.value for one in known)
        if read.result < least:
            return f"{read.key!r} is {read.result} after increments by {least} were acknowledged"
        return ""


def _plain(operation: Operation, f: str) -> Operation:
    """As the models want it: bare values in place of the bodies of HTTP."""
    result = operation.result.get("value") if isinstance(operation.result, dict) else None
    return Operation(
        process=operation.process,
        f=f,
        key=operation.key,
        value=operation.value.get("value"),
        result=result,
        outcome=operation.outcome,
        start=operation.start,
        end=operation.end,
        start_ns=operation.start_ns,
        end_ns=operation.end_ns,
        node=operation.node,
        error=operation.error,
    )


async def ask(
    client: Client,
    f: str,
    key: str,
    path: str,
    *,
    body: dict[str, Any] | None = None,
    value: dict[str, Any] | None = None,
    is_read: bool = False,
    retry_s: float = 0.0,
) -> Reply:
    """One operation."""
    sent = Ask("POST", f"/stock/{path}/{key}", body or {}, is_read=is_read)
    return await client.do(f, key, value or {}, sent, retry_s=retry_s)


class Registers(Acting):
    """Every write is another value; reads go through the log."""

    name = "register"
    read_path: ClassVar[str] = "read"

    def checkers(self) -> Sequence[Checker]:
        return [Linear("register", models.register()), Kept("register")]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            yield self._act(links.client(number, f"{self.name}/{number}"), number)

    async def settle(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            for key in KEYS:
                await self._read(client, key, SETTLE_S)

    async def _act(self, client: Client, number: int) -> None:
        count = 0
        while await self.goes_on(client):
            key = client.rng.choice(KEYS)
            if client.rng.random() < 0.5:
                await self._read(client, key)
            else:
                count += 1
                value = number * 100_000 + count
                told = {"value": value}
                await ask(client, "register.write", key, "write", body=told, value=told)

    async def _read(self, client: Client, key: str, retry_s: float = 0.0) -> None:
        await ask(client, "register.read", key, self.read_path, is_read=True, retry_s=retry_s)


class LocalRegisters(Registers):
    """The same, read as the library's own containers are: from what the node has."""

    name = "register-local"
    read_path = "local"


class Counters(Acting):
    """Sums: an increment that was acknowledged is in them, once."""

    name = "counter"

    def checkers(self) -> Sequence[Checker]:
        return [Linear("counter", models.counter()), Kept("counter")]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            yield self._act(links.client(number, f"{self.name}/{number}"))

    async def settle(self, arena: Arena) -> None:
        async with self.links(arena) as links:
            client = links.client(0, f"{self.name}/settle")
            for key in KEYS:
                await self._read(client, key, SETTLE_S)

    async def _act(self, client: Client) -> None:
        while await self.goes_on(client):
            key = client.rng.choice(KEYS)
            if client.rng.random() < 0.4:
                await self._read(client, key)
            else:
                # Each adds another power of two now and then: sums tell who is missing.
                number = 1 << client.rng.randrange(12)
                await ask(
                    client,
                    "counter.add",
                    key,
                    "add",
                    body={"number": number},
                    value={"value": number},
                )

    async def _read(self, client: Client, key: str, retry_s: float = 0.0) -> None:
        await ask(client, "counter.read", key, "total", is_read=True, retry_s=retry_s)


class Locks(Acting):
    """The library's lock manager: who was given a lock has it until it gives it back, or is silent.

    For the checker each try is a session of its own, whose TTL is the manager's time of automatic
    release; for the manager it is the client, as it knows nothing finer.
    """

    name = "locks"

    def checkers(self) -> Sequence[Checker]:
        return [MutualExclusion()]

    def acts(self, links: Links) -> Iterable[Coroutine[Any, Any, None]]:
        for number in range(self.clients):
            yield self._act(links.client(number, f"{self.name}/{number}"), f"client-{number}")

    async def _act(self, client: Client, holder: str) -> None:
        tries = 0
        while await self.goes_on(client):
            key = client.rng.choice(KEYS)
            tries += 1
            session = f"{holder}-{tries}"
            ttl = {"session": session, "ttl_ms": HOLD_MS}
            client.note("session.open", "", {"ttl_ms": HOLD_MS}, ttl)
            sent = Ask("POST", f"/stock/acquire/{key}", {"client": holder})
            self._begin(client, key, {"session": session, "mode": "exclusive"})
            reply = await client.links.send(client.slot, client.node, sent)
            is_given = reply.is_ok and reply.body.get("value") is True
            self._end(client, key, reply, tries if is_given else None)
            if not is_given:
                continue
            await self.goes_on(client)
            gone = {"session": session, "token": tries}
            await ask(client, "lock.release", key, "release", body={"client": holder}, value=gone)

    def _begin(self, client: Client, key: str, value: dict[str, Any]) -> None:
        client.node = client.pick()
        client.arena.recorder.note(
            client.process, Type.INVOKE, "lock.acquire", key, value, node=client.node
        )

    def _end(self, client: Client, key: str, reply: Reply, token: int | None) -> None:
        """A refusal is an answer of the library's, and no error of HTTP."""
        kind = reply.outcome
        result: dict[str, Any] | None = None
        if kind is Type.OK:
            kind = Type.OK if token is not None else Type.FAIL
            result = {"token": token, "mode": "exclusive"} if token is not None else None
        client._end(
            kind, "lock.acquire", key, result, error=reply.error or "held" * (token is None)
        )


WORKLOADS: Final[dict[str, Callable[..., Workload]]] = {
    kind.name: kind for kind in (Registers, LocalRegisters, Counters, Locks)
}
"""As those of our own cluster, by name."""
