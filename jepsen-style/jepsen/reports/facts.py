"""What is known of a run beside its history.

RULE: values only; whoever runs a run fills them in.
"""

from __future__ import annotations

import msgspec


class Leader(msgspec.Struct, frozen=True):
    """From `time_ns` on, `node` leads in `term`.

    Attributes:
        time_ns: since the history began, as in its lines.
        node: empty while nobody leads, where that is known.
    """

    time_ns: int
    term: int
    node: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The head of every report.

    Attributes:
        run: name of the run, one of its kind in a folder of runs: "jobs-kills-7".
        workload, nemesis: as they are called on the command line.
        replay: the one command line that repeats the run.
        began: wall time of the start, ISO 8601 with its zone; for people.
        nodes: all that were there, in the order to show them.
        versions: of what ran, by name: {"coterie": "0.2.0", "python": "3.11.7"}.
        leaders: in the order of time.
        outages_ms: every time without service that was measured, in the order it happened.
        counts: further figures to show, by name: {"leader kills": 12}.
        trouble: why the run did not come to its end, whatever the checks say; empty when it did.
        notes: sentences a reader should see, such as allowances that the checks used.
    """

    run: str
    workload: str
    nemesis: str
    seed: int
    minutes: float
    replay: str
    nodes: tuple[str, ...]
    began: str = ""
    versions: dict[str, str] = {}
    leaders: tuple[Leader, ...] = ()
    outages_ms: tuple[float, ...] = ()
    counts: dict[str, int] = {}
    trouble: str = ""
    notes: tuple[str, ...] = ()
