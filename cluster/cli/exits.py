"""Exit codes of the command line, and which failure means which.

RULE: the one table; every command that asks the cluster leaves by it. `coterie lock` hands on the
code of its command and has codes of its own beside it, `coterie status` judges.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from cluster.errors import CoterieError

DONE = 0
REFUSED = 1
USAGE = 2
NOT_FOUND = 3
NOT_NOW = 4
UNKNOWN = 5
INTERRUPTED = 130

_OUT_OF_REACH = frozenset({"unreachable", "no_leader", "connection_lost"})

EXITS = """
\b
Exit codes of all commands that ask the cluster:
    0  done
    1  no: refused with a reason (the lock is held), or the answer is a no
    2  the command, or what it was given, makes no sense
    3  not found, or gone: no such session, job, fifo …
    4  not now, and nothing has happened: no leader, overload, out of reach
    5  it may have happened: the answer was lost; ask again by the same --key
  130  interrupted
"""


def code_of(error: CoterieError, *, is_read: bool = False) -> int:
    """The exit code of a failure. A read that was lost has done nothing."""
    from cluster.errors import Refused

    if isinstance(error, Refused):
        if error.status in {404, 410}:
            return NOT_FOUND
        if error.status in {400, 405, 415}:
            return USAGE
        return NOT_NOW if error.status == 429 else REFUSED
    return NOT_NOW if error.definite or is_read else UNKNOWN


def cure_of(error: CoterieError) -> str | None:
    """What to do where the wrong place was asked, or in the wrong way; None for all else."""
    said = error.detail
    if "certificate is not valid for" in said:
        return "use the name that its certificate is for"
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return "name the authority that vouches for it by --ca FILE, or COTERIE_CA"
    # By OpenSSL before and since 3.2.
    if "WRONG_VERSION_NUMBER" in said or "RECORD_LAYER_FAILURE" in said:
        return "no TLS is spoken there: use http://, without --ca"
    is_no_answer_of_ours = error.code.startswith("http_4") or "Bad status line" in said
    if is_no_answer_of_ours or said.endswith("Server disconnected"):
        return "is that the API of a node (its setting http), and does it want https://?"
    return None


def told(error: CoterieError, output: str, *, who: str, key: str | None = None) -> str:
    """What is said of a failure on standard error: a sentence, or one line of JSON for programs.

    Args:
        output: the command's `-o`.
        who: the command as it was called.
        key: Idempotency-Key that makes a repeat harmless.
    """
    from cluster.errors import Refused

    if output in {"json", "yaml"}:
        problem: dict[str, object] = {
            "code": error.code,
            "definite": error.definite,
            "retryable": error.retryable,
            "detail": error.detail,
        }
        if isinstance(error, Refused):
            problem["status"] = error.status
            problem.update(error.reason)
        if key is not None and not error.definite:
            problem["key"] = key
        return json.dumps(problem, ensure_ascii=False)
    text = f"{click.style('refused', fg='yellow')}: " if isinstance(error, Refused) else ""
    text = f"{who}: {text}{error.detail}"
    if (cure := cure_of(error)) is not None:
        text += f"\n{cure[0].upper()}{cure[1:]}"
    elif error.code in _OUT_OF_REACH:
        text += "\nWhich nodes answer, and who leads: coterie status"
    if key is not None and not error.definite:
        text += f"\nIt may have happened. To repeat it without doing it twice: --key {key}"
    return text
