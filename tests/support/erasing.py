"""What the tests of erasing share: a partner that was disabled, beside each vault."""

from __future__ import annotations

from pathlib import Path

from pytest_django.fixtures import Settings

from consent import partners
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support import builders, vault_secrets
from tests.support.portal import Portal

SECOND = "second@northwind.example.com"
ERASER = "Erase"


def disabled_partner(vault: str, settings: Settings, sandbox: Sandbox, folder: Path) -> Portal:
    """Make a disabled partner with a token and another account's waiting token, beside ``local`` or ``azure``."""
    use_sandbox(settings, sandbox)
    if vault == "local":
        use_local_vault(settings, folder)
    else:
        use_azure_vault(settings, sandbox, folder)
        sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get", "set"}
        settings.VAULT_RECONCILE_IDENTITY = vault_secrets.add_identity(sandbox, "Reconcile", {"list"}, folder)
        settings.VAULT_ERASE_IDENTITY = vault_secrets.add_identity(sandbox, ERASER, {"delete", "purge"}, folder)
    portal = make_portal(sandbox)
    portal.connect()
    portal.onboard(user=SECOND)
    partners.disable(portal.partner, actor=builders.ACTOR)
    return portal
