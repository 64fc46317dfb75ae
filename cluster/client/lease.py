"""The client's own view of a session's time: when to renew it, when to stop work.

RULE: no I/O and no clock; times are milliseconds of one local clock that never goes back.

The cluster ends a session no earlier than its TTL after it applied the last renewal. It applied it
later than the renewal was *sent*, so that the TTL counted from the sending, on the local clock, is
over first. Work under a lock has to end before:

    sent ──── renew … renew ──── term_at ── kill_at ── ends
                                   │◄─margin─►│◄─margin─►│

The margin pays for clocks that run at different speeds (a tenth of the TTL: more than any clock
in order drifts) and for the time a killed process needs to be gone.

The promise: with M = max(TTL / 10, min(200 ms, TTL / 5)), from `kill_at` = sent + TTL - M on

- no `token` is given out: each use asks the clock at that moment, however late any timer is;
- the body of an asyncio scope is cancelled: it does not come back from its next `await`.

The cluster grants to another at `ends` = sent + TTL at the earliest, so that M lies between: 1 s for
a TTL of 10 s, 200 ms for one of 1 s. What runs without asking (a thread, a body that does not await,
a write that is on its way) is not bounded by any clock: it is for the token to be checked by whoever
is written to (`cluster.fencing`). `tests/integration/sdk_faults.py` measures how much of M is left.
"""

from __future__ import annotations

from typing import Literal

import msgspec

MARGIN_MS_LEAST = 200

Standing = Literal["held", "grace", "lost"]
"""What may be relied on: all is well; nothing was heard for long, so finish; work has to be over.

`held` ends where `term_at` is, `grace` at `kill_at`. A renewal leads from `grace` back to `held`;
nothing leads back from `lost`.
"""


def margin_ms_of(ttl_ms: int) -> int:
    """A tenth of the TTL, at least 200 ms, but never more than a fifth."""
    return max(ttl_ms // 10, min(MARGIN_MS_LEAST, ttl_ms // 5))


class Lease(msgspec.Struct, frozen=True):
    """What is known of one session's time.

    Attributes:
        ttl_ms: its whole length.
        margin_ms: safety before its end.
        ends_ms: before this moment no other can have what the session holds.
        try_at_ms: when to send the next renewal.
        lost: why it is over although its time is not; None as long as it is not.
    """

    ttl_ms: int
    margin_ms: int
    ends_ms: int
    try_at_ms: int
    lost: str | None = None

    @classmethod
    def opened(
        cls, *, ttl_ms: int, expires_in_ms: int, sent_ms: int, margin_ms_most: int | None = None
    ) -> Lease:
        """The lease of what was first asked for at `sent_ms`.

        `margin_ms_most`: for what lasts long and is not for locking others out.
        """
        margin_ms = margin_ms_of(ttl_ms)
        if margin_ms_most is not None:
            margin_ms = min(margin_ms, margin_ms_most)
        lease = cls(ttl_ms, margin_ms, ends_ms=sent_ms, try_at_ms=sent_ms)
        return lease.renewed(expires_in_ms=expires_in_ms, sent_ms=sent_ms)

    @property
    def term_at_ms(self) -> int:
        """From here on the work is asked to end."""
        return self.ends_ms - 2 * self.margin_ms

    @property
    def kill_at_ms(self) -> int:
        """From here on the work is ended by force."""
        return self.ends_ms - self.margin_ms

    @property
    def every_ms(self) -> int:
        """Pause between renewals, and the time one may take: three may fail before `term_at`."""
        return max(20, (self.ttl_ms - 2 * self.margin_ms) // 4)

    def renewed(self, *, expires_in_ms: int, sent_ms: int) -> Lease:
        """The lease after a renewal succeeded that was sent at `sent_ms`.

        Answers may come out of order: an older one never shortens the lease.
        """
        return msgspec.structs.replace(
            self,
            ends_ms=max(self.ends_ms, sent_ms + min(expires_in_ms, self.ttl_ms)),
            try_at_ms=max(self.try_at_ms, sent_ms + self.every_ms),
        )

    def missed(self, now_ms: int) -> Lease:
        """The lease after a renewal got no answer or none that helps: try again soon."""
        return msgspec.structs.replace(self, try_at_ms=now_ms + max(20, self.every_ms // 8))

    def reported_lost(self, why: str) -> Lease:
        """The lease after the cluster said that the session, or the lock, is no longer ours."""
        return msgspec.structs.replace(self, lost=why)

    def must_term(self, now_ms: int) -> bool:
        """The work has to be asked to end."""
        return self.lost is not None or now_ms >= self.term_at_ms

    def must_kill(self, now_ms: int) -> bool:
        """The work has to be ended by force."""
        return self.lost is not None or now_ms >= self.kill_at_ms

    def standing(self, now_ms: int) -> Standing:
        """What may be relied on at this moment."""
        if self.must_kill(now_ms):
            return "lost"
        return "grace" if self.must_term(now_ms) else "held"

    def changes_at_ms(self, now_ms: int) -> int:
        """When the standing is the next to fall if no renewal succeeds; `ends_ms` once it is lost."""
        if now_ms < self.term_at_ms:
            return self.term_at_ms
        return self.kill_at_ms if now_ms < self.kill_at_ms else self.ends_ms


class Tenure:
    """One lease through its life: which changes of its standing are still to be told.

    What was once lost stays lost, whatever an answer says that comes later.

    Attributes:
        lease: as it stands.
    """

    __slots__ = ("_told", "lease")

    def __init__(self, lease: Lease):
        self.lease = lease
        self._told: Standing = "held"

    def standing(self, now_ms: int) -> Standing:
        """What may be relied on; to be asked at every use, as nobody may have looked for long."""
        return "lost" if self._told == "lost" else self.lease.standing(now_ms)

    def look(self, now_ms: int) -> Standing | None:
        """The standing, if it has changed since the last look; a lost one only once.

        A program that slept through its grace is told of the loss alone.
        """
        standing = self.standing(now_ms)
        if standing == self._told:
            return None
        self._told = standing
        return standing

    def renewed(self, lease: Lease, now_ms: int) -> None:
        """Take the lease of a renewal, unless the old one was over before it came.

        It was made of the lease that stood when the renewal was sent: one that came in between is
        not shortened by it.
        """
        if self.standing(now_ms) != "lost":
            self.lease = msgspec.structs.replace(
                lease,
                ends_ms=max(lease.ends_ms, self.lease.ends_ms),
                try_at_ms=max(lease.try_at_ms, self.lease.try_at_ms),
            )

    def lose(self, why: str) -> None:
        """The cluster says so, or its owner is gone."""
        if self.lease.lost is None:
            self.lease = self.lease.reported_lost(why)

    def why_lost(self) -> str:
        """For people."""
        return self.lease.lost or (
            f"it was not renewed for {self.lease.ttl_ms - self.lease.margin_ms} ms"
        )
