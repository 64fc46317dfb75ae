"""Running the command line as users do: in a process of its own.

RULE: starts processes and ends them with the test, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "cluster.cli")


def clean_environ(**more: str) -> dict[str, str]:
    """Our environment without settings of Coterie, and with these."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COTERIE_")}
    return kept | {"PYTHONPATH": str(ROOT), **more}


@contextlib.asynccontextmanager
async def coterie(
    *arguments: str, environ: dict[str, str] | None = None, **more: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A `coterie` process; it is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        env=clean_environ() if environ is None else environ,
        stdin=more.pop("stdin", asyncio.subprocess.PIPE),
        stdout=more.pop("stdout", asyncio.subprocess.PIPE),
        stderr=more.pop("stderr", asyncio.subprocess.PIPE),
        **more,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
        # Reading to the end closes the pipes, and waits for all who hold them.
        await process.communicate()


async def finish(*arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run `coterie` to its end.

    Returns:
        exit code, standard output, standard error.
    """
    async with coterie(*arguments, environ=environ) as process:
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


async def seen_at(terminal: int, word: bytes) -> None:
    """Return when a word has been written to a terminal."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Queue[None] = asyncio.Queue()
    loop.add_reader(terminal, readable.put_nowait, None)
    seen = b""
    try:
        while word not in seen:
            await readable.get()
            loop.remove_reader(terminal)
            seen += os.read(terminal, 4096)
            loop.add_reader(terminal, readable.put_nowait, None)
    finally:
        loop.remove_reader(terminal)
