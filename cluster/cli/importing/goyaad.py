"""goyaad's `journal/jobs.snapshot`: a journal of LevelDB's, and a job in each record.

RULE: bytes to wishes. A record is five values from one gob encoder: id, priority, trigger (unix
nanoseconds), TTR (nanoseconds), body.
"""

from __future__ import annotations

from typing import Any, Final

from cluster.cli.importing.journal import records
from cluster.cli.importing.wishes import Found, JobFound, SourceError, Unfit, job_wish
from cluster.fronts.gob.decoder import Decoder
from cluster.fronts.gob.kinds import BYTES, INT, STRING, GobError
from cluster.fronts.gob.messages import Messages
from cluster.fronts.goyaad.names import key_of

TUBE: Final = "default"
TTR_MS: Final = 60_000
RECORD_BYTES_MAX: Final = 1 << 30
_SHAPE: Final = (STRING.id, INT.id, INT.id, INT.id, BYTES.id)
_NS_PER_MS: Final = 1_000_000


def found(data: bytes, wall_ms: int) -> Found:
    """What a snapshot holds.

    Args:
        wall_ms: now, in ms since 1970: delays count from it.
    """
    result, jobs = Found(), []
    try:
        for record in records(data):
            try:
                jobs.append(_job(record, wall_ms))
            except GobError as error:
                result.unfit.append(Unfit("job", f"record {len(jobs) + 1}", str(error)))
    except SourceError as error:
        result.unfit.append(Unfit("job", "the rest", str(error)))
    # As goyaad would have delivered them.
    for _, job in sorted(jobs, key=lambda one: one[0]):
        wish = job_wish(job)
        if isinstance(wish, Unfit):
            result.unfit.append(wish)
        else:
            result.wishes.append(wish)
    return result


def _job(record: bytes, wall_ms: int) -> tuple[int, JobFound]:
    """One job, behind the time at which it is due."""
    decoder, values = Decoder(), list[Any]()
    for message in Messages(bytes_max=RECORD_BYTES_MAX).feed(record):
        assert isinstance(message, bytes)
        value = decoder.message(message)
        if value is not None:
            if len(values) >= len(_SHAPE) or value.type_id != _SHAPE[len(values)]:
                raise GobError("is no job: other values than a job has")
            values.append(value.value)
    if len(values) != len(_SHAPE):
        raise GobError("is no job: some of its values are missing")
    # The priority comes from clients of beanstalkd's, and goyaad never went by it.
    job_id, _, trigger_ns, ttr_ns, body = values
    key = key_of(job_id)
    job = JobFound(
        "goyaad",
        TUBE,
        job_id,
        job_id if key is None else key,
        body,
        0,
        # Rounded up: never early.
        -(-trigger_ns // _NS_PER_MS) - wall_ms,
        ttr_ns // _NS_PER_MS or TTR_MS,
        ordered=False,
    )
    return trigger_ns, job
