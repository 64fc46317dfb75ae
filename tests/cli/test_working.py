"""`coterie jobs work` with real processes: what a command gets, and what becomes of its job."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import SyncClient
from tests.cli.machine import Shell, serving
from tests.cli.running import coterie, finish


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell before a machine."""
    with serving() as endpoint:
        yield Shell(endpoint, tmp_path)


def work(shell: Shell, *words: str) -> list[str]:
    """Arguments that work the tube "mail" off."""
    return ["jobs", "work", "mail", "--endpoints", shell.endpoint, *words]


def run(*words: str) -> tuple[int, str, str]:
    """Run `coterie` in a process of its own; exit code, output, errors."""
    return asyncio.run(finish(*words))


def counts(shell: Shell) -> list[str]:
    """How many jobs of "mail" are ready, delayed, reserved and buried."""
    return shell.line("coterie jobs tubes").out.split("\t")[1:5]


def test_each_job_gets_its_command_and_is_done_then(shell: Shell) -> None:
    """The body in its input, the rest in its environment; 0 ends the job."""
    shell.run("jobs", "put", "mail", "one\n")
    shell.run("jobs", "put", "mail", stdin=b"\xff\n")
    script = 'echo "$COTERIE_JOB $COTERIE_TUBE $COTERIE_ATTEMPT"; od -An -tx1'
    code, out, err = run(*work(shell, "--count", "2", "--", "sh", "-c", script))
    assert (code, err) == (0, "")
    assert out.split("\n")[:4] == ["1 mail 1", " 6f 6e 65 0a", "2 mail 1", " ff 0a"]
    assert shell.line("coterie jobs peek mail").code == 1


def test_a_body_of_other_kinds_is_read_as_json(shell: Shell) -> None:
    """As a program put it."""
    with SyncClient(shell.endpoint) as client:
        client.tube("mail").put({"to": ["ann", "bö"]})
    code, out, _ = run(*work(shell, "--count", "1", "--", "cat"))
    assert (code, out) == (0, '{"to": ["ann", "bö"]}')


def test_a_command_that_fails_gives_its_job_back_or_buries_it(shell: Shell) -> None:
    """With a rest before the next attempt."""
    shell.run("jobs", "put", "mail", "one")
    code, _, err = run(*work(shell, "--count", "1", "--", "sh", "-c", "exit 3"))
    assert (code, err) == (0, "job 1: the command ended with exit code 3\n")
    assert counts(shell) == ["0", "1", "0", "0"]
    shell.run("jobs", "kick", "1")
    failing = ("--count", "1", "--on-error", "bury", "--", "false")
    assert (run(*work(shell, *failing)))[0] == 0
    assert counts(shell) == ["0", "0", "0", "1"]


def test_a_command_that_cannot_be_run_ends_the_work(shell: Shell) -> None:
    """One job was tried, and is not lost."""
    shell.run("jobs", "put", "mail", "one", "two")
    code, _, err = run(*work(shell, "--", "/nowhere/to/be/found"))
    assert (code, "/nowhere/to/be/found: No such file" in err) == (2, True)
    assert counts(shell) == ["1", "1", "0", "0"]


def test_a_first_signal_lets_the_command_come_to_its_end(shell: Shell) -> None:
    """Its job is done, and no other is begun."""
    shell.run("jobs", "put", "mail", "one", "two")
    os.mkfifo(shell.folder / "go")

    async def interrupted() -> int:
        script = f"echo begun; read -r line < {shell.folder}/go"
        async with coterie(*work(shell, "--", "sh", "-c", script)) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread((shell.folder / "go").write_text, "on\n")
            return await process.wait()

    assert asyncio.run(interrupted()) == 0
    assert counts(shell) == ["1", "0", "0", "0"]


def test_a_second_signal_kills_the_command_and_gives_its_job_back(shell: Shell) -> None:
    """At once, whatever it is at."""
    shell.run("jobs", "put", "mail", "one")

    async def interrupted() -> int:
        script = "trap '' TERM INT; echo begun; exec sleep 600"
        async with coterie(*work(shell, "--", "sh", "-c", script)) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"begun\n"
            process.send_signal(signal.SIGTERM)
            # Another one, as two of a kind may come as one.
            process.send_signal(signal.SIGINT)
            return await process.wait()

    assert asyncio.run(interrupted()) == 130
    assert counts(shell) == ["1", "0", "0", "0"]


def test_nobody_there_is_told_at_the_start(tmp_path: Path) -> None:
    """Before anything is reserved."""
    with serving() as endpoint:
        pass
    words = work(Shell(endpoint, tmp_path), "--timeout", "1s", "--", "true")
    assert (run(*words))[0] == 4


def test_a_command_does_not_outlive_its_reservation(tmp_path: Path) -> None:
    """The cluster is gone, so the job cannot be touched: its command is killed before its time."""

    async def lost(endpoint: str, stop: contextlib.ExitStack) -> str:
        words = ("jobs", "work", "mail", "--endpoints", endpoint, "--", "sh", "-c")
        async with coterie(*words, "echo begun; exec sleep 600") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert await process.stdout.readline() == b"begun\n"
            await asyncio.to_thread(stop.close)
            told = await process.stderr.readline()
            return told.decode()

    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(serving())
        Shell(endpoint, tmp_path).run("jobs", "put", "mail", "one", "--ttr", "1s")
        assert asyncio.run(lost(endpoint, stack)) == "job 1 is lost, its command was killed\n"
