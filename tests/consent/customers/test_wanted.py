"""Wanted grants: what a change will mean is said before it is saved, and each set that ever was is a version.

Covers: consent.admin.wanted.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent.customers.consents import wanted_grants
from consent.customers.plans import counts, make_plan
from consent.customers.wanted import WantedRefused, change, current, preview
from consent.models import ApplicationGrant, ApplicationRegistration, WantedGrants
from consent.selection import EVERYTHING
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import GRAPH_APPLICATION_ID as GRAPH
from tests.support import builders
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db

OTHER = "00000002-0000-0ff1-ce00-000000000000"


@pytest.fixture(autouse=True)
def _allow_list(settings: Settings) -> None:
    scopes = ("User.Read.All", "Directory.Read.All", "Group.Read.All")
    settings.CONSENT_GRANT_ALLOW_LIST = [f"{GRAPH}/{scope}" for scope in scopes] + [f"{OTHER}/Mail.Read"]


@pytest.fixture
def registration() -> ApplicationRegistration:
    made = builders.registration()
    builders.grant(made, "User.Read.All", "Directory.Read.All")
    return made


def save(registration: ApplicationRegistration, grants: dict[str, object], **more: Any) -> WantedGrants:
    shown = more.pop("shown_hash", wanted_grants(registration).digest)
    return change(registration, grants, actor=builders.ACTOR, shown_hash=shown)


# --- before it is saved ------------------------------------------------------------------------------------------


def test_a_preview_counts_what_a_plan_would_show_then(registration: ApplicationRegistration) -> None:
    partner, unconnected = builders.partner(), builders.partner()
    builders.consent(partner, registration)
    builders.customer(unconnected)
    builders.customer(partner)
    held: list[tuple[str, ...]] = [
        ("User.Read.All",),
        ("User.Read.All", "Group.Read.All"),
        ("Directory.Read.All", "User.Read.All"),
        ("Directory.Read.All", "User.Read.All"),
    ]
    for scopes in held:
        builders.customer_consent(builders.customer(partner), registration, *scopes)
    builders.customer_consent(builders.customer(partner), registration, state="blocked", verified_at=None)
    builders.customer(partner, missing_since=timezone.now())  # not listed: no plan of all holds it

    seen = preview(registration, {GRAPH: "Group.Read.All, User.Read.All"})

    assert seen.grants == {GRAPH: ["Group.Read.All", "User.Read.All"]}
    assert seen.added == {GRAPH: ["Group.Read.All"]}
    assert seen.removed == {GRAPH: ["Directory.Read.All"]}
    assert seen.counts == {
        "create": 1,
        "widen": 1,
        "narrow": 2,
        "remove": 0,
        "nothing": 1,
        "blocked": 2,
        "needs_reset": 3,
    }
    assert seen.outside == {}
    assert wanted_grants(registration) == {GRAPH: ["Directory.Read.All", "User.Read.All"]}, "nothing is saved"
    assert not WantedGrants.objects.exists()
    save(registration, dict(seen.grants))
    assert counts(make_plan(registration, EVERYTHING, actor=builders.ACTOR)) == seen.counts


@pytest.mark.req("S-52")
def test_a_preview_names_what_is_outside_the_allow_list(registration: ApplicationRegistration) -> None:
    seen = preview(registration, {GRAPH: ["User.Read.All", "Directory.ReadWrite.All"], OTHER: ["Mail.Read"]})
    assert seen.outside == {GRAPH: ["Directory.ReadWrite.All"]}


# --- saving ------------------------------------------------------------------------------------------------------


def test_a_change_makes_a_version_and_keeps_the_sets_before(registration: ApplicationRegistration) -> None:
    made = save(registration, {GRAPH: ["User.Read.All"], OTHER: ["Mail.Read"]})

    assert (made.number, made.created_by) == (2, builders.ACTOR.name)
    assert wanted_grants(registration) == {OTHER: ["Mail.Read"], GRAPH: ["User.Read.All"]} == made.grants
    assert [(one.number, one.grants) for one in registration.wanted_versions.all()] == [
        (2, made.grants),
        (1, {GRAPH: ["Directory.Read.All", "User.Read.All"]}),
    ]
    event = AuditEvent.objects.get(action="wanted_grants.changed")
    assert event.outcome == "done"
    assert event.details == {
        "version": 2,
        "added": {OTHER: ["Mail.Read"]},
        "removed": {GRAPH: ["Directory.Read.All"]},
    }


def test_the_first_set_is_the_first_version() -> None:
    registration = builders.registration()
    assert save(registration, {GRAPH: ["User.Read.All"]}).number == 1
    assert current(registration, actor=builders.ACTOR).number == 1


def test_going_back_to_an_older_set_is_a_new_version(registration: ApplicationRegistration) -> None:
    first = wanted_grants(registration)
    save(registration, {GRAPH: ["User.Read.All"]})
    assert save(registration, dict(first)).number == 3


def test_rows_that_were_written_past_the_service_get_their_version_as_well(
    registration: ApplicationRegistration,
) -> None:
    assert current(registration, actor=builders.ACTOR).number == 1
    ApplicationGrant.objects.update(scopes=["User.Read.All"])
    assert current(registration, actor=builders.ACTOR).number == 2
    assert current(registration, actor=builders.ACTOR).number == 2


@pytest.mark.req("S-52")
def test_what_the_deployment_does_not_allow_is_refused_and_audited(registration: ApplicationRegistration) -> None:
    before = wanted_grants(registration)
    with pytest.raises(WantedRefused, match=r"CONSENT_GRANT_ALLOW_LIST: Directory.ReadWrite.All"):
        save(registration, {GRAPH: ["User.Read.All", "Directory.ReadWrite.All"]})
    assert wanted_grants(registration) == before
    assert AuditEvent.objects.get(action="wanted_grants.changed").outcome == "refused"


@pytest.mark.parametrize(
    ("grants", "words"),
    [
        ({}, "plan its removal"),
        ({GRAPH: []}, "at least one"),
        ({GRAPH: ["User Read"]}, "letters, digits and dots"),
        ({"Graph": ["User.Read.All"]}, "GUID"),
        ({GRAPH: ["User.Read.All"], GRAPH.upper(): ["Group.Read.All"]}, "stands twice"),
        ({GRAPH: ["user.read.ALL", "directory.read.all"]}, "wanted already"),
    ],
)
def test_what_is_no_set_of_grants_is_refused(
    registration: ApplicationRegistration, grants: dict[str, object], words: str
) -> None:
    with pytest.raises(WantedRefused, match=words):
        save(registration, grants)
    assert wanted_grants(registration) == {GRAPH: ["Directory.Read.All", "User.Read.All"]}


def test_a_change_on_top_of_somebody_elses_is_refused(registration: ApplicationRegistration) -> None:
    shown = wanted_grants(registration).digest
    save(registration, {GRAPH: ["User.Read.All"]})
    with pytest.raises(WantedRefused, match="Somebody else"):
        save(registration, {GRAPH: ["Group.Read.All"]}, shown_hash=shown)
    assert wanted_grants(registration) == {GRAPH: ["User.Read.All"]}


def test_whoever_is_given_the_number_second_changes_nothing(registration: ApplicationRegistration) -> None:
    """Somebody else's change is committed between our look at the versions and our own version."""
    shown, first = wanted_grants(registration).digest, current(registration, actor=builders.ACTOR)
    done: list[bool] = []

    def overtaken(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "consent_applicationgrant" in sql and not done:
            done.append(True)
            WantedGrants.objects.create(
                registration=registration, number=first.number + 1, grants={}, grants_hash="x", created_by="anna"
            )
        return execute(sql, params, many, context)

    with connection.execute_wrapper(overtaken), pytest.raises(WantedRefused, match="Somebody else"):
        change(registration, {GRAPH: ["User.Read.All"]}, actor=builders.ACTOR, shown_hash=shown)

    assert done
    assert wanted_grants(registration) == first.grants


@pytest.mark.django_db(transaction=True)
def test_of_two_changes_at_once_one_is_saved(registration: ApplicationRegistration) -> None:
    shown, together = wanted_grants(registration).digest, Barrier(2)

    def one(scope: str) -> str:
        try:
            together.wait(10)
            save(registration, {GRAPH: [scope]}, shown_hash=shown)
        except WantedRefused as refused:
            return str(refused)
        finally:
            connection.close()
        return scope

    with ThreadPoolExecutor(2) as threads:
        said = list(threads.map(one, ["User.Read.All", "Group.Read.All"]))

    (saved,) = [word for word in said if word.endswith(".All")]
    assert wanted_grants(registration) == {GRAPH: [saved]}
    assert [version.number for version in registration.wanted_versions.all()] == [2, 1]


# --- in the admin ------------------------------------------------------------------------------------------------


def address(registration: ApplicationRegistration) -> str:
    return f"/admin/consent/applicationregistration/{registration.pk}/wanted/"


def test_the_page_says_what_it_will_mean_before_it_saves(registration: ApplicationRegistration) -> None:
    staff, partner = Staff(), builders.partner()
    builders.consent(partner, registration)
    builders.customer_consent(builders.customer(partner), registration, "User.Read.All", "Directory.Read.All")
    assert "Change wanted grants" in staff.get(address(registration).replace("wanted", "change")).content.decode()
    edit = staff.get(address(registration)).content.decode()
    assert f"{GRAPH}: Directory.Read.All, User.Read.All" in edit
    assert f"{OTHER}/Mail.Read" in edit, "the page names what is allowed"

    shown = staff.post(
        address(registration), {"grants": f"{GRAPH}: User.Read.All Group.Read.All\n\n {OTHER} : Mail.Read"}
    )

    text = shown.content.decode()
    assert "What this change will mean" in text
    assert f"Adds on {GRAPH}" in text
    assert f"Adds on {OTHER}" in text
    assert f"Takes away on {GRAPH}" in text
    assert {figure.label: figure.value for figure in shown.context["figures"]} == {
        "Create": "0",
        "Widen": "0",
        "Narrow": "1",
        "Nothing to do": "0",
        "Blocked": "0",
        "Only by DELETE and POST": "1",
    }
    assert wanted_grants(registration) == {GRAPH: ["Directory.Read.All", "User.Read.All"]}, "nothing is saved yet"

    done = staff.confirm(shown)

    assert "Version 2 is what we want from now on." in told(done)
    assert wanted_grants(registration) == {OTHER: ["Mail.Read"], GRAPH: ["Group.Read.All", "User.Read.All"]}
    assert AuditEvent.objects.get(action="wanted_grants.changed").actor == staff.user.get_username()
    assert "already done" in told(staff.confirm(shown)), "the button works once"
    assert registration.wanted_versions.count() == 2


@pytest.mark.parametrize(
    ("scopes", "blind"),
    [
        ("User.Read.All", True),
        ("User.Read.All Application.Read.All", True),
        ("Application.Read.All DelegatedPermissionGrant.Read.All", False),
        ("Application.ReadWrite.All DelegatedPermissionGrant.ReadWrite.All", False),
        ("directory.read.all Group.Read.All", False),
    ],
)
def test_the_page_says_when_customers_could_not_be_read_any_more(
    registration: ApplicationRegistration, settings: Settings, scopes: str, blind: bool
) -> None:
    settings.CONSENT_GRANT_ALLOW_LIST = [f"{GRAPH}/{scope}" for scope in scopes.split()]
    page = Staff().post(address(registration), {"grants": f"{GRAPH}: {scopes}"}).content.decode()
    assert "What this change will mean" in page
    assert ("we cannot read back" in page) == blind


@pytest.mark.req("S-52")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{GRAPH}: Directory.ReadWrite.All", "Not on CONSENT_GRANT_ALLOW_LIST"),
        ("User.Read.All", "this line has none"),
        (f"{GRAPH}: User.Read.All\n{GRAPH}: Group.Read.All", "stands twice"),
        ("graph: User.Read.All", "GUID"),
        (f"{GRAPH}: directory.read.all, user.read.all", "wanted already"),
        ("", "required"),
    ],
)
def test_the_page_asks_again_for_what_cannot_be_wanted(
    registration: ApplicationRegistration, text: str, words: str
) -> None:
    page = Staff().post(address(registration), {"grants": text})
    assert words in page.content.decode()
    assert "_once" not in page.content.decode()


def test_the_page_saves_only_what_it_showed_to_this_registration(registration: ApplicationRegistration) -> None:
    staff, other = Staff(), builders.registration(name="Other")
    before = wanted_grants(registration)
    shown = staff.post(address(registration), {"grants": f"{GRAPH}: User.Read.All"})
    foreign = staff.post(address(other), {"grants": f"{GRAPH}: Group.Read.All"})
    proposed = foreign.context["proposed"]
    assert "changed on the way" in told(staff.confirm(shown, proposed=proposed))
    assert wanted_grants(registration) == before

    shown = staff.post(address(registration), {"grants": f"{GRAPH}: User.Read.All"})
    save(registration, {GRAPH: ["Group.Read.All"]})
    assert "Somebody else" in told(staff.confirm(shown))
    assert wanted_grants(registration) == {GRAPH: ["Group.Read.All"]}


def test_who_may_only_look_at_registrations_cannot_change_what_they_want(
    registration: ApplicationRegistration,
) -> None:
    looking = Staff("consent.view_applicationregistration", "consent.view_applicationgrant")
    assert looking.get(address(registration)).status_code == 403
    page = looking.get(address(registration).replace("wanted", "change"))
    assert "User.Read.All" in page.content.decode()
    assert "Change wanted grants" not in page.content.decode()


def test_grants_cannot_be_typed_past_the_preview(registration: ApplicationRegistration) -> None:
    page = Staff().get(address(registration).replace("wanted", "change")).content.decode()
    assert 'name="grants-0-scopes"' not in page
