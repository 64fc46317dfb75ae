"""`python -m tests.simulation`: seeds of the deterministic simulator, from a shell.

RULE: parses words and prints lines; the work is in report.py and run.py.
"""

from __future__ import annotations

import logging
import sys
import time

import click

from tests.simulation import workloads
from tests.simulation.ablations import ABLATIONS, table
from tests.simulation.plan import PROFILES
from tests.simulation.report import Job, report, run_job, run_jobs, workers_default
from tests.simulation.trace import Trace


def parse_seeds(text: str) -> list[int]:
    """`7`, `0:100` (without 100), or several of these with commas."""
    seeds: list[int] = []
    for part in text.split(","):
        first, colon, end = part.partition(":")
        seeds.extend(range(int(first), int(end)) if colon else [int(first)])
    return seeds


@click.command(context_settings={"max_content_width": 100})
@click.option("--seeds", default="0:100", show_default=True, help="7, 0:100, 3,5,10:20.")
@click.option("--jobs", "workers", default=workers_default, type=int, help="Processes.")
@click.option("--profile", type=click.Choice([*PROFILES]), help="Default: mixed.")
@click.option("--workload", help="One, several with commas, or mixed; else drawn from the seed.")
@click.option("--nodes", type=int, help="3 or 5; else drawn from the seed.")
@click.option("--seconds", default=25.0, show_default=True, help="Virtual length of the storm.")
@click.option("--trace", is_flag=True, help="Tell the story of each seed.")
@click.option("--tail", default=400, show_default=True, help="Lines of the story; 0 for all.")
@click.option("--ablate", type=click.Choice([*ABLATIONS]), help="Switch one guard off.")
@click.option("--engine", default="guarded", type=click.Choice(["guarded", "stock"]))
@click.option("--table", "wants_table", is_flag=True, help="Every guard off in turn: what breaks.")
@click.option("--only", help="With --table: ablations whose names begin so, e.g. g1,g2,stock.")
@click.option("--failures", default=10, show_default=True, help="Violations to print.")
def main(
    seeds: str,
    workers: int,
    profile: str | None,
    workload: str | None,
    nodes: int | None,
    seconds: float,
    trace: bool,
    tail: int,
    ablate: str | None,
    engine: str,
    wants_table: bool,
    only: str | None,
    failures: int,
) -> None:
    """Run seeds; exit 1 if an invariant broke."""
    # The stock library logs each of its troubles; here they are the subject.
    logging.disable(logging.CRITICAL)
    numbers = parse_seeds(seeds)
    if wants_table:
        for line in table(numbers, seconds, workers, only):
            click.echo(line)
        return
    if profile is None:
        profile = "mixed" if ablate is None else ABLATIONS[ablate].profile
    if ablate is not None:
        nodes = nodes or ABLATIONS[ablate].nodes
    if workload is not None:
        try:
            workloads.find(workload)
        except KeyError as error:
            raise click.UsageError(str(error.args[0])) from None
    jobs = [
        Job(seed, profile, nodes, seconds, engine=engine, ablation=ablate, workload=workload)
        for seed in numbers
    ]
    began = time.perf_counter()
    if trace:
        is_bad = False
        for job in jobs:
            story = Trace(keep=True, tail_max=tail or None)
            result = run_job(job, story)
            click.echo(story.story())
            click.echo(f"seed {job.seed}: {result.invariant or 'no violation'} {result.detail}")
            click.echo(f"trace hash {result.hash:08x}, {result.counts}")
            is_bad |= result.invariant is not None
        sys.exit(1 if is_bad else 0)
    summary = report(run_jobs(jobs, workers), click.echo, failures_max=failures)
    click.echo(summary.text())
    click.echo(f"  {time.perf_counter() - began:.1f} s on {workers} processes")
    sys.exit(1 if summary.failures else 0)


if __name__ == "__main__":
    main()
