"""The portal's side of a measurement: its settings, its database, and executors in processes of their own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.bench.partners_at_microsoft import PartnersAtMicrosoft


def own_environment(folder: Path, database: str) -> dict[str, str]:
    """Return the settings of a portal that is measured, as environment variables."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.bench.settings",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "INTEGRITY_KEY": secrets.token_urlsafe(48),
        "PUBLIC_BASE_URL": "https://portal.localhost",
        "DATABASE_URL": database or f"sqlite:///{folder / 'db.sqlite3'}",
        "LOG_LEVEL": "ERROR",
    } | dict.fromkeys(("ADMIN_HOST", "ALLOWED_HOSTS", "CELERY_BROKER_URL", "ALERT_EMAIL"), "")


def open_portal(folder: Path, database: str, empty: bool = True, /, **environment: str) -> None:
    """Set this process up as a portal. Once in a process.

    Args:
        database: URL of a database. SQLite in the folder without.
        empty: a PostgreSQL database is emptied; else it may lack new migrations only.
        environment: further settings.
    """
    os.environ |= own_environment(folder, database) | environment
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connection

    if connection.vendor == "postgresql" and empty:
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    call_command("migrate", verbosity=0)


def open_connected_portal(place: PartnersAtMicrosoft, folder: Path, database: str, **environment: str) -> None:
    """As ``open_portal``, with all of its partners connected."""
    vault_credential = folder / "vault-credential"
    vault_credential.touch(mode=0o600)
    vault_credential.write_text(place.vault_secret)
    known = {
        "TEST_ENDPOINTS": str(place.port),
        "TEST_CA_FILE": place.ca_file,
        "VAULT_URL": place.vault_url,
        "VAULT_IDENTITY": "client-secret",
        "VAULT_TENANT_ID": place.vault_tenant,
        "VAULT_CLIENT_ID": place.vault_client,
        "VAULT_CREDENTIAL_FILE": str(vault_credential),
        "CALL_RATE": "10000",
        "PARTNER_RATE": "1000",
    }
    open_portal(folder, database, **known | environment)
    fill(place)


def fill(place: PartnersAtMicrosoft) -> None:
    """Store the registration and its partners as connected, in an empty database."""
    from django.utils import timezone

    from consent import clients
    from consent.applications import rotation
    from consent.models import ApplicationRegistration, PartnerConsent
    from consent.tokens import health
    from consent.tokens.versions import token_fingerprint
    from portal.audit.trail import Actor
    from portal.microsoft.secret import Secret
    from tenants.models import PartnerTenant
    from tests.support import builders

    registration = builders.registration(
        application_id=place.application_id, home_tenant_id=place.vault_tenant, state="draft", credential=None
    )
    actor = Actor.command("bench")
    credential = rotation.add_certificate(registration, Secret(place.certificate), vault=clients.vault(), actor=actor)
    rotation.promote(credential, door=clients.tokens_with, actor=actor, allow_unproven=True)
    ApplicationRegistration.objects.filter(pk=registration.pk).update(state="active")
    now = timezone.now()
    PartnerTenant.objects.bulk_create(
        [PartnerTenant(pk=each.number, name=each.name, tenant_id=each.tenant_id) for each in place.partners],
        batch_size=1000,
    )
    PartnerConsent.objects.bulk_create(
        [
            PartnerConsent(
                pk=each.number,
                partner_id=each.number,
                registration=registration,
                state="connected",
                consented_at=now,
                pinned_oid=each.object_id,
                generation=1,
                secret_name=each.secret_name,
                secret_version=each.secret_version,
                fingerprint=token_fingerprint(Secret(each.refresh_token)),
                stored_at=now - timedelta(hours=1),
                mfa="proven",
            )
            for each in place.partners
        ],
        batch_size=1000,
    )
    health.watch()  # their forecasts, which a consent works out when it is stored


def make_due() -> None:
    """Let every stored token be old enough to be renewed."""
    from django.utils import timezone

    from consent.models import PartnerConsent

    PartnerConsent.objects.update(stored_at=timezone.now() - timedelta(days=8))


def new_run(concurrency: int) -> Any:
    """Return a fresh run of the token check over all partners."""
    from consent.runs.token_check import TOKEN_CHECK
    from portal.audit.trail import Actor
    from portal.runs import service

    run, made = service.start(TOKEN_CHECK, scope={}, actor=Actor.command("bench"), concurrency=concurrency)
    if not made:
        raise RuntimeError("the run before is not finished")
    return run


def started(module: str, *arguments: object) -> subprocess.Popen[str]:
    """Start one of the measured programs."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def facts_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a measured program printed."""
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a measured program ended with {process.returncode}")
    facts: dict[str, Any] = json.loads(text.strip().splitlines()[-1])
    return facts


def check_all(in_flight: int, processes: int = 1, *, count_calls: bool = False) -> dict[str, Any]:
    """Check all partners with one command of so many processes; return the facts."""
    run = new_run(in_flight)
    counting = ["count"] if count_calls else []
    return facts_of(started("ours", run.pk, in_flight, processes, *counting)) | {"run": run.pk}


def check_together(in_flight: int, commands: int) -> dict[str, Any]:
    """Check all partners with so many commands that share one run; return the facts of the first."""
    run = new_run(in_flight)
    found = [facts_of(one) for one in [started("ours", run.pk, in_flight) for _ in range(commands)]]
    return found[0] | {"run": run.pk}


def wait_until_done(run: int, share: float) -> None:
    """Return when this share of the run's units has its result."""
    from portal.runs.models import Run

    found = Run.objects.get(pk=run)
    while not found.total or found.listed_at is None or found.items.filter(state="done").count() < share * found.total:
        time.sleep(0.02)
        found.refresh_from_db()
