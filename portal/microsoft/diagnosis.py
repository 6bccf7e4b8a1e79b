"""One table from which every failure text that a person sees comes: cause, who must act, what to do next.

Protocol fields decide (``error``, ``suberror``, HTTP status); Microsoft's numbers only choose a better sentence,
because Microsoft says that they change (R-15). An unknown number means "look", never "dead".

Source: Microsoft Entra "Authentication and authorization error codes", Partner Center "REST error codes".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from portal.microsoft.errors import (
    AccessDenied,
    AlreadyExists,
    AuthenticationFailed,
    Conflict,
    ConsentRequired,
    InvalidRequest,
    MfaRequired,
    NotFound,
    RemoteError,
    ServerFault,
    Throttled,
    UnexpectedResponse,
    Unreachable,
)


class Owner(StrEnum):
    """Who must act."""

    US = "us"
    PARTNER = "partner"
    CUSTOMER = "customer"
    MICROSOFT = "microsoft"
    NOBODY = "nobody"


class FailureClass(StrEnum):
    """What kind of outcome it was (R-15)."""

    OK = "ok"
    NEEDS_CONSENT = "needs_consent"
    NEEDS_INTERACTION = "needs_interaction"
    OUR_CREDENTIAL = "our_credential"
    NOT_PERMITTED = "not_permitted"
    NOT_FOUND = "not_found"
    THROTTLED = "throttled"
    TEMPORARY = "temporary"
    PROTOCOL_ERROR = "protocol_error"
    UNKNOWN = "unknown"

    @property
    def systemic(self) -> bool:
        """Whether the cause lies with us or with the service, so that no partner's state may change (R-14)."""
        return self not in {
            FailureClass.OK,
            FailureClass.NEEDS_CONSENT,
            FailureClass.NEEDS_INTERACTION,
            FailureClass.NOT_PERMITTED,
            FailureClass.NOT_FOUND,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One row, read for a person."""

    key: str
    cause: str
    failure_class: FailureClass
    owner: Owner
    remedy: str
    error: type[RemoteError]
    fatal_for_token: bool = False
    """The stored refresh token never heals without a new consent."""

    @property
    def retry(self) -> bool:
        return self.error.retryable


_AGAIN = "Send the partner a new consent link."
_MFA_AGAIN = "Send a new consent link; the service account signs in with MFA."
_LATER = "Nothing to do; the portal tries again."

_KINDS: dict[FailureClass, type[RemoteError]] = {
    FailureClass.NEEDS_CONSENT: ConsentRequired,
    FailureClass.NEEDS_INTERACTION: ConsentRequired,
    FailureClass.OUR_CREDENTIAL: AuthenticationFailed,
    FailureClass.NOT_PERMITTED: AccessDenied,
    FailureClass.NOT_FOUND: NotFound,
    FailureClass.THROTTLED: Throttled,
    FailureClass.TEMPORARY: ServerFault,
    FailureClass.PROTOCOL_ERROR: InvalidRequest,
    FailureClass.UNKNOWN: UnexpectedResponse,
}

# The value of ``error`` decides the class.
_BY_ERROR: dict[str, tuple[FailureClass, Owner, str, str]] = {
    "invalid_grant": (FailureClass.NEEDS_CONSENT, Owner.PARTNER, "The stored token is no longer accepted.", _AGAIN),
    "interaction_required": (
        FailureClass.NEEDS_INTERACTION,
        Owner.PARTNER,
        "Microsoft wants the service account to sign in again.",
        _AGAIN,
    ),
    "login_required": (FailureClass.NEEDS_INTERACTION, Owner.PARTNER, "A new sign-in is needed.", _AGAIN),
    "consent_required": (FailureClass.NEEDS_CONSENT, Owner.PARTNER, "The consent is missing or withdrawn.", _AGAIN),
    "access_denied": (
        FailureClass.NEEDS_INTERACTION,
        Owner.PARTNER,
        "A policy of the tenant refused the sign-in.",
        "Let the tenant's administrator read the sign-in log and adapt the policy.",
    ),
    "invalid_client": (
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        "Microsoft refused our application's own credential.",
        "Check secret or certificate of the registration and store a valid one.",
    ),
    "unauthorized_client": (
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        "Our application is not known or not allowed there.",
        "Check application id, tenant and cloud of the registration.",
    ),
    "temporarily_unavailable": (FailureClass.TEMPORARY, Owner.NOBODY, "The sign-in service is busy.", _LATER),
    "server_error": (FailureClass.TEMPORARY, Owner.NOBODY, "The sign-in service has a fault.", _LATER),
}
for _name in (
    "invalid_request",
    "invalid_scope",
    "invalid_resource",
    "invalid_target",
    "invalid_tenant",
    "unsupported_grant_type",
    "unsupported_response_type",
):
    _BY_ERROR[_name] = (
        FailureClass.PROTOCOL_ERROR,
        Owner.US,
        "Microsoft did not accept the portal's request.",
        "Check the registration; if it is right, report this with the correlation id.",
    )

_MFA_CODES = frozenset({50072, 50074, 50076, 50078, 50079, 53004, 53010})
_THROTTLE_CODES = frozenset({50196, 90055})
_FATAL_CODES = frozenset({700082, 70008, 700084, 50173, 50133, 50132, 70043, 70000, 50034})

# Better sentences for known numbers: owner, cause, remedy. The class stays that of ``error``.
_BY_NUMBER: dict[int, tuple[Owner, str, str]] = {
    50012: (Owner.US, "Microsoft rejected the certificate.", "Check that it is uploaded to the registration."),
    50020: (
        Owner.PARTNER,
        "The account is not known in this tenant.",
        "Put the service account in the GDAP security group, and use a member account, not a guest.",
    ),
    50034: (Owner.PARTNER, "The service account does not exist any more.", "Consent again with a live account."),
    50053: (Owner.PARTNER, "The service account is locked.", "Unlock it and review its sign-in log."),
    50055: (Owner.PARTNER, "The service account's password has expired.", "Change it, then consent again."),
    50057: (Owner.PARTNER, "The service account is disabled.", "Enable it, or consent with another account."),
    50072: (Owner.PARTNER, "The service account must register for MFA.", "Register MFA, then consent again."),
    50074: (Owner.PARTNER, "The sign-in lacked strong authentication.", _MFA_AGAIN),
    50076: (Owner.PARTNER, "A policy asks for MFA, and the token carries none.", _MFA_AGAIN),
    50078: (Owner.PARTNER, "The MFA proof has expired by policy.", "Exempt the account from short MFA sessions."),
    50079: (Owner.PARTNER, "The service account must register for MFA.", "Register MFA, then consent again."),
    50105: (Owner.PARTNER, "The account is not assigned to the application.", "Assign it in the enterprise app."),
    50132: (Owner.PARTNER, "The session was ended by a password change.", _AGAIN),
    50133: (Owner.PARTNER, "The session was revoked after a password change.", _AGAIN),
    50173: (Owner.PARTNER, "Somebody revoked the service account's sessions.", _AGAIN),
    50177: (
        Owner.PARTNER,
        "The tenant asks for a check that accounts of partners cannot pass.",
        "Use a member account in the GDAP group.",
    ),
    50196: (Owner.NOBODY, "The same request came too often.", _LATER),
    53000: (Owner.PARTNER, "A device rule refused the account.", "Exclude the service account from device rules."),
    53003: (Owner.PARTNER, "Conditional Access blocked the sign-in.", "Allow this application in the policy."),
    53011: (Owner.PARTNER, "The account is blocked for risk.", "Clear the user risk in the partner's tenant."),
    54005: (Owner.NOBODY, "The sign-in answer was used before.", "Start again with the same link."),
    65001: (Owner.PARTNER, "The application has no consent in this tenant.", _AGAIN),
    65004: (Owner.PARTNER, "The consent was declined.", "Open the link again and press Accept."),
    650052: (Owner.PARTNER, "The tenant lacks the service principal of the resource.", "Create it there."),
    650057: (Owner.US, "The registration does not list this resource.", "Add the permission, then consent again."),
    70000: (Owner.PARTNER, "Microsoft does not recognise the token.", _AGAIN),
    70008: (Owner.PARTNER, "The token has expired.", _AGAIN),
    70043: (
        Owner.PARTNER,
        "A sign-in frequency policy ended the token.",
        "Exclude the service account from sign-in frequency, then consent again.",
    ),
    700016: (Owner.PARTNER, "The application is not present in this tenant.", _AGAIN),
    700024: (Owner.US, "Our assertion was outside its valid time.", "Synchronise this server's clock."),
    700027: (Owner.US, "Microsoft does not know our certificate.", "Upload it, and wait some minutes."),
    700082: (Owner.PARTNER, "The token was unused for 90 days.", "Send a new link, and see why keep-alive stopped."),
    700084: (Owner.US, "The redirect URI is of the SPA kind.", "Move it to the Web platform, then consent again."),
    7000112: (Owner.PARTNER, "The application is disabled in this tenant.", "Enable the enterprise application."),
    7000215: (Owner.US, "The client secret is wrong.", "Store the secret's value, not its id."),
    7000218: (Owner.US, "No credential was sent.", "Store a credential for the registration."),
    7000222: (Owner.US, "The client secret has expired.", "Create a new one and store it; tokens stay valid."),
    90002: (Owner.US, "Microsoft knows no such tenant in this cloud.", "Check tenant id and cloud of the partner."),
    90038: (Owner.US, "The tenant belongs to another national cloud.", "Correct the partner's cloud."),
    90055: (Owner.NOBODY, "The tenant is being throttled.", _LATER),
    90094: (Owner.PARTNER, "An administrator must consent.", "Let a Global Administrator open the link."),
    90099: (Owner.US, "The application is not authorised in this customer.", "Push the consent to this customer."),
    9002313: (Owner.PARTNER, "The stored token is damaged.", _AGAIN),
    500011: (Owner.PARTNER, "The resource does not exist in this tenant.", "Create its service principal there."),
    500133: (Owner.US, "A token was outside its valid time.", "Synchronise this server's clock."),
    500212: (Owner.PARTNER, "The partner's tenant blocks outbound access.", "Allow access to the customer's tenant."),
    500213: (Owner.CUSTOMER, "The customer's tenant blocks inbound access.", "Allow service providers inbound."),
    501481: (Owner.NOBODY, "The sign-in belongs to another attempt.", "Start again with the same link."),
}
# The application is known and has a credential; it lacks its consent in that tenant.
_NOT_CONSENTED = frozenset({65001, 700016, 90099, 7000112, 7000229, 650052})
_COMPANIONS = frozenset({70002})


def diagnose_token_error(
    *,
    error: str,
    suberror: str = "",
    error_codes: Sequence[int] = (),
    status: int | None,
    customer_tenant: bool = False,
) -> Diagnosis:
    """Read an error of the token endpoint.

    Args:
        customer_tenant: the answer came from a customer's authority: it says nothing about the partner's token.
    """
    number = next((code for code in error_codes if code not in _COMPANIONS), next(iter(error_codes), 0))
    key = f"AADSTS{number}" if number else error or f"HTTP{status or 0}"
    if status == 429 or number in _THROTTLE_CODES:
        return _row(key, FailureClass.THROTTLED, _BY_NUMBER.get(number, _BY_NUMBER[90055]))
    known = _BY_ERROR.get(error)
    if known is None and status is not None and status >= 500:
        known = _BY_ERROR["server_error"]
    if known is None:
        return _row(
            key,
            FailureClass.UNKNOWN,
            (Owner.US, "Microsoft answered with an error that the portal does not know.", "Look at its code."),
        )
    failure_class, owner, cause, remedy = known
    kind: type[RemoteError] | None = None
    if failure_class is FailureClass.OUR_CREDENTIAL and number in _NOT_CONSENTED:
        failure_class = FailureClass.NEEDS_CONSENT
    if failure_class in {FailureClass.NEEDS_CONSENT, FailureClass.NEEDS_INTERACTION} and number in _MFA_CODES:
        failure_class, kind = FailureClass.NEEDS_INTERACTION, MfaRequired
    words = _BY_NUMBER.get(number, (owner, cause, remedy))
    if (
        customer_tenant
        and failure_class is FailureClass.NEEDS_CONSENT
        and (number in _NOT_CONSENTED or suberror == "consent_required")
    ):
        words = (Owner.US, "The application has no consent in this customer.", "Push the consent to this customer.")
    fatal = number in _FATAL_CODES and not customer_tenant
    return _row(key, failure_class, words, kind=kind, fatal=fatal)


def _row(
    key: str,
    failure_class: FailureClass,
    words: tuple[Owner, str, str],
    *,
    kind: type[RemoteError] | None = None,
    fatal: bool = False,
) -> Diagnosis:
    owner, cause, remedy = words
    return Diagnosis(
        key=key,
        cause=cause,
        failure_class=failure_class,
        owner=owner,
        remedy=remedy,
        error=kind or _KINDS[failure_class],
        fatal_for_token=fatal,
    )


_BY_STATUS: dict[int, tuple[type[RemoteError], FailureClass, Owner, str, str]] = {
    400: (InvalidRequest, FailureClass.PROTOCOL_ERROR, Owner.US, "The request was not accepted.", "Report this code."),
    401: (
        AuthenticationFailed,
        FailureClass.NOT_PERMITTED,
        Owner.US,
        "The access token was not accepted.",
        "Check that the application is registered with this service.",
    ),
    403: (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "The service account lacks a right.",
        "Check its roles and groups, and the consented permissions.",
    ),
    404: (NotFound, FailureClass.NOT_FOUND, Owner.US, "It does not exist, or is not visible.", "Synchronise again."),
    409: (Conflict, FailureClass.UNKNOWN, Owner.US, "It conflicts with what is there.", "Look at what is there."),
    412: (Conflict, FailureClass.UNKNOWN, Owner.US, "It was changed meanwhile.", "Look at what is there."),
    429: (Throttled, FailureClass.THROTTLED, Owner.NOBODY, "Too many requests.", _LATER),
}

_ADMIN_AGENT = "Put the service account into the AdminAgents group, and give it the GDAP role."
_API_CODES: dict[tuple[str, str], tuple[type[RemoteError], FailureClass, Owner, str, str]] = {
    ("partner_center", "900421"): (
        MfaRequired,
        FailureClass.NEEDS_INTERACTION,
        Owner.PARTNER,
        "Partner Center refuses the token because its sign-in had no MFA.",
        _MFA_AGAIN,
    ),
    ("partner_center", "10001"): (
        MfaRequired,
        FailureClass.NEEDS_INTERACTION,
        Owner.PARTNER,
        "Partner Center refuses the token because its sign-in had no MFA.",
        _MFA_AGAIN,
    ),
    ("partner_center", "900150"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "The service account is not an Admin Agent, or lacks the GDAP role.",
        _ADMIN_AGENT,
    ),
    ("partner_center", "2032"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "Partner Center denied access.",
        _ADMIN_AGENT,
    ),
    ("partner_center", "20002"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "The partner has no relationship with this customer.",
        "Check the customer; the relationship may have ended.",
    ),
    ("partner_center", "900123"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "The reseller has not accepted the Microsoft Partner Agreement.",
        "Let the partner accept it in Partner Center.",
    ),
    ("partner_center", "900124"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "The company has not accepted the Microsoft Partner Agreement.",
        "Let a Global Administrator accept it in Partner Center.",
    ),
    ("partner_center", "insufficient_privileges"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "The GDAP role for this customer is missing or has not spread yet.",
        "Give the group Cloud Application Administrator; a new relationship needs some minutes.",
    ),
    ("partner_center", "resource_missing"): (
        NotFound,
        FailureClass.NOT_FOUND,
        Owner.CUSTOMER,
        "The customer does not have this service.",
        "Drop the resource from the wanted grants, or let the customer license it.",
    ),
    ("partner_center", "already_exists"): (
        AlreadyExists,
        FailureClass.UNKNOWN,
        Owner.US,
        "A consent exists already.",
        "Look at what the tenant holds.",
    ),
    ("graph", "Authorization_RequestDenied"): (
        AccessDenied,
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        "A permission or role is missing for this read.",
        "Consent again with the permission set that includes it.",
    ),
}
_VAULT_DOWN = (FailureClass.TEMPORARY, Owner.US, "The vault does not answer.", "Check the vault; nothing was lost.")


def diagnose_api_error(*, service: str, status: int | None, code: str) -> Diagnosis:
    """Read an error of Partner Center, Graph or the vault: by code where one is known, else by status."""
    row = _API_CODES.get((service, code)) or _BY_STATUS.get(status or 0)
    if row is None:
        temporary = status is not None and (status >= 500 or status == 408)
        row = (
            (ServerFault, FailureClass.TEMPORARY, Owner.NOBODY, "The service has a fault.", _LATER)
            if temporary
            else (
                UnexpectedResponse,
                FailureClass.UNKNOWN,
                Owner.US,
                "Microsoft returned a code that this portal does not know.",
                "Look at the code and the correlation id.",
            )
        )
    kind, failure_class, owner, cause, remedy = row
    if service == "vault" and not kind.retryable:
        failure_class, owner = FailureClass.OUR_CREDENTIAL, Owner.US
    return Diagnosis(
        key=f"{service}:{code or status or 'none'}",
        cause=cause,
        failure_class=failure_class,
        owner=owner,
        remedy=remedy,
        error=kind,
    )


def diagnose(error: RemoteError) -> Diagnosis:
    """Read an error that was raised already; total: every error has an answer."""
    if error.service == "vault" and error.retryable:
        failure_class, owner, cause, remedy = _VAULT_DOWN
        return Diagnosis(
            key="vault", cause=cause, failure_class=failure_class, owner=owner, remedy=remedy, error=type(error)
        )
    if isinstance(error, Unreachable):
        return Diagnosis(
            key=f"{error.service}:unreachable",
            cause="No answer: name, network, TLS or time limit.",
            failure_class=FailureClass.TEMPORARY,
            owner=Owner.NOBODY,
            remedy="The portal tries again; if it lasts, check this server's network.",
            error=Unreachable,
        )
    if error.service == "entra" and error.code.startswith("AADSTS"):
        digits = error.code.removeprefix("AADSTS")
        number = int(digits) if digits.isdecimal() else 0
        failure_class = next(
            (each for each, kind in _KINDS.items() if type(error) is kind), FailureClass.NEEDS_INTERACTION
        )
        default = (Owner.US, error.detail or error.summary, "Look at the code and the correlation id.")
        return _row(
            error.code,
            failure_class,
            _BY_NUMBER.get(number, default),
            kind=type(error),
            fatal=number in _FATAL_CODES,
        )
    if error.service == "entra":
        failure_class = next((each for each, kind in _KINDS.items() if type(error) is kind), FailureClass.UNKNOWN)
        generic = next((row for row in _BY_ERROR.values() if row[0] is failure_class), None)
        words = generic[1:] if generic else (Owner.US, error.detail or error.summary, "Look at the correlation id.")
        return _row(error.code or "entra", failure_class, words, kind=type(error))
    return diagnose_api_error(service=error.service, status=error.status, code=error.code)


_CALLBACK_CODE = re.compile(r"\AAADSTS(\d{4,8})\b")


def callback_error_codes(error_description: str) -> tuple[int, ...]:
    """Return the number at the start of an authorize error's description; never any of its text (S-23)."""
    match = _CALLBACK_CODE.match(error_description[:2000])
    return (int(match[1]),) if match else ()
