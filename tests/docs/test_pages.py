"""What the pages of the documentation promise about themselves: whole, linked, up to date."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from cluster.client.refusals import REFUSALS
from cluster.node.config import Config
from tests.docs.pages import ELSEWHERE, PAGES, ROOT, blocks_of, commands_of, pages, text_of

DOCS = ROOT / "docs"
PRIMITIVES = sorted(page for page in pages() if page.startswith("primitives/"))
TABS = ("Python (asyncio)", "Python (sync)", "curl", "CLI")
CONFIG = yaml.safe_load((DOCS / "mkdocs.yml").read_text(encoding="utf-8"))

# Languages that are only shown. A command in a shell is `console`, so that it is run.
SHOWN = {"", "text", "toml", "ini", "yaml", "json", "sql", "html", "dockerfile", "crontab"}

# How many blocks of a page are not run, and why.
NOT_RUN = {
    "quickstart.md": 1,  # installing, and starting the cluster that the tests have started
    "operations.md": 1,  # makes a secret in /etc, and starts a node
    # The original's data would be needed; tests/cli/test_importing.py has some of each.
    "migration/ticketd.md": 1,
    "migration/sync.md": 1,
    "migration/session-queue.md": 1,
    "migration/goyaad.md": 1,
    "migration/beanstalkd.md": 1,
    "migration/go-session-lock.md": 1,
}


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """The program that makes pages."""
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["settings.md", "cli.md", "http.md"])
def test_a_page_of_the_reference_is_what_the_code_says(reference: ModuleType, name: str) -> None:
    """Every setting, every command, every call; else run `python docs/reference.py`."""
    made = reference.PAGES[name]()
    assert (PAGES / "reference" / name).read_text(encoding="utf-8") == made


def test_every_setting_has_a_row() -> None:
    """Also those that no generator would know of."""
    page = text_of("reference/settings.md")
    keys = [field.name for field in dataclasses.fields(Config) if "setting" in field.metadata]
    assert [key for key in keys if f"| `{key}` |" not in page] == []


@pytest.mark.parametrize("page", PRIMITIVES)
def test_a_page_of_a_primitive_is_whole(page: str) -> None:
    """The same in Python, curl and shell, side by side; what goes wrong; and its limits."""
    text = text_of(page)
    assert [tab for tab in TABS if f'=== "{tab}"' not in text] == []
    for heading in ("## When it goes wrong", "## Limits"):
        assert heading in text, heading
    # Each tab has something that is run.
    for tab in re.split(r'(?m)^=== "', text)[1:]:
        assert any(block.is_run for block in blocks_of(page, tab)), tab[:80]


def test_there_is_a_page_for_every_primitive() -> None:
    """As many as the project names."""
    names = "sessions locks semaphores tickets fifos rooms jobs tasks elections watch explain"
    assert {f"primitives/{name}.md" for name in names.split()} == set(PRIMITIVES)


def test_every_refusal_is_told_somewhere() -> None:
    """By its code, on a page that is not made by a program."""
    text = "".join(text_of(page) for page in pages() if not page.startswith("reference/"))
    told = {code for code in REFUSALS if code in text}
    # Of HTTP itself, and answers that no caller of ours has to know by name.
    plain = {
        "not_found",
        "method_not_allowed",
        "request_timeout",
        "unsupported_media_type",
        "expectation_failed",
        "head_too_large",
    }
    by_kind = {code for code in REFUSALS if code.endswith("_not_found")}
    transfers = {code for code in REFUSALS if code.startswith("transfer_")}
    rare = {"no_candidate", "not_leader", "overrides_not_allowed"}
    assert set(REFUSALS) - told - plain - by_kind - transfers - rare == set()


@pytest.mark.parametrize("page", [page for page in pages() if not ELSEWHERE.fullmatch(page)])
def test_the_blocks_of_a_page_are_run_or_plainly_not_meant_to_be(page: str) -> None:
    """A block that is not run is of a language that cannot be, or in the list above."""
    blocks = blocks_of(page, text_of(page))
    for block in blocks:
        assert block.language in SHOWN | {"python", "console"}, f"{page}:{block.line}"
        if block.language == "console":
            assert commands_of(block), f"{page}:{block.line}"
    left_out = [block for block in blocks if "no-run" in block.classes]
    assert len(left_out) == NOT_RUN.get(page, 0)


def test_programs_on_pages_are_formatted_like_ours(tmp_path: Path) -> None:
    """They are copied from there."""
    for page in pages():
        for block in blocks_of(page, text_of(page)):
            if block.language == "python" and not ELSEWHERE.fullmatch(page):
                name = re.sub(r"\W", "-", page)
                (tmp_path / f"{name}-{block.line}.py").write_text(
                    f"{block.text}\n", encoding="utf-8"
                )
    ruff = [sys.executable, "-m", "ruff", "format", "--diff", "--isolated", "--line-length", "100"]
    done = subprocess.run([*ruff, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_page_is_in_the_navigation_once() -> None:
    """And there is none that is not there."""
    named = list(leaves(CONFIG["nav"]))
    assert sorted(named) == pages()


@pytest.mark.parametrize("name", ["README.md", "deploy/README.md"])
def test_the_links_of_a_readme_lead_somewhere(name: str) -> None:
    """To a file or folder of the repository, and to a heading that it has."""
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in link:
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if heading:
            lines = re.findall(r"(?m)^#+ (.*)$", target.read_text(encoding="utf-8"))
            slugs = {re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in lines}
            assert heading in slugs, link


def leaves(nav: object) -> Iterator[str]:
    """Pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for below in nav.values():
            yield from leaves(below)
    elif isinstance(nav, list):
        for below in nav:
            yield from leaves(below)


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No font, script or picture of another host; no plugin that the successor does not know."""
    assert CONFIG["theme"]["font"] is False
    assert CONFIG["plugins"] == ["search", "offline"]
    assert not {"extra_javascript", "hooks", "repo_url"} & CONFIG.keys()
    for page in pages():
        found = re.findall(r"!\[[^\]]*\]\(http|<(?:script|link|img|iframe)\b", text_of(page))
        assert found == [], page


def test_pictures_say_in_words_what_they_show() -> None:
    """For those who do not see them; and they are drawn in the colours of the text."""
    pictures = 0
    for page in pages():
        text = text_of(page)
        for found in re.finditer(r'<div class="picture"(.*)>', text):
            pictures += 1
            assert 'role="img"' in found[1], page
            assert re.search(r'aria-label="[^"]{40,}"', found[1]), page
        assert text.count("<svg") == text.count('<div class="picture"'), page
        assert not re.search(r'<svg.*(?:fill|stroke)="(?:black|white|#)', text), page
    assert pictures >= 3


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Links, anchors and navigation included; what is built asks no other host for anything."""
    subprocess.run(
        [
            *(sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"),
            *("--config-file", DOCS / "mkdocs.yml", "--site-dir", tmp_path / "site"),
        ],
        check=True,
        cwd=ROOT,
    )
    for built in (tmp_path / "site").rglob("*.html"):
        text = built.read_text(encoding="utf-8")
        loaded = re.findall(r'(?:src|<link[^>]*href)="(https?:[^"]*|//[^"]*)"', text)
        assert loaded == [], built.name
