"""`manage.py close_day`: from every server's crontab, done by one of them, once a day."""

import sys
from datetime import UTC, date, datetime

from django.core.management.base import BaseCommand
from django.db.models import Sum

from cluster.client.refusals import LockHeld
from shop.coordination import locked
from shop.models import Charge, Night

# As `coterie lock` says that it did not get the lock.
EXIT_ELSEWHERE = 75


class Command(BaseCommand):
    """Closes the books of a day."""

    help = "Close the books of a day, once in the whole fleet."

    def add_arguments(self, parser):
        """One option."""
        parser.add_argument("--day", type=date.fromisoformat, default=datetime.now(UTC).date())

    def handle(self, *, day, **options):
        """Close the day, unless it is closed, or another server is at it."""
        try:
            with locked("shop/close day", wait="0s") as lock:
                # The lock says "one at a time". "Once a day" is for the database to know: the
                # clock of another server may be late, and it begins when we are through.
                if Night.objects.filter(day=day).exists():
                    self.stdout.write(f"{day} is closed already")
                    return
                cents = Charge.objects.aggregate(cents=Sum("cents"))["cents"] or 0
                # Raises where the lock was lost meanwhile; `unique` stops who cannot tell.
                lock.demand()
                Night.objects.create(day=day, cents=cents)
                self.stdout.write(f"{day} closed: {cents} cents")
        except LockHeld as error:
            self.stderr.write(f"another server is at it: {error.detail}")
            sys.exit(EXIT_ELSEWHERE)
