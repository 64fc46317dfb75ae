"""How blocks are found in a page, and what counts as shown."""

from __future__ import annotations

import pytest

from tests.docs.comparing import is_shown
from tests.docs.pages import blocks_of, commands_of

PAGE = """
=== "CLI"

    ```console
    $ echo one \\
        two
    one two
    $ true
    $ false || echo three
    three
    ```

```{.python .no-run}
print(1)
```

```{.text .output}
1
```
"""


def test_blocks_are_found_with_their_lines_and_classes() -> None:
    """Also those that are set in."""
    console, python, output = blocks_of("page.md", PAGE)
    assert (console.language, console.line, console.is_run) == ("console", 5, True)
    assert (python.language, python.classes, python.is_run) == ("python", ("no-run",), False)
    assert (output.text, output.is_output, output.is_run) == ("1", True, False)


def test_commands_are_told_from_what_they_print() -> None:
    """A command may go on in the next line; one may print nothing."""
    commands = commands_of(blocks_of("page.md", PAGE)[0])
    assert [(command.text, command.output) for command in commands] == [
        ("echo one \\\n    two", "one two"),
        ("true", ""),
        ("false || echo three", "three"),
    ]


def test_a_block_without_an_end_is_an_error() -> None:
    """It would swallow the page."""
    with pytest.raises(ValueError, match="does not end"):
        blocks_of("page.md", "```console\n$ true\n")


def test_output_without_a_command_is_an_error() -> None:
    """Most likely a dollar sign is missing."""
    with pytest.raises(ValueError, match="no command"):
        commands_of(blocks_of("page.md", "```console\ntrue\n```\n")[0])


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("granted", "granted\n"),
        ("token 4", "token 417"),
        ("held for 31 ms", "held for 7 ms"),
        ("session 3-5d8a008c73243c1b", "session a1f-00000000ffffffff"),
        ('{"token":"eyJ…"}', '{"token":"eyJa.b-c.d_e"}'),
        ("first\n…\nlast", "first\nsecond\nthird\nlast"),
        ("NAME    TOKEN\norders  4", "NAME       TOKEN\norders     4"),
    ],
)
def test_what_differs_from_run_to_run_is_taken_for_equal(shown: str, printed: str) -> None:
    """Ids, tokens, times, widths of columns; and whatever the page leaves out."""
    assert is_shown(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("granted", "refused"),
        ("position 1", "position 2"),
        ("", "Traceback"),
        ("granted", "granted\nand more"),
        ("session 3-5d8a008c73243c1b", "session none"),
        ("first\n…\nlast", "first\nsecond"),
    ],
)
def test_what_is_another_thing_is_not(shown: str, printed: str) -> None:
    """Small numbers count, and so does everything that is printed besides."""
    assert not is_shown(shown, printed)
