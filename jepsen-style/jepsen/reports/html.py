"""A run as one page: a single file that works offline, in light and dark, and on paper.

RULE: no request leaves the page (its own policy forbids it), and everything is there without the
script, which only zooms and points. What came from a history is text, never markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from jepsen.history import Line
from jepsen.reports import figures, lanes, results, timeline
from jepsen.reports.facts import Facts
from jepsen.reports.figures import Fault, Span
from jepsen.reports.results import Results
from jepsen.reports.words import count_of, date_of, escape, length_of, script_json, shown, time_of
from jepsen.verdicts import Verdict

ASSETS = Path(__file__).parent
COUNTEREXAMPLE_LINES_MAX = 200
FAULT_ROWS_MAX = 1_000
VALUE_LENGTH_MAX = 300

MARKS: dict[bool | None, tuple[str, str]] = {
    True: ("✓", "passed"),
    False: ("✗", "violated"),
    None: ("?", "undecided"),
}
HEADLINES = {
    "passed": "Nothing was violated",
    "violated": "Violated",
    "undecided": "Could not be decided",
}


def write(file: Path, lines: Sequence[Line], verdicts: Sequence[Verdict], facts: Facts) -> None:
    """Write the page of one run."""
    file.write_text(page(lines, verdicts, facts), encoding="utf-8")


def page(lines: Sequence[Line], verdicts: Sequence[Verdict], facts: Facts) -> str:
    """The page of one run as text."""
    of = figures.spans(lines)
    faults = figures.faults(lines)
    last_ns = figures.length_ns(lines)
    made = results.make(lines, verdicts, facts)
    picture = timeline.draw(of, faults, facts, last_ns)
    names = list(dict.fromkeys(fault.f for fault in faults))
    drawn = (
        "Every operation is a dot"
        if picture.drawn == len(of)
        else f"{count_of(picture.drawn)} of {count_of(len(of))} operations are dots: where many "
        "of one outcome would lie on one spot, one is drawn"
    )
    body = [
        _head(made, facts),
        _checks(verdicts, of, faults),
        '<section><div class="tools"><h2>What happened</h2>',
        '<button id="whole" hidden>whole run</button></div>',
        f'<p class="hint" id="hint">{drawn}. Shaded: while a fault was on.</p>',
        timeline.legend(of),
        f'<div class="wide">{picture.svg}</div><div id="tip" hidden></div></section>',
        _outages(facts),
        _kinds(made),
        _faults(faults, names, last_ns),
        _facts(made, facts),
    ]
    title = f"{HEADLINES[made.verdict]}: {facts.workload} × {facts.nemesis}, seed {facts.seed}"
    return document(title, made.verdict, "".join(body), script_json(picture.data))


def document(title: str, verdict: str, body: str, data: str = "") -> str:
    """A whole page: also what `index` is made with.

    Args:
        body: markup, escaped already.
        data: JSON for the script; without it there is no script.
    """
    style = (ASSETS / "report.css").read_text(encoding="utf-8")
    script = ""
    if data:
        code = (ASSETS / "report.js").read_text(encoding="utf-8")
        script = (
            f'<script type="application/json" id="data">{data}</script>\n<script>{code}</script>\n'
        )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n"
        f'<body class="{verdict}">\n<main>{body}</main>\n{script}</body>\n</html>\n'
    )


def _head(made: Results, facts: Facts) -> str:
    outages = made.outages_ms
    tiles = [
        ("run", length_of(made.length_ms), f"{len(facts.nodes)} nodes"),
        (
            "operations",
            count_of(made.operations),
            f"{count_of(made.ok)} ok, {count_of(made.fail)} fail, {count_of(made.info)} info",
        ),
        ("faults", count_of(made.faults_count), _kinds_of_faults(made.faults)),
    ]
    if made.latency_ms.count:
        tiles.append(
            (
                "latency, median",
                length_of(made.latency_ms.p50),
                f"99 %: {length_of(made.latency_ms.p99)}",
            )
        )
    if facts.leaders:
        terms = [each.term for each in facts.leaders]
        tiles.append(("leaders", str(len(terms)), f"terms {min(terms)} to {max(terms)}"))
    if outages.count:
        tiles.append(
            (
                "without service, median",
                length_of(outages.p50),
                f"longest {length_of(outages.max)}, {outages.count} times",
            )
        )
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
        for name, value, more in tiles
    )
    trouble = f'<p class="trouble">The run did not come to its end: {escape(facts.trouble)}</p>'
    trouble = trouble if facts.trouble else ""
    passed = sum(verdict.passed for verdict in made.checks)
    below = (
        f"{passed} of {len(made.checks)} checks passed" if made.checks else "nothing was checked"
    )
    return (
        f'<header><p class="verdict {made.verdict}">{HEADLINES[made.verdict]}'
        f"<small>{below}</small></p>"
        f"<h1>{escape(facts.workload)} <span>under</span> {escape(facts.nemesis)}</h1>"
        f'<p class="sub">seed {facts.seed}{_after(date_of(facts.began))}{_after(facts.run)}</p>'
        f'{trouble}<dl class="tiles">{cells}</dl>'
        '<div class="replay"><span>again</span>'
        f"<code>{escape(facts.replay)}</code>"
        f'<button id="copy" hidden>copy</button></div></header>'
    )


def _after(text: str) -> str:
    return f" · {escape(text)}" if text else ""


def _kinds_of_faults(faults: Sequence[Fault]) -> str:
    names = list(dict.fromkeys(fault.f for fault in faults if not fault.is_remark))
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _checks(verdicts: Sequence[Verdict], of: Sequence[Span], faults: Sequence[Fault]) -> str:
    """Every verdict, what is wrong first, each with its counter-example."""
    by_line = lanes.by_line(of)
    rank = {False: 0, None: 1, True: 2}
    ordered = sorted(verdicts, key=lambda verdict: rank[verdict.valid])
    rows = []
    for verdict in ordered:
        mark, word = MARKS[verdict.valid]
        notes = "".join(f"<li>{escape(note)}</li>" for note in verdict.notes)
        rows.append(
            f'<article class="check {word}"><h3><i title="{word}">{mark}</i>'
            f"{escape(verdict.check)}</h3><div><p>{escape(verdict.summary)}</p>"
            + (f'<ul class="notes">{notes}</ul>' if notes else "")
            + _counterexample(verdict, by_line, faults)
            + "</div></article>"
        )
    inside = "".join(rows) or '<p class="hint">No checker ran.</p>'
    return f"<section><h2>Checks</h2>{inside}</section>"


def _counterexample(verdict: Verdict, by_line: dict[int, Span], faults: Sequence[Fault]) -> str:
    lines = verdict.counterexample
    if not lines:
        return ""
    concerned = lanes.concerned(lines, by_line)
    remarks = [line for line in lines if line.process < figures.NEMESIS]
    left_out = (
        f" The picture shows the last {lanes.SPANS_MAX} of {len(concerned)} operations."
        if len(concerned) > lanes.SPANS_MAX
        else ""
    )
    rows = "".join(_line_row(line) for line in lines[:COUNTEREXAMPLE_LINES_MAX])
    first, last = lines[0].time_ns / 1e6, lines[-1].time_ns / 1e6
    more = (
        f'<p class="hint">{len(lines) - COUNTEREXAMPLE_LINES_MAX} lines more are in '
        "results.json.</p>"
        if len(lines) > COUNTEREXAMPLE_LINES_MAX
        else ""
    )
    return (
        f'<div class="counter"><p class="hint">These cannot all be right.{left_out} '
        f'<a href="#timeline" data-from="{first:.3f}" data-to="{last:.3f}">show it in the '
        f'timeline</a></p><div class="wide">{lanes.draw(concerned, faults, remarks)}</div>'
        '<div class="wide"><table><thead><tr><th class="n">line</th><th class="n">time</th>'
        "<th>process</th><th>type</th><th>operation</th><th>key</th><th>value</th><th>node</th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>{more}</div>"
    )


def _line_row(line: Line) -> str:
    who = lanes.WHO.get(line.process, str(line.process))
    value = " ".join(filter(None, (shown(line.value, VALUE_LENGTH_MAX), line.error)))
    return (
        f'<tr><td class="n">{line.index}</td><td class="n">{time_of(line.time_ns)}</td>'
        f'<td>{who}</td><td><i class="key {line.type}"></i>{line.type}</td>'
        f"<td>{escape(line.f)}</td><td>{escape(line.key)}</td>"
        f"<td><code>{escape(value)}</code></td><td>{escape(line.node)}</td></tr>"
    )


def _outages(facts: Facts) -> str:
    """The distribution of the time without service: every one a step of the curve."""
    if not facts.outages_ms:
        return ""
    values = sorted(facts.outages_ms)
    spread = figures.quantiles(values)
    width, height, left = timeline.PANE_WIDTH, 150, timeline.LEFT
    step = timeline.tick_step_ns(max(1, round(values[-1] * 1e6)))
    end_ms = (values[-1] * 1e6 // step + 1) * step / 1e6
    x = [value * width / end_ms for value in values]
    d = [f"M0,{height}"]
    for place, at in enumerate(x, 1):
        d.append(f"H{at:.1f}V{height * (1 - place / len(x)):.1f}")
    line = "".join(d) + f"H{width}"
    ticks = []
    for ns in range(0, round(end_ms * 1e6) + 1, step):
        at = left + ns / 1e6 * width / end_ms
        words, anchor = (length_of(ns / 1e6) if ns else "0"), "middle"
        if at + 3.5 * len(words) > left + width:
            anchor = "end"
        ticks.append(
            f'<path class="grid" d="M{at:.1f},6V{6 + height}"/><text class="tick" x="{at:.1f}" '
            f'y="{height + 24}" text-anchor="{anchor}">{words}</text>'
        )
    for share in (0.0, 0.5, 0.9, 1.0):
        y = 6 + height * (1 - share)
        ticks.append(
            f'<path class="grid" d="M{left},{y:.1f}h{width}"/>'
            f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">'
            f"{share:.0%}</text>"
        )
    dots = "".join(f"M{at:.1f},{height - 4}h0" for at in x)
    quantiles = ", ".join(
        f"{name} {length_of(value)}"
        for name, value in (
            ("median", spread.p50),
            ("90 %", spread.p90),
            ("99 %", spread.p99),
            ("longest", spread.max),
        )
    )
    return (
        '<section><h2>Time without service</h2><p class="hint">'
        f"{spread.count} times: {quantiles}. The curve: the share that was over after so long."
        f'</p><div class="wide"><svg class="outages" viewBox="0 0 1160 {height + 30}" role="img" '
        f'aria-label="Distribution of the time without service">'
        f'<rect class="ground" x="{left}" y="6" width="{width}" height="{height}"/>'
        f"{''.join(ticks)}"
        f'<svg x="{left}" y="6" width="{width}" height="{height}">'
        f'<path class="area ok" d="{line}V{height}Z"/><path class="line ok" d="{line}"/>'
        f'<path class="dots info" d="{dots}"/></svg></svg></div></section>'
    )


def _kinds(made: Results) -> str:
    if not made.kinds:
        return ""
    rows = []
    for kind in made.kinds:
        latency = kind.latency_ms
        times = (latency.p50, latency.p90, latency.p99, latency.max)
        errors = ", ".join(f"{error} {count_of(count)}" for error, count in kind.errors[:4])
        more = f" and {len(kind.errors) - 4} codes more" if len(kind.errors) > 4 else ""
        rows.append(
            f"<tr><td>{escape(kind.f)}</td>"
            + "".join(
                f'<td class="n">{count_of(count)}</td>'
                for count in (kind.count, kind.ok, kind.fail, kind.info)
            )
            + "".join(
                f'<td class="n">{length_of(ms) if latency.count else "–"}</td>' for ms in times
            )
            + f"<td>{escape(errors)}{more}</td></tr>"
        )
    heads = "".join(
        f'<th class="n">{name}</th>'
        for name in ("all", "ok", "fail", "info", "median", "90 %", "99 %", "longest")
    )
    return (
        '<section><h2>Operations</h2><div class="wide"><table><thead><tr><th>operation</th>'
        f"{heads}<th>refused or lost with</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _faults(faults: Sequence[Fault], names: Sequence[str], last_ns: int) -> str:
    if not faults:
        return '<section><h2>Faults</h2><p class="hint">None.</p></section>'
    rows = []
    for number, fault in enumerate(faults[:FAULT_ROWS_MAX], 1):
        end_ns = last_ns if fault.end_ns is None else fault.end_ns
        length = "" if fault.is_remark else length_of((end_ns - fault.begin_ns) / 1e6)
        never = " (never ended)" if fault.end_ns is None else ""
        rows.append(
            f'<tr><td class="n">{number}</td><td><i class="key '
            f'{timeline.fault_class(names, fault.f)}"></i>{escape(fault.f)}</td>'
            f"<td><code>{escape(shown(fault.what, VALUE_LENGTH_MAX))}</code></td>"
            f'<td class="n"><a href="#timeline" data-from="{fault.begin_ns / 1e6:.0f}" '
            f'data-to="{end_ns / 1e6:.0f}">{time_of(fault.begin_ns)}</a></td>'
            f'<td class="n">{length}{never}</td></tr>'
        )
    more = (
        f'<p class="hint">{count_of(len(faults) - FAULT_ROWS_MAX)} more are in results.json.</p>'
        if len(faults) > FAULT_ROWS_MAX
        else ""
    )
    is_open = " open" if len(faults) <= 40 else ""
    return (
        f"<section><details{is_open}><summary><h2>Faults</h2> {count_of(len(faults))}</summary>"
        '<div class="wide"><table><thead><tr><th class="n">no.</th><th>fault</th><th>what</th>'
        '<th class="n">from</th><th class="n">for</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>{more}</details></section>"
    )


def _facts(made: Results, facts: Facts) -> str:
    rows: list[tuple[str, str]] = [
        ("run", facts.run),
        ("began", facts.began),
        ("asked for", f"{facts.minutes:g} minutes, seed {facts.seed}"),
        ("nodes", ", ".join(facts.nodes)),
        *facts.versions.items(),
        *((name, count_of(count)) for name, count in facts.counts.items()),
    ]
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows if value
    )
    notes = _items(facts.notes)
    return (
        f'<section><h2>The run</h2><table class="facts"><tbody>{cells}</tbody></table>{notes}'
        f'<p class="hint">The same in figures: results.json (format {made.format}).</p></section>'
    )


def _items(notes: Iterable[str]) -> str:
    inside = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<ul class="notes">{inside}</ul>' if inside else ""
