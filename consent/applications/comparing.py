"""What of a registration at Microsoft is not as we want it: each difference with its risk, and what to do.

Source: Microsoft Graph v1.0, application, servicePrincipal, keyCredential, passwordCredential,
servicePrincipalLockConfiguration, federatedIdentityCredential.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from django.conf import settings

from consent.applications import manifest
from consent.applications.addresses import redirect_uris
from consent.applications.seen import IMPLICIT_GRANTS, Seen
from consent.models import ApplicationCredential, ApplicationRegistration, RegistrationEvidence
from consent.permissions import manifest_permissions
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, get_cloud
from portal.text import number_of

Kind = ApplicationCredential.Kind


class Risk(StrEnum):
    """How bad a difference is, the worst first."""

    DANGEROUS = "dangerous"
    MEND = "to mend"
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that is not as we want it.

    Attributes:
        key: names the kind of difference, for tests and the audit trail.
        what: what is there, in a sentence.
        remedy: what to do, in a sentence.
        blocks: why the application cannot work as it is; empty when it can.
    """

    key: str
    risk: Risk
    what: str
    remedy: str
    blocks: str = ""


def differences(registration: ApplicationRegistration, evidence: RegistrationEvidence) -> list[Difference]:
    """Return what is not as we want it, the worst first; one query.

    What was not read is no difference and no proof either: ``seen.not_looked_at`` names it.
    """
    ours = list(registration.credentials.complete().filter(retired_at__isnull=True))
    found: list[Difference] = []
    for compare in _COMPARISONS:
        found += compare(_Facts(registration=registration, evidence=evidence, ours=ours))
    return sorted(found, key=lambda one: list(Risk).index(one.risk))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    registration: ApplicationRegistration
    evidence: RegistrationEvidence
    ours: Sequence[ApplicationCredential]

    @property
    def seen(self) -> Seen:
        seen: Seen = self.evidence.seen
        return seen

    def accepted(self, credential: ApplicationCredential) -> bool:
        """Tell whether Microsoft gave a token for this credential when it was last asked."""
        asked_with = self.evidence.asked_at is not None and self.evidence.asked_with_id == credential.pk
        return asked_with and not self.evidence.refusal

    def of_kind(self, *kinds: ApplicationCredential.Kind) -> list[ApplicationCredential]:
        return [one for one in self.ours if one.kind in kinds]


_SCRIPT = "Run the script of the step “Create the app registration” again: it puts this right."
_INVESTIGATE = (
    "Remove it at Microsoft unless it is yours, find out in the audit log of the home tenant who added it, and "
    "change the credential in use."
)


def _switches(facts: _Facts) -> Iterator[Difference]:
    seen = facts.seen
    if seen.get("isDisabled"):
        yield Difference(
            key="disabled_by_owner",
            risk=Risk.DANGEROUS,
            what="The application is disabled by its owner: Microsoft gives it no new tokens in any tenant.",
            remedy="Find out who disabled it and why, then activate it under App registrations, Overview.",
            blocks="The application is disabled by its owner.",
        )
    if (status := seen.get("disabledByMicrosoftStatus", "")) not in ("", "NotDisabled"):
        yield Difference(
            key="disabled_by_microsoft",
            risk=Risk.DANGEROUS,
            what=f"Microsoft disabled the application ({status}).",
            remedy="Open a support request with Microsoft from the home tenant; only Microsoft can undo it.",
            blocks="Microsoft disabled the application.",
        )


def _audience(facts: _Facts) -> Iterator[Difference]:
    audience = facts.seen.get("signInAudience")
    if audience is None or audience == manifest.AUDIENCE:
        return
    if audience == "AzureADMyOrg":
        yield Difference(
            key="audience",
            risk=Risk.DANGEROUS,
            what="The application accepts accounts of its own tenant only; no partner and no customer can consent.",
            remedy=_SCRIPT,
            blocks="The application accepts accounts of its own tenant only.",
        )
    else:
        yield Difference(
            key="audience",
            risk=Risk.DANGEROUS,
            what="The application also accepts personal Microsoft accounts, or accounts that we do not know of.",
            remedy=_SCRIPT,
        )


def _redirects(facts: _Facts) -> Iterator[Difference]:
    seen, wanted = facts.seen, set(redirect_uris(facts.registration.cloud))
    if "web" in seen:
        listed = set(seen["web"]["redirectUris"])
        for uri in sorted(wanted - listed):
            yield Difference(
                key="redirect_uri_missing",
                risk=Risk.MEND,
                what=f"The redirect URI {uri} is missing: sign-ins end with AADSTS50011.",
                remedy=_SCRIPT,
                blocks=f"The redirect URI {uri} is missing.",
            )
        for uri in sorted(listed - wanted):
            yield Difference(
                key="redirect_uri_foreign",
                risk=Risk.DANGEROUS,
                what=f"The redirect URI {uri} is not of this portal: who answers there can take sign-ins of partners.",
                remedy="Remove it at Microsoft unless another installation of yours uses this registration.",
            )
    for platform, word in (("spa", "Single-page application"), ("publicClient", "Mobile and desktop")):
        for uri in seen.get(platform, {}).get("redirectUris", ()):
            yield Difference(
                key="redirect_uri_platform",
                risk=Risk.DANGEROUS,
                what=f"The redirect URI {uri} stands under the platform {word}; tokens from there need no credential.",
                remedy=f"Remove the platform {word} under Authentication. All redirect URIs belong to Web.",
            )
    if seen.get("isFallbackPublicClient"):
        yield Difference(
            key="public_client",
            risk=Risk.DANGEROUS,
            what="The application allows public client flows, which need no credential of ours.",
            remedy=_SCRIPT,
        )


def _implicit(facts: _Facts) -> Iterator[Difference]:
    chosen = facts.seen.get("implicitGrantSettings", {})
    for name, word in zip(IMPLICIT_GRANTS, ("ID tokens", "access tokens"), strict=True):
        if chosen.get(name):
            yield Difference(
                key="implicit_grant",
                risk=Risk.DANGEROUS,
                what=f"The implicit grant for {word} is on: a browser gets {word} without any credential of ours.",
                remedy=_SCRIPT,
            )


def _permissions(facts: _Facts) -> Iterator[Difference]:
    if "requiredResourceAccess" not in facts.seen:
        return
    asked = {one.id: one.name for one in facts.registration.asked.permissions}
    wanted = {(resource, one) for resource, ids in manifest_permissions(facts.registration).items() for one in ids}
    there = {
        (each["resourceAppId"], access["id"].lower(), access["type"])
        for each in facts.seen["requiredResourceAccess"]
        for access in each["resourceAccess"]
    }
    delegated = {(resource, key) for resource, key, kind in there if kind == "Scope"}
    if roles := sorted((resource, key) for resource, key, kind in there if kind != "Scope"):
        yield Difference(
            key="application_permission",
            risk=Risk.DANGEROUS,
            what=(
                f"The manifest asks for {number_of(len(roles), 'application permission')}, the first of them "
                f"{roles[0][1]} on {roles[0][0]}: with it the application acts without any account."
            ),
            remedy=f"{_SCRIPT} Then remove what was granted of it under Enterprise applications, Permissions.",
        )
    if missing := sorted(asked.get(key, key) for _, key in wanted - delegated):
        yield Difference(
            key="permission_missing",
            risk=Risk.MEND,
            what=f"The manifest lacks permissions that we ask partners for: {', '.join(missing)}.",
            remedy=_SCRIPT,
            blocks=f"The manifest lacks {', '.join(missing)}.",
        )
    if extra := sorted(f"{key} on {resource}" for resource, key in delegated - wanted - _SIGN_IN):
        yield Difference(
            key="permission_extra",
            risk=Risk.MEND,
            what=f"The manifest asks for {number_of(len(extra), 'delegated permission')} too many: {extra[0]}.",
            remedy=f"{_SCRIPT} Or choose a permission set that has them.",
        )


# openid, profile, email, offline_access: harmless in a manifest.
_SIGN_IN = {
    (GRAPH_APPLICATION_ID, "37f7f235-527c-4136-accd-4a02d197296e"),
    (GRAPH_APPLICATION_ID, "14dad69e-099b-42c9-810b-d002981feec1"),
    (GRAPH_APPLICATION_ID, "64a6cdd6-aab1-4aaf-94b8-3cc8405e90d0"),
    (GRAPH_APPLICATION_ID, "7427e0e9-2fba-42fe-b0c0-848c9e6a8182"),
}


def _lock(facts: _Facts) -> Iterator[Difference]:
    if "servicePrincipalLockConfiguration" not in facts.seen:
        return
    lock = facts.seen["servicePrincipalLockConfiguration"]
    if not lock.get("isEnabled") or not lock.get("allProperties"):
        yield Difference(
            key="property_lock",
            risk=Risk.DANGEROUS,
            what=(
                "The property lock is off or covers only some properties: administrators of other tenants can add "
                "credentials to the service principal that they have of this application."
            ),
            remedy=_SCRIPT,
        )


def _owners(facts: _Facts) -> Iterator[Difference]:
    owners = facts.seen.get("owners")
    if owners is None:
        return
    for owner in owners:
        if owner["id"] not in facts.evidence.known_owners:
            yield Difference(
                key="owner_unknown",
                risk=Risk.DANGEROUS,
                what=f"{owner['displayName'] or owner['id']} owns the application and can add credentials to it.",
                remedy="If all owners are yours, confirm them below. If not, remove the owner at Microsoft.",
            )
    if len(owners) == 1:
        yield Difference(
            key="owner_single",
            risk=Risk.NOTE,
            what=f"{owners[0]['displayName'] or owners[0]['id']} alone owns the application.",
            remedy="If that account goes, only administrators of the home tenant can change it. Add a second owner of "
            "your company, or make sure that at least two people hold a role that can change it.",
        )
    if not owners:
        yield Difference(
            key="owner_none",
            risk=Risk.NOTE,
            what="The application has no owner: only administrators of the home tenant can change it.",
            remedy="That is safe. Make sure that at least two people hold a role that can change it.",
        )


def _secrets(facts: _Facts) -> Iterator[Difference]:
    known = {one.key_id.lower() for one in facts.of_kind(Kind.SECRET)}
    unknown = [one for one in facts.seen.get("passwordCredentials", ()) if one["keyId"].lower() not in known]
    unnamed = "" in known  # added without its id, so it cannot be told from others
    for number, one in enumerate(unknown):
        ours = unnamed and number == 0 and len(unknown) == 1
        yield Difference(
            key="secret_unnamed" if ours else "secret_unknown",
            risk=Risk.MEND if ours else Risk.DANGEROUS,
            what=(
                f"The client secret {one['keyId']} may be the one that was stored here without its id."
                if ours
                else f"The client secret {one['keyId']} (until {_day(one)}) is unknown here: who has it can act as us."
            ),
            remedy="Replace it by a certificate or a managed identity." if ours else _INVESTIGATE,
        )


_WITH_CERTIFICATE = (Kind.CERTIFICATE, Kind.VAULT_KEY)


def _certificates(facts: _Facts) -> Iterator[Difference]:
    known: set[str] = set()
    for one in facts.of_kind(*_WITH_CERTIFICATE):
        known |= _names_of(one.public_certificate)
    for listed in facts.seen.get("keyCredentials", ()):
        if listed["customKeyIdentifier"].rstrip("=").lower() not in known:
            yield Difference(
                key="certificate_unknown",
                risk=Risk.DANGEROUS,
                what=(
                    f"The certificate {listed['customKeyIdentifier'] or listed['keyId']} (until {_day(listed)}) is "
                    "unknown here: who has its key can act as us."
                ),
                remedy=_INVESTIGATE,
            )
    current = facts.registration.credential
    if current is None or "keyCredentials" not in facts.seen or current.kind not in _WITH_CERTIFICATE:
        return
    there = {one["customKeyIdentifier"].rstrip("=").lower() for one in facts.seen["keyCredentials"]}
    if there.isdisjoint(_names_of(current.public_certificate)) and not current.sends_chain:
        yield Difference(
            key="certificate_missing",
            risk=Risk.MEND,
            what="The certificate in use is not uploaded to the application: Microsoft refuses all our calls.",
            remedy="Upload it under Certificates & secrets; the page of the credential has it.",
            blocks="The certificate in use is not uploaded to the application.",
        )


def _names_of(public_pem: str) -> set[str]:
    """Return all forms in which Microsoft's tools print a certificate's thumbprint, in small letters."""
    certificate = x509.load_pem_x509_certificate(public_pem.encode())
    names = set()
    for algorithm in (hashes.SHA1(), hashes.SHA256()):  # noqa: S303  # theirs, not our choice
        digest = certificate.fingerprint(algorithm)
        names |= {digest.hex(), base64.b64encode(digest).decode().rstrip("=").lower()}
    return names


def _federated(facts: _Facts) -> Iterator[Difference]:
    trusted = facts.seen.get("federatedIdentityCredentials", ())
    cloud = get_cloud(facts.registration.cloud, settings.CLOUDS)
    issuer = f"{cloud.authority}/{facts.registration.home_tenant_id}/v2.0"
    audience = cloud.federation_audience
    ours = facts.of_kind(Kind.FEDERATED)
    possible = [one for one in trusted if one["issuer"].rstrip("/") == issuer and one.get("audiences", "") == audience]
    # Microsoft names an identity by its object id, we by its client id. As many trusted ones as Microsoft accepted of
    # ours are just those.
    accepted = [one for one in ours if one.proven_at is not None or facts.accepted(one)]
    known = len(possible) <= len(ours)
    for one in trusted:
        if one not in possible or not known:
            yield Difference(
                key="federated_unknown",
                risk=Risk.DANGEROUS,
                what=(
                    f"The application trusts the identity {one['subject']} of {one['issuer']} for "
                    f"{one.get('audiences') or 'no known audience'}, which is unknown here: it can act as us."
                ),
                remedy=_INVESTIGATE,
            )
        elif len(possible) != len(accepted):
            yield Difference(
                key="federated_unproven",
                risk=Risk.MEND,
                what=f"The application trusts the identity {one['subject']}, which may be the one that was added here.",
                remedy=(
                    "Compare it with the object id of the managed identity, then verify or promote the credential: "
                    "once Microsoft accepted as many of ours as it trusts, they are these."
                ),
            )


def _principal(facts: _Facts) -> Iterator[Difference]:
    found = facts.seen.get("servicePrincipal")
    if found is not None:
        if not found["accountEnabled"]:
            yield Difference(
                key="principal_disabled",
                risk=Risk.DANGEROUS,
                what="The service principal in the home tenant is disabled: Microsoft gives no token there.",
                remedy="Find out who disabled it and why, then enable it under Enterprise applications, Properties.",
                blocks="The service principal in the home tenant is disabled.",
            )
        for name, word in (("passwordCredentials", "client secret"), ("keyCredentials", "certificate")):
            for one in found[name]:
                yield Difference(
                    key="principal_credential",
                    risk=Risk.DANGEROUS,
                    what=(
                        f"The service principal has a {word} of its own, {one['keyId']} (until {_day(one)}): who has "
                        "it can act as us in the home tenant, and the page of the registration does not show it."
                    ),
                    remedy=_INVESTIGATE,
                )
    for one in facts.seen.get("appRoleAssignments", ()):
        yield Difference(
            key="application_permission_granted",
            risk=Risk.DANGEROUS,
            what=(
                f"The application was granted an application permission of {one['resourceDisplayName']} "
                f"({one['appRoleId']}) in the home tenant: with it it acts without any account."
            ),
            remedy="Remove it under Enterprise applications, Permissions, and find out who granted it.",
        )


def _appearance(facts: _Facts) -> Iterator[Difference]:
    seen = facts.seen
    if "displayName" in seen and seen["displayName"] != facts.registration.name:
        yield Difference(
            key="name",
            risk=Risk.NOTE,
            what=f"Microsoft's consent page calls it “{seen['displayName']}”, and this portal another name.",
            remedy=_SCRIPT,
        )
    if seen.get("verifiedPublisher") == "" and facts.registration.cloud in manifest.CLOUDS_WITH_PUBLISHERS:
        yield Difference(
            key="publisher",
            risk=Risk.MEND,
            what="The publisher is not verified: Microsoft's consent page says “unverified”, and some tenants refuse.",
            remedy="Verify it under Branding & properties, with the Partner One id of your own company.",
        )


def _day(item: Mapping[str, str]) -> str:
    return item["endDateTime"][:10] or "no known day"


_COMPARISONS: Sequence[Callable[[_Facts], Iterator[Difference]]] = (
    _switches,
    _audience,
    _redirects,
    _implicit,
    _permissions,
    _lock,
    _owners,
    _secrets,
    _certificates,
    _federated,
    _principal,
    _appearance,
)
