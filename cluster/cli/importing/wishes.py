"""Wishes: what is to be imported, and what cannot be.

RULE: values only.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.client.core import path_of

DELAY_MS_MAX = 3_660 * 86_400_000
NAME_BYTES_MAX = 200
BODY_BYTES_MAX = 64 * 1024
BURIAL_MS = 3_600_000


class SourceError(Exception):
    """A file is not what it should be; nothing of it can be read, and the message says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One thing to import by one request.

    Attributes:
        kind: of thing, as people call it: "job", "fifo".
        name: of this one, for the table.
        key: Idempotency-Key; None where the request is harmless to repeat.
        lane: wishes of one lane are sent one after the other, those without one as they come.
        buries: the job that is put is to be buried. It is put with a delay, so that nobody has it
            in between.
    """

    kind: str
    name: str
    method: str
    path: str
    body: Mapping[str, object]
    key: str | None = None
    lane: str | None = None
    buries: bool = False


@dataclass(frozen=True, slots=True)
class Unfit:
    """One thing that cannot be imported, and why."""

    kind: str
    name: str
    why: str


@dataclass(slots=True)
class Found:
    """What a source holds.

    Attributes:
        wishes: in the order in which lanes are to be kept.
        unfit: what is not even tried.
        notes: what the user is to know or do beside.
    """

    wishes: list[Wish] = field(default_factory=list)
    unfit: list[Unfit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class JobFound:
    """A job of another system.

    Attributes:
        number: what it is called in the table where it has no key.
        key: under which it is to be known; None for none.
        delay_ms: until it is ready; 0 or less where it is.
        ordered: it goes behind those before it even if it is not ready.
    """

    system: str
    tube: str
    number: str
    key: str | None
    body: bytes
    priority: int
    delay_ms: int
    ttr_ms: int
    ordered: bool
    buried: bool = False


def job_wish(job: JobFound) -> Wish | Unfit:
    """The request that puts a job into our tube of the same name.

    Jobs that are ready go one after the other, as their order is that of their putting.
    """
    name = job.number if job.key is None else job.key
    for what, text in (("key", job.key), ("tube", job.tube)):
        problem = None if text is None else _unfit_name(text)
        if problem is not None:
            return Unfit("job", _printable(name), f"its {what} {problem}")
    if len(job.body) > BODY_BYTES_MAX:
        why = f"its body of {len(job.body)} bytes is over {BODY_BYTES_MAX}"
        return Unfit("job", _printable(name), why)
    body: dict[str, object] = {
        "body": payload(job.body),
        "priority": job.priority,
        "delay": BURIAL_MS if job.buried else min(max(0, job.delay_ms), DELAY_MS_MAX),
        "ttr": min(max(0, job.ttr_ms), DELAY_MS_MAX),
    }
    if job.key is not None:
        body["key"] = job.key
    key = key_of(
        job.system, job.tube, job.number, job.key or "", job.body, job.priority, job.ttr_ms
    )
    is_in_order = job.ordered or job.delay_ms <= 0
    lane = job.tube if is_in_order else None
    path = path_of("tubes", job.tube, "jobs")
    return Wish("job", _printable(name), "POST", path, body, key, lane, job.buried)


def payload(data: bytes) -> object:
    """Bytes as the API takes them: text where they are, else base64."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def key_of(system: str, *parts: str | bytes | int) -> str:
    """An Idempotency-Key that the same thing has again whenever it is read."""
    told = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode(errors="surrogateescape")
        told.update(len(data).to_bytes(8))
        told.update(data)
    return f"import-{system}-{told.hexdigest()}"


def _unfit_name(text: str) -> str | None:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return "is no UTF-8"
    if not 0 < len(data) <= NAME_BYTES_MAX:
        return f"has {len(data)} bytes; the API takes 1 to {NAME_BYTES_MAX}"
    if any(ord(one) < 0x20 or 0x7F <= ord(one) <= 0x9F for one in text):
        return "has control characters"
    return None


def _printable(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]
