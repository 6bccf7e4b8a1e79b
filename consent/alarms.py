"""The incidents of consents: what happened, who must act, and what staff do next (S-60).

Each is settled where its cause is removed, or by ``consent.settling``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from consent.models import (
    ApplicationCredential,
    ApplicationRegistration,
    ConsentFlow,
    Containment,
    PartnerConsent,
    WaitingToken,
)
from portal.incidents import service
from portal.microsoft.diagnosis import Owner, diagnose
from portal.microsoft.errors import RemoteError

REFUSALS_THAT_ALARM = 10


class Cause(StrEnum):
    """What staff must look into."""

    WRONG_TENANT = "wrong_tenant"
    """Somebody of another tenant, or another account than the one that signed in, came back through a link (S-16)."""
    LINK_REFUSED_OFTEN = "link_refused_often"
    ACCOUNT_WAITS = "account_waits_for_approval"
    """Another account than the pinned one consented, and waits for a decision (S-15)."""
    IDENTITY_MISMATCH = "identity_mismatch"
    """A token did not belong to the record that names it (S-51)."""
    NOT_RENEWED_60 = "token_not_renewed_60_days"
    NOT_RENEWED_75 = "token_not_renewed_75_days"
    NOT_RENEWED_85 = "token_not_renewed_85_days"
    TOKEN_EXPIRED = "token_expired"
    """The stored token is 90 days old: Entra accepts it no longer (R-11)."""
    NEEDS_CONSENT = "token_needs_consent"
    """Microsoft refused the token twice; before, it worked (S-60)."""
    MFA_MISSING = "mfa_missing"
    """Partner Center does not confirm multifactor authentication for the account (S-18)."""
    INTERRUPTED = "interrupted_while_saving"
    """A strictly rotating sign-in service gave a token that was lost before it was in the vault (R-01)."""
    NOT_SAVED = "renewed_but_not_saved"
    """Renewed tokens cannot be saved: one report however many partners it concerns (R-06)."""
    CLOCK_IS_WRONG = "clock_is_wrong"
    """A sign-in was refused because our clock and Microsoft's do not agree (R-42)."""
    CREDENTIAL_REFUSED = "credential_refused"
    """Microsoft refuses our application's own credential; no partner is to blame (R-14)."""
    CREDENTIAL_EXPIRES = "credential_expires"
    """The credential in use ends soon (S-39)."""
    CREDENTIAL_UNUSED = "credential_unused"
    """A credential was made long ago and never put to use."""
    CONSENT_AGAIN = "partners_must_consent_again"
    """A registration asks for more than partners granted, since its permission set was changed."""
    REGISTRATION_CHANGED = "registration_changed"
    """The application at Microsoft is not as we want it, in a way that lets others act as us or stops our work."""
    REGISTRATION_UNREAD = "registration_unread"
    """The daily read of the application at Microsoft fails, so a change there would not be seen."""
    CONTAINED = "contained"
    """An emergency stop is on: no token of what it is about is used."""
    RESUME_HALTED = "resume_halted"
    """The check of a wave found too many tokens that do not work; no further partner is released."""
    DISCONNECT_UNFINISHED = "disconnect_unfinished"
    """The vault did not switch off the token of a disconnected partner (S-67)."""


OF_LINKS = (Cause.WRONG_TENANT, Cause.LINK_REFUSED_OFTEN)
OF_AGE = (Cause.NOT_RENEWED_60, Cause.NOT_RENEWED_75, Cause.NOT_RENEWED_85, Cause.TOKEN_EXPIRED)
OF_CHECKS = (Cause.NEEDS_CONSENT, Cause.MFA_MISSING)
OF_TOKENS = (*OF_AGE, *OF_CHECKS, Cause.IDENTITY_MISMATCH, Cause.INTERRUPTED)
BEFORE_A_NEW_CONSENT = (*OF_CHECKS, Cause.IDENTITY_MISMATCH, Cause.INTERRUPTED, Cause.DISCONNECT_UNFINISHED)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What is reported of a cause.

    Attributes:
        about: what each open incident of the cause concerns; "" for the whole portal.
        words: what happened and what to do, with places for the row and the facts of this time.
    """

    about: str
    owner: Owner
    words: str


_GROWS_OLD = Alarm(
    "consent",
    Owner.US,
    "The token was not renewed for {days} days; in {left} days it is dead. Its page says what fails: repair that, or "
    "send the partner a new link; see on the page of the schedule that tokens are checked every hour.",
)
_ALARMS = {
    Cause.WRONG_TENANT: Alarm(
        "link",
        Owner.US,
        "Somebody signed in through this partner's link with an account of another tenant. Nothing was stored. "
        "Compare both tenant ids in the audit trail; if the link went to a stranger, revoke it and make another.",
    ),
    Cause.LINK_REFUSED_OFTEN: Alarm(
        "link",
        Owner.US,
        f"More than {REFUSALS_THAT_ALARM} attempts through this link were refused. The link's page says why: call the "
        "partner and help, or revoke the link if the partner does not know of it.",
    ),
    Cause.ACCOUNT_WAITS: Alarm(
        "waiting",
        Owner.US,
        "Another account of the partner signed in and waits for approval. Ask the partner, by another way than mail, "
        "whether the account is meant to change; then approve or reject it. After seven days it is dropped.",
    ),
    Cause.IDENTITY_MISMATCH: Alarm(
        "consent",
        Owner.US,
        "A token does not belong to the partner whose record names it; the partner was stopped and nothing is done "
        "with the token. Find out who changed the database or the vault; afterwards send the partner a new link.",
    ),
    Cause.NOT_RENEWED_60: _GROWS_OLD,
    Cause.NOT_RENEWED_75: _GROWS_OLD,
    Cause.NOT_RENEWED_85: _GROWS_OLD,
    Cause.TOKEN_EXPIRED: Alarm(
        "consent",
        Owner.PARTNER,
        "The token was not renewed for 90 days and is dead. Send the partner a new consent link, and see on "
        "its page why it could not be renewed in time.",
    ),
    Cause.NEEDS_CONSENT: Alarm(
        "consent",
        Owner.PARTNER,
        "Microsoft refused the token, and again when it was checked once more: {why} Ask the partner whether somebody "
        "withdrew the consent or the account on purpose, then send a new consent link.",
    ),
    Cause.MFA_MISSING: Alarm(
        "consent",
        Owner.PARTNER,
        "Partner Center does not confirm multifactor authentication for the service account; it may refuse its calls "
        "for it. Let the partner enforce MFA for the account, and sign in through a new consent link.",
    ),
    Cause.INTERRUPTED: Alarm(
        "consent",
        Owner.PARTNER,
        "The renewal of the token was interrupted while saving, and its old token is worth nothing now. Send the "
        "partner a new consent link; find out what stopped the process or the vault at that moment.",
    ),
    Cause.NOT_SAVED: Alarm(
        "",
        Owner.US,
        "The vault takes no new tokens. Those stored before stay good for now, unless the sign-in service rotates "
        "strictly. See why the vault refuses writes: rights, space, network; the next renewals then save again.",
    ),
    Cause.CLOCK_IS_WRONG: Alarm(
        "",
        Owner.US,
        "This server's clock differs by {seconds:.0f} s from Microsoft's: it is {side}. New sign-ins are refused until "
        "it is right; renewals go on. Repair the time service (NTP) of this machine, then let the partner open the "
        "link again.",
    ),
    Cause.CREDENTIAL_REFUSED: Alarm(
        "registration",
        Owner.US,
        "{why} Nothing works for any partner of this application until then, and no partner's state was changed. Roll "
        "back, or add another credential and promote it.",
    ),
    Cause.CREDENTIAL_EXPIRES: Alarm(
        "credential",
        Owner.US,
        "The credential ends on {row.expires_at:%Y-%m-%d}, in {days} days or less. Add a new one, "
        "make it known at Microsoft, then promote it; the partners' tokens stay valid.",
    ),
    Cause.CREDENTIAL_UNUSED: Alarm(
        "credential",
        Owner.US,
        "The credential was made on {row.created_at:%Y-%m-%d} and never put to use; its key lies in the vault for "
        "nothing. Promote it, or retire it and remove it at Microsoft. On {end} it is retired by itself.",
    ),
    Cause.CONSENT_AGAIN: Alarm(
        "registration",
        Owner.US,
        "Its permission set was changed, and {partners} did not grant all of it, or did not prove it. What needs the "
        "new permissions fails for them. Invite them in a campaign: choose Lacks permissions and Permissions not "
        "proven.",
    ),
    Cause.REGISTRATION_CHANGED: Alarm(
        "registration",
        Owner.US,
        "The application at Microsoft is not as it should be. {what} The tab “At Microsoft” of its page lists all "
        "differences, each with its remedy.",
    ),
    Cause.REGISTRATION_UNREAD: Alarm(
        "registration",
        Owner.US,
        "The portal cannot read the application at Microsoft ({since} read), so a change there by others would not be "
        "seen. {reason} Repair the reader of its home tenant (READER_CLIENT_ID or MORE_READERS, and the permission "
        "Application.Read.All), then choose Read again on the tab “At Microsoft” of its page.",
    ),
    Cause.CONTAINED: Alarm(
        "containment",
        Owner.US,
        "{by} stopped all use of its tokens. Work through the runbook (docs/runbook-breach.md): deactivate the "
        "registration, find out what was touched, rotate the credential, tell the partners; then resume.",
    ),
    Cause.RESUME_HALTED: Alarm(
        "containment",
        Owner.US,
        "{why} No further partner is released. See the run of the wave; then choose Go on with the waves on the page "
        "of the emergency stop, or contain again.",
    ),
    Cause.DISCONNECT_UNFINISHED: Alarm(
        "consent",
        Owner.US,
        "The partner was disconnected and nothing is done with its token any more, but the vault did not switch all "
        "versions off. See why the vault refuses, then choose Disconnect for its token once more.",
    ),
}

type Row = Containment | ConsentFlow | WaitingToken | PartnerConsent | ApplicationRegistration | ApplicationCredential


def report(cause: Cause, row: Row | None = None, *, error: RemoteError | None = None, **facts: object) -> None:
    """Tell staff; a repeat counts up.

    Args:
        row: what it concerns; a flow stands for its link.
        error: what Microsoft answered; its cause and remedy are the fact ``why``.
        facts: what the words of this cause have a place for.
    """
    alarm, (key, name, subject) = _ALARMS[cause], _concerned(row)
    if error is not None:
        diagnosis = diagnose(error)
        facts["why"] = f"{diagnosis.cause} {diagnosis.remedy}"
    words = alarm.words.format(row=row, **facts)
    service.report(cause, about=_about(alarm, key), name=name, owner=alarm.owner, words=words, subject=subject)


def settle(causes: Iterable[Cause], keys: Collection[int] = (0,)) -> None:
    """Settle the reports of these causes about the rows with these keys; one query for each cause."""
    for cause in causes:
        if keys:
            service.settle_all(cause, about=[_about(_ALARMS[cause], key) for key in keys])


def _about(alarm: Alarm, key: int) -> str:
    return f"{alarm.about}:{key}" if alarm.about else ""


def _concerned(row: Row | None) -> tuple[int, str, dict[str, int]]:
    """Return key, name and ids of what is reported; of a consent with one query, in the rare case of a report."""
    match row:
        case Containment():
            return row.pk, str(row), {"containment": row.pk}
        case ConsentFlow():
            return row.link_id, str(row.link), {"link": row.link_id, "partner": row.link.partner_id, "flow": row.pk}
        case WaitingToken():
            _, name, subject = _concerned(row.consent)
            return row.pk, name, {"waiting": row.pk, **subject}
        case PartnerConsent():
            named = PartnerConsent.objects.select_related("partner", "registration").get(pk=row.pk)
            return row.pk, str(named), {"consent": row.pk, "partner": named.partner_id}
        case ApplicationRegistration():
            return row.pk, row.name, {"registration": row.pk, "credential": row.credential_id or 0}
        case ApplicationCredential():
            name = f"{row.registration.name}, {row.get_kind_display().lower()}"
            return row.pk, name, {"registration": row.registration_id, "credential": row.pk}
        case None:
            return 0, "", {}
