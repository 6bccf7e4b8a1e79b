"""What touched a partner: runs, plans and campaigns, the newest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q

from consent.models import CampaignPartner, ConsentPlan, ConsentPlanItem, PartnerConsent
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.token_check import TOKEN_CHECK
from portal.runs.models import RunItem
from tenants.models import PartnerTenant

SHOWN = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """A plan, with how many of the partner's customers are in it, and how many of them failed."""

    plan: ConsentPlan
    number: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What touched a partner.

    Attributes:
        units: checks and syncs, each with its run: what came of the partner in it.
        plans: those with customers of the partner.
        campaigns: invitations with ``progress`` and their campaign.
    """

    units: Sequence[RunItem]
    plans: Sequence[PlanLine]
    campaigns: Sequence[Any]


def activity_of(partner: PartnerTenant) -> Activity:
    """Read what touched a partner; five queries, whatever it has."""
    tokens = list(PartnerConsent.objects.filter(partner=partner).values_list("pk", flat=True))
    units = RunItem.objects.filter(
        Q(run__kind=TOKEN_CHECK.name, key__in=tokens) | Q(run__kind=CUSTOMER_SYNC.name, key=partner.pk)
    )
    numbers = {
        row["plan"]: row
        for row in ConsentPlanItem.objects.filter(customer__partner=partner)
        .order_by()
        .values("plan")
        .annotate(number=Count("pk"), failed=Count("pk", filter=Q(result__in=_FAILED)))
        .order_by("-plan")[:SHOWN]
    }
    plans = list(ConsentPlan.objects.filter(pk__in=numbers).select_related("registration", "run").order_by("-pk"))
    invited: Any = CampaignPartner.objects.filter(partner=partner).with_progress()
    return Activity(
        units=tuple(units.select_related("run").order_by("-pk")[:SHOWN]),
        plans=tuple(
            PlanLine(plan=plan, number=numbers[plan.pk]["number"], failed=numbers[plan.pk]["failed"]) for plan in plans
        ),
        campaigns=tuple(invited.select_related("campaign").order_by("-campaign")[:SHOWN]),
    )


_FAILED = (ConsentPlanItem.Result.FAILED, ConsentPlanItem.Result.RESTORED, ConsentPlanItem.Result.BROKEN)
