"""Stock PySyncObj behind the bed: a calm run of it passes, and its checkers see a lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from jepsen import models, stock
from jepsen.history import Line, Type
from jepsen.runner import Plan, Tools, run
from jepsen.stock.serve import Member
from jepsen.stock.workloads import WORKLOADS, Kept, Linear
from jepsen.toxiproxy import Server


@pytest.mark.timeout(600)
async def test_a_calm_run_passes(toxiproxy_server: Server, tmp_path: Path) -> None:
    """Three nodes, their own protocol through the links, registers read through the log."""
    plan = Plan("register", "none", 1, 0.05, tmp_path, system=stock.SYSTEM)
    assert plan.name == "register-none-1-stock"
    assert plan.replay.endswith("--stock")
    outcome = await run(
        plan, Tools(server=toxiproxy_server), say=lambda _: None, makers=dict(WORKLOADS)
    )
    assert outcome.trouble == ""
    verdicts = {verdict.check: verdict for verdict in outcome.verdicts}
    assert verdicts["K1 linearizable registers"].valid
    assert verdicts["K11 equal replicas"].valid
    assert outcome.operations > 10


def test_a_member_has_its_own_name_and_another_address_to_dial() -> None:
    """The library knows a node by its own address; what it dials is a link."""
    member = Member("127.0.0.1:7201", "127.0.0.1:4101")
    assert member.id == member.address == "127.0.0.1:7201"
    assert (member.ip, member.port) == ("127.0.0.1", 4101)


def test_an_increment_that_is_lost_is_seen() -> None:
    """It was acknowledged, and the sum is without it."""
    said = [
        (0, Type.INVOKE, "counter.add", {"value": 4}),
        (0, Type.OK, "counter.add", {"value": True}),
        (1, Type.INVOKE, "counter.read", {}),
        (1, Type.OK, "counter.read", {"value": 0}),
    ]
    lines = [
        Line(index, index, process, kind, f, "a", value)
        for index, (process, kind, f, value) in enumerate(said)
    ]
    checkers = (Linear("counter", models.counter()), Kept("counter"))
    assert [checker.check(lines).valid for checker in checkers] == [False, False]
    lines[3] = Line(3, 3, 1, Type.OK, "counter.read", "a", {"value": 4})
    assert [checker.check(lines).valid for checker in checkers] == [True, True]


def test_a_register_that_is_empty_again_is_seen() -> None:
    """Whatever else was open meanwhile."""
    lines = [
        Line(0, 0, 0, Type.INVOKE, "register.write", "a", {"value": 4}),
        Line(1, 1, 0, Type.OK, "register.write", "a", {"value": True}),
        Line(2, 2, 1, Type.INVOKE, "register.read", "a", {}),
        Line(3, 3, 1, Type.OK, "register.read", "a", {"value": None}),
    ]
    assert Kept("register").check(lines).valid is False
    assert Kept("register").check(lines[:2]).valid is None
