"""The application that all workers serve. It tells who runs the jobs."""

import json

from jobs import GROUP, client


def application(environ, start_response):
    """Answer any request with the leader of the fleet."""
    leader = client.election(GROUP).leader()
    found = None if leader is None else {"name": leader.name, "token": leader.token}
    body = json.dumps({"leader": found}).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [body]
