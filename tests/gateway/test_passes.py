"""Passes: what we sign, others can check; what others sign, we do not believe."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cluster.gateway.passes import KEY_LABEL, Pass, Passes, PassInvalid, derived_key, sign, verify

KEY, OTHER = b"the first key of these tests" * 3, b"the second key of these tests" * 3


def part(value: Any) -> str:
    """One part of a JWT."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def test_a_pass_is_a_jwt_that_a_library_accepts() -> None:
    """PyJWT verifies it with all its usual checks."""
    text = Passes([KEY]).issue("launch/1", 12, 345, 1_700_000_000_999)
    assert jwt.decode(text, KEY, algorithms=["HS256"]) == {
        "iat": 1_700_000_000,
        "room": "launch/1",
        "made": 12,
        "sub": "345",
    }
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(text, OTHER, algorithms=["HS256"])


def test_the_same_place_has_the_same_pass() -> None:
    """Whichever node signs it, and however often."""
    first, second = (Passes([KEY]).issue("r", 1, 2, 3_000) for _ in range(2))
    assert first == second
    assert Passes([KEY]).read(first) == Pass(3, "r", 1, "2")


def test_a_pass_that_a_library_made_is_read() -> None:
    """The order of claims and the spelling of the header do not matter."""
    claims = {"sub": "7", "made": 1, "room": "r", "iat": 5, "more": [1]}
    text = jwt.encode(claims, KEY, algorithm="HS256", headers={"kid": "1"})
    assert Passes([KEY]).read(text).position == 7


def test_keys_are_changed_without_a_break() -> None:
    """The new key signs, the old one is believed as long as it is listed."""
    old = Passes([KEY]).issue("r", 1, 2, 0)
    both, new = Passes([OTHER, KEY]), Passes([OTHER])
    assert both.read(old).position == 2
    fresh = both.issue("r", 1, 3, 0)
    assert new.read(fresh).position == 3
    with pytest.raises(PassInvalid, match="none of our keys"):
        new.read(old)
    with pytest.raises(PassInvalid, match="none of our keys"):
        Passes([KEY]).read(fresh)


def test_the_vector_of_the_former_system_is_signed_to_the_letter() -> None:
    """Claims are signed as they are given: a compatible front can make its own."""
    claims = b'{"exp":1700010800,"iat":1700000000,"sub":10}'
    assert sign(claims, b"secret") == (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
        "eyJleHAiOjE3MDAwMTA4MDAsImlhdCI6MTcwMDAwMDAwMCwic3ViIjoxMH0."
        "J-4HGO1nrfv5w30CIrAiVVIFxh4uhMxtPdDef_IaVII"
    )
    assert verify(sign(claims, b"secret"), [b"secret"], dict[str, int])["sub"] == 10


def test_what_is_no_pass_is_refused() -> None:
    """Nothing but PassInvalid, whatever is shown."""
    passes = Passes([KEY])
    good = passes.issue("r", 1, 2, 0)
    head, claims, mark = good.split(".")
    none = part({"alg": "none", "typ": "JWT"})
    wrong = [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        good + ".x",
        good + "=",
        good + "A",
        good[:-1],
        f" {good}",
        f"{head}.{claims}.",
        f"{none}.{claims}.",
        f"{none}.{claims}.{mark}",
        f"{head}.{part({'sub': '1'})}.{mark}",
        jwt.encode({"sub": "1"}, KEY * 2, algorithm="HS512"),
        jwt.encode({"sub": "1"}, KEY, algorithm="HS256"),
        jwt.encode({"iat": 0, "room": "r", "made": 1, "sub": 2}, KEY, algorithm="HS256"),
        jwt.encode({"iat": 0, "room": "r", "made": 1, "sub": "0"}, KEY, algorithm="HS256"),
        jwt.encode({"iat": 0, "room": "r", "made": 1, "sub": "-2"}, KEY, algorithm="HS256"),
        jwt.encode({"iat": 0, "room": "r", "made": 1, "sub": "2"}, KEY, "HS256", {"crit": ["x"]}),
        sign(b"[1]", KEY),
        sign(b"\xff", KEY),
        sign(b"[" * 1000, KEY),
        sign(b'{"iat":0,"room":"r","made":1,"sub":"2"}' + b" " * 3000, KEY),
        "é" + good,
        good.replace(".", "．"),
    ]
    for text in wrong:
        with pytest.raises(PassInvalid):
            passes.read(text)


def test_no_changed_byte_goes_unseen() -> None:
    """Each byte of a pass counts, the last bits of a part too."""
    passes = Passes([KEY])
    good = passes.issue("r", 1, 2, 0)
    for place in range(len(good)):
        for other in "AQgw-_.":
            if other != good[place]:
                with pytest.raises(PassInvalid):
                    passes.read(good[:place] + other + good[place + 1 :])


def test_a_cluster_without_keys_derives_one_from_its_secret() -> None:
    """The same on every node, another one for another secret; as a library does HKDF."""
    secret = b"the secret of a cluster"
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=KEY_LABEL)
    assert derived_key(secret) == hkdf.derive(secret)
    assert derived_key(secret) != derived_key(secret + b".")


def test_passes_need_a_key() -> None:
    """Nothing is ever signed with an empty one."""
    with pytest.raises(ValueError, match="need a key"):
        Passes([])


def test_a_pass_says_what_it_says() -> None:
    """The claims in the order in which they are signed."""
    text = Passes([KEY]).issue("r", 1, 2, 9_000)
    data = base64.urlsafe_b64decode(text.split(".")[1] + "==")
    assert msgspec.json.decode(data) == {"iat": 9, "room": "r", "made": 1, "sub": "2"}
    assert data.startswith(b'{"iat":9,"room":')
