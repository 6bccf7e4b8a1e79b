"""What the dashboard shows of consents: what somebody has to look at comes first."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from consent.applications.rotation import WARN_DAYS
from consent.models import ApplicationCredential, ConsentFlow, CustomerConsent, PartnerConsent
from consent.states import STANDINGS, Standing, count_by_state, standing, with_standing
from consent.tokens.next_steps import ENDS, SOON, next_step
from portal.microsoft.diagnosis import OWNER_CHOICES, Owner
from portal.site.dashboard import Figure, Panel, Row
from portal.site.display import Tone, badge, distance
from tenants.models import PartnerTenant

_SHOWN = 8
_ALWAYS_COUNTED = (PartnerTenant.State.CONNECTED, PartnerTenant.State.ATTENTION, PartnerTenant.State.INVITED)
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


def partners_panel(request: HttpRequest) -> Panel | None:
    """Partners by state, each figure with the list that it counts; one query."""
    if not request.user.has_perm("tenants.view_partnertenant"):
        return None
    counts = count_by_state()
    address = reverse("admin:tenants_partnertenant_changelist")
    return Panel(
        title="Partners",
        link=address,
        order=10,
        figures=[
            Figure(label=str(state.label), value=counts.get(state, 0), tone=tone, link=f"{address}?state={state.value}")
            for state, tone in STATE_TONES.items()
            if counts.get(state) or state in _ALWAYS_COUNTED
        ],
    )


def attention_panel(request: HttpRequest) -> Panel | None:
    """Who must act: figures by owner, and the tokens with a problem, the longest without success first. Two queries."""
    if not request.user.has_perm("consent.view_partnerconsent"):
        return None
    wanting = PartnerConsent.objects.wanting_action()
    counts = dict(wanting.order_by().values_list("last_owner").annotate(Count("pk")))
    address = reverse("admin:consent_partnerconsent_changelist")
    now = timezone.now()
    return Panel(
        title="Who must act",
        order=20,
        link=address,
        empty="Every token that was checked works.",
        figures=[
            Figure(
                label=label, value=counts[owner], tone=OWNER_TONES[owner], link=f"{address}?last_owner__exact={owner}"
            )
            for owner, label in OWNER_CHOICES
            if counts.get(owner)
        ],
        rows=[
            Row(
                label=f"{consent.partner.name} ({consent.registration.name})",
                detail=next_step(consent, now).text,
                link=reverse("admin:consent_partnerconsent_change", args=[consent.pk]),
                tone=STANDING_TONES[standing(consent.standing)],
            )
            for consent in with_standing(wanting)
            .select_related("partner", "registration")
            .order_by("last_success_at", "pk")[:_SHOWN]
        ],
    )


def ends_panel(request: HttpRequest) -> Panel | None:
    """What ends next, and why; one query."""
    if not request.user.has_perm("consent.view_partnerconsent"):
        return None
    now = timezone.now()
    consents = (
        PartnerConsent.objects.usable()
        .filter(forecast_at__lt=now + SOON)
        .select_related("partner", "registration")
        .order_by("forecast_at", "pk")[:_SHOWN]
    )
    return Panel(
        title="What ends next",
        order=25,
        link=reverse("admin:consent_partnerconsent_changelist") + "?ends=30",
        empty=f"Nothing ends within {SOON.days} days.",
        rows=[
            Row(
                label=f"{consent.partner.name} ({consent.registration.name}): {consent.get_forecast_cause_display()}",
                detail=f"{_when(consent, now)} {ENDS[consent.forecast_cause].text}",
                link=reverse("admin:consent_partnerconsent_change", args=[consent.pk]),
                tone=Tone.BAD if consent.forecast_at and consent.forecast_at < now + timedelta(days=7) else Tone.WARN,
            )
            for consent in consents
        ],
    )


def expiry_tone(credential: ApplicationCredential) -> Tone:
    """Say how near its end a credential is: good above 60 days, a warning above 14, bad below."""
    if credential.expires_at is None:
        return Tone.QUIET
    left = credential.expires_at - timezone.now()
    if left <= timedelta(days=WARN_DAYS[2]):
        return Tone.BAD
    return Tone.WARN if left <= timedelta(days=WARN_DAYS[0]) else Tone.GOOD


def credentials_panel(request: HttpRequest) -> Panel | None:
    """Credentials in use that end within 60 days, the first to end first; nothing while all last. One query."""
    if not request.user.has_perm("consent.view_applicationcredential"):
        return None
    ending = (
        ApplicationCredential.objects.current()
        .filter(expires_at__lte=timezone.now() + timedelta(days=WARN_DAYS[0]))
        .select_related("registration")
        .order_by("expires_at", "pk")[:_SHOWN]
    )
    rows = [
        Row(
            label=f"{credential.registration.name}: {credential.get_kind_display().lower()}",
            detail=f"Ends {distance((credential.expires_at or timezone.now()) - timezone.now())}",
            link=reverse("admin:consent_applicationcredential_change", args=[credential.pk]),
            tone=expiry_tone(credential),
        )
        for credential in ending
    ]
    if not rows:
        return None
    return Panel(
        title="Application credentials that end soon",
        order=10,
        link=reverse("admin:consent_applicationcredential_changelist"),
        rows=rows,
    )


def _when(consent: PartnerConsent, now: datetime) -> str:
    if consent.forecast_at is None:
        return ""
    return f"{consent.forecast_at:%Y-%m-%d} ({distance(consent.forecast_at - now)})."


def customers_panel(request: HttpRequest) -> Panel | None:
    """Customer consents by state; one query."""
    if not request.user.has_perm("consent.view_customerconsent"):
        return None
    counts = dict(CustomerConsent.objects.order_by().values_list("state").annotate(Count("pk")))
    address = reverse("admin:consent_customerconsent_changelist")
    return Panel(
        title="Customer consents",
        order=30,
        link=address,
        empty="Nothing was pushed yet.",
        figures=[
            Figure(label=state.label, value=counts[state], tone=tone, link=f"{address}?state__exact={state.value}")
            for state, tone in CUSTOMER_TONES.items()
            if counts.get(state)
        ],
    )


def flows_panel(request: HttpRequest) -> Panel | None:
    """The latest attempts of partners; one query."""
    if not request.user.has_perm("consent.view_consentflow"):
        return None
    flows = ConsentFlow.objects.select_related("link__partner", "link__registration").order_by("-created_at")[:_SHOWN]
    return Panel(
        title="Latest attempts",
        order=40,
        link=reverse("admin:consent_consentflow_changelist"),
        empty="No partner has pressed Continue yet.",
        rows=[
            Row(
                label=f"{flow.link.partner.name} ({flow.link.registration.name}): {flow.get_outcome_display()}",
                detail=" ".join(part for part in (flow.reference, flow.problem, flow.code) if part),
                link=reverse("admin:consent_consentflow_change", args=[flow.pk]),
                tone=FLOW_TONES[ConsentFlow.Outcome(flow.outcome)],
            )
            for flow in flows
        ],
    )
