"""`coterie bench`: how fast a running cluster is, from where one stands.

RULE: writes under names of its own and takes all of it away again. It measures this client as well:
one process, one core.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from cluster.cli import exits
from cluster.cli.rendering import headed
from cluster.cli.verbs import timeout_option
from cluster.cli.words import Duration, authorities, cluster_options, leave, say

if TYPE_CHECKING:
    from cluster.client.aio import Client

EPILOG = """
\b
Examples:
  coterie bench locks --duration 5s --yes
  coterie bench jobs --clients 64 --yes
  coterie bench mixed --names 1 --yes -o json      # all after one lock, one tube

locks: take a lock and give it back. jobs: put, reserve and delete. mixed: both, by half of
the clients each. Every time is what one client saw, from sending to the answer.

Exit codes: see coterie --help
"""

MIXES = ("locks", "jobs", "mixed")
WARNING = (
    "It writes to the cluster at {where} as fast as it can, for {seconds:g} s with {clients} "
    "clients:\nothers will be slower meanwhile. Sessions, locks and tubes are called "
    "coterie-bench-…, and go again."
)
TTL_MS = 60_000


@dataclass(slots=True)
class Tally:
    """What was measured.

    Attributes:
        times_s: of every success, by operation.
        errors: how often each failure came, by its code.
    """

    times_s: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)

    def rows(self, seconds: float) -> list[dict[str, Any]]:
        """One row for each operation: how many, how many a second, how long."""
        return [
            {
                "operation": name,
                "count": len(times),
                "per_s": round(len(times) / seconds, 1),
                "p50_ms": percentile_ms(times, 0.50),
                "p99_ms": percentile_ms(times, 0.99),
                "max_ms": percentile_ms(times, 1.0),
            }
            for name, times in self.times_s.items()
        ]

    @property
    def count(self) -> int:
        """All successes."""
        return sum(map(len, self.times_s.values()))


def percentile_ms(times_s: list[float], part: float) -> float | None:
    """The time within which this part of them was done, in ms; None where there are none."""
    if not times_s:
        return None
    ordered = sorted(times_s)
    return round(ordered[math.ceil(part * len(ordered)) - 1] * 1_000, 2)


@click.command("bench", epilog=EPILOG)
@click.argument("mix", type=click.Choice(MIXES), default="mixed")
@click.option(
    "--clients",
    type=click.IntRange(1, 1_000),
    default=16,
    show_default=True,
    help="How many ask at a time.",
)
@click.option(
    "--names",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    help="Over how many locks and tubes it is spread.",
)
@click.option(
    "--duration",
    "duration_ms",
    type=Duration(100, 3_600_000),
    default="10s",
    show_default=True,
    help="How long.",
)
@click.option("--yes", is_flag=True, help="Do not ask whether that is meant.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Text for people or JSON for programs.",
)
@timeout_option
@cluster_options
def command(
    mix: str,
    clients: int,
    names: int,
    duration_ms: int,
    yes: bool,
    output: str,
    timeout_ms: int,
    endpoints: tuple[str, ...],
) -> None:
    """Measure a running cluster with a mix of locks and jobs.

    It loads the cluster: not for one that others depend on.
    """
    seconds = duration_ms / 1_000
    text = WARNING.format(where=", ".join(endpoints), seconds=seconds, clients=clients)
    say(click.style("Warning: ", fg="yellow", bold=True) + text)
    if not yes:
        if not sys.stdin.isatty():
            leave(exits.USAGE, "coterie bench: add --yes where nobody can be asked")
        if not click.confirm("Go on?", err=True):
            leave(exits.REFUSED)
    bench = Bench(mix=mix, clients=clients, names=names, seconds=seconds)
    try:
        leave(asyncio.run(bench.run(endpoints, output, timeout_ms)))
    except KeyboardInterrupt:
        leave(exits.INTERRUPTED)


class Bench:
    """One run."""

    def __init__(self, *, mix: str, clients: int, names: int, seconds: float):
        self._mix = mix
        self._clients = clients
        self._names = names
        self._seconds = seconds
        self._tally = Tally()
        self._is_over = False

    async def run(self, endpoints: tuple[str, ...], output: str, timeout_ms: int) -> int:
        """Measure, show, and take away what is left. Returns the exit code."""
        from cluster.client.aio import Client, new_key
        from cluster.errors import CoterieError

        prefix = f"coterie-bench-{new_key()[:6]}"
        async with contextlib.AsyncExitStack() as stack:
            # Each stays with another node, as clients of a real cluster do.
            ways = [
                await stack.enter_async_context(
                    Client(
                        (*endpoints[at:], *endpoints[:at]),
                        timeout_ms=timeout_ms,
                        tls=authorities(),
                    )
                )
                for at in range(len(endpoints))
            ]
            try:
                sessions = [
                    (await ways[at % len(ways)].open_session(ttl_ms=TTL_MS, name=prefix)).session
                    for at in range(self._clients)
                ]
            except CoterieError as error:
                say(exits.told(error, output, who="coterie bench"))
                return exits.code_of(error)
            took_s = await self._measure(ways, sessions, prefix)
        rows = self._tally.rows(took_s)
        if output == "json":
            found = {"seconds": round(took_s, 2), "rows": rows, "errors": self._tally.errors}
            click.echo(json.dumps(found))
        else:
            self._show(rows)
        return exits.DONE if self._tally.count else exits.NOT_NOW

    async def _measure(self, ways: list[Client], sessions: list[str], prefix: str) -> float:
        """Have all clients work for the time. Returns how long it was, in seconds."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        workers = [
            asyncio.create_task(
                self._work(ways[at % len(ways)], session, f"{prefix}-{at % self._names}", at)
            )
            for at, session in enumerate(sessions)
        ]
        keeping = asyncio.create_task(self._keep(ways[0], sessions))
        try:
            await self._until(began_s + self._seconds)
            self._is_over = True
            await asyncio.gather(*workers)
            took_s = loop.time() - began_s
        finally:
            self._is_over = True
            for task in (*workers, keeping):
                task.cancel()
            await asyncio.gather(*workers, keeping, return_exceptions=True)
            await self._clean_up(ways[0], sessions, prefix)
        return took_s

    async def _until(self, end_s: float) -> None:
        """Wait, and on a terminal tell how it goes."""
        loop = asyncio.get_running_loop()
        is_seen = sys.stderr.isatty()
        done, before_s = 0, loop.time()
        while (left_s := end_s - loop.time()) > 0:
            await asyncio.sleep(min(0.5, left_s))
            if is_seen:
                now, now_s = self._tally.count, loop.time()
                pace = (now - done) / max(now_s - before_s, 1e-3)
                done, before_s = now, now_s
                bar = "#" * round(20 * (1 - max(0.0, end_s - now_s) / self._seconds))
                errors = sum(self._tally.errors.values())
                click.echo(
                    f"\r[{bar:<20}] {now} done, {pace:.0f}/s, {errors} errors ", err=True, nl=False
                )
        if is_seen:
            click.echo(err=True)

    async def _keep(self, client: Client, sessions: list[str]) -> None:
        """Renew the sessions of a long run."""
        from cluster.client.core import Request
        from cluster.errors import CoterieError

        while True:
            await asyncio.sleep(TTL_MS / 3_000)
            request = Request(
                "POST", "/v1/sessions/keepalive", {"sessions": sessions}, is_repeatable=True
            )
            with contextlib.suppress(CoterieError):
                await client.call(request)

    async def _work(self, client: Client, session: str, name: str, number: int) -> None:
        has_jobs = self._mix == "jobs" or (self._mix == "mixed" and number % 2 == 1)
        step = self._job if has_jobs else self._lock
        from cluster.errors import CoterieError

        while not self._is_over:
            try:
                await step(client, session, name)
            except CoterieError as error:
                self._tally.errors[error.code] = self._tally.errors.get(error.code, 0) + 1

    async def _lock(self, client: Client, session: str, name: str) -> None:
        grant = await self._timed("acquire", lambda: client.acquire(session, name, wait_ms=10_000))
        await self._timed("release", lambda: client.release(session, name, grant.token))

    async def _job(self, client: Client, session: str, name: str) -> None:
        from cluster.client.core import path_of

        await self._timed("put", lambda: _post(client, path_of("tubes", name, "jobs"), body="x"))
        path = path_of("tubes", name, "reserve")
        got = await self._timed("reserve", lambda: _post(client, path, session=session))
        for job in got["jobs"]:
            done = path_of("jobs", str(job["job"]), "delete")
            await self._timed("delete", lambda: _post(client, done, token=job["token"]))  # noqa: B023

    async def _timed(self, name: str, doing: Callable[[], Awaitable[Any]]) -> Any:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        found = await doing()
        self._tally.times_s.setdefault(name, []).append(loop.time() - began_s)
        return found

    async def _clean_up(self, client: Client, sessions: list[str], prefix: str) -> None:
        """End the sessions, which frees their locks and jobs, and cancel what jobs are left."""
        from cluster.client.aio import new_key
        from cluster.client.core import Request, path_of
        from cluster.errors import CoterieError

        with contextlib.suppress(CoterieError):
            for session in sessions:
                await client.close_session(session)
            path = f"/v1/tubes?prefix={prefix}&limit=1000"
            tubes = (await client.call(Request("GET", path))).body["tubes"]
            assert isinstance(tubes, list)
            for tube in tubes:
                while True:
                    path = path_of("tubes", tube["tube"], "jobs") + "?limit=1000"
                    jobs = (await client.call(Request("GET", path))).body["jobs"]
                    if not isinstance(jobs, list) or not jobs:
                        break
                    for job in jobs:
                        path = path_of("jobs", str(job["job"]))
                        await client.call(Request("DELETE", path, key=new_key()))
            return
        say("coterie bench: not all could be taken away; what is left ends with its sessions")

    def _show(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            heads = [name.upper().replace("_PER_S", "/S").replace("_", " ") for name in rows[0]]
            click.echo(headed(heads, [list(row.values()) for row in rows]))
        for code, count in self._tally.errors.items():
            click.echo(f"! {count} times {code}")


async def _post(client: Client, path: str, **body: object) -> dict[str, Any]:
    from cluster.client.aio import new_key
    from cluster.client.core import Request

    return (await client.call(Request("POST", path, body, key=new_key()))).body
