"""beanstalkd's requests: each form, whatever pieces they come in, and what is no request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.fronts.beanstalkd import replies
from cluster.fronts.beanstalkd.parser import LINE_BYTES_MAX, Parser, Request

JOB_BYTES_MAX = 50


def parsed(*pieces: bytes, job_bytes_max: int = JOB_BYTES_MAX) -> list[Request]:
    """All requests in these bytes."""
    parser, found = Parser(job_bytes_max), list[Request]()
    for piece in pieces:
        parser.feed(piece)
        while (request := parser.next()) is not None:
            found.append(request)
        assert parser.held <= max(LINE_BYTES_MAX, job_bytes_max + 2)
    return found


GOOD = (
    (b"put 1 2 3 4\r\nab\r\n\r\n", Request("put", 0, 1, 2, 3, "", b"ab\r\n")),
    (b"put 0 0 0 0\r\n\r\n", Request("put")),
    (
        b"put  4294967295  0 4294967295 1\r\n\0\r\n",
        Request("put", 0, 2**32 - 1, 0, 2**32 - 1, "", b"\0"),
    ),
    (b"reserve\r\n", Request("reserve")),
    (b"reserve-with-timeout 2147483647\r\n", Request("reserve-with-timeout", 2**31 - 1)),
    (b"reserve-job 18446744073709551615\r\n", Request("reserve-job", 2**64 - 1)),
    (b"delete   07\r\n", Request("delete", 7)),
    (b"release 7 8 9\r\n", Request("release", 7, 8, 9)),
    (b"bury 7 8\r\n", Request("bury", 7, 8)),
    (b"touch 7\r\n", Request("touch", 7)),
    (b"kick 7\r\n", Request("kick", 7)),
    (b"kick -1 and more\r\n", Request("kick", 2**32 - 1)),
    (b"kick-job 7\r\n", Request("kick-job", 7)),
    (b"peek 7\r\n", Request("peek", 7)),
    (b"peek-ready\r\n", Request("peek-ready")),
    (b"peek-delayed\r\n", Request("peek-delayed")),
    (b"peek-buried\r\n", Request("peek-buried")),
    (b"use a-b\r\n", Request("use", tube="a-b")),
    (b"watch %b\r\n" % (b"t" * 200), Request("watch", tube="t" * 200)),
    (b"ignore Az09-+/;.$_()\r\n", Request("ignore", tube="Az09-+/;.$_()")),
    (b"stats\r\n", Request("stats")),
    (b"stats-job 7\r\n", Request("stats-job", 7)),
    (b"stats-tube t\r\n", Request("stats-tube", tube="t")),
    (b"list-tubes\r\n", Request("list-tubes")),
    (b"list-tube-used\r\n", Request("list-tube-used")),
    (b"list-tubes-watched\r\n", Request("list-tubes-watched")),
    (b"pause-tube t 9\r\n", Request("pause-tube", tube="t", delay_s=9)),
    (b"pause-tubet 9\r\n", Request("pause-tube", tube="t", delay_s=9)),
    (b"quit\r\n", Request("quit")),
    (b"quitX\r\n", Request("quit")),
)

BAD_FORMAT = (
    b"put 0 0 0 -1",
    b"put 0 0 0",
    b"put a 0 0 0",
    b"put 4294967296 0 0 0",
    b"put 0 0 4294967296 0",
    b"put 0 0 0 4294967296",
    b"reservex",
    b"reserve-with-timeout",
    b"reserve-with-timeout -1",
    b"reserve-with-timeout 2147483648",
    b"reserve-with-timeout 1 ",
    b"reserve-job",
    b"delete x",
    b"delete -1",
    b"delete 1x",
    b"delete 18446744073709551616",
    b"release 1 2",
    b"bury 1",
    b"kick ",
    b"kick x",
    b"kick 99999999999999999999",
    b"use ",
    b"use -a",
    b"use a b",
    b"use %b" % (b"t" * 201),
    b"watch a*",
    b"stats ",
    b"stats-jobs",
    b"peek-readyx",
    b"list-tubes-watched ",
    b"pause-tube",
    b"pause-tube t",
    b"pause-tube t5",
    b"a\0b",
    b"x" * 223,
    b"x" * 222 + b"\ry",
    b"y" * 1000,
)


@pytest.mark.parametrize(("data", "request_"), GOOD, ids=lambda one: str(one)[:30])
def test_every_form_of_request(data: bytes, request_: Request) -> None:
    """Also cut anywhere."""
    assert parsed(data) == [request_]
    for at in range(1, len(data)):
        assert parsed(data[:at], data[at:]) == [request_]
    assert parsed(*(data[at : at + 1] for at in range(len(data)))) == [request_]


@pytest.mark.parametrize("line", BAD_FORMAT, ids=lambda line: str(line)[:30])
def test_what_is_badly_formed(line: bytes) -> None:
    """It is said, and the next line is read as ever."""
    first, second = parsed(line + b"\r\nstats\r\n")
    assert first.reply == replies.BAD_FORMAT
    assert second == Request("stats")
    assert parsed(*(bytes((byte,)) for byte in line + b"\r\nstats\r\n")) == [first, second]


@pytest.mark.parametrize(
    "line", [b"", b" ", b"foo", b"delete", b"PUT 1", b"use", b"kick", b"peek-"]
)
def test_what_is_no_command(line: bytes) -> None:
    """A word that needs a blank behind it is none without."""
    assert [one.reply for one in parsed(line + b"\r\n")] == [replies.UNKNOWN_COMMAND]


def test_a_put_that_is_badly_formed_has_no_body() -> None:
    """The line after it is a command."""
    answers = [one.reply for one in parsed(b"put 0 0 -1 1\r\na\r\nput 0 0 1 1 x\r\nb\r\n")]
    unknown = replies.UNKNOWN_COMMAND
    assert answers == [replies.BAD_FORMAT, unknown, replies.BAD_FORMAT, unknown]


def test_a_body_must_end_where_it_was_said_to() -> None:
    """What comes after the two bytes is the next command."""
    first, second = parsed(b"put 0 0 1 1\r\nabcstats\r\n")
    assert (first.op, first.reply, second) == ("put", replies.EXPECTED_CRLF, Request("stats"))


@pytest.mark.parametrize("size", [JOB_BYTES_MAX + 1, 1_000_000])
def test_a_job_that_is_too_big_is_swallowed(size: int) -> None:
    """Whole, and without being kept; trailing garbage in its line makes no difference."""
    body = b"x" * size + b"\r\n"
    for line in (b"put 0 0 1 %d\r\n" % size, b"put 0 0 1 %d z\r\n" % size):
        parser = Parser(JOB_BYTES_MAX)
        parser.feed(line)
        for at in range(0, len(body), 60_000):
            assert parser.next() is None
            assert parser.held == 0
            parser.feed(body[at : at + 60_000])
        parser.feed(b"quit\r\n")
        big = parser.next()
        assert big is not None
        assert (big.op, big.reply) == ("put", replies.JOB_TOO_BIG)
        assert parser.next() == Request("quit")


def test_a_line_without_end_is_not_kept() -> None:
    """However long it is."""
    parser = Parser(JOB_BYTES_MAX)
    for _ in range(100):
        parser.feed(b"z" * 65_536)
        assert parser.next() is None
        assert parser.held <= LINE_BYTES_MAX
    parser.feed(b"\r")
    assert parser.next() is None
    parser.feed(b"\nstats\r\n")
    over = parser.next()
    assert over is not None
    assert over.reply == replies.BAD_FORMAT
    assert parser.next() == Request("stats")


_PIECES = st.lists(
    st.one_of(
        st.sampled_from([data for data, _ in GOOD]),
        st.sampled_from([line + b"\r\n" for line in BAD_FORMAT]),
        st.sampled_from([b"\r", b"\n", b"put 0 0 0 ", b" ", b"9" * 30, b"\0"]),
        st.binary(max_size=300),
    ),
    max_size=12,
)


@given(_PIECES, st.lists(st.integers(min_value=1, max_value=500), max_size=30))
def test_pieces_do_not_matter(pieces: list[bytes], lengths: list[int]) -> None:
    """The same requests, however the bytes are cut; and never an error."""
    data = b"".join(pieces)
    cut, at = list[bytes](), 0
    for length in lengths:
        cut.append(data[at : at + length])
        at += length
    assert parsed(*cut, data[at:]) == parsed(data)
