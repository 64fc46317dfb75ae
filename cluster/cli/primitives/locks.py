"""`coterie locks`: one holder or many readers, waiters in order, a token for every grant.

RULE: tables of verbs.
"""

from __future__ import annotations

from typing import Any

import click

from cluster.cli.verbs import (
    LIMIT,
    LOCK_TOKEN,
    PREFIX,
    PRIORITY,
    SESSION,
    WAIT,
    Group,
    Live,
    Verb,
    Word,
    option,
    part,
)

LOCKS = Live("/v1/locks", "locks")


def several(body: dict[str, Any]) -> dict[str, Any]:
    """Names, and among them those that are to be shared, as the API has them."""
    shared = set(body.pop("shared", ()))
    names = dict.fromkeys((*body.pop("names", ()), *shared))
    locks = [{"name": name, **({"mode": "shared"} if name in shared else {})} for name in names]
    if not locks:
        raise click.UsageError("which locks? Name at least one")
    return {**body, "locks": locks}


def given_back(body: dict[str, Any]) -> dict[str, Any]:
    """`NAME=TOKEN` as the API has it. A name may hold an equals sign, a token cannot."""
    locks = []
    for pair in body.pop("names"):
        name, _, token = pair.rpartition("=")
        if not name or not token.isdecimal():
            raise click.BadParameter(f'"{pair}" is no NAME=TOKEN', param_hint="NAME=TOKEN")
        locks.append({"name": name, "token": int(token)})
    return {**body, "locks": locks}


GROUP = Group(
    name="locks",
    summary="Take, give back and look at locks.",
    more='To run a command under a lock, use "coterie lock NAME -- COMMAND", which keeps the '
    "session alive and ends the command before the lock is lost. Where NAME is not followed by --, "
    '"coterie lock acquire …" is "coterie locks acquire …", and so for the other verbs.',
    first=("export COTERIE_SESSION=$(coterie sessions open --ttl 10m -o name)",),
    verbs=(
        Verb(
            name="acquire",
            summary="Take a lock, or stand in its queue for at most --wait; 1 when it is held.",
            call="POST /v1/locks/{name}/acquire",
            words=(
                part("name", LOCKS),
                SESSION,
                WAIT,
                option("mode", "Alone, or beside other readers.", kind=("exclusive", "shared")),
                PRIORITY,
            ),
            columns=("name", "token", "mode", "session"),
            name_of="token",
            more="-o name prints the token. It rises with every grant: hand it on with what you "
            "write, and have the receiver refuse smaller ones.",
            examples=(
                "TOKEN=$(coterie locks acquire orders --wait 30s -o name)",
                "coterie locks acquire catalogue --mode shared",
            ),
        ),
        Verb(
            name="check",
            summary="Tell whether a token is still a present grant; exit code 1 when it is not.",
            call="POST /v1/locks/{name}/check",
            words=(part("name", LOCKS), LOCK_TOKEN),
            is_question=True,
            yes="valid",
            columns=("valid", "current_token"),
            name_of="current_token",
            examples=("coterie locks check orders --token $TOKEN",),
        ),
        Verb(
            name="show",
            summary="Show who holds a lock and who waits for it, in order.",
            call="GET /v1/locks/{name}",
            words=(part("name", LOCKS),),
            name_of="name",
            examples=("coterie locks show orders",),
        ),
        Verb(
            name="list",
            summary="List the locks that are held or waited for.",
            call="GET /v1/locks",
            words=(PREFIX, LIMIT),
            things="locks",
            name_of="name",
            columns=("name", "mode", "holders#", "queue_length", "current_token"),
            has_pages=True,
            examples=("coterie locks list --prefix ord -o json",),
        ),
        Verb(
            name="release",
            summary="Give a lock back, if the token is still its grant.",
            call="POST /v1/locks/{name}/release",
            words=(part("name", LOCKS), SESSION, LOCK_TOKEN),
            columns=("released",),
            examples=("coterie locks release orders --token $TOKEN",),
        ),
        Verb(
            name="acquire-all",
            summary="Take several locks in one step, all or none.",
            call="POST /v1/locks/acquire",
            words=(
                Word(name="names", is_many=True, live=LOCKS, shown="[NAME]..."),
                option(
                    "shared",
                    "One to take beside other readers; may come several times.",
                    is_many=True,
                    shown="NAME",
                ),
                SESSION,
                WAIT,
                PRIORITY,
            ),
            shape=several,
            things="locks",
            name_of="token",
            columns=("name", "token", "mode"),
            examples=("set -- $(coterie locks acquire-all account/1 account/2 --wait 5s -o name)",),
        ),
        Verb(
            name="release-all",
            summary="Give several locks back, all or none.",
            call="POST /v1/locks/release",
            words=(
                Word(name="names", is_required=True, is_many=True, shown="NAME=TOKEN..."),
                SESSION,
            ),
            shape=given_back,
            columns=("names", "released"),
            examples=("coterie locks release-all account/1=$1 account/2=$2",),
        ),
    ),
)
VERBS = frozenset(verb.name for verb in GROUP.verbs)
