"""Group commit: while one entry is synced and replicated, the next one fills here.

RULE: moves encoded commands, unread. Bounded: what does not fit is refused at once, and refused
means that it did not happen.
"""

from __future__ import annotations

from collections import deque

from cluster.machine.commands import Origin
from cluster.wire import batch
from cluster.wire.batch import EncodedGroup
from cluster.wire.frames import ForwardedRequest

# Room an encoded request takes beside its body: numbers, lengths, the key's overhead.
_OVERHEAD_BYTES = 48


class Batcher:
    """Requests for the log, in the order they came.

    Args:
        requests_max, bytes_max: of the whole queue.
        entry_requests_max, entry_bytes_max: of one entry.
    """

    def __init__(
        self,
        *,
        requests_max: int = 50_000,
        bytes_max: int = 64 << 20,
        entry_requests_max: int = 2_000,
        entry_bytes_max: int = 1 << 20,
    ) -> None:
        self._requests_max = requests_max
        self._bytes_max = bytes_max
        self._entry_requests_max = entry_requests_max
        self._entry_bytes_max = entry_bytes_max
        self._queue: deque[tuple[Origin, ForwardedRequest, int]] = deque()
        self._acks: dict[Origin, int] = {}
        # Whose acknowledgement was noted last: requests of one origin mostly come together.
        self._noted: tuple[Origin, int] | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, origin: Origin, ack: int, request: ForwardedRequest) -> bool:
        """Queue one request; False where the queue is full (it is surely not taken)."""
        size = _size(request)
        if len(self._queue) >= self._requests_max or self._bytes + size > self._bytes_max:
            return False
        self._queue.append((origin, request, size))
        self._bytes += size
        noted = self._noted
        if noted is None or noted[0] is not origin or noted[1] != ack:
            self._noted = origin, ack
            if ack > self._acks.get(origin, 0):
                self._acks[origin] = ack
        return True

    def seal(self, now_ms: int, wall_ms: int) -> tuple[bytes, int]:
        """Make one entry of what is queued, up to the bounds of an entry.

        Returns:
            the encoded batch and the number of its requests; with an empty queue a timer entry.
        """
        groups: dict[Origin, list[ForwardedRequest]] = {}
        count, room = 0, self._entry_bytes_max
        queue, last = self._queue, None
        group: list[ForwardedRequest] = []
        while queue and count < self._entry_requests_max:
            origin, request, size = queue[0]
            if size > room and count:
                break
            queue.popleft()
            self._bytes -= size
            room -= size
            count += 1
            if origin is not last:
                group, last = groups.setdefault(origin, []), origin
            group.append(request)
        payload = batch.encode(
            now_ms,
            wall_ms,
            [
                EncodedGroup(origin, self._acks.get(origin, 0), group)
                for origin, group in groups.items()
            ],
        )
        if not queue:
            self._forget_acks()
        return payload, count

    def clear(self) -> None:
        """We lead no longer: every origin sends what is unresolved to the next leader itself."""
        self._queue.clear()
        self._bytes = 0
        self._forget_acks()

    def _forget_acks(self) -> None:
        self._acks.clear()
        self._noted = None


def _size(request: ForwardedRequest) -> int:
    key = request.key
    return len(request.body) + _OVERHEAD_BYTES + (0 if key is None else len(key))
