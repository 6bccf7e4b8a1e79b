"""Codes of Partner Center, Microsoft Graph and the vault.

The HTTP status decides, a known code of that service refines, because several of these codes are undocumented or
stand for more than one status.

Source: Partner Center "REST error codes" and "API throttling guidance"; Microsoft Graph "Error responses and resource
types"; "Azure Key Vault REST API error codes"; for the disk of the embedded vault the names of ``errno``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from portal.microsoft.diagnosis.rows import (
    AGAIN,
    LATER,
    LOOK,
    MFA_AGAIN,
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
from portal.microsoft.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    MfaRequired,
    NoAnswer,
    NotFound,
    RemoteError,
    UnexpectedResponse,
    Unreachable,
)

_ADMIN_AGENT = "Let the partner put the service account into the AdminAgents group and give it the GDAP role."
_IDENTITY = "Check the registration: the permission for this service, and the cloud."
_ROLE_OR_SCOPE = "Check the account's roles and groups, then consent again with the permission set that includes it."
_NO_MFA = ("Partner Center refuses the token, because its sign-in had no MFA.", MFA_AGAIN)
_LOOK_THERE = "Look at what is there before anything is sent again."
_SYNCHRONISE = "Synchronise the partner again."

PARTNER_CENTER: Mapping[str, Row] = merged(
    rows(
        FailureClass.NEEDS_INTERACTION,
        Owner.PARTNER,
        {"900421": _NO_MFA, "10001": _NO_MFA},
        error=MfaRequired,
    ),
    rows(
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        {
            "400": ("Partner Center did not accept the access token.", _IDENTITY),
            "800001": ("Partner Center found no partner in the access token.", _IDENTITY),
        },
    ),
    rows(
        FailureClass.PROTOCOL_ERROR,
        Owner.US,
        {
            "3000": ("Partner Center calls a field of the request invalid.", REPORT),
            "800002": ("Partner Center calls the request invalid.", REPORT),
            "900118": (
                "Partner Center calls the customer id invalid.",
                "Synchronise the customers of this partner again.",
            ),
            "900127": (
                "Partner Center does not offer this in its sandbox.",
                "Use a partner account of the production environment.",
            ),
        },
    ),
    rows(
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        {
            "2006": ("The partner is not eligible for this offer.", "Let the partner check its programme enrolment."),
            "2032": ("Partner Center denied access.", _ADMIN_AGENT),
            "20002": (
                "The partner has no relationship with this customer.",
                "Check the customer with the partner, because the relationship may have ended.",
            ),
            "900123": (
                "The reseller has not accepted the Microsoft Partner Agreement.",
                "Let the reseller accept it in Partner Center.",
            ),
            "900124": (
                "The company has not accepted the Microsoft Partner Agreement.",
                "Let a Global Administrator of the partner accept it in Partner Center.",
            ),
            "900149": (
                "The partner's programme status is not active.",
                "Let the partner renew its programme enrolment in Partner Center.",
            ),
            "900150": ("The service account is not an Admin Agent, or lacks the GDAP role.", _ADMIN_AGENT),
            # This and the next two groups: our names for what the ApplicationConsent API says in its description.
            "insufficient_privileges": (
                "The GDAP role for this customer is missing or has not spread yet.",
                "Let the partner give its group Cloud Application Administrator, and wait some minutes.",
            ),
        },
    ),
    rows(
        FailureClass.NOT_FOUND,
        Owner.CUSTOMER,
        {
            "resource_missing": (
                "The customer does not have this service.",
                "Drop the resource from the wanted grants, or let the customer license it.",
            ),
        },
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        {"already_exists": ("A consent exists already.", _LOOK_THERE)},
        error=AlreadyExists,
    ),
    rows(
        FailureClass.NOT_FOUND,
        Owner.US,
        {
            "1000": ("Partner Center does not find it.", _SYNCHRONISE),
            "60003": ("Partner Center does not find the tenant.", "Check the tenant id and the cloud."),
            "800015": (
                "Partner Center does not find the partner.",
                "Check the tenant id and the cloud of the partner.",
            ),
        },
    ),
    rows(
        FailureClass.NOT_FOUND,
        Owner.PARTNER,
        {
            "60002": (
                "Partner Center does not find the account.",
                "Let the partner check the service account, then send a new consent link.",
            ),
        },
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        {"2055": ("It was changed in Partner Center meanwhile.", _LOOK_THERE)},
        error=Conflict,
    ),
    rows(
        FailureClass.TEMPORARY,
        Owner.NOBODY,
        {
            "800003": ("Partner Center has a fault.", LATER),
            "900192": ("Partner Center has an unexpected fault.", LATER),
        },
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.MICROSOFT,
        {
            "0": (
                "Partner Center met a case that it does not know.",
                "Open a Microsoft support request with the correlation id.",
            ),
        },
    ),
)

_NO_RIGHT_IN_GRAPH = ("A permission or a role is missing for this read.", _ROLE_OR_SCOPE)
_NOT_IN_GRAPH = ("It is gone, or not visible to the account.", _SYNCHRONISE)
_GRAPH_CHANGED = ("It conflicts with what the directory holds.", _LOOK_THERE)
_GRAPH_DOWN = ("Microsoft Graph has a fault.", LATER)

GRAPH: Mapping[str, Row] = merged(
    rows(
        FailureClass.PROTOCOL_ERROR,
        Owner.US,
        {
            "Request_BadRequest": ("Microsoft Graph did not accept the request.", REPORT),
            "BadRequest": ("Microsoft Graph did not accept the request.", REPORT),
            "invalidRequest": ("Microsoft Graph did not accept the request.", REPORT),
            "Request_UnsupportedQuery": ("Microsoft Graph does not support this query.", REPORT),
            "Directory_ExpiredPageToken": ("Reading the list took longer than its pages live.", _SYNCHRONISE),
        },
    ),
    rows(
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        {
            "InvalidAuthenticationToken": ("Microsoft Graph did not accept the access token.", _IDENTITY),
            "Authorization_IdentityNotFound": (
                "Microsoft Graph does not know the tenant or the application.",
                "Check the tenant id, the application id and the cloud.",
            ),
        },
    ),
    rows(
        FailureClass.NEEDS_INTERACTION,
        Owner.PARTNER,
        {"insufficient_claims": ("Microsoft wants a newer sign-in than the one behind this token.", AGAIN)},
    ),
    rows(
        FailureClass.NOT_PERMITTED,
        Owner.PARTNER,
        dict.fromkeys(
            ("Authorization_RequestDenied", "accessDenied", "AccessDenied", "Forbidden"),
            _NO_RIGHT_IN_GRAPH,
        ),
    ),
    rows(
        FailureClass.NOT_FOUND,
        Owner.US,
        dict.fromkeys(("Request_ResourceNotFound", "itemNotFound", "NotFound", "ResourceNotFound"), _NOT_IN_GRAPH),
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        dict.fromkeys(
            ("Request_MultipleObjectsWithSameKeyValue", "nameAlreadyExists"),
            ("The directory holds it already.", _LOOK_THERE),
        ),
        error=AlreadyExists,
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        dict.fromkeys(("conflict", "preconditionFailed"), _GRAPH_CHANGED),
        error=Conflict,
    ),
    rows(
        FailureClass.THROTTLED,
        Owner.NOBODY,
        dict.fromkeys(("TooManyRequests", "activityLimitReached"), ("Microsoft Graph asks us to slow down.", LATER)),
    ),
    rows(
        FailureClass.TEMPORARY,
        Owner.NOBODY,
        dict.fromkeys(("generalException", "serviceNotAvailable", "UnknownError"), _GRAPH_DOWN),
    ),
)

_VAULT_RIGHTS = "Give the portal's identity the rights to get and set secrets in the vault."
_KEY_RIGHTS = "Give the portal's identity the rights get, create, sign and update on keys in the vault."
_LONGEST_CAUSE = 138
_LONGEST_HOST = 80
_VAULT_BUSY = "Nothing was lost, and the portal tries again."

VAULT: Mapping[str, Row] = merged(
    rows(
        FailureClass.PROTOCOL_ERROR,
        Owner.US,
        dict.fromkeys(("BadParameter", "BadArgument"), ("The vault did not accept the request.", REPORT)),
    ),
    rows(
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        {
            "Unauthorized": (
                "The vault did not accept the portal's identity, although the sign-in service did.",
                "Check that VAULT_TENANT_ID and VAULT_CLOUD are those of the vault.",
            ),
            "identity_refused": (
                "The sign-in service refused the vault's identity.",
                "Check VAULT_TENANT_ID, VAULT_CLIENT_ID and the credential in VAULT_CREDENTIAL_FILE.",
            ),
            "no_managed_identity": (
                "This host got no token of the managed identity for the vault.",
                "Assign the identity to every host on which the portal runs, and check VAULT_CLIENT_ID.",
            ),
        },
    ),
    rows(
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        {
            "Forbidden": ("The vault denies access.", _VAULT_RIGHTS),
            "AccessDenied": ("An access policy of the vault lacks a permission.", _VAULT_RIGHTS),
            "ForbiddenByRbac": (
                "A role in the vault is missing or has not spread yet.",
                "Give the portal's identity Key Vault Secrets Officer, and wait ten minutes.",
            ),
            "KeyDisabled": (
                "This version of the key is switched off.",
                "Look in the vault's log who switched it off, then enable it or promote another credential.",
            ),
            "key_denied": ("The vault does not let the portal use its keys.", _KEY_RIGHTS),
            "ForbiddenByFirewall": (
                "The vault's firewall does not let this server in.",
                "Add this server's address to the networks that the vault allows.",
            ),
            "ForbiddenByConnection": (
                "The vault accepts private connections only.",
                "Connect this server through the vault's private endpoint.",
            ),
            **dict.fromkeys(
                ("EACCES", "EPERM", "EROFS"),
                (
                    "The system does not let the portal use the vault's files.",
                    "Check owner, mode and mount of the vault's directory.",
                ),
            ),
        },
        error=AccessDenied,
    ),
    rows(
        FailureClass.OUR_CREDENTIAL,
        Owner.US,
        {
            "KeyNotFound": (
                "The vault holds no such key.",
                "Look whether it was deleted and can be recovered, else promote another credential.",
            ),
        },
        error=NotFound,
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        {
            "SecretDisabled": (
                "This version of the secret is switched off.",
                "Look in the vault's log who switched it off, then enable it or let the partner consent again.",
            ),
        },
        error=AccessDenied,
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        {
            "SecretNotFound": (
                "The vault holds no such secret.",
                "Look whether it was deleted and can be recovered, else let the partner consent again.",
            ),
            "VaultNotFound": ("There is no such vault.", "Check VAULT_URL."),
        },
        error=NotFound,
    ),
    rows(
        FailureClass.UNKNOWN,
        Owner.US,
        {
            "ObjectIsDeletedButRecoverable": (
                "The secret's name is blocked by a deleted secret.",
                "Recover or purge the deleted secret in the vault.",
            ),
        },
        error=Conflict,
    ),
    rows(
        FailureClass.TEMPORARY,
        Owner.NOBODY,
        {
            "ObjectIsBeingDeleted": ("The vault is still deleting this secret.", _VAULT_BUSY),
            "ObjectIsBeingRecovered": ("The vault is still recovering this secret.", _VAULT_BUSY),
        },
    ),
    rows(
        FailureClass.TEMPORARY,
        Owner.US,
        {
            "InternalServerError": ("The vault has a fault.", "Check the vault if it lasts, nothing was lost."),
            **dict.fromkeys(
                ("ENOSPC", "EDQUOT", "EFBIG"), ("The vault's disk is full.", "Free space on the vault's disk.")
            ),
            "EIO": ("The vault's disk has a fault.", "Check the disk, and restore the vault from a backup if need be."),
        },
    ),
    rows(FailureClass.THROTTLED, Owner.NOBODY, {"Throttled": ("The vault asks us to slow down.", _VAULT_BUSY)}),
)

CODES: Mapping[str, Mapping[str, Row]] = {"partner_center": PARTNER_CENTER, "graph": GRAPH, "vault": VAULT}

# What an answer says without a code that is known. ``{service}`` becomes the service's name.
_CHANGED = Words(Owner.US, "{service} says that it conflicts with what is there.", _LOOK_THERE)
_REFUSED = Words(Owner.US, "{service} did not accept the request.", REPORT)
_BY_STATUS: Mapping[int, Row] = {
    400: row(FailureClass.PROTOCOL_ERROR, _REFUSED),
    401: row(FailureClass.OUR_CREDENTIAL, Words(Owner.US, "{service} did not accept the access token.", _IDENTITY)),
    403: row(
        FailureClass.NOT_PERMITTED,
        Words(Owner.PARTNER, "{service} says that the service account lacks a right.", _ROLE_OR_SCOPE),
    ),
    404: row(
        FailureClass.NOT_FOUND,
        Words(Owner.US, "{service} does not have it, or does not show it to the account.", _SYNCHRONISE),
    ),
    405: row(FailureClass.PROTOCOL_ERROR, _REFUSED),
    409: row(FailureClass.UNKNOWN, _CHANGED, error=Conflict),
    412: row(FailureClass.UNKNOWN, _CHANGED, error=Conflict),
    429: row(FailureClass.THROTTLED, Words(Owner.NOBODY, "{service} asks us to slow down.", LATER)),
    501: row(
        FailureClass.UNKNOWN,
        Words(
            Owner.MICROSOFT,
            "{service} does not support this call.",
            "Open a Microsoft support request with the correlation id.",
        ),
    ),
}
_FAULT = row(FailureClass.TEMPORARY, Words(Owner.NOBODY, "{service} has a fault.", LATER))
_UNREACHABLE = row(
    FailureClass.TEMPORARY,
    Words(
        Owner.NOBODY,
        "No answer came from {service}.",
        "The portal tries again, and if it lasts check this server's network.",
    ),
    error=Unreachable,
)
_UNREADABLE = row(
    FailureClass.PROTOCOL_ERROR,
    Words(
        Owner.US,
        "The answer of {service} does not have the documented form.",
        "Look whether a proxy answers in the service's place, then report the correlation id.",
    ),
    error=UnexpectedResponse,
)
_NEW_CODE = row(
    FailureClass.UNKNOWN, Words(Owner.US, "{service} returned a code that this portal does not know.", LOOK)
)
_NAMES: Mapping[str, str] = {
    "entra": "the sign-in service",
    "partner_center": "Partner Center",
    "graph": "Microsoft Graph",
    "vault": "the vault",
}

_INTERCEPTED = "Look who answers there, because somebody may read the connection."
_NETWORK = "The portal tries again, and if it lasts check this server's network."
# Why no answer came, from any service. ``{host}`` becomes the host that was asked.
NO_ANSWER: Mapping[NoAnswer, Words] = {
    NoAnswer.CERTIFICATE_EXPIRED: Words(
        Owner.US,
        "The certificate of {host} has expired, or is not valid yet.",
        "Check this server's clock, then look who answers there.",
    ),
    NoAnswer.CERTIFICATE_NAME: Words(
        Owner.US, "What answers as {host} has the certificate of another name.", _INTERCEPTED
    ),
    NoAnswer.CERTIFICATE_ISSUER: Words(
        Owner.US,
        "The certificate of {host} has an issuer that this server does not trust.",
        "If a proxy of yours inspects TLS, name its CA in OUTGOING_CA_FILE, else somebody may read the connection.",
    ),
    NoAnswer.CERTIFICATE: Words(Owner.US, "The certificate of {host} was refused.", _INTERCEPTED),
    NoAnswer.TLS: Words(Owner.US, "No TLS connection to {host} came about.", _INTERCEPTED),
    NoAnswer.NAME: Words(
        Owner.US,
        "The host name {host} is not known.",
        "Check the setting that names this host, then this server's DNS.",
    ),
    NoAnswer.REFUSED: Words(
        Owner.NOBODY,
        "The connection to {host} was refused.",
        "The portal tries again, and if it lasts check address, port and firewall.",
    ),
    NoAnswer.SILENT: Words(Owner.NOBODY, "{host} gave no answer in time.", _NETWORK),
    NoAnswer.PROXY: Words(
        Owner.US, "The proxy gave no connection to {host}.", "Check OUTGOING_PROXY and the proxy's own log."
    ),
    NoAnswer.BROKEN_OFF: Words(Owner.NOBODY, "The connection to {host} broke off.", _NETWORK),
    NoAnswer.LEFT_ALONE: Words(Owner.NOBODY, "{host} had faults only and is left alone for half a minute.", LATER),
    NoAnswer.NO_TIME: Words(
        Owner.NOBODY, "The time for this work was over before {host} was asked.", "Try again, when less is to be done."
    ),
}
# What a status of the vault means when it names no known code.
_VAULT_BY_STATUS: Mapping[int, Row] = {
    400: VAULT["BadParameter"],
    401: VAULT["Unauthorized"],
    403: VAULT["Forbidden"],
    404: VAULT["SecretNotFound"],
    409: VAULT["ObjectIsBeingDeleted"],
    429: VAULT["Throttled"],
}


def diagnose_api_error(*, service: str, status: int | None, code: str) -> Diagnosis:
    """Read an error of Partner Center, Graph or the vault: by status, refined by a code that fits it.

    Args:
        code: the service's own code, empty when the answer had none.
        status: None or below 400 for an answer that could not be used at all.
    """
    generic = _by_status(service, status) or (_NEW_CODE if code else _UNREADABLE)
    known = CODES.get(service, {}).get(code)
    key = f"{service}:{code or status or 'none'}"
    # Whether to repeat is the status's to say; among what is not repeated, the code knows better.
    if known is not None and (
        known.error is generic.error or not (known.error.retryable or generic.error.retryable) or service == "vault"
    ):
        return known.read(key)
    return _read(generic, service, key)


def _by_status(service: str, status: int | None) -> Row | None:
    if status is None:
        return None
    if status == 408 or (status >= 500 and status != 501):
        return VAULT["InternalServerError"] if service == "vault" else _FAULT
    return (_VAULT_BY_STATUS.get(status) if service == "vault" else None) or _BY_STATUS.get(status)


def _read(generic: Row, service: str, key: str) -> Diagnosis:
    """Return the diagnosis of a row that holds for all services, with this one's name."""
    found = generic.read(key)
    cause = found.cause.replace("{service}", _NAMES.get(service, "the service"))
    return replace(found, cause=cause[:1].upper() + cause[1:])


def read_raised(error: RemoteError) -> Diagnosis:
    """Read an error of these services; the class of the exception has the last word."""
    if isinstance(error, Unreachable) and error.host:
        return _no_answer(error)
    if error.service != "vault" and isinstance(error, Unreachable):
        return _read(_UNREACHABLE, error.service, f"{error.service}:unreachable")
    found = diagnose_api_error(service=error.service, status=error.status, code=error.code)
    fits = isinstance(error, found.error)
    if error.service == "vault" and not (fits and (error.code in VAULT or not error.detail)):
        return _say_as_the_vault_did(error, found.key)
    if not fits:
        nearest = (each for each in (*_BY_STATUS.values(), _FAULT, _UNREADABLE) if isinstance(error, each.error))
        found = _read(next(nearest, _NEW_CODE), error.service, found.key)
    if isinstance(error, UnexpectedResponse):
        found = say_what_is_odd(found, error)
    return replace(found, error=type(error))


def say_what_is_odd(found: Diagnosis, error: UnexpectedResponse) -> Diagnosis:
    """Put what the client saw, in our words, into the sentence: service, operation, and the field or link."""
    if not error.detail or error.detail == found.cause:
        return found
    name = _NAMES.get(error.service, "the service")
    cause = f"{name[:1].upper()}{name[1:]}, {error.operation}: {error.detail.removesuffix('.')}"
    return replace(found, cause=f"{cause[:_LONGEST_CAUSE]}.")


def _no_answer(error: Unreachable) -> Diagnosis:
    known = NoAnswer(error.code) if error.code in set(NoAnswer) else NoAnswer.BROKEN_OFF
    owner, cause, remedy = NO_ANSWER[known]
    words = Words(owner, cause.replace("{host}", error.host[:_LONGEST_HOST]), remedy)
    return row(FailureClass.TEMPORARY, words, error=type(error)).read(f"{error.service}:{known}")


def _say_as_the_vault_did(error: RemoteError, key: str) -> Diagnosis:
    """Use the adapter's words: they are ours, and a vault in files answers without status or code."""
    by_kind = [VAULT["InternalServerError"], *_VAULT_BY_STATUS.values()]
    nearest = (each for each in by_kind if isinstance(error, each.error))
    known = next(nearest, VAULT["InternalServerError"] if error.retryable else _NEW_CODE)
    said = error.detail or (error.summary if known is _NEW_CODE else known.words.cause.removesuffix("."))
    words = Words(known.words.owner, f"{said[:1].upper()}{said[1:]}.", known.words.remedy)
    return row(known.failure_class, words, error=type(error)).read(key)
