"""Rows for each list of the admin, with hostile names from outside."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.models import Group, User
from django.utils import timezone

from consent.customers.plans import make_plan
from consent.invitations import campaigns, links
from consent.models import (
    Campaign,
    ConsentFlow,
    ConsentObservation,
    Containment,
    CustomerConsent,
    RegistrationEvidence,
    TokenUse,
)
from consent.moving_in.partners import read
from consent.selection import EVERYTHING
from consent.two_persons import OFFBOARD, offboarding_of
from portal.decisions.service import ask
from tenants.models import PartnerTag, PartnerTenant
from tests.support import builders
from tests.support.moving_in import csv_of, file_row
from tests.support.permission_sets import PRICES, made

PASSWORD = "correct horse battery staple"
HOSTILE = '<img src=x onerror="alert(1)">'
_PREPARED = {
    "name": HOSTILE,
    "kind": "cpv",
    "cloud": "global",
    "home_tenant_id": "0d5d9e4e-6a5c-4b8a-9c5e-1a2b3c4d5e6f",
    "permission_set": "strict",
}
REGISTRATION_PAGES = ("{0}/wanted/", "{0}/microsoft/", "{0}/details/", f"prepare/?{urlencode(_PREPARED)}")
"""Below the list of registrations, with a place for the registration's key."""


def fill() -> None:
    """Make rows for each list; names from outside are hostile."""
    now = timezone.now()
    User.objects.create_superuser("anna", "anna@vendor.example", PASSWORD)
    Group.objects.create(name="Operators")
    PartnerTag.objects.create(name="Europe")
    made("Prices", PRICES)
    registration = builders.registration(state="active")
    builders.grant(registration, "User.Read.All", "Directory.Read.All")
    owners = [{"id": HOSTILE, "displayName": HOSTILE}, {"id": builders.guid(), "displayName": "Ada"}]
    seen: dict[str, Any] = {
        "appId": registration.application_id,
        "displayName": HOSTILE,
        "owners": owners,
        "verifiedPublisher": "",
    }
    seen |= {"web": {"redirectUris": [f"https://elsewhere.example/{HOSTILE}"]}}
    RegistrationEvidence.objects.create(registration=registration, seen=seen, seen_at=now, source="pasted")
    over = {"state": "over", "resumed_at": now, "over_at": now}
    Containment.objects.create(registration=registration, reason=HOSTILE, began_by="anna", **over)
    customer_states = list(CustomerConsent.State.values)
    for number, switch in enumerate([*[PartnerTenant.Switch.ON] * 3, *PartnerTenant.Switch]):
        partner = builders.partner(switch=switch)
        customer = builders.customer(partner, company_name=f"{HOSTILE} {number}")
        if partner.is_active:
            builders.consent(partner, registration)
            TokenUse.objects.create(
                at=now,
                last_at=now,
                partner=partner,
                registration=registration,
                customer=customer,
                audience=HOSTILE,
                purpose=TokenUse.Purpose.PROGRAM,
                actor_kind="command",
                actor=HOSTILE,
                issued=1,
            )
            link, _ = links.issue(partner, registration, actor=builders.ACTOR)
            ConsentFlow.objects.create(
                link=link,
                public_id=f"{number:032x}",
                state_hash=f"{number:064x}",
                binder_hash="0" * 64,
                expires_at=now,
                correlation_id=builders.guid(),
            )
        consent = CustomerConsent.objects.create(
            customer=customer,
            registration=registration,
            state=customer_states[number],
            reason=HOSTILE,
            service_principal_id=builders.guid(),
            verified_at=now,
            actual_grants={"resource": [HOSTILE]},
        )
        ConsentObservation.objects.create(
            consent=consent,
            registration=registration,
            observed_at=now,
            state="granted",
            grants=[{"id": HOSTILE, "resource": HOSTILE, "scopes": [HOSTILE]}],
            correlation_id=builders.guid(),
        )
    campaigns.create(
        name=HOSTILE,
        registration=registration,
        reason=Campaign.Reason.NEW_SCOPE,
        partners=PartnerTenant.objects.all(),
        link_days=14,
        actor=builders.ACTOR,
    )
    make_plan(registration, EVERYTHING, actor=builders.ACTOR)
    leaving = PartnerTenant.objects.active().latest("pk")
    ask(OFFBOARD, offboarding_of(leaving), why=HOSTILE, actor=builders.ACTOR)
    rows = [
        file_row(HOSTILE, builders.guid(), Notes=HOSTILE),
        file_row(domain="contoso.example.com"),
        file_row(HOSTILE),
    ]
    read(csv_of(*rows), file_name=HOSTILE, actor=builders.ACTOR)
