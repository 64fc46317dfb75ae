"""Toxiproxy: a server of our own, links that can be cut, and proof that they were.

RULE: every change is read back from the server; toxiproxy-python lets some failures pass silently.

A `Link` is one proxied way: what connects to `link.address` reaches `upstream`. Two streams run
through it: `upstream` (towards the upstream) and `downstream` (back). The calls block for a few
milliseconds; the proxied bytes run in the server's own process meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Address = tuple[str, int]
Stream = Literal["upstream", "downstream"]

HOST = "127.0.0.1"
START_DEADLINE_S = 20.0
START_TRIES = 5


class NotAsAskedError(Exception):
    """The server's state, read back, is not what was asked for."""


class CannotStartError(Exception):
    """The server did not come up; the message carries its last words."""


@dataclass(frozen=True, slots=True)
class Link:
    """One proxied way to an upstream.

    Attributes:
        name: the proxy's name on the server, unique in a session.
        address: where to connect to.
        upstream: where the bytes go.
    """

    name: str
    address: Address
    upstream: Address

    def cut(self) -> None:
        """Close what is connected and refuse what comes."""
        proxy = self._proxy()
        proxy.disable()
        self._expect(self._proxy().enabled is False, "cut")

    def heal(self) -> None:
        """Remove every toxic and accept connections again, at the same address."""
        for toxic in self.toxics():
            self.remove(toxic)
        proxy = self._proxy()
        if not proxy.enabled:
            proxy.enable()
        again = self._proxy()
        self._expect(again.enabled is True and _address(again.listen) == self.address, "healed")

    def slow(self, stream: Stream, *, latency_ms: int, jitter_ms: int = 0) -> str:
        """Delay every byte of one stream; returns the toxic's name, for `remove`."""
        return self.add("latency", stream, latency=latency_ms, jitter=jitter_ms)

    def silence(self, stream: Stream) -> str:
        """Drop the bytes of one stream while connections stay open: a one-way cut.

        Returns the toxic's name. Removing it closes the connections that were silenced.
        """
        return self.add("timeout", stream, timeout=0)

    def add(self, kind: str, stream: Stream, **attributes: int) -> str:
        """Add any toxic the server knows, with its own attribute names; returns its name."""
        name = f"{kind}_{stream}"
        self._proxy().add_toxic(type=kind, stream=stream, name=name, attributes=attributes)
        found = self.toxics().get(name)
        as_asked = found is not None and attributes.items() <= found.items()
        self._expect(as_asked, f"given toxic {name} {attributes}, found {found}")
        return name

    def remove(self, toxic: str) -> None:
        """Remove one toxic by name."""
        self._proxy().destroy_toxic(toxic)
        self._expect(toxic not in self.toxics(), f"rid of toxic {toxic}")

    def toxics(self) -> dict[str, dict[str, int]]:
        """Attributes of every toxic on the link, by its name, as the server tells."""
        return {name: toxic.attributes for name, toxic in self._proxy().toxics().items()}

    def is_cut(self) -> bool:
        """Whether the server refuses connections here, as the server tells."""
        return not self._proxy().enabled

    def _proxy(self) -> Any:
        from toxiproxy import Toxiproxy  # noqa: PLC0415 - most tests need none

        proxy = Toxiproxy().get_proxy(self.name)
        self._expect(proxy is not None, "known to the server")
        return proxy

    def _expect(self, fact: bool, what: str) -> None:
        if not fact:
            raise NotAsAskedError(f'link "{self.name}" is not {what}')


@dataclass(frozen=True, slots=True)
class Server:
    """A running toxiproxy-server.

    Attributes:
        address: its control port.
        pid: its process.
    """

    address: Address
    pid: int

    def link(self, name: str, upstream: Address, *, port: int = 0) -> Link:
        """Make a link to the upstream.

        Args:
            name: must be new on this server.
            upstream: need not listen yet.
            port: where to listen; 0 for a free one.
        """
        from toxiproxy import Toxiproxy  # noqa: PLC0415 - most tests need none

        target = f"{upstream[0]}:{upstream[1]}"
        made = Toxiproxy().create(upstream=target, name=name, listen=f"{HOST}:{port}")
        link = Link(name=name, address=_address(made.listen), upstream=upstream)
        found = link._proxy()
        if found.upstream != target or not found.enabled or link.address[1] == 0:
            raise NotAsAskedError(f"asked for {name} to {target}, found {vars(found)}")
        return link

    def clear(self) -> None:
        """Destroy every link."""
        from toxiproxy import Toxiproxy  # noqa: PLC0415 - most tests need none

        Toxiproxy().destroy_all()
        left = list(Toxiproxy().proxies())
        if left:
            raise NotAsAskedError(f"asked for no proxies, found {left}")


@contextlib.contextmanager
def serve(program: Path) -> Iterator[Server]:
    """Run the server on a free port; it ends with the block, and with this process however killed.

    One at a time in a process: toxiproxy-python keeps the server's address in its class.

    Raises:
        CannotStartError: with what the server said last.
    """
    process, port = _start(program)
    try:
        with _spoken_to(port):
            yield Server(address=(HOST, port), pid=process.pid)
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _spoken_to(port: int) -> Iterator[None]:
    """Have toxiproxy-python speak to this server, and directly."""
    from toxiproxy.api import APIConsumer  # noqa: PLC0415 - most tests need none

    # requests would send even loopback calls to a proxy named in the environment.
    names = ("NO_PROXY", "no_proxy")
    before = {name: os.environ.get(name) for name in names}
    former = APIConsumer.host, APIConsumer.port
    os.environ.update(dict.fromkeys(names, HOST))
    APIConsumer.host, APIConsumer.port = HOST, port
    try:
        yield
    finally:
        APIConsumer.host, APIConsumer.port = former
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(program: Path) -> tuple[subprocess.Popen[str], int]:
    # The server cannot be given port 0 and asked which one it took; a port that was free a moment
    # ago may be taken by another test run, so try again.
    last_words = ""
    for _ in range(START_TRIES):
        port = _free_port()
        process = subprocess.Popen(
            [program, "-host", HOST, "-port", str(port)],
            stdin=subprocess.DEVNULL,
            # A pipe nobody reads would fill up in a long session; errors alone are few.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOG_LEVEL": "error"},
            # Its own session: Ctrl-C must not end it before the fixtures have read it back.
            start_new_session=True,
            preexec_fn=_die_with_parent(),  # noqa: PLW1509 - it only calls the kernel
        )
        if _answers(process, port):
            return process, port
        process.kill()
        last_words = process.communicate()[1]
    raise CannotStartError(f"{program} did not come up in {START_TRIES} tries: {last_words}")


def _answers(process: subprocess.Popen[str], port: int) -> bool:
    """Wait until the control port accepts; False when the process ends or the deadline passes."""
    deadline_s = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline_s and process.poll() is None:
        try:
            with socket.create_connection((HOST, port), timeout=1.0):
                return process.poll() is None
        except OSError:
            # The only way to be told is to ask; this is the pause between two questions.
            time.sleep(0.01)
    return False


def _die_with_parent() -> Any:
    """A function for the child to call between fork and exec, or None where the kernel has none."""
    if sys.platform != "linux":
        return None
    # Load before the fork: the child must not take the loader's locks.
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()
    pr_set_pdeathsig = 1

    def in_child() -> None:
        prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return in_child


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
