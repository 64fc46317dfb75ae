"""A run as JUnit XML, which every build server shows: a suite per run, a case per check.

RULE: what did not pass is a failure, also what could not be decided.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec

from jepsen.reports.facts import Facts
from jepsen.verdicts import Verdict

# XML 1.0 has no way to write these, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(file: Path, verdicts: Sequence[Verdict], facts: Facts) -> None:
    """Write one suite of all checks."""
    failed = sum(not verdict.passed for verdict in verdicts)
    errors = 1 if facts.trouble else 0
    tests = len(verdicts) + errors
    suite = ET.Element(
        "testsuite",
        name=_plain(f"jepsen {facts.workload} {facts.nemesis}"),
        tests=str(tests),
        failures=str(failed),
        errors=str(errors),
        skipped="0",
        time=f"{facts.minutes * 60:.3f}",
    )
    if facts.began:
        suite.set("timestamp", _plain(facts.began))
    properties = ET.SubElement(suite, "properties")
    named = {"run": facts.run, "seed": str(facts.seed), "replay": facts.replay, **facts.versions}
    for name, value in named.items():
        ET.SubElement(properties, "property", name=_plain(name), value=_plain(value))
    for verdict in verdicts:
        case = ET.SubElement(
            suite,
            "testcase",
            classname=_plain(f"jepsen.{facts.workload}.{facts.nemesis}"),
            name=_plain(verdict.check),
            time="0",
        )
        if not verdict.passed:
            kind = "violated" if verdict.valid is False else "undecided"
            failure = ET.SubElement(case, "failure", type=kind, message=_plain(verdict.summary))
            failure.text = _plain(_told(verdict, facts))
        else:
            ET.SubElement(case, "system-out").text = _plain(verdict.summary)
    if facts.trouble:
        # Not a check that failed: the run itself.
        case = ET.SubElement(suite, "testcase", name="the run comes to its end", time="0")
        ET.SubElement(case, "error", message=_plain(facts.trouble)).text = _plain(facts.replay)
    suites = ET.Element("testsuites", tests=str(tests), failures=str(failed), errors=str(errors))
    suites.append(suite)
    ET.indent(suites)
    ET.ElementTree(suites).write(file, encoding="utf-8", xml_declaration=True)


def _told(verdict: Verdict, facts: Facts) -> str:
    """The counter-example, a line of the history per line, and how to see it again."""
    lines = [verdict.summary, *verdict.notes]
    if verdict.counterexample:
        lines += ["", "cannot all be right:"]
        lines += [msgspec.json.encode(line).decode() for line in verdict.counterexample]
    return "\n".join([*lines, "", f"again: {facts.replay}"])


def _plain(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
