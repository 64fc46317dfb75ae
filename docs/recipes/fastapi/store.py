"""What the shop keeps, in SQLite. It refuses tokens that are older than one it has seen."""

import os
import sqlite3
from contextlib import closing

from cluster import fencing

DATABASE = os.environ.get("SHOP_DATABASE", "shop.db")


def make_tables() -> None:
    """Make what is not there yet."""
    with _database() as db, db:
        db.execute(fencing.SQL_TABLE)
        db.execute("CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, count INTEGER)")
        db.execute("CREATE TABLE IF NOT EXISTS outbox (job INTEGER PRIMARY KEY, address TEXT)")


def stock(item: str) -> int:
    """How many there are of an item."""
    with _database() as db:
        found = db.execute("SELECT count FROM stock WHERE item = ?", (item,)).fetchone()
    return 0 if found is None else found[0]


def put_stock(item: str, count: int, lock: str, token: int) -> None:
    """Say how many there are.

    Raises:
        TokenStale: the lock was another's meanwhile; nothing was written.
    """
    with _database() as db, db:
        fencing.admit_sql(db.cursor(), lock, token)
        db.execute("INSERT OR REPLACE INTO stock VALUES (?, ?)", (item, count))


def put_in_outbox(job: int, address: str) -> None:
    """Have a mail go out, once for each job."""
    with _database() as db, db:
        db.execute("INSERT OR IGNORE INTO outbox VALUES (?, ?)", (job, address))


def _database() -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(DATABASE, timeout=30))
