"""What can be wrong with a node: each check is a function from what there is to findings.

RULE: looks, and leaves nothing behind. A finding says what was found and, where it is bad, what to
do. Nothing here talks to people or decides an exit code.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import statistics
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from cluster.cli.status import best_of, judge
from cluster.client.aio import ClusterState
from cluster.node.clock import monotonic
from cluster.node.config import Address, Config
from cluster.replication.disk import DiskFailed, DiskLocked, OsDisk

State = Literal["ok", "warning", "wrong"]

SYNCS = 20
SYNC_MS_SLOW = 20.0
"""Every write waits for one on most nodes; from here on people notice."""
SYNC_MS_BAD = 200.0
"""Half of the shortest election timeout that is set by default."""
FREE_PART_LOW = 0.05
FILES_FEW = 4_096
LAG_HIGH = 10_000
SKEW_MS_MAX = 2_000


class Finding(NamedTuple):
    """What one check found, and what to do about it."""

    check: str
    state: State
    found: str
    cure: str = ""


def data_folder(config: Config) -> list[Finding]:
    """The folder is there, or can be made, and can be written to by whoever asks."""
    folder = nearest(config.data)
    if not os.access(folder, os.W_OK | os.X_OK):
        return [
            Finding(
                "data folder",
                "wrong",
                f"{folder} cannot be written by user {os.getuid()}",
                "give it to the user that the node runs as, and ask the doctor as that user",
            )
        ]
    made = "" if config.data.exists() else " (made at the first start)"
    return [Finding("data folder", "ok", f"{config.data}{made}")]


def disk_space(config: Config) -> list[Finding]:
    """There is room for the journal, and for a snapshot beside the last one."""
    usage = shutil.disk_usage(nearest(config.data))
    needed = 2 * (config.segment_bytes + config.snapshot_bytes)
    found = f"{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f}"
    cure = "make room, or move data to a larger disk: a node stops when its disk is full"
    if usage.free < needed:
        return [Finding("disk space", "wrong", f"{found}; {needed / 2**30:.1f} are needed", cure)]
    state: State = "warning" if usage.free < FREE_PART_LOW * usage.total else "ok"
    return [Finding("disk space", state, found, cure if state != "ok" else "")]


def sync_speed(config: Config) -> list[Finding]:
    """How long the disk takes to have 4 KiB for sure, measured in a folder that goes again."""
    folder = nearest(config.data)
    times_ms = []
    try:
        with tempfile.TemporaryDirectory(prefix=".coterie-doctor-", dir=folder) as scratch:
            disk = OsDisk(Path(scratch))
            try:
                file = disk.create("probe")
                for _ in range(SYNCS):
                    file.append(bytes(4_096))
                    began_s = monotonic()
                    file.sync()
                    times_ms.append((monotonic() - began_s) * 1_000)
                file.close()
            finally:
                disk.close()
    except (OSError, DiskFailed, DiskLocked) as error:
        return [Finding("disk sync", "wrong", str(error), "can the node write there at all?")]
    median_ms, worst_ms = statistics.median(times_ms), max(times_ms)
    found = f"{median_ms:.1f} ms median, {worst_ms:.1f} ms at worst"
    cure = "put data on a disk of its own, an SSD with protection against power loss at best"
    if median_ms >= SYNC_MS_BAD:
        return [Finding("disk sync", "wrong", f"{found}: elections will follow", cure)]
    state: State = "warning" if median_ms >= SYNC_MS_SLOW else "ok"
    return [Finding("disk sync", state, found, cure if state != "ok" else "")]


def open_files() -> list[Finding]:
    """Every client is a descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_FEW:
        cure = "raise it (LimitNOFILE= of the unit, or ulimit -Hn)"
        return [Finding("open files", "warning", f"at most {hard}", cure)]
    most = "any number" if hard == resource.RLIM_INFINITY else str(hard)
    return [Finding("open files", "ok", f"up to {most}")]


def addresses(config: Config, *, is_running: bool) -> list[Finding]:
    """Where the node is to listen, it can; or it does so already.

    Args:
        is_running: the node itself answers at its address.
    """
    wanted = {"http": config.http, "listen": config.listen}
    wanted |= {f"front {name}": address for name, address in config.fronts.items()}
    return [_address(name, at, is_running=is_running) for name, at in wanted.items()]


def _address(name: str, address: Address, *, is_running: bool) -> Finding:
    check = f"port {name}"
    try:
        (family, _, _, _, where), *_ = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            # Two may bind to one port where neither listens yet.
            probe.listen(1)
    except socket.gaierror as error:
        return Finding(check, "wrong", f"{address}: {error.strerror}", "correct the host name")
    except OSError as error:
        if error.errno == errno.EADDRINUSE and is_running:
            return Finding(check, "ok", f"{address}, in use by the running node")
        cures = {
            errno.EADDRINUSE: "stop what listens there (ss -ltnp), or choose another port",
            errno.EADDRNOTAVAIL: "no interface of this machine has that address: correct it",
            errno.EACCES: "ports below 1024 need a privilege: choose a higher one",
        }
        why = error.strerror or str(error)
        return Finding(check, "wrong", f"{address}: {why}", cures.get(error.errno or 0, ""))
    return Finding(check, "ok", f"{address}, free")


def cluster_health(
    states: Mapping[str, ClusterState], failures: Mapping[str, str], config: Config | None
) -> list[Finding]:
    """Who leads, who is missing, who lags, whether all compute the same.

    Args:
        states: what each endpoint says of the cluster.
        failures: what went wrong at the others.
        config: of the node that is looked at, if there is one.
    """
    best = best_of(list(states.values()))
    findings = []
    _, reasons = judge(best, dict(failures))
    for reason in reasons:
        is_split = "diverged" in reason
        cure = (
            "stop the node that differs from the others, keep its data, and replace it"
            if is_split
            else "start what is down, and look into its log"
        )
        findings.append(Finding("cluster", "wrong", reason, cure))
    if best is None:
        return findings
    if config is not None and best.cluster != config.cluster:
        found = f"the nodes are of cluster {best.cluster}, this one is to be of {config.cluster}"
        findings.append(Finding("cluster", "wrong", found, "give all the same cluster name"))
    if not findings:
        names = ", ".join(node.id for node in best.nodes)
        found = f"{best.leader} leads in term {best.term}; nodes: {names}"
        findings.append(Finding("cluster", "ok", found))
    findings += _lags(best) + _versions(best)
    compared = sum(node.applied == best.applied and bool(node.digest) for node in best.nodes)
    if not any("diverged" in reason for reason in reasons):
        found = f"{compared} of {len(best.nodes)} nodes are at {best.applied} and agree"
        findings.append(Finding("digests", "ok", found))
    return findings


def _lags(best: ClusterState) -> list[Finding]:
    behind = [node for node in best.nodes if (node.lag or 0) > LAG_HIGH]
    cure = "it catches up by itself, unless its disk or its network is too slow for what comes"
    if not behind:
        most = max((node.lag or 0 for node in best.nodes), default=0)
        entries = "entry" if most == 1 else "entries"
        return [Finding("lag", "ok", f"at most {most} {entries}")]
    return [
        Finding("lag", "warning", f"{node.id} is {node.lag} entries behind", cure)
        for node in behind
    ]


def _versions(best: ClusterState) -> list[Finding]:
    found: dict[str, list[str]] = {}
    for node in best.nodes:
        if node.version:
            found.setdefault(node.version, []).append(node.id)
    words = "; ".join(f"{version}: {', '.join(nodes)}" for version, nodes in sorted(found.items()))
    if len(found) > 1:
        cure = "finish the upgrade, node by node, the leader last"
        return [Finding("versions", "warning", words, cure)]
    return [Finding("versions", "ok", words or "not told")]


def clock_skew(dates_ms: Mapping[str, int], here_ms: int) -> list[Finding]:
    """Wall clocks: leases do not need them, cron schedules, passes and people do.

    Args:
        dates_ms: of each node, to the second, as it answered.
        here_ms: ours at that time.
    """
    off = {
        name: there_ms - here_ms
        for name, there_ms in dates_ms.items()
        if abs(there_ms - here_ms) > SKEW_MS_MAX
    }
    cure = "have NTP set the clocks (timedatectl set-ntp true); locks do not depend on it"
    findings = [
        Finding("clock", "warning", f"{name} is {off_ms / 1_000:+.0f} s from here", cure)
        for name, off_ms in off.items()
    ]
    if not findings and dates_ms:
        found = f"within {SKEW_MS_MAX / 1_000:.0f} s of here: {', '.join(dates_ms)}"
        return [Finding("clock", "ok", found)]
    return findings


def nearest(path: Path) -> Path:
    """The folder itself, or what of its path is there already."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def worst(findings: Iterable[Finding]) -> State:
    """The worst state among them."""
    states = {finding.state for finding in findings}
    return "wrong" if "wrong" in states else "warning" if "warning" in states else "ok"
