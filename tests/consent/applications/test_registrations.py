"""Changing a registration: its identity is fixed, the rest says first what it will mean, and the trail can undo it.

Covers: consent.admin.registrations.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError

from consent.applications import registrations
from consent.invitations import links
from consent.models import ApplicationRegistration, Campaign, ConsentLink, PartnerConsent
from portal.audit.models import AuditEvent
from portal.models import Team
from portal.site.admin import PortalModelAdmin
from tenants.models import PartnerTag, PartnerTenant
from tests.support import builders
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
OTHER_ID = "0d5d9e4e-6a5c-4b8a-9c5e-1a2b3c4d5e6f"


@pytest.fixture
def registration() -> ApplicationRegistration:
    return builders.registration(permission_set="extended")


def address(registration: ApplicationRegistration) -> str:
    return f"/admin/consent/applicationregistration/{registration.pk}/details/"


def post(staff: Staff, registration: ApplicationRegistration, **fields: str) -> Any:
    """Press Save on the registration's page with these fields changed."""
    names = ("name", "kind", "cloud", "application_id", "home_tenant_id", "permission_set", "state")
    values = {name: getattr(registration, name) for name in names}
    inlines = {f"{name}-{end}": "0" for name in ("grants", "wanted_versions", "credentials") for end in _COUNTS}
    return staff.post(address(registration), values | inlines | fields)


_COUNTS = ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")


# --- which application it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["link", "consent", "customer"])
@pytest.mark.parametrize("column", ["application_id", "home_tenant_id", "cloud"])
def test_the_identity_of_a_registration_with_partners_cannot_be_saved(
    registration: ApplicationRegistration, column: str, known: str
) -> None:
    partner = builders.partner()
    if known == "link":
        links.issue(partner, registration, actor=builders.ACTOR)
    elif known == "consent":
        builders.consent(partner, registration)
    else:
        builders.customer_consent(builders.customer(partner), registration)
    before = ApplicationRegistration.objects.filter(pk=registration.pk).values().get()
    value = "china" if column == "cloud" else OTHER_ID

    with pytest.raises(registrations.ChangeRefused, match="Make a new registration"):
        registrations.change(
            registration, {column: value}, shown={column: getattr(registration, column)}, actor=builders.ACTOR
        )
    setattr(registration, column, value)
    for options in ({}, {"update_fields": [column]}):
        with pytest.raises(ValidationError, match="Make a new registration"):
            registration.save(**options)

    assert ApplicationRegistration.objects.filter(pk=registration.pk).values().get() == before
    registration.save(update_fields=["state"])  # the rest of the row is free
    assert not AuditEvent.objects.filter(action="registration.changed").exists()


def test_the_page_shows_a_fixed_identity_and_takes_none_from_the_form(registration: ApplicationRegistration) -> None:
    staff = Staff()
    assert 'name="application_id"' in staff.get(address(registration)).content.decode()
    builders.consent(builders.partner(), registration)

    page = staff.get(address(registration)).content.decode()

    assert 'name="application_id"' not in page
    assert "invite the partners with it, and retire this one" in page
    post(staff, registration, application_id=OTHER_ID, cloud="china")
    registration.refresh_from_db()
    assert (registration.application_id, registration.cloud) != (OTHER_ID, "china")
    assert registration.cloud == "global"


def test_an_unused_registration_can_be_put_right(registration: ApplicationRegistration) -> None:
    staff = Staff()
    shown = post(staff, registration, application_id=OTHER_ID)
    assert "no partner is touched" in shown.content.decode()
    staff.confirm(shown)
    registration.refresh_from_db()
    assert registration.application_id == OTHER_ID


# --- what a change will mean -------------------------------------------------------------------------------------


def figures(page: Any) -> dict[str, str]:
    return {figure.label: figure.value for figure in page.context["figures"]}


def test_another_permission_set_says_first_how_many_partners_must_consent_again(
    registration: ApplicationRegistration,
) -> None:
    ApplicationRegistration.objects.update(permission_set="strict")
    registration.refresh_from_db()
    for _ in range(2):
        builders.consent(builders.partner(), registration)  # holds the strict set
    builders.consent(builders.partner(), registration, granted_scopes={})
    builders.consent(builders.partner(), builders.registration())
    staff = Staff()

    shown = post(staff, registration, permission_set="extended")

    text = shown.content.decode()
    assert "What this change of Example Control Panel will mean" in text
    assert "Strict: exactly what" in text
    assert "Extended: also what" in text
    assert "invite them in a campaign" in text
    assert figures(shown) == {
        "Partners that lack permissions then": "2",
        "Partners whose permissions are not proven": "1",
    }
    registration.refresh_from_db()
    assert registration.permission_set == "strict", "nothing is saved yet"

    done = staff.confirm(shown)

    assert "The registration was changed." in told(done)
    registration.refresh_from_db()
    assert registration.permission_set == "extended"
    assert PartnerConsent.objects.lacking_permissions().count() == 2
    event = AuditEvent.objects.get(action="registration.changed")
    assert event.details == {"before": {"permission_set": "strict"}, "after": {"permission_set": "extended"}}
    assert "already done" in told(staff.confirm(shown)), "the button works once"


def test_retiring_says_whose_token_and_links_end(registration: ApplicationRegistration) -> None:
    connected, invited = builders.partner(), builders.partner()
    builders.consent(connected, registration)
    builders.consent(builders.partner(switch="disabled"), registration)
    for _ in range(2):
        links.issue(invited, registration, actor=builders.ACTOR)
    staff = Staff()

    shown = post(staff, registration, state="retired")

    assert figures(shown) == {
        "Partners whose token is not used any more": "1",
        "Partners whose open link stops working": "1",
    }
    assert "No token of it is used any more" in shown.content.decode()
    staff.confirm(shown)
    assert not ConsentLink.objects.usable().exists()


def test_a_csp_registration_says_who_cannot_be_invited_again(registration: ApplicationRegistration) -> None:
    builders.consent(builders.partner(tenant_id=registration.home_tenant_id), registration)
    builders.consent(builders.partner(), registration)
    shown = post(Staff(), registration, kind="csp", name="One Partner's Own")
    assert figures(shown) == {
        "Partners with an open link": "0",
        "Connected partners that cannot be invited again": "1",
    }


def test_what_cannot_be_is_shown_on_the_form(registration: ApplicationRegistration) -> None:
    page = post(Staff(), registration, name="")
    assert "_once" not in page.content.decode()
    assert "This field is required" in page.content.decode()
    draft = builders.registration(state="draft", credential=None)
    page = post(Staff(), draft, state="active")
    assert "Add one to it under Application credentials and promote it" in page.content.decode()


def test_the_page_saves_only_what_it_showed_and_not_over_somebody_elses_change(
    registration: ApplicationRegistration,
) -> None:
    staff, other = Staff(), builders.registration(name="Other")
    shown = post(staff, registration, permission_set="strict")
    foreign = post(staff, other, name="Third").context["proposed"]
    assert "changed on the way" in told(staff.confirm(shown, proposed=foreign))

    shown = post(staff, registration, permission_set="strict", name="New name")
    ApplicationRegistration.objects.filter(pk=registration.pk).update(name="Theirs")
    assert "Somebody else" in told(staff.confirm(shown))
    registration.refresh_from_db()
    assert (registration.name, registration.permission_set) == ("Theirs", "extended")


def test_who_may_only_look_changes_nothing(registration: ApplicationRegistration) -> None:
    looking = Staff("consent.view_applicationregistration")
    assert post(looking, registration, name="New name").status_code == 403
    registration.refresh_from_db()
    assert registration.name == "Example Control Panel"


def test_the_page_names_both_redirect_uris(registration: ApplicationRegistration) -> None:
    page = Staff().get(address(registration)).content.decode()
    assert "https://portal.localhost/consent/callback/global" in page
    assert "https://portal.localhost/consent/admin-consent/global" in page


# --- the trail ---------------------------------------------------------------------------------------------------


@pytest.mark.req("S-55")
def test_an_edited_partner_stands_in_the_trail_without_its_name() -> None:
    partner = builders.partner(name="Before", domain="before.example.com", contact_email="old.person@example.com")
    old, leaves = partner.contacts.get(), builders.contact(partner, "leaves@example.com")
    partner.tags.add(PartnerTag.objects.create(name="gold"))
    silver = PartnerTag.objects.create(name="silver")
    form = {
        "name": "After",
        "domain": "before.example.com",
        "kind": partner.kind,
        "contacts-TOTAL_FORMS": 3,
        "contacts-INITIAL_FORMS": 2,
        "contacts-0-id": old.pk,
        "contacts-0-partner": partner.pk,
        "contacts-0-email": "new.person@example.com",
        "contacts-1-id": leaves.pk,
        "contacts-1-partner": partner.pk,
        "contacts-1-email": leaves.email,
        "contacts-1-DELETE": "on",
        "contacts-2-partner": partner.pk,
        "contacts-2-name": "Another Person",
        "tags": [silver.pk],
        "notes": "call them on Monday",
    }

    Staff().post(f"/admin/tenants/partnertenant/{partner.pk}/change/", form)

    event = AuditEvent.objects.get(action="partner.changed")
    assert event.details == {
        "before": {"tags": ["gold"]},
        "after": {"tags": ["silver"]},
        "also_changed": ["name", "notes"],
    }, "what is personal is not kept for ever (S-68, S-70)"
    event = AuditEvent.objects.get(action="partner.contacts_changed")
    assert event.details == {"added": 1, "changed": 1, "removed": 1}
    assert [str(one) for one in partner.contacts.all()] == ["new.person@example.com", "Another Person"]
    found = PartnerTenant.objects.filter(search_text__finds="new.person another")
    assert found.get() == partner, "who it is found by follows its contacts"
    assert not PartnerTenant.objects.filter(search_text__finds="leaves@example.com").exists()


@pytest.mark.req("S-55")
def test_new_rows_and_tags_are_in_the_trail_too() -> None:
    staff = Staff()
    staff.post("/admin/tenants/partnertag/add/", {"name": "gold"})
    tag = PartnerTag.objects.get()
    staff.post(f"/admin/tenants/partnertag/{tag.pk}/change/", {"name": "silver"})
    staff.post(f"/admin/tenants/partnertag/{tag.pk}/change/", {"name": "silver"})
    written = [(event.action, event.details) for event in AuditEvent.objects.filter(action__startswith="tag.")]
    assert sorted(written) == [
        ("tag.changed", {"before": {"name": "gold"}, "after": {"name": "silver"}}),
        ("tag.created", {"after": {"name": "gold"}}),
    ], "and nothing is told where nothing changed"

    values = {
        "name": "New",
        "kind": "cpv",
        "cloud": "global",
        "application_id": OTHER_ID,
        "home_tenant_id": OTHER_ID,
        "permission_set": "strict",
        "state": "draft",
    }
    inlines = {f"{name}-{end}": "0" for name in ("grants", "wanted_versions", "credentials") for end in _COUNTS}
    staff.post("/admin/consent/applicationregistration/add/", values | inlines)
    assert AuditEvent.objects.get(action="registration.created").details == {"after": values | {"own_set": None}}


def test_every_form_that_saves_by_itself_has_its_word_in_the_trail() -> None:
    """Staff, roles and teams are left: services write their events."""
    for model, page in admin.site._registry.items():
        if not isinstance(page, PortalModelAdmin) or model in {User, Group}:
            continue
        writes = type(page).has_change_permission is PortalModelAdmin.has_change_permission
        assert page.audit_word or not writes or model in {Campaign, ConsentLink, Team}, model
    assert PartnerTenant in admin.site._registry
