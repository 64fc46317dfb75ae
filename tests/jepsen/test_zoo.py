"""The zoo: every plant takes hold and lets go again, and a handful are found at fixed seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jepsen import nemeses, workloads
from jepsen.runner import Plan
from jepsen.zoo import hunt, serve, table
from jepsen.zoo.hunt import Found
from jepsen.zoo.registry import ZOO, chosen
from jepsen.zoo.species import Plant, Simulated, planted, replaced

from cluster.replication.engine import Engine
from tests.simulation import faults
from tests.simulation import workloads as simulated_workloads
from tests.simulation.plan import PROFILES
from tests.tools.toxiproxy_server import ROOT

KNOWN_CHECKS = {
    checker.name for make in workloads.WORKLOADS.values() for checker in make().checkers()
} | {"K11 equal replicas", "K13 progress", "K14 election safety", "K15 hygiene", "K15 status"}


def test_the_zoo_is_large_enough() -> None:
    """The bar asks for twenty-five; some of them on real processes."""
    assert len(ZOO) >= 25
    assert sum(plant.real is not None for plant in ZOO.values()) >= 6


@pytest.mark.parametrize("plant", ZOO.values(), ids=lambda plant: plant.name)
def test_a_plant_says_where_it_is_hunted_and_by_whom(plant: Plant) -> None:
    """By names that exist: of profiles, faults, workloads, nemeses and checks."""
    assert plant.simulated or plant.real
    if plant.simulated is not None:
        one = plant.simulated
        assert one.laws
        assert one.profile in PROFILES
        assert set(one.faults) | set(one.settings.get("faults", ())) <= set(faults.FAULTS)
        assert simulated_workloads.find(one.workload)
    if plant.real is not None:
        assert plant.real.checks
        assert plant.real.checks <= KNOWN_CHECKS
        assert plant.real.workload in workloads.WORKLOADS
        assert plant.real.nemesis in nemeses.names()


@pytest.mark.parametrize("plant", ZOO.values(), ids=lambda plant: plant.name)
def test_a_plant_takes_hold(plant: Plant) -> None:
    """Code that moves takes its targets out of reach: then the plant must move with it."""
    with planted(plant):
        pass


def test_a_patch_ends_with_its_block() -> None:
    """Also where the block fails; and one that has no target is an error."""
    tick = Engine.tick
    patch = replaced(Engine, tick=None)
    patch.__enter__()
    assert Engine.tick is None
    patch.__exit__(ZeroDivisionError, ZeroDivisionError(), None)
    assert Engine.tick is tick
    with pytest.raises(AttributeError), replaced(Engine, no_such_thing=None):
        pass


# They show within a few seconds of virtual time; the rest is for `python -m jepsen.zoo`.
FOUND = (
    "g2-no-sync",
    "plant-barge",
    "semaphores-capacity",
    "jobs-at-once",
    "rooms-window",
)


@pytest.mark.parametrize("name", FOUND)
def test_a_bug_is_found(name: str) -> None:
    """At one of its first seeds, by its law, and not without it."""
    found = hunt.in_simulator(name, budget=3)
    assert found.right, found
    assert not found.false_alarm
    assert f"--ablate {name}" in found.replay


@pytest.fixture
def blind() -> Iterator[str]:
    """A plant that does nothing, under a name of its own."""
    harmless = Plant(
        "harmless",
        "nothing at all",
        "none",
        lambda: replaced(Engine),
        Simulated(frozenset({"durability"}), "calm", seconds=2.0, budget=2),
    )
    zoo = dict(ZOO)
    zoo["harmless"] = harmless
    with replaced(hunt, ZOO=zoo), replaced(table, ZOO=zoo):
        yield "harmless"


def test_a_bug_that_nothing_finds_is_told(blind: str) -> None:
    """After its whole budget, and the page says so."""
    found = hunt.in_simulator(blind)
    assert (found.by, found.after, found.passed) == ("", 2, False)
    assert "NOT FOUND" in table.line(found)
    page = table.page({table.key_of(found): found})
    assert "Not as they should be: harmless" in page
    assert "nothing **(!)**" in page


def test_a_bug_that_is_found_by_something_else_is_told() -> None:
    """And so is one that is also found where it is not."""
    found = Found("g4", "simulator", "no such law", False, 1, "detail", "again", "", 1.0)
    assert "BY OTHERS" in table.line(found)
    alarm = Found("g4", "simulator", "durability", True, 1, "", "again", "seed 0: durability", 1.0)
    assert not alarm.passed
    assert "FALSE ALARM" in table.line(alarm)


def test_findings_are_kept(tmp_path: Path) -> None:
    """From one hunt to the next."""
    file = tmp_path / "new" / "findings.json"
    assert table.load(file) == {}
    found = Found("g4", "simulator", "durability", True, 1, "", "again", "", 1.0)
    table.save(file, {table.key_of(found): found})
    assert table.load(file) == {"g4 @ simulator": found}


def test_plants_are_chosen_by_the_beginnings_of_their_names() -> None:
    """And a word that begins none is an error."""
    assert [plant.name for plant in chosen("g12,journal")] == ["g12", "journal-crc", "journal-rot"]
    assert len(chosen(None)) == len(ZOO)
    with pytest.raises(KeyError, match="nosuch"):
        chosen("g12,nosuch")


def node(*words: str, permit: str | None) -> subprocess.CompletedProcess[str]:
    """Call the launcher."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COTERIE_")}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "jepsen-style")])
    if permit is not None:
        environ[serve.PERMIT] = permit
    return subprocess.run(
        [sys.executable, "-P", "-m", "jepsen.zoo.serve", *words],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_launcher_refuses_without_permission() -> None:
    """Nobody starts a node with a bug in it by mistake."""
    refused = node("--plant", "g4", "--", "serve", "--help", permit=None)
    assert refused.returncode == 2
    assert "COTERIE_ZOO=1" in refused.stderr


def test_the_launcher_is_the_real_command_with_a_bug_in_it() -> None:
    """It takes the words of `coterie serve`; a plant must be named."""
    helped = node("--plant", "g4", "--", "serve", "--help", permit="1")
    assert helped.returncode == 0
    assert "Usage: coterie serve" in helped.stdout
    assert node("--plant", "nosuch", "--", "serve", permit="1").returncode == 2


def test_a_run_with_a_bug_says_so_in_its_name_and_its_command(tmp_path: Path) -> None:
    """So that it is never taken for a run of what we ship."""
    real = ZOO["plant-barge"].real
    assert real is not None
    plan: Plan = hunt.plan_of(real, 3, tmp_path, serve.system_of("plant-barge"))
    assert plan.name == "locks-none-3-plant-barge"
    assert plan.replay.endswith("--seed 3 --minutes 0.1333 --plant plant-barge")
