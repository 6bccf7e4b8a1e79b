"""What the scripts make at Microsoft is what the comparison calls clean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from consent.applications import manifest, posture
from consent.applications.addresses import redirect_uris
from consent.applications.seen import not_looked_at, read_text
from consent.models import ApplicationRegistration, RegistrationEvidence
from portal.microsoft.clouds import MICROSOFT, PARTNER_CENTER_APPLICATION_ID
from tests.conftest import use_sandbox
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault
from tests.support import builders
from tests.support.administrator import Administrator, draft

pytestmark = pytest.mark.django_db
ODD = "Acme's \"Panel\" $(id) `id` \\ 'MANIFEST_ENDS'"


@pytest.fixture(params=["global", "usgov", "china"])
def administrator(request: pytest.FixtureRequest, settings: Settings, sandbox: Sandbox) -> Administrator:
    use_sandbox(settings, sandbox)
    return Administrator(sandbox, request.param)


def unsaved(administrator: Administrator, **columns: Any) -> ApplicationRegistration:
    """Return what the page that prepares a registration describes: nothing has an id yet."""
    values = {
        "name": "Example Control Panel",
        "cloud": administrator.cloud.key,
        "application_id": "",
        "home_tenant_id": administrator.tenant.tenant_id,
        "permission_set": "extended",
    }
    return ApplicationRegistration(**values | columns)


def left(administrator: Administrator) -> list[str]:
    """What the calls leave to a person: the publisher, where Microsoft verifies any, and a second owner."""
    return [*(["publisher"] if administrator.cloud.key == "global" else []), "owner_single"]


def compare(administrator: Administrator, described: ApplicationRegistration, app_id: str) -> list[str]:
    """Add the registration here, and compare it as the command of its page shows it."""
    registration = draft(
        administrator.sandbox,
        administrator.cloud.key,
        application_id=app_id,
        name=described.name,
        permission_set=described.permission_set,
    )
    RegistrationEvidence.objects.create(
        registration=registration, known_owners=[administrator.oid, administrator.deputy]
    )
    seen = read_text(json.dumps(administrator.look(app_id)))
    assert not_looked_at(seen) == []
    found = posture.keep(registration, seen, source=RegistrationEvidence.Source.PASTED, actor=builders.ACTOR)
    return [one.key for one in found]


@pytest.mark.parametrize("permission_set", ["strict", "extended"])
def test_the_graph_calls_make_a_clean_registration(administrator: Administrator, permission_set: str) -> None:
    administrator.tenant.principals.clear()  # an empty tenant
    described = unsaved(administrator, permission_set=permission_set)
    uris = redirect_uris(administrator.cloud.key)

    app_id = administrator.perform(manifest.rest_script(described, uris, administrator.cloud))

    assert compare(administrator, described, app_id) == left(administrator)
    assert administrator.tenant.principal_of(app_id) is not None
    assert administrator.tenant.principal_of(PARTNER_CENTER_APPLICATION_ID) is not None


def test_the_calls_repair_what_was_bent(administrator: Administrator) -> None:
    registration = draft(administrator.sandbox, administrator.cloud.key, name="Repaired", permission_set="extended")
    application = administrator.application(registration)
    application.owners = [administrator.oid]
    uris = redirect_uris(registration.cloud)
    bent = manifest.application(registration, uris) | {
        "signInAudience": "AzureADandPersonalMicrosoftAccount",
        "isFallbackPublicClient": True,
        "spa": {"redirectUris": ["https://elsewhere.example/"]},
        "servicePrincipalLockConfiguration": {"isEnabled": False},
        "requiredResourceAccess": [],
        "web": {"redirectUris": [], "implicitGrantSettings": {"enableIdTokenIssuance": True}},
    }
    administrator.graph("PATCH", f"/applications(appId='{application.app_id}')", bent)

    again = [administrator.perform(manifest.rest_script(registration, uris, administrator.cloud)) for _ in range(2)]

    assert again == [application.app_id] * 2
    seen = read_text(json.dumps(administrator.look(application.app_id)))
    RegistrationEvidence.objects.create(registration=registration, known_owners=[administrator.oid])
    found = posture.keep(registration, seen, source=RegistrationEvidence.Source.PASTED, actor=builders.ACTOR)
    assert [one.key for one in found] == left(administrator)
    administrator.perform(
        manifest.owner_call(registration, administrator.cloud).replace("{object id}", administrator.deputy)
    )
    assert application.owners == [administrator.oid, administrator.deputy]


def test_the_azure_cli_script_runs_in_a_shell_and_takes_no_name_for_a_command(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    administrator = Administrator(sandbox)
    described, uris = unsaved(administrator, name=ODD), redirect_uris("global")
    del administrator.tenant.principals[
        next(key for key, one in administrator.tenant.principals.items() if one.app_id == PARTNER_CENTER_APPLICATION_ID)
    ]

    script = manifest.az_script(described, uris, administrator.cloud)
    printed = administrator.shell(script.replace("OWNERS=''", f"OWNERS='{administrator.deputy}'"), tmp_path)

    app_id = printed.rpartition("Application id: ")[2].strip()
    assert sandbox.world.applications[app_id].owners == [administrator.oid, administrator.deputy]
    assert compare(administrator, described, app_id) == ["publisher"]
    assert sandbox.world.applications[app_id].name == ODD
    assert administrator.tenant.principal_of(PARTNER_CENTER_APPLICATION_ID) is not None
    registration = ApplicationRegistration.objects.get(application_id=app_id)
    sandbox.world.applications[app_id].redirect_uris = {"https://elsewhere.example/"}
    again = manifest.az_script(registration, uris, administrator.cloud)
    owners = f"OWNERS='{administrator.deputy} {administrator.oid}'"
    repaired = administrator.shell(again.replace("OWNERS=''", owners), tmp_path)
    assert sandbox.world.applications[app_id].owners == [administrator.oid, administrator.deputy]
    assert app_id in repaired
    assert sandbox.world.applications[app_id].redirect_uris == set(uris)
    log = (tmp_path / "az.log").read_text()
    assert f"login --tenant {administrator.tenant.tenant_id}" in log
    assert "cloud set --name AzureCloud" in log


def test_a_script_that_stops_says_the_id_first_and_tries_the_service_principal_again(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    administrator = Administrator(sandbox)
    script = manifest.az_script(unsaved(administrator), redirect_uris("global"), administrator.cloud)
    (tmp_path / "sleep").write_text("#!/bin/sh\nexit 0\n")  # a test does not wait
    (tmp_path / "sleep").chmod(0o755)
    slow = Fault(service="graph", path="^/v1.0/servicePrincipals$", status=400, body="{}", times=2)
    sandbox.world.faults.append(slow)

    printed = administrator.shell(script, tmp_path)

    app_id = printed.partition("Created: ")[2][:36]
    assert administrator.tenant.principal_of(app_id) is not None
    assert printed.rstrip().endswith(f"Application id: {app_id}")
    sandbox.world.faults.append(replace(slow, times=99))
    with pytest.raises(AssertionError, match=r"Created: [0-9a-f-]{36}\. If this script stops"):
        administrator.shell(script, tmp_path)


def test_the_command_that_reads_prints_one_text_that_can_be_pasted(
    settings: Settings, sandbox: Sandbox, tmp_path: Path
) -> None:
    use_sandbox(settings, sandbox)
    administrator, registration = Administrator(sandbox), draft(sandbox)
    printed = administrator.shell(manifest.read_command(registration, administrator.cloud), tmp_path)
    seen = read_text(printed)
    assert seen["appId"] == registration.application_id
    assert not_looked_at(seen) == []


@pytest.mark.parametrize("cloud", MICROSOFT)
def test_scripts_name_the_tools_of_the_cloud(cloud: str) -> None:
    described = ApplicationRegistration(name=ODD, cloud=cloud, home_tenant_id=builders.guid(), permission_set="strict")
    uris = redirect_uris(cloud)
    names = {"global": ("AzureCloud", "Global"), "usgov": ("AzureUSGovernment", "USGov")}
    az, powershell = names.get(cloud, ("AzureChinaCloud", "China"))

    shell = manifest.az_script(described, uris, MICROSOFT[cloud])
    power = manifest.powershell_script(described, uris, MICROSOFT[cloud])

    assert f"az cloud set --name {az}\n" in shell
    assert f"GRAPH='{MICROSOFT[cloud].graph}/v1.0'" in shell
    assert f"-Environment {powershell} " in power
    assert power.count("'@") == 1  # nothing in the manifest ends the literal text
    inside = power.partition("@'\n")[2].partition("\n'@")[0]
    assert json.loads(inside) == manifest.application(described, uris)
    assert {one["type"] for each in json.loads(inside)["requiredResourceAccess"] for one in each["resourceAccess"]} == {
        "Scope"
    }
