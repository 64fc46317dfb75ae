"""The command line behind https: whom it believes, and what it hands on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from tests.cli.machine import serving
from tests.cli.running import clean_environ, finish

REPOSITORY = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def tls_before(endpoint: str, certificate: trustme.LeafCert) -> AsyncIterator[str]:
    """A proxy that speaks TLS and passes everything on; yields its `host:port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    host, _, port = endpoint.rpartition(":")
    ways: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        for pair in ((reader, there_writer), (there_reader, writer)):
            way = asyncio.create_task(pass_on(*pair))
            ways.add(way)
            way.add_done_callback(ways.discard)

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    finally:
        proxy.close()
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


@pytest.fixture
async def places(tmp_path: Path) -> AsyncIterator[tuple[str, str, str]]:
    """A node: its own endpoint, that of a TLS proxy before it, and the file of the authority."""
    authority = trustme.CA()
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    with serving() as plain:
        async with tls_before(plain, authority.issue_cert("127.0.0.1")) as secure:
            yield plain, secure, str(file)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("top", "--count", "1"),
        ("doctor",),
        ("sessions", "open", "--ttl", "5s"),
        ("watch", "--for", "10ms"),
        ("bench", "locks", "--yes", "--duration", "100ms", "--clients", "2"),
        ("jobs", "work", "mail", "--count", "1", "--", "cat"),
        ("lock", "a", "--", "true"),
    ],
    ids=lambda words: words[0],
)
async def test_every_command_asks_behind_https(
    places: tuple[str, str, str], words: tuple[str, ...]
) -> None:
    """A bare host:port is https then, and answers count that the authority vouches for."""
    plain, secure, ca = places
    await finish("jobs", "put", "mail", "hello", "--endpoints", plain)
    environ = clean_environ(COTERIE_ENDPOINTS=secure, COTERIE_CA=ca)
    code, out, err = await finish(*words, environ=environ)
    assert code == 0, out + err


async def test_an_import_asks_behind_https(places: tuple[str, str, str]) -> None:
    """One job of the file is too large for the API."""
    _, secure, ca = places
    file = REPOSITORY / "tests/transcripts/imports/goyaad/jobs.snapshot"
    code, out, _ = await finish("import", "goyaad", str(file), "--endpoints", secure, "--ca", ca)
    assert (code, out.splitlines()[1]) == (1, "job   39     0      1")


async def test_a_flag_beats_the_environment(places: tuple[str, str, str]) -> None:
    """--ca before COTERIE_CA, as --endpoints before COTERIE_ENDPOINTS."""
    _, secure, ca = places
    environ = clean_environ(COTERIE_ENDPOINTS=secure, COTERIE_CA="nowhere.pem")
    assert (await finish("locks", "list", "--ca", ca, environ=environ))[0] == 0
    code, _, err = await finish("locks", "list", "--ca", "none.pem", environ=environ)
    assert code == 2
    assert '"none.pem" cannot be read' in err


async def test_a_command_under_a_lock_can_ask_as_we_do(places: tuple[str, str, str]) -> None:
    """Its environment names endpoints and authority, by a path that holds in any folder."""
    _, secure, ca = places
    relative = os.path.relpath(ca)
    options = ("--endpoints", secure, "--ca", relative)
    script = 'echo "$COTERIE_ENDPOINTS $COTERIE_CA"'
    code, out, err = await finish("lock", "a", *options, "--", "sh", "-c", script)
    assert (code, err) == (0, "")
    assert out == f"https://{secure} {Path(relative).absolute()}\n"


async def test_names_are_completed_behind_https(places: tuple[str, str, str]) -> None:
    """By the authority of the line that is typed."""
    plain, secure, ca = places
    await finish("semaphores", "set", "printers", "--limit", "3", "--endpoints", plain)
    typed = f"coterie semaphores show --endpoints {secure} --ca {ca} pr"
    environ = clean_environ(
        _COTERIE_COMPLETE="bash_complete", COMP_WORDS=typed, COMP_CWORD=str(len(typed.split()) - 1)
    )
    assert "printers" in (await finish(environ=environ))[1]


async def test_who_is_not_vouched_for_is_not_asked(places: tuple[str, str, str]) -> None:
    """The system knows no such authority: the option that would help is named."""
    _, secure, _ = places
    code, out, _ = await finish("status", "--endpoints", f"https://{secure}", "--timeout", "1m")
    assert code == 4
    assert "name the authority that vouches for it by --ca FILE" in out


async def test_a_node_without_tls_is_told_from_a_wrong_certificate(
    places: tuple[str, str, str],
) -> None:
    """Asked by https, a node itself does not understand; http is what it speaks."""
    plain, _, ca = places
    code, out, _ = await finish("status", "--endpoints", plain, "--ca", ca, "--timeout", "1m")
    assert code == 4
    assert "no TLS is spoken there" in out
    code, _, err = await finish("status", "--endpoints", f"http://{plain}", "--ca", ca)
    assert code == 2
    assert "not encrypted" in err


async def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    """Before anything is asked, with the option and the cure."""
    file = tmp_path / "empty.pem"
    file.write_text("nothing\n", encoding="ascii")
    code, _, err = await finish("status", "--ca", str(file))
    assert code == 2
    assert "'--ca'" in err
    assert "holds no certificate; give a file" in err
