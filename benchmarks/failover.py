"""Time without service: after kill -9 of the leader, and during a planned hand-over.

RULE: open loop. Each probe starts an attempt every 10 ms whether or not earlier ones were answered,
so that a pause cannot hide itself by slowing the client down.

An attempt is acquire and release of a lock of its own name, under one session per probe. The gap
after a kill ends with the answer to the first acquire that was *sent after* the kill: an answer to
an earlier one may have been under way already.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import figures
from benchmarks.contenders import NODES, Contender
from benchmarks.dialects import DIALECTS, reason_of
from benchmarks.exchange import Exchange, request

EVERY_S = 0.01
TIMEOUT_S = 0.5
SESSION_TTL_MS = 60_000
BEFORE_S = 0.5
GAP_S_MAX = 20.0
AFTER_HANDOVER_S = 1.0


class NoAnswer(Exception):
    """The connection was lost, or nothing came in time: it may have happened."""


class Channel(Exchange):
    """A connection whose answers can be awaited."""

    def __init__(self) -> None:
        super().__init__()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    async def exchange(self, data: bytes, timeout_s: float) -> tuple[int, bytes]:
        """Send a request and wait for its answer.

        Raises:
            NoAnswer: the channel is closed and must not be used again.
        """
        if self.transport is None:
            raise NoAnswer("closed")
        self._answer = asyncio.get_running_loop().create_future()
        self.send(data)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer
        except (TimeoutError, ConnectionError) as error:
            self.close()
            raise NoAnswer(type(error).__name__) from error
        finally:
            self._answer = None

    def close(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def on_answer(self, status: int, body: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("lost"))


@dataclass(slots=True)
class Acknowledged:
    """An acquire that was granted: when it was sent and when its answer came, seconds."""

    sent: float
    answered: float


@dataclass(slots=True)
class Probe:
    """One open-loop client of one node."""

    dialect: str
    port: int
    acknowledged: list[Acknowledged] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    _idle: list[Channel] = field(default_factory=list)
    _attempts: set[asyncio.Task[None]] = field(default_factory=set)
    _runner: asyncio.Task[None] | None = None
    _session: str = ""

    async def start(self) -> None:
        """Open the session and begin; retries while nobody leads.

        Raises:
            NoAnswer: the node gives no session.
        """
        words = DIALECTS[self.dialect]
        for _ in range(20):
            try:
                channel = await self._channel()
                status, body = await channel.exchange(words.open(SESSION_TTL_MS), 5.0)
            except (NoAnswer, OSError):
                continue
            session = words.opened(status, body)
            if session is not None:
                self._session = session
                self._idle.append(channel)
                self._runner = asyncio.create_task(self._run())
                return
            channel.close()
        raise NoAnswer("no session")

    async def stop(self) -> None:
        """End attempts, give everything back."""
        if self._runner is not None:
            self._runner.cancel()
        for attempt in list(self._attempts):
            attempt.cancel()
        await asyncio.gather(*self._attempts, return_exceptions=True)
        if self._session:
            try:
                channel = await self._channel()
                await channel.exchange(DIALECTS[self.dialect].close(self._session), 5.0)
                channel.close()
            except (NoAnswer, OSError):
                pass  # It expires.
        for channel in self._idle:
            channel.close()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due, number = loop.time(), 0
        while True:
            attempt = asyncio.create_task(self._attempt(number))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempts.discard)
            number += 1
            due += EVERY_S
            await asyncio.sleep(max(0.0, due - loop.time()))

    async def _attempt(self, number: int) -> None:
        words, name = DIALECTS[self.dialect], f"probe-{self.port}-{number}"
        try:
            channel = await self._channel()
            sent = time.monotonic()
            status, body = await channel.exchange(words.acquire(self._session, name), TIMEOUT_S)
            grant = words.granted(status, body)
            if grant is None:
                self._failed(reason_of(status, body))
            else:
                self.acknowledged.append(Acknowledged(sent, time.monotonic()))
                await channel.exchange(words.release(self._session, name, grant), TIMEOUT_S)
        except (NoAnswer, OSError) as error:
            self._failed(str(error) or type(error).__name__)
        else:
            self._idle.append(channel)

    async def _channel(self) -> Channel:
        while self._idle:
            channel = self._idle.pop()
            if channel.transport is not None:
                return channel
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(Channel, "127.0.0.1", self.port)
        return channel

    def _failed(self, reason: str) -> None:
        self.failures[reason] = self.failures.get(reason, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One kill. Milliseconds from the kill to the first acknowledged write sent after it.

    Attributes:
        first_ms: at the survivor that was first; service is back somewhere.
        last_ms: at the survivor that was last; service is back at every node left.
    """

    contender: str
    number: int
    first_ms: float
    last_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """One planned hand-over. Longest time between neighbouring acknowledgements, milliseconds.

    Attributes:
        any_ms: over all nodes together.
        worst_ms: of the node that paused longest.
        calm_ms: as `worst_ms`, in as much time before the hand-over: what this machine does anyway.
        took_ms: until the call for the hand-over was answered.
        error: what was answered instead, or empty.
    """

    contender: str
    number: int
    any_ms: float
    worst_ms: float
    calm_ms: float
    took_ms: float
    error: str


def kill_leader(contender: Contender, number: int) -> Gap:
    """Kill the leader under load, wait for service, restart it, wait until it has caught up.

    Raises:
        Unsettled: the cluster did not come to rest before or after.
        NoAnswer: no service came back in time.
    """
    leader = contender.settled()
    survivors = [contender.ports[node] for node in range(NODES) if node != leader]
    gap = asyncio.run(_kill(contender, number, leader, survivors))
    contender.start_node(leader)
    contender.settled()
    return gap


async def _kill(contender: Contender, number: int, leader: int, survivors: Sequence[int]) -> Gap:
    probes = [Probe(contender.name, port) for port in survivors]
    try:
        for probe in probes:
            await probe.start()
        await asyncio.sleep(BEFORE_S)
        killed = time.monotonic()
        contender.kill_node(leader)
        first: list[float | None] = [None for _ in probes]
        while None in first:
            if time.monotonic() - killed > GAP_S_MAX:
                raise NoAnswer(f"{contender.name}: no service {GAP_S_MAX:g} s after the kill")
            await asyncio.sleep(0.005)
            first = [_first_after(probe, killed) for probe in probes]
    finally:
        await asyncio.gather(*(probe.stop() for probe in probes))
    gaps = [(at - killed) * 1000 for at in first if at is not None]
    return Gap(contender=contender.name, number=number, first_ms=min(gaps), last_ms=max(gaps))


def _first_after(probe: Probe, killed: float) -> float | None:
    return min((one.answered for one in probe.acknowledged if one.sent >= killed), default=None)


def hand_over(contender: Contender, number: int) -> Pause:
    """Hand leadership to the next node under load.

    Raises:
        Unsettled: the cluster did not come to rest.
    """
    leader = contender.settled()
    method, path, body = contender.hand_over(leader, (leader + 1) % NODES)
    return asyncio.run(_hand_over(contender, number, leader, request(method, path, body)))


async def _hand_over(contender: Contender, number: int, leader: int, wish: bytes) -> Pause:
    probes = [Probe(contender.name, port) for port in contender.ports]
    loop = asyncio.get_running_loop()
    try:
        for probe in probes:
            await probe.start()
        _, channel = await loop.create_connection(Channel, "127.0.0.1", contender.ports[leader])
        await asyncio.sleep(BEFORE_S + AFTER_HANDOVER_S)
        asked = time.monotonic()
        try:
            status, answer = await channel.exchange(wish, 10.0)
            error = "" if status < 300 else reason_of(status, answer)
        except NoAnswer as missing:
            error = str(missing)
        took = time.monotonic() - asked
        await asyncio.sleep(AFTER_HANDOVER_S)
        channel.close()
    finally:
        await asyncio.gather(*(probe.stop() for probe in probes))
    times = [sorted(one.answered for one in probe.acknowledged) for probe in probes]
    merged = sorted(at for ones in times for at in ones)
    until = asked + took + AFTER_HANDOVER_S
    return Pause(
        contender=contender.name,
        number=number,
        any_ms=_longest(merged, asked, until),
        worst_ms=max(_longest(ones, asked, until) for ones in times),
        calm_ms=max(_longest(ones, asked - AFTER_HANDOVER_S - took, asked) for ones in times),
        took_ms=took * 1000,
        error=error,
    )


def _longest(times: Sequence[float], start: float, stop: float) -> float:
    """Longest stretch between `start` and `stop` without an acknowledgement, milliseconds."""
    inside = [start, *(at for at in times if start < at < stop), stop]
    return max(b - a for a, b in itertools.pairwise(inside)) * 1000


def report_gaps(gaps: Sequence[Gap], contenders: Sequence[str]) -> str:
    """Make the table of kills."""
    rows = []
    for name in contenders:
        for field_name, meaning in (
            ("first_ms", "first acknowledged write anywhere"),
            ("last_ms", "and at both survivors"),
        ):
            ordered = sorted(getattr(gap, field_name) for gap in gaps if gap.contender == name)
            if ordered:
                rows.append([f"{name}: {meaning}", *_spread(ordered)])
    return figures.table(("kill -9 of the leader, ms", "kills", *_SPREAD), rows)


def report_pauses(pauses: Sequence[Pause], contenders: Sequence[str]) -> str:
    """Make the table of hand-overs."""
    rows = []
    for name in contenders:
        these = [pause for pause in pauses if pause.contender == name]
        for field_name, meaning in (
            ("any_ms", "longest pause, all nodes together"),
            ("worst_ms", "longest pause of one node"),
            ("calm_ms", "the same without a hand-over"),
            ("took_ms", "answer to the call"),
        ):
            ordered = sorted(getattr(pause, field_name) for pause in these if not pause.error)
            if ordered:
                rows.append([f"{name}: {meaning}", *_spread(ordered)])
        failed = [pause.error for pause in these if pause.error]
        if failed:
            rows.append(
                [f"{name}: refused: {', '.join(sorted(set(failed)))}", str(len(failed)), *"----"]
            )
    return figures.table(("planned hand-over, ms", "times", *_SPREAD), rows)


_SPREAD = ("p50", "p90", "p99", "max")


def _spread(ordered: Sequence[float]) -> list[str]:
    shares = (figures.percentile(ordered, share) for share in (0.5, 0.9, 0.99))
    return [str(len(ordered)), *(f"{value:.0f}" for value in shares), f"{ordered[-1]:.0f}"]
