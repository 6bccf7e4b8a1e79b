"""Rules that live in the database: a state is tied to the columns that prove it, whoever writes.

Covers: consent.models.applications, consent.models.customers, consent.models.invitations, consent.models.tokens.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, models, transaction
from django.utils import timezone

from consent.models import (
    ApplicationCredential,
    ApplicationGrant,
    ApplicationRegistration,
    ConsentFlow,
    ConsentLink,
    CustomerConsent,
    PartnerConsent,
    WaitingToken,
)
from portal.microsoft.clouds import GRAPH_APPLICATION_ID
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders

pytestmark = pytest.mark.django_db
NOW = timezone.now()
HASH = "0" * 64


def refuses(rows: models.QuerySet[Any], **columns: Any) -> bool:
    try:
        with transaction.atomic():
            rows.update(**columns)
    except IntegrityError:
        return True
    return False


def link(**columns: Any) -> ConsentLink:
    defaults = {"token_hash": HASH, "expires_at": timezone.now() + timedelta(days=1)}
    return ConsentLink.objects.create(
        partner=builders.partner(), registration=builders.registration(), **defaults | columns
    )


@pytest.mark.parametrize("columns", [{"switch": "friendly"}, {"cloud": "germany"}])
def test_a_partner_has_a_known_switch_and_cloud(columns: dict[str, str]) -> None:
    builders.partner()
    assert refuses(PartnerTenant.objects.all(), **columns)


def test_a_tenant_id_belongs_to_one_partner() -> None:
    tenant_id = builders.partner().tenant_id
    with pytest.raises(IntegrityError), transaction.atomic():
        builders.partner(tenant_id=tenant_id.upper())


def test_a_customer_is_once_per_partner_and_may_have_two_partners() -> None:
    first, second = builders.partner(), builders.partner()
    customer = builders.customer(first)
    builders.customer(second, tenant_id=customer.tenant_id)
    with pytest.raises(IntegrityError), transaction.atomic():
        builders.customer(first, tenant_id=customer.tenant_id)
    assert CustomerTenant.objects.for_partner(first).count() == 1


def test_a_registration_without_a_credential_stays_a_draft() -> None:
    builders.registration()
    assert refuses(ApplicationRegistration.objects.all(), credential=None)
    assert not refuses(ApplicationRegistration.objects.all(), credential=None, state="draft")


@pytest.mark.req("S-39")
def test_a_registration_has_one_current_credential_and_no_other_has_it() -> None:
    first, second = builders.registration(), builders.registration()
    assert refuses(ApplicationRegistration.objects.filter(pk=second.pk), credential=first.credential)


@pytest.mark.req("S-39")
def test_a_row_points_to_its_credential_and_says_what_it_is() -> None:
    kinds = {
        kind: ApplicationCredential.objects.filter(pk=builders.credential(builders.registration(), **columns).pk)
        for kind, columns in {
            "secret": {},
            "certificate": {"kind": "certificate", "key_id": "x", "public_certificate": "PEM"},
            "federated": {"kind": "federated", "key_id": "x", "secret_name": "", "secret_version": ""},
        }.items()
    }
    assert refuses(kinds["secret"], secret_version="")
    assert refuses(kinds["certificate"], public_certificate="")
    assert refuses(kinds["federated"], key_id="")
    assert refuses(kinds["federated"], secret_name="rt-1", secret_version="2")
    assert refuses(kinds["secret"], expires_at=NOW - timedelta(days=365))
    assert refuses(kinds["secret"], proven_at=NOW)
    assert refuses(kinds["secret"], refused_code="AADSTS7000215")


def test_a_registration_is_once_per_cloud_and_a_grant_once_per_resource() -> None:
    first = builders.registration()
    with pytest.raises(IntegrityError), transaction.atomic():
        builders.registration(application_id=first.application_id)
    builders.registration(application_id=first.application_id, cloud="china")
    builders.grant(first, "User.Read")
    with pytest.raises(IntegrityError), transaction.atomic():
        ApplicationGrant.objects.create(
            registration=first, resource_application_id=GRAPH_APPLICATION_ID, scopes=["User.Read.All"]
        )


@pytest.mark.req("S-01")
def test_a_link_holds_a_hash_and_expires_after_it_was_made() -> None:
    link()
    assert refuses(ConsentLink.objects.all(), token_hash="a-token-in-clear")
    assert refuses(ConsentLink.objects.all(), expires_at=NOW - timedelta(days=1))


def test_a_flow_has_an_outcome_only_when_it_was_claimed_and_a_refusal_says_why() -> None:
    ConsentFlow.objects.create(
        link=link(),
        public_id="1" * 32,
        state_hash=HASH,
        binder_hash=HASH,
        expires_at=NOW + timedelta(minutes=15),
        correlation_id=builders.guid(),
    )
    flows = ConsentFlow.objects.all()
    assert refuses(flows, outcome="connected")
    assert refuses(flows, claimed_at=NOW)
    assert refuses(flows, outcome="refused", claimed_at=NOW)
    assert not refuses(flows, outcome="refused", claimed_at=NOW, problem="declined")


def test_a_connected_consent_has_a_token_and_is_not_known_to_lack_mfa() -> None:
    builders.consent(builders.partner(), builders.registration())
    consents = PartnerConsent.objects.all()
    assert refuses(consents, generation=0)
    assert refuses(consents, mfa="missing")
    assert refuses(consents, fingerprint="")
    assert refuses(consents, secret_version="")
    assert not refuses(consents, state="mfa_missing", mfa="missing")
    assert not refuses(consents, mfa="unproven")


def test_a_granted_customer_has_evidence() -> None:
    CustomerConsent.objects.create(customer=builders.customer(builders.partner()), registration=builders.registration())
    rows = CustomerConsent.objects.all()
    assert refuses(rows, state="granted")
    assert refuses(rows, state="granted", verified_at=NOW)
    assert not refuses(rows, state="granted", verified_at=NOW, service_principal_id=builders.guid())


def test_a_decision_on_a_waiting_account_has_its_time_and_one_waits_per_account() -> None:
    consent = builders.consent(builders.partner(), builders.registration())
    columns = {"consent": consent, "object_id": builders.guid(), "mfa": "proven", "expires_at": NOW + timedelta(days=7)}
    WaitingToken.objects.create(secret_name="rt-1", **columns)
    assert refuses(WaitingToken.objects.all(), decision="approved")
    with pytest.raises(IntegrityError), transaction.atomic():
        WaitingToken.objects.create(secret_name="rt-2", **columns)


def test_the_vocabulary_leaves_out_who_may_not_be_worked_for() -> None:
    registration = builders.registration()
    on, left, *off = (builders.partner(switch=switch) for switch in ("on", "on", "disabled", "offboarded"))
    for partner in (on, left, *off):
        builders.consent(partner, registration)
    builders.consent(on, builders.registration(state="retired"))
    assert set(PartnerTenant.objects.active()) == {on, left}
    assert [one.partner_id for one in PartnerConsent.objects.usable().order_by("pk")] == [on.pk, left.pk]
    PartnerConsent.objects.filter(partner=left).update(state="disconnected")
    assert PartnerConsent.objects.usable().count() == 1
