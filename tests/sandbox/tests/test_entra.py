"""Discovery, keys, the authorize channel, the pages, and admin consent."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest

from tests.sandbox.entra import Answer, Shown
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import CALLBACK, SERVICE_ACCOUNT, Reply, Vendor, Wire
from tests.sandbox.world import GRAPH, PARTNER_CENTER, User

MEMBER = "member@northwind.example.com"
STRANGER = "service@southridge.example.com"


def discovery(wire: Wire, vendor: Vendor, tenant: str) -> Reply:
    return wire.get(f"{vendor.cloud.authority}/{tenant}/v2.0/.well-known/openid-configuration")


def back_from(reply: Reply) -> dict[str, str]:
    """Return the fields of an answer page, or of a redirect."""
    if reply.status == 302:
        return dict(parse_qsl(urlsplit(reply.headers["Location"]).query))
    assert f'action="{CALLBACK}"' in reply.text, reply.text
    return inputs(reply)


def inputs(reply: Reply) -> dict[str, str]:
    found = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', reply.text)
    return {html.unescape(name): html.unescape(value) for name, value in found}


class Person:
    """Somebody at a browser without JavaScript who reads the pages and presses their buttons."""

    def __init__(self, wire: Wire, vendor: Vendor) -> None:
        self._wire, self._vendor = wire, vendor

    def open(self, **parameters: Any) -> Reply:
        self._url = self._vendor.authorize_url(**parameters)
        return self._wire.get(self._url)

    def press(self, page: Reply, **fields: str) -> Reply:
        action = re.search(r'<form method="post" action="([^"]*)"', page.text)
        assert action, page.text
        url = self._url.partition("?")[0] + html.unescape(action[1])
        return self._wire.post(url, form=inputs(page) | fields)

    def choose(self, page: Reply, upn: str) -> Reply:
        tenant, user = self._vendor.tenant_of(upn)
        assert f'value="{tenant.tenant_id}/{user.oid}"' in page.text
        return self.press(page, account=f"{tenant.tenant_id}/{user.oid}")


@pytest.fixture
def person(wire: Wire, vendor: Vendor) -> Person:
    return Person(wire, vendor)


# --- discovery and keys -------------------------------------------------------------------------------------------


def test_discovery_names_the_tenant_by_its_id_for_id_and_domain(wire: Wire, vendor: Vendor) -> None:
    tenant = vendor.tenant_of(SERVICE_ACCOUNT)[0]

    for text in (tenant.tenant_id, tenant.tenant_id.upper(), tenant.domain):
        document = discovery(wire, vendor, text).json()
        assert document["issuer"] == f"{vendor.cloud.authority}/{tenant.tenant_id}/v2.0"
        assert document["token_endpoint"] == f"{vendor.cloud.authority}/{tenant.tenant_id}/oauth2/v2.0/token"
    assert discovery(wire, vendor, "organizations").json()["issuer"].endswith("/{tenantid}/v2.0")


def test_discovery_refuses_an_unknown_tenant(wire: Wire, vendor: Vendor) -> None:
    for tenant in ("nobody.example.com", "00000000-0000-0000-0000-000000000001"):
        reply = discovery(wire, vendor, tenant)
        assert reply.status == 400
        assert reply.json()["error"] == "invalid_tenant"
        assert reply.json()["error_description"].startswith("AADSTS90002:")


def test_discovery_gives_away_a_tenant_of_another_cloud(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    tenant = next(one for one in sandbox.world.tenants.values() if one.cloud == "china")
    china = sandbox.clouds["china"]

    document = discovery(wire, vendor, tenant.tenant_id).json()
    assert document["token_endpoint"].startswith(china.authority)
    assert document["cloud_instance_name"] == urlsplit(china.authority).netloc.removeprefix("login.")
    sandbox.world.switches["foreign_tenant_discovery"] = False
    assert discovery(wire, vendor, tenant.tenant_id).json()["error"] == "invalid_tenant"


def test_every_address_that_discovery_names_is_served(wire: Wire, vendor: Vendor) -> None:
    document = discovery(wire, vendor, "organizations").json()

    assert wire.get(document["jwks_uri"]).status == 200
    assert wire.get(document["end_session_endpoint"]).status == 200
    assert "AADSTS700016" in wire.get(document["authorization_endpoint"]).text
    assert wire.post(document["token_endpoint"], form={}).json()["error"] == "invalid_request"


def test_the_keys_verify_the_tokens_and_each_cloud_has_its_own(wire: Wire, vendor: Vendor, sandbox: Sandbox) -> None:
    answer = vendor.tokens()
    keys = {
        cloud.key: wire.get(f"{cloud.authority}/organizations/discovery/v2.0/keys").json()["keys"]
        for cloud in sandbox.clouds.values()
    }

    claims = jwt.decode(answer["id_token"], jwt.PyJWK(keys["global"][0]), ["RS256"], audience=vendor.application.app_id)
    assert claims["nonce"] == "nonce-of-the-test"
    assert jwt.get_unverified_header(answer["id_token"])["kid"] == keys["global"][0]["kid"]
    assert len({one[0]["n"] for one in keys.values()}) == 3
    assert wire.get(f"{vendor.cloud.authority}/nobody.example.com/discovery/v2.0/keys").status == 400


# --- errors that stay at Microsoft --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"tenant": "nobody.example.com"}, 90002),
        ({"client_id": "00000000-0000-0000-0000-000000000001"}, 700016),
        ({"client_id": None}, 700016),
        ({"redirect_uri": CALLBACK + "/"}, 50011),
        ({"redirect_uri": CALLBACK.upper()}, 50011),
        ({"redirect_uri": CALLBACK + "?x=1"}, 50011),
        ({"redirect_uri": "https://evil.example/callback"}, 50011),
        ({"redirect_uri": None}, 50011),
    ],
)
def test_a_wrong_client_or_redirect_uri_is_shown_and_never_redirected(
    person: Person, parameters: dict[str, Any], code: int
) -> None:
    reply = person.open(**parameters)

    assert reply.status == 400
    assert "Location" not in reply.headers
    assert f'<p id="error">AADSTS{code}:' in reply.text
    assert "<form" not in reply.text


def test_an_application_of_another_cloud_is_unknown(person: Person, vendor: Vendor, sandbox: Sandbox) -> None:
    china = Vendor(sandbox=sandbox, wire=vendor.wire, cloud_key="china")

    assert "AADSTS700016" in person.open(client_id=china.application.app_id).text


def test_a_single_tenant_application_serves_its_own_tenant_only(person: Person, vendor: Vendor) -> None:
    vendor.application.multi_tenant = False

    assert "AADSTS50194" in person.open().text
    assert person.open(tenant=vendor.application.home_tenant).status == 200


def test_a_user_of_another_tenant_is_refused_at_a_tenants_own_authority(person: Person, vendor: Vendor) -> None:
    tenant = vendor.tenant_of(SERVICE_ACCOUNT)[0].tenant_id

    reply = person.choose(person.open(tenant=tenant), STRANGER)

    assert reply.status == 400
    assert "AADSTS50020" in reply.text
    with pytest.raises(Shown) as shown:
        vendor.code(STRANGER, tenant=tenant)
    assert shown.value.code == 50020


def test_a_guest_may_sign_in_at_the_tenant_that_invited_him(vendor: Vendor) -> None:
    tenant = vendor.tenant_of(SERVICE_ACCOUNT)[0]
    guest = User(oid="11111111-0000-4000-8000-000000000001", upn=STRANGER, name="Guest", user_type="Guest")
    guest.roles = set(tenant.users[next(iter(tenant.users))].roles)
    tenant.users[guest.oid] = guest

    code = vendor.code(STRANGER, tenant=tenant.tenant_id)

    claims = jwt.decode(vendor.redeem(code).json()["id_token"], options={"verify_signature": False})
    assert (claims["tid"], claims["oid"]) == (tenant.tenant_id, guest.oid)
    assert "idp" in claims


def test_disabled_accounts_disabled_applications_and_unregistered_mfa_end_on_a_page(vendor: Vendor) -> None:
    tenant, user = vendor.tenant_of(SERVICE_ACCOUNT)
    expected = []
    user.mfa_registered = False
    expected.append(_shown(vendor))
    user.enabled = False
    expected.append(_shown(vendor))
    user.enabled, user.mfa_registered = True, True
    vendor.code()
    principal = tenant.principal_of(vendor.application.app_id)
    assert principal
    principal.enabled = False
    expected.append(_shown(vendor))
    user.deleted = True
    expected.append(_shown(vendor))

    assert expected == [50079, 50057, 7000112, 50034]


def _shown(vendor: Vendor) -> int:
    with pytest.raises(Shown) as shown:
        vendor.sandbox.sign_in(vendor.authorize_url(), user=SERVICE_ACCOUNT)
    return shown.value.code


# --- errors for the application -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["form_post", "query"])
@pytest.mark.parametrize(
    ("parameters", "error", "code"),
    [
        ({"response_type": "code id_token"}, "unsupported_response_type", 700054),
        ({"response_type": "token"}, "unsupported_response_type", 700054),
        ({"resource": "https://graph.microsoft.com"}, "invalid_request", 901002),
        ({"scope": None}, "invalid_request", 900144),
        ({"scope": "offline_access User.Read"}, "invalid_request", 90008),
        ({"scope": "openid https://unknown.example/.default"}, "invalid_scope", 70011),
        ({"scope": "openid Mail.Send"}, "invalid_client", 65005),
        ({"code_challenge": "short"}, "invalid_request", 501491),
        ({"code_challenge_method": "plain"}, "invalid_request", 501491),
    ],
)
def test_other_errors_go_back_over_the_redirect_uri(
    person: Person, parameters: dict[str, Any], error: str, code: int, mode: str
) -> None:
    fields = back_from(person.open(response_mode=mode, **parameters))

    assert fields["error"] == error
    assert fields["state"] == "state-of-the-test"
    assert re.fullmatch(
        rf"AADSTS{code}: .+ \r\nTrace ID: [0-9a-f-]{{36}}\r\nCorrelation ID: [0-9a-f-]{{36}}\r\n"
        r"Timestamp: \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ",
        fields["error_description"],
    )
    assert "code" not in fields


def test_a_resource_that_the_registration_does_not_list_is_refused(person: Person, vendor: Vendor) -> None:
    del vendor.application.permissions[PARTNER_CENTER]

    assert "AADSTS650057" in back_from(person.open())["error_description"]


def test_fragments_are_not_served(person: Person) -> None:
    fields = back_from(person.open(response_mode="fragment"))

    assert fields["error"] == "unsupported_response_mode"


def test_a_missing_state_is_not_invented(person: Person) -> None:
    assert "state" not in back_from(person.open(state=None, response_type="token"))


# --- the pages ----------------------------------------------------------------------------------------------------


def test_a_person_without_javascript_gets_through_account_mfa_and_consent(person: Person, vendor: Vendor) -> None:
    chooser = person.open()
    approval = person.choose(chooser, SERVICE_ACCOUNT)
    assert 'id="approve-mfa"' in approval.text
    consent = person.press(approval)
    assert 'id="accept"' in consent.text
    assert 'id="cancel"' in consent.text
    answer = person.press(consent, choice="accept")

    fields = back_from(answer)
    assert fields["state"] == "state-of-the-test"
    assert set(fields) == {"code", "state", "session_state"}
    assert 'id="continue"' in answer.text
    tokens = vendor.redeem(fields["code"]).json()
    assert jwt.decode(tokens["access_token"], options={"verify_signature": False})["amr"] == ["pwd", "mfa"]


def test_the_consent_screen_lists_every_permission_by_resource_in_words(person: Person, vendor: Vendor) -> None:
    consent = person.press(person.choose(person.open(), SERVICE_ACCOUNT))

    for text in ("Microsoft Partner Center", "Microsoft Graph", "user_impersonation", "User.Read.All"):
        assert text in consent.text
    assert "Read the full profiles of all users" in consent.text
    assert vendor.application.name in consent.text


def test_cancel_is_access_denied_and_consents_to_nothing(person: Person, vendor: Vendor) -> None:
    consent = person.press(person.choose(person.open(), SERVICE_ACCOUNT))

    fields = back_from(person.press(consent, choice="cancel"))

    assert (fields["error"], fields["error_subcode"]) == ("access_denied", "cancel")
    assert fields["error_description"].startswith("AADSTS65004:")
    assert vendor.tenant_of(SERVICE_ACCOUNT)[0].principal_of(vendor.application.app_id) is None


def test_somebody_who_is_no_administrator_cannot_consent(person: Person, vendor: Vendor) -> None:
    consent = person.press(person.choose(person.open(), MEMBER))

    fields = back_from(person.press(consent, choice="accept"))

    assert fields["error_description"].startswith("AADSTS90094:")
    assert vendor.tenant_of(MEMBER)[0].principal_of(vendor.application.app_id) is None


def test_nobody_gets_past_mfa_without_approving_it(person: Person, vendor: Vendor) -> None:
    tenant, user = vendor.tenant_of(SERVICE_ACCOUNT)
    account = f"{tenant.tenant_id}/{user.oid}"
    chooser = person.open()

    for ticket in ("", "forged"):
        reply = person.press(chooser, account=account, step="consent", choice="accept", ticket=ticket)
        assert 'id="approve-mfa"' in reply.text


def test_a_ticket_of_one_request_or_account_is_worth_nothing_for_another(person: Person, vendor: Vendor) -> None:
    ticket = inputs(person.press(person.choose(person.open(), SERVICE_ACCOUNT)))["ticket"]
    tenant, other = vendor.tenant_of(MEMBER)

    same = person.press(person.open(), account=f"{tenant.tenant_id}/{other.oid}", step="consent", ticket=ticket)
    assert 'id="approve-mfa"' in same.text
    own = vendor.tenant_of(SERVICE_ACCOUNT)
    changed = person.open(state="another")
    reply = person.press(changed, account=f"{own[0].tenant_id}/{own[1].oid}", step="consent", ticket=ticket)
    assert 'id="approve-mfa"' in reply.text


def test_without_enforced_mfa_nobody_is_asked_and_the_token_does_not_claim_it(person: Person, vendor: Vendor) -> None:
    vendor.tenant_of(SERVICE_ACCOUNT)[1].mfa_required = False

    consent = person.choose(person.open(), SERVICE_ACCOUNT)

    assert 'id="accept"' in consent.text
    fields = back_from(person.press(consent, choice="accept"))
    token = vendor.redeem(fields["code"]).json()["access_token"]
    assert jwt.decode(token, options={"verify_signature": False})["amr"] == ["pwd"]
    assert vendor.tokens()["access_token"]
    claims = jwt.decode(vendor.tokens(mfa=True)["access_token"], options={"verify_signature": False})
    assert claims["amr"] == ["pwd"]


def test_the_request_itself_can_ask_for_mfa(person: Person, vendor: Vendor, sandbox: Sandbox) -> None:
    vendor.tenant_of(SERVICE_ACCOUNT)[1].mfa_required = False

    for asks in ({"amr_values": "mfa"}, {"claims": '{"id_token":{"amr":{"essential":true,"values":["mfa"]}}}'}):
        assert 'id="approve-mfa"' in person.choose(person.open(**asks), SERVICE_ACCOUNT).text
    sandbox.world.switches["amr_values_honoured"] = False
    assert 'id="accept"' in person.choose(person.open(amr_values="mfa"), SERVICE_ACCOUNT).text


def test_consent_is_asked_again_only_for_more_or_when_the_request_says_so(person: Person, vendor: Vendor) -> None:
    vendor.code()

    assert "code" in back_from(person.press(person.choose(person.open(), SERVICE_ACCOUNT)))
    forced = person.press(person.choose(person.open(prompt="consent"), SERVICE_ACCOUNT))
    assert 'id="accept"' in forced.text
    more = f"openid {vendor.cloud.graph}/Directory.Read.All"
    assert 'id="accept"' in person.press(person.choose(person.open(scope=more), SERVICE_ACCOUNT)).text
    assert "code" in back_from(person.press(person.choose(person.open(), MEMBER)))


def test_the_login_hint_preselects_its_account(person: Person) -> None:
    assert person.open(login_hint=MEMBER).text.count(" checked>") == 1
    assert " checked>" not in person.open().text


def test_query_mode_redirects_and_the_pages_policy_lets_the_browser_follow(person: Person) -> None:
    consent = person.press(person.choose(person.open(response_mode="query"), SERVICE_ACCOUNT))
    answer = person.press(consent, choice="accept")

    assert answer.status == 302
    assert answer.headers["Location"].startswith(CALLBACK + "?")
    assert "code" in back_from(answer)
    assert "form-action 'self' https://portal.localhost;" in consent.headers["Content-Security-Policy"]


def test_every_page_says_that_it_is_not_microsoft_and_holds_a_strict_policy(person: Person) -> None:
    chooser = person.open()
    approval = person.choose(chooser, SERVICE_ACCOUNT)
    consent = person.press(approval)
    pages = [chooser, approval, consent, person.press(consent, choice="accept"), person.open(client_id="x")]

    for page in pages:
        assert "this is not Microsoft" in page.text
        assert 'name="viewport"' in page.text
        policy = page.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert page.headers["Cache-Control"] == "no-store"


def test_hostile_parameters_are_only_text_on_the_pages(person: Person, vendor: Vendor) -> None:
    vendor.application.name = "<b>Bold</b>"
    attack = '"><script>alert(1)</script>'

    chooser = person.open(state=attack, login_hint=attack)
    consent = person.press(person.choose(chooser, SERVICE_ACCOUNT))
    answer = person.press(consent, choice="accept")

    for page in (chooser, consent, answer):
        assert "<script>alert" not in page.text
        assert "<b>Bold" not in page.text
    assert back_from(answer)["state"] == attack


def test_an_account_of_another_cloud_cannot_be_chosen(person: Person, vendor: Vendor, sandbox: Sandbox) -> None:
    tenant = next(one for one in sandbox.world.tenants.values() if one.cloud == "china")
    tenant.users["x"] = User(oid="x", upn="x@china.example.com", name="X")

    reply = person.press(person.open(), account=f"{tenant.tenant_id}/x")

    assert "Pick an account" in reply.text


# --- admin consent ------------------------------------------------------------------------------------------------


def admin_consent_url(vendor: Vendor, tenant: str = "organizations") -> str:
    query = f"client_id={vendor.application.app_id}&redirect_uri={CALLBACK}&state=of-the-test"
    return f"{vendor.cloud.authority}/{tenant}/v2.0/adminconsent?{query}"


def test_admin_consent_grants_the_whole_registration_and_returns_no_code(vendor: Vendor, sandbox: Sandbox) -> None:
    tenant = vendor.tenant_of(SERVICE_ACCOUNT)[0]

    answer = sandbox.sign_in(admin_consent_url(vendor), user=SERVICE_ACCOUNT)

    assert answer.method == "GET"
    assert (answer.fields["admin_consent"], answer.fields["tenant"]) == ("True", tenant.tenant_id)
    assert answer.fields["state"] == "of-the-test"
    assert "code" not in answer.fields
    assert not sandbox.world.codes
    for resource in (GRAPH, PARTNER_CENTER):
        granted = tenant.granted(vendor.application.app_id, resource, sandbox.world.now())
        assert granted == vendor.application.permissions[resource]


@pytest.mark.parametrize(
    ("user", "accept", "error", "code"),
    [(SERVICE_ACCOUNT, False, "consent_required", 65004), (MEMBER, True, "access_denied", 90094)],
)
def test_refused_admin_consent_comes_back_as_an_error(
    vendor: Vendor, sandbox: Sandbox, user: str, accept: bool, error: str, code: int
) -> None:
    answer: Answer = sandbox.sign_in(admin_consent_url(vendor), user=user, accept=accept)

    assert answer.fields["error"] == error
    assert answer.fields["error_description"].startswith(f"AADSTS{code}:")
    assert answer.fields["admin_consent"] == "True"


def test_admin_consent_has_pages_too_and_always_asks(wire: Wire, vendor: Vendor, person: Person) -> None:
    vendor.code()
    person._url = admin_consent_url(vendor)

    consent = person.press(person.choose(wire.get(person._url), SERVICE_ACCOUNT))

    assert "Read applications and their consents" in consent.text
    fields = back_from(person.press(consent, choice="accept"))
    assert fields["admin_consent"] == "True"
    assert wire.get(admin_consent_url(vendor).replace(CALLBACK, "https://evil.example/")).status == 400


def test_a_tenant_without_the_resource_cannot_consent(vendor: Vendor) -> None:
    tenant = vendor.tenant_of(SERVICE_ACCOUNT)[0]
    principal = tenant.principal_of(PARTNER_CENTER)
    assert principal
    del tenant.principals[principal.object_id]

    answer = vendor.sandbox.sign_in(vendor.authorize_url(), user=SERVICE_ACCOUNT)

    assert answer.fields["error_description"].startswith("AADSTS650052:")
    assert tenant.principal_of(vendor.application.app_id) is None
