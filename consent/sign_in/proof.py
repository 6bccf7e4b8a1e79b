"""Prove a refresh token before it is kept or takes over (S-17, S-18): one redemption for Partner Center, an ID token of
the expected account, and one real Partner Center call that says tenant and MFA.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from consent.grants import Grants
from consent.microsoft.accounts import GLOBAL_ADMINISTRATOR, AccountClient, Standing
from consent.microsoft.entra import EntraClient, TokenResponse
from consent.microsoft.id_tokens import IdTokenValidator, sign_in_methods, unverified_claims
from consent.models import ApplicationRegistration, PartnerConsent
from consent.permissions import granted_names, origin_of
from consent.tokens.service import Audience, TokenService
from consent.uses.book import By, Use
from consent.vault.base import Vault
from consent.words import CheckState
from portal.microsoft.api import RetryPolicy
from portal.microsoft.clouds import GRAPH_APPLICATION_ID, PARTNER_CENTER_APPLICATION_ID, NationalCloud, get_cloud
from portal.microsoft.errors import RemoteError
from portal.microsoft.http import WEB_SECONDS, last_look
from portal.microsoft.identifiers import CorrelationId, ObjectId, TenantId
from portal.microsoft.secret import Secret
from tenants.models import PartnerTenant
from tenants.partner_center import PartnerCenterClient

Mfa = PartnerConsent.Mfa
UNKNOWN = Standing(is_member=None, is_global_administrator=None)
# A person waits, and would have to sign in with MFA again: what only asks for patience gets it, within the one time
# limit of the request. What was refused for its rate was not done, so a token is as good as before.
PATIENT = RetryPolicy(tries_when_throttled=5, longest_wait_seconds=WEB_SECONDS)
_THROTTLED_ONLY = RetryPolicy(tries=1, tries_when_throttled=5, longest_wait_seconds=WEB_SECONDS)
_STATES = {True: CheckState.PASSED, False: CheckState.FAILED, None: CheckState.UNVERIFIED}
_OF_MFA = {Mfa.PROVEN: CheckState.PASSED, Mfa.MISSING: CheckState.FAILED, Mfa.UNPROVEN: CheckState.UNVERIFIED}


@dataclass(slots=True, kw_only=True)
class ConsentTools:
    """What flows and approvals need from outside; built by ``consent.clients`` only."""

    vault: Vault
    tokens: TokenService
    validator: IdTokenValidator
    entra: Callable[[ApplicationRegistration, CorrelationId], EntraClient]
    partner_center: Callable[[NationalCloud, Callable[[], Secret], CorrelationId], PartnerCenterClient]
    account: Callable[[NationalCloud, Callable[[], Secret], CorrelationId], AccountClient]
    clouds: Callable[[str], NationalCloud] = field(default=get_cloud)


class AnotherAccount(Exception):
    """The token belongs to another account or tenant than the expected one.

    Args:
        actual_tenant: what Partner Center's profile said, when that was it.
    """

    def __init__(self, actual_tenant: TenantId | None = None) -> None:
        super().__init__("the token belongs to another account or tenant")
        self.actual_tenant = actual_tenant


class GuestAccount(Exception):
    """The account is a guest in the partner's tenant; GDAP does not work with guests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What was proven, and the newest refresh token of the account."""

    refresh_token: Secret
    object_id: ObjectId
    granted: Grants
    """The delegated permissions that Microsoft's answers named; a resource that gave no answer is not there."""
    mfa: PartnerConsent.Mfa
    amr: tuple[str, ...]
    checks: list[dict[str, str]]


def prove(
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    refresh_token: Secret,
    *,
    object_id: ObjectId | None,
    tools: ConsentTools,
    by: By,
    correlation_id: CorrelationId,
    strict: bool = False,
) -> Proven:
    """Prove this token for this account. Nothing is stored.

    Args:
        object_id: the account that it must belong to; None for a token of which no account is known yet. Then the
            answer's ID token names it.
        by: who does it and what for; each redemption stands in the ledger of uses.
        strict: also what fails behind the first redemption is raised. Without it that stays "not proven", because a
            person waits whose sign-in it should not cost.

    Raises:
        Contained: an emergency stop is on; nothing more was sent.
        AnotherAccount: it is somebody else's.
        GuestAccount: a guest.
        IdTokenRefused: the answer's ID token proves nothing.
        RemoteError: Microsoft refused, or did not answer.
    """
    entra = tools.entra(registration, correlation_id)

    def redeem(token: Secret, audience: str, scope: str) -> TokenResponse:
        answer = entra.redeem_refresh_token(tenant_id=partner.tenant, refresh_token=token, scope=scope)
        use = Use(
            by=by,
            partner=partner.pk,
            registration=registration.pk,
            audience=audience,
            correlation_id=correlation_id,
        )
        tools.tokens.uses.note(use)
        return answer

    try:
        with last_look(partial(tools.tokens.check_pair, partner.pk, registration.pk)):
            return _prove(partner, registration, refresh_token, object_id, tools, redeem, correlation_id, strict=strict)
    finally:
        tools.tokens.uses.write()


type _Redeem = Callable[[Secret, str, str], TokenResponse]
"""Redeems a refresh token for an audience by its scope, and notes that."""


def _prove(
    partner: PartnerTenant,
    registration: ApplicationRegistration,
    refresh_token: Secret,
    object_id: ObjectId | None,
    tools: ConsentTools,
    redeem: _Redeem,
    correlation_id: CorrelationId,
    *,
    strict: bool,
) -> Proven:
    cloud = tools.clouds(partner.cloud)
    audience = Audience.PARTNER_CENTER
    answer = _THROTTLED_ONLY.run(lambda: redeem(refresh_token, audience, audience.scope(cloud)))
    identity = tools.validator.validate(
        answer.id_token,
        cloud=cloud,
        tenant_id=partner.tenant,
        application_id=registration.client_id,
        nonce=None,
        check_times=False,
    )
    if object_id is not None and identity.object_id != object_id:
        raise AnotherAccount
    client = tools.partner_center(cloud, lambda: answer.access_token, correlation_id)
    profile = client.organization_profile()
    if profile.tenant_id != partner.tenant:
        raise AnotherAccount(profile.tenant_id)
    mfa = {True: Mfa.PROVEN, False: Mfa.MISSING, None: Mfa.UNPROVEN}[profile.mfa_compliant]
    newest = answer.refresh_token or refresh_token
    newest, graph_scopes, standing = _standing(partner, redeem, newest, tools, correlation_id, strict=strict)
    if standing.is_member is False:
        raise GuestAccount
    granted = {
        PARTNER_CENTER_APPLICATION_ID: granted_names(answer.scopes),
        GRAPH_APPLICATION_ID: granted_names(graph_scopes),
    }
    for resource in registration.asked.resources().keys() - granted.keys():
        newest, scopes = _granted_on(resource, redeem, newest, cloud, strict=strict)
        granted[resource] = granted_names(scopes)
    return Proven(
        refresh_token=newest,
        object_id=identity.object_id,
        granted=Grants(granted),
        mfa=mfa,
        amr=sign_in_methods(answer.access_token),
        checks=_checks(mfa, answer, standing),
    )


def _granted_on(
    resource: str, redeem: _Redeem, refresh_token: Secret, cloud: NationalCloud, *, strict: bool
) -> tuple[Secret, frozenset[str]]:
    """Ask what was granted on one more resource of the set; it stays "not proven" where Microsoft gives no token.

    With ``strict`` RemoteError is raised instead.

    Returns the newest refresh token, and the scopes that the answer names.
    """
    try:
        answer = redeem(refresh_token, resource, f"{origin_of(resource, cloud)}/.default")
    except RemoteError:
        if strict:
            raise
        return refresh_token, frozenset()
    return answer.refresh_token or refresh_token, answer.scopes


def _standing(
    partner: PartnerTenant,
    redeem: _Redeem,
    refresh_token: Secret,
    tools: ConsentTools,
    correlation_id: CorrelationId,
    *,
    strict: bool,
) -> tuple[Secret, frozenset[str], Standing]:
    """Ask Graph who the account is. What Graph does not say stays "could not verify" and is no reason to refuse here.

    With ``strict`` RemoteError of the redemption is raised.

    Returns the newest refresh token with it: a service that rotates strictly ends the older one at each redemption;
    and the scopes that the answer names, none when there was no answer.
    """
    cloud = tools.clouds(partner.cloud)
    try:
        answer = redeem(refresh_token, Audience.GRAPH, Audience.GRAPH.scope(cloud))
    except RemoteError:
        if strict:
            raise
        return refresh_token, frozenset(), UNKNOWN
    newest = answer.refresh_token or refresh_token
    try:
        return newest, answer.scopes, tools.account(cloud, lambda: answer.access_token, correlation_id).standing()
    except RemoteError:
        return newest, answer.scopes, UNKNOWN


def _checks(mfa: PartnerConsent.Mfa, answer: TokenResponse, standing: Standing) -> list[dict[str, str]]:
    """Return the checks as the result page shows them; what could not be proven is never called passed."""
    states = {
        "tenant": CheckState.PASSED,
        "member": _STATES[standing.is_member],
        "mfa": _OF_MFA[mfa],
        "partner_center": CheckState.PASSED,
        # The organization profile answers Admin Agents only (900150 otherwise), so this is proven without the group.
        "admin_agent": CheckState.PASSED,
        "global_administrator": _STATES[_global_administrator(answer, standing)],
    }
    return [{"check": check, "state": state} for check, state in states.items()]


def _global_administrator(answer: TokenResponse, standing: Standing) -> bool | None:
    """Take Graph's word, else the token's ``wids``; for display only, because foreign tokens are opaque to us."""
    if standing.is_global_administrator is not None:
        return standing.is_global_administrator
    roles = unverified_claims(answer.access_token).get("wids")
    return GLOBAL_ADMINISTRATOR in roles if isinstance(roles, list) else None
