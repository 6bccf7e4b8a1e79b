"""Credentials whose key is made here or in the vault, signed by others, uploaded: end to end against the sandbox.

Covers: consent.microsoft.certificates, consent.vault.azure_keys, consent.vault.leftovers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7, pkcs12
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.applications import key_pairs, rotation
from consent.microsoft import credentials
from consent.microsoft.certificates import self_signed
from consent.models import ApplicationCredential, PartnerConsent
from consent.tokens import pairing
from consent.tokens.service import Audience
from consent.vault.base import SecretDisabled, SecretName, SecretVersion, VaultConfigurationError
from portal.audit.models import AuditEvent
from portal.microsoft.diagnosis import diagnose
from portal.microsoft.errors import AccessDenied, NotFound
from portal.microsoft.identifiers import new_correlation_id
from portal.microsoft.secret import Secret
from tests.conftest import VAULT_NAME, use_azure_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.key_vault_keys import KeyVersion
from tests.sandbox.server import Sandbox
from tests.support import builders
from tests.support.certificates import pem
from tests.support.credentials import KEY_RIGHTS, State, application, current, know, promote, signed, states
from tests.support.custody import watch_vault
from tests.support.portal import Portal
from tests.support.units import check_token

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-39")]
Kind = ApplicationCredential.Kind
ACTOR = builders.ACTOR


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def redeem(portal: Portal) -> None:
    clients.tokens().access_token(
        portal.consent(), Audience.GRAPH, by=builders.BY, correlation_id=new_correlation_id(), fresh=True
    )


def stored(credential: ApplicationCredential) -> str:
    name, version = SecretName(credential.secret_name), SecretVersion(credential.secret_version)
    return clients.vault().read(name, version).value.reveal()


def key_of(portal: Portal, credential: ApplicationCredential) -> KeyVersion:
    found: KeyVersion = portal.sandbox.world.vaults["global", VAULT_NAME].keys[credential.secret_name][0]
    return found


def calls(portal: Portal, operation: str) -> int:
    return int(portal.sandbox.world.counters[f"vault {operation} 200"])


# --- made here --------------------------------------------------------------------------------------------------------


def test_a_pair_that_is_made_here_is_proven_once_microsoft_knows_its_certificate(connected: Portal) -> None:
    first = current(connected)
    made = key_pairs.make_pair(connected.registration, days=365, vault=clients.vault(), actor=ACTOR)
    assert made.kind == Kind.CERTIFICATE
    assert made.expires_at is not None
    assert timedelta(days=364) < made.expires_at - timezone.now() <= timedelta(days=365)
    certificate = x509.load_pem_x509_certificate(made.public_certificate.encode())
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "PRIVATE" not in made.public_certificate
    assert "BEGIN PRIVATE" in stored(made)
    with pytest.raises(rotation.NotAccepted):
        promote(made)
    assert current(connected) == first
    know(connected, made)
    assert promote(made) == connected.partner
    application(connected).secrets.clear()
    redeem(connected)
    event = AuditEvent.objects.get(action="credential.added", subject__credential=made.pk)
    assert event.details["how"] == "made here"


# --- signed by others -------------------------------------------------------------------------------------------------


def pkcs7_of(text: str) -> bytes:
    certificates = x509.load_pem_x509_certificates(text.encode())
    return pkcs7.serialize_certificates(certificates, serialization.Encoding.DER)


@pytest.mark.parametrize(
    "form",
    [
        lambda text: text.encode(),
        lambda text: x509.load_pem_x509_certificates(text.encode())[-1].public_bytes(serialization.Encoding.DER),
        pkcs7_of,
    ],
    ids=["PEM", "DER", "PKCS7"],
)
def test_a_request_is_signed_elsewhere_and_its_certificate_fits_the_key(
    connected: Portal, form: Callable[[str], bytes]
) -> None:
    asked = key_pairs.request_certificate(connected.registration, vault=clients.vault(), actor=ACTOR)
    place = SecretName(asked.secret_name), SecretVersion(asked.secret_version)
    assert states(connected)[asked.pk] == State.REQUESTED
    with pytest.raises(rotation.RotationRefused, match="waits for its signed certificate"):
        promote(asked)
    answer = form(signed(asked.certificate_request, with_issuer=True))
    key_pairs.answer(asked, answer, vault=clients.vault(), actor=ACTOR)
    asked.refresh_from_db()
    assert states(connected)[asked.pk] == State.CANDIDATE
    with pytest.raises(SecretDisabled):  # the key without its certificate
        clients.vault().read(*place)
    know(connected, asked)
    promote(asked)
    redeem(connected)
    with pytest.raises(rotation.RotationRefused, match="does not wait"):
        key_pairs.answer(asked, answer, vault=clients.vault(), actor=ACTOR)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda asked: pem(with_key=False).encode(), "another key"),
        (lambda asked: b"no certificate", "must hold a certificate"),
        (lambda asked: signed(asked.certificate_request, days=-1).encode(), "expired already"),
    ],
    ids=["of another key", "no certificate", "expired"],
)
def test_what_is_not_the_certificate_of_the_request_changes_nothing(
    connected: Portal, content: Callable[[ApplicationCredential], bytes], words: str
) -> None:
    asked = key_pairs.request_certificate(connected.registration, vault=clients.vault(), actor=ACTOR)
    before = ApplicationCredential.objects.values().get(pk=asked.pk)
    with pytest.raises(ValueError, match=words):
        key_pairs.answer(asked, content(asked), vault=clients.vault(), actor=ACTOR)
    assert ApplicationCredential.objects.values().get(pk=asked.pk) == before
    assert "BEGIN PRIVATE" in stored(asked)


def test_a_request_that_was_given_up_takes_no_certificate(connected: Portal) -> None:
    asked = key_pairs.request_certificate(connected.registration, vault=clients.vault(), actor=ACTOR)
    answer = signed(asked.certificate_request).encode()
    rotation.retire(asked, vault=clients.vault(), keys=clients.vault_keys, actor=ACTOR)
    with pytest.raises(SecretDisabled):
        stored(asked)
    with pytest.raises(rotation.RotationRefused, match="does not wait"):
        key_pairs.answer(asked, answer, vault=clients.vault(), actor=ACTOR)


def enabled_versions(credential: ApplicationCredential) -> int:
    return sum(one.enabled for one in clients.inventory().versions(SecretName(credential.secret_name)))


def test_a_request_that_is_given_up_while_it_is_answered_leaves_no_key_enabled(
    connected: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = key_pairs.request_certificate(connected.registration, vault=clients.vault(), actor=ACTOR)
    content = signed(asked.certificate_request).encode()
    watched = watch_vault(monkeypatch)

    def give_up(operation: str) -> None:
        if operation == "write":
            watched.after = lambda operation: None
            copy = ApplicationCredential.objects.get(pk=asked.pk)
            rotation.retire(copy, vault=clients.vault(), keys=clients.vault_keys, actor=ACTOR)

    watched.after = give_up
    with pytest.raises(rotation.RotationRefused, match="does not wait"):
        key_pairs.answer(asked, content, vault=clients.vault(), actor=ACTOR)
    assert enabled_versions(asked) == 0


def test_retiring_a_request_that_was_answered_meanwhile_switches_off_its_key_of_now(connected: Portal) -> None:
    asked = key_pairs.request_certificate(connected.registration, vault=clients.vault(), actor=ACTOR)
    older = ApplicationCredential.objects.get(pk=asked.pk)
    key_pairs.answer(asked, signed(asked.certificate_request).encode(), vault=clients.vault(), actor=ACTOR)
    assert enabled_versions(asked) == 1
    rotation.retire(older, vault=clients.vault(), keys=clients.vault_keys, actor=ACTOR)
    assert enabled_versions(asked) == 0


def test_a_retired_registration_takes_no_credential_and_nothing_enters_the_vault(keyed: Portal) -> None:
    registration, vault, keys = keyed.registration, clients.vault(), clients.vault_keys()
    asked = key_pairs.request_certificate(registration, vault=vault, actor=ACTOR)
    type(registration).objects.update(state="retired")
    before = keyed.sandbox.world.counters["vault set 200"], len(keyed.sandbox.world.vaults["global", VAULT_NAME].keys)
    content = signed(asked.certificate_request).encode()
    for add in (
        lambda: key_pairs.make_pair(registration, days=180, vault=vault, actor=ACTOR),
        lambda: key_pairs.request_certificate(registration, vault=vault, actor=ACTOR),
        lambda: key_pairs.make_vault_key(registration, days=180, keys=keys, actor=ACTOR),
        lambda: key_pairs.request_for_vault_key(registration, keys=keys, actor=ACTOR),
        lambda: key_pairs.add_upload(registration, pem().encode(), Secret(""), vault=vault, actor=ACTOR),
        lambda: key_pairs.answer(asked, content, vault=vault, actor=ACTOR),
        lambda: rotation.add_secret(registration, Secret("s" * 40), expires_at=None, vault=vault, actor=ACTOR),
        lambda: rotation.add_managed_identity(registration, builders.guid(), actor=ACTOR),
    ):
        with pytest.raises(rotation.RotationRefused, match="retired and takes no credential"):
            add()
    after = keyed.sandbox.world.counters["vault set 200"], len(keyed.sandbox.world.vaults["global", VAULT_NAME].keys)
    assert after == before
    assert before[0] > 0
    assert ApplicationCredential.objects.count() == 2


# --- uploaded ---------------------------------------------------------------------------------------------------------


def locked(form: str, text: str, password: bytes | None) -> bytes:
    key: Any = serialization.load_pem_private_key(text.encode(), None)
    certificate = x509.load_pem_x509_certificate(text.encode())
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    if form == "PFX":
        return pkcs12.serialize_key_and_certificates(b"app", key, certificate, None, how)
    pem_key = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
    return bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem_key)


@pytest.mark.parametrize("form", ["PFX", "PEM"])
@pytest.mark.parametrize("password", ["", "the-password-of-the-file"], ids=["open", "locked"])
def test_an_uploaded_file_is_kept_without_its_password(connected: Portal, form: str, password: str) -> None:
    content = locked(form, pem(), password.encode() or None)
    added = key_pairs.add_upload(connected.registration, content, Secret(password), vault=clients.vault(), actor=ACTOR)
    assert "ENCRYPTED" not in stored(added)
    know(connected, added)
    promote(added)
    redeem(connected)


@pytest.mark.parametrize("form", ["PFX", "PEM"])
@pytest.mark.parametrize("password", ["", "another-password"])
def test_a_wrong_password_and_a_strange_file_are_refused_without_their_text(
    connected: Portal, form: str, password: str
) -> None:
    for content in (locked(form, pem(), b"the-password"), b"strange-content", pem(with_key=False).encode()):
        with pytest.raises(ValueError, match="The file") as refused:
            key_pairs.add_upload(connected.registration, content, Secret(password), vault=clients.vault(), actor=ACTOR)
        for text in ("the-password", "another-password", "strange"):
            assert text not in str(refused.value)
    assert ApplicationCredential.objects.count() == 1


# --- signed in the vault ----------------------------------------------------------------------------------------------


def test_a_key_of_the_vault_signs_there_and_one_call_serves_all_redemptions_of_a_tenant(keyed: Portal) -> None:
    made = key_pairs.make_vault_key(keyed.registration, days=365, keys=clients.vault_keys(), actor=ACTOR)
    assert made.kind == Kind.VAULT_KEY
    know(keyed, made)
    promote(made)
    assert current(keyed) == made
    application(keyed).secrets.clear()
    clients.reset()  # another process
    before = calls(keyed, "sign_key"), calls(keyed, "get_key")
    for _ in range(20):
        redeem(keyed)
    assert (calls(keyed, "sign_key") - before[0], calls(keyed, "get_key") - before[1]) == (1, 0)
    grants = [line for line in keyed.sandbox.world.ledger if line.get("grant") == "refresh_token"]
    assert grants[-1]["status"] == 200


def test_of_many_threads_one_asks_the_vault_and_again_after_four_minutes(
    keyed: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = key_pairs.make_vault_key(keyed.registration, days=365, keys=clients.vault_keys(), actor=ACTOR)
    credential: Any = clients.client_credential(made, clients.cloud("global"))
    before, place = calls(keyed, "sign_key"), "https://login.example.com/t/oauth2/v2.0/token"

    def assertion(_: int) -> str:
        return str(credential.assertion(keyed.registration.client_id, place).reveal())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(assertion, range(8)))) == 1
    assert calls(keyed, "sign_key") - before == 1
    for seconds, number in ((239, 1), (241, 2)):
        later = SimpleNamespace(time=time.time, monotonic=lambda ahead=seconds: time.monotonic() + ahead)
        monkeypatch.setattr(credentials, "time", later)
        assertion(0)
        assert calls(keyed, "sign_key") - before == number


def test_a_request_of_a_key_in_the_vault_is_answered_without_touching_the_key(keyed: Portal) -> None:
    asked = key_pairs.request_for_vault_key(keyed.registration, keys=clients.vault_keys(), actor=ACTOR)
    answer = signed(asked.certificate_request, with_issuer=True).encode()
    key_pairs.answer(asked, answer, sends_chain=True, vault=clients.vault(), actor=ACTOR)
    asked.refresh_from_db()
    assert asked.public_certificate.count("BEGIN CERTIFICATE") == 2
    know(keyed, asked)
    promote(asked)
    redeem(keyed)


def test_a_key_that_an_administrator_made_in_the_vault_is_named_with_its_certificate(keyed: Portal) -> None:
    keys = clients.vault_keys()
    theirs = keys.create(tags={})
    asked = key_pairs.request_for_vault_key(keyed.registration, keys=keys, actor=ACTOR)
    other = signed(asked.certificate_request).encode()
    place = theirs.name, theirs.version
    with pytest.raises(ValueError, match="another key"):
        key_pairs.add_vault_key(keyed.registration, *place, other, keys=keys, actor=ACTOR)
    with pytest.raises(NotFound):
        key_pairs.add_vault_key(keyed.registration, theirs.name, "f" * 32, other, keys=keys, actor=ACTOR)
    own = self_signed(keys.signer(*place, theirs.public), "theirs", days=30)
    content = own.public_bytes(serialization.Encoding.DER)
    added = key_pairs.add_vault_key(keyed.registration, *place, content, keys=keys, actor=ACTOR)
    know(keyed, added)
    promote(added)
    with pytest.raises(ValueError, match="already; promote it"):
        key_pairs.add_vault_key(keyed.registration, *place, content, keys=keys, actor=ACTOR)
    ApplicationCredential.objects.filter(pk=added.pk).update(retired_at=timezone.now())
    with pytest.raises(ValueError, match="is a retired credential of the registration; name another"):
        key_pairs.add_vault_key(keyed.registration, *place, content, keys=keys, actor=ACTOR)


@pytest.mark.parametrize("make", [partial(key_pairs.make_vault_key, days=365), key_pairs.request_for_vault_key])
def test_a_key_that_the_vault_makes_and_does_not_sign_with_is_switched_off(
    keyed: Portal, make: Callable[..., object]
) -> None:
    keyed.sandbox.world.vault_rights[scenarios.vault_application_id()] = KEY_RIGHTS - {"keys/sign"}
    keys = clients.vault_keys()
    with pytest.raises(AccessDenied):
        make(keyed.registration, keys=keys, actor=ACTOR)
    made = keyed.sandbox.world.vaults["global", VAULT_NAME].keys
    assert [[version.enabled for version in versions] for versions in made.values()] == [[False]]
    assert ApplicationCredential.objects.count() == 1


def test_a_vault_that_does_not_sign_for_a_proof_is_named_and_microsoft_refused_nothing(keyed: Portal) -> None:
    made = key_pairs.make_vault_key(keyed.registration, days=365, keys=clients.vault_keys(), actor=ACTOR)
    know(keyed, made)
    clients.reset()
    keyed.sandbox.world.vault_rights[scenarios.vault_application_id()] = KEY_RIGHTS - {"keys/sign"}
    with pytest.raises(rotation.RotationRefused, match=r"Microsoft did not refuse it\. .* sign and update on keys"):
        promote(made)


def test_retiring_switches_off_only_the_key_that_we_made(keyed: Portal) -> None:
    keys = clients.vault_keys()
    theirs = keys.create(tags={})
    own = self_signed(keys.signer(theirs.name, theirs.version, theirs.public), "theirs", days=30)
    content = own.public_bytes(serialization.Encoding.PEM)
    named = key_pairs.add_vault_key(keyed.registration, theirs.name, theirs.version, content, keys=keys, actor=ACTOR)
    made = key_pairs.make_vault_key(keyed.registration, days=180, keys=keys, actor=ACTOR)
    for credential in (named, made):
        rotation.retire(credential, vault=clients.vault(), keys=clients.vault_keys, actor=ACTOR)
    assert key_of(keyed, named).enabled
    assert not key_of(keyed, made).enabled


@pytest.mark.parametrize("inner", ["AccessDenied", "ForbiddenByRbac"])
def test_a_vault_that_does_not_sign_is_named_and_no_partner_is_blamed(keyed: Portal, inner: str) -> None:
    made = key_pairs.make_vault_key(keyed.registration, days=365, keys=clients.vault_keys(), actor=ACTOR)
    know(keyed, made)
    promote(made)
    clients.reset()
    keyed.sandbox.world.switches["vault_denied"] = inner
    keyed.sandbox.world.vault_rights[scenarios.vault_application_id()] = KEY_RIGHTS - {"keys/sign"}
    with pytest.raises(AccessDenied) as refused:
        redeem(keyed)
    assert "create, sign and update on keys" in diagnose(refused.value).remedy
    before = PartnerConsent.objects.values("state", "generation").get()
    assert check_token(keyed.consent()).systemic
    assert PartnerConsent.objects.values("state", "generation").get() == before
    key_of(keyed, made).enabled = False
    keyed.sandbox.world.vault_rights[scenarios.vault_application_id()] = set(KEY_RIGHTS)
    with pytest.raises(AccessDenied) as refused:
        redeem(keyed)
    assert "switched off" in diagnose(refused.value).cause
    assert check_token(keyed.consent()).systemic
    keyed.sandbox.world.vaults["global", VAULT_NAME].keys.clear()
    gone = check_token(keyed.consent())
    assert (gone.systemic, gone.cause) == (True, "The vault holds no such key.")
    assert PartnerConsent.objects.values("state", "generation").get() == before


def test_a_key_is_no_entry_by_which_a_vault_is_known(
    db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    sandbox.world.vault_rights[scenarios.vault_application_id()] = set(KEY_RIGHTS)
    draft = builders.registration(credential=None, state="draft")
    key_pairs.make_vault_key(draft, days=365, keys=clients.vault_keys(), actor=ACTOR)
    assert not pairing.names_entries()
    clients.vault()  # a vault of this database without its id, as before the first start


def test_without_rights_on_keys_nothing_is_added(keyed: Portal) -> None:
    keyed.sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set"}
    with pytest.raises(AccessDenied):
        key_pairs.make_vault_key(keyed.registration, days=365, keys=clients.vault_keys(), actor=ACTOR)
    assert ApplicationCredential.objects.count() == 1


def test_the_embedded_vault_says_that_it_does_not_sign(connected: Portal) -> None:
    with pytest.raises(VaultConfigurationError, match="does not sign"):
        clients.vault_keys()
