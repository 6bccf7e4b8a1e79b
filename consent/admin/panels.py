"""How states feel, and their badges, for all pages of consents."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from consent.applications.rotation import WARN_DAYS
from consent.models import ApplicationCredential, ConsentFlow, CustomerConsent, PartnerConsent
from consent.states import STANDINGS, Standing, standing
from portal.microsoft.diagnosis import Owner
from portal.site.display import Tone, badge
from tenants.models import PartnerTenant

STATE_TONES = {
    PartnerTenant.State.CONNECTED: Tone.GOOD,
    PartnerTenant.State.ATTENTION: Tone.WARN,
    PartnerTenant.State.INVITED: Tone.BUSY,
    PartnerTenant.State.NEW: Tone.QUIET,
    PartnerTenant.State.LEFT: Tone.QUIET,
    PartnerTenant.State.OFFBOARDING: Tone.BUSY,
    PartnerTenant.State.DISABLED: Tone.QUIET,
    PartnerTenant.State.OFFBOARDED: Tone.QUIET,
}
STANDING_TONES: dict[Standing, Tone] = {
    PartnerConsent.State.CONNECTED: Tone.GOOD,
    PartnerConsent.State.MFA_MISSING: Tone.WARN,
    PartnerConsent.State.NEEDS_CONSENT: Tone.BAD,
    PartnerConsent.State.EXPIRED: Tone.BAD,
    PartnerConsent.State.STOPPED: Tone.BAD,
    PartnerConsent.State.DISCONNECTED: Tone.WARN,
    PartnerConsent.State.REVOKED: Tone.QUIET,
    **{state: STATE_TONES[state] for state in STANDINGS if isinstance(state, PartnerTenant.State)},
}
OWNER_TONES = {
    Owner.US.value: Tone.BAD,
    Owner.PARTNER.value: Tone.WARN,
    Owner.CUSTOMER.value: Tone.WARN,
    Owner.MICROSOFT.value: Tone.BUSY,
    Owner.NOBODY.value: Tone.BUSY,
}
CUSTOMER_TONES = {
    CustomerConsent.State.GRANTED: Tone.GOOD,
    CustomerConsent.State.WAITING: Tone.BUSY,
    CustomerConsent.State.PARTIAL: Tone.WARN,
    CustomerConsent.State.DIFFERS: Tone.WARN,
    CustomerConsent.State.BLOCKED: Tone.WARN,
    CustomerConsent.State.FAILED: Tone.BAD,
    CustomerConsent.State.ABSENT: Tone.QUIET,
    CustomerConsent.State.UNKNOWN: Tone.QUIET,
}
FLOW_TONES = {
    ConsentFlow.Outcome.OPEN: Tone.BUSY,
    ConsentFlow.Outcome.WORKING: Tone.BUSY,
    ConsentFlow.Outcome.CONNECTED: Tone.GOOD,
    ConsentFlow.Outcome.MFA_MISSING: Tone.WARN,
    ConsentFlow.Outcome.WAITING_APPROVAL: Tone.WARN,
    ConsentFlow.Outcome.ADMIN_CONSENTED: Tone.BUSY,
    ConsentFlow.Outcome.REFUSED: Tone.BAD,
}


def state_badge(word: str) -> str:
    """Return how a partner stands, from a word of ``PartnerTenant.State``."""
    state = PartnerTenant.State(word)
    return badge(str(state.label), STATE_TONES[state])


def standing_badge(word: str) -> str:
    """Return how a token stands, from a word of ``STANDINGS``."""
    stands = standing(word)
    return badge(str(stands.label), STANDING_TONES[stands])


def expiry_tone(credential: ApplicationCredential) -> Tone:
    """Say how near its end a credential is: good above 60 days, a warning above 14, bad below."""
    if credential.expires_at is None:
        return Tone.QUIET
    left = credential.expires_at - timezone.now()
    if left <= timedelta(days=WARN_DAYS[2]):
        return Tone.BAD
    return Tone.WARN if left <= timedelta(days=WARN_DAYS[0]) else Tone.GOOD
