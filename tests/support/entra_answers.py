"""What Entra's token endpoint answers, and what each answer means, written down independently of the table.

Source of numbers, ``error`` values and suberrors: Microsoft Entra "Authentication and authorization error codes" and
"OAuth 2.0 authorization code flow". Every body is in the documented form; its texts are canaries, because nothing of
them may reach a page or a log.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

PRIVATE = "admin@contoso.example asked from 203.0.113.7"
TRACE_ID = "7d1c2f4e-3b5a-4c6d-8e9f-0a1b2c3d4e5f"


def answer(error: str | None, numbers: Sequence[int] = (), suberror: str = "", **changes: Any) -> str:
    """Return an error body of the token endpoint; a change to None leaves the member out."""
    first = numbers[0] if numbers else 0
    body: dict[str, Any] = {
        "error": error,
        "error_description": f"AADSTS{first}: {PRIVATE}\r\nTrace ID: {TRACE_ID}\r\nTimestamp: 2026-05-01 08:15:42Z",
        "error_codes": list(numbers),
        "timestamp": "2026-05-01 08:15:42Z",
        "trace_id": TRACE_ID,
        "correlation_id": "a2f3c4d5-6e7f-4081-92a3-b4c5d6e7f809",
        "error_uri": f"https://login.microsoftonline.com/error?code={first}",
    }
    if suberror:
        body["suberror"] = suberror
    return json.dumps({key: value for key, value in (body | changes).items() if value is not None})


# number, error, suberror, class ("mfa" is needs_interaction that raises MfaRequired), who acts at the partner's
# tenant, who acts when a customer's tenant said it
CONSENT = "needs_consent"
SIGN_IN = "needs_interaction"
MFA = "mfa"
CREDENTIAL = "our_credential"
REQUEST = "protocol_error"
ABSENT = "not_found"
SLOW = "throttled"
LATER = "temporary"

ENTRA: list[tuple[int, str, str, str, str, str]] = [
    (16000, "interaction_required", "", SIGN_IN, "partner", "us"),
    (16003, "interaction_required", "", SIGN_IN, "partner", "us"),
    (28000, "invalid_scope", "", REQUEST, "us", "us"),
    (28002, "invalid_scope", "", REQUEST, "us", "us"),
    (28003, "invalid_scope", "", REQUEST, "us", "us"),
    (50000, "server_error", "", LATER, "microsoft", "microsoft"),
    (50001, "invalid_resource", "", REQUEST, "us", "us"),
    (50002, "access_denied", "", SIGN_IN, "partner", "us"),
    (50011, "invalid_request", "", REQUEST, "us", "us"),
    (50012, "invalid_client", "", CREDENTIAL, "us", "us"),
    (50013, "invalid_grant", "", CREDENTIAL, "us", "us"),
    (50014, "interaction_required", "", SIGN_IN, "partner", "partner"),
    (50020, "invalid_grant", "", SIGN_IN, "partner", "partner"),
    (50027, "invalid_request", "", CREDENTIAL, "us", "us"),
    (50033, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (50034, "invalid_grant", "", CONSENT, "partner", "partner"),
    (50049, "invalid_instance", "", REQUEST, "us", "us"),
    (50053, "invalid_grant", "", CONSENT, "partner", "us"),
    (50055, "invalid_grant", "user_password_expired", CONSENT, "partner", "us"),
    (50056, "invalid_grant", "", CONSENT, "partner", "us"),
    (50057, "invalid_grant", "", CONSENT, "partner", "us"),
    (50058, "login_required", "", SIGN_IN, "partner", "us"),
    (50059, "invalid_request", "", REQUEST, "us", "us"),
    (50072, "interaction_required", "basic_action", MFA, "partner", "customer"),
    (50074, "interaction_required", "basic_action", MFA, "partner", "customer"),
    (50076, "invalid_grant", "basic_action", MFA, "partner", "customer"),
    (50078, "invalid_grant", "basic_action", MFA, "partner", "customer"),
    (50079, "invalid_grant", "basic_action", MFA, "partner", "customer"),
    (50085, "invalid_grant", "", CONSENT, "partner", "us"),
    (50087, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (50088, "temporarily_unavailable", "", LATER, "partner", "partner"),
    (50089, "invalid_grant", "", SIGN_IN, "partner", "us"),
    (50097, "interaction_required", "additional_action", SIGN_IN, "partner", "customer"),
    (50105, "access_denied", "", SIGN_IN, "partner", "customer"),
    (50125, "interaction_required", "", SIGN_IN, "partner", "us"),
    (50126, "invalid_grant", "", SIGN_IN, "partner", "us"),
    (50128, "invalid_request", "", REQUEST, "us", "us"),
    (50131, "access_denied", "", SIGN_IN, "partner", "customer"),
    (50132, "invalid_grant", "", CONSENT, "partner", "us"),
    (50133, "invalid_grant", "", CONSENT, "partner", "us"),
    (50135, "invalid_grant", "", CONSENT, "partner", "us"),
    (50140, "interaction_required", "", SIGN_IN, "partner", "us"),
    (50144, "invalid_grant", "user_password_expired", CONSENT, "partner", "us"),
    (50147, "invalid_request", "", REQUEST, "us", "us"),
    (50155, "invalid_grant", "device_authentication_failed", SIGN_IN, "partner", "customer"),
    (50158, "invalid_grant", "additional_action", MFA, "partner", "customer"),
    (50161, "interaction_required", "", MFA, "partner", "customer"),
    (50168, "interaction_required", "", SIGN_IN, "partner", "us"),
    (50173, "invalid_grant", "bad_token", CONSENT, "partner", "us"),
    (50177, "invalid_grant", "", SIGN_IN, "partner", "partner"),
    (50178, "interaction_required", "", SIGN_IN, "partner", "customer"),
    (50194, "invalid_request", "", REQUEST, "us", "us"),
    (50196, "invalid_grant", "", SLOW, "nobody", "nobody"),
    (50197, "interaction_required", "", SIGN_IN, "partner", "us"),
    (50199, "interaction_required", "", SIGN_IN, "partner", "us"),
    (51004, "interaction_required", "", SIGN_IN, "partner", "partner"),
    (53000, "access_denied", "additional_action", SIGN_IN, "partner", "customer"),
    (53001, "interaction_required", "additional_action", SIGN_IN, "partner", "customer"),
    (53002, "access_denied", "message_only", SIGN_IN, "partner", "customer"),
    (53003, "invalid_grant", "message_only", SIGN_IN, "partner", "customer"),
    (53004, "interaction_required", "", MFA, "partner", "customer"),
    (53010, "interaction_required", "", MFA, "partner", "customer"),
    (53011, "access_denied", "message_only", SIGN_IN, "partner", "partner"),
    (530003, "interaction_required", "additional_action", SIGN_IN, "partner", "customer"),
    (530032, "access_denied", "message_only", SIGN_IN, "partner", "customer"),
    (530034, "access_denied", "message_only", SIGN_IN, "partner", "partner"),
    (530035, "access_denied", "message_only", SIGN_IN, "partner", "customer"),
    (54005, "invalid_grant", "", SIGN_IN, "partner", "us"),
    (65001, "invalid_grant", "consent_required", CONSENT, "partner", "us"),
    (65002, "invalid_client", "", CREDENTIAL, "us", "us"),
    (65004, "consent_required", "", CONSENT, "partner", "us"),
    (65005, "invalid_resource", "", REQUEST, "us", "us"),
    (650051, "invalid_client", "", LATER, "nobody", "nobody"),
    (650052, "invalid_client", "", ABSENT, "partner", "customer"),
    (650054, "invalid_resource", "", REQUEST, "us", "us"),
    (650056, "invalid_client", "", REQUEST, "us", "us"),
    (650057, "invalid_resource", "", REQUEST, "us", "us"),
    (70000, "invalid_grant", "bad_token", CONSENT, "partner", "us"),
    (70001, "unauthorized_client", "", CREDENTIAL, "us", "us"),
    (70002, "invalid_client", "", CREDENTIAL, "us", "us"),
    (70003, "unsupported_grant_type", "", REQUEST, "us", "us"),
    (70004, "invalid_request", "", REQUEST, "us", "us"),
    (70005, "unsupported_response_type", "", REQUEST, "us", "us"),
    (70007, "unsupported_response_mode", "", REQUEST, "us", "us"),
    (70008, "invalid_grant", "token_expired", CONSENT, "partner", "us"),
    (70011, "invalid_scope", "", REQUEST, "us", "us"),
    (70019, "expired_token", "", SIGN_IN, "partner", "us"),
    (70021, "invalid_client", "", CREDENTIAL, "us", "us"),
    (70043, "invalid_grant", "bad_token", CONSENT, "partner", "us"),
    (700003, "invalid_grant", "device_authentication_failed", SIGN_IN, "partner", "customer"),
    (700005, "invalid_grant", "", REQUEST, "us", "us"),
    (700011, "unauthorized_client", "", CREDENTIAL, "us", "us"),
    (700016, "unauthorized_client", "", CONSENT, "partner", "us"),
    (700020, "interaction_required", "", SIGN_IN, "partner", "us"),
    (700022, "invalid_scope", "", REQUEST, "us", "us"),
    (700023, "invalid_scope", "", REQUEST, "us", "us"),
    (700024, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700025, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700027, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700030, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700054, "unsupported_response_type", "", REQUEST, "us", "us"),
    (700082, "invalid_grant", "token_expired", CONSENT, "partner", "us"),
    (700084, "invalid_grant", "token_expired", CONSENT, "us", "us"),
    (700211, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700212, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700213, "invalid_client", "", CREDENTIAL, "us", "us"),
    (700229, "invalid_client", "", CREDENTIAL, "us", "us"),
    (7000112, "unauthorized_client", "", SIGN_IN, "partner", "customer"),
    (7000114, "unauthorized_client", "", CREDENTIAL, "us", "us"),
    (7000215, "invalid_client", "", CREDENTIAL, "us", "us"),
    (7000218, "invalid_request", "", CREDENTIAL, "us", "us"),
    (7000222, "invalid_client", "", CREDENTIAL, "us", "us"),
    (7000229, "unauthorized_client", "", CONSENT, "partner", "us"),
    (90002, "invalid_request", "", ABSENT, "us", "us"),
    (90004, "invalid_request", "", REQUEST, "us", "us"),
    (90006, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (90008, "invalid_request", "", REQUEST, "us", "us"),
    (90012, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (90014, "invalid_request", "", REQUEST, "us", "us"),
    (90015, "invalid_request", "", REQUEST, "us", "us"),
    (90019, "invalid_request", "", REQUEST, "us", "us"),
    (90023, "invalid_request", "", REQUEST, "us", "us"),
    (90024, "temporarily_unavailable", "", SLOW, "nobody", "nobody"),
    (90033, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (90036, "server_error", "", LATER, "microsoft", "microsoft"),
    (90038, "invalid_request", "", REQUEST, "us", "us"),
    (90055, "temporarily_unavailable", "", SLOW, "nobody", "nobody"),
    (90056, "invalid_request", "", REQUEST, "us", "us"),
    (90072, "invalid_grant", "", SIGN_IN, "partner", "partner"),
    (90090, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (90091, "temporarily_unavailable", "", LATER, "nobody", "nobody"),
    (90092, "server_error", "", LATER, "microsoft", "microsoft"),
    (90093, "invalid_client", "", CONSENT, "partner", "us"),
    (90094, "invalid_grant", "", CONSENT, "partner", "us"),
    (90095, "invalid_grant", "", CONSENT, "partner", "us"),
    (90099, "unauthorized_client", "", CONSENT, "partner", "us"),
    (900021, "invalid_request", "", REQUEST, "us", "us"),
    (900023, "invalid_request", "", REQUEST, "us", "us"),
    (900144, "invalid_request", "", REQUEST, "us", "us"),
    (900382, "invalid_request", "", REQUEST, "us", "us"),
    (900432, "invalid_request", "", REQUEST, "us", "us"),
    (900561, "invalid_request", "", SIGN_IN, "partner", "partner"),
    (900971, "invalid_request", "", REQUEST, "us", "us"),
    (901002, "invalid_request", "", REQUEST, "us", "us"),
    (9001023, "invalid_request", "", REQUEST, "us", "us"),
    (9002313, "invalid_request", "", REQUEST, "us", "us"),
    (500011, "invalid_resource", "", ABSENT, "partner", "customer"),
    (500021, "access_denied", "", SIGN_IN, "partner", "us"),
    (500022, "access_denied", "", SIGN_IN, "partner", "us"),
    (500112, "invalid_grant", "", REQUEST, "us", "us"),
    (500113, "invalid_request", "", REQUEST, "us", "us"),
    (500133, "invalid_grant", "", CREDENTIAL, "us", "us"),
    (500208, "access_denied", "", SIGN_IN, "partner", "us"),
    (500212, "access_denied", "", SIGN_IN, "partner", "partner"),
    (500213, "access_denied", "", SIGN_IN, "customer", "customer"),
    (501481, "invalid_grant", "", SIGN_IN, "partner", "us"),
    (501491, "invalid_request", "", REQUEST, "us", "us"),
    (5000224, "invalid_request", "", ABSENT, "us", "us"),
    (1000104, "access_denied", "", REQUEST, "us", "us"),
    *((number, "interaction_required", "", SIGN_IN, "partner", "us") for number in range(120000, 120022)),
    *((number, "server_error", "", LATER, "nobody", "nobody") for number in range(80001, 80015)),
]

# A stored token that no configuration and no policy can bring back.
FATAL = {50034, 50132, 50133, 50173, 70000, 70008, 70043, 700082, 700084}
NOT_CONSENTED = {65001, 90099, 700016, 7000229}

# The same number under another ``error``: Microsoft is not consistent, and a number may be wrong.
# numbers, error, suberror, status, class, key
ODD: list[tuple[tuple[int, ...], str, str, int, str, str]] = [
    # several numbers: the companion 70002 says least, wherever it stands
    ((70002, 70008), "invalid_grant", "", 400, CONSENT, "AADSTS70008"),
    ((70008, 70002), "invalid_grant", "", 400, CONSENT, "AADSTS70008"),
    ((70002, 500133), "invalid_grant", "", 400, CREDENTIAL, "AADSTS500133"),
    ((70002, 50126), "invalid_grant", "", 400, SIGN_IN, "AADSTS50126"),
    ((99999999, 700082), "invalid_grant", "", 400, CONSENT, "AADSTS700082"),
    # the damaged token is said with a number that elsewhere means a damaged request
    ((9002313,), "invalid_grant", "", 400, CONSENT, "AADSTS9002313"),
    # throttling and faults of the directory under the error of a lost grant
    ((50196,), "invalid_request", "", 400, SLOW, "AADSTS50196"),
    ((90055,), "invalid_grant", "", 400, SLOW, "AADSTS90055"),
    ((90033,), "invalid_grant", "", 400, LATER, "AADSTS90033"),
    # the status says "later", whatever the body says
    ((700082,), "invalid_grant", "", 503, LATER, "AADSTS700082"),
    ((7000222,), "invalid_client", "", 500, LATER, "AADSTS7000222"),
    ((700016,), "unauthorized_client", "", 502, LATER, "AADSTS700016"),
    ((50173,), "invalid_grant", "bad_token", 429, SLOW, "AADSTS50173"),
    ((50173,), "invalid_grant", "bad_token", 408, LATER, "AADSTS50173"),
    ((), "temporarily_unavailable", "", 400, LATER, "temporarily_unavailable"),
    ((), "server_error", "", 400, LATER, "server_error"),
    # a number never makes a grant suspect when the error blames us, our request or the service
    ((50034,), "invalid_client", "", 401, CREDENTIAL, "AADSTS50034"),
    ((50076,), "invalid_client", "", 401, CREDENTIAL, "AADSTS50076"),
    ((700082,), "unauthorized_client", "", 400, CREDENTIAL, "AADSTS700082"),
    ((700082,), "invalid_request", "", 400, REQUEST, "AADSTS700082"),
    ((50173,), "invalid_scope", "", 400, REQUEST, "AADSTS50173"),
    ((65001,), "invalid_scope", "", 400, REQUEST, "AADSTS65001"),
    ((53003,), "temporarily_unavailable", "", 400, LATER, "AADSTS53003"),
    # our own fault behind the error of a lost grant does not blame the partner
    ((7000215,), "invalid_grant", "", 400, CREDENTIAL, "AADSTS7000215"),
    ((500011,), "invalid_grant", "", 400, ABSENT, "AADSTS500011"),
    # a sign-in that is wanted stays one
    ((700082,), "interaction_required", "", 400, SIGN_IN, "AADSTS700082"),
    ((50057,), "access_denied", "", 400, SIGN_IN, "AADSTS50057"),
    # the suberror is a field of the protocol: a number of another kind does not overrule it
    ((50076,), "invalid_grant", "bad_token", 400, CONSENT, "AADSTS50076"),
    ((700082,), "invalid_grant", "message_only", 400, SIGN_IN, "AADSTS700082"),
    ((50196,), "invalid_grant", "bad_token", 400, SLOW, "AADSTS50196"),
    # ... and neither makes a lost consent of a sign-in that is wanted
    ((70000,), "access_denied", "bad_token", 400, SIGN_IN, "AADSTS70000"),
    ((65001,), "interaction_required", "consent_required", 400, SIGN_IN, "AADSTS65001"),
    # no number, an unknown one, or something that is none
    *(((), "invalid_grant", suberror, 400, CONSENT, "invalid_grant") for suberror in ("", "bad_token", "new_word")),
    ((), "invalid_grant", "token_expired", 400, CONSENT, "invalid_grant"),
    ((), "invalid_grant", "client_mismatch", 400, CONSENT, "invalid_grant"),
    ((), "invalid_grant", "consent_required", 400, CONSENT, "invalid_grant"),
    ((), "invalid_grant", "user_password_expired", 400, CONSENT, "invalid_grant"),
    ((), "invalid_grant", "basic_action", 400, SIGN_IN, "invalid_grant"),
    ((), "invalid_grant", "additional_action", 400, SIGN_IN, "invalid_grant"),
    ((), "invalid_grant", "message_only", 400, SIGN_IN, "invalid_grant"),
    ((), "invalid_grant", "protection_policy_required", 400, SIGN_IN, "invalid_grant"),
    ((), "interaction_required", "device_authentication_failed", 400, SIGN_IN, "interaction_required"),
    ((), "interaction_required", "", 400, SIGN_IN, "interaction_required"),
    ((), "login_required", "", 400, SIGN_IN, "login_required"),
    ((), "account_selection_required", "", 400, SIGN_IN, "account_selection_required"),
    ((), "expired_token", "", 400, SIGN_IN, "expired_token"),
    ((), "access_denied", "", 403, SIGN_IN, "access_denied"),
    ((), "consent_required", "", 400, CONSENT, "consent_required"),
    ((), "invalid_client", "", 401, CREDENTIAL, "invalid_client"),
    ((), "unauthorized_client", "", 400, CREDENTIAL, "unauthorized_client"),
    *(
        ((), error, "", 400, REQUEST, error)
        for error in (
            "invalid_request",
            "invalid_instance",
            "invalid_resource",
            "invalid_scope",
            "invalid_target",
            "invalid_tenant",
            "unsupported_grant_type",
            "unsupported_response_mode",
            "unsupported_response_type",
        )
    ),
    ((7777777,), "invalid_grant", "", 400, "unknown", "AADSTS7777777"),
    ((7777777,), "invalid_client", "", 401, CREDENTIAL, "AADSTS7777777"),
    ((7777777,), "interaction_required", "", 400, "unknown", "AADSTS7777777"),
    ((-50076,), "invalid_grant", "", 400, CONSENT, "invalid_grant"),
    ((999,), "invalid_grant", "", 400, CONSENT, "invalid_grant"),
    ((10**40,), "invalid_grant", "", 400, CONSENT, "invalid_grant"),
    # written otherwise
    ((50173,), "Invalid_Grant", "Bad_Token", 400, CONSENT, "AADSTS50173"),
    ((), "INVALID_CLIENT", "", 401, CREDENTIAL, "invalid_client"),
    # an error that nobody knows yet is looked at, and a known number does not decide instead
    ((), "grant_evaporated", "", 400, "unknown", "grant_evaporated"),
    ((700082,), "grant_evaporated", "bad_token", 400, "unknown", "AADSTS700082"),
    ((), "<script>alert(1)</script>", "", 400, "unknown", "_script_alert_1___script_"),
]
