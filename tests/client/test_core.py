"""One call decided step by step, without a socket."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.client.core import (
    Answer,
    Call,
    Done,
    Endpoints,
    Failed,
    Pause,
    Policy,
    Request,
    Send,
    Step,
    error_of,
    parse_endpoints,
    path_of,
)
from cluster.client.refusals import Internal, NotSupported, SessionExpired
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

POLICY = Policy(attempt_ms=1_000, connect_ms=200, pause_first_ms=10, pause_most_ms=500)
WRITE = Request("POST", "/v1/locks/a/acquire", {"session": "s"}, key="k1")
KEYLESS = Request("POST", "/v1/cluster/transfer", {})
READ = Request("GET", "/v1/locks/a")


class Steady:
    """Pauses of one length."""

    def next_ms(self) -> int:
        """Always the same."""
        return 10


def begun(
    request: Request = WRITE, urls: str = "a:1,b:1,c:1", deadline_ms: int = 10_000
) -> tuple[Call, Send]:
    """A call at time 0 and its first step."""
    call = Call(request, Endpoints(parse_endpoints(urls)), POLICY, Steady(), deadline_ms)
    step = call.begin(0)
    assert isinstance(step, Send)
    return call, step


def problem(code: str, *, definite: bool = True, retryable: bool = True, **reason: object) -> bytes:
    """The bytes of a problem document."""
    words = {"detail": f"{code}!", "code": code, "definite": definite, "retryable": retryable}
    return json.dumps(words | reason).encode()


def error_in(step: Step) -> CoterieError:
    """The error of a call that is over."""
    assert isinstance(step, Failed)
    return step.error


class TestSending:
    """What a step to send says."""

    def test_a_send_carries_body_key_and_limits(self) -> None:
        """Everything the shell needs, and no more."""
        _, step = begun()
        assert step == Send(
            endpoint="http://a:1",
            method="POST",
            path="/v1/locks/a/acquire",
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "Idempotency-Key": "k1",
            },
            body=b'{"session":"s"}',
            connect_ms=200,
            timeout_ms=1_000,
        )

    def test_a_request_without_body_says_no_content_type(self) -> None:
        """Nor a key where it has none."""
        _, step = begun(READ)
        assert (step.headers, step.body) == ({"Accept": "application/json"}, None)

    def test_the_wait_of_a_long_poll_comes_on_top(self) -> None:
        """The node may hold the answer back that long; the deadline still bounds it."""
        poll = Request("POST", "/v1/locks/a/acquire", {}, key="k", wait_ms=30_000)
        assert begun(poll, deadline_ms=90_000)[1].timeout_ms == 31_000
        assert begun(poll, deadline_ms=20_000)[1].timeout_ms == 20_000

    def test_one_attempt_leaves_time_for_the_others(self) -> None:
        """A node that accepts and says nothing must not use up all the time there is."""
        call, step = begun(deadline_ms=1_600)
        assert step.timeout_ms == 800
        second = call.broke("late", "no answer", 800)
        assert isinstance(second, Send)
        assert second.timeout_ms == 500
        third = call.broke("late", "no answer", 1_300)
        assert isinstance(third, Send)
        assert third.timeout_ms == 300
        # What cannot be sent again has all the time for itself.
        assert begun(KEYLESS, deadline_ms=900)[1].timeout_ms == 900
        assert begun(WRITE, "a:1", deadline_ms=900)[1].timeout_ms == 900

    def test_a_deadline_that_has_passed_sends_nothing(self) -> None:
        """That is definite."""
        call = Call(WRITE, Endpoints(["http://a:1"]), POLICY, Steady(), 0)
        error = error_in(call.begin(0))
        assert (error.definite, error.code) == (True, "deadline")


class TestSuccess:
    """An answer that ends the call."""

    def test_an_answer_carries_body_index_and_both_times(self) -> None:
        """First sent and last sent differ after a repeat."""
        call, _ = begun()
        call.broke("lost", "reset", 5)
        step = call.answered(200, {"Coterie-Index": "17"}, b'{"token": 3}', 9)
        assert step == Done(Answer(200, {"token": 3}, 17, "http://b:1", 0, 5))

    def test_an_answer_may_be_empty(self) -> None:
        """As 204 is, and an index that is no number counts as none."""
        call, _ = begun()
        step = call.answered(204, {"Coterie-Index": "x"}, b"", 1)
        assert step == Done(Answer(204, {}, None, "http://a:1", 0, 0))

    def test_a_success_that_makes_no_sense_is_indefinite(self) -> None:
        """A stranger may have answered: the next node is asked, under the same key."""
        call, _ = begun(urls="a:1")
        assert isinstance(call.answered(200, {}, b"<html>", 1), Pause)
        call, _ = begun(KEYLESS)
        assert error_in(call.answered(200, {}, b"[1]", 1)).code == "bad_answer"


class TestRepeating:
    """Which failures are tried again, where and when."""

    def test_an_unreachable_node_is_left_at_once_for_the_next(self) -> None:
        """Without a pause, until each has been asked; then there is one."""
        call, _ = begun()
        second = call.broke("unsent", "refused", 1)
        third = call.broke("unsent", "refused", 2)
        pause = call.broke("unsent", "refused", 3)
        again = call.resumed(13)
        assert [getattr(step, "endpoint", None) for step in (second, third, pause, again)] == [
            "http://b:1",
            "http://c:1",
            None,
            "http://a:1",
        ]
        assert pause == Pause(10)

    def test_repeats_carry_the_same_key_and_body(self) -> None:
        """That is what makes them harmless."""
        call, first = begun()
        second = call.broke("lost", "reset", 1)
        assert isinstance(second, Send)
        assert (second.headers, second.body) == (first.headers, first.body)

    def test_a_write_without_a_key_is_not_repeated_when_it_may_have_happened(self) -> None:
        """But it is after failures that surely prevented it."""
        call, _ = begun(KEYLESS)
        assert isinstance(call.broke("unsent", "refused", 1), Send)
        error = error_in(call.broke("lost", "reset", 2))
        assert isinstance(error, ConnectionLost)
        assert not error.definite

    def test_a_request_that_is_repeatable_by_nature_needs_no_key(self) -> None:
        """Reads are, and what says so of itself."""
        for request in (READ, Request("POST", "/v1/sessions/s/keepalive", is_repeatable=True)):
            assert isinstance(begun(request)[0].broke("late", "slow", 1), Send)

    def test_a_node_without_a_leader_is_left_for_the_next(self) -> None:
        """It may be cut off while the others serve; Retry-After counts once all have said so."""
        call, _ = begun(urls="a:1,b:1")
        headers = {"Retry-After": "1"}
        assert isinstance(call.answered(503, headers, problem("no_leader"), 1), Send)
        assert call.answered(503, headers, problem("no_leader"), 2) == Pause(500)

    def test_a_refusal_is_not_repeated_even_if_it_is_retryable(self) -> None:
        """The caller decides whether to ask for a held lock again."""
        call, _ = begun()
        body = problem("lock_held", holder="other", held_for_ms=7)
        error = error_in(call.answered(409, {}, body, 1))
        assert isinstance(error, Refused)
        assert (error.code, error.status, error.retryable) == ("lock_held", 409, True)
        assert error.reason == {"holder": "other", "held_for_ms": 7}

    def test_an_error_of_ours_is_not_repeated(self) -> None:
        """500 would come again, and what happened is unknown."""
        call, _ = begun()
        error = error_in(call.answered(500, {}, problem("internal", definite=False), 1))
        assert isinstance(error, Indefinite)

    def test_the_deadline_ends_the_repeats(self) -> None:
        """No pause is begun that would reach past it."""
        call, _ = begun(urls="a:1", deadline_ms=20)
        assert call.broke("unsent", "refused", 5) == Pause(10)
        assert isinstance(call.resumed(15), Send)
        assert error_in(call.broke("unsent", "refused", 16)).code == "unreachable"

    def test_no_more_attempts_are_made_than_allowed(self) -> None:
        """Though other nodes and time are left."""
        endpoints = Endpoints(parse_endpoints("a:1,b:1,c:1"))
        call = Call(READ, endpoints, Policy(attempts_max=2), Steady(), 10_000)
        call.begin(0)
        assert isinstance(call.broke("unsent", "refused", 1), Send)
        assert isinstance(call.broke("unsent", "refused", 2), Failed)

    def test_a_pause_that_overslept_ends_in_the_last_error(self) -> None:
        """Nothing is sent after the deadline."""
        call, _ = begun(urls="a:1", deadline_ms=20)
        call.answered(503, {}, problem("no_leader"), 1)
        assert isinstance(error_in(call.resumed(25)), NoLeader)


class TestMeaning:
    """Whether a failed call surely did not happen."""

    def test_only_definite_failures_make_a_definite_call(self) -> None:
        """All nodes refused the connection: it did not happen."""
        call, _ = begun(urls="a:1", deadline_ms=5)
        assert error_in(call.broke("unsent", "refused", 1)).definite

    def test_one_open_attempt_makes_the_call_indefinite(self) -> None:
        """Though the last attempt surely failed, an earlier one may have succeeded."""
        call, _ = begun(urls="a:1,b:1", deadline_ms=5)
        call.broke("lost", "reset", 1)
        error = error_in(call.answered(503, {}, problem("no_leader"), 2))
        assert isinstance(error, Timeout)
        assert "an earlier attempt may have succeeded" in error.detail

    def test_the_clusters_own_refusal_settles_an_open_call(self) -> None:
        """Under the same key it is the answer to the first attempt."""
        call, _ = begun()
        call.broke("lost", "reset", 1)
        error = error_in(call.answered(409, {}, problem("lock_held"), 2))
        assert (error.definite, error.code) == (True, "lock_held")

    @pytest.mark.parametrize("status", [302, 403, 404, 429])
    def test_a_strangers_refusal_settles_nothing(self, status: int) -> None:
        """A proxy turns the repeat away; the first attempt may have reached a node."""
        call, _ = begun()
        call.broke("lost", "reset", 1)
        error = error_in(call.answered(status, {}, b"<html>", 2))
        assert isinstance(error, Timeout)
        assert f"answered {status}" in error.detail
        # Alone it is what it says, and nothing was done.
        call, _ = begun()
        assert error_in(call.answered(status, {}, b"<html>", 1)).definite

    @pytest.mark.parametrize("request_", [WRITE, KEYLESS])
    @pytest.mark.parametrize("code", ["no_leader", "shutting_down", "overloaded", "not_ready"])
    def test_what_is_open_is_of_the_indefinite_family(self, request_: Request, code: str) -> None:
        """A node that leaves, say, while the command is under way: whoever asks by class is told
        the same as who asks `definite`.
        """
        call, _ = begun(request_, urls="a:1", deadline_ms=5)
        error = error_in(call.answered(503, {}, problem(code, definite=False), 2))
        assert isinstance(error, Indefinite)
        assert (error.definite, error.code, error.detail) == (False, code, f"{code}!")

    def test_a_read_leaves_nothing_open(self) -> None:
        """Its last failure stands as it is."""
        call, _ = begun(READ, urls="a:1,b:1", deadline_ms=5)
        call.broke("lost", "reset", 1)
        assert isinstance(error_in(call.broke("unsent", "refused", 2)), Definite)

    @pytest.mark.parametrize(
        ("status", "code", "definite", "kind"),
        [
            (503, "no_leader", True, NoLeader),
            (503, "no_leader", False, NoLeader),
            (503, "overloaded", True, Overloaded),
            (503, "shutting_down", True, ShuttingDown),
            (504, "timeout", False, Timeout),
            (504, "timeout", True, Timeout),
            (410, "session_expired", True, SessionExpired),
            (501, "not_supported", True, NotSupported),
            (500, "internal", False, Internal),
        ],
    )
    def test_problem_documents_become_errors(
        self, status: int, code: str, definite: bool, kind: type[CoterieError]
    ) -> None:
        """By code, and as definite as the document says."""
        document = {"code": code, "definite": definite, "retryable": False, "title": "t"}
        error = error_of(status, document, "http://a:1")
        assert (type(error), error.code, error.detail) == (kind, code, "t")
        assert (error.definite, error.retryable) == (definite, False)

    def test_what_says_nothing_on_it_is_indefinite(self) -> None:
        """A missing or odd `definite` never makes an error definite."""
        assert not error_of(503, {"code": "no_leader"}, "http://a:1").definite
        assert not error_of(503, {"code": "no_leader", "definite": 1}, "http://a:1").definite

    def test_an_error_that_is_no_problem_document_is_judged_by_status(self) -> None:
        """A proxy's 502 may have let the request through; a stranger's 404 did nothing of ours."""
        assert not error_of(502, None, "http://a:1").definite
        assert not error_of(408, None, "http://a:1").definite
        refused = error_of(404, None, "http://a:1")
        assert isinstance(refused, Refused)
        assert (refused.definite, refused.code) == (True, "http_404")


class TestEndpoints:
    """The nodes a client knows."""

    def test_all_calls_stay_with_the_node_that_serves(self) -> None:
        """A failure moves all of them on, and only once."""
        endpoints = Endpoints(["a", "b", "c"])
        endpoints.failed("a")
        endpoints.failed("a")
        assert endpoints.current == "b"

    @pytest.mark.parametrize(
        ("text", "urls"),
        [
            ("127.0.0.1:7101", ("http://127.0.0.1:7101",)),
            ("a:1, b:2 c:3,a:1", ("http://a:1", "http://b:2", "http://c:3")),
            ("http://a:1/", ("http://a:1",)),
            ("https://a", ("https://a",)),
            ("[::1]:5", ("http://[::1]:5",)),
        ],
    )
    def test_endpoints_are_read_as_people_write_them(
        self, text: str, urls: tuple[str, ...]
    ) -> None:
        """Addresses or URLs, with commas or blanks, each once."""
        assert parse_endpoints(text) == urls

    @pytest.mark.parametrize("text", ["", " , ", "host", ":80", "a:b", "a:99999", "ftp://a:1"])
    def test_what_is_no_endpoint_is_refused_with_the_cure(self, text: str) -> None:
        """The message shows what one looks like."""
        with pytest.raises(ValueError, match=r"use host:port, e\.g\. 127\.0\.0\.1:7101"):
            parse_endpoints(text)

    def test_there_is_no_client_without_endpoints(self) -> None:
        """An empty list is refused."""
        with pytest.raises(ValueError, match="no endpoint"):
            Endpoints([])

    def test_names_are_quoted_whole(self) -> None:
        """A slash in a name stays in the name."""
        assert path_of("locks", "a/b ü", "acquire") == "/v1/locks/a%2Fb%20%C3%BC/acquire"


EVENTS = st.one_of(
    st.tuples(st.just("broke"), st.sampled_from(["unsent", "lost", "late"])),
    st.tuples(
        st.sampled_from([200, 204, 400, 404, 408, 409, 410, 429, 500, 502, 503, 504]),
        st.sampled_from(
            [
                b"",
                b"{}",
                b"junk",
                problem("no_leader"),
                problem("timeout", definite=False),
                problem("lock_held"),
            ]
        ),
    ),
)


@given(
    request=st.sampled_from([WRITE, KEYLESS, READ]),
    events=st.lists(EVENTS, max_size=12),
    gap_ms=st.integers(0, 700),
)
def test_a_call_ends_and_never_claims_too_much(
    request: Request, events: list[tuple[object, object]], gap_ms: int
) -> None:
    """Whatever comes: no repeat of a keyless open write, no definite end after an open attempt."""
    call, step = begun(request, deadline_ms=2_000)
    now_ms, is_open, end = 0, False, step
    for what, detail in events:
        now_ms += gap_ms
        if what == "broke":
            is_open = is_open or detail != "unsent"
            end = call.broke(detail, "why", now_ms)  # type: ignore[arg-type]
        else:
            assert isinstance(what, int)
            assert isinstance(detail, bytes)
            sure = b'"definite": true' in detail
            unsure = b'"definite": false' in detail
            is_refusal = 400 <= what < 500 and what != 408 and not unsure
            is_strangers = b'"code"' not in detail
            was_open = is_open
            is_open = is_open or not (is_refusal or sure or what < 300)
            end = call.answered(what, {}, detail, now_ms)
            if is_refusal:
                assert isinstance(end, Failed)
                is_settled = not (was_open and is_strangers and request is not READ)
                assert end.error.definite is is_settled
                return
        if isinstance(end, Pause):
            now_ms += end.pause_ms
            assert now_ms < 2_000 + gap_ms
            end = call.resumed(now_ms)
        if isinstance(end, Send):
            assert 0 < end.timeout_ms <= 2_000 - now_ms
            if is_open:
                assert request.may_repeat
            continue
        if isinstance(end, Failed) and is_open and request is not READ:
            assert isinstance(end.error, Indefinite)
            assert not end.error.definite
        return
