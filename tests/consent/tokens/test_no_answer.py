"""What operators read when no answer comes, or none that can be read: host, service, operation and field.

Covers: portal.incidents.certificates, portal.microsoft.certificates.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pytest_django.fixtures import Settings

from consent import clients
from consent.models import ConsentFlow, PartnerConsent
from portal.incidents.models import Incident
from portal.microsoft.certificates import certificates
from portal.runs.models import Run
from tests.sandbox.world import Fault
from tests.support.commands import run
from tests.support.portal import Browser, Portal
from tests.support.tls_server import Authority


@pytest.fixture
def connected(portal: Portal) -> Portal:
    portal.connect()
    certificates.take()
    return portal


@pytest.fixture
def other_authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "another")


def trust(settings: Settings, file: Path) -> None:
    settings.OUTGOING_CA_FILE = str(file)
    clients.reset()


def host_of(portal: Portal) -> str:
    return urlsplit(portal.sandbox.clouds["global"].authority).netloc


def test_a_certificate_of_an_unknown_issuer_is_named_with_its_host_and_is_an_incident_until_it_is_well(
    connected: Portal, settings: Settings, other_authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    before = PartnerConsent.objects.values().get()
    trust(settings, other_authority.file)
    caplog.set_level("INFO")

    ran = run("check_tokens")

    sentence = f"The certificate of {host_of(connected)} has an issuer that this server does not trust."
    assert ran.code == 3
    assert sentence in ran.err
    assert sentence in Run.objects.get().reason
    assert f"host {host_of(connected)}" in caplog.text
    after = PartnerConsent.objects.values().get()
    assert (after["state"], after["mfa"]) == (before["state"], before["mfa"])
    incident = Incident.objects.get(cause="certificate_refused")
    assert incident.about == f"host:{host_of(connected)}"
    assert incident.owner == "us"
    assert sentence in incident.words

    run("check_tokens")
    incident.refresh_from_db()
    assert (incident.times, incident.settled_at) == (2, None)

    trust(settings, connected.sandbox.ca_file)
    Run.objects.update(state=Run.State.CANCELLED)
    assert run("check_tokens").code == 0
    incident.refresh_from_db()
    assert incident.settled_at is not None
    assert not Incident.objects.open().filter(cause="certificate_refused").exists()


def test_a_sign_in_that_meets_a_bad_certificate_opens_the_incident_too(
    portal: Portal, settings: Settings, other_authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    certificates.take()
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    trust(settings, other_authority.file)

    page = who.get(portal.come_back(who, answer)["Location"])

    assert page.status_code == 503
    assert ConsentFlow.objects.get().code == "certificate_of_unknown_issuer"
    assert host_of(portal) in caplog.text
    assert host_of(portal) not in page.content.decode()
    assert Incident.objects.get().about == f"host:{host_of(portal)}"


def test_a_command_for_one_partner_names_host_service_and_operation(
    connected: Portal, settings: Settings, other_authority: Authority
) -> None:
    trust(settings, other_authority.file)

    ran = run("get_access_token", connected.partner.tenant_id, "graph")

    assert ran.code == 1
    assert f"The certificate of {host_of(connected)} has an issuer" in ran.err
    assert "entra: redeem refresh token" in ran.err
    assert "Who must act: you." in ran.err
    assert "at fault" not in ran.err
    assert Incident.objects.filter(cause="certificate_refused").exists()


def customers_of(field: str, value: object) -> Callable[[Portal], Fault]:
    def fault(portal: Portal) -> Fault:
        body = {"totalCount": 1, "items": [], "links": {}} | {field: value}
        return Fault(service="partnercenter", path="v1/customers", status=200, body=json.dumps(body), times=9)

    return fault


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (customers_of("items", "text"), "Partner Center, list customers: a list of JSON objects was expected."),
        (
            customers_of("links", {"next": {"uri": "https://evil.example/v1/customers", "headers": []}}),
            "Partner Center, list customers: the next page is elsewhere.",
        ),
        (
            lambda portal: Fault(service="partnercenter", path="v1/customers", status=200, body="<html>", times=9),
            "Partner Center, list customers: the answer is not the documented JSON.",
        ),
        (
            lambda portal: Fault(service="login", path="token", status=200, body="{}", times=9),
            "The sign-in service, redeem refresh token: the token endpoint's answer lacks a field or has a wrong one.",
        ),
    ],
    ids=["items", "next page", "no JSON", "token"],
)
def test_what_a_client_saw_reaches_command_output_run_and_incident(
    connected: Portal, fault: Callable[[Portal], Fault], sentence: str
) -> None:
    connected.sandbox.world.faults.append(fault(connected))

    ran = run("sync_customers", "--partner", connected.partner.tenant_id)

    assert ran.code == 3
    assert sentence in ran.err
    assert sentence in Run.objects.get().reason
    assert sentence in Incident.objects.get(cause="run_stopped").words
    assert "evil.example" not in ran.err + ran.out


def test_an_answer_without_a_known_code_names_the_service(connected: Portal) -> None:
    connected.sandbox.world.faults.append(Fault(service="partnercenter", status=500, body="", times=9))

    ran = run("sync_customers", "--partner", connected.partner.tenant_id)

    assert "Partner Center has a fault." in ran.err
