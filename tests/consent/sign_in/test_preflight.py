"""What is checked after the sign-in and before anything is stored, with both permission sets.

Covers: consent.microsoft.accounts, consent.sign_in.proof.
"""

from __future__ import annotations

import pytest

from consent.models import ApplicationRegistration, PartnerConsent
from tests.sandbox.world import Fault, User
from tests.support.portal import SERVICE_ACCOUNT, Portal


def account(portal: Portal) -> User:
    return next(user for _, user in portal.sandbox.world.users_of("global") if user.upn == SERVICE_ACCOUNT)


def checks(portal: Portal) -> dict[str, str]:
    return {one["check"]: one["state"] for one in portal.consent().checks}


def use_set(portal: Portal, name: str) -> None:
    ApplicationRegistration.objects.update(permission_set=name)
    portal.registration.refresh_from_db()


@pytest.mark.parametrize("name", ["strict", "extended"])
def test_both_permission_sets_connect_a_proper_account(portal: Portal, name: str) -> None:
    use_set(portal, name)
    portal.onboard()
    assert checks(portal) == {
        "tenant": "passed",
        "member": "passed",
        "mfa": "passed",
        "partner_center": "passed",
        "admin_agent": "passed",
        "global_administrator": "passed",
    }


def test_a_guest_is_refused_before_anything_is_stored(portal: Portal) -> None:
    account(portal).user_type = "Guest"
    page = portal.onboard()
    assert page.status_code == 403
    assert not PartnerConsent.objects.exists()


def test_a_role_that_graph_denies_is_shown_as_failed_and_refuses_nobody(portal: Portal) -> None:
    use_set(portal, "extended")
    portal.onboard()  # an administrator has consented; the second sign-in may be by anybody
    account(portal).roles.clear()
    portal.onboard()
    assert checks(portal)["global_administrator"] == "failed"
    assert portal.consent().state == "connected"


def test_what_graph_does_not_tell_could_not_be_verified(portal: Portal) -> None:
    portal.sandbox.world.faults.append(Fault(service="graph", path="/v1.0/me", times=9, status=403, body="{}"))
    page = portal.onboard()
    assert page.status_code == 200
    assert checks(portal)["member"] == "unverified"
    assert "Could not verify" in page.content.decode()
    assert portal.consent().state == "connected"


def test_a_service_that_rotates_strictly_leaves_the_last_token_in_the_vault(portal: Portal) -> None:
    portal.sandbox.world.switches["rotation"] = "strict"
    portal.onboard()
    alive = [token for token in portal.sandbox.world.refresh_tokens.values() if not token.revoked]
    assert len(alive) == 1
    assert portal.consent().state == "connected"
