"""session-queue's waiting room, row by row, over real sockets against the real machine."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pysyncobj import syncobj

from cluster.errors import NoLeader, ShuttingDown, Timeout
from cluster.fronts.desk import Desk
from cluster.fronts.front import Surroundings
from cluster.fronts.registry import MAKERS
from cluster.fronts.waitingroom import (
    CHECK_EVERY_MS,
    ROOM,
    TokenInvalid,
    WaitingRoomFront,
    derived_key,
    issue,
    status_of,
    verify,
)
from cluster.gateway import passes
from cluster.machine import limits
from cluster.machine.commands.rooms import JoinRoom, RemoveRoom, SetRoom
from cluster.machine.outcome.rooms import RoomInfo
from cluster.node import config
from cluster.node.clock import wall_ms
from cluster.testing.local_node import LocalNode
from tests.fronts.asking import Asker, around, asking, until
from tests.gateway.solo_node import SoloNode
from tests.tools import go_programs

KEY = b"secret"
NOW_S = 1_700_000_000
TEXT = "text/plain; charset=utf-8"
VECTOR = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    "eyJleHAiOjE3MDAwMTA4MDAsImlhdCI6MTcwMDAwMDAwMCwic3ViIjoxMH0."
    "J-4HGO1nrfv5w30CIrAiVVIFxh4uhMxtPdDef_IaVII"
)


class Wall:
    """A wall clock that the test sets."""

    def __init__(self) -> None:
        self.now_ms = NOW_S * 1000

    def __call__(self) -> int:
        return self.now_ms


def front(
    node: Any, wall: Wall, *, size: int = 2, interval_ms: int = 30_000, active: int = 2
) -> WaitingRoomFront:
    """A front with these settings."""
    settings = SetRoom(ROOM, size, interval_ms, active, CHECK_EVERY_MS, only_new=True)
    return WaitingRoomFront(around(node, wall_ms=wall), key=KEY, settings=settings)


@pytest.fixture
def wall() -> Wall:
    """2023-11-14 until it is moved."""
    return Wall()


@pytest.fixture
async def api(wall: Wall) -> AsyncIterator[Asker]:
    """The front before a node alone, whose time the test moves."""
    node = LocalNode()
    async with asking(front(node, wall), node) as asker:
        yield asker


async def joined(api: Asker) -> str:
    """Join; gives the token."""
    got = await api.call("POST", "/join")
    assert got.status == 200, got
    return str(json.loads(got.body)["token"])


async def status(api: Asker, token: str) -> tuple[int, str]:
    """Position and status."""
    got = await api.get("/status", headers={"Authorization": f"Bearer {token}"})
    assert got.status == 200, got
    body = json.loads(got.body)
    return body["position"], body["status"]


async def statuses(api: Asker, tokens: list[str]) -> list[str]:
    """What has become of places."""
    return [(await status(api, token))[1] for token in tokens]


def signed(claims: dict[str, Any] | bytes, header: object = None, key: bytes = KEY) -> str:
    """A token with anything in it."""
    head = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode())
        for part in (head, claims)
    ]
    text = b".".join(part.rstrip(b"=") for part in parts)
    mark = base64.urlsafe_b64encode(hmac.digest(key, text, "sha256")).rstrip(b"=")
    return (text + b"." + mark).decode()


class TestJoin:
    async def test_gives_signed_places_in_order(self, api: Asker, wall: Wall) -> None:
        """One JSON document and a newline; positions from 1."""
        for position in range(1, 4):
            got = await api.call("POST", "/join")
            assert got.headers["Content-Type"] == "application/json"
            assert set(got.headers) == {"Content-Type", "Content-Length", "Date"}
            token = issue(position, NOW_S, KEY)
            assert got.said == (200, f'{{"token":"{token}"}}\n')
        wall.now_ms += 5_999
        assert await joined(api) == issue(4, NOW_S + 5, KEY)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
    async def test_is_a_post_only(self, api: Asker, method: str) -> None:
        """As its pattern says."""
        got = await api.call(method, "/join")
        assert (got.status, got.headers["Allow"]) == (405, "POST")
        assert got.headers["Content-Type"] == TEXT
        assert got.body == (b"" if method == "HEAD" else b"Method Not Allowed\n")

    async def test_looks_at_no_body(self, api: Asker) -> None:
        """Whatever is sent."""
        got = await api.call("POST", "/join", data=b"\xff" * 100_000)
        assert got.status == 200

    async def test_makes_the_room_once(self, api: Asker) -> None:
        """The native one of this name, which many may need at once."""
        tokens = await asyncio.gather(*(joined(api) for _ in range(20)))
        assert len(set(tokens)) == 20
        info = api.node.machine.rooms.info(ROOM, api.node.now_ms())
        assert (info.joined, info.window_size, info.active_windows) == (20, 2, 2)

    async def test_goes_on_in_a_room_that_was_removed(self, api: Asker) -> None:
        """It is made anew."""
        await joined(api)
        await api.front._desk.ask(RemoveRoom(ROOM))  # type: ignore[attr-defined]
        assert await joined(api) == issue(1, NOW_S, KEY)

    async def test_without_a_room_there_is_no_token(
        self, api: Asker, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And why stands in the log."""
        monkeypatch.setattr(limits, "ROOMS_MAX", 0)
        got = await api.call("POST", "/join")
        assert got.said == (500, "failed to issue token\n")
        headers = {"Authorization": issue(1, NOW_S, KEY)}
        assert (await api.get("/status", headers=headers)).said == (503, "Redis not ready\n")


class TestWindow:
    async def test_the_first_are_active_at_once_and_the_others_wait(self, api: Asker) -> None:
        """As many as the size."""
        tokens = [await joined(api) for _ in range(4)]
        assert await statuses(api, tokens) == ["active", "active", "waiting", "waiting"]

    async def test_slides_by_the_formula(self, api: Asker) -> None:
        """A place is waiting, active for two windows, expired, and never goes back."""
        tokens = [await joined(api) for _ in range(9)]
        windows = []
        api.node.advance(CHECK_EVERY_MS)
        for _ in range(5):
            windows.append("".join(one[0] for one in await statuses(api, tokens)))
            api.node.advance(30_000)
        assert windows == ["aaaawwwww", "eeaaaawww", "eeeeaaaaw", "eeeeeeaaa", "eeeeeeaaa"]

    async def test_the_first_step_waits_for_no_interval(self, api: Asker) -> None:
        """But for the next look, every three seconds."""
        tokens = [await joined(api) for _ in range(3)]
        api.node.advance(CHECK_EVERY_MS - 1)
        assert await statuses(api, tokens) == ["active", "active", "waiting"]
        api.node.advance(1)
        assert await statuses(api, tokens) == ["active", "active", "active"]

    async def test_due_stays_in_the_past_while_nobody_waits(self, api: Asker) -> None:
        """The next one beyond the window is let in at the next look."""
        tokens = [await joined(api) for _ in range(3)]
        api.node.advance(CHECK_EVERY_MS + 10 * 30_000 + 1_000)
        tokens += [await joined(api) for _ in range(2)]
        assert await statuses(api, tokens) == ["active"] * 4 + ["waiting"]
        api.node.advance(1_999)
        assert (await status(api, tokens[4])) == (5, "waiting")
        api.node.advance(1)
        assert await statuses(api, tokens) == ["expired"] * 2 + ["active"] * 3

    async def test_a_short_interval_is_three_seconds(self, wall: Wall) -> None:
        """No step follows faster than looks do."""
        node = LocalNode()
        async with asking(front(node, wall, size=1, interval_ms=1, active=9), node) as api:
            tokens = [await joined(api) for _ in range(4)]
            for active in range(1, 5):
                assert (await statuses(api, tokens)).count("active") == active
                node.advance(CHECK_EVERY_MS)


class TestStatus:
    @pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
    async def test_takes_every_method(self, api: Asker, method: str) -> None:
        """And tells the place as an integer, in this order."""
        token = await joined(api)
        got = await api.call(method, "/status", headers={"Authorization": f"Bearer {token}"})
        assert got.said == (200, '{"position":1,"status":"active"}\n')
        assert got.headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize("form", ["Bearer {}", "Bearer{}", "Bearer   {}  ", "{}"])
    async def test_takes_a_bearer_or_a_bare_token(self, api: Asker, form: str) -> None:
        """The word is cut off where it is there."""
        token = await joined(api)
        got = await api.get("/status", headers={"Authorization": form.format(token)})
        assert got.status == 200

    @pytest.mark.parametrize("form", ["bearer {}", "BEARER {}", "Basic {}", "BearerBearer {}"])
    async def test_other_words_spoil_the_token(self, api: Asker, form: str) -> None:
        """Letters count."""
        token = await joined(api)
        got = await api.get("/status", headers={"Authorization": form.format(token)})
        assert got.said == (400, "invalid token\n")

    async def test_needs_the_header(self, api: Asker) -> None:
        """400, never 401."""
        for headers in ({}, {"Authorization": ""}):
            got = await api.get("/status", headers=headers)
            assert got.said == (400, "missing Authorization header\n")
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            assert "WWW-Authenticate" not in got.headers

    async def test_a_token_ends_after_three_hours(self, api: Asker, wall: Wall) -> None:
        """To the second."""
        token = await joined(api)
        wall.now_ms += 10_800_000 - 1
        assert (await status(api, token)) == (1, "active")
        wall.now_ms += 1
        got = await api.get("/status", headers={"Authorization": token})
        assert got.said == (400, "invalid token\n")

    async def test_tells_of_places_nobody_was_given_here(self, api: Asker) -> None:
        """The token alone is the state: one of another server counts, and makes the room."""
        for position, word in ((1, "active"), (2, "active"), (3, "waiting"), (0, "active")):
            assert await status(api, issue(position, NOW_S, KEY)) == (position, word)
        assert await status(api, issue(-2, NOW_S, KEY)) == (-2, "expired")
        assert api.node.machine.counts().rooms == 1


class TestProbes:
    async def test_living_is_answering(self, api: Asker) -> None:
        """Whatever the cluster does."""
        api.node.leader = None
        for method in ("GET", "POST"):
            got = await api.call(method, "/livez")
            assert got.said == (200, "ok")
            assert got.headers["Content-Type"] == TEXT

    async def test_ready_is_having_a_leader(self, api: Asker) -> None:
        """Told at once."""
        got = await api.get("/readyz")
        assert got.said == (200, "ok")
        assert got.headers["Content-Type"] == TEXT
        api.node.leader = None
        got = await api.get("/readyz")
        assert got.said == (503, "Redis not ready\n")

    async def test_other_paths_are_not_found(self, api: Asker) -> None:
        """As Go's router says it."""
        for path in ("/", "/join/", "/status/x", "/metrics"):
            assert (await api.call("POST", path)).said == (404, "404 page not found\n")


class TestTokens:
    def test_the_signature_vector(self) -> None:
        """Byte for byte."""
        assert issue(10, NOW_S, KEY) == VECTOR
        assert verify(VECTOR, KEY, now_ms=(NOW_S + 10_800) * 1000 - 1) == 10
        with pytest.raises(TokenInvalid):
            verify(VECTOR, KEY, now_ms=(NOW_S + 10_800) * 1000)

    # The original's own secret, which is a short one.
    @pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
    def test_pyjwt_reads_ours_and_we_read_its(self) -> None:
        """Both ways, with the same bytes."""
        options: Any = {"verify_exp": False, "verify_sub": False}
        claims = jwt.decode(VECTOR, "secret", algorithms=["HS256"], options=options)
        assert claims == {"exp": NOW_S + 10_800, "iat": NOW_S, "sub": 10}
        assert jwt.get_unverified_header(VECTOR) == {"alg": "HS256", "typ": "JWT"}
        theirs = jwt.encode({"exp": NOW_S + 10_800, "iat": NOW_S, "sub": 10}, "secret")
        assert theirs == VECTOR

    def test_golang_jwt_reads_ours_and_we_read_its(self) -> None:
        """The library that the original uses, by a program of its users."""
        program = go_programs.program("sync")

        def said(*arguments: str) -> str:
            ran = subprocess.run([program, *arguments], check=True, capture_output=True, text=True)
            return ran.stdout.strip()

        assert said("sign", "secret", "10", str(NOW_S)) == VECTOR
        now_s = wall_ms() // 1000
        assert said("verify", "secret", issue(12_345, now_s, KEY)) == "12345"
        theirs = said("sign", "secret", "77", str(now_s))
        assert theirs == issue(77, now_s, KEY)
        assert verify(theirs, KEY, now_ms=wall_ms()) == 77
        for bad in (issue(3, NOW_S, KEY), issue(3, now_s, b"other"), "nonsense"):
            with pytest.raises(subprocess.CalledProcessError):
                said("verify", "secret", bad)

    @given(
        position=st.integers(1, 2**63 - 1), now_s=st.integers(0, 2**40), key=st.binary(max_size=80)
    )
    def test_every_place_survives_the_way(self, position: int, now_s: int, key: bytes) -> None:
        """Also where a float would have lost it."""
        token = issue(position, now_s, key)
        assert verify(token, key, now_ms=now_s * 1000) == position

    @pytest.mark.parametrize(
        ("claims", "place"),
        [
            ({"sub": 3}, 3),
            ({"sub": 3.9, "iat": "whenever"}, 3),
            ({"sub": -3.9}, -3),
            ({"sub": 1e300}, -(2**63)),
            ({"sub": 5, "exp": 0}, 5),
            ({"sub": 5, "nbf": NOW_S, "exp": NOW_S + 1}, 5),
            ({"sub": 5, "iat": NOW_S + 10_000, "aud": ["x"], "iss": 7}, 5),
            ({"sub": 5, "exp": 2**62}, 5),
            ({"sub": 5, "nbf": 2**63}, 5),
            ({"sub": 2**63}, -(2**63)),
            (b'{"sub":1,"sub":2}', 2),
            (b' {"sub": 10 } ', 10),
        ],
    )
    def test_claims_that_are_taken(self, claims: Any, place: int) -> None:
        """Neither `exp` nor `iat` is needed."""
        assert verify(signed(claims), KEY, now_ms=NOW_S * 1000) == place

    @pytest.mark.parametrize(
        "claims",
        [
            {},
            {"sub": "3"},
            {"sub": None},
            {"sub": True},
            {"sub": [3]},
            {"sub": 3, "exp": NOW_S},
            {"sub": 3, "exp": 0.5},
            {"sub": 3, "exp": "never"},
            {"sub": 3, "exp": None},
            {"sub": 3, "nbf": NOW_S + 1},
            {"sub": 3, "nbf": "soon"},
            [],
            b"null",
            b"3",
            b'{"sub":3}x',
            b'{"sub":NaN}',
            b'{"sub":1e400}',
            b'{"sub":1' + b"0" * 320 + b"}",
            b'{"sub":3,"more":[{"x":-1e400}]}',
            {"sub": 3, "exp": 2**63},
            {"sub": 3, "exp": 2**63 - 1},
            {"sub": 3, "exp": 1e300},
            b'{"sub":' + b"1" * 5_000 + b"}",
            b'{"sub":' + b"[" * 5_000,
            b"",
        ],
    )
    def test_claims_that_are_not(self, claims: Any) -> None:
        """All the same to their client."""
        with pytest.raises(TokenInvalid):
            verify(signed(claims), KEY, now_ms=NOW_S * 1000)

    @pytest.mark.parametrize(
        "header",
        [
            {"alg": "none"},
            {"alg": "HS512"},
            {"alg": "hs256"},
            {"alg": ["HS256"]},
            {"typ": "JWT"},
            [],
            b"null",
            b"{",
        ],
    )
    def test_only_hs256_is_believed(self, header: Any) -> None:
        """Whatever the header asks for."""
        with pytest.raises(TokenInvalid):
            verify(signed({"sub": 3}, header), KEY, now_ms=NOW_S * 1000)

    def test_other_keys_and_mangled_texts_are_not_believed(self) -> None:
        """Every part counts."""
        good = issue(3, NOW_S, KEY)
        head, body, mark = good.split(".")
        for bad in (
            signed({"sub": 3}, key=b"other"),
            "",
            "..",
            head,
            f"{head}.{body}",
            f"{head}.{body}.",
            f"{head}.{body}.{mark}=",
            f"{head}.{body}.{mark}.{mark}",
            f"{head}.{body[:-1]}.{mark}",
            f"{head}.{body}.{mark[:-2]}",
            good.replace(".", "\u2024"),
            f"{good}\udcff",
            good + "a" * 9_000,
        ):
            with pytest.raises(TokenInvalid):
                verify(bad, KEY, now_ms=NOW_S * 1000)

    def test_the_native_passes_are_others(self) -> None:
        """Neither is taken for the other, though both are signed by the cluster."""
        made = passes.Passes([KEY]).issue(ROOM, 1, 3, NOW_S * 1000)
        with pytest.raises(TokenInvalid):
            verify(made, KEY, now_ms=NOW_S * 1000)
        with pytest.raises(passes.PassInvalid):
            passes.Passes([KEY]).read(issue(3, NOW_S, KEY))
        assert derived_key(b"x") != passes.derived_key(b"x")
        assert derived_key(b"x") == derived_key(b"x") != derived_key(b"y")

    @given(token=st.text(max_size=80) | st.text("ab.-_", max_size=40))
    def test_any_text_is_a_place_or_no_token(self, token: str) -> None:
        """Nothing else is raised."""
        with pytest.raises(TokenInvalid):
            verify(token, KEY, now_ms=NOW_S * 1000)


@given(
    position=st.integers(-50, 200),
    steps=st.integers(0, 20),
    size=st.integers(1, 9),
    active=st.integers(1, 5),
)
def test_the_window_formula(position: int, steps: int, size: int, active: int) -> None:
    """Expired up to E - S*C, waiting above E, active between."""
    end = size * (1 + steps)
    expired_to = max(0, end - size * active) if steps else 0
    info = RoomInfo("r", size, 1, active, 1, 0, end, expired_to, None)
    wanted = "active"
    if position <= end - size * active:
        wanted = "expired"
    elif position > end:
        wanted = "waiting"
    assert status_of(position, info) == wanted


class TestCluster:
    async def test_an_election_is_waited_for(self, wall: Wall) -> None:
        """No client ever hears of one."""
        node = LocalNode()
        async with asking(front(node, wall), node) as api:
            node.fail_with = NoLeader("nobody leads")
            asked = asyncio.create_task(api.call("POST", "/join"))
            await until(lambda: len(node.taken) > 0)
            node.fail_with = None
            assert (await asked).status == 200

    async def test_without_an_answer_it_says_so(self, wall: Wall) -> None:
        """In the end; a node that leaves says nothing, as a process that ended would."""
        node = LocalNode()
        bare = around(node, wall_ms=wall)
        surroundings = Surroundings(
            node=node,
            desk=Desk(node, patience_s=0.01),
            clock=bare.clock,
            wall_ms=wall,
            draw=bare.draw,
            version="0",
        )
        settings = SetRoom(ROOM, 2, 30_000, 2, CHECK_EVERY_MS, only_new=True)
        made = WaitingRoomFront(surroundings, key=KEY, settings=settings)
        headers = {"Authorization": issue(1, NOW_S, KEY)}
        async with asking(made, node) as api:
            node.fail_with = Timeout("late")
            assert (await api.call("POST", "/join")).said == (500, "failed to issue token\n")
            assert (await api.get("/status", headers=headers)).said == (503, "Redis not ready\n")
            node.fail_with = ShuttingDown("leaving")
            with pytest.raises(aiohttp.ClientConnectionError):
                await api.call("POST", "/join")

    async def test_settings_of_a_room_that_is_there_rule(self, wall: Wall) -> None:
        """The node says so once, and how they are changed."""
        node = LocalNode()
        await Desk(node).ask(SetRoom(ROOM, 1, 5_000, 3))
        with structlog.testing.capture_logs() as logs:
            async with asking(front(node, wall), node) as api:
                tokens = [await joined(api) for _ in range(3)]
                assert await statuses(api, tokens) == ["active", "waiting", "waiting"]
        (said,) = (log for log in logs if log["log_level"] == "warning")
        assert "PUT /v1/rooms/session-queue" in said["event"]
        assert (said["size"], said["configured_size"]) == (1, 2)
        info = node.machine.rooms.info(ROOM, 0)
        assert info is not None and info.window_size == 1

    async def test_equal_settings_are_no_news(self, api: Asker) -> None:
        """Nor is a room that this node made."""
        with structlog.testing.capture_logs() as logs:
            await joined(api)
            await joined(api)
        assert [log for log in logs if log["log_level"] != "debug"] == []

    async def test_natives_may_join_too(self, api: Asker) -> None:
        """It is one room."""
        await joined(api)
        await api.front._desk.ask(JoinRoom(ROOM))  # type: ignore[attr-defined]
        assert await joined(api) == issue(3, NOW_S, KEY)

    async def test_is_made_by_its_row_of_the_table(self, wall: Wall) -> None:
        """From the original's own environment; without its secret, from the cluster's."""
        environ = {
            "PORT": "3000",
            "JWT_SECRET": "secret",
            "WINDOW_SIZE": "1",
            "WINDOW_INTERVAL": "0",
            "ACTIVE_WINDOW_COUNT": "2000000",
        }
        for secret, key in (("secret", KEY), ("", None)):
            settings = config.load({"node": "n1", "data": "d"}, environ | {"JWT_SECRET": secret})
            node = LocalNode()
            made = MAKERS["session-queue"](settings, around(node, wall_ms=wall))
            async with asking(made, node) as api:
                key = key or derived_key(settings.secret.encode())
                assert await joined(api) == issue(1, NOW_S, key)
                info = node.machine.rooms.info(ROOM, 0)
                assert info is not None
                assert (info.window_size, info.window_interval_ms) == (1, 1)
                assert info.active_windows == limits.ACTIVE_WINDOWS_MAX

    async def test_works_on_a_real_node(self, tmp_path: Path, wall: Wall) -> None:
        """Replication, journal and snapshot below it, alone in its cluster."""
        solo = SoloNode(tmp_path)
        try:
            solo.lead()
            async with asking(front(solo.node, wall), solo.node) as api:
                tokens = [await joined(api) for _ in range(4)]
                assert (await api.get("/readyz")).status == 200
                asked = asyncio.gather(*(status(api, token) for token in tokens))
                words = [word for _, word in await asked]
                assert words == ["active", "active", "waiting", "waiting"]
                solo.advance(CHECK_EVERY_MS + 125)
                assert await statuses(api, tokens) == ["active"] * 4
        finally:
            solo.close()
            syncobj.monotonicTime = _MONOTONIC


@given(header=st.binary(max_size=60), cut=st.integers(0, 300), junk=st.binary(max_size=40))
@settings(max_examples=50)
def test_no_request_whatever_harms_it(header: bytes, cut: int, junk: bytes) -> None:
    """Cut anywhere, followed by garbage: it answers or closes, and serves the next one."""

    async def run() -> None:
        node = LocalNode()
        async with asking(front(node, Wall()), node) as api:
            head = b"GET /status HTTP/1.1\r\nHost: x\r\nAuthorization: " + header + b"\r\n\r\n"
            data = head + junk
            reader, writer = await asyncio.open_connection(*api.address)
            try:
                writer.write(data[:cut])
                await writer.drain()
                writer.write(data[cut:])
                writer.write_eof()
                answer = await asyncio.wait_for(reader.read(), 5.0)
                assert not answer or answer.startswith(b"HTTP/1.1 400")
            except ConnectionError:
                pass
            writer.close()
            assert (await api.get("/livez")).status == 200

    asyncio.run(run())


def test_the_mark_is_a_plain_hmac() -> None:
    """Anybody with the secret can make one, as the original's other programs may."""
    text, _, mark = VECTOR.rpartition(".")
    raw = hmac.new(KEY, text.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64encode(raw).rstrip(b"=").decode() == mark


_MONOTONIC: Any = syncobj.monotonicTime
