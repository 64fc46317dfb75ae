"""A process that has loaded what examples need, and becomes each of them by a fork.

RULE: started by its path, by `shell.py` only. To load Python and the libraries anew for each of a
hundred examples would take a minute.

Whoever wants something run writes it into a file, as fields that end in a zero byte (the number of
the asking shell, its folder, the number of words, the words, the environment), and the file's name
into the fifo `door`. The standard streams are those of the asking shell. The exit code comes
through the fifo beside the file.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

import cluster.client.aio
import cluster.client.sync
import cluster.fencing  # noqa: F401 - loaded for those that are forked off
from cluster.cli import COMMANDS, PRIMITIVES, main

PR_SET_PDEATHSIG = 1


def serve(desk: Path) -> None:
    """Take what comes through the door, for ever."""
    for name in (*COMMANDS, *PRIMITIVES):
        main.get_command(None, name)  # type: ignore[arg-type]
    for name in ("rendering", "working", "yaml"):
        importlib.import_module(f"cluster.cli.{name}")
    # Those that ended are nobody's concern: whoever asked is told by them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # Open for writing too: it never ends.
    door = os.fdopen(os.open(desk / "door", os.O_RDWR), encoding="utf-8")
    print("open", flush=True)
    while True:
        request = Path(door.readline().rstrip("\n"))
        if os.fork() == 0:
            _dies_with_parent()
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(request)


def _answer(request: Path) -> None:
    """Fork once more, and tell how that one ended."""
    shell, folder, count, *rest = request.read_bytes().decode().split("\0")
    words, variables = rest[: int(count)], rest[int(count) :]
    pid = os.fork()
    if pid == 0:
        _dies_with_parent()
        environment = dict(line.split("=", 1) for line in variables if "=" in line)
        os._exit(_become(shell, folder, words, environment))
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    with Path(f"{request}.end").open("w") as end:
        end.write(f"{code if code >= 0 else 128 - code}\n")
    os._exit(0)


def _become(shell: str, folder: str, words: list[str], environment: dict[str, str]) -> int:
    """Be the program that was asked for; returns its exit code."""
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        opened = os.open(f"/proc/{shell}/fd/{number}", flags | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = words
    if str(Path("/proc/self/fd/1").readlink()).startswith(environment["DESK"]):
        # Nobody else reads it: on the page it stands as on a terminal.
        sys.stdout.isatty = lambda: True  # type: ignore[method-assign]
    try:
        if words[0] == "coterie":
            main(prog_name="coterie")
        else:
            sys.argv = words[1:]
            sys.path.insert(0, folder)
            runpy.run_path(words[1], run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    else:
        return 0
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()


def _dies_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
