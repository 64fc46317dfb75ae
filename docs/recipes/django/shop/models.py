"""Orders, what was charged for them, and which nights were closed."""

from django.db import models


class Order(models.Model):
    """An order. The database refuses an update whose `fence` is older than the row's."""

    cents = models.PositiveIntegerField()
    receipt = models.TextField(default="")
    # Token of the lock under which the row was written last.
    fence = models.BigIntegerField(default=0)


class Charge(models.Model):
    """What a payment provider has on its side; it knows a charge by the key of who asked."""

    key = models.TextField(unique=True)
    cents = models.PositiveIntegerField()
    asked = models.PositiveIntegerField(default=1)


class Night(models.Model):
    """A day whose books are closed."""

    day = models.DateField(unique=True)
    cents = models.PositiveIntegerField()
