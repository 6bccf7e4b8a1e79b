"""The v2 token endpoint: codes, refresh tokens and client credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.client_authentication import authenticate
from tests.sandbox.refusals import Refused, service_headers, token_error
from tests.sandbox.tokens import access_token, b64, id_token, services
from tests.sandbox.world import (
    GRAPH,
    KEY_VAULT,
    Application,
    RefreshToken,
    Tamper,
    Tenant,
    User,
    World,
)

_CODE_SECONDS = 600
_DAY = 86_400
_OPENID = {"openid", "profile", "offline_access", "email"}
_ANY_TENANT = {"organizations", "common"}


@dataclass(slots=True, kw_only=True)
class _Request:
    world: World
    cloud: NationalCloud
    tenant: Tenant
    form: Mapping[str, str]
    application: Application
    credential: str
    """appidacr: 1 secret, 2 assertion."""

    def need(self, name: str) -> str:
        value = self.form.get(name, "")
        if not value:
            raise Refused(900144, f"The request body must contain the parameter '{name}'.")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """One resource and its scopes."""

    resource: str
    audience: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """Who signed in, when and how; what every token of one family shares."""

    home: Tenant
    user: User
    amr: list[str]
    family: int
    signed_in: float
    nonce: str = ""
    """Of the authorize request; refreshed ID tokens have none."""
    acrs: tuple[str, ...] = ()


def answer_token_request(
    world: World, cloud: NationalCloud, tenant_text: str, form: Mapping[str, str], correlation_id: str
) -> web.Response:
    """Answer one request; every refusal has Microsoft's documented form."""
    facts: dict[str, Any] = {
        "cloud": cloud.key,
        "tenant": tenant_text,
        "grant": form.get("grant_type", ""),
        "correlation": correlation_id,
    }
    try:
        body = _answer(world, cloud, tenant_text, form, facts)
    except Refused as refused:
        world.book("entra", "token", refused.code, **facts)
        return token_error(world, refused.code, refused.text, correlation_id, cloud.authority)
    world.book("entra", "token", 200, **facts)
    headers = {**service_headers(str(uuid.uuid4())), "Date": formatdate(world.now(), usegmt=True)}
    return web.json_response(body, headers=headers)


def _answer(
    world: World, cloud: NationalCloud, tenant_text: str, form: Mapping[str, str], facts: dict[str, Any]
) -> dict[str, Any]:
    tenant = _tenant(world, cloud, tenant_text, form)
    if "resource" in form:
        raise Refused(901002, "The 'resource' request parameter is not supported.")
    application = world.application(form.get("client_id", ""), cloud.key)
    if application is None:
        raise Refused(700016, "The application was not found in the directory.")
    facts["client"] = application.app_id
    _forced_refusal(world, tenant, application)
    credential = authenticate(world, cloud, tenant_text, application, form)
    if not application.works:
        raise Refused(int(world.switches["application_disabled"]), "The application is disabled.")
    request = _Request(
        world=world, cloud=cloud, tenant=tenant, form=form, application=application, credential=credential
    )
    grant = form.get("grant_type", "")
    if grant == "client_credentials":
        return _client_credentials(request)
    if grant == "authorization_code":
        return _redeem_code(request, facts)
    if grant == "refresh_token":
        return _redeem_refresh_token(request, facts)
    raise Refused(70003, "The grant type is not supported.")


def _tenant(world: World, cloud: NationalCloud, text: str, form: Mapping[str, str]) -> Tenant:
    """Return the tenant of the authority; ``organizations`` means the home of the code's or token's user."""
    if text in _ANY_TENANT:
        if form.get("grant_type") == "client_credentials":
            raise Refused(9001023, "The grant type is not supported over this endpoint.")
        held = world.codes.get(form.get("code", "")) or world.refresh_tokens.get(form.get("refresh_token", ""))
        if held is None:
            raise Refused(90019, "No tenant-identifying information was found in the request.")
        text = held.home_tenant
    tenant = world.tenant(text, cloud.key)
    if tenant is None:
        raise Refused(90002, f"Tenant '{text}' not found. Check that you have the correct tenant ID and cloud.")
    return tenant


def _forced_refusal(world: World, tenant: Tenant, application: Application, upn: str | None = None) -> None:
    """Answer as a test asked; those for one user wait until the user is known."""
    for refusal in list(world.refusals):
        if refusal.tenant_id not in (None, tenant.tenant_id) or refusal.client_id not in (None, application.app_id):
            continue
        if refusal.upn != upn:
            continue
        refusal.times -= 1
        if refusal.times <= 0:
            world.refusals.remove(refusal)
        raise Refused(refusal.code)


# --- scopes -------------------------------------------------------------------------------------------------------


def _wanted(request: _Request) -> _Wanted:
    """Read the scope parameter: one resource, named scopes or ``.default``."""
    cloud = request.cloud
    audiences = {
        **services(request.world, cloud),
        f"https://{cloud.vault_suffix.removeprefix('.')}": KEY_VAULT,
        f"https://{cloud.vault_suffix.removeprefix('.').partition(':')[0]}": KEY_VAULT,
    }
    names: dict[str, set[str]] = {}
    for scope in request.need("scope").split():
        if scope in _OPENID:
            continue
        prefix, _, name = scope.rpartition("/")
        audience = prefix or cloud.graph
        if audience not in audiences or not name:
            raise Refused(70011, "The provided value for the input parameter 'scope' is not valid.")
        names.setdefault(audience, set()).add(name)
    if not names and request.form.get("grant_type") == "authorization_code" and "openid" in request.form["scope"]:
        return _Wanted(resource=GRAPH, audience=cloud.graph, names=frozenset())  # who signed in, and no more
    if not names:
        raise Refused(70011, "The scope names no resource.")
    code = int(request.world.switches["several_resources"])
    if len(names) > 1 and code:
        raise Refused(code, "Provided value for the input parameter scope contains more than one resource.")
    audience, wanted = next(iter(names.items()))
    if ".default" in wanted and len(wanted) > 1:
        raise Refused(70011, ".default scope can't be combined with resource-specific scopes.")
    return _Wanted(resource=audiences[audience], audience=audience, names=frozenset(wanted))


def _granted(request: _Request, wanted: _Wanted) -> set[str]:
    """Return the scopes of the token, or refuse for missing consent."""
    tenant, application, now = request.tenant, request.application, request.world.now()
    principal = tenant.principal_of(application.app_id)
    if principal is None or principal.visible_at > now:
        code = int(request.world.switches["customer_not_consented"]) if tenant.kind == "customer" else 700016
        raise Refused(code, "The user or administrator has not consented to use the application.")
    if not principal.enabled:
        raise Refused(7000112, "The application is disabled in this tenant.")
    if wanted.resource not in application.permissions and tenant.kind != "customer":
        raise Refused(650057, "The resource is not listed in the requested permissions of the application.")
    if tenant.principal_of(wanted.resource) is None:
        raise Refused(500011, "The resource principal was not found in the tenant.")
    granted = tenant.granted(application.app_id, wanted.resource, now)
    if not wanted.names:
        return set()
    if not granted:
        raise Refused(65001, "The user or administrator has not consented to use the application.")
    if ".default" in wanted.names:
        return granted
    if not wanted.names <= granted:
        raise Refused(65001, "The user or administrator has not consented to use the application.")
    return granted


# --- grants -------------------------------------------------------------------------------------------------------


def _client_credentials(request: _Request) -> dict[str, Any]:
    """An application's own token, in its home tenant: for the vault, for Graph, or only to show that it is given.

    Where the application has no application permission on the resource, the token carries none and opens nothing.
    """
    wanted, application, tenant = _wanted(request), request.application, request.tenant
    if wanted.names != {".default"}:
        raise Refused(70011, "Application permissions are asked for as .default only.")
    if application.home_tenant != tenant.tenant_id:
        raise Refused(700016, "The application was not found in this directory.")
    if wanted.resource != KEY_VAULT:  # the vault's own checks are those of the vault
        if tenant.principal_of(application.app_id) is None:
            raise Refused(700016, "The application has no service principal in this directory.")
        if tenant.principal_of(wanted.resource) is None:
            raise Refused(500011, "The resource principal was not found in the tenant.")
    token = access_token(
        request.world,
        request.cloud,
        tenant=request.tenant,
        audience=wanted.audience,
        application=request.application,
        credential=request.credential,
        user=None,
        home=None,
        scopes=set(),
        amr=[],
    )
    seconds = int(request.world.switches["access_token_seconds"])
    return {"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token}


def _redeem_code(request: _Request, facts: dict[str, Any]) -> dict[str, Any]:
    world = request.world
    code = world.codes.get(request.need("code"))
    redirect_uri = request.need("redirect_uri")
    if code is None:
        raise Refused(70000, "The provided authorization code is invalid.")
    if code.used:
        raise Refused(54005, "OAuth2 authorization code was already redeemed.")
    if code.client_id != request.application.app_id:
        raise Refused(70000, "The code was issued to another client.")
    if world.now() - code.issued > _CODE_SECONDS:
        raise Refused(70008, "The provided authorization code has expired.")
    if code.tenant_id != request.tenant.tenant_id:
        raise Refused(700005, "The code was issued for another tenant.")
    if code.redirect_uri != redirect_uri:
        raise Refused(500112, "The reply address does not match the reply address of the request.")
    verifier = request.form.get("code_verifier", "")
    challenge = b64(hashlib.sha256(verifier.encode()).digest()) if verifier else ""
    if not hmac.compare_digest(challenge, code.challenge):
        raise Refused(501481, "The Code_Verifier does not match the code_challenge.")
    home, user = _holder(request, code.home_tenant, code.oid)
    facts |= {"user": user.oid, "home": home.tenant_id}
    wanted = _wanted(request)
    scopes = _granted(request, wanted)
    code.used = True
    world.families += 1
    session = _Session(
        home=home,
        user=user,
        amr=code.amr,
        family=world.families,
        signed_in=code.issued,
        nonce=code.nonce,
        acrs=code.acrs,
    )
    return _tokens(request, wanted, scopes, session, facts)


def _redeem_refresh_token(request: _Request, facts: dict[str, Any]) -> dict[str, Any]:
    world, now = request.world, request.world.now()
    text = request.need("refresh_token")
    token = world.refresh_tokens.get(text)
    if token is None:
        malformed = not text.startswith("1.A") or len(text) < 1000
        raise Refused(9002313 if malformed else 70000, "The refresh token is not valid.")
    facts |= {"token": token.number, "family": token.family, "user": token.oid, "home": token.home_tenant}
    if token.client_id != request.application.app_id:
        raise Refused(70000, "The refresh token was issued to another client.")
    _check_life(world, token, now)
    home, user = _holder(request, token.home_tenant, token.oid)
    if user.sessions_revoked_at > token.issued:
        raise Refused(50173, "The provided grant has expired due to it being revoked.")
    if home.tenant_id != request.tenant.tenant_id:
        _check_delegation(request, home, user)
    wanted = _wanted(request)
    scopes = _granted(request, wanted)
    limit = int(world.switches["loop_limit"])
    if world.over_limit(f"loop/{token.family}/{request.tenant.tenant_id}/{wanted.audience}", limit, 60):
        raise Refused(50196, "The server detected a request loop.")
    token.last_used = now
    if world.switches["rotation"] == "strict":
        token.revoked = True
    session = _Session(home=home, user=user, amr=token.amr, family=token.family, signed_in=token.signed_in)
    return _tokens(request, wanted, scopes, session, facts)


def _check_life(world: World, token: RefreshToken, now: float) -> None:
    if token.revoked:
        raise Refused(70000, "The refresh token was revoked.")
    if now - token.issued > float(world.switches["refresh_idle_days"]) * _DAY:
        raise Refused(700082, "The refresh token has expired due to inactivity.")
    frequency = float(world.switches["sign_in_frequency_days"])
    if frequency and now - token.signed_in > frequency * _DAY:
        raise Refused(70043, "The refresh token is invalid due to sign-in frequency checks by conditional access.")


def _holder(request: _Request, home_id: str, oid: str) -> tuple[Tenant, User]:
    home, user = request.world.tenants.get(home_id), request.world.user(home_id, oid)
    if home is None or user is None or user.deleted:
        raise Refused(50034, "The user account does not exist in the directory.")
    if not user.enabled:
        raise Refused(50057, "The user account is disabled.")
    _forced_refusal(request.world, request.tenant, request.application, user.upn)
    return home, user


def _check_delegation(request: _Request, home: Tenant, user: User) -> None:
    """A customer's authority: GDAP must let this user in. Another partner's tenant or customer is a crossing."""
    world, tenant_id = request.world, request.tenant.tenant_id
    if request.tenant.kind == "customer" and world.gdap_roles(home.tenant_id, user, tenant_id):
        return
    if tenant_id not in world.customers.get(home.tenant_id, {}):
        world.crossings.append({"home": home.tenant_id, "asked": tenant_id, "operation": "token"})
    raise Refused(50020, "The user account does not exist in this tenant.")


def _tokens(
    request: _Request, wanted: _Wanted, scopes: set[str], session: _Session, facts: dict[str, Any]
) -> dict[str, Any]:
    world, cloud, home, user = request.world, request.cloud, session.home, session.user
    tamper = _take_tamper(world, request)
    short = wanted.resource == GRAPH and world.switches["graph_scope_form"] == "short"
    seconds = int(world.switches["access_token_seconds"])
    body: dict[str, Any] = {
        "token_type": "Bearer",
        "scope": " ".join(sorted(name if short else f"{wanted.audience}/{name}" for name in scopes)),
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "access_token": access_token(
            world,
            cloud,
            tenant=request.tenant,
            audience=wanted.audience,
            application=request.application,
            credential=request.credential,
            user=user,
            home=home,
            scopes=scopes,
            amr=session.amr,
            bent=tamper.access_claims if tamper else {},
        ),
    }
    asked = request.form.get("scope", "").split()
    if "offline_access" in asked:
        body["refresh_token"] = _issue(request, session, facts)
    if "openid" in asked:
        made = id_token(
            world,
            cloud,
            tenant=request.tenant,
            application=request.application,
            user=user,
            home=home,
            nonce=session.nonce,
            acrs=session.acrs,
            tamper=tamper,
        )
        if made is not None:
            body["id_token"] = made
    if request.form.get("client_info") == "1":
        body["client_info"] = (
            base64.urlsafe_b64encode(json.dumps({"uid": user.oid, "utid": home.tenant_id}).encode())
            .decode()
            .rstrip("=")
        )
    if tamper:
        body |= tamper.members
        for name in tamper.drop:
            body.pop(name, None)
    return body


def _issue(request: _Request, session: _Session, facts: dict[str, Any]) -> str:
    world = request.world
    world.token_numbers += 1
    text = "1.A" + secrets.token_urlsafe(900)
    world.refresh_tokens[text] = RefreshToken(
        number=world.token_numbers,
        family=session.family,
        client_id=request.application.app_id,
        home_tenant=session.home.tenant_id,
        oid=session.user.oid,
        amr=list(session.amr),
        signed_in=session.signed_in,
        issued=world.now(),
        last_used=world.now(),
    )
    facts["issued"] = world.token_numbers
    return text


def _take_tamper(world: World, request: _Request) -> Tamper | None:
    for tamper in list(world.tampers):
        if tamper.client_id not in (None, request.application.app_id):
            continue
        if tamper.grant_type not in (None, request.form.get("grant_type")):
            continue
        tamper.times -= 1
        if tamper.times <= 0:
            world.tampers.remove(tamper)
        return tamper
    return None
