"""The cards of a partner's page: customers in figures, incidents, activity, GDAP."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db.models import Count
from django.urls import reverse

from consent.admin.panels import CUSTOMER_TONES, OWNER_TONES
from consent.admin.partner_head import Hub
from consent.hub.activity import activity_of
from consent.models import CampaignPartner
from consent.naming import registration_names
from portal.incidents.models import Incident
from portal.microsoft.diagnosis import Owner
from portal.runs import summaries
from portal.runs.kinds import OK
from portal.site.dashboard import Figure, Row
from portal.site.display import Tone
from portal.text import number_of
from tenants.gdap_path import Edge, broken, path_of, with_relationships
from tenants.models import CustomerTenant, GdapRelationship, PartnerTenant
from tenants.panels import READINESS_TONES
from tenants.readiness import role_name

SHOWN = 6  # rows of a card
_PATHS = 20
_RELATIONSHIPS = 100
NEVER_LOOKED_AT = "none"
"""What the list of customers calls those without a row (``ConsentStateFilter``)."""


def customer_figures(hub: Hub) -> list[tuple[str, list[Figure]]]:
    """Return the customers by state for each application, each figure with the list that it counts; one query.

    Applications are those that the partner consented to, and those whose consent stands in a customer.
    """
    counts, names = hub.facts.customers, registration_names()
    consented = {one.registration_id for one in hub.facts.living}
    known = sorted({*counts.by_state} | consented, key=lambda key: names[key])
    address = reverse("admin:tenants_partnertenant_customers", args=[hub.partner.pk]) + "?missing_since__isempty=1"
    groups = []
    for key in known:
        by_state = counts.by_state.get(key, {})
        numbers = [(one.value, str(one.label), tone, by_state.get(one, 0)) for one, tone in CUSTOMER_TONES.items()]
        if key in consented or len(known) == 1:
            numbers.append((NEVER_LOOKED_AT, "Never looked at", Tone.QUIET, counts.never_looked_at(key)))
        which = f"&registration={key}" if len(known) > 1 else ""
        figures = [
            Figure(label=label, value=f"{number:,}", tone=tone, link=f"{address}&consent={word}{which}")
            for word, label, tone, number in numbers
            if number
        ]
        groups.append((names[key], figures))
    return [one for one in groups if one[1]]


def readiness_figures(hub: Hub) -> list[Figure]:
    """Return the customers by readiness, each figure with the list that it counts; no query."""
    address = reverse("admin:tenants_partnertenant_customers", args=[hub.partner.pk])
    numbers = hub.facts.customers.by_readiness
    return [
        Figure(
            label=str(one.label),
            value=f"{numbers[one]:,}",
            tone=tone,
            link=f"{address}?missing_since__isempty=1&readiness__exact={one.value}",
        )
        for one, tone in READINESS_TONES.items()
        if numbers.get(one)
    ]


def incident_rows(partner: PartnerTenant) -> list[Row]:
    """Return open incidents that name the partner; one query over what is open."""
    return [
        Row(
            label=str(one),
            detail=f"{one.words} Seen {one.seen_words}.",
            link=reverse("admin:incidents_incident_change", args=[one.pk]),
            tone=OWNER_TONES[one.owner],
        )
        for one in Incident.objects.open().filter(subject__partner=partner.pk)[:SHOWN]
    ]


def activity_rows(partner: PartnerTenant, found: Any = None) -> list[tuple[Row, Any]]:
    """Return checks and syncs, each with its time."""
    rows = []
    for item in (found or activity_of(partner)).units:
        good = item.failure_class == OK
        done = item.finished_at is not None
        words = ("OK" if good else item.message or item.failure_class) if done else item.get_state_display()
        rows.append(
            (
                Row(
                    label=f"{summaries.label_of(item.run)}: {words}",
                    detail=f"Run {item.run_id}, by {item.run.actor}",
                    link=reverse("admin:runs_run_change", args=[item.run_id]),
                    tone=Tone.BUSY if not done else Tone.GOOD if good else Tone.BAD,
                ),
                item.finished_at or item.run.created_at,
            )
        )
    return rows


def plan_rows(found: Any) -> list[tuple[Row, Any]]:
    return [
        (
            Row(
                label=f"Plan {one.plan.pk}: {one.plan.get_purpose_display()}, {one.plan.get_state_display().lower()}",
                detail=f"{number_of(one.number, 'customer')} of this partner"
                + (f", {one.failed:,} failed" if one.failed else "")
                + f"; {one.plan.registration.name}; by {one.plan.applied_by or one.plan.created_by}",
                link=reverse("admin:consent_consentplan_change", args=[one.plan.pk]),
                tone=Tone.BAD if one.failed else Tone.QUIET,
            ),
            one.plan.applied_at or one.plan.created_at,
        )
        for one in found.plans
    ]


def campaign_rows(found: Any) -> list[tuple[Row, Any]]:
    return [
        (
            Row(
                label=f"{one.campaign.name}: {CampaignPartner.Progress(one.progress).label}",
                link=reverse("admin:consent_campaign_change", args=[one.campaign_id]),
            ),
            one.sent_at or one.campaign.created_at,
        )
        for one in found.campaigns
    ]


def gdap_cards(hub: Hub) -> dict[str, Any]:
    """Return relationships and the broken paths; six queries, whatever their number."""
    listed = CustomerTenant.objects.for_partner(hub.partner).listed()
    not_ready = listed.filter(readiness=CustomerTenant.Readiness.NOT_READY)
    causes = (
        not_ready.order_by()
        .values_list("readiness_reason", "readiness_owner")
        .annotate(number=Count("pk"))
        .order_by("-number")[:SHOWN]
    )
    accepted = settings.GDAP_ACCEPTED_ROLES
    paths: list[tuple[CustomerTenant, list[Edge], Edge | None]] = []
    for customer in with_relationships(not_ready.order_by("company_name", "pk"))[:_PATHS]:
        edges = path_of(customer, accepted=accepted, now=hub.now)
        paths.append((customer, edges, broken(edges)))
    relationships = (
        GdapRelationship.objects.filter(partner=hub.partner, missing_since__isnull=True)
        .select_related("customer")
        .prefetch_related("assignments")
        .order_by("ends_at", "pk")[:_RELATIONSHIPS]
    )
    return {
        "readiness": readiness_figures(hub),
        "causes": [
            Row(
                label=f"{number:,} × {reason}",
                detail=f"Who must act: {Owner(owner).label}" if owner else "",
                tone=OWNER_TONES.get(owner, Tone.WARN),
            )
            for reason, owner, number in causes
        ],
        "paths": paths,
        "more_paths": max(hub.facts.customers.by_readiness.get("not_ready", 0) - len(paths), 0),
        "relationships": [(one, [role_name(role) for role in one.roles]) for one in relationships],
        "relationships_shown": _RELATIONSHIPS,
    }
