"""katexochen/sync's SQLite file: tables `fifos` and `tickets`.

RULE: rows to wishes; the file is opened to be read only.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from cluster.cli.importing.wishes import Found, SourceError, Unfit, Wish, key_of
from cluster.client.core import path_of

_NS_PER_MS: Final = 1_000_000
_TIMEOUTS: Final = ("wait_timeout", "accept_timeout", "done_timeout", "unused_destroy_timeout")
TIMEOUT_MS_MAX: Final = 3_660 * 86_400_000


def found(file: Path) -> Found:
    """What the file holds.

    Raises:
        SourceError: it cannot be read, or is not of sync.
    """
    try:
        # As a URI, so that nothing is created where nothing is.
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as base:
            base.row_factory = sqlite3.Row
            fifos = base.execute("SELECT * FROM fifos ORDER BY created_at").fetchall()
            tickets = base.execute("SELECT * FROM tickets ORDER BY created_at").fetchall()
            return _found(fifos, tickets)
    except sqlite3.Error as error:
        raise SourceError(f"{file}: {error}") from None
    except (IndexError, TypeError, ValueError) as error:
        raise SourceError(f"{file}: is not of sync: {error}") from None


def _found(fifos: list[Any], tickets: list[Any]) -> Found:
    result = Found()
    for row in fifos:
        uuid = str(row["uuid"])
        # Below a millisecond is none, and none is for ever: so it is one.
        body: dict[str, object] = {
            name: min(-(-max(0, int(row[name])) // _NS_PER_MS), TIMEOUT_MS_MAX)
            for name in _TIMEOUTS
        }
        body |= {"name": uuid, "allow_overrides": bool(row["allow_overrides"])}
        result.wishes.append(
            Wish("fifo", uuid, "POST", path_of("fifos"), body, key_of("sync", uuid))
        )
    why = (
        "the API gives tickets ids of its own, so its holder would not find it: wait until the "
        "queue is empty, or have holders take new ones"
    )
    result.unfit.extend(Unfit("ticket", str(row["uuid"]), why) for row in tickets)
    if tickets:
        result.notes.append("needed for tickets: a call that takes one under a given id")
    return result
