"""A cluster of one to run commands against, and a shell small enough for the examples of our help.

RULE: the gateway and the machine of production behind a node without replication, served by a
thread of its own, as a command runs a loop of its own. Cluster time stands still.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner

from cluster.cli import main
from cluster.gateway.server import Gateway, GatewaySettings
from cluster.node.clock import monotonic
from cluster.testing.local_node import LocalNode

STARTS_WITHIN_S = 10.0


@contextmanager
def serving() -> Iterator[str]:
    """A machine at the address that is given; it ends with the block."""
    started = threading.Event()
    places: list[str] = []
    loop = asyncio.new_event_loop()
    ending = asyncio.Event()

    async def serve() -> None:
        gateway = Gateway(LocalNode(), GatewaySettings(linger_ms=20), clock=monotonic)
        await gateway.start("127.0.0.1", 0)
        host, port = gateway.addresses[0]
        places.append(f"{host}:{port}")
        started.set()
        try:
            await ending.wait()
        finally:
            await gateway.stop(grace_s=0.1)

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()
            started.set()

    thread = threading.Thread(target=run, name="a machine")
    thread.start()
    try:
        assert started.wait(STARTS_WITHIN_S)
        yield places[0]
    finally:
        if not loop.is_closed():
            loop.call_soon_threadsafe(ending.set)
        thread.join()


@dataclass(slots=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Shell:
    """Runs commands at one endpoint, in this process; knows variables, `$(…)`, `|` and `>`.

    Attributes:
        variables: of the environment; also `1`, `2`, … once `set --` was said.
    """

    endpoint: str
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: bytes = b"", terminal: bool = False) -> Ran:
        """Run `coterie` with these arguments."""
        exported = {name: value for name, value in self.variables.items() if name.isidentifier()}
        environ = {"COTERIE_ENDPOINTS": self.endpoint, **exported}
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            done = CliRunner().invoke(
                main, arguments, input=stdin, env=environ, prog_name="coterie", color=terminal
            )
        finally:
            os.chdir(before)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    def line(self, line: str) -> Ran:
        """Run one line of an example."""
        line = line.partition("  # ")[0].strip()
        taking = re.fullmatch(r"(?:export )?([A-Z_]+)=\$\((.*)\)", line)
        if taking:
            ran = self._pipe(taking[2])
            self.variables[taking[1]] = ran.out.strip()
            return ran
        setting = re.fullmatch(r"set -- \$\((.*)\)", line)
        if setting:
            ran = self._pipe(setting[1])
            self.variables |= {str(at): word for at, word in enumerate(ran.out.split(), 1)}
            return ran
        return self._pipe(line)

    def _pipe(self, line: str) -> Ran:
        before, bar, after = line.partition(" | ")
        if not before.startswith("coterie "):
            out = self._others(before)
            return self._coterie(after, out) if bar else Ran(0, out.decode(), "")
        ran = self._coterie(before, b"")
        return (
            Ran(ran.code, self._others(after, ran.out.encode()).decode(), ran.err) if bar else ran
        )

    def _coterie(self, line: str, stdin: bytes) -> Ran:
        words = shlex.split(re.sub(r"\$(\w+)", lambda name: self.variables[name[1]], line))
        assert words[0] == "coterie", line
        return self.run(*words[1:], stdin=stdin)

    def _others(self, line: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            ["sh", "-c", line], input=stdin, stdout=subprocess.PIPE, cwd=self.folder, check=True
        )
        return done.stdout
