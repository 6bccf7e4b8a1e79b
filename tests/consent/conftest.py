"""Portals that tests of several rooms begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support.administrator import Administrator
from tests.support.credentials import KEY_RIGHTS
from tests.support.portal import Portal


@pytest.fixture
def keyed(db: None, settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Portal:
    """A connected partner, and a Key Vault that lets the portal use its keys."""
    use_sandbox(settings, sandbox)
    use_azure_vault(settings, sandbox, tmp_path)
    portal = make_portal(sandbox)
    portal.connect()
    sandbox.world.vault_rights[scenarios.vault_application_id()] = set(KEY_RIGHTS)
    return portal


@pytest.fixture
def administrator(settings: Settings, sandbox: Sandbox, tmp_path: Path) -> Administrator:
    """An administrator of the vendor's tenant, and a portal without any registration."""
    use_sandbox(settings, sandbox)
    use_local_vault(settings, tmp_path)
    return Administrator(sandbox)
