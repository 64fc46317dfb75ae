"""Whole clusters on this machine, started as users start them: `dev`, `demo`, `lock`, `status`.

Every test starts its own processes on free ports in its own folder, and ends them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.cli.local import HOST, LocalCluster, planned_anywhere
from cluster.client.aio import Client
from tests.cli.running import COMMAND, clean_environ, coterie, finish

READY_WITHIN_S = 60.0
DEADLINE_S = 30.0


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """Three nodes that serve; what they wrote is shown when the test fails."""
    running = LocalCluster(
        tmp_path / "cluster",
        planned_anywhere(3),
        on_line=lambda name, line: print(f"{name} | {line}"),
    )
    running.prepare()
    try:
        await running.start()
        await running.until_ready(within_s=READY_WITHIN_S)
        yield running
    finally:
        await running.stop()


def endpoints_of(cluster: LocalCluster) -> str:
    """As --endpoints takes them."""
    return ",".join(cluster.endpoints)


async def lines_until(process: asyncio.subprocess.Process, word: str) -> list[str]:
    """What a process writes up to the line with this word."""
    assert process.stdout is not None
    assert process.stderr is not None
    lines: list[str] = []
    async with asyncio.timeout(READY_WITHIN_S):
        while not lines or word not in lines[-1]:
            line = await process.stdout.readline()
            if not line:
                why = (await process.stderr.read()).decode()
                pytest.fail(f"it ended without {word!r}: {lines} {why}")
            lines.append(line.decode().rstrip())
    return lines


def free_base() -> int:
    """A port from which on a hundred are free, for a cluster with all its fronts.

    Below the range from which the kernel takes the ports of outgoing connections: one of those
    would sit on the port of a node while it is down, and it could not come back. Several runs of
    the tests on one machine begin to look at different places.
    """
    blocks = range(12_000, 20_000, 100)
    first = os.getpid() % len(blocks)
    return next(
        base
        for base in (*blocks[first:], *blocks[:first])
        if all(_is_free(base + number) for number in range(100))
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def dev_arguments(folder: Path, base: int) -> tuple[str, ...]:
    """Arguments of `coterie dev`: the HTTP API from this port on, peers and fronts behind it."""
    parts = (("--http-base", base), ("--peer-base", base + 10), ("--front-base", base + 20))
    return ("dev", "--data", str(folder), *(str(word) for part in parts for word in part))


def children_of(pid: int) -> list[int]:
    """Child processes, as the kernel tells."""
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in listing.split()]


async def until_gone(pids: list[int]) -> None:
    """Return when none of these processes is left (a zombie whose parent is gone is reaped)."""
    async with asyncio.timeout(DEADLINE_S):
        while any(Path(f"/proc/{pid}").exists() for pid in pids):
            await asyncio.sleep(0.02)


class TestDev:
    """`coterie dev`, which `make run` runs."""

    async def test_it_starts_again_with_its_data(self, tmp_path: Path) -> None:
        """URLs and lines to try are printed; the lines work, and their lock survives a restart."""
        base = free_base()
        given = dev_arguments(tmp_path / "data", base)
        async with coterie(*given) as process:
            shown = "\n".join(await lines_until(process, "Ctrl-C"))
            for number in range(3):
                assert f"http://127.0.0.1:{base + number}" in shown
            tries = [line.strip() for line in shown.splitlines() if "curl" in line]
            assert len(tries) == 3
            answers = await in_shell("\n".join(tries))
            before, granted = (json.loads(line) for line in answers)
            assert (before["cluster"], granted["name"]) == ("local", "orders")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0

        async with coterie(*given) as process:
            await lines_until(process, "Ctrl-C")
            async with Client(f"127.0.0.1:{base}") as client:
                holder = (await client.lock("orders")).holders[0]
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert (holder.session, holder.token) == (granted["session"], granted["token"])

    async def test_a_node_that_is_killed_is_told_and_can_be_started_by_hand(
        self, tmp_path: Path
    ) -> None:
        """By the command that is shown; the others go on meanwhile."""
        base = free_base()
        async with coterie(*dev_arguments(tmp_path / "data", base)) as process:
            await lines_until(process, "Ctrl-C")
            endpoints = [f"127.0.0.1:{base + number}" for number in range(3)]
            async with Client(endpoints) as client:
                leader = (await client.cluster()).leader
                victim = children_of(process.pid)[int(str(leader)[1:]) - 1]
                os.kill(victim, signal.SIGKILL)
                told = (await lines_until(process, "was ended by SIGKILL"))[-1]
                await lines_until(process, "leads, term")
                session = await client.open_session(ttl_ms=60_000)

                found = re.fullmatch(
                    rf"{leader} was .*; start it again with: .* -m cluster.cli (.*)", told
                )
                assert found is not None
                async with coterie(*shlex.split(found[1])):
                    back = endpoints[int(str(leader)[1:]) - 1]
                    async with Client(back, timeout_ms=30_000) as returned:
                        renewed = await returned.keepalive(session.session)
                    assert renewed.session == session.session

    async def test_its_nodes_do_not_outlive_it(self, tmp_path: Path) -> None:
        """Not even when it is killed."""
        base = free_base()
        async with coterie(*dev_arguments(tmp_path / "data", base)) as process:
            await lines_until(process, "Ctrl-C")
            children = children_of(process.pid)
            assert len(children) == 3
            process.kill()
            await until_gone(children)

    async def test_a_port_that_is_taken_is_named(self, tmp_path: Path) -> None:
        """With the cure, and nothing is started."""
        with socket.socket() as taken:
            taken.bind((HOST, 0))
            taken.listen()
            port = taken.getsockname()[1]
            given = dev_arguments(tmp_path / "data", port)
            code, _, err = await finish(*given)
        assert code == 1
        assert f"127.0.0.1:{port} cannot be listened on" in err
        assert "--http-base" in err


async def in_shell(script: str) -> list[str]:
    """Lines that a script of a shell writes, without empty ones."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    process = await asyncio.create_subprocess_exec(
        "sh", "-ec", script.replace("\n", "\necho\n"), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [line for line in out.decode().splitlines() if line.strip()]


async def test_the_demo_tells_its_story_and_ends() -> None:
    """All steps, exit code 0, and nothing on standard error."""
    code, out, err = await finish("demo", "--pace", "0")
    assert (code, err) == (0, "")
    for words in ("They have elected", "kill -9", "with the same token", "holds it now", "stop"):
        assert words in out


async def test_the_status_follows_the_cluster(cluster: LocalCluster) -> None:
    """Healthy, degraded when a node is killed, unreachable when all are."""
    given = ("status", "--endpoints", endpoints_of(cluster), "-o", "json")
    code, out, _ = await finish(*given)
    assert (code, json.loads(out)["health"]) == (0, "healthy")

    leader = json.loads(out)["leader"]
    cluster.signal(leader, signal.SIGKILL)
    await cluster.ended(leader)
    await cluster.until_ready(within_s=READY_WITHIN_S)
    code, out, _ = await finish(*given)
    told = json.loads(out)
    assert (code, told["health"]) == (1, "degraded")
    assert told["leader"] != leader

    await cluster.kill()
    code, out, _ = await finish(*given)
    assert (code, json.loads(out)["health"]) == (4, "unreachable")


async def test_leadership_goes_where_it_is_sent(cluster: LocalCluster) -> None:
    """`coterie transfer --to`, asked of any node."""
    state = await cluster.until_ready(within_s=READY_WITHIN_S)
    target = next(name for name in cluster.members if name != state.leader)
    given = ("transfer", "--to", target, "--endpoints", endpoints_of(cluster))
    assert await finish(*given) == (0, f"{target} leads\n", "")


async def test_a_lock_outlives_the_leader_and_its_command_notices_nothing(
    cluster: LocalCluster,
) -> None:
    """The leader is killed while the command runs: same token before and after, exit code its own."""
    script = "echo $COTERIE_TOKEN; read -r word; echo $word; exit 5"
    given = ("lock", "orders", "--ttl", "10s", "--endpoints", endpoints_of(cluster), "--")
    async with coterie(*given, "sh", "-c", script) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        token = int(await process.stdout.readline())
        state = await cluster.until_ready(within_s=READY_WITHIN_S)
        assert state.leader is not None
        cluster.signal(state.leader, signal.SIGKILL)
        await cluster.ended(state.leader)
        async with Client(cluster.endpoints, timeout_ms=30_000) as client:
            assert [holder.token for holder in (await client.lock("orders")).holders] == [token]
            process.stdin.write(b"on\n")
            process.stdin.close()
            assert await process.stdout.read() == b"on\n"
            assert await process.wait() == 5
            assert (await client.lock("orders")).holders == []


async def test_a_lock_passes_from_one_command_to_the_next(cluster: LocalCluster) -> None:
    """The waiter's command starts when the holder's has ended, with a larger token."""
    given = ("lock", "orders", "--endpoints", endpoints_of(cluster), "--", "sh", "-c")
    hold = "echo $COTERIE_TOKEN; read -r word"
    async with coterie(*given, hold) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        token = int(await first.stdout.readline())
        async with coterie(*given, "echo $COTERIE_TOKEN") as second:
            assert second.stdout is not None
            async with Client(cluster.endpoints) as client, asyncio.timeout(DEADLINE_S):
                while not (await client.lock("orders")).waiters:
                    await asyncio.sleep(0.02)
            first.stdin.close()
            assert int(await second.stdout.readline()) > token
            assert await second.wait() == 0


async def test_without_the_cluster_the_command_is_ended_before_its_ttl(
    cluster: LocalCluster,
) -> None:
    """All nodes are killed: the command is told to end, then killed; the exit code says so."""
    script = "trap '' TERM; echo ready; while :; do sleep 0.02; done"
    given = ("lock", "orders", "--ttl", "2s", "--endpoints", endpoints_of(cluster), "--")
    async with coterie(*given, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.readline() == b"ready\n"
        await cluster.kill()
        told = (await process.stderr.read()).decode()
        assert await process.wait() == 76
    assert told.index("is told to end") < told.index("is killed")


def test_the_commands_of_these_tests_are_the_users() -> None:
    """They run the package that is tested, without settings of whoever runs the tests."""
    assert COMMAND[1:] == ("-m", "cluster.cli")
    assert not [key for key in clean_environ() if key.startswith("COTERIE_")]
