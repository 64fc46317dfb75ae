"""Settings of gunicorn: three workers, each of which could run the scheduled jobs.

The hooks run in the worker, after the fork; so all of it is right with `--preload` and without.
"""

wsgi_app = "wsgi:application"
workers = 3


def post_worker_init(worker):
    """Stand for election."""
    # The folder of the application is on the path by now, and was not when this file was read.
    from jobs import FleetScheduler

    worker.fleet_scheduler = FleetScheduler()
    worker.fleet_scheduler.start()


def worker_exit(server, worker):
    """Resign, so that the next worker need not wait for the TTL."""
    # A worker that could not load the application has none.
    scheduler = getattr(worker, "fleet_scheduler", None)
    if scheduler is not None:
        scheduler.stop()
