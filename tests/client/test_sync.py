"""What is of the sync shell alone: threads, forks, the background loop."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest

from cluster.client.aio import Client, now_ms
from cluster.client.sync import SyncClient, SyncSession
from cluster.client.sync.portal import Portal
from cluster.errors import LockLost
from cluster.testing import VirtualCluster
from cluster.testing.place import Place, running_place

T = TypeVar("T")

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    """A cluster of one."""
    async with running_place() as place:
        yield place


async def in_thread(call: Callable[..., T], *args: object) -> T:
    """Run it beside the server's loop, in a thread of its own that ends with it."""
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.get_running_loop().run_in_executor(pool, call, *args)


def client_threads() -> int:
    """Background threads of clients."""
    return sum(thread.name == "coterie client" for thread in threading.enumerate())


async def test_many_threads_use_one_client(place: Place) -> None:
    """Each increment is under the lock; none is lost."""
    count = 0

    def work(client: SyncClient) -> None:
        nonlocal count
        with client.session() as session:
            for _ in range(3):
                with session.lock("count", wait="1m"):
                    seen = count
                    session.explain()
                    count = seen + 1

    with SyncClient(place.endpoint) as client:
        await asyncio.gather(*(in_thread(work, client) for _ in range(4)))
    assert count == 12
    assert client_threads() == 0


async def test_threads_of_one_session_take_turns(place: Place) -> None:
    """To the cluster they are one."""
    inside = 0

    def work(session: SyncSession) -> None:
        nonlocal inside
        with session.lock("orders", wait="1m") as lock:
            inside += 1
            assert inside == 1
            lock.check()
            inside -= 1

    def run() -> None:
        with SyncClient(place.endpoint) as client, client.session() as session:
            threads = [threading.Thread(target=work, args=(session,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    await in_thread(run)


async def test_a_session_is_lost_with_its_thread(place: Place) -> None:
    """Nobody renews for a thread that ended, although the client lives."""
    told = threading.Event()

    def open_and_leave(client: SyncClient) -> SyncSession:
        return client.session(ttl="1s", on_state=lambda standing: told.set()).open()

    with SyncClient(place.endpoint) as client:
        session = await in_thread(open_and_leave, client)
        assert session.state == "lost"
        assert await in_thread(told.wait, 30)
        with pytest.raises(LockLost, match="the thread that owned it has ended"):
            _ = session.token


async def test_a_forked_child_starts_afresh(place: Place) -> None:
    """What the parent holds is lost to it, and stays the parent's; the client works in both."""

    def run() -> None:
        reading, writing = os.pipe()
        with (
            SyncClient(place.endpoint) as client,
            client.session() as session,
            session.lock("orders") as lock,
        ):
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    os.write(writing, in_child(client, session).encode())
                os._exit(0)
            os.waitpid(pid, 0)
            os.close(writing)
            assert os.read(reading, 1_000).decode() == "lost; own"
            os.close(reading)
            assert lock.check()

    def in_child(client: SyncClient, session: SyncSession) -> str:
        said = session.state
        session.close()
        with client.session() as own, own.lock("of the child") as lock:
            said += "; own" if lock.token else ""
        client.close()
        return said

    await in_thread(run)


async def test_a_client_that_nobody_closed_ends_its_thread(place: Place) -> None:
    """Once nobody refers to it; nobody renews its sessions."""

    def run() -> None:
        client = SyncClient(place.endpoint)
        client.session().open()
        assert client_threads() == 1
        del client
        gc.collect()

    await in_thread(run)
    while client_threads():
        await asyncio.sleep(0.01)


async def test_a_closed_client_says_so(place: Place) -> None:
    """And leaves no coroutine behind that was never awaited."""
    client = SyncClient(place.endpoint)
    await in_thread(client.cluster)
    await in_thread(client.close)
    await in_thread(client.close)
    with pytest.raises(RuntimeError, match="closed"):
        client.cluster()


async def test_a_callback_cannot_wait_for_its_own_thread(place: Place) -> None:
    """It would wait for ever; it is told instead."""
    raised: list[str] = []

    def run() -> None:
        told = threading.Event()

        def on_state(standing: str) -> None:
            try:
                client.cluster()
            except RuntimeError as error:
                raised.append(str(error))
            told.set()

        with SyncClient(place.endpoint) as client:
            session = client.session(ttl="1s", on_state=on_state).open()
            with SyncClient(place.endpoint) as other:
                other._run(other._inner.close_session(session.id))
            told.wait(30)

    await in_thread(run)
    assert "it would wait for itself" in raised[0]


@pytest.mark.parametrize("wakes", [True, False], ids=["while it waits", "just before it waits"])
def test_an_interrupt_cancels_what_is_run(wakes: bool) -> None:
    """A real signal, in the main thread.

    One that comes between the interpreter's last look for signals and its wait for a lock wakes
    nobody up. `interrupt_main` is just that: noted, and nothing woken.
    """
    portal = Portal()
    began, ended = threading.Event(), threading.Event()

    async def run() -> None:
        began.set()
        try:
            await asyncio.sleep(3_600)
        finally:
            ended.set()

    def interrupt() -> None:
        main = threading.main_thread().ident
        assert main is not None
        began.wait()
        # Once it waits; before that, an interrupt is of nothing that is run.
        while sys._current_frames()[main].f_code.co_name != "wait":
            pass
        if wakes:
            signal.pthread_kill(main, signal.SIGINT)
        else:
            _thread.interrupt_main()

    interrupting = threading.Thread(target=interrupt)
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        portal.run(run())
    assert ended.wait(30)
    interrupting.join()
    portal.close()


def test_an_interrupt_in_the_moment_of_the_grant_leaves_nothing_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asked does not know of it, and nobody would give it back as long as the session lives."""
    with VirtualCluster() as coterie, coterie.sync_client() as client:
        session = client.session().open()
        done = Future.exception

        def interrupt(future: Future[int], timeout: float | None = None) -> None:
            done(future, 30)
            monkeypatch.undo()
            raise KeyboardInterrupt

        monkeypatch.setattr(Future, "exception", interrupt)
        lock = session.lock("orders")
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
        assert lock.state == "free"
        assert client.lock("orders").holders == []


def test_a_timeout_of_what_is_run_is_its_own() -> None:
    """The portal looks for signals while it waits, and takes no error for the end of a look."""
    portal = Portal()

    async def run() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        portal.run(run())
    portal.close()


def test_a_callback_that_would_end_the_program_ends_nothing() -> None:
    """It is called in the background thread, whose loop is there for others, too."""
    told: list[str] = []

    def on_state(standing: str) -> None:
        told.append(standing)
        sys.exit(3)

    with VirtualCluster() as coterie, coterie.sync_client() as client:
        session = client.session(on_state=on_state).open()
        coterie.cut(client)
        coterie.advance("8s")
        coterie.heal(client)
        assert client.lock("orders").holders == []
        with session.lock("orders") as lock:
            assert lock.check()
    assert told == ["grace", "held"]


async def test_a_handler_must_be_no_coroutine_function(place: Place) -> None:
    """It would be made and never awaited."""

    async def handle(job: object) -> None:
        """What belongs to the other client."""

    with SyncClient(place.endpoint) as client:
        with pytest.raises(TypeError, match="asyncio Client"):
            client.worker("t", handle=handle)
        with pytest.raises(TypeError, match="asyncio Client"):
            client.runner("p").task(handle)


async def test_a_leader_in_a_thread_leads_until_stopped(place: Place) -> None:
    """Elected, deposed, and through before the next stand."""
    told: list[str] = []

    def run() -> None:
        with SyncClient(place.endpoint) as client:
            election = client.election(
                "group",
                on_elected=lambda token: told.append("elected"),
                on_deposed=lambda token: told.append("deposed"),
            )

            def lead(leading: object) -> None:
                leader = election.leader()
                assert leader is not None
                told.append("leads")

            election.run(lead)

    await in_thread(run)
    assert told == ["elected", "leads", "deposed"]


async def test_what_is_begun_while_the_client_closes_is_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for a loop that has ended, and no coroutine is left unawaited."""
    client = SyncClient(place.endpoint)
    await in_thread(client.cluster)
    begin = asyncio.run_coroutine_threadsafe
    closing: list[threading.Thread] = []

    def begin_late(doing: Any, loop: asyncio.AbstractEventLoop) -> Any:
        closing.append(threading.Thread(target=client.close))
        closing[0].start()
        # Either it is through by now, or it waits for us.
        closing[0].join(0.2)
        return begin(doing, loop)

    monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", begin_late)
    try:
        await asyncio.wait_for(in_thread(client.cluster), 30)
    except RuntimeError as error:
        assert str(error) == "the client was closed meanwhile"
    await asyncio.to_thread(closing[0].join)


async def test_a_fork_while_another_thread_is_inside_leaves_the_child_a_way_in(
    place: Place,
) -> None:
    """The lock that the other thread held is nobody's to give back there."""

    def run() -> None:
        client = SyncClient(place.endpoint)
        client.cluster()
        inside, may_leave = threading.Event(), threading.Event()

        def be_inside() -> None:
            with client._portal._lock:
                inside.set()
                may_leave.wait(30)

        thread = threading.Thread(target=be_inside)
        thread.start()
        inside.wait(30)
        pid = os.fork()
        if pid == 0:
            with contextlib.suppress(BaseException):
                signal.alarm(20)
                client.close()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(pid, 0)
        may_leave.set()
        thread.join()
        client.close()
        assert os.waitstatus_to_exitcode(status) == 0

    await in_thread(run)


async def test_a_stop_before_the_start_is_heard(place: Place) -> None:
    """As from a signal's handler that came early; also while this very thread is inside."""

    def run() -> None:
        with SyncClient(place.endpoint) as client:
            worker = client.worker("t", handle=lambda job: None)
            with client._portal._lock:
                worker.stop()
            worker.run()

    await asyncio.wait_for(in_thread(run), 60)


async def test_a_session_belongs_to_the_thread_that_opens_it(place: Place) -> None:
    """Not to the one that made it, which may live for longer."""
    with SyncClient(place.endpoint) as client:
        session = client.session(ttl="1s")
        await in_thread(session.open)
        assert session.state == "lost"
        with pytest.raises(LockLost, match="the thread that owned it has ended"):
            _ = session.token


async def test_a_client_closed_by_another_thread_is_a_loss(place: Place) -> None:
    """To who is inside of a `with`; not an error about the client on top of it."""
    inside = threading.Event()
    closed = threading.Event()

    def work(client: SyncClient) -> None:
        with client.session() as session, session.lock("orders") as lock:
            inside.set()
            closed.wait(30)
            _ = lock.token

    client = SyncClient(place.endpoint)
    working = asyncio.create_task(in_thread(work, client))
    await asyncio.to_thread(inside.wait, 30)
    await in_thread(client.close)
    closed.set()
    with pytest.raises(LockLost):
        await working


LEFT_OPEN = """
import sys
from cluster import SyncClient

client = SyncClient(sys.argv[1])
session = client.session(ttl="1h", owner="process").open()
session.lock("left").acquire()
watching = client.watch("/locks/")
print("ready", flush=True)
if sys.argv[2] == "watching":
    next(watching)
"""


@pytest.mark.parametrize("how", ["idle", "watching"])
async def test_a_program_that_forgets_to_close_ends_and_gives_back(place: Place, how: str) -> None:
    """Its locks are free although their TTL is an hour; a watch that was begun is no obstacle."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", LEFT_OPEN, place.endpoint, how),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"

    async def something_happens() -> None:
        async with Client(place.endpoint) as client:
            while True:
                async with client.session() as session, session.lock("other"):
                    await asyncio.sleep(0.01)

    happening = asyncio.create_task(something_happens())
    _, said = await asyncio.wait_for(process.communicate(), 60)
    happening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await happening
    assert (process.returncode, said) == (0, b"")
    async with Client(place.endpoint) as client:
        while (await client.lock("left")).holders:
            await asyncio.sleep(0.01)


def test_its_loop_is_the_one_that_the_program_uses() -> None:
    """Also uvloop's, where the program has chosen it; nothing is left to warn of."""
    pytest.importorskip("uvloop")
    program = """
import asyncio, logging, warnings
# What takes long on a busy machine is no matter here.
logging.getLogger("asyncio").setLevel(logging.ERROR)
# From 3.14 on, the choice itself is warned of.
warnings.filterwarnings("ignore", "'asyncio.*[Pp]olicy' is deprecated", DeprecationWarning)
import uvloop
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
from cluster import Definite, SyncClient
from cluster.client.core import Policy
for _ in range(3):
    with SyncClient("127.0.0.1:1", policy=Policy(attempts_max=1)) as client:
        try:
            client.cluster()
        except Definite as error:
            print(error.code, type(client._portal._running.loop).__module__)
"""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", program],
        capture_output=True,
        check=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        timeout=60,
    )
    assert done.stdout.split() == [b"unreachable", b"uvloop"] * 3
    assert done.stderr == b""


async def test_a_loss_is_told_to_who_found_it_first(place: Place) -> None:
    """The thread asks the clock before the timer does: the callbacks are called all the same."""
    told: list[str] = []
    ahead_ms = 0

    def use(client: SyncClient) -> None:
        nonlocal ahead_ms
        with (
            client.session(on_state=lambda standing: told.append(standing)) as session,
            session.lock("a", on_state=lambda standing: told.append(f"lock {standing}")) as lock,
        ):
            ahead_ms = 60_000
            _ = lock.token

    def run() -> None:
        with (
            SyncClient(place.endpoint, clock=lambda: now_ms() + ahead_ms) as client,
            pytest.raises(LockLost),
        ):
            use(client)

    await in_thread(run)
    assert told == ["lost", "lock lost"]
