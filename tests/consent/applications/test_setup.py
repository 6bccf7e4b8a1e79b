"""The checklist of a registration fills itself from what was seen, and what cannot work is not activated.

Covers: consent.applications.evidence, consent.applications.instructions, consent.applications.addresses,
consent.models.setup.
"""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from consent import clients
from consent.applications import instructions, key_pairs, manifest, posture, registrations, rotation, setup
from consent.applications.addresses import redirect_uris
from consent.applications.evidence import credential_of, meaning_of, obstacles, verify
from consent.applications.registrations import ChangeRefused
from consent.applications.seen import read_text
from consent.applications.setup import Key, Standing, Step
from consent.models import ApplicationCredential, ApplicationRegistration, OwnPermissionSet, RegistrationEvidence
from consent.permissions import UNCONFIRMED_IDS, Permission, PermissionSet
from portal.audit.models import AuditEvent
from portal.microsoft.clouds import MICROSOFT, PARTNER_API_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID
from portal.microsoft.errors import WrongSetup
from portal.microsoft.secret import Secret
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.administrator import Administrator, draft
from tests.support.source import ROOT

pytestmark = pytest.mark.django_db
SECRET = "s" * 40
GUIDE = ROOT / "docs" / "setup-at-microsoft.md"


@pytest.fixture
def registration(administrator: Administrator) -> ApplicationRegistration:
    """A draft whose application is as the script makes it."""
    registration = draft(administrator.sandbox, permission_set="extended")
    administrator.perform(manifest.rest_script(registration, redirect_uris("global"), administrator.cloud))
    administrator.application(registration).owners = [administrator.oid, administrator.deputy]
    return registration


def add_secret(
    administrator: Administrator, registration: ApplicationRegistration, *, known: bool = True
) -> ApplicationCredential:
    if known:
        administrator.application(registration).secrets[SECRET] = administrator.sandbox.world.now() + 3600
    return rotation.add_secret(
        registration, Secret(SECRET), expires_at=None, vault=clients.vault(), actor=builders.ACTOR
    )


def ask(registration: ApplicationRegistration) -> RegistrationEvidence:
    return verify(registration, ask=clients.ask_for_application_token, actor=builders.ACTOR)


def activate(registration: ApplicationRegistration) -> None:
    setup.activate(
        registration,
        ask=clients.ask_for_application_token,
        promote=partial(rotation.promote, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True),
        actor=builders.ACTOR,
    )


def compare(administrator: Administrator, registration: ApplicationRegistration) -> None:
    seen = read_text(json.dumps(administrator.look(registration.application_id)))
    posture.keep(registration, seen, source=RegistrationEvidence.Source.PASTED, actor=builders.ACTOR)


def steps(registration: ApplicationRegistration) -> dict[Key, Step]:
    return {one.key: one for one in setup.steps_of(setup.facts_of(registration))}


def standings(registration: ApplicationRegistration, *keys: Key) -> list[str]:
    found = steps(registration)
    return [found[key].standing.name for key in keys]


# --- a token in the home tenant ---------------------------------------------------------------------------------------


def test_one_token_proves_application_credential_and_partner_center(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    credential = add_secret(administrator, registration)
    keys = (Key.PARTNER_CENTER, Key.REGISTRATION, Key.CREDENTIAL)
    assert standings(registration, *keys) == ["UNKNOWN", "UNKNOWN", "UNKNOWN"]

    evidence = ask(registration)

    assert (evidence.refusal, evidence.asked_with, evidence.asked_by) == ("", credential, builders.ACTOR.name)
    assert standings(registration, *keys) == ["DONE", "UNKNOWN", "DONE"]
    found = steps(registration)
    assert found[Key.PARTNER_CENTER].at == evidence.asked_at
    assert "was not looked at" in found[Key.REGISTRATION].how  # it exists, and nothing more was seen
    assert AuditEvent.objects.get(action="registration.verified").details == {"code": ""}


def _no_principal(administrator: Administrator, registration: ApplicationRegistration) -> None:
    principals = administrator.tenant.principals
    found = next(key for key, one in principals.items() if one.app_id == PARTNER_CENTER_APPLICATION_ID)
    del principals[found]


def _no_application(administrator: Administrator, registration: ApplicationRegistration) -> None:
    del administrator.sandbox.world.applications[registration.application_id]


def _other_secret(administrator: Administrator, registration: ApplicationRegistration) -> None:
    administrator.application(registration).secrets = {"other": administrator.sandbox.world.now() + 3600}


def _ended_secret(administrator: Administrator, registration: ApplicationRegistration) -> None:
    administrator.application(registration).secrets = {SECRET: administrator.sandbox.world.now() - 1}


def _disabled(administrator: Administrator, registration: ApplicationRegistration) -> None:
    administrator.application(registration).enabled = False


def _other_tenant(administrator: Administrator, registration: ApplicationRegistration) -> None:
    ApplicationRegistration.objects.filter(pk=registration.pk).update(home_tenant_id=builders.guid())


@pytest.mark.parametrize(
    ("bend", "standing", "words"),
    [
        (_no_principal, ["OPEN", "UNKNOWN", "DONE"], "no service principal of Microsoft Partner Center"),
        (_no_application, ["UNKNOWN", "OPEN", "UNKNOWN"], "does not know the application"),
        (_disabled, ["UNKNOWN", "OPEN", "UNKNOWN"], "disabled in its home tenant"),
        (_other_tenant, ["UNKNOWN", "OPEN", "UNKNOWN"], "does not know the home tenant"),
        (_other_secret, ["UNKNOWN", "UNKNOWN", "OPEN"], "does not accept its credential"),
        (_ended_secret, ["UNKNOWN", "UNKNOWN", "OPEN"], "does not accept its credential"),
    ],
)
def test_each_refusal_blames_one_step_and_keeps_the_registration_from_being_activated(
    administrator: Administrator,
    registration: ApplicationRegistration,
    bend: Any,
    standing: list[str],
    words: str,
) -> None:
    add_secret(administrator, registration)
    bend(administrator, registration)
    registration.refresh_from_db()

    with pytest.raises(ChangeRefused, match=words):
        activate(registration)

    assert standings(registration, Key.PARTNER_CENTER, Key.REGISTRATION, Key.CREDENTIAL) == standing
    registration.refresh_from_db()
    assert (registration.state, registration.credential) == ("draft", None)
    [reason] = obstacles(registration)
    assert words in reason


def test_a_resource_that_the_manifest_lacks_is_no_missing_service_principal(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    add_secret(administrator, registration)
    body = json.dumps({"error": "invalid_resource", "error_codes": [650057], "error_description": "AADSTS650057: x"})
    administrator.sandbox.world.faults.append(Fault(service="login", path="/token$", status=400, body=body, times=1))
    with pytest.raises(ChangeRefused, match=r"does not list a permission of Microsoft Partner Center.*Run the script"):
        activate(registration)
    keys = (Key.PARTNER_CENTER, Key.PERMISSIONS, Key.CREDENTIAL)
    assert standings(registration, *keys) == ["UNKNOWN", "OPEN", "DONE"]


def test_no_answer_says_nothing_of_the_registration(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    add_secret(administrator, registration)
    administrator.sandbox.world.faults.append(Fault(service="login", status=503, body="{}", times=9))

    with pytest.raises(ChangeRefused, match="No answer that says something about this registration"):
        activate(registration)

    keys = (Key.PARTNER_CENTER, Key.REGISTRATION, Key.CREDENTIAL)
    assert standings(registration, *keys) == ["UNKNOWN", "UNKNOWN", "UNKNOWN"]
    assert obstacles(registration) == []


# --- activation -------------------------------------------------------------------------------------------------------


def test_activation_asks_microsoft_and_puts_the_first_credential_to_use(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    credential = add_secret(administrator, registration)
    activate(registration)
    registration.refresh_from_db()
    assert (registration.state, registration.credential) == ("active", credential)
    assert standings(registration, Key.CREDENTIAL, Key.ACTIVATION, Key.SIGN_IN) == ["DONE", "DONE", "OPEN"]
    assert AuditEvent.objects.get(action="registration.changed").details["after"] == {"state": "active"}


def test_without_a_credential_nothing_is_asked_and_nothing_activated(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    with pytest.raises(ChangeRefused, match="add one, and make it known at Microsoft"):
        activate(registration)
    assert not RegistrationEvidence.objects.exists()
    assert not administrator.sandbox.world.counters["entra token 200"]


def test_a_certificate_request_is_nothing_to_ask_with(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    older = add_secret(administrator, registration)
    key_pairs.request_certificate(registration, vault=clients.vault(), actor=builders.ACTOR)
    assert credential_of(registration) == older
    compare(administrator, registration)
    activate(registration)
    registration.refresh_from_db()
    assert registration.credential == older


def test_a_vault_entry_that_is_no_credential_is_said_and_nothing_is_kept(registration: ApplicationRegistration) -> None:
    name, version = rotation.store(registration, Secret("no certificate"), None, clients.vault())
    rotation.add_row(
        registration,
        builders.ACTOR,
        kind="certificate",
        secret_name=name,
        secret_version=version,
        key_id="x",
        public_certificate="x",
        starts_at=timezone.now(),
    )
    with pytest.raises(WrongSetup, match=r"is no credential\..* Add the credential anew"):
        activate(registration)
    assert not RegistrationEvidence.objects.exists()


def test_a_credential_that_ended_cannot_be_activated(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    credential = add_secret(administrator, registration)
    ApplicationCredential.objects.update(starts_at=timezone.now() - timedelta(days=9))
    ApplicationCredential.objects.update(expires_at=timezone.now() - timedelta(days=1))
    assert credential_of(registration) is None
    ApplicationRegistration.objects.update(credential=credential)
    registration.refresh_from_db()
    with pytest.raises(ChangeRefused, match="Its credential ended on"):
        registrations.change(registration, {"state": "active"}, shown={"state": "draft"}, actor=builders.ACTOR)


@pytest.mark.req("R-45")
def test_no_door_activates_on_what_was_not_just_proven(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    credential = add_secret(administrator, registration)
    ApplicationRegistration.objects.update(credential=credential)
    registration.refresh_from_db()

    def refused(reason: str) -> None:
        with pytest.raises(ChangeRefused, match=reason):
            registrations.change(registration, {"state": "active"}, shown={"state": "draft"}, actor=builders.ACTOR)

    refused("Microsoft was not asked yet")
    ask(registration)
    other = add_secret(administrator, registration)
    RegistrationEvidence.objects.update(asked_with=other)
    refused("Microsoft was not asked yet")
    RegistrationEvidence.objects.update(asked_with=credential, refusal="temporarily_unavailable")
    refused("No answer that says something")
    RegistrationEvidence.objects.update(refusal="", asked_at=timezone.now() - timedelta(days=2))
    refused("Microsoft was last asked on")
    ask(registration)
    registrations.change(registration, {"state": "active"}, shown={"state": "draft"}, actor=builders.ACTOR)


def test_the_credential_that_was_asked_with_is_put_to_use_and_no_newer_one(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    first = add_secret(administrator, registration)

    def ask_slowly(credential: ApplicationCredential) -> None:
        clients.ask_for_application_token(credential)
        add_secret(administrator, registration)  # somebody adds another one meanwhile

    setup.activate(
        registration,
        ask=ask_slowly,
        promote=partial(rotation.promote, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True),
        actor=builders.ACTOR,
    )
    registration.refresh_from_db()
    assert (registration.state, registration.credential) == ("active", first)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signInAudience": "AzureADMyOrg"}, "accounts of its own tenant only"),
        ({"web": {"redirectUris": []}}, "/consent/callback/global is missing"),
        ({"isDisabled": True}, "disabled by its owner"),
        ({"requiredResourceAccess": []}, "The manifest lacks"),
    ],
)
def test_a_registration_that_was_seen_not_to_work_is_not_activated_by_any_door(
    administrator: Administrator, registration: ApplicationRegistration, changes: dict[str, Any], reason: str
) -> None:
    credential = add_secret(administrator, registration)
    administrator.graph("PATCH", f"/applications(appId='{registration.application_id}')", changes)
    compare(administrator, registration)
    with pytest.raises(ChangeRefused, match=reason):
        activate(registration)
    ApplicationRegistration.objects.update(credential=credential)
    registration.refresh_from_db()
    with pytest.raises(ChangeRefused, match=reason):
        registrations.change(registration, {"state": "active"}, shown={"state": "draft"}, actor=builders.ACTOR)
    registration.refresh_from_db()
    assert registration.state == "draft"


def test_what_was_proven_of_one_application_is_no_proof_of_another(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    credential = add_secret(administrator, registration)
    activate(registration)
    compare(administrator, registration)
    proven = {"proven_at": timezone.now(), "proven_with": builders.partner()}
    ApplicationCredential.objects.filter(pk=credential.pk).update(**proven)
    registration.refresh_from_db()

    registrations.change(
        registration,
        {"application_id": builders.guid()},
        shown={"application_id": registration.application_id},
        actor=builders.ACTOR,
    )

    assert not RegistrationEvidence.objects.exists()
    credential.refresh_from_db()
    assert (credential.proven_at, credential.proven_with) == (None, None)
    registration.refresh_from_db()
    keys = (Key.PARTNER_CENTER, Key.REGISTRATION, Key.PERMISSIONS, Key.CREDENTIAL)
    assert standings(registration, *keys) == ["UNKNOWN"] * 4


# --- the checklist ----------------------------------------------------------------------------------------------------


@pytest.mark.req("R-45")
def test_nothing_is_done_that_was_not_seen(registration: ApplicationRegistration) -> None:
    found = steps(registration)
    assert list(found) == list(Key)
    assert [one.key for one in found.values() if one.standing == Standing.DONE] == []
    ahead = setup.first_open(list(found.values()))
    assert ahead is not None
    assert ahead.key == Key.CREDENTIAL


def test_what_was_compared_fills_registration_permissions_and_publisher(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    owners = administrator.application(registration).owners
    RegistrationEvidence.objects.create(registration=registration, known_owners=owners)
    compare(administrator, registration)
    keys = (Key.REGISTRATION, Key.PERMISSIONS, Key.PUBLISHER)
    assert standings(registration, *keys) == ["DONE", "DONE", "OPEN"]
    ApplicationRegistration.objects.update(permission_set="strict")  # what we want changed, so the truth does
    registration.refresh_from_db()
    assert standings(registration, *keys) == ["DONE", "OPEN", "OPEN"]
    administrator.application(registration).redirect_uris.clear()
    compare(administrator, registration)
    assert standings(registration, *keys) == ["OPEN", "OPEN", "OPEN"]
    assert "1 more difference" in steps(registration)[Key.REGISTRATION].how


@pytest.mark.parametrize("cloud", ["usgov", "china"])
def test_where_microsoft_verifies_no_publishers_nothing_is_asked_for(administrator: Administrator, cloud: str) -> None:
    registration = draft(administrator.sandbox, cloud)
    found = steps(registration)[Key.PUBLISHER]
    assert (found.standing, found.how) == (
        Standing.DONE,
        "Microsoft verifies no publishers in this cloud, so there is nothing to do.",
    )
    told = instructions.instruction_of(Key.PUBLISHER, registration, administrator.sandbox.clouds[cloud])
    assert (list(told.todo), list(told.texts)) == (["Nothing: Microsoft verifies no publishers in this cloud."], [])


def test_parts_that_were_not_seen_keep_a_registration_from_being_done(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    told = administrator.look(registration.application_id)["application"]
    posture.keep(
        registration,
        read_text(json.dumps(told)),
        source=RegistrationEvidence.Source.PASTED,
        actor=builders.ACTOR,
    )
    found = steps(registration)[Key.REGISTRATION]
    assert found.standing == Standing.UNKNOWN
    assert "Not seen: federated credentials, owners, service principal" in found.how


def test_partners_grants_and_customers_fill_the_last_steps() -> None:
    registration = builders.registration()
    keys = (Key.ENROLMENT, Key.SIGN_IN, Key.GRANTS, Key.CUSTOMER)
    assert standings(registration, *keys) == ["UNKNOWN", "OPEN", "OPEN", "OPEN"]
    partner = builders.partner()
    consent = builders.consent(partner, registration)
    builders.grant(registration, "User.Read.All")
    builders.customer_consent(builders.customer(partner), registration, "User.Read.All")
    assert standings(registration, *keys) == ["DONE"] * 4
    assert steps(registration)[Key.SIGN_IN].at == consent.consented_at


def test_a_daily_read_that_is_old_or_failed_is_not_done(registration: ApplicationRegistration) -> None:
    now = timezone.now()
    row = RegistrationEvidence(registration=registration)
    row.add({"appId": "x"}, source=RegistrationEvidence.Source.READ, at=now, by="portal")
    row.save()
    assert standings(registration, Key.WATCH) == ["DONE"]
    row.add({"appId": "x"}, source=RegistrationEvidence.Source.PASTED, at=now, by="staff")
    row.save()
    assert standings(registration, Key.WATCH) == ["DONE"]  # a paste beside it takes nothing away
    row.add({"appId": "x"}, source=RegistrationEvidence.Source.READ, at=now - timedelta(days=3), by="portal")
    row.save()
    assert standings(registration, Key.WATCH) == ["OPEN"]
    row.add({"appId": "x"}, source=RegistrationEvidence.Source.PASTED, at=now, by="staff")
    row.save()
    assert standings(registration, Key.WATCH) == ["OPEN"]  # and proves no read
    RegistrationEvidence.objects.update(seen_at=now, unread_at=now, unread_reason="The reader may not read it.")
    assert "The reader may not read it." in steps(registration)[Key.WATCH].how


def test_the_checklist_asks_a_fixed_number_of_queries(django_assert_max_num_queries: Any) -> None:
    registration = builders.registration()
    for _ in range(4):
        builders.consent(builders.partner(), registration)
        builders.credential(registration)
    RegistrationEvidence.objects.create(
        registration=registration, source="pasted", seen_at=timezone.now(), seen={"appId": "x", "owners": []}
    )
    with django_assert_max_num_queries(7):
        setup.steps_of(setup.facts_of(registration))


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", MICROSOFT)
def test_each_step_says_what_to_do_with_the_values_of_its_cloud(cloud: str) -> None:
    described = ApplicationRegistration(
        name="Panel {tenant}", cloud=cloud, home_tenant_id=builders.guid(), permission_set="extended"
    )
    told = [instructions.instruction_of(key, described, MICROSOFT[cloud]) for key in Key]
    text = json.dumps([[one.title, one.why, *one.todo, *(each.text for each in one.texts)] for one in told])
    assert "Panel {tenant}" in text  # a name is no template
    assert text.count(described.home_tenant_id) >= 5
    assert manifest.TOOLS[cloud].portal in text
    assert f"/consent/callback/{cloud}" in text
    assert f"az ad sp create --id {PARTNER_CENTER_APPLICATION_ID}" in text
    others = [one.graph for key, one in MICROSOFT.items() if key != cloud]
    assert not any(f"{other}/" in text for other in others)


def test_an_id_that_no_page_confirms_is_said_with_the_command_that_shows_it() -> None:
    described = ApplicationRegistration(name="Panel", home_tenant_id=builders.guid(), permission_set="strict")

    def told() -> str:
        found = instructions.instruction_of(Key.PERMISSIONS, described, MICROSOFT["global"])
        return " ".join([*found.todo, *(one.text for one in found.texts)])

    command = f"az ad sp show --id {PARTNER_API_APPLICATION_ID} --query oauth2PermissionScopes"
    assert command not in told()
    scope = Permission(resource=PARTNER_API_APPLICATION_ID, name="user_impersonation", id=next(iter(UNCONFIRMED_IDS)))
    asked = PermissionSet(permissions=(*described.asked.permissions, scope))
    described.permission_set = "own"
    described.own_set = OwnPermissionSet(name="Ours", permissions=asked.to_json())
    assert command in told()
    assert "No page of Microsoft confirms the id" in told()


def test_the_guide_has_every_step_in_the_same_order_and_every_note() -> None:
    headings = [line.partition(". ")[2] for line in GUIDE.read_text().splitlines() if line.startswith("### ")]
    assert headings == [instructions.TITLES[key] for key in Key]
    assert [title for title, _ in instructions.NOTES if f"**{title}.**" not in GUIDE.read_text()] == []


def test_unknown_codes_blame_nothing() -> None:
    assert meaning_of("AADSTS999999").blame == "nothing"
