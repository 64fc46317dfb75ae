"""What runs the commands of a fleet's schedules: start it on every server, as a service.

    coterie tasks put fleet-cron --file jobs.json --replace     # what is due, and when: said once
    python fleetcron.py                                         # who does it: on each server

The data of a task is a command for the shell. It finds the due time as COTERIE_SLOT_MS and its
token as COTERIE_TOKEN. SIGTERM lets what runs come to its end, and then leaves.
"""

import asyncio
import logging
import os
import signal
import socket

from cluster import Client

POOL = "fleet-cron"
# How long nobody repeats what was under way at a server that was lost.
TTL = os.environ.get("FLEETCRON_TTL", "30s")

log = logging.getLogger("fleetcron")


async def main() -> None:
    """Run what is due, until SIGTERM."""
    async with Client(os.environ["COTERIE_ENDPOINTS"]) as client:
        runner = client.runner(
            POOL,
            concurrency=4,
            ttl=TTL,
            name=f"fleetcron {socket.gethostname()}",
            on_error=lambda task, error: log.warning("%s: %s", task and task.id, error),
        )
        runner.task(run)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, runner.stop)
        await runner.run()


async def run(task) -> None:
    """Run the command of a task; cancelled when the task is not ours any more."""
    told = {"COTERIE_SLOT_MS": str(task.slot_ms), "COTERIE_TOKEN": str(task.token)}
    # A session of its own, so that it can be ended whole, its children with it.
    command = await asyncio.create_subprocess_exec(
        "sh", "-c", task.data, env={**os.environ, **told}, start_new_session=True
    )
    try:
        code = await command.wait()
    finally:
        if command.returncode is None:
            os.killpg(command.pid, signal.SIGKILL)
            await command.wait()
    # As with cron, it is due again at its next time. To have it repeated before that: raise.
    log.log(logging.WARNING if code else logging.INFO, "%s ended with %s", task.id, code)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(main())
