"""What all Graph operations share: the caller, scopes, errors, OData queries and pages.

The token's ``tid`` chooses the tenant. A customer tenant answers only while GDAP lets the user in and the application
has a service principal there.

Source: Microsoft Graph v1.0, "Microsoft Graph error responses", "Use query parameters", "Paging", "Claims challenges".
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.world import CONSENT_ROLES, SWITCHES, Tenant, User, World

SWITCHES.update(
    {
        "graph_page_limit": 999,  # no page is larger, whatever $top asks for
        "graph_empty_page": False,  # the first page is empty and has a next link
        "graph_skiptoken_seconds": 3600,  # life of a next link
        "graph_checks_principal": True,  # a removed service principal ends its tokens at once, not at their expiry
        "graph_scope_spaces": True,  # the scopes of a grant begin with a space
        "graph_shuffle": True,  # answers of a batch come in any order
        "graph_throttled_parts": 0,  # that many parts at the start of a batch are answered with 429
        "graph_missing_etag": 428,  # or 400: a change without If-Match
    }
)

type Item = dict[str, Any]
Operation = Callable[["Call"], "Answer"]

_CONDITION = re.compile(r"([A-Za-z]\w*(?:/\w+)?) +eq +('(?:[^']|'')*'|true|false|null)", re.IGNORECASE)
_OPTIONS = {"$select", "$filter", "$top", "$count", "$skiptoken"}
MAX_TOP = 999


class GraphError(Exception):
    """Becomes an error answer of the documented shape."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Denied(GraphError):
    """A scope or a role is missing."""

    def __init__(self) -> None:
        super().__init__(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def bad_request(message: str) -> GraphError:
    return GraphError(400, "Request_BadRequest", message)


def unsupported(message: str) -> GraphError:
    return GraphError(400, "Request_UnsupportedQuery", message)


def not_found(what: str) -> GraphError:
    return GraphError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{what}' does not exist or one of its queried reference-property objects are not present.",
    )


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Item | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Caller:
    """Who holds the token, and in which tenant it is valid."""

    tenant: Tenant
    home: Tenant
    user: User
    app_id: str
    scopes: frozenset[str]

    @property
    def is_application(self) -> bool:
        return not self.user.upn


@dataclass(slots=True, kw_only=True)
class Call:
    """One call, of its own or as part of a batch. Header names are lower-case."""

    world: World
    cloud: NationalCloud
    caller: Caller
    method: str
    path: str
    """Without ``/v1.0``, decoded."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    params: Mapping[str, str] = field(default_factory=dict)

    @property
    def tenant(self) -> Tenant:
        return self.caller.tenant

    def need(self, *scopes: str) -> None:
        """Refuse tokens that hold none of these delegated permissions."""
        if not self.may(*scopes):
            raise Denied

    def may(self, *scopes: str) -> bool:
        return not self.caller.scopes.isdisjoint(scopes)

    def need_role(self) -> None:
        """Refuse users whose role in this tenant does not let them change applications and grants.

        An application that calls for itself has no role: its permissions are all that it needs.
        """
        if not self.caller.is_application and not self.roles() & CONSENT_ROLES:
            raise Denied

    def roles(self) -> set[str]:
        caller = self.caller
        if caller.home is caller.tenant:
            return caller.user.roles
        return self.world.gdap_roles(caller.home.tenant_id, caller.user, caller.tenant.tenant_id)

    def content(self) -> Item:
        if not isinstance(self.body, dict):
            raise bad_request("The body is not a JSON object.")
        return self.body

    def check_etag(self, etag: str) -> None:
        """Refuse changes of something that the caller has not seen as it is."""
        sent = self.headers.get("if-match", "")
        if not sent:
            status = int(self.world.switches["graph_missing_etag"])
            raise GraphError(status, "preconditionRequired", "The If-Match header is missing.")
        if sent not in {etag, "*"}:
            raise GraphError(412, "preconditionFailed", "The ETag does not match.")

    def is_advanced(self) -> bool:
        """Tell whether this is an advanced query (``ConsistencyLevel: eventual`` and ``$count=true``)."""
        eventual = self.headers.get("consistencylevel", "").lower() == "eventual"
        return eventual and self.query.get("$count") == "true"

    def context(self, fragment: str) -> str:
        return f"{self.cloud.graph}/v1.0/$metadata#{fragment}"


def moment(seconds: float | None) -> str | None:
    """Return an instant as Graph writes it."""
    return None if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


# --- OData --------------------------------------------------------------------------------------------------------


def _options(call: Call) -> dict[str, str]:
    """Return the OData options by lower-case name; what the imitation does not know is refused, never ignored."""
    options = {name.lower(): value for name, value in call.query.items() if name.startswith("$")}
    if unknown := options.keys() - _OPTIONS:
        raise unsupported(f"The query option {min(unknown)} is not supported here.")
    return options


def _literal(text: str) -> Any:
    if text.startswith("'"):
        return text[1:-1].replace("''", "'").lower()
    return {"true": True, "false": False, "null": None}[text.lower()]


def _filtered[T](sources: Iterable[T], text: str, filterable: Mapping[str, Callable[[T], Any]]) -> list[T]:
    """Apply ``a eq 'x' and b eq true``; any other expression or property is refused."""
    conditions = []
    for part in re.split(r" +and +(?=(?:[^']*'[^']*')*[^']*$)", text.strip(), flags=re.IGNORECASE):
        found = _CONDITION.fullmatch(part.strip())
        if found is None or found[1] not in filterable:
            raise unsupported("Unsupported or invalid query filter clause.")
        conditions.append((filterable[found[1]], _literal(found[2])))

    def holds(source: T) -> bool:
        for read, wanted in conditions:
            value = read(source)
            if (value.lower() if isinstance(value, str) else value) != wanted:
                return False
        return True

    return [source for source in sources if holds(source)]


def select(call: Call, item: Item, default: Iterable[str] = ()) -> Item:
    """Return the selected properties; without ``$select`` the default ones, or all."""
    text = _options(call).get("$select", "")
    wanted = [name.strip() for name in text.split(",") if name.strip()] or list(default)
    if not wanted:
        return item
    if unknown := [name for name in wanted if name not in item]:
        if "@odata.type" not in item:
            raise bad_request(f"Could not find a property named '{unknown[0]}'.")
        wanted = [name for name in wanted if name in item]
    return {name: value for name, value in item.items() if name in wanted or name.startswith("@")}


def one(call: Call, fragment: str, item: Item, default: Iterable[str] = ()) -> Answer:
    """Return one entity."""
    return Answer(200, {"@odata.context": call.context(f"{fragment}/$entity")} | select(call, item, default))


def collection[T](
    call: Call,
    fragment: str,
    sources: Iterable[T],
    render: Callable[[T], Item],
    *,
    filterable: Mapping[str, Callable[[T], Any]] | None = None,
    default: Iterable[str] = (),
    max_top: int = MAX_TOP,
) -> Answer:
    """Return one page, filtered and selected, with a link to the next; only what the page shows is rendered."""
    world, options = call.world, _options(call)
    found = list(sources)
    if "$filter" in options:
        found = _filtered(found, options["$filter"], filterable or {})
    size = _page_size(call, options, max_top)
    start = _start(call, options)
    body: Item = {"@odata.context": call.context(fragment)}
    if call.is_advanced():
        body["@odata.count"] = len(found)
    if world.switches["graph_empty_page"] and "$skiptoken" not in options and found:
        body |= {"@odata.nextLink": _next_link(call, 0), "value": []}
        return Answer(200, body)
    if start + size < len(found):
        body["@odata.nextLink"] = _next_link(call, start + size)
    body["value"] = [select(call, render(source), default) for source in found[start : start + size]]
    return Answer(200, body)


def _page_size(call: Call, options: Mapping[str, str], max_top: int) -> int:
    text = options.get("$top", str(call.world.switches["graph_page"]))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= max_top:
        raise bad_request(f"Invalid page size: $top must be between 1 and {max_top}.")
    return min(int(text), int(call.world.switches["graph_page_limit"]))


def _start(call: Call, options: Mapping[str, str]) -> int:
    if "$skiptoken" not in options:
        return 0
    binding, start, expires = call.world.continuations.get(options["$skiptoken"], ("", 0, 0))
    if binding != f"{call.tenant.tenant_id}{call.path}" or expires <= call.world.now():
        raise GraphError(400, "Directory_ExpiredPageToken", "The page token is not valid any more.")
    return start


def _next_link(call: Call, start: int) -> str:
    token = secrets.token_urlsafe(60)
    expires = int(call.world.now() + call.world.switches["graph_skiptoken_seconds"])
    call.world.continuations[token] = (f"{call.tenant.tenant_id}{call.path}", start, expires)
    query = {name: value for name, value in call.query.items() if name.lower() != "$skiptoken"}
    origin = "https://graph.foreign.example" if call.world.switches["graph_foreign_next_link"] else call.cloud.graph
    return f"{origin}/v1.0{quote(call.path)}?{urlencode(query | {'$skiptoken': token}, quote_via=quote, safe='$')}"


# --- who asks -----------------------------------------------------------------------------------------------------


def _challenge(cloud: NationalCloud, more: str = "") -> str:
    return f'Bearer realm="", authorization_uri="{cloud.authority}/common/oauth2/authorize"{more}'


def identify(world: World, cloud: NationalCloud, claims: dict[str, Any] | None) -> Caller:
    """Return who calls, by the claims of a verified token; None stands for no good token."""
    message = "Access token validation failure."
    refused = GraphError(401, "InvalidAuthenticationToken", message, WWW_Authenticate=_challenge(cloud))
    if claims is not None and claims.get("idtyp") == "app":
        return _application_caller(world, claims, refused)
    if claims is None or "home" not in claims:
        raise refused
    home_id, oid = claims["home"].split("/")
    tenant, home, user = world.tenants.get(claims.get("tid", "")), world.tenants.get(home_id), world.user(home_id, oid)
    if tenant is None or home is None or user is None or user.deleted or not user.enabled:
        raise refused
    key = f"graph challenge {tenant.tenant_id} {claims['home']}"
    if not world.switches["graph_claims_challenge"]:
        world.answers.pop(key, None)
    elif world.answers.setdefault(key, (401, claims["uti"]))[1] == claims["uti"]:
        # As after a real event, the first token seen is refused and any newer one passes.
        wanted = {"access_token": {"nbf": {"essential": True, "value": str(int(world.now()))}}}
        encoded = base64.b64encode(json.dumps(wanted).encode()).decode()
        header = _challenge(cloud, f', error="insufficient_claims", claims="{encoded}"')
        raise GraphError(401, "InvalidAuthenticationToken", message, WWW_Authenticate=header)
    caller = Caller(
        tenant=tenant,
        home=home,
        user=user,
        app_id=claims.get("appid", ""),
        scopes=frozenset(claims.get("scp", "").split()),
    )
    if tenant is not home:
        if not world.gdap_roles(home.tenant_id, user, tenant.tenant_id):
            raise Denied
        if world.switches["graph_checks_principal"] and tenant.principal_of(caller.app_id) is None:
            raise GraphError(403, "Authorization_IdentityNotFound", "The identity of the application was not found.")
    return caller


def _application_caller(world: World, claims: dict[str, Any], refused: GraphError) -> Caller:
    """Return an application that calls for itself; its application permissions stand where a user's scopes do."""
    tenant = world.tenants.get(claims.get("tid", ""))
    if tenant is None:
        raise refused
    itself = User(oid=claims["oid"], upn="", name=claims["app_displayname"])
    roles = frozenset(claims.get("roles", ()))
    return Caller(tenant=tenant, home=tenant, user=itself, app_id=claims["appid"], scopes=roles)


def error_body(world: World, error: GraphError, request_id: str, client_request_id: str) -> Item:
    """Return the documented body of an error."""
    inner = {
        "date": (moment(world.now()) or "").rstrip("Z"),
        "request-id": request_id,
        "client-request-id": client_request_id,
    }
    return {"error": {"code": error.code, "message": error.message, "innerError": inner}}


def guid(text: Any, what: str = "id") -> str:
    """Return a canonical GUID, or refuse the request."""
    try:
        return str(uuid.UUID(text))
    except (AttributeError, TypeError, ValueError):
        raise bad_request(f"Invalid value specified for property '{what}'.") from None
