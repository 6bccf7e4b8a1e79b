"""The pages of permission sets: begin with a built-in one, be told what is wrong, see what a change means, invite."""

from __future__ import annotations

from typing import Any

import pytest
from django.core import signing

from consent.admin.permission_sets import LineForm, campaign_address
from consent.applications.permission_sets import tidy
from consent.models import Campaign, OwnPermissionSet
from consent.permissions import PERMISSION_SETS, PermissionSet
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID as GRAPH
from portal.microsoft.clouds import PARTNER_API_APPLICATION_ID as PARTNER_API
from tests.support import builders
from tests.support.permission_sets import OWN_SERVICE, PRICES, STRICT, made
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
LIST = "/admin/consent/ownpermissionset/"


def page_of(row: OwnPermissionSet) -> str:
    return f"{LIST}{row.pk}/change/"


def posted(wanted: PermissionSet, *more: dict[str, str], name: str = "Prices", **extra: str) -> dict[str, str]:
    """Return what a browser posts for this set and these further lines."""
    lines = [LineForm.initial_of(one) for one in wanted.permissions] + list(more)
    fields = {f"lines-{place}-{key}": value for place, line in enumerate(lines) for key, value in line.items()}
    counts = {"lines-TOTAL_FORMS": str(len(lines) + 3), "lines-INITIAL_FORMS": "0"}
    return {"name": name, "note": "For the price list", **counts, **fields, **extra}


PARTNER_API_LINE = {"resource": PARTNER_API, "name": "user_impersonation"}


def test_a_set_begins_with_a_built_in_one_and_is_made() -> None:
    staff = Staff()
    start = staff.get(f"{LIST}add/?from=extended").content.decode()
    for one in PERMISSION_SETS["extended"].permissions:
        assert f'value="{one.name}"' in start
    own = {**OWN_SERVICE, "resource": "own", "application": OWN_SERVICE["resource"]}

    page = staff.post(f"{LIST}add/", posted(tidy(STRICT), PARTNER_API_LINE, own), follow=True)

    row = OwnPermissionSet.objects.get()
    assert row.value == tidy([*PRICES, OWN_SERVICE])
    assert (row.name, row.note) == ("Prices", "For the price list")
    text = page.content.decode()
    for words in (
        "Microsoft Partner API",
        "<code>Invoices.Read</code>",
        "Billing API",
        "Read your invoices",
        "bill you",
    ):
        assert words in text
    listed = staff.get(LIST).content.decode()
    assert "Billing API" in listed
    assert AuditEvent.objects.get(action="permission_set.created").actor.endswith(staff.user.username)


def test_what_is_wrong_stands_at_its_line_and_nothing_is_saved() -> None:
    wrong = {"resource": GRAPH, "name": "Directory.Read.All", "id": "7ab1d382-f21e-4acd-a863-ba3e13f7da61"}

    page = Staff().post(f"{LIST}add/", posted(tidy(STRICT), wrong))

    [errors] = [form.non_field_errors() for form in page.context["lines"] if form.non_field_errors()]
    assert "application permission" in errors[0]
    assert page.context["lines"].forms.index(
        next(form for form in page.context["lines"] if form.non_field_errors())
    ) == len(STRICT)
    assert not OwnPermissionSet.objects.exists()


def test_more_lines_come_without_javascript_and_a_line_can_be_taken_out() -> None:
    staff = Staff()
    fields = posted(tidy(PRICES))
    more = staff.post(f"{LIST}add/", {**fields, "_more": "1"})
    assert len(more.context["lines"].forms) == len(PRICES) + 6
    assert not OwnPermissionSet.objects.exists()
    last = len(PRICES) - 1

    staff.post(f"{LIST}add/", {**fields, f"lines-{last}-remove": "on"})

    assert OwnPermissionSet.objects.get().value == tidy(STRICT)


def in_use() -> tuple[OwnPermissionSet, Any]:
    row = made("Strict", STRICT)
    registration = builders.registration(permission_set="own", own_set=row)
    for _ in range(3):
        builders.consent(builders.partner(), registration)
    return row, registration


def test_a_change_shows_who_must_consent_again_and_leads_to_their_campaign() -> None:
    row, registration = in_use()
    builders.consent(
        builders.partner(), registration, granted_scopes=tidy(PRICES).resources().to_json()
    )  # holds all of the new set already
    staff = Staff()

    shown = staff.post(f"{LIST}{row.pk}/edit/", posted(tidy(STRICT), PARTNER_API_LINE, name="Strict"))

    assert [figure.value for figure in shown.context["figures"]] == ["3"]
    text = shown.content.decode()
    assert "Adds on Microsoft Partner API" in text
    for words in ("3 of 4 partners must consent again", "0 lack permissions", "3 not proven"):
        assert words in text
    row.refresh_from_db()
    assert row.value == tidy(STRICT), "nothing is saved before the confirmation"

    campaign = staff.confirm(shown)

    row.refresh_from_db()
    assert row.value == tidy(PRICES)
    assert campaign.request["PATH_INFO"] == "/admin/consent/campaign/add/"
    assert "3 partners match" in campaign.content.decode()
    asked = staff.post(f"{campaign.request['PATH_INFO']}?{campaign.request['QUERY_STRING']}")
    assert asked.context["form"].initial["reason"] == Campaign.Reason.NEW_SCOPE
    staff.confirm(asked, name="Prices", registration=registration.pk, reason="new_scope", link_days=14)
    assert Campaign.objects.get().partners.count() == 3


def test_words_alone_change_nothing_for_partners() -> None:
    row, _ = in_use()
    staff = Staff()
    changed = posted(tidy(STRICT), name="Strict")
    changed |= {"lines-1-title": "Manage your GDAP relationships", "lines-1-why": "We must."}

    shown = staff.post(f"{LIST}{row.pk}/edit/", changed)

    assert "No partner must consent again for it." in shown.content.decode()
    assert staff.confirm(shown).request["PATH_INFO"] == page_of(row)
    row.refresh_from_db()
    assert row.permissions[1]["why"] == "We must."


def test_a_page_that_was_changed_on_the_way_or_overtaken_saves_nothing() -> None:
    row, _ = in_use()
    staff = Staff()
    shown = staff.post(f"{LIST}{row.pk}/edit/", posted(tidy(STRICT), PARTNER_API_LINE, name="Strict"))
    forged = signing.dumps({"name": "x", "note": "", "permissions": [], "shown": row.value.digest}, salt="another")
    assert "changed on the way" in told(staff.confirm(shown, proposed=forged))

    shown = staff.post(f"{LIST}{row.pk}/edit/", posted(tidy(STRICT), PARTNER_API_LINE, name="Strict"))
    OwnPermissionSet.objects.update(permissions=tidy([*STRICT, OWN_SERVICE]).to_json())
    assert "Somebody else" in told(staff.confirm(shown))
    assert not AuditEvent.objects.filter(action="permission_set.changed").exists()


def test_a_cloud_without_the_service_is_named_before_anything_is_confirmed() -> None:
    row = made("Strict", STRICT)
    builders.registration(name="Panel", cloud="china", permission_set="own", own_set=row)

    page = Staff().post(f"{LIST}{row.pk}/edit/", posted(tidy(STRICT), PARTNER_API_LINE, name="Strict"), follow=True)

    assert "Panel is in China (21Vianet), which has no Microsoft Partner API" in told(page)


def test_who_may_look_may_not_edit() -> None:
    row = made("Strict", STRICT)
    viewer = Staff("consent.view_ownpermissionset")

    assert "DelegatedAdminRelationship.ReadWrite.All" in viewer.get(page_of(row)).content.decode()
    assert "Change the set" not in viewer.get(page_of(row)).content.decode()
    for path in (f"{LIST}{row.pk}/edit/", f"{LIST}add/"):
        assert viewer.get(path).status_code == 403
        assert viewer.post(path, posted(tidy(PRICES))).status_code == 403
    assert OwnPermissionSet.objects.get().value == tidy(STRICT)


def test_a_registration_takes_a_set_and_leads_to_the_campaign() -> None:
    prices = made("Prices", PRICES)
    registration = builders.registration()
    builders.consent(builders.partner(), registration)
    staff, address = Staff(), f"/admin/consent/applicationregistration/{registration.pk}/change/"
    fields = {name: getattr(registration, name) for name in ("name", "kind", "cloud", "application_id", "state")}
    inlines = {
        f"{name}-{end}": "0"
        for name in ("grants", "wanted_versions", "credentials")
        for end in ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")
    }
    form = {**fields, **inlines, "home_tenant_id": registration.home_tenant_id, "permission_set": "own"}
    assert "together with the set that is meant" in staff.post(address, {**form, "own_set": ""}).content.decode()

    shown = staff.post(address, {**form, "own_set": prices.pk})

    assert "none → Prices" in shown.content.decode()
    assert {figure.label: figure.value for figure in shown.context["figures"]} == {
        "Partners that lack permissions then": "0",
        "Partners whose permissions are not proven": "1",
    }
    campaign = staff.confirm(shown)
    registration.refresh_from_db()
    assert registration.own_set == prices
    assert f"{campaign.request['PATH_INFO']}?{campaign.request['QUERY_STRING']}" == campaign_address(registration)
    listed = staff.get("/admin/consent/applicationregistration/").content.decode()
    assert "Prices" in listed
