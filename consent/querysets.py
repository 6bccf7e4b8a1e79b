"""The vocabulary of questions about consent. Each method returns a queryset and does nothing but SQL."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Case, Count, Exists, OuterRef, Q, Subquery, Value, When
from django.db.models.functions import Coalesce, Now

from consent.permissions import PERMISSION_SETS
from tenants.models import PartnerTenant

if TYPE_CHECKING:
    import consent.credential_models
    import consent.customer_models
    import consent.models  # named in the bases below
    import consent.offboarding_models
    import consent.plan_models  # noqa: F401

_PARTNER_ON = Q(partner__switch=PartnerTenant.Switch.ON)
UNWELL = ~Q(state="connected") | ~Q(last_problem="")
"""Consents with a token of which somebody must do something; those that are over are none."""

# A moment further ahead than anything is ever put off was written while the clock was: it counts as past.
_LONGEST_LEASE = timedelta(minutes=5)
_LONGEST_FAILURE = timedelta(hours=27)  # a day, and a tenth for what a service asked to wait


class ApplicationCredentialQuerySet(models.QuerySet["consent.credential_models.ApplicationCredential"]):
    def current(self) -> ApplicationCredentialQuerySet:
        """Credentials in use by a registration that is not retired."""
        return self.filter(current_for__isnull=False).exclude(current_for__state="retired")

    def for_roll_back(self) -> ApplicationCredentialQuerySet:
        """Credentials that were in use before, the latest first."""
        return self.filter(
            current_for__isnull=True, promoted_at__isnull=False, refused_at__isnull=True, retired_at__isnull=True
        ).order_by("-promoted_at", "-pk")

    def with_state(self) -> ApplicationCredentialQuerySet:
        """Annotate ``state`` (``ApplicationCredential.State``)."""
        from consent.credential_models import ApplicationCredential

        is_ = ApplicationCredential.State
        return self.annotate(
            state=Case(
                When(current_for__isnull=False, then=Value(is_.CURRENT)),
                When(retired_at__isnull=False, then=Value(is_.RETIRED)),
                When(refused_at__isnull=False, then=Value(is_.REFUSED)),
                When(promoted_at__isnull=False, then=Value(is_.PREVIOUS)),
                default=Value(is_.CANDIDATE),
                output_field=models.CharField(),
            )
        )


class ConsentLinkQuerySet(models.QuerySet["consent.models.ConsentLink"]):
    def live(self) -> ConsentLinkQuerySet:
        """Links whose flows may still end, by the database's own clock (S-10, R-42)."""
        return self.filter(
            partner__offboarding_since__isnull=True,
            partner__switch=PartnerTenant.Switch.ON,
            revoked_at__isnull=True,
            expires_at__gt=Now(),
            registration__state="active",
        )

    def usable(self) -> ConsentLinkQuerySet:
        """Links that may start a flow now: live and not closed by a consent (S-03)."""
        return self.live().filter(closed_at__isnull=True)

    def unanswered(self) -> ConsentLinkQuerySet:
        """Links that are neither over nor closed, whatever partner and registration allow now."""
        return self.filter(revoked_at__isnull=True, closed_at__isnull=True, expires_at__gt=Now())

    def with_progress(self) -> ConsentLinkQuerySet:
        """Annotate ``progress`` (``ConsentLink.Progress``), and outcome, problem and time of the latest attempt.

        The number of queries is the same for any number of links.
        """
        from consent.models import ConsentFlow, ConsentLink

        is_ = ConsentLink.Progress
        latest = ConsentFlow.objects.filter(link=OuterRef("pk")).order_by("-created_at", "-pk")
        return self.annotate(**_latest_attempt(latest)).annotate(
            progress=Case(
                When(closed_at__isnull=False, then=Value(is_.DONE)),
                When(revoked_at__isnull=False, then=Value(is_.REVOKED)),
                When(expires_at__lte=Now(), then=Value(is_.EXPIRED)),
                When(~Q(registration__state="active"), then=Value(is_.OFF)),
                When(~_PARTNER_ON, then=Value(is_.OFF)),
                When(partner__offboarding_since__isnull=False, then=Value(is_.OFF)),
                default=Coalesce(_progress_of_attempts(latest), Value(is_.OPEN)),
                output_field=models.CharField(),
            )
        )

    def by_token_hash(self, token_hash: str) -> ConsentLinkQuerySet:
        return self.filter(token_hash=token_hash)


def _latest_attempt(attempts: ConsentFlowQuerySet) -> dict[str, models.expressions.Combinable]:
    return {
        "last_outcome": Subquery(attempts.values("outcome")[:1]),
        "last_problem": Coalesce(Subquery(attempts.values("problem")[:1]), Value("")),
        "last_attempt_at": Subquery(attempts.values("created_at")[:1]),
    }


def _progress_of_attempts(attempts: ConsentFlowQuerySet) -> Subquery:
    """Return what the latest attempt says, NULL without one; the words are those of both ``Progress``.

    One subquery, not a comparison with ``last_outcome`` for each word: PostgreSQL would plan each of them anew.
    """
    word = Case(
        # Without MFA the connection is no good, and the same link serves for the next attempt.
        When(outcome__in=["refused", "connected_mfa_missing"], then=Value("failed")),
        When(outcome="waiting_approval", then=Value("waiting")),
        default=Value("started"),
        output_field=models.CharField(),
    )
    return Subquery(attempts.annotate(word=word).values("word")[:1])


class ConsentFlowQuerySet(models.QuerySet["consent.models.ConsentFlow"]):
    def claimable(self) -> ConsentFlowQuerySet:
        """Flows whose answer may still be redeemed: the condition of the one claiming UPDATE (S-09, S-10).

        No joins: Django would move all conditions of a joined UPDATE into a subquery, which PostgreSQL does not
        evaluate again after waiting for another claim, and two posts would win.
        """
        from consent.models import ConsentLink

        return self.filter(
            models.Exists(ConsentLink.objects.live().filter(pk=models.OuterRef("link_id"))),
            claimed_at__isnull=True,
            expires_at__gt=Now(),
        )

    def expired_before(self, moment: datetime) -> ConsentFlowQuerySet:
        return self.filter(expires_at__lt=moment)


def _on_any_resource(permission_set: str, of_resource: Callable[[str, Sequence[str]], Q]) -> Q:
    """Return the condition that holds on any resource of the permission set; empty: of the registration's own."""
    return functools.reduce(
        operator.or_,
        (
            (Q() if permission_set else Q(registration__permission_set=name)) & of_resource(resource, scopes)
            for name, chosen in PERMISSION_SETS.items()
            if permission_set in {"", name}
            for resource, scopes in chosen.resources().items()
        ),
    )


def _lacks(resource: str, scopes: Sequence[str]) -> Q:
    # As text, with the quotes of JSON around the name: no list operator works on both databases, and names of
    # permissions do not differ by case.
    has = (Q(**{f"granted_scopes__{resource}__icontains": f'"{scope}"'}) for scope in scopes)
    return Q(granted_scopes__has_key=resource) & ~functools.reduce(operator.and_, has)


def _unproven(resource: str, scopes: Sequence[str]) -> Q:
    return ~Q(granted_scopes__has_key=resource)


class PartnerConsentQuerySet(models.QuerySet["consent.models.PartnerConsent"]):
    def for_partner(self, partner: PartnerTenant) -> PartnerConsentQuerySet:
        return self.filter(partner=partner)

    def of_living_application(self) -> PartnerConsentQuerySet:
        """Consents of registrations that are not retired."""
        return self.exclude(registration__state="retired")

    def usable(self) -> PartnerConsentQuerySet:
        """Consents with a stored token of a partner that is active, and of an application that is not retired."""
        living = self.of_living_application().filter(_PARTNER_ON, generation__gt=0)
        return living.exclude(state__in=["disconnected", "revoked"])

    def lacking_permissions(self, permission_set: str = "") -> PartnerConsentQuerySet:
        """Usable consents whose last sign-in proved less than the registration asks for now.

        What a sign-in did not prove at all is not lacking: see ``permissions_unproven``.

        Args:
            permission_set: compare with this one instead of the registration's own.
        """
        return self.usable().filter(_on_any_resource(permission_set, _lacks))

    def permissions_unproven(self, permission_set: str = "") -> PartnerConsentQuerySet:
        """Usable consents of which no sign-in proved what is granted on a resource that is asked for now."""
        return self.usable().filter(_on_any_resource(permission_set, _unproven))

    def lease_free(self) -> PartnerConsentQuerySet:
        """Rows whose renewal nobody holds, by the database's clock (R-03)."""
        over = Q(lease_until__lt=Now()) | Q(lease_until__gt=Now() + _LONGEST_LEASE)
        return self.filter(Q(lease_owner="") | over)

    def of_active_partner(self) -> PartnerConsentQuerySet:
        """Rows of partners that are neither disabled nor offboarded, without a join; for UPDATEs."""
        return self.filter(Exists(PartnerTenant.objects.active().filter(pk=OuterRef("partner_id"))))

    def with_all_for_calls(self) -> PartnerConsentQuerySet:
        """Rows with everything that a redemption reads of them; a forgotten relation is an error, not a query."""
        return self.select_related("partner", "registration__credential").fetch_mode(models.FETCH_RAISE)

    def without_right_forecast(self) -> PartnerConsentQuerySet:
        """Rows of living tokens without a forecast, and of others with one."""
        living = Q(state__in=["connected", "mfa_missing"], stored_at__isnull=False)
        return self.filter((living & Q(forecast_at__isnull=True)) | (~living & Q(forecast_at__isnull=False)))

    def wanting_action(self) -> PartnerConsentQuerySet:
        """Consents of which somebody must do something, beyond waiting for the next try.

        Of partners for whom work goes on: what is left of an offboarding stands on its own page.
        """
        somebody = Q(last_owner__in=["us", "partner", "customer", "microsoft"])
        return (
            self.of_living_application()
            .filter(_PARTNER_ON, UNWELL | somebody, generation__gt=0, partner__offboarding_since__isnull=True)
            .exclude(state="revoked")
        )

    def due(self, now: datetime) -> PartnerConsentQuerySet:
        """Usable consents whose next try has come."""
        latest = now + max(timedelta(hours=settings.TOKEN_CHECK_HOURS), _LONGEST_FAILURE)
        return self.usable().filter(Q(next_try_at__lte=now) | Q(next_try_at__gt=latest))

    def oldest_check_first(self) -> PartnerConsentQuerySet:
        return self.order_by(models.F("last_try_at").asc(nulls_first=True), "pk")


_REMOVED = Q(requested_at__isnull=False, requested_hash="")
_DRIFTED = Q(changed_by="outside") & (
    Q(state__in=["partial", "differs"]) | Q(state="absent") & ~_REMOVED | Q(state="granted") & _REMOVED
)


class CustomerConsentQuerySet(models.QuerySet["consent.customer_models.CustomerConsent"]):
    def for_partner(self, partner: PartnerTenant) -> CustomerConsentQuerySet:
        return self.filter(customer__partner=partner)

    def drifted(self) -> CustomerConsentQuerySet:
        """Consents that somebody outside changed, and that are not as we left them since."""
        return self.filter(_DRIFTED)

    def findings(self) -> CustomerConsentQuerySet:
        """Everything about consents of active partners that somebody should look at."""
        not_there = Q(state="absent") & ~Q(requested_hash="")
        not_gone = _REMOVED & ~Q(state="absent")
        other = Q(state__in=["differs", "partial"])
        return self.filter(_DRIFTED | other | not_there | not_gone | Q(unread_since__isnull=False)).filter(
            customer__partner__switch=PartnerTenant.Switch.ON
        )


class ConsentObservationQuerySet(models.QuerySet["consent.customer_models.ConsentObservation"]):
    def prunable(self, *, unchanged_before: datetime, changed_before: datetime) -> ConsentObservationQuerySet:
        """Old reads, but never the newest of a consent nor the last that proved a removal by us."""
        from consent.customer_models import ConsentObservation

        same = ConsentObservation.objects.filter(consent=OuterRef("consent"))
        newest = same.order_by("-observed_at", "-pk").values("pk")[:1]
        proof = same.filter(changed_by="us", state="absent").order_by("-observed_at", "-pk").values("pk")[:1]
        old = Q(changed_by="", observed_at__lt=unchanged_before) | Q(observed_at__lt=changed_before)
        return self.filter(old).exclude(pk=Subquery(newest)).exclude(pk=Coalesce(Subquery(proof), 0))


class OffboardingQuerySet(models.QuerySet["consent.offboarding_models.Offboarding"]):
    def open(self) -> OffboardingQuerySet:
        """Offboardings that are not done."""
        return self.exclude(state="done")

    def to_advance(self) -> OffboardingQuerySet:
        """Open ones with something to do: the run ended, or the closing was cut off or refused."""
        return self.filter(
            Q(state="closing") | Q(state="removing") & (Q(run__isnull=True) | ~Q(run__state__in=["open", "paused"]))
        )


class WaitingTokenQuerySet(models.QuerySet["consent.models.WaitingToken"]):
    def waiting(self) -> WaitingTokenQuerySet:
        """Tokens that somebody can still decide on: stored and not too old, by the database's clock."""
        return self.filter(decision="waiting", expires_at__gt=Now()).exclude(secret_version="")

    def overdue(self) -> WaitingTokenQuerySet:
        """Tokens that nobody approved in time."""
        return self.filter(decision="waiting", expires_at__lte=Now())


class CampaignQuerySet(models.QuerySet["consent.models.Campaign"]):
    def with_counts(self) -> CampaignQuerySet:
        """Annotate ``invited_count``, ``sent_count`` and ``connected_count``."""
        from consent.models import CampaignPartner

        partners = CampaignPartner.objects.filter(campaign=OuterRef("pk"))

        def number(of: CampaignPartnerQuerySet) -> Coalesce:
            counted = of.order_by().values("campaign").annotate(number=Count("pk")).values("number")
            return Coalesce(Subquery(counted), 0)

        return self.annotate(
            invited_count=number(partners),
            sent_count=number(partners.filter(sent_at__isnull=False)),
            connected_count=number(partners.with_progress().filter(Q(progress="connected"))),
        )


class CampaignPartnerQuerySet(models.QuerySet["consent.models.CampaignPartner"]):
    def with_progress(self) -> CampaignPartnerQuerySet:
        """Annotate ``progress`` (``CampaignPartner.Progress``), and outcome, problem and time of the latest attempt.

        What the partner did counts from the day of the campaign, through whichever link: whoever connected through
        another one is done as well.
        """
        from consent.models import CampaignPartner, ConsentFlow, PartnerConsent

        is_ = CampaignPartner.Progress
        attempts = ConsentFlow.objects.filter(
            link__partner=OuterRef("partner"),
            link__registration=OuterRef("campaign__registration"),
            link__kind="sign_in",
            created_at__gte=OuterRef("campaign__created_at"),
        ).order_by("-created_at", "-pk")
        connected = PartnerConsent.objects.filter(
            partner=OuterRef("partner"),
            registration=OuterRef("campaign__registration"),
            state="connected",
            consented_at__gte=OuterRef("campaign__created_at"),
        )
        mailed = Case(
            When(~Q(last_send_problem=""), then=Value(is_.SEND_FAILED)),
            When(sent_at__isnull=False, then=Value(is_.SENT)),
            When(link__isnull=False, then=Value(is_.INTERRUPTED)),
            default=Value(is_.INVITED),
            output_field=models.CharField(),
        )
        return self.annotate(**_latest_attempt(attempts)).annotate(
            progress=Case(
                When(Q(link__closed_at__isnull=False) | Exists(connected), then=Value(is_.CONNECTED)),
                default=Coalesce(_progress_of_attempts(attempts), mailed),
                output_field=models.CharField(),
            )
        )

    def to_send(self) -> CampaignPartnerQuerySet:
        """Partners who are not connected, and whose invitation was not made or certainly did not leave."""
        unsent = self.filter(Q(link__isnull=True) | ~Q(last_send_problem=""))
        # What failed before comes last, so that it never keeps the others waiting.
        return unsent.with_progress().exclude(Q(progress="connected")).order_by("last_send_problem", "pk")

    def to_remind(self, before: datetime) -> CampaignPartnerQuerySet:
        """Partners who are not connected, and whose latest mail left, or may have left, before that moment.

        Each mail has a link of its own, whoever sent it, so the link's age is the mail's.
        """
        mailed = self.filter(link__created_at__lt=before, last_send_problem="")
        return mailed.with_progress().exclude(Q(progress__in=["connected", "waiting"])).order_by("pk")

    def with_open_link(self) -> CampaignPartnerQuerySet:
        return self.filter(link__isnull=False, link__closed_at__isnull=True, link__revoked_at__isnull=True)


class ConsentPlanItemQuerySet(models.QuerySet["consent.plan_models.ConsentPlanItem"]):
    def to_do(self, *, reset: bool) -> ConsentPlanItemQuerySet:
        """Items that applying would work: not done, and what only DELETE and POST can do if that is chosen."""
        unfinished = self.exclude(action__in=["nothing", "blocked"]).filter(result__in=["", "waiting", "broken"])
        return unfinished if reset else unfinished.filter(needs_reset=False)

    def unsuccessful(self) -> ConsentPlanItemQuerySet:
        return self.filter(result__in=["failed", "restored", "broken"])

    def with_later_plan(self) -> ConsentPlanItemQuerySet:
        """Annotate ``later_plan``: the latest plan of the same registration that changed the customer afterwards."""
        from consent.plan_models import ConsentPlanItem

        later = ConsentPlanItem.objects.filter(
            customer=OuterRef("customer"),
            plan__registration=OuterRef("plan__registration"),
            plan__gt=OuterRef("plan"),
            snapshot__isnull=False,
        ).order_by("-plan")
        return self.annotate(later_plan=Subquery(later.values("plan")[:1]))
