"""Our own document against our own server: schemathesis before a cluster of three processes.

RULE: starts a cluster and the fuzzer, hands over what the fuzzer says, and ends both. What is
excused, and why, is in `openapi_hooks.py`.

    python -m tests.gateway.openapi_fuzz --examples 300 --seed 7
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import click

from cluster.cli.local import LocalCluster, planned_anywhere

ROOT = Path(__file__).parents[2]
PHASES = "examples,coverage,fuzzing"
# A stream of events never ends by itself.
STREAMS = r"/watch$"


async def fuzz(
    folder: Path, *, examples: int, seed: int | None, nodes: int = 3, only: str | None = None
) -> tuple[int, str]:
    """Run the fuzzer against a fresh cluster.

    Args:
        folder: for the cluster's data and the fuzzer's files.
        examples: drawn for each operation, beside those that the schemas imply.
        seed: None for the same requests in every run.
        only: a regular expression of paths.
    Returns:
        the fuzzer's exit code and all that it said.
    """
    cluster = LocalCluster(folder / "cluster", planned_anywhere(nodes))
    cluster.prepare(log_level="error")
    try:
        await cluster.start()
        await cluster.until_ready(within_s=60.0)
        url = cluster.endpoints[-1]
        chance = (
            ["--generation-deterministic"]
            if seed is None
            else ["--seed", str(seed), "--generation-database", "none"]
        )
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("schemathesis")),
            "run",
            f"{url}/openapi.json",
            *chance,
            *("--phases", PHASES),
            *("--max-examples", str(examples)),
            *("--exclude-path-regex", STREAMS),
            *(() if only is None else ("--include-path-regex", only)),
            *("--suppress-health-check", "all"),
            *("--request-timeout", "60"),
            "--continue-on-failure",
            "--no-color",
            cwd=folder,
            env=os.environ
            | {"SCHEMATHESIS_HOOKS": "tests.gateway.openapi_hooks", "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            said, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, said.decode(errors="replace")
    finally:
        await cluster.kill()


@click.command()
@click.option("--examples", default=200, show_default=True, help="Drawn for each operation.")
@click.option("--seed", type=int, help="Of the draws; else the same in every run.")
@click.option("--nodes", default=3, show_default=True)
@click.option("--only", help="A regular expression of paths.")
def main(examples: int, seed: int | None, nodes: int, only: str | None) -> None:
    """Fuzz; exit 1 if a request showed a fault of the server or of its document."""
    with tempfile.TemporaryDirectory() as folder:
        code, said = asyncio.run(
            fuzz(Path(folder), examples=examples, seed=seed, nodes=nodes, only=only)
        )
    click.echo(said)
    sys.exit(code)


if __name__ == "__main__":
    main()
