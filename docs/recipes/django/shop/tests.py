"""`manage.py test`: Django's test client, against a cluster that is there."""

from django.conf import settings
from django.test import TransactionTestCase, override_settings

from cluster import SyncClient
from shop.models import Charge, Order


class PayTest(TransactionTestCase):
    """Paying an order, in transactions that are real ones."""

    def test_a_repeat_gets_the_same_receipt(self):
        """And charges nothing."""
        order = Order.objects.create(cents=995)
        first = self.client.post(f"/orders/{order.pk}/pay")
        again = self.client.post(f"/orders/{order.pk}/pay")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["receipt"] == again.json()["receipt"]
        assert Charge.objects.get().asked == 1

    @override_settings(LOCK_WAIT="0s")
    def test_who_comes_while_another_pays_is_told_so(self):
        """409, and when to come again."""
        order = Order.objects.create(cents=995)
        with (
            SyncClient(settings.COTERIE_ENDPOINTS) as other,
            other.session() as session,
            session.lock(f"orders/{order.pk}"),
        ):
            answer = self.client.post(f"/orders/{order.pk}/pay")
        assert answer.status_code == 409
        assert answer.json()["error"] == "lock_held"
        assert not Charge.objects.exists()

    def test_who_is_too_late_writes_nothing(self):
        """A later holder of the lock has written the row: the database refuses an older token."""
        order = Order.objects.create(cents=995, fence=2**62)
        answer = self.client.post(f"/orders/{order.pk}/pay")
        assert answer.status_code == 503
        assert answer.json()["error"] == "stale_token"
        order.refresh_from_db()
        assert (order.receipt, order.fence) == ("", 2**62)
