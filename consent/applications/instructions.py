"""What to do at Microsoft for each step of the set-up, exactly, with the values of a registration filled in.

``docs/setup-at-microsoft.md`` says the same for readers; a test compares the titles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consent.applications import manifest
from consent.applications.addresses import redirect_uris
from consent.applications.manifest import TOOLS, Described
from consent.applications.setup import Key
from consent.permissions import UNCONFIRMED_IDS
from portal.microsoft.clouds import PARTNER_CENTER_APPLICATION_ID, NationalCloud


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text to copy. With a file name it can be downloaded as well."""

    label: str
    text: str
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """A step in words. ``todo`` is one sentence or two for each thing to do, in order; ``why`` says what it is for."""

    title: str
    why: str
    todo: Sequence[str] = ()
    texts: Sequence[Text] = ()


TITLES = {
    Key.ENROLMENT: "Enrol as a control panel vendor",
    Key.PARTNER_CENTER: "Create Microsoft Partner Center's service principal",
    Key.REGISTRATION: "Create the app registration",
    Key.PERMISSIONS: "Set the permissions",
    Key.PUBLISHER: "Verify the publisher",
    Key.CREDENTIAL: "Add a credential",
    Key.ACTIVATION: "Activate the registration",
    Key.SIGN_IN: "Connect a first partner",
    Key.GRANTS: "Say what is wanted in customer tenants",
    Key.CUSTOMER: "Grant the first customer",
    Key.WATCH: "Let the portal look at the registration daily",
}


def files(described: Described, cloud: NationalCloud) -> dict[str, tuple[str, str]]:
    """Return the files that can be downloaded: name to content type and text."""
    uris = redirect_uris(cloud.key)
    return {
        "manifest.json": ("application/json", manifest.as_text(described, uris)),
        "registration.sh": ("text/x-shellscript", manifest.az_script(described, uris, cloud)),
        "registration.ps1": ("text/plain", manifest.powershell_script(described, uris, cloud)),
        "registration.http": ("text/plain", manifest.rest_script(described, uris, cloud)),
    }


_LABELS = {
    "registration.sh": "Azure CLI script",
    "registration.ps1": "Graph PowerShell script",
    "registration.http": "Graph calls, for any other client",
    "manifest.json": "Manifest",
}


def instruction_of(key: Key, described: Described, cloud: NationalCloud) -> Instruction:
    """Return what to do for one step."""
    why, todo = _WORDS[key]
    tools = TOOLS[cloud.key]
    values = {
        "tenant": described.home_tenant_id,
        "portal": tools.portal,
        "name": described.name,
        "set": ", ".join(one.name for one in described.asked.permissions),
    }
    if key == Key.PUBLISHER and cloud.key not in manifest.CLOUDS_WITH_PUBLISHERS:
        todo = ["Nothing: Microsoft verifies no publishers in this cloud."]
    comparing = [_TO_COMPARE] if key == Key.PERMISSIONS and _doubtful(described) else []
    return Instruction(
        title=TITLES[key],
        why=why,
        todo=[one.format(**values) for one in todo] + comparing,
        texts=_texts(key, described, cloud),
    )


def _texts(key: Key, described: Described, cloud: NationalCloud) -> list[Text]:
    tenant, tools = described.home_tenant_id, TOOLS[cloud.key]
    match key:
        case Key.PARTNER_CENTER:
            return [
                Text(
                    label="Azure CLI",
                    text=(
                        f"az cloud set --name {tools.az}\n"
                        f"az login --tenant {tenant} --allow-no-subscriptions\n"
                        f"az ad sp create --id {PARTNER_CENTER_APPLICATION_ID}"
                    ),
                ),
                Text(
                    label="Graph PowerShell",
                    text=(
                        f"Connect-MgGraph -Environment {tools.powershell} -TenantId {tenant} "
                        "-Scopes Application.ReadWrite.All\n"
                        f"New-MgServicePrincipal -AppId {PARTNER_CENTER_APPLICATION_ID}"
                    ),
                ),
                Text(
                    label="Graph call",
                    text=(
                        f"PATCH {cloud.graph}/v1.0/servicePrincipals(appId='{PARTNER_CENTER_APPLICATION_ID}')\n"
                        "Content-Type: application/json\nPrefer: create-if-missing\n\n"
                        f'{{"appId": "{PARTNER_CENTER_APPLICATION_ID}"}}'
                    ),
                ),
            ]
        case Key.REGISTRATION:
            made = files(described, cloud)
            uris = "\n".join(redirect_uris(cloud.key))
            return [
                Text(label="Redirect URIs, platform Web", text=uris),
                *(Text(label=label, text=made[file][1], file=file) for file, label in _LABELS.items()),
                Text(label="Graph call for a second owner", text=manifest.owner_call(described, cloud)),
            ]
        case Key.PERMISSIONS:
            lines = [f"{one.name}  {one.id}  on {one.resource}" for one in described.asked.permissions]
            told = [Text(label="Name, id and resource of each delegated permission", text="\n".join(lines))]
            commands = [f"az ad sp show --id {one} --query oauth2PermissionScopes" for one in _doubtful(described)]
            return told + [Text(label="To compare an id", text=one) for one in commands]
        case Key.PUBLISHER:
            call = manifest.publisher_call(described, cloud)
            return [Text(label="Graph call, once the publisher domain is set", text=call)] if call else []
        case Key.WATCH:
            return [
                Text(
                    label="Settings of the portal",
                    text=f"READER_TENANT_ID={tenant}\nREADER_CLIENT_ID=\nREADER_CREDENTIAL_FILE=",
                ),
                Text(
                    label="Or, where these name the reader of another tenant",
                    text=f"MORE_READERS={tenant},CLIENT_ID,CREDENTIAL_FILE",
                ),
            ]
        case _:
            return []


def _doubtful(described: Described) -> list[str]:
    """Return the resources whose id of a permission no page of Microsoft confirms."""
    return sorted({one.resource for one in described.asked.permissions if one.id in UNCONFIRMED_IDS})


_TO_COMPARE = (
    "No page of Microsoft confirms the id of user_impersonation of the Partner API. Compare it with what the command "
    "below prints in your tenant; if it is another one, give that id in a permission set of your own."
)
_VERIFIED_BY_TOKEN = "Once the registration and its credential are added here, press Verify at Microsoft on its page."
_WORDS: dict[Key, tuple[str, Sequence[str]]] = {
    Key.ENROLMENT: (
        "Partner Center accepts calls of an application for other companies only if its owner is enrolled.",
        (
            (
                "Enrol at aka.ms/cpv-enroll with a Global Administrator of the tenant {tenant}. Ask Microsoft first: "
                "the enrolment is said to be closed in some regions."
            ),
            "Wait one to two weeks for the vetting, then accept the agreement in Partner Center.",
            (
                "After the next two steps, register the application id in Partner Center as a control panel vendor "
                "application, and nowhere as a CSP application."
            ),
        ),
    ),
    Key.PARTNER_CENTER: (
        "Without it the permission for Partner Center cannot be chosen, and no token for Partner Center is given.",
        (
            "Take an account with the role Application Administrator in the tenant {tenant}.",
            (
                "Run one of these. If it says that the service principal exists already, that is as good. The script "
                "of the next step does it too."
            ),
            _VERIFIED_BY_TOKEN,
        ),
    ),
    Key.REGISTRATION: (
        "Partners and customers see and consent to this application; everything else hangs on it.",
        (
            "Run one of the two scripts. Each creates the registration, or repairs the one whose id stands in it.",
            (
                "By hand instead: {portal}, App registrations, New registration. Name “{name}”, accounts in any "
                "organizational directory, platform Web, the redirect URIs below. Then Authentication: no implicit "
                "grants, no public client flows. Then App instance property lock: on, for all properties."
            ),
            (
                "Who makes the registration owns it. Add a second owner: write the object id into the script, make the "
                "call below, or choose Owners, Add owners. Two of your company are enough; no test accounts, no "
                "accounts of partners, as an owner can add credentials."
            ),
            "Once it is added here, compare on the tab At Microsoft of its page.",
        ),
    ),
    Key.PERMISSIONS: (
        "What the manifest does not list, Microsoft does not offer for consent of a whole tenant.",
        (
            "The scripts set them. By hand: API permissions, Add a permission, Delegated permissions: {set}.",
            "Leave no application permission there. With one, the application could act without any account.",
            "Compare on the tab At Microsoft.",
        ),
    ),
    Key.PUBLISHER: (
        (
            "Microsoft's consent page then shows your company's name, and tenants that refuse unverified "
            "publishers let it pass."
        ),
        (
            (
                "No script does this: it takes the Partner One id of your company, and an account that signed in with "
                "multifactor authentication and manages both that id in Partner Center and the registration."
            ),
            (
                "{portal}, App registrations, the application, Branding & properties: set the publisher domain, then "
                "Add Partner ID to verify publisher. The call below does only the last of it."
            ),
            "Compare on the tab At Microsoft.",
        ),
    ),
    Key.CREDENTIAL: (
        "With it the portal proves to Microsoft that it is the application.",
        (
            "Prefer a managed identity, then a certificate. A client secret can be read and used anywhere.",
            (
                "If Microsoft refuses a secret or a long life, an app management policy of the tenant {tenant} forbids "
                "it: {portal}, Enterprise applications, Application policies."
            ),
            _VERIFIED_BY_TOKEN,
        ),
    ),
    Key.ACTIVATION: (
        "Links can be made for an active registration only.",
        (
            (
                "Press Verify and activate. The portal asks Microsoft once more, and refuses with the reason what is "
                "known not to work."
            ),
        ),
    ),
    Key.SIGN_IN: (
        "The first partner is the canary: its token proves each later credential before that one is used.",
        (
            "Take a partner that you can call, or a tenant of your own that is a partner.",
            (
                "Add it, make its link, and let a Global Administrator who is also an Admin Agent open it and sign in "
                "with multifactor authentication."
            ),
        ),
    ),
    Key.GRANTS: (
        "These delegated permissions are set in each customer tenant by Partner Center.",
        ("Name them for each resource. The page shows what a change will mean before it is saved.",),
    ),
    Key.CUSTOMER: (
        "It shows that enrolment, GDAP and permissions fit together.",
        (
            "Open the partner's page and synchronise its customers.",
            "Make a plan for one customer whose readiness is good, look at it, and apply it.",
        ),
    ),
    Key.WATCH: (
        "A change by others, such as a new credential or owner, then becomes an incident within a day.",
        (
            (
                "Make a second identity in the tenant {tenant}: a managed identity of the portal's host, or an "
                "application with a certificate. It is never the application of this registration."
            ),
            "Grant it the application permission Application.Read.All of Microsoft Graph, and nothing else.",
            (
                "Write its ids into the settings. The file is empty for a managed identity, else a PEM file with "
                "certificate and key that only the portal may read. Each home tenant, and so each cloud, has a reader "
                "of its own; a managed identity serves in its own tenant only. Start the portal again."
            ),
        ),
    ),
}

NOTES: Sequence[tuple[str, str]] = (
    (
        "Old PowerShell",
        (
            "Microsoft's older pages use Install-Module AzureAD, Connect-AzureAD and New-AzureADServicePrincipal. "
            "That module is retired and its service is switched off. Use Connect-MgGraph and New-MgServicePrincipal, "
            "or az ad sp create --id."
        ),
    ),
    (
        "An id that is none",
        (
            "Some pages show 00001111-aaaa-2222-bbbb-3333cccc4444 for Partner Center. That is a placeholder of the "
            f"documentation. The id is {PARTNER_CENTER_APPLICATION_ID}."
        ),
    ),
    (
        "Old sign-in links",
        (
            "Older pages sign in at /common/oauth2/authorize with response_type=code id_token, and post to "
            "/oauth2/token with resource. The portal uses the version 2.0 endpoints of the partner's own tenant, which "
            "name permissions one by one; response_type=code with PKCE, so that the implicit grants stay off; and "
            "response_mode=form_post, so that no code stands in an address, a log or the browser's history."
        ),
    ),
    (
        "App management policies",
        (
            "A policy of the home tenant can forbid client secrets, limit the life of certificates, and forbid "
            "multi-tenant applications. Then the script fails with a message that names the policy: ask who owns it "
            "for an exception for this one application."
        ),
    ),
    (
        "One registration for each cloud",
        (
            "Global, US Government and China know nothing of each other. Make a registration, a partner and a "
            "credential in each."
        ),
    ),
)
