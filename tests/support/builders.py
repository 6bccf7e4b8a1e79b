"""Valid objects by default; a test states only what matters to it."""

from __future__ import annotations

import itertools
import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

from consent.models import (
    ApplicationCredential,
    ApplicationGrant,
    ApplicationRegistration,
    CustomerConsent,
    PartnerConsent,
)
from consent.uses.book import By, Purpose
from portal.audit.trail import Actor
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from portal.rights import SERVER
from tenants.models import CustomerTenant, PartnerContact, PartnerTenant

_numbers = itertools.count(1)
ACTOR = Actor.command("test")
BY_CLOCK = Actor.system(SERVER)


def staff(name: str) -> Actor:
    """Return a member of staff with every right."""
    return Actor.staff(name, None, may=lambda right: True)


BY = By(actor=ACTOR, purpose=Purpose.PROGRAM)


def guid() -> str:
    return str(uuid.uuid4())


def partner(*, contact_email: str = "", **columns: Any) -> PartnerTenant:
    """Make a partner, with a contact of this address who gets invitations."""
    made = unsaved_partner(**columns)
    made.save(force_insert=True)
    if contact_email:
        contact(made, contact_email)
    return made


def unsaved_partner(**columns: Any) -> PartnerTenant:
    number = next(_numbers)
    defaults = {"name": f"Partner {number}", "tenant_id": guid(), "domain": f"partner{number}.example.com"}
    return PartnerTenant(**defaults | columns)


def contact(of: PartnerTenant, email: str, **columns: Any) -> PartnerContact:
    return PartnerContact.objects.create(partner=of, email=email, **columns)


def registration(**columns: Any) -> ApplicationRegistration:
    defaults: dict[str, Any] = {
        "name": "Example Control Panel",
        "application_id": guid(),
        "home_tenant_id": guid(),
    }
    state, wanted = columns.pop("state", "active"), columns.pop("credential", {})
    made = ApplicationRegistration.objects.create(**defaults | columns)
    if wanted is not None:
        made.credential = credential(made, **wanted)
    made.state = state
    made.save()
    return made


def credential(of: ApplicationRegistration, **columns: Any) -> ApplicationCredential:
    defaults: dict[str, Any] = {
        "registration": of,
        "kind": "secret",
        "secret_name": f"rt-{uuid.uuid4().hex}",
        "secret_version": uuid.uuid4().hex,
        "starts_at": timezone.now() - timedelta(days=1),
    }
    return ApplicationCredential.objects.create(**defaults | columns)


def grant(of: ApplicationRegistration, *scopes: str) -> ApplicationGrant:
    return ApplicationGrant.objects.create(
        registration=of, resource_application_id=GRAPH_APPLICATION_ID, scopes=list(scopes)
    )


def customer(of: PartnerTenant, **columns: Any) -> CustomerTenant:
    number = next(_numbers)
    tenant_id = columns.pop("tenant_id", None) or guid()
    now = timezone.now()
    defaults = {
        "partner": of,
        "tenant_id": tenant_id,
        "partner_center_id": tenant_id,
        "company_name": f"Customer {number}",
        "domain": f"customer{number}.example.com",
        "first_seen_at": now,
    }
    return CustomerTenant.objects.create(**defaults | columns)


def consent(of: PartnerTenant, by: ApplicationRegistration, **columns: Any) -> PartnerConsent:
    made = unsaved_consent(of, by, **columns)
    made.save(force_insert=True)
    return made


def unsaved_consent(of: PartnerTenant, by: ApplicationRegistration, **columns: Any) -> PartnerConsent:
    now = timezone.now()
    defaults = {
        "partner": of,
        "registration": by,
        "state": "connected",
        "consented_at": now,
        "pinned_oid": guid(),
        "granted_scopes": by.asked.resources().to_json(),
        "generation": 1,
        "secret_name": f"rt-{uuid.uuid4().hex}",
        "secret_version": uuid.uuid4().hex,
        "fingerprint": "0123456789abcdef",
        "stored_at": now - timedelta(hours=1),
        "mfa": "proven",
    }
    return PartnerConsent(**defaults | columns)


def customer_consent(of: CustomerTenant, by: ApplicationRegistration, *scopes: str, **columns: Any) -> CustomerConsent:
    """What was read a minute ago: these grants on Microsoft Graph."""
    defaults = {
        "state": "granted",
        "actual_grants": {GRAPH_APPLICATION_ID: list(scopes)} if scopes else {},
        "service_principal_id": guid(),
        "verified_at": timezone.now() - timedelta(minutes=1),
    }
    return CustomerConsent.objects.create(customer=of, registration=by, **defaults | columns)
