"""The admin's pages are imported for those who show or check them; a command's help imports what it says, no more."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from django.contrib import admin

from portal.commands import Utility
from tests.support.source import ROOT

# At the time of writing 769, of which Django has 312. With the services and the libraries of clients they were 1,194.
MOST_MODULES = 800
PAGES = ("consent.admin", "tenants.admin", "portal.admin", "dj_queue.admin", "portal.urls", "consent.views")
_COMMAND = """
import json, sys
import manage
import django
django.setup()
from django.contrib import admin
from django.core.management import call_command, load_command_class
load_command_class("consent", "check_tokens").create_parser("manage.py", "check_tokens")
loaded = sorted(sys.modules)
import consent.management.working, consent.work
working, listed = sorted(sys.modules), len(admin.site._registry)
call_command("check", "--tag", "admin")
print(json.dumps({"loaded": loaded, "working": working, "listed": listed, "checked": len(admin.site._registry)}))
"""


def test_the_help_of_a_command_imports_no_page_no_service_and_no_client_and_checks_see_all_pages() -> None:
    """A start costs about half a millisecond of a processor for each module; so this holds how long a command takes."""
    environment = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}  # on SQLite
    command = [sys.executable, "-c", _COMMAND]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    seen = json.loads(done.stdout.splitlines()[-1])
    # Neither the help nor the work of a command or a worker needs these.
    never = ("azure", "psycopg", "segno", "openpyxl", "xlsxwriter", "fido2", "allauth.mfa.adapter")
    ours = ("consent.clients", "consent.runs", "consent.tokens", "consent.doctor", "portal.runs.executor")
    others = ("requests", "urllib3", "charset_normalizer", "msal", "jwt", "cryptography", "rich", "dj_queue.operations")
    assert _of(seen["loaded"], *never, *PAGES, *ours, *others) == []
    assert _of(seen["working"], *never, *PAGES, "rich", "consent.jobs", "portal.runs.jobs") == []
    assert len(seen["loaded"]) <= MOST_MODULES
    assert seen["listed"] == 0
    assert seen["checked"] == len(admin.site._registry) > 20


def test_a_command_that_is_typed_imports_no_page(tmp_path: Path) -> None:
    environment = os.environ | {"TEST_DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}"}
    typed = "import sys, manage; sys.argv = ['manage.py', 'check_tokens']; manage.main()"
    end = "import atexit, json, sys; atexit.register(lambda: print(json.dumps(sorted(sys.modules))))"
    command = [sys.executable, "-c", f"{end}; {typed}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    assert "run migrate" in done.stderr  # it came as far as its own work
    assert _of(json.loads(done.stdout.splitlines()[-1]), *PAGES) == []


def _of(loaded: list[str], *heavy: str) -> list[str]:
    return [name for name in loaded if f"{name}.".startswith(tuple(f"{one}." for one in heavy))]


def test_the_queue_adds_no_page_of_its_own() -> None:
    assert [model for model in admin.site._registry if model._meta.app_label == "dj_queue"] == []


def test_the_collection_of_garbage_begins_with_the_command() -> None:
    gc.disable()
    try:
        Utility(["manage.py", "check"]).fetch_command("check")
        assert gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
