"""The sign-in service: discovery, keys, authorize, admin consent and token endpoint of the v2 protocol.

Drive the pages without a browser through :func:`sign_in`; with one, by these names: ``account`` (radio buttons of the
chooser, value ``tenant/oid``), buttons ``#next``, ``#approve-mfa``, ``#accept``, ``#cancel``, and ``#continue`` on the
answer page for browsers without JavaScript.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from portal.sandbox import pages
from portal.sandbox.refusals import page_error
from portal.sandbox.token_endpoint import answer_token_request, discovery_refusal
from portal.sandbox.tokens import b64, signing_key
from portal.sandbox.world import (
    GLOBAL_ADMINISTRATOR,
    GRAPH,
    PARTNER_CENTER,
    Application,
    Code,
    Tenant,
    User,
    World,
)

_OPENID = {"openid", "profile", "offline_access", "email"}
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_SESSIONS = secrets.token_bytes(32)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the browser would do next: post or get these fields at this address."""

    url: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)


class Shown(Exception):
    """An error that Microsoft shows on its own page; the application never hears of it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True, slots=True)
class Asked:
    """A checked authorize request."""

    application: Application
    redirect_uri: str
    response_mode: str
    state: str
    nonce: str
    challenge: str
    tenant: str
    """Tenant id of the authority, or ``organizations``."""
    scopes: dict[str, set[str]]
    """Asked scope names by resource application id."""
    login_hint: str


def routes(world: World) -> list[web.RouteDef]:
    """Return the routes of ``login.<cloud>.localhost``."""

    async def discovery(request: web.Request) -> web.Response:
        return _discovery(world, request["cloud"], request.match_info["tenant"])

    async def keys(request: web.Request) -> web.Response:
        tenant = request.match_info["tenant"]
        if tenant not in {"common", "organizations"} and world.tenant(tenant, request["cloud"].key) is None:
            return discovery_refusal()
        world.book("entra", "keys", 200, tenant=tenant)
        return web.json_response({"keys": [signing_key(request["cloud"].key).jwk()]})

    async def authorize(request: web.Request) -> web.Response:
        try:
            asked = read_request(world, request["cloud"], request.match_info["tenant"], dict(request.query))
        except Shown as shown:
            return pages.refusal(shown.code, shown.text)
        except Back as back:
            return pages.answer(back.answer, request["cloud"])
        return pages.choose_account(world, request["cloud"], asked.tenant, asked.login_hint, request.query_string)

    async def account(request: web.Request) -> web.Response:
        return await _step(world, request)

    async def token(request: web.Request) -> web.Response:
        posted = await request.post()
        form = {name: value for name, value in posted.items() if isinstance(value, str)}
        return answer_token_request(world, request["cloud"], request.match_info["tenant"], form, request["correlation"])

    async def token_get(request: web.Request) -> web.Response:
        return page_error(900561, "The endpoint only accepts POST requests.")

    async def adminconsent(request: web.Request) -> web.Response:
        return pages.choose_account(
            world, request["cloud"], request.match_info["tenant"], "", request.query_string, admin_consent=True
        )

    return [
        web.get("/{tenant}/v2.0/.well-known/openid-configuration", discovery),
        web.get("/{tenant}/discovery/v2.0/keys", keys),
        web.get("/{tenant}/oauth2/v2.0/authorize", authorize),
        web.post("/{tenant}/oauth2/v2.0/authorize", account),
        web.post("/{tenant}/oauth2/v2.0/token", token),
        web.get("/{tenant}/oauth2/v2.0/token", token_get),
        web.get("/{tenant}/v2.0/adminconsent", adminconsent),
        web.post("/{tenant}/v2.0/adminconsent", account),
    ]


def _discovery(world: World, cloud: NationalCloud, text: str) -> web.Response:
    common = text in {"common", "organizations"}
    tenant = None if common else world.tenant(text, cloud.key)
    if not common and tenant is None:
        return discovery_refusal()
    issuer_tenant = "{tenantid}" if tenant is None else tenant.tenant_id
    base = f"{cloud.authority}/{text if tenant is None else tenant.tenant_id}"
    world.book("entra", "discovery", 200, tenant=text)
    return web.json_response(
        {
            "issuer": f"{cloud.authority}/{issuer_tenant}/v2.0",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "end_session_endpoint": f"{base}/oauth2/v2.0/logout",
            "response_modes_supported": ["query", "fragment", "form_post"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "subject_types_supported": ["pairwise"],
            "tenant_region_scope": None if tenant is None else "EU",
            "cloud_instance_name": urlsplit(cloud.authority).netloc.removeprefix("login."),
            "msgraph_host": urlsplit(cloud.graph).netloc,
        }
    )


class Back(Exception):
    """An error that goes back to the application over the redirect URI."""

    def __init__(self, answer: Answer) -> None:
        super().__init__("error answer")
        self.answer = answer


def read_request(world: World, cloud: NationalCloud, tenant: str, query: Mapping[str, str]) -> Asked:
    """Check an authorize request as Microsoft does.

    Raises:
        Shown: a page at Microsoft (unknown client, wrong redirect URI or tenant).
        Back: an error for the application.
    """
    if tenant not in {"organizations", "common"}:
        found = world.tenant(tenant, cloud.key)
        if found is None:
            raise Shown(90002, f"Tenant '{tenant}' not found.")
        tenant = found.tenant_id
    application = world.applications.get(query.get("client_id", "").lower())
    if application is None or not application.enabled:
        raise Shown(700016, "The application was not found in the directory.")
    redirect_uri = query.get("redirect_uri", "")
    if redirect_uri not in application.redirect_uris:
        raise Shown(50011, "The redirect URI in the request does not match the ones configured for the application.")
    mode = query.get("response_mode", "query")

    def fail(error: str, code: int, text: str) -> Back:
        fields = {"error": error, "error_description": f"AADSTS{code}: {text}", "state": query.get("state", "")}
        return Back(Answer(redirect_uri, "POST" if mode == "form_post" else "GET", fields))

    if "resource" in query:
        raise fail("invalid_request", 901002, "The 'resource' request parameter is not supported.")
    if query.get("response_type") != "code":
        raise fail("unsupported_response_type", 700054, "response_type 'id_token' is not enabled.")
    if mode not in {"form_post", "query"}:
        raise fail("invalid_request", 70007, "The response_mode is not supported.")
    challenge = query.get("code_challenge", "")
    if challenge and (not _CHALLENGE.fullmatch(challenge) or query.get("code_challenge_method") != "S256"):
        raise fail("invalid_request", 501491, "The code challenge has an invalid size.")
    scopes: dict[str, set[str]] = {}
    for scope in query.get("scope", "").split():
        if scope in _OPENID:
            continue
        resource, name = _resource(cloud, scope)
        if resource is None:
            raise fail("invalid_scope", 70011, "The provided value for the input parameter 'scope' is not valid.")
        if resource not in application.permissions:
            raise fail("invalid_resource", 650057, "The resource is not listed in the application registration.")
        wanted = application.permissions[resource] if name == ".default" else {name}
        if not wanted <= application.permissions[resource]:
            raise fail("invalid_client", 65005, "The application requested permissions that are not configured.")
        scopes.setdefault(resource, set()).update(wanted)
    if "openid" not in query.get("scope", ""):
        raise fail("invalid_request", 90008, "The application must request sign-in permission.")
    return Asked(
        application=application,
        redirect_uri=redirect_uri,
        response_mode=mode,
        state=query.get("state", ""),
        nonce=query.get("nonce", ""),
        challenge=challenge,
        tenant=tenant,
        scopes=scopes,
        login_hint=query.get("login_hint", ""),
    )


def _resource(cloud: NationalCloud, scope: str) -> tuple[str | None, str]:
    prefix, _, name = scope.rpartition("/")
    known = {cloud.graph: GRAPH, "": GRAPH, cloud.partner_center: PARTNER_CENTER}
    return known.get(prefix), name


# --- what a person does -------------------------------------------------------------------------------------------


def sign_in(
    world: World,
    clouds: Mapping[str, NationalCloud],
    authorize_url: str,
    *,
    user: str,
    mfa: bool = True,
    accept: bool = True,
) -> Answer:
    """Go through the pages as this user and return what the browser would send to the application.

    Args:
        user: UPN of the account.
        mfa: whether the person completes MFA when asked.
        accept: whether the person accepts the consent.

    Raises:
        Shown: Microsoft ends on a page of its own.
    """
    parts = urlsplit(authorize_url)
    cloud = clouds[(parts.hostname or "").split(".")[1]]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        asked = read_request(world, cloud, parts.path.split("/")[1], query)
    except Back as back:
        return back.answer
    home, account = _find_account(world, cloud, user)
    check_account(world, asked, home, account)
    if not accept:
        return declined(asked)
    return finish(world, asked, home, account, mfa=mfa and account.mfa_registered)


def _find_account(world: World, cloud: NationalCloud, upn: str) -> tuple[Tenant, User]:
    for tenant, user in world.users_of(cloud.key):
        if user.upn == upn:
            return tenant, user
    raise Shown(50034, "The user account does not exist in this directory.")


def check_account(world: World, asked: Asked, home: Tenant, user: User) -> None:
    """Refuse accounts that may not sign in here; a page at Microsoft, the application hears nothing."""
    if not user.enabled:
        raise Shown(50057, "The user account is disabled.")
    if asked.tenant not in {"organizations", "common", home.tenant_id}:
        raise Shown(50020, "The user account does not exist in this tenant and cannot access the application in it.")


def needs_mfa(user: User) -> bool:
    return user.mfa_required


def declined(asked: Asked) -> Answer:
    """Return the answer of a person who pressed Cancel on the consent screen."""
    return _answer(
        asked,
        {
            "error": "access_denied",
            "error_subcode": "cancel",
            "error_description": "AADSTS65004: User declined to consent to access the app.",
        },
    )


def finish(world: World, asked: Asked, home: Tenant, user: User, *, mfa: bool) -> Answer:
    """Grant the consent and issue a code. Only an administrator may consent to what this product asks for."""
    now = world.now()
    missing = [
        resource
        for resource, scopes in asked.scopes.items()
        if not scopes <= home.granted(asked.application.app_id, resource, now)
    ]
    if missing and GLOBAL_ADMINISTRATOR not in user.roles:
        return _answer(
            asked,
            {
                "error": "access_denied",
                "error_description": "AADSTS90094: An administrator of the tenant must grant consent.",
            },
        )
    home.add_principal(asked.application.app_id, asked.application.name)
    for resource in missing:
        if home.principal_of(resource) is None:
            return _answer(
                asked,
                {"error": "invalid_client", "error_description": "AADSTS650052: The organization lacks the service."},
            )
        home.grant(asked.application.app_id, resource, asked.scopes[resource])
    code = "1.C" + secrets.token_urlsafe(480)
    world.codes[code] = Code(
        client_id=asked.application.app_id,
        redirect_uri=asked.redirect_uri,
        tenant_id=home.tenant_id,
        home_tenant=home.tenant_id,
        oid=user.oid,
        amr=["pwd", "mfa"] if mfa else ["pwd"],
        nonce=asked.nonce,
        challenge=asked.challenge,
        issued=now,
    )
    world.book("entra", "authorize", 302, tenant=home.tenant_id, user=user.oid, client=asked.application.app_id)
    return _answer(asked, {"code": code, "session_state": secrets.token_hex(16)})


def _answer(asked: Asked, fields: dict[str, str]) -> Answer:
    return Answer(
        asked.redirect_uri,
        "POST" if asked.response_mode == "form_post" else "GET",
        {**fields, "state": asked.state},
    )


# --- the pages' form posts ----------------------------------------------------------------------------------------


def ticket(query: str, account: str, mfa: bool) -> str:
    """Return a signed note of what the person did so far; the pages keep no session."""
    note = f"{account}\n{int(mfa)}\n{query}"
    return b64(hmac.new(_SESSIONS, note.encode(), hashlib.sha256).digest())


async def _step(world: World, request: web.Request) -> web.Response:
    """One button on one of the pages."""
    cloud: NationalCloud = request["cloud"]
    posted = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    query_text = request.query_string
    is_admin_consent = request.path.endswith("/adminconsent")
    query = dict(parse_qsl(query_text, keep_blank_values=True))
    if is_admin_consent:
        query |= {"response_type": "code", "scope": "openid"}
    try:
        asked = read_request(world, cloud, request.match_info["tenant"], query)
        tenant_id, _, oid = posted.get("account", "").partition("/")
        home = world.tenants.get(tenant_id)
        user = home.users.get(oid) if home else None
        if home is None or user is None:
            return pages.choose_account(world, cloud, asked.tenant, asked.login_hint, query_text, is_admin_consent)
        check_account(world, asked, home, user)
    except Shown as shown:
        return pages.refusal(shown.code, shown.text)
    except Back as back:
        return pages.answer(back.answer, cloud)
    step = posted.get("step", "")
    account = posted["account"]
    if step == "account" and needs_mfa(user):
        return pages.mfa(user, account, query_text)
    mfa = step == "mfa" or (
        step == "consent" and hmac.compare_digest(posted.get("ticket", ""), ticket(query_text, account, True))
    )
    if needs_mfa(user) and not mfa:
        return pages.mfa(user, account, query_text)
    if step != "consent":
        return pages.consent(asked, home, user, account, ticket(query_text, account, mfa), query_text)
    if posted.get("choice") != "accept":
        return pages.answer(declined(asked), cloud)
    if is_admin_consent:
        return pages.answer(_admin_consent(world, asked, home, user), cloud)
    return pages.answer(finish(world, asked, home, user, mfa=mfa), cloud)


def _admin_consent(world: World, asked: Asked, home: Tenant, user: User) -> Answer:
    """Consent for the whole tenant without any token."""
    if GLOBAL_ADMINISTRATOR not in user.roles:
        fields = {"admin_consent": "True", "error": "access_denied", "error_description": "AADSTS90094: Not an admin."}
    else:
        home.add_principal(asked.application.app_id, asked.application.name)
        for resource, scopes in asked.application.permissions.items():
            home.grant(asked.application.app_id, resource, scopes)
        fields = {"admin_consent": "True", "tenant": home.tenant_id, "scope": " ".join(sorted(_OPENID))}
    return Answer(asked.redirect_uri, "GET", {**fields, "state": asked.state})


def with_query(url: str, fields: Mapping[str, str]) -> str:
    return f"{url}?{urlencode(fields)}"
