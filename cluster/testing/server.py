"""The gateway for one test: the same answers, but its documents are made when they are asked for.

RULE: construction only. A process makes its documents once; a run of tests would make them for
every test, which takes longer than most of these.
"""

from __future__ import annotations

from dataclasses import replace

from cluster import __version__
from cluster.gateway import health
from cluster.gateway.replies.base import Answer
from cluster.gateway.requests import Ask
from cluster.gateway.routes import Local
from cluster.gateway.server import Gateway
from cluster.gateway.service import Context, Service
from cluster.node.face import NodeFace


class QuickGateway(Gateway):
    """A gateway that starts in a few milliseconds."""

    def _services(self, context: Context) -> list[Service]:
        # Of no routes but their own: that is quick.
        rows = health.routes(self._metrics, context.clock, (), __version__)
        others = (
            self._late(row, context) if isinstance(row, Local) and not row.answer else row
            for row in rows
        )
        return [Service(route, context) for route in (*self._routes, *others)]

    def _late(self, row: Local, context: Context) -> Local:
        """The same row, of all routes."""

        async def act(node: NodeFace, ask: Ask) -> Answer:
            whole = health.routes(self._metrics, context.clock, self._routes, __version__)
            found = next(each for each in whole if each.path == row.path)
            assert isinstance(found, Local)
            return await found.act(node, ask)

        return replace(row, act=act)
