"""ticketd's front, row by row over real sockets, before the real machine."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import NoLeader
from cluster.fronts.ticketd.server import TicketdFront
from cluster.fronts.ticketd.status import uptime
from cluster.machine.commands.tickets import IssueTicket
from cluster.machine.machine import Machine
from cluster.testing.local_node import LocalNode
from cluster.wire import snapshot
from tests.fronts.asking import Asker, Got, around, asking, until

SWEEP_MS = 500
NOT_FOUND = "(entity not found)"
WRONG = "resource  type is incorrect"
EMPTY = {"Name": "", "ResourceName": "", "Data": None, "Issuer": None, "Claimant": None}


class Ticketd:
    """A client of ticketd: what its calls are, and what they answer."""

    def __init__(self, api: Asker, node: LocalNode):
        self.api = api
        self.node = node
        # Just after a sweep, so that tests know how far the next one is.
        node.advance(SWEEP_MS - node.now_ms() % SWEEP_MS + 1)

    async def call(self, method: str, path: str, **more: Any) -> Got:
        return await self.api.call(method, f"/api/v1{path}", **more)

    async def good(self, method: str, path: str, **more: Any) -> Any:
        """A call that must succeed: its JSON."""
        got = await self.call(method, path, **more)
        assert got.status == 200, got.said
        assert got.headers["Content-Type"] == "application/json"
        assert got.body.endswith(b"\n")
        return json.loads(got.body)

    async def refused(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """A call that must fail: its status and text."""
        got = await self.call(method, path, **more)
        assert got.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.body.endswith(b"\n")
        return got.status, got.body.decode().removesuffix("\n")

    async def open(self, name: str = "s", ttl: int = 100_000) -> str:
        return str(await self.good("POST", f"/sessions?name={name}&ttl={ttl}"))

    async def issue(self, session: str, resource: str, name: str, data: bytes = b"") -> None:
        path = f"/tickets/{resource}?sessid={session}&name={name}"
        assert await self.good("POST", path, data=data) == "Ok"

    async def claim(self, session: str, resource: str) -> str | None:
        """Name of the ticket that a claim gave."""
        found = await self.good("POST", f"/claims/{resource}?sessid={session}")
        if not found["Claimed"]:
            assert found["Ticket"] == EMPTY
            return None
        return str(found["Ticket"]["Name"])

    async def has(self, session: str, resource: str, name: str) -> Any:
        return await self.good("GET", f"/claims/{resource}?sessid={session}&name={name}")

    async def lock(self, session: str, resource: str) -> Any:
        return await self.good("POST", f"/locks/{resource}?sessid={session}")

    def sweep(self) -> None:
        """Let the next sweep pass."""
        self.node.advance(SWEEP_MS)


@pytest.fixture
async def ticketd() -> AsyncIterator[Ticketd]:
    """The front before a node that always leads, and a client of it."""
    node = LocalNode()
    wall_ms = 1_700_000_000_000
    front = TicketdFront(around(node, wall_ms=lambda: wall_ms), sweep_ms=SWEEP_MS)
    async with asking(front, node) as api:
        yield Ticketd(api, node)


# Sessions.


async def test_a_session_is_shown_as_it_was_opened(ticketd: Ticketd) -> None:
    """A KSUID for an id, the client's address, the fields in their order."""
    id = await ticketd.open("test%201+2", 1234)
    assert len(id) == 27
    assert id.isalnum()
    got = await ticketd.call("GET", f"/sessions/{id}")
    shown = json.loads(got.body)
    assert got.body.decode() == (
        f'{{"Name":"test 1 2","Id":"{id}","Src":"{shown["Src"]}","Ttl":1234,"Tickets":[],'
        f'"Issuances":[]}}\n'
    )
    host, _, port = shown["Src"].rpartition(":")
    assert host == "127.0.0.1"
    assert port.isdigit()


async def test_ids_of_later_sessions_are_later(ticketd: Ticketd) -> None:
    """KSUIDs sort by time, and ours by opening."""
    ids = [await ticketd.open() for _ in range(5)]
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    ("query", "ttl"),
    [
        ("", 5000),
        ("?ttl=", 5000),
        ("?ttl=x", 5000),
        ("?ttl=1.5", 5000),
        ("?ttl=+7", 5000),
        ("?ttl=%2B7", 7),
        ("?ttl=3&ttl=4", 3),
        ("?ttl=0", 0),
        ("?ttl=-5", -5),
        ("?ttl=9223372036854775807", 2**63 - 1),
        ("?ttl=9223372036854775808", 5000),
    ],
)
async def test_a_ttl_is_read_as_atoi_does(ticketd: Ticketd, query: str, ttl: int) -> None:
    """What is none is 5000; zero, negative and huge ones stay what they are."""
    id = await ticketd.good("POST", f"/sessions{query}")
    assert (await ticketd.good("GET", f"/sessions/{id}"))["Ttl"] == ttl


async def test_sessions_die_in_sweeps_only(ticketd: Ticketd) -> None:
    """Past its deadline one still works, and a refresh revives it; the sweep ends it."""
    id = await ticketd.open(ttl=100)
    ticketd.node.advance(400)
    assert (await ticketd.good("GET", f"/sessions/{id}"))["Id"] == id
    assert await ticketd.good("PUT", f"/sessions/{id}") == "Ok"
    ticketd.node.advance(200)
    assert (await ticketd.good("GET", f"/sessions/{id}"))["Id"] == id
    ticketd.sweep()
    gone = (404, f"Session not found: {id} {NOT_FOUND}")
    for method in ("GET", "PUT", "DELETE"):
        assert await ticketd.refused(method, f"/sessions/{id}") == gone


@pytest.mark.parametrize("ttl", [0, -1000])
async def test_without_a_ttl_a_session_dies_at_the_next_sweep(ticketd: Ticketd, ttl: int) -> None:
    """Not before."""
    id = await ticketd.open(ttl=ttl)
    ticketd.node.advance(SWEEP_MS - 2)
    assert await ticketd.good("PUT", f"/sessions/{id}") == "Ok"
    ticketd.node.advance(1)
    assert (await ticketd.call("PUT", f"/sessions/{id}")).status == 404


async def test_only_refresh_and_issue_move_the_deadline(ticketd: Ticketd) -> None:
    """Not claims, releases, locks, looks or revokes; so one who does just those dies."""
    busy, issuer = await ticketd.open(ttl=900), await ticketd.open(ttl=900)
    await ticketd.issue(issuer, "r", "t")
    ticketd.node.advance(600)
    await ticketd.issue(issuer, "r", "t")
    await ticketd.claim(busy, "r")
    await ticketd.has(busy, "r", "t")
    await ticketd.lock(busy, "l")
    await ticketd.good("DELETE", f"/claims/r?sessid={busy}&name=t")
    await ticketd.good("DELETE", f"/locks/l?sessid={busy}")
    ticketd.node.advance(400)
    assert (await ticketd.call("GET", f"/sessions/{busy}")).status == 404
    assert (await ticketd.call("GET", f"/sessions/{issuer}")).status == 200


async def test_a_closed_session_is_gone(ticketd: Ticketd) -> None:
    """Any use of it is a 404; closing twice too."""
    id = await ticketd.open()
    assert await ticketd.good("DELETE", f"/sessions/{id}") == "Ok"
    gone = (404, f"Session not found: {id} {NOT_FOUND}")
    for method, path in (
        ("DELETE", f"/sessions/{id}"),
        ("POST", f"/tickets/r?sessid={id}&name=t"),
        ("DELETE", f"/tickets/r?sessid={id}&name=t"),
        ("POST", f"/claims/r?sessid={id}"),
        ("DELETE", f"/claims/r?sessid={id}&name=t"),
        ("GET", f"/claims/r?sessid={id}&name=t"),
        ("POST", f"/locks/r?sessid={id}"),
    ):
        assert await ticketd.refused(method, path) == gone
    lower = (404, f"session not found: {id} {NOT_FOUND}")
    assert await ticketd.refused("DELETE", f"/locks/r?sessid={id}") == lower


# Tickets.


async def test_a_claim_shows_the_ticket_and_both_sessions(ticketd: Ticketd) -> None:
    """To the byte, in the order of Go's structs."""
    issuer, claimant = await ticketd.open("issuer", 100), await ticketd.open("claimant", 100)
    await ticketd.issue(issuer, "test", "ticket%201", b"FOO")
    got = await ticketd.call("POST", f"/claims/test?sessid={claimant}")
    src = json.loads(got.body)["Ticket"]["Issuer"]["Src"]

    def shown(name: str, id: str) -> str:
        return (
            f'{{"Name":"{name}","Id":"{id}","Src":"{src}","Ttl":100,"Tickets":[],"Issuances":[]}}'
        )

    assert got.body.decode() == (
        '{"Claimed":true,"Ticket":{"Name":"ticket 1","ResourceName":"test","Data":"Rk9P",'
        f'"Issuer":{shown("issuer", issuer)},"Claimant":{shown("claimant", claimant)}}}}}\n'
    )


async def test_a_session_lists_what_it_issued_and_claimed(ticketd: Ticketd) -> None:
    """An empty body is "", and the lists lose what is given back."""
    one, two = await ticketd.open("one"), await ticketd.open("two")
    await ticketd.issue(one, "r", "t")
    await ticketd.claim(two, "r")
    issued = (await ticketd.good("GET", f"/sessions/{one}"))["Issuances"]
    claimed = (await ticketd.good("GET", f"/sessions/{two}"))["Tickets"]
    assert issued == claimed
    assert [issued[0][key] for key in ("Name", "ResourceName", "Data")] == ["t", "r", ""]
    assert (issued[0]["Issuer"]["Id"], issued[0]["Claimant"]["Id"]) == (one, two)
    await ticketd.good("DELETE", f"/claims/r?sessid={two}&name=t")
    assert (await ticketd.good("GET", f"/sessions/{two}"))["Tickets"] == []


async def test_issuing_is_an_upsert_that_keeps_the_claim(ticketd: Ticketd) -> None:
    """Other data, another issuer, the same claimant."""
    one, two, three = [await ticketd.open() for _ in range(3)]
    await ticketd.issue(one, "r", "t", b"1")
    assert await ticketd.claim(three, "r") == "t"
    await ticketd.issue(two, "r", "t", b"2")
    found = (await ticketd.good("GET", "/dump/resources/r"))["r"]["Tickets"]["t"]
    assert base64.b64decode(found["Data"]) == b"2"
    assert (found["Issuer"]["Id"], found["Claimant"]["Id"]) == (two, three)
    assert (await ticketd.good("GET", f"/sessions/{one}"))["Issuances"] == []
    assert await ticketd.has(three, "r", "t") is True


async def test_a_claim_is_idempotent_and_takes_what_is_free(ticketd: Ticketd) -> None:
    """Own first; a second session gets another; with none left it is told so, with 200."""
    issuer, one, two, three = [await ticketd.open() for _ in range(4)]
    await ticketd.issue(issuer, "r", "a")
    await ticketd.issue(issuer, "r", "b")
    assert [await ticketd.claim(one, "r") for _ in range(3)] == ["a", "a", "a"]
    assert await ticketd.claim(two, "r") == "b"
    assert await ticketd.claim(three, "r") is None
    assert await ticketd.claim(three, "nothing") is None


async def test_release_is_forgiving(ticketd: Ticketd) -> None:
    """Not held, not there, twice: Ok. An unknown resource is a 404."""
    issuer, one, two = [await ticketd.open() for _ in range(3)]
    await ticketd.issue(issuer, "r", "t")
    await ticketd.claim(one, "r")
    for session, name in ((two, "t"), (two, "x"), (one, "t"), (one, "t")):
        assert await ticketd.good("DELETE", f"/claims/r?sessid={session}&name={name}") == "Ok"
    assert await ticketd.has(one, "r", "t") is False
    unknown = (404, f"unknown resource: x {NOT_FOUND}")
    assert await ticketd.refused("DELETE", f"/claims/x?sessid={one}&name=t") == unknown
    assert await ticketd.refused("GET", f"/claims/x?sessid={one}&name=t") == unknown
    assert await ticketd.refused("DELETE", f"/tickets/x?sessid={one}&name=t") == unknown


async def test_anybody_revokes_and_the_resource_stays_until_the_sweep(ticketd: Ticketd) -> None:
    """Right after it `has` is false; after the sweep the resource is unknown."""
    issuer, claimant, other = [await ticketd.open() for _ in range(3)]
    await ticketd.issue(issuer, "r", "t")
    await ticketd.claim(claimant, "r")
    path = f"/tickets/r?sessid={other}&name=t"
    assert await ticketd.good("DELETE", path) == "Ok"
    assert await ticketd.has(claimant, "r", "t") is False
    assert await ticketd.claim(claimant, "r") is None
    assert await ticketd.refused("DELETE", path) == (500, "unknown ticket for resource r -> : t")
    assert (await ticketd.good("GET", "/dump/resources"))["r"]["Tickets"] == {}
    ticketd.sweep()
    assert (await ticketd.refused("DELETE", path))[0] == 404
    assert await ticketd.good("GET", "/dump/resources") == {}
    gone = await ticketd.refused("GET", "/dump/resources/r")
    assert gone == (404, "entity not found")


async def test_a_resource_that_is_used_again_outlives_the_sweep(ticketd: Ticketd) -> None:
    """With its new ticket; and its next emptying is another."""
    id = await ticketd.open()
    await ticketd.issue(id, "r", "t")
    await ticketd.good("DELETE", f"/tickets/r?sessid={id}&name=t")
    await ticketd.issue(id, "r", "u")
    ticketd.sweep()
    assert await ticketd.claim(id, "r") == "u"
    await ticketd.good("DELETE", f"/tickets/r?sessid={id}&name=u")
    assert await ticketd.has(id, "r", "u") is False
    ticketd.sweep()
    assert (await ticketd.call("GET", f"/claims/r?sessid={id}&name=u")).status == 404


async def test_closing_frees_claims_at_once_and_tickets_at_the_sweep(ticketd: Ticketd) -> None:
    """What it issued is nobody's, cannot be claimed, is seen, and is still had by its claimant."""
    issuer, claimant, other = [await ticketd.open() for _ in range(3)]
    await ticketd.issue(issuer, "r", "held")
    await ticketd.issue(issuer, "r", "free")
    await ticketd.issue(other, "s", "t")
    assert await ticketd.claim(claimant, "r") == "held"
    assert await ticketd.claim(issuer, "s") == "t"
    await ticketd.good("DELETE", f"/sessions/{issuer}")
    assert await ticketd.claim(other, "s") == "t"
    assert await ticketd.claim(other, "r") is None
    assert await ticketd.claim(claimant, "r") is None
    assert await ticketd.has(claimant, "r", "held") is True
    tickets = (await ticketd.good("GET", "/dump/resources/r"))["r"]["Tickets"]
    assert [tickets[name]["Issuer"] for name in ("free", "held")] == [None, None]
    assert tickets["held"]["Claimant"]["Id"] == claimant
    assert len((await ticketd.good("GET", f"/sessions/{claimant}"))["Tickets"]) == 1
    ticketd.sweep()
    assert (await ticketd.call("GET", f"/claims/r?sessid={claimant}&name=held")).status == 404
    assert (await ticketd.good("GET", f"/sessions/{claimant}"))["Tickets"] == []


async def test_a_ticket_of_nobodys_may_be_issued_again(ticketd: Ticketd) -> None:
    """Then it has an issuer, its claimant, and a life after the sweep."""
    issuer, claimant, other = [await ticketd.open() for _ in range(3)]
    await ticketd.issue(issuer, "r", "t")
    await ticketd.claim(claimant, "r")
    await ticketd.good("DELETE", f"/sessions/{issuer}")
    await ticketd.issue(other, "r", "t")
    ticketd.sweep()
    assert await ticketd.has(claimant, "r", "t") is True
    await ticketd.good("DELETE", f"/claims/r?sessid={claimant}&name=t")
    assert await ticketd.claim(other, "r") == "t"


async def test_expiry_takes_everything_in_one_sweep(ticketd: Ticketd) -> None:
    """Its tickets and its lock with it, and its claims are free."""
    dies, lives = await ticketd.open(ttl=100), await ticketd.open()
    await ticketd.issue(dies, "r", "t")
    await ticketd.issue(lives, "s", "u")
    await ticketd.lock(dies, "l")
    await ticketd.claim(lives, "r")
    await ticketd.claim(dies, "s")
    ticketd.sweep()
    assert list(await ticketd.good("GET", "/dump/resources")) == ["s"]
    assert await ticketd.claim(lives, "s") == "u"
    assert await ticketd.lock(lives, "l") is True


# Locks.


async def test_a_lock_is_held_once_and_not_counted(ticketd: Ticketd) -> None:
    """Locking again is true; another gets false; one unlock frees; the next is a 404."""
    one, two = await ticketd.open(), await ticketd.open()
    assert await ticketd.lock(one, "foo.bar") is True
    assert await ticketd.lock(one, "foo.bar") is True
    assert await ticketd.lock(two, "foo.bar") is False
    path = "/locks/foo.bar?sessid="
    assert await ticketd.refused("DELETE", path + two) == (
        404,
        f"Resource foo.bar is locked  by another session {NOT_FOUND}",
    )
    assert await ticketd.good("DELETE", path + one) == "ok"
    not_locked = (404, f"Resource foo.bar is not locked {NOT_FOUND}")
    assert await ticketd.refused("DELETE", path + one) == not_locked
    assert await ticketd.lock(two, "foo.bar") is True
    assert await ticketd.good("DELETE", path + two) == "ok"
    ticketd.sweep()
    assert await ticketd.refused("DELETE", path + two) == (
        404,
        f"could not find lock resource foo.bar {NOT_FOUND}",
    )


async def test_a_lock_is_a_resource_of_one_ticket(ticketd: Ticketd) -> None:
    """Of its own name, issued by its holder; revoking that breaks it."""
    one, two = await ticketd.open(), await ticketd.open()
    await ticketd.lock(one, "l")
    shown = (await ticketd.good("GET", "/dump/resources/l"))["l"]
    assert (shown["Name"], shown["IsLock"], list(shown["Tickets"])) == ("l", True, ["l"])
    ticket = shown["Tickets"]["l"]
    assert (ticket["Data"], ticket["Issuer"]["Id"], ticket["Claimant"]) == ("", one, None)
    issued = (await ticketd.good("GET", f"/sessions/{one}"))["Issuances"]
    assert [each["Name"] for each in issued] == ["l"]
    assert await ticketd.has(one, "l", "l") is False
    assert await ticketd.good("DELETE", f"/tickets/l?sessid={two}&name=l") == "Ok"
    assert await ticketd.lock(two, "l") is True


async def test_a_name_is_a_lock_or_has_tickets_until_it_goes(ticketd: Ticketd) -> None:
    """The wrong use of it is a 500, also when it was just emptied; then it can be either."""
    id = await ticketd.open()
    await ticketd.lock(id, "l")
    await ticketd.issue(id, "r", "t")
    await ticketd.good("DELETE", f"/locks/l?sessid={id}")
    await ticketd.good("DELETE", f"/tickets/r?sessid={id}&name=t")
    tickets, claims = f"/tickets/l?sessid={id}&name=t", f"/claims/l?sessid={id}"
    locks = f"/locks/r?sessid={id}"
    assert await ticketd.refused("POST", tickets) == (
        500,
        f"cannot issue a ticket on a lock resource (l) - {WRONG}",
    )
    assert await ticketd.refused("POST", claims) == (
        500,
        f"cannot claim a ticket on a lock resource (l) - {WRONG}",
    )
    for method in ("POST", "DELETE"):
        assert await ticketd.refused(method, locks) == (
            500,
            f"cannot lock/unlock a non-lock  resource (r) - {WRONG}",
        )
    ticketd.sweep()
    await ticketd.issue(id, "l", "t")
    assert await ticketd.lock(id, "r") is True


async def test_closing_a_holder_leaves_no_bomb(ticketd: Ticketd) -> None:
    """The lock is free for others at once, and nobody's state is lost."""
    one, two = await ticketd.open(), await ticketd.open()
    await ticketd.lock(one, "l")
    await ticketd.good("DELETE", f"/sessions/{one}")
    assert await ticketd.refused("DELETE", f"/locks/l?sessid={two}") == (
        404,
        f"Resource l is not locked {NOT_FOUND}",
    )
    assert await ticketd.lock(two, "l") is True
    ticketd.sweep()
    assert await ticketd.lock(two, "l") is True


# Checks and their order.


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("POST", "/tickets/r", "Missing session id"),
        ("POST", "/tickets/r?sessid=", "Missing session id"),
        ("POST", "/tickets/r?sessid=x", "Missing ticket name"),
        ("DELETE", "/tickets/r?name=x", "Missing session id"),
        ("DELETE", "/tickets/r?sessid=x&name=", "Missing ticket name"),
        ("POST", "/claims/r", "Missing session id"),
        ("DELETE", "/claims/r?sessid=x", "Missing ticket name"),
        ("GET", "/claims/r?sessid=x", "Missing ticket name"),
        ("POST", "/locks/r", "Missing session id"),
        ("DELETE", "/locks/r", "Missing session id"),
    ],
)
async def test_what_is_missing_is_told(ticketd: Ticketd, method: str, path: str, text: str) -> None:
    """With 422, before anything else is looked at."""
    assert await ticketd.refused(method, path, data=b"x" * 2000) == (422, text)


async def test_too_much_data_is_told_before_the_session_is_looked_at(ticketd: Ticketd) -> None:
    """1024 bytes pass; one more is a 413, and ends the connection."""
    id = await ticketd.open()
    await ticketd.issue(id, "r", "t", bytes(range(256)) * 4)
    found = (await ticketd.good("GET", "/dump/resources/r"))["r"]["Tickets"]["t"]["Data"]
    assert base64.b64decode(found) == bytes(range(256)) * 4
    got = await ticketd.call("POST", "/tickets/r?sessid=nobody&name=t", data=b"x" * 1025)
    assert got.said == (413, "http: request body too large\n")
    assert got.headers["Connection"] == "close"


@pytest.mark.parametrize("name", ["x" * 201, "a\x01b", "\udcff"])
async def test_names_that_nothing_can_have_find_nothing(ticketd: Ticketd, name: str) -> None:
    """Issuing and locking under one is refused; looking for one finds nothing."""
    id, odd = await ticketd.open(), quote(name, errors="surrogateescape")
    await ticketd.issue(id, "r", "t")
    assert (await ticketd.refused("POST", f"/tickets/{odd}?sessid={id}&name=t"))[0] == 422
    assert (await ticketd.refused("POST", f"/tickets/r?sessid={id}&name={odd}"))[0] == 422
    assert (await ticketd.refused("POST", f"/locks/{odd}?sessid={id}"))[0] == 422
    assert await ticketd.claim(id, odd) is None
    assert await ticketd.has(id, "r", odd) is False
    assert await ticketd.good("DELETE", f"/claims/r?sessid={id}&name={odd}") == "Ok"
    got = await ticketd.call("DELETE", f"/locks/{odd}?sessid={id}")
    assert got.status == 404
    assert got.body.startswith(b"could not find lock resource ")
    assert (await ticketd.call("DELETE", f"/tickets/{odd}?sessid={id}&name=t")).status == 404
    assert (await ticketd.call("DELETE", f"/tickets/r?sessid={id}&name={odd}")).status == 500


async def test_session_ids_of_any_shape_are_just_unknown(ticketd: Ticketd) -> None:
    """Long, odd, native-looking."""
    for id in ("x" * 5000, "%FF", "1-abc", "%C3%A4", "0" * 27, "z" * 27):
        for method in ("GET", "PUT", "DELETE"):
            assert (await ticketd.call(method, f"/sessions/{id}")).status == 404
        assert (await ticketd.call("DELETE", f"/locks/r?sessid={id}")).status == 404


async def test_routes_are_httprouters(ticketd: Ticketd) -> None:
    """Unknown 404, wrong method 405, slashes redirect, an escaped slash divides."""
    assert await ticketd.refused("GET", "/nothing") == (404, "404 page not found")
    assert await ticketd.refused("GET", "/tickets/a%2Fb") == (404, "404 page not found")
    assert await ticketd.refused("PUT", "/tickets/a") == (405, "Method Not Allowed")
    got = await ticketd.call("PUT", "/claims/a")
    assert got.headers["Allow"] == "DELETE, GET, OPTIONS, POST"
    got = await ticketd.call("PUT", "/sessions/a/")
    assert (got.status, got.headers["Location"]) == (307, "/api/v1/sessions/a")


# Looking.


async def test_dumps_are_by_id_and_name(ticketd: Ticketd) -> None:
    """Maps sorted by their keys; sessions of other protocols are left out."""
    ids = sorted([await ticketd.open(f"s{number}") for number in range(3)])
    for resource in ("b", "a", "B"):
        await ticketd.issue(ids[0], resource, "t2")
        await ticketd.issue(ids[0], resource, "t1")
    got = await ticketd.call("GET", "/dump/sessions")
    assert list(json.loads(got.body)) == ids
    shown = await ticketd.good("GET", "/dump/resources")
    assert list(shown) == ["B", "a", "b"]
    assert list(shown["a"]["Tickets"]) == ["t1", "t2"]
    assert shown["a"]["IsLock"] is False
    assert list(await ticketd.good("GET", "/dump/resources/a")) == ["a"]


async def test_a_long_dump_is_made_in_steps(ticketd: Ticketd) -> None:
    """It is whole all the same, and anybody's request may come between."""
    ids = [await ticketd.open() for _ in range(3)]
    # By the machine, as it goes faster.
    for number in range(450):
        ticketd.node.submit(
            IssueTicket(ids[0], f"r{number:03}", "t"), lambda _: None, timeout_ms=60_000
        )
    shown = await ticketd.good("GET", "/dump/resources")
    assert list(shown) == [f"r{number:03}" for number in range(450)]
    assert len((await ticketd.good("GET", "/dump/sessions"))[ids[0]]["Issuances"]) == 450


async def test_status_has_its_fields_in_order(ticketd: Ticketd) -> None:
    """Version, times, sizes."""
    shown = await ticketd.good("GET", "/status")
    assert list(shown) == [
        "Version",
        "Uptime",
        "Started",
        "Uptime_t",
        "Started_t",
        "NumCpus",
        "GoMaxProcs",
        "NumGoroutines",
        "HeapAllocMB",
        "StackAllocMB",
        "SysAllocMB",
        "HeapObjects",
    ]
    assert shown["Version"] == "0.2.0"
    assert shown["Started"] == "2023-11-14T22:13:20Z"
    assert shown["Uptime"].startswith("0 days, 00:00:")


def test_an_uptime_is_in_days_and_a_clock() -> None:
    """Two digits each, however many days."""
    assert uptime(3 * 86_400 + 4 * 3600 + 5 * 60 + 6) == "3 days, 04:05:06"


# Elections, snapshots, garbage.


async def test_an_election_is_waited_for(ticketd: Ticketd) -> None:
    """Writes and reads are held while nobody leads, never answered with an error."""
    id = await ticketd.open()
    ticketd.node.fail_with = NoLeader("nobody leads")
    path = f"/api/v1/sessions/{id}"
    asked = [await ticketd.api.begin(path, parked=0)]
    await until(lambda: not asked[0].done())
    ticketd.node.fail_with = None
    assert (await asked[0]).status == 200


async def test_a_snapshot_keeps_orphans_sweeps_and_locks(ticketd: Ticketd) -> None:
    """Loaded from a snapshot, the same sweep does the same."""
    one, two = await ticketd.open(), await ticketd.open(ttl=100)
    await ticketd.issue(one, "r", "t")
    await ticketd.lock(one, "l")
    await ticketd.claim(two, "r")
    await ticketd.good("DELETE", f"/sessions/{one}")
    rows = list(ticketd.node.machine.dump())
    ticketd.node.machine = Machine.load(snapshot.decode(snapshot.encode(iter(rows))))
    assert list(ticketd.node.machine.dump()) == rows
    assert await ticketd.has(two, "r", "t") is True
    ticketd.sweep()
    assert await ticketd.good("GET", "/dump/resources") == {}
    assert await ticketd.good("GET", "/dump/sessions") == {}


PATHS = ("sessions", "tickets/r", "claims/r", "locks/r", "dump/resources/r", "status")


async def test_no_request_is_a_failure_of_ours(ticketd: Ticketd) -> None:
    """Random methods, paths, queries and bodies: all have an answer, and the next one too."""
    id = await ticketd.open()
    requests: list[tuple[str, str, bytes]] = []

    @given(
        st.sampled_from(("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")),
        st.sampled_from(PATHS),
        st.text(max_size=20),
        st.dictionaries(
            st.sampled_from(("sessid", "name", "ttl")), st.sampled_from((id, "")) | st.text()
        ),
        st.binary(max_size=1100),
    )
    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    def collect(method: str, path: str, more: str, query: dict[str, str], body: bytes) -> None:
        parts = (f"{key}={quote(value)}" for key, value in query.items())
        tail = f"/{quote(more, safe='')}" if more else ""
        requests.append((method, f"/{path}{tail}?{'&'.join(parts)}", body))

    collect()
    for method, path, body in requests:
        got = await ticketd.call(method, path, data=body)
        assert got.status in {200, 301, 307, 404, 405, 413, 422, 500}
        if got.status == 500:
            assert got.body.startswith((b"cannot ", b"unknown ticket "))
    assert (await ticketd.good("GET", f"/sessions/{id}"))["Id"] == id
