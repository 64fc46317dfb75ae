"""A shop that runs on any number of servers: `uvicorn shop:app`.

Selling under a lock for each path, a queue page in front of a sale, and mails sent behind.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import store
from fastapi import Body, Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse

from cluster import Client, CoterieError
from cluster.client.holdings import Lock
from cluster.client.jobs import Job
from cluster.client.refusals import DuplicateKey, LockHeld, PassInvalid

SALE = "shop sale"
MAILS = "shop mails"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Client]]:
    """One client for the process, for as long as it serves; it lives in the event loop."""
    store.make_tables()
    async with Client(os.environ["COTERIE_ENDPOINTS"]) as client:
        # Lets one in each second, for an hour each. All servers say the same: that is no change.
        await client.room(SALE).set(window_size=1, window_interval="1s", active_windows=3600)
        worker = client.worker(MAILS, handle=send, concurrency=2)
        working = asyncio.create_task(worker.run())
        yield {"client": client}
        # Ends what it has begun; jobs that wait are for the other servers.
        worker.stop()
        await working


app = FastAPI(lifespan=lifespan)


@app.exception_handler(CoterieError)
async def tell(request: Request, error: CoterieError) -> JSONResponse:
    """409 where somebody else is at it, 503 where the cluster cannot tell."""
    status = 409 if isinstance(error, LockHeld) else 503
    answer = {"error": error.code, "detail": error.detail}
    return JSONResponse(answer, status, headers={"Retry-After": "1"})


# Selling: what is read, asked for elsewhere and written belongs together.


async def path_lock(request: Request) -> AsyncIterator[Lock]:
    """The lock of the path that is asked for. Where it is lost, the request is cancelled."""
    client: Client = request.state.client
    async with (
        client.session(ttl="10s") as session,
        session.lock(request.url.path, wait="5s") as lock,
    ):
        yield lock


# "function": it is given back before the answer is sent, so that a loss is told by the answer.
Locked = Annotated[Lock, Depends(path_lock, scope="function")]


@app.put("/items/{item}")
async def stock_up(item: str, lock: Locked, left: Annotated[int, Body(embed=True)]) -> dict:
    """Say how many there are of an item."""
    await asyncio.to_thread(store.put_stock, item, left, lock.name, lock.token)
    return {"item": item, "left": left}


@app.post("/items/{item}", status_code=201)
async def sell(item: str, lock: Locked) -> dict:
    """Sell one of an item, unless none is left."""
    left = await asyncio.to_thread(store.stock, item)
    if left == 0:
        raise HTTPException(410, "sold out")
    cents = await price(item, left)
    # `token` raises where we cannot rely on the lock any more; the store refuses it if it is old.
    await asyncio.to_thread(store.put_stock, item, left - 1, lock.name, lock.token)
    return {"item": item, "left": left - 1, "cents": cents}


async def price(item: str, left: int) -> int:
    """What an item costs: in truth another service is asked, which takes its time."""
    await asyncio.sleep(0.02)
    return 1_000 - left


# A queue page: who comes takes a place, and shows its pass from then on.


@app.get("/sale")
async def sale(request: Request) -> HTMLResponse:
    """The sale, or one's place in the queue of it; whichever server is asked."""
    room = request.state.client.room(SALE)
    try:
        standing = await room.place(request.cookies.get("place", "")).status()
    except PassInvalid:
        standing = None
    if standing is None or standing.status == "expired":
        place = await room.join()
        standing, token = place.standing, place.token
    else:
        token = request.cookies["place"]
    if standing.status == "active":
        page = HTMLResponse("<h1>Welcome to the sale</h1>")
    else:
        seconds = max(1, round(standing.eta_ms / 1_000))
        page = HTMLResponse(
            f"<h1>{standing.ahead + 1}. in the queue</h1><p>About {seconds} s.</p>",
            headers={"Refresh": str(min(seconds, 10)), "Cache-Control": "no-store"},
        )
    page.set_cookie("place", token, httponly=True, samesite="lax")
    return page


# Mails: put as jobs, and done by whichever server has room.


@app.post("/mails", status_code=202)
async def welcome(request: Request, address: Annotated[str, Body(embed=True)]) -> dict:
    """Have a mail sent; one that waits to be sent is not put twice."""
    tube = request.state.client.tube(MAILS)
    try:
        put = await tube.put(address, ttr="3s", key=f"welcome {address}")
    except DuplicateKey:
        return {"address": address, "is_new": False}
    return {"address": address, "is_new": True, "job": put.job}


async def send(job: Job) -> None:
    """Send one. If this server dies meanwhile, another does it: so it may be done twice."""
    await asyncio.to_thread(store.put_in_outbox, job.id, job.body)
