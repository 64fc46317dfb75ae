"""Runs: their order, their folder, their exit code; one of them with real processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest
from jepsen import history
from jepsen.history import Line, Recorder, Type
from jepsen.nemeses.base import NEMESIS
from jepsen.runner import Outcome, Plan, Tools, outages, run
from jepsen.toxiproxy import Server
from jepsen.verdicts import Checker, Verdict, accept, reject, undecided
from jepsen.workloads.base import Arena


class Opened:
    """Judges the workload below."""

    name = "sessions are opened"

    def check(self, lines: Sequence[Line]) -> Verdict:
        count = sum(line.type is Type.OK for line in lines)
        return accept(self.name, f"{count}") if count else undecided(self.name, "none was")


class Openers:
    """One client that opens a session now and then."""

    name = "openers"

    def __init__(self) -> None:
        self.stages: list[str] = []

    def checkers(self) -> Sequence[Checker]:
        return [Opened()]

    async def prepare(self, arena: Arena) -> None:
        self.stages.append("prepare")

    async def run(self, arena: Arena) -> None:
        self.stages.append("run")
        async with aiohttp.ClientSession() as http:
            while await arena.rest(0.1):
                await self._open(arena, http)

    async def settle(self, arena: Arena) -> None:
        self.stages.append("settle")

    async def _open(self, arena: Arena, http: aiohttp.ClientSession) -> None:
        node = arena.rng.choice(arena.nodes)
        process, f = arena.recorder.process(), "session.open"
        arena.recorder.note(process, Type.INVOKE, f, "", {"ttl_ms": 60_000}, node=node)
        try:
            url = f"{arena.url(0, node)}/v1/sessions"
            async with http.post(url, json={"ttl": "1m"}) as response:
                body = await response.json()
                kind = Type.OK if response.status == 201 else Type.INFO
        except aiohttp.ClientError as error:
            body, kind = str(error), Type.INFO
        key = body["session"] if kind is Type.OK else ""
        arena.recorder.note(process, kind, f, key, body, node=node)


@pytest.mark.timeout(600)
async def test_a_run_leaves_a_judged_folder(toxiproxy_server: Server, tmp_path: Path) -> None:
    """Load, faults in pairs, healing, last reads, digests, verdicts, reports; and no cluster."""
    workload = Openers()
    plan = Plan(
        workload="openers", nemesis="pause-leader-long", seed=1, minutes=0.1, out=tmp_path, slots=1
    )
    outcome = await run(
        plan,
        Tools(server=toxiproxy_server),
        say=lambda _: None,
        makers={"openers": lambda: workload},
    )
    assert outcome.trouble == ""
    assert workload.stages == ["prepare", "run", "settle"]
    assert outcome.operations > 10
    passed = {verdict.check for verdict in outcome.verdicts if verdict.passed}
    assert {"K14 election safety", "K15 status", Opened.name} <= passed
    assert not [verdict for verdict in outcome.verdicts if verdict.valid is False]
    left = {file.name for file in outcome.folder.iterdir()}
    assert {"history.jsonl", "results.json", "junit.xml", "report.html", "logs"} <= left
    assert not {"nodes", "disks"} & left
    lines = history.load(outcome.folder / "history.jsonl")
    final = [line for line in lines if line.f == "node.digest" and line.value.get("final")]
    assert sorted(line.key for line in final) == ["n1", "n2", "n3"]
    assert len({(line.value["index"], line.value["digest"]) for line in final}) == 1
    assert sum(line.f == "heal" for line in lines) == 1
    phases = [line.value["phase"] for line in lines if line.process == NEMESIS]
    assert phases == ["begin", "end"] * (len(phases) // 2)
    assert (outcome.folder / "logs" / "n1.log").read_text().count('"stopped"') == 1


async def test_a_run_that_cannot_be_done_says_why_and_is_still_reported(
    toxiproxy_server: Server, tmp_path: Path
) -> None:
    """Here without the shim it needs; the exit code is neither passed nor violated."""
    plan = Plan(workload="x", nemesis="power-all", seed=1, minutes=1, out=tmp_path)
    bare = Tools(server=toxiproxy_server)
    outcome = await run(plan, bare, say=lambda _: None, makers={"x": Openers})
    assert "C compiler" in outcome.trouble
    assert outcome.exit_code == 2
    assert (outcome.folder / "report.html").exists()


def _outcome(*verdicts: Verdict, trouble: str = "") -> Outcome:
    plan = Plan(workload="x", nemesis="none", seed=1, minutes=1, out=Path())
    return Outcome(plan, Path(), verdicts, trouble, 0, (), {}, 0.0)


def test_the_exit_code_says_what_came_of_it() -> None:
    """A violation is worse than a run that could not be finished; undecided is not passed."""
    good, bad, open_ = accept("a", "x"), reject("b", "x", []), undecided("c", "x")
    assert _outcome(good).exit_code == 0
    assert _outcome(good, open_).exit_code == 1
    assert _outcome(good, bad).exit_code == 1
    assert _outcome(good, bad, trouble="lost").exit_code == 1
    assert _outcome(good, trouble="lost").exit_code == 2


def test_a_plan_names_its_folder_and_the_command_that_repeats_it() -> None:
    """What differs from the default is named."""
    plan = Plan(workload="jobs", nemesis="clocks", seed=7, minutes=0.5, out=Path(), nodes=5)
    assert plan.name == "jobs-clocks-7-5nodes"
    assert plan.replay == (
        "python jepsen-style --workload jobs --nemesis clocks --seed 7 --minutes 0.5 --nodes 5"
    )
    kills = Plan(workload="jobs", nemesis="mixed", seed=7, minutes=0.5, out=Path(), kills=9)
    assert kills.replay == "python jepsen-style --workload jobs --kills 9 --seed 7"


def test_time_without_service_is_from_a_kill_to_a_change_asked_for_after_it() -> None:
    """Not to one that was under way, not to a read, and not where another fault overlaps."""
    recorder = Recorder()

    def fault(f: str, phase: str) -> Line:
        return recorder.note(NEMESIS, Type.INFO, f, "", {"phase": phase, "nodes": ["n1"]})

    def step(process: int, kind: Type, f: str = "lock.acquire") -> Line:
        return recorder.note(process, kind, f)

    step(0, Type.INVOKE)
    kill = fault("kill-leader", "begin")
    step(0, Type.OK)
    step(1, Type.INVOKE, "lock.read")
    step(1, Type.OK, "lock.read")
    step(2, Type.INVOKE)
    step(3, Type.INVOKE)
    step(2, Type.FAIL)
    served = step(3, Type.OK)
    fault("kill-leader", "end")
    fault("latency", "begin")
    fault("kill-leader", "begin")
    step(4, Type.INVOKE)
    step(4, Type.OK)
    found = outages(recorder.lines)
    assert found == [round((served.time_ns - kill.time_ns) / 1e6, 1)]
