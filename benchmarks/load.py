"""Closed-loop load: K connections, each with a session and a lock of its own, cycle on cycle.

RULE: a process of its own; reads one Plan from standard input, writes one Result to standard
output, both JSON. Ends by itself, whatever the servers do.

A cycle is acquire, wait for the grant, release, wait for the answer. Each connection keeps its
session alive. Latency is counted from the write of a request to the last byte of its answer.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns

from benchmarks import processes
from benchmarks.dialects import DIALECTS, Dialect, reason_of
from benchmarks.exchange import Exchange
from benchmarks.figures import Latency, summary

PAUSE_AFTER_ERROR_S = 0.05
OPENING_S_MAX = 20.0
CLOSING_S_MAX = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do.

    Attributes:
        dialect: key of DIALECTS.
        ports: of the loopback; connection i goes to ports[i % len(ports)].
        warmup_s: of full load before the measured window of `seconds`.
        pids: processes whose CPU is read at both ends of the window, by name.
    """

    dialect: str
    ports: list[int]
    connections: int
    seconds: float
    warmup_s: float = 1.0
    ttl_ms: int = 15_000
    pids: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What was seen in the window. Latencies in milliseconds, processor time in seconds.

    Attributes:
        cycles: completed in the window.
        errors: refusals and lost connections, by reason.
        cpu_s: by the names of the plan.
        strangers_s: processor time of everybody else on the machine, kernel work included that
            belongs to nobody: loopback traffic and disk.
    """

    cycles: int
    seconds: float
    acquire: Latency | None
    cycle: Latency | None
    errors: dict[str, int]
    cpu_s: dict[str, float]
    tool_cpu_s: float
    strangers_s: float


class Tally:
    """What all workers count together; emptied when the window opens."""

    def __init__(self) -> None:
        self.acquire_ns = array("q")
        self.cycle_ns = array("q")
        self.errors: Counter[str] = Counter()
        self.is_stopping = False

    def restart(self) -> None:
        """Forget the warm-up."""
        self.acquire_ns = array("q")
        self.cycle_ns = array("q")
        self.errors.clear()


class Worker(Exchange):
    """One connection; `ready` and `done` are set at the ends of its life."""

    def __init__(self, plan: Plan, number: int, tally: Tally):
        super().__init__()
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._dialect: Dialect = DIALECTS[plan.dialect]
        self._tally = tally
        self._ttl_ms = plan.ttl_ms
        self._renew_every_ns = plan.ttl_ms * 1_000_000 // 3
        self._port = plan.ports[number % len(plan.ports)]
        self._name = f"bench-{number}"
        self._session: str | None = None
        self._acquire = b""
        self._phase = self._on_opened
        self._cycle_at = 0
        self._renewed_at = 0

    async def connect(self) -> None:
        """Connect, or connect again; the rest follows from the answers."""
        await self._loop.create_connection(lambda: self, "127.0.0.1", self._port)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._session is None:
            self._phase = self._on_opened
            self.send(self._dialect.open(self._ttl_ms))
        else:
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._tally.is_stopping:
            self._finish()
            return
        self._tally.errors["connection lost"] += 1
        self._loop.call_later(PAUSE_AFTER_ERROR_S, self._reconnect)

    def on_answer(self, status: int, body: bytes) -> None:
        self._phase(status, body)

    def _on_opened(self, status: int, body: bytes) -> None:
        self._session = self._dialect.opened(status, body)
        if self._session is None:
            self._failed(status, body)
            return
        self._acquire = self._dialect.acquire(self._session, self._name)
        self._renewed_at = perf_counter_ns()
        if not self.ready.done():
            self.ready.set_result(None)
        self._next()

    def _next(self) -> None:
        if self.transport is None:
            return
        if self._tally.is_stopping:
            self._close()
            return
        now = perf_counter_ns()
        if self._session is None:
            self._phase = self._on_opened
            self.send(self._dialect.open(self._ttl_ms))
        elif now - self._renewed_at >= self._renew_every_ns:
            self._phase = self._on_renewed
            self.send(self._dialect.renew(self._session))
        else:
            self._phase = self._on_granted
            self._cycle_at = now
            self.send(self._acquire)

    def _on_renewed(self, status: int, body: bytes) -> None:
        if not self._dialect.renewed(status, body):
            self._session = None
            self._failed(status, body)
            return
        self._renewed_at = perf_counter_ns()
        self._next()

    def _on_granted(self, status: int, body: bytes) -> None:
        grant = self._dialect.granted(status, body)
        if grant is None:
            self._failed(status, body)
            return
        assert self._session is not None
        self._tally.acquire_ns.append(perf_counter_ns() - self._cycle_at)
        self._phase = self._on_released
        self.send(self._dialect.release(self._session, self._name, grant))

    def _on_released(self, status: int, body: bytes) -> None:
        if not self._dialect.released(status, body):
            self._failed(status, body)
            return
        self._tally.cycle_ns.append(perf_counter_ns() - self._cycle_at)
        self._next()

    def _close(self) -> None:
        if self._session is None:
            self._finish()
            return
        self._phase = self._on_closed
        self.send(self._dialect.close(self._session))

    def _on_closed(self, status: int, body: bytes) -> None:
        self._finish()

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)
        if self.transport is not None:
            self.transport.abort()

    def _failed(self, status: int, body: bytes) -> None:
        self._tally.errors[reason_of(status, body)] += 1
        self._loop.call_later(PAUSE_AFTER_ERROR_S, self._next)

    def _reconnect(self) -> None:
        if self._tally.is_stopping:
            self._finish()
        else:
            task = self._loop.create_task(self.connect())
            task.add_done_callback(self._reconnected)

    def _reconnected(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._tally.errors["cannot connect"] += 1
            self._loop.call_later(PAUSE_AFTER_ERROR_S, self._reconnect)


async def run(plan: Plan) -> Result:
    """Open everything, warm up, measure, close everything.

    Raises:
        TimeoutError: the sessions could not be opened.
    """
    tally = Tally()
    workers = [Worker(plan, number, tally) for number in range(plan.connections)]
    async with asyncio.timeout(OPENING_S_MAX):
        for worker in workers:
            await worker.connect()
        await asyncio.gather(*(worker.ready for worker in workers))
    await asyncio.sleep(plan.warmup_s)
    gc.collect()
    gc.freeze()
    gc.disable()
    tally.restart()
    before, started = _processor_s(plan), perf_counter_ns()
    await asyncio.sleep(plan.seconds)
    after, ended = _processor_s(plan), perf_counter_ns()
    acquire, cycle, errors = tally.acquire_ns[:], tally.cycle_ns[:], dict(tally.errors)
    tally.is_stopping = True
    await asyncio.wait([worker.done for worker in workers], timeout=CLOSING_S_MAX)
    spent = {name: after[name] - before[name] for name in before}
    machine, tool = spent.pop("machine"), spent.pop("tool")
    return Result(
        cycles=len(cycle),
        seconds=(ended - started) / 1e9,
        acquire=summary(acquire),
        cycle=summary(cycle),
        errors=errors,
        cpu_s=spent,
        tool_cpu_s=tool,
        strangers_s=max(0.0, machine - tool - sum(spent.values())),
    )


def _processor_s(plan: Plan) -> dict[str, float]:
    known = {name: processes.cpu_s(pid) for name, pid in plan.pids.items()}
    known["tool"] = processes.cpu_s(os.getpid())
    known["machine"] = processes.machine_busy_s()
    return known


def main() -> None:
    """Read a plan, write a result."""
    plan = Plan(**json.load(sys.stdin))
    try:
        import uvloop  # noqa: PLC0415 - where it is installed
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(run(plan))
    json.dump(asdict(result), sys.stdout)


if __name__ == "__main__":
    main()
