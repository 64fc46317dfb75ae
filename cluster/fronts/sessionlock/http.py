"""The database functions of go-session-lock as HTTP calls, for programs without a Postgres driver.

RULE: one call for each function: `POST /NAME`, or `POST /POOL/NAME` for a pool of one's own, with
a JSON object of the function's arguments. The original has no HTTP face; names and codes are those
of its SQL.

    start_session                                      200 {"session_id": 7}
    bump_session  {"session_id": 7}                    204
    end_session   {"session_id": 7}                    204
    get_work      {"session_id": 7,                    200 {"tasks": [{"id": "1", "data": "…"}]}
                   "tasks_per_session": 10 or null}
    finish_tasks  {"ids": ["1", 2]}                    204
    add_tasks     {"tasks": [{"id": "1", "data": "…"}]}  204

An error is `{"sqlstate", "message"}`: 404 SL001 for a session that does not live, 400 22023 for
arguments that cannot be, 503 53400 at a limit, 503 57P03 where surely nothing happened, 504 08007
where it may have.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from cluster.errors import CoterieError
from cluster.fronts.front import ServedFront, Surroundings
from cluster.fronts.gohttp.exchange import (
    Answer,
    BodyBroken,
    BodyTooLarge,
    Request,
    document,
)
from cluster.fronts.gohttp.servemux import ServeMux
from cluster.fronts.gohttp.server import GoServer
from cluster.fronts.sessionlock.calls import POOL, Calls, Full, SessionGone
from cluster.node.config import Config
from cluster.wire.commands import is_name

BODY_BYTES_MAX: Final = 4 * 1024 * 1024

_BigInt = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class _None(msgspec.Struct, forbid_unknown_fields=True):
    """No arguments."""


class _Session(msgspec.Struct, forbid_unknown_fields=True):
    session_id: _BigInt


class _GetWork(msgspec.Struct, forbid_unknown_fields=True):
    session_id: _BigInt
    tasks_per_session: _BigInt | None = None


class _Ids(msgspec.Struct, forbid_unknown_fields=True):
    ids: list[str | int]


class _NewTask(msgspec.Struct, forbid_unknown_fields=True):
    id: str | int
    data: str | None = None


class _NewTasks(msgspec.Struct, forbid_unknown_fields=True):
    tasks: list[_NewTask]


async def _start_session(calls: Calls, _: _None) -> object:
    return {"session_id": await calls.start_session()}


async def _bump_session(calls: Calls, given: _Session) -> None:
    await calls.bump_session(given.session_id)


async def _end_session(calls: Calls, given: _Session) -> None:
    await calls.end_session(given.session_id)


async def _get_work(calls: Calls, given: _GetWork) -> object:
    tasks = await calls.get_work(given.session_id, given.tasks_per_session)
    return {
        "tasks": [
            {
                "id": task.id,
                "data": None if task.data is None else task.data.decode(errors="replace"),
            }
            for task in tasks
        ]
    }


async def _finish_tasks(calls: Calls, given: _Ids) -> None:
    await calls.finish_tasks(map(str, given.ids))


async def _add_tasks(calls: Calls, given: _NewTasks) -> None:
    await calls.add_tasks(
        [
            (str(task.id), None if task.data is None else task.data.encode(errors="replace"))
            for task in given.tasks
        ]
    )


Run: TypeAlias = Callable[[Calls, Any], Awaitable[object]]

_FUNCTIONS: Final[Mapping[str, tuple[type[msgspec.Struct], Run]]] = {
    "start_session": (_None, _start_session),
    "bump_session": (_Session, _bump_session),
    "end_session": (_Session, _end_session),
    "get_work": (_GetWork, _get_work),
    "finish_tasks": (_Ids, _finish_tasks),
    "add_tasks": (_NewTasks, _add_tasks),
}


class SessionLockFront(ServedFront):
    """Serves the functions over HTTP."""

    def __init__(self, around: Surroundings):
        self._around = around
        mux = ServeMux(
            (f"POST {prefix}/{name}", self._handler(takes, run))
            for name, (takes, run) in _FUNCTIONS.items()
            for prefix in ("", "/{pool}")
        )
        self._server = GoServer("session-lock", mux.serve)

    def _handler(
        self, takes: type[msgspec.Struct], run: Run
    ) -> Callable[[Request, Mapping[str, str]], Awaitable[Answer]]:
        decoder = msgspec.json.Decoder(takes)

        async def handle(request: Request, place: Mapping[str, str]) -> Answer:
            pool = place.get("pool", POOL)
            if not is_name(pool):
                return _error(HTTPStatus.BAD_REQUEST, "22023", f"{pool[:80]!r} is no pool's name")
            try:
                body = await request.body(BODY_BYTES_MAX)
                given = decoder.decode(body or b"{}")
            except BodyTooLarge:
                text = f"the body is too large: use at most {BODY_BYTES_MAX} bytes"
                return _error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "54000", text, closes=True)
            except (BodyBroken, msgspec.DecodeError, UnicodeDecodeError) as error:
                return _error(HTTPStatus.BAD_REQUEST, "22023", f"body: {error}")
            return await _answered(run, Calls(self._around.desk, pool), given)

        return handle


async def _answered(run: Run, calls: Calls, given: Any) -> Answer:
    try:
        result = await run(calls, given)
    except SessionGone as gone:
        return _error(HTTPStatus.NOT_FOUND, "SL001", str(gone))
    except Full as full:
        return _error(HTTPStatus.SERVICE_UNAVAILABLE, "53400", str(full))
    except ValueError as error:
        return _error(HTTPStatus.BAD_REQUEST, "22023", str(error))
    except CoterieError as error:
        if error.definite:
            text = f"the cluster cannot answer now: {error.detail}"
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, "57P03", text)
        text = f"it may have happened: {error.detail}"
        return _error(HTTPStatus.GATEWAY_TIMEOUT, "08007", text)
    return Answer(HTTPStatus.NO_CONTENT) if result is None else document(result)


def _error(status: HTTPStatus, code: str, text: str, *, closes: bool = False) -> Answer:
    answer = document({"sqlstate": code, "message": text}, status)
    return Answer(answer.status, answer.body, answer.headers, closes)


def make(config: Config, around: Surroundings) -> SessionLockFront:
    """Make the front of a node's settings."""
    del config
    return SessionLockFront(around)
