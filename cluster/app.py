"""The wiring of one process: disk, node, sockets, signals.

RULE: the only module that knows every room. It constructs, connects and takes apart in order; it
decides nothing.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import random
import resource
import secrets
import signal
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import structlog

from cluster import __version__
from cluster.fronts import registry
from cluster.fronts.desk import Desk
from cluster.fronts.front import Surroundings
from cluster.gateway.passes import derived_key
from cluster.gateway.server import Gateway, GatewaySettings
from cluster.node.clock import monotonic, wall_ms
from cluster.node.config import Address, Config, ConfigError
from cluster.node.driver import Driver
from cluster.node.settings import NodeSettings
from cluster.replication.disk import DiskFailed, DiskLocked, OsDisk
from cluster.replication.engine import EngineSettings, check_library
from cluster.replication.guard import EngineFault
from cluster.replication.identity import Identity, IdentityMismatch
from cluster.replication.journal import JournalCorrupt
from cluster.replication.snapshots import ForkDumper, SnapshotCorrupt
from cluster.telemetry import logs

# Exit codes, the last three after sysexits.h: wrong settings; a data folder that must not be used;
# our own bug or a failed disk; an address that cannot be had.
EXIT_SETTINGS = 2
EXIT_DATA = 65
EXIT_FATAL = 70
EXIT_ADDRESS = 71

_FILES = 65_536

log = structlog.get_logger("coterie")


def serve(config: Config) -> int:
    """Run one node until it is told to stop.

    Returns:
        the process's exit code; 0 after SIGTERM or SIGINT.
    """
    _allow_many_files()
    logs.configure(log_format=config.log_format, level=config.log_level)
    for warning in config.warnings:
        log.warning(warning)
    try:
        check_library()
        disk = OsDisk(config.data)
    except (EngineFault, DiskLocked, OSError) as error:
        log.error("cannot start", reason=str(error))
        return EXIT_DATA
    except DiskFailed as error:
        why = _in_words(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
        reason = f'data: "{config.data}" cannot be used: {why}; name a folder that can be written'
        log.error("cannot start", reason=reason)
        return EXIT_DATA
    try:
        return _run(_serve(config, disk))
    except ConfigError as error:
        log.error("cannot start", reason="; ".join(error.problems))
        return EXIT_SETTINGS
    except (EngineFault, IdentityMismatch, JournalCorrupt, SnapshotCorrupt) as error:
        log.error("cannot start", reason=str(error), data=str(config.data))
        return EXIT_DATA
    except DiskFailed as error:
        log.error("cannot start: the disk failed", reason=str(error), data=str(config.data))
        return EXIT_FATAL
    except OSError as error:
        log.error("cannot start", reason=str(error))
        return EXIT_ADDRESS
    finally:
        disk.close()


def _run(main: Coroutine[Any, Any, int]) -> int:
    """Run on uvloop where it is installed, else on asyncio's own loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if sys.platform != "win32":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


async def _serve(config: Config, disk: OsDisk) -> int:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    identity = Identity.open(
        disk, cluster=config.cluster, node=config.node, fresh_unique=secrets.token_hex(16)
    )
    ssl_server, ssl_client = _tls(config)
    driver = Driver(
        _settings(config),
        identity=identity,
        disk=disk,
        dumper=ForkDumper,
        listen=(config.listen.host, config.listen.port),
        dial={name: (at.host, at.port) for name, at in config.peers.items()},
        secret=config.secret.encode(),
        on_fatal=_die,
        rng=random.Random(secrets.randbits(64)),
        ssl_server=ssl_server,
        ssl_client=ssl_client,
    )
    gateway = Gateway(
        driver.node,
        GatewaySettings(
            requests_max=config.requests_max,
            request_timeout_ms=config.request_timeout_ms,
            room_keys=_room_keys(config),
        ),
    )
    fronts = registry.switched_on(
        config,
        Surroundings(
            node=driver.node,
            desk=Desk(driver.node),
            clock=monotonic,
            wall_ms=wall_ms,
            draw=secrets.token_bytes,
            version=__version__,
        ),
    )
    try:
        with _listening("http", config.http):
            await gateway.start(config.http.host, config.http.port)
        for name, address in config.fronts.items():
            with _listening(f"front_{name.replace('-', '_')}", address):
                await fronts[name].start(address.host, address.port)
        with _listening("listen", config.listen):
            await driver.start()
        # What is alive now stays alive: keep the collector off it, and let it look more rarely.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        log.info(
            "serving",
            node=config.node,
            cluster=config.cluster,
            version=__version__,
            http=config.advertise_http,
            fronts={name: str(address) for name, address in config.fronts.items()},
            boot=identity.boot,
            pid=os.getpid(),
        )
        await stopping.wait()
        log.info("stopping", node=config.node)
        gateway.drain()
        for front in fronts.values():
            front.drain()
        await driver.drain(config.drain_timeout_ms / 1000)
    finally:
        # First the node, which answers everybody who waits; then those answers leave.
        await driver.stop()
        await asyncio.gather(
            gateway.stop(grace_s=1.0), *(front.stop(grace_s=1.0) for front in fronts.values())
        )
    log.info("stopped", node=config.node)
    return 0


@contextmanager
def _listening(setting: str, address: Address) -> Iterator[None]:
    """Name the setting whose address cannot be had, and what to do."""
    try:
        yield
    except OSError as error:
        cure = {
            errno.EADDRINUSE: "stop what listens there, or choose another",
            errno.EADDRNOTAVAIL: "no interface of this machine has it: correct it",
            errno.EACCES: "ports below 1024 need a privilege: choose a higher one",
        }.get(error.errno or 0, "correct it")
        why = f"{setting}: {address} cannot be listened on: {_in_words(error)}; {cure}"
        raise OSError(why) from error


def _in_words(error: OSError) -> str:
    """What the system says; names that are not found have negative numbers and other words."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return error.strerror or str(error)


def _allow_many_files() -> None:
    """Every client is a descriptor: take as many as the system lets us have without asking."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _settings(config: Config) -> NodeSettings:
    return NodeSettings(
        node=config.node,
        peers=tuple(config.peers),
        http=config.advertise_http,
        version=__version__,
        fronts=_advertised(config),
        segment_bytes=config.segment_bytes,
        engine=EngineSettings(
            heartbeat=config.heartbeat_ms / 1000,
            election_min=config.election_min_ms / 1000,
            election_max=config.election_max_ms / 1000,
            check_quorum=config.election_max_ms / 1000,
            snapshot_entries=config.snapshot_entries,
            snapshot_bytes=config.snapshot_bytes,
        ),
    )


def _advertised(config: Config) -> dict[str, str]:
    """Addresses of our fronts as clients see them: a wildcard stands for the host of our API."""
    host = urlsplit(config.advertise_http).hostname or config.http.host
    return {
        name: str(Address(host, address.port) if address.is_wildcard else address)
        for name, address in config.fronts.items()
    }


def _room_keys(config: Config) -> tuple[bytes, ...]:
    """The configured keys, or the one that every node of the cluster derives from its secret."""
    if config.room_keys:
        return tuple(key.encode() for key in config.room_keys)
    return (derived_key(config.secret.encode()),)


def _tls(config: Config) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    """Mutual TLS between nodes: both sides show a certificate of the same authority.

    Raises:
        ConfigError: a file cannot be read, or does not hold what it should.
    """
    if not config.has_tls:
        return None, None
    assert config.tls_cert is not None
    with _reading(f'tls_ca: "{config.tls_ca}"', "certificates of the authority (PEM)"):
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=config.tls_ca)
        client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=config.tls_ca)
    server.verify_mode = ssl.CERT_REQUIRED
    named = f'tls_cert and tls_key: "{config.tls_cert}" and "{config.tls_key}"'
    with _reading(named, "a certificate and its own key (PEM)"):
        for context in (server, client):
            context.load_cert_chain(config.tls_cert, config.tls_key)
    return server, client


@contextmanager
def _reading(named: str, wanted: str) -> Iterator[None]:
    """Name the setting whose file is not what it should be, and what that is."""
    try:
        yield
    except ssl.SSLError as error:
        why = f": {error.reason}" if error.reason else ""
        raise ConfigError([f"{named} cannot be used{why}; give {wanted}"]) from error
    except OSError as error:
        raise ConfigError([f"{named} cannot be read: {_in_words(error)}"]) from error


def _die(error: BaseException) -> None:
    """End at once: memory may promise what the disk does not hold, so nothing more is said."""
    log.critical("fatal: this node stops without another word", exc_info=error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(EXIT_FATAL)
