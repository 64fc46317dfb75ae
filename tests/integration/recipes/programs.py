"""Programs of the recipes, run as their readers run them: in processes of their own.

RULE: starts processes and ends them with the block, whatever happens; says nothing of what must be
so.

Each program is the leader of a process group, and has a file for what it writes. Its warnings are
its own: the filters of this test run are not in force there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from jepsen.progress import progress, until

from tests.integration.cluster import NAMES, Cluster

ROOT = Path(__file__).parents[3]
RECIPES = ROOT / "docs" / "recipes"
# What of a program's output is shown where a test fails.
TAIL = 6_000


class Program:
    """A program that runs, with all that it has started in its group.

    Attributes:
        name: for people.
        pid: of the first process, and of the group.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path):
        self.name = name
        self.pid = process.pid
        self._process = process
        self._log = log

    @property
    def said(self) -> str:
        """All that it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def is_running(self) -> bool:
        """Its first process has not ended."""
        return self._process.returncode is None

    def signal(self, number: int) -> None:
        """Send a signal to its first process."""
        self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to all of its group, as a terminal or a service manager does."""
        os.killpg(self.pid, number)

    async def ended(self) -> int:
        """Wait until its first process has ended; its exit code."""
        code = await self._process.wait()
        progress.mark()
        return code

    async def until_said(self, pattern: str) -> re.Match[str]:
        """Wait until what it has written matches."""

        async def found() -> re.Match[str] | None:
            match = re.search(pattern, self.said)
            if match is None and not self.is_running:
                raise AssertionError(f"{self.name} ended before it said {pattern!r}")
            return match

        match = await until(found, f"{pattern!r} of {self.name}")
        progress.mark()
        return match

    async def end(self) -> None:
        """End the whole group by force, and wait until nobody of it is left."""
        self._kill_group()
        await self._process.wait()

        async def is_gone() -> bool:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                return True
            return False

        await until(is_gone, f"the end of {self.name}")

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Programs:
    """Runs programs of one recipe against one cluster.

    Args:
        recipe: its folder, in which they run.
        folder: for what they write.
    """

    def __init__(self, cluster: Cluster, recipe: str, folder: Path):
        self.folder = folder
        self.endpoints = ",".join(cluster.members[name].url for name in NAMES)
        self._home = RECIPES / recipe
        self._shims = folder / "bin"
        self._running: list[Program] = []

    async def __aenter__(self) -> Programs:
        self._shims.mkdir()
        # As an installed distribution has it, of this very tree.
        self.install("coterie", f'exec "{sys.executable}" -m cluster.cli "$@"')
        return self

    async def __aexit__(self, *_: object) -> None:
        for program in reversed(self._running):
            await program.end()
            print(f"--- {program.name} said:\n{program.said[-TAIL:]}")

    def install(self, name: str, script: str) -> None:
        """Put a command on the path of the programs."""
        shim = self._shims / name
        shim.write_text(f"#!/bin/sh\n{script}\n")
        shim.chmod(0o755)

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        """Ours without settings of Coterie, with the way to the cluster and these."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("COTERIE_")}
        return {
            **kept,
            "COTERIE_ENDPOINTS": self.endpoints,
            "PATH": f"{self._shims}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            # The folders of the recipes are to stay as they are.
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.folder),
            **more,
        }

    async def start(self, name: str, *words: str | Path, **environ: str) -> Program:
        """Start a program; it ends with the block at the latest.

        Args:
            words: the command; `python` is the one that runs the tests.
        """
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable if word == "python" else str(word) for word in words),
                cwd=self._home,
                env=self.environ(environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=file,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(name, process, log)
        self._running.append(program)
        return program

    async def finish(self, name: str, *words: str | Path, **environ: str) -> tuple[int, str]:
        """Run a program to its end; its exit code, and what it wrote."""
        program = await self.start(name, *words, **environ)
        return await program.ended(), program.said


async def asked(
    http: aiohttp.ClientSession, method: str, url: str, **more: Any
) -> tuple[int, dict[str, Any]]:
    """Status and body of an answer; where a program says "later" (409, 503), it is asked again."""
    while True:
        async with http.request(method, url, **more) as response:
            body = await response.json()
            if response.status not in {409, 503}:
                return response.status, body
            assert response.headers["Retry-After"] == "1"


def module(name: str, *words: str) -> Sequence[str]:
    """The words that run a Python module, which may have no script on the path."""
    return ("python", "-m", name, *words)


@contextlib.asynccontextmanager
async def running(cluster: Cluster, recipe: str, folder: Path) -> AsyncIterator[Programs]:
    """Programs of a recipe against a cluster that is whole."""
    await cluster.make_whole()
    async with Programs(cluster, recipe, folder) as programs:
        yield programs
