"""What clients may not take."""

from __future__ import annotations

import os

from cluster.node.descriptors import is_one_left
from tests.node.scarce import scarce_descriptors


def test_some_are_left_for_the_disk_and_the_peers() -> None:
    """Clients are turned away while the system still has some."""
    assert is_one_left()
    with scarce_descriptors():
        assert not is_one_left()
        others = [os.open(os.devnull, os.O_RDONLY) for _ in range(4)]
        for one in others:
            os.close(one)
    assert is_one_left()


def test_none_at_all_is_none() -> None:
    """Asking raises nothing."""
    taken: list[int] = []
    with scarce_descriptors():
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            assert not is_one_left()
        finally:
            for one in taken:
                os.close(one)
