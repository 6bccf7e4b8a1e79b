"""The watch of tests/conftest.py over all outgoing addresses, and that it sees what it is for (S-13)."""

from __future__ import annotations

import pytest

from tests.support.portal import Portal, sign_in_addresses_without_a_tenant

TENANT = "7b1d6b1e-2a55-4d3a-9c7e-3f2f6f0a9b11"


@pytest.mark.req("S-13")
@pytest.mark.parametrize("segment", ["common", "organizations", "consumers", "contoso.example", TENANT.upper(), ""])
@pytest.mark.parametrize("end", ["token", "authorize"])
def test_an_address_without_the_tenant_is_seen(segment: str, end: str) -> None:
    bad = f"https://login.microsoftonline.com/{segment}/oauth2/v2.0/{end}"
    assert sign_in_addresses_without_a_tenant([bad]) == [bad]
    assert sign_in_addresses_without_a_tenant([f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/{end}"]) == []


@pytest.mark.req("S-13")
@pytest.mark.django_db
def test_the_whole_thread_is_watched(portal: Portal, request: pytest.FixtureRequest) -> None:
    assert "_sign_in_addresses_name_a_tenant" in request.fixturenames
    portal.onboard()
    assert portal.consent().state == "connected"
