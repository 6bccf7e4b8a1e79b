"""What a partner granted, as its sign-in proved it, against what our registration asks for now."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.db import connection
from django.utils import timezone

from consent import clients
from consent.invitations import campaigns
from consent.models import ApplicationRegistration, Campaign, PartnerConsent, WaitingToken
from consent.permissions import PERMISSION_SETS
from consent.sign_in import approvals
from consent.tokens.next_steps import next_step
from portal.microsoft.clouds import GRAPH_APPLICATION_ID as GRAPH
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID as PARTNER_CENTER
from portal.microsoft.identifiers import new_correlation_id
from tenants.models import PartnerTenant
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.portal import SERVICE_ACCOUNT, Portal
from tests.support.staff import Staff

STRICT = ["DelegatedAdminRelationship.ReadWrite.All", "User.Read", "User.Read.All"]
EXTENDED = sorted([*STRICT, "Directory.Read.All"])
Set = ApplicationRegistration.PermissionSet


def ask_for(portal: Portal, chosen: ApplicationRegistration.PermissionSet) -> None:
    ApplicationRegistration.objects.filter(pk=portal.registration.pk).update(permission_set=chosen)
    portal.registration.refresh_from_db()


# --- what the sign-in proves -------------------------------------------------------------------------------------


def test_a_sign_in_keeps_what_was_granted_on_every_resource(portal: Portal) -> None:
    portal.onboard()
    assert portal.consent().granted_scopes == {PARTNER_CENTER: ["user_impersonation"], GRAPH: EXTENDED}

    names = Staff().get(f"/admin/consent/partnerconsent/{portal.consent().pk}/change/").content.decode()
    assert "Microsoft Graph: Directory.Read.All" in names
    assert "Microsoft Partner Center: user_impersonation" in names


def test_a_resource_that_gave_no_answer_is_not_proven_and_not_lacking(portal: Portal) -> None:
    """Graph refuses its token: nothing is known of what was granted there."""
    refused = '{"error": "invalid_request", "error_description": "AADSTS90000"}'
    portal.sandbox.world.faults.append(Fault(service="login", path="token", skip=2, status=400, body=refused))
    portal.onboard()
    assert portal.consent().granted_scopes == {PARTNER_CENTER: ["user_impersonation"]}


def test_an_approved_account_brings_what_its_own_proof_names(portal: Portal) -> None:
    ask_for(portal, Set.STRICT)
    portal.onboard()
    assert portal.consent().granted_scopes[GRAPH] == STRICT
    ask_for(portal, Set.EXTENDED)
    portal.onboard(user="second@northwind.example.com")
    waiting = WaitingToken.objects.get()

    approvals.approve(waiting, tools=clients.consent_tools(), actor=builders.ACTOR, correlation_id=new_correlation_id())

    assert portal.consent().granted_scopes[GRAPH] == EXTENDED


# --- against what is asked for now -------------------------------------------------------------------------------


def consents(registration: ApplicationRegistration) -> dict[str, PartnerConsent]:
    """One consent of each kind, by what it holds."""
    held: dict[str, Any] = {
        "all": {PARTNER_CENTER: ["user_impersonation"], GRAPH: EXTENDED},
        "other case": {PARTNER_CENTER: ["USER_impersonation"], GRAPH: [scope.lower() for scope in EXTENDED]},
        "strict": {PARTNER_CENTER: ["user_impersonation"], GRAPH: STRICT},
        # A name that another one contains, and "_" that LIKE would take for any character.
        "parts of names": {PARTNER_CENTER: ["user-impersonation"], GRAPH: ["User.Read.All", *EXTENDED[:2]]},
        "no word of Graph": {PARTNER_CENTER: ["user_impersonation"]},
        "no word at all": {},
    }
    made = {
        name: builders.consent(
            builders.partner(name=name), registration, granted_scopes=scopes, last_success_at=timezone.now()
        )
        for name, scopes in held.items()
    }
    nothing: dict[str, Any] = {"granted_scopes": {GRAPH: []}}
    builders.consent(builders.partner(switch="disabled"), registration, **nothing)
    builders.consent(builders.partner(), registration, state="disconnected", **nothing)
    return made


def names(rows: Any) -> set[str]:
    return set(rows.values_list("partner__name", flat=True))


@pytest.mark.django_db
def test_lacking_and_not_proven_are_told_apart_by_the_database() -> None:
    extended, strict = builders.registration(permission_set="extended"), builders.registration()
    consents(extended)
    rows = PartnerConsent.objects.filter(registration=extended)

    assert names(rows.lacking_permissions()) == {"strict", "parts of names"}
    assert names(rows.permissions_unproven()) == {"no word of Graph", "no word at all"}
    assert names(rows.to_consent_again()) == {"strict", "parts of names", "no word of Graph", "no word at all"}
    assert names(rows.lacking_permissions(PERMISSION_SETS["strict"])) == {"parts of names"}

    complete = builders.consent(builders.partner(name="complete"), strict)
    assert complete not in PartnerConsent.objects.lacking_permissions()
    assert complete in PartnerConsent.objects.filter(registration=strict).lacking_permissions(
        PERMISSION_SETS["extended"]
    )


@pytest.mark.django_db
def test_the_list_says_what_each_lacks_and_filters_by_it() -> None:
    registration = builders.registration(permission_set="extended")
    made = consents(registration)
    staff = Staff()

    def listed(value: str) -> set[str]:
        page = staff.get(f"/admin/consent/partnerconsent/?permissions={value}")
        return {consent.partner.name for consent in page.context["cl"].result_list}

    assert listed("lacking") == {"strict", "parts of names"}
    assert listed("unproven") == {"no word of Graph", "no word at all"}
    assert listed("again") == {"strict", "parts of names", "no word of Graph", "no word at all"}
    assert listed("granted") == {"all", "other case"}
    page = staff.get("/admin/consent/partnerconsent/?permissions=lacking").content.decode()
    assert "Lacks permissions" in page
    assert "Directory.Read.All" in page
    unproven = staff.get("/admin/consent/partnerconsent/?permissions=unproven").content.decode()
    assert "No sign-in proved what is granted on Microsoft Graph." in unproven

    step = next_step(made["strict"], timezone.now())
    assert "Directory.Read.All" in step.text, "no 'Nothing to do' while permissions are lacking"
    extra = Staff().get(f"/admin/consent/partnerconsent/{made['all'].pk}/change/").content.decode()
    assert "All granted" in extra


@pytest.mark.django_db
def test_who_lacks_permissions_can_be_chosen_for_a_campaign() -> None:
    registration, other = builders.registration(permission_set="extended"), builders.registration()
    made = consents(registration)
    builders.consent(made["all"].partner, other, granted_scopes={GRAPH: []})
    staff = Staff()

    chosen = campaigns.matching(registration, lacking_permissions=True)
    assert set(chosen.values_list("name", flat=True)) == {"strict", "parts of names"}
    page = staff.get(f"/admin/consent/campaign/add/?registration={registration.pk}&lacking_permissions=on")
    assert "2 partners match" in page.content.decode()
    unproven = campaigns.matching(registration, permissions_unproven=True)
    assert set(unproven.values_list("name", flat=True)) == {"no word of Graph", "no word at all"}
    either = campaigns.matching(registration, lacking_permissions=True, permissions_unproven=True)
    assert either.count() == 4

    created = campaigns.create(
        name="New permissions",
        registration=registration,
        reason=Campaign.Reason.NEW_SCOPE,
        partners=chosen,
        link_days=14,
        actor=builders.ACTOR,
    )
    assert created.invited == 2


def test_a_partner_that_consents_again_lacks_nothing_more(portal: Portal) -> None:
    ask_for(portal, Set.STRICT)
    portal.onboard(user=SERVICE_ACCOUNT)
    assert not PartnerConsent.objects.lacking_permissions().exists()

    ask_for(portal, Set.EXTENDED)
    assert list(PartnerConsent.objects.lacking_permissions()) == [portal.consent()]

    portal.onboard(user=SERVICE_ACCOUNT)
    assert not PartnerConsent.objects.lacking_permissions().exists()


# --- rows of before ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_the_scopes_of_before_stand_under_partner_center_afterwards() -> None:
    """Until now a row had a list of names, all of the redemption for Partner Center."""
    old = builders.consent(
        builders.partner(), builders.registration(), granted_scopes=["offline_access", "openid", "user_impersonation"]
    )
    empty = builders.consent(builders.partner(), builders.registration(), granted_scopes=[])

    migration = import_module("consent.migrations.0002_granted_scopes_of_all_resources")
    migration.by_resource(apps, SimpleNamespace(connection=connection))

    old.refresh_from_db()
    empty.refresh_from_db()
    assert (old.granted_scopes, empty.granted_scopes) == ({PARTNER_CENTER: ["user_impersonation"]}, {})
    assert PartnerTenant.objects.count() == 2
