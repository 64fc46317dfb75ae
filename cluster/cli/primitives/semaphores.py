"""`coterie semaphores`: so many units, given out in order.

RULE: a table of verbs.
"""

from __future__ import annotations

from cluster.cli.verbs import (
    LIMIT,
    PREFIX,
    PRIORITY,
    SESSION,
    TOKEN,
    WAIT,
    Group,
    Live,
    Verb,
    option,
    part,
)

SEMAPHORES = Live("/v1/semaphores", "semaphores")

GROUP = Group(
    name="semaphores",
    also=("semaphore",),
    summary="Make semaphores, take units and give them back.",
    first=("export COTERIE_SESSION=$(coterie sessions open --ttl 10m -o name)",),
    verbs=(
        Verb(
            name="set",
            summary="Make a semaphore, or give one another limit.",
            call="PUT /v1/semaphores/{name}",
            words=(
                part("name", SEMAPHORES),
                option("limit", "How many units there are.", kind="number", is_required=True),
            ),
            columns=("name", "limit", "previous_limit", "held", "free", "queue_length"),
            name_of="name",
            examples=("coterie semaphores set printers --limit 3",),
        ),
        Verb(
            name="acquire",
            summary="Take units, or stand in the queue for at most --wait; 1 when too few are free.",
            call="POST /v1/semaphores/{name}/acquire",
            words=(
                part("name", SEMAPHORES),
                SESSION,
                option("units", "How many; without, one.", kind="number"),
                WAIT,
                PRIORITY,
            ),
            columns=("name", "token", "units", "session"),
            name_of="token",
            examples=("TOKEN=$(coterie semaphores acquire printers --units 2 --wait 30s -o name)",),
        ),
        Verb(
            name="check",
            summary="Tell whether a token is still a present grant; exit code 1 when it is not.",
            call="POST /v1/semaphores/{name}/check",
            words=(part("name", SEMAPHORES), TOKEN),
            is_question=True,
            yes="valid",
            columns=("valid", "current_token"),
            name_of="current_token",
            examples=("coterie semaphores check printers --token $TOKEN",),
        ),
        Verb(
            name="show",
            summary="Show a semaphore: who holds units and who waits, in order.",
            call="GET /v1/semaphores/{name}",
            words=(part("name", SEMAPHORES),),
            name_of="name",
            examples=("coterie semaphores show printers",),
        ),
        Verb(
            name="list",
            summary="List the semaphores.",
            call="GET /v1/semaphores",
            words=(PREFIX, LIMIT),
            things="semaphores",
            name_of="name",
            columns=("name", "limit", "held", "free", "queue_length"),
            has_pages=True,
            examples=("coterie semaphores list",),
        ),
        Verb(
            name="release",
            summary="Give units of a grant back, all of them unless --units says how many.",
            call="POST /v1/semaphores/{name}/release",
            words=(
                part("name", SEMAPHORES),
                SESSION,
                TOKEN,
                option("units", "How many; without, all of them.", kind="number"),
            ),
            columns=("released", "units"),
            examples=(
                "coterie semaphores release printers --token $TOKEN --units 1",
                "coterie semaphores release printers --token $TOKEN",
            ),
        ),
        Verb(
            name="delete",
            summary="Delete a semaphore that nobody holds or waits for.",
            call="DELETE /v1/semaphores/{name}",
            words=(part("name", SEMAPHORES),),
            columns=("deleted",),
            examples=("coterie semaphores delete printers",),
        ),
    ),
)
