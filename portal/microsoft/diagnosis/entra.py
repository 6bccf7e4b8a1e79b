"""Reading an error of Entra: ``error`` and ``suberror`` decide the class, the number refines (R-15).

Source: RFC 6749 section 5.2; Microsoft Entra "Authentication and authorization error codes", which tells programs to
act on ``error`` only; the suberrors mean what Microsoft's authentication libraries take them for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from portal.microsoft.diagnosis.entra_accounts import (
    ACCOUNTS,
    CHECK_TOKEN,
    CUSTOMER_CONSENT,
    CUSTOMER_POLICY,
    CUSTOMER_SIGN_IN,
    DAMAGED_TOKEN,
)
from portal.microsoft.diagnosis.entra_ours import OURS
from portal.microsoft.diagnosis.rows import (
    AGAIN,
    LATER,
    LOOK,
    REPORT,
    Diagnosis,
    FailureClass,
    Owner,
    Row,
    Words,
    merged,
    row,
    rows,
)
from portal.microsoft.diagnosis.services import say_what_is_odd
from portal.microsoft.errors import InteractionRequired, RemoteError, UnexpectedResponse, safe_code

SERVICE = "entra"
NUMBERS: Mapping[int, Row] = merged(ACCOUNTS, OURS)

_CONSENT, _INTERACTION = FailureClass.NEEDS_CONSENT, FailureClass.NEEDS_INTERACTION
_NOT_ACCEPTED = ("Microsoft did not accept the portal's request.", REPORT)

ERRORS: Mapping[str, Row] = merged(
    rows(
        _CONSENT,
        Owner.PARTNER,
        {"invalid_grant": ("Microsoft no longer accepts the stored token.", AGAIN)},
        in_customer=CHECK_TOKEN,
    ),
    rows(
        _CONSENT,
        Owner.PARTNER,
        {"consent_required": ("The consent is missing or was withdrawn.", AGAIN)},
        in_customer=CUSTOMER_CONSENT,
        not_consented=True,
    ),
    rows(
        _INTERACTION,
        Owner.PARTNER,
        {
            "interaction_required": ("Microsoft wants the service account to sign in again.", AGAIN),
            "login_required": ("Microsoft wants a new sign-in.", AGAIN),
            "account_selection_required": ("Microsoft wants somebody to choose an account.", AGAIN),
            "expired_token": ("The time for the sign-in was over.", AGAIN),
            "access_denied": (
                "The person or a policy of the tenant refused the sign-in.",
                "Let the tenant's administrator read the sign-in log and adapt the policy.",
            ),
        },
        in_customer=CUSTOMER_SIGN_IN,
    ),
    rows(
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        {
            "invalid_client": (
                "Microsoft refused our application's own credential.",
                "Check the secret or certificate of the registration and store a valid one.",
            ),
            "unauthorized_client": (
                "Our application is not known or not allowed there.",
                "Check the application id, the tenant and the cloud of the registration.",
            ),
        },
    ),
    rows(
        FailureClass.TEMPORARY,
        Owner.NOBODY,
        {
            "temporarily_unavailable": ("The sign-in service is busy.", LATER),
            "server_error": ("The sign-in service has a fault.", LATER),
        },
    ),
    rows(
        FailureClass.PROTOCOL_ERROR,
        Owner.US,
        {
            "invalid_request": _NOT_ACCEPTED,
            "invalid_instance": ("Microsoft does not know the sign-in host.", "Check the cloud of the registration."),
            "invalid_resource": ("Microsoft does not know the service.", "Check the permissions of the registration."),
            "invalid_scope": ("Microsoft does not accept the scope.", "Check the permissions of the registration."),
            "invalid_target": ("Microsoft does not know the service.", "Check the permissions of the registration."),
            "invalid_tenant": ("Microsoft does not know the tenant.", "Check tenant id and cloud of the partner."),
            "unsupported_grant_type": _NOT_ACCEPTED,
            "unsupported_response_mode": _NOT_ACCEPTED,
            "unsupported_response_type": _NOT_ACCEPTED,
        },
    ),
)
SUBERRORS: Mapping[str, Row] = merged(
    rows(
        _CONSENT,
        Owner.PARTNER,
        {
            "bad_token": ("Microsoft calls the stored token broken.", AGAIN),
            "token_expired": ("The stored token is too old.", AGAIN),
            "user_password_expired": (
                "The service account's password must be changed.",
                "Let the partner change the password, then send a new consent link.",
            ),
        },
        in_customer=CHECK_TOKEN,
    ),
    rows(
        _CONSENT,
        Owner.US,
        {
            "client_mismatch": (
                "The stored token was issued to another application.",
                "Check the application id of the registration, then send a new consent link.",
            ),
        },
        in_customer=CHECK_TOKEN,
    ),
    rows(
        _CONSENT,
        Owner.PARTNER,
        {"consent_required": ("The application has no consent, or lost it.", AGAIN)},
        in_customer=CUSTOMER_CONSENT,
        not_consented=True,
    ),
    rows(
        _INTERACTION,
        Owner.PARTNER,
        {
            "basic_action": ("Microsoft wants the service account to act in a sign-in.", AGAIN),
            "additional_action": (
                "A policy wants something from the account before it signs in.",
                "Let the partner's administrator read the sign-in log and adapt the policy.",
            ),
            "message_only": (
                "A policy of the tenant blocks the account.",
                "Let the partner's administrator read the sign-in log and adapt the policy.",
            ),
            "protection_policy_required": (
                "A policy wants a protected app.",
                "Let the partner exclude the service account from app protection rules.",
            ),
            "device_authentication_failed": (
                "A policy wants a device that proves itself.",
                "Let the partner exclude the service account from device rules.",
            ),
        },
        in_customer=CUSTOMER_POLICY,
    ),
)

_BUSY = row(FailureClass.THROTTLED, Words(Owner.NOBODY, "The sign-in service asks us to slow down.", LATER))
_NO_TENANT = row(
    FailureClass.NOT_FOUND,
    Words(Owner.US, "The sign-in service knows no such tenant in this cloud.", "Check the tenant id and the cloud."),
)
_NEW_ERROR = row(
    FailureClass.UNKNOWN, Words(Owner.US, "Microsoft answered with an error that the portal does not know.", LOOK)
)
_UNREADABLE = row(
    FailureClass.PROTOCOL_ERROR,
    Words(
        Owner.US,
        "The sign-in service's answer does not have the documented form.",
        "Look whether a proxy answers in Microsoft's place, then report the correlation id.",
    ),
    error=UnexpectedResponse,
)

# No answer of Entra: we could not even ask. Which row it is, the cause in the raised error says.
NO_MANAGED_IDENTITY = row(
    FailureClass.OUR_CREDENTIAL,
    Words(
        Owner.US,
        "This host got no token of the managed identity.",
        "Assign the identity to every host on which the portal runs, and check its client id.",
    ),
)

_COMPANIONS = frozenset({70002})  # stands beside the number that says more
_LOST = frozenset({FailureClass.NEEDS_CONSENT, FailureClass.NEEDS_INTERACTION})
_HEALS = frozenset({FailureClass.THROTTLED, FailureClass.TEMPORARY})
# What a number may make of the class that ``error`` gave. It may say that the fault is ours or passes by itself,
# which touches no partner; it never makes a partner's token suspect when ``error`` did not.
_OURS_OR_HEALS = frozenset({FailureClass.OUR_CREDENTIAL, FailureClass.PROTOCOL_ERROR, FailureClass.NOT_FOUND}) | _HEALS
_MAY_BECOME: Mapping[FailureClass, frozenset[FailureClass]] = {
    FailureClass.NEEDS_CONSENT: _OURS_OR_HEALS | _LOST,
    FailureClass.NEEDS_INTERACTION: _OURS_OR_HEALS | _LOST,
    FailureClass.OUR_CREDENTIAL: _OURS_OR_HEALS,
    FailureClass.PROTOCOL_ERROR: _OURS_OR_HEALS,
    FailureClass.TEMPORARY: _HEALS,
    FailureClass.THROTTLED: frozenset({FailureClass.THROTTLED}),
    FailureClass.UNKNOWN: frozenset(),
}


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
        error: empty when the answer was no readable JSON object with one.
        error_codes: AADSTS numbers without their prefix, in any order.
        status: HTTP status of the answer; 408, 429 and 5xx mean "later", whatever the body says.
        customer_tenant: the answer came from a customer's authority: it says nothing about the partner's token.
    """
    error, suberror = error.strip().lower(), suberror.strip().lower()
    numbers = [code for code in error_codes if 1000 <= code <= 99_999_999]
    numbers = [code for code in numbers if code not in _COMPANIONS] or numbers
    known = [code for code in numbers if code in NUMBERS]
    number = (known or numbers or [0])[0]
    key = f"AADSTS{number}" if number else safe_code(error) or f"HTTP{status or 0}"
    generic = _generic_row(error, suberror, status)
    refined = DAMAGED_TOKEN.get((error, number)) or NUMBERS.get(number)
    if number and not known and generic is ERRORS.get(error) and generic.failure_class in _LOST:
        # ``invalid_grant`` stands for a hundred causes. A number that says which one, and that is not in the table, is
        # a thing to look at: what Microsoft invents tomorrow may be its own fault.
        return _NEW_ERROR.read(key, customer_tenant=customer_tenant)
    chosen = refined if refined is not None and _is_plausible(refined, generic, error) else generic
    # A sign-in that is wanted does not become a lost consent by a suberror or a number.
    wants_sign_in = error in ERRORS and ERRORS[error].failure_class is _INTERACTION
    settled = _INTERACTION if wants_sign_in and chosen.failure_class is _CONSENT else None
    return chosen.read(key, settled, customer_tenant=customer_tenant)


def _generic_row(error: str, suberror: str, status: int | None) -> Row:
    if status == 429:
        return _BUSY
    if status is not None and (status == 408 or status >= 500):
        return ERRORS["server_error"]
    if not error:
        return _UNREADABLE
    generic = ERRORS.get(error, _NEW_ERROR)
    return SUBERRORS.get(suberror, generic) if generic.failure_class in _LOST else generic


def _is_plausible(refined: Row, generic: Row, error: str) -> bool:
    if generic in SUBERRORS.values() and refined.failure_class in _LOST:
        return refined.failure_class is generic.failure_class
    if generic is ERRORS.get(error) and error in refined.also_with:
        return True
    return generic is not _UNREADABLE and refined.failure_class in _MAY_BECOME[generic.failure_class]


def never_heals(code: str) -> bool:
    """Tell whether a code that a row kept (``AADSTS700082``) means that the stored token is dead for good."""
    digits = code.removeprefix("AADSTS")
    known = NUMBERS.get(int(digits)) if digits.isdecimal() and digits.isascii() else None
    return known is not None and known.fatal_for_token


def read_raised(error: RemoteError) -> Diagnosis:
    """Find the row from which an error of Entra was raised; the nearest generic one when it came from none.

    The client put the row's cause into ``detail``, and the two readings of a row differ in it: so the error itself
    tells whether a customer's tenant answered.
    """
    digits = error.code.removeprefix("AADSTS")
    number = int(digits) if digits.isdecimal() and digits.isascii() else 0
    wants_sign_in = type(error) is InteractionRequired
    readings = [
        each.read(
            error.code or SERVICE,
            _INTERACTION if wants_sign_in and each.failure_class is _CONSENT else None,
            customer_tenant=customer_tenant,
        )
        for each in _rows_for(number)
        for customer_tenant in (False, True)
    ]
    fitting = [reading for reading in readings if reading.error is type(error)]
    exact = [reading for reading in fitting if reading.cause == error.detail]
    if not exact and isinstance(error, UnexpectedResponse):
        return say_what_is_odd(_UNREADABLE.read(error.code or SERVICE), error)
    if exact or fitting:
        return (exact or fitting)[0]
    return replace(_NEW_ERROR.read(error.code or SERVICE), error=type(error))


def _rows_for(number: int) -> Iterator[Row]:
    yield from (each for (_, code), each in DAMAGED_TOKEN.items() if code == number)
    if number in NUMBERS:
        yield NUMBERS[number]
    yield from (_UNREADABLE, _NEW_ERROR, _BUSY, _NO_TENANT, ERRORS["server_error"])
    yield from ERRORS.values()
    yield from SUBERRORS.values()
    yield NO_MANAGED_IDENTITY


_QUOTED = re.compile(r"\bAADSTS([0-9]{4,8})\b", re.IGNORECASE)


def diagnose_quoted(text: str) -> Diagnosis | None:
    """Read a refusal of a customer's sign-in service that another service passes on in its own text (S-23).

    Only the number of a code that we know is taken from it; None when there is none.
    """
    for match in _QUOTED.finditer(text[:2000]):
        number = int(match[1])
        if number in NUMBERS and number not in _COMPANIONS:
            return NUMBERS[number].read(f"AADSTS{number}", customer_tenant=True)
    return None


_TOO_OLD = 70043
_LIFETIME = re.compile(r"maximum allowed lifetime for this request is ([0-9]{1,9})(?![0-9])")
_SHORTEST_LIFETIME, _LONGEST_LIFETIME = 3600, 90 * 86_400


def named_token_lifetime(error_codes: Sequence[int], error_description: str) -> int | None:
    """Return the seconds that AADSTS70043 names as the lifetime of a sign-in, within 1 hour and 90 days.

    The text counts only together with its code, because texts change; without a number there is no lifetime.
    Source: Microsoft Entra error codes, AADSTS70043 (sign-in frequency of Conditional Access).
    """
    if _TOO_OLD not in error_codes:
        return None
    match = _LIFETIME.search(error_description[:2000])
    return min(max(int(match[1]), _SHORTEST_LIFETIME), _LONGEST_LIFETIME) if match else None


_CALLBACK_CODE = re.compile(r"AADSTS([0-9]{4,8})\b")


def callback_error_codes(error_description: str) -> tuple[int, ...]:
    """Return the number at the start of an authorize error's description; never any of its text (S-23)."""
    match = _CALLBACK_CODE.match(error_description[:2000])
    return (int(match[1]),) if match else ()
