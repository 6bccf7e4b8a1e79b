"""What the steps of one examination share: ids, clients that keep nothing, and what earlier steps found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from django.conf import settings
from requests import Session

from consent import clients
from consent.doctor.steps import Finding, failed
from consent.models import ApplicationRegistration, PartnerConsent
from consent.tokens.service import Audience, TokenService
from consent.uses.book import By
from portal.audit.trail import Actor
from portal.microsoft.clouds import NationalCloud
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import CorrelationId, new_correlation_id
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant


@dataclass(frozen=True, slots=True, kw_only=True)
class Canary:
    """A partner whose token was just redeemed by the usual service, and that service."""

    consent: PartnerConsent
    tokens: TokenService
    correlation_id: CorrelationId

    by: By

    def source(self, audience: Audience) -> Callable[[], Secret]:
        return self.tokens.source(self.consent, audience, by=self.by, correlation_id=self.correlation_id)


@dataclass(kw_only=True)
class Case:
    """One examination.

    Attributes:
        actor: who asked for it.
        canaries: what the step ``canary`` found; the later steps use their tokens.
    """

    actor: Actor
    correlation_id: CorrelationId = field(default_factory=new_correlation_id)
    canaries: list[Canary] = field(default_factory=list)

    @property
    def session(self) -> Session:
        """The session of this process, with its rules. Raises ImproperlyConfigured without its CA file."""
        return clients.session()

    @cached_property
    def registrations(self) -> list[ApplicationRegistration]:
        """The active ones with the credential in use."""
        active = ApplicationRegistration.objects.filter(state=ApplicationRegistration.State.ACTIVE)
        return list(active.select_related("credential").order_by("pk"))

    @cached_property
    def clouds(self) -> list[NationalCloud]:
        """Clouds in use: of registrations and partners; before the first of them the vault's."""
        drafts = ApplicationRegistration.objects.exclude(state=ApplicationRegistration.State.RETIRED)
        used = {*drafts.values_list("cloud", flat=True), *PartnerTenant.objects.values_list("cloud", flat=True)}
        return [one for one in clients.clouds() if one.key in (used or {settings.VAULT_CLOUD})]


def said_no(error: RemoteError, about: str) -> Finding:
    """Return the failure of a call in words.

    Args:
        about: what was asked, at the beginning of the sentence; empty where the cause says it.
    """
    diagnosis = diagnose(error)
    who = "" if diagnosis.owner in {Owner.US, Owner.NOBODY} else f"{diagnosis.owner.label} must act. "
    prefix = f"{about}: " if about else ""
    ids = {"": error.code, "correlation id ": error.correlation_id, "request id ": error.request_id}
    found_by = ", ".join(f"{name}{value}" for name, value in ids.items() if value)
    return failed(f"{prefix}{diagnosis.cause}{f' ({found_by})' if found_by else ''}", f"{who}{diagnosis.remedy}")
