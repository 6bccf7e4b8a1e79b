"""The column that rows are found by: how it is folded, kept, and looked up."""

from __future__ import annotations

from importlib import import_module
from io import StringIO

import pytest
from django.apps import apps
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from portal import search_text
from portal.search_text import Few, RowByRow, SearchTextField, begins_with, build_index, few_keys, folded
from tenants.models import CustomerTenant, PartnerTenant
from tests.support import builders

pytestmark = pytest.mark.django_db
NAMES = ["Müller & Söhne GmbH", "MULLER KG", "Ωμέγα", "東京システム", 'O\'Neil "Quote" 100%', "a_b"]


@pytest.fixture
def partner() -> PartnerTenant:
    return builders.partner(name="Holder", domain="")


def found(text: str | Few | RowByRow) -> set[str]:
    return set(CustomerTenant.objects.filter(search_text__finds=text).values_list("company_name", flat=True))


def named(partner: PartnerTenant, *names: str) -> None:
    for name in names:
        builders.customer(partner, company_name=name, domain="")


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    once = folded(text)
    assert folded(once) == once
    assert once == once.strip()
    assert "  " not in once
    assert not set(once) & {"\0", "\n", "\t", "\N{SOFT HYPHEN}", "\N{ZERO WIDTH JOINER}"}
    once.encode()


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("müller", {NAMES[0], NAMES[1]}),
        ("SOHNE muller", {NAMES[0]}),
        ("ωΜΕΓΑ", {NAMES[2]}),
        ("システム", {NAMES[3]}),
        ("東京", {NAMES[3]}),
        ("100%", {NAMES[4]}),
        ("o'neil", {NAMES[4]}),
        ("a_b", {NAMES[5]}),
        ("_", {NAMES[5]}),
        ('"muller kg"', {NAMES[1]}),
        ("kg muller", {NAMES[1]}),
        ("uller s", {NAMES[0]}),
        ('"uller s"', set()),
        ("", set()),
    ],
)
def test_rows_are_found_by_words_in_any_order(partner: PartnerTenant, text: str, names: set[str]) -> None:
    named(partner, *NAMES)
    assert found(text) == names


def test_a_changed_name_is_found_and_the_older_one_no_more(partner: PartnerTenant) -> None:
    customer = builders.customer(partner, company_name="Before Ltd", domain="")
    customer.company_name = "After Ltd"
    customer.save()
    assert (found("before"), found("after")) == (set(), {"After Ltd"})
    CustomerTenant.objects.all().delete()
    assert found("after") == set()


def test_a_few_are_as_many_as_asked_for(partner: PartnerTenant) -> None:
    named(partner, *(f"Common {number}" for number in range(9)))
    assert len(found("common")) == 9
    if connection.vendor == "sqlite":  # elsewhere the slice alone limits
        assert len(found(Few("common", 4))) == 4


def test_the_start_is_found_by_its_characters(partner: PartnerTenant) -> None:
    named(partner, *NAMES)
    rows = CustomerTenant.objects.filter(begins_with("search_text", "MÜ"))
    assert set(rows.values_list("company_name", flat=True)) == {NAMES[0], NAMES[1]}


@pytest.mark.parametrize("longest", ["\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 256, "\U00020000" * 256])
def test_a_name_that_grows_by_folding_fits(partner: PartnerTenant, longest: str) -> None:
    named(partner, longest)
    assert CustomerTenant.objects.filter(search_text__startswith=folded(longest)[:20]).count() == 1


def test_the_index_answers(partner: PartnerTenant) -> None:
    named(partner, *(f"Row {number}" for number in range(50)))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
    plan = CustomerTenant.objects.order_by().filter(search_text__finds="row 44").explain()  # of so few, sorting decides
    assert "tenants_customertenant_search" in plan or "VIRTUAL TABLE" in plan


def test_an_index_that_a_rebuilt_table_lost_is_made_anew(partner: PartnerTenant) -> None:
    name = "tenants_customertenant_search"
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f'DROP INDEX "{name}"')
        else:
            for event in ("insert", "update", "delete"):
                cursor.execute(f'DROP TRIGGER "{name}_{event}"')
    named(partner, "Unseen Ltd")
    build_index(apps.get_app_config("tenants"), "default")
    assert found("unseen") == {"Unseen Ltd"}
    named(partner, "Seen Ltd")
    assert found("seen ltd") == {"Unseen Ltd", "Seen Ltd"}


@pytest.mark.skipif("connection.vendor != 'postgresql'")
def test_without_the_right_to_create_the_extension_the_search_reads_the_table(
    partner: PartnerTenant,
) -> None:
    named(partner, *NAMES)
    with connection.cursor() as cursor:
        cursor.execute("DROP EXTENSION pg_trgm CASCADE")
        cursor.execute("CREATE ROLE searcher")
        cursor.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO searcher")
        cursor.execute("SET LOCAL ROLE searcher")
        told = StringIO()
        build_index(apps.get_app_config("tenants"), "default", told)
        assert "may not create the extension pg_trgm" in told.getvalue()
        assert found("sohne muller") == {NAMES[0]}
        cursor.execute("RESET ROLE")


def test_the_migration_fills_rows_that_are_there_batch_by_batch(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    migration = import_module("tenants.migrations.0005_fill_search_text")
    named(partner, *NAMES)
    CustomerTenant.objects.update(search_text="")
    monkeypatch.setattr(migration, "_FROM", {"CustomerTenant": migration._FROM["CustomerTenant"]})
    monkeypatch.setattr(migration, "_BATCH", 2)
    with connection.schema_editor() if connection.vendor != "sqlite" else _Editor() as editor:
        migration.fill(apps, editor)
    assert found("muller") == {NAMES[0], NAMES[1]}


class _Editor:
    """What the step needs of a schema editor, which SQLite gives outside of a transaction only."""

    connection = connection

    def __enter__(self) -> _Editor:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_each_model_that_is_searched_says_by_what() -> None:
    searched = [
        model
        for model in apps.get_models()
        if any(isinstance(field, SearchTextField) for field in model._meta.concrete_fields)
    ]
    assert searched
    assert all(hasattr(model, "searched_by") for model in searched)


@pytest.mark.req("R-29")
def test_words_that_many_rows_have_are_looked_for_row_by_row(partner: PartnerTenant) -> None:
    named(partner, *(f"Harbour {number}" for number in range(40)), "Lighthouse")
    field = CustomerTenant._meta.get_field("search_text")
    assert isinstance(field, SearchTextField)
    keys = CustomerTenant.objects.filter(company_name__startswith="Harbour").values_list("pk", flat=True)
    assert set(few_keys(field, "harb OUR", 40) or ()) == set(keys)
    assert few_keys(field, "harb OUR", 39) is None, "more have it, which is known without reading all"
    assert few_keys(field, "nowhere", 39) == []
    assert found(RowByRow("harb OUR")) == found("harb our") == {f"Harbour {number}" for number in range(40)}
    assert found(RowByRow("lighthouse")) == {"Lighthouse"}


def test_two_characters_find_all_in_a_small_table_and_beginnings_in_a_large_one(
    partner: PartnerTenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    named(partner, "Harbour", "Ash", "North Harbour")
    field = CustomerTenant._meta.get_field("search_text")
    assert isinstance(field, SearchTextField)

    def names(text: str) -> set[str]:
        return set(
            CustomerTenant.objects.filter(pk__in=few_keys(field, text, 40) or []).values_list("company_name", flat=True)
        )

    assert names("ha") == {"Harbour", "North Harbour"}
    monkeypatch.setattr(search_text, "_LARGE", 1)
    assert names("HA") == {"Harbour"}
    assert names("ha bour") == {"Harbour", "North Harbour"}, "one long word, and an index helps"
