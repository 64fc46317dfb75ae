"""Run the benchmarks: `python -m benchmarks.run [--only NAME] [--seconds S] [--out FILE]`.

RULE: order, words and files; what is measured stands in the modules it calls.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from benchmarks import (
    ceilings,
    failover,
    figures,
    machine,
    machine_restart,
    processes,
    profiles,
    throughput,
    ttl,
)
from benchmarks.contenders import REPOSITORY, Contender, Coterie, Etcd

NAMES = ("locks", "ceilings", "ttl", "failover", "handover", "machine", "restart", "profile")
DEFAULT_NAMES = NAMES[:-3]
WITHOUT_CLUSTER = {"machine", "restart", "profile"}
MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "overlayfs")
SETTLE_S = 1.0


def main() -> None:
    """Parse, run, write; every process that was started has ended afterwards."""
    options = _options()
    # A terminal's Ctrl-C is an exception already; make the polite kill one too.
    signal.signal(signal.SIGTERM, _interrupt)
    if options.realtime:
        processes.go_before_others()
    with tempfile.TemporaryDirectory(prefix="coterie-bench-", dir=options.folder) as name:
        folder = Path(name)
        facts = figures.machine(folder, REPOSITORY)
        try:
            report = _run(options, folder, facts)
        except KeyboardInterrupt:
            sys.exit("interrupted; every process has been ended")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1))
    print(f"\nfigures: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Measure Coterie beside etcd on this machine. See benchmarks/README.md.",
    )
    parser.add_argument("--only", action="append", choices=NAMES, help="may be given repeatedly")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measured window [3]")
    parser.add_argument("--rounds", type=int, default=3, help="of lock cycles [3]")
    parser.add_argument("--kills", type=int, default=20, help="kills, and hand-overs [20]")
    parser.add_argument(
        "--connections",
        type=lambda text: tuple(int(part) for part in text.split(",")),
        default=throughput.CONNECTIONS,
        help="of the lock cycles [1,16,64,256]",
    )
    parser.add_argument("--without-etcd", action="store_true", help="Coterie alone")
    parser.add_argument(
        "--patience",
        type=float,
        default=0.0,
        help="seconds each cell of lock cycles may wait for, or repeat towards, a quiet machine [0]",
    )
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="run all that is measured before ordinary processes; as root, for a busy machine",
    )
    parser.add_argument(
        "--folder", type=Path, default=None, help="for the nodes' data, on a real disk [$TMPDIR]"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=REPOSITORY / "benchmarks" / "results" / "bench.json",
        help="JSON file [benchmarks/results/bench.json]",
    )
    return parser.parse_args()


def _run(options: argparse.Namespace, folder: Path, facts: dict[str, object]) -> dict[str, Any]:
    names = options.only or DEFAULT_NAMES
    rng = random.Random(secrets.randbits(64))
    contenders: list[Contender] = [Coterie(folder, rng)]
    if options.without_etcd:
        pass
    elif Etcd.is_installed():
        contenders.append(Etcd(folder, rng))
    else:
        print("etcd is not installed (Debian: apt-get install etcd-server); Coterie runs alone.\n")
    versions = [contender.version for contender in contenders]
    facts["realtime"] = options.realtime
    report: dict[str, Any] = {"machine": facts, "versions": versions}
    _say_machine(facts, versions)
    try:
        if set(names) - WITHOUT_CLUSTER:
            for contender in contenders:
                contender.start()
            # Elections and first snapshots are over.
            time.sleep(SETTLE_S)
        if "ceilings" in names:
            _ceilings(options, folder, rng, contenders[0], report)
        if "locks" in names:
            _locks(options, contenders, report)
        if "ttl" in names:
            report["endings"] = ttl.measure(contenders[0], rng)
            _say("Time to live", ttl.report(report["endings"]))
        if "handover" in names:
            _alternate(options, contenders, report, "handovers", failover.hand_over)
            _say("Hand-over", failover.report_pauses(report["handovers"], _named(contenders)))
        if "failover" in names:
            _alternate(options, contenders, report, "kills", failover.kill_leader)
            _say("Unavailability", failover.report_gaps(report["kills"], _named(contenders)))
    finally:
        for contender in contenders:
            contender.stop()
    if "machine" in names:
        report["costs"] = machine.measure(_progress)
        _say("The state", machine.report(report["costs"]))
    if "restart" in names:
        report["restarts"] = [machine_restart.measure(folder, _progress)]
        _say("A node with a million jobs", machine_restart.report(report["restarts"][0]))
    if "profile" in names:
        report["profiles"] = profiles.measure(folder, max(5.0, options.seconds), rng)
        _say("Profile", profiles.report(report["profiles"]))
    return {
        key: [asdict(one) for one in value] if key in _LISTS else value
        for key, value in report.items()
    }


_LISTS = (
    "locks",
    "ceilings",
    "endings",
    "handovers",
    "kills",
    "costs",
    "restarts",
    "profiles",
)


def _locks(
    options: argparse.Namespace, contenders: Sequence[Contender], report: dict[str, Any]
) -> None:
    report["locks"] = []
    for cell in throughput.measure(
        contenders,
        seconds=options.seconds,
        rounds=options.rounds,
        connections=options.connections,
        patience_s=options.patience,
    ):
        report["locks"].append(cell)
        _progress(
            f"round {cell.round} {cell.contender:8}{cell.connections:5} {cell.placement:7}"
            f"{cell.cycles_per_s:9,.0f} cycles/s, others {cell.strangers:.0%}"
        )
    _say("Lock cycles", throughput.report(report["locks"], _named(contenders)))


def _ceilings(
    options: argparse.Namespace,
    folder: Path,
    rng: random.Random,
    coterie: Contender,
    report: dict[str, Any],
) -> None:
    report["ceilings"] = [
        ceilings.of_tool(folder, options.seconds, rng),
        *ceilings.of_node(coterie, folder, options.seconds),
    ]
    if len(report["ceilings"]) == 1:
        print("wrk is not installed (Debian: apt-get install wrk); no ceilings of one node.")
    _say("Ceilings", ceilings.report(report["ceilings"]))


def _alternate(
    options: argparse.Namespace,
    contenders: Sequence[Contender],
    report: dict[str, Any],
    key: str,
    measure: Callable[[Contender, int], Any],
) -> None:
    report[key] = []
    for number in range(options.kills):
        for contender in contenders:
            report[key].append(measure(contender, number))
            _progress(f"{key} {report[key][-1]}")


def _named(contenders: Sequence[Contender]) -> list[str]:
    return [contender.name for contender in contenders]


def _say_machine(facts: dict[str, object], versions: Sequence[str]) -> None:
    print("# Benchmarks\n")
    print(f"- {', '.join(versions)}; three nodes each, three processes, loopback, syncing")
    for key, value in facts.items():
        print(f"- {key.replace('_', ' ')}: {value}")
    if facts["file_system"] in MEMORY_FILE_SYSTEMS:
        print(
            f"- WARNING: the data are on {facts['file_system']}, where a sync may cost nothing; "
            "give --folder on a real disk"
        )


def _say(title: str, text: str) -> None:
    print(f"\n## {title}\n\n{text}", flush=True)


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
