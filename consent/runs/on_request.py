"""Work that a person asks for on a page: what it will touch, said before, and the run of an existing kind that does it.

Nothing here calls Microsoft. Asking twice finds the run that goes on, and a person who asks wakes a run that waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, CharField, Count, Q, QuerySet, Value, When

from consent import clients
from consent.models import ApplicationRegistration, CustomerConsent, PartnerConsent
from consent.models.tokens import PARTNER_ON
from consent.runs.customer_sync import CUSTOMER_SYNC, doors
from consent.runs.token_check import RENEW, TOKEN_CHECK
from consent.runs.verify import CONSENT_VERIFY
from consent.selection import Selection, open_rows
from consent.states import standing, with_standing, with_state
from portal.audit.trail import Actor
from portal.rights import require
from portal.runs import service, tasks
from portal.runs.kinds import Kind
from portal.runs.models import Run
from portal.site.sight import require_sight, within
from tenants.models import CustomerTenant, PartnerTenant

NAMED = 20
"""So many tenants stand in a preview by name; the others are counted."""
_CONCURRENCY = 16
_OFF = "disabled or offboarded: no token may be used"
_NO_TOKEN = "no usable token"  # words, no secret


class NothingToDo(ValueError):
    """None of the chosen rows can be worked now; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an action will touch.

    Attributes:
        number: of tenants that will be asked, or looked into.
        names: the first of them.
        by_state: of those, in words of their states, the most first.
        left_out: chosen ones for which nothing will be done, by the reason.
    """

    number: int
    names: Sequence[str]
    by_state: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def more(self) -> int:
        """How many are not named."""
        return self.number - len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The run that does it, whether it is new, and how many units it was asked for."""

    run: Run
    new: bool
    number: int


# --- tokens -------------------------------------------------------------------------------------------------------


def preview_check(consents: QuerySet[PartnerConsent]) -> Preview:
    """Say which of these tokens a check would redeem; four queries."""
    usable = _usable(consents)
    names = usable.order_by("partner__name", "pk").values_list("partner__name", "registration__name")
    counted: QuerySet[Any] = with_standing(usable.order_by())
    by_state = counted.values_list("standing").annotate(number=Count("pk")).order_by("-number", "standing")
    others = consents.order_by().exclude(pk__in=usable.values("pk"))
    reason = Case(
        When(~PARTNER_ON, then=Value(_OFF)),
        When(generation=0, then=Value("never connected")),
        When(registration__state=ApplicationRegistration.State.RETIRED, then=Value("the application is retired")),
        default=Value("disconnected by us"),
        output_field=CharField(),
    )
    return Preview(
        number=usable.count(),
        names=[f"{partner} ({registration})" for partner, registration in names[:NAMED]],
        by_state={str(standing(word).label): number for word, number in by_state},
        left_out=dict(others.annotate(reason=reason).values_list("reason").annotate(Count("pk"))),
    )


def check_tokens(consents: QuerySet[PartnerConsent], *, actor: Actor, renew: bool = False) -> Started:
    """Have these tokens redeemed and Partner Center asked by the workers.

    Args:
        renew: also keep the rotated refresh token of each, however young the stored one is.

    Raises:
        NothingToDo: none of them can be used.
    """
    require(actor, "consent.renew_partnerconsent" if renew else "consent.check_partnerconsent")
    consents = within(consents, actor)
    keys = sorted(_usable(consents).values_list("pk", flat=True))
    if not keys:
        raise NothingToDo(f"Nothing was begun: {_reasons(preview_check(consents))}.")
    return _start(TOKEN_CHECK, Selection(tokens=tuple(keys)), {RENEW: True} if renew else {}, actor, len(keys))


def _usable(consents: QuerySet[PartnerConsent]) -> QuerySet[PartnerConsent]:
    return PartnerConsent.objects.usable().filter(pk__in=consents.order_by().values("pk"))


# --- customers ----------------------------------------------------------------------------------------------------


def preview_synchronise(partners: QuerySet[PartnerTenant]) -> Preview:
    """Say the customers of which partners would be read again; four queries."""
    able = _with_door(partners)
    states: QuerySet[Any] = with_state(able.order_by())
    by_state = states.values_list("state").annotate(number=Count("pk")).order_by("-number", "state")
    others = partners.order_by().exclude(pk__in=able.values("pk"))
    reason = Case(
        When(~Q(switch=PartnerTenant.Switch.ON), then=Value(_OFF)),
        default=Value(_NO_TOKEN),
        output_field=CharField(),
    )
    return Preview(
        number=able.count(),
        names=list(able.order_by("name", "pk").values_list("name", flat=True)[:NAMED]),
        by_state={str(PartnerTenant.State(word).label): number for word, number in by_state},
        left_out=dict(others.annotate(reason=reason).values_list("reason").annotate(Count("pk"))),
    )


def synchronise(partners: QuerySet[PartnerTenant], *, actor: Actor) -> Started:
    """Have all customers and relationships of these partners read by the workers.

    Raises:
        NothingToDo: none of them has a token that may read them.
    """
    require(actor, "tenants.sync_partnertenant")
    partners = within(partners, actor)
    chosen = sorted(_with_door(partners).values_list("tenant_id", flat=True))
    if not chosen:
        raise NothingToDo(f"Nothing was begun: {_reasons(preview_synchronise(partners))}.")
    return _start(CUSTOMER_SYNC, Selection(partner=tuple(chosen)), {}, actor, len(chosen))


def _with_door(partners: QuerySet[PartnerTenant]) -> QuerySet[PartnerTenant]:
    return (
        PartnerTenant.objects.active()
        .filter(pk__in=partners.order_by().values("pk"))
        .filter(pk__in=doors().values("partner"))
    )


def read_again(customer: CustomerTenant, *, actor: Actor) -> Started:
    """Have what a customer tenant holds read by the workers, for each application that its partner consented to.

    Note: this reads ``customer.partner``; load it.

    Raises:
        NothingToDo: the partner consented to no active application, so there is nothing to read.
    """
    require(actor, "consent.verify_customerconsent")
    require_sight(actor, customer)
    open_rows(Selection(partner=(customer.partner.tenant_id,), customer=(customer.tenant_id,)))
    return read_consents(CustomerConsent.objects.filter(customer=customer), actor=actor)


def read_consents(consents: QuerySet[CustomerConsent], *, actor: Actor) -> Started:
    """Have these consents read in their tenants by the workers.

    Raises:
        NothingToDo: their partners are off, or there are none.
    """
    require(actor, "consent.verify_customerconsent")
    consents = within(consents, actor)
    active = consents.filter(customer__partner__switch=PartnerTenant.Switch.ON)
    keys = sorted(active.values_list("pk", flat=True))
    if not keys:
        why = _OFF if consents.exists() else "the partner has no usable token of an active application"
        raise NothingToDo(f"Nothing was begun: {why}.")
    return _start(CONSENT_VERIFY, Selection(consents=tuple(keys)), {}, actor, len(keys))


# --- the run ------------------------------------------------------------------------------------------------------


def _start(kind: Kind, chosen: Selection, options: Mapping[str, Any], actor: Actor, number: int) -> Started:
    if stop := clients.gate().stop_of_all():
        raise NothingToDo(f"Nothing was begun. {stop}")
    run, new = service.start(kind, scope=chosen.to_json(), options=options, actor=actor, concurrency=_CONCURRENCY)
    if run.state == Run.State.PAUSED:
        service.resume(run, actor=actor)
    tasks.enqueue(run)
    return Started(run=run, new=new, number=number)


def _reasons(preview: Preview) -> str:
    reasons = preview.left_out
    return "; ".join(reasons) if len(reasons) == 1 else "; ".join(f"{n} × {why}" for why, n in reasons.items())
