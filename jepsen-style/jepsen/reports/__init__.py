"""What a run leaves behind for people and for machines.

RULE: reads a finished history, its verdicts and the facts of the run; starts nothing, asks nothing,
and judges nothing anew. The same input gives the same bytes.

`write_all(folder, lines, verdicts, facts)` writes all three of one run: `report.html` (for people),
`results.json` (everything in figures) and `junit.xml` (for a build server). `index.write(folder)`
makes one page of all runs below a folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jepsen.history import Line
from jepsen.reports.facts import Facts, Leader
from jepsen.reports.html import write as write_html
from jepsen.reports.junit import write as write_junit
from jepsen.reports.results import Results
from jepsen.reports.results import write as write_results
from jepsen.verdicts import Verdict

__all__ = ["Facts", "Leader", "Results", "write_all"]


def write_all(
    folder: Path, lines: Sequence[Line], verdicts: Sequence[Verdict], facts: Facts
) -> Results:
    """Write `report.html`, `results.json` and `junit.xml` into a folder that exists.

    Returns:
        What stands in `results.json`.
    """
    write_html(folder / "report.html", lines, verdicts, facts)
    write_junit(folder / "junit.xml", verdicts, facts)
    return write_results(folder / "results.json", lines, verdicts, facts)
