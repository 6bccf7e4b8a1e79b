from __future__ import annotations

import base64
import re

import pytest

from tests.sandbox import scenarios
from tests.sandbox.server import Sandbox
from tests.sandbox.tests.wire import SERVICE_ACCOUNT, Vendor, Wire
from tests.sandbox.world import GLOBAL_ADMINISTRATOR


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
