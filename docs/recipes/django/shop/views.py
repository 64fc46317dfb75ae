"""Paying an order, once."""

from django.http import JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from shop.coordination import locked
from shop.models import Order
from shop.payment import charge


@csrf_exempt
@require_POST
def pay(request, order_id: int):
    """Charge for an order, unless that was done; a repeat gets the same receipt."""
    with locked(f"orders/{order_id}") as lock:
        order = get_object_or_404(Order, pk=order_id)
        if order.receipt:
            return JsonResponse({"receipt": order.receipt, "is_new": False})
        # 1. The lock keeps others from charging meanwhile: nobody needs a transaction that stays
        #    open while another company is asked.
        # 2. The key keeps a charge from being made again that was made by a server which died
        #    before it wrote the receipt.
        lock.demand()
        receipt = charge(key=f"order {order.pk}", cents=order.cents)
        # 3. The token keeps us from writing where we were held up for so long that another has the
        #    lock: `token` raises where our clock can tell, and the row refuses it where not.
        order.receipt, order.fence = receipt, lock.token
        order.save(update_fields=["receipt", "fence"])
    return JsonResponse({"receipt": receipt, "is_new": True}, status=201)
