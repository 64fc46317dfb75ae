#!/bin/sh
# Celery beat on each machine, one of them active: the others wait for its lock.
#
# When the active one dies or is cut off, `coterie lock` ends its beat before the lock can be
# another's; then the next one begins. It waits for an hour at the most and leaves with 75: let
# whatever keeps it running (systemd: Restart=always) start it again.
#
# celery.beat:Scheduler keeps no file. The schedule file of another scheduler, left on this machine
# when it was last active, would make everything due that others have sent since.
exec coterie lock celery-beat --wait 1h --ttl "${BEAT_TTL:-10s}" -- \
    celery --app fleet beat --loglevel info --pidfile= --scheduler celery.beat:Scheduler
