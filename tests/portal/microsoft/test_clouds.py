"""The clouds: hosts that belong together, and nothing that two of them share by accident."""

from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any
from urllib.parse import urlsplit

import pytest

from portal.microsoft import clouds
from portal.microsoft.clouds import (
    CHINA,
    CLOUD_CHOICES,
    GLOBAL,
    MICROSOFT,
    US_GOVERNMENT,
    NationalCloud,
    UnknownCloud,
    get_cloud,
    local_clouds,
)

LOCAL = list(local_clouds(8443).values())
every_cloud = pytest.mark.parametrize("cloud", [*MICROSOFT.values(), *LOCAL], ids=lambda cloud: cloud.authority)
ORIGINS = (
    "authority",
    "sign_in",
    "graph",
    "partner_center",
    "partner_api",
    "azure_management",
)

pytestmark = pytest.mark.req("S-27")


def origins(cloud: NationalCloud) -> list[str]:
    return [value for name in ORIGINS if (value := getattr(cloud, name)) is not None]


@every_cloud
def test_every_address_is_a_bare_https_origin(cloud: NationalCloud) -> None:
    for origin in origins(cloud):
        parts = urlsplit(origin)
        assert parts.scheme == "https"
        assert parts.hostname
        assert (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
        assert origin == origin.lower()
    assert cloud.v1_issuer.startswith("https://")
    assert cloud.v1_issuer.endswith("/")


def test_the_documented_hosts_are_these() -> None:
    # National clouds pages of Entra, Graph, Partner Center and Key Vault.
    assert [
        (urlsplit(each.authority).netloc, urlsplit(each.graph).netloc, each.vault_suffix)
        for each in (GLOBAL, US_GOVERNMENT, CHINA)
    ] == [
        ("login.microsoftonline.com", "graph.microsoft.com", ".vault.azure.net"),
        ("login.microsoftonline.us", "graph.microsoft.us", ".vault.usgovcloudapi.net"),
        ("login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn", ".vault.azure.cn"),
    ]
    assert CHINA.authority_aliases == {"login.chinacloudapi.cn"}
    assert CHINA.partner_api is None
    assert CHINA.partner_center_scope == "https://partner.partnercenterapi.microsoftonline.cn/user_impersonation"


@pytest.mark.parametrize("group", [list(MICROSOFT.values()), LOCAL], ids=["microsoft", "local"])
def test_no_two_clouds_share_an_authority_a_directory_or_a_vault(group: list[NationalCloud]) -> None:
    for one, other in combinations(group, 2):
        authorities = [
            {urlsplit(cloud.authority).netloc, urlsplit(cloud.sign_in).netloc} | cloud.authority_aliases
            for cloud in (one, other)
        ]
        assert not authorities[0] & authorities[1]
        for name in ("key", "name", "authority", "graph", "azure_management", "vault_suffix"):
            assert getattr(one, name) != getattr(other, name)
        assert not one.vault_suffix.endswith(other.vault_suffix)
        assert not other.vault_suffix.endswith(one.vault_suffix)


def test_only_us_government_shares_a_service_and_only_partner_centers() -> None:
    # Microsoft serves Partner Center of US Government from the Global host; everything else is apart.
    shared = GLOBAL.hosts() & US_GOVERNMENT.hosts()
    assert shared == {"api.partnercenter.microsoft.com", "api.partner.microsoft.com"}
    assert not GLOBAL.hosts() & CHINA.hosts()
    assert not US_GOVERNMENT.hosts() & CHINA.hosts()
    for one, other in combinations(LOCAL, 2):
        assert not one.hosts() & other.hosts()


@every_cloud
@pytest.mark.req("S-26")
def test_the_hosts_of_a_cloud_are_what_it_calls_and_nothing_browsers_only_visit(cloud: NationalCloud) -> None:
    called = [cloud.authority, cloud.graph, cloud.partner_center, cloud.azure_management]
    called += [cloud.partner_api] if cloud.partner_api else []
    assert cloud.hosts() == {urlsplit(origin).netloc for origin in called} | cloud.authority_aliases


def test_germany_is_refused_with_its_closing_date() -> None:
    with pytest.raises(UnknownCloud, match="29 October 2021"):
        get_cloud("germany")


@pytest.mark.parametrize("key", ["", "Global", "GLOBAL", "global ", "usgov2", "../global", "\x00"])
def test_an_unknown_cloud_is_refused_and_the_known_ones_are_named(key: str) -> None:
    with pytest.raises(UnknownCloud, match="choose one of global, usgov, china"):
        get_cloud(key)


def test_a_cloud_is_found_by_its_key_in_the_given_deployment() -> None:
    assert [get_cloud(key) for key, _ in CLOUD_CHOICES] == [GLOBAL, US_GOVERNMENT, CHINA]
    local = local_clouds(8443)
    assert get_cloud("china", local) is local["china"]
    with pytest.raises(UnknownCloud):
        get_cloud("china", {"global": GLOBAL})


def test_a_cloud_cannot_be_changed_while_the_portal_runs() -> None:
    cloud: Any = GLOBAL
    with pytest.raises(dataclasses.FrozenInstanceError):
        cloud.authority = "https://evil.example"


@pytest.mark.parametrize("port", [1, 8443, 65535])
def test_local_clouds_stay_on_this_machine_and_keep_the_differences(port: int) -> None:
    local = local_clouds(port)
    assert local.keys() == MICROSOFT.keys()
    for key, cloud in local.items():
        hosts = [urlsplit(origin) for origin in (*origins(cloud), cloud.v1_issuer)]
        assert all((each.hostname or "").endswith(f".{key}.localhost") and each.port == port for each in hosts)
        real = MICROSOFT[key]
        assert (cloud.partner_api is None) is (real.partner_api is None)
        assert (cloud.name, cloud.gdap_documented) == (real.name, real.gdap_documented)
        assert cloud.federation_audience == real.federation_audience


def test_local_sign_in_may_be_without_tls_for_a_persons_browser_only() -> None:
    local = local_clouds(8443, browser_port=8080)["usgov"]
    assert local.sign_in == "http://login.usgov.localhost:8080"
    assert local.authority == "https://login.usgov.localhost:8443"
    assert "login.usgov.localhost:8080" not in local.hosts()


def test_the_well_known_applications_are_microsofts() -> None:
    assert clouds.GRAPH_APPLICATION_ID == "00000003-0000-0000-c000-000000000000"
    assert clouds.PARTNER_CENTER_APPLICATION_ID == "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"
