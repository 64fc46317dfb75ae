"""Commands on the wire: whole ones pass, everything else is a WireError."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.machine import limits
from cluster.machine.commands import (
    MACHINE_COMMANDS,
    Abandon,
    AcquireLock,
    CloseSession,
    Command,
    KeepAlive,
    KeepAliveMany,
    OpenSession,
    ReleaseLock,
)
from cluster.machine.commands.base import Name, Nonce
from cluster.wire import cbor, commands
from cluster.wire.cbor import WireError

COUNTS = st.integers(0, 2**62)
LENGTHS = st.integers(0, limits.LENGTH_MS_MAX)
# At most 50 characters of at most four bytes: never over 200 bytes.
NAMES = st.text(
    st.characters(exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=50,
)
SESSIONS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=100)

COMMANDS: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        OpenSession,
        nonce=NAMES,
        ttl_ms=st.integers(1, limits.LENGTH_MS_MAX),
        name=st.none() | NAMES,
        meta=st.none() | st.binary(max_size=100),
    ),
    st.builds(KeepAlive, session=SESSIONS),
    st.builds(KeepAliveMany, sessions=st.lists(SESSIONS, max_size=5).map(tuple)),
    st.builds(CloseSession, session=SESSIONS),
    st.builds(
        AcquireLock,
        session=SESSIONS,
        name=NAMES,
        shared=st.booleans(),
        priority=st.integers(-(2**31), 2**32 - 1),
        wait_ms=LENGTHS,
    ),
    st.builds(ReleaseLock, session=SESSIONS, name=NAMES, token=COUNTS),
    st.builds(Abandon, seq=COUNTS),
)

BAD: dict[str, Any] = {
    "not a list": {"a": 1},
    "an empty list": [],
    "no number": ["acquire", "s", "n"],
    "a boolean for a number": [True, "n", 1000],
    "an unknown number": [99, "s"],
    "number zero": [0],
    "a missing field": [6, "s", "n"],
    "a field too many": [4, "s", 1],
    "a number for a text": [4, 17],
    "a text for a number": [6, "s", "n", "7"],
    "a boolean for a count": [6, "s", "n", True],
    "a number for a flag": [5, "s", "n", 1, 0, 0],
    "a float": [5, "s", "n", False, 0, 1.0],
    "an empty name": [5, "s", "", False, 0, 0],
    "a name of 201 letters": [5, "s", "n" * 201, False, 0, 0],
    "a name of 201 bytes": [5, "s", "é" * 100 + "n", False, 0, 0],
    "a control character": [5, "s", "a\nb", False, 0, 0],
    "a control character of Latin 1": [5, "s", "a\x85b", False, 0, 0],
    "an empty session": [2, ""],
    "an endless session": [2, "s" * 101],
    "a token below zero": [6, "s", "n", -1],
    "a token of 63 bits": [6, "s", "n", 2**62 + 1],
    "a big integer": [6, "s", "n", 2**70],
    "no ttl": [1, "nonce", 0],
    "an endless ttl": [1, "nonce", limits.LENGTH_MS_MAX + 1],
    "a control character in a nonce": [1, "no\x00nce", 1000],
    "a session's name with a control character": [1, "nonce", 1000, "a\tb"],
    "a text for opaque bytes": [1, "nonce", 1000, None, "aGk="],
    "opaque bytes too long": [1, "nonce", 1000, None, b"x" * (limits.META_BYTES_MAX + 1)],
    "an endless wait": [5, "s", "n", False, 0, limits.LENGTH_MS_MAX + 1],
    "a priority of 33 bits": [5, "s", "n", False, 2**32, 0],
    "too many sessions": [3, ["s"] * (limits.SESSIONS_PER_KEEPALIVE_MAX + 1)],
    "a session that is none": [3, ["s", None]],
}


@given(COMMANDS)
def test_reads_back_what_was_encoded(command: Command) -> None:
    """Every command survives the way into the log and out of it."""
    assert commands.decode(commands.encode(command)) == command


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_refuses_what_is_no_whole_command(value: object) -> None:
    """Wrong shapes, types, lengths and ranges are refused."""
    with pytest.raises(WireError):
        commands.decode(cbor.encode(value))


@pytest.mark.parametrize("value", BAD.values(), ids=BAD.keys())
def test_one_that_is_refused_spoils_no_neighbour(value: object) -> None:
    """Read together, a bad command costs itself only."""
    good = [commands.encode(KeepAlive("s")), commands.encode(Abandon(7))]
    found = commands.decode_each([good[0], cbor.encode(value), good[1]])
    assert found == [KeepAlive("s"), None, Abandon(7)]


@given(COMMANDS)
def test_writes_what_the_encoder_would_write(command: Command) -> None:
    """Written by hand for speed, the bytes are those of plain CBOR."""
    assert commands.encode(command) == cbor.encode(command)


@given(st.lists(COMMANDS.map(commands.encode) | st.binary(max_size=20), max_size=6))
def test_many_are_read_as_if_each_stood_alone(bodies: list[bytes]) -> None:
    """Also where the bytes of one would go on in the next."""
    assert commands.decode_each(bodies) == [alone(body) for body in bodies]


@given(COMMANDS, COMMANDS, st.data())
def test_a_body_never_ends_in_its_neighbour(
    first: Command, second: Command, data: st.DataObject
) -> None:
    """Two bodies that make two commands in one piece make none when cut elsewhere."""
    whole = commands.encode(first) + commands.encode(second)
    cut = data.draw(st.integers(0, len(whole)))
    bodies = [whole[:cut], whole[cut:]]
    assert commands.decode_each(bodies) == [alone(body) for body in bodies]
    is_whole = cut == len(commands.encode(first))
    assert (commands.decode_each(bodies) == [first, second]) == is_whole


def alone(body: bytes) -> Command | None:
    """What a body is by itself."""
    try:
        return commands.decode(body)
    except WireError:
        return None


@given(st.binary(max_size=100))
def test_raises_nothing_but_wire_errors_for_any_bytes(data: bytes) -> None:
    """Any bytes make a command or a WireError."""
    try:
        commands.decode(data)
    except WireError:
        pass


@given(COMMANDS, st.data())
def test_raises_nothing_but_wire_errors_for_damaged_commands(
    command: Command, data: st.DataObject
) -> None:
    """A flipped byte makes another command or a WireError."""
    damaged = bytearray(commands.encode(command))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        commands.decode(bytes(damaged))
    except WireError:
        pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=7),
    ),
    st.integers(0, 9),
)
def test_raises_nothing_but_wire_errors_for_any_values(value: object, number: int) -> None:
    """Well-formed CBOR of the wrong shape is a WireError too."""
    for candidate in (value, [number, value], [number, "s", "n", value]):
        try:
            commands.decode(cbor.encode(candidate))
        except WireError:
            pass


def test_takes_the_largest_keepalive() -> None:
    """A keepalive of as many sessions as allowed, with ids as long as allowed, fits."""
    command = KeepAliveMany(("s" * 100,) * limits.SESSIONS_PER_KEEPALIVE_MAX)
    assert commands.decode(commands.encode(command)) == command


def test_says_what_cannot_be_encoded() -> None:
    """Half a surrogate pair has no UTF-8: a WireError where the command is made."""
    with pytest.raises(WireError, match="KeepAlive cannot be encoded"):
        commands.encode(KeepAlive("\ud800"))


def test_every_name_is_declared_as_a_text() -> None:
    """A type bounds characters only; who declares a name has its bytes bounded too."""
    for kind in MACHINE_COMMANDS:
        named = {
            field.name
            for field in msgspec.structs.fields(kind)
            if {Name, Nonce} & {field.type, *get_args(field.type)}
        }
        assert named <= set(kind.texts), kind.__name__


def test_numbers_are_unique_and_stay() -> None:
    """The log outlives versions: a command keeps its number for ever."""
    numbers = {kind.__name__: kind.__struct_config__.tag for kind in MACHINE_COMMANDS}
    assert len(set(numbers.values())) == len(MACHINE_COMMANDS)
    known = {
        "OpenSession": 1,
        "KeepAlive": 2,
        "KeepAliveMany": 3,
        "CloseSession": 4,
        "AcquireLock": 5,
        "ReleaseLock": 6,
        "AcquireLocks": 30,
        "ReleaseLocks": 31,
        "Abandon": 7,
        "SetSemaphore": 20,
        "DeleteSemaphore": 21,
        "AcquireSemaphore": 22,
        "ReleaseSemaphore": 23,
        "IssueTicket": 40,
        "RevokeTicket": 41,
        "ClaimTicket": 42,
        "ReleaseTicket": 43,
        "LockResource": 44,
        "UnlockResource": 45,
        "CreateFifo": 50,
        "DestroyFifo": 51,
        "JoinFifo": 52,
        "AwaitTurn": 53,
        "FinishTurn": 54,
        "LeaveFifo": 55,
        "UnhearTurn": 56,
        "SetRoom": 70,
        "RemoveRoom": 71,
        "JoinRoom": 72,
        "PutJob": 80,
        "ReserveJobs": 81,
        "ReserveJob": 82,
        "DeleteJob": 83,
        "ReleaseJob": 84,
        "BuryJob": 85,
        "TouchJob": 86,
        "KickJob": 87,
        "KickTube": 88,
        "CancelJob": 89,
        "CancelKey": 90,
        "PauseTube": 91,
        "ReturnJob": 92,
        "KeepTubes": 93,
        "PutTasks": 120,
        "RemoveTask": 121,
        "RemovePool": 122,
        "Work": 123,
        "FinishTasks": 124,
        "ReleaseTasks": 125,
        "LeavePool": 126,
        "PauseTask": 127,
        "RunTask": 128,
        "SetSlot": 129,
        "Several": 150,
    }
    assert {name: numbers.get(name) for name in known} == known
