"""Every address that is built for a cloud has a host of that cloud, whatever is in it (S-26, S-27).

Clients, sign-in pages and scopes are driven with arbitrary values; a transport that only notes addresses stands where
the network is.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from consent.microsoft.accounts import AccountClient
from consent.microsoft.application_consents import ApplicationConsentClient
from consent.microsoft.credentials import ClientSecret
from consent.microsoft.directory import DirectoryClient
from consent.microsoft.entra import EntraClient, MetadataCache, admin_consent_url, authorize_url
from consent.microsoft.id_tokens import SigningKeys
from consent.permissions import PERMISSION_IDS, Permission, PermissionSet, origin_of
from consent.tokens.service import Audience
from portal.microsoft.api import RetryPolicy
from portal.microsoft.clouds import MICROSOFT, NationalCloud, local_clouds
from portal.microsoft.errors import RemoteError
from portal.microsoft.identifiers import (
    new_correlation_id,
    new_request_id,
    parse_application_id,
    parse_tenant_id,
)
from portal.microsoft.secret import Secret
from tenants.gdap import GdapClient
from tenants.partner_center import PartnerCenterClient

pytestmark = [pytest.mark.req("S-26"), pytest.mark.req("S-27")]
CLOUDS = [*MICROSOFT.values(), *local_clouds(8443, 8080).values()]
clouds = st.sampled_from(CLOUDS)
guids = st.uuids().map(str).filter(lambda text: text.strip("0-") != "")
texts = st.text(max_size=40)
scope_names = st.text(string.ascii_letters, min_size=1, max_size=20)
known = st.sampled_from([(resource, name) for resource, names in PERMISSION_IDS.items() for name in names])
permissions = st.lists(st.one_of(known, st.tuples(guids, scope_names)), min_size=1, max_size=12, unique=True)


class Noted(requests.adapters.BaseAdapter):
    """Notes the address of each request and answers none."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        self.addresses.append(str(request.url))
        raise requests.ConnectionError("noted")

    def close(self) -> None:
        return None


def own_hosts(cloud: NationalCloud) -> set[str]:
    """Return the hosts of this cloud by its record: nothing of another cloud but what both share."""
    return set(cloud.hosts()) | {urlsplit(cloud.sign_in).netloc}


def of(cloud: NationalCloud, address: str) -> bool:
    parts = urlsplit(address)
    local_page = cloud.sign_in.startswith("http://") and parts.netloc == urlsplit(cloud.sign_in).netloc
    return (parts.scheme == "https" or local_page) and parts.netloc in own_hosts(cloud)


def asked(chosen: list[tuple[str, str]], cloud: NationalCloud) -> PermissionSet | None:
    """Return the set, None where the cloud lacks one of its services."""
    wanted = PermissionSet(permissions=tuple(Permission(resource=one, name=name, id=one) for one, name in chosen))
    return None if wanted.absent_in(cloud) else wanted


@given(cloud=clouds, tenant=guids, application=guids, chosen=permissions, state=texts)
def test_sign_in_pages_and_scopes_stay_in_their_cloud(
    cloud: NationalCloud, tenant: str, application: str, chosen: list[tuple[str, str]], state: str
) -> None:
    wanted = asked(chosen, cloud)
    if wanted is None:
        assert cloud.partner_api is None
        with pytest.raises(ValueError, match="has no Partner API"):
            PermissionSet(
                permissions=tuple(Permission(resource=one, name=name, id=one) for one, name in chosen)
            ).authorize_scopes(cloud)
        return
    scopes = wanted.authorize_scopes(cloud)
    common: dict[str, Any] = {
        "cloud": cloud,
        "tenant_id": parse_tenant_id(tenant),
        "application_id": parse_application_id(application),
        "redirect_uri": "https://portal.localhost/consent/callback/",
        "scopes": scopes,
        "state": state,
    }
    for address in (authorize_url(**common, nonce=state, code_challenge=state), admin_consent_url(**common)):
        assert of(cloud, address)
        assert urlsplit(address).path.startswith(f"/{tenant}/")
        assert parse_qs(urlsplit(address).query)["scope"] == [" ".join(scopes)]
    for scope, one in zip(scopes[3:], wanted.permissions, strict=True):
        origin = scope.removesuffix(f"/{one.name}")
        assert origin == origin_of(one.resource, cloud)
        assert of(cloud, origin) if one.resource in PERMISSION_IDS else origin == one.resource
    for audience in Audience:
        if audience is not Audience.PARTNER_API or cloud.partner_api is not None:
            assert of(cloud, audience.scope(cloud))


@settings(max_examples=40)
@given(cloud=clouds, tenant=guids, application=guids, resource=guids, name=scope_names)
def test_clients_call_their_cloud_only(
    cloud: NationalCloud, tenant: str, application: str, resource: str, name: str
) -> None:
    session, noted = requests.Session(), Noted()
    session.trust_env = False
    for scheme in ("https://", "http://"):
        session.mount(scheme, noted)
    tenant_id, app_id = parse_tenant_id(tenant), parse_application_id(application)
    made: dict[str, Any] = {
        "session": session,
        "token_source": lambda: Secret("token"),
        "correlation_id": new_correlation_id(),
        "retry": RetryPolicy(tries=1),
    }
    partner_center = PartnerCenterClient(base_url=cloud.partner_center, **made)
    consents = ApplicationConsentClient(base_url=cloud.partner_center, **made)
    graph = {"base_url": cloud.graph, **made}
    entra = EntraClient(
        cloud=cloud,
        application_id=app_id,
        credential=ClientSecret(value=Secret("secret")),
        session=session,
        correlation_id=new_correlation_id(),
    )
    calls: list[Callable[[], object]] = [
        partner_center.organization_profile,
        lambda: next(partner_center.customers()),
        lambda: partner_center.customer(tenant_id),
        lambda: consents.remove(customer=tenant_id, application_id=app_id, request_id=new_request_id()),
        lambda: next(iter(GdapClient(**graph).relationships())),
        lambda: DirectoryClient(**graph).presence(app_id, [parse_application_id(resource)]),
        AccountClient(**graph).standing,
        lambda: entra.redeem_refresh_token(
            tenant_id=tenant_id, refresh_token=Secret("x"), scope=f"{cloud.graph}/{name}"
        ),
        lambda: MetadataCache(session).of(cloud),
        lambda: SigningKeys(session).prefetch(cloud, tenant_id),
    ]
    for number, call in enumerate(calls, 1):
        with suppress(RemoteError):
            call()
        assert len(noted.addresses) >= number, "nothing was asked"
        assert all(of(cloud, address) for address in noted.addresses), noted.addresses


def test_another_clouds_host_is_seen() -> None:
    """The properties above would fail for it."""
    assert not of(MICROSOFT["china"], MICROSOFT["global"].graph)
    assert not of(MICROSOFT["usgov"], MICROSOFT["global"].azure_management)
    assert not of(MICROSOFT["global"], "https://graph.microsoft.com.evil.example/")
    assert not of(MICROSOFT["global"], "http://graph.microsoft.com/")
