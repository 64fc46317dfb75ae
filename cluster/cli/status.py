"""`coterie status`: how the cluster is.

RULE: asks every endpoint, believes the one that knows best, and judges; changes nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from cluster.cli import exits
from cluster.cli.rendering import FORMS, as_data, headed
from cluster.cli.words import Duration, authorities, cluster_options, leave

if TYPE_CHECKING:
    from cluster.client.aio import ClusterState

HEALTHY, DEGRADED, UNREACHABLE = 0, 1, 4
WORDS = {HEALTHY: "healthy", DEGRADED: "degraded", UNREACHABLE: "unreachable"}

EPILOG = """
\b
Examples:
  coterie status
  coterie status --endpoints 10.0.0.1:7101 -o json | jq -r .leader

Exit codes: 0 healthy, 1 degraded (it serves with less safety, or not at all), 4 nobody answers.
"""


@click.command("status", epilog=EPILOG)
@cluster_options
@click.option(
    "--timeout",
    "timeout_ms",
    type=Duration(10, 600_000),
    default="3s",
    show_default=True,
    help="How long each endpoint may take.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(FORMS),
    default="table",
    show_default=True,
    help="Text for people, JSON or YAML for programs, or the name of who leads.",
)
def command(endpoints: tuple[str, ...], timeout_ms: int, output: str) -> None:
    """Show who leads, how far each node is, and what is wrong."""
    answers = asyncio.run(ask_all(endpoints, timeout_ms))
    states = [answer for answer in answers.values() if not isinstance(answer, str)]
    failures = {url: answer for url, answer in answers.items() if isinstance(answer, str)}
    best = best_of(states)
    verdict, reasons = judge(best, failures)
    if output in {"json", "yaml"}:
        click.echo(as_data(_view(best, verdict, reasons, failures), output))
    elif output == "name":
        click.echo((best.leader if best else None) or "")
    else:
        click.echo(_as_table(best, verdict, reasons))
    leave(verdict)


def best_of(states: list[ClusterState]) -> ClusterState | None:
    """The view to believe: of the leader itself, else of the newest term, else the furthest."""
    if not states:
        return None
    return max(
        states,
        key=lambda state: (
            state.leader is not None,
            state.term,
            state.leader == state.node,
            state.applied,
        ),
    )


def judge(best: ClusterState | None, failures: dict[str, str]) -> tuple[int, list[str]]:
    """The verdict and its reasons.

    Args:
        best: the view that is believed; None where nobody answered.
        failures: what went wrong, by endpoint.
    """
    reasons = [f"{url} does not answer: {why}" for url, why in failures.items()]
    if best is None:
        return UNREACHABLE, reasons
    if best.leader is None:
        reasons.insert(0, f"nobody leads, says {best.node}: nothing can be written")
    for node in best.nodes:
        if node.state not in {"unreachable", "candidate"} and node.connected is not False:
            continue
        is_away = f"{node.id} is {node.state or 'unreachable'}"
        known = f"{node.http} does not answer: "
        at = next((at for at, why in enumerate(reasons) if why.startswith(known)), None)
        # One trouble, one line.
        if at is None:
            reasons.append(is_away)
        else:
            reasons[at] = f"{is_away}: {reasons[at]}"
    # Equal logs must make equal states: else a node computes wrongly, and nothing is worse.
    digests: dict[int, dict[str, str]] = {}
    for node in best.nodes:
        if node.applied and node.digest:
            digests.setdefault(node.applied, {})[node.digest] = node.id
    reasons.extend(
        f"nodes have diverged at index {index}: {', '.join(sorted(found.values()))} differ"
        for index, found in digests.items()
        if len(found) > 1
    )
    return (DEGRADED if reasons else HEALTHY), reasons


async def ask_all(endpoints: tuple[str, ...], timeout_ms: int) -> dict[str, ClusterState | str]:
    """Each endpoint's view, or what went wrong there."""
    from cluster.client.aio import Client
    from cluster.client.core import Policy
    from cluster.errors import CoterieError

    # Who asks for the status wants to know how it is now, not after a while.
    policy = Policy(attempt_ms=timeout_ms, connect_ms=timeout_ms, attempts_max=1)

    async def ask(url: str) -> ClusterState | str:
        # A node itself may be asked without TLS, as the doctor does.
        tls = authorities() if url.startswith("https://") else None
        async with Client(url, policy=policy, timeout_ms=timeout_ms, tls=tls) as client:
            try:
                return await client.cluster()
            except CoterieError as error:
                why = error.detail.removeprefix(f"{url}: ")
                if error.code.startswith("http_"):
                    why = f"what is there says {error.code[5:]}, as no node does"
                cure = exits.cure_of(error)
                return why if cure is None else f"{why}; {cure}"

    return dict(zip(endpoints, await asyncio.gather(*map(ask, endpoints)), strict=True))


def _as_table(best: ClusterState | None, verdict: int, reasons: list[str]) -> str:
    lines = []
    if best is not None:
        lines.append(
            f"cluster {best.cluster}: {WORDS[verdict]}, leader {best.leader or '-'}, "
            f"term {best.term}, commit {best.commit} (asked {best.node})"
        )
        rows = [
            (
                node.id,
                node.state,
                node.http,
                node.applied,
                node.lag,
                None if node.last_heard_ms is None else f"{node.last_heard_ms} ms",
                node.version,
            )
            for node in best.nodes
        ]
        head = ("NODE", "STATE", "HTTP", "APPLIED", "LAG", "HEARD", "VERSION")
        lines.append(headed(head, rows))
    else:
        lines.append(WORDS[verdict])
    lines.extend(f"! {reason}" for reason in reasons)
    return "\n".join(lines)


def _view(
    best: ClusterState | None, verdict: int, reasons: list[str], failures: dict[str, str]
) -> dict[str, object]:
    import msgspec

    view: dict[str, object] = {} if best is None else msgspec.to_builtins(best)
    health = {"health": WORDS[verdict], "reasons": reasons, "failures": failures}
    return {**health, **view}
