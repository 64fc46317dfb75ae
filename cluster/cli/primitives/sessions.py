"""`coterie sessions`: who holds things, and for how long without a sign of life.

RULE: a table of verbs.
"""

from __future__ import annotations

import json
from typing import Any

import click

from cluster.cli.verbs import LIMIT, SESSIONS, Group, Verb, Word, option, part


def with_meta(body: dict[str, Any]) -> dict[str, Any]:
    """`--meta host=a7` as an object; values that are JSON are taken as such.

    Raises:
        click.BadParameter: no KEY=VALUE.
    """
    meta: dict[str, Any] = {}
    for pair in body.pop("meta", ()):
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise click.BadParameter(f'"{pair}" is no KEY=VALUE', param_hint="--meta")
        try:
            meta[key] = json.loads(value)
        except ValueError:
            meta[key] = value
    return {**body, "meta": meta} if meta else body


def renewed(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """What was renewed as one list, the lost ones in it."""
    alive = [
        {"session": session, "expires_in_ms": left_ms, "alive": True}
        for session, left_ms in answer["alive"].items()
    ]
    gone = [
        {"session": session, "expires_in_ms": None, "alive": False} for session in answer["expired"]
    ]
    return alive + gone


GROUP = Group(
    name="sessions",
    also=("session",),
    summary="Open, renew and end sessions; what a session holds ends with it.",
    more="Whoever holds a lock, a ticket or a task holds it by a session. A session ends when "
    "nobody has renewed it for its TTL: a script that opens one by hand gives it a TTL as long as "
    'it needs, or renews it. "coterie lock NAME -- COMMAND" does all of that by itself.',
    verbs=(
        Verb(
            name="open",
            summary="Open a session; it ends --ttl after its last renewal.",
            call="POST /v1/sessions",
            words=(
                option("ttl", "Its time to live.", kind="time", default="60s"),
                option("name", "For those who look who holds something."),
                option(
                    "meta", "More of that; may come several times.", is_many=True, shown="KEY=VALUE"
                ),
            ),
            shape=with_meta,
            name_of="session",
            columns=("session", "ttl_ms", "expires_in_ms", "token"),
            examples=(
                'export COTERIE_SESSION=$(coterie sessions open --ttl 10m --name "shift 1" -o name)',
                "OTHER=$(coterie sessions open --ttl 30s --meta host=a7 --meta pid=4711 -o name)",
            ),
        ),
        Verb(
            name="keepalive",
            summary="Renew sessions for their whole TTL; exit code 1 when one of them is gone.",
            call="POST /v1/sessions/keepalive",
            words=(
                Word(
                    name="sessions",
                    is_required=True,
                    is_many=True,
                    live=SESSIONS,
                    shown="SESSION...",
                ),
            ),
            # As often as one likes: no key, which would bring back an old answer.
            is_repeatable=True,
            yes=lambda answer: not answer["expired"],
            columns=("session", "expires_in_ms", "alive"),
            view=renewed,
            name_of="session",
            examples=("coterie sessions keepalive $COTERIE_SESSION $OTHER",),
        ),
        Verb(
            name="show",
            summary="Show a session: whose it is, what it holds and waits for.",
            call="GET /v1/sessions/{session}",
            words=(part("session", SESSIONS),),
            name_of="session",
            examples=("coterie sessions show $COTERIE_SESSION",),
        ),
        Verb(
            name="list",
            summary="List the live sessions, in order of opening.",
            call="GET /v1/sessions",
            words=(LIMIT,),
            things="sessions",
            name_of="session",
            columns=("session", "name", "ttl_ms", "expires_in_ms", "holds#", "waits#", "meta"),
            has_pages=True,
            examples=("coterie sessions list", "coterie sessions list -o name | head -1"),
        ),
        Verb(
            name="close",
            summary="End sessions; all that they hold is free in the same step.",
            call="DELETE /v1/sessions/{session}",
            words=(part("session", SESSIONS, is_many=True),),
            each="session",
            done="closed",
            examples=("coterie sessions close $OTHER",),
        ),
    ),
)
