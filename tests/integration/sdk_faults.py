"""What the SDK makes of faults, at a real cluster of three: what the caller saw, and for how long.

RULE: brings faults about and measures; what must be so is said by `test_sdk_faults.py`.

    PYTHONPATH=jepsen-style python -m tests.integration.sdk_faults --rounds 20

writes two tables: what a program saw under each fault, by each shell, and the margins, which are
the times between the last moment at which a program could rely on a lock and the first at which
the cluster may have granted it to another. All processes read one clock, that of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from cluster.client.aio import Client, now_ms
from tests.integration.cluster import NAMES, Cluster, started

REPOSITORY = Path(__file__).parents[2]
SHELLS = ("asyncio", "sync")
# The answer of a program that is to end may be as late as a loaded machine makes it.
WITNESS_S = 240.0


class Witnessed(msgspec.Struct, frozen=True):
    """What one lock of a witness came to: see `sdk_witness.Seen`."""

    at: int
    token: int
    states: list[tuple[str, int]]
    used_ms: int
    given_ms: int
    stepped_ms: int
    ended_ms: int
    ended: str
    said: str
    calls: list[tuple[int, int, str, str]]


class Margin(msgspec.Struct, frozen=True):
    """One lock of one round, in ms before another may have been granted it.

    Attributes:
        used: the last use of the token that was not refused, by the moment before it.
        stepped: the last moment in which the body of the scope ran.
        ended: the moment in which the scope was left.
    """

    used: int
    stepped: int
    ended: int


class Ways:
    """A way to each node, which can swallow everything and stay open, as a bad network does, or be
    slow.

    Attributes:
        endpoints: of each node, where its way begins.
        delay: before each piece of an answer goes on; seconds.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open = {name: asyncio.Event() for name in NAMES}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._cut: set[asyncio.StreamWriter] = set()
        self.endpoints: dict[str, str] = {}
        self.delay: Callable[[], float] = float

    async def __aenter__(self) -> Ways:
        for name in NAMES:
            self._open[name].set()

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = name
            ) -> None:
                await self._carry(name, reader, writer)

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            self._servers.append(server)
            host, port = server.sockets[0].getsockname()
            self.endpoints[name] = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def silence(self, *names: str) -> None:
        """Let nothing through, in both directions."""
        for name in names:
            self._open[name].clear()

    def open(self, *names: str) -> None:
        """Let everything through again, also what was held back."""
        for name in names:
            self._open[name].set()

    def break_off(self) -> None:
        """Break every connection, in the middle of whatever it carries."""
        for writer in self._cut:
            writer.transport.abort()

    async def _carry(
        self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._cut.add(writer)
        node_writer = None
        try:
            await self._open[name].wait()
            address = self._cluster.members[name].http
            node_reader, node_writer = await asyncio.open_connection(*address)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(name, reader, node_writer, is_answer=False))
                group.create_task(self._copy(name, node_reader, writer, is_answer=True))
        except* OSError:
            pass
        finally:
            self._cut.discard(writer)
            for each in (writer, node_writer):
                if each is not None:
                    each.transport.abort()

    async def _copy(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        is_answer: bool,
    ) -> None:
        while data := await reader.read(65_536):
            if is_answer and (delay_s := self.delay()) > 0:
                await asyncio.sleep(delay_s)
            await self._open[name].wait()
            writer.write(data)
            await writer.drain()
        writer.close()


class Witness:
    """A program that holds locks in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, locks: int):
        self.process = process
        self._locks = locks

    async def until_held(self) -> None:
        """Return when it has all its locks."""
        for _ in range(self._locks):
            assert "held" in await self._line()

    async def seen(self) -> list[Witnessed]:
        """What came of each lock, in their order; waits until all have ended."""
        found: list[Witnessed] = []
        async with asyncio.timeout(WITNESS_S):
            while len(found) < self._locks:
                line = await self._line()
                if "seen" in line:
                    found.append(msgspec.convert(line, Witnessed))
            self.tell_to_end()
            await self.process.wait()
        return sorted(found, key=lambda each: each.at)

    def tell_to_end(self) -> None:
        """Have it give back what it still has."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def _line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the witness ended early"
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.asynccontextmanager
async def witness(
    shell: str, endpoints: list[str], ttl: str, *, locks: int = 1, works: bool = False
) -> AsyncIterator[Witness]:
    """Run one; it has its locks when the block begins, and has ended when the block has."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.sdk_witness"),
        *(shell, ",".join(endpoints), ttl, str(locks), "works" if works else "holds"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 24,
        cwd=REPOSITORY,
    )
    try:
        found = Witness(process, locks)
        async with asyncio.timeout(WITNESS_S):
            await found.until_held()
        yield found
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def direct(cluster: Cluster) -> list[str]:
    """All nodes, without ways between."""
    return [cluster.members[name].url for name in NAMES]


# Margins.


async def cut_off(cluster: Cluster, ways: Ways, held: Witness, ttl_ms: int) -> None:
    """All ways fall silent."""
    await asyncio.sleep(random.uniform(0, ttl_ms / 2_000))
    ways.silence(*NAMES)


async def paused(cluster: Cluster, ways: Ways, held: Witness, ttl_ms: int) -> None:
    """The program stands still for longer than its TTL, and goes on."""
    await asyncio.sleep(random.uniform(0, ttl_ms / 2_000))
    held.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.5 * ttl_ms / 1_000)
    held.process.send_signal(signal.SIGCONT)
    # Were it to believe that all was well, it would renew what others have.
    ways.silence(*NAMES)


async def slowed(cluster: Cluster, ways: Ways, held: Witness, ttl_ms: int) -> None:
    """Answers take up to half of the TTL, and then come no more."""
    ways.delay = lambda: random.uniform(0, ttl_ms / 2_000)
    await asyncio.sleep(random.uniform(0, 1.5 * ttl_ms / 1_000))
    ways.silence(*NAMES)


Fault = Callable[[Cluster, Ways, Witness, int], Awaitable[None]]
MARGIN_FAULTS: dict[str, Fault] = {"cut off": cut_off, "paused": paused, "slow answers": slowed}


async def margins(
    cluster: Cluster, shell: str, fault: Fault, *, ttl_ms: int = 1_000, locks: int = 8
) -> list[Margin]:
    """One round: a program holds locks, another client waits for them, and the fault comes.

    Returns:
        of each lock that was lost; a program that a slow machine kept from its first renewal has
        none.
    """
    async with (
        Ways(cluster) as ways,
        witness(shell, list(ways.endpoints.values()), f"{ttl_ms}ms", locks=locks) as held,
        Client(direct(cluster), timeout_ms=120_000) as rival,
        rival.session(ttl="2m") as session,
    ):

        async def granted_ms(at: int) -> int:
            """The earliest moment at which the rival may have been granted a lock."""
            name = f"witness/{at}"
            async with session.lock(name, wait="5m"):
                earliest_ms = 0
                # Each answer gives a bound, by the time that the question took; the best one counts.
                for _ in range(5):
                    asking_ms = now_ms()
                    [holder] = (await rival.lock(name)).holders
                    earliest_ms = max(earliest_ms, asking_ms - holder.held_for_ms)
                return earliest_ms

        waiting = [asyncio.create_task(granted_ms(at)) for at in range(locks)]
        try:
            await fault(cluster, ways, held, ttl_ms)
            granted = await asyncio.gather(*waiting)
            held.tell_to_end()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        return [
            Margin(
                used=granted[each.at] - each.used_ms,
                stepped=granted[each.at] - each.stepped_ms,
                ended=granted[each.at] - each.ended_ms,
            )
            for each in await held.seen()
            if each.ended == "LockLost" and each.used_ms
        ]


# What a program saw.


class Sight(msgspec.Struct, frozen=True):
    """What a program saw of one fault.

    Attributes:
        seen: of its lock, and the calls of its work.
        fault_ms: when the fault came.
        whole_ms: when it was over; None where it was not.
    """

    seen: Witnessed
    fault_ms: int
    whole_ms: int | None

    def errors(self) -> dict[str, int]:
        """How often each error came, by `family Name`."""
        found: dict[str, int] = {}
        for began_ms, took_ms, family, name in self.seen.calls:
            if family != "ok" and began_ms + took_ms >= self.fault_ms:
                found[f"{family} {name}"] = found.get(f"{family} {name}", 0) + 1
        return found

    def longest_ms(self) -> int:
        """The longest call that was under way when the fault came, or began later."""
        return max(
            (took for began, took, _, _ in self.seen.calls if began + took >= self.fault_ms),
            default=0,
        )

    def states(self) -> list[tuple[str, int]]:
        """Changes that were told from the fault on, and how long after it."""
        return [(state, at - self.fault_ms) for state, at in self.seen.states if at > self.fault_ms]

    def ended(self) -> str:
        """How the scope ended, and how long after the fault."""
        if self.seen.ended != "LockLost":
            return self.seen.ended
        return f"LockLost after {self.seen.ended_ms - self.fault_ms} ms"


async def _calls_go_on(held: Witness, pause_s: float = 1.0) -> None:
    """Let the program work on for a while, whole, and end."""
    await asyncio.sleep(pause_s)
    held.tell_to_end()


async def leader_killed(cluster: Cluster, shell: str) -> Sight:
    """SIGKILL to the leader; it is started again once another leads."""
    leader = await cluster.leader()
    async with witness(shell, direct(cluster), "10s", works=True) as held:
        fault_ms = now_ms()
        await cluster.kill9(leader)
        await cluster.leader(*(name for name in NAMES if name != leader))
        whole_ms = now_ms()
        await _calls_go_on(held)
        [seen] = await held.seen()
    await cluster.start(leader)
    return Sight(seen, fault_ms, whole_ms)


async def handed_over(cluster: Cluster, shell: str) -> Sight:
    """The leader is told to hand over."""
    leader = await cluster.leader()
    to = next(name for name in NAMES if name != leader)
    async with witness(shell, direct(cluster), "10s", works=True) as held:
        fault_ms = now_ms()
        async with Client(direct(cluster), timeout_ms=60_000) as client:
            await client.transfer(to)
        whole_ms = now_ms()
        await _calls_go_on(held)
        [seen] = await held.seen()
    return Sight(seen, fault_ms, whole_ms)


async def partitioned(cluster: Cluster, shell: str) -> Sight:
    """All ways of the program fall silent, for good."""
    async with (
        Ways(cluster) as ways,
        witness(shell, list(ways.endpoints.values()), "4s", works=True) as held,
    ):
        fault_ms = now_ms()
        ways.silence(*NAMES)
        [seen] = await held.seen()
    return Sight(seen, fault_ms, None)


async def stopped(cluster: Cluster, shell: str) -> Sight:
    """SIGSTOP for one and a half TTLs."""
    async with witness(shell, direct(cluster), "2s", works=True) as held:
        fault_ms = now_ms()
        held.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(3)
        whole_ms = now_ms()
        held.process.send_signal(signal.SIGCONT)
        [seen] = await held.seen()
    return Sight(seen, fault_ms, whole_ms)


async def half_dead(cluster: Cluster, shell: str) -> Sight:
    """A closed port, an address that swallows all, and a node that says 503, before two that serve."""

    async def no_leader(request: web.Request) -> web.Response:
        words = {"code": "no_leader", "detail": "nobody leads", "definite": True, "retryable": True}
        return web.json_response(words, status=503, headers={"Retry-After": "1"})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", no_leader)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    with socket.socket() as closed, socket.socket() as deaf:
        closed.bind(("127.0.0.1", 0))
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(128)
        dead = [f"127.0.0.1:{each.getsockname()[1]}" for each in (closed, deaf)]
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            dead.append(f"127.0.0.1:{runner.addresses[0][1]}")
            fault_ms = now_ms()
            async with witness(shell, [*dead, *direct(cluster)[:2]], "30s", works=True) as held:
                whole_ms = now_ms()
                await _calls_go_on(held)
                [seen] = await held.seen()
        finally:
            await runner.cleanup()
    return Sight(seen, fault_ms, whole_ms)


async def _all_gone(cluster: Cluster, shell: str, ttl: str) -> Sight:
    async with witness(shell, direct(cluster), ttl, works=True) as held:
        fault_ms = now_ms()
        await cluster.kill9(*NAMES)
        if ttl == "2s":
            await asyncio.sleep(2)
        await cluster.start(*NAMES)
        await cluster.until_ready(*NAMES)
        whole_ms = now_ms()
        if ttl != "2s":
            await _calls_go_on(held)
        [seen] = await held.seen()
    return Sight(seen, fault_ms, whole_ms)


async def all_gone_for_short(cluster: Cluster, shell: str) -> Sight:
    """SIGKILL to all nodes, which are started again; the TTL is two minutes."""
    return await _all_gone(cluster, shell, "2m")


async def all_gone_for_long(cluster: Cluster, shell: str) -> Sight:
    """The same; they are gone for longer than the TTL of 2 s."""
    return await _all_gone(cluster, shell, "2s")


FAULTS: dict[str, Callable[[Cluster, str], Awaitable[Sight]]] = {
    "leader killed (TTL 10 s)": leader_killed,
    "leadership handed over (TTL 10 s)": handed_over,
    "client partitioned (TTL 4 s)": partitioned,
    "client paused 3 s (TTL 2 s)": stopped,
    "node list half dead (TTL 30 s)": half_dead,
    "all nodes gone and back (TTL 2 min)": all_gone_for_short,
    "all nodes gone for longer than the TTL (2 s)": all_gone_for_long,
}


# The command.


def _row(name: str, shell: str, sight: Sight) -> str:
    errors = ", ".join(f"{times} × {error}" for error, times in sight.errors().items()) or "none"
    states = ", ".join(f"{state} at {at} ms" for state, at in sight.states()) or "held throughout"
    fault = "" if sight.whole_ms is None else f"{sight.whole_ms - sight.fault_ms} ms"
    longest = sight.longest_ms()
    return f"| {name} | {shell} | {fault} | {states} | {sight.ended()} | {errors} | {longest} ms |"


def _margin_row(name: str, shell: str, what: str, found: list[int]) -> str:
    if not found:
        return f"| {name} | {shell} | {what} | 0 | | | | |"
    found.sort()
    tenth = found[len(found) // 10]
    late = sum(margin <= 0 for margin in found)
    middle = int(statistics.median(found))
    return (
        f"| {name} | {shell} | {what} | {len(found)} | {found[0]} | {tenth} | {middle} | {late} |"
    )


async def measure(rounds: int, seed: int) -> str:
    """Both tables."""
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        async with started(Path(folder) / "sdk") as cluster:
            rows = []
            for name, fault in FAULTS.items():
                for shell in SHELLS:
                    await cluster.make_whole()
                    rows.append(_row(name, shell, await fault(cluster, shell)))
                    print(rows[-1], file=sys.stderr)
            await cluster.make_whole()
            margin_rows = []
            for name, brings in MARGIN_FAULTS.items():
                for shell in SHELLS:
                    found: list[Margin] = []
                    for _ in range(rounds):
                        found += await margins(cluster, shell, brings)
                    kinds = {"last use of the token": [each.used for each in found]}
                    if shell == "asyncio":
                        kinds["last step of the body"] = [each.stepped for each in found]
                    for what, each_found in kinds.items():
                        margin_rows.append(_margin_row(name, shell, what, each_found))
                        print(margin_rows[-1], file=sys.stderr)
    return "\n".join(
        (
            "| fault | shell | lasted | states told | the scope | errors of calls | longest call |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Before another may have been granted the lock, in ms (TTL 1000 ms, margin 200 ms):",
            "",
            "| fault | shell | of what | locks | least | tenth | median | too late |",
            "|---|---|---|---|---|---|---|---|",
            *margin_rows,
        )
    )


def main() -> None:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each fault and shell")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4)))
    asked = parser.parse_args()
    print(f"replay: --rounds {asked.rounds} --seed {asked.seed}", file=sys.stderr)
    # What nodes say is for tests that fail.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        tables = asyncio.run(measure(asked.rounds, asked.seed))
    print(tables)


if __name__ == "__main__":
    main()
