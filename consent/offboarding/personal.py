"""What the rows say of one partner's people, and take it away (S-68). What a row proves, ids and times, stays.

The trail cannot be emptied: it holds ids of the partner, of accounts and of links, addresses, and what staff called the
partner when they renamed it. ``consent.offboarding.partner_erasure`` names it among what remains.
"""

from __future__ import annotations

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db.models import Model, Q, QuerySet, TextField
from django.db.models.functions import Cast

from consent.models import (
    CampaignPartner,
    ConsentFlow,
    ConsentLink,
    ConsentPlanItem,
    Containment,
    CustomerConsent,
    Offboarding,
    PartnerConsent,
    WaitingToken,
)
from consent.moving_in import partners as imported
from consent.runs.apply_plan import APPLY_PLAN
from consent.runs.customer_sync import CUSTOMER_SYNC
from consent.runs.find_tenants import FIND_TENANTS
from consent.runs.import_tokens import IMPORT_TOKENS
from consent.runs.token_check import TOKEN_CHECK
from consent.runs.verify import CONSENT_VERIFY
from portal.decisions.records import about_partner
from portal.decisions.records import forget as forget_requests
from portal.incidents.models import Incident, IncidentQuerySet
from portal.incidents.service import forget as forget_incidents
from portal.runs.forgetting import forget_units
from portal.site.preferences import forget_texts
from tenants.models import CustomerTenant, GdapRelationship, PartnerTenant

_OF_PARTNERS = (APPLY_PLAN, CUSTOMER_SYNC, IMPORT_TOKENS, TOKEN_CHECK, CONSENT_VERIFY)
"""Kinds of runs whose units are grouped by the partner."""


def pseudonym(partner: PartnerTenant) -> str:
    """Return what the partner is called from now on."""
    return f"Erased partner {partner.pk}"


def forget(partner: PartnerTenant) -> dict[str, int]:
    """Empty or remove every row's words about this partner and its people. Call it inside a transaction.

    Doing it again finds nothing left. The number of queries does not grow with rows, but for what staff saved and
    incidents about customers, of which there are few.

    Returns:
        How many rows were removed or emptied, by what they are.
    """
    name = pseudonym(partner)
    customers = CustomerTenant.objects.for_partner(partner)
    links = ConsentLink.objects.filter(partner=partner)
    consents = PartnerConsent.objects.for_partner(partner)
    waiting = WaitingToken.objects.filter(consent__partner=partner)
    rows = imported.rows_of(partner)
    done = {
        # These find what they change by names and rows that the next steps take away.
        "saved filters": forget_texts([partner.name, partner.domain]),
        "entries of the admin's history": _forget_history(partner, name),
        "incidents": forget_incidents(_incidents_of(partner, waiting), name=name),
        "requests of two persons": forget_requests(partner.pk, name=name),
        "emergency stops": Containment.objects.filter(partner=partner).exclude(reason="").update(reason=""),
        "units of runs": forget_units(_OF_PARTNERS, label=name, groups=[partner.pk])
        + forget_units([FIND_TENANTS], label=name, keys=list(rows.values_list("pk", flat=True))),
        "rows of imports": rows.exclude(_EMPTY_ROW).update(
            name="", domain="", contact_addresses="", tag_names="", notes="", why="", problem=""
        ),
        "invitations": CampaignPartner.objects.filter(partner=partner).delete()[0],
        "attempts to consent": ConsentFlow.objects.filter(link__partner=partner).delete()[0],
        "links": links.delete()[0],
        "accounts that waited": waiting.delete()[0],
        "pinned accounts": consents.exclude(pinned_oid="", amr=[], checks=[], last_message="").update(
            pinned_oid="", amr=[], checks=[], last_message=""
        ),
        "plan items": ConsentPlanItem.objects.filter(customer__partner=partner)
        .exclude(message="", reason="")
        .update(message="", reason=""),
        "relationships": GdapRelationship.objects.filter(partner=partner)
        .exclude(display_name="")
        .update(display_name=""),
        "customers": customers.exclude(company_name="", domain="", search_text="").update(
            company_name="", domain="", search_text=""
        ),
        "contacts": forget_contacts(partner),
    }
    _rename(partner, name)
    return {what: number for what, number in done.items() if number}


_EMPTY_ROW = Q(name="", domain="", contact_addresses="", tag_names="", notes="", why="", problem="")


def _incidents_of(partner: PartnerTenant, waiting: QuerySet[WaitingToken]) -> IncidentQuerySet:
    """Return the incidents about the partner, its tokens and its customers, settled ones too."""
    customers = set(partner.customers.values_list("pk", flat=True))
    about_customers = [
        key
        for key, subject in Incident.objects.filter(subject__has_key="customer").values_list("pk", "subject")
        if subject["customer"] in customers
    ]
    about_waiting = [f"waiting:{key}" for key in waiting.values_list("pk", flat=True)]
    about_requests = [f"decision:{key}" for key in about_partner(partner.pk).values_list("pk", flat=True)]
    abouts = [f"partner:{partner.pk}", *about_waiting, *about_requests]
    return Incident.objects.filter(Q(subject__partner=partner.pk) | Q(about__in=abouts) | Q(pk__in=about_customers))


def _forget_history(partner: PartnerTenant, name: str) -> int:
    """Empty what Django's admin noted about these rows: it calls them by their names, contacts included."""
    of_it: list[QuerySet[Model]] = [
        PartnerTenant.objects.filter(pk=partner.pk),
        CustomerTenant.objects.for_partner(partner),
        PartnerConsent.objects.for_partner(partner),
        WaitingToken.objects.filter(consent__partner=partner),
        ConsentLink.objects.filter(partner=partner),
        CustomerConsent.objects.for_partner(partner),
        Offboarding.objects.filter(partner=partner),
    ]
    types = ContentType.objects.get_for_models(*(rows.model for rows in of_it))
    entries = Q()
    for rows in of_it:
        keys = rows.order_by().annotate(key_text=Cast("pk", TextField())).values("key_text")
        entries |= Q(content_type=types[rows.model], object_id__in=keys)
    known = LogEntry.objects.filter(entries).exclude(object_repr=name, change_message="")
    return known.update(object_repr=name, change_message="")


def forget_contacts(partner: PartnerTenant) -> int:
    """Remove the partner's contacts, and what staff saved to find them. Returns how many contacts there were."""
    contacts = list(partner.contacts.all())
    forget_texts([text for person in contacts for text in (person.name, person.email)])
    for contact in contacts:
        contact.delete()
    return len(contacts)


def _rename(partner: PartnerTenant, name: str) -> None:
    row = PartnerTenant.objects.get(pk=partner.pk)
    row.name, row.domain, row.notes = name, "", ""
    row.save(update_fields=["name", "domain", "notes", "search_text"])
    row.tags.clear()
