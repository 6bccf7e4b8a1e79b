"""The incidents of consents, with their words: what happened, and what staff do next (S-60)."""

from __future__ import annotations

from collections.abc import Collection

from consent.models import ApplicationCredential, ApplicationRegistration, ConsentFlow, PartnerConsent, WaitingToken
from portal.incidents.desk import report, settle, settle_all
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError

REFUSALS_THAT_ALARM = 10


def _name(consent_id: int) -> str:
    """Name partner and application; one query, in the rare case that there is something to report."""
    return str(PartnerConsent.objects.select_related("partner", "registration").get(pk=consent_id))


def wrong_tenant(flow: ConsentFlow) -> None:
    """Somebody of another tenant, or another account than the one that signed in, came back through a link (S-16)."""
    report(
        "wrong_tenant",
        about=f"link:{flow.link_id}",
        name=str(flow.link),
        owner=Owner.US,
        words=(
            "Somebody signed in through this partner's link with an account of another tenant. Nothing was stored. "
            "Compare both tenant ids in the audit trail; if the link went to a stranger, revoke it and make another."
        ),
        subject={"link": flow.link_id, "partner": flow.link.partner_id, "flow": flow.pk},
    )


def refused_often(flow: ConsentFlow) -> None:
    """Report a link through which more than ten attempts were refused."""
    if ConsentFlow.objects.filter(link=flow.link_id, outcome=ConsentFlow.Outcome.REFUSED).count() > REFUSALS_THAT_ALARM:
        report(
            "link_refused_often",
            about=f"link:{flow.link_id}",
            name=str(flow.link),
            owner=Owner.US,
            words=(
                f"More than {REFUSALS_THAT_ALARM} attempts through this link were refused. The link's page says why: "
                "call the partner and help, or revoke the link if the partner does not know of it."
            ),
            subject={"link": flow.link_id, "partner": flow.link.partner_id},
        )


def account_waits(waiting: WaitingToken, partner_id: int) -> None:
    """Another account than the pinned one consented, and waits for a decision (S-15)."""
    report(
        "account_waits_for_approval",
        about=f"waiting:{waiting.pk}",
        name=_name(waiting.consent_id),
        owner=Owner.US,
        words=(
            "Another account of the partner signed in and waits for approval. Ask the partner, by another way than "
            "mail, whether the account is meant to change; then approve or reject it. After seven days it is dropped."
        ),
        subject={"waiting": waiting.pk, "partner": partner_id, "consent": waiting.consent_id},
    )


def account_decided(waiting: WaitingToken) -> None:
    """Settle the report of an account that waits no longer."""
    settle("account_waits_for_approval", about=f"waiting:{waiting.pk}")


def identity_mismatch(consent: PartnerConsent) -> None:
    """A token did not belong to the record that names it (S-51)."""
    report(
        "identity_mismatch",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.US,
        words=(
            "A token does not belong to the partner whose record names it; the partner was stopped and nothing is done "
            "with the token. Find out who changed the database or the vault; afterwards send the partner a new link."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def token_grows_old(consent: PartnerConsent, days: int, left: int) -> None:
    """The stored token was not renewed for 60, 75 or 85 days (R-11)."""
    report(
        f"token_not_renewed_{days}_days",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.US,
        words=(
            f"The token was not renewed for {days} days; in {left} days it is dead. Its page says "
            "what fails: repair that, or send the partner a new link; see that keep_alive runs every hour."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def token_expired(consent: PartnerConsent) -> None:
    """The stored token is 90 days old: Entra accepts it no longer (R-11)."""
    report(
        "token_expired",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.PARTNER,
        words=(
            "The token was not renewed for 90 days and is dead. Send the partner a new consent link, and see "
            "why keep_alive could not renew it in time."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def token_renewed(consent: PartnerConsent) -> None:
    """Settle what was told about the age of a token."""
    for cause in ("token_not_renewed_60_days", "token_not_renewed_75_days", "token_not_renewed_85_days"):
        settle(cause, about=f"consent:{consent.pk}")
    settle("token_expired", about=f"consent:{consent.pk}")


def needs_consent(consent: PartnerConsent, cause: str) -> None:
    """Microsoft refused the token twice; before, it worked (S-60)."""
    report(
        "token_needs_consent",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.PARTNER,
        words=(
            f"Microsoft refused the token, and again when it was checked once more: {cause} Ask the partner "
            "whether somebody withdrew the consent or the account on purpose, then send a new consent link."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def mfa_missing(consent: PartnerConsent) -> None:
    """Partner Center does not confirm multifactor authentication for the account (S-18)."""
    report(
        "mfa_missing",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.PARTNER,
        words=(
            "Partner Center does not confirm multifactor authentication for the service account; it may refuse "
            "its calls for it. Let the partner enforce MFA for the account, and sign in through a new consent link."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def works_again(consent: PartnerConsent) -> None:
    """Settle what was reported about a token that works and is proven by MFA."""
    settle("token_needs_consent", about=f"consent:{consent.pk}")
    settle("mfa_missing", about=f"consent:{consent.pk}")


def interrupted_while_saving(consent: PartnerConsent) -> None:
    """A strictly rotating sign-in service gave a token that was lost before it was in the vault (R-01)."""
    report(
        "interrupted_while_saving",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.PARTNER,
        words=(
            "The renewal of the token was interrupted while saving, and its old token is worth nothing now. "
            "Send the partner a new consent link; find out what stopped the process or the vault at that moment."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def found_again(consent: PartnerConsent) -> None:
    """Settle the report of a lost token: there is one again."""
    settle("interrupted_while_saving", about=f"consent:{consent.pk}")


def consented_again(consent: PartnerConsent) -> None:
    """Settle everything that was reported about the token before: a new one of this account was proven and stored."""
    found_again(consent)
    works_again(consent)
    for cause in ("identity_mismatch", "disconnect_unfinished"):
        settle(cause, about=f"consent:{consent.pk}")
    credentials_work([consent.registration_id])


def link_is_over(link_id: int) -> None:
    """Settle what was reported about a link through which nobody can come any more."""
    for cause in ("wrong_tenant", "link_refused_often"):
        settle(cause, about=f"link:{link_id}")


def not_saved() -> None:
    """Renewed tokens cannot be saved: one report however many partners it concerns (R-06)."""
    report(
        "renewed_but_not_saved",
        owner=Owner.US,
        words=(
            "The vault takes no new tokens. Those stored before stay good for now, unless the sign-in service rotates "
            "strictly. See why the vault refuses writes: rights, space, network; the next renewals then save again."
        ),
    )


def saved_again() -> None:
    """Settle the report that the vault takes no new tokens."""
    settle("renewed_but_not_saved")


def clock_is_wrong(ahead: float) -> None:
    """A sign-in was refused because our clock and Microsoft's do not agree (R-42).

    Args:
        ahead: seconds that ours is ahead; negative when it is behind.
    """
    report(
        "clock_is_wrong",
        owner=Owner.US,
        words=(
            f"This server's clock differs by {abs(ahead):.0f} s from Microsoft's: it is "
            f"{'ahead' if ahead > 0 else 'behind'}. New sign-ins are refused until it is right; renewals go on. Repair "
            "the time service (NTP) of this machine, then let the partner open the link again."
        ),
    )


def clock_is_right() -> None:
    """Settle the report of a wrong clock: the times of a new sign-in were believed."""
    settle("clock_is_wrong")


def credential_refused(registration: ApplicationRegistration, error: RemoteError) -> None:
    """Microsoft refuses our application's own credential; no partner is to blame (R-14)."""
    diagnosis = diagnose(error)
    report(
        "credential_refused",
        about=f"registration:{registration.pk}",
        name=registration.name,
        owner=Owner.US,
        words=(
            f"{diagnosis.cause} {diagnosis.remedy} Nothing works for any partner of this application until then, and "
            "no partner's state was changed. Roll back, or add another credential and promote it."
        ),
        subject={"registration": registration.pk, "credential": registration.credential_id or 0},
    )


def credentials_work(registrations: Collection[int]) -> None:
    """Settle the reports of refused credentials of these applications: a token was redeemed with them. One query."""
    if registrations:
        settle_all("credential_refused", about=[f"registration:{key}" for key in registrations])


def credential_expires(credential: ApplicationCredential, days: int) -> None:
    """The credential in use ends in at most so many days (S-39)."""
    report(
        "credential_expires",
        about=f"credential:{credential.pk}",
        name=f"{credential.registration.name}, {credential.get_kind_display().lower()}",
        owner=Owner.US,
        words=(
            f"The credential ends on {credential.expires_at:%Y-%m-%d}, in {days} days or less. Add a new one at "
            "Microsoft and here "
            "(manage.py add_credential), then promote it; the partners' tokens stay valid."
        ),
        subject={"registration": credential.registration_id, "credential": credential.pk},
    )


def credential_replaced(credential_id: int) -> None:
    """Settle the warning about a credential that is not in use any more."""
    settle("credential_expires", about=f"credential:{credential_id}")


def disconnect_unfinished(consent: PartnerConsent) -> None:
    """The vault did not switch off the token of a disconnected partner (S-67)."""
    report(
        "disconnect_unfinished",
        about=f"consent:{consent.pk}",
        name=_name(consent.pk),
        owner=Owner.US,
        words=(
            "The partner was disconnected and nothing is done with its token any more, but the vault did not switch "
            "all versions off. See why the vault refuses, then choose Disconnect for its token once more."
        ),
        subject={"consent": consent.pk, "partner": consent.partner_id},
    )


def vault_is_silent(consent: PartnerConsent) -> None:
    """Settle the report that a disconnected partner's token is still on in the vault."""
    settle("disconnect_unfinished", about=f"consent:{consent.pk}")
