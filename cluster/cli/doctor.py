"""`coterie doctor`: what is wrong with this node, and what to do.

RULE: asks the checks of `checkup.py` and `probing.py` and shows what they found; heals nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cluster.cli import exits
from cluster.cli.rendering import as_data, form_of, styled
from cluster.cli.serve import add_settings
from cluster.cli.verbs import form_option
from cluster.cli.words import Duration, EndpointList, ca_option, leave, tls_context
from cluster.node import config as settings

if TYPE_CHECKING:
    from cluster.cli.checkup import Finding
    from cluster.client.aio import ClusterState

EPILOG = """
It takes the settings of "coterie serve", by flags, environment and file, and looks at this machine
and at the peers; without any, only at the cluster behind --endpoints. Peers note in their logs that
somebody without an identity asked.

\b
Examples:
  coterie doctor --config /etc/coterie/n1.toml
  coterie doctor --node n1 --data /var/lib/coterie -o json
  coterie doctor --endpoints 10.0.0.1:7101,10.0.0.2:7101

Exit codes: 0 nothing is wrong (there may be warnings), 1 something is, 2 the settings are.
"""

_MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "wrong": ("WRONG", "red")}
_ENDPOINTS_LOCAL = ("http://127.0.0.1:7101", "http://127.0.0.1:7102", "http://127.0.0.1:7103")


@click.command("doctor", epilog=EPILOG)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="TOML file of settings (COTERIE_CONFIG).",
)
@click.option(
    "--endpoints",
    type=EndpointList(),
    envvar="COTERIE_ENDPOINTS",
    help="Nodes of the cluster.  [COTERIE_ENDPOINTS, else this node, else this machine's]",
)
@click.option(
    "--timeout",
    "timeout_ms",
    type=Duration(10, 600_000),
    default="3s",
    show_default=True,
    help="How long each node may take to answer.",
)
@ca_option
@form_option
def command(
    file: Path | None,
    endpoints: tuple[str, ...] | None,
    timeout_ms: int,
    output: str | None,
    **flags: Any,
) -> None:
    """Tell what is wrong with this node and its cluster, and what to do."""
    from cluster.cli.checkup import Finding, worst

    form = form_of(output)
    config = None
    findings = []
    if is_about_a_node(flags, file):
        try:
            config = settings.load(flags, os.environ, file=file)
        except settings.ConfigError as error:
            findings = [
                Finding("settings", "wrong", problem, "correct it; coterie serve --help has all")
                for problem in error.problems
            ]
            _show(findings, form)
            leave(exits.USAGE)
        findings += [Finding("settings", "warning", warning) for warning in config.warnings] or [
            Finding("settings", "ok", f"node {config.node} of cluster {config.cluster}")
        ]
    findings += asyncio.run(examine(config, endpoints, timeout_ms))
    _show(findings, form)
    leave(exits.REFUSED if worst(findings) == "wrong" else exits.DONE)


add_settings(command)


def is_about_a_node(flags: dict[str, Any], file: Path | None) -> bool:
    """Somebody said which node: by a flag, a file or the environment."""
    given = any(value not in (None, ()) for value in flags.values())
    return (
        given
        or file is not None
        or any(
            os.environ.get(settings.ENVIRONMENT_PREFIX + name)
            for name in ("CONFIG", "NODE", "DATA")
        )
    )


async def examine(
    config: settings.Config | None, endpoints: Sequence[str] | None, timeout_ms: int
) -> list[Finding]:
    """All checks there are for what is known.

    Args:
        config: of the node; None looks at the cluster alone.
        endpoints: where to ask for the cluster; None for the node itself, or this machine.
    """
    from cluster.cli import checkup
    from cluster.cli.probing import probe
    from cluster.cli.status import ask_all
    from cluster.client.aio import ClusterState

    own = None if config is None else _own_url(config)
    asked = endpoints or ((own,) if own is not None else _ENDPOINTS_LOCAL)
    answers = await ask_all(tuple(dict.fromkeys((*asked, *((own,) if own else ())))), timeout_ms)
    if not endpoints:
        # They name the others, and those may see it otherwise.
        known = [answer for answer in answers.values() if isinstance(answer, ClusterState)]
        more = [url for url in _urls_in(known) if url not in answers]
        answers |= await ask_all(tuple(more), timeout_ms)
    states = {url: each for url, each in answers.items() if isinstance(each, ClusterState)}
    failures = {url: each for url, each in answers.items() if isinstance(each, str)}
    findings: list[Finding] = []
    if config is not None:
        here = states.get(own or "")
        is_running = here is not None and here.node == config.node
        if own in failures and not endpoints:
            # That it does not run may be just why the doctor was called.
            why = failures.pop(own)
            found = f"this node does not answer at {own}: {why}"
            findings.append(checkup.Finding("node", "warning", found, "start it: coterie serve"))
        findings += checkup.data_folder(config)
        findings += checkup.disk_space(config)
        if findings[-2].state == "ok":
            findings += checkup.sync_speed(config)
        findings += checkup.open_files()
        findings += checkup.addresses(config, is_running=is_running)
        peers = list(config.peers.items())
        heard = await asyncio.gather(*(probe(config, peer, address) for peer, address in peers))
        findings += [
            checkup.Finding(f"peer {peer}", "ok" if each.is_well else "wrong", each.what, each.cure)
            for (peer, _), each in zip(peers, heard, strict=True)
        ]
    if states or failures:
        findings += checkup.cluster_health(states, failures, config)
    findings += await _clocks({each.node: url for url, each in states.items()}, timeout_ms)
    return findings


def _own_url(config: settings.Config) -> str:
    """Where this node itself can be asked from here."""
    host = "127.0.0.1" if config.http.is_wildcard else config.http.host
    return f"http://{settings.Address(host, config.http.port)}"


def _urls_in(states: Sequence[ClusterState]) -> list[str]:
    told = (node.http for state in states for node in state.nodes if node.http)
    return list(dict.fromkeys(at if "://" in at else f"http://{at}" for at in told))


async def _clocks(urls: dict[str, str], timeout_ms: int) -> list[Finding]:
    """What the nodes take the time to be, by the dates of their answers."""
    from email.utils import parsedate_to_datetime

    import aiohttp

    from cluster.cli import checkup
    from cluster.node.clock import wall_ms

    dates_ms: dict[str, int] = {}
    timeout = aiohttp.ClientTimeout(total=timeout_ms / 1_000)
    connector = aiohttp.TCPConnector(ssl=tls_context())
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        for node, url in urls.items():
            try:
                async with http.get(f"{url}/livez") as response:
                    date = parsedate_to_datetime(response.headers["Date"])
            except (aiohttp.ClientError, TimeoutError, OSError, KeyError, ValueError):
                continue
            dates_ms[node] = round(date.timestamp() * 1_000)
    return checkup.clock_skew(dates_ms, wall_ms())


def _show(findings: Sequence[Finding], form: str) -> None:
    if form in {"json", "yaml"}:
        click.echo(as_data({"findings": [each._asdict() for each in findings]}, form))
        return
    if form == "name":
        for each in findings:
            if each.state != "ok":
                click.echo(each.check)
        return
    if form == "lines":
        for each in findings:
            click.echo("\t".join(each))
        return
    width = max((len(each.check) for each in findings), default=0)
    for each in findings:
        word, colour = _MARKS[each.state]
        click.echo(f"{styled(f'{word:<7}', fg=colour)}  {each.check:<{width}}  {each.found}")
        if each.cure and each.state != "ok":
            click.echo(f"{'':7}  {'':{width}}  → {each.cure}")
