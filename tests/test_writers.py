"""A model that says who writes its rows is right (house rule: such a sentence is true and held by a test, or gone)."""

from __future__ import annotations

import pytest
from django.contrib import admin

from tests.writers import claims, our_models, writers, written

CLAIMS = claims()


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    return writers()


def is_in(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def test_those_that_say_it_are_found() -> None:
    assert {"AuditEvent", "Incident", "PartnerConsent", "RateBucket", "Run"} <= set(CLAIMS)


@pytest.mark.parametrize("model", sorted(CLAIMS))
def test_rows_are_written_by_those_that_the_model_names(model: str, found: dict[str, set[str]]) -> None:
    others = {module for module in found[model] if not any(is_in(module, name) for name in CLAIMS[model])}
    assert others == set()
    unused = {name for name in CLAIMS[model] if not any(is_in(module, name) for module in found[model])}
    assert unused == set(), "named as a writer, and writes nothing"


@pytest.mark.parametrize("model", sorted(CLAIMS))
def test_no_page_of_the_admin_writes_such_rows_past_the_services(model: str) -> None:
    page = admin.site._registry.get(our_models()[model])
    assert page is None or not page.audit_word, "its form saves by itself"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "PartnerConsent.objects.filter(pk=1).update(failures=0)",
        "PartnerConsent(pk=1).save()",
        "def f(row: PartnerConsent):\n    row.save(update_fields=['failures'])",
        "def f(rows: QuerySet[PartnerConsent]):\n    rows.delete()",
        "def f(rows: PartnerConsentQuerySet):\n    chosen = rows.filter(pk=1)\n    chosen.update(failures=0)",
        "for one in PartnerConsent.objects.all():\n    one.delete()",
        "row, new = PartnerConsent.objects.get_or_create(pk=1)",
        "row = PartnerConsent.objects.first() or None\ndef f():\n    row.save()",
        "def f(partner: PartnerTenant):\n    partner.consents.update(failures=0)",
        "def f(waiting: WaitingToken):\n    waiting.consent.save()",
        "QuerySet[PartnerConsent](PartnerConsent).bulk_create(rows)",
        "models.PartnerConsent.objects.create()",
        "upsert(PartnerConsent, names, rows, unique=[], update=[])",
        "bulk.set_each(PartnerConsent, 'failures', {})",
        "def f(cursor):\n    cursor.execute(f'UPDATE {PartnerConsent._meta.db_table} SET failures = 0')",
    ],
)
def test_a_write_is_seen(text: str) -> None:
    names = {name for name, modules in written({"x": text}, our_models()).items() if modules}
    assert "PartnerConsent" in names


@pytest.mark.parametrize(
    "text",
    [
        "PartnerConsent.objects.filter(pk=1).first()",
        "def f(consent: PartnerConsent):\n    consent.partner.save()",
        "def f(consents: dict[int, PartnerConsent]):\n    consents.update({})",
    ],
)
def test_what_is_no_write_is_none(text: str) -> None:
    assert written({"x": text}, our_models())["PartnerConsent"] == set()
