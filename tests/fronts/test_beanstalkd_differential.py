"""A few dozen random scripts to the real beanstalkd and to our front: the same replies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fronts import beanstalkd_differential
from tests.fronts.beanstalkd_differential import PROGRAM, Side

# Two of them have sleeps in them.
SEEDS = tuple(number for number in range(1, 40) if number % 8 or number in {8, 16})


async def test_random_scripts_are_answered_as_by_the_original(tmp_path: Path, seed: int) -> None:
    """Byte for byte, but for ids, times and figures of the process."""
    program = shutil.which(PROGRAM)
    if program is None:
        # Also where CI=true: no registry that this repository installs from has it.
        missing = f"{PROGRAM} is not on the PATH (Debian's package has it): NOTHING WAS COMPARED"
        print(missing)
        pytest.skip(missing)
    compared = 0
    for number in SEEDS:
        script = seed * 1000 + number
        counts = await beanstalkd_differential.alike(script, program, tmp_path)
        compared += counts.total()
    assert compared > 1_000


def test_what_must_not_differ_is_compared() -> None:
    """Only what has to be replaced is."""
    side = Side("a side", None)
    side.ids = [17, 4]
    assert side.comparable(b"INSERTED 4\r\n") == b"INSERTED @1\r\n"
    assert side.comparable(b"FOUND 17 3\r\nabc\r\n") == b"FOUND @0 3\r\nabc\r\n"
    job = b'---\nid: 4\ntube: "t"\nstate: ready\nage: 3\ndelay: 2\nttr: 9\ntime-left: 5\n'
    seen = side.comparable(b"OK %d\r\n%b\r\n" % (len(job), job))
    kept = b"number: @1\ntube: t\nstate: ready\nage: ~\ndelay: 2\nttr: 9\ntime-left: +\n"
    assert seen == b"OK\r\n---\n" + kept + b"\r\n"
    assert side.comparable(b"OK 1\r\n---\n\r\n") == b"OK 1\r\n---\n\r\n"
    assert side.resolved(b"delete @1@ @last@", 0) == b"delete 4 17"
