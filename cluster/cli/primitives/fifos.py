"""`coterie fifos`: queues in which everybody gets a turn, in order of coming.

RULE: a table of verbs.
"""

from __future__ import annotations

from cluster.cli.verbs import LIMIT, PREFIX, WAIT, Group, Live, Verb, option, part

FIFOS = Live("/v1/fifos", "fifos", "fifo")
_FIFO = part("fifo", FIFOS)
_TICKET = part("ticket")
_TIMEOUTS = (
    option("wait_timeout", "How long a ticket may go without being asked after.", kind="time"),
    option("accept_timeout", "How long a turn may go unaccepted.", kind="time"),
    option("done_timeout", "How long an accepted turn lasts.", kind="time"),
)

GROUP = Group(
    name="fifos",
    also=("fifo",),
    summary="Make fifos, stand in line and take turns.",
    verbs=(
        Verb(
            name="new",
            summary="Make a fifo; one that is there already with equal settings will do.",
            call="POST /v1/fifos",
            words=(
                option("name", "Its name; without, one is drawn."),
                *_TIMEOUTS,
                option("unused_destroy_timeout", "How long it lives without tickets.", kind="time"),
                option(
                    "allow_overrides", "Tickets may bring timeouts of their own.", kind="switch"
                ),
            ),
            columns=("fifo", "wait_timeout_ms", "accept_timeout_ms", "done_timeout_ms"),
            name_of="fifo",
            examples=("FIFO=$(coterie fifos new --name checkout --accept-timeout 30s -o name)",),
        ),
        Verb(
            name="ticket",
            summary="Take a ticket, which stands at the end of the queue.",
            call="POST /v1/fifos/{fifo}/tickets",
            words=(_FIFO, *_TIMEOUTS),
            columns=("fifo", "ticket", "state", "position", "ahead", "eta_ms"),
            name_of="ticket",
            examples=("TICKET=$(coterie fifos ticket $FIFO -o name)",),
        ),
        Verb(
            name="wait",
            summary="Accept the ticket's turn, waiting for it at most --wait; 1 when not yet.",
            call="POST /v1/fifos/{fifo}/tickets/{ticket}/wait",
            words=(_FIFO, _TICKET, WAIT),
            columns=("fifo", "ticket", "state", "token"),
            name_of="token",
            examples=("TOKEN=$(coterie fifos wait $FIFO $TICKET --wait 30s -o name)",),
        ),
        Verb(
            name="status",
            summary="Show a ticket: its state, its position, when its turn may come.",
            call="GET /v1/fifos/{fifo}/tickets/{ticket}",
            words=(_FIFO, _TICKET),
            name_of="ticket",
            examples=("coterie fifos status $FIFO $TICKET",),
        ),
        Verb(
            name="done",
            summary="End the accepted turn; the next one's comes in the same step.",
            call="POST /v1/fifos/{fifo}/tickets/{ticket}/done",
            words=(
                _FIFO,
                _TICKET,
                option("token", "Only if this is still the turn.", kind="number"),
            ),
            columns=("done",),
            examples=("coterie fifos done $FIFO $TICKET --token $TOKEN",),
        ),
        Verb(
            name="leave",
            summary="Give a ticket up, whatever its state.",
            call="DELETE /v1/fifos/{fifo}/tickets/{ticket}",
            words=(_FIFO, _TICKET),
            done="given up",
            examples=(
                "SECOND=$(coterie fifos ticket $FIFO -o name)",
                "coterie fifos leave $FIFO $SECOND",
            ),
        ),
        Verb(
            name="show",
            summary="Show a fifo: its settings, its hold times, its queue in order.",
            call="GET /v1/fifos/{fifo}",
            words=(_FIFO, LIMIT),
            name_of="fifo",
            examples=("coterie fifos show $FIFO --limit 20",),
        ),
        Verb(
            name="list",
            summary="List the fifos.",
            call="GET /v1/fifos",
            words=(PREFIX, LIMIT),
            things="fifos",
            name_of="fifo",
            columns=("fifo", "length", "hold_times.mean_ms", "hold_times.p90_ms"),
            has_pages=True,
            examples=("coterie fifos list",),
        ),
        Verb(
            name="delete",
            summary="Take a fifo away.",
            call="DELETE /v1/fifos/{fifo}",
            words=(
                _FIFO,
                option("force", "Also where somebody stands in it.", place="query", kind="switch"),
            ),
            done="deleted",
            examples=("coterie fifos delete $FIFO --force",),
        ),
    ),
)
