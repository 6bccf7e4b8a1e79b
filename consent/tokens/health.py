"""Health of tokens: when to try again, when a token ends and why, and the reminders before it (R-11, R-15).

``refresh`` is the only writer of forecast and alerts. It is called wherever one of their inputs changes: after a check
that changed one, after a renewal, a new credential or a sync, and daily by ``watch``, because time is an input as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Min
from django.utils import timezone

from consent import alarms
from consent.models import ApplicationRegistration, PartnerConsent
from portal.audit.trail import SYSTEM, record
from portal.microsoft.diagnosis import Diagnosis, FailureClass, Owner
from tenants.models import CustomerTenant, PartnerTenant

ALERT_DAYS = (60, 75, 85)  # staff are reminded well before Entra ends an unused token at 90
EXPIRED_DAYS = 90
LIFETIME = timedelta(days=EXPIRED_DAYS)  # of an unused refresh token, by Entra; each renewal starts it anew
CONFIRM_AFTER = timedelta(minutes=10)  # between two denials, because one may be a passing fault
_FIRST_WAIT = timedelta(minutes=15)
_LONGEST_WAIT = timedelta(hours=24)
_BATCH = 500
State = PartnerConsent.State
Cause = PartnerConsent.ForecastCause
_ALIVE = {State.CONNECTED, State.MFA_MISSING}
_MAY_EXPIRE = (State.CONNECTED, State.MFA_MISSING, State.NEEDS_CONSENT)


# --- when to try again --------------------------------------------------------------------------------------------


def try_after_success(consent: PartnerConsent, now: datetime) -> datetime:
    """Return when the next check is due: before the last one is too old (R-45), and before the token is (R-11).

    Jitter spreads the checks of many partners, always to the earlier side.
    """
    daily = now + timedelta(hours=settings.TOKEN_CHECK_HOURS) * random.uniform(0.8, 0.9)  # noqa: S311  # no secret
    if consent.stored_at is None:
        return daily
    return max(min(daily, consent.stored_at + renew_after()), now)


def renew_after() -> timedelta:
    """Return the age at which a stored token is renewed: a day before the limit, as the work is done daily (R-11)."""
    return timedelta(days=settings.TOKEN_RENEW_DAYS - 1)


def try_after_failure(
    consent: PartnerConsent, diagnosis: Diagnosis, retry_after: float | None, *, confirmed: bool, now: datetime
) -> datetime | None:
    """Return when the next check is due after a failure, None when only a new consent can help.

    What passes by itself, or is ours to repair, is tried again with growing, jittered waits; ``Retry-After`` is the
    least. What a person must repair is looked at once a day, because a policy can heal; it is never tried in a loop.

    Args:
        retry_after: seconds, as the service asked for.
        confirmed: this denial was seen before, long enough ago (R-15).
    """
    kind = diagnosis.failure_class
    if kind is FailureClass.NEEDS_CONSENT and not confirmed:
        return now + CONFIRM_AFTER * random.uniform(1.1, 2.0)  # noqa: S311
    if kind is FailureClass.NEEDS_CONSENT and diagnosis.fatal_for_token:
        return None
    if not (diagnosis.retry or kind is FailureClass.OUR_CREDENTIAL):
        return now + _LONGEST_WAIT * random.uniform(0.8, 0.9)  # noqa: S311
    longest = min(_FIRST_WAIT * (1 << min(consent.failures, 10)), _LONGEST_WAIT)
    asked = min(timedelta(seconds=retry_after or 0.0), _LONGEST_WAIT)
    return now + max(longest * random.uniform(0.5, 1.0), asked * random.uniform(1.0, 1.1))  # noqa: S311


# --- when it ends -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The end of a token and its cause; both empty when it is over already, or nothing is known."""

    at: datetime | None = None
    cause: str = ""


def outlived(consent: PartnerConsent, now: datetime) -> bool:
    """Tell whether a token works longer than a policy of the partner once let it (AADSTS70043)."""
    lifetime = consent.sign_in_lifetime
    return lifetime is not None and now > consent.consented_at + timedelta(seconds=lifetime)


def credential_end(registration: ApplicationRegistration) -> datetime | None:
    """Return when the application's credential ends, None when that is not known."""
    return None if registration.credential is None else registration.credential.expires_at


def gdap_ends(partners: Iterable[int], now: datetime) -> Mapping[int, datetime]:
    """Return the nearest end of a GDAP relationship by partner, as far as relationships were read."""
    ends = (
        CustomerTenant.objects.filter(partner__in=set(partners), missing_since__isnull=True, gdap_ends_at__gt=now)
        .order_by()
        .values_list("partner")
        .annotate(Min("gdap_ends_at"))
    )
    return dict(ends)


def forecast(consent: PartnerConsent, gdap_end: datetime | None) -> Forecast:
    """Return the earliest end that is known. It reads the consent's registration."""
    at, cause = min(ends_of(consent, gdap_end), default=(None, ""))
    return Forecast(at=at, cause=cause)


def ends_of(consent: PartnerConsent, gdap_end: datetime | None) -> list[tuple[datetime, str]]:
    """Return each end that is known with its cause; none of a token that is over. It reads the registration."""
    if consent.state not in _ALIVE or consent.stored_at is None:
        return []
    ends: list[tuple[datetime, str]] = [(consent.stored_at + LIFETIME, Cause.IDLE.value)]
    if consent.sign_in_lifetime is not None:
        ends.append((consent.consented_at + timedelta(seconds=consent.sign_in_lifetime), Cause.SIGN_IN.value))
    if (end := credential_end(consent.registration)) is not None:
        ends.append((end, Cause.CREDENTIAL.value))
    if gdap_end is not None:
        ends.append((gdap_end, Cause.GDAP.value))
    return ends


_INPUTS = (
    "partner_id",
    "state",
    "generation",
    "stored_at",
    "consented_at",
    "sign_in_lifetime",
    "forecast_at",
    "forecast_cause",
    "alerted_days",
    "registration__credential__expires_at",
)


def refresh(keys: Iterable[int]) -> None:
    """Work out forecast and alerts of these consents anew, and write what changed. Four queries for any number of rows
    that end alike; call it in the transaction that changed an input, or after it.
    """
    consents = PartnerConsent.objects.filter(pk__in=list(keys)).select_related("registration__credential")
    rows = list(consents.only(*_INPUTS))
    now = timezone.now()
    ends = gdap_ends((row.partner_id for row in rows), now) if rows else {}
    changed: dict[Forecast, list[int]] = {}
    for row in rows:
        new = forecast(row, ends.get(row.partner_id))
        if (new.at, new.cause) != (row.forecast_at, row.forecast_cause):
            changed.setdefault(new, []).append(row.pk)
    for new, alike in changed.items():
        PartnerConsent.objects.filter(pk__in=alike).update(forecast_at=new.at, forecast_cause=new.cause)
    for row in rows:
        _alert(row, now)


def refresh_changed(checked: Sequence[tuple[PartnerConsent, Mapping[str, object]]]) -> None:
    """As ``refresh`` for those of these rows whose inputs a check changed: most checks change none, and cost one query.

    Args:
        checked: rows as they were loaded, and the columns that were written since.
    """
    now = timezone.now()
    changed = {
        row.pk
        for row, columns in checked
        if _alert_step(row, now) != row.alerted_days
        or any(name in columns and columns[name] != getattr(row, name) for name in _INPUTS)
    }
    # What others wrote between load and write, and rows that were not worked out yet.
    keys = [row.pk for row, _ in checked]
    changed.update(PartnerConsent.objects.filter(pk__in=keys).without_right_forecast().values_list("pk", flat=True))
    if changed:
        refresh(changed)


def refresh_registration(registration_id: int) -> None:
    """Work the consents of an application out anew: its credential is another one."""
    _in_batches(list(PartnerConsent.objects.filter(registration=registration_id).values_list("pk", flat=True)))


def refresh_partner(partner: PartnerTenant) -> None:
    """Work the consents of a partner out anew: its relationships are others."""
    refresh(PartnerConsent.objects.for_partner(partner).values_list("pk", flat=True))


def watch(*, between: Callable[[], None] = lambda: None) -> int:
    """Work all tokens in use out anew, and tell staff which ones grow old. Returns how many were looked at.

    Args:
        between: called before each batch; what it raises ends the work there.
    """
    keys = list(PartnerConsent.objects.usable().values_list("pk", flat=True))
    _in_batches(keys, between)
    return len(keys)


def _in_batches(keys: Sequence[int], between: Callable[[], None] = lambda: None) -> None:
    for start in range(0, len(keys), _BATCH):
        between()
        refresh(keys[start : start + _BATCH])


# --- reminders ----------------------------------------------------------------------------------------------------


def token_age(consent: PartnerConsent, now: datetime) -> timedelta | None:
    """Return how long ago the stored token was renewed and saved, None when there is none."""
    return None if consent.stored_at is None else max(now - consent.stored_at, timedelta())


def _alert_step(row: PartnerConsent, now: datetime) -> int:
    """Return the days of the latest alert that is due; 0 while none is."""
    age = token_age(row, now)
    if age is None or row.state in {State.STOPPED, *PartnerConsent.LEFT_STATES}:
        return 0
    return max((days for days in (*ALERT_DAYS, EXPIRED_DAYS) if age >= timedelta(days=days)), default=0)


def _alert(row: PartnerConsent, now: datetime) -> None:
    """Tell staff once at 60, 75 and 85 days without renewal, and say at 90 that it is over (R-11)."""
    step = _alert_step(row, now)
    if step == row.alerted_days:
        return
    with transaction.atomic():
        # One of several processes tells; and a renewal in this moment wins.
        won = PartnerConsent.objects.filter(
            pk=row.pk, alerted_days=row.alerted_days, generation=row.generation, state=row.state
        ).update(alerted_days=step)
        if not won:
            return
        if row.alerted_days:
            alarms.settle(alarms.OF_AGE, [row.pk])
        if step == EXPIRED_DAYS:
            _expire(row)
            alarms.report(alarms.Cause.TOKEN_EXPIRED, row)
        elif step:
            alarms.report(alarms.Cause(f"token_not_renewed_{step}_days"), row, days=step, left=EXPIRED_DAYS - step)


def _expire(row: PartnerConsent) -> None:
    written = PartnerConsent.objects.filter(pk=row.pk, state__in=_MAY_EXPIRE).update(
        state=State.EXPIRED, last_owner=Owner.PARTNER.value, forecast_at=None, forecast_cause="", next_try_at=None
    )
    if written:
        record("token.expired", actor=SYSTEM, subject={"partner": row.partner_id, "consent": row.pk})
