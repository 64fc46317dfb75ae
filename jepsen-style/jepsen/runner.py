"""One run: a cluster, what its clients do, what goes wrong, and what is made of it.

RULE: brings the others together, in one order: cluster up, workloads prepared, load under faults,
everything healed and serving again, a calm, last reads, digests compared, nodes stopped, checkers
asked, reports written. All chance comes from the seed.

A run leaves a folder: `history.jsonl` (all that was asked, answered and done to the cluster),
`results.json`, `junit.xml`, `report.html`, `logs/` (what the nodes wrote).
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import cluster
from jepsen import nemeses, reports, testbed, workloads
from jepsen.checkers.hygiene import Hygiene
from jepsen.checkers.progress import Progress
from jepsen.checkers.replicas import Replicas
from jepsen.checkers.status import Status
from jepsen.history import Line, Recorder, Type
from jepsen.nemeses.base import FACTS
from jepsen.nemeses.kills import LeaderKills
from jepsen.system import COTERIE, System
from jepsen.testbed import Testbed
from jepsen.toxiproxy import Server
from jepsen.verdicts import Checker, Verdict, accept, reject, undecided
from jepsen.workloads.base import Arena, Workload

CALM_S: Final = 4.0
"""Load goes on for so long on the healed cluster: what cannot recover shows."""

LAST_WORDS_S: Final = 60.0
"""Workloads end soon after they are told to; one that does not is a failed run."""

SETTLE_S: Final = 300.0
LOOK_EVERY_S: Final = 0.5
ELECTION_MS: Final = 900

HELD_MOST: Final = {"descriptors": (400, "open"), "memory": (700, "MiB")}
"""Of a node at the end of a run: some ten times what it takes."""

_QUIET: Final = frozenset({"node.digest", "node.view", "node.read"})


class CannotRun(Exception):
    """The run itself could not be done; this says nothing about the cluster."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        minutes: of load under faults.
        kills: kill the leader so often, in place of a nemesis and its minutes; 0 for not.
        out: where the run's folder is made, named by workload, nemesis and seed.
        system: what a node is.
    """

    workload: str
    nemesis: str
    seed: int
    minutes: float
    out: Path
    nodes: int = 3
    slots: int = 4
    kills: int = 0
    system: System = COTERIE

    @property
    def name(self) -> str:
        """Of the run, and of its folder."""
        size = "" if self.nodes == 3 else f"-{self.nodes}nodes"
        system = f"-{self.system.name}" if self.system.name else ""
        nemesis = f"{self.kills}kills" if self.kills else self.nemesis
        return f"{self.workload}-{nemesis}-{self.seed}{size}{system}"

    @property
    def replay(self) -> str:
        """The command that does it again: same lots, same faults in the same order."""
        words = [f"python jepsen-style --workload {self.workload}"]
        words.append(f"--kills {self.kills}" if self.kills else f"--nemesis {self.nemesis}")
        words.append(f"--seed {self.seed}")
        if not self.kills:
            words.append(f"--minutes {self.minutes:g}")
        if self.nodes != 3:
            words.append(f"--nodes {self.nodes}")
        if self.system.words:
            words.append(self.system.words)
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Tools:
    """What is on this machine.

    Attributes:
        server: a toxiproxy of our own.
        shim, faketime: libraries to load into nodes; None where they cannot be had.
    """

    server: Server
    shim: Path | None = None
    faketime: Path | None = None

    @property
    def equipment(self) -> frozenset[str]:
        """What nodes can be loaded with."""
        return frozenset(
            name
            for name, library in (("shim", self.shim), ("faketime", self.faketime))
            if library is not None
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        verdicts: of every checker.
        trouble: why the run could not be done whole; empty when it was.
        folder: where everything is.
        outages_ms: times without service, in the order they happened.
        counts: faults by name.
    """

    plan: Plan
    folder: Path
    verdicts: tuple[Verdict, ...]
    trouble: str
    operations: int
    outages_ms: tuple[float, ...]
    counts: dict[str, int]
    took_s: float

    @property
    def passed(self) -> bool:
        """The run was done, and every check passed."""
        return not self.trouble and all(verdict.passed for verdict in self.verdicts)

    @property
    def exit_code(self) -> int:
        """0 passed, 1 something is wrong or undecided, 2 the run could not be done."""
        if any(verdict.valid is False for verdict in self.verdicts):
            return 1
        if self.trouble:
            return 2
        return 0 if self.passed else 1


@dataclass(slots=True)
class _Notes:
    """What a run collects on its way."""

    counts: dict[str, int] = field(default_factory=dict)
    outages_ms: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    leaders: list[reports.Leader] = field(default_factory=list)
    trouble: str = ""
    healed_s: float | None = None


async def run(
    plan: Plan,
    tools: Tools,
    *,
    say: Callable[[str], None] = print,
    makers: dict[str, Callable[[], Workload]] | None = None,
) -> Outcome:
    """Do one run, and write its folder.

    Args:
        say: told of each stage, for people.
        makers: workloads by name; the registry's when none are given.
    """
    began_s = time.monotonic()
    folder = plan.out / plan.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    recorder = Recorder(folder / "history.jsonl")
    notes = _Notes()
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    known = workloads.WORKLOADS if makers is None else makers
    workload = known[plan.workload]()
    try:
        await _on_a_cluster(plan, tools, workload, recorder, notes, folder, say)
    # The reports of a run that failed are what one looks at to see why.
    except Exception as error:  # noqa: BLE001
        notes.trouble = _told(error)
    finally:
        recorder.close()
    lines = recorder.lines
    say("judging" if not notes.trouble else f"trouble: {notes.trouble[:300]}")
    always: list[Checker] = [Replicas(), Progress(), Hygiene()]
    if plan.system.has_probes:
        always.append(Status())
    notes.verdicts += await asyncio.to_thread(_judged, workload, lines, always)
    if not notes.outages_ms:
        notes.outages_ms = outages(lines)
    facts = reports.Facts(
        run=plan.name,
        workload=plan.workload,
        nemesis=plan.nemesis,
        seed=plan.seed,
        minutes=plan.minutes,
        replay=plan.replay,
        nodes=tuple(f"n{number + 1}" for number in range(plan.nodes)),
        began=began,
        versions={"coterie": cluster.__version__, "python": platform.python_version()},
        leaders=tuple(notes.leaders),
        outages_ms=tuple(notes.outages_ms),
        counts=dict(sorted(notes.counts.items())),
        notes=tuple(filter(None, (notes.trouble, _healing(notes.healed_s)))),
    )
    shown = [line for line in lines if line.process >= 0 or line.f not in _QUIET]
    await asyncio.to_thread(reports.write_all, folder, shown, notes.verdicts, facts)
    return Outcome(
        plan=plan,
        folder=folder,
        verdicts=tuple(notes.verdicts),
        trouble=notes.trouble,
        operations=sum(line.type is Type.INVOKE for line in lines),
        outages_ms=tuple(notes.outages_ms),
        counts=notes.counts,
        took_s=time.monotonic() - began_s,
    )


async def _on_a_cluster(
    plan: Plan,
    tools: Tools,
    workload: Workload,
    recorder: Recorder,
    notes: _Notes,
    folder: Path,
    say: Callable[[str], None],
) -> None:
    """Everything between the first process and the last."""
    # The lots of clients and of faults are drawn apart: one more of these changes none of those.
    needs = (
        frozenset() if plan.kills else nemeses.make(plan.nemesis, equipment=tools.equipment).needs
    )
    async with testbed.opened(
        folder,
        tools.server,
        nodes=plan.nodes,
        slots=plan.slots,
        equipment=needs,
        shim=tools.shim,
        faketime=tools.faketime,
        system=plan.system,
    ) as bed:
        arena = Arena(recorder, random.Random(f"{plan.seed}/clients"), bed.slot_endpoints)
        recorder.note(FACTS, Type.INFO, "node.watched", "", {"nodes": list(bed.names)})
        try:
            async with _watched(bed, recorder):
                await _under_load(plan, tools, workload, bed, arena, notes, say)
        finally:
            _last_facts(bed, recorder, notes)


async def _under_load(
    plan: Plan,
    tools: Tools,
    workload: Workload,
    bed: Testbed,
    arena: Arena,
    notes: _Notes,
    say: Callable[[str], None],
) -> None:
    recorder = arena.recorder
    say(f"{plan.name}: preparing")
    await workload.prepare(arena)
    load = asyncio.create_task(workload.run(arena))
    try:
        say(f"{plan.name}: under faults")
        if plan.kills:
            kills = LeaderKills(plan.kills, plan.seed)
            try:
                await _while_alive(load, kills.run(bed, recorder))
            finally:
                notes.outages_ms = list(kills.outages_ms)
                notes.counts["leader kills"] = len(kills.outages_ms)
        else:
            nemesis = nemeses.make(plan.nemesis, equipment=tools.equipment, arena=arena)
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(plan.minutes * 60, stop.set)
            lots = random.Random(f"{plan.seed}/nemesis")
            try:
                if nemesis.lanes:
                    await _while_alive(load, nemesis.run(bed, lots, recorder, stop))
                await _while_alive(load, _set(stop))
            finally:
                notes.counts |= nemesis.counts
                await nemesis.heal(bed)
        say(f"{plan.name}: healing")
        await bed.heal()
        notes.healed_s = await bed.until_served()
        recorder.note(
            FACTS,
            Type.INFO,
            "heal",
            "",
            {"election_ms": ELECTION_MS, "took_ms": round(notes.healed_s * 1_000)},
        )
        await _while_alive(load, asyncio.sleep(CALM_S))
        arena.stop.set()
        async with asyncio.timeout(LAST_WORDS_S):
            await load
    finally:
        arena.stop.set()
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
    say(f"{plan.name}: last reads")
    async with asyncio.timeout(SETTLE_S):
        await workload.settle(arena)
    for name, view in (await bed.until_level()).items():
        value = {"index": view.applied, "digest": view.digest, "final": True}
        recorder.note(FACTS, Type.INFO, "node.digest", name, value)
    _tell_leaks(bed, recorder)
    # Stopped as asked: a node that cannot even do that is a crash.
    await asyncio.gather(*(bed.terminate(name) for name in bed.running))


async def _while_alive(load: asyncio.Task[None], work: object) -> None:
    """Do something while the load goes on; a load that ends is a failure of the run.

    Raises:
        CannotRun: the workload has ended by itself; its error is the cause.
    """
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        await asyncio.wait({load, task}, return_when=asyncio.FIRST_COMPLETED)
        if load.done():
            raise CannotRun("the workload ended before it was told to") from load.exception()
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


@contextlib.asynccontextmanager
async def _watched(bed: Testbed, recorder: Recorder) -> AsyncIterator[None]:
    """Look at all nodes from time to time while the block runs, and take down what they say; each
    at its own pace, so that one that does not answer keeps nobody from the others.
    """

    async def crashes() -> None:
        told = 0
        while True:
            told = _tell_crashes(bed, recorder, told)
            await asyncio.sleep(LOOK_EVERY_S)

    async def looks(name: str) -> None:
        while True:
            await _look_at(bed, recorder, name)
            await asyncio.sleep(LOOK_EVERY_S)

    async def reads(name: str) -> None:
        while True:
            if name in bed.running and name not in bed.paused:
                asked_ns = time.monotonic_ns() - recorder.began_ns
                outcome = await bed.read(name)
                value = {"outcome": outcome, "asked_ns": asked_ns}
                recorder.note(FACTS, Type.INFO, "node.read", name, value)
            await asyncio.sleep(LOOK_EVERY_S)

    async def watch() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(crashes())
            for name in bed.names:
                group.create_task(looks(name))
                if bed.system.has_probes:
                    group.create_task(reads(name))

    task = asyncio.create_task(watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _look_at(bed: Testbed, recorder: Recorder, name: str) -> None:
    """Take down what a node says of itself, and what we know of the leader that it names."""
    asked_ns = time.monotonic_ns() - recorder.began_ns
    gone_ms = {other: bed.gone_ms(other) for other in bed.names}
    shut_ms = {other: bed.shut_ms(name, other) for other in bed.names}
    is_late = bed.is_late
    view = await bed.look(name)
    if view is None:
        return
    value = {"index": view.applied, "digest": view.digest, "term": view.term}
    recorder.note(FACTS, Type.INFO, "node.digest", name, value)
    is_ready = await bed.is_ready(name) if bed.system.has_probes else None
    if is_ready is None:
        return
    value = {
        "asked_ns": asked_ns,
        "role": view.role,
        "leader": view.leader,
        "term": view.term,
        "ready": view.ready,
        "readyz": is_ready,
        "gone_ms": gone_ms.get(view.leader or "", 0),
        "shut_ms": shut_ms.get(view.leader or "", 0),
        "late": is_late or bed.is_late,
    }
    recorder.note(FACTS, Type.INFO, "node.view", name, value)


def _tell_crashes(bed: Testbed, recorder: Recorder, told: int) -> int:
    for end in bed.crashes[told:]:
        value = {"exit": end.returncode, "why": end.why, "log": [word[:500] for word in end.words]}
        recorder.note(FACTS, Type.INFO, "node.crash", end.node, value)
    return len(bed.crashes)


def _tell_leaks(bed: Testbed, recorder: Recorder) -> None:
    """Take down nodes that hold far more than a few clients can need."""
    for name in bed.running:
        for what, (most, unit) in HELD_MOST.items():
            held = bed.holdings(name)[what]
            if held > most:
                value = {"what": f"{what} ({unit})", "from": most, "to": held}
                recorder.note(FACTS, Type.INFO, "node.leak", name, value)


def _last_facts(bed: Testbed, recorder: Recorder, notes: _Notes) -> None:
    """What is known of the nodes now that all is over."""
    told = sum(line.f == "node.crash" and line.process == FACTS for line in recorder.lines)
    _tell_crashes(bed, recorder, told)
    for name, text in bed.complaints:
        recorder.note(FACTS, Type.INFO, "node.traceback", name, {"text": text})
    notes.leaders = sorted(
        (
            reports.Leader(time_ns=max(0, at_ns - recorder.began_ns), term=term, node=node)
            for term, who in bed.watch.reigns.items()
            for node, at_ns in who.items()
        ),
        key=lambda leader: leader.time_ns,
    )
    notes.verdicts.append(_one_leader_per_term(bed))


def _one_leader_per_term(bed: Testbed) -> Verdict:
    check = "K14 election safety"
    looks, reigns = bed.watch.looks, bed.watch.reigns
    torn = bed.watch.torn_terms
    if torn:
        return reject(check, f"two leaders said that they lead in one term: {torn}", [])
    if not reigns:
        return undecided(check, f"nobody was seen leading in {looks} looks at nodes")
    return accept(
        check, f"{len(reigns)} terms with one leader each, in {looks} looks at what nodes say"
    )


def _judged(workload: Workload, lines: Sequence[Line], always: Sequence[Checker]) -> list[Verdict]:
    """Every checker's answer, of the workload's and of those that every run has; one that fails
    has decided nothing.
    """
    verdicts = []
    try:
        asked = workload.checkers()
    # A checker's own bug must not hide what the others say, here and below.
    except Exception as error:  # noqa: BLE001
        verdicts.append(undecided("checkers", f"they cannot be made: {_told(error)}"))
        asked = ()
    for name, checker in {one.name: one for one in (*asked, *always)}.items():
        try:
            verdicts.append(checker.check(lines))
        except Exception as error:  # noqa: BLE001
            verdicts.append(undecided(name, f"the checker failed: {_told(error)}"))
    return verdicts


def outages(lines: Sequence[Line]) -> list[float]:
    """Times without service after kills of the leader that no other fault overlaps, in ms.

    From the kill (when it was taken down, just after the process was gone) to the first
    acknowledged change that was asked for after it.
    """
    found: list[float] = []
    faults_open = 0
    kill: Line | None = None
    asked: dict[int, Line] = {}
    for line in lines:
        if line.process == -1 and isinstance(line.value, dict) and "phase" in line.value:
            begins = line.value["phase"] == "begin"
            if begins and line.f == "kill-leader" and not faults_open:
                kill = line
            elif begins:
                kill = None
            faults_open += 1 if begins else -1
        elif kill is None or line.process < 0:
            continue
        elif line.type is Type.INVOKE:
            if not line.f.endswith((".read", ".list", ".get")):
                asked[line.process] = line
        elif asked.pop(line.process, kill).index > kill.index and line.type is Type.OK:
            found.append(round((line.time_ns - kill.time_ns) / 1e6, 1))
            kill = None
    return found


def _healing(healed_s: float | None) -> str:
    if healed_s is None:
        return ""
    return f"after healing every node served again within {healed_s:.1f} s"


def _told(error: BaseException) -> str:
    """An error and what caused it, in one line."""
    parts: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(parts) < 4:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        parts.append(f"{type(seen).__name__}: {seen}")
        seen = seen.__cause__
    return "; because ".join(parts)
