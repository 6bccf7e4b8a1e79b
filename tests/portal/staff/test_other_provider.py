"""A provider that is not Entra is set up by settings alone, and everything it says is checked as strictly."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest
import responses
from django.contrib.auth.models import Group, User
from django.urls import reverse
from pytest_django.fixtures import Settings

from portal.microsoft.secret import Secret
from portal.staff.models import StaffIdentity
from portal.staff.oidc import Flaw
from tests.support.id_tokens import KEY, KID, STRANGERS_KEY, jwk
from tests.support.sign_in import Person

pytestmark = [pytest.mark.django_db, pytest.mark.req("S-46")]
ISSUER = "https://id.vendor.example/realms/staff"
CLIENT = "portal"


class Provider:
    """A small provider of OpenID Connect; a test changes what it says."""

    def __init__(self, answers: responses.RequestsMock) -> None:
        self.answers = answers
        self.metadata: dict[str, Any] = {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }
        self.claims: dict[str, Any] = {}
        self.key = KEY
        key = jwk(KEY, KID)
        del key["issuer"]
        answers.get(f"{ISSUER}/keys", json={"keys": [{"kty": "EC"}, key]})
        answers.add_callback("GET", f"{ISSUER}/.well-known/openid-configuration", self._metadata)
        answers.add_callback("POST", f"{ISSUER}/token", self._token)
        self.nonce = ""

    def _metadata(self, request: Any) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps(self.metadata)

    def _token(self, request: Any) -> tuple[int, dict[str, str], str]:
        pair = base64.b64encode(b"portal:its+secret").decode()
        assert request.headers["Authorization"] == f"Basic {pair}"
        form = parse_qs(request.body)
        assert "client_secret" not in form
        assert form["code_verifier"]
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "aud": CLIENT,
            "sub": "248289761001",
            "iat": now,
            "exp": now + 300,
            "nonce": self.nonce,
            "amr": ["pwd", "mfa"],
            "groups": ["/operators"],
            "preferred_username": "anna",
        } | self.claims
        token = jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": KID})
        return 200, {}, json.dumps({"id_token": token, "access_token": "x", "token_type": "Bearer"})

    def sign_in(self, who: Person) -> Any:
        sent = who.send(who.get("/admin/login/"), reverse("staff_directory"))
        if sent.status_code != 302:
            return sent
        asked = {name: values[0] for name, values in parse_qs(urlsplit(sent["Location"]).query).items()}
        assert sent["Location"].startswith(f"{ISSUER}/authorize?")
        self.nonce = asked["nonce"]
        return who.get(reverse("staff_directory_callback"), {"state": asked["state"], "code": "c", "iss": ISSUER})


@pytest.fixture
def provider(settings: Settings) -> Iterator[Provider]:
    settings.STAFF_OIDC_ISSUER = ISSUER
    settings.STAFF_OIDC_CLIENT_ID = CLIENT
    settings.STAFF_OIDC_CREDENTIAL = Secret("its secret")
    settings.STAFF_OIDC_DEMAND_MFA = "amr=mfa"
    settings.STAFF_OIDC_ROLES = {"/operators": "Operators"}
    Group.objects.create(name="Operators")
    with responses.RequestsMock(assert_all_requests_are_fired=False) as answers:
        yield Provider(answers)


def test_another_provider_lets_in_by_settings_only(provider: Provider) -> None:
    anna = Person()
    assert provider.sign_in(anna)["Location"] == "/admin/"
    assert anna.is_in()
    assert StaffIdentity.objects.get().subject == "248289761001"
    assert [group.name for group in User.objects.get().groups.all()] == ["Operators"]


BENT: dict[str, tuple[dict[str, Any], Flaw]] = {
    "no second factor": ({"amr": ["pwd"]}, Flaw.MFA),
    "no group": ({"groups": ["/others"]}, Flaw.ROLE),
    "another issuer": ({"iss": f"{ISSUER}/"}, Flaw.ISSUER),
    "nobody": ({"sub": ""}, Flaw.SUBJECT),
}


@pytest.mark.parametrize("bent", BENT)
def test_what_it_says_is_checked(bent: str, provider: Provider) -> None:
    provider.claims, flaw = BENT[bent]
    page = provider.sign_in(Person())
    assert (page.status_code, page.context["flaw"]) == (403, flaw)
    assert not User.objects.exists()


def test_a_stranger_cannot_sign_for_it(provider: Provider) -> None:
    provider.key = STRANGERS_KEY
    page = provider.sign_in(Person())
    assert page.context["flaw"] == Flaw.SIGNATURE


@pytest.mark.req("S-26")
@pytest.mark.parametrize(
    "bent",
    [
        {"issuer": "https://id.vendor.example/realms/other"},
        {"token_endpoint": "https://evil.example/token"},
        {"jwks_uri": "http://id.vendor.example/keys"},
        {"authorization_endpoint": None},
    ],
    ids=["another issuer", "another host", "no TLS", "no address"],
)
def test_metadata_that_lead_elsewhere_are_refused_before_the_browser_leaves(
    bent: dict[str, Any], provider: Provider
) -> None:
    provider.metadata |= bent
    assert provider.sign_in(Person()).status_code == 503
    assert [call.request.method for call in provider.answers.calls] == ["GET"]
