"""`coterie resources`: tickets that some sessions issue and others claim.

RULE: a table of verbs.
"""

from __future__ import annotations

from dataclasses import replace

from cluster.cli.verbs import (
    LIMIT,
    PREFIX,
    SESSION,
    TOKEN,
    WAIT,
    Group,
    Live,
    Verb,
    Word,
    option,
    part,
)

RESOURCES = Live("/v1/resources", "resources")
_NAME = part("name", RESOURCES)
_TICKET = Word(name="ticket", is_required=True)

GROUP = Group(
    name="resources",
    also=("resource", "tickets", "ticket"),
    summary="Issue, claim and give back the tickets of a resource.",
    more="A ticket stands for something that one at a time may use. It lives as long as the "
    "session that issued it, a claim as long as the session that claimed it.",
    first=("export COTERIE_SESSION=$(coterie sessions open --ttl 10m -o name)",),
    verbs=(
        Verb(
            name="issue",
            summary="Issue a ticket, or give one other data: a claim on it stays.",
            call="POST /v1/resources/{name}/tickets",
            words=(
                _NAME,
                _TICKET,
                SESSION,
                option("data", "What whoever claims it is told.", kind="payload"),
            ),
            columns=("name", "ticket", "token", "session", "created", "claimant"),
            name_of="ticket",
            examples=("coterie resources issue gpus gpu-1 --data 10.0.0.7:9000",),
        ),
        Verb(
            name="claim",
            summary="Claim a ticket, or wait for one for at most --wait; 1 when none is free.",
            call="POST /v1/resources/{name}/claim",
            words=(
                _NAME,
                SESSION,
                WAIT,
                option("ticket", "This one and no other."),
                option("another", "One more, where the session has one already.", kind="switch"),
            ),
            columns=("name", "ticket", "token", "data", "issuer"),
            name_of="token",
            more="-o name prints the token; -o json all there is to know.",
            examples=("TOKEN=$(coterie resources claim gpus --wait 30s -o name)",),
        ),
        Verb(
            name="check",
            summary="Tell whether a token is still the claim; exit code 1 when it is not.",
            call="POST /v1/resources/{name}/tickets/{ticket}/check",
            words=(_NAME, part("ticket"), TOKEN),
            is_question=True,
            yes="valid",
            columns=("valid", "current_token"),
            name_of="current_token",
            examples=("coterie resources check gpus gpu-1 --token $TOKEN",),
        ),
        Verb(
            name="ticket",
            summary="Show a ticket: who issued it, who holds it, its data.",
            call="GET /v1/resources/{name}/tickets/{ticket}",
            words=(_NAME, part("ticket")),
            name_of="ticket",
            examples=("coterie resources ticket gpus gpu-1",),
        ),
        Verb(
            name="show",
            summary="Show a resource: its tickets and who waits for one.",
            call="GET /v1/resources/{name}",
            words=(_NAME,),
            name_of="name",
            examples=("coterie resources show gpus",),
        ),
        Verb(
            name="list",
            summary="List the resources that have tickets or waiters.",
            call="GET /v1/resources",
            words=(PREFIX, LIMIT),
            things="resources",
            name_of="name",
            columns=("name", "ticket_count", "free_count", "queue_length"),
            has_pages=True,
            examples=("coterie resources list",),
        ),
        Verb(
            name="release",
            summary="Give a claimed ticket back.",
            call="POST /v1/resources/{name}/release",
            words=(_NAME, _TICKET, SESSION, TOKEN),
            columns=("released",),
            examples=("coterie resources release gpus gpu-1 --token $TOKEN",),
        ),
        Verb(
            name="revoke",
            summary="Take a ticket back: whoever holds it loses it, and is told.",
            call="DELETE /v1/resources/{name}/tickets/{ticket}",
            words=(_NAME, part("ticket"), replace(SESSION, place="query")),
            columns=("revoked", "claimant"),
            examples=("coterie resources revoke gpus gpu-1",),
        ),
    ),
)
