"""The sign-in service: discovery, keys, authorize, admin consent and token endpoint of the v2 protocol.

Drive the pages without a browser through :func:`sign_in` or the control address' ``/authorize``; with one, by these
names: ``account`` (radio buttons of the chooser, value ``tenant/oid``), buttons ``#next``, ``#approve-mfa``,
``#accept``, ``#cancel``, ``#continue`` in the form ``#answer`` for browsers without JavaScript, and ``#error`` on pages
that stay at Microsoft. Consent is asked when something is missing or with ``prompt=consent``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox import pages
from tests.sandbox.notes import CLOUD, CLOUDS, CORRELATION
from tests.sandbox.refusals import KNOWN, description, discovery_refusal, page_error
from tests.sandbox.token_endpoint import answer_token_request
from tests.sandbox.tokens import b64, services, signing_key
from tests.sandbox.world import GLOBAL_ADMINISTRATOR, Application, Code, Tenant, User, World

_OPENID = {"openid", "profile", "offline_access", "email"}
_ANY_TENANT = {"organizations", "common"}
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
    state: str | None
    nonce: str
    challenge: str
    tenant: str
    """Tenant id of the authority, or ``organizations``."""
    scopes: dict[str, set[str]]
    """Asked scope names by resource application id."""
    login_hint: str
    always_consent: bool
    mfa_asked: bool
    """The request itself asks for MFA, whatever the user's policy."""
    contexts: tuple[str, ...] = ()
    """Authentication contexts that the request demands; here each of them means MFA."""
    admin: bool = False
    """The admin consent endpoint: no code, no token."""


def routes(world: World) -> list[web.RouteDef]:
    """Return the routes of ``login.<cloud>.localhost``."""

    async def discovery(request: web.Request) -> web.Response:
        return _discovery(world, request[CLOUD], request[CLOUDS], request.match_info["tenant"])

    async def keys(request: web.Request) -> web.Response:
        tenant, cloud = request.match_info["tenant"], request[CLOUD]
        if tenant not in _ANY_TENANT and world.tenant(tenant, cloud.key) is None:
            return discovery_refusal(tenant)
        world.book("entra", "keys", 200, cloud=cloud.key, tenant=tenant)
        issuer = f"{cloud.authority}/{{tenantid}}/v2.0"
        return web.json_response({"keys": [signing_key(cloud.key).jwk() | {"issuer": issuer}]})

    async def authorize(request: web.Request) -> web.Response:
        return await _step(world, request)

    async def token(request: web.Request) -> web.Response:
        posted = await request.post()
        form = {name: value for name, value in posted.items() if isinstance(value, str)}
        return answer_token_request(world, request[CLOUD], request.match_info["tenant"], form, request[CORRELATION])

    async def logout(request: web.Request) -> web.Response:
        return pages.signed_out()

    async def token_get(request: web.Request) -> web.Response:
        return page_error(900561, "The endpoint only accepts POST requests.")

    return [
        web.get("/{tenant}/v2.0/.well-known/openid-configuration", discovery),
        web.get("/{tenant}/discovery/v2.0/keys", keys),
        web.get("/{tenant}/oauth2/v2.0/authorize", authorize),
        web.post("/{tenant}/oauth2/v2.0/authorize", authorize),
        web.post("/{tenant}/oauth2/v2.0/token", token),
        web.get("/{tenant}/oauth2/v2.0/token", token_get),
        web.get("/{tenant}/oauth2/v2.0/logout", logout),
        web.get("/{tenant}/v2.0/adminconsent", authorize),
        web.post("/{tenant}/v2.0/adminconsent", authorize),
    ]


def _discovery(world: World, cloud: NationalCloud, clouds: Mapping[str, NationalCloud], text: str) -> web.Response:
    """Answer with the tenant's addresses. Those of another cloud's tenant are that cloud's, which gives it away."""
    asked, tenant = cloud.key, None
    if text not in _ANY_TENANT:
        places = clouds.values() if world.switches["foreign_tenant_discovery"] else [cloud]
        found = [(each, one) for each in places if (one := world.tenant(text, each.key)) is not None]
        if not found:
            world.book("entra", "discovery", 400, cloud=asked, tenant=text)
            return discovery_refusal(text)
        cloud, tenant = found[0]
    issuer_tenant = "{tenantid}" if tenant is None else tenant.tenant_id
    base = f"{cloud.authority}/{text if tenant is None else tenant.tenant_id}"
    world.book("entra", "discovery", 200, cloud=asked, tenant=text)
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


def read_request(
    world: World, cloud: NationalCloud, tenant: str, query: Mapping[str, str], *, admin: bool = False
) -> Asked:
    """Check an authorize request as Microsoft does; ``admin`` for the admin consent endpoint.

    Raises:
        Shown: a page at Microsoft (unknown client, wrong redirect URI or tenant).
        Back: an error for the application.
    """
    tenant, application = _parties(world, cloud, tenant, query)
    redirect_uri = query.get("redirect_uri", "")
    if redirect_uri not in application.redirect_uris:
        raise Shown(50011, "The redirect URI in the request does not match the ones configured for the application.")
    mode = "query" if admin else query.get("response_mode", "query")

    def fail(code: int, text: str) -> Back:
        return Back(_back(world, redirect_uri, mode, query.get("state"), code, text))

    asked_scopes = query.get("scope", "").split()
    if "resource" in query:
        raise fail(901002, "The 'resource' request parameter is not supported.")
    if not admin:
        if query.get("response_type") != "code":
            raise fail(700054, "response_type 'id_token' is not enabled for the application.")
        if mode not in {"form_post", "query"}:
            raise fail(70007, "The response_mode is not supported.")
        if not asked_scopes:
            raise fail(900144, "The request must contain the parameter 'scope'.")
        if "openid" not in asked_scopes:
            raise fail(90008, "The application must request sign-in permission.")
    challenge = query.get("code_challenge", "")
    if challenge and (not _CHALLENGE.fullmatch(challenge) or query.get("code_challenge_method") != "S256"):
        raise fail(501491, "The code challenge has an invalid size or method.")
    scopes: dict[str, set[str]] = {}
    for scope in asked_scopes:
        if scope in _OPENID:
            continue
        prefix, _, name = scope.rpartition("/")
        resource = services(world, cloud).get(prefix or cloud.graph)
        if resource is None:
            raise fail(70011, "The provided value for the input parameter 'scope' is not valid.")
        if resource not in application.permissions:
            raise fail(650057, "The resource is not listed in the application registration.")
        wanted = application.permissions[resource] if name == ".default" else {name}
        if not wanted <= application.permissions[resource]:
            raise fail(65005, "The application requested permissions that are not configured.")
        scopes.setdefault(resource, set()).update(wanted)
    if admin and not scopes:
        scopes = {resource: set(names) for resource, names in application.permissions.items()}
    contexts = tuple(re.findall(r'"acrs":\s*\{[^}]*"value":\s*"(c[1-9]\d?)"', query.get("claims", "")))
    demands = query.get("amr_values", "").split() + re.findall(r"mfa|capolids", query.get("claims", ""))
    return Asked(
        application=application,
        redirect_uri=redirect_uri,
        response_mode=mode,
        state=query.get("state"),
        nonce=query.get("nonce", ""),
        challenge=challenge,
        tenant=tenant,
        scopes=scopes,
        login_hint=query.get("login_hint", ""),
        always_consent=admin or query.get("prompt") == "consent",
        mfa_asked=bool((world.switches["amr_values_honoured"] and demands) or contexts),
        contexts=contexts,
        admin=admin,
    )


def _parties(world: World, cloud: NationalCloud, tenant: str, query: Mapping[str, str]) -> tuple[str, Application]:
    """Return the authority's tenant and the application, or end on a page."""
    if tenant not in _ANY_TENANT:
        found = world.tenant(tenant, cloud.key)
        if found is None:
            raise Shown(90002, f"Tenant '{tenant}' not found. Check that you have the correct tenant ID and cloud.")
        tenant = found.tenant_id
    application = world.application(query.get("client_id", ""), cloud.key)
    if application is None:
        raise Shown(700016, "The application was not found in the directory.")
    if not application.works:
        raise Shown(int(world.switches["application_disabled"]), "The application is disabled.")
    if not application.multi_tenant and tenant != application.home_tenant:
        raise Shown(50194, "The application is not configured as a multi-tenant application.")
    return tenant, application


def _back(world: World, url: str, mode: str, state: str | None, code: int, text: str, **more: str) -> Answer:
    """Return an error for the application over its redirect URI."""
    fields = {
        "error": KNOWN[code][0],
        "error_description": description(world, code, text, str(uuid.uuid4()), str(uuid.uuid4())),
        **more,
    }
    if state is not None:
        fields["state"] = state
    return Answer(url, "POST" if mode == "form_post" else "GET", fields)


# --- what a person does -------------------------------------------------------------------------------------------


def sign_in(
    world: World,
    clouds: Mapping[str, NationalCloud],
    authorize_url: str,
    *,
    user: str,
    mfa: bool = True,
    accept: bool = True,
    tenant: str | None = None,
) -> Answer:
    """Go through the pages as this user and return what the browser would send to the application.

    Args:
        user: UPN of the account.
        mfa: whether the person completes MFA when asked. The pages let nobody on without; this does, to get tokens of
            a sign-in that proved no MFA.
        accept: whether the person accepts the consent.
        tenant: where to look for the account when several tenants have it; by default the authority's, then its home.

    Raises:
        Shown: Microsoft ends on a page of its own.
    """
    parts = urlsplit(authorize_url)
    cloud = clouds[(parts.hostname or "").split(".")[1]]
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    try:
        asked = read_request(
            world, cloud, parts.path.split("/")[1], query, admin=parts.path.endswith("/v2.0/adminconsent")
        )
    except Back as back:
        return back.answer
    home, account = _find_account(world, cloud, user, tenant or asked.tenant)
    check_account(asked, home, account)
    wanted = needs_mfa(asked, account)
    if wanted and mfa and not account.mfa_registered:
        raise Shown(50079, "The user is required to register for multifactor authentication.")
    return finish(world, asked, home, account, mfa=wanted and mfa) if accept else declined(world, asked)


def _find_account(world: World, cloud: NationalCloud, upn: str, tenant: str) -> tuple[Tenant, User]:
    found = [pair for pair in world.users_of(cloud.key) if pair[1].upn == upn]
    if not found:
        raise Shown(50034, "The user account does not exist in this directory.")
    return min(found, key=lambda pair: (pair[0].tenant_id != tenant, pair[1].user_type == "Guest"))


def check_account(asked: Asked, home: Tenant, user: User) -> None:
    """Refuse accounts that may not sign in here; a page at Microsoft, the application hears nothing."""
    if not user.enabled:
        raise Shown(50057, "The user account is disabled.")
    if asked.tenant not in {*_ANY_TENANT, home.tenant_id}:
        raise Shown(50020, "The user account does not exist in this tenant and cannot access the application in it.")
    principal = home.principal_of(asked.application.app_id)
    if principal is not None and not principal.enabled:
        raise Shown(7000112, "The application is disabled in this tenant.")


def needs_mfa(asked: Asked, user: User) -> bool:
    return user.mfa_required or asked.mfa_asked


def declined(world: World, asked: Asked) -> Answer:
    """Return the answer of a person who pressed Cancel on the consent screen."""
    more = {"admin_consent": "True", "error": "consent_required"} if asked.admin else {"error_subcode": "cancel"}
    return _refused(world, asked, 65004, "User declined to consent to access the app.", **more)


def _refused(world: World, asked: Asked, code: int, text: str, **more: str) -> Answer:
    world.book("entra", "authorize", code, client=asked.application.app_id)
    return _back(world, asked.redirect_uri, asked.response_mode, asked.state, code, text, **more)


def missing_consent(world: World, asked: Asked, home: Tenant) -> list[str]:
    """Return the resources for which the tenant has not granted all that is asked."""
    now = world.now()
    return [
        resource
        for resource, scopes in asked.scopes.items()
        if not scopes <= home.granted(asked.application.app_id, resource, now)
    ]


def finish(world: World, asked: Asked, home: Tenant, user: User, *, mfa: bool) -> Answer:
    """Grant the consent and issue a code. Only an administrator may consent to what this product asks for."""
    missing = missing_consent(world, asked, home)
    more = {"admin_consent": "True"} if asked.admin else {}
    if missing and GLOBAL_ADMINISTRATOR not in user.roles:
        return _refused(world, asked, 90094, "An administrator of the tenant must grant consent.", **more)
    known = {own.app_id for own in _services_of_the_vendor(world, asked, missing)}
    if any(home.principal_of(resource) is None and resource not in known for resource in missing):
        return _refused(world, asked, 650052, "The organization lacks a service principal of the resource.", **more)
    home.add_principal(asked.application.app_id, asked.application.name)
    for own in _services_of_the_vendor(world, asked, missing):
        home.add_principal(own.app_id, own.name)
    for resource in missing:
        home.grant(asked.application.app_id, resource, asked.scopes[resource])
    world.book(
        "entra",
        "authorize",
        302,
        tenant=home.tenant_id,
        home=home.tenant_id,
        user=user.oid,
        client=asked.application.app_id,
    )
    if asked.admin:
        names = sorted(name for scopes in asked.scopes.values() for name in scopes)
        return _answer(asked, more | {"tenant": home.tenant_id, "scope": " ".join(names)})
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
        issued=world.now(),
        acrs=asked.contexts if mfa else (),
    )
    return _answer(asked, {"code": code, "session_state": str(uuid.uuid4())})


def _services_of_the_vendor(world: World, asked: Asked, resources: list[str]) -> list[Application]:
    """Return those of the resources that know this application: one consent serves both."""
    found = (world.applications.get(resource) for resource in resources)
    return [one for one in found if one is not None and asked.application.app_id in one.known_clients]


def _answer(asked: Asked, fields: dict[str, str]) -> Answer:
    if asked.state is not None:
        fields["state"] = asked.state
    return Answer(asked.redirect_uri, "POST" if asked.response_mode == "form_post" else "GET", fields)


# --- the pages' form posts ----------------------------------------------------------------------------------------


def ticket(query: str, account: str) -> str:
    """Return a signed note that this person proved MFA for this request; the pages keep no session."""
    return b64(hmac.new(_SESSIONS, f"{account}\n{query}".encode(), hashlib.sha256).digest())


async def _step(world: World, request: web.Request) -> web.Response:
    """Show the page that follows what the person did so far: account, MFA, consent, answer."""
    cloud: NationalCloud = request[CLOUD]
    posted = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    query_text = request.query_string
    query = dict(parse_qsl(query_text, keep_blank_values=True))
    try:
        asked = read_request(
            world, cloud, request.match_info["tenant"], query, admin=request.path.endswith("/adminconsent")
        )
        account = posted.get("account", "")
        tenant_id, _, oid = account.partition("/")
        home, user = world.tenants.get(tenant_id), world.user(tenant_id, oid)
        if home is None or user is None or home.cloud != cloud.key or user.deleted:
            return pages.choose_account(world, cloud, asked, query_text)
        check_account(asked, home, user)
    except Shown as shown:
        return pages.refusal(shown.code, shown.text)
    except Back as back:
        return pages.answer(back.answer)
    step, note = posted.get("step", ""), ticket(query_text, account)
    mfa = step == "mfa" or hmac.compare_digest(posted.get("ticket", "").encode(), note.encode())
    if needs_mfa(asked, user) and not mfa:
        return pages.mfa(asked, user, account, query_text)
    if step == "consent" and posted.get("choice") != "accept":
        return pages.answer(declined(world, asked))
    if step != "consent" and (asked.always_consent or missing_consent(world, asked, home)):
        return pages.consent(asked, home, user, account, note if mfa else "", query_text)
    return pages.answer(finish(world, asked, home, user, mfa=mfa))
