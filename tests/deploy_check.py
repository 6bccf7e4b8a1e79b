"""For a test: the deploy checks under the settings as they are shipped, and that no migration is missing."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile

PRODUCTION = {
    "SECRET_KEY": secrets.token_urlsafe(48),
    "INTEGRITY_KEY": secrets.token_urlsafe(48),
    "PUBLIC_BASE_URL": "https://portal.example.com",
    "VAULT_URL": "https://vendor.vault.azure.net",
    "DATABASE_URL": "sqlite:///" + os.path.join(tempfile.gettempdir(), "never-opened.sqlite3"),
    "TEST_ENDPOINTS": "",
    "TEST_CA_FILE": "",
    "DEBUG": "",
    "STAFF_PASSWORD_ALONE": "",
    "DJANGO_SETTINGS_MODULE": "portal.settings",
}


def main() -> None:
    os.environ.update(PRODUCTION)
    from django.core.management import execute_from_command_line

    execute_from_command_line([sys.argv[0], "check", "--deploy", "--fail-level", "WARNING"])
    execute_from_command_line([sys.argv[0], "makemigrations", "--check", "--dry-run", "--verbosity", "0"])


if __name__ == "__main__":
    main()
