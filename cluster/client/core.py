"""One call to the cluster, decided: which node, how long, again or not, and what a failure means.

RULE: no I/O, no clock, no lots but for keys. The shell sends what a step says, reports what came of it and
gets the next step; times are milliseconds of one clock that never goes back.

    call = Call(request, endpoints, policy, backoff, deadline_ms)
    step = call.begin(now_ms)
    while not isinstance(step, Done | Failed):
        Send  -> step = call.answered(status, headers, body, now_ms) | call.broke(how, why, now_ms)
        Pause -> step = call.resumed(now_ms)

A request with an Idempotency-Key takes effect once however often it is sent, and so it is repeated
after failures that leave open whether it happened. One without (and that is not repeatable by
nature) is repeated only after failures that surely prevented it.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeGuard, TypeVar
from urllib.parse import quote

import msgspec

from cluster.client.refusals import FAILURES, REFUSALS
from cluster.errors import (
    ConnectionLost,
    CoterieError,
    Definite,
    Indefinite,
    NoLeader,
    Overloaded,
    Refused,
    ShuttingDown,
    Timeout,
)

DEFAULT_ENDPOINTS = "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103"
# Halving goes no further: who has so little time to begin with asks one node less.
ATTEMPT_MS_LEAST = 500
_PROBLEM_WORDS = frozenset(
    {"type", "title", "status", "detail", "instance", "code", "retryable", "definite"}
)


S = TypeVar("S", bound=msgspec.Struct)


class Pauses(Protocol):
    """Where the lengths of pauses come from (`backoff.Backoff`)."""

    def next_ms(self) -> int:
        """The next pause in milliseconds."""


class Policy(msgspec.Struct, frozen=True):
    """How patient one client is.

    Attributes:
        attempt_ms: how long one node may take to answer, a long poll's wait apart.
        connect_ms: how long one node may take to accept a connection.
        pause_first_ms: pause after all nodes have failed once.
        pause_most_ms: the longest pause; also bounds what a node asks for by Retry-After.
        attempts_max: how often a request is sent at the most.
    """

    attempt_ms: int = 5_000
    connect_ms: int = 1_000
    pause_first_ms: int = 50
    pause_most_ms: int = 1_000
    attempts_max: int = 2**31


class Request(msgspec.Struct, frozen=True):
    """What is asked, independent of the node that will be asked.

    Attributes:
        path: beginning with `/v1/`, its parts quoted (see `path_of`).
        body: JSON object, or None for no body.
        key: Idempotency-Key; all repeats carry the same.
        wait_ms: how long the cluster itself may hold the answer back.
        is_repeatable: harmless to send twice even without a key.
        bearer: the pass of a waiting room, where one is to be shown.
    """

    method: str
    path: str
    body: Mapping[str, object] | None = None
    key: str | None = None
    wait_ms: int = 0
    is_repeatable: bool = False
    bearer: str | None = None

    @property
    def is_read(self) -> bool:
        """It changes nothing, so that its failures leave nothing open."""
        return self.method in {"GET", "HEAD"}

    @property
    def may_repeat(self) -> bool:
        """It may be sent again while it is open whether it happened."""
        return self.key is not None or self.is_repeatable or self.is_read


class ClientClosed(RuntimeError):
    """The client was closed; it asks nobody any more."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


class Body(dict[str, Any]):
    """An answer's body. A member that is not there is the fault of who answered: what was asked
    for may have happened.
    """

    def __missing__(self, word: str) -> Any:
        raise Indefinite(f'the answer has no member "{word}"', code="bad_answer")


class Answer(msgspec.Struct, frozen=True):
    """A success.

    Attributes:
        body: the decoded JSON object; empty for 204.
        index: log position it reflects; None where the node gave none.
        endpoint: base URL of the node that answered.
        first_sent_ms: when the request was first sent to any node; what happened, happened later.
        last_sent_ms: when the attempt that succeeded was sent.
    """

    status: int
    body: dict[str, Any]
    index: int | None
    endpoint: str
    first_sent_ms: int
    last_sent_ms: int


class Send(msgspec.Struct, frozen=True):
    """Step: send this to this node, and give it this long."""

    endpoint: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    connect_ms: int
    timeout_ms: int


class Pause(msgspec.Struct, frozen=True):
    """Step: wait this long, then call `resumed`."""

    pause_ms: int


class Done(msgspec.Struct, frozen=True):
    """Step: the call succeeded."""

    answer: Answer


class Failed(msgspec.Struct, frozen=True):
    """Step: the call is over; the error says whether it surely did not happen."""

    error: CoterieError


Step = Send | Pause | Done | Failed
Breakage = Literal["unsent", "lost", "late"]


def new_key() -> str:
    """A fresh Idempotency-Key."""
    return secrets.token_hex(16)


def path_of(*parts: str) -> str:
    """`/v1/` and the parts, each quoted whole: a name may hold slashes."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def parse_endpoints(text: str, *, is_secure: bool = False) -> tuple[str, ...]:
    """Base URLs from `host:port` or URLs, separated by commas or blanks.

    Args:
        is_secure: `host:port` means https, and http is refused.

    Raises:
        ValueError: with the cure, where one is no address or there is none.
    """
    found: list[str] = []
    for word in text.replace(",", " ").split():
        scheme, separator, rest = word.rstrip("/").partition("://")
        if not separator:
            scheme, rest = "https" if is_secure else "http", word
        if is_secure and scheme == "http":
            raise ValueError(f'"{word}" is not encrypted, but tls is asked for; use https://')
        host, colon, port = rest.rpartition(":")
        if scheme not in {"http", "https"} or "/" in rest or (scheme == "http" and not colon):
            raise ValueError(f'"{word}" is no endpoint; use host:port, e.g. 127.0.0.1:7101')
        if colon and (not host or not port.isdecimal() or int(port) > 65_535):
            raise ValueError(f'"{word}" is no endpoint; use host:port, e.g. 127.0.0.1:7101')
        if f"{scheme}://{rest}" not in found:
            found.append(f"{scheme}://{rest}")
    if not found:
        raise ValueError("no endpoint is given; use host:port, e.g. 127.0.0.1:7101")
    return tuple(found)


class Endpoints:
    """The nodes one client knows, and the one it stays with while that one serves.

    Staying is kind to the cluster's caches and lets a client read its own writes even in stale
    reads. Calls share this object: all leave a node as soon as one has found it failing.
    """

    __slots__ = ("_at", "_urls")

    def __init__(self, urls: Iterable[str]):
        self._urls = tuple(urls)
        self._at = 0
        if not self._urls:
            raise ValueError("no endpoint is given; use host:port, e.g. 127.0.0.1:7101")

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def current(self) -> str:
        """The node to ask next."""
        return self._urls[self._at]

    def failed(self, url: str) -> None:
        """This node did not serve: go on to the next, unless another call already did."""
        if url == self.current:
            self._at = (self._at + 1) % len(self._urls)


class Call:
    """One request until it is answered, refused, or its deadline has come."""

    __slots__ = (
        "_attempts",
        "_backoff",
        "_body",
        "_deadline_ms",
        "_endpoint",
        "_endpoints",
        "_error",
        "_first_sent_ms",
        "_is_open",
        "_policy",
        "_request",
        "_sent_ms",
        "_tried",
    )

    def __init__(
        self,
        request: Request,
        endpoints: Endpoints,
        policy: Policy,
        backoff: Pauses,
        deadline_ms: int,
    ):
        self._request = request
        self._body = None if request.body is None else msgspec.json.encode(request.body)
        self._endpoints = endpoints
        self._policy = policy
        self._backoff = backoff
        self._deadline_ms = deadline_ms
        self._attempts = 0
        self._endpoint = ""
        self._tried: set[str] = set()
        self._error: CoterieError | None = None
        self._first_sent_ms: int | None = None
        self._sent_ms = 0
        # An earlier attempt may have happened: from then on no failure is definite, except an
        # answer that the cluster itself gives to the same key.
        self._is_open = False

    def begin(self, now_ms: int) -> Step:
        """The first step. Call once."""
        return self._send(now_ms)

    def resumed(self, now_ms: int) -> Step:
        """The step after a `Pause`."""
        return self._send(now_ms)

    def answered(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Step:
        """The step after an HTTP answer. `headers` is read case-insensitively if it can be."""
        if 200 <= status < 300:
            return self._succeeded(status, headers, body, now_ms)
        problem = problem_in(body)
        error = error_of(status, problem, self._endpoint)
        if status in {408, 502, 503, 504} and (problem is None or error.retryable):
            return self._again(error, _retry_after_ms(headers), now_ms)
        if status >= 500 or problem is None:
            return Failed(self._final(error))
        # A refusal by the cluster settles the matter, also after attempts whose end is unknown:
        # the same key gets the answer of the first. One of somebody between us and the nodes says
        # nothing about them.
        return Failed(error)

    def broke(self, how: Breakage, why: str, now_ms: int) -> Step:
        """The step after no answer came.

        Args:
            how: `unsent` when no connection stood, `lost` when it broke after, `late` when the
                attempt's time was over.
            why: for people.
            now_ms: present time.
        """
        detail = f"{self._endpoint}: {why}"
        if how == "unsent":
            return self._again(Definite(detail, code="unreachable"), 0, now_ms)
        error = Timeout(detail) if how == "late" else ConnectionLost(detail)
        return self._again(error, 0, now_ms)

    def _succeeded(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Step:
        try:
            decoded = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
        except msgspec.MsgspecError as error:
            return self._again(
                Indefinite(f"{self._endpoint}: not an answer of ours: {error}", code="bad_answer"),
                0,
                now_ms,
            )
        index = headers.get("Coterie-Index", "")
        first_ms = self._sent_ms if self._first_sent_ms is None else self._first_sent_ms
        return Done(
            Answer(
                status=status,
                body=Body(decoded),
                index=int(index) if index.isdecimal() and len(index) < 20 else None,
                endpoint=self._endpoint,
                first_sent_ms=first_ms,
                last_sent_ms=self._sent_ms,
            )
        )

    def _send(self, now_ms: int) -> Step:
        timeout_ms = self._attempt_ms(now_ms)
        if timeout_ms <= 0:
            late = Definite("the deadline came before the request was sent", code="deadline")
            return Failed(self._final(self._error or late))
        self._endpoint = self._endpoints.current
        self._attempts += 1
        self._sent_ms = now_ms
        if self._first_sent_ms is None:
            self._first_sent_ms = now_ms
        headers = {"Accept": "application/json"}
        if self._body is not None:
            headers["Content-Type"] = "application/json"
        if self._request.key is not None:
            headers["Idempotency-Key"] = self._request.key
        if self._request.bearer is not None:
            headers["Authorization"] = f"Bearer {self._request.bearer}"
        return Send(
            endpoint=self._endpoint,
            method=self._request.method,
            path=self._request.path,
            headers=headers,
            body=self._body,
            # A little less: what has not even connected by then was surely not sent.
            connect_ms=min(self._policy.connect_ms, max(1, timeout_ms * 9 // 10)),
            timeout_ms=timeout_ms,
        )

    def _again(self, error: CoterieError, asked_pause_ms: int, now_ms: int) -> Step:
        """Try the next node, pause, or give up after this failure."""
        self._error = error
        self._endpoints.failed(self._endpoint)
        self._tried.add(self._endpoint)
        if not error.definite:
            self._is_open = True
            if not self._request.may_repeat:
                return Failed(self._final(error))
        if self._attempts >= self._policy.attempts_max:
            return Failed(self._final(error))
        # A node without a leader may be cut off from those that have one: ask them all, then wait.
        if len(self._tried) < len(self._endpoints) and self._endpoints.current not in self._tried:
            return self._send(now_ms)
        self._tried.clear()
        pause_ms = max(self._backoff.next_ms(), min(asked_pause_ms, self._policy.pause_most_ms))
        if now_ms + pause_ms >= self._deadline_ms:
            return Failed(self._final(error))
        return Pause(pause_ms)

    def _attempt_ms(self, now_ms: int) -> int:
        """How long an attempt that starts now may take.

        As long as others are still to be asked, half of what is left: a node that accepts and says
        nothing must not use up all the time there is.
        """
        wait_ms, left_ms = self._request.wait_ms, self._deadline_ms - now_ms
        patience_ms = left_ms - wait_ms
        if self._request.may_repeat and len(self._tried) + 1 < len(self._endpoints):
            patience_ms = max(ATTEMPT_MS_LEAST, patience_ms // 2)
        return min(self._policy.attempt_ms + wait_ms, patience_ms + wait_ms, left_ms)

    def _final(self, error: CoterieError) -> CoterieError:
        """What the last failure says about the whole call."""
        if self._request.is_read:
            return error
        if error.definite and self._is_open:
            return Timeout(f"{error.detail}; an earlier attempt may have succeeded")
        if isinstance(error, Definite) and not error.definite:
            # Nobody led any more while it was under way, say. Its class is not to say more than it.
            return Indefinite(error.detail, code=error.code)
        return error


def error_of(status: int, problem: dict[str, object] | None, endpoint: str) -> CoterieError:
    """The error that an HTTP answer other than 2xx means.

    Args:
        status: HTTP status.
        problem: the problem document; None where the answer carried none, so that it may come
            from something between us and the node.
        endpoint: base URL that was asked, for the message.
    """
    if problem is None:
        detail = f"{endpoint} answered {status} without a problem document"
        if status >= 500 or status == 408:
            return Indefinite(detail, code=f"http_{status}")
        return Refused(detail, code=f"http_{status}", status=status, reason={})
    code = str(problem["code"])
    detail = str(problem.get("detail") or problem.get("title") or code)
    # When in doubt, indefinite.
    definite = problem.get("definite") is True
    error: CoterieError
    if code == "no_leader":
        error = NoLeader(detail, definite=definite)
    elif code == "overloaded":
        error = Overloaded(detail, definite=definite)
    elif code == "shutting_down":
        error = ShuttingDown(detail, definite=definite)
    elif code == "timeout":
        error = Timeout(detail, definite=definite)
    elif status < 500:
        reason = {key: value for key, value in problem.items() if key not in _PROBLEM_WORDS}
        kind = REFUSALS.get(code)
        if kind is None:
            error = Refused(detail, code=code, status=status, reason=reason)
        else:
            error = kind(detail, status=status, reason=reason)
        error.definite = problem.get("definite") is not False
    elif code in FAILURES:
        error = FAILURES[code](detail, definite=definite)
    elif definite:
        error = Definite(detail, code=code)
    else:
        error = Indefinite(detail, code=code)
    if isinstance(problem.get("retryable"), bool):
        error.retryable = problem["retryable"] is True
    return error


def is_refused(error: CoterieError) -> TypeGuard[Refused]:
    """The cluster itself decided against it; not somebody between us and the nodes, who has no say
    in what becomes of a request.
    """
    return isinstance(error, Refused) and not error.code.startswith("http_")


def value_of(answer: Answer, kind: type[S]) -> S:
    """The answer's body as a value; unknown members are left out, so that servers may grow.

    Raises:
        Indefinite: it is none of this kind.
    """
    body: dict[str, Any] = answer.body
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise Indefinite(
            f"{answer.endpoint}: the answer makes no {kind.__name__}: {error}", code="bad_answer"
        ) from error


def problem_in(body: bytes) -> dict[str, object] | None:
    """The problem document that a body is; None if it is none."""
    try:
        problem = msgspec.json.decode(body, type=dict[str, object])
    except msgspec.MsgspecError:
        return None
    return problem if isinstance(problem.get("code"), str) else None


def _retry_after_ms(headers: Mapping[str, str]) -> int:
    seconds = headers.get("Retry-After", "")
    return int(seconds) * 1_000 if seconds.isdecimal() and len(seconds) < 6 else 0
