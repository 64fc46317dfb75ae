"""`coterie top`: a live view of the cluster.

RULE: reads only, and only what a node knows at once; a node that does not answer is shown as such.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from cluster.cli import exits, figures
from cluster.cli.rendering import cell, head_of, headed, styled
from cluster.cli.words import Duration, cluster_options, leave, tls_context

if TYPE_CHECKING:
    import aiohttp

EPILOG = """
\b
Examples:
  coterie top
  coterie top --interval 500ms
  coterie top --count 1                       # one look, for a log
  coterie top -o json --count 2 | tail -1     # rates need two looks

Exit codes: see coterie --help
"""

_CLEAR = "\x1b[H\x1b[2J"
_SHOWN_MAX = 8
# Where the field's own name would not fit 80 columns.
_HEADS = {
    "last_heard_ms": "HEARD MS",
    "commands_per_s": "CMDS/S",
    "requests_per_s": "REQS/S",
    "connections": "CONNS",
    "under_way": "BUSY",
}
_RATES = {
    "commands_per_s": "coterie_node_commands_applied_total",
    "requests_per_s": "coterie_http_requests_total",
}
_GAUGES = {
    "connections": "coterie_http_connections",
    "under_way": "coterie_requests_under_way",
    "waiting": "coterie_requests_parked",
}


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at once.

    Attributes:
        at_s: when, on a clock that never goes back.
        cluster: answer of the node that is believed; None where nobody answers.
        figures: of each node that answers, by its name.
        tubes, locks: the first of each, as the API has them.
    """

    at_s: float
    cluster: dict[str, Any] | None
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tubes: list[dict[str, Any]] = field(default_factory=list)
    locks: list[dict[str, Any]] = field(default_factory=list)


@click.command("top", epilog=EPILOG)
@click.option(
    "--interval",
    "interval_ms",
    type=Duration(100, 3_600_000),
    default="2s",
    show_default=True,
    help="Between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many looks.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    help="JSON: a line each.",
)
@cluster_options
def command(interval_ms: int, count: int | None, output: str, endpoints: tuple[str, ...]) -> None:
    """Show who leads, how much is done, and where it queues, again and again until Ctrl-C.

    On a terminal the view stays in its place; in a pipe one follows the other.
    """
    try:
        leave(asyncio.run(_run(endpoints, interval_ms / 1_000, count, output)))
    except KeyboardInterrupt:
        leave(exits.INTERRUPTED)


async def _run(
    endpoints: tuple[str, ...], interval_s: float, count: int | None, output: str
) -> int:
    import aiohttp

    paces: dict[str, figures.Pace] = {}
    loop = asyncio.get_running_loop()
    timeout = aiohttp.ClientTimeout(total=max(1.0, interval_s))
    connector = aiohttp.TCPConnector(ssl=tls_context())
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        number = 0
        while True:
            look = await _look(http, endpoints, loop.time())
            number += 1
            for node, page in look.figures.items():
                paces.setdefault(node, figures.Pace()).seen(page, look.at_s)
            seen = view(look, paces)
            if output == "json":
                click.echo(json.dumps(seen, ensure_ascii=False))
            else:
                is_live = sys.stdout.isatty() and count != 1
                click.echo((_CLEAR if is_live else "") + in_words(seen) + "\n")
            if number == count:
                return exits.DONE if look.cluster is not None else exits.NOT_NOW
            await asyncio.sleep(max(0.0, look.at_s + interval_s - loop.time()))


async def _look(http: aiohttp.ClientSession, endpoints: tuple[str, ...], at_s: float) -> Look:
    answers = await asyncio.gather(*(_get(http, f"{url}/v1/cluster") for url in endpoints))
    found = [answer for answer in answers if isinstance(answer, dict)]
    if not found:
        return Look(at_s, None)
    # As `coterie status`: who knows a leader, in the newest term, is believed.
    best = max(found, key=lambda each: (each["leader"] is not None, each["term"], each["applied"]))
    urls = {answer["node"]: url for answer, url in zip(answers, endpoints, strict=True) if answer}
    for node in best["nodes"]:
        if node.get("http"):
            at = str(node["http"])
            urls.setdefault(node["id"], at if "://" in at else f"http://{at}")
    here = urls[best["node"]]
    pages, tubes, locks = await asyncio.gather(
        asyncio.gather(*(_get(http, f"{url}/metrics") for url in urls.values())),
        _get(http, f"{here}/v1/tubes?consistency=stale&limit=1000"),
        _get(http, f"{here}/v1/locks?consistency=stale&limit=1000"),
    )
    seen = {
        node: figures.totals(page)
        for node, page in zip(urls, pages, strict=True)
        if isinstance(page, str)
    }
    return Look(
        at_s,
        best,
        seen,
        tubes["tubes"] if isinstance(tubes, dict) and "tubes" in tubes else [],
        locks["locks"] if isinstance(locks, dict) and "locks" in locks else [],
    )


async def _get(http: aiohttp.ClientSession, url: str) -> Any:
    """A JSON value or a text; None where none came."""
    import aiohttp

    try:
        async with http.get(url) as response:
            if response.status != 200:
                return None
            text = await response.text()
            return json.loads(text) if response.content_type.endswith("json") else text
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


def view(look: Look, paces: Mapping[str, figures.Pace]) -> dict[str, Any]:
    """What is shown of a look, with the pace of each node where it is known."""
    if look.cluster is None:
        return {"cluster": None, "leader": None, "nodes": []}
    cluster = look.cluster
    nodes = []
    for node in cluster["nodes"]:
        shown = {key: node.get(key) for key in ("id", "state", "applied", "lag", "last_heard_ms")}
        now = look.figures.get(node["id"], {})
        pace = paces.get(node["id"], figures.Pace())
        for name, source in _RATES.items():
            found = pace.of(source)
            shown[name] = None if found is None else round(found, 1)
        for name, source in _GAUGES.items():
            shown[name] = None if source not in now else int(now[source])
        nodes.append(shown)
    machine = "coterie_machine_"
    state = look.figures.get(cluster["node"], {})
    busiest = sorted(look.tubes, key=lambda tube: -_size(tube))[:_SHOWN_MAX]
    queues = [lock for lock in look.locks if lock["queue_length"]]
    queues.sort(key=lambda lock: -int(lock["queue_length"]))
    kept = ("tube", "ready", "delayed", "reserved", "buried", "waiting", "paused")
    return {
        "cluster": cluster["cluster"],
        "node": cluster["node"],
        "leader": cluster["leader"],
        "term": cluster["term"],
        "commit": cluster["commit"],
        "nodes": nodes,
        "state": {
            name.removeprefix(machine): int(value)
            for name, value in state.items()
            if name.startswith(machine) and value
        },
        "tubes": [{key: tube.get(key) for key in kept} for tube in busiest],
        "locks": [
            {
                "name": lock["name"],
                "holders": len(lock["holders"]),
                "queue_length": lock["queue_length"],
                "held_for_ms": max((each["held_for_ms"] for each in lock["holders"]), default=None),
            }
            for lock in queues[:_SHOWN_MAX]
        ],
    }


def _size(tube: Mapping[str, Any]) -> int:
    return sum(int(tube[state]) for state in ("ready", "delayed", "reserved", "buried", "waiting"))


def in_words(seen: Mapping[str, Any]) -> str:
    """The view as text."""
    if seen["cluster"] is None:
        return styled("nobody answers", fg="red", bold=True)
    leader = styled(seen["leader"], fg="green") if seen["leader"] else styled("nobody", fg="red")
    head = f"cluster {seen['cluster']}: {leader} leads, term {seen['term']}"
    parts = [f"{head}, commit {seen['commit']} (asked {seen['node']})", _table(seen["nodes"])]
    if seen["state"]:
        words = (f"{name.replace('_', ' ')} {count}" for name, count in seen["state"].items())
        parts.append(", ".join(words))
    if seen["tubes"]:
        parts.append(_table(seen["tubes"]))
    if seen["locks"]:
        parts.append(_table(seen["locks"]))
    return "\n\n".join(parts)


def _table(items: list[dict[str, Any]]) -> str:
    heads = (_HEADS.get(name) or head_of(name) for name in items[0])
    return headed(heads, [[cell(value) for value in item.values()] for item in items])
