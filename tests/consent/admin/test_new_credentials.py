"""New credentials in the admin: each way from its page to the redemption, and what to do next (S-39).

Covers: consent.admin.credential_steps.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse
from django.utils import timezone

from consent.models import ApplicationCredential
from portal.audit.models import AuditEvent
from tests.sandbox import scenarios
from tests.sandbox.managed_identity import trust
from tests.support import builders
from tests.support.certificates import pem
from tests.support.credentials import IDENTITY, application, current, know, signed, states
from tests.support.portal import Portal
from tests.support.staff import Staff, told
from tests.support.units import check_token

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-39")]
State, Kind = ApplicationCredential.State, ApplicationCredential.Kind


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    return portal


def text(page: Any) -> str:
    assert page.status_code == 200
    return str(page.content.decode())


def add(staff: Staff, portal: Portal, way: str, **fields: object) -> Any:
    """Fill the page of a way, and return the page that it ends on."""
    page = staff.get(reverse("admin:consent_applicationcredential_new", args=[portal.registration.pk, way]))
    return staff.confirm(page, **fields)


def newest() -> ApplicationCredential:
    return ApplicationCredential.objects.select_related("registration").latest("pk")


def press(staff: Staff, credential: ApplicationCredential, button: str, **fields: object) -> str:
    page = staff.get(reverse(f"admin:consent_applicationcredential_{button}", args=[credential.pk]))
    return told(staff.confirm(page, **fields))


def shown(staff: Staff, credential: ApplicationCredential) -> str:
    return text(staff.get(reverse("admin:consent_applicationcredential_change", args=[credential.pk])))


def buttons(page: str) -> set[str]:
    return set(re.findall(r'<a class="button[^"]*" href="[^"]*/([a-z-]+)/">', page))


def file(content: str | bytes, name: str = "app.pem") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content.encode() if isinstance(content, str) else content)


def test_a_key_pair_is_made_uploaded_promoted_rolled_back_and_retired_by_its_pages(connected: Portal) -> None:
    staff, first = Staff(), current(connected)
    page = text(staff.get(reverse("admin:consent_applicationcredential_add")))
    assert "Make a key pair here" in page  # there is one registration, so it is chosen already
    ended = text(add(staff, connected, "pair", place="read", days="365"))
    made = newest()
    assert "PRIVATE" not in ended
    assert "Upload certificate" in ended
    assert buttons(ended) >= {"promote", "retire"}
    downloaded = staff.get(reverse("admin:consent_applicationcredential_public", args=[made.pk]))
    assert downloaded.content.decode() == made.public_certificate

    assert "Not promoted. Microsoft does not know the certificate" in press(staff, made, "promote_this")
    assert "Microsoft refused it (AADSTS700027)" in shown(staff, made)
    know(connected, made)
    assert "proven with the token of Northwind Cloud" in press(staff, made, "promote_this")
    now = shown(staff, made)
    assert "It is in use and ends in" in now
    assert "Every process of this deployment" in now
    assert "none since it was promoted" in now
    check_token(connected.consent())
    assert "none since it was promoted" not in shown(staff, made)

    assert "promoted, proven" in press(staff, made, "roll_back")
    assert current(connected) == first
    before = shown(staff, made)
    assert "kept for roll back" in before
    assert "No process." in before
    asked = staff.get(reverse("admin:consent_applicationcredential_retire_this", args=[made.pk]))
    assert "Type retire to go on. Nothing was done." in text(staff.confirm(asked, word="no"))
    assert states(connected)[made.pk] == State.PREVIOUS
    assert "1 retired." in press(staff, made, "retire_this", word="retire")
    assert "given up for good" in shown(staff, made)
    about = AuditEvent.objects.filter(subject__credential=made.pk, actor=str(staff.user))
    assert set(about.values_list("action", flat=True)) == {
        "credential.added",
        "credential.refused",
        "credential.promoted",
        "credential.retired",
    }


@pytest.mark.parametrize("place", ["read", "signed"])
def test_a_request_is_downloaded_and_answered_on_its_page(keyed: Portal, place: str) -> None:
    staff = Staff()
    ended = text(add(staff, keyed, "request", place=place))
    asked = newest()
    assert "It waits for its signed certificate." in ended
    assert buttons(ended) >= {"answer", "retire"}
    assert "promote" not in buttons(ended)
    address = reverse("admin:consent_applicationcredential_request", args=[asked.pk])
    request = staff.get(address).content.decode()
    assert request == asked.certificate_request
    assert Staff("tenants.view_partnertenant").get(address).status_code == 404
    told_no = press(staff, asked, "answer_request", file=file(pem(with_key=False)))
    assert "another key" in told_no
    assert "fits the key" in press(staff, asked, "answer_request", file=file(signed(request)))
    asked = newest()
    assert states(keyed)[asked.pk] == State.CANDIDATE
    know(keyed, asked)
    assert "proven with" in press(staff, asked, "promote_this")
    assert check_token(keyed.consent()).ok


def test_a_key_that_signs_in_the_vault_is_made_and_used(keyed: Portal) -> None:
    staff = Staff()
    ended = text(add(staff, keyed, "pair", place="signed", days="180"))
    made = newest()
    assert made.kind == Kind.VAULT_KEY
    assert "added to Example" in ended
    know(keyed, made)
    assert "proven with" in press(staff, made, "promote_this")
    assert "The key stays in the vault." in shown(staff, made)
    keyed.sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set"}
    refused = told(add(staff, keyed, "pair", place="signed", days="180"))
    assert "Nothing was added. The vault does not let the portal use its keys." in refused
    assert newest() == made


def test_an_entry_of_the_vault_is_named(keyed: Portal) -> None:
    staff = Staff()
    add(staff, keyed, "pair", place="read", days="365")
    theirs = newest()
    other = builders.registration(name="Other", state="draft", credential=None)
    address = reverse("admin:consent_applicationcredential_new", args=[other.pk, "entry"])
    fields = {"place": "read", "name": theirs.secret_name.upper(), "version": theirs.secret_version}
    staff.confirm(staff.get(address), **fields)
    assert newest().registration == other
    assert newest().key_id == theirs.key_id
    missing = staff.confirm(staff.get(address), **fields | {"version": "f" * 32})
    assert "Nothing was added. The vault holds no such secret." in told(missing)
    without = staff.confirm(staff.get(address), **fields | {"place": "signed"})
    assert "needs its public certificate" in text(without)


def test_a_managed_identity_is_trusted(connected: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    staff = Staff()
    monkeypatch.setenv("AZURE_POD_IDENTITY_AUTHORITY_HOST", f"http://127.0.0.1:{connected.sandbox.browser_port}")
    trust(connected.sandbox.world, connected.sandbox.clouds["global"], application(connected), IDENTITY)
    assert "must look like" in told(add(staff, connected, "identity", client_id="portal"))
    ended = text(add(staff, connected, "identity", client_id=IDENTITY.upper()))
    assert "Assign the identity to every host" in ended
    assert "proven with" in press(staff, newest(), "promote_this")
    assert "It is in use." in shown(staff, newest())


def test_an_upload_warns_and_wants_a_typed_word(connected: Portal) -> None:
    staff = Staff()
    address = reverse("admin:consent_applicationcredential_new", args=[connected.registration.pk, "upload"])
    page = staff.get(address)
    assert "others may hold it as well" in text(staff.get(reverse("admin:consent_applicationcredential_add")))
    assert 'enctype="multipart/form-data"' in text(page)
    assert "can have been copied" in text(page)
    key = pem()
    again = staff.confirm(page, file=file(key), word="")
    assert "PRIVATE" not in text(again)
    assert ApplicationCredential.objects.count() == 1
    large = staff.confirm(staff.get(address), file=file(b"x" * 100_001), word="upload")
    assert "at most 100 KB" in text(large)
    huge = staff.confirm(staff.get(address), file=file(b"x" * 3_000_000), word="upload")
    assert "at most 100 KB" in text(huge)
    wrong = staff.confirm(staff.get(address), file=file(b"strange"), word="upload")
    assert "Nothing was added. The file cannot be opened." in told(wrong)
    staff.confirm(staff.get(address), file=file(key), word="upload")
    know(connected, newest())
    assert "proven with" in press(staff, newest(), "promote_this")
    event = AuditEvent.objects.get(action="credential.added", subject__credential=newest().pk)
    assert event.details["how"] == "uploaded"


def test_a_key_vault_offers_a_key_that_signs_there(keyed: Portal) -> None:
    page = Staff().get(reverse("admin:consent_applicationcredential_new", args=[keyed.registration.pk, "pair"]))
    assert "the key cannot be copied" in text(page)


def test_the_embedded_vault_offers_no_key_that_signs_there(connected: Portal) -> None:
    staff = Staff()
    page = staff.get(reverse("admin:consent_applicationcredential_new", args=[connected.registration.pk, "pair"]))
    assert "the key cannot be copied" not in text(page)
    staff.confirm(page, place="signed", days="365")
    assert newest().kind == Kind.CERTIFICATE


def test_adding_needs_its_own_permission_and_a_living_registration(connected: Portal) -> None:
    add_page = reverse("admin:consent_applicationcredential_add")
    new = reverse("admin:consent_applicationcredential_new", args=[connected.registration.pk, "pair"])
    view = "consent.view_applicationcredential"
    others = Staff(view, "consent.promote_applicationcredential", "consent.retire_applicationcredential")
    assert [others.get(page).status_code for page in (add_page, new)] == [403, 403]
    allowed = Staff(view, "consent.add_applicationcredential")
    assert [allowed.get(page).status_code for page in (add_page, new)] == [200, 200]
    retired = builders.registration(name="Old", state="retired")
    staff = Staff()
    for page in (
        f"{add_page}?registration={retired.pk}",
        reverse("admin:consent_applicationcredential_new", args=[retired.pk, "pair"]),
        reverse("admin:consent_applicationcredential_new", args=[connected.registration.pk, "magic"]),
    ):
        assert staff.get(page).status_code == 404
    builders.registration(name="Another", state="draft", credential=None)
    choice = text(staff.get(add_page))
    assert "Another" in choice
    assert "Old" not in choice


def test_the_page_says_what_comes_next_when_the_end_is_near_and_when_it_is_over(connected: Portal) -> None:
    staff, credential = Staff(), ApplicationCredential.objects.filter(pk=current(connected).pk)
    assert "was never proven" in shown(staff, credential[0])
    now = timezone.now()
    credential.update(proven_at=now, proven_with=connected.partner)
    assert "Replace it by a managed identity or a certificate." in shown(staff, credential[0])
    for days, words in ((40, "tone-warn"), (5, "tone-bad")):
        credential.update(expires_at=now + timedelta(days=days))
        page = shown(staff, credential[0])
        assert "Add another credential" in page
        assert f'class="next-step {words}"' in page
    credential.update(starts_at=now - timedelta(days=9), expires_at=now - timedelta(days=1))
    assert "No token can be redeemed with it." in shown(staff, credential[0])
