"""Holding a lock while a command runs, and ending the command before another can hold it.

RULE: drives one `Lease` with the loop's time, signals and a child process. When to renew, to
terminate and to kill is decided in `cluster.client.lease`.

Three things go on at once: the session is renewed, the lock is waited for or the command runs, and
signals may come. The clock is one that also runs while the machine sleeps, so that a laptop that
wakes up after the TTL kills its command before it asks anybody.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from cluster.cli import processes
from cluster.cli.exits import cure_of
from cluster.cli.words import roughly
from cluster.client.aio import Client, Grant, OpenedSession, now_ms
from cluster.client.core import Request, path_of
from cluster.client.lease import Lease
from cluster.errors import CoterieError, Refused

T = TypeVar("T")

EXIT_UNREACHABLE = 69
EXIT_NOT_ACQUIRED = 75
EXIT_LOST = 76
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127

# Codes by which the cluster says that a session is no more.
GONE = frozenset({"session_expired", "session_not_found"})
FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# At the most between two looks at the clock: timers of the loop stand still while the machine
# sleeps.
LOOK_EVERY_MS = 200
# How long giving the lock back may take; after that its TTL does it.
FAREWELL_MS = 3_000
LATE_FAREWELL_MS = 500
# How long a refusal waits for the name of who holds the lock.
LABEL_MS = 1_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What `coterie lock` was asked for.

    Attributes:
        reach_ms: how long to try to reach the cluster, waiting for the lock apart.
        is_quiet: that the lock is another's is told by the exit code alone.
    """

    name: str
    command: Sequence[str]
    ttl_ms: int
    wait_ms: int
    reach_ms: int
    label: str
    meta: Mapping[str, object]
    is_quiet: bool = False


class Holding:
    """One run of `coterie lock`.

    Args:
        client: a way to the cluster.
        wish: what is asked for.
        environ: environment of the command, without ours.
        say: tells people.
    """

    def __init__(
        self,
        client: Client,
        wish: Wish,
        *,
        environ: Mapping[str, str],
        say: Callable[[str], None],
    ):
        self._client = client
        self._wish = wish
        self._environ = environ
        self._say = say
        self._news = asyncio.Event()
        self._asked_to_end: int | None = None
        self._group: int | None = None
        self._lease = Lease.opened(ttl_ms=wish.ttl_ms, expires_in_ms=0, sent_ms=now_ms())
        self._grant: Grant | None = None

    async def run(self) -> int:
        """Do all of it.

        Returns:
            exit code of the command, or one of our own.
        """
        with self._signals_taken():
            opening = asyncio.ensure_future(self._open())
            opened = await self._unless_asked_to_end(opening)
            if isinstance(opened, int):
                return opened
            keeper = asyncio.create_task(self._keep(opened.session))
            try:
                return await self._acquire_and_run(opened)
            finally:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
                await self._farewell(opened)

    async def _open(self) -> OpenedSession | int:
        wish = self._wish
        try:
            opened = await self._client.open_session(
                ttl_ms=wish.ttl_ms, name=wish.label, meta=wish.meta, timeout_ms=wish.reach_ms
            )
        except Refused as error:
            self._say(f"the session was refused: {error.detail}")
            return EXIT_NOT_ACQUIRED
        except CoterieError as error:
            cure = f"; {found}" if (found := cure_of(error)) else ""
            self._say(f"the cluster cannot be reached: {error.detail}{cure}")
            return EXIT_UNREACHABLE
        self._lease = Lease.opened(
            ttl_ms=opened.ttl_ms, expires_in_ms=opened.expires_in_ms, sent_ms=opened.sent_ms
        )
        return opened

    async def _acquire_and_run(self, opened: OpenedSession) -> int:
        acquiring = asyncio.ensure_future(self._acquire(opened.session))
        granted = await self._unless_asked_to_end(acquiring)
        if isinstance(granted, int):
            return granted
        # While we waited, renewals may have failed: no command starts on a lease that is old.
        while self._lease.must_term(now_ms()):
            if self._lease.lost is not None or now_ms() >= self._lease.ends_ms:
                self._say("the session was not kept alive while waiting for the lock")
                return EXIT_LOST
            await self._look()
            if self._asked_to_end is not None:
                return 128 + self._asked_to_end
        self._grant = granted
        try:
            return await self._run_command(granted)
        except FileNotFoundError:
            self._say(f"{self._wish.command[0]}: no such command")
            return EXIT_NOT_FOUND
        except OSError as error:
            self._say(f"{self._wish.command[0]}: cannot be run: {error.strerror}")
            return EXIT_NOT_EXECUTABLE

    async def _acquire(self, session: str) -> Grant | int:
        wish = self._wish
        try:
            return await self._client.acquire(
                session, wish.name, wait_ms=wish.wait_ms, timeout_ms=wish.reach_ms
            )
        except Refused as error:
            if not (wish.is_quiet and error.code == "lock_held"):
                label = await self._label_of(error.reason.get("holder"))
                self._say(_refusal(wish.name, error, label))
            return EXIT_NOT_ACQUIRED
        except CoterieError as error:
            self._say(f'lock "{wish.name}" could not be asked for: {error.detail}')
            return EXIT_UNREACHABLE

    async def _label_of(self, session: object) -> str | None:
        """The name of a session, which says more to people than its id; None where it is not told."""
        if not isinstance(session, str):
            return None
        asked = Request("GET", f"{path_of('sessions', session)}?consistency=stale")
        try:
            answer = await self._client.call(asked, timeout_ms=LABEL_MS)
        except CoterieError:
            return None
        label = answer.body.get("name")
        return label if isinstance(label, str) and label.isprintable() else None

    async def _run_command(self, grant: Grant) -> int:
        environ = dict(self._environ)
        environ["COTERIE_LOCK"] = grant.name
        environ["COTERIE_SESSION"] = grant.session
        environ["COTERIE_TOKEN"] = str(grant.token)
        take = processes.take_terminal if processes.owns_terminal() else None
        with processes.terminal_returned():
            # A group of its own, so that it can be ended whole, its children with it.
            child = await asyncio.create_subprocess_exec(
                *self._wish.command,
                env=environ,
                process_group=0,
                preexec_fn=processes.dies_with_parent(take),
            )
            self._group = child.pid
            if self._asked_to_end is not None:
                processes.signal_group(child.pid, self._asked_to_end)
            is_ended_by_us = await self._watch(child)
            self._group = None
        if is_ended_by_us:
            return EXIT_LOST
        assert child.returncode is not None
        return processes.exit_code_of(child.returncode)

    async def _watch(self, child: asyncio.subprocess.Process) -> bool:
        """Return when the command has ended; True when we had to end it."""
        ending = asyncio.ensure_future(child.wait())
        is_termed = is_killed = False
        while not ending.done():
            now, lease = now_ms(), self._lease
            if lease.must_kill(now) and not is_killed:
                is_killed = True
                if lease.lost is not None:
                    self._say(f"{lease.lost}; the command is killed")
                else:
                    self._say("the command is killed, as the lock runs out")
                processes.signal_group(child.pid, signal.SIGKILL)
            elif lease.must_term(now) and not is_termed and not is_killed:
                is_termed = True
                self._say(
                    f'lock "{self._wish.name}": the session could not be renewed and ends in '
                    f"{lease.ends_ms - now} ms; the command is told to end"
                )
                processes.signal_group(child.pid, signal.SIGTERM)
                # A stopped process cannot end.
                processes.signal_group(child.pid, signal.SIGCONT)
            limits_ms = [lease.term_at_ms, lease.kill_at_ms]
            ahead_ms = [limit_ms - now_ms() for limit_ms in limits_ms if limit_ms > now_ms()]
            await self._look(ending, within_ms=min([LOOK_EVERY_MS, *ahead_ms]))
        if is_termed or is_killed:
            # Its children may be less polite than it was.
            processes.signal_group(child.pid, signal.SIGKILL)
        return is_termed or is_killed

    async def _keep(self, session: str) -> None:
        """Renew the session until it is lost."""
        has_failed = False
        while True:
            await self._until(self._lease.try_at_ms)
            try:
                renewed = await self._client.keepalive(session, timeout_ms=self._lease.every_ms)
                self._lease = self._lease.renewed(
                    expires_in_ms=renewed.expires_in_ms, sent_ms=renewed.sent_ms
                )
                await self._check()
            except Refused as error:
                if error.code not in GONE:
                    self._lease = self._lease.missed(now_ms())
                    continue
                self._lose(f'lock "{self._wish.name}" is lost: {error.detail}')
            except CoterieError as error:
                self._lease = self._lease.missed(now_ms())
                if not has_failed:
                    self._say(f"the session is not renewed: {error.detail}; trying on")
                has_failed = True
                continue
            if self._lease.lost is not None:
                return
            if has_failed:
                self._say("the session is renewed again")
            has_failed = False

    async def _until(self, moment_ms: int) -> None:
        """Sleep until a moment of our clock, also where the machine sleeps meanwhile."""
        left_ms = moment_ms - now_ms()
        while left_ms > 0:
            await asyncio.sleep(min(left_ms, LOOK_EVERY_MS) / 1_000)
            left_ms = moment_ms - now_ms()

    async def _check(self) -> None:
        """Ask whether the lock is still ours, as it can be given back by who knows its token."""
        grant = self._grant
        if grant is None:
            return
        try:
            check = await self._client.check(
                grant.name, grant.token, timeout_ms=self._lease.every_ms
            )
        except CoterieError:
            # The renewal went through, and it is what counts.
            return
        if not check.valid:
            self._lose(f'lock "{grant.name}" is lost: token {grant.token} holds it no more')

    def _lose(self, why: str) -> None:
        self._lease = self._lease.reported_lost(why)
        self._news.set()

    async def _farewell(self, opened: OpenedSession) -> None:
        """Give the lock back and close the session, if the cluster can be reached."""
        lease = self._lease
        if lease.lost is not None:
            return
        # Who could not renew for so long will hardly be heard now.
        limit_ms = LATE_FAREWELL_MS if lease.must_term(now_ms()) else FAREWELL_MS
        try:
            if self._grant is not None:
                await self._client.release(
                    opened.session, self._grant.name, self._grant.token, timeout_ms=limit_ms
                )
            await self._client.close_session(opened.session, timeout_ms=limit_ms)
        except CoterieError as error:
            left_ms = max(0, lease.ends_ms - now_ms())
            self._say(
                f"the lock could not be given back: {error.detail}; "
                f"its session ends by itself within {left_ms} ms or a little later"
            )

    async def _unless_asked_to_end(self, doing: asyncio.Future[T | int]) -> T | int:
        """The outcome of a task, or the exit code of the signal that came first."""
        try:
            while not doing.done():
                if self._asked_to_end is not None:
                    return 128 + self._asked_to_end
                if self._lease.lost is not None:
                    self._say(self._lease.lost)
                    return EXIT_LOST
                await self._look(doing)
            return doing.result()
        finally:
            if not doing.done():
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)

    async def _look(self, *also: asyncio.Future[Any], within_ms: int = LOOK_EVERY_MS) -> None:
        """Wait for news, for one of these, or until it is time to look at the clock again."""
        news = asyncio.ensure_future(self._news.wait())
        waited_for: set[asyncio.Future[Any]] = {news, *also}
        await asyncio.wait(
            waited_for, timeout=within_ms / 1_000, return_when=asyncio.FIRST_COMPLETED
        )
        news.cancel()
        self._news.clear()

    @contextmanager
    def _signals_taken(self) -> Iterator[None]:
        """Signals go to the command while it runs; before that they end us."""
        loop = asyncio.get_running_loop()
        for number in FORWARDED:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in FORWARDED:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: int) -> None:
        if self._group is not None:
            processes.signal_group(self._group, number)
        elif self._asked_to_end is None:
            self._asked_to_end = number
            self._news.set()


def default_label(name: str) -> str:
    """Name of the session, for those who look who holds the lock."""
    return f"coterie lock {name} ({os.uname().nodename}, process {os.getpid()})"


def _refusal(name: str, error: Refused, label: str | None) -> str:
    """Why the lock was not granted, with what the cluster says stands in the way."""
    if error.code != "lock_held":
        return f'lock "{name}": {error.detail}'
    reason = error.reason
    holder = reason.get("holder")
    by = f"held by session {holder}" if holder else "promised to those who came before"
    if label:
        by += f" ({label})"
    if isinstance(held_for_ms := reason.get("held_for_ms"), int) and holder:
        by += f" for {roughly(held_for_ms)}"
    return f'lock "{name}" is {by}; {reason.get("queue_length", 0)} wait for it'
