"""The token check as a kind of bulk work: load, redeem and ask in threads, write in batches (R-45).

A healthy partner costs three calls: the vault, the sign-in service, Partner Center. When its stored token is due to be
renewed (R-11), the rotated one is kept on the way, in the order of R-02.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from django.utils import timezone

from consent import clients
from consent.models import PartnerConsent
from consent.naming import line_names, registration_names, unit_label
from consent.selection import WORDS, Selection
from consent.tokens.checking import Verdict, judge, write_verdicts
from consent.tokens.renewal import Renewal
from consent.tokens.service import Audience
from consent.uses.book import By, Purpose
from portal.microsoft.api import RetryPolicy
from portal.microsoft.diagnosis import FailureClass
from portal.microsoft.identifiers import CorrelationId
from portal.microsoft.secret import Secret
from portal.runs.kinds import Contained, Context, Done, Kind, Outcome, Unit
from tenants.partner_center import OrganizationProfile

log = logging.getLogger(__name__)

RENEW = "renew"
"""The option with which the rotated token of each partner is kept, however young the stored one is."""

# A longer wait is not slept through: the partner is put back, and the thread works for others meanwhile.
_RETRY = RetryPolicy(longest_wait_seconds=2.0)
# And a run is not held up by one partner that must wait for longer (seconds): its row says when it is tried again.
_LONGEST_WAIT = 60.0


def units(scope: Mapping[str, Any], after: int, limit: int) -> list[Unit]:
    """List the consents of the chosen partners, those checked longest ago first.

    With ``due`` in the scope only those whose next try has come, and those renewed longest ago first (R-11).
    """
    selection = Selection.from_json(scope)
    due, chosen = bool(selection.due), selection.partner_consents()
    rows = (
        (chosen.due(timezone.now()) if due else chosen.usable())
        .filter(pk__gt=after)
        .order_by("pk")
        .values_list("pk", "partner_id", "partner__name", "registration", "stored_at" if due else "last_try_at")[:limit]
    )
    names = registration_names()
    return [
        Unit(
            key=key,
            group=partner,
            label=unit_label(name, names[registration]),
            rank=int(moment.timestamp()) if moment else 0,
        )
        for key, partner, name, registration, moment in rows
    ]


def load(keys: Sequence[int], context: Context) -> dict[int, Renewal]:
    """Read the rows again, immediately before use (S-51, S-53), and take the leases of those to renew.

    With ``RENEW`` among the options these are all of them, else those whose stored token is old.
    """
    consents = PartnerConsent.objects.filter(pk__in=keys).with_all_for_calls()
    by = By(actor=context.actor, purpose=Purpose.CHECK, run=context.run_id)
    renewals = {
        consent.pk: Renewal(consent, consent.partner.tenant, CorrelationId(context.correlation_id(consent.pk)), by)
        for consent in consents
    }
    rotation = clients.tokens().rotation
    every = bool(context.options.get(RENEW))
    due = [each for each in renewals.values() if every or rotation.renews(each.consent, each.tenant)]
    owner = clients.renewals().lease_all([renewal.consent for renewal in due])
    for renewal in due:
        if renewal.consent.lease_owner == owner:
            renewal.owner = owner
    return renewals


def work(key: int, renewal: Renewal, context: Context) -> Outcome:
    """Redeem the partner's token and ask for its profile. No query, unless the token was renewed since the load."""
    consent, correlation_id = renewal.consent, renewal.correlation_id
    token: Secret | None = None

    def organization_profile() -> OrganizationProfile:
        nonlocal token
        redeemed = token = clients.tokens().redeem(renewal, Audience.PARTNER_CENTER).access_token
        clients.renewals().keep_rotated(renewal)
        own_cloud = clients.cloud(consent.partner.cloud)
        source = clients.tokens().held(consent, redeemed)
        client = clients.partner_center(own_cloud, source, correlation_id, retry=_RETRY)
        return client.organization_profile()

    verdict = judge(consent, organization_profile, correlation_id, access_token=lambda: token)
    result = verdict.result
    return Outcome(
        failure_class=result.failure_class,
        message=f"{result.cause} {result.remedy}".strip(),
        owner=result.owner,
        code=result.code,
        systemic=result.systemic,
        retry_after=None if (verdict.retry_after or 0.0) > _LONGEST_WAIT else verdict.retry_after,
        throttled=result.failure_class == FailureClass.THROTTLED,
        blame=None if context.options.get("force") else verdict.blame,
        fields={
            **line_names(consent.partner, consent.registration),
            "ok": result.ok,
            "class": result.failure_class,
            "cause": result.cause,
            "owner": result.owner,
            "remedy": result.remedy,
            "code": result.code,
            "correlation_id": result.correlation_id,
        },
        result=verdict,
    )


def write(done: Sequence[Done], context: Context) -> None:
    """Write the renewals and the verdicts, and give the leases back."""
    renewals: list[Renewal] = [each.subject for each in done]
    clients.renewals().write(renewals, actor=context.actor)
    verdicts: list[Verdict] = [each.outcome.result for each in done if isinstance(each.outcome.result, Verdict)]
    write_verdicts(verdicts, actor=context.actor)
    release(renewals, context)


def after(renewal: Renewal, context: Context) -> Callable[[], None] | None:
    """Switch off the version that is not in use any more (R-02)."""
    return None if renewal.place is None else partial(clients.renewals().put_away, renewal)


def settle(renewals: Sequence[Renewal], context: Context) -> None:
    """Note which older versions are off, so that they need no second look."""
    clients.renewals().forget_replaced(renewals)


def release(renewals: Sequence[Renewal], context: Context) -> None:
    """Give the leases back."""
    clients.renewals().give_back(renewals)


def contained(renewal: Renewal) -> Contained | None:
    return clients.gate().stop(renewal.consent.partner_id, renewal.consent.registration_id)


def place(renewal: Renewal) -> tuple[str, str]:
    return renewal.consent.registration.application_id, renewal.consent.partner.cloud


TOKEN_CHECK = Kind(
    name="token_check",
    label="Token check",
    words={
        **WORDS,
        RENEW: "Every token is renewed, however young the stored one is",
        "force": "A failure is written also when nearly all partners share it",
    },
    units=units,
    load=load,
    work=work,
    rights=(
        "consent.check_partnerconsent",
        "consent.renew_partnerconsent",
    ),
    write=write,
    after=after,
    settle=settle,
    release=release,
    repeats=True,
    prepare=clients.shared_by_all,
    place=place,
    book=lambda context: clients.uses().write_run(context.run_id),
    contained=contained,
    all_contained=lambda: clients.gate().stop_of_all(),
)
