"""What the tests of erasing share: a partner that was disabled beside each vault, and what is known of people."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from django.conf import settings as configured
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from pytest_django.fixtures import Settings

from consent import clients, partners
from consent.moving_in.partners import read
from consent.vault.base import SecretName, SecretVersion
from portal.incidents.models import Incident
from portal.incidents.service import note, report
from portal.microsoft.diagnosis import Owner
from portal.microsoft.errors import RemoteError
from portal.site.logs import JsonFormatter, RedactionFilter
from portal.site.models import SavedFilter
from tenants.models import CustomerTenant, PartnerTenant
from tests.conftest import VAULT_NAME, make_portal, use_azure_vault, use_local_vault, use_sandbox
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.support import builders, custody, vault_secrets
from tests.support.moving_in import csv_of, file_row
from tests.support.portal import Portal

SECOND = "second@northwind.example.com"
ERASER = "Erase"
WORDS = ("Anna Karenina", "anna.k@people.example", "Head of Licences", "born in a train", "prefers calls at noon")
"""What staff wrote of the partner's people: a contact's name, address and role, the partner's notes, an incident's."""


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


def write_of_people(portal: Portal) -> list[str]:
    """Let staff and the portal note down everything that rows can hold of this partner; return the words."""
    partner = PartnerTenant.objects.get(pk=portal.partner.pk)
    person, address, role, notes, noted = WORDS
    partner.notes = notes
    partner.save()
    contact = builders.contact(partner, address, name=person, role=role)
    row = file_row(partner.name, partner.tenant_id, **{"Contact addresses": address, "Notes": notes})
    read(csv_of(row), file_name="partners.csv", actor=builders.ACTOR)
    report("custom", about=f"partner:{partner.pk}", name=partner.name, owner=Owner.US, words="Look.")
    note(Incident.objects.filter(cause="custom"), f"{person} {noted}", actor=builders.ACTOR)
    staff = User.objects.create_user("keeper")
    SavedFilter.objects.create(owner=staff, list_name="tenants.partnertenant", name="mine", query="q=Anna+KARENINA")
    SavedFilter.objects.create(owner=staff, list_name="tenants.partnertenant", name="other", query="q=Anna")
    LogEntry.objects.create(
        user=staff,
        content_type=ContentType.objects.get_for_model(PartnerTenant),
        object_id=str(partner.pk),
        object_repr=partner.name,
        action_flag=CHANGE,
        change_message=f'[{{"added": {{"name": "contact", "object": "{contact}"}}}}]',
    )
    customer = CustomerTenant.objects.filter(partner=partner).first() or builders.customer(partner)
    customer.company_name, customer.domain = "Vronsky Stables", "stables.example"
    customer.save()
    return [*WORDS, partner.name, partner.domain, customer.company_name, customer.domain]


def vault_entries(portal: Portal) -> dict[str, list[str]]:
    """Return the values of every entry of the vault by its name, those that are off or deleted included."""
    if configured.VAULT_URL.startswith("https://"):
        stored = portal.sandbox.world.vaults[custody.CLOUD, VAULT_NAME].secrets
        return {name: [one.value for one in secret.versions] for name, secret in stored.items()}
    found: dict[str, list[str]] = {}
    for folder in Path(configured.VAULT_URL).iterdir():
        values = found.setdefault(folder.name, [])
        for file in folder.iterdir():
            try:
                secret = clients.vault().read(SecretName(folder.name), SecretVersion(file.name))
            except RemoteError:  # it is off, or the file of the write check
                continue
            values.append(secret.value.reveal())
    return found


@contextmanager
def everything_logged() -> Iterator[StringIO]:
    """Collect each line that production would log, at INFO and above."""
    lines, root = StringIO(), logging.getLogger()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(RedactionFilter())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
