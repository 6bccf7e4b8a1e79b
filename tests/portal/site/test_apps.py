"""The admin's pages are imported for those who show or check them, and for no command."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from django.contrib import admin

from tests.support.source import ROOT

_COMMAND = """
import json, sys
import django
django.setup()
from django.contrib import admin
from django.core.management import call_command, load_command_class
load_command_class("consent", "check_tokens").create_parser("manage.py", "check_tokens")
loaded, listed = sorted(sys.modules), len(admin.site._registry)
call_command("check", "--tag", "admin")
print(json.dumps({"loaded": loaded, "listed": listed, "checked": len(admin.site._registry)}))
"""


def test_a_command_imports_no_page_and_no_client_that_it_does_not_use_and_checks_see_all_pages() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}  # on SQLite
    command = [sys.executable, "-c", _COMMAND]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    unused = ("azure", "psycopg", "segno", "consent.admin", "tenants.admin", "portal.admin", "dj_queue.admin")
    assert [name for name in seen["loaded"] if name.startswith(unused)] == []
    assert seen["listed"] == 0
    assert seen["checked"] == len(admin.site._registry) > 20


def test_the_queue_adds_no_page_of_its_own() -> None:
    assert [model for model in admin.site._registry if model._meta.app_label == "dj_queue"] == []
