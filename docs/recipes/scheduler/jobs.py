"""Scheduled jobs in a fleet of worker processes: each stands for election, the elected runs them.

Nothing starts when this module is imported. Each worker process calls `FleetScheduler.start` after
it was forked, and `stop` before it ends (see gunicorn.conf.py).
"""

import logging
import os
import socket
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from cluster import SyncClient, fencing

GROUP = "report scheduler"
LEDGER = os.environ.get("REPORT_LEDGER", "ledger.db")
# Seconds of the minute at which a report is due: "0" is once a minute, "*" each second.
SECOND = os.environ.get("REPORT_SECOND", "0")
# How long nobody runs jobs after the leading worker was killed.
TTL = os.environ.get("SCHEDULER_TTL", "10s")

log = logging.getLogger("fleet scheduler")

# One for the process; it connects at its first use, also in a fork of whoever imported us.
client = SyncClient(os.environ["COTERIE_ENDPOINTS"])


def make_ledger() -> None:
    """Make the tables: where the job writes, and beside it the newest token that wrote there."""
    with closing(sqlite3.connect(LEDGER, timeout=30)) as db, db:
        db.execute(fencing.SQL_TABLE)
        db.execute("CREATE TABLE IF NOT EXISTS runs (slot TEXT, token BIGINT, pid INTEGER)")


def report(leading) -> None:
    """The job. A worker that was paused, and deposed meanwhile, cannot write any more."""
    # Raises LockLost where our own clock tells that we lead no more: then nothing is begun.
    token = leading.token
    slot = datetime.now(UTC).isoformat(timespec="seconds")
    with closing(sqlite3.connect(LEDGER, timeout=30)) as db, db:
        # Raises TokenStale where a later leader has written: then nothing is committed.
        fencing.admit_sql(db.cursor(), "report", token)
        db.execute("INSERT INTO runs VALUES (?, ?, ?)", (slot, token, os.getpid()))


class FleetScheduler:
    """Runs the jobs in this process as long as it leads the fleet."""

    def __init__(self) -> None:
        self._election = client.election(
            GROUP, name=f"{socket.gethostname()} {os.getpid()}", ttl=TTL
        )
        self._stopping = threading.Event()
        # A daemon: a worker whose hook is not called can end all the same.
        self._thread = threading.Thread(target=self._stand, name="fleet scheduler", daemon=True)

    def start(self) -> None:
        """Stand for election from here on."""
        make_ledger()
        self._thread.start()

    def stop(self) -> None:
        """End what runs and resign; the next worker is elected at once."""
        self._stopping.set()
        self._election.stop()
        self._thread.join()
        client.close()

    def _stand(self) -> None:
        while not self._stopping.is_set():
            try:
                self._election.run(self._lead)
            except Exception:
                log.exception("the scheduler failed; it stands for election again")
                self._stopping.wait(5)

    def _lead(self, leading) -> None:
        log.warning("worker %s runs the jobs, token %s", os.getpid(), leading.token)
        scheduler = BackgroundScheduler(timezone=UTC)
        scheduler.add_job(report, CronTrigger(second=SECOND, timezone=UTC), args=(leading,))
        scheduler.start()
        try:
            while not self._stopping.wait(0.2):
                # Raises LockLost once we lead no more, before anybody else can.
                leading.demand()
        finally:
            # Waits for the jobs that run. This worker does not stand again before they are through.
            scheduler.shutdown(wait=True)
            log.warning("worker %s runs no jobs any more", os.getpid())
