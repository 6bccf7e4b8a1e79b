"""What a registration must be at Microsoft: its manifest, and the scripts that create or repair it.

Everything here is worked out from the registration's row and this deployment's addresses; nothing is called. The
scripts make the calls of :func:`calls`, so that one list says what is done.

Source: Microsoft Graph v1.0, application (create, update, add owner) and servicePrincipal (create, upsert); Azure CLI
"az rest", "az ad app owner add";
Microsoft Graph PowerShell "Invoke-MgGraphRequest"; Secure Application Model, "Create a secure partner application".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from consent.permissions import Asking, required_resource_access
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID, NationalCloud

AUDIENCE = "AzureADMultipleOrgs"
"""Accounts in any organizational directory: partners and customers are other tenants."""
LOCK: Mapping[str, bool] = {
    "isEnabled": True,
    "allProperties": True,
    "credentialsWithUsageSign": True,
    "credentialsWithUsageVerify": True,
    "tokenEncryptionKeyId": True,
}
"""No tenant may add credentials or other sensitive properties to the service principal that it has of us."""


class Described(Asking, Protocol):
    """What the manifest is made of: the columns of ``ApplicationRegistration``, whether it is saved yet or not."""

    name: str
    application_id: str
    home_tenant_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What Microsoft's tools and pages are called in one cloud."""

    az: str
    powershell: str
    portal: str
    """Where people register applications."""


# Source: "az cloud list", Microsoft Graph PowerShell "Get-MgEnvironment", Microsoft Entra "National clouds".
TOOLS: Mapping[str, Tools] = {
    "global": Tools(az="AzureCloud", powershell="Global", portal="https://entra.microsoft.com"),
    "usgov": Tools(az="AzureUSGovernment", powershell="USGov", portal="https://entra.microsoft.us"),
    "china": Tools(az="AzureChinaCloud", powershell="China", portal="https://portal.azure.cn"),
}


CLOUDS_WITH_PUBLISHERS = frozenset({"global"})
"""Where Microsoft verifies publishers. Source: Microsoft Graph v1.0, "application: setVerifiedPublisher"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of Microsoft Graph.

    Attributes:
        path: relative to the version.
        body: JSON; None for none.
        why: what it is for, in one sentence.
    """

    method: str
    path: str
    body: Mapping[str, Any] | None
    why: str
    headers: Mapping[str, str]


def application(described: Described, redirect_uris: Sequence[str]) -> dict[str, Any]:
    """Return the application object that is wanted, in the form of Microsoft Graph.

    Args:
        redirect_uris: all of this portal's for the registration's cloud.
    """
    return {
        "displayName": described.name,
        "signInAudience": AUDIENCE,
        "isFallbackPublicClient": False,
        "web": {
            "redirectUris": sorted(redirect_uris),
            "implicitGrantSettings": {"enableIdTokenIssuance": False, "enableAccessTokenIssuance": False},
        },
        "spa": {"redirectUris": []},
        "publicClient": {"redirectUris": []},
        "requiredResourceAccess": required_resource_access(described),
        "servicePrincipalLockConfiguration": dict(LOCK),
    }


def as_text(described: Described, redirect_uris: Sequence[str]) -> str:
    """Return the manifest as the text of a file; every line that holds a value begins with a blank."""
    return json.dumps(application(described, redirect_uris), indent=2) + "\n"


def calls(described: Described, redirect_uris: Sequence[str]) -> list[Call]:
    """Return what the scripts do, in order; each call may be repeated without harm, but for the first creation.

    Without an application id the application is created, and the last call names ``{appId}``, which the answer of the
    creation holds. With one it is repaired.
    """
    app_id, wanted = described.application_id, application(described, redirect_uris)
    if app_id:
        write = Call(
            method="PATCH",
            path=f"/applications(appId='{app_id}')",
            body=wanted,
            why="Repair the registration; credentials and owners stay as they are.",
            headers={},
        )
    else:
        write = Call(
            method="POST",
            path="/applications",
            body=wanted,
            why="Create the registration; the answer's appId is the application id.",
            headers={},
        )
    return [
        _principal(PARTNER_CENTER_APPLICATION_ID, "Make sure that the tenant knows Microsoft Partner Center."),
        write,
        _principal(app_id or "{appId}", "Make sure that the application has a service principal in its own tenant."),
    ]


def _principal(app_id: str, why: str) -> Call:
    return Call(
        method="PATCH",
        path=f"/servicePrincipals(appId='{app_id}')",
        body={"appId": app_id},
        why=why,
        headers={"Prefer": "create-if-missing"},
    )


# --- scripts ----------------------------------------------------------------------------------------------------------
# The manifest stands in them as a literal text. JSON has no line that begins with the words that end it: a line with a
# value begins with a blank, and line breaks within a value are escaped. Other values are GUIDs and fixed words.


_TRIES = 6  # with ten seconds in between


def az_script(described: Described, redirect_uris: Sequence[str], cloud: NationalCloud) -> str:
    """Return a POSIX shell script for Azure CLI that creates the registration, or repairs it."""
    return f"""#!/bin/sh
# Creates or repairs the app registration of the portal. Run it again only with APP_ID filled in.
# You need: Azure CLI, and an account with the role Application Administrator in the home tenant.
set -eu
TENANT='{described.home_tenant_id}'
APP_ID='{described.application_id}'   # empty: a new registration is made
OWNERS=''   # object ids of people of your company who shall own it as well, separated by blanks; nobody is removed
GRAPH='{cloud.graph}/v1.0'
PARTNER_CENTER='{PARTNER_CENTER_APPLICATION_ID}'

az cloud set --name {TOOLS[cloud.key].az}
az login --tenant "$TENANT" --allow-no-subscriptions --output none

az ad sp show --id "$PARTNER_CENTER" --output none 2>/dev/null || az ad sp create --id "$PARTNER_CENTER" --output none

MANIFEST=$(mktemp)
trap 'rm -f "$MANIFEST"' EXIT
cat >"$MANIFEST" <<'MANIFEST_ENDS'
{as_text(described, redirect_uris)}MANIFEST_ENDS

if [ -z "$APP_ID" ]; then
  APP_ID=$(az rest --method POST --url "$GRAPH/applications" --headers 'Content-Type=application/json' \\
    --body "@$MANIFEST" --query appId --output tsv)
  echo "Created: $APP_ID. If this script stops below, write this id into APP_ID before you run it again."
else
  az rest --method PATCH --url "$GRAPH/applications(appId='$APP_ID')" --headers 'Content-Type=application/json' \\
    --body "@$MANIFEST" --output none
fi
TRIES=1   # Microsoft's servers do not know a new registration at once
until az ad sp show --id "$APP_ID" --output none 2>/dev/null || az ad sp create --id "$APP_ID" --output none; do
  if [ "$TRIES" -ge {_TRIES} ]; then exit 1; fi
  TRIES=$((TRIES + 1))
  sleep 10
done
for OWNER in $OWNERS; do
  az ad app owner add --id "$APP_ID" --owner-object-id "$OWNER"   # does nothing where it is one already
done
echo "Application id: $APP_ID"
"""


def powershell_script(described: Described, redirect_uris: Sequence[str], cloud: NationalCloud) -> str:
    """Return the same for Microsoft Graph PowerShell."""
    return f"""# Creates or repairs the app registration of the portal. Run it again only with $AppId filled in.
# You need: PowerShell 7, and an account with the role Application Administrator in the home tenant.
# Once: Install-Module Microsoft.Graph.Authentication, Microsoft.Graph.Applications
$ErrorActionPreference = 'Stop'
$Tenant = '{described.home_tenant_id}'
$AppId = '{described.application_id}'   # empty: a new registration is made
$Owners = @()   # object ids of people of your company who shall own it as well; nobody is removed
$PartnerCenter = '{PARTNER_CENTER_APPLICATION_ID}'

Connect-MgGraph -Environment {TOOLS[cloud.key].powershell} -TenantId $Tenant `
  -Scopes 'Application.ReadWrite.All', 'Directory.Read.All' -NoWelcome

if (-not (Get-MgServicePrincipal -Filter "appId eq '$PartnerCenter'")) {{
  New-MgServicePrincipal -AppId $PartnerCenter | Out-Null
}}

$Manifest = @'
{as_text(described, redirect_uris)}'@

if (-not $AppId) {{
  $AppId = (Invoke-MgGraphRequest -Method POST -Uri '/v1.0/applications' -ContentType 'application/json' `
    -Body $Manifest).appId
  "Created: $AppId. If this script stops below, write this id into `$AppId before you run it again."
}} else {{
  Invoke-MgGraphRequest -Method PATCH -Uri "/v1.0/applications(appId='$AppId')" -ContentType 'application/json' `
    -Body $Manifest | Out-Null
}}
for ($Try = 1; -not (Get-MgServicePrincipal -Filter "appId eq '$AppId'"); $Try++) {{
  # Microsoft's servers do not know a new registration at once.
  try {{
    New-MgServicePrincipal -AppId $AppId | Out-Null
    break
  }} catch {{
    if ($Try -ge {_TRIES}) {{ throw }}
    Start-Sleep -Seconds 10
  }}
}}
$Known = (Invoke-MgGraphRequest -Method GET -Uri "/v1.0/applications(appId='$AppId')/owners?`$select=id").value.id
foreach ($Owner in $Owners | Where-Object {{ $_ -notin $Known }}) {{
  Invoke-MgGraphRequest -Method POST -Uri "/v1.0/applications(appId='$AppId')/owners/`$ref" `
    -ContentType 'application/json' `
    -Body (@{{ "@odata.id" = "{cloud.graph}/v1.0/directoryObjects/$Owner" }} | ConvertTo-Json) | Out-Null
}}
"Application id: $AppId"
"""


def rest_script(described: Described, redirect_uris: Sequence[str], cloud: NationalCloud) -> str:
    """Return the calls as a person reads them, to be sent with any client."""
    parts = []
    for call in calls(described, redirect_uris):
        headers = {"Content-Type": "application/json", **call.headers}
        lines = [f"{name}: {value}" for name, value in headers.items()]
        body = json.dumps(call.body, indent=2)
        parts.append("\n".join([f"{call.method} {cloud.graph}/v1.0{call.path}", *lines, "", body]))
    return "\n\n\n".join(parts) + "\n"


def owner_call(described: Described, cloud: NationalCloud) -> str:
    """Return the call that adds one owner, with a place for the person's object id."""
    return (
        f"POST {cloud.graph}/v1.0/applications(appId='{described.application_id or '{appId}'}')/owners/$ref\n"
        f'Content-Type: application/json\n\n{{"@odata.id": "{cloud.graph}/v1.0/directoryObjects/{{object id}}"}}'
    )


def publisher_call(described: Described, cloud: NationalCloud) -> str:
    """Return the call that verifies the publisher, with a place for the Partner One id; empty where there is none."""
    if cloud.key not in CLOUDS_WITH_PUBLISHERS:
        return ""
    return (
        f"POST {cloud.graph}/v1.0/applications(appId='{described.application_id or '{appId}'}')/setVerifiedPublisher\n"
        'Content-Type: application/json\n\n{"verifiedPublisherId": "{Partner One id}"}'
    )


def read_command(described: Described, cloud: NationalCloud) -> str:
    """Return one command that prints the registration as one JSON text.

    It holds the application with owners and federated credentials, and its service principal with granted roles; what
    cannot be read is null, and so not looked at.
    """
    named = f"(appId='{described.application_id}')"
    application = f"{cloud.graph}/v1.0/applications{named}"
    principal = f"{cloud.graph}/v1.0/servicePrincipals{named}"
    parts = {
        "application": application,
        "owners": f"{application}/owners",
        "federatedIdentityCredentials": f"{application}/federatedIdentityCredentials",
        "servicePrincipal": principal,
        "appRoleAssignments": f"{principal}/appRoleAssignments",
    }
    names = ", ".join(f'"{name}": %s' for name in parts)
    reads = " ".join(f'"$(az rest --url "{address}" --output json || echo null)"' for address in parts.values())
    return f"printf '{{{names}}}\\n' {reads}"
