"""The pages in HTML that a person can use without JavaScript: start and sign-in; clearly not Microsoft's."""

from __future__ import annotations

import secrets
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from portal.microsoft.clouds import NationalCloud
from tests.sandbox.world import AZURE_MANAGEMENT, GRAPH, PARTNER_API, PARTNER_CENTER, Tenant, User, World

if TYPE_CHECKING:
    from tests.sandbox.entra import Answer, Asked

_RESOURCES = {
    GRAPH: "Microsoft Graph",
    PARTNER_CENTER: "Microsoft Partner Center",
    PARTNER_API: "Partner API",
    AZURE_MANAGEMENT: "Azure Resource Manager",
}
# What the permissions mean, in words; one that is not here is shown by its name only.
_WORDS = {
    "user_impersonation": "Work in Partner Center as you",
    "DelegatedAdminRelationship.ReadWrite.All": "Read and manage delegated admin relationships with customers",
    "DelegatedAdminRelationship.Read.All": "Read delegated admin relationships with customers",
    "User.Read": "Sign you in and read your profile",
    "User.Read.All": "Read the full profiles of all users",
    "Directory.Read.All": "Read users, groups and roles of the directory",
    "Directory.ReadWrite.All": "Read and change users, groups and roles of the directory",
    "Application.Read.All": "Read applications and their consents",
    "Application.ReadWrite.All": "Read and change applications and their consents",
    "DelegatedPermissionGrant.ReadWrite.All": "Read and change consents",
    "Organization.Read.All": "Read details of the organization",
    "Group.Read.All": "Read all groups",
    "GroupMember.Read.All": "Read the members of groups",
    "RoleManagement.Read.Directory": "Read who holds which directory role",
    "Domain.Read.All": "Read the domains of the organization",
}
_STYLE = """
:root{color-scheme:light dark;--ground:#eef1f4;--card:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--accent:#7a3e00}
@media(prefers-color-scheme:dark){:root{--ground:#14171b;--card:#1e2329;--ink:#e8ecf0;--soft:#a3adb8;--line:#3a424b;
--accent:#ffb870}}
*{box-sizing:border-box}body{margin:0;font:16px/1.5 system-ui,sans-serif;background:var(--ground);color:var(--ink)}
.banner{background:var(--accent);color:var(--card);text-align:center;padding:.5rem 1rem;font-weight:600}
main{max-width:30rem;margin:2rem auto;padding:1.75rem;background:var(--card);border:1px solid var(--line);
border-radius:12px}h1{font-size:1.35rem;margin:0 0 .75rem}p{margin:.5rem 0}.soft{color:var(--soft);font-size:.9rem}
label.row{display:flex;gap:.75rem;align-items:flex-start;padding:.6rem .25rem;border-top:1px solid var(--line)}
label.row span span{display:block;color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:1.5rem 0 .5rem}a{color:inherit}
ul{padding-left:1.2rem}li{margin:.4rem 0}.buttons{display:flex;gap:.75rem;margin-top:1.25rem;flex-wrap:wrap}
button{font:inherit;padding:.6rem 1.4rem;border-radius:8px;border:1px solid var(--ink);background:var(--card);
color:var(--ink);cursor:pointer}button.main{background:var(--ink);color:var(--card)}
button:focus-visible,input:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
fieldset{border:0;margin:0;padding:0}legend{padding:0;font-weight:600}code{overflow-wrap:anywhere}
"""


# Answers browsers by itself, so that none asks in vain; two letters in the colours of the banner.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="6" fill="#7a3e00"/>'
    '<path d="M9 22c3 2 9 2 9-2s-8-3-8-7 6-4 8-2m6-2v14" fill="none" stroke="#fff" stroke-width="3"/></svg>'
)
_PLACES = (
    ("/state", "who and what is there"),
    ("/counters", "how often each address was called"),
    ("/ledger?last=50", "the last 50 calls"),
    ("/crossings", "tokens that were shown to the wrong service"),
)


def routes(world: World) -> list[web.RouteDef]:
    """Return the routes of the start page and the icon, for the hosts that browsers open."""

    async def start_page(request: web.Request) -> web.Response:
        return start(world, request.url.port or 80, request.scheme)

    async def icon(request: web.Request) -> web.Response:
        return web.Response(text=_ICON, content_type="image/svg+xml")

    return [web.get("/", start_page), web.get("/favicon.ico", icon)]


def start(world: World, port: int, scheme: str) -> web.Response:
    """Say what the sandbox is, who is in it, and where programs read what it knows."""
    control = f"{scheme}://control.localhost:{port}"
    partners = "".join(
        f"<li><strong>{escape(tenant.name)}</strong> ({escape(tenant.cloud)}, "
        f"{len(world.customers.get(tenant.tenant_id, {}))} customers)<br>"
        f"{'<br>'.join(f'<code>{escape(user.upn)}</code>' for user in tenant.users.values())}</li>"
        for tenant in sorted(world.tenants.values(), key=lambda one: one.name)
        if tenant.kind == "partner"
    )
    places = "".join(f'<li><a href="{control}{path}">{path}</a>: {what}</li>' for path, what in _PLACES)
    body = (
        "<h1>The local Microsoft</h1>"
        "<p>This process plays Entra, Partner Center, Microsoft Graph and Key Vault of three clouds for a portal on "
        "this machine. Nothing here is real, and nothing leaves the machine. All is forgotten when it stops.</p>"
        "<p>The portal sends your browser here to sign in: open a partner's consent link and press Continue.</p>"
        f"<h2>Partners and their accounts</h2><ul>{partners}</ul>"
        f"<h2>For programs, in JSON</h2><ul>{places}</ul>"
    )
    return _page("Sandbox", body)


def _page(title: str, body: str, *, status: int = 200, form_targets: str = "'self'", script: str = "") -> web.Response:
    nonce = secrets.token_urlsafe(12)
    script_tag = f'<script nonce="{nonce}">{script}</script>' if script else ""
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="/favicon.ico" type="image/svg+xml">'
        f'<style nonce="{nonce}">{_STYLE}</style></head><body>'
        '<div class="banner" role="note">Sandbox &ndash; this is not Microsoft</div>'
        f"<main>{body}</main>{script_tag}</body></html>"
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src 'self'; "
        f"form-action {form_targets}; frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "strict-origin"}
    return web.Response(text=html, content_type="text/html", status=status, headers=headers)


def refusal(code: int, text: str) -> web.Response:
    """Show an error that stays at Microsoft."""
    return _page(
        "Sign-in failed",
        f'<h1>Sorry, but we are having trouble signing you in.</h1><p id="error">AADSTS{code}: {escape(text)}</p>'
        '<p class="soft">The application hears nothing of this page. Go back and try again.</p>',
        status=400,
    )


def signed_out() -> web.Response:
    """Say good-bye; the sandbox keeps no session that could end."""
    return _page("Signed out", "<h1>You signed out of your account</h1>")


def _targets(asked: Asked) -> str:
    """Return where forms may lead: browsers hold ``form-action`` against redirects after a post, too."""
    parts = urlsplit(asked.redirect_uri)
    return f"'self' {parts.scheme}://{parts.netloc}"


def choose_account(world: World, cloud: NationalCloud, asked: Asked, query: str) -> web.Response:
    """Show the account chooser: the authority's tenant first, then all other accounts of this cloud."""
    rows = sorted(world.users_of(cloud.key), key=lambda pair: (pair[0].name, pair[1].upn))
    own = [pair for pair in rows if pair[0].tenant_id == asked.tenant]
    others = [pair for pair in rows if pair[0].tenant_id != asked.tenant]

    def options(legend: str, pairs: list[tuple[Tenant, User]]) -> str:
        labels = "".join(
            f'<label class="row"><input type="radio" name="account" required value="{home.tenant_id}/{user.oid}"'
            f"{' checked' if user.upn == asked.login_hint else ''}>"
            f"<span>{escape(user.upn)}<span>{escape(user.name)}, {escape(home.name)}</span></span></label>"
            for home, user in pairs
        )
        return f"<fieldset><legend>{legend}</legend>{labels}</fieldset>" if pairs else ""

    body = (
        "<h1>Pick an account</h1>"
        f'<p class="soft">{"to consent for your organization to" if asked.admin else "to continue to"} '
        f"{escape(asked.application.name)}</p>"
        f'<form method="post" action="?{escape(query)}"><input type="hidden" name="step" value="account">'
        f"{options('This tenant', own)}{options('Other tenants' if own else 'All tenants', others)}"
        '<div class="buttons"><button class="main" id="next">Next</button></div></form>'
    )
    return _page("Pick an account", body, form_targets=_targets(asked))


def mfa(asked: Asked, user: User, account: str, query: str) -> web.Response:
    """Ask for the second factor."""
    if not user.mfa_registered:
        return refusal(50079, "The user is required to register for multifactor authentication.")
    body = (
        f"<h1>Approve the sign-in</h1><p>{escape(user.upn)}</p>"
        "<p>We sent a request to your authenticator app. In the sandbox, this button is your phone.</p>"
        f'<form method="post" action="?{escape(query)}"><input type="hidden" name="step" value="mfa">'
        f'<input type="hidden" name="account" value="{escape(account)}">'
        '<div class="buttons"><button class="main" id="approve-mfa">Approve</button></div></form>'
    )
    return _page("Approve the sign-in", body, form_targets=_targets(asked))


def consent(asked: Asked, home: Tenant, user: User, account: str, ticket: str, query: str) -> web.Response:
    """Ask for the consent, listing every permission by resource."""
    lists = "".join(
        f"<p><strong>{escape(_RESOURCES.get(resource, resource))}</strong></p><ul>"
        + "".join(f"<li>{escape(_WORDS.get(scope, ''))} <code>{escape(scope)}</code></li>" for scope in sorted(scopes))
        + "</ul>"
        for resource, scopes in asked.scopes.items()
    )
    body = (
        "<h1>Permissions requested</h1>"
        f"<p><strong>{escape(asked.application.name)}</strong></p>"
        f'<p class="soft">{escape(user.upn)}, {escape(home.name)}</p>'
        f"<p>This application would like to:</p>{lists}"
        "<p>Keep access to what you give it access to, until you take it back.</p>"
        f'<form method="post" action="?{escape(query)}"><input type="hidden" name="step" value="consent">'
        f'<input type="hidden" name="account" value="{escape(account)}">'
        f'<input type="hidden" name="ticket" value="{escape(ticket)}">'
        '<div class="buttons"><button class="main" id="accept" name="choice" value="accept">Accept</button>'
        '<button id="cancel" name="choice" value="cancel">Cancel</button></div></form>'
    )
    return _page("Permissions requested", body, form_targets=_targets(asked))


def answer(found: Answer) -> web.Response:
    """Send the browser back to the application: a self-submitting form, or a redirect."""
    if found.method == "GET":
        headers = {"Location": f"{found.url}?{urlencode(found.fields)}", "Cache-Control": "no-store"}
        return web.Response(status=302, headers=headers)
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in found.fields.items()
    )
    body = (
        "<h1>Back to the application</h1>"
        f'<form id="answer" method="post" action="{escape(found.url)}">{fields}'
        '<div class="buttons"><button class="main" id="continue">Continue</button></div></form>'
    )
    parts = urlsplit(found.url)
    return _page(
        "Working",
        body,
        form_targets=f"{parts.scheme}://{parts.netloc}",
        script="document.getElementById('answer').submit()",
    )
