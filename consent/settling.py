"""Settle incidents whose cause is over, from what the rows say (S-60).

Most incidents are settled where the thing is mended. What ends without anybody doing anything, or is seen to work by
another process than the one that reported it, is found here, every hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consent import alarms
from consent.alarms import Cause
from consent.applications.comparing import Risk, differences
from consent.customers.applying import GRANTS_LOST
from consent.models import (
    ApplicationCredential,
    ApplicationRegistration,
    ConsentLink,
    ConsentPlan,
    CustomerConsent,
    PartnerConsent,
    RegistrationEvidence,
)
from portal.incidents.models import Incident
from portal.incidents.service import settle_all
from tenants.models import PartnerTenant

type Open = Mapping[int, Incident]
"""Open incidents of one kind, by the key of what they are about."""


def settle_what_is_over() -> int:
    """Settle them, and return how many. Its queries grow with the open incidents only."""
    settled = 0
    for causes, standing in (
        (alarms.OF_LINKS, _links),
        (alarms.OF_TOKENS, _tokens),
        ((Cause.CREDENTIAL_REFUSED,), _refused_credentials),
        ((Cause.CREDENTIAL_EXPIRES,), _ending_credentials),
        ((Cause.CREDENTIAL_UNUSED,), _unused_credentials),
        ((Cause.CONSENT_AGAIN,), _asked_again),
        ((Cause.REGISTRATION_CHANGED,), _changed_registrations),
        ((Cause.REGISTRATION_UNREAD,), _unread_registrations),
        ((GRANTS_LOST,), _lost_grants),
    ):
        for cause in causes:
            incidents = {_key(one): one for one in Incident.objects.open().filter(cause=cause)}
            stands = set(standing(incidents)) if incidents else set()
            over = [one.about for key, one in incidents.items() if key not in stands]
            settled += settle_all(cause, about=over) if over else 0
    return settled


def _key(incident: Incident) -> int:
    return int(incident.about.rpartition(":")[2])


def _links(incidents: Open) -> Iterable[int]:
    """Links that still work; the others admit no sign-in any more."""
    return ConsentLink.objects.usable().filter(pk__in=incidents).values_list("pk", flat=True)


def _tokens(incidents: Open) -> Iterable[int]:
    """Tokens that anybody still wants: their partner and their application are not given up, nor are they."""
    wanted = PartnerConsent.objects.of_living_application().filter(pk__in=incidents)
    wanted = wanted.exclude(state__in=PartnerConsent.LEFT_STATES)
    return wanted.exclude(partner__switch=PartnerTenant.Switch.OFFBOARDED).values_list("pk", flat=True)


def _refused_credentials(incidents: Open) -> Iterable[int]:
    """Applications with which no token was redeemed since Microsoft last refused them."""
    for registration in ApplicationRegistration.objects.filter(pk__in=incidents):
        works = PartnerConsent.objects.filter(
            registration=registration, last_success_at__gt=incidents[registration.pk].last_seen_at
        )
        if registration.state == ApplicationRegistration.State.ACTIVE and not works.exists():
            yield registration.pk


def _ending_credentials(incidents: Open) -> Iterable[int]:
    """Credentials in use."""
    return ApplicationCredential.objects.current().filter(pk__in=incidents).values_list("pk", flat=True)


def _unused_credentials(incidents: Open) -> Iterable[int]:
    """Credentials that were still never in use and are not retired."""
    return ApplicationCredential.objects.unused().filter(pk__in=incidents).values_list("pk", flat=True)


def _asked_again(incidents: Open) -> Iterable[int]:
    """Active applications with partners that have not granted, or not proven, all that is asked for now."""
    active = ApplicationRegistration.objects.filter(pk__in=incidents, state=ApplicationRegistration.State.ACTIVE)
    waiting = PartnerConsent.objects.in_use().to_consent_again().filter(registration__in=active)
    return waiting.order_by().values_list("registration", flat=True).distinct()


def _changed_registrations(incidents: Open) -> Iterable[int]:
    """Registrations, not retired, in whose last look something is still dangerous by what we want now."""
    looked_at = RegistrationEvidence.objects.filter(registration__in=incidents).select_related(
        "registration__credential"
    )
    for evidence in looked_at.exclude(registration__state=ApplicationRegistration.State.RETIRED):
        if any(one.risk == Risk.DANGEROUS for one in differences(evidence.registration, evidence)):
            yield evidence.pk


def _unread_registrations(incidents: Open) -> Iterable[int]:
    """Registrations, not retired, whose last read failed."""
    unread = RegistrationEvidence.objects.filter(registration__in=incidents, unread_at__isnull=False)
    living = unread.exclude(registration__state=ApplicationRegistration.State.RETIRED)
    return living.values_list("registration", flat=True)


def _lost_grants(incidents: Open) -> Iterable[int]:
    """Customers of whom no later read showed that all is there again, or gone because we removed it."""
    by_plan = dict(ConsentPlan.objects.values_list("pk", "registration").filter(pk__in=_plans(incidents)))
    for key, incident in incidents.items():
        read = CustomerConsent.objects.filter(
            customer=key, registration=by_plan.get(incident.subject["plan"]), verified_at__gt=incident.last_seen_at
        ).first()
        removed = read is not None and read.state == CustomerConsent.State.ABSENT and read.was_removed
        if read is None or not (removed or read.state == CustomerConsent.State.GRANTED):
            yield key


def _plans(incidents: Open) -> list[int]:
    return [incident.subject["plan"] for incident in incidents.values()]
