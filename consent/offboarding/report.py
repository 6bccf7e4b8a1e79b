"""The report of an offboarding: every object, what was there, what is there now, and how we know.

It holds ids, names of companies, scopes and times; no secret, no address, nobody's account but the staff who acted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from consent.models import ChangedBy, ConsentLink, ConsentObservation, CustomerConsent, Offboarding, PartnerConsent
from portal.audit.seals import ALGORITHM, Seal, canonical, fits
from portal.microsoft.diagnosis import Owner
from tenants.models import CustomerTenant, PartnerTenant

FORMAT = "offboarding-report/1"
ERASURE_FORMAT = "erasure-report/1"  # consent.offboarding.partner_erasure makes it
_CHUNK = 500
_MICROSOFT = "Microsoft"
VAULT_WORDS = {
    "erased": "deleted and purged",
    "recoverable": "deleted; the vault keeps it recoverable until its retention ends",
    "disabled": "every version switched off; our identity may not delete",
}


class NoReport(ValueError):
    """A file is no report of this format; the text says what is wrong."""


def build(offboarding: Offboarding) -> dict[str, Any]:
    """Return the report of an offboarding whose steps are all done; queries grow with customers by 2 for 500."""
    partner = offboarding.partner
    customers = list(_customers(offboarding))
    tenants = {one["tenant_id"] for one in customers}  # one that holds two of our applications has two entries
    remaining = {one["tenant_id"] for one in customers if not one["proven_absent"]}
    return {
        "format": FORMAT,
        "offboarding": offboarding.pk,
        "partner": {"name": partner.name, "tenant_id": partner.tenant_id, "cloud": partner.cloud},
        "started_at": time_of(offboarding.started_at),
        "started_by": offboarding.started_by,
        "finished_at": time_of(offboarding.finished_at or timezone.now()),
        "finished_with_remaining_customers": bool(offboarding.decided_by),
        "decided_at": time_of(offboarding.decided_at),
        "decided_by": offboarding.decided_by,
        "counts": {
            "customers": len(tenants),
            "proven_absent": len(tenants - remaining),
            "remaining": len(remaining),
            "customers_never_read": never_read(partner).count(),
            "contacts_erased": partner.contacts.count(),
        },
        "customers": customers,
        "links": [
            {
                "link": link.pk,
                "application": link.registration.application_id,
                "made_at": time_of(link.created_at),
                "revoked_at": time_of(link.revoked_at),
                "used_at": time_of(link.closed_at),
            }
            for link in ConsentLink.objects.filter(partner=partner).select_related("registration").order_by("pk")
        ],
        "vault": [{**entry, "meaning": VAULT_WORDS[entry["result"]]} for entry in offboarding.vault_entries],
        "remains_at_microsoft": _remains(offboarding, bool(remaining)),
    }


def _customers(offboarding: Offboarding) -> Iterator[dict[str, Any]]:
    consents = (
        CustomerConsent.objects.for_partner(offboarding.partner)
        .with_words()
        .select_related("customer", "registration")
        .order_by("pk")
        .iterator(chunk_size=_CHUNK)
    )
    for chunk in batched(consents, _CHUNK):
        reads: dict[int, list[ConsentObservation]] = {}
        for read in ConsentObservation.objects.filter(
            consent__in=[consent.pk for consent in chunk], observed_at__gte=offboarding.started_at
        ).order_by("pk"):
            reads.setdefault(read.consent_id, []).append(read)
        for consent in chunk:
            yield _customer(consent, reads.get(consent.pk, []), offboarding)


def _customer(consent: Any, reads: list[ConsentObservation], offboarding: Offboarding) -> dict[str, Any]:
    proven = (
        consent.state == CustomerConsent.State.ABSENT
        and consent.verified_at is not None
        and consent.verified_at >= offboarding.started_at
    )
    return {
        "tenant_id": consent.customer.tenant_id,
        "company": consent.customer.company_name,
        "application": consent.registration.application_id,
        "state": consent.state,
        "proven_absent": proven,
        "before": _read(reads[0]) if reads else None,
        "after": _read(reads[-1]) if reads else None,
        "removed_by_us": any(read.changed_by == ChangedBy.US and read.removed for read in reads),
        "reason": "" if proven else consent.why or "It was not tried.",
        "owner": "" if proven else consent.who or Owner.US.value,
    }


def _read(read: ConsentObservation) -> dict[str, Any]:
    return {
        "observation": read.pk,
        "at": time_of(read.observed_at),
        "evidence": read.evidence,
        "service_principal": read.service_principal_id,
        "grants": read.grants,
        "correlation_id": read.correlation_id,
    }


def never_read(partner: PartnerTenant) -> QuerySet[CustomerTenant]:
    """Return the customers of which we do not know whether they hold each application that the partner consented to."""
    given = PartnerConsent.objects.for_partner(partner)  # also without a token: it may be erased by now
    known = CustomerConsent.objects.filter(customer=OuterRef("pk"))
    unknown = Q(~Exists(known))
    for registration in given.values_list("registration", flat=True):
        unknown |= Q(~Exists(known.filter(registration=registration)))
    return partner.customers.filter(unknown)


def _remains(offboarding: Offboarding, customers_remain: bool) -> list[dict[str, str]]:
    """Say what we cannot remove, who can, and how; in the order of what matters most."""
    registrations = {
        consent.registration.name: consent.registration.application_id
        for consent in PartnerConsent.objects.for_partner(offboarding.partner).select_related("registration")
    }
    found = [
        {
            "what": f"The enterprise application {name} ({application}) in the partner's own tenant.",
            "who": "The partner's administrator",
            "do": "Entra admin center, Enterprise applications, the application, Delete.",
        }
        for name, application in registrations.items()
    ]
    found.append(
        {
            "what": "Refresh tokens that Microsoft issued to the service account: no call of ours revokes one.",
            "who": "The partner's administrator",
            "do": "Entra admin center, Users, the service account, Revoke sessions; then disable the account.",
        }
    )
    if customers_remain:
        found.append(
            {
                "what": "Our application in the customers that this report does not list as proven absent.",
                "who": "Each customer's administrator",
                "do": "Entra admin center, Enterprise applications, the application, Delete.",
            }
        )
    found += [
        {
            "what": "GDAP relationships and group assignments between the partner and its customers.",
            "who": "The partner",
            "do": "Partner Center ends them; they are not ours.",
        },
        {
            "what": "Access tokens that were issued before; they end by themselves, mostly within 90 minutes.",
            "who": "Nobody",
            "do": "Nothing.",
        },
        {
            "what": "Sign-in and audit logs in the tenants of the partner and of the customers.",
            "who": _MICROSOFT,
            "do": "Microsoft keeps them for the retention time of each tenant.",
        },
    ]
    if any(entry["result"] != "erased" for entry in offboarding.vault_entries):
        found.append(
            {
                "what": "Entries of the vault that are not purged; see their list.",
                "who": "The administrator of our vault",
                "do": "Purge them (VAULT_ERASE_IDENTITY says as whom), or wait for the vault's retention to end.",
            }
        )
    return found


def time_of(moment: datetime | None) -> str:
    """Return a time as reports spell it; empty when there is none."""
    return "" if moment is None else moment.isoformat(timespec="seconds")


# --- the file -------------------------------------------------------------------------------------------------------


def to_file(offboarding: Offboarding) -> str:
    """Return the report with its seal, as a file holds it."""
    return sealed_file(offboarding.report, Seal(key_id=offboarding.seal_key, value=offboarding.seal))


def sealed_file(text: str, sealed: Seal) -> str:
    """Return a report's canonical text with its seal, as a file holds both."""
    told = {"algorithm": ALGORITHM, "key_id": sealed.key_id, "value": sealed.value}
    return json.dumps({"report": json.loads(text), "seal": told}, indent=2, sort_keys=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a file turned out to be."""

    report: dict[str, Any]
    text: str
    seal: Seal
    genuine: bool


def check_file(content: str) -> Checked:
    """Read a file and check its seal.

    Raises:
        NoReport: it is no report.
    """
    try:
        document = json.loads(content)
        report, sealed = document["report"], document["seal"]
        claimed = Seal(key_id=str(sealed["key_id"]), value=str(sealed["value"]))
        text = canonical(report)
        known = report["format"] in {FORMAT, ERASURE_FORMAT} and sealed["algorithm"] == ALGORITHM
    except (ValueError, TypeError, KeyError) as error:
        raise NoReport("It is no report with a seal.") from error
    if not known:
        raise NoReport("It is a report of another version.")
    return Checked(report=report, text=text, seal=claimed, genuine=fits(text, claimed))
