"""How partners and their tokens stand: the one definition. Nothing of it is stored.

A partner's state follows from what staff decided, from its consents and from its links; a token's standing from its
partner and its consent. Both are worked out in SQL, so that lists, filters, counts, exports, pages and commands read
the same words, and none of them can be older than what it was worked out from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from django.db.models import Case, CharField, Count, Exists, F, OuterRef, Q, QuerySet, TextChoices, Value, When

from consent.models import ConsentLink, PartnerConsent
from consent.models.tokens import UNWELL
from portal.microsoft.diagnosis import FailureClass, Owner
from tenants.models import PartnerTenant, PartnerTenantQuerySet

State = PartnerTenant.State
Switch = PartnerTenant.Switch

ACTIVE_STATES = (State.NEW, State.INVITED, State.CONNECTED, State.ATTENTION, State.LEFT, State.OFFBOARDING)
"""The states of partners for whom something may be done."""

type Standing = State | PartnerConsent.State
STANDINGS: Sequence[Standing] = (
    PartnerConsent.State.CONNECTED,
    State.ATTENTION,
    *(one for one in PartnerConsent.State if one is not PartnerConsent.State.CONNECTED),
    State.OFFBOARDING,
    State.DISABLED,
    State.OFFBOARDED,
)
"""What a token's standing can be: its partner's state where that overrules, else the word of its consent."""


def _decided(partner: str = "") -> list[When]:
    """Return what staff decided of a partner, which wins over everything (S-53)."""
    return [
        When(**{f"{partner}switch": Switch.OFFBOARDED}, then=Value(State.OFFBOARDED)),
        When(**{f"{partner}switch": Switch.DISABLED}, then=Value(State.DISABLED)),
        When(**{f"{partner}offboarding_since__isnull": False}, then=Value(State.OFFBOARDING)),
    ]


def with_state(partners: QuerySet[PartnerTenant]) -> PartnerTenantQuerySet:
    """Annotate ``state`` (``PartnerTenant.State``).

    A partner that every application of ours works for is connected. As soon as one of its tokens wants somebody to act,
    it needs attention. Without a token it is invited when it ever had a link, and new before that; when its tokens are
    dead, and no link is open, it is disconnected. Applications that are retired do not count.
    """
    stored = PartnerConsent.objects.filter(partner=OuterRef("pk"), generation__gt=0)
    counted = stored.of_living_application().exclude(state=PartnerConsent.State.REVOKED)
    links = ConsentLink.objects.filter(partner=OuterRef("pk"))
    annotated = partners.annotate(
        state=Case(
            *_decided(),
            When(Exists(counted.filter(UNWELL)), then=Value(State.ATTENTION)),
            When(Exists(counted), then=Value(State.CONNECTED)),
            When(Exists(stored) & ~Exists(links.usable()), then=Value(State.LEFT)),
            When(Exists(links), then=Value(State.INVITED)),
            default=Value(State.NEW),
            output_field=CharField(choices=State.choices),
        )
    )
    return cast(PartnerTenantQuerySet, annotated)


def state_of(partner: PartnerTenant) -> PartnerTenant.State:
    """Return how one partner stands now; one query."""
    known: Any = with_state(PartnerTenant.objects.filter(pk=partner.pk)).get()
    return State(known.state)


def count_by_state() -> dict[str, int]:
    """Return how many partners stand how; one query."""
    partners: QuerySet[Any] = with_state(PartnerTenant.objects.order_by())
    return dict(partners.values_list("state").annotate(Count("pk")))


def with_standing(consents: QuerySet[PartnerConsent]) -> QuerySet[Any]:
    """Annotate ``standing``, a word of ``STANDINGS``: a token is connected only while nothing is wrong with it."""
    connected = Q(state=PartnerConsent.State.CONNECTED)
    return consents.annotate(
        standing=Case(
            *_decided("partner__"),
            When(connected & UNWELL, then=Value(State.ATTENTION)),
            default=F("state"),
            output_field=CharField(choices=[(word.value, word.label) for word in STANDINGS]),
        )
    )


def standing(word: str) -> Standing:
    """Return the member of a word that ``with_standing`` annotated."""
    return next(member for member in STANDINGS if member.value == word)


class Trouble(TextChoices):
    """Why somebody must act for a token, in the fewest words; the message of its last check says it in full."""

    SESSIONS_REVOKED = "sessions_revoked", "sessions revoked"
    NEEDS_CONSENT = FailureClass.NEEDS_CONSENT.value, "consent lost"
    EXPIRED = PartnerConsent.State.EXPIRED.value, "not renewed for 90 days"
    MFA_MISSING = PartnerConsent.State.MFA_MISSING.value, "MFA missing"
    INTERACTION = FailureClass.NEEDS_INTERACTION.value, "stopped by a sign-in policy"
    ROLE_LOST = FailureClass.NOT_PERMITTED.value, "role lost"
    NOT_FOUND = FailureClass.NOT_FOUND.value, "not found at Microsoft"
    DISCONNECTED = PartnerConsent.State.DISCONNECTED.value, "disconnected, to be revoked"
    STOPPED = PartnerConsent.State.STOPPED.value, "identity mismatch"
    CREDENTIAL = FailureClass.OUR_CREDENTIAL.value, "our credential refused"
    PROTOCOL = FailureClass.PROTOCOL_ERROR.value, "our request refused"
    THROTTLED = FailureClass.THROTTLED.value, "throttled"
    TEMPORARY = FailureClass.TEMPORARY.value, "service not available"
    OTHER = "other", "other answers"


_SESSIONS_REVOKED = ("AADSTS50173", "AADSTS50132", "AADSTS50133")  # by an administrator, or with the password
_SAID_BY_STATE = (
    PartnerConsent.State.EXPIRED,
    PartnerConsent.State.MFA_MISSING,
    PartnerConsent.State.DISCONNECTED,
    PartnerConsent.State.STOPPED,
)
_SAID_BY_CLASS = [one.value for one in Trouble if one.value in list(FailureClass)]


def with_trouble(consents: QuerySet[PartnerConsent]) -> QuerySet[Any]:
    """Annotate ``trouble`` (``Trouble``) and ``who`` must act (``Owner``) on consents that want somebody to act.

    Without a name the next step is the partner's, as ``consent.tokens.next_steps`` says.
    """
    return consents.annotate(
        trouble=Case(
            When(state__in=_SAID_BY_STATE, then=F("state")),
            When(last_code__in=_SESSIONS_REVOKED, then=Value(Trouble.SESSIONS_REVOKED)),
            When(last_class__in=_SAID_BY_CLASS, then=F("last_class")),
            When(state=PartnerConsent.State.NEEDS_CONSENT, then=Value(Trouble.NEEDS_CONSENT)),
            default=Value(Trouble.OTHER),
            output_field=CharField(),
        ),
        who=Case(When(last_owner="", then=Value(Owner.PARTNER)), default=F("last_owner"), output_field=CharField()),
    )
