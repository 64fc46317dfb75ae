"""The time as one node sees it, by libfaketime (Debian package `libfaketime`).

RULE: sets what a process will read; judges nothing.

The *wall* clock can be changed at any time: it jumps, or runs at another rate. The *monotonic* clock
must never go back, not even here, so its rate is chosen before a process starts and stays.

What the product promises: no wall clock matters to any lease. A leader whose monotonic clock runs
fast or slow counts TTLs by it: at a rate of r a TTL lasts 1/r of its length in true time, whoever
judges TTLs must allow that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PLACES: Final = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
)


_SHARED: Final = Path("/dev/shm")


def find() -> Path | None:
    """The library, for programs with threads; None where it is not installed."""
    return next((Path(place) for place in _PLACES if Path(place).exists()), None)


class NodeClock:
    """One node's clocks.

    Args:
        file: says what the time is; read by the node's process about once a second.

    Attributes:
        monotonic_rate: of the next process; 1.0 leaves the monotonic clock alone.
    """

    def __init__(self, file: Path):
        self._file = file
        self.monotonic_rate = 1.0

    def prepare(self) -> None:
        """Make the file; the time is true."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self.behave()

    def behave(self) -> None:
        """The wall clock is right again. The monotonic one goes on as its process began."""
        self.set_wall(offset_s=0)

    def set_wall(self, *, offset_s: float = 0.0, rate: float = 1.0) -> None:
        """Move the wall clock, from now on (within a second).

        Args:
            offset_s: ahead of the true time; negative for behind.
            rate: seconds it counts in a true second, since its process began.
        """
        if self.monotonic_rate != 1.0:
            # One file tells both clocks: the rate of this process must not change under it.
            rate, offset_s = self.monotonic_rate, 0.0
        text = f"{offset_s:+.3f}" + (f" x{rate:.4f}" if rate != 1.0 else "")
        fresh = self._file.with_suffix(".new")
        fresh.write_text(text + "\n", encoding="ascii")
        fresh.replace(self._file)

    def environ(self) -> dict[str, str]:
        """For a process that starts now, beside LD_PRELOAD."""
        self.behave()
        environ = {
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
        }
        if self.monotonic_rate == 1.0:
            environ["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
            environ["DONT_FAKE_MONOTONIC"] = "1"
        return environ


def clear_after(pid: int) -> None:
    """Remove the shared memory that the library makes for each process; a killed one leaves it."""
    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
        (_SHARED / name).unlink(missing_ok=True)
