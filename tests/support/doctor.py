"""A portal in which every step of the doctor finds nothing wrong, and ways to break one thing of it."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from dj_queue.models import Process
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import ApplicationCredential
from portal.microsoft.secret import Secret
from portal.runs import schedule
from portal.runs.models import ScheduledJob
from tests.conftest import make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox import certificates, scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import Fault, Refusal, known_id
from tests.support import builders
from tests.support.audit_table import TABLE, sql
from tests.support.certificates import pem, private
from tests.support.commands import Ran, run
from tests.support.database_down import no_database
from tests.support.portal import SERVICE_ACCOUNT, Portal

OTHER_ADDRESS = "203.0.113.7"
PUBLIC_ADDRESS = "20.50.2.1"
_Usage = namedtuple("_Usage", "total used free")  # as shutil's own


@dataclass(slots=True, kw_only=True)
class Ward:
    """The portal, and what a test needs to break it."""

    portal: Portal
    settings: Settings
    monkeypatch: pytest.MonkeyPatch
    folder: Path
    broken: ExitStack = field(default_factory=ExitStack)
    """What is undone before the test looks at rows again."""

    @property
    def sandbox(self) -> Sandbox:
        return self.portal.sandbox

    def examine(self, *arguments: str) -> Ran:
        """Run the doctor in a process that knows nothing yet."""
        clients.reset()
        with self.broken:
            return run("doctor", *arguments)

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.examine("--json").out)
        return found

    def fault(self, service: str, path: str, **choices: Any) -> None:
        self.sandbox.world.faults.append(Fault(service=service, path=path, **{"times": 20, **choices}))

    def during(self, manager: AbstractContextManager[Any]) -> None:
        """Enter it now; it is left when the doctor has answered."""
        self.broken.enter_context(manager)


def make_ward(
    settings: Settings,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    mail_port: int,
    *,
    key_vault: bool,
) -> Ward:
    """Make a portal with one connected partner, a mail server, a worker and a schedule that was kept."""
    use_sandbox(settings, sandbox)
    if key_vault:
        use_azure_vault(settings, sandbox, folder)
        settings.OUTGOING_ADDRESSES = ["127.0.0.0/8"]
    else:
        use_local_vault(settings, folder)
    portal = make_portal(sandbox)
    portal.connect()
    options = {"host": "127.0.0.1", "port": mail_port, "timeout": 5}
    settings.MAILERS = {"default": {"BACKEND": "django.core.mail.backends.smtp.EmailBackend", "OPTIONS": options}}
    settings.ALERT_EMAIL = ["staff@vendor.example"]
    Process.objects.create(
        backend_alias="default",
        kind="worker",
        pid=os.getpid(),
        hostname="test",
        name="worker-1",
        metadata={},
        last_heartbeat_at=timezone.now(),
    )
    schedule.tick()
    return Ward(portal=portal, settings=settings, monkeypatch=monkeypatch, folder=folder)


# --- what can be wrong --------------------------------------------------------------------------------------------


def no_ca_file(ward: Ward) -> None:
    ward.settings.OUTGOING_CA_FILE = str(ward.folder / "gone.pem")


def database_away(ward: Ward) -> None:
    ward.during(no_database())


def migration_missing(ward: Ward) -> None:
    MigrationRecorder.Migration.objects.filter(app="consent").order_by("-name")[0].delete()


def trigger_dropped(ward: Ward) -> None:
    table = f" ON {TABLE}" if connection.vendor == "postgresql" else ""
    sql(f"DROP TRIGGER {'audit_no_change' if table else 'audit_no_delete'}{table}")


def wrong_clock(ward: Ward) -> None:
    theirs = format_datetime(timezone.now() - timedelta(minutes=9), usegmt=True)
    ward.fault("login", "openid-configuration", times=1, status=200, headers={"Date": theirs})


def full_disk(ward: Ward) -> None:
    real = shutil.disk_usage

    def usage(place: str | Path) -> Any:
        full = str(place).startswith(str(ward.folder))
        return _Usage(real(place).total, 0, 1000) if full else real(place)

    ward.monkeypatch.setattr(shutil, "disk_usage", usage)


def other_vault_key(ward: Ward) -> None:
    (ward.folder / "vault-key").unlink()


def other_vault(ward: Ward) -> None:
    other = ward.folder / "other"
    shutil.copytree(ward.folder / "vault", other)
    shutil.rmtree(other / "portal-vault-id")
    ward.settings.VAULT_URL = str(other)


def vault_identity_refused(ward: Ward) -> None:
    ward.sandbox.world.applications[scenarios.vault_application_id()].secrets.clear()


def vault_without_set(ward: Ward) -> None:
    ward.sandbox.world.vault_rights[scenarios.vault_application_id()] = {"get"}


def graph_out_of_reach(ward: Ward) -> None:
    ward.fault("graph", "^/$", close="before")


def unknown_issuer(ward: Ward) -> None:
    ca_file, *_ = certificates.make(ward.folder / "other-ca")
    ward.settings.OUTGOING_CA_FILE = str(ca_file)


def other_address(ward: Ward) -> None:
    ward.sandbox.world.switches["vault_sees_address"] = PUBLIC_ADDRESS
    ward.settings.OUTGOING_ADDRESSES = [OTHER_ADDRESS]


def staff_sign_in(settings: Settings, issuer: str) -> None:
    """Let staff sign in by this service, with roles that exist."""
    settings.STAFF_OIDC_ISSUER = issuer
    settings.STAFF_OIDC_CLIENT_ID = known_id("application", "staff sign-in")
    settings.STAFF_OIDC_CREDENTIAL = Secret("a secret of the sandbox")
    settings.STAFF_OIDC_DEMAND_MFA = "acrs=c1"
    settings.STAFF_OIDC_ROLES = {"Portal.Operator": "Operator"}


def entra_of(sandbox: Sandbox, tenant: str) -> str:
    """Return the issuer of a tenant of the sandbox."""
    return f"{sandbox.clouds['global'].authority}/{tenant}/v2.0"


def staff_service_away(ward: Ward) -> None:
    staff_sign_in(ward.settings, "https://id.vendor.localhost:1/realms/staff")


def staff_tenant_unknown(ward: Ward) -> None:
    staff_sign_in(ward.settings, entra_of(ward.sandbox, builders.guid()))


def staff_role_unknown(ward: Ward) -> None:
    staff_sign_in(ward.settings, entra_of(ward.sandbox, scenarios.vendor_tenant()))
    ward.settings.STAFF_OIDC_ROLES = {"Portal.Operator": "Operatr"}


def foreign_discovery(ward: Ward) -> None:
    body = json.dumps({"issuer": "https://login.example.com/{tenantid}/v2.0"})
    ward.fault("login", "openid-configuration", skip=1, status=200, body=body)


def no_signing_keys(ward: Ward) -> None:
    ward.fault("login", "discovery/v2.0/keys", status=200, body='{"keys": []}')


def credential_refused(ward: Ward) -> None:
    ward.sandbox.world.applications[scenarios.application_id()].secrets.clear()


def credential_ended(ward: Ward) -> None:
    ended = timezone.now() - timedelta(days=1)
    ApplicationCredential.objects.update(starts_at=ended - timedelta(days=9), expires_at=ended)


def application_disabled(ward: Ward) -> None:
    ward.sandbox.world.applications[scenarios.application_id()].enabled = False


def canary_revoked(ward: Ward) -> None:
    ward.sandbox.world.refusals.append(Refusal(code=50173, times=20, upn=SERVICE_ACCOUNT))


def partner_center_refuses(ward: Ward) -> None:
    ward.fault("partnercenter", "/v1/profiles/organization", status=403, body='{"code": "900401"}')


def graph_refuses(ward: Ward) -> None:
    body = '{"error": {"code": "Authorization_RequestDenied", "message": "no"}}'
    ward.fault("graph", "^/v1.0/me", status=403, body=body)


def reader_refused(ward: Ward) -> None:
    registration = ward.portal.registration
    file = str(private(ward.folder / "reader.pem", pem()))
    ward.settings.READERS = {registration.home_tenant_id: (builders.guid(), file)}


def mail_server_gone(ward: Ward) -> None:
    ward.settings.MAILERS["default"]["OPTIONS"]["port"] = 1


def no_worker(ward: Ward) -> None:
    Process.objects.update(last_heartbeat_at=timezone.now() - timedelta(minutes=5))


def schedule_not_kept(ward: Ward) -> None:
    ScheduledJob.objects.update(due_at=timezone.now() - timedelta(hours=1), repeat_at=None)
