"""The same random calls to PostgreSQL with go-session-lock's functions, and to our front.

RULE: a command, as it needs a PostgreSQL server: `python -m tests.fronts.postgres_differential
--oracle postgresql:///… --seeds 0:200`. Every result and every SQLSTATE must be the same; numbers of
sessions are compared by the order in which they were given out. Nothing waits two minutes, so that
sessions end only by `end_session` here.

The functions are written anew from the specification of promoboxx/go-session-lock, with its table
`work_lock` and its algorithm of `get_work`; where it leaves the order of picking up open, it is that
of ids.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import time
from collections import Counter
from typing import Any

import psycopg

from cluster.fronts.postgres.front import PostgresFront
from cluster.testing.local_node import LocalNode
from tests.fronts.around import around

SCHEMA = """
DROP SCHEMA IF EXISTS differential CASCADE;
CREATE SCHEMA differential;
SET search_path TO differential;
CREATE TABLE session (id BIGSERIAL PRIMARY KEY, created TIMESTAMP, expires TIMESTAMP);
CREATE TABLE work_lock (id BIGSERIAL PRIMARY KEY, created TIMESTAMP);
INSERT INTO work_lock (created) VALUES (now());
CREATE TABLE task (id BIGINT PRIMARY KEY, data TEXT, session_id BIGINT);
CREATE TYPE session_task AS (id BIGINT, data TEXT);

CREATE FUNCTION start_session() RETURNS BIGINT LANGUAGE sql AS $$
    INSERT INTO session (created, expires)
    VALUES (now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc' + interval '2 minutes')
    RETURNING id $$;
CREATE FUNCTION throw_session_not_found() RETURNS void LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'Session not found.' USING ERRCODE = 'SL001'; END $$;
CREATE FUNCTION bump_session(which BIGINT) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE session SET expires = now() AT TIME ZONE 'utc' + interval '2 minutes'
            WHERE id = which AND expires >= now() AT TIME ZONE 'utc';
        IF NOT FOUND THEN PERFORM throw_session_not_found(); END IF;
    END $$;
CREATE FUNCTION end_session(which BIGINT) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN UPDATE session SET expires = '-infinity' WHERE id = which; END $$;
CREATE FUNCTION get_work(which BIGINT, cap INTEGER) RETURNS SETOF session_task
    LANGUAGE plpgsql AS $$
    DECLARE sessions INTEGER; tasks INTEGER; ideal INTEGER; have INTEGER;
    BEGIN
        PERFORM 1 FROM work_lock WHERE id = 1 FOR UPDATE;
        PERFORM bump_session(which);
        SELECT count(*) INTO sessions FROM session WHERE expires >= now() AT TIME ZONE 'utc';
        SELECT count(*) INTO tasks FROM task;
        ideal := least(ceil(tasks::numeric / sessions), cap);
        SELECT count(*) INTO have FROM task WHERE session_id = which;
        IF have < ideal THEN
            UPDATE task SET session_id = which WHERE id IN (
                SELECT t.id FROM task t LEFT JOIN session s ON s.id = t.session_id
                WHERE s.id IS NULL OR s.expires < now() AT TIME ZONE 'utc'
                ORDER BY t.id LIMIT ideal - have);
        END IF;
        RETURN QUERY SELECT t.id, t.data FROM task t WHERE t.session_id = which ORDER BY t.id;
    END $$;
CREATE FUNCTION finish_tasks(ids BIGINT[]) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN DELETE FROM task WHERE id = ANY(ids); END $$;
CREATE FUNCTION add_tasks(ids BIGINT[], data TEXT[]) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO task (id, data) SELECT * FROM unnest(ids, data); END $$;
"""

Db = psycopg.AsyncConnection[tuple[Any, ...]]


class Side:
    """One of the two: a connection, and the sessions it has given out."""

    def __init__(self, db: Db):
        self.db = db
        self.sessions: list[int] = [2**40]
        self.took_s: list[float] = []

    async def call(self, text: str, *given: object, is_binary: bool) -> object:
        """Rows in order of id, or the SQLSTATE."""
        began = time.perf_counter()
        try:
            cursor = self.db.cursor(binary=is_binary)
            await cursor.execute(text, given)  # type: ignore[arg-type]
            return sorted(await cursor.fetchall())
        except psycopg.Error as error:
            return error.sqlstate
        finally:
            self.took_s.append(time.perf_counter() - began)


async def script(rng: random.Random, sides: list[Side], counts: Counter[str]) -> None:
    """Run one script on both.

    Raises:
        AssertionError: they differ.
    """
    next_id = 1
    for _ in range(rng.randint(20, 80)):
        verb = rng.choices(("start", "bump", "end", "work", "finish", "add"), (2, 2, 1, 6, 4, 4))[0]
        is_binary = rng.random() < 0.5
        which = rng.randrange(len(sides[0].sessions))
        cap = rng.choice([None, 0, 1, 2, 5, 100, -1])
        ids = rng.sample(range(1, next_id + 3), rng.randint(0, min(6, next_id)))
        count = rng.randint(1, 6)
        said = []
        for side in sides:
            session = side.sessions[which]
            match verb:
                case "start":
                    rows = await side.call("SELECT start_session()", is_binary=is_binary)
                    assert isinstance(rows, list)
                    side.sessions.append(rows[0][0])
                    said.append(side.sessions[1:] == sorted(side.sessions[1:]))
                case "bump" | "end":
                    said.append(
                        await side.call(f"SELECT {verb}_session(%s)", session, is_binary=is_binary)
                    )
                case "work":
                    text = "SELECT * FROM get_work(%s, %s)"
                    said.append(await side.call(text, session, cap, is_binary=is_binary))
                case "finish":
                    text = "SELECT finish_tasks(%s::bigint[])"
                    said.append(await side.call(text, ids, is_binary=is_binary))
                case "add":
                    fresh = list(range(next_id, next_id + count))
                    text = "SELECT add_tasks(%s::bigint[], %s)"
                    data = [f"data {id}" for id in fresh]
                    said.append(await side.call(text, fresh, data, is_binary=is_binary))
        if verb == "add":
            next_id += count
        counts[verb] += 1
        assert said[0] == said[1], f"{verb} of session {which}, cap {cap}, ids {ids}: {said}"


async def run(oracle: str, seeds: range) -> int:
    """Run all scripts; the number of those that differ."""
    counts: Counter[str] = Counter()
    different = 0
    took: list[list[float]] = [[], []]
    async with await psycopg.AsyncConnection.connect(oracle, autocommit=True) as theirs:
        for seed in seeds:
            await theirs.execute(SCHEMA)
            front = PostgresFront(around(LocalNode()), (("id", "bigint"), ("data", "text")))
            await front.start("127.0.0.1", 0)
            host, port = front.addresses[0]
            ours = await psycopg.AsyncConnection.connect(
                host=host, port=port, user="u", dbname="d", autocommit=True
            )
            sides = [Side(theirs), Side(ours)]
            try:
                await script(random.Random(seed), sides, counts)
            except AssertionError as error:
                different += 1
                print(f"seed {seed}: {error}")
            await ours.close()
            await front.stop(1.0)
            for kept, side in zip(took, sides, strict=True):
                kept += side.took_s
    print(f"{len(seeds)} scripts, {different} differ; calls: {dict(counts)}")
    with contextlib.suppress(statistics.StatisticsError):
        for name, times in zip(("PostgreSQL", "front, without replication"), took, strict=True):
            cuts = statistics.quantiles(times, n=100)
            print(f"{name}: p50 {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms")
    return different


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--oracle", required=True, help="connection string of a PostgreSQL")
    parser.add_argument("--seeds", default="0:100", help="first:last+1")
    given = parser.parse_args()
    first, last = map(int, given.seeds.split(":"))
    sys.exit(1 if asyncio.run(run(given.oracle, range(first, last))) else 0)


if __name__ == "__main__":
    main()
