"""The page that shows the OpenAPI document to people, whole and offline.

RULE: reads the document and nothing else; makes one static page without scripts, which fetches
nothing from anywhere. Everything that is not ours to write is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
from collections.abc import Iterator, Mapping
from html import escape
from http import HTTPStatus
from typing import Any, Final

import msgspec

from cluster.gateway.replies import JSON

Object = Mapping[str, Any]
"""An object of the document."""

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --link: #0b5cad;
  --mono: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (prefers-color-scheme: dark) { :root { --link: #7db7f0; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; display: grid;
  grid-template-columns: 20rem minmax(0, 1fr); }
nav { position: sticky; top: 0; height: 100vh; overflow: auto; padding: 1rem;
  border-right: 1px solid var(--line); font-size: .85rem; }
nav ul { list-style: none; margin: 0 0 1rem; padding: 0; }
nav li { overflow-wrap: anywhere; margin: .2rem 0; }
main { padding: 1rem 2rem 4rem; max-width: 62rem; }
a { color: var(--link); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
h1, h2, h3, h4 { line-height: 1.25; }
h2 { margin-top: 3rem; text-transform: capitalize; }
article { border-top: 1px solid var(--line); padding: .5rem 0 1.5rem; scroll-margin-top: 1rem; }
h3 { font: 600 1.05rem/1.4 var(--mono); overflow-wrap: anywhere; }
h4 { margin: 1.2rem 0 .3rem; font-size: .95rem; }
.method { display: inline-block; min-width: 4.2rem; }
.GET { color: #1a7f5a; } .POST { color: #1f6fd0; } .PUT { color: #a86400; } .DELETE { color: #c43c3c; }
@media (prefers-color-scheme: dark) { .GET { color: #4cc38a; } .POST { color: #7db7f0; }
  .PUT { color: #e0a552; } .DELETE { color: #f08a8a; } }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
th { font-weight: 600; }
code, pre { font-family: var(--mono); font-size: .85rem; }
pre { background: var(--soft); padding: .75rem; border-radius: .4rem; overflow: auto; margin: .4rem 0; }
details { margin: .5rem 0; } summary { cursor: pointer; }
@media (max-width: 50rem) { body { display: block; } nav { position: static; height: auto;
  border-right: 0; border-bottom: 1px solid var(--line); } main { padding: 1rem; } }
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
CONTENT_TYPE: Final = "text/html; charset=utf-8"
FIELDS: Final[tuple[tuple[str, str], ...]] = (
    (
        "Content-Security-Policy",
        _POLICY,
    ),
    ("Referrer-Policy", "no-referrer"),
)
"""Header fields of the page: nothing may be fetched, and only our own style counts."""


def page(document: bytes) -> bytes:
    """Make the page.

    Args:
        document: as `openapi.document` makes it.
    """
    return "\n".join(_Page(msgspec.json.decode(document)).lines()).encode()


class _Page:
    """One document on its way to a page."""

    def __init__(self, document: Object) -> None:
        self._document = document
        self._schemas: Object = document["components"]["schemas"]
        self._operations: list[tuple[str, str, Object]] = [
            (method.upper(), path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ]

    def lines(self) -> Iterator[str]:
        info = self._document["info"]
        title = f"{escape(info['title'])} {escape(info['version'])}"
        yield "<!doctype html>"
        yield f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
        yield f"<style>{_STYLE}</style></head><body>"
        yield from self._contents()
        yield f"<main><h1>{title}</h1><p>{_prose(info['summary'])}</p>"
        yield f"<p>{_prose(info['description'])}</p>"
        yield '<p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        for tag in self._document["tags"]:
            yield f'<section id="{_id(tag["name"])}"><h2>{escape(tag["name"])}</h2>'
            yield f"<p>{_prose(tag['description'])}</p>"
            for method, path, operation in self._of(tag["name"]):
                yield from self._operation(method, path, operation)
            yield "</section>"
        yield '<section id="values"><h2>Values</h2>'
        for name, schema in sorted(self._schemas.items()):
            yield f'<article id="{_id("value", name)}"><h3>{escape(name)}</h3>'
            yield from self._fields(schema)
            yield "</article>"
        yield "</section></main></body></html>"

    def _of(self, tag: str) -> list[tuple[str, str, Object]]:
        return [row for row in self._operations if tag in row[2]["tags"]]

    def _contents(self) -> Iterator[str]:
        yield '<nav aria-label="Contents">'
        for tag in self._document["tags"]:
            name = tag["name"]
            yield f'<a href="#{_id(name)}"><b>{escape(name)}</b></a><ul>'
            for method, path, operation in self._of(name):
                yield (
                    f'<li><a href="#{_id(operation["operationId"])}">'
                    f'<code class="{method}">{method}</code> {escape(path)}</a></li>'
                )
            yield "</ul>"
        yield '<a href="#values"><b>values</b></a></nav>'

    def _operation(self, method: str, path: str, operation: Object) -> Iterator[str]:
        anchor = _id(operation["operationId"])
        yield f'<article id="{anchor}"><h3><a href="#{anchor}"><span class="method {method}">'
        yield f"{method}</span>{escape(path)}</a></h3><p>{_prose(operation['summary'])}</p>"
        if parameters := operation.get("parameters"):
            yield "<h4>Parameters</h4><table><tr><th>Name<th>Where<th>Value<th>Meaning</tr>"
            for one in parameters:
                needed = " (required)" if one["required"] else ""
                yield (
                    f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}{needed}"
                    f"<td>{self._kind(one['schema'])}<td>{_prose(one.get('description', ''))}</tr>"
                )
            yield "</table>"
        if body := operation.get("requestBody"):
            yield "<h4>Body, as JSON or CBOR</h4>"
            yield from self._fields(body["content"][JSON]["schema"])
        yield from self._answers(operation["responses"])
        yield from self._examples(method, path, operation)
        yield "</article>"

    def _answers(self, responses: Object) -> Iterator[str]:
        yield "<h4>Answers</h4><table><tr><th>Status<th>What it means</tr>"
        for status, response in responses.items():
            schema = response.get("content", {}).get(JSON, {}).get("schema")
            shape = "" if schema is None else f": {self._kind(schema)}"
            headers = [f"<code>{escape(name)}</code>" for name in response.get("headers", {})]
            fields = f"<br>Header: {', '.join(headers)}" if int(status) < 300 and headers else ""
            phrase = escape(HTTPStatus(int(status)).phrase)
            meaning = _prose(response["description"].replace("; ", "\n"))
            yield f"<tr><td>{status} {phrase}<td>{meaning}{shape}{fields}</tr>"
        yield "</table>"
        for response in responses.values():
            if schema := response.get("content", {}).get(JSON, {}).get("schema"):
                yield from self._fields(schema)
                return

    def _fields(self, schema: Object) -> Iterator[str]:
        """A table of an object's members, or what else it is."""
        if reference := schema.get("$ref"):
            schema = self._schemas[_name(reference)]
        if text := schema.get("description"):
            yield f"<p>{_prose(text)}</p>"
        members: Object = schema.get("properties", {})
        if not members:
            return
        required = schema.get("required", ())
        yield "<table><tr><th>Field<th>Value<th>Meaning</tr>"
        for name, member in members.items():
            default = ""
            if "default" in member:
                default = f"; default <code>{escape(_json(member['default']))}</code>"
            elif name in required:
                default = "; required"
            yield (
                f"<tr><td><code>{escape(name)}</code><td>{self._kind(member)}{default}"
                f"<td>{_prose(member.get('description', ''))}</tr>"
            )
        yield "</table>"

    def _kind(self, schema: Object) -> str:
        """What a value may be, in a few words; values of ours are links."""
        if reference := schema.get("$ref"):
            name = _name(reference)
            return f'<a href="#{_id("value", name)}">{escape(name)}</a>'
        for choice in ("anyOf", "oneOf"):
            if choice in schema:
                return " or ".join(dict.fromkeys(self._kind(one) for one in schema[choice]))
        if "const" in schema:
            return f"<code>{escape(_json(schema['const']))}</code>"
        if "enum" in schema:
            return " or ".join(f"<code>{escape(_json(one))}</code>" for one in schema["enum"])
        kind = schema.get("type", "anything")
        if kind == "array":
            return f"list of {self._kind(schema.get('items', {}))}"
        bounds = [
            f"{sign} {schema[name]}"
            for name, sign in (("minimum", "≥"), ("maximum", "≤"), ("maxLength", "length ≤"))
            if name in schema
        ]
        words = kind if isinstance(kind, str) else " or ".join(kind)
        return escape(", ".join([words, *bounds]))

    def _examples(self, method: str, path: str, operation: Object) -> Iterator[str]:
        for example in operation.get("x-examples", ()):
            yield f"<details><summary>Example: {escape(example['title'])}</summary>"
            yield f"<pre>{escape(_curl(method, example))}</pre>"
            yield f"<pre>{example['status']} {escape(HTTPStatus(example['status']).phrase)}"
            if "answer" in example:
                yield escape(_pretty(example["answer"]))
            yield "</pre></details>"


def _curl(method: str, example: Object) -> str:
    words = ["curl -s"]
    if method != ("POST" if "body" in example else "GET"):
        words.append(f"-X {method}")
    words.append(shlex.quote(f"http://127.0.0.1:7101{example['target']}"))
    for name, value in example.get("headers", {}).items():
        words.append(f"-H {shlex.quote(f'{name}: {value}')}")
    if "body" in example:
        words.append(f"--json {shlex.quote(_json(example['body']))}")
    return " ".join(words)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _pretty(answer: Any) -> str:
    """An object as lines; a stream is text already."""
    if isinstance(answer, str):
        return answer
    return msgspec.json.format(msgspec.json.encode(answer), indent=2).decode()


def _name(reference: str) -> str:
    return reference.rpartition("/")[2]


def _id(*words: str) -> str:
    return re.sub(r"\W", "-", "-".join(words))


def _prose(text: str) -> str:
    """Escape a text; `words` in backticks are code, and lines are kept apart."""
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return marked.replace("\n\n", "<br><br>").replace("\n", "<br>")
