"""The incidents of consents on the page of incidents: titles, and the button that does the next step for all of one."""

from __future__ import annotations

from collections.abc import Mapping

from consent.alarms import Cause
from consent.customers.applying import GRANTS_LOST
from consent.customers.observations import DRIFT
from consent.offboarding.partner_erasure import UNFINISHED
from consent.runs.customer_sync import ODD, TOO_MANY
from consent.uses.unusual import Cause as Unusual
from portal.site.causes import CauseWords, Remedy

_PARTNERS = "tenants.PartnerTenant"
_CHECK = Remedy(label="Check again", model=_PARTNERS, action="check_partners", word="partner")
_INVITE = Remedy(label="Invite again", model=_PARTNERS, action="invite_in_campaign", word="partner")
_SYNC = Remedy(label="Synchronise again", model=_PARTNERS, action="sync_partners", word="partner")
_LINKS = Remedy(label="See the links", model="consent.ConsentLink")
_CREDENTIALS = Remedy(label="See the credentials", model="consent.ApplicationCredential")
_REGISTRATIONS = Remedy(label="See the registrations", model="consent.ApplicationRegistration")
_TOKENS = Remedy(label="See the tokens", model="consent.PartnerConsent")
_STOPS = Remedy(label="See the emergency stops", model="consent.Containment")
_USES = Remedy(label="See the uses", model="consent.TokenUse")
_ERASURES = Remedy(label="See the erasures", model="consent.Erasure")
_CONSENTS = Remedy(label="See the consents", model="consent.CustomerConsent")

CAUSES: Mapping[str, CauseWords] = {
    Cause.WRONG_TENANT: CauseWords(title="Account of another tenant", remedy=_LINKS),
    Cause.LINK_REFUSED_OFTEN: CauseWords(title="Link refused often", remedy=_LINKS),
    Cause.ACCOUNT_WAITS: CauseWords(
        title="Account waits for approval", remedy=Remedy(label="Approve or reject", model="consent.WaitingToken")
    ),
    Cause.IDENTITY_MISMATCH: CauseWords(title="Token of another identity", remedy=_TOKENS),
    Cause.NOT_RENEWED_60: CauseWords(title="Token not renewed for 60 days", remedy=_CHECK),
    Cause.NOT_RENEWED_75: CauseWords(title="Token not renewed for 75 days", remedy=_CHECK),
    Cause.NOT_RENEWED_85: CauseWords(title="Token not renewed for 85 days", remedy=_CHECK),
    Cause.TOKEN_EXPIRED: CauseWords(title="Token expired", remedy=_INVITE),
    Cause.NEEDS_CONSENT: CauseWords(title="Consent needed again", remedy=_INVITE),
    Cause.MFA_MISSING: CauseWords(title="MFA missing", remedy=_CHECK),
    Cause.INTERRUPTED: CauseWords(title="Interrupted while saving", remedy=_INVITE),
    Cause.NOT_SAVED: CauseWords(title="Renewed but not saved", remedy=_TOKENS),
    Cause.CLOCK_IS_WRONG: CauseWords(title="Clock of this server is wrong"),
    Cause.CREDENTIAL_REFUSED: CauseWords(title="Credential refused", remedy=_CREDENTIALS),
    Cause.CONTAINED: CauseWords(title="Emergency stop", remedy=_STOPS),
    Unusual.ACTOR: CauseWords(title="Unusual: a new name uses tokens", remedy=_USES),
    Unusual.RATE: CauseWords(title="Unusual: ten times as many tokens", remedy=_USES),
    Unusual.SPREAD: CauseWords(title="Unusual: many partners within seconds", remedy=_USES),
    Unusual.HOUR: CauseWords(title="Unusual: an hour never used before", remedy=_USES),
    Cause.RESUME_HALTED: CauseWords(title="Resuming halted", remedy=_STOPS),
    Cause.CREDENTIAL_EXPIRES: CauseWords(title="Credential expires", remedy=_CREDENTIALS),
    Cause.CREDENTIAL_UNUSED: CauseWords(title="Credential never used", remedy=_CREDENTIALS),
    Cause.CONSENT_AGAIN: CauseWords(
        title="Partners must consent again",
        remedy=Remedy(label="See the tokens", model="consent.PartnerConsent", query="permissions=again"),
    ),
    Cause.REGISTRATION_CHANGED: CauseWords(title="Registration changed at Microsoft", remedy=_REGISTRATIONS),
    Cause.REGISTRATION_UNREAD: CauseWords(title="Registration cannot be read", remedy=_REGISTRATIONS),
    Cause.DISCONNECT_UNFINISHED: CauseWords(title="Disconnect unfinished", remedy=_TOKENS),
    UNFINISHED: CauseWords(title="Erasure unfinished", remedy=_ERASURES),
    DRIFT: CauseWords(title="Consent changed by others", remedy=_CONSENTS),
    GRANTS_LOST: CauseWords(
        title="Customer grants lost", remedy=Remedy(label="See the plans", model="consent.ConsentPlan")
    ),
    TOO_MANY: CauseWords(title="Many customers missing from a list", remedy=_SYNC),
    ODD: CauseWords(title="Items of Microsoft's lists unreadable", remedy=_SYNC),
}
