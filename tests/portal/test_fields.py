"""Identifiers in one canonical form and names without tricks, whoever writes them."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from consent.models import ApplicationRegistration
from portal.fields import validate_name
from portal.microsoft.identifiers import CONSUMERS_TENANT
from tenants.models import PartnerTenant
from tests.support import builders

GUID = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"

GOOD_NAMES = [
    "Northwind Cloud",
    "株式会社ノースウィンド",
    "شركة الشمال",
    "חברה",
    "Ünïcødé & Søn's <b>",
    "🚀",
    "A",
    "n" * 200,
    "क्षत्रिय",
    "O\u2019Brien \u2013 Partner",
    "a\u200db",
]
BAD_NAMES = {
    "empty": "",
    "NUL": "a\x00b",
    "line feed": "a\nb",
    "carriage return": "a\rb",
    "escape": "a\x1b[31mb",
    "delete": "a\x7fb",
    "C1 control": "a\x85b",
    "tab": "a\tb",
    "blanks only": "   ",
    "invisible only": "\u200b\u200d\u2060",
    "no-break space only": "\u00a0\u2003",
    "combining mark only": "\u0301",
    "not NFC": "Cafe\u0301",
    "angstrom sign": "\u212b",
    "too long": "n" * 201,
    "private use": "a\ue000",
    "not assigned": "a\U000e0080",
    "surrogate": "a\ud800",
    **{
        f"U+{code:04X}": f"abc{chr(code)}def"
        for code in [0x200E, 0x200F, 0x061C, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    },
}


def partner(**columns: str) -> PartnerTenant:
    return PartnerTenant(**{"name": "One", "tenant_id": GUID, "cloud": "global"} | columns)


@pytest.mark.req("S-66")
@pytest.mark.req("R-43")
@pytest.mark.django_db
@pytest.mark.parametrize("name", GOOD_NAMES, ids=ascii)
def test_names_in_any_script_are_kept_unchanged(name: str) -> None:
    one = partner(name=name)
    one.full_clean()
    one.save()
    assert PartnerTenant.objects.get().name == name


@pytest.mark.req("S-66")
@pytest.mark.django_db
@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_names_that_deceive_or_break_are_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        partner(name=name).full_clean()
    assert set(caught.value.message_dict) == {"name"}
    assert all(len(sentence) < 120 for sentence in caught.value.message_dict["name"])


@pytest.mark.req("S-66")
@given(st.text(max_size=40))
def test_the_verdict_on_a_name_is_always_given_and_never_a_crash(text: str) -> None:
    try:
        validate_name(text)
    except ValidationError:
        return
    assert text.isprintable() or any(ord(character) > 127 for character in text)
    assert "\x00" not in text
    assert not set(text) & {chr(code) for code in [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]}


@pytest.mark.req("S-66")
@pytest.mark.req("S-04")
@pytest.mark.django_db
@pytest.mark.parametrize("text", [GUID, GUID.upper(), f"{{{GUID}}}", f"  {GUID} ", f"{{{GUID.upper()}}}"])
def test_a_guid_has_one_form_in_model_service_and_lookup(text: str) -> None:
    one = partner(tenant_id=text)
    one.full_clean()
    one.save()
    assert PartnerTenant.objects.values_list("tenant_id", flat=True).get() == GUID
    assert PartnerTenant.objects.filter(tenant_id=text).exists()
    assert PartnerTenant.objects.filter(tenant_id__in=[text]).exists()
    with transaction.atomic(), pytest.raises(IntegrityError):
        PartnerTenant.objects.create(name="Two", tenant_id=text)
    PartnerTenant.objects.update(tenant_id=text.lower())
    assert PartnerTenant.objects.values_list("tenant_id", flat=True).get() == GUID


@pytest.mark.req("S-66")
@pytest.mark.req("S-04")
@pytest.mark.django_db
@pytest.mark.parametrize(
    "text",
    [
        "common",
        "organizations",
        "consumers",
        "contoso.onmicrosoft.com",
        CONSUMERS_TENANT,
        "00000000-0000-0000-0000-000000000000",
        GUID.replace("-", ""),
        GUID[:-1],
        GUID + "0",
        f"{GUID}\n",
        f"{GUID}\x00",
        f"({GUID})",
        GUID.replace("3", "３"),
        f"{GUID} {GUID}",
    ],
    ids=ascii,
)
def test_what_is_no_tenant_id_is_refused_by_form_model_and_bulk_write(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        partner(tenant_id=text).full_clean()
    assert set(caught.value.message_dict) == {"tenant_id"}
    with pytest.raises(ValidationError), transaction.atomic():
        partner(tenant_id=text).save()
    with pytest.raises(ValidationError), transaction.atomic():
        PartnerTenant.objects.bulk_create([partner(tenant_id=text)])
    assert not PartnerTenant.objects.exists()


@pytest.mark.req("S-66")
@pytest.mark.django_db
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Contoso.OnMicrosoft.com ", "contoso.onmicrosoft.com"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("", ""),
    ],
)
def test_a_domain_has_one_form(text: str, expected: str) -> None:
    one = partner(domain=text)
    one.full_clean()
    assert one.domain == expected


@pytest.mark.req("S-66")
@pytest.mark.django_db
@pytest.mark.parametrize(
    "text", ["localhost", "a..b", "-a.example", "a_b.example", "bücher.example", "https://a.example", "a.example/x"]
)
def test_what_is_no_domain_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        partner(domain=text).full_clean()


@pytest.mark.req("S-66")
@pytest.mark.django_db
def test_application_ids_and_object_ids_follow_the_same_rule() -> None:
    registration = builders.registration(application_id=GUID.upper())
    consent = builders.consent(builders.partner(), registration, pinned_oid=f"{{{GUID}}}")
    registration.refresh_from_db()
    consent.refresh_from_db()
    assert (registration.application_id, consent.pinned_oid) == (GUID, GUID)
    with pytest.raises(ValidationError):
        ApplicationRegistration.objects.filter(application_id="no").exists()


def test_a_form_takes_a_guid_with_braces_and_blanks_around() -> None:
    field = PartnerTenant._meta.get_field("tenant_id").formfield()
    assert field.clean(f"  {{{GUID.upper()}}}  ") == f"{{{GUID.upper()}}}"
    assert field.max_length == 66
