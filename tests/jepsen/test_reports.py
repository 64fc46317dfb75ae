"""The pages a run leaves behind: complete, harmless, small, and readable by machines."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest
from jepsen.history import Line, Recorder, Type
from jepsen.reports import Facts, Leader, figures, html, index, junit, lanes, results, write_all
from jepsen.reports.timeline import POINTS_MAX, tick_step_ns
from jepsen.reports.words import length_of, shown, time_of
from jepsen.verdicts import Verdict, accept, reject, undecided

HOSTILE = (
    """</script><script>alert(1)</script><img src="http://e.example/x" onerror='a()'>\x00\u202e&"""
)
VOID = {"meta", "img", "br", "link", "input", "hr"}
NS = 10**9


def a_history(seed: int, operations: int, *, length_s: int = 60) -> list[Line]:
    """Eight clients, two of ten operations refused, one of fifty without an answer, five faults."""
    rng = random.Random(seed)
    raw: list[tuple[int, int, Type, str, str, object, str, str]] = []
    clocks = [0] * 8
    numbers = list(range(8))
    for _ in range(operations):
        slot = min(range(8), key=clocks.__getitem__)
        start = clocks[slot]
        took = int(rng.lognormvariate(1, 1) * 1e6)
        outcome = rng.choices((Type.OK, Type.FAIL, Type.INFO), (40, 9, 1))[0]
        key, value = f"lock-{rng.randrange(5)}", {"ttl_ms": 10_000}
        raw.append((start, numbers[slot], Type.INVOKE, "acquire", key, value, "n1", ""))
        answer = {"token": start} if outcome is Type.OK else None
        error = "" if outcome is Type.OK else "lock_held"
        raw.append((start + took, numbers[slot], outcome, "acquire", key, answer, "", error))
        if outcome is Type.INFO:
            numbers[slot] = max(numbers) + 1
        clocks[slot] = start + took + int(rng.random() * 16 * length_s * NS / operations)
    for number in range(5):
        what = {"nodes": [f"n{number % 3 + 1}"]}
        begin = (number * 10 + 3) * NS
        raw.append((begin, -1, Type.INFO, "kill", "", {"phase": "begin", **what}, "", ""))
        raw.append((begin + 4 * NS, -1, Type.INFO, "kill", "", {"phase": "end", **what}, "", ""))
    raw.sort(key=lambda row: row[0])
    return [Line(place, *row) for place, row in enumerate(raw)]


def facts_of(**changes: object) -> Facts:
    """Facts of a plain run, some of them changed."""
    facts = Facts(
        run="locks-kills-7",
        workload="locks",
        nemesis="kills",
        seed=7,
        minutes=1,
        replay="python jepsen-style --workload locks --nemesis kills --seed 7 --minutes 1",
        nodes=("n1", "n2", "n3"),
        began="2026-11-21T16:40:07+00:00",
        versions={"coterie": "0.2.0"},
        leaders=(Leader(NS, 1, "n1"), Leader(9 * NS, 2, "n3")),
        outages_ms=(812.0, 990.5, 1400.0),
    )
    return msgspec.structs.replace(facts, **changes)


class Page(HTMLParser):
    """Reads a page, insists that its tags are nested rightly, and keeps what tests ask for."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def loads(page: Page) -> list[str]:
    """Whatever a browser would fetch or follow."""
    names = ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction")
    return [value for _, name, value in page.attributes if name in names]


@pytest.mark.parametrize("operations", [0, 1, 400])
def test_a_page_is_well_formed_and_asks_nobody(operations: int) -> None:
    """Every tag is closed, every link stays on the page, and its policy forbids the rest."""
    text = html.page(a_history(1, operations), [accept("K2", "fine")], facts_of())
    page = Page(text)
    assert all(value.startswith("#") for value in loads(page))
    assert "default-src 'none'" in text
    assert "@import" not in text and "url(" not in text


def test_the_style_and_the_script_name_no_address() -> None:
    """Offline means that not even a namespace is written as an address."""
    for name in ("report.css", "report.js"):
        source = (html.ASSETS / name).read_text()
        assert "http:" not in source and "https:" not in source and "url(" not in source


def test_every_verdict_is_on_the_page_and_the_wrong_ones_come_first() -> None:
    """Name, sentence and notes of each."""
    verdicts = [
        accept("K1 linearizable", "400 operations on 5 keys", "an allowance of 5 ms"),
        undecided("K5 order", "too few waiters"),
        reject("K2 mutual exclusion", "held twice", a_history(1, 9)[:4]),
    ]
    text = Page(html.page(a_history(1, 100), verdicts, facts_of())).text
    for verdict in verdicts:
        assert verdict.check in text and verdict.summary in text
        assert all(note in text for note in verdict.notes)
    places = [text.index(name) for name in ("K2 mutual", "K5 order", "K1 linear")]
    assert places == sorted(places)
    assert "Violated" in text and "1 of 3 checks passed" in text


def test_the_head_names_the_run_and_how_to_repeat_it() -> None:
    """Workload, nemesis, seed, versions, and the command line, word for word."""
    page = Page(html.page(a_history(1, 20), [], facts_of(notes=("The clocks are one.",))))
    for words in ("locks", "kills", "seed 7", facts_of().replay, "0.2.0", "The clocks are one."):
        assert words in page.text
    assert "Could not be decided" in page.text and "nothing was checked" in page.text


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """A history may hold anything a client sent; none of it becomes markup or ends the script."""
    recorder = Recorder()
    recorder.note(0, Type.INVOKE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}, node=HOSTILE)
    recorder.note(0, Type.FAIL, HOSTILE, HOSTILE, error=HOSTILE)
    recorder.note(-1, Type.INFO, HOSTILE, value={"phase": "begin", "what": HOSTILE})
    verdicts = [reject(HOSTILE, HOSTILE, recorder.lines, HOSTILE)]
    facts = facts_of(
        run=HOSTILE,
        workload=HOSTILE,
        nemesis=HOSTILE,
        replay=HOSTILE,
        began=HOSTILE,
        nodes=(HOSTILE,),
        versions={HOSTILE: HOSTILE},
        leaders=(Leader(0, 1, HOSTILE),),
        counts={HOSTILE: 1},
        notes=(HOSTILE,),
    )
    folder = tmp_path / "a run"
    folder.mkdir()
    write_all(folder, recorder.lines, verdicts, facts)
    for file in (folder / "report.html", index.write(tmp_path)):
        text = file.read_text()
        page = Page(text)
        assert "img" not in page.tags and "alert(1)" not in text.replace(
            "&lt;script&gt;alert(1)", ""
        ).replace("\\u003cscript\\u003ealert(1)", "")
        assert not any(name.startswith("on") for _, name, _ in page.attributes)
        assert page.tags.count("script") == text.count("<script")
        assert "\x00" not in text and "\u202e" not in text
    suite = ET.parse(folder / "junit.xml").getroot()
    assert suite.find("testsuite/testcase/failure") is not None


def test_a_counter_example_is_drawn_and_told() -> None:
    """A lane per process, a bar per operation, open ones without an end, and every line below."""
    recorder = Recorder()
    for process in (3, 5, 8):
        recorder.note(process, Type.INVOKE, "acquire", "orders", {"wait_ms": 0}, node="n1")
    recorder.note(3, Type.OK, "acquire", "orders", {"token": 41})
    recorder.note(5, Type.OK, "acquire", "orders", {"token": 41})
    recorder.note(8, Type.INFO, "acquire", "orders", error="timeout")
    text = html.page(recorder.lines, [reject("K2", "one token twice", recorder.lines)], facts_of())
    page = Page(text)
    for words in ("process 3", "process 5", "process 8", "token=41", "timeout"):
        assert words in page.text
    bars = [value for tag, name, value in page.attributes if tag == "rect" and name == "class"]
    assert bars.count("bar ok") == 2 and bars.count("bar info open") == 1


def test_a_long_counter_example_says_what_it_leaves_out() -> None:
    """The picture holds so many operations, the table so many lines."""
    history = a_history(4, 400)
    text = Page(html.page(history, [reject("K5", "no", history)], facts_of())).text
    assert f"the last {lanes.SPANS_MAX} of 400 operations" in text
    assert "lines more are in results.json" in text


def test_a_big_history_makes_a_small_page() -> None:
    """A hundred thousand operations: under three million bytes, and it says that it chose."""
    history = a_history(2, 100_000, length_s=900)
    text = html.page(history, [accept("K1", "fine")], facts_of(minutes=15))
    assert len(text.encode()) < 3_000_000
    assert "of 100,000 operations are dots" in Page(text).text


def test_what_stands_alone_is_never_left_out() -> None:
    """Thinning keeps the slowest, the refused and the unknown, and as many as it may."""
    spans = figures.spans(a_history(3, 40_000))
    last_ns = max(span.end.time_ns for span in spans if span.end)
    thin = figures.thinned(spans, last_ns, POINTS_MAX)
    assert len(thin) <= POINTS_MAX
    slowest = max(spans, key=lambda span: span.latency_ns(last_ns))
    assert slowest in thin
    assert {span.outcome for span in thin} == {Type.OK, Type.FAIL, Type.INFO}
    assert figures.thinned(spans[:50], last_ns, POINTS_MAX) == spans[:50]


def test_faults_are_paired_by_name_and_value() -> None:
    """Two kills of two nodes end in any order; what never ends has no end; the rest are remarks."""
    recorder = Recorder()
    for phase, node in (("begin", "n1"), ("begin", "n2"), ("end", "n1")):
        recorder.note(-1, Type.INFO, "kill", value={"phase": phase, "node": node})
    recorder.note(-2, Type.INFO, "node.watched", value={"phase": "begin"})
    recorder.note(-1, Type.INFO, "heal", value={"took_ms": 3})
    first, second, remark = figures.faults(recorder.lines)
    assert (first.what, first.end_ns) == ({"node": "n1"}, recorder.lines[2].time_ns)
    assert second.what == {"node": "n2"} and second.end_ns is None
    assert remark.is_remark and remark.begin_ns == remark.end_ns
    assert results.make(recorder.lines, [], facts_of()).faults_count == 2


def test_what_observers_saw_is_part_of_a_counter_example() -> None:
    """They do no operations: marks in a lane of their own, and lines in the table."""
    recorder = Recorder()
    for node in ("n1", "n2"):
        recorder.note(-2, Type.INFO, "node.leads", node, {"term": 4})
    text = html.page(recorder.lines, [reject("K14", "two lead", recorder.lines)], facts_of())
    page = Page(text)
    assert page.text.count("observer") == 3 and "term=4" in page.text
    assert page.tags.count("circle") == 2


def test_a_run_that_did_not_come_to_its_end_is_not_passed(tmp_path: Path) -> None:
    """Whatever its checks say: the page, the figures, the index and JUnit all tell."""
    facts = facts_of(trouble="n2 did not start: exit 65")
    (tmp_path / "a").mkdir()
    made = write_all(tmp_path / "a", a_history(1, 20), [accept("K1", "fine")], facts)
    assert made.verdict == "undecided"
    for file in (tmp_path / "a" / "report.html", index.write(tmp_path)):
        assert facts.trouble in Page(file.read_text()).text
    suite = ET.parse(tmp_path / "a" / "junit.xml").getroot().find("testsuite")
    assert suite is not None and suite.get("errors") == "1" and suite.get("tests") == "2"
    wrong = write_all(tmp_path / "a", [], [reject("K2", "no", [])], facts)
    assert wrong.verdict == "violated"


def test_a_history_that_was_cut_off_is_reported_all_the_same() -> None:
    """No completion at all, and one without its invoke."""
    recorder = Recorder()
    recorder.note(0, Type.INVOKE, "put", "mail")
    recorder.note(1, Type.OK, "put", "mail")
    (span,) = figures.spans(recorder.lines)
    assert span.end is None and span.outcome is Type.INFO
    assert Page(html.page(recorder.lines, [], facts_of())).text


def test_quantiles_are_values_that_were_measured() -> None:
    """Nearest rank; nothing gives zeros."""
    spread = figures.quantiles(range(1, 101))
    assert (spread.p50, spread.p90, spread.p99, spread.max) == (50, 90, 99, 100)
    assert figures.quantiles([7.0]) == figures.Quantiles(1, 7.0, 7.0, 7.0, 7.0)
    assert figures.quantiles([]).count == 0


def test_rates_count_every_completion_once() -> None:
    """The sum over all parts is the number of answers."""
    history = a_history(5, 1_000)
    spans = figures.spans(history)
    last_ns = figures.length_ns(history)
    rows = figures.rates(spans, last_ns, 37)
    counted = sum(sum(row) for row in rows.values()) * last_ns / 1e9 / 37
    assert round(counted) == 1_000


def test_junit_has_a_case_per_check_and_a_failure_for_all_that_did_not_pass(tmp_path: Path) -> None:
    """What could not be decided fails too; the text holds the lines and the replay."""
    history = a_history(1, 9)
    verdicts: list[Verdict] = [
        accept("K1", "fine"),
        reject("K2", "held twice", history[:3]),
        undecided("K5", "no waiters"),
    ]
    junit.write(tmp_path / "junit.xml", verdicts, facts_of())
    suite = ET.parse(tmp_path / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == ["K1", "K2", "K5"]
    failures = [case.find("failure") for case in cases]
    assert failures[0] is None and failures[1] is not None and failures[2] is not None
    assert failures[1].get("message") == "held twice"
    told = failures[1].text or ""
    assert facts_of().replay in told and told.count('"time_ns"') == 3
    assert failures[2].get("type") == "undecided"


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    """Versioned, with every figure; a later format is refused."""
    history = a_history(6, 500)
    made = results.write(tmp_path / "results.json", history, [accept("K1", "fine")], facts_of())
    assert results.load(tmp_path / "results.json") == made
    assert (made.format, made.verdict, made.operations) == (1, "passed", 500)
    assert made.ok + made.fail + made.info == 500
    assert len(made.faults) == 5 and made.outages_ms.max == 1400.0
    later = msgspec.structs.replace(made, format=2)
    (tmp_path / "later.json").write_bytes(msgspec.json.encode(later))
    with pytest.raises(msgspec.DecodeError, match="format 2"):
        results.load(tmp_path / "later.json")


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    """No clock and no chance in a report."""
    pages = [html.page(a_history(8, 300), [accept("K1", "ok")], facts_of()) for _ in range(2)]
    assert pages[0] == pages[1]


def test_the_index_links_every_run_and_shows_the_worst(tmp_path: Path) -> None:
    """Newest first; a run that died is named and keeps the whole from being passed."""
    for name, began in (("a", "2026-11-20T10:00:00+00:00"), ("b", "2026-11-21T10:00:00+00:00")):
        (tmp_path / name).mkdir()
        facts = facts_of(run=f"run-{name}", began=began)
        write_all(tmp_path / name, a_history(1, 50), [accept("K1", "fine")], facts)
    page = Page(index.write(tmp_path).read_text())
    assert "Nothing was violated" in page.text
    assert page.text.index("run-b") < page.text.index("run-a")
    for link in loads(page):
        assert (tmp_path / link).is_file()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "history.jsonl").write_text("")
    page = Page(index.write(tmp_path).read_text())
    assert "Could not be decided" in page.text and "1 without results" in page.text
    (tmp_path / "d").mkdir()
    write_all(tmp_path / "d", a_history(1, 50), [reject("K2", "no", [])], facts_of())
    page = Page(index.write(tmp_path).read_text())
    assert "Violated" in page.text and "K2" in page.text


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (0.25, "250 µs"),
        (3.456, "3.46 ms"),
        (812, "812 ms"),
        (1_400, "1.40 s"),
        (250_000, "4 min 10 s"),
        (7_260_000, "2 h 1 min"),
    ],
)
def test_lengths_have_the_unit_that_suits_them(ms: float, words: str) -> None:
    """Three figures, whatever the size."""
    assert length_of(ms) == words


def test_moments_and_values_are_short() -> None:
    """Minutes and hours only where they are needed; objects as names and values."""
    assert [time_of(s * NS) for s in (1, 75, 3_723)] == ["1.000 s", "1:15.000", "1:02:03.000"]
    assert shown({"token": 7, "to": ["n1"]}) == 'token=7 to=["n1"]'
    assert len(shown("x" * 900, 100)) == 100


def test_an_axis_has_few_ticks_at_round_times() -> None:
    """From a millisecond to a week."""
    for last_ns in (10**6, 3 * NS, 180 * NS, 900 * NS, 86_400 * NS, 7 * 86_400 * NS):
        assert 1 <= last_ns / tick_step_ns(last_ns) <= 13
