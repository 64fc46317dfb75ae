"""`coterie explain`: who is in the way of a session, since when, and what would help.

RULE: the cluster's words, set under one another.
"""

from __future__ import annotations

from typing import Any

from cluster.cli.rendering import cell, headed, styled
from cluster.cli.verbs import SESSIONS, Verb, Word, command_alone, option

_COLUMNS = ("session", "token", "position", "since_ms_ago", "session_expires_in_ms")


def in_words(answer: dict[str, Any]) -> str:
    """Every wish with its advice and those who stand in its way, and the deadlock if there is."""
    parts = [] if answer["wants"] else [f"session {answer['session']} waits for nothing"]
    for want in answer["wants"]:
        lines = [styled(f"{want['want']}: {_standing(want)}", bold=True), f"  {want['advice']}"]
        for word in ("holders", "ahead"):
            if want[word]:
                heads = ["", *(column.upper().replace("_", " ") for column in _COLUMNS)]
                rows = [[word, *(cell(each.get(name)) for name in _COLUMNS)] for each in want[word]]
                lines.append(headed(heads, rows))
        if not want["shown_all"]:
            lines.append("  … and more")
        parts.append("\n".join(lines))
    if answer["deadlock"] is not None:
        parts.append(styled("deadlock", fg="red", bold=True) + f": {cell(answer['deadlock'], 500)}")
    if not answer["complete"]:
        parts.append(
            f"Only {answer['looked_at']} sessions were looked at: there may be more to it."
        )
    return "\n\n".join(parts)


def _standing(want: dict[str, Any]) -> str:
    if want["holds"]:
        return "held by this session"
    if want["waits"]:
        return f"waits at position {want['position']} for {want['waited_ms']} ms"
    return f"would stand at position {want['position']}"


VERB = Verb(
    name="explain",
    summary="Explain what a session waits for: who is in the way, what would help, deadlocks.",
    call="GET /v1/explain",
    words=(
        Word(
            name="session",
            place="query",
            is_required=True,
            environ="COTERIE_SESSION",
            live=SESSIONS,
        ),
        option("want", "As if it asked for this: /locks/orders.", place="query", shown="PATH"),
    ),
    render=in_words,
    view=lambda answer: answer["wants"],
    name_of="want",
    more="With --want, also what it does not wait for yet. -o json has all of it.",
    examples=(
        "coterie explain $COTERIE_SESSION",
        "coterie explain $COTERIE_SESSION --want /locks/orders",
    ),
)
command = command_alone(VERB)
