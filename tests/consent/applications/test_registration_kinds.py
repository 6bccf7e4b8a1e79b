"""CPV-kind and CSP-kind registrations go through the same pages; a CSP-kind one serves exactly its own tenant."""

from __future__ import annotations

import pytest

from consent.invitations import links
from consent.models import ApplicationRegistration
from tests.support import builders
from tests.support.portal import Portal


@pytest.fixture
def csp_portal(portal: Portal) -> Portal:
    """The partner's own application, registered in the partner's tenant and as a CSP application."""
    application = portal.sandbox.world.applications[portal.registration.application_id]
    application.home_tenant, application.multi_tenant, application.cpv = portal.partner.tenant_id, False, False
    ApplicationRegistration.objects.update(kind="csp", home_tenant_id=portal.partner.tenant_id)
    portal.registration.refresh_from_db()
    return portal


def test_a_csp_registration_connects_its_own_tenant(csp_portal: Portal) -> None:
    page = csp_portal.onboard()
    assert page.status_code == 200
    assert csp_portal.consent().state == "connected"


def test_a_csp_registration_invites_nobody_else(csp_portal: Portal) -> None:
    with pytest.raises(links.LinkRefused, match="exactly the tenant"):
        links.issue(builders.partner(), csp_portal.registration, actor=builders.ACTOR)


def test_a_cpv_registration_serves_any_partner(portal: Portal) -> None:
    other = next(one for one in portal.sandbox.world.tenants.values() if one.domain == "southridge.example.com")
    partner = builders.partner(tenant_id=other.tenant_id)
    for each in (portal.partner, partner):
        assert links.issue(each, portal.registration, actor=builders.ACTOR)
