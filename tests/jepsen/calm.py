"""A calm cluster for workloads: one production node on a real disk, behind three gateways.

RULE: all of the product but its peers, in this process, at real time. Nothing goes wrong here: what
a checker complains of is a lie that a test has planted, or a mistake of a workload.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from jepsen.history import Recorder
from jepsen.workloads import Arena

from cluster.gateway.server import Gateway, GatewaySettings
from cluster.node.driver import Driver
from cluster.node.settings import NodeSettings
from cluster.replication.disk import OsDisk
from cluster.replication.engine import EngineSettings
from cluster.replication.identity import Identity
from cluster.replication.snapshots import InlineDumper

SLOTS = 4
GATEWAYS = ("n1", "n2", "n3")


@asynccontextmanager
async def calm_cluster(folder: Path) -> AsyncIterator[dict[str, str]]:
    """URL by name of each gateway, while the block runs."""
    disk = OsDisk(folder)
    identity = Identity.open(disk, cluster="calm", node="n1", fresh_unique="0" * 32)
    driver = Driver(
        NodeSettings(
            node="n1",
            peers=(),
            engine=EngineSettings(heartbeat=0.05, election_min=0.2, election_max=0.3),
        ),
        identity=identity,
        disk=disk,
        dumper=InlineDumper,
        listen=("127.0.0.1", 0),
        dial={},
        secret=b"calm",
        on_fatal=_fail,
        rng=random.Random(7),
    )
    settings = GatewaySettings(room_keys=(b"calm" * 8,), heartbeat_ms=250)
    gateways = [Gateway(driver.node, settings) for _ in GATEWAYS]
    try:
        for gateway in gateways:
            await gateway.start("127.0.0.1", 0)
        await driver.start()
        addresses = [gateway.addresses[0] for gateway in gateways]
        yield {
            name: f"http://{host}:{port}"
            for name, (host, port) in zip(GATEWAYS, addresses, strict=True)
        }
    finally:
        await driver.stop()
        for gateway in gateways:
            await gateway.stop(grace_s=0.1)
        disk.close()


def arena_at(urls: dict[str, str], seed: int = 7) -> Arena:
    """A fresh arena whose slots all go straight to the gateways."""
    endpoints = {name: (url,) * SLOTS for name, url in urls.items()}
    return Arena(Recorder(), random.Random(seed), endpoints)


def _fail(error: BaseException) -> None:
    raise error
