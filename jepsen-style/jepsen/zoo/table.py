"""What was found, as a table for people, and kept from one hunt to the next.

RULE: text out of findings; hunts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from jepsen.zoo.hunt import Found
from jepsen.zoo.registry import ZOO

Findings = dict[str, Found]
"""By plant and place of the hunt."""

_HEAD: Final = """# The zoo: bugs that we planted, and who finds them

*Written by `python -m jepsen.zoo --write`; change the plants in `jepsen-style/jepsen/zoo`, not this page.*

A checker that never complained has proved nothing. Each bug below is a patch of production code,
applied from outside while a run lasts (production code has no switches): around a cluster in the
deterministic simulator, or inside every node of a cluster of real processes. Each names the check that
must find it, within a budget; and the same seeds must be silent when nothing is planted. Seeds count
from 0; each is a cluster of its own.

Faults, budgets and named checks of about a dozen plants were settled after a first hunt had missed them
or had found them by another check; four of those led to new laws or faults of the simulator (`rot is
refused`, `leaders commit by their own term`, `cluster time goes on`, the faults `flip_journal` and
`two_tails`). One plant, cluster time that may go back in an entry alone, was found by nothing in six
seeds and gave way to `plant-clock-start`.

"""


def key_of(found: Found) -> str:
    """Under which a finding is kept."""
    return f"{found.name} @ {found.where}"


def load(file: Path) -> Findings:
    """Findings of earlier hunts; none where there is no file."""
    if not file.exists():
        return {}
    return msgspec.json.decode(file.read_bytes(), type=dict[str, Found])


def save(file: Path, findings: Mapping[str, Found]) -> None:
    """Keep them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(findings)))


def line(found: Found) -> str:
    """One finding, for a terminal."""
    if found.passed:
        word = "found"
    elif not found.by:
        word = "NOT FOUND"
    elif not found.right:
        word = "BY OTHERS"
    else:
        word = "FALSE ALARM"
    after = "after" if found.by else "in"
    text = f"{word:<11} {found.name:<22} {found.where}: {found.by or '-'}, {after} {found.after}"
    return (
        text
        if found.passed
        else f"{text}\n    {found.detail or found.replay}\n    {found.false_alarm}"
    )


def page(findings: Mapping[str, Found]) -> str:
    """The whole page: every plant, hunted or not."""
    simulated = [found for found in _sorted(findings) if found.where == "simulator"]
    real = [found for found in _sorted(findings) if found.where != "simulator"]
    parts = [_HEAD, _summary(simulated, real)]
    if simulated:
        spent_s = sum(found.spent for found in simulated)
        parts += [
            "## In the simulator\n\n",
            f"{len(simulated)} bugs; {spent_s / 3600:.1f} virtual hours until all were found.\n\n",
            *_rows(simulated, "seeds"),
            "\n",
        ]
    if real:
        spent_s = sum(found.spent for found in real)
        parts += [
            "## On real processes\n\n",
            f"{len(real)} bugs; {spent_s:.0f} seconds under faults until all were found.\n\n",
            *_rows(real, "runs"),
            "\n",
        ]
    return "".join(parts)


def _sorted(findings: Mapping[str, Found]) -> list[Found]:
    order = {name: place for place, name in enumerate(ZOO)}
    kept = [found for found in findings.values() if found.name in order]
    return sorted(kept, key=lambda found: (order[found.name], found.where))


def _summary(simulated: Sequence[Found], real: Sequence[Found]) -> str:
    every = {found.name for found in (*simulated, *real)}
    passed = {found.name for found in (*simulated, *real) if found.passed}
    failed = sorted({found.name for found in (*simulated, *real) if not found.passed})
    missing = sorted(set(ZOO) - every)
    text = f"**{len(passed)} of {len(ZOO)} planted bugs are found by the check that should find them.**"
    if failed:
        text += f" Not as they should be: {', '.join(failed)}."
    if missing:
        text += f" Not hunted yet: {', '.join(missing)}."
    return text + "\n\n"


def _rows(findings: Iterable[Found], unit: str) -> list[str]:
    rows = [
        f"| planted | where | hunted by | found by | after ({unit}, of) | without it | to see it |\n",
        "|---|---|---|---|---|---|---|\n",
    ]
    for found in findings:
        plant = ZOO[found.name]
        hunt = plant.simulated if found.where == "simulator" else plant.real
        assert hunt is not None
        if plant.simulated is not None and found.where == "simulator":
            nodes = f", {plant.simulated.nodes} nodes" if plant.simulated.nodes else ""
            hunted = f"{plant.simulated.profile}, {plant.simulated.workload}{nodes}"
        else:
            hunted = f"{found.where}, {found.spent / max(1, found.after):.0f} s"
        by = f"*{found.by}*" if found.right else f"{found.by or 'nothing'} **(!)**"
        silent = "silent" if not found.false_alarm else f"**{found.false_alarm}**"
        after = f"{found.after} of {hunt.budget}"
        rows.append(
            f"| {plant.what} (`{plant.name}`) | {plant.layer} | {hunted} | {by} | {after} | "
            f"{silent if found.by else '–'} | `{found.replay}` |\n"
        )
    return rows
