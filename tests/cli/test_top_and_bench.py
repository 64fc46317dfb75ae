"""`coterie top` and `coterie bench` against a machine: what they show, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.cli.bench import percentile_ms
from cluster.cli.figures import Pace, totals
from cluster.cli.top import Look, view
from tests.cli.machine import Shell, serving

PAGE = """# HELP a Something.
a_total{x="1"} 2
a_total{x="/v1/{name} \\"q\\"",y=""} 4.5
b 1e3
c{le="+Inf"} NaN-ish
"""


def test_figures_are_summed_over_their_labels() -> None:
    """What is no number is left out."""
    assert totals(PAGE) == {"a_total": 6.5, "b": 1000.0}


def test_a_pace_needs_two_pages_of_the_same_life() -> None:
    """A page that says the same again changes nothing; a counter that fell began anew."""
    pace = Pace()
    pace.seen({"a": 10.0}, 1.0)
    assert pace.of("a") is None
    pace.seen({"a": 30.0}, 3.0)
    assert pace.of("a") == 10.0
    pace.seen({"a": 30.0}, 4.0)
    assert pace.of("a") == 10.0
    pace.seen({"a": 36.0}, 5.0)
    assert pace.of("a") == 3.0
    pace.seen({"a": 1.0}, 6.0)
    assert pace.of("a") is None


def test_a_view_without_anybody_says_so() -> None:
    """And the exit code is that of a cluster out of reach."""
    assert view(Look(0.0, None), {})["leader"] is None
    with serving() as endpoint:
        pass
    ran = Shell(endpoint, Path.cwd()).line("coterie top --count 1")
    assert (ran.code, ran.out.strip()) == (4, "nobody answers")


def test_top_shows_who_leads_what_is_done_and_where_it_queues(tmp_path: Path) -> None:
    """As text, or as one line of JSON a look, the second one with rates."""
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        shell.line("coterie jobs put mail hello")
        ran = shell.line("coterie top --count 1")
        assert "n1 leads, term 1" in ran.out
        assert "\nmail " in ran.out
        assert max(map(len, ran.out.splitlines())) <= 80
        ran = shell.line("coterie top --count 2 --interval 100ms -o json")
        first, second = (json.loads(line) for line in ran.out.splitlines())
        assert (first["nodes"][0]["requests_per_s"], first["tubes"][0]["ready"]) == (None, 1)
        assert second["nodes"][0]["applied"] >= first["nodes"][0]["applied"]
        assert "\x1b" not in ran.out


def test_percentiles_are_of_the_nearest_rank() -> None:
    """Of nothing there is none."""
    times_s = [each / 1_000 for each in range(1, 101)]
    assert [percentile_ms(times_s, part) for part in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile_ms([0.001], 0.5) == 1.0
    assert percentile_ms([], 0.5) is None


def test_bench_measures_warns_and_takes_all_away_again(tmp_path: Path) -> None:
    """Every operation of the mix, without errors; no session, lock or job stays."""
    with serving() as endpoint:
        shell = Shell(endpoint, tmp_path)
        ran = shell.line("coterie bench mixed --clients 4 --names 2 --duration 300ms --yes -o json")
        found = json.loads(ran.out)
        assert (ran.code, found["errors"]) == (0, {})
        assert {row["operation"] for row in found["rows"]} == {
            "acquire",
            "release",
            "put",
            "reserve",
            "delete",
        }
        assert all(row["p50_ms"] <= row["p99_ms"] <= row["max_ms"] for row in found["rows"])
        assert "Warning: It writes to the cluster" in ran.err
        for left in ("sessions list", "locks list"):
            assert shell.line(f"coterie {left} -o name").out == ""
        tubes = json.loads(shell.line("coterie jobs tubes -o json").out)
        assert tubes["totals"]["jobs"] == 0


def test_bench_does_nothing_where_nobody_said_yes(tmp_path: Path) -> None:
    """In a pipe nobody can be asked."""
    with serving() as endpoint:
        ran = Shell(endpoint, tmp_path).line("coterie bench locks")
    assert (ran.code, "add --yes" in ran.err) == (2, True)


def test_bench_tells_that_the_cluster_is_away(tmp_path: Path) -> None:
    """Nothing was opened."""
    with serving() as endpoint:
        pass
    shell = Shell(endpoint, tmp_path)
    ran = shell.line("coterie bench locks --clients 1 --yes --timeout 100ms")
    assert ran.code == 4
