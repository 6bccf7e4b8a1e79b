"""The tabs of a registration's page: what they show, who may do what, and that nothing pasted is kept or repeated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications import key_pairs, manifest, rotation
from consent.applications.addresses import redirect_uris
from consent.applications.setup import Key
from consent.models import ApplicationCredential, ApplicationRegistration, OwnPermissionSet, RegistrationEvidence
from consent.permissions import PERMISSION_SETS
from portal.incidents.models import Incident
from portal.microsoft.secret import Secret
from tests.sandbox.graph_applications import secret_id
from tests.support import builders
from tests.support.administrator import Administrator, draft
from tests.support.certificates import pem
from tests.support.staff import Staff, told

pytestmark = pytest.mark.django_db
VIEW = "consent.view_applicationregistration"
CHANGE = "consent.change_applicationregistration"
SECRET = "s" * 40


@pytest.fixture
def registration(administrator: Administrator) -> ApplicationRegistration:
    registration = draft(administrator.sandbox, permission_set="extended")
    administrator.perform(manifest.rest_script(registration, redirect_uris("global"), administrator.cloud))
    administrator.application(registration).owners = [administrator.oid, administrator.deputy]
    return registration


def address(registration: ApplicationRegistration, rest: str = "change/") -> str:
    return f"/admin/consent/applicationregistration/{registration.pk}/{rest}"


def add_secret(administrator: Administrator, registration: ApplicationRegistration) -> None:
    administrator.application(registration).secrets[SECRET] = administrator.sandbox.world.now() + 3600
    rotation.add_secret(registration, Secret(SECRET), expires_at=None, vault=clients.vault(), actor=builders.ACTOR)


def do(staff: Staff, registration: ApplicationRegistration, word: str, **fields: Any) -> Any:
    return staff.post(address(registration, f"do/{word}/"), fields, follow=True)


def paste(staff: Staff, registration: ApplicationRegistration, text: str, **files: Any) -> Any:
    return staff.post(address(registration, "microsoft/"), {"told": text} | files, follow=True)


def offered(page: Any) -> set[str]:
    return {button.label for card in page.context["cards"] for button in card.buttons}


def test_the_set_up_is_complete_only_when_each_needed_step_was_seen(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    staff, partner = Staff(), builders.partner()
    add_secret(administrator, registration)
    do(staff, registration, "activate")
    builders.consent(partner, registration)
    builders.grant(registration, "User.Read.All")
    builders.customer_consent(builders.customer(partner), registration, "User.Read.All")
    text = staff.get(address(registration)).content.decode()
    assert "The set-up is complete" not in text
    assert "2 needed steps could not be verified" in text  # registration and permissions

    paste(staff, registration, json.dumps(administrator.look(registration.application_id)))
    do(staff, registration, "owners", owner=[administrator.oid, administrator.deputy])
    administrator.application(registration).secrets = {SECRET: administrator.sandbox.world.now() + 3600}
    page = staff.get(address(registration))
    assert page.context["ahead"].step.key == Key.REGISTRATION  # a secret without its id
    ApplicationCredential.objects.update(key_id=secret_id(SECRET))
    assert "The set-up is complete" in staff.get(address(registration)).content.decode()


def test_each_tab_leads_to_the_page_for_partners_once_there_is_one(registration: ApplicationRegistration) -> None:
    staff = Staff()
    page = reverse("consent:trust", args=[registration.cloud, registration.application_id])
    assert page not in staff.get(address(registration)).content.decode()
    credential = builders.credential(registration)
    ApplicationRegistration.objects.filter(pk=registration.pk).update(state="active", credential=credential)
    for tab in ("change/", "microsoft/", "details/"):
        assert f'href="{page}"' in staff.get(address(registration, tab)).content.decode()


# --- set-up -----------------------------------------------------------------------------------------------------------


def test_the_checklist_leads_from_a_draft_to_an_active_registration(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    staff = Staff()
    page = staff.get(address(registration))
    assert page.context["ahead"].step.key == Key.CREDENTIAL
    assert "Verify and activate" not in offered(page)  # without a credential it could only fail
    add_secret(administrator, registration)
    assert {"Verify at Microsoft", "Verify and activate", "Compare"} <= offered(staff.get(address(registration)))

    assert "gave the application a token" in told(do(staff, registration, "verify"))
    page = do(staff, registration, "activate")

    assert "The registration is active" in told(page)
    assert page.context["ahead"].step.key == Key.SIGN_IN
    registration.refresh_from_db()
    assert registration.state == "active"
    assert "Verify and activate" not in offered(page)
    assert "It is no draft any more" in told(do(staff, registration, "activate"))


def test_a_refusal_is_told_with_its_remedy_and_stands_on_the_step(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    add_secret(administrator, registration)
    administrator.application(registration).secrets.clear()
    staff = Staff()
    assert "does not accept its credential" in told(do(staff, registration, "verify"))
    page = do(staff, registration, "activate")
    assert "does not accept its credential" in told(page)
    [card] = [one for one in page.context["cards"] if one.step.key == Key.CREDENTIAL]
    assert card.step.standing.value == "Not done"
    assert card.is_open


def test_a_certificate_request_that_waits_breaks_no_page(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    credential = key_pairs.request_certificate(registration, vault=clients.vault(), actor=builders.ACTOR)
    staff = Staff()
    page = paste(staff, registration, json.dumps(administrator.look(registration.application_id)))
    assert "It was compared" in told(page)
    for word in ("verify", "activate"):
        assert "credential" in told(do(staff, registration, word))
    # A row of old: the vault's entry is a key without its certificate.
    ApplicationCredential.objects.filter(pk=credential.pk).update(public_certificate=pem(with_key=False), key_id="x")
    for word in ("verify", "activate"):
        assert "is no credential" in told(do(staff, registration, word))


def test_every_step_and_note_stands_on_the_page_with_values_and_without_a_script(
    registration: ApplicationRegistration,
) -> None:
    page = Staff().get(address(registration))
    text = page.content.decode()
    for card in page.context["cards"]:
        assert f'id="{card.step.key.value}"' in text
    assert text.count("<pre ") >= 8
    assert registration.home_tenant_id in text
    assert "az ad sp create --id fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd" in text
    assert "https://portal.localhost/consent/admin-consent/global" in text
    assert "New-AzureADServicePrincipal" in text


@pytest.mark.parametrize("file", ["manifest.json", "registration.sh", "registration.ps1", "registration.http"])
def test_the_files_can_be_downloaded(registration: ApplicationRegistration, file: str) -> None:
    answer = Staff(VIEW).get(address(registration, f"files/{file}"))
    assert answer["Content-Disposition"] == f'attachment; filename="{file}"'
    assert "AzureADMultipleOrgs" in answer.content.decode()
    assert Staff(VIEW).get(address(registration, "files/other.sh")).status_code == 404


def test_the_form_of_a_registration_that_is_added_leads_to_its_checklist(administrator: Administrator) -> None:
    staff = Staff()
    page = staff.get("/admin/consent/applicationregistration/add/")
    assert "/admin/consent/applicationregistration/prepare/" in page.content.decode()
    values = {
        "name": "Panel",
        "kind": "cpv",
        "cloud": "global",
        "application_id": builders.guid(),
        "home_tenant_id": administrator.tenant.tenant_id,
        "permission_set": "strict",
        "state": "draft",
    }
    inlines = {f"{name}-{end}": "0" for name in ("grants", "wanted_versions", "credentials") for end in _COUNTS}
    answer = staff.post("/admin/consent/applicationregistration/add/", values | inlines)
    assert answer["Location"] == address(ApplicationRegistration.objects.get())


_COUNTS = ("TOTAL_FORMS", "INITIAL_FORMS", "MIN_NUM_FORMS", "MAX_NUM_FORMS")


# --- before it exists -------------------------------------------------------------------------------------------------


def test_a_registration_is_prepared_without_saving_anything(administrator: Administrator) -> None:
    chosen = {
        "name": "Panel & Co",
        "kind": "cpv",
        "cloud": "china",
        "home_tenant_id": administrator.tenant.tenant_id,
        "permission_set": "strict",
    }
    prepare, staff = "/admin/consent/applicationregistration/prepare/", Staff()
    assert "Show what to do" in staff.get(prepare).content.decode()
    assert "Enter a valid" not in staff.get(prepare).content.decode()

    page = staff.get(prepare, chosen)

    text = page.content.decode()
    assert "APP_ID=&#x27;&#x27;" in text  # a new one
    assert "az cloud set --name AzureChinaCloud" in text
    assert "Panel &amp; Co" in text
    script = staff.get(f"{prepare}registration.http", chosen).content.decode()
    assert "Panel & Co" in script
    assert not ApplicationRegistration.objects.exists()
    add = staff.get(page.context["add_address"]).context["adminform"].form
    assert {name: add.get_initial_for_field(add.fields[name], name) for name in chosen} == chosen
    assert staff.get(prepare, chosen | {"home_tenant_id": "contoso.com"}).context["form"].errors.keys() == {
        "home_tenant_id"
    }
    assert staff.get(f"{prepare}registration.sh", {"name": "x"}).status_code == 404
    assert staff.get(f"{prepare}other.sh", chosen).status_code == 404


def test_a_registration_with_a_set_of_our_own_is_prepared(administrator: Administrator) -> None:
    own = OwnPermissionSet.objects.create(name="Ours", permissions=PERMISSION_SETS["strict"].to_json())
    chosen = {
        "name": "Panel",
        "kind": "cpv",
        "cloud": "global",
        "home_tenant_id": administrator.tenant.tenant_id,
        "permission_set": "own",
    }
    prepare, staff = "/admin/consent/applicationregistration/prepare/", Staff()
    assert "own_set" in staff.get(prepare, chosen).context["form"].errors
    page = staff.get(prepare, chosen | {"own_set": own.pk})
    assert page.context["described"].asked == own.value
    add = staff.get(page.context["add_address"]).context["adminform"].form
    assert str(add.get_initial_for_field(add.fields["own_set"], "own_set")) == str(own.pk)
    strict = staff.get(prepare, chosen | {"permission_set": "strict"})
    assert "None" not in strict.context["add_address"]


# --- at Microsoft -----------------------------------------------------------------------------------------------------


def test_what_is_pasted_or_uploaded_is_compared_and_owners_are_confirmed(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    staff, text = Staff(), json.dumps(administrator.look(registration.application_id))

    page = paste(staff, registration, text)

    assert told(page) == "It was compared: 2 dangerous, 1 to mend."
    content = page.content.decode()
    assert "Ada Admin owns the application" in content
    assert "publisher is not verified" in content
    assert Incident.objects.open().filter(cause="registration_changed").count() == 1
    page = do(staff, registration, "owners", owner=[administrator.oid, administrator.deputy])
    assert "known from now on" in told(page)
    assert not Incident.objects.open().filter(cause="registration_changed").exists()
    file = SimpleUploadedFile("app.json", b"\xef\xbb\xbf" + text.encode())
    assert told(paste(staff, registration, "", file=file)) == "It was compared: 1 to mend."
    assert "are others now" in told(do(staff, registration, "owners", owner=[builders.guid()]))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Paste what the command printed"),
        ("PLANTED", "The text is no JSON"),
        ('{"appId": "PLANTED"}', "another application"),
        ("x" * 200_001, "at most 200000 characters"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_not_shown_again(
    registration: ApplicationRegistration, text: str, reason: str
) -> None:
    page = paste(Staff(), registration, text)
    assert reason in page.content.decode()
    assert "PLANTED" not in page.content.decode()
    assert not RegistrationEvidence.objects.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\xff\xfe\x00", "no text in UTF-8"), (b"x" * 200_001, "larger than 200,000 bytes"), (b"x", "no JSON")],
)
def test_a_file_that_cannot_be_compared_is_refused(
    registration: ApplicationRegistration, content: bytes, reason: str
) -> None:
    page = paste(Staff(), registration, "", file=SimpleUploadedFile("app.json", content))
    assert reason in page.content.decode()


def test_a_large_upload_is_never_written_to_the_disk(registration: ApplicationRegistration, settings: Settings) -> None:
    assert [one.rpartition(".")[2] for one in settings.FILE_UPLOAD_HANDLERS] == ["MemoryFileUploadHandler"]
    page = paste(Staff(), registration, "", file=SimpleUploadedFile("app.json", b"x" * 3_000_000))
    assert "Paste what the command printed" in page.content.decode()


def test_reading_needs_a_reader(registration: ApplicationRegistration) -> None:
    staff = Staff()
    assert "Read again" not in staff.get(address(registration, "microsoft/")).content.decode()
    assert "has no identity that may read" in told(do(staff, registration, "read"))


# --- who may ----------------------------------------------------------------------------------------------------------


def test_who_may_only_look_sees_everything_and_changes_nothing(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    add_secret(administrator, registration)
    looking = Staff(VIEW)
    for tab in ("change/", "microsoft/", "details/"):
        assert looking.get(address(registration, tab)).status_code == 200
    assert offered(looking.get(address(registration))) == {"Compare", "Choose the permission set"}
    assert "<textarea" not in looking.get(address(registration, "microsoft/")).content.decode()
    for word in ("verify", "activate", "read", "owners"):
        assert do(looking, registration, word).status_code == 403
    assert paste(looking, registration, "{}").status_code == 403
    assert looking.get("/admin/consent/applicationregistration/prepare/").status_code == 403
    assert looking.get("/admin/consent/applicationregistration/prepare/manifest.json").status_code == 403
    stranger = Staff("tenants.view_partnertenant")
    for tab in ("change/", "microsoft/", "details/", "files/manifest.json"):
        assert stranger.get(address(registration, tab)).status_code == 403
    assert not administrator.sandbox.world.counters["entra token 200"]


def test_a_first_credential_is_put_to_use_by_those_only_who_may_promote(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    add_secret(administrator, registration)
    changing = Staff(VIEW, CHANGE)
    assert "Verify and activate" not in offered(changing.get(address(registration)))
    assert do(changing, registration, "activate").status_code == 403
    both = Staff(VIEW, CHANGE, "consent.promote_applicationcredential")
    assert "Verify and activate" in offered(both.get(address(registration)))
    assert "is active" in told(do(both, registration, "activate"))


def test_unknown_words_and_registrations_are_not_found(registration: ApplicationRegistration) -> None:
    staff = Staff()
    assert do(staff, registration, "delete").status_code == 404
    assert staff.get(address(registration, "do/verify/")).status_code == 405
    for tab in ("microsoft/", "details/", "files/manifest.json"):
        assert staff.get(f"/admin/consent/applicationregistration/999/{tab}").status_code == 404
