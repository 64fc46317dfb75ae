"""A program that holds locks and works under them, and tells what it saw: the client in a process
of its own, which can be stopped, and whose ways can be cut.

RULE: uses the SDK as a user would; what is done to it, and what is made of its words, is not here.

    python -m tests.integration.sdk_witness SHELL ENDPOINTS TTL LOCKS WORKS

Says one JSON object a line: `held` for each lock, and at the end of each what came of it. It gives
back what it has, and ends, when its standard input is closed.
Times are milliseconds of the clock that all processes of this machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from typing import Any

from cluster import Client, CoterieError, LockLost, SyncClient
from cluster.client.aio import now_ms

# How long calls of the work may take: what is worth waiting for in a program like this.
TIMEOUT_MS = 5_000
PAUSE_S = 0.005


class Seen:
    """What one lock and the work beside it came to.

    Attributes:
        states: every change that was told, with its time.
        used_ms: before the last use of the token that was not refused.
        given_ms: after it.
        stepped_ms: the last moment in which the body ran, whether it used the token or not.
        calls: how long each call took that the work made, and what it raised.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.token = 0
        self.states: list[tuple[str, int]] = []
        self.used_ms = self.given_ms = self.stepped_ms = 0
        self.ended_ms = 0
        self.ended = ""
        self.said = ""
        self.calls: list[tuple[int, int, str, str]] = []

    def told(self, standing: str) -> None:
        """As a callback of the session."""
        self.states.append((standing, now_ms()))

    def held(self, token: int) -> None:
        """The lock was granted."""
        self.token = token
        say({"held": self.at, "token": token})

    def use(self, lock: Any) -> None:
        """Use the token, and note when."""
        using_ms = now_ms()
        if lock.token == self.token:
            self.used_ms, self.given_ms = using_ms, now_ms()

    def left(self) -> None:
        """The scope was left just now."""
        self.ended_ms = now_ms()

    def end(self, error: BaseException | None) -> None:
        """Say all of it."""
        self.ended = "given back" if error is None else type(error).__name__
        self.said = "" if error is None else str(error)
        say(vars(self) | {"seen": self.at})

    def called(self, began_ms: int, error: CoterieError | None) -> None:
        """Note a call of the work."""
        family = "ok"
        if error is not None:
            family = "definite" if error.definite else "indefinite"
        name = "" if error is None else f"{type(error).__name__} ({error.code})"
        self.calls.append((began_ms, now_ms() - began_ms, family, name))


_saying = threading.Lock()


def say(what: dict[str, Any]) -> None:
    """One line."""
    with _saying:
        print(json.dumps(what), flush=True)


# In the words of asyncio.


async def hold(seen: Seen, endpoints: str, ttl: str, stop: asyncio.Event, *, works: bool) -> None:
    """Hold one lock, by a client of its own, until it is lost or all is to end."""
    error: BaseException | None = None
    async with Client(endpoints, timeout_ms=TIMEOUT_MS) as client:
        working = asyncio.create_task(work(seen, client, stop)) if works else None
        session = await client.session(ttl=ttl, on_state=seen.told).open()
        try:
            async with session.lock(f"witness/{seen.at}") as lock:
                seen.held(lock.token)
                while not stop.is_set():
                    seen.use(lock)
                    await asyncio.sleep(PAUSE_S)
                    seen.stepped_ms = now_ms()
        except LockLost as loss:
            error = loss
        seen.left()
        if working is not None:
            # What is under way ends by its own deadline.
            stop.set()
            await working
        seen.end(error)
        # To close the session would free the lock at once: its TTL is to do that.
        await stop.wait()


async def work(seen: Seen, client: Client, stop: asyncio.Event) -> None:
    """Ask for a semaphore's limit and read a lock, again and again."""
    at = 0
    while not stop.is_set():
        at += 1
        began_ms = now_ms()
        failed = None
        try:
            if at % 2:
                await client.semaphore(f"work/{seen.at}").set_limit(at)
            else:
                await client.lock(f"witness/{seen.at}")
        except CoterieError as error:
            failed = error
        seen.called(began_ms, failed)
        await asyncio.sleep(PAUSE_S)


async def all_by_asyncio(endpoints: str, ttl: str, locks: int, *, works: bool) -> None:
    """Hold so many locks in one loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_on_end, args=(loop, stop), daemon=True).start()
    await asyncio.gather(
        *(hold(Seen(at), endpoints, ttl, stop, works=works) for at in range(locks))
    )


def _on_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    sys.stdin.read()
    loop.call_soon_threadsafe(stop.set)


# In those of the other shell.


def hold_in_thread(
    seen: Seen, endpoints: str, ttl: str, stop: threading.Event, *, works: bool
) -> None:
    """The same as `hold`."""
    error: BaseException | None = None
    with SyncClient(endpoints, timeout_ms=TIMEOUT_MS) as client:
        working = threading.Thread(target=work_in_thread, args=(seen, client, stop))
        if works:
            working.start()
        session = client.session(ttl=ttl, on_state=seen.told).open()
        try:
            with session.lock(f"witness/{seen.at}") as lock:
                seen.held(lock.token)
                while not stop.wait(PAUSE_S):
                    seen.use(lock)
                    # Nobody can cancel a thread: what it does without the token is not bounded.
                    seen.stepped_ms = seen.given_ms
        except LockLost as loss:
            error = loss
        seen.left()
        if works:
            stop.set()
            working.join()
        seen.end(error)
        stop.wait()


def work_in_thread(seen: Seen, client: SyncClient, stop: threading.Event) -> None:
    """The same as `work`."""
    at = 0
    while not stop.wait(PAUSE_S):
        at += 1
        began_ms = now_ms()
        failed = None
        try:
            if at % 2:
                client.semaphore(f"work/{seen.at}").set_limit(at)
            else:
                client.lock(f"witness/{seen.at}")
        except CoterieError as error:
            failed = error
        seen.called(began_ms, failed)


def all_in_threads(endpoints: str, ttl: str, locks: int, *, works: bool) -> None:
    """Hold so many locks, each in a thread."""
    stop = threading.Event()
    threads = [
        threading.Thread(
            target=hold_in_thread, args=(Seen(at), endpoints, ttl, stop), kwargs={"works": works}
        )
        for at in range(locks)
    ]

    def until_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=until_end, daemon=True).start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> None:
    """Do as the arguments say."""
    shell, endpoints, ttl, locks, works = sys.argv[1:]
    if shell == "asyncio":
        asyncio.run(all_by_asyncio(endpoints, ttl, int(locks), works=works == "works"))
    else:
        all_in_threads(endpoints, ttl, int(locks), works=works == "works")


if __name__ == "__main__":
    main()
