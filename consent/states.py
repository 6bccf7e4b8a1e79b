"""How partners and their tokens stand: the one definition. Nothing of it is stored.

A partner's state follows from what staff decided, from its consents and from its links; a token's standing from its
partner and its consent. Both are worked out in SQL, so that lists, filters, counts, exports, pages and commands read
the same words, and none of them can be older than what it was worked out from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from django.db.models import Case, CharField, Count, Exists, F, OuterRef, Q, QuerySet, Value, When

from consent.models import ConsentLink, PartnerConsent
from consent.models.tokens import UNWELL
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
