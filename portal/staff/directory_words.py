"""What a person reads when the sign-in service's answer was not accepted: what happened, and who must act."""

from __future__ import annotations

from collections.abc import Mapping

from portal.staff.oidc import Flaw

_OURS = "An operator of the portal must look into it; the audit trail has the reason. Nothing of the answer was used."
_WAIT = (
    "Try again in a few minutes. If it stays so, an operator of the portal finds the cause in its log. Who has a "
    "password and a factor of the portal's own signs in with them meanwhile."
)
_ANEW = "Begin anew from the sign-in page of the portal, in one window."

REFUSALS: Mapping[Flaw, tuple[str, str]] = {
    Flaw.DENIED: ("Your organisation's sign-in service gave no proof of you.", f"You may have cancelled. {_ANEW}"),
    Flaw.STATE: ("This answer belongs to no sign-in of this browser, or is too old, or was used before.", _ANEW),
    Flaw.ISSUER: ("The answer came from another service than the one that was asked.", _OURS),
    Flaw.MISSING: ("The answer names nobody.", _OURS),
    Flaw.MALFORMED: ("The answer is not well-formed.", _OURS),
    Flaw.ALGORITHM: ("The answer is not signed as it must be.", _OURS),
    Flaw.KEY: ("The answer is signed with a key that the service does not publish.", _OURS),
    Flaw.SIGNATURE: ("The signature of the answer is wrong.", _OURS),
    Flaw.AUDIENCE: ("The answer is meant for another application.", _OURS),
    Flaw.TENANT: ("You signed in with an account of another organisation.", f"Use your own organisation's. {_ANEW}"),
    Flaw.TIME: (
        "The answer is over, or from the future.",
        f"Try again. If it stays so, the clock of the portal's server is wrong. {_OURS}",
    ),
    Flaw.NONCE: ("The answer belongs to another sign-in.", _ANEW),
    Flaw.SUBJECT: ("The answer names nobody.", _OURS),
    Flaw.MFA: (
        "Your organisation's sign-in service did not say that you proved a second factor.",
        "Who administers that service must demand one for this application; the portal's operations guide says how.",
    ),
    Flaw.FRESH: ("You were asked to sign in anew, and the service let you through without it.", _ANEW),
    Flaw.ROLE: (
        "Your account has none of the roles that open the portal.",
        "Who administers your organisation's directory must give you one for this application. Then sign in again.",
    ),
    Flaw.TOO_MANY_GROUPS: (
        "You are in so many groups that the service names none of them.",
        "Who administers your organisation's directory must give you a role of this application instead.",
    ),
    Flaw.SWITCHED_OFF: (
        "Your account was switched off in the portal.",
        "An administrator of the portal can switch it on again.",
    ),
    Flaw.OTHER_PERSON: (
        "You proved to be somebody else than who is signed in here.",
        "Sign out first if you want to go on as that person.",
    ),
}

NO_ANSWER = (
    "Your organisation's sign-in service did not answer as it must.",
    _WAIT,
)
