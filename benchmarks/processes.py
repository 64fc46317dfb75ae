"""Child processes that end with us, ports for them, and what the kernel knows of them.

RULE: Linux and its /proc; knows no contender.
"""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


def dies_with_us() -> Callable[[], None]:
    """What a child does between fork and exec so that no death of ours leaves it behind.

    Children must be started by the main thread: the kernel sends the signal when the *thread*
    that forked ends.
    """
    parent = os.getpid()

    def prepare() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)

    return prepare


def start(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], folder: Path
) -> subprocess.Popen[bytes]:
    """Start a child whose output goes to `log`, in a group of its own: Ctrl-C is for us alone."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            cwd=folder,
            preexec_fn=dies_with_us(),  # noqa: PLW1509 - we have one thread
            process_group=0,
        )


def end(process: subprocess.Popen[bytes], patience_s: float = 10.0) -> None:
    """Ask a child to stop, insist when it does not, and reap it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int, rng: random.Random) -> list[int]:
    """Ports of the loopback that nobody listens on, below those the kernel gives to clients.

    A killed node takes its port again: from the kernel's own range, a connection could have
    got it in between.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    while len(found) < count:
        port = rng.randrange(min(20_000, first // 2), first)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def go_before_others() -> None:
    """Let us and all children to come run before ordinary processes; needs root.

    Nodes sleep and wake thousands of times a second. Beside a busy stranger each waking may wait
    for the end of the stranger's time slice, milliseconds, and then that is what is measured.
    """
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def cpu_s(pid: int) -> float:
    """User and system time of a process, all its threads, since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def machine_busy_s() -> float:
    """Processor time this machine has spent on anything, all processors, since its start."""
    user, nice, system, _, _, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / TICKS_PER_S


def busy_share(window_s: float) -> float:
    """Watch the machine for a while; 1.0 is all processors busy."""
    before = machine_busy_s()
    time.sleep(window_s)
    return (machine_busy_s() - before) / window_s / (os.cpu_count() or 1)
