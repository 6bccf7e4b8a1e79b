"""National clouds: every host of a cloud together, so that no two can be paired wrongly.

A cloud is a closed world: tenants, registrations, tokens and Partner Center accounts of one are unknown in the
others. Pass the record around, never single addresses. Endpoints are deployment configuration: nothing here can be
changed through the admin or the database (S-27).

Source: Microsoft Entra "National clouds", Microsoft Graph "National cloud deployments", Partner Center REST URLs,
and the constants of azure-identity and msal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

GRAPH_APPLICATION_ID = "00000003-0000-0000-c000-000000000000"
PARTNER_CENTER_APPLICATION_ID = "fa3d9a0c-3fb0-42cc-9193-47c7ecd2edbd"
PARTNER_API_APPLICATION_ID = "4990cffe-04e8-4e8b-808a-1175604b879f"
AZURE_MANAGEMENT_APPLICATION_ID = "797f4846-ba00-4fd7-ba43-dac1f8f63013"


class UnknownCloud(ValueError):
    """No such cloud, or one that Microsoft has closed; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NationalCloud:
    """One cloud. All addresses are ``https`` origins without a trailing slash unless said otherwise."""

    key: str
    name: str
    authority: str
    """Where people sign in and tokens come from."""
    sign_in: str
    """Where browsers are sent: the authority, except that the sandbox also answers browsers without TLS."""
    authority_aliases: frozenset[str]
    """Other host names of the same authority; issuers and ``Origin`` may carry them."""
    v1_issuer: str
    """Issuer prefix of version 1.0 access tokens, with a trailing slash: the tenant id and ``/`` follow."""
    graph: str
    partner_center: str
    partner_api: str | None
    """Partner API (pricing, referrals); None where Microsoft lists none."""
    azure_management: str
    vault_suffix: str
    """DNS suffix of Key Vaults with a leading dot; the vault's resource is ``https://`` + the suffix without it."""
    federation_audience: str
    """Audience of a managed identity's token when it serves as the application's credential."""
    gdap_documented: bool
    """Whether Microsoft documents the GDAP Graph API for this cloud."""

    @property
    def partner_center_scope(self) -> str:
        return f"{self.partner_center}/user_impersonation"

    def hosts(self) -> frozenset[str]:
        """Every ``host[:port]`` of this cloud that we call, vaults apart (S-26)."""
        origins = [self.authority, self.graph, self.partner_center, self.azure_management]
        if self.partner_api:
            origins.append(self.partner_api)
        return frozenset(urlsplit(origin).netloc for origin in origins) | self.authority_aliases


GLOBAL = NationalCloud(
    key="global",
    name="Global",
    authority="https://login.microsoftonline.com",
    sign_in="https://login.microsoftonline.com",
    authority_aliases=frozenset({"login.windows.net", "login.microsoft.com", "sts.windows.net"}),
    v1_issuer="https://sts.windows.net/",
    graph="https://graph.microsoft.com",
    partner_center="https://api.partnercenter.microsoft.com",
    partner_api="https://api.partner.microsoft.com",
    azure_management="https://management.azure.com",
    vault_suffix=".vault.azure.net",
    federation_audience="api://AzureADTokenExchange",
    gdap_documented=True,
)

# US Government calls the Global Partner Center host, but its users sign in at their own authority.
US_GOVERNMENT = NationalCloud(
    key="usgov",
    name="US Government",
    authority="https://login.microsoftonline.us",
    sign_in="https://login.microsoftonline.us",
    authority_aliases=frozenset({"login.usgovcloudapi.net"}),
    v1_issuer="https://sts.windows.net/",
    graph="https://graph.microsoft.us",
    partner_center="https://api.partnercenter.microsoft.com",
    partner_api="https://api.partner.microsoft.com",
    azure_management="https://management.usgovcloudapi.net",
    vault_suffix=".vault.usgovcloudapi.net",
    federation_audience="api://AzureADTokenExchangeUSGov",
    gdap_documented=True,
)

# Older software knows the China authority as login.chinacloudapi.cn; both names lead to one service.
CHINA = NationalCloud(
    key="china",
    name="China (21Vianet)",
    authority="https://login.partner.microsoftonline.cn",
    sign_in="https://login.partner.microsoftonline.cn",
    authority_aliases=frozenset({"login.chinacloudapi.cn"}),
    v1_issuer="https://sts.chinacloudapi.cn/",
    graph="https://microsoftgraph.chinacloudapi.cn",
    partner_center="https://partner.partnercenterapi.microsoftonline.cn",
    partner_api=None,
    azure_management="https://management.chinacloudapi.cn",
    vault_suffix=".vault.azure.cn",
    federation_audience="api://AzureADTokenExchangeChina",
    gdap_documented=False,
)

MICROSOFT: Mapping[str, NationalCloud] = {cloud.key: cloud for cloud in (GLOBAL, US_GOVERNMENT, CHINA)}
CLOUD_CHOICES = [(cloud.key, cloud.name) for cloud in MICROSOFT.values()]

GERMANY_IS_CLOSED = "Microsoft Cloud Germany was closed on 29 October 2021; its partners moved to Global."


def get_cloud(key: str, clouds: Mapping[str, NationalCloud] = MICROSOFT) -> NationalCloud:
    """Return the cloud of this key.

    Raises:
        UnknownCloud: the key is unknown, or it is Germany, which Microsoft closed on 29 October 2021.
    """
    if key == "germany":
        raise UnknownCloud(GERMANY_IS_CLOSED)
    try:
        return clouds[key]
    except KeyError:
        raise UnknownCloud(f"Unknown cloud; choose one of {', '.join(clouds)}.") from None


def local_clouds(port: int, browser_port: int = 0) -> Mapping[str, NationalCloud]:
    """Return the same three clouds with all hosts on this machine, as the sandbox serves them.

    Args:
        port: everything, over TLS.
        browser_port: the sign-in pages over plain http for a person's browser; 0 sends browsers to the TLS port.

    Names below ``.localhost`` always mean the loopback interface (RFC 6761). Each cloud is a site of its own, so a
    browser treats a trip to it as cross-site, as in real life.
    """

    def at(cloud: NationalCloud) -> NationalCloud:
        def host(name: str) -> str:
            return f"https://{name}.{cloud.key}.localhost:{port}"

        return NationalCloud(
            key=cloud.key,
            name=cloud.name,
            authority=host("login"),
            sign_in=f"http://login.{cloud.key}.localhost:{browser_port}" if browser_port else host("login"),
            authority_aliases=frozenset(),
            v1_issuer=host("sts") + "/",
            graph=host("graph"),
            partner_center=host("partnercenter"),
            partner_api=host("partnerapi") if cloud.partner_api else None,
            azure_management=host("management"),
            vault_suffix=f".vault.{cloud.key}.localhost:{port}",
            federation_audience=cloud.federation_audience,
            gdap_documented=cloud.gdap_documented,
        )

    return {key: at(cloud) for key, cloud in MICROSOFT.items()}
