"""Migrations: what is released is never edited, and a filled database of a release comes to today's schema (R-40)."""

from __future__ import annotations

import hashlib
from datetime import date, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps as installed
from django.contrib.auth import get_user_model
from django.db import connection, models
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from consent.models import ConsentObservation, PartnerConsent
from portal.fields import DomainField
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID
from portal.site.models import ChosenColumns, SavedFilter
from tests.support.databases import OwnDatabase
from tests.support.source import ROOT

# Files that databases in use were made with, with their SHA-256. A change of the schema is a new migration, never an
# edit of one of these. The new one gets its line here; the failing test prints it.
FROZEN = {
    "consent/migrations": {
        "0001_initial": "0e788dc8e5788780979baabfdb1d8ca8d4b72a8df6935b680cbdea184bb896e0",
        "0002_granted_scopes_of_all_resources": "60de901e8e91c5e8b2237eee86ffe936765cc78e780163cb0707727d590bd35b",
        "0003_mails_that_were_printed": "12920e4f0636c207aab4ed67561108d2c1767f4c2f5851cb356afe0da0df1fb0",
        "0004_mfa_verdict": "249520f482816b2209fb8b86e52dce2923e6b643e2cf2f0ce0d28d38b0f50ee3",
        "0005_vault_pairing": "c4584df10268d052acab5ae344a3019a3ef48d2519605be7d48db3c6dd2ce012",
        "0006_failed_attempts_of_customers": "0c72a8bda9d75f6592def5fc84a1307eb3ce1b15a6f7d72ed5884e1f1e36e46a",
        "0007_reads_of_customer_tenants": "e864021666124d5474bcfc4721a04ff34c18a02adf8d3a18f434184d982a6b6c",
        "0008_plain_words": "f0212af8cbb83fd723859e5bfe65c4362c788f11b78343e02b0fea166baa8215",
        "0009_no_contact_gets_invitations": "78bb25938417bce169a66556a2caceb574e34cb8357bb9ca312f939ff4dc5946",
        "0010_daily_figures": "ddeff019013a7c8292446fe1255550e63f7c8032a9e0cc62afe61d691b8ac91f",
        "0011_direct_plans": "568a8b1b58d75711519ac55b84866aa0638d170abff0ddff2d3826dc87308d76",
        "0012_ask_for_tokens": "0f65ec1e007bfc1b1a759366dcfb0ab224540553ceff29884eb8ebe34081988d",
        "0013_words_without_command": "f046ea2c19d16d15fcf7ed532a372133575e5d69d69dc4488302914192ab0542",
        "0014_consents_that_are_not_well": "105c301c9dded004bd2aefd8d8d918458bfa29c26048907aec8691fdfe5dde06",
        "0015_own_permission_sets": "63a03458162fe30e8263c713a7725e5ebe424965946a245a5395f0470ad0d61d",
        "0016_registration_evidence": "4092054c47565e4322ca1f80ddcf66b271eff9c42720055469276f2cb1831466",
        "0017_credentials_of_the_vault": "fbfae7e10a8042099e1e6c77d1058dfb08f175366593ac684b9d93affa8890a7",
        "0018_moving_in": "8fbcb0b4108bf7dd5de46d266518d90c29d2a30583f42a4d7f589bf37b1ced77",
        "0019_lists_of_consents": "95fe328b0d3fd64029a78250dc4fd2e09b27011347aaf25c72bf739ad7adbe33",
        "0020_emergency_stop": "84ddb1aa5652bfbb0e2a122b48f2dfc95a25b3f8d40085ffb2b0d0f004e09536",
        "0021_token_uses": "037cbfbd1eb7ea73df9b693a82084c125d613ce8eb9d46d16eab61707e6e64a5",
        "0022_emergency_stop_words": "d0edad5a1aad3053df01198b4f7b0454f859892a724c8ae57b65f276743f8808",
        "0023_erasures": "e599ce6d90237ba33d160c7ba5d6f5e75f9b81d21cfce4e739f52e714a90cafd",
        "0024_links_that_wait": "6042b20285d7abe630726a9b53e69837a39cd8312468d4c8b83d40fe2c1d7c24",
        "0025_one_mechanism_for_two_persons": "9c176adb8d0bdfd6ef3472c447e1bb2c3f836cce766505cb51dee24537720208",
        "0026_customers_that_were_never_read": "997b408ecbcaa5a055dd537a6b97fba3ce95248279d38c79ad5ed5e500cdebf8",
        "0027_lists_of_reads": "73f50d115c5990022e27a9006c957d777bad3dad24710d041180b62dcdb51c65",
        "0028_consents_of_a_registration": "7ea495fdbbc0f0e2001d0fedc0d6dc15883cd3a1bac550ffd8b820d59f9a6f42",
        "0029_registration_of_a_read": "7dc2fe39ed34d729f1ffcacee4370de971b31a33ec0137a4c6f6eb205cc036c2",
        "0030_reads_by_registration": "88e6a7b397b6a9fb230dc0cdce8b8caa0732beed56b88c235d0a3702d7ae89cc",
        "0031_who_without_rows": "1baf977e0cea1bc61efe0932170142be3fbad37f726a9fdc83773d5cd1ac7c48",
    },
    "portal/audit/migrations": {
        "0001_initial": "7a4e7267c7260348a4897b90093d66558c5f0dd4b02909531e1f6773ac95ba06",
        "0002_lists_of_events": "de0b927dbe837727fade3cbcbdf9f5a3f8bffb0f665e34615ecec342e00d25c0",
        "0003_entries_of_customers": "ae577379ac022c184c2830ff8c31114ffc1e415d113b740cc442e3c561742985",
    },
    "portal/decisions/migrations": {
        "0001_initial": "2889d90601c5a0a5677748839fca65346a2cb8eb9ba019f61b08e0f043320776",
    },
    "portal/incidents/migrations": {
        "0001_initial": "bffb51e77e7aba38471fcccd89d4a4e7b6849b275dc843adb7928c56a96e731a",
        "0002_incident_name": "1c3796474bdf7eb29b05111f4042b80023a22878145509cb7dc1f3020dfd5c21",
        "0003_decisions_and_recovery": "829f06ce1b44f1923c3b6ab4b63d9fb8836c2a347bc65185fdb8495f5cf838e3",
        "0004_own_permissions": "bede5b021edcc9878cd24b45a6f672db17e11a4e5891eece860d3e609e79f542",
    },
    "portal/migrations": {
        "0001_initial": "8756bca29d899051902b5049c40402c1584cd53537a4c7440246f158d9b8014e",
        "0002_spent_forms": "0432a3107232847b9f66a21df82388bde103bf1754be15b3d4b81ecdb81f9484",
        "0003_teams": "d74c81ba5e538a5782da0fb90b4e2973c1f9cd29ce35f441d12a481651cc7df4",
    },
    "portal/runs/migrations": {
        "0001_initial": "457d8ffc09d3be00141947939691e92d312d91cbfb4112efe3529d432cefb2d6",
        "0002_resume_and_repeat": "f035ab0aa6506b57878d4776f4cbceb6254154b8d1e13c28c123533b415855c4",
        "0003_plain_words": "100f57ffd48be53f73d03492b7ff805118318ebbe0ad5d92c69fc5a2d276fefc",
        "0004_repeats_and_outcomes": "df4a670d1c7d499992330bbf0c99458342572bffa4df45d222cbedfe8f553d60",
        "0005_emergency_stop": "1b7ae63e123aa64de752dce586d8d5a9512318dedc6d8385cfca9d68ff6ef907",
        "0006_quiet_limits": "73ef88b3855e91abec622f9a318c64ee46f8778f63911699d8226932da9c8eb4",
        "0007_forgotten_units": "ad5b25ef416635dcda1d311a34c654c3b869d3e17ac15d50467dfbb8b34d39d0",
    },
    "portal/site/migrations": {
        "0001_initial": "8a3306731c9faa0f780b2a12738b7e5f914d4179dd7fbb0e4868443fd847d0d6",
        "0002_export_permission": "67f9f6bc4ed44f033aab873bcc0f861b3f8ab83e2f6c57355d41ba5678b3a905",
    },
    "portal/staff/migrations": {
        "0001_accounts_of_staff": "9b2f4875a52c0873ab2fec36abea1985248ab5d26aca8eedb478b2b27d5c91c5",
        "0002_factors_bound_to_accounts": "43cb9ff0288cc07093a0f25fcb08b2290ffd0113eed5a4d2702990116d87cf1e",
    },
    "tenants/migrations": {
        "0001_initial": "737220ece9953893088f40a235256df30d8efe5abbc8ef59c5cbce487f04ffb2",
        "0002_partner_switch": "c460cc7766f3a69f719e960b6372367ca5d6f67753fc1bff98a25714bfb20fbd",
        "0003_sync_permission": "fa7a971b24d57c2a020d47d92747bcec1cf435c2a0588a3205c566f7df104775",
        "0004_search_text": "f6f04be62349a7425fe8c9c1139b466a67c1d66053e9355284278c5c3ea4c305",
        "0005_fill_search_text": "f1d245242da2ab96cc1e60449b6830d81558e38cb263e10e32c5162933ceb046",
        "0006_partner_contacts": "0ac3e06f17b8eb7d2a8e81f5736ba161d10b36a957360e50507a5d80246fe665",
        "0007_list_indexes": "b604016f061a9163fd8ceb088488095b65a2067f8f6d43e428901bed6baa1944",
        "0008_counts_of_customers": "121381e61deba5f852a9b2c1cce4f1356320551a56d91547b0c7da02d0aa79f9",
        "0009_contacts_get_invitations": "59b1222c4e7484a43df5878799db3b113cbdcd287521c4327a5e668cb9713aa5",
        "0010_customers_that_are_not_ready": "f7c1d7f48b62853d01fdf570efa326c744f796984b81acbb9f1ae72f34219355",
        "0011_disable_permission": "a369eb230222cde4662b7d8adc977eab9a0e183457faca51e2c14c44a7adbb98",
        "0012_listed_customers_by_name": "5eecf7f324ec187df2a2b4fff12e6002bba40386e583f124c628179d571b058e",
        "0013_what_did_not_change_is_not_written": "ab2d92777beb234395b77dc3337aa7c8ece45f72090f11d5ce5ce7e4112534c3",
    },
}
# The last migration of each of our apps in each release.
RELEASES = {
    "0.1.0": [
        ("portal", "0001_initial"),
        ("audit", "0001_initial"),
        ("incidents", "0001_initial"),
        ("runs", "0001_initial"),
        ("tenants", "0001_initial"),
        ("consent", "0001_initial"),
    ],
}
OURS = {"portal", "portal_site", "audit", "incidents", "runs", "staff", "tenants", "consent"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.req("R-40")
@pytest.mark.parametrize("folder", FROZEN)
def test_a_migration_is_never_edited(folder: str) -> None:
    found = {path.stem: sha256(path) for path in sorted((ROOT / folder).glob("0*.py"))}
    frozen = FROZEN[folder]
    assert {name: found.get(name) for name in frozen} == frozen, "edited or removed"
    new = [f'"{name}": "{value}",' for name, value in found.items() if name not in frozen]
    assert not new, "add to FROZEN"


def test_each_app_with_migrations_is_frozen() -> None:
    folders = {
        str(path.parent.relative_to(ROOT))
        for app in ("portal", "tenants", "consent")
        for path in (ROOT / app).rglob("migrations/0001_*.py")
    }
    assert folders == set(FROZEN)


# What the constraints of these tables want besides one value for each field.
_LATER = timezone.now() + timedelta(days=1)
_SPECIAL: dict[str, dict[str, Any]] = {
    "consent.applicationcredential": {
        "key_id": "key",
        "public_certificate": "pem",
        "secret_name": "a",
        "secret_version": "b",
    },
    "consent.consentlink": {"token_hash": "0" * 64, "expires_at": _LATER},
    "consent.consentplan": {"purpose": "undo"},
    "consent.offboarding": {"report": "text", "seal": "seal", "finished_at": _LATER, "state": "done"},
    "consent.partnerconsent": {"state": "never", "granted_scopes": ["openid", "user_impersonation"]},
    "consent.waitingtoken": {"expires_at": _LATER},
}


class Filler:
    """Makes one valid row of each model, and of what it points to, from the fields alone."""

    def __init__(self, apps: Any) -> None:
        self._apps = apps
        self._made: dict[str, Any] = {}

    def fill(self) -> dict[str, int]:
        """Make a row in each of our tables and return the counts by table."""
        for model in self._apps.get_models():
            if model._meta.app_label in OURS and model._meta.managed:
                self.row(model)
        return {
            model._meta.db_table: model._default_manager.count()
            for model in self._apps.get_models(include_auto_created=True)
            if model._meta.app_label in OURS and model._meta.managed
        }

    def row(self, model: Any) -> Any:
        label = model._meta.label
        if label not in self._made:
            self._made[label] = None  # a second visit on the way here is a circle of nullable keys
            values = {
                field.name: value
                for field in model._meta.concrete_fields
                if not field.primary_key or field.remote_field
                for value in [_SPECIAL.get(model._meta.label_lower, {}).get(field.name) or self._value(field)]
                if value is not None
            }
            row = model(**values)
            row.save(force_insert=True)
            self._made[label] = row
            for field in model._meta.many_to_many:
                getattr(row, field.name).add(self.row(field.related_model))
        return self._made[label]

    def _value(self, field: Any) -> Any:
        if field.has_default():
            return field.get_default()
        if field.null:
            return None
        if field.remote_field:
            return self.row(field.related_model)
        if isinstance(field, models.CharField) and field.blank:
            return ""
        if field.choices:
            return field.choices[0][0]
        value = next(value for kind, value in _VALUES if isinstance(field, kind))
        return value[: field.max_length] if isinstance(value, str) else value


_VALUES: list[tuple[Any, Any]] = [
    (DomainField, "partner.example"),
    (models.UUIDField, UUID(int=7)),
    (models.DateTimeField, timezone.now()),
    (models.DateField, date(2026, 1, 2)),
    (models.DurationField, timedelta(hours=1)),
    (models.BooleanField, False),
    (models.FloatField, 1.0),
    (models.IntegerField, 1),
    (models.JSONField, {}),
    (models.EmailField, "anna@partner.example"),
    (models.GenericIPAddressField, "192.0.2.7"),
    (models.CharField, "7f1c2f0e-5f5e-4b6e-9a55-0c2b3f4d5e6f"),
    (models.TextField, "text"),
]


def drop_all_tables() -> None:
    """Bring the test database to the state of a new one."""
    with connection.constraint_checks_disabled(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("DROP SCHEMA public CASCADE")
            cursor.execute("CREATE SCHEMA public")
        else:
            for table in connection.introspection.table_names(cursor):
                # Those of a search index are gone with it.
                cursor.execute(f"DROP TABLE IF EXISTS {connection.ops.quote_name(table)}")


@pytest.mark.req("R-40")
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("release", RELEASES)
def test_a_filled_database_of_a_release_comes_to_todays_schema(release: str, own_database: OwnDatabase) -> None:
    drop_all_tables()  # some migrations have no way back
    try:
        executor = MigrationExecutor(connection)
        today = executor.loader.graph.leaf_nodes()
        executor.migrate(RELEASES[release])
        executor = MigrationExecutor(connection)
        filled = Filler(executor.loader.project_state(RELEASES[release]).apps).fill()
        assert filled
        assert 0 not in filled.values()
        executor = MigrationExecutor(connection)
        executor.migrate(today)
        kept = {
            model._meta.db_table: model._default_manager.count()
            for model in installed.get_models(include_auto_created=True)
            if model._meta.db_table in filled
        }
        assert kept == {table: filled[table] for table in kept}
        assert len(kept) > 20
        scopes = PartnerConsent.objects.get().granted_scopes
        assert scopes == {PARTNER_CENTER_APPLICATION_ID: ["user_impersonation"]}
        read = ConsentObservation.objects.get()
        assert read.registration == read.consent.registration
    finally:
        own_database.copy()


@pytest.mark.django_db
def test_what_people_kept_for_the_list_of_reads_names_the_registration_where_it_stands_now() -> None:
    owner = get_user_model().objects.create(username="anna")
    names = {"consent.consentobservation": "reads", "consent.customerconsent": "consents"}
    for list_name, name in names.items():
        query = "state__exact=absent&consent__registration__id__exact=3"
        SavedFilter.objects.create(owner=owner, list_name=list_name, name=name, query=query)
        ChosenColumns.objects.create(person=owner, list_name=list_name, columns=["read", "registration"])

    import_module("consent.migrations.0029_registration_of_a_read").rename(installed, connection.schema_editor())

    found = dict(SavedFilter.objects.values_list("name", "query"))
    assert found["reads"] == "state__exact=absent&registration__id__exact=3"
    assert found["consents"] == "state__exact=absent&consent__registration__id__exact=3"
    columns = dict(ChosenColumns.objects.values_list("list_name", "columns"))
    assert columns["consent.consentobservation"] == ["read", "shown_registration"]
    assert columns["consent.customerconsent"] == ["read", "registration"]
