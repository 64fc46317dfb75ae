"""Settings of gunicorn: three workers, each of which could run the scheduled jobs.

The hooks run in the worker, after the fork; so all of it is right with `--preload` and without.
"""

wsgi_app = "wsgi:application"
workers = 3

_scheduler = None


def post_worker_init(worker):
    """Stand for election."""
    global _scheduler
    from jobs import FleetScheduler

    _scheduler = FleetScheduler()
    _scheduler.start()


def worker_exit(server, worker):
    """Resign, so that the next worker need not wait for the TTL."""
    if _scheduler is not None:
        _scheduler.stop()
