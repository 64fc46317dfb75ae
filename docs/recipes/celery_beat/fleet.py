"""A Celery application with a periodic task. Beat runs on every machine, and one sends.

The broker is a folder here, so that nothing else is needed to try it; set BROKER_URL to your own.
"""

import os
from pathlib import Path

from celery import Celery
from celery.signals import before_task_publish

app = Celery("fleet", broker=os.environ.get("BROKER_URL", "filesystem://"))
app.conf.beat_schedule = {
    "refresh": {"task": "fleet.refresh", "schedule": float(os.environ.get("REFRESH_S", "60"))},
}
app.conf.task_ignore_result = True

if app.conf.broker_url == "filesystem://":
    queue = Path(os.environ.get("QUEUE_FOLDER", "queue")).absolute()
    queue.mkdir(parents=True, exist_ok=True)
    app.conf.broker_transport_options = {
        "data_folder_in": str(queue),
        "data_folder_out": str(queue),
        "control_folder": str(queue / "control"),
    }


@app.task(bind=True)
def refresh(self):
    """What is done once a minute in the whole fleet."""
    print(f"refreshed, sent under token {self.request.get('coterie_token')}", flush=True)


@before_task_publish.connect
def show_token(headers=None, **_):
    """Send the token of `coterie lock` with each message, where beat runs under it."""
    token = os.environ.get("COTERIE_TOKEN")
    if token is not None and headers is not None:
        headers["coterie_token"] = int(token)
