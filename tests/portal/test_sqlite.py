"""SQLite with the settings as they are shipped: what is read and written back in one transaction is not lost (R-34)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from django.db import connection

from tenants.models import PartnerTenant
from tests.support import builders
from tests.support.children import database
from tests.support.source import ROOT

PROCESSES, TIMES = 8, 60
# One interpreter starts, then forks; each process opens a connection of its own.
PROGRAM = f"""
import os
import django
django.setup()
from django.db import transaction
from tenants.models import PartnerTenant

def add_one():
    with transaction.atomic():
        row = PartnerTenant.objects.get()
        row.notes = str(int(row.notes) + 1)
        row.save(update_fields=["notes"])

children = []
for _ in range({PROCESSES}):
    child = os.fork()
    if not child:
        try:
            for _ in range({TIMES}):
                add_one()
        except BaseException as error:
            print(type(error).__name__, error, flush=True)
            os._exit(1)
        os._exit(0)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


@pytest.mark.req("R-34")
@pytest.mark.skipif("connection.vendor != 'sqlite'", reason="about SQLite")
@pytest.mark.django_db(transaction=True)
def test_of_480_read_modify_writes_of_eight_processes_none_fails_and_none_is_lost() -> None:
    builders.partner(notes="0")
    connection.close()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_DATABASE_URL": database()},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert ended.stdout == f"{[0] * PROCESSES}\n"
    assert PartnerTenant.objects.get().notes == str(PROCESSES * TIMES)
