"""The vocabulary of questions about consent. Each method returns a queryset and does nothing but SQL."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import models
from django.db.models.functions import Now

if TYPE_CHECKING:
    import consent.models  # noqa: F401  # named in the bases below
    from tenants.models import PartnerTenant


class ConsentLinkQuerySet(models.QuerySet["consent.models.ConsentLink"]):
    def live(self) -> ConsentLinkQuerySet:
        """Links whose flows may still end, by the database's own clock (S-10, R-42)."""
        return self.filter(
            revoked_at__isnull=True,
            expires_at__gt=Now(),
            registration__state="active",
        ).exclude(partner__state__in=["disabled", "offboarded"])

    def usable(self) -> ConsentLinkQuerySet:
        """Links that may start a flow now: live and not closed by a consent (S-03)."""
        return self.live().filter(closed_at__isnull=True)

    def by_token_hash(self, token_hash: str) -> ConsentLinkQuerySet:
        return self.filter(token_hash=token_hash)


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


class PartnerConsentQuerySet(models.QuerySet["consent.models.PartnerConsent"]):
    def for_partner(self, partner: PartnerTenant) -> PartnerConsentQuerySet:
        return self.filter(partner=partner)

    def usable(self) -> PartnerConsentQuerySet:
        """Consents with a stored token of a partner that is active."""
        return (
            self.filter(generation__gt=0)
            .exclude(state="disconnected")
            .exclude(partner__state__in=["disabled", "offboarded"])
        )

    def oldest_check_first(self) -> PartnerConsentQuerySet:
        return self.order_by(models.F("last_try_at").asc(nulls_first=True), "pk")


class CustomerConsentQuerySet(models.QuerySet["consent.models.CustomerConsent"]):
    def for_partner(self, partner: PartnerTenant) -> CustomerConsentQuerySet:
        return self.filter(customer__partner=partner)


class WaitingTokenQuerySet(models.QuerySet["consent.models.WaitingToken"]):
    def waiting(self) -> WaitingTokenQuerySet:
        """Tokens that somebody can still decide on: stored and not too old, by the database's clock."""
        return self.filter(decision="waiting", expires_at__gt=Now()).exclude(secret_version="")

    def overdue(self) -> WaitingTokenQuerySet:
        """Tokens that nobody approved in time."""
        return self.filter(decision="waiting", expires_at__lte=Now())
