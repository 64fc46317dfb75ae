"""Certificates between live nodes: they are exchanged for new ones under load, and one that has run
out lets nobody in.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from jepsen.ports import claimed_ports
from jepsen.progress import until

from tests.integration.cluster import NAMES, Cluster
from tests.integration.history import Load

pytestmark = pytest.mark.asyncio(loop_scope="module")

AGES_AGO = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)


class Certified(Cluster):
    """Three nodes that show each other certificates, and believe two authorities.

    Attributes:
        old, new: the authorities.
    """

    def __init__(self, folder: Path, ports: list[int]):
        super().__init__(folder, ports, settings={})
        self.old, self.new = trustme.CA(), trustme.CA()

    def prepare(self, *, log_level: str = "info") -> None:
        """Write the settings, and a certificate of the old authority for each."""
        super().prepare(log_level=log_level)
        authorities = self.folder / "authorities.pem"
        for authority in (self.old, self.new):
            authority.cert_pem.write_to_path(authorities, append=True)
        for name in NAMES:
            self.certify(name, self.old)
            file = self.folder / f"{name}.toml"
            # Before the first table.
            lines = [
                f'tls_cert = "{name}.pem"',
                f'tls_key = "{name}.key"',
                'tls_ca = "authorities.pem"',
                file.read_text(encoding="utf-8"),
            ]
            file.write_text("\n".join(lines), encoding="utf-8")

    def certify(
        self, name: str, authority: trustme.CA, *, until: dt.datetime | None = None
    ) -> None:
        """Give a node another certificate, which it reads when it is started."""
        made = authority.issue_cert(name, not_after=until)
        made.private_key_pem.write_to_path(self.folder / f"{name}.key")
        for number, part in enumerate(made.cert_chain_pems):
            part.write_to_path(self.folder / f"{name}.pem", append=number > 0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Certified]:
    """The cluster of this module."""
    with contextlib.ExitStack() as claims:
        ports = claimed_ports(2 * len(NAMES), claims)
        async with Certified(tmp_path_factory.mktemp("certificates"), ports) as cluster:
            yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(running: Certified) -> Certified:
    """The same, whole."""
    await running.make_whole()
    return running


async def test_certificates_are_exchanged_one_node_after_the_other(cluster: Certified) -> None:
    """For those of another authority, under load: old and new ones meet meanwhile."""
    async with Load(cluster, clients=6, locks=3) as load:
        for name in NAMES:
            await cluster.kill9(name)
            cluster.certify(name, cluster.new)
            await cluster.start(name)
            await cluster.until_ready(name)
            await load.grow(12)


async def test_a_certificate_that_is_not_good_lets_nobody_in(cluster: Certified) -> None:
    """One that has run out, or of an authority that nobody knows: the node stays outside, without a
    leader and not ready; the others serve, and say why. With a good one it is a member as before.
    """
    _, (outside, other) = await cluster.roles()
    session = await cluster.open_session(other)
    held = []
    for why in ("certificate has expired", "unable to get local issuer certificate"):
        await cluster.kill9(outside)
        if held:
            cluster.certify(outside, trustme.CA())
        else:
            cluster.certify(outside, cluster.new, until=AGES_AGO)
        said = len(cluster.lines[other])
        await cluster.start(outside)

        async def is_refused(why: str = why, said: int = said) -> bool:
            return any(why in line for line in cluster.lines[other][said:])

        await until(is_refused, f"{outside} refused: {why}")
        held.append(await cluster.granted(other, f"outside {why}", session))
        state = await cluster.see(outside)
        assert (state.leader, state.ready) == (None, False)
    await cluster.kill9(outside)
    cluster.certify(outside, cluster.new)
    await cluster.start(outside)
    await cluster.agree()
    assert await cluster.holders(outside, f"outside {why}") == [(session, held[-1])]
