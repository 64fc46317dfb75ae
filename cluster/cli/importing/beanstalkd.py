"""beanstalkd's binlog: `binlog.N`, version 7 (1.5 to 1.13).

RULE: bytes to wishes. A file is its version and then records: the length of a tube's name, the name,
a C struct, and the body. A record without a name is of a job that had one before: its state changed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cluster.cli.importing.wishes import Found, JobFound, SourceError, Unfit, job_wish

VERSION: Final = 7
_NAME_BYTES_MAX: Final = 200
_BODY_BYTES_MAX: Final = 1 << 30
_I32: Final = struct.Struct("<i")
# struct Jobrec of beanstalkd's dat.h as a C compiler lays it out on 64 bits.
_RECORD: Final = struct.Struct("<QI4xqqi4xqqIIIIIB3x")
_INVALID, _READY, _RESERVED, _BURIED, _DELAYED = range(5)
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Job:
    number: int
    tube: str
    body: bytes
    priority: int = 0
    ttr_ns: int = 0
    deadline_ns: int = 0
    state: int = _READY


def found(files: Iterable[tuple[str, bytes]], wall_ms: int) -> Found:
    """What binlogs hold.

    Args:
        files: name and content of each, the oldest first.
        wall_ms: now, in ms since 1970: delays count from it.
    """
    result = Found()
    jobs: dict[int, _Job] = {}
    for name, data in files:
        try:
            for number, job in _changes(data, jobs):
                if job is None:
                    jobs.pop(number, None)
                else:
                    jobs[number] = job
        except SourceError as error:
            result.unfit.append(Unfit("job", f"the rest of {name}", str(error)))
    for job in sorted(jobs.values(), key=lambda one: one.number):
        is_delayed = job.state == _DELAYED
        wish = job_wish(
            JobFound(
                "beanstalkd",
                job.tube,
                str(job.number),
                None,
                job.body,
                job.priority,
                -(-job.deadline_ns // _NS_PER_MS) - wall_ms if is_delayed else 0,
                job.ttr_ns // _NS_PER_MS,
                ordered=True,
                buried=job.state == _BURIED,
            )
        )
        if isinstance(wish, Unfit):
            result.unfit.append(wish)
        else:
            result.wishes.append(wish)
    if jobs:
        result.notes.append("jobs have new ids here, in the order of the old ones")
    return result


def _places(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Where each record's struct begins and where the record ends."""
    while at + _I32.size <= len(data):
        (size,) = _I32.unpack_from(data, at)
        if not 0 <= size <= _NAME_BYTES_MAX:
            raise SourceError(f"is damaged at byte {at}: a name of {size} bytes")
        begin = at + _I32.size + size
        if begin + _RECORD.size > len(data):
            if not any(data[at:]):
                return
            raise SourceError(f"ends in the middle of a record, at byte {at}")
        if not int.from_bytes(data[begin : begin + 8], "little"):
            return  # The file is made in full at once; what was not written is zeros.
        body_size = _RECORD.unpack_from(data, begin)[4] if size else 0
        end = begin + _RECORD.size + body_size
        if not 0 <= body_size <= _BODY_BYTES_MAX or end > len(data):
            raise SourceError(f"is damaged at byte {at}: a body of {body_size} bytes")
        yield begin, end
        at = end


def _changes(data: bytes, known: dict[int, _Job]) -> Iterator[tuple[int, _Job | None]]:
    """What each record makes of its job; None: it is gone."""
    if len(data) < _I32.size:
        raise SourceError("is too short for a binlog")
    (version,) = _I32.unpack_from(data)
    if version != VERSION:
        raise SourceError(f"is a binlog of version {version}; {VERSION} is read")
    before = _I32.size
    for begin, end in _places(data, before):
        fields = _RECORD.unpack_from(data, begin)
        number, priority, _, ttr_ns, body_size, _, deadline_ns = fields[:7]
        state = fields[-1]
        name = data[before + _I32.size : begin]
        before = end
        old = known.get(number)
        if state == _INVALID:
            yield number, None
            continue
        if name:
            body = data[begin + _RECORD.size : end]
            # Kept with the line end behind it, as it came over the wire.
            tube, body = name.decode(errors="surrogateescape"), body[: body_size - 2]
        elif old is not None:
            tube, body = old.tube, old.body
        else:
            continue  # Its beginning was in a file that is deleted: so is the job, or written anew.
        yield number, _Job(number, tube, body, priority, ttr_ns, deadline_ns, state)
