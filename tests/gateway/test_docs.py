"""The page to read: all of the document, and nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

from cluster.gateway.server import NATIVE_ROUTES
from tests.gateway.conftest import Api

VOID = frozenset(("meta", "br", "td", "th", "tr"))
"""Elements that need no end; rows and cells end where the next begins."""


class Reader(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.styles: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles.append(data)
        self.text.append(data)


async def read(api: Api) -> Reader:
    """Fetch the page and read it."""
    reader = Reader()
    reader.feed((await api.get("/docs")).raw.decode())
    reader.close()
    assert not reader.open
    return reader


async def test_the_page_has_every_route_with_parameters_codes_and_examples(api: Api) -> None:
    """And its contents lead to each of them."""
    reader = await read(api)
    text = "".join(reader.text)
    ids = {attributes["id"] for _, attributes in reader.elements if "id" in attributes}
    links = {attributes["href"] for tag, attributes in reader.elements if tag == "a"}
    for route in NATIVE_ROUTES:
        assert route.path in text
        assert route.summary.replace("`", "") in text
    assert all(link == "/openapi.json" or (link or "")[1:] in ids for link in links)
    for word in ("lock_held", "Idempotency-Key", "curl -s", '{"ttl":"60s"}', "409 Conflict"):
        assert word in text


async def test_the_page_fetches_nothing_and_runs_nothing(api: Api) -> None:
    """No scripts, no images, no fonts, no frames, no forms; its policy forbids them as well."""
    got = await api.get("/docs")
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"
    reader = await read(api)
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "img", "link", "iframe", "form", "object", "embed", "base"}
    for _, attributes in reader.elements:
        assert not {"src", "srcset", "style", "action"} & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    (style,) = reader.styles
    assert not re.search(r"url\(|@import", style)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy


async def test_the_page_follows_the_reader_s_light_and_dark(api: Api) -> None:
    """By the browser's word alone."""
    (style,) = (await read(api)).styles
    assert "color-scheme: light dark" in style
    assert "prefers-color-scheme: dark" in style
