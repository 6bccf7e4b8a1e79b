"""An administrator of the vendor's own tenant, who does at the sandbox's Graph what our pages and scripts say."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from consent.models import ApplicationRegistration
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import Wire
from tests.sandbox.tokens import access_token
from tests.sandbox.world import APPLICATION_ADMINISTRATOR, Application, Tenant, User, known_id
from tests.support import builders

AZURE_CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"


class Administrator:
    """Somebody with the role Application Administrator, signed in with Azure CLI."""

    def __init__(self, sandbox: Sandbox, cloud: str = "global") -> None:
        self.sandbox, self.cloud = sandbox, sandbox.clouds[cloud]
        self.wire = Wire(sandbox)
        self.oid = known_id("user", "vendor", cloud)
        self.tenant.users[self.oid] = User(
            oid=self.oid, upn=f"admin@{self.tenant.domain}", name="Ada Admin", roles={APPLICATION_ADMINISTRATOR}
        )
        self.deputy = known_id("user", "deputy", cloud)
        """Somebody else of the vendor, without a role."""
        self.tenant.users[self.deputy] = User(
            oid=self.deputy, upn=f"deputy@{self.tenant.domain}", name="Dan Deputy", roles=set()
        )

    @property
    def tenant(self) -> Tenant:
        return self.sandbox.world.tenants[scenarios.vendor_tenant(self.cloud.key)]

    def token(self) -> str:
        return access_token(
            self.sandbox.world,
            self.cloud,
            tenant=self.tenant,
            audience=self.cloud.graph,
            application=Application(app_id=AZURE_CLI, name="Azure CLI", home_tenant=self.tenant.tenant_id),
            credential="0",
            user=self.tenant.users[self.oid],
            home=self.tenant,
            scopes={"Application.ReadWrite.All"},
            amr=["pwd", "mfa"],
        )

    def graph(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        """Make one call, which must be accepted; return its JSON."""
        reply = self.wire.call(
            method, f"{self.cloud.graph}/v1.0{path}", data=body, headers=dict(headers or {}), token=self.token()
        )
        assert reply.status < 300, (method, path, reply.status, reply.text)
        return reply.json() if reply.body else None

    def perform(self, text: str) -> str:
        """Make the Graph calls that a page shows, in their order, and return the application id."""
        app_id = ""
        for part in text.strip().split("\n\n\n"):
            head, _, body = part.partition("\n\n")
            first, *lines = head.splitlines()
            method, _, address = first.partition(" ")
            path = address.removeprefix(f"{self.cloud.graph}/v1.0").replace("{appId}", app_id)
            headers = dict(line.split(": ", 1) for line in lines)
            answer = self.graph(method, path, json.loads(body.replace("{appId}", app_id)), headers)
            if path.startswith("/applications"):
                app_id = answer["appId"] if answer else path.partition("'")[2].partition("'")[0]
        return app_id

    def shell(self, script: str, folder: Path) -> str:
        """Run a script for Azure CLI with a stand-in for ``az`` that calls the sandbox; return what it printed."""
        fake = folder / "az"
        fake.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{Path(__file__).with_name("az.py")}" "$@"\n')
        fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
        place = {"port": self.sandbox.port, "ca_file": str(self.sandbox.ca_file), "token": self.token()}
        place |= {"graph": self.cloud.graph, "log": str(folder / "az.log")}
        environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "AZ_PLACE": json.dumps(place),
        }
        done = subprocess.run(
            ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def look(self, app_id: str) -> dict[str, Any]:
        """Return what the command of the page "At Microsoft" prints."""
        path, principal = f"/applications(appId='{app_id}')", f"/servicePrincipals(appId='{app_id}')"
        return {
            "application": self.graph("GET", path),
            "owners": self.graph("GET", f"{path}/owners"),
            "federatedIdentityCredentials": self.graph("GET", f"{path}/federatedIdentityCredentials"),
            "servicePrincipal": self.graph("GET", principal),
            "appRoleAssignments": self.graph("GET", f"{principal}/appRoleAssignments"),
        }

    def application(self, registration: ApplicationRegistration) -> Application:
        return self.sandbox.world.applications[registration.application_id]


def draft(sandbox: Sandbox, cloud: str = "global", **columns: Any) -> ApplicationRegistration:
    """Make a registration without credential, as it is after the page that adds it."""
    defaults = {
        "cloud": cloud,
        "application_id": scenarios.application_id(cloud),
        "home_tenant_id": scenarios.vendor_tenant(cloud),
        "state": "draft",
        "credential": None,
    }
    return builders.registration(**defaults | columns)
