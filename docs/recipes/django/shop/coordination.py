"""One way to the cluster for each worker process, and what is told where a lock is not to be had."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import IntegrityError
from django.http import JsonResponse

from cluster import CoterieError, SyncClient
from cluster.client.refusals import LockHeld

# Made when this is imported, maybe before the server forks its workers. It connects at its first
# use, in whichever process that is, and anew in a fork of it; any number of threads may use it.
client = SyncClient(settings.COTERIE_ENDPOINTS)


@contextmanager
def locked(name: str, *, wait: str | None = None, ttl: str = "10s") -> Iterator:
    """Hold a lock of the whole fleet; gives what `token` and `demand()` are asked of.

    Raises:
        LockHeld: it was not to be had within `wait`; it says who has it.
        LockLost: it was lost meanwhile, raised by `token`, by `demand()`, and at the end.
        CoterieError: the cluster could not be asked.
    """
    wait = settings.LOCK_WAIT if wait is None else wait
    with client.session(ttl=ttl) as session, session.lock(name, wait=wait) as lock:
        yield lock


class TellRefusals:
    """Middleware: 409 where somebody else is at it, 503 where the cluster cannot tell."""

    def __init__(self, get_response):
        self._get_response = get_response

    def __call__(self, request):
        """Answer a request."""
        return self._get_response(request)

    def process_exception(self, request, error):
        """Answer for a view that raised an error of the cluster."""
        if isinstance(error, LockHeld):
            return _answer(409, error.code, error.detail)
        if isinstance(error, CoterieError):
            return _answer(503, error.code, error.detail)
        if isinstance(error, IntegrityError) and "token is stale" in str(error):
            # The trigger of the migration: another had the lock before we wrote.
            return _answer(503, "stale_token", str(error))
        return None


def _answer(status, code, detail):
    return JsonResponse(
        {"error": code, "detail": detail}, status=status, headers={"Retry-After": "1"}
    )
