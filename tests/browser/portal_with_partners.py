"""One running portal for a whole module, with many partners invited beforehand, and what a person does with a link.

Each test takes an invitation of its own, so that no test sees another's flows. Questions about what the portal kept go
to its database and to the sandbox's ledger directly: a management command for each would take seconds.
"""

from __future__ import annotations

import inspect
import json
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

import pytest
from playwright.sync_api import BrowserContext, Cookie, Page, Request, expect

from consent.vault.base import ID_NAME, PROBE_NAME
from tests.browser import conftest
from tests.browser.conftest import RunningPortal
from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.world import known_id

CONTINUE = "form[action$=start] button"
CALLBACK = "/consent/callback/global"
FLOW_COOKIE = "__Host-cpv-flow-token"

_SEED = """
import json, sys
from consent import clients
from consent.applications import rotation
from consent.invitations import links
from portal.microsoft.secret import Secret
from tests.sandbox import scenarios
from tests.sandbox.world import known_id
from tests.support import builders

given = json.loads(sys.stdin.read())
registration = builders.registration(
    application_id=scenarios.application_id(), home_tenant_id=scenarios.vendor_tenant(), permission_set="extended",
    state="draft", credential=None,
)
credential = rotation.add_secret(
    registration, Secret(given["secret"]), expires_at=None, vault=clients.vault(), actor=builders.ACTOR
)
rotation.promote(credential, door=clients.tokens_with, actor=builders.ACTOR, allow_unproven=True)
registration.refresh_from_db()
registration.state = "active"
registration.save()
seeded = []
for key in given["keys"]:
    partner = builders.partner(name=f"Partner {key}", tenant_id=known_id("tenant", key), domain=f"{key}.example.com")
    seeded.append(links.issue(partner, registration, actor=builders.ACTOR)[1].reveal())
print(json.dumps(seeded))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A link that nobody has opened, and the partner tenant that it is for."""

    address: str
    key: str

    @property
    def tenant_id(self) -> str:
        return known_id("tenant", self.key)

    @property
    def service_account(self) -> str:
        return f"service@{self.key}.example.com"


@dataclass(slots=True, kw_only=True)
class PortalWithPartners:
    """A running portal with one active registration and invitations to give away."""

    running: RunningPortal
    invitations: list[Invitation]

    @property
    def base(self) -> str:
        return self.running.base

    @property
    def sandbox(self) -> Sandbox:
        return self.running.sandbox

    @property
    def sign_in(self) -> str:
        """The origin of the sign-in pages: another site for the browser."""
        return self.sandbox.clouds["global"].authority

    @property
    def _database(self) -> Path:
        return Path(self.running.environment["DATABASE_URL"].removeprefix("sqlite:///"))

    def invite(self) -> Invitation:
        return self.invitations.pop()

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Read the portal's database."""
        with closing(sqlite3.connect(f"file:{self._database}?mode=ro", uri=True)) as connection:
            return connection.execute(sql, values).fetchall()

    def outcomes(self, invitation: Invitation) -> list[str]:
        """Return how each flow of this partner stands, oldest first."""
        rows = self.query(
            "SELECT f.outcome FROM consent_consentflow f JOIN consent_consentlink l ON f.link_id = l.id "
            "JOIN tenants_partnertenant p ON l.partner_id = p.id WHERE p.tenant_id = ? ORDER BY f.id",
            invitation.tenant_id,
        )
        return [outcome for (outcome,) in rows]

    def stored_generations(self, invitation: Invitation) -> list[int]:
        """Return how often a token was stored, for each consent of this partner."""
        rows = self.query(
            "SELECT c.generation FROM consent_partnerconsent c JOIN tenants_partnertenant p ON c.partner_id = p.id "
            "WHERE p.tenant_id = ?",
            invitation.tenant_id,
        )
        return [generation for (generation,) in rows]

    def audit(self, invitation: Invitation) -> list[str]:
        """Return what the audit trail says about this partner, oldest first."""
        rows = self.query(
            "SELECT a.action FROM audit_auditevent a JOIN tenants_partnertenant p "
            "ON json_extract(a.subject, '$.partner') = p.id WHERE p.tenant_id = ? ORDER BY a.sequence",
            invitation.tenant_id,
        )
        return [action for (action,) in rows]

    def vault(self) -> dict[Path, bytes]:
        """Return every file of the embedded vault but those that prove it can be written."""
        folder = Path(self.running.environment["VAULT_URL"])
        return {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.parent.name not in {PROBE_NAME, ID_NAME}
        }

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """Take the database away from the running portal: where the file was, nothing can be opened."""
        path = self._database
        parts = [part for part in path.parent.iterdir() if part.name.startswith(path.name)]
        for part in parts:
            part.rename(part.with_name(f"away-{part.name}"))
        path.mkdir()
        try:
            yield
        finally:
            path.rmdir()
            for part in parts:
                part.with_name(f"away-{part.name}").rename(part)

    def let_minutes_pass(self, invitation: Invitation, minutes: int) -> None:
        """Move this partner's flows back, as if they had been started earlier."""
        with closing(sqlite3.connect(self._database)) as connection, connection:
            connection.execute(
                "UPDATE consent_consentflow SET expires_at = strftime('%Y-%m-%d %H:%M:%f', expires_at, ?) "
                "WHERE link_id IN (SELECT l.id FROM consent_consentlink l JOIN tenants_partnertenant p "
                "ON l.partner_id = p.id WHERE p.tenant_id = ?)",
                (f"-{minutes} minutes", invitation.tenant_id),
            )

    def redemptions(self, invitation: Invitation) -> int:
        """Count the codes of this tenant that were brought to the token endpoint, accepted or not."""
        return sum(
            line["service"] == "entra"
            and line["operation"] == "token"
            and line.get("grant") == "authorization_code"
            and line.get("tenant") == invitation.tenant_id
            for line in list(self.sandbox.world.ledger)
        )

    def assert_connected_once(self, invitation: Invitation) -> None:
        """One redemption, one stored token, and exactly one flow that ended well."""
        assert self.outcomes(invitation).count("connected") == 1
        assert self.redemptions(invitation) == 1
        assert self.stored_generations(invitation) == [1]
        assert self.audit(invitation).count("token.stored") == 1

    def assert_untouched(self, invitation: Invitation) -> None:
        """No code was spent and nothing was stored."""
        assert self.redemptions(invitation) == 0
        assert self.stored_generations(invitation) == []


@contextmanager
def serve(
    sandbox: Sandbox, prepared: conftest.Prepared, folder: Path, *, partners: int, **settings: str
) -> Iterator[PortalWithPartners]:
    """Run the portal of the fixture ``running_portal`` for as long as the caller likes.

    Args:
        settings: more of the portal's environment.
    """
    start = cast(Callable[..., Iterator[RunningPortal]], inspect.unwrap(cast(Any, conftest.running_portal)))
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        # Everybody in these tests has the same address.
        for name, value in {"REQUEST_LIMIT_FACTOR": "1000", **settings}.items():
            patch.setenv(name, value)
        running = stack.enter_context(contextmanager(start)(sandbox, prepared, folder))
        world, secret = sandbox.world, secrets.token_urlsafe(32)
        application = world.applications[scenarios.application_id()]
        application.secrets[secret] = world.now() + 3600
        application.redirect_uris.add(running.base + CALLBACK)
        keys = [f"partner-{number}" for number in range(partners)]
        for key in keys:
            scenarios.add_partner(world, key, f"Partner {key}")
        printed = running.manage(
            "shell", "--verbosity", "0", "-c", _SEED, given=json.dumps({"secret": secret, "keys": keys})
        )
        addresses = json.loads(printed.strip().splitlines()[-1])
        yield PortalWithPartners(
            running=running,
            invitations=[Invitation(address=address, key=key) for address, key in zip(addresses, keys, strict=True)],
        )


# --- what a person does -------------------------------------------------------------------------------------------


def go_to_microsoft(page: Page, invitation: Invitation) -> None:
    """Open the link and press Continue."""
    page.goto(invitation.address)
    page.click(CONTINUE)
    expect(page).to_have_url(re.compile(rf"^https://login\.global\.localhost:\d+/{invitation.tenant_id}/"))


def sign_in(page: Page, invitation: Invitation) -> None:
    """Choose the service account and approve the second factor; the consent screen follows."""
    page.get_by_label(invitation.service_account).check()
    page.click("#next")
    page.click("#approve-mfa")


def sign_in_and_accept(page: Page, invitation: Invitation) -> None:
    """Go through all of Microsoft's pages; an accepted consent is known there and not asked for again."""
    sign_in(page, invitation)
    accept, ours = page.locator("#accept"), page.locator("header.hero h1")
    expect(accept.or_(ours)).to_be_visible()
    if not ours.is_visible():
        accept.click()


def accept(page: Page, invitation: Invitation) -> None:
    """Sign in, accept, and arrive at the result."""
    sign_in_and_accept(page, invitation)
    expect(page).to_have_url(re.compile(r"/consent/result/[0-9a-f]{32}$"))


def expect_connected(page: Page) -> None:
    expect(page.locator("h1")).to_have_text("Your tenant is connected")


def is_callback(request: Request) -> bool:
    return request.method == "POST" and urlsplit(request.url).path == CALLBACK


def fields_of(request: Request) -> dict[str, str]:
    """Return the fields that the sign-in page posts to the portal."""
    return dict(parse_qsl(request.post_data or "", keep_blank_values=True))


def intercept_answer(page: Page, invitation: Invitation) -> dict[str, str]:
    """Sign in and accept, but keep Microsoft's answer from leaving the browser. Returns its fields."""
    caught: list[dict[str, str]] = []

    def keep(route: Any, request: Request) -> None:
        caught.append(fields_of(request))
        route.abort()

    page.route(f"**{CALLBACK}", keep)
    sign_in(page, invitation)
    with page.expect_event("requestfailed", is_callback):
        page.click("#accept")
    page.unroute(f"**{CALLBACK}")
    [fields] = caught
    return fields


def post_answer(page: Page, portal: PortalWithPartners, fields: dict[str, str], *, into: str = "_self") -> None:
    """Post these fields to the callback as a form of the page that is open now; ``into`` names a frame of it."""
    page.evaluate(
        """([action, fields, target]) => {
          const form = Object.assign(document.createElement("form"), {method: "post", action, target});
          for (const [name, value] of Object.entries(fields))
            form.append(Object.assign(document.createElement("input"), {type: "hidden", name, value}));
          document.body.append(form);
          form.submit();
        }""",
        [portal.base + CALLBACK, fields, into],
    )


def cookies(context: BrowserContext) -> dict[str, Cookie]:
    return {cookie["name"]: cookie for cookie in context.cookies()}


def open_foreign_site(page: Page, portal: PortalWithPartners) -> None:
    """Open a page of a site that belongs to nobody in the flow; it has no policy of its own."""
    page.goto(f"https://foreign.localhost:{portal.sandbox.port}/")


def open_sign_in_site(page: Page, portal: PortalWithPartners) -> None:
    """Open a page on the origin of the sign-in pages, without their policy."""
    page.goto(f"{portal.sign_in}/nothing")  # the start page has a policy
