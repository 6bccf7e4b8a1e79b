"""Permission sets of our own as data: what is none is refused with the reason, and no change is silent.

Covers: consent.models.permission_sets.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from consent.applications import permission_sets, registrations
from consent.applications.permission_sets import PermissionSetRefused, tidy
from consent.models import ApplicationRegistration, OwnPermissionSet
from consent.permissions import PERMISSION_SETS, PermissionSet, manifest_permissions
from consent.settling import settle_what_is_over
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.clouds import AZURE_MANAGEMENT_APPLICATION_ID as AZURE
from portal.microsoft.clouds import CHINA, GLOBAL
from portal.microsoft.clouds import GRAPH_APPLICATION_ID as GRAPH
from portal.microsoft.clouds import PARTNER_API_APPLICATION_ID as PARTNER_API
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID as PARTNER_CENTER
from tests.support import builders
from tests.support.permission_sets import OWN_SERVICE, PRICES, STRICT, line, made

pytestmark = pytest.mark.django_db


# --- what is a set -----------------------------------------------------------------------------------------------


def test_a_set_knows_ids_and_words_of_known_permissions_and_keeps_those_of_others() -> None:
    wanted = tidy([OWN_SERVICE, line(PARTNER_API, "USER_impersonation"), *STRICT])

    assert [one.resource for one in wanted.permissions] == [
        PARTNER_CENTER,
        *[GRAPH] * 3,
        OWN_SERVICE["resource"],
        PARTNER_API,
    ]
    partner_api = wanted.permissions[-1]
    assert (partner_api.name, partner_api.id) == ("user_impersonation", "eabf9ef3-1f9e-f3da-19a1-bcd60d080567")
    assert wanted.words() == {f"{OWN_SERVICE['resource']}/Invoices.Read": ("Read your invoices", "We bill you right.")}
    assert wanted.services() == {OWN_SERVICE["resource"]: "Billing API"}
    assert PermissionSet.from_json(wanted.to_json()) == wanted


def test_an_id_that_no_page_confirms_may_be_another_one() -> None:
    other = builders.guid()
    wanted = tidy([line(PARTNER_API, "user_impersonation", id=other), *STRICT])
    assert wanted.permissions[-1].id == other


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (line("", "User.Read"), "Choose the service"),
        (line("graph", "User.Read"), "Choose the service"),
        (line(GRAPH, "User Read"), "letters, digits and dots"),
        (line(GRAPH, ".default"), "Name each permission"),
        (line(GRAPH, "https://graph.microsoft.com/.default"), "Name each permission"),
        (line(GRAPH, "offline_access"), "belongs to each sign-in"),
        (line(GRAPH, "Mail.Read"), "Give the id"),
        (line(GRAPH, "Mail.Read", id="no guid"), "Give the id"),
        (line(GRAPH, "Mail.Read", id="570282fd-fa5c-430d-a7fd-fc8dc98a9dca"), "plain words"),
        (line(GRAPH, "Directory.Read.All", id="7ab1d382-f21e-4acd-a863-ba3e13f7da61"), "id of an application"),
        (line(GRAPH, "Directory.Any", id="7ab1d382-f21e-4acd-a863-ba3e13f7da61"), "id of an application"),
        (line(GRAPH, "User.Read.All", id="df021288-bdef-4463-88db-98f22de89214"), "Another id is another"),
        (line(GRAPH, "Mail.Read", id="06da0dbc-49e2-44d2-8312-53f166ab848a"), "id of Directory.Read.All"),
        (line(GRAPH, "User.Read"), "twice"),
        (line(GRAPH, "user.read"), "twice"),
        ({**OWN_SERVICE, "service": ""}, "what this service is called"),
        ({**OWN_SERVICE, "service": "Microsoft Graph"}, "service of Microsoft"),
        ({**OWN_SERVICE, "service": "Billing\u202eAPI"}, "text-direction"),
        ({**OWN_SERVICE, "title": "Read\u202e your invoices"}, "text-direction"),
        ({**OWN_SERVICE, "why": ""}, "plain words"),
        ({**OWN_SERVICE, "title": "x" * 101}, "100 characters"),
    ],
)
def test_what_is_no_delegated_permission_is_refused_at_its_line(wrong: dict[str, str], why: str) -> None:
    with pytest.raises(PermissionSetRefused) as refused:
        tidy([*STRICT, wrong])
    assert list(refused.value.problems) == [len(STRICT)]
    assert why in refused.value.problems[len(STRICT)]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "Partner Center"),
        (STRICT[1:], "Partner Center"),
        (
            [*STRICT, OWN_SERVICE, {**OWN_SERVICE, "name": "Other", "id": builders.guid(), "service": "Other"}],
            "two names",
        ),
        ([*STRICT, OWN_SERVICE, {**OWN_SERVICE, "resource": builders.guid()}], "could not tell them apart"),
        (
            [*STRICT, *({**OWN_SERVICE, "name": f"Right{n}", "id": builders.guid()} for n in range(40))],
            "40 permissions at most",
        ),
    ],
)
def test_lines_that_are_no_set_together_are_refused(lines: list[dict[str, str]], why: str) -> None:
    with pytest.raises(PermissionSetRefused, match=why):
        tidy(lines)


@pytest.mark.parametrize("name", PERMISSION_SETS)
def test_a_built_in_set_can_be_the_start_of_one_of_our_own(name: str) -> None:
    assert tidy(PERMISSION_SETS[name].to_json()) == PERMISSION_SETS[name]


# --- of which cloud ----------------------------------------------------------------------------------------------


def test_a_registration_takes_no_set_with_a_service_that_its_cloud_lacks() -> None:
    prices = made("Prices", PRICES)
    assert prices.value.absent_in(GLOBAL) == []
    assert prices.value.absent_in(CHINA) == [PARTNER_API]
    china = builders.registration(cloud="china")

    with pytest.raises(registrations.ChangeRefused, match=r"China .* has no Microsoft Partner API"):
        registrations.change(
            china,
            {"permission_set": "own", "own_set": str(prices.pk)},
            shown={"permission_set": "strict", "own_set": ""},
            actor=builders.ACTOR,
        )
    azure = made("Azure", [*STRICT, line(AZURE, "user_impersonation")])
    china.permission_set, china.own_set = "own", azure
    china.full_clean()
    china.save()

    with pytest.raises(PermissionSetRefused, match=r"China .* which has no Microsoft Partner API"):
        permission_sets.change(
            azure, name="Azure", note="", wanted=tidy(PRICES), shown=azure.value.digest, actor=builders.ACTOR
        )
    azure.refresh_from_db()
    assert PARTNER_API not in azure.value.resources()


@pytest.mark.parametrize(("chosen", "named"), [("own", False), ("strict", True)])
def test_a_set_of_our_own_is_chosen_and_named_together(chosen: str, named: bool) -> None:
    row = made("Prices", PRICES)
    registration = builders.registration()
    registration.permission_set, registration.own_set = chosen, row if named else None

    with pytest.raises(ValidationError, match="together with the set"):
        registration.full_clean()
    with pytest.raises(IntegrityError), transaction.atomic():
        registration.save()


# --- no change is silent -----------------------------------------------------------------------------------------


def connected(row: OwnPermissionSet) -> dict[str, ApplicationRegistration]:
    """Two registrations that ask for the set, with partners that hold all, too little, and nothing proven."""
    found = {
        name: builders.registration(name=name, permission_set="own", own_set=row, state=state)
        for name, state in (("first", "active"), ("retired", "retired"))
    }
    held: list[dict[str, Any]] = [
        {PARTNER_CENTER: ["user_impersonation"], GRAPH: ["User.Read", "User.Read.All"]},
        row.value.resources().to_json(),
        row.value.resources().to_json() | {PARTNER_API: ["user_impersonation"]},
    ]
    for scopes in held:
        builders.consent(builders.partner(), found["first"], granted_scopes=scopes)
    builders.consent(builders.partner(switch="disabled"), found["first"], granted_scopes=held[0])
    builders.consent(builders.partner(), found["retired"], granted_scopes=held[0])
    return found


def test_a_preview_counts_who_must_consent_again_and_saves_nothing(django_assert_max_num_queries: Any) -> None:
    row = made("Strict", STRICT)
    connected(row)

    with django_assert_max_num_queries(8):
        seen = permission_sets.preview(row, tidy(PRICES))

    assert seen.added == {PARTNER_API: ["user_impersonation"]}
    assert not seen.removed
    [first] = seen.concerned
    assert (first.registration.name, first.partners) == ("first", 3)
    assert (first.lacking, first.unproven, first.again) == (1, 2, 2), "one partner lacks and is unproven: counted once"
    row.refresh_from_db()
    assert row.value == tidy(STRICT)
    assert not Incident.objects.exists()


def test_a_change_is_a_new_wanted_state_with_an_incident_that_ends_with_the_last_consent() -> None:
    row = made("Strict", STRICT)
    registration = connected(row)["first"]

    seen = permission_sets.change(
        row, name="With prices", note="n", wanted=tidy(PRICES), shown=row.value.digest, actor=builders.ACTOR
    )

    row.refresh_from_db()
    assert (row.name, row.note, row.value) == ("With prices", "n", tidy(PRICES))
    assert [one.again for one in seen] == [2]
    assert ApplicationRegistration.objects.get(pk=registration.pk).asked == tidy(PRICES)
    assert manifest_permissions(ApplicationRegistration.objects.get(pk=registration.pk))[PARTNER_API] == (
        "eabf9ef3-1f9e-f3da-19a1-bcd60d080567",
    )
    event = AuditEvent.objects.get(action="permission_set.changed")
    assert PARTNER_API in event.details["after"]["permissions"]
    assert PARTNER_API not in event.details["before"]["permissions"]
    incident = Incident.objects.open().get()
    assert incident.about == f"registration:{registration.pk}"
    assert "2 partners did not grant all of it" in incident.words

    assert settle_what_is_over() == 0
    registration.consents.update(granted_scopes=tidy(PRICES).resources().to_json())
    assert settle_what_is_over() == 1


def test_of_two_changes_of_one_set_the_second_is_refused() -> None:
    row = made("Strict", STRICT)
    shown = row.value.digest
    permission_sets.change(row, name="Strict", note="", wanted=tidy(PRICES), shown=shown, actor=builders.ACTOR)

    with pytest.raises(PermissionSetRefused, match="Somebody else"):
        permission_sets.change(row, name="Strict", note="", wanted=tidy(STRICT), shown=shown, actor=builders.ACTOR)
    row.refresh_from_db()
    assert row.value == tidy(PRICES)


def test_a_name_is_taken_once() -> None:
    made("Strict", STRICT)
    with pytest.raises(PermissionSetRefused, match="already exists"):
        made("Strict", PRICES)
    assert AuditEvent.objects.filter(action="permission_set.created").count() == 1


def test_another_choice_of_a_registration_opens_and_settles_the_same_incident() -> None:
    registration = builders.registration()
    builders.consent(builders.partner(), registration)
    prices = made("Prices", PRICES)

    strict, own = ({"permission_set": "strict", "own_set": ""}, {"permission_set": "own", "own_set": str(prices.pk)})

    seen = registrations.preview(registration, {"permission_set": "own", "own_set": prices})
    assert seen.after == {"permission_set": "own", "own_set": str(prices.pk)}
    assert [effect.partners for effect in seen.effects] == [0, 1]
    registrations.change(registration, own, shown=strict, actor=builders.ACTOR)
    assert Incident.objects.open().count() == 1
    registrations.change(registration, strict, shown=own, actor=builders.ACTOR)
    assert not Incident.objects.open().exists()
