"""The handshake: two nodes that share a secret meet, everybody else is sent away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.replication.handshake import (
    HANDSHAKE_BYTES_MAX,
    Dialler,
    HandshakeRefused,
    Listener,
    Party,
    Reason,
)

NONCE_D = bytes(range(32))
NONCE_L = bytes(range(100, 132))
SECRET = b"correct horse battery staple"


def party(node: str = "n1", **changes: object) -> Party:
    """A node of the cluster `demo`, of n1, n2 and n3, that has met nobody yet."""
    known: dict[str, str] = {}
    values: dict[str, object] = {
        "cluster": "demo",
        "node": node,
        "boot": 7,
        "identity": f"disk-of-{node}",
        "secret": SECRET,
        "peers": tuple(peer for peer in ("n1", "n2", "n3") if peer != node),
        "known_identity": known.get,
        "learn_identity": known.__setitem__,
    }
    return Party(**{**values, **changes})  # type: ignore[arg-type]


def meet(dialler: Dialler, listener: Listener) -> None:
    """Carry whole messages to and fro until both are done or one refuses."""
    forth = dialler.hello()
    while forth:
        back = listener.receive(forth)
        forth = dialler.receive(back) if back else b""


def messages() -> tuple[bytes, bytes, bytes, bytes]:
    """HELLO, CHALLENGE, PROOF and WELCOME of an ordinary handshake of n1 with n2."""
    dialler, listener = Dialler(party("n1"), "n2", NONCE_D), Listener(party("n2"), NONCE_L)
    hello = dialler.hello()
    challenge = listener.receive(hello)
    proof = dialler.receive(challenge)
    return hello, challenge, proof, listener.receive(proof)


def refusal(call: Callable[[], object]) -> HandshakeRefused:
    """What the call refuses with."""
    with pytest.raises(HandshakeRefused) as caught:
        call()
    return caught.value


def test_two_nodes_with_the_secret_meet() -> None:
    """Each learns the other's name, boot and identity, and both hold the same pair of keys."""
    dialler = Dialler(party("n1", boot=3), "n2", NONCE_D)
    listener = Listener(party("n2", boot=4), NONCE_L)
    meet(dialler, listener)
    ours, theirs = dialler.session, listener.session
    assert ours is not None
    assert theirs is not None
    assert (ours.peer, ours.boot, ours.identity) == ("n2", 4, "disk-of-n2")
    assert (theirs.peer, theirs.boot, theirs.identity) == ("n1", 3, "disk-of-n1")
    assert (ours.send_key, ours.receive_key) == (theirs.receive_key, theirs.send_key)
    assert ours.send_key != ours.receive_key


@given(st.lists(st.integers(1, 60), max_size=30))
def test_the_cut_of_the_stream_does_not_matter(cuts: list[int]) -> None:
    """Whole, byte by byte or in any pieces: the same answers and the same keys."""
    hello, challenge, proof, welcome = messages()

    def feed(side: Dialler | Listener, data: bytes) -> bytes:
        answers = b""
        for size in cuts:
            answers += side.receive(data[:size]) if data else b""
            data = data[size:]
        return answers + b"".join(side.receive(bytes((byte,))) for byte in data)

    dialler, listener = Dialler(party("n1"), "n2", NONCE_D), Listener(party("n2"), NONCE_L)
    assert dialler.hello() == hello
    assert feed(listener, hello) == challenge
    assert feed(dialler, challenge) == proof
    assert feed(listener, proof) == welcome
    assert feed(dialler, welcome) == b""
    assert dialler.session is not None
    assert dialler.rest == b""


def test_what_follows_the_welcome_is_kept() -> None:
    """The listener may send frames at once; they are not the handshake's."""
    _, challenge, _, welcome = messages()
    dialler = Dialler(party("n1"), "n2", NONCE_D)
    dialler.hello()
    dialler.receive(challenge)
    dialler.receive(welcome + b"a frame" * 1000)
    assert dialler.rest == b"a frame" * 1000


def test_each_connection_has_its_own_keys() -> None:
    """Another nonce on either side, other keys in both directions."""
    keys = set()
    for ours, theirs in ((NONCE_D, NONCE_L), (NONCE_L, NONCE_L), (NONCE_D, NONCE_D)):
        dialler, listener = Dialler(party("n1"), "n2", ours), Listener(party("n2"), theirs)
        meet(dialler, listener)
        assert dialler.session is not None
        keys |= {dialler.session.send_key, dialler.session.receive_key}
    assert len(keys) == 6


def test_the_secret_appears_nowhere() -> None:
    """Neither on the wire nor in what is printed of a party or a session."""
    dialler, listener = Dialler(party("n1"), "n2", NONCE_D), Listener(party("n2"), NONCE_L)
    meet(dialler, listener)
    shown = f"{party()!r} {dialler.session!r} {messages()!r}"
    assert "correct horse" not in shown
    assert dialler.session is not None
    assert repr(dialler.session.send_key) not in shown


REFUSALS = {
    "another secret": (party("n1", secret=b"wrong"), party("n2"), Reason.SECRET),
    "another cluster": (party("n1", cluster="prod"), party("n2"), Reason.CLUSTER),
    "another node than the one dialled": (party("n1"), party("n3"), Reason.WRONG_NODE),
    "the node itself": (party("n2", peers=("n1", "n2")), party("n2"), Reason.ITSELF),
    "an unknown name": (party("n9"), party("n2"), Reason.UNKNOWN_NODE),
    "a wiped disk": (
        party("n1", identity="a-new-disk"),
        party("n2", known_identity={"n1": "disk-of-n1"}.get),
        Reason.IDENTITY,
    ),
    "a disk set back": (party("n1", boot=5), party("n2", starts={"n1": 6}), Reason.START),
}


@pytest.mark.parametrize(
    ("caller", "called", "reason"), REFUSALS.values(), ids=list(REFUSALS.keys())
)
def test_the_listener_refuses(caller: Party, called: Party, reason: Reason) -> None:
    """Who is not exactly the expected peer is sent away, and is told why in one byte."""
    dialler, listener = Dialler(caller, "n2", NONCE_D), Listener(called, NONCE_L)
    proof = dialler.receive(listener.receive(dialler.hello()))
    refused = refusal(lambda: listener.receive(proof))
    assert refused.reason is reason
    assert listener.session is None
    told = refusal(lambda: dialler.receive(refused.farewell))
    assert told.reason is reason
    assert "refused us" in str(told)
    assert dialler.session is None


def test_the_dialler_refuses_a_wiped_listener_too() -> None:
    """A node that lost its disk is as dangerous to those who dial it."""
    dialler = Dialler(party("n1", known_identity={"n2": "old"}.get), "n2", NONCE_D)
    refused = refusal(lambda: meet(dialler, Listener(party("n2"), NONCE_L)))
    assert refused.reason is Reason.IDENTITY
    assert refused.peer == "n2"
    assert "operator" in str(refused)
    # The listener has let us in already: nothing but frames may follow.
    assert refused.farewell == b""


def test_the_dialler_refuses_a_listener_in_a_start_from_before() -> None:
    """The same start comes back after each loss of a connection, a later one after a restart."""
    caller = party("n1")
    for boot in (7, 7, 9):
        meet(Dialler(caller, "n2", NONCE_D), Listener(party("n2", boot=boot), NONCE_L))
    refused = refusal(
        lambda: meet(Dialler(caller, "n2", NONCE_D), Listener(party("n2", boot=8), NONCE_L))
    )
    assert refused.reason is Reason.START
    assert "n2 is in an earlier start" in str(refused)


def test_a_peer_is_known_again_by_its_identity() -> None:
    """The first meeting is remembered on both sides, later ones change nothing."""
    known: dict[str, dict[str, str]] = {"n1": {}, "n2": {}}

    def again(node: str) -> Party:
        return party(node, known_identity=known[node].get, learn_identity=known[node].__setitem__)

    for _ in range(2):
        meet(Dialler(again("n1"), "n2", NONCE_D), Listener(again("n2"), NONCE_L))
        assert known == {"n1": {"n2": "disk-of-n2"}, "n2": {"n1": "disk-of-n1"}}


def test_nothing_is_learnt_from_who_does_not_know_the_secret() -> None:
    """A stranger cannot plant an identity, and so lock the real node out."""
    known: dict[str, str] = {}
    listener = Listener(party("n2", learn_identity=known.__setitem__), NONCE_L)
    stranger = Dialler(party("n1", secret=b"guess", identity="planted"), "n2", NONCE_D)
    refusal(lambda: meet(stranger, listener))
    assert known == {}


def test_a_listener_without_the_secret_is_refused() -> None:
    """A stranger at the dial address cannot pass for the peer, even with a proof to look at."""
    dialler = Dialler(party("n1"), "n2", NONCE_D)
    hello, challenge, proof, _ = messages()
    dialler.hello()
    dialler.receive(challenge)
    stranger = Listener(party("n2", secret=b"guess"), NONCE_L)
    stranger.receive(hello)
    # It lets everyone in.
    stranger._check_mac = lambda *_: None  # type: ignore[method-assign]
    welcome = stranger.receive(proof)
    assert refusal(lambda: dialler.receive(welcome)).reason is Reason.SECRET


def test_a_proof_cannot_be_replayed() -> None:
    """Recorded bytes of a good handshake fail against another challenge."""
    hello, _, proof, _ = messages()
    listener = Listener(party("n2"), NONCE_D)
    listener.receive(hello)
    assert refusal(lambda: listener.receive(proof)).reason is Reason.SECRET


def test_a_welcome_cannot_be_replayed() -> None:
    """Recorded answers of a good listener fail against another hello."""
    _, challenge, _, welcome = messages()
    dialler = Dialler(party("n1"), "n2", NONCE_L)
    dialler.hello()
    dialler.receive(challenge)
    assert refusal(lambda: dialler.receive(welcome)).reason is Reason.SECRET


def test_a_proof_cannot_be_reflected() -> None:
    """What n1 proves as a dialler does not let anybody in at n1."""
    dialler, listener = Dialler(party("n1"), "n2", NONCE_D), Listener(party("n1"), NONCE_L)
    proof = dialler.receive(listener.receive(dialler.hello()))
    assert refusal(lambda: listener.receive(proof)).reason is Reason.ITSELF


def test_any_changed_byte_ends_the_handshake() -> None:
    """Flip each byte of each message in turn: nobody is let in, nothing else is raised."""
    hello, challenge, proof, welcome = messages()
    flips = 0
    for turn, message in enumerate((hello, challenge, proof, welcome)):
        for at in range(len(message)):
            flipped = bytearray(message)
            flipped[at] ^= 1 << at % 8
            sent = [hello, challenge, proof, welcome]
            sent[turn] = bytes(flipped)
            dialler, listener = Dialler(party("n1"), "n2", NONCE_D), Listener(party("n2"), NONCE_L)
            dialler.hello()
            try:
                listener.receive(sent[0])
                dialler.receive(sent[1])
                listener.receive(sent[2])
                dialler.receive(sent[3])
            except HandshakeRefused:
                pass
            if turn in (0, 2):
                # The challenge alone reaches n1 only: its proof would differ, and fail, at n2.
                assert listener.session is None, (turn, at)
            if turn in (1, 3):
                assert dialler.session is None, (turn, at)
            flips += 1
    assert flips == sum(map(len, (hello, challenge, proof, welcome)))


@given(st.binary(max_size=2000))
def test_any_bytes_are_refused_or_waited_for(data: bytes) -> None:
    """Garbage raises nothing but a refusal, on either side."""
    for side in (Listener(party("n2"), NONCE_L), Dialler(party("n1"), "n2", NONCE_D)):
        if isinstance(side, Dialler):
            side.hello()
        try:
            side.receive(data)
        except HandshakeRefused as refused:
            assert refused.reason in (Reason.MALFORMED, Reason.VERSION)
        assert side.session is None


@given(st.binary(max_size=300), st.integers(0, 6))
def test_any_body_in_a_good_head_is_refused_or_waited_for(body: bytes, kind: int) -> None:
    """The parsers of the bodies raise nothing but a refusal."""
    hello, challenge, _, _ = messages()
    message = b"coterie" + bytes((kind,)) + len(body).to_bytes(2, "big") + body
    for said in (b"", hello):
        listener = Listener(party("n2"), NONCE_L)
        listener.receive(said)
        refusal(lambda at=listener: at.receive(message))
    for said in (b"", challenge):
        dialler = Dialler(party("n1"), "n2", NONCE_D)
        dialler.hello()
        dialler.receive(said)
        refusal(lambda at=dialler: at.receive(message))


def test_a_stranger_is_told_from_its_first_byte() -> None:
    """No need to wait for a whole head: an HTTP client is no node."""
    refused = refusal(lambda: Listener(party("n2"), NONCE_L).receive(b"G"))
    assert refused.reason is Reason.MALFORMED
    assert refused.farewell == b""


def test_more_than_a_kilobyte_is_refused_at_its_announcement() -> None:
    """A long message is refused when its head says so, not when it has arrived."""
    head = b"coterie\x01" + HANDSHAKE_BYTES_MAX.to_bytes(2, "big")
    refused = refusal(lambda: Listener(party("n2"), NONCE_L).receive(head))
    assert refused.reason is Reason.MALFORMED


def test_bytes_before_the_welcome_are_refused() -> None:
    """A dialler waits to be let in; frames glued to the proof come from no node of ours."""
    hello, _, proof, _ = messages()
    listener = Listener(party("n2"), NONCE_L)
    listener.receive(hello)
    assert refusal(lambda: listener.receive(proof + b"x")).reason is Reason.MALFORMED
    assert listener.session is None


def test_another_version_is_refused_by_its_number() -> None:
    """Whatever else a future version says, both sides can tell why they do not meet."""
    future = b"coterie\x01\x00\x05\x00\x02new"
    refused = refusal(lambda: Listener(party("n2"), NONCE_L).receive(future))
    assert refused.reason is Reason.VERSION
    assert "version 2" in str(refused)
    dialler = Dialler(party("n1"), "n2", NONCE_D)
    dialler.hello()
    assert refusal(lambda: dialler.receive(refused.farewell)).reason is Reason.VERSION


@pytest.mark.parametrize("body", [b"", b"\x00", b"\xff"])
def test_a_refusal_without_a_known_reason_is_malformed(body: bytes) -> None:
    """The reason byte of a stranger is checked like everything else."""
    dialler = Dialler(party("n1"), "n2", NONCE_D)
    dialler.hello()
    message = b"coterie\x05" + len(body).to_bytes(2, "big") + body
    assert refusal(lambda: dialler.receive(message)).reason is Reason.MALFORMED


def test_the_longest_names_fit_the_limit() -> None:
    """Four fields of their greatest length stay below what a stranger may say."""
    longest = {"cluster": "c" * 128, "identity": "i" * 128, "peers": ("p" * 128, "q" * 128)}
    dialler = Dialler(party("p" * 128, **longest), "q" * 128, NONCE_D)
    meet(dialler, Listener(party("q" * 128, **longest), NONCE_L))
    assert dialler.session is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": b""},
        {"cluster": ""},
        {"node": "n" * 129},
        {"identity": ""},
        {"peers": ("",)},
        {"boot": -1},
        {"boot": 2**64},
    ],
    ids=str,
)
def test_a_party_that_could_not_introduce_itself_is_not_made(changes: dict[str, object]) -> None:
    """An empty secret above all."""
    with pytest.raises(ValueError):
        dataclasses.replace(party(), **changes)  # type: ignore[arg-type]


def test_a_nonce_has_32_bytes() -> None:
    """A short one would be our own mistake, and a grave one."""
    with pytest.raises(ValueError):
        Listener(party(), b"short")
