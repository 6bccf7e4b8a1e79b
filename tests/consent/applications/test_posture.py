"""A registration that differs from what we want is named, and what is dangerous becomes an incident.

Covers: consent.applications.seen, consent.applications.comparing, consent.microsoft.application_objects.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients, jobs
from consent.applications import key_pairs, manifest, posture, rotation
from consent.applications.addresses import redirect_uris
from consent.applications.comparing import Difference, Risk
from consent.applications.seen import MOST_CHARACTERS, NotReadable, not_looked_at, read, read_text
from consent.models import ApplicationCredential, ApplicationRegistration, RegistrationEvidence
from consent.settling import settle_what_is_over
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from portal.microsoft.errors import RemoteError
from portal.microsoft.secret import Secret
from tests.sandbox import scenarios
from tests.sandbox.world import Application, ManagedIdentity, known_id
from tests.support import builders
from tests.support.administrator import Administrator, draft
from tests.support.certificates import pem, private

pytestmark = pytest.mark.django_db
PASTED, READ = RegistrationEvidence.Source.PASTED, RegistrationEvidence.Source.READ
SPARE_ROLE = "7ab1d382-f21e-4acd-a863-ba3e13f7da61"


@pytest.fixture
def registration(administrator: Administrator) -> ApplicationRegistration:
    """A registration that is clean: as the script makes it, with a verified publisher and a certificate of ours."""
    registration = draft(administrator.sandbox, permission_set="extended")
    text = pem()
    credential = rotation.add_certificate(registration, Secret(text), vault=clients.vault(), actor=builders.ACTOR)
    ApplicationRegistration.objects.filter(pk=registration.pk).update(credential=credential)
    registration.refresh_from_db()
    application = administrator.application(registration)
    application.certificates = [der(credential.public_certificate)]
    application.owners = [administrator.oid, administrator.deputy]
    administrator.perform(manifest.rest_script(registration, redirect_uris("global"), administrator.cloud))
    application.more["verifiedPublisher"] = {"displayName": "Example Vendor"}
    RegistrationEvidence.objects.create(registration=registration, known_owners=application.owners)
    return registration


def der(public_pem: str) -> bytes:
    return x509.load_pem_x509_certificate(public_pem.encode()).public_bytes(serialization.Encoding.DER)


def look(administrator: Administrator, registration: ApplicationRegistration) -> list[Difference]:
    """Paste what the command prints now, and return the differences."""
    seen = read_text(json.dumps(administrator.look(registration.application_id)))
    return posture.keep(registration, seen, source=PASTED, actor=builders.ACTOR)


def is_open() -> bool:
    return Incident.objects.open().filter(cause="registration_changed").exists()


def test_a_registration_as_it_should_be_has_no_difference_and_no_incident(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    assert look(administrator, registration) == []
    evidence = RegistrationEvidence.objects.get()
    assert (evidence.source, evidence.seen_by) == (PASTED, builders.ACTOR.name)
    assert not_looked_at(evidence.seen) == []
    assert not is_open()


# --- faults -----------------------------------------------------------------------------------------------------------


def _more(name: str, value: Any) -> Callable[[Application, Administrator], None]:
    return lambda application, administrator: application.more.update({name: value})


def _foreign_secret(application: Application, administrator: Administrator) -> None:
    administrator.graph("POST", f"/applications/{application.object_id}/addPassword", {})


def _foreign_identity(application: Application, administrator: Administrator) -> None:
    application.federated.append(("https://token.actions.example", "repo:other/repo", "api://AzureADTokenExchange"))


def _own_issuer(administrator: Administrator) -> str:
    return f"{administrator.cloud.authority}/{administrator.tenant.tenant_id}/v2.0"


def _foreign_audience(application: Application, administrator: Administrator) -> None:
    application.federated.append((_own_issuer(administrator), builders.guid(), "api://other"))


def _of_principal(name: str, value: Any) -> Callable[[Application, Administrator], None]:
    def bend(application: Application, administrator: Administrator) -> None:
        principal = administrator.tenant.principal_of(application.app_id)
        assert principal is not None
        setattr(principal, name, value)

    return bend


def _one_tenant(application: Application, administrator: Administrator) -> None:
    application.multi_tenant, application.more["signInAudience"] = False, "AzureADMyOrg"


FAULTS: dict[str, tuple[Callable[[Application, Administrator], Any], str, Risk, str]] = {
    "a secret of others": (_foreign_secret, "secret_unknown", Risk.DANGEROUS, "who has it can act as us"),
    "a certificate of others": (
        lambda application, _: application.certificates.append(der(pem(with_key=False))),
        "certificate_unknown",
        Risk.DANGEROUS,
        "who has its key can act as us",
    ),
    "an identity of others": (_foreign_identity, "federated_unknown", Risk.DANGEROUS, "repo:other/repo"),
    "an identity of ours for another audience": (
        _foreign_audience,
        "federated_unknown",
        Risk.DANGEROUS,
        "for api://other",
    ),
    "a secret of the service principal": (
        _of_principal("secrets", ["11111111-2222-4333-8444-555555555555"]),
        "principal_credential",
        Risk.DANGEROUS,
        "The service principal has a client secret of its own, 11111111-2222-4333-8444-555555555555",
    ),
    "a certificate of the service principal": (
        _of_principal("certificates", ["AB12"]),
        "principal_credential",
        Risk.DANGEROUS,
        "The service principal has a certificate of its own, AB12",
    ),
    "a granted application permission": (
        _of_principal("app_roles", [("Microsoft Graph", SPARE_ROLE)]),
        "application_permission_granted",
        Risk.DANGEROUS,
        f"an application permission of Microsoft Graph ({SPARE_ROLE})",
    ),
    "a disabled service principal": (
        _of_principal("enabled", False),
        "principal_disabled",
        Risk.DANGEROUS,
        "service principal in the home tenant is disabled",
    ),
    "an owner": (
        lambda application, administrator: application.owners.append(add_user(administrator)),
        "owner_unknown",
        Risk.DANGEROUS,
        "Eve Elsewhere owns the application",
    ),
    "a foreign redirect URI": (
        lambda application, _: application.redirect_uris.add("https://evil.example/callback"),
        "redirect_uri_foreign",
        Risk.DANGEROUS,
        "https://evil.example/callback is not of this portal",
    ),
    "a missing redirect URI": (
        lambda application, _: application.redirect_uris.remove(redirect_uris("global")[1]),
        "redirect_uri_missing",
        Risk.MEND,
        "/consent/admin-consent/global is missing",
    ),
    "a redirect URI of another platform": (
        _more("spa", {"redirectUris": ["https://portal.localhost/spa"]}),
        "redirect_uri_platform",
        Risk.DANGEROUS,
        "Single-page application",
    ),
    "public client flows": (_more("isFallbackPublicClient", True), "public_client", Risk.DANGEROUS, "public client"),
    "accounts of one tenant": (_one_tenant, "audience", Risk.DANGEROUS, "of its own tenant only"),
    "personal accounts": (
        _more("signInAudience", "AzureADandPersonalMicrosoftAccount"),
        "audience",
        Risk.DANGEROUS,
        "personal Microsoft accounts",
    ),
    "an application permission": (
        _more("roles", {"00000003-0000-0000-c000-000000000000": [SPARE_ROLE]}),
        "application_permission",
        Risk.DANGEROUS,
        SPARE_ROLE,
    ),
    "a missing permission": (
        lambda application, _: application.permissions["00000003-0000-0000-c000-000000000000"].discard("User.Read.All"),
        "permission_missing",
        Risk.MEND,
        "lacks permissions that we ask partners for: User.Read.All",
    ),
    "a permission too many": (
        lambda application, _: application.permissions["00000003-0000-0000-c000-000000000000"].add(
            "Application.Read.All"
        ),
        "permission_extra",
        Risk.MEND,
        "1 delegated permission too many",
    ),
    "implicit ID tokens": (
        _more("implicitGrantSettings", {"enableIdTokenIssuance": True}),
        "implicit_grant",
        Risk.DANGEROUS,
        "for ID tokens is on",
    ),
    "implicit access tokens": (
        _more("implicitGrantSettings", {"enableAccessTokenIssuance": True}),
        "implicit_grant",
        Risk.DANGEROUS,
        "for access tokens is on",
    ),
    "no property lock": (
        _more("servicePrincipalLockConfiguration", None),
        "property_lock",
        Risk.DANGEROUS,
        "add credentials to the service principal",
    ),
    "a lock of some properties": (
        _more("servicePrincipalLockConfiguration", {"isEnabled": True, "credentialsWithUsageSign": True}),
        "property_lock",
        Risk.DANGEROUS,
        "covers only some properties",
    ),
    "disabled by its owner": (
        lambda application, _: setattr(application, "enabled", False),
        "disabled_by_owner",
        Risk.DANGEROUS,
        "no new tokens in any tenant",
    ),
    "disabled by Microsoft": (
        _more("disabledByMicrosoftStatus", "DisabledDueToViolationOfServicesAgreement"),
        "disabled_by_microsoft",
        Risk.DANGEROUS,
        "DisabledDueToViolationOfServicesAgreement",
    ),
    "a certificate of ours that is gone": (
        lambda application, _: application.certificates.clear(),
        "certificate_missing",
        Risk.MEND,
        "Microsoft refuses all our calls",
    ),
    "another name": (lambda application, _: setattr(application, "name", "Other"), "name", Risk.NOTE, "“Other”"),
    "one owner only": (
        lambda application, administrator: application.owners.remove(administrator.deputy),
        "owner_single",
        Risk.NOTE,
        "Ada Admin alone owns the application",
    ),
    "no verified publisher": (_more("verifiedPublisher", None), "publisher", Risk.MEND, "publisher is not verified"),
}


def add_user(administrator: Administrator) -> str:
    user = next(iter(administrator.tenant.users.values()))
    oid = known_id("user", "eve")
    administrator.tenant.users[oid] = type(user)(oid=oid, upn="eve@elsewhere.example", name="Eve Elsewhere")
    return oid


@pytest.mark.req("S-60")
@pytest.mark.req("S-74")
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_named_alone_and_what_is_dangerous_is_an_incident(
    administrator: Administrator, registration: ApplicationRegistration, name: str
) -> None:
    bend, key, risk, words = FAULTS[name]
    bend(administrator.application(registration), administrator)

    [found] = look(administrator, registration)

    assert (found.key, found.risk) == (key, risk)
    assert words in found.what
    assert found.remedy
    assert is_open() == (risk == Risk.DANGEROUS)
    if risk == Risk.DANGEROUS:
        assert found.what in Incident.objects.open().get(cause="registration_changed").words


def test_the_incident_ends_when_the_script_has_put_it_right(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    administrator.application(registration).redirect_uris.add("https://evil.example/")
    look(administrator, registration)
    assert is_open()
    assert settle_what_is_over() == 0
    administrator.perform(manifest.rest_script(registration, redirect_uris("global"), administrator.cloud))
    assert look(administrator, registration) == []
    assert not is_open()


def test_the_incident_ends_with_a_registration_that_is_retired(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    administrator.application(registration).enabled = False
    look(administrator, registration)
    ApplicationRegistration.objects.filter(pk=registration.pk).update(state="retired")
    assert settle_what_is_over() == 1
    assert not is_open()


def test_the_incident_ends_when_only_what_is_to_mend_is_left(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    eve = add_user(administrator)
    administrator.application(registration).owners.append(eve)
    administrator.application(registration).more["verifiedPublisher"] = None
    assert {one.key for one in look(administrator, registration)} == {"owner_unknown", "publisher"}
    assert settle_what_is_over() == 0
    RegistrationEvidence.objects.update(known_owners=[administrator.oid, administrator.deputy, eve])
    assert settle_what_is_over() == 1


def test_owners_are_known_once_a_person_confirmed_just_those(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    eve, before = add_user(administrator), [administrator.oid, administrator.deputy]
    administrator.application(registration).owners.append(eve)
    assert [one.key for one in look(administrator, registration)] == ["owner_unknown"]
    with pytest.raises(NotReadable, match="are others now"):
        posture.accept_owners(registration, actor=builders.ACTOR, shown=before)
    assert is_open()

    posture.accept_owners(registration, actor=builders.ACTOR, shown=[eve, *before])

    assert look(administrator, registration) == []
    assert not is_open()
    event = AuditEvent.objects.get(action="registration.owners_confirmed")
    assert event.details == {"before": before, "after": sorted([*before, eve])}


def test_a_secret_without_its_id_may_be_ours_and_two_may_not(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    rotation.add_secret(registration, Secret("s" * 40), expires_at=None, vault=clients.vault(), actor=builders.ACTOR)
    application = administrator.application(registration)
    _foreign_secret(application, administrator)
    assert [one.key for one in look(administrator, registration)] == ["secret_unnamed"]
    _foreign_secret(application, administrator)
    assert [one.key for one in look(administrator, registration)] == ["secret_unknown"] * 2


def test_a_managed_identity_of_ours_is_known_and_a_second_one_is_not(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    ours = rotation.add_managed_identity(registration, builders.guid(), actor=builders.ACTOR)
    issuer = _own_issuer(administrator)
    trusted = administrator.application(registration).federated
    trusted.append((issuer, builders.guid(), administrator.cloud.federation_audience))
    # Microsoft lists its object id, and we know its client id: it may be ours until Microsoft accepted ours.
    assert [one.key for one in look(administrator, registration)] == ["federated_unproven"]
    RegistrationEvidence.objects.update(asked_at=timezone.now(), asked_with=ours, refusal="AADSTS700213")
    assert [one.key for one in look(administrator, registration)] == ["federated_unproven"]
    RegistrationEvidence.objects.update(refusal="")
    assert look(administrator, registration) == []
    trusted.append((issuer, builders.guid(), administrator.cloud.federation_audience))
    assert [one.key for one in look(administrator, registration)] == ["federated_unknown"] * 2


def test_a_key_of_the_vault_is_ours_and_missed_like_any_certificate(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    ApplicationCredential.objects.update(kind="vault_key")  # its certificate is uploaded like that of a stored key
    assert look(administrator, registration) == []
    administrator.application(registration).certificates.clear()
    assert [one.key for one in look(administrator, registration)] == ["certificate_missing"]


def test_a_certificate_request_that_waits_is_no_credential_yet(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    key_pairs.request_certificate(registration, vault=clients.vault(), actor=builders.ACTOR)
    assert look(administrator, registration) == []


@pytest.mark.parametrize("form", ["sha1", "sha1-base64", "sha256", "sha256-base64"])
def test_a_thumbprint_is_known_in_each_form_that_tools_print(registration: ApplicationRegistration, form: str) -> None:
    credential = ApplicationCredential.objects.get()
    certificate = x509.load_pem_x509_certificate(credential.public_certificate.encode())
    digest = certificate.fingerprint(hashes.SHA1() if form.startswith("sha1") else hashes.SHA256())  # noqa: S303
    printed = base64.b64encode(digest).decode() if form.endswith("base64") else digest.hex().upper()
    seen = read({"appId": registration.application_id, "keyCredentials": [{"customKeyIdentifier": printed}]})
    assert posture.keep(registration, seen, source=PASTED, actor=builders.ACTOR) == []


@pytest.mark.req("R-45")
def test_a_part_that_was_not_looked_at_settles_nothing_and_keeps_its_time(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    _foreign_secret(administrator.application(registration), administrator)
    look(administrator, registration)
    evidence = RegistrationEvidence.objects.get()
    before = evidence.seen_at
    assert before is not None

    part = read({"appId": registration.application_id, "displayName": registration.name})
    found = posture.keep(registration, part, source=PASTED, actor=builders.ACTOR)

    assert [one.key for one in found] == ["secret_unknown"]
    assert is_open()
    assert settle_what_is_over() == 0
    evidence.refresh_from_db()
    assert evidence.looked_at("passwordCredentials") == before
    assert evidence.looked_at("displayName") == evidence.seen_at
    assert evidence.looked_at("displayName", "passwordCredentials") == before
    assert not_looked_at(evidence.seen) == []


# --- what is pasted ---------------------------------------------------------------------------------------------------


def test_what_az_ad_app_show_prints_is_compared_and_what_it_lacks_is_named(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    told = administrator.look(registration.application_id)["application"]
    seen = read_text(json.dumps(told))
    assert posture.keep(registration, seen, source=PASTED, actor=builders.ACTOR) == []
    hidden = ["federated credentials", "owners", "service principal", "granted application permissions"]
    assert not_looked_at(seen) == hidden


def test_a_service_principal_that_cannot_be_read_is_not_looked_at(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    told = administrator.look(registration.application_id) | {"servicePrincipal": None, "appRoleAssignments": None}
    assert not_looked_at(read(told)) == ["service principal", "granted application permissions"]
    told["servicePrincipal"] = {"appId": builders.guid(), "accountEnabled": True}
    told["servicePrincipal"] |= {"passwordCredentials": [], "keyCredentials": []}
    with pytest.raises(NotReadable, match="of another application"):
        read(told)


@pytest.mark.req("S-30")
def test_of_credentials_only_ids_and_ends_are_kept_and_of_the_rest_only_what_is_compared(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    told = administrator.look(registration.application_id)
    told["application"] |= {"notes": "PLANTED", "logo": "PLANTED"}
    told["application"]["passwordCredentials"] = [
        {"keyId": builders.guid(), "secretText": "PLANTED", "hint": "PLA", "displayName": "PLANTED"}
    ]
    told["application"]["keyCredentials"][0]["key"] = "PLANTED"
    told["owners"]["value"][0]["userPrincipalName"] = "PLANTED"
    told["PLANTED"] = "PLANTED"

    posture.keep(registration, read_text(json.dumps(told)), source=PASTED, actor=builders.ACTOR)

    evidence = RegistrationEvidence.objects.get()
    assert "PLA" not in json.dumps(evidence.seen)
    assert evidence.seen["passwordCredentials"][0].keys() == {"keyId", "endDateTime"}
    assert "PLANTED" not in json.dumps(list(AuditEvent.objects.values_list("details", flat=True)))
    assert "PLANTED" not in Incident.objects.open().get().words


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x" * (MOST_CHARACTERS + 1), "longer than 200,000 characters"),
        ("ERROR: Please run 'az login'", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"appId": NaN}', "no JSON"),
        ("[]", "must begin with {"),
        ('{"value": []}', "has no appId"),
        ('{"application": {"appId": 1}}', "has no appId"),
        ('{"appId": "a", "passwordCredentials": "none"}', "no whole list"),
        ('{"application": {"appId": "a"}, "owners": {"value": [], "@odata.nextLink": "x"}}', "no whole list"),
        (json.dumps({"appId": "a", "web": {"redirectUris": ["x"] * 101}}), "more than 100 entries"),
        ('{"appId": "a", "isDisabled": "true"}', "another form"),
        ('{"appId": "a", "signInAudience": 1}', "another form"),
        ('{"appId": "a", "web": []}', "another form"),
        ('{"appId": "a", "spa": "none"}', "another form"),
        ('{"appId": "a", "web": {"redirectUris": [1]}}', "another form"),
        ('{"appId": "a", "web": {"implicitGrantSettings": {"enableIdTokenIssuance": "true"}}}', "another form"),
        ('{"appId": "a", "requiredResourceAccess": ["x"]}', "another form"),
        ('{"appId": "a", "servicePrincipalLockConfiguration": {"isEnabled": "yes"}}', "another form"),
        ('{"appId": "a", "keyCredentials": [1]}', "another form"),
        ('{"appId": "a", "passwordCredentials": [{"keyId": {}}]}', "another form"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_a_reason_and_not_repeated(text: str, told: str) -> None:
    with pytest.raises(NotReadable, match=told) as refused:
        read_text(text)
    assert "az login" not in str(refused.value)


@pytest.mark.parametrize(
    "value", [None, 1, True, "x", [], {}, [None], [[]], {"redirectUris": "x"}, {"implicitGrantSettings": []}]
)
def test_values_of_other_types_end_in_a_reason_or_in_nothing(value: object) -> None:
    for name in (*manifest.application(draft_row(), []), "passwordCredentials", "owners", "verifiedPublisher"):
        try:
            seen = read({"appId": "a", name: value})
        except NotReadable:
            continue
        json.dumps(seen)


def draft_row() -> ApplicationRegistration:
    return ApplicationRegistration(name="A", permission_set="strict")


def test_each_part_that_a_text_lacks_is_named(
    administrator: Administrator, registration: ApplicationRegistration
) -> None:
    told = administrator.look(registration.application_id)
    for name in list(told["application"]):
        if name in ("spa", "publicClient", "isFallbackPublicClient", "requiredResourceAccess"):
            del told["application"][name]
    del told["application"]["web"]["implicitGrantSettings"]
    assert not_looked_at(read(told)) == [
        "redirect URIs of single-page applications",
        "redirect URIs of mobile and desktop applications",
        "implicit grants",
        "public client flows",
        "permissions",
    ]
    told["application"]["web"] = {}
    assert "web" not in read(told)  # an object without the list says nothing of redirect URIs


def test_another_application_is_refused(administrator: Administrator, registration: ApplicationRegistration) -> None:
    told = {"appId": builders.guid()}
    with pytest.raises(NotReadable, match="another application"):
        posture.keep(registration, read(told), source=PASTED, actor=builders.ACTOR)
    assert RegistrationEvidence.objects.get().seen == {}


# --- what the portal reads by itself ----------------------------------------------------------------------------------


@pytest.fixture
def reader(administrator: Administrator, settings: Settings, tmp_path: Path) -> Application:
    """A second application with a certificate and Application.Read.All in the home tenant."""
    text, world = pem(), administrator.sandbox.world
    reader = Application(
        app_id=known_id("application", "reader"),
        name="Reader",
        home_tenant=scenarios.vendor_tenant(),
        multi_tenant=False,
        certificates=[der(text)],
        roles={"Application.Read.All"},
    )
    world.applications[reader.app_id] = reader
    administrator.tenant.add_principal(reader.app_id, "Reader")
    settings.READERS = {scenarios.vendor_tenant(): (reader.app_id, str(private(tmp_path / "reader.pem", text)))}
    return reader


def test_the_schedule_reads_registrations_with_an_identity_of_its_own(
    administrator: Administrator, registration: ApplicationRegistration, reader: Application
) -> None:
    builders.registration(name="Of another tenant")
    administrator.application(registration).redirect_uris.add("https://evil.example/")

    assert jobs._look() == "1 looked at, 1 with differences, 0 could not be read"

    evidence = RegistrationEvidence.objects.get()
    assert (evidence.source, evidence.seen_by, not_looked_at(evidence.seen)) == (READ, "portal", [])
    assert is_open()
    asked = [one for one in administrator.sandbox.world.ledger if one["service"] == "graph"]
    assert {one["client"] for one in asked if one["operation"] == "get application"} == {reader.app_id}


def test_registrations_of_several_clouds_are_read_by_the_reader_of_their_home_tenant(
    administrator: Administrator,
    registration: ApplicationRegistration,
    reader: Application,
    settings: Settings,
    tmp_path: Path,
) -> None:
    there, text = Administrator(administrator.sandbox, "usgov"), pem()
    second = draft(administrator.sandbox, "usgov")
    other = Application(
        app_id=known_id("application", "reader of usgov"),
        name="Reader",
        home_tenant=second.home_tenant_id,
        multi_tenant=False,
        certificates=[der(text)],
        roles={"Application.Read.All"},
    )
    administrator.sandbox.world.applications[other.app_id] = other
    there.tenant.add_principal(other.app_id, "Reader")
    assert jobs._look().startswith("1 looked at")
    settings.READERS |= {second.home_tenant_id: (other.app_id, str(private(tmp_path / "usgov.pem", text)))}

    assert jobs._look() == "2 looked at, 1 with differences, 0 could not be read"

    asked = [one for one in administrator.sandbox.world.ledger if one["operation"] == "get application"]
    assert {one["client"] for one in asked} == {reader.app_id, other.app_id}


def test_a_managed_identity_reads_as_well(
    administrator: Administrator,
    registration: ApplicationRegistration,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    identity = ManagedIdentity(
        client_id=builders.guid(),
        principal_id=builders.guid(),
        tenant_id=scenarios.vendor_tenant(),
        roles=frozenset({"Application.Read.All"}),
    )
    administrator.sandbox.world.identities[identity.client_id] = identity
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{administrator.sandbox.browser_port}")
    settings.READERS = {identity.tenant_id: (identity.client_id, "")}
    assert jobs._look() == "1 looked at, 0 with differences, 0 could not be read"


def test_a_read_that_fails_is_noted_and_what_was_seen_before_stays(
    administrator: Administrator, registration: ApplicationRegistration, reader: Application, settings: Settings
) -> None:
    look(administrator, registration)
    reader.roles.clear()

    with pytest.raises(RemoteError):
        posture.look(registration, clients.read_registration, actor=builders.ACTOR)

    evidence = RegistrationEvidence.objects.get()
    assert evidence.unread_at is not None
    assert evidence.unread_reason
    assert (evidence.source, evidence.seen["displayName"]) == (PASTED, registration.name)
    assert jobs._look() == "1 looked at, 0 with differences, 1 could not be read"
    known = settings.READERS
    settings.READERS = {tenant: (client, f"{file}.missing") for tenant, (client, file) in known.items()}
    assert jobs._look().endswith("1 could not be read")
    reader.roles.add("Application.Read.All")
    settings.READERS = known
    assert jobs._look().endswith("0 could not be read")
    assert RegistrationEvidence.objects.get().unread_at is None


def test_one_row_that_is_not_as_it_should_be_hides_no_other_one(
    administrator: Administrator, registration: ApplicationRegistration, reader: Application
) -> None:
    administrator.application(registration).redirect_uris.add("https://evil.example/")
    ApplicationCredential.objects.update(public_certificate="no certificate")  # as a restore by hand may leave it
    other = draft(administrator.sandbox, application_id=builders.guid())
    administrator.sandbox.world.applications[other.application_id] = Application(
        app_id=other.application_id, name=other.name, home_tenant=scenarios.vendor_tenant()
    )
    assert jobs._look() == "2 looked at, 1 with differences, 1 could not be read"


def test_a_reader_that_fails_for_days_is_an_incident_and_a_paste_hides_it_not(
    administrator: Administrator, registration: ApplicationRegistration, reader: Application
) -> None:
    def unread() -> bool:
        return Incident.objects.open().filter(cause="registration_unread").exists()

    assert jobs._look().endswith("0 could not be read")
    reader.roles.clear()
    assert jobs._look().endswith("1 could not be read")
    assert not unread()
    evidence = RegistrationEvidence.objects.get()
    evidence.seen["read_at"] = (timezone.now() - timedelta(days=3)).isoformat()
    evidence.save()
    assert jobs._look().endswith("1 could not be read")
    assert unread()

    look(administrator, registration)  # by hand

    evidence.refresh_from_db()
    assert evidence.unread_at is not None
    assert evidence.read_at is not None
    assert evidence.read_at < timezone.now() - timedelta(days=2)
    assert settle_what_is_over() == 0
    assert unread()
    event = AuditEvent.objects.filter(action="registration.not_read").last()
    assert event is not None
    assert event.outcome == "failed"
    reader.roles.add("Application.Read.All")
    assert jobs._look().endswith("0 could not be read")
    assert not unread()


def test_without_a_reader_nothing_is_read(registration: ApplicationRegistration) -> None:
    assert jobs._look() == "no reader"
