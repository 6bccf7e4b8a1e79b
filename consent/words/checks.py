"""What the result page says about each check after the sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class CheckState(StrEnum):
    """What a check came to, as the row keeps it."""

    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"


def _check(label: str, *, passed: str, failed: str, unverified: str) -> Mapping[str, Mapping[str, str]]:
    details = {CheckState.PASSED: passed, CheckState.FAILED: failed, CheckState.UNVERIFIED: unverified}
    return {state: {"label": label, "detail": detail} for state, detail in details.items()}


# By check and state; what could not be proven is never called passed (S-18).
CHECK_WORDS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "tenant": _check(
        "Your tenant",
        passed="Microsoft confirmed that the account belongs to this tenant.",
        failed="The account belongs to another tenant.",
        unverified="Microsoft did not say to which tenant the account belongs.",
    ),
    "member": _check(
        "Member account",
        passed="The account is a member of the tenant, not a guest and not a personal account.",
        failed="The account is a guest or a personal account.",
        unverified="The permission User.Read would let us tell a member from a guest.",
    ),
    "mfa": _check(
        "Multifactor authentication",
        passed="Partner Center confirmed that the sign-in was proven by a second factor.",
        failed="Partner Center says that the sign-in was not proven by a second factor.",
        unverified="Partner Center gave no verdict, so we do not count it as proven. We ask again regularly.",
    ),
    "partner_center": _check(
        "Partner Center",
        passed="Partner Center answered a real request made with this account.",
        failed="Partner Center refused a request made with this account.",
        unverified="Partner Center did not answer. We ask again regularly.",
    ),
    "global_administrator": _check(
        "Global Administrator",
        passed="The account held this role at the time of the sign-in.",
        failed="The account did not hold this role, or it was not activated.",
        unverified="The permission Directory.Read.All would let us verify this role.",
    ),
    "admin_agent": _check(
        "Admin Agent",
        passed="The account is in the Admin Agents group.",
        failed="The account is not in the Admin Agents group.",
        unverified="The permission Directory.Read.All would let us verify this group.",
    ),
}
