"""A portal beside a sandbox, and the things that people do with it in tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.test import Client

from consent.invitations import links
from consent.models import ApplicationCredential, ApplicationRegistration, PartnerConsent
from tenants.models import PartnerTenant
from tests.sandbox.entra import Answer
from tests.sandbox.server import Sandbox
from tests.support import builders, remembered

SERVICE_ACCOUNT = "service@northwind.example.com"
_TENANT_ADDRESS = re.compile("https?://[^/]+/[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}/")
_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


def sign_in_addresses_without_a_tenant(addresses: list[str]) -> list[str]:
    """Return those that ask for a token or lead to a sign-in, and name no tenant by its GUID (S-13)."""
    paths = {address: urlsplit(address).path for address in addresses}
    at_entra = {address: path for address, path in paths.items() if not path.startswith("/metadata/identity/")}
    sign_in = [address for address, path in at_entra.items() if re.search("/oauth2/|/adminconsent", path)]
    return [address for address in sign_in if not _TENANT_ADDRESS.match(address)]


class Browser(Client):
    """A browser of its own: https, its own cookies, CSRF enforced (Django's client checks it on demand only)."""

    def __init__(self, host: str = "portal.localhost") -> None:
        super().__init__(enforce_csrf_checks=True, headers={"host": host})

    def generic(self, *args: Any, **kwargs: Any) -> Any:
        return super().generic(*args, **kwargs | {"secure": True})


@dataclass(slots=True, kw_only=True)
class Portal:
    """The portal's own records, and its Microsoft."""

    sandbox: Sandbox
    registration: ApplicationRegistration
    partner: PartnerTenant
    client_secret: str
    seen: list[str] = field(default_factory=list)
    """Secrets that passed through the browser, for searching them afterwards."""

    @property
    def credential_name(self) -> str:
        """The vault's name of the application's credential."""
        return ApplicationCredential.objects.get(current_for=self.registration.pk).secret_name

    def link(self, partner: PartnerTenant | None = None) -> str:
        """Make a link as staff would and return its path."""
        _, address = links.issue(partner or self.partner, self.registration, actor=builders.ACTOR)
        return urlsplit(address.reveal()).path

    def press_continue(self, who: Client, path: str) -> str:
        """Open the landing page, press Continue, and return where the browser is sent."""
        page = who.get(path)
        assert page.status_code == 200, page.status_code
        match = _TOKEN.search(page.content.decode())
        assert match
        response = who.post(
            f"{path}start", {"csrfmiddlewaretoken": match[1]}, headers={"referer": "https://portal.localhost" + path}
        )
        assert response.status_code == 303, response.content
        assert sign_in_addresses_without_a_tenant([response["Location"]]) == []
        return str(response["Location"])

    def at_microsoft(self, authorize_url: str, user: str = SERVICE_ACCOUNT, **choices: Any) -> Answer:
        """Sign in and consent in the sandbox; the answer is what the browser posts back."""
        answer = self.sandbox.sign_in(authorize_url, user=user, **choices)
        self.seen += [answer.fields[name] for name in ("code", "state") if name in answer.fields]
        return answer

    def come_back(self, who: Client, answer: Answer, **extra: str) -> Any:
        """Post the answer to the callback, cross-site, as the sign-in page's form does."""
        return who.post(
            urlsplit(answer.url).path,
            urlencode(answer.fields | extra),
            content_type="application/x-www-form-urlencoded",
            headers={"origin": self.sandbox.clouds[self.registration.cloud].sign_in, "sec-fetch-dest": "document"},
        )

    def onboard(self, who: Client | None = None, user: str = SERVICE_ACCOUNT, **choices: Any) -> Any:
        """Run a whole flow and return the page it ends on."""
        who = who or Browser()
        answer = self.at_microsoft(self.press_continue(who, self.link()), user, **choices)
        response = self.come_back(who, answer)
        return who.get(response["Location"]) if response.status_code == 303 else response

    def connect(self) -> None:
        """Be connected, where the sign-in is not what a test is about: as ``onboard`` leaves it, for a new process."""
        seen = len(self.seen)

        def act() -> list[str]:
            self.onboard()
            return self.seen[seen:]

        self.seen = self.seen[:seen] + remembered.again("connected", self.sandbox.world, act)

    def consent(self) -> PartnerConsent:
        return PartnerConsent.objects.select_related("partner", "registration").get(partner=self.partner)
