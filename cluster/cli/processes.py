"""Child processes that end with us, and what their end means.

RULE: the only place of the command line that touches signals of other processes and the terminal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator

PR_SET_PDEATHSIG = 1


def dies_with_parent(then: Callable[[], None] | None = None) -> Callable[[], None]:
    """What a child does between fork and exec so that it does not outlive us, even if we are
    killed. Pass it as `preexec_fn`.

    The kernel does it, on Linux. Elsewhere nothing happens, and a parent that is killed leaves
    its children behind. Children of the child are not reached.

    Args:
        then: what else it does there. Both must only make system calls: after a fork, other
            threads' locks stay locked for ever.
    """
    parent_pid = os.getpid()
    # Looked up before the fork, for the same reason.
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        if prctl is not None:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            # We may have ended before the kernel was told.
            if os.getppid() != parent_pid:
                os._exit(128 + signal.SIGKILL)
        if then is not None:
            then()

    return prepare


def signal_group(group: int, number: int) -> None:
    """Send a signal to a whole process group; nothing happens when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def exit_code_of(returncode: int) -> int:
    """As a shell has it: 128 and the signal for a process that was killed."""
    return 128 - returncode if returncode < 0 else returncode


def ending_of(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"


def owns_terminal() -> bool:
    """We are what the user at the terminal is talking to."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def take_terminal() -> None:
    """In the child, being a process group of its own: become the one the user talks to.

    Ctrl-C then goes to it alone. Ctrl-Z is switched off: a command that is stopped would hold the
    lock for as long as its session is renewed. (Shells set it again for themselves.)
    """
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)


@contextlib.contextmanager
def terminal_returned() -> Iterator[None]:
    """Whatever the child did with the terminal: at the end we have it again."""
    had_it = owns_terminal()
    try:
        yield
    finally:
        if had_it:
            before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            with contextlib.suppress(OSError):
                os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
            signal.signal(signal.SIGTTOU, before)
