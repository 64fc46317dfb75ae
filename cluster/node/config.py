"""Settings of one node: one frozen value, and where each part of it came from.

RULE: reads its sources once, at the start: flag > environment > file > default. Nothing is guessed
in silence: a bad value stops the start with its name, its origin and the cure; all bad values are
named at once.

The fields of `Config` are the one table: the flags of `coterie serve`, the `COTERIE_*` variables,
the keys of the TOML file and the rows of `--print-config` are all made from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import ipaddress
import json
import re
import socket
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import durationpy

ENVIRONMENT_PREFIX = "COTERIE_"
SECRET_LENGTH_MIN = 16
FRONTS = (
    "ticketd",
    "sync",
    "session-queue",
    "goyaad",
    "beanstalkd",
    "session-lock",
    "postgres",
)
"""Names of the compatible fronts, as in `front_NAME`."""
ROOM_KEYS_MAX = 16
REQUIRED = dataclasses.MISSING
COLUMN_TYPES = ("bigint", "integer", "text", "boolean", "json", "jsonb")

# Variables of ours that are no settings of a node: the command line's and those `coterie lock`
# gives to its command.
OTHER_VARIABLES = frozenset({"CA", "CONFIG", "ENDPOINTS", "TOKEN", "LOCK", "SESSION"})


class ConfigError(Exception):
    """The settings do not make a node. `problems` holds one sentence per mistake."""

    def __init__(self, problems: Iterable[str]):
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "1 setting is wrong" if count == 1 else f"{count} settings are wrong"
        super().__init__("\n".join((f"{head}:", *(f"  {problem}" for problem in self.problems))))


class Address(NamedTuple):
    """A host and a port as one writes them: `127.0.0.1:7101`, `[::1]:7101`."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Reachable from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_wildcard(self) -> bool:
        """Every interface of the machine: an address to listen on, none to dial."""
        return self.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound


class Origin(NamedTuple):
    """Where a value came from: `kind` is flag, environment, file, default or derived."""

    kind: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.where}".rstrip()


class Row(NamedTuple):
    """One line of `--print-config`: a secret is never in it."""

    key: str
    value: str
    origin: Origin


class Setting(NamedTuple):
    """What the sources need to know of one field of `Config`."""

    key: str
    parse: Callable[[object], Any]
    shape: str
    meaning: str
    flag: str | None
    is_path: bool
    is_hidden: bool


# Parsers: each takes a string (flag, environment) or a TOML value, and raises ValueError with a
# message that ends in the cure.


def parse_name(raw: object) -> str:
    """Name of a cluster or node: a letter or digit, then up to 62 of letters, digits, `._-`."""
    if isinstance(raw, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", raw):
        return raw
    raise ValueError("is no name; use 1 to 63 of letters, digits, dot, dash, underscore")


def parse_address(raw: object) -> Address:
    """`host:port`, with brackets round an IPv6 host."""
    cure = "use host:port, e.g. 127.0.0.1:7101 or [::1]:7101"
    if not isinstance(raw, str):
        raise ValueError(f"is no address; {cure}")
    host, colon, port = raw.strip().rpartition(":")
    if not colon:
        raise ValueError(f"has no port; {cure}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"is an IPv6 address without brackets; {cure}")
    if not host or re.search(r"[\s/@\[\]]", host):
        raise ValueError(f"has no usable host; {cure}")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65_535:
        raise ValueError(f"has no port between 0 and 65535; {cure}")
    return Address(host, int(port))


def parse_peers(raw: object) -> Mapping[str, Address]:
    """`n2=host:port,n3=host:port`, a list of such, or a TOML table of node to address."""
    cure = "use node=host:port, separated by commas"
    pairs: list[tuple[str, object]] = []
    if isinstance(raw, Mapping):
        pairs.extend((str(node), address) for node, address in raw.items())
    else:
        texts = raw if isinstance(raw, (list, tuple)) else [raw]
        for text in texts:
            if not isinstance(text, str):
                raise ValueError(f"is no list of peers; {cure}")
            for part in filter(None, (part.strip() for part in text.split(","))):
                node, equals, at = part.partition("=")
                if not equals:
                    raise ValueError(f'has a part "{part}" without "="; {cure}')
                pairs.append((node.strip(), at.strip()))
    peers: dict[str, Address] = {}
    for node, address in pairs:
        try:
            if parse_name(node) in peers:
                raise ValueError("is named twice; name each node once")
        except ValueError as error:
            raise ValueError(f'has a node "{node}" that {error}') from None
        try:
            peers[node] = parse_address(address)
            if peers[node].is_wildcard or peers[node].port == 0:
                raise ValueError("cannot be dialled; give the address others reach it at")
        except ValueError as error:
            raise ValueError(f'has for {node} an address "{address}" that {error}') from None
    return MappingProxyType(peers)


def parse_duration_ms(raw: object) -> int:
    """Integer milliseconds, `250ms`, `30s`, `1h30m`, `2d`, or ISO 8601 `PT30S`; never negative."""
    cure = 'use e.g. "30s", "250ms" or an integer of milliseconds'
    if isinstance(raw, int) and not isinstance(raw, bool):
        value_ms = raw
    elif isinstance(raw, str) and re.fullmatch(r"[0-9]{1,18}", raw.strip()):
        value_ms = int(raw)
    elif isinstance(raw, str) and (length := _duration(raw.strip())) is not None:
        value_ms, rest = divmod(length, timedelta(milliseconds=1))
        if rest:
            raise ValueError(f"is finer than a millisecond; {cure}")
    else:
        raise ValueError(f"is no duration; {cure}")
    if value_ms < 0:
        raise ValueError(f"is negative; {cure}")
    return value_ms


def parse_bytes(raw: object) -> int:
    """Integer bytes, or a number with `KiB`, `MiB`, `GiB`, `kB`, `MB` or `GB`."""
    cure = 'use e.g. "64MiB" or an integer of bytes'
    if isinstance(raw, int) and not isinstance(raw, bool):
        if raw < 0:
            raise ValueError(f"is negative; {cure}")
        return raw
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9}
    units |= {"kib": 2**10, "mib": 2**20, "gib": 2**30}
    found = re.fullmatch(r"([0-9_]{1,18})\s*([A-Za-z]*)", raw.strip()) if _is_text(raw) else None
    if found is None or found[2].lower() not in units or not found[1].strip("_"):
        raise ValueError(f"is no size; {cure}")
    return int(found[1].replace("_", "")) * units[found[2].lower()]


def parse_count(raw: object) -> int:
    """A whole number of things, not negative."""
    if isinstance(raw, int) and not isinstance(raw, bool):
        value = raw
    elif _is_text(raw) and re.fullmatch(r"[0-9][0-9_]{0,17}", raw.strip()):
        value = int(raw.replace("_", ""))
    else:
        raise ValueError("is no whole number; use digits, e.g. 4096")
    if value < 0:
        raise ValueError("is negative; use 0 or more")
    return value


def parse_columns(raw: object) -> str:
    """Columns as in `CREATE TYPE … AS (id bigint, data text)`; `id` must be one of them."""
    cure = f'use e.g. "id bigint, data text"; types are {", ".join(COLUMN_TYPES)}'
    if not _is_text(raw):
        raise ValueError(f"is no list of columns; {cure}")
    columns = [" ".join(part.lower().split()).partition(" ") for part in raw.split(",")]
    for name, _, kind in columns:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name) or kind not in COLUMN_TYPES:
            raise ValueError(f'has a column "{name} {kind}" that cannot be; {cure}')
    names = [name for name, _, _ in columns]
    if "id" not in names or len(set(names)) < len(names):
        raise ValueError(f"needs a column id, and each name once; {cure}")
    return ", ".join(f"{name} {kind}" for name, _, kind in columns)


def parse_switch(raw: object) -> bool:
    """`on` or `off`, or a TOML boolean."""
    if isinstance(raw, bool):
        return raw
    if _is_text(raw) and raw.strip().lower() in {"on", "off"}:
        return raw.strip().lower() == "on"
    raise ValueError("is no switch; use on or off")


def parse_path(raw: object) -> Path:
    """A path; `~` is the home folder."""
    if not _is_text(raw) or not raw.strip() or "\0" in raw:
        raise ValueError("is no path; give the name of a file or folder")
    return Path(raw).expanduser()


def parse_keys(raw: object) -> tuple[str, ...]:
    """Keys separated by commas, or a list of them; the first is the one that signs."""
    cure = f"use texts of {SECRET_LENGTH_MIN} characters or more, from a random source"
    parts = raw.split(",") if _is_text(raw) else raw
    if not isinstance(parts, (list, tuple)) or not all(_is_text(part) for part in parts):
        raise ValueError(f"is no list of keys; {cure}")
    keys = tuple(filter(None, (str(part).strip() for part in parts)))
    if not 0 < len(keys) <= ROOM_KEYS_MAX:
        raise ValueError(f"has {len(keys)} keys; give 1 to {ROOM_KEYS_MAX}")
    if len(set(keys)) < len(keys):
        raise ValueError("has a key twice; leave one out")
    for place, key in enumerate(keys, 1):
        if len(key) < SECRET_LENGTH_MIN:
            raise ValueError(f"has a key (number {place}) of {len(key)} characters; {cure}")
    return keys


def parse_text(raw: object) -> str:
    """Any text that is not empty."""
    if not _is_text(raw) or not raw.strip():
        raise ValueError("is empty or no text; give a text")
    return raw


def parse_port(raw: object) -> Address:
    """A port of every interface, which is what a server that is told nothing else listens on."""
    if _is_text(raw) and re.fullmatch(r"[0-9]{1,5}", raw.strip()) and int(raw) <= 65_535:
        return Address("0.0.0.0", int(raw))  # noqa: S104 - as the original does
    raise ValueError("is no port; use a number up to 65535, e.g. 3000")


def parse_seconds_ms(raw: object) -> int:
    """A whole number of seconds, in milliseconds."""
    if _is_text(raw) and re.fullmatch(r"[0-9]{1,9}", raw.strip()):
        return int(raw) * 1000
    raise ValueError("is no whole number of seconds; use digits, e.g. 30")


def parse_url(raw: object) -> str:
    """Base URL that clients reach a node at; a bare `host:port` means http."""
    cure = "use e.g. http://node1.example:7101"
    if not _is_text(raw):
        raise ValueError(f"is no URL; {cure}")
    text = raw.strip().rstrip("/")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if scheme not in ("http", "https") or not rest or re.search(r"[\s/?#]", rest):
        raise ValueError(f"is no URL of a host and port; {cure}")
    return f"{scheme}://{rest}"


def one_of(*words: str) -> Callable[[object], str]:
    """Parser of a fixed choice of words."""

    def parse(raw: object) -> str:
        if _is_text(raw) and raw.lower() in words:
            return raw.lower()
        raise ValueError(f"is not known; use one of {', '.join(words)}")

    return parse


def between(
    parse: Callable[[object], int], least: int, most: int, unit: str = ""
) -> Callable[[object], int]:
    """Parser of a number within limits, both included."""

    def parse_limited(raw: object) -> int:
        value = parse(raw)
        if not least <= value <= most:
            raise ValueError(f"is out of range; use {least} to {most}{unit}")
        return value

    return parse_limited


def about(
    parse: Callable[[object], Any],
    shape: str,
    meaning: str,
    *,
    flag: str | None = "",
    is_path: bool = False,
    is_hidden: bool = False,
) -> dict[str, Setting]:
    """What makes a field of `Config` a setting, as the field's metadata.

    Args:
        parse: from raw value to value; raises ValueError with the cure.
        shape: placeholder of the value in help texts.
        meaning: one phrase for help texts.
        flag: empty for the key with dashes; None where it must not be a flag.
        is_path: a relative one in a file is counted from the folder of that file.
        is_hidden: never shown.
    """
    return {"setting": Setting("", parse, shape, meaning, flag, is_path, is_hidden)}


class Borrowed(NamedTuple):
    """A variable of another system that stands for a setting of ours where nobody gave that."""

    variable: str
    parse: Callable[[object], Any]


SESSION_QUEUE: Mapping[str, Borrowed] = MappingProxyType(
    {
        "front_session_queue": Borrowed("PORT", parse_port),
        "front_session_queue_size": Borrowed("WINDOW_SIZE", between(parse_count, 1, 10**9)),
        "front_session_queue_interval_ms": Borrowed("WINDOW_INTERVAL", parse_seconds_ms),
        "front_session_queue_active": Borrowed(
            "ACTIVE_WINDOW_COUNT", between(parse_count, 1, 10**9)
        ),
        "front_session_queue_secret": Borrowed("JWT_SECRET", parse_text),
    }
)
"""What session-queue is told by its environment. Of use where its front is switched on; that also
its own port does, together with the three numbers that it never starts without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything one node is told from outside.

    Attributes:
        peers: the other nodes and where to dial them; a node's own entry is dropped, so that all
            nodes can be given the same list.
        secret: shared by all nodes of a cluster; they prove it to each other. Whatever source it
            came from, its text is here.
        advertise_http: base URL under which clients reach this node.
        warnings: sentences that an operator should read at the start.
        origins: where each value came from, by key.
    """

    cluster: str = field(
        default="coterie",
        metadata=about(parse_name, "NAME", "name of the cluster; all its nodes carry it"),
    )
    node: str = field(metadata=about(parse_name, "NAME", "name of this node, unlike all others"))
    data: Path = field(
        metadata=about(parse_path, "DIR", "folder of journal and snapshots", is_path=True)
    )
    http: Address = field(
        default=Address("127.0.0.1", 7101),
        metadata=about(parse_address, "HOST:PORT", "where the HTTP API listens"),
    )
    advertise_http: str = field(
        default="",
        metadata=about(parse_url, "URL", "where clients reach this node; by default from http"),
    )
    listen: Address = field(
        default=Address("127.0.0.1", 7201),
        metadata=about(parse_address, "HOST:PORT", "where peers are awaited"),
    )
    peers: Mapping[str, Address] = field(
        default_factory=lambda: MappingProxyType({}),
        metadata=about(parse_peers, "NODE=HOST:PORT,…", "the other nodes and where to dial them"),
    )
    # No flag: the arguments of a process are open to every user of the machine.
    secret: str = field(
        default="",
        repr=False,
        metadata=about(parse_text, "TEXT", "secret of the cluster", flag=None, is_hidden=True),
    )
    secret_file: Path | None = field(
        default=None,
        metadata=about(parse_path, "FILE", "file that holds the secret", is_path=True),
    )
    # No flag, as above. Without any, every node derives the same key from the secret.
    room_keys: tuple[str, ...] = field(
        default=(),
        repr=False,
        metadata=about(
            parse_keys,
            "KEY,…",
            "keys of waiting-room passes: the first signs, all are believed",
            flag=None,
            is_hidden=True,
        ),
    )
    tls_cert: Path | None = field(
        default=None,
        metadata=about(parse_path, "FILE", "certificate shown to peers (PEM)", is_path=True),
    )
    tls_key: Path | None = field(
        default=None,
        metadata=about(parse_path, "FILE", "key of that certificate (PEM)", is_path=True),
    )
    tls_ca: Path | None = field(
        default=None,
        metadata=about(
            parse_path, "FILE", "authority that peers' certificates need (PEM)", is_path=True
        ),
    )
    front_ticketd: Address | None = field(
        default=None,
        metadata=about(parse_address, "HOST:PORT", "where clients of ticketd are served"),
    )
    front_ticketd_sweep_ms: int = field(
        default=500,
        metadata=about(
            between(parse_duration_ms, 1, 3_600_000, " ms"),
            "TIME",
            "ticketd: what expired or emptied goes at multiples of this (its -expire)",
        ),
    )
    front_sync: Address | None = field(
        default=None,
        metadata=about(parse_address, "HOST:PORT", "where clients of katexochen/sync are served"),
    )
    front_sync_strict: bool = field(
        default=False,
        metadata=about(
            parse_switch, "on|off", "sync: durations as its code has them: 0 is at once, no days"
        ),
    )
    front_session_queue: Address | None = field(
        default=None,
        metadata=about(parse_address, "HOST:PORT", "where clients of session-queue are served"),
    )
    front_session_queue_size: int = field(
        default=10,
        metadata=about(
            between(parse_count, 1, 10**9), "COUNT", "session-queue: places let in at a time"
        ),
    )
    front_session_queue_interval_ms: int = field(
        default=30_000,
        metadata=about(
            between(parse_duration_ms, 0, 10**12, " ms"),
            "TIME",
            "session-queue: at least between two steps of the window",
        ),
    )
    front_session_queue_active: int = field(
        default=2,
        metadata=about(
            between(parse_count, 1, 10**9), "COUNT", "session-queue: batches that are let in"
        ),
    )
    front_session_queue_secret: str = field(
        default="",
        repr=False,
        metadata=about(
            parse_text,
            "TEXT",
            "session-queue: its JWT_SECRET; by default derived from the cluster's secret",
            flag=None,
            is_hidden=True,
        ),
    )
    front_goyaad: Address | None = field(
        default=None,
        metadata=about(parse_address, "HOST:PORT", "where clients of goyaad (net/rpc) are served"),
    )
    front_beanstalkd: Address | None = field(
        default=None,
        metadata=about(parse_address, "HOST:PORT", "where clients of beanstalkd are served"),
    )
    front_beanstalkd_job_bytes_max: int = field(
        default=65_535,
        metadata=about(
            between(parse_bytes, 0, 2**20, " bytes"), "SIZE", "beanstalkd: longest body (its -z)"
        ),
    )
    front_session_lock: Address | None = field(
        default=None,
        metadata=about(
            parse_address, "HOST:PORT", "where go-session-lock's functions are served by HTTP"
        ),
    )
    front_postgres: Address | None = field(
        default=None,
        metadata=about(
            parse_address, "HOST:PORT", "where the same functions are served to Postgres drivers"
        ),
    )
    front_postgres_columns: str = field(
        default="id bigint, data text",
        metadata=about(
            parse_columns, "NAME TYPE,…", "columns of the tasks that get_work gives (session_task)"
        ),
    )
    heartbeat_ms: int = field(
        default=100,
        metadata=about(
            between(parse_duration_ms, 10, 10_000, " ms"),
            "TIME",
            "the leader's pause between heartbeats",
        ),
    )
    election_min_ms: int = field(
        default=400,
        metadata=about(
            between(parse_duration_ms, 50, 60_000, " ms"),
            "TIME",
            "shortest silence after which a node stands for election",
        ),
    )
    election_max_ms: int = field(
        default=900,
        metadata=about(
            between(parse_duration_ms, 50, 60_000, " ms"),
            "TIME",
            "longest such silence; also how long a leader stays without its quorum",
        ),
    )
    snapshot_entries: int = field(
        default=100_000,
        metadata=about(
            between(parse_count, 10, 10**9), "COUNT", "entries after which the log is compacted"
        ),
    )
    snapshot_bytes: int = field(
        default=64 * 2**20,
        metadata=about(
            between(parse_bytes, 4_096, 2**40, " bytes"),
            "SIZE",
            "bytes of log after which it is compacted",
        ),
    )
    segment_bytes: int = field(
        default=64 * 2**20,
        metadata=about(
            between(parse_bytes, 4_096, 2**32, " bytes"), "SIZE", "size of one file of the journal"
        ),
    )
    request_timeout_ms: int = field(
        default=10_000,
        metadata=about(
            between(parse_duration_ms, 100, 600_000, " ms"),
            "TIME",
            "how long a request may take until it is applied, its own wait apart",
        ),
    )
    requests_max: int = field(
        default=4_096,
        metadata=about(
            between(parse_count, 1, 10**6),
            "COUNT",
            "requests in progress at this node; more are answered 503",
        ),
    )
    drain_timeout_ms: int = field(
        default=5_000,
        metadata=about(
            between(parse_duration_ms, 0, 600_000, " ms"),
            "TIME",
            "how long a stopping node finishes requests and hands leadership over",
        ),
    )
    log_format: str = field(
        default="auto",
        metadata=about(
            one_of("auto", "console", "json"),
            "FORMAT",
            "console, json, or auto: console on a terminal",
        ),
    )
    log_level: str = field(
        default="info",
        metadata=about(
            one_of("debug", "info", "warning", "error"), "LEVEL", "least level that is logged"
        ),
    )
    warnings: tuple[str, ...] = ()
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def fronts(self) -> dict[str, Address]:
        """Where each compatible front that is switched on listens, by its name."""
        found = {name: getattr(self, f"front_{name.replace('-', '_')}") for name in FRONTS}
        return {name: address for name, address in found.items() if address is not None}

    @property
    def has_tls(self) -> bool:
        """Peers prove themselves by certificates, beside the secret."""
        return self.tls_cert is not None

    def rows(self) -> list[Row]:
        """All settings in the order of the table, for people."""
        return [
            Row(entry.key, self._shown(entry), self.origins.get(entry.key, Origin("default")))
            for entry in SETTINGS
        ]

    def to_json(self) -> str:
        """All settings with their origins as one JSON object."""
        shown = {
            row.key: {"value": self._plain(row.key), "origin": str(row.origin)}
            for row in self.rows()
        }
        return json.dumps(shown, indent=2)

    def _shown(self, entry: Setting) -> str:
        value = getattr(self, entry.key)
        if entry.is_hidden:
            unit = "of them" if isinstance(value, tuple) else "characters"
            return f"(hidden, {len(value)} {unit})" if value else ""
        if isinstance(value, Mapping):
            return ",".join(f"{node}={address}" for node, address in value.items())
        if isinstance(value, bool):
            return "on" if value else "off"
        return "" if value is None else str(value)

    def _plain(self, key: str) -> object:
        value = getattr(self, key)
        if isinstance(value, Mapping):
            return {node: str(address) for node, address in value.items()}
        if isinstance(value, int):
            return value
        return self._shown(_BY_KEY[key]) or None


def _settings() -> tuple[Setting, ...]:
    found = []
    for entry in dataclasses.fields(Config):
        if "setting" in entry.metadata:
            bare: Setting = entry.metadata["setting"]
            flag = "--" + entry.name.replace("_", "-") if bare.flag == "" else bare.flag
            found.append(bare._replace(key=entry.name, flag=flag))
    return tuple(found)


SETTINGS = _settings()
_BY_KEY = {entry.key: entry for entry in SETTINGS}


def _default_of(entry: dataclasses.Field[Any]) -> Any:
    if entry.default_factory is not dataclasses.MISSING:
        return entry.default_factory()
    return entry.default


# Of every key; REQUIRED where a source has to give the value.
DEFAULTS = {entry.name: _default_of(entry) for entry in dataclasses.fields(Config)}


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    file: Path | None = None,
) -> Config:
    """The settings of a node from their sources.

    Args:
        flags: by key; None or an empty tuple where a flag was not given.
        environ: the process's environment; an empty variable counts as not set.
        file: TOML file named by a flag; without it `COTERIE_CONFIG` may name one.

    Raises:
        ConfigError: with all mistakes found.
    """
    problems: list[str] = []
    warnings: list[str] = []
    if file is None and environ.get(ENVIRONMENT_PREFIX + "CONFIG"):
        file = Path(environ[ENVIRONMENT_PREFIX + "CONFIG"])
    table = {} if file is None else _read_table(file, problems)
    problems.extend(
        f"{key} (file {file}) is no setting{_did_you_mean(key, _BY_KEY, '')}"
        for key in sorted(set(table) - _BY_KEY.keys())
    )
    warnings.extend(_misspelt(environ))
    warnings.extend(_exposed(table, file))

    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    address = _given(_BY_KEY["front_session_queue"], flags, environ, table, file)
    borrowed = _borrowed(environ, is_on=address is not None)
    for entry in SETTINGS:
        given = _given(entry, flags, environ, table, file)
        parse = entry.parse
        if given is None and (lent := borrowed.get(entry.key)) is not None:
            parse = lent.parse
            given = environ[lent.variable], Origin("environment", lent.variable)
        if given is None:
            origins[entry.key] = Origin("default")
            if DEFAULTS[entry.key] is REQUIRED:
                problems.append(_missing(entry))
            continue
        raw, origin = given
        origins[entry.key] = origin
        try:
            value = parse(raw)
        except ValueError as error:
            shown = "its value" if entry.is_hidden else _quoted(raw)
            problems.append(f"{entry.key}: {shown} ({origin}) {error}")
            continue
        if entry.is_path and origin.kind == "file" and file is not None:
            value = file.parent / value
        values[entry.key] = value

    if not problems:
        _settle(values, origins, problems, warnings)
    if problems:
        raise ConfigError(problems)
    return Config(**values, warnings=tuple(warnings), origins=MappingProxyType(origins))


def _settle(
    values: dict[str, Any],
    origins: dict[str, Origin],
    problems: list[str],
    warnings: list[str],
) -> None:
    """Judge settings together, each being good alone; fill in what follows from others."""

    def value_of(key: str) -> Any:
        return values.get(key, DEFAULTS[key])

    peers = {node: at for node, at in value_of("peers").items() if node != values["node"]}
    values["peers"] = MappingProxyType(peers)
    if len(peers) % 2 == 1:
        warnings.append(
            f"peers: {len(peers) + 1} nodes survive no more failures than {len(peers)}; "
            "use an odd number"
        )
    _settle_secret(values, origins, problems, warnings, peers, value_of("listen"))

    given_tls = [key for key in ("tls_cert", "tls_key", "tls_ca") if value_of(key) is not None]
    if given_tls and len(given_tls) < 3:
        problems.append(
            f"{', '.join(given_tls)}: TLS between peers needs tls_cert, tls_key and tls_ca; "
            "give all three or none"
        )
    problems.extend(
        f"{key}: {_quoted(value_of(key))} ({origins[key]}) is no file; correct the path"
        for key in given_tls
        if not value_of(key).is_file()
    )

    if value_of("front_session_queue") is not None and value_of("front_session_queue_active") == 1:
        warnings.append(
            "front_session_queue_active: with 1 whoever joins late in a batch is shut out by its "
            "next step, perhaps at once; use 2 or more"
        )

    heartbeat_ms, least_ms, most_ms = (
        value_of(key) for key in ("heartbeat_ms", "election_min_ms", "election_max_ms")
    )
    if least_ms < 3 * heartbeat_ms:
        problems.append(
            f"election_min_ms: {least_ms} ({origins['election_min_ms']}) is less than three "
            f"heartbeats of {heartbeat_ms} ms, so that one late heartbeat would cost the leader "
            "its place; raise it or lower heartbeat_ms"
        )
    if most_ms < least_ms * 3 // 2:
        problems.append(
            f"election_max_ms: {most_ms} ({origins['election_max_ms']}) is too near to "
            f"election_min_ms {least_ms}, so that candidates would collide; use at least "
            f"{least_ms * 3 // 2}"
        )

    if not value_of("advertise_http"):
        http: Address = value_of("http")
        host = socket.gethostname() if http.is_wildcard else http.host
        values["advertise_http"] = f"http://{Address(host, http.port)}"
        origins["advertise_http"] = Origin("derived", "from http")
        if http.is_wildcard:
            warnings.append(
                f"advertise_http: http listens on every interface, so this node is shown to "
                f"clients as {values['advertise_http']}; set advertise_http where they cannot "
                "reach that"
            )


def _settle_secret(
    values: dict[str, Any],
    origins: dict[str, Origin],
    problems: list[str],
    warnings: list[str],
    peers: Mapping[str, Address],
    listen: Address,
) -> None:
    """Bring the secret's text into `values`, from itself or from its file, the nearer source."""
    ranks = ("flag", "environment", "file")
    text: str = values.get("secret", "")
    path: Path | None = values.get("secret_file")
    if text and path is not None:
        here, there = origins["secret"], origins["secret_file"]
        if here.kind == there.kind:
            problems.append(f"secret ({here}) and secret_file ({there}): give one of them")
            return
        if ranks.index(here.kind) < ranks.index(there.kind):
            path = None
    if path is not None:
        origin = origins["secret_file"]
        try:
            text = path.read_text(encoding="utf-8").strip()
            if path.stat().st_mode & 0o044:
                warnings.append(
                    f'secret_file: "{path}" can be read by other users; chmod 600 it where '
                    "this is not meant"
                )
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            problems.append(
                f"secret_file: {_quoted(path)} ({origin}) cannot be read: {reason}; make one "
                f"with: (umask 077; head -c 32 /dev/urandom | base64 > {path})"
            )
            return
        origins["secret"] = Origin("file", str(path))
    if text and len(text) < SECRET_LENGTH_MIN:
        problems.append(
            f"secret: its value ({origins['secret']}) has {len(text)} characters; use at least "
            f"{SECRET_LENGTH_MIN}, from a random source"
        )
    if not text:
        strangers = [at for at in (listen, *peers.values()) if not at.is_loopback]
        if strangers:
            problems.append(
                f"secret: none is given, and {strangers[0]} can be reached from other machines; "
                "give secret_file (or COTERIE_SECRET), the same for all nodes"
            )
            return
        # Not secret at all, which is why it is for the loopback only. It still keeps nodes of
        # two clusters on one machine apart.
        text = f"loopback-only of {values.get('cluster', 'coterie')}"
        origins["secret"] = Origin("derived", "loopback only")
        if peers:
            warnings.append(
                "secret: none is given; any user of this machine can join as a peer. Give "
                "secret_file where that matters"
            )
    values["secret"] = text


def _given(
    entry: Setting,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    table: Mapping[str, object],
    file: Path | None,
) -> tuple[object, Origin] | None:
    """Raw value and origin from the nearest source that has the setting."""
    flag = flags.get(entry.key)
    if entry.flag is not None and flag is not None and flag != ():
        return flag, Origin("flag", entry.flag)
    variable = ENVIRONMENT_PREFIX + entry.key.upper()
    if environ.get(variable):
        return environ[variable], Origin("environment", variable)
    if entry.key in table:
        return table[entry.key], Origin("file", str(file))
    return None


def _borrowed(environ: Mapping[str, str], *, is_on: bool) -> dict[str, Borrowed]:
    """By setting, the variables of session-queue that count."""
    lent = {key: lent for key, lent in SESSION_QUEUE.items() if environ.get(lent.variable)}
    # PORT alone means nothing: half of all programs are told one.
    needed = (key for key in SESSION_QUEUE if key != "front_session_queue_secret")
    return lent if is_on or all(key in lent for key in needed) else {}


def _read_table(file: Path, problems: list[str]) -> dict[str, object]:
    """The TOML file as a table; empty with a problem noted where it cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(f'config: "{file}" cannot be read: {error.strerror}; correct the path')
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f'config: "{file}" is no TOML: {error}; correct that line')
    return {}


def _exposed(table: Mapping[str, object], file: Path | None) -> list[str]:
    """Warnings on secrets in a file that everybody may read."""
    hidden = sorted(entry.key for entry in SETTINGS if entry.is_hidden and entry.key in table)
    if not hidden or file is None or not file.stat().st_mode & 0o044:
        return []
    keys = ", ".join(hidden)
    return [f'{keys}: "{file}" can be read by other users; chmod 600 it where this is not meant']


def _misspelt(environ: Mapping[str, str]) -> list[str]:
    """Warnings on variables that look like settings of ours, but are none.

    Only near misses: Kubernetes gives every pod variables like COTERIE_SERVICE_HOST.
    """
    found = []
    for variable in sorted(environ):
        key = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if key == variable.lower() or key in _BY_KEY or key.upper() in OTHER_VARIABLES:
            continue
        cure = _did_you_mean(key, _BY_KEY, ENVIRONMENT_PREFIX)
        if cure:
            found.append(f"{variable} is no setting and was ignored{cure}")
    return found


def _did_you_mean(key: str, known: Iterable[str], prefix: str) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.7)
    if not near:
        return ""
    word = prefix + (near[0].upper() if prefix else near[0])
    return f"; did you mean {word}?"


def _missing(entry: Setting) -> str:
    variable = ENVIRONMENT_PREFIX + entry.key.upper()
    flag = f"{entry.flag} {entry.shape}, " if entry.flag else ""
    return f'{entry.key}: missing ({entry.meaning}); give {flag}{variable} or {entry.key} = "…"'


def _quoted(raw: object) -> str:
    if isinstance(raw, tuple):
        raw = ",".join(map(str, raw))
    text = str(raw) if isinstance(raw, (str, Path)) else repr(raw)
    return f'"{text}"' if len(text) <= 80 else f'"{text[:77]}…"'


def _is_text(raw: object) -> TypeGuard[str]:
    return isinstance(raw, str)


def _duration(text: str) -> timedelta | None:
    """A Go-style or ISO 8601 duration of days and less; None where it is neither."""
    iso = re.fullmatch(
        r"P(?:(\d{1,6})D)?(?:T(?:(\d{1,8})H)?(?:(\d{1,9})M)?(?:(\d{1,10})(?:[.,](\d{1,3}))?S)?)?",
        text,
        re.IGNORECASE,
    )
    if iso is not None and text.upper() not in ("P", "PT") and not text.upper().endswith("T"):
        days, hours, minutes, seconds = (int(part or 0) for part in iso.groups()[:4])
        millis = int((iso[5] or "0").ljust(3, "0"))
        return timedelta(
            days=days, hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis
        )
    # durationpy also takes years, months and blanks, which no Coterie duration has.
    if not re.fullmatch(r"(?:\d{1,12}(?:\.\d{1,9})?(?:ms|us|µs|ns|d|h|m|s))+", text):
        return None
    try:
        length: timedelta = durationpy.from_str(text)
    except (durationpy.DurationError, OverflowError, ValueError):
        return None
    return length
