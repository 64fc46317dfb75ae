"""One page over many runs, newest first, made from what each of them left behind.

RULE: reads `results.json` files only; a run without one (it died) is named as such.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import msgspec

from jepsen.reports import results
from jepsen.reports.html import HEADLINES, document
from jepsen.reports.results import Results
from jepsen.reports.words import count_of, date_of, escape, length_of

NAMES = ("report.html", "results.json", "junit.xml", "history.jsonl")
RANK = {"violated": 0, "undecided": 1, "passed": 2}


def write(folder: Path) -> Path:
    """Write `index.html` over the runs in the folders below `folder`.

    Returns:
        The page.
    """
    file = folder / "index.html"
    file.write_text(page(folder), encoding="utf-8")
    return file


def page(folder: Path) -> str:
    """The page as text: a row per folder that holds a file of a run."""
    rows: list[tuple[str, str]] = []
    found: list[Results] = []
    dead = 0
    for run in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = [name for name in NAMES if (run / name).is_file()]
        if not files:
            continue
        try:
            made = results.load(run / "results.json")
        except (OSError, msgspec.DecodeError) as error:
            reason = "no results" if isinstance(error, OSError) else str(error)
            dead += 1
            rows.append(("", _dead_row(run.name, files, reason)))
            continue
        found.append(made)
        rows.append((made.facts.began, _row(run.name, files, made)))
    rows.sort(key=lambda row: row[0], reverse=True)
    verdict = min((made.verdict for made in found), key=RANK.__getitem__, default="undecided")
    if dead and verdict == "passed":
        verdict = "undecided"
    counts = ", ".join(
        f"{sum(made.verdict == word for made in found)} {word}"
        for word in reversed(RANK)
        if any(made.verdict == word for made in found)
    )
    if dead:
        counts = ", ".join(filter(None, (counts, f"{dead} without results")))
    length_ms = sum(made.length_ms for made in found)
    operations = sum(made.operations for made in found)
    faults = sum(made.faults_count for made in found)
    heads = "".join(
        f'<th class="n">{name}</th>'
        for name in ("checks", "length", "operations", "info", "faults", "leaders", "longest out")
    )
    body = (
        f'<header><p class="verdict {verdict}">{HEADLINES[verdict]}<small>{counts or "no runs"}'
        f"</small></p><h1>{len(rows)} runs</h1>"
        f'<p class="sub">{length_of(length_ms)} · {count_of(operations)} operations · '
        f"{count_of(faults)} faults</p></header>"
        '<section><div class="wide"><table class="runs"><thead><tr><th>verdict</th><th>run</th>'
        f"<th>workload</th><th>nemesis</th>{heads}<th>began</th><th>files</th></tr></thead>"
        f"<tbody>{''.join(row for _, row in rows)}</tbody></table></div></section>"
    )
    return document(f"{HEADLINES[verdict]}: {len(rows)} runs", verdict, body)


def _row(name: str, files: list[str], made: Results) -> str:
    facts = made.facts
    failed = [check.check for check in made.checks if not check.passed]
    failed += [facts.trouble[:200]] if facts.trouble else []
    title = f"<small>{escape(', '.join(failed))}</small>" if failed else ""
    passed = sum(check.passed for check in made.checks)
    outage = length_of(made.outages_ms.max) if made.outages_ms.count else "–"
    figures = (
        f"{passed}/{len(made.checks)}",
        length_of(made.length_ms),
        count_of(made.operations),
        count_of(made.info),
        count_of(made.faults_count),
        count_of(len(facts.leaders)),
        outage,
    )
    cells = "".join(f'<td class="n">{figure}</td>' for figure in figures)
    return (
        f'<tr><td><span class="word {made.verdict}">{made.verdict}</span>{title}</td>'
        f"<td>{_main_link(name, files, facts.run)}</td><td>{escape(facts.workload)}</td>"
        f"<td>{escape(facts.nemesis)}</td>{cells}<td>{escape(date_of(facts.began))}</td>"
        f"<td>{_links(name, files)}</td></tr>"
    )


def _dead_row(name: str, files: list[str], reason: str) -> str:
    return (
        f'<tr><td><span class="word undecided">no results</span></td>'
        f'<td>{_main_link(name, files, name)}</td><td colspan="10">{escape(reason)}</td>'
        f"<td>{_links(name, files)}</td></tr>"
    )


def _main_link(name: str, files: list[str], words: str) -> str:
    if "report.html" not in files:
        return escape(words)
    return f'<a href="{_href(name, "report.html")}">{escape(words)}</a>'


def _links(name: str, files: list[str]) -> str:
    return " ".join(
        f'<a href="{_href(name, file)}">{file.partition(".")[0]}</a>'
        for file in files
        if file != "report.html"
    )


def _href(name: str, file: str) -> str:
    """A path from here; the leading dot keeps a colon in it from being a scheme."""
    return f"./{quote(name)}/{file}"
