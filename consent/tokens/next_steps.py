"""What staff read about a partner's token: what is wrong with it, since when, who acts, what to do, and why it ends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings

from consent.models import PartnerConsent
from consent.permissions import held
from consent.tokens.checking import MFA_UNPROVEN
from consent.tokens.health import LIFETIME
from portal.microsoft.diagnosis import FailureClass, Owner
from tenants.models import PartnerTenant

SOON = timedelta(days=30)  # ends that are nearer want somebody to act
State = PartnerConsent.State
Cause = PartnerConsent.ForecastCause


class Step(NamedTuple):
    """The next thing to do; ``owner`` is None where nothing is to be done. ``what`` says how things stand."""

    owner: Owner | None
    text: str
    what: str = ""


NOTHING = Step(None, "Nothing to do.", "The token works.")
NEW_LINK = "Send the partner a new consent link."
_BY_STATE: Mapping[str, Step] = {
    State.EXPIRED: Step(
        Owner.PARTNER,
        f"{NEW_LINK} Find out why the token was not renewed for 90 days.",
        "The token was not renewed for 90 days and is over.",
    ),
    State.STOPPED: Step(
        Owner.US,
        "Look at the audit trail before anything else; then send the partner a new link.",
        "The token was stopped: it is not of the account that its record names.",
    ),
    State.DISCONNECTED: Step(
        Owner.PARTNER,
        "The partner revokes the account's sessions and removes the enterprise application; confirm it here then.",
        "We disconnected the partner; Microsoft may still accept the token.",
    ),
    State.REVOKED: Step(
        None,
        "Nothing to do. A new consent link brings the partner back.",
        "The partner is disconnected, and the token is dead.",
    ),
}
_BY_SWITCH: Mapping[str, Step] = {
    PartnerTenant.Switch.DISABLED: Step(
        None, "Nothing is done for a disabled partner. Enable it to go on.", "The partner is disabled."
    ),
    PartnerTenant.Switch.OFFBOARDED: Step(
        None, "Nothing to do: the partner was offboarded.", "The partner is offboarded."
    ),
}
_OFFBOARDING = Step(None, "The page of the offboarding says what is left to do.", "The partner is being offboarded.")
_WRONG: Mapping[str, str] = {
    State.NEEDS_CONSENT: "The partner must consent again.",
    State.MFA_MISSING: "Partner Center does not confirm multifactor authentication.",
    State.CONNECTED: "The last check was refused.",
}
_BY_CLASS: Mapping[str, Step] = {
    FailureClass.OUR_CREDENTIAL: Step(
        Owner.US,
        "Check the application's credential, and store a valid one.",
        "Microsoft does not accept our application's credential.",
    ),
    FailureClass.TEMPORARY: Step(
        Owner.NOBODY, "Nothing to do: the portal tries again.", "The last check got no proper answer."
    ),
    FailureClass.THROTTLED: Step(
        Owner.NOBODY, "Nothing to do: the portal waits and tries again.", "Microsoft asked us to wait."
    ),
    FailureClass.PROTOCOL_ERROR: Step(
        Owner.US,
        "Look up the audit trail's correlation id, and report what it says.",
        "Microsoft refused our request as wrong.",
    ),
    FailureClass.UNKNOWN: Step(
        Owner.US,
        "Look at the code and the correlation id before anything is changed.",
        "The last check failed, and its code is not known to us.",
    ),
}
ENDS: Mapping[str, Step] = {
    Cause.IDLE: Step(
        Owner.US, "The token is 90 days old then. See what its last check says, and that the schedule checks tokens."
    ),
    Cause.SIGN_IN: Step(
        Owner.PARTNER,
        "A policy ends each sign-in: the partner excludes the service account from sign-in frequency, then consents.",
    ),
    Cause.CREDENTIAL: Step(Owner.US, "The application's credential ends: store a new one before that."),
    Cause.GDAP: Step(Owner.PARTNER, "A GDAP relationship with a customer ends: the partner renews it."),
}

TRUTH = (
    "Microsoft offers no call that revokes one refresh token, and a new password of the service account does not "
    "revoke the tokens of an application like ours. The portal stops at once and switches its copies off; a copy "
    "that was stolen before could still be used, until the partner's administrator has done the following."
)


def partners_duties(application: str, application_id: str) -> list[str]:
    """Return what the partner's administrator must do for the token to be dead (S-67)."""
    return [
        "Revoke the sessions of the service account: Entra admin center, Users, the account, Revoke sessions.",
        f"Remove the enterprise application {application} ({application_id}): Enterprise applications, Delete.",
        "Tell us when both are done, so that we note it here.",
    ]


def is_stale(consent: PartnerConsent, now: datetime) -> bool:
    """Tell whether the last proof is older than checks are meant to be: then its state is not known (R-45).

    It reads the consent's partner: of one that is disabled or offboarded nothing is checked.
    """
    if consent.state not in {State.CONNECTED, State.MFA_MISSING} or not consent.partner.is_active:
        return False
    return consent.last_success_at is None or now - consent.last_success_at > timedelta(
        hours=settings.TOKEN_CHECK_HOURS
    )


def next_step(consent: PartnerConsent, now: datetime) -> Step:
    """Say who acts and what to do, in the order of what matters most. It reads the consent's partner."""
    if step := _BY_SWITCH.get(consent.partner.switch):
        return step
    if consent.partner.offboarding_since is not None:
        return _OFFBOARDING
    if step := _BY_STATE.get(consent.state):
        return step
    if consent.last_problem or consent.state != State.CONNECTED:
        owner = Owner(consent.last_owner) if consent.last_owner else Owner.PARTNER
        return Step(owner, consent.last_message or NEW_LINK, _WRONG[consent.state])
    if consent.last_class == MFA_UNPROVEN:
        return Step(Owner.NOBODY, consent.last_message, "Partner Center gave no verdict at the last check.")
    if step := _BY_CLASS.get(consent.last_class):
        return step
    if consent.forecast_at is not None and consent.forecast_at - now < SOON:
        end = ENDS[consent.forecast_cause]
        return end._replace(what=f"The token ends on {consent.forecast_at:%Y-%m-%d}: {_cause(consent)}.")
    if is_stale(consent, now):
        return Step(
            Owner.US,
            "Check it now, and see in the schedule that checking and renewing tokens runs every hour.",
            "Nobody knows how the token stands: the last proof is too old.",
        )
    if missing := held(consent.granted_scopes, consent.registration.asked).missing:
        return Step(
            Owner.PARTNER,
            f"{NEW_LINK} The application asks for more than was granted: {missing.words()}.",
            "The partner granted less than the application asks for.",
        )
    return NOTHING


def _cause(consent: PartnerConsent) -> str:
    label = str(consent.get_forecast_cause_display())
    return label[0].lower() + label[1:]


def wrong_since(consent: PartnerConsent) -> datetime | None:
    """Return since when a token is not well, as far as it is known; None while it is, or when it never was."""
    if consent.state == State.EXPIRED:
        return None if consent.stored_at is None else consent.stored_at + LIFETIME
    if consent.last_problem or consent.state != State.CONNECTED:
        return consent.first_denied_at or consent.last_success_at or consent.last_try_at
    return consent.last_success_at if consent.failures else None
