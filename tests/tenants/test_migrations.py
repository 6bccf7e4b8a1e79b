"""What staff decided outlives the change from a stored state to one that is worked out."""

from __future__ import annotations

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

BEFORE, AFTER = [("tenants", "0001_initial")], [("tenants", "0002_partner_switch")]
STATES = ["invited", "connected", "attention", "disabled", "offboarded"]


@pytest.mark.release  # a migration that is frozen
@pytest.mark.django_db(transaction=True)
def test_decisions_are_kept_and_all_other_partners_are_on() -> None:
    executor = MigrationExecutor(connection)
    latest = executor.loader.graph.leaf_nodes()
    older = executor.migrate(BEFORE).apps.get_model("tenants", "PartnerTenant")
    for number, state in enumerate(STATES):
        older.objects.create(name=state, tenant_id=f"00000000-0000-4000-8000-{number:012}", state=state)
    newer = MigrationExecutor(connection).migrate(AFTER).apps.get_model("tenants", "PartnerTenant")
    assert dict(newer.objects.values_list("name", "switch")) == {
        "invited": "on",
        "connected": "on",
        "attention": "on",
        "disabled": "disabled",
        "offboarded": "offboarded",
    }
    back = MigrationExecutor(connection).migrate(BEFORE).apps.get_model("tenants", "PartnerTenant")
    assert set(back.objects.values_list("state", flat=True)) == {"invited", "disabled", "offboarded"}
    back.objects.all().delete()
    MigrationExecutor(connection).migrate(latest)
