"""A scheduler for Celery beat that sends only while its process leads the fleet.

Name it by `python -m celery --app fleet beat --scheduler leading:LeadingScheduler`. With `-m` this
folder is on the path; plain `celery` finds modules that are installed.
"""

import os
import socket

from celery.beat import Scheduler
from celery.utils.log import get_logger

from cluster import CoterieError, SyncClient
from cluster.client.refusals import LockHeld

GROUP = "celery beat"
TTL = os.environ.get("BEAT_TTL", "10s")
# One stand. Beat hears signals meanwhile; then it stands again.
STAND = "1m"
# After the cluster could not be reached, in seconds.
PAUSE_S = 1.0

log = get_logger(__name__)


class LeadingScheduler(Scheduler):
    """Stands for election, and sends what is due from then on, until it is deposed."""

    def __init__(self, *args, **kwargs):
        self._client = SyncClient(os.environ["COTERIE_ENDPOINTS"])
        self._session = None
        self._leadership = None
        super().__init__(*args, **kwargs)

    def tick(self, *args, **kwargs):
        """Send an entry that is due, if we lead; returns how long beat is to pause, in seconds."""
        if self._leadership is not None and self._leadership.state == "lost":
            log.warning("leads no more")
            self._leadership = None
        if self._leadership is None:
            try:
                self._leadership = self._elected()
            except LockHeld:
                # Another leads still.
                return 0
            except CoterieError as error:
                log.warning("cannot stand for election: %s", error)
                return PAUSE_S
            self._begin()
        return super().tick(*args, **kwargs)

    def apply_async(self, entry, producer=None, advance=True, **kwargs):
        """Send an entry, with the token of our leadership."""
        # Asks the clock again, right before sending: raises LockLost where we lead no more.
        token = self._leadership.token
        headers = {**entry.options.get("headers", {}), "coterie_token": token}
        entry.options = {**entry.options, "headers": headers}
        return super().apply_async(entry, producer=producer, advance=advance, **kwargs)

    def close(self):
        """Resign, so that the next one need not wait for the TTL."""
        super().close()
        self._client.close()

    def _elected(self):
        """Wait until we are elected; our leadership.

        Raises:
            LockHeld: another leads still.
            CoterieError: the cluster cannot be reached, or our session was lost meanwhile.
        """
        if self._session is None or self._session.state == "lost":
            if self._session is not None:
                self._session.close()
            name = f"celery beat {socket.gethostname()} {os.getpid()}"
            self._session = self._client.session(ttl=TTL, name=name).open()
        candidacy = self._session.candidate(GROUP)
        candidacy.acquire(wait=STAND)
        return candidacy

    def _begin(self):
        """Count from now on: what was due before, another has sent."""
        log.warning("leads, token %s", self._leadership.token)
        for entry in self.schedule.values():
            entry.last_run_at = entry.default_now()
        # Made anew by the next tick.
        self._heap = None
