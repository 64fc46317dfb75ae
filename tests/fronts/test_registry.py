"""The table of fronts, and the settings that switch them on."""

from __future__ import annotations

from cluster.fronts.registry import MAKERS
from cluster.node import config


def test_every_front_of_the_table_has_its_setting() -> None:
    """A front is switched on by where it listens."""
    assert set(MAKERS) <= set(config.FRONTS)
    for name in config.FRONTS:
        key = f"front_{name.replace('-', '_')}"
        settings = config.load({"node": "n1", "data": "d", key: "127.0.0.1:0"}, {})
        assert settings.fronts == {name: config.Address("127.0.0.1", 0)}
    assert config.load({"node": "n1", "data": "d"}, {}).fronts == {}
