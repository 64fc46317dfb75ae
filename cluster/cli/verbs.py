"""Verbs as rows of a table, and the one implementation of all of them.

RULE: a verb says what is called, what it is told and what of the answer is shown; how it is asked,
repeated, printed and failed is the same for all. Nothing heavy is loaded before a verb runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import click

from cluster.cli import exits, rendering
from cluster.cli.words import Duration, authorities, cluster_options, leave, roughly, say

if TYPE_CHECKING:
    from cluster.client.aio import Client
    from cluster.client.core import Request

F = TypeVar("F", bound=Callable[..., Any])
Told: TypeAlias = dict[str, Any]
Kind: TypeAlias = Literal["text", "number", "time", "switch", "payload", "pair"] | tuple[str, ...]

WAIT_MS_MAX = 3_600_000
SILENCE_S = 2.0
"""Nobody who looks at a terminal waits for longer without a word."""


@dataclass(frozen=True, slots=True)
class Live:
    """Where names can be had from for completion: `items[].field` of `GET path?prefix=`."""

    path: str
    items: str
    field: str = "name"


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One thing that a verb is told, by an argument or an option.

    Attributes:
        name: field of the body, of the path or of the query.
        flag: `--session`; empty for an argument.
        place: where it goes; `bearer` is the header that shows a pass.
        kind: how it is read. A `payload` is text, or bytes as base64; a `time` is milliseconds.
        live: names to complete it with.
    """

    name: str
    flag: str = ""
    meaning: str = ""
    place: Literal["path", "query", "body", "bearer"] = "body"
    kind: Kind = "text"
    default: Any = None
    is_required: bool = False
    is_many: bool = False
    environ: str | None = None
    live: Live | None = None
    shown: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One subcommand.

    Attributes:
        path: names in braces are words.
        columns: of a table with one line for each thing; without any, the thing in detail.
        things: the list in the answer whose items are the things; None: the answer is the thing.
        name_of: field that `-o name` prints of each thing.
        done: what is said where the answer is empty.
        render: text for people, where neither a table nor details will do.
        view: the things, where they do not stand in one list.
        yes: whether the answer is a yes; a no makes the exit code 1. A text is a field of it.
        each: word that may come several times, each a request of its own.
        prepare: completes what was told, from the standard input say, before anything is asked.
        shape: makes the body of what was told, where that is not the same.
        is_question: a read, whatever its method.
        is_repeatable: a write that may be done again as it is, so that it needs no key.
        has_pages: goes on with `after` until there is no more.
        examples: lines for a shell, which work one after another.
        more: further sentences of the help.
    """

    name: str
    summary: str
    call: str
    words: tuple[Word, ...] = ()
    columns: tuple[str, ...] = ()
    things: str | None = None
    name_of: str = ""
    done: str = ""
    render: Callable[[Told], str] | None = None
    view: Callable[[Told], list[Told]] | None = None
    yes: str | Callable[[Told], bool] | None = None
    each: str | None = None
    prepare: Callable[[Told], Told] | None = None
    shape: Callable[[Told], Told] | None = None
    is_question: bool = False
    is_repeatable: bool = False
    has_pages: bool = False
    examples: tuple[str, ...] = ()
    more: str = ""

    @property
    def is_read(self) -> bool:
        """It changes nothing."""
        return self.method == "GET" or self.is_question

    def says_yes(self, answer: Told) -> bool:
        """The answer is what was asked for."""
        if self.yes is None:
            return True
        return self.yes(answer) if callable(self.yes) else bool(answer.get(self.yes))

    @property
    def method(self) -> str:
        """HTTP method."""
        return self.call.partition(" ")[0]

    @property
    def path(self) -> str:
        """Path with names in braces."""
        return self.call.partition(" ")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A primitive: its verbs under one name, and the other names under which it is found."""

    name: str
    summary: str
    verbs: tuple[Verb, ...]
    also: tuple[str, ...] = ()
    more: str = ""
    first: tuple[str, ...] = field(default=())

    @property
    def examples(self) -> tuple[str, ...]:
        """All examples, in an order in which they work."""
        return (*self.first, *(line for verb in self.verbs for line in verb.examples))


# Words that many verbs share.


def part(name: str, live: Live | None = None, *, is_many: bool = False) -> Word:
    """An argument that is a part of the path."""
    return Word(name=name, place="path", is_required=True, live=live, is_many=is_many)


def option(name: str, meaning: str, **more: Any) -> Word:
    """An option named like its field."""
    return Word(name=name, flag=f"--{name.replace('_', '-')}", meaning=meaning, **more)


SESSIONS = Live("/v1/sessions", "sessions", "session")
SESSION = option(
    "session",
    'Who asks: a session of yours, from "coterie sessions open".  [COTERIE_SESSION]',
    is_required=True,
    environ="COTERIE_SESSION",
    live=SESSIONS,
)
SESSION_IF_ANY = option(
    "session", "A session that it ends with.  [COTERIE_SESSION]", environ="COTERIE_SESSION"
)
TOKEN = option("token", "Token that the grant gave.", kind="number", is_required=True)
LOCK_TOKEN = option(
    "token",
    "Token that the grant gave.  [COTERIE_TOKEN]",
    kind="number",
    is_required=True,
    environ="COTERIE_TOKEN",
)
WAIT = option("wait", "How long to wait for it; without, ask once.", kind="time")
PRIORITY = option("priority", "Smaller goes first.", kind="number")
PREFIX = option("prefix", "Only names that begin with this.", place="query")
LIMIT = option("limit", "At most so many; without, all.", place="query", kind="number")


def command_of(group: Group) -> click.Group:
    """Make the subcommand of a primitive."""
    made = click.Group(
        group.name,
        help=group.summary + (f"\n\n{group.more}" if group.more else ""),
        short_help=group.summary,
        epilog=_epilog((*group.first, *(_first_of(verb) for verb in group.verbs[:4]))),
    )
    for verb in group.verbs:
        made.add_command(command_alone(verb))
    return made


def command_alone(verb: Verb) -> click.Command:
    """Make the command of one verb."""

    def run(**told: Any) -> None:
        context = click.get_current_context()
        given = Given(
            endpoints=told.pop("endpoints"),
            output=told.pop("output"),
            timeout_ms=told.pop("timeout_ms"),
            key=told.pop("request_key", None),
            is_stale=told.pop("is_stale", False),
        )
        leave(execute(verb, told, given, who=context.command_path))

    command = click.Command(
        verb.name,
        callback=run,
        params=[_parameter(word) for word in verb.words],
        help=verb.summary + (f"\n\n{verb.more}" if verb.more else ""),
        short_help=verb.summary,
        epilog=_epilog(verb.examples),
    )
    return asking_options(command, is_read=verb.is_read, has_key=not verb.is_repeatable)


def _first_of(verb: Verb) -> str:
    return verb.examples[0]


def _epilog(examples: Iterable[str]) -> str:
    lines = "\n".join(f"  {line}" for line in examples)
    return f"\b\nExamples:\n{lines}\n\nExit codes: see coterie --help"


def asking_options(command: F, *, is_read: bool, has_key: bool = False) -> F:
    """Add what every command that asks the cluster has."""
    if is_read:
        click.option(
            "--stale", "is_stale", is_flag=True, help="As the asked node knows it, at once."
        )(command)
    elif has_key:
        click.option(
            "--key",
            "request_key",  # A job has a key as well.
            metavar="TEXT",
            help="Idempotency-Key: asked again with the same one, it happens once.",
        )(command)
    timeout_option(command)
    cluster_options(command)
    form_option(command)
    return command


def timeout_option(command: F) -> F:
    """Add `--timeout`."""
    return click.option(
        "--timeout",
        "timeout_ms",
        type=Duration(10, WAIT_MS_MAX),
        default="10s",
        show_default=True,
        help="How long to try in all, a wait apart.",
    )(command)


def form_option(command: F) -> F:
    """Add `-o`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(rendering.FORMS),
        help="Form of the answer.  [table on a terminal, else lines of fields with tabs]",
    )(command)


def _parameter(word: Word) -> click.Parameter:
    settings: dict[str, Any] = {"type": _type_of(word.kind), "envvar": word.environ}
    if word.live is not None:
        settings["shell_complete"] = completer(word.live)
    if not word.flag:
        # click takes an empty list of many for "not given".
        return click.Argument(
            [word.name],
            required=word.is_required,
            nargs=-1 if word.is_many else 1,
            metavar=word.shown,
            **settings,
        )
    if word.kind == "switch":
        return click.Option([word.flag, word.name], is_flag=True, help=word.meaning)
    if word.default is not None:
        # None said in so many words would be a value, and a missing option would go unnoticed.
        settings["default"] = word.default
    return click.Option(
        [word.flag, word.name],
        required=word.is_required,
        show_default=word.default is not None,
        multiple=word.is_many,
        metavar=word.shown,
        help=word.meaning,
        **settings,
    )


def _type_of(kind: Kind) -> Any:
    if isinstance(kind, tuple):
        return click.Choice(kind)
    if kind == "number":
        return click.INT
    return Duration() if kind == "time" else click.STRING


def completer(live: Live) -> Callable[..., list[str]]:
    """What click asks for the names of live things."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        from cluster.cli.completion import names

        # click completes outside of the context, which knows --ca.
        with ctx.scope(cleanup=False):
            found: list[str] = names(live, incomplete, ctx.params.get("endpoints"))
        return found

    return complete


# Asking.


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What every command that asks is given.

    Attributes:
        output: `-o`; None where it was left out.
        timeout_ms: how long to try in all.
        key: Idempotency-Key of one's own.
        is_stale: a read of what the asked node knows will do.
    """

    endpoints: tuple[str, ...]
    output: str | None = None
    timeout_ms: int = 10_000
    key: str | None = None
    is_stale: bool = False


def execute(verb: Verb, told: Told, given: Given, *, who: str) -> int:
    """Ask, print what came, and return the exit code."""
    from cluster.errors import CoterieError

    form = rendering.form_of(given.output)
    answers: list[Told] = []
    if verb.prepare is not None:
        told = verb.prepare(told)
    requests = list(requests_of(verb, told, given))
    at = 0

    async def ask_all() -> None:
        nonlocal at
        from cluster.client.aio import Client

        if sys.stderr.isatty() and not any(request.wait_ms for request in requests):
            tried = f"{who}: no answer yet; it is tried for {roughly(given.timeout_ms)}"
            asyncio.get_running_loop().call_later(SILENCE_S, say, tried)
        async with Client(
            given.endpoints, timeout_ms=given.timeout_ms, tls=authorities()
        ) as client:
            for at, request in enumerate(requests):  # noqa: B007 - tells which one failed
                answers.append(await ask(client, request, verb, told))

    try:
        asyncio.run(ask_all())
    except CoterieError as error:
        show(verb, answers, form)
        click.echo(exits.told(error, form, who=who, key=requests[at].key), err=True)
        return exits.code_of(error, is_read=verb.is_read)
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    show(verb, answers, form)
    return exits.DONE if all(map(verb.says_yes, answers)) else exits.REFUSED


def requests_of(verb: Verb, told: Told, given: Given) -> Iterator[Request]:
    """The requests that a verb makes of what it was told."""
    if verb.each is None:
        yield _request(verb, told, given, given.key)
        return
    values = told[verb.each]
    for place, value in enumerate(values):
        # One key for each request, else the second would be taken for the first again.
        key = given.key if given.key is None or len(values) == 1 else f"{given.key}:{place}"
        yield _request(verb, told | {verb.each: value}, given, key)


def _request(verb: Verb, told: Told, given: Given, key: str | None) -> Request:
    from urllib.parse import quote, urlencode

    from cluster.client.aio import new_key
    from cluster.client.core import Request

    places: dict[str, Told] = {"path": {}, "query": {}, "body": {}, "bearer": {}}
    for word in verb.words:
        value = told.get(word.name)
        if value is None or (value is False and word.kind == "switch") or value == ():
            continue
        places[word.place][word.name] = _worded(word, value)
    body: Told | None = places["body"]
    if verb.shape is not None:
        body = verb.shape(places["body"])
    query = places["query"]
    if verb.is_read and given.is_stale:
        query["consistency"] = "stale"
    path = verb.path.format_map({k: quote(str(v), safe="") for k, v in places["path"].items()})
    return Request(
        verb.method,
        path + (f"?{urlencode(query, doseq=True)}" if query else ""),
        body if verb.method in {"POST", "PUT"} else None,
        key=None if verb.is_read or verb.is_repeatable else key or new_key(),
        wait_ms=int((body or {}).get("wait") or 0),
        is_repeatable=verb.is_read or verb.is_repeatable,
        bearer=next(iter(places["bearer"].values()), None),
    )


def _worded(word: Word, value: Any) -> Any:
    """A value as the API has it."""
    if word.kind == "payload":
        return payload(value)
    if word.place == "query" and isinstance(value, bool):
        return "true"
    return list(value) if isinstance(value, tuple) else value


async def ask(client: Client, request: Request, verb: Verb, told: Told) -> Told:
    """One request, and the pages behind it.

    Raises:
        CoterieError: what became of it.
    """
    answer = await _patiently(client, request)
    if not verb.has_pages or told.get("limit") is not None or verb.things is None:
        return answer
    following = answer.get("next")
    while following is not None:
        page = await client.call(_page(request, str(following)))
        answer[verb.things] += page.body[verb.things]
        following = page.body.get("next")
    answer.pop("next", None)
    return answer


async def _patiently(client: Client, request: Request) -> Told:
    """Ask; where a node took our broken connection for a client that hung up, ask anew."""
    from msgspec.structs import replace

    from cluster.client.aio import new_key, now_ms
    from cluster.errors import Refused

    until_ms = now_ms() + request.wait_ms
    while True:
        try:
            return (await client.call(request)).body
        except Refused as error:
            left_ms = until_ms - now_ms()
            if error.code != "withdrawn" or left_ms <= 0 or request.body is None:
                raise
            body = {**request.body, "wait": left_ms}
            request = replace(request, body=body, key=new_key(), wait_ms=left_ms)


def _page(request: Request, after: str) -> Request:
    from urllib.parse import quote

    from msgspec.structs import replace

    mark = "&" if "?" in request.path else "?"
    return replace(request, path=f"{request.path}{mark}after={quote(after, safe='')}")


# Showing.


def show(verb: Verb, answers: Sequence[Told], form: str) -> None:
    """Print the answers."""
    if not answers:
        return
    if form in {"json", "yaml"}:
        whole = answers[0] if verb.each is None or len(answers) == 1 else {"answers": answers}
        click.echo(rendering.as_data(whole, form))
        return
    things = [thing for answer in answers for thing in _things_in(verb, answer)]
    if form == "name":
        names = [rendering.pick(thing, verb.name_of) for thing in things if verb.name_of]
        text = "\n".join(str(name) for name in names if name is not None)
    elif verb.render is not None:
        text = "\n\n".join(map(verb.render, answers))
    elif verb.columns:
        text = rendering.rows(things, verb.columns, form) if things or form == "table" else ""
        text += _rest(verb, answers, form)
    else:
        text = "\n\n".join(rendering.detail(thing, form) for thing in things if thing)
    if not any(answers) and verb.done and form == "table":
        text = verb.done
    if text:
        click.echo(text)


def _things_in(verb: Verb, answer: Told) -> Sequence[Mapping[str, Any]]:
    if verb.view is not None:
        return verb.view(answer)
    if verb.things is None:
        return [answer] if answer else []
    found = answer.get(verb.things)
    if found is None:
        return []
    if isinstance(found, Mapping):
        return [found]
    return [each if isinstance(each, Mapping) else {verb.name_of: each} for each in found]


def _rest(verb: Verb, answers: Sequence[Told], form: str) -> str:
    """What a list was cut off at, for people."""
    following = answers[-1].get("next") if verb.has_pages else None
    return f"\n… more behind {following}" if following is not None and form == "table" else ""


# Reading what was given.


def payload(value: str | bytes) -> str | Told:
    """Text as it is; bytes that are no text in the form of the API."""
    if isinstance(value, str):
        try:
            value.encode()
            return value
        except UnicodeEncodeError:
            # An argument that is no UTF-8 comes with surrogates in place of its bytes.
            value = value.encode(errors="surrogateescape")
    try:
        return value.decode()
    except UnicodeDecodeError:
        import base64

        return {"base64": base64.b64encode(value).decode()}


def standard_input(why: str) -> bytes:
    """All of the standard input, where somebody has put something there."""
    if sys.stdin.isatty():
        raise click.UsageError(f"{why}: give it as an argument, or pipe it in")
    return sys.stdin.buffer.read()
