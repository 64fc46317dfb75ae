"""A shell that runs the examples of a page, one after another.

RULE: runs what it is given and returns what it printed; what is right is said by the tests.

It is a real bash, whose variables last for the page. Its `coterie` and `python` are taken over by
`forker.py`, which has both loaded.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple, Self

from cluster.cli import processes
from tests.docs.pages import ROOT

# Far beyond what any example takes: what hangs is cut off.
ONE_COMMAND_S_MAX = 60.0

FUNCTIONS = """
ask_forker() {
    local at="$DESK/request.$BASHPID.$RANDOM" code
    mkfifo "$at.end"
    { printf '%s\\0' "$BASHPID" "$PWD" "$#" "$@"; env --null; } > "$at"
    # In a shell of its own: it is our standard output that the forker takes over.
    (printf '%s\\n' "$at" > "$DESK/door")
    read -r code < "$at.end"
    return "$code"
}
coterie() { ask_forker coterie "$@"; }
python() { ask_forker python "$@"; }
code=0
"""


class Ran(NamedTuple):
    """What one command did: its exit code, and what it printed on both streams."""

    code: int
    printed: str


class Forker:
    """The process that becomes the examples; ends with its block, and with us."""

    def __init__(self, desk: Path):
        self.desk = desk
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        os.mkfifo(self.desk / "door")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(Path(__file__).with_name("forker.py")),
            str(self.desk),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=processes.dies_with_parent(),
        )
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"open\n"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.communicate()


class Shell:
    """One bash. Use it as an async context manager.

    Args:
        desk: of the forker.
        folder: where it works.
        variables: of its environment.
    """

    def __init__(self, desk: Path, folder: Path, variables: dict[str, str]):
        self._desk = desk
        self._folder = folder
        self._variables = variables
        self._numbers = itertools.count()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        inherited = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        self._process = await asyncio.create_subprocess_exec(
            "bash",
            "--norc",
            "--noprofile",
            cwd=self._folder,
            env=inherited | {"DESK": str(self._desk), "NO_COLOR": "1"} | self._variables,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # What it leaves behind is in its group, and ends with it.
            process_group=0,
            preexec_fn=processes.dies_with_parent(),
        )
        self._say(FUNCTIONS)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.communicate()

    async def run(self, command: str) -> Ran:
        """Run a command; `$?` is that of the one before."""
        assert self._process is not None
        assert self._process.stdout is not None
        printed = self._desk / f"printed.{self._folder.name}.{next(self._numbers)}"
        self._say(
            f'(exit $code); {{ {command}\n}} >> "{printed}" 2>&1 < /dev/null; code=$?; echo $code\n'
        )
        try:
            async with asyncio.timeout(ONE_COMMAND_S_MAX):
                told = await self._process.stdout.readline()
        except TimeoutError:
            raise AssertionError(f"it does not end: {command}\n{printed.read_text()}") from None
        assert told.strip().isdigit(), f"it ended the shell: {command}"
        return Ran(int(told), printed.read_text(encoding="utf-8", errors="replace"))

    def _say(self, text: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
