"""The command line of imports, one command for each system.

RULE: options to a source, its findings to the carrier, the tally to a table.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from cluster.cli.words import authorities, cluster_options, leave, say, table
from cluster.node.config import parse_address

if TYPE_CHECKING:
    from cluster.cli.importing.carry import Carrier, Tally
    from cluster.cli.importing.wishes import Found, Unfit

F = TypeVar("F", bound=Callable[..., Any])

SHOWN_MAX = 20
TTL_MS_MIN, TTL_MS_MAX = 100, 30 * 86_400_000

EPILOG = """
\b
Examples:
  coterie import goyaad journal/jobs.snapshot
  coterie import beanstalkd --dry-run /var/lib/beanstalkd
  coterie import session-queue --redis localhost:6379 --window-size 10 --window-interval 30

\b
Exit codes: 0 all taken, 1 not all, 2 nothing could be read or nobody answers.
"""

_File = click.Path(exists=True, dir_okay=False, path_type=Path)
_Folder = click.Path(exists=True, file_okay=False, path_type=Path)


def _common(command: F) -> F:
    dry_run = click.option(
        "--dry-run", is_flag=True, help="Say what would be taken, and write nothing."
    )
    return cluster_options(dry_run(command))


@click.group("import", epilog=EPILOG)
def command() -> None:
    """Take over what another system left: jobs, queues, sessions.

    Stop the other system first. An import may be repeated: what is there already is not added again,
    as long as the cluster remembers (a day, and the last 200,000 requests).
    """


@command.command("goyaad", short_help="goyaad's jobs.snapshot")
@click.argument("file", type=_File)
@_common
def goyaad(file: Path, endpoints: tuple[str, ...], dry_run: bool) -> None:
    """Put the jobs of goyaad's snapshot into the tube "default", each under its id.

    FILE is journal/jobs.snapshot below goyaad's data folder, written when it gets SIGUSR1.
    """
    from cluster.cli.importing import goyaad as source
    from cluster.node.clock import wall_ms

    _take(lambda: source.found(_read(file), wall_ms()), endpoints, dry_run)


@command.command("beanstalkd", short_help="beanstalkd's binlog")
@click.argument("folder", type=_Folder)
@_common
def beanstalkd(folder: Path, endpoints: tuple[str, ...], dry_run: bool) -> None:
    """Put the jobs of beanstalkd's binlog into tubes of the same names, in the same order.

    FOLDER is what beanstalkd was given with -b.
    """
    from cluster.cli.importing import beanstalkd as source
    from cluster.node.clock import wall_ms

    files = [file for file in folder.glob("binlog.*") if file.suffix[1:].isdecimal()]
    if not files:
        leave(2, f"coterie import: {folder} has no binlog.N")
    files.sort(key=lambda file: int(file.suffix[1:]))

    def found() -> Found:
        return source.found(((file.name, _read(file)) for file in files), wall_ms())

    _take(found, endpoints, dry_run)


@command.command("sync", short_help="katexochen/sync's SQLite file")
@click.argument("file", type=_File)
@_common
def sync(file: Path, endpoints: tuple[str, ...], dry_run: bool) -> None:
    """Make the fifos of katexochen/sync, under their uuids and with their timeouts.

    FILE is what FIFO_DB_PATH names.
    """
    from cluster.cli.importing import sync as source

    _take(lambda: source.found(file), endpoints, dry_run)


@command.command("session-queue", short_help="session-queue's integers in Redis, and its secret")
@click.option("--redis", metavar="HOST:PORT", help="Read the three integers from here.")
@click.option("--position", type=click.IntRange(0), help="queue:current-position")
@click.option("--window-end", type=click.IntRange(0), help="queue:window-end")
@click.option("--next-increment", type=click.IntRange(0), help="queue:next-window-increment")
@click.option("--window-size", type=click.IntRange(1), required=True, help="WINDOW_SIZE")
@click.option(
    "--window-interval", type=click.IntRange(1), required=True, help="WINDOW_INTERVAL, seconds"
)
@click.option(
    "--active-windows",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="ACTIVE_WINDOW_COUNT",
)
@click.option("--jwt-secret", envvar="JWT_SECRET", help="JWT_SECRET  [JWT_SECRET]")
@_common
def session_queue(
    *,
    redis: str | None,
    position: int | None,
    window_end: int | None,
    next_increment: int | None,
    window_size: int,
    window_interval: int,
    active_windows: int,
    jwt_secret: str | None,
    endpoints: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Make the waiting room of session-queue where it stood, and tell how its tokens stay valid.

    Give the three integers, or the Redis that has them. Import before anybody joins here.
    """
    from cluster.cli.importing import session_queue as source
    from cluster.cli.importing.wishes import SourceError

    if redis is not None:
        try:
            address = parse_address(redis)
            queue = asyncio.run(source.from_redis(address.host, address.port))
        except (ValueError, SourceError) as error:
            leave(2, f"coterie import: {error}")
    elif position is None or window_end is None or next_increment is None:
        raise click.UsageError(
            "give --redis, or all of --position, --window-end and --next-increment"
        )
    else:
        queue = source.Queue(position, window_end, next_increment)

    settings = source.Settings(window_size, window_interval, active_windows)

    async def carry(carrier: Carrier) -> list[str]:
        notes = await source.carry(carrier, queue, settings)
        return notes if jwt_secret is None else [*notes, source.told_secret(jwt_secret)]

    _run(carry, [], endpoints, dry_run)


@command.command("ticketd", short_help="ticketd's sessions.gob and resources.gob")
@click.argument("folder", type=_Folder)
@_common
def ticketd(folder: Path, endpoints: tuple[str, ...], dry_run: bool) -> None:
    """Open a session for each of ticketd's, and give it its tickets and claims.

    FOLDER is what ticketd was given with -snappath. Sessions have new ids, which are printed beside
    the old ones: who is told its new id in time goes on where it was.
    """
    from cluster.cli.importing import ticketd as source
    from cluster.cli.importing.wishes import SourceError

    try:
        sessions = source.sessions(_read(folder / "sessions.gob"))
        tickets = source.tickets(_read(folder / "resources.gob"))
    except SourceError as error:
        leave(2, f"coterie import: {folder}: {error}")

    async def carry(carrier: Carrier) -> list[str]:
        return await _carry_ticketd(carrier, sessions, tickets)

    _run(carry, [], endpoints, dry_run)


async def _carry_ticketd(carrier: Carrier, sessions: list[Any], tickets: list[Any]) -> list[str]:
    from cluster.cli.importing.wishes import Unfit, Wish, key_of, payload
    from cluster.client.core import path_of

    carrier.expect(len(sessions))
    notes, new = [], {}
    for one in sessions:
        body: dict[str, object] = {
            "ttl": min(max(one.ttl_ms, TTL_MS_MIN), TTL_MS_MAX),
            "meta": {"ticketd_id": one.id, "ticketd_src": one.src},
        }
        if one.name:
            body["name"] = one.name
        path, key = path_of("sessions"), key_of("ticketd", one.id)
        answer = await carrier.one(Wish("session", one.id, "POST", path, body, key))
        if answer is not None:
            new[one.id] = str(answer.get("session", one.id))
            notes.append(f"session {one.id} is {new[one.id]} here")

    async def give(kind: str, who: str | None, one: Any, verb: str, **fields: object) -> bool:
        name = f"{one.resource}/{one.name}"
        if who is None or who not in new:
            carrier.refuse(Unfit(kind, name, "its session is gone"))
            return False
        body = {"session": new[who], "ticket": one.name, **fields}
        key = key_of("ticketd", kind, one.resource, one.name, who)
        path = path_of("resources", one.resource, verb)
        carrier.expect(1)
        return await carrier.one(Wish(kind, name, "POST", path, body, key)) is not None

    for ticket in tickets:
        if ticket.is_lock:
            why = "the API has no call that takes a lock of ticketd's clients: its holder must lock it"
            carrier.refuse(Unfit("lock", ticket.resource, why))
            continue
        is_there = await give("ticket", ticket.issuer, ticket, "tickets", data=payload(ticket.data))
        if is_there and ticket.claimant is not None:
            await give("claim", ticket.claimant, ticket, "claim")
    if tickets or sessions:
        notes.append(
            "needed for all of it: calls that open sessions and take locks under given ids"
        )
    return notes


# What all have in common.


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        leave(2, f"coterie import: {error}")


def _take(find: Callable[[], Found], endpoints: tuple[str, ...], dry_run: bool) -> NoReturn:
    """Find what there is, carry it over, and say what became of it."""
    from cluster.cli.importing.wishes import SourceError

    try:
        found = find()
    except SourceError as error:
        leave(2, f"coterie import: {error}")

    async def carry(carrier: Carrier) -> list[str]:
        await carrier.all(found.wishes)
        return found.notes

    _run(carry, found.unfit, endpoints, dry_run)


def _run(
    carry: Callable[[Carrier], Awaitable[list[str]]],
    unfit: list[Unfit],
    endpoints: tuple[str, ...],
    dry_run: bool,
) -> NoReturn:
    from cluster.cli.importing.carry import Carrier
    from cluster.client.aio import Client
    from cluster.errors import CoterieError

    async def run() -> tuple[Tally, list[str]]:
        async with Client(endpoints, tls=authorities()) as client:
            carrier = Carrier(client, _progress, is_dry=dry_run)
            carrier.tally.unfit.extend(unfit)
            return carrier.tally, await carry(carrier)

    why: str | None = None
    try:
        tally, notes = asyncio.run(run())
    except CoterieError as error:
        why = error.detail
    except TimeoutError:
        why = "the room's window does not move"
    except BaseExceptionGroup as group:
        first = group.split(CoterieError)[0]
        if first is None:
            raise
        why = next(one.detail for one in _leaves(first) if isinstance(one, CoterieError))
    if why is not None:
        leave(2, f"coterie import: {why}; run it again, nothing is added twice")
    _tell(tally, notes, dry_run)
    leave(1 if tally.unfit else 0)


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    found: list[BaseException] = []
    for one in group.exceptions:
        found.extend(_leaves(one) if isinstance(one, BaseExceptionGroup) else [one])
    return found


def _progress(done: int, expected: int) -> None:
    if sys.stderr.isatty() and (done % 100 == 0 or done == expected):
        click.echo(f"\r{done} of {expected}", nl=done == expected, err=True)


def _tell(tally: Tally, notes: list[str], dry_run: bool) -> None:
    taken = "WOULD TAKE" if dry_run else "TAKEN"
    click.echo(table(("KIND", taken, "THERE", "COULD NOT"), tally.rows()))
    if tally.unfit:
        rows = [(one.kind, one.name, one.why) for one in tally.unfit[:SHOWN_MAX]]
        click.echo("\n" + table(("COULD NOT", "NAME", "WHY"), rows))
        if len(tally.unfit) > SHOWN_MAX:
            click.echo(f"and {len(tally.unfit) - SHOWN_MAX} more")
    for note in notes:
        say(note)
