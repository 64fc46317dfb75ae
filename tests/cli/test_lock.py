"""`coterie lock` with real processes, against a small server that a test can make fail."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from tests.cli.machine import serving
from tests.cli.running import clean_environ, coterie, finish, seen_at
from tests.client.small_server import SmallServer, problem

READY = "echo ready; "
# Runs until its standard input ends.
UNTIL_EOF = (READY + "read -r line; echo got $line",)


def arguments(server: SmallServer, *script: str, ttl: str = "1s", wait: str = "30s") -> list[str]:
    """Arguments that run a shell script under the lock "a/b"."""
    options = ["--ttl", ttl, "--wait", wait, "--endpoints", server.endpoint]
    return ["lock", "a/b", *options, "--", "sh", "-c", *script]


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that the command wrote."""
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def rest_of(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    """Exit code and what else was written, once all who could write have ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
    return await process.wait(), out.decode(), err.decode()


class TestCommand:
    """What the command gets, and what becomes of its end."""

    async def test_the_command_runs_under_the_lock_and_is_told_the_token(self) -> None:
        """Its environment names lock, session, token and cluster; then the lock is free again."""
        script = 'echo "$COTERIE_LOCK $COTERIE_SESSION $COTERIE_TOKEN $COTERIE_ENDPOINTS"; exit 7'
        async with SmallServer() as server:
            code, out, err = await finish(*arguments(server, script))
            assert out == f"a/b 1-s 2 http://{server.endpoint}\n"
            assert (code, err) == (7, "")
            assert server.locks["a/b"].holder is None
            assert not server.sessions
            assert server.count("POST", "/release") == 1

    async def test_a_command_that_dies_of_a_signal_is_told_as_a_shell_does(self) -> None:
        """128 and the signal."""
        async with SmallServer() as server:
            code, _, _ = await finish(*arguments(server, "kill -KILL $$"))
        assert code == 128 + signal.SIGKILL

    async def test_the_session_is_renewed_while_the_command_runs(self) -> None:
        """Standard input is the command's own."""
        async with SmallServer() as server, coterie(*arguments(server, *UNTIL_EOF)) as process:
            await server.until_seen("POST", "/keepalive", times=3)
            assert process.stdin is not None
            process.stdin.write(b"word\n")
            process.stdin.close()
            code, out, err = await rest_of(process)
        assert (code, out, err) == (0, "ready\ngot word\n", "")

    @pytest.mark.parametrize(
        ("command", "code", "said"),
        [("/no/such/command", 127, "no such command"), ("/etc", 126, "cannot be run")],
    )
    async def test_a_command_that_cannot_be_run_gives_the_lock_back(
        self, command: str, code: int, said: str
    ) -> None:
        """With the exit codes of a shell."""
        async with SmallServer() as server:
            given = ("lock", "a", "--endpoints", server.endpoint, "--", command)
            found, _, err = await finish(*given)
            assert (found, said in err) == (code, True)
            assert server.locks["a"].holder is None
            assert not server.sessions


class TestWaiting:
    """Before the command runs."""

    async def test_a_lock_that_is_held_is_explained(self) -> None:
        """Who holds it, and an exit code of its own; the command does not run."""
        async with SmallServer() as server:
            server.hold("a/b", "somebody")
            code, out, err = await finish(*arguments(server, "echo ran", wait="0"))
            assert (code, out) == (75, "")
            assert 'lock "a/b" is held by session somebody for 5 ms; 0 wait for it' in err
            assert not server.sessions

    async def test_whoever_holds_a_lock_is_told_by_name(self) -> None:
        """As sessions have names for people, and `coterie lock` gives them host and process."""
        with serving() as endpoint:
            words = ("--endpoints", endpoint)
            opened = await finish("sessions", "open", "--name", "web-2", "-o", "name", *words)
            session = opened[1].strip()
            await finish("locks", "acquire", "a", "--session", session, *words)
            code, out, err = await finish("lock", "a", "--wait", "0", *words, "--", "true")
        assert (code, out) == (75, "")
        assert f'lock "a" is held by session {session} (web-2) for ' in err

    async def test_a_quiet_one_leaves_a_held_lock_without_a_word(self) -> None:
        """For cron, which mails every line; all that is not a matter of course is told as ever."""
        async with SmallServer() as server:
            server.hold("a/b", "somebody")
            given = arguments(server, "echo ran", wait="0")
            assert await finish(given[0], "--quiet", *given[1:]) == (75, "", "")
        code, _, err = await finish(given[0], "-q", "--reach", "100ms", *given[1:])
        assert code == 69
        assert "cannot be reached" in err

    async def test_the_lock_is_waited_for(self) -> None:
        """The command runs when it is passed on; meanwhile the session is renewed."""
        async with SmallServer() as server:
            server.hold("a/b")
            async with coterie(*arguments(server, "echo ran")) as process:
                await server.until_seen("POST", "/keepalive", times=2)
                assert server.locks["a/b"].waiters
                server.pass_on(server.locks["a/b"])
                assert await rest_of(process) == (0, "ran\n", "")

    async def test_a_signal_while_waiting_leaves_the_queue(self) -> None:
        """The session is closed, and the exit code is the signal's."""
        async with SmallServer() as server:
            server.hold("a/b")
            async with coterie(*arguments(server, "echo ran")) as process:
                await server.until_seen("POST", "/acquire")
                process.send_signal(signal.SIGTERM)
                code, out, _ = await rest_of(process)
            assert (code, out) == (128 + signal.SIGTERM, "")
            assert not server.sessions

    async def test_a_session_lost_while_waiting_runs_nothing(self) -> None:
        """Another may hold what it would have got."""
        async with SmallServer() as server:
            server.hold("a/b")
            async with coterie(*arguments(server, "echo ran")) as process:
                await server.until_seen("POST", "/acquire")
                server.sessions.clear()
                code, out, err = await rest_of(process)
        assert (code, out) == (76, "")
        assert "session_expired" in err

    async def test_a_cluster_out_of_reach_has_its_own_exit_code(self) -> None:
        """The message names the endpoint."""
        async with SmallServer() as server:
            given = arguments(server, "echo ran")
        code, out, err = await finish(*given[:2], "--reach", "100ms", *given[2:])
        assert (code, out) == (69, "")
        assert f"the cluster cannot be reached: http://{server.endpoint}" in err


class TestSignals:
    """Signals are the command's while it runs."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
    async def test_signals_are_passed_on(self, number: signal.Signals) -> None:
        """The command decides what to do with them."""
        script = (
            f"trap 'echo caught; exit 9' {number.name[3:]}; {READY} while :; do sleep 0.02; done"
        )
        async with SmallServer() as server, coterie(*arguments(server, script)) as process:
            assert await line_of(process) == "ready"
            process.send_signal(number)
            assert (await rest_of(process))[:2] == (9, "caught\n")

    async def test_the_command_does_not_outlive_us(self) -> None:
        """When we are killed, the kernel kills it; the lock is left to the TTL."""
        async with SmallServer() as server:
            async with coterie(*arguments(server, READY + "exec sleep 600")) as process:
                assert await line_of(process) == "ready"
                process.kill()
                # The pipe ends when the last process that holds it is gone.
                assert (await rest_of(process))[0] == -signal.SIGKILL
            assert server.locks["a/b"].holder is not None

    async def test_at_a_terminal_the_command_is_the_one_that_is_talked_to(self) -> None:
        """It reads from it, Ctrl-C reaches it alone, Ctrl-Z does not stop it."""
        script = (
            "trap 'echo caught; exit 9' INT; read -r l; echo got $l; while :; do sleep 0.02; done"
        )
        ours, theirs = pty.openpty()

        def begin_session() -> None:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        try:
            async with (
                SmallServer() as server,
                coterie(
                    *arguments(server, script),
                    stdin=theirs,
                    stdout=theirs,
                    stderr=theirs,
                    preexec_fn=begin_session,
                ) as process,
            ):
                await server.until_seen("POST", "/keepalive")
                os.write(ours, b"word\n")
                await seen_at(ours, b"got word")
                os.write(ours, b"\x1a")
                os.write(ours, b"\x03")
                await seen_at(ours, b"caught")
                assert await process.wait() == 9
        finally:
            os.close(ours)
            os.close(theirs)


class TestLoss:
    """The command ends before another can hold the lock."""

    async def test_a_session_reported_lost_kills_the_command_and_its_children(self) -> None:
        """At once and by force, as another may hold the lock already."""
        script = "trap '' TERM; " + READY + "(trap '' TERM; while :; do sleep 0.02; done)"
        async with SmallServer() as server, coterie(*arguments(server, script)) as process:
            assert await line_of(process) == "ready"
            server.expire(next(iter(server.sessions)))
            code, _, err = await rest_of(process)
        assert code == 76
        assert 'lock "a/b" is lost: session_expired' in err

    async def test_a_lock_that_somebody_gave_back_kills_the_command(self) -> None:
        """Though the session lives on: the token is asked after with each renewal."""
        script = READY + "exec sleep 600"
        async with SmallServer() as server, coterie(*arguments(server, script)) as process:
            assert await line_of(process) == "ready"
            server.pass_on(server.locks["a/b"])
            code, _, err = await rest_of(process)
        assert code == 76
        assert "token 2 holds it no more" in err

    async def test_failing_renewals_are_tried_again(self) -> None:
        """The command does not notice, people do."""
        async with SmallServer() as server:
            failures = iter(range(2))

            async def gate(path: str) -> web.Response | None:
                is_failing = path.endswith("keepalive") and next(failures, None) is not None
                return web.Response(status=500) if is_failing else None

            server.gate = gate
            async with coterie(*arguments(server, *UNTIL_EOF, ttl="4s")) as process:
                await server.until_seen("POST", "/keepalive", times=4)
                assert process.stdin is not None
                process.stdin.close()
                code, _, err = await rest_of(process)
        assert code == 0
        assert "is not renewed: " in err
        assert "is renewed again" in err

    @pytest.mark.parametrize("fault", ["silent", "down", "no_leader"])
    async def test_without_renewals_the_command_ends_before_the_ttl_does(
        self, fault: str, tmp_path: Path
    ) -> None:
        """First it is asked to, then it is killed, all before the TTL from the last renewal."""
        # Held open by the command's group alone: it ends with the last process of it.
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        script = f"exec >{pipe}; trap 'echo told' TERM; {READY} while :; do sleep 0.02; done"
        loop = asyncio.get_running_loop()
        renewed_at = 0.0
        async with SmallServer() as server:

            async def gate(path: str) -> web.Response | None:
                nonlocal renewed_at
                if path.endswith("keepalive") and server.count("POST", "keepalive") <= 1:
                    renewed_at = loop.time()
                elif path.endswith("keepalive") and fault == "silent":
                    await asyncio.Event().wait()
                elif path.endswith("keepalive"):
                    return problem(503, "no_leader")
                return None

            server.gate = gate
            async with (
                coterie(*arguments(server, script, ttl="4s")) as process,
                reading(pipe) as written,
            ):
                assert await written.readline() == b"ready\n"
                await server.until_seen("POST", "/keepalive", times=2)
                if fault == "down":
                    await server.stop()
                assert await written.readline() == b"told\n"
                assert await written.read() == b""
                # The one thing about time that is promised, with a tenth of the TTL to spare.
                assert loop.time() < renewed_at + 4.0
                code, _, err = await rest_of(process)
        assert code == 76
        assert "the command is told to end" in err
        assert "the command is killed" in err


@contextlib.asynccontextmanager
async def reading(pipe: Path) -> AsyncIterator[asyncio.StreamReader]:
    """What others write to a named pipe."""
    loop = asyncio.get_running_loop()
    opened = await loop.run_in_executor(None, pipe.open, "rb")
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), opened
    )
    try:
        yield reader
    finally:
        transport.close()


class TestArguments:
    """Wrong use is told before anything is asked of the cluster."""

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (("lock",), "Missing argument 'NAME'"),
            (("lock", "a"), "Missing argument 'COMMAND...'"),
            (("lock", "a", "--wait", "soon", "--", "true"), '"soon" is no duration'),
            (("lock", "a", "sh", "-c", "echo"), "write -- before the command, so that its options"),
            (("lock", "a", "--wait", "0", "grep", "-q", "x"), "its own: … -- grep -q …"),
            (("lock", "a", "ls", "-h"), "write -- before the command"),
            (("jobs", "work", "mail", "sort", "-n"), "its own: … -- sort -n …"),
            (("lock", "a", "--ttl", "10ms", "--", "true"), "use 1s to 30d"),
            (("lock", "a", "--endpoints", "here", "--", "true"), '"here" is no endpoint'),
        ],
    )
    async def test_wrong_arguments_end_with_2(self, given: tuple[str, ...], said: str) -> None:
        """And with a sentence on standard error."""
        code, _, err = await finish(*given)
        assert code == 2
        assert said in err

    async def test_a_command_without_options_needs_no_dashes(self) -> None:
        """Ours stand before it then."""
        async with SmallServer() as server:
            given = ("lock", "-q", "a", "--endpoints", server.endpoint, "echo", "ran")
            assert await finish(*given) == (0, "ran\n", "")

    async def test_endpoints_come_from_the_environment_too(self) -> None:
        """COTERIE_ENDPOINTS, for those who ask one cluster often."""
        async with SmallServer() as server:
            environ = clean_environ(COTERIE_ENDPOINTS=server.endpoint)
            assert (await finish("lock", "a", "--", "true", environ=environ))[0] == 0


def test_the_command_line_starts_without_heavy_libraries() -> None:
    """Help is felt: aiohttp, structlog and the node are loaded by who needs them."""
    import subprocess

    script = (
        "import sys; from cluster.cli import main; import cluster.cli.lock, cluster.cli.serve\n"
        "print(*(m for m in ('aiohttp', 'structlog', 'cluster.app') if m in sys.modules))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
