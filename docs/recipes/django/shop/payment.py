"""The payment provider, which is another company in truth: what it did stays done.

Like real ones it takes a key with each charge and does the same charge once; it is asked once and
no more all the same, as long as no server dies between charge and receipt.
"""

import time

from django.db import transaction
from django.db.models import F

from shop.models import Charge


def charge(*, key: str, cents: int) -> str:
    """Charge a customer; returns the receipt."""
    # The way there and back.
    time.sleep(0.05)
    return _charged(key, cents)


@transaction.atomic
def _charged(key: str, cents: int) -> str:
    charge, is_new = Charge.objects.get_or_create(key=key, defaults={"cents": cents})
    if not is_new:
        Charge.objects.filter(pk=charge.pk).update(asked=F("asked") + 1)
    return f"receipt {charge.pk}"
