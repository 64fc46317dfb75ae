"""Ablations: each guard can still be switched off, and is on again afterwards."""

from __future__ import annotations

import pytest

from tests.simulation.ablations import ABLATIONS, prepare


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_guard_can_be_switched_off(name: str) -> None:
    """Code that moves takes its guard out of reach: then an ablation must move with it."""
    with prepare(ABLATIONS[name]) as (builder, change):
        assert builder is not None
        assert callable(change)
