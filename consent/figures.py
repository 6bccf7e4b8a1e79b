"""Figures of a day, counted by the schedule, so that a chart reads thirty small rows and not all that there is."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Count, Exists, OuterRef
from django.utils import timezone

from consent import overview
from consent.models import CustomerConsent, DailyFigures
from consent.states import count_by_state
from portal.incidents.models import Incident
from tenants.models import CustomerTenant

KEPT_FOR = timedelta(days=400)  # a year can be compared with the one before


def count_today() -> DailyFigures:
    """Count, and write today's row in place of an earlier one of today.

    Six queries; of many customers two more and of many partners one more, whose answers the first page then shows.
    """
    now = timezone.now()  # before anything is counted: no number is older than it says
    listed = CustomerTenant.objects.listed()
    granted = CustomerConsent.objects.filter(customer=OuterRef("pk"), state=CustomerConsent.State.GRANTED)
    by_state = CustomerConsent.objects.order_by().values_list("state").annotate(Count("pk"))
    number, partners = listed.count(), count_by_state()
    row = DailyFigures(
        day=timezone.localdate(now),
        partners=partners,
        customers=number,
        granted_customers=listed.filter(Exists(granted)).count(),
        consents=dict(by_state),
        invitation_counts=overview.count_invitations().to_json()
        if sum(partners.values()) >= overview.MANY_PARTNERS
        else {},
        open_incidents=Incident.objects.open().count(),
        customer_counts=overview.count_customers().to_json() if number >= overview.MANY_CUSTOMERS else {},
        counted_at=now,
    )
    columns = [field.name for field in DailyFigures._meta.concrete_fields if not field.primary_key]
    DailyFigures.objects.bulk_create([row], update_conflicts=True, unique_fields=["day"], update_fields=columns)
    return row


def remove_old() -> int:
    """Remove figures of days that are over for long; return how many."""
    removed, _ = DailyFigures.objects.filter(day__lt=timezone.localdate() - KEPT_FOR).delete()
    return removed
