"""How many requests may be in progress."""

from __future__ import annotations

import pytest

from cluster.gateway.admission import Admission
from cluster.gateway.replies import Problem
from cluster.gateway.routes import Lane


def test_each_lane_has_its_own_limit() -> None:
    """A full lane refuses and the others go on; who leaves makes room."""
    admission = Admission(requests_max=1, keepalives_max=2, waits_max=1)
    admission.enter(Lane.ORDINARY)
    with pytest.raises(Problem, match="1 ordinary requests in progress") as refused:
        admission.enter(Lane.ORDINARY)
    assert (refused.value.status, refused.value.definite) == (503, True)
    admission.enter(Lane.KEEPALIVE)
    admission.enter(Lane.KEEPALIVE)
    admission.enter(Lane.WAIT)
    assert admission.inside == {"ordinary": 1, "wait": 1, "keepalive": 2}
    admission.leave(Lane.ORDINARY)
    admission.enter(Lane.ORDINARY)
    assert admission.refused == 1
