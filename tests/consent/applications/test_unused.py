"""A credential that was made here and never used is told of after 60 days and retired after 90."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from consent import clients
from consent.applications import key_pairs, rotation
from consent.applications.unused import retire_unused
from consent.models import ApplicationCredential
from consent.settling import settle_what_is_over
from consent.upkeep import clean_up
from consent.vault.base import SecretDisabled, SecretName, SecretVersion
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from tests.support import builders
from tests.support.credentials import add_certificate, current
from tests.support.portal import Portal

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-39")]


def make(portal: Portal, days: float) -> ApplicationCredential:
    """Make a candidate so many days ago."""
    made = key_pairs.make_pair(portal.registration, days=365, vault=clients.vault(), actor=builders.ACTOR)
    age(made, days)
    return made


def age(credential: ApplicationCredential, days: float) -> None:
    at = timezone.now() - timedelta(days=days)
    ApplicationCredential.objects.filter(pk=credential.pk).update(created_at=at)
    credential.refresh_from_db()


def retired() -> int:
    return retire_unused(vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)


def test_it_is_told_of_first_then_retired_and_switched_off(portal: Portal) -> None:
    made, young = make(portal, 61), make(portal, 59)
    place = SecretName(made.secret_name), SecretVersion(made.secret_version)
    assert retired() == 0
    incident = Incident.objects.open().get()
    assert (incident.cause, incident.about) == ("credential_unused", f"credential:{made.pk}")
    assert f"On {made.created_at + timedelta(days=90):%Y-%m-%d} it is retired" in incident.words
    clients.vault().read(*place)

    age(made, 91)
    report = clean_up(vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    assert "1 unused credential retired" in report.words
    assert set(ApplicationCredential.objects.filter(retired_at__isnull=False)) == {made}
    with pytest.raises(SecretDisabled):
        clients.vault().read(*place)
    assert not Incident.objects.open().exists()
    assert AuditEvent.objects.get(action="credential.retired").actor == builders.ACTOR.name
    young.refresh_from_db()
    assert young.retired_at is None


def test_what_is_or_was_in_use_and_what_others_keep_stays(portal: Portal) -> None:
    in_use, before, theirs = current(portal), add_certificate(portal), make(portal, 200)
    age(in_use, 200)
    age(before, 200)
    ApplicationCredential.objects.filter(pk=before.pk).update(promoted_at=timezone.now())
    ApplicationCredential.objects.filter(pk=theirs.pk).update(secret_name="app-certificate")
    rotation.add_managed_identity(portal.registration, builders.guid(), actor=builders.ACTOR)
    ApplicationCredential.objects.filter(kind="federated").update(created_at=timezone.now() - timedelta(days=200))
    assert retired() == 0
    assert not ApplicationCredential.objects.filter(retired_at__isnull=False).exists()
    assert not Incident.objects.exists()


def test_the_incident_is_over_once_the_credential_is_used_or_retired(portal: Portal) -> None:
    used, given_up = make(portal, 61), make(portal, 61)
    retired()
    assert Incident.objects.open().count() == 2
    ApplicationCredential.objects.filter(pk=used.pk).update(promoted_at=timezone.now())
    rotation.retire(given_up, vault=clients.vault(), keys=clients.vault_keys, actor=builders.ACTOR)
    assert settle_what_is_over() == 2
    assert not Incident.objects.open().exists()
