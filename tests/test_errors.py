"""The public errors, as programs hand them on."""

from __future__ import annotations

import copy

import pytest

from cluster.client.refusals import LockHeld
from cluster.errors import CoterieError, LockLost, NoLeader, Refused, Timeout
from cluster.fencing import TokenStale

ERRORS = [
    Timeout("no answer"),
    NoLeader("nobody leads", definite=False),
    Refused("no", code="http_404", status=404, reason={"name": "orders"}),
    LockHeld("taken", reason={"name": "orders", "holder": "1-s", "position": 2}),
    LockLost("over", kind="lock", name="orders", token=7),
    TokenStale("orders", 6, 7),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_can_be_handed_to_another_process(error: CoterieError) -> None:
    """As a pool of processes does, by the protocol of copies: one that cannot be made again there
    breaks the pool, or has it wait for ever.
    """
    made = copy.copy(error)
    assert made is not error
    assert (type(made), str(made), vars(made)) == (type(error), str(error), vars(error))
