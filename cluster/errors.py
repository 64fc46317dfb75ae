"""Errors at the edge of the cluster.

RULE: every error answers one question: did it surely not happen?

    CoterieError
    ├── Definite                it did not happen; a repeat cannot do it twice
    │   ├── NoLeader            nobody leads, or this node cannot reach who does
    │   ├── Overloaded          a queue is full; try again after a pause
    │   ├── ShuttingDown        this node is leaving
    │   └── Refused             the cluster decided against it (code says why)
    └── Indefinite              it may have happened; repeat with the same Idempotency-Key
        ├── Timeout             no answer within the deadline
        ├── ConnectionLost      the way to the cluster broke before the answer
        └── LockLost            what was held may be another's; what was done under it may be done

When in doubt, indefinite.
"""

from __future__ import annotations

from typing import Any


class CoterieError(Exception):
    """Base of all errors of Coterie.

    Attributes:
        code: stable snake_case word, the `code` of the HTTP problem document.
        definite: it surely did not happen.
        retryable: the same request may succeed later.
    """

    code = "error"
    definite = False
    retryable = True

    def __init__(self, detail: str, *, code: str | None = None, definite: bool | None = None):
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code
        if definite is not None:
            self.definite = definite

    def __reduce__(self) -> tuple[Any, ...]:
        """How a copy is made, as for the process that waits for one of a pool: by its attributes.

        By default its class would be called with the detail alone, which is too little for most.
        """
        return _again, (type(self), self.args), self.__dict__


def _again(kind: type[CoterieError], args: tuple[object, ...]) -> CoterieError:
    """An error to which its attributes are still to be given."""
    return kind.__new__(kind, *args)


class Definite(CoterieError):
    """It did not happen."""

    definite = True


class NoLeader(Definite):
    """No leader is known or reachable.

    A node says it as indefinite where a copy may be under way; a client raises `Indefinite` then.
    """

    code = "no_leader"


class Overloaded(Definite):
    """A bounded queue is full."""

    code = "overloaded"


class ShuttingDown(Definite):
    """The node is draining and takes nothing new."""

    code = "shutting_down"


class Refused(Definite):
    """The cluster refused; `code` and `reason` say why, `status` is the HTTP status."""

    code = "refused"
    retryable = False

    def __init__(self, detail: str, *, code: str, status: int, reason: dict[str, object]):
        super().__init__(detail, code=code)
        self.status = status
        self.reason = reason


class Indefinite(CoterieError):
    """It may have happened."""


class Timeout(Indefinite):
    """No answer within the deadline."""

    code = "timeout"


class ConnectionLost(Indefinite):
    """The connection broke before the answer came."""

    code = "connection_lost"


class LockLost(Indefinite):
    """What was held is held no more, or not for long enough to rely on it.

    Attributes:
        kind: session, lock, semaphore, ticket, turn, job or task.
        name: of the thing.
        token: under which it was held; None for what was not granted yet.
    """

    code = "lock_lost"
    retryable = False

    def __init__(self, detail: str, *, kind: str, name: str, token: int | None = None):
        super().__init__(detail)
        self.kind = kind
        self.name = name
        self.token = token
