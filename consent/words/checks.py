"""What the result page says about each check after the sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise


class CheckState(StrEnum):
    """What a check came to, as the row keeps it."""

    PASSED = "passed"
    FAILED = "failed"
    UNVERIFIED = "unverified"


def _check(
    label: StrOrPromise, *, passed: StrOrPromise, failed: StrOrPromise, unverified: StrOrPromise
) -> Mapping[str, Mapping[str, StrOrPromise]]:
    details = {CheckState.PASSED: passed, CheckState.FAILED: failed, CheckState.UNVERIFIED: unverified}
    return {state: {"label": label, "detail": detail} for state, detail in details.items()}


# By check and state; what could not be proven is never called passed (S-18).
CHECK_WORDS: Mapping[str, Mapping[str, Mapping[str, StrOrPromise]]] = {
    "tenant": _check(
        _("Your tenant"),
        passed=_("Microsoft confirmed that the account belongs to this tenant."),
        failed=_("The account belongs to another tenant."),
        unverified=_("Microsoft did not say to which tenant the account belongs."),
    ),
    "member": _check(
        _("Member account"),
        passed=_("The account is a member of the tenant, not a guest and not a personal account."),
        failed=_("The account is a guest or a personal account."),
        unverified=_("The permission User.Read would let us tell a member from a guest."),
    ),
    "mfa": _check(
        _("Multifactor authentication"),
        passed=_("Partner Center confirmed that the sign-in was proven by a second factor."),
        failed=_("Partner Center says that the sign-in was not proven by a second factor."),
        unverified=_("Partner Center gave no verdict, so we do not count it as proven. We ask again regularly."),
    ),
    "partner_center": _check(
        _("Partner Center"),
        passed=_("Partner Center answered a real request made with this account."),
        failed=_("Partner Center refused a request made with this account."),
        unverified=_("Partner Center did not answer. We ask again regularly."),
    ),
    "global_administrator": _check(
        _("Global Administrator"),
        passed=_("The account held this role at the time of the sign-in."),
        failed=_("The account did not hold this role, or it was not activated."),
        unverified=_("The permission Directory.Read.All would let us verify this role."),
    ),
    "admin_agent": _check(
        _("Admin Agent"),
        passed=_("The account is in the Admin Agents group."),
        failed=_("The account is not in the Admin Agents group."),
        unverified=_("The permission Directory.Read.All would let us verify this group."),
    ),
}
