"""Where customers are whose tenants were never read: a short list that the schedule keeps, and who came since.

Without it both tables are compared from end to end, which grows with the customers. Consents are never removed and
a read is never forgotten, so a customer can only leave the list, and nothing is written when a customer comes or is
read.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import Exists, Max, OuterRef, QuerySet
from django.utils import timezone

from consent.models import CustomerConsent, UnreadCustomer
from tenants.models import CustomerTenant

_SETTLED = timedelta(hours=1)  # after that no transaction brings a customer with a lower key
_CHUNK = 20_000  # customers


def maybe_unread(owner: str = "") -> list[tuple[QuerySet[Any], str]]:
    """Return two parts, each with the column of the customers' keys: who is in none of them was read. One query.

    Args:
        owner: only those who are not ready, and of whom this one must act.
    """
    short, later = UnreadCustomer.objects.all(), CustomerTenant.objects.order_by().filter(pk__gt=_last())
    if not owner:
        return [(short, "customer"), (later, "pk")]
    listed = CustomerTenant.objects.order_by().filter(pk__in=short.values("customer"))
    return [(listed.filter(readiness_owner=owner), "pk"), (later.filter(readiness_owner=owner), "pk")]


def renew(between: Callable[[], None] = lambda: None) -> int:
    """Take up customers that came since, and leave out those that were read since; return how many stand there.

    Args:
        between: is called now and then, and may raise to end this; what was written is kept.
    """
    settled = CustomerTenant.objects.filter(first_seen_at__lt=timezone.now() - _SETTLED)
    newest = settled.order_by("-pk").values_list("pk", flat=True).first() or 0
    while True:
        between()
        later = CustomerTenant.objects.filter(pk__gt=_last(), pk__lte=newest)
        keys = list(later.order_by("pk").values_list("pk", flat=True)[:_CHUNK])
        if not keys:
            break
        consents = CustomerConsent.objects.order_by().filter(customer__gte=keys[0], customer__lte=keys[-1])
        read = set(consents.filter(verified_at__isnull=False).values_list("customer", flat=True))
        UnreadCustomer.objects.bulk_create(
            [UnreadCustomer(customer_id=key) for key in keys if key not in read or key == keys[-1]],
            ignore_conflicts=True,
        )
    read_since = CustomerConsent.objects.filter(customer=OuterRef("customer"), verified_at__isnull=False)
    UnreadCustomer.objects.filter(Exists(read_since), customer__lt=_last()).delete()
    return UnreadCustomer.objects.count()


def _last() -> int:
    return UnreadCustomer.objects.aggregate(last=Max("customer"))["last"] or 0
