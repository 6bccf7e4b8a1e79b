from __future__ import annotations

import base64
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import SERVICE_ACCOUNT, Reply, Vendor, Wire
from tests.sandbox.world import GLOBAL_ADMINISTRATOR
from tests.support.certificates import pem

DER = serialization.Encoding.DER


def test_state_tells_who_is_there_and_no_secret(wire: Wire, vendor: Vendor) -> None:
    reply = wire.control("/state")

    assert [one["domain"] for one in reply.json()["partners"]] == ["northwind.example.com", "southridge.example.com"]
    assert reply.json()["partners"][0]["customers"] == 3
    assert vendor.secret not in reply.text


@pytest.mark.parametrize("host", ["control.localhost", "login.global.localhost", "login.china.localhost"])
def test_a_person_finds_a_page_that_says_what_it_is(wire: Wire, sandbox: Sandbox, vendor: Vendor, host: str) -> None:
    base = f"http://{host}:{sandbox.browser_port}"
    page = wire.get(f"{base}/")

    assert page.status == 200
    assert page.headers["Content-Type"].startswith("text/html")
    for words in ("this is not Microsoft", "Nothing here is real", "Northwind Cloud", "service@northwind.example.com"):
        assert words in page.text
    assert vendor.secret not in page.text
    for path in re.findall(r'href="http://control\.localhost:\d+([^"]+)"', page.text):
        assert wire.control(path).status == 200
    assert "img-src 'self'" in page.headers["Content-Security-Policy"]
    icon = wire.get(base + re.findall(r'rel="icon" href="([^"]+)"', page.text)[0])
    assert (icon.status, icon.headers["Content-Type"].partition(";")[0]) == (200, "image/svg+xml")


def test_reset_loads_a_scenario_and_forgets_the_rest(wire: Wire, vendor: Vendor) -> None:
    refresh = vendor.refresh_token()

    assert len(wire.control("/reset", {"scenario": "demo"}).json()["partners"]) == 8

    assert vendor.refresh(refresh, wire.control("/state").json()["partners"][0]["tenant_id"]).status == 401
    assert wire.control("/crossings").json() == []


def test_the_clock_moves_the_life_of_tokens(wire: Wire, vendor: Vendor) -> None:
    refresh = vendor.refresh_token()
    wire.control("/clock", {"seconds": 86_400 * 89})
    assert vendor.refresh(refresh).status == 200

    wire.control("/clock", {"seconds": 86_400 * 2})
    assert vendor.refresh(refresh).json()["error_codes"] == [700082]


def test_switches_are_known_by_name(wire: Wire, sandbox: Sandbox) -> None:
    assert wire.control("/switches", {"rotation": "strict"}).json()["rotation"] == "strict"

    assert wire.control("/switches", {"rotatoin": "strict", "page_limit": 5}).status == 400
    assert sandbox.world.switches["page_limit"] == 500


def test_faults_refusals_and_tampers_can_be_added_and_cleared(wire: Wire, vendor: Vendor) -> None:
    refresh = vendor.refresh_token()
    wire.control("/faults", {"service": "login", "status": 503, "times": 9})
    assert vendor.refresh(refresh).status == 503
    wire.control("/faults", method="DELETE")
    wire.control("/refusals", {"code": 50076, "times": 9, "upn": SERVICE_ACCOUNT})
    assert vendor.refresh(refresh).json()["error_codes"] == [50076]
    wire.control("/refusals", method="DELETE")
    wire.control("/tampers", {"drop": ["refresh_token"], "times": 9})
    assert "refresh_token" not in vendor.refresh(refresh).json()
    wire.control("/tampers", method="DELETE")

    assert "refresh_token" in vendor.refresh(refresh).json()


def test_people_can_be_disabled_stripped_and_signed_out(wire: Wire, vendor: Vendor) -> None:
    refresh = vendor.refresh_token()

    wire.control(f"/users/{SERVICE_ACCOUNT}", {"enabled": False})
    assert vendor.refresh(refresh).json()["error_codes"] == [50057]
    wire.control(f"/users/{SERVICE_ACCOUNT}", {"enabled": True, "revoke_sessions": True, "roles": []})
    assert vendor.refresh(refresh).json()["error_codes"] == [50173]
    assert GLOBAL_ADMINISTRATOR not in vendor.tenant_of(SERVICE_ACCOUNT)[1].roles
    assert wire.control("/users/nobody@example.com", {"enabled": False}).status == 404
    assert wire.control(f"/users/{SERVICE_ACCOUNT}", {"revoke_sessions": True, "colour": 1}).status == 400


def test_a_relationship_can_end(wire: Wire, sandbox: Sandbox) -> None:
    relationship = sandbox.world.relationships[0]

    assert wire.control(f"/relationships/{relationship.relationship_id}", {"status": "terminated"}).status == 200

    assert relationship.status == "terminated"
    assert wire.control("/relationships/none", {"status": "terminated"}).status == 404


def test_an_application_can_be_disabled_by_its_owner(wire: Wire, vendor: Vendor) -> None:
    """Which number answers is not documented, so a switch says it."""
    refresh, address = vendor.refresh_token(), f"/applications/{vendor.application.app_id}"

    wire.control(address, {"enabled": False})
    assert vendor.refresh(refresh).json()["error_codes"] == [7000112]
    assert "AADSTS7000112" in wire.get(vendor.authorize_url()).text
    wire.control("/switches", {"application_disabled": 700016})
    assert vendor.refresh(refresh).json()["error_codes"] == [700016]
    wire.control(address, {"enabled": True})
    assert vendor.refresh(refresh).status == 200
    assert wire.control("/applications/none", {"enabled": False}).status == 404


def test_an_application_can_be_disabled_by_microsoft(wire: Wire, vendor: Vendor) -> None:
    refresh, address = vendor.refresh_token(), f"/applications/{vendor.application.app_id}"

    answer = wire.control(address, {"disabled_by_microsoft": True}).json()
    assert answer == {"enabled": True, "disabled_by_microsoft": True}
    assert vendor.refresh(refresh).json()["error_codes"] == [7000112]
    wire.control(address, {"enabled": True})
    assert vendor.refresh(refresh).json()["error_codes"] == [7000112], "what the body does not name stays"
    wire.control(address, {"disabled_by_microsoft": False})
    assert vendor.refresh(refresh).status == 200
    assert wire.control(address, {"colour": "red"}).status == 400


# --- what can be added ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", ["global", "china", "usgov"])
def test_partners_customers_and_applications_can_be_added_in_each_cloud(
    wire: Wire, sandbox: Sandbox, cloud: str
) -> None:
    partner = wire.control("/partners", {"key": "eastlake", "name": "Eastlake", "cloud": cloud, "customers": 2})
    customer = {"partner": partner.json()["tenant_id"], "key": "eastlake-late", "name": "Late Customer"}
    added = wire.control("/customers", customer)
    application = wire.control("/applications", {"key": "billing", "name": "Example Billing", "cloud": cloud})

    assert [reply.status for reply in (partner, added, application)] == [201, 201, 201]
    world, tenant_id = sandbox.world, partner.json()["tenant_id"]
    assert len(world.customers[tenant_id]) == 3
    service = next(one for one in world.tenants[tenant_id].users.values() if one.upn == "service@eastlake.example.com")
    assert world.gdap_roles(tenant_id, service, added.json()["tenant_id"])
    told = wire.control("/state").json()["applications"][application.json()["app_id"]]
    assert told == {"name": "Example Billing", "home_tenant": scenarios.vendor_tenant(cloud), "cloud": cloud}
    assert sandbox.world.application(application.json()["app_id"], cloud)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/partners", {"key": "northwind", "name": "Northwind once more"}),
        ("/partners", {"key": "eastlake"}),
        ("/partners", {"key": "eastlake", "name": "Eastlake", "cloud": "germany"}),
        ("/partners", {"key": "eastlake", "name": "Eastlake", "colour": "red"}),
        ("/customers", {"partner": "none", "key": "late", "name": "Late"}),
        ("/customers", {"partner": scenarios.vendor_tenant(), "key": "late", "name": "Late"}),
        ("/applications", {"key": "global", "name": "There already"}),
        ("/applications", {"key": "billing", "name": "Billing", "known_clients": ["none"]}),
        ("/policies", {"cloud": "global", "colour": "red"}),
    ],
)
def test_what_cannot_be_added_changes_nothing(wire: Wire, path: str, body: dict[str, object]) -> None:
    before = wire.control("/state").json()

    assert wire.control(path, body).status == 400

    assert wire.control("/state").json() == before


def code(reply: Reply) -> str:
    assert reply.status == 400
    return str(reply.json()["error"]["code"])


def test_a_management_policy_forbids_what_is_added_and_spares_what_is_there(wire: Wire, vendor: Vendor) -> None:
    refresh, address = vendor.refresh_token(), f"/applications/{vendor.application.app_id}/credentials"
    long, short = (
        base64.b64encode(x509.load_pem_x509_certificate(pem(with_key=False, days=days).encode()).public_bytes(DER))
        for days in (400, 60)
    )
    wire.control("/policies", {"forbids_secrets": True, "certificate_days": 90, "forbids_multi_tenant": True})

    assert code(wire.control(address, {"secret": "new"})) == "CredentialTypeNotAllowedAsPerAppPolicy"
    refused = wire.control(address, {"certificate": long.decode()})
    assert code(refused) == "CredentialInvalidLifetimeAsPerAppPolicy"
    other = {"key": "billing", "name": "Billing"}
    assert code(wire.control("/applications", other)) == "SignInAudienceNotAllowedAsPerAppPolicy"
    assert vendor.application.certificates == []

    assert wire.control(address, {"certificate": short.decode()}).status == 200
    assert wire.control("/applications", other | {"multi_tenant": False}).status == 201
    assert vendor.refresh(refresh).status == 200, "the secret of before works on"
    wire.control("/policies", {})
    assert wire.control(address, {"secret": "new"}).status == 200


def test_an_application_gets_its_credentials_and_redirect_uri_from_outside(wire: Wire, sandbox: Sandbox) -> None:
    application = sandbox.world.applications[scenarios.application_id()]
    body = {
        "certificate": base64.b64encode(b"der").decode(),
        "secret": "made-by-the-test",
        "redirect_uri": "https://x.localhost/",
    }

    assert wire.control(f"/applications/{application.app_id}/credentials", body).status == 200

    assert application.certificates == [b"der"]
    assert application.secrets["made-by-the-test"] > sandbox.world.now()
    assert "https://x.localhost/" in application.redirect_uris
    assert wire.control("/applications/none/credentials", body).status == 404


def test_a_machine_can_sign_a_person_in_by_one_call(wire: Wire, vendor: Vendor) -> None:
    body = {"url": vendor.authorize_url(), "user": SERVICE_ACCOUNT}

    answer = wire.control("/authorize", body).json()

    assert answer["method"] == "POST"
    assert vendor.redeem(answer["fields"]["code"]).status == 200
    declined = wire.control("/authorize", body | {"accept": False}).json()
    assert declined["fields"]["error"] == "access_denied"
    assert wire.control("/authorize", body | {"user": "nobody@example.com"}).json() == {"shown": 50034}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/clock", {}),
        ("/clock", {"seconds": "soon"}),
        ("/faults", {"status": 500}),
        ("/refusals", {"code": 1, "colour": "red"}),
        ("/reset", {"scenario": "unheard of"}),
        ("/switches", ["a list"]),
    ],
)
def test_what_cannot_be_understood_is_refused(wire: Wire, path: str, body: object) -> None:
    assert wire.control(path, body).status == 400
