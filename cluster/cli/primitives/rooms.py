"""`coterie rooms`: waiting rooms before a crowded place, let in by the batch.

RULE: a table of verbs.
"""

from __future__ import annotations

from cluster.cli.verbs import LIMIT, PREFIX, Group, Live, Verb, Word, option, part

ROOMS = Live("/v1/rooms", "rooms", "room")
_ROOM = part("room", ROOMS)

GROUP = Group(
    name="rooms",
    also=("room",),
    summary="Make waiting rooms, take places and ask after them.",
    verbs=(
        Verb(
            name="set",
            summary="Make a waiting room, or change its settings.",
            call="PUT /v1/rooms/{room}",
            words=(
                _ROOM,
                option("window_size", "Places let in at a time.", kind="number", is_required=True),
                option("window_interval", "How often that is.", kind="time", is_required=True),
                option(
                    "active_windows",
                    "How many batches are in at once.",
                    kind="number",
                    default=2,
                ),
            ),
            columns=("room", "window_size", "window_interval_ms", "active_windows"),
            name_of="room",
            examples=("coterie rooms set sale --window-size 100 --window-interval 30s",),
        ),
        Verb(
            name="join",
            summary="Take the next place and get the pass for it.",
            call="POST /v1/rooms/{room}/join",
            words=(_ROOM,),
            columns=("room", "position", "status", "ahead", "eta_ms"),
            name_of="token",
            more="-o name prints the pass, which says which place is yours: keep it.",
            examples=("PASS=$(coterie rooms join sale -o name)",),
        ),
        Verb(
            name="status",
            summary="Tell what has become of the place of a pass; exit code 1 unless it is active.",
            call="GET /v1/rooms/{room}/status",
            words=(
                _ROOM,
                Word(
                    name="pass",
                    flag="--pass",
                    meaning="The pass that join gave.",
                    place="bearer",
                    is_required=True,
                ),
            ),
            columns=("position", "status", "ahead", "eta_ms"),
            name_of="status",
            yes=lambda answer: answer["status"] == "active",
            examples=("coterie rooms status sale --pass $PASS",),
        ),
        Verb(
            name="show",
            summary="Show a waiting room: its settings, and how many wait.",
            call="GET /v1/rooms/{room}",
            words=(_ROOM,),
            name_of="room",
            examples=("coterie rooms show sale",),
        ),
        Verb(
            name="list",
            summary="List the waiting rooms.",
            call="GET /v1/rooms",
            words=(PREFIX, LIMIT),
            things="rooms",
            name_of="room",
            columns=("room", "waiting", "active", "window_size", "window_interval_ms"),
            has_pages=True,
            examples=("coterie rooms list",),
        ),
        Verb(
            name="delete",
            summary="Take a waiting room away; its passes are void.",
            call="DELETE /v1/rooms/{room}",
            words=(_ROOM,),
            done="deleted",
            examples=("coterie rooms delete sale",),
        ),
    ),
)
