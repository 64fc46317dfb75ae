"""How long after its TTL a session ends: seen by who waits for what it held.

RULE: the clock is this process's, of the same machine as the leader's; nothing is asked of a node
that a client could not ask.

A session takes a lock, another stands in its queue, the first is renewed a few times and then no
more. From the last renewal to the waiter's grant its TTL must have passed:

    sent ── accepted ── told ──────── TTL since accepted ── ended ── granted (the waiter knows)
      └────────────── since sent: never below the TTL, and above it at most by the lateness and
                      by the way of two requests
                      └── since told: what a client that knows of its renewal sees
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import figures
from benchmarks.contenders import NODES, Contender
from benchmarks.dialects import DIALECTS
from benchmarks.exchange import request
from benchmarks.failover import Channel

SESSIONS = 400
TTLS_MS = (1_000, 1_500, 2_000, 3_000, 5_000)
RENEWALS_MAX = 3
# The first requests of all are spread over so long; or they come together.
SPREAD_S = 5.0
WAIT = b"60s"
ANSWER_S = 90.0
KINDS = ("one by one", "all at once")


class Unexpected(Exception):
    """A node answered otherwise than a healthy cluster does; the message has the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One session that was not renewed any more.

    Attributes:
        kind: of KINDS.
        since_sent_ms: from the sending of the last renewal to the waiter's grant.
        since_told_ms: from the answer to it.
    """

    kind: str
    ttl_ms: int
    renewals: int
    since_sent_ms: float
    since_told_ms: float

    @property
    def is_early(self) -> bool:
        """The TTL had not passed: this must never be."""
        return self.since_sent_ms < self.ttl_ms


def measure(contender: Contender, rng: random.Random, *, sessions: int = SESSIONS) -> list[Ending]:
    """Let sessions end, of mixed TTLs one by one, then all of one TTL together.

    Raises:
        Unsettled: the cluster did not come to rest before.
        Unexpected, NoAnswer: something failed.
    """
    contender.settled()
    return asyncio.run(_measure(contender.ports, rng, sessions))


async def _measure(ports: Sequence[int], rng: random.Random, sessions: int) -> list[Ending]:
    endings: list[Ending] = []
    for kind in KINDS:
        is_spread = kind == KINDS[0]
        plans = [
            _Plan(
                name=f"ttl-{rng.getrandbits(64):x}",
                holder_port=ports[number % NODES],
                waiter_port=ports[rng.randrange(NODES)],
                ttl_ms=rng.choice(TTLS_MS) if is_spread else TTLS_MS[2],
                begins_s=rng.uniform(0.0, SPREAD_S) if is_spread else 0.0,
                pauses=[
                    rng.uniform(0.2, 0.6)
                    for _ in range(rng.randrange(RENEWALS_MAX + 1) if is_spread else 1)
                ],
            )
            for number in range(sessions)
        ]
        # Renewed together, so that they end together.
        together = asyncio.Barrier(sessions) if not is_spread else None
        endings += await asyncio.gather(*(_ending(kind, plan, together) for plan in plans))
    return endings


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """`pauses`: before each renewal, in parts of the TTL."""

    name: str
    holder_port: int
    waiter_port: int
    ttl_ms: int
    begins_s: float
    pauses: Sequence[float]


async def _ending(kind: str, plan: _Plan, together: asyncio.Barrier | None) -> Ending:
    words, loop = DIALECTS["coterie"], asyncio.get_running_loop()
    await asyncio.sleep(plan.begins_s)
    _, holder = await loop.create_connection(Channel, "127.0.0.1", plan.holder_port)
    _, waiter = await loop.create_connection(Channel, "127.0.0.1", plan.waiter_port)
    try:
        waiting = await _opened(waiter, 600_000)
        if together is not None:
            await together.wait()
        sent_s = loop.time()
        session = await _opened(holder, plan.ttl_ms)
        told_s = loop.time()
        status, body = await holder.exchange(words.acquire(session, plan.name), ANSWER_S)
        if words.granted(status, body) is None:
            raise Unexpected(f"{status} {body!r}")
        wish = b'{"session":"%b","wait":"%b"}' % (waiting.encode(), WAIT)
        path = f"/v1/locks/{plan.name}/acquire"
        grant = asyncio.create_task(waiter.exchange(request("POST", path, wish), ANSWER_S))
        for pause in plan.pauses:
            await asyncio.sleep(pause * plan.ttl_ms / 1_000)
            began_s = loop.time()
            status, body = await holder.exchange(words.renew(session), ANSWER_S)
            if not words.renewed(status, body):
                raise Unexpected(f"{status} {body!r}")
            sent_s, told_s = began_s, loop.time()
        status, body = await grant
        granted_s = loop.time()
        if words.granted(status, body) is None:
            raise Unexpected(f"{status} {body!r}")
        await waiter.exchange(words.close(waiting), ANSWER_S)
    finally:
        holder.close()
        waiter.close()
    return Ending(
        kind=kind,
        ttl_ms=plan.ttl_ms,
        renewals=len(plan.pauses),
        since_sent_ms=(granted_s - sent_s) * 1_000,
        since_told_ms=(granted_s - told_s) * 1_000,
    )


async def _opened(channel: Channel, ttl_ms: int) -> str:
    words = DIALECTS["coterie"]
    status, body = await channel.exchange(words.open(ttl_ms), ANSWER_S)
    session = words.opened(status, body)
    if session is None:
        raise Unexpected(f"{status} {body!r}")
    return session


def report(endings: Sequence[Ending]) -> str:
    """Make the table of latenesses."""
    rows = []
    for kind in KINDS:
        these = [ending for ending in endings if ending.kind == kind]
        for field_name, meaning in (
            ("since_sent_ms", "since the last renewal was sent"),
            ("since_told_ms", "since its answer was here"),
        ):
            late = sorted(getattr(ending, field_name) - ending.ttl_ms for ending in these)
            if late:
                shares = (figures.percentile(late, share) for share in (0.5, 0.9, 0.99))
                early = sum(ending.is_early for ending in these)
                spread = [f"{value:.1f}" for value in (late[0], *shares, late[-1])]
                rows.append([f"{kind}: {meaning}", str(len(late)), str(early), *spread])
    head = ("waiter's grant after the TTL, ms", "sessions", "early", "min", *_SPREAD)
    return figures.table(head, rows)


_SPREAD = ("p50", "p90", "p99", "max")
