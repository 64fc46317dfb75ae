"""Digests: equal for equal machines, different from the first difference on."""

from __future__ import annotations

from cluster.machine import digest
from cluster.machine.commands import AcquireLock, KeepAlive
from cluster.wire import cbor
from tests.machine.drive import Drive


def test_changes_with_every_entry_even_an_empty_one() -> None:
    """Each entry leaves its mark."""
    drive = Drive()
    seen = {drive.machine.digest}
    for _ in range(5):
        drive.at(0)
        seen.add(drive.machine.digest)
    assert len(seen) == 6
    assert all(len(number) == 16 for number in seen)


def test_a_skipped_entry_leaves_no_mark() -> None:
    """Only the position moves: nothing happened."""
    drive = Drive()
    before = drive.machine.digest
    drive.machine.skip(4)
    assert (drive.machine.index, drive.machine.digest) == (4, before)


def test_shows_one_different_answer_for_ever() -> None:
    """Two machines that once answered differently never agree again."""
    one, other = Drive(), Drive()
    for drive in (one, other):
        (session,) = drive.open(1000)
    one.ask(KeepAlive(session))
    other.ask(AcquireLock(session, "door"))
    assert one.machine.digest != other.machine.digest
    one.at(10_000)
    other.at(10_000)
    assert one.machine.digest != other.machine.digest


def test_covers_index_time_token_and_answers() -> None:
    """Each part of what an entry did counts."""
    base = digest.after_entry(digest.START, 1, 2, 3, ["a"])
    others = {
        digest.after_entry(b"\x01" * 8, 1, 2, 3, ["a"]),
        digest.after_entry(digest.START, 2, 2, 3, ["a"]),
        digest.after_entry(digest.START, 1, 3, 3, ["a"]),
        digest.after_entry(digest.START, 1, 2, 4, ["a"]),
        digest.after_entry(digest.START, 1, 2, 3, ["b"]),
        digest.after_entry(digest.START, 1, 2, 3, []),
    }
    assert len(others | {base}) == 7


def test_full_digest_sees_what_no_answer_told_yet() -> None:
    """A state that was changed behind the log's back is seen, though nobody asked about it."""
    one, other = Drive(), Drive()
    for drive in (one, other):
        (id,) = drive.open(1000)
    session = other.machine.sessions.get(id)
    assert session is not None
    assert one.machine.full_digest(cbor.encode) == other.machine.full_digest(cbor.encode)
    session.deadline_ms += 1
    assert one.machine.digest == other.machine.digest
    assert one.machine.full_digest(cbor.encode) != other.machine.full_digest(cbor.encode)


def test_full_digest_knows_where_a_row_ends() -> None:
    """The same bytes in other rows are another state."""
    assert digest.of_rows([["ab"], ["c"]], _join) != digest.of_rows([["a"], ["bc"]], _join)


def _join(row: object) -> bytes:
    assert isinstance(row, list)
    return "".join(row).encode()
