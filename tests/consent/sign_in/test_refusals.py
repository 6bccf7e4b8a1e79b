"""Every way in which an attempt must end without a stored token: a clear page, zero vault writes, one audit line.

Covers: consent.sign_in.flow.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3
from django.conf import settings
from django.db import connection
from django.http import HttpResponse
from django.utils import timezone

from consent import views
from consent.models import ConsentFlow, ConsentLink, PartnerConsent
from consent.sign_in import flow
from consent.states import state_of
from portal.audit.models import AuditEvent
from portal.incidents.models import Incident
from tenants.models import PartnerTenant
from tests.sandbox.entra import Answer, Shown
from tests.sandbox.world import Fault, Tamper
from tests.support import builders, custody
from tests.support.portal import SERVICE_ACCOUNT, Browser, Portal
from tests.support.refusals import assert_refused, stored_tokens, token_calls


@pytest.mark.req("S-16")
@pytest.mark.req("S-14")
def test_a_token_of_another_tenant_is_refused_and_leaves_only_an_audit_line(portal: Portal) -> None:
    other = builders.guid()
    issuer = f"{portal.sandbox.clouds['global'].authority}/{other}/v2.0"
    portal.sandbox.world.tampers.append(Tamper(claims={"tid": other, "iss": issuer}))

    page = portal.onboard()

    assert page.status_code == 403
    assert_refused(portal, "wrong_tenant")
    event = AuditEvent.objects.get(action="flow.refused")
    assert event.details["expected_tenant"] == portal.partner.tenant_id
    assert event.details["actual_tenant"] == other
    assert other not in page.content.decode()
    assert token_calls(portal) == 1
    incident = Incident.objects.get()
    assert (incident.cause, incident.subject["partner"]) == ("wrong_tenant", portal.partner.pk)
    assert other not in incident.words


@pytest.mark.req("S-16")
@pytest.mark.req("S-18")
def test_a_profile_of_another_tenant_refuses_the_flow_and_stores_nothing(portal: Portal) -> None:
    tenants = portal.sandbox.world.tenants.values()
    other = next(one.tenant_id for one in tenants if one.domain == "southridge.example.com")
    body = json.dumps({"tenantId": other, "companyName": "Southridge IT", "domain": "southridge.example.com"})
    portal.sandbox.world.faults.append(
        Fault(
            service="partnercenter",
            path="profiles/organization",
            status=200,
            body=body,
            headers={"isMfaCompliant": "true"},
        )
    )

    page = portal.onboard()

    assert page.status_code == 403
    assert_refused(portal, "wrong_tenant")
    details = AuditEvent.objects.get(action="flow.refused").details
    assert (details["expected_tenant"], details["actual_tenant"]) == (portal.partner.tenant_id, other)
    assert other not in page.content.decode()
    assert Incident.objects.get().cause == "wrong_tenant"


@pytest.mark.req("S-15")
@pytest.mark.req("S-16")
def test_a_refresh_token_of_another_account_of_the_tenant_than_the_one_that_signed_in_is_not_kept(
    portal: Portal,
) -> None:
    portal.sandbox.world.tampers.append(
        Tamper(grant_type="refresh_token", claims={"oid": "00ff2504-aaaa-41d3-9a0c-0305e82c3302"})
    )

    page = portal.onboard()

    assert page.status_code == 403
    assert_refused(portal, "wrong_tenant")
    assert AuditEvent.objects.get(action="flow.refused").details["code"] == "another_account"
    assert Incident.objects.get().cause == "wrong_tenant"
    assert not [name for name in portal.sandbox.world.counters if name.startswith("partner_center")]


def test_microsoft_itself_refuses_an_account_of_another_tenant_at_a_tenants_own_authority(portal: Portal) -> None:
    who = Browser()
    with pytest.raises(Shown) as shown:
        portal.at_microsoft(portal.press_continue(who, portal.link()), "service@southridge.example.com")
    assert shown.value.code == 50020
    assert token_calls(portal) == 0


@pytest.mark.req("S-12")
@pytest.mark.parametrize(
    "tamper",
    [
        Tamper(claims={"nonce": "another"}),
        Tamper(claims={"nonce": None}),
        Tamper(claims={"nonce": ""}),
        Tamper(id_token="missing"),
    ],
    ids=["wrong nonce", "no nonce", "empty nonce", "no ID token"],
)
def test_an_answer_that_does_not_fit_the_flow_is_dropped_whole(portal: Portal, tamper: Tamper) -> None:
    portal.sandbox.world.tampers.append(tamper)

    page = portal.onboard()

    assert page.status_code >= 400
    problem = "answer_refused" if tamper.id_token == "missing" else "start_again"
    assert_refused(portal, problem)
    assert token_calls(portal) == 1
    assert not [name for name in portal.sandbox.world.counters if name.startswith("partner_center")]


@pytest.mark.req("S-09")
@pytest.mark.req("R-18")
def test_a_replayed_callback_leads_to_the_same_result_without_a_second_redemption(portal: Portal) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    first = portal.come_back(who, answer)
    calls = token_calls(portal)

    again = portal.come_back(who, answer)

    assert (again.status_code, again["Location"]) == (303, first["Location"])
    assert token_calls(portal) == calls
    assert portal.consent().generation == 1


@pytest.mark.req("S-07")
@pytest.mark.parametrize("own_flow", [False, True], ids=["no cookie", "a cookie of its own"])
def test_another_browser_cannot_finish_a_flow_and_does_not_burn_it(portal: Portal, own_flow: bool) -> None:
    victim, attacker = Browser(), Browser()
    if own_flow:
        portal.press_continue(attacker, portal.link())
    answer = portal.at_microsoft(portal.press_continue(victim, portal.link()))

    page = portal.come_back(attacker, answer)

    assert page.status_code == 400
    assert token_calls(portal) == 0
    assert ConsentFlow.objects.filter(claimed_at__isnull=False).count() == 0
    assert portal.come_back(victim, answer).status_code == 303
    assert portal.consent().state == "connected"


def test_a_declined_consent_ends_on_its_own_page_without_a_token_call(portal: Portal) -> None:
    page = portal.onboard(accept=False)

    assert "declined" in page.content.decode().lower() or page.status_code < 500
    assert_refused(portal, "declined")
    assert token_calls(portal) == 0


def _expire(link: ConsentLink) -> None:
    ConsentLink.objects.filter(pk=link.pk).update(
        created_at=timezone.now() - timedelta(days=20), expires_at=timezone.now() - timedelta(days=1)
    )


@pytest.mark.req("S-03")
@pytest.mark.parametrize("death", ["expired", "revoked", "closed", "disabled", "unknown"])
def test_dead_links_look_alike(portal: Portal, death: str) -> None:
    path = portal.link()
    link = ConsentLink.objects.get()
    if death == "expired":
        _expire(link)
    elif death == "unknown":
        path = "/consent/" + "A" * 43 + "/"
    elif death == "disabled":
        PartnerTenant.objects.update(switch="disabled")
    else:
        ConsentLink.objects.update(**{f"{death}_at": timezone.now()})

    page = Browser().get(path)

    assert page.status_code == 404
    assert portal.partner.name not in page.content.decode()
    assert page.content == Browser().get("/consent/" + "B" * 43 + "/").content


@pytest.mark.req("S-10")
@pytest.mark.parametrize("event", ["link revoked", "link expired", "partner disabled", "flow expired"])
def test_what_ends_while_the_person_is_at_microsoft_is_not_redeemed(portal: Portal, event: str) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    if event == "link revoked":
        ConsentLink.objects.update(revoked_at=timezone.now())
    elif event == "link expired":
        _expire(ConsentLink.objects.get())
    elif event == "partner disabled":
        PartnerTenant.objects.update(switch="disabled")
    else:
        ConsentFlow.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    page = portal.come_back(who, answer)

    assert page.status_code == 400
    assert token_calls(portal) == 0
    assert stored_tokens(portal) == 0


@pytest.mark.req("S-08")
def test_a_code_of_another_partner_gains_nothing_for_either(portal: Portal) -> None:
    who = Browser()
    tenant = next(one for one in portal.sandbox.world.tenants.values() if one.domain == "southridge.example.com")
    other = builders.partner(name="Southridge IT", tenant_id=tenant.tenant_id)
    mine = portal.at_microsoft(portal.press_continue(who, portal.link()))
    theirs = portal.at_microsoft(portal.press_continue(who, portal.link(other)), "service@southridge.example.com")

    swapped = Answer(mine.url, "POST", {**mine.fields, "code": theirs.fields["code"]})
    portal.come_back(who, swapped, tenant=other.tenant_id, redirect_uri="https://evil.example")

    assert stored_tokens(portal) == 0
    assert not PartnerConsent.objects.exists()


@pytest.mark.req("S-18")
def test_a_sign_in_without_mfa_is_connected_but_never_called_healthy(portal: Portal) -> None:
    page = portal.onboard(mfa=False)

    assert page.status_code == 200
    consent = portal.consent()
    assert (consent.state, consent.mfa) == ("mfa_missing", "missing")
    assert state_of(portal.partner) == "attention"


@pytest.mark.req("S-18")
def test_a_partner_center_that_enforces_mfa_leaves_nothing_stored(portal: Portal) -> None:
    portal.sandbox.world.switches["mfa_enforced"] = True

    portal.onboard(mfa=False)

    assert_refused(portal, "mfa_missing")


@pytest.mark.req("S-17")
def test_a_working_token_is_not_replaced_by_one_that_proves_less(portal: Portal) -> None:
    portal.onboard()
    before = portal.consent()

    portal.onboard(mfa=False)

    after = portal.consent()
    assert (after.state, after.generation, after.secret_version) == ("connected", 1, before.secret_version)


EXPIRED = {"error": "invalid_grant", "error_description": "AADSTS700082: expired", "error_codes": [700082]}


@pytest.mark.req("S-17")
@pytest.mark.parametrize(
    "fault",
    [
        Fault(service="login", path="/token$", skip=1, status=400, body=json.dumps(EXPIRED)),
        Fault(service="login", path="/token$", skip=1, close="before"),
        Fault(service="partnercenter", path="profiles/organization", status=403, times=9),
        Fault(service="partnercenter", path="profiles/organization", status=401, times=9),
        Fault(service="partnercenter", path="profiles/organization", close="before", times=9),
    ],
    ids=["refused", "no answer", "role missing", "token refused", "Partner Center away"],
)
def test_a_working_token_is_not_replaced_by_one_that_cannot_prove_itself(portal: Portal, fault: Fault) -> None:
    portal.onboard()
    before = portal.consent()
    portal.sandbox.world.faults.append(replace(fault))

    portal.onboard()

    assert ConsentFlow.objects.latest("pk").outcome == ConsentFlow.Outcome.REFUSED
    after = portal.consent()
    assert (after.state, after.generation, after.secret_version) == ("connected", 1, before.secret_version)
    assert custody.all_versions(portal, after.secret_name) == [before.secret_version]
    portal.sandbox.world.faults.clear()
    assert custody.ask(after, fresh=True)


def test_an_account_that_is_no_admin_agent_is_refused_with_its_own_page(portal: Portal) -> None:
    user = next(
        one
        for tenant in portal.sandbox.world.tenants.values()
        for one in tenant.users.values()
        if one.upn == SERVICE_ACCOUNT
    )
    user.groups.clear()

    portal.onboard()

    assert_refused(portal, "role_missing")


@pytest.mark.req("R-07")
def test_a_vault_that_cannot_be_written_does_not_cost_the_code(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_probe", flow.WriteProbe())  # a probe that remembers no earlier success
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    directory = Path(settings.VAULT_URL)
    directory.rename(directory.with_name("away"))

    page = portal.come_back(who, answer)

    assert page.status_code == 503
    assert token_calls(portal) == 0
    directory.with_name("away").rename(directory)
    assert portal.come_back(who, answer).status_code == 303
    assert portal.consent().state == "connected"


def test_a_sign_in_service_without_an_answer_ends_in_try_again(portal: Portal) -> None:
    portal.sandbox.world.faults.append(Fault(service="login", path="token", close="before"))

    portal.onboard()

    assert_refused(portal, "try_again")


@pytest.mark.req("S-06")
@pytest.mark.req("S-11")
def test_state_verifier_nonce_and_cookie_are_in_no_table(portal: Portal) -> None:
    who = Browser()
    location = portal.press_continue(who, portal.link())
    query = parse_qs(urlsplit(location).query)
    assert query["code_challenge_method"] == ["S256"]
    assert query["response_mode"] == ["form_post"]
    secrets = [query["state"][0], query["nonce"][0], who.cookies["__Host-cpv-flow-token"].value]
    assert [len(one) for one in secrets] == [43, 43, 43]
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608  # names come from the database itself
            dump = repr(cursor.fetchall())
            assert not [one for one in secrets if one in dump], table


@pytest.mark.req("S-22")
def test_the_result_is_shown_only_to_the_browser_that_made_it(portal: Portal) -> None:
    who = Browser()
    answer = portal.at_microsoft(portal.press_continue(who, portal.link()))
    response: HttpResponse = portal.come_back(who, answer)

    assert response["Referrer-Policy"] == "no-referrer"
    assert who.get(response["Location"]).status_code == 200
    assert Browser().get(response["Location"]).status_code == 404


@pytest.mark.req("R-47")
def test_the_id_of_a_failed_sign_in_is_found_in_log_trail_and_at_microsoft(
    portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    portal.sandbox.world.faults.append(Fault(service="partnercenter", path="profiles/organization", status=403))

    portal.onboard()

    number = ConsentFlow.objects.get().correlation_id
    assert AuditEvent.objects.get(action="flow.refused").correlation_id == number
    ledger = portal.sandbox.world.ledger
    assert {line["service"] for line in ledger if line.get("correlation") == number} >= {"entra"}
    assert [one for one in caplog.messages if "consent flow refused" in one and number in one]


# --- a code is redeemed once (R-17) ------------------------------------------------------------------------------


def reset_in_the_handshake() -> socket.socket:
    """Return a connection whose other end goes away before the first message of the TLS handshake is answered."""
    listener = socket.create_server(("127.0.0.1", 0))
    connection = socket.create_connection(listener.getsockname())
    other_end, _ = listener.accept()
    other_end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    other_end.close()
    listener.close()
    return connection


def refused() -> socket.socket:
    raise ConnectionRefusedError


@pytest.mark.req("R-17")
@pytest.mark.parametrize("failure", [refused, reset_in_the_handshake], ids=lambda failure: failure.__name__)
@pytest.mark.parametrize("times", [1, 2])
def test_a_code_is_sent_again_once_when_the_connection_failed_before_it_left(
    portal: Portal, monkeypatch: pytest.MonkeyPatch, failure: Callable[[], socket.socket], times: int
) -> None:
    browser = Browser()
    answer = portal.at_microsoft(portal.press_continue(browser, portal.link()))
    connect = urllib3.util.connection.create_connection
    failed: list[Any] = []

    def create_connection(*args: Any, **kwargs: Any) -> socket.socket:
        if len(failed) < times:
            failed.append(args)
            return failure()
        return connect(*args, **kwargs)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", create_connection)
    page = browser.get(portal.come_back(browser, answer)["Location"])

    assert len(failed) == times
    if times == 1:
        assert portal.consent().state == "connected"
        assert token_calls(portal) == 3, "the code, and the two proofs by the refresh token"
    else:
        assert page.status_code == 503
        assert_refused(portal, "try_again")
        assert token_calls(portal) == 0


@pytest.mark.req("R-17")
@pytest.mark.parametrize("close", ["before", "after"])
def test_a_code_whose_answer_got_lost_is_not_sent_again_and_starting_again_works(portal: Portal, close: str) -> None:
    portal.sandbox.world.faults.append(Fault(service="login", path=".*/token", close=close, times=5))
    page = portal.onboard()

    assert page.status_code == 503
    assert "again" in page.content.decode()
    assert_refused(portal, "try_again")
    (left,) = [fault.times for fault in portal.sandbox.world.faults]
    assert left == 4, "one request and no more"
    portal.sandbox.world.faults.clear()
    portal.onboard()
    assert portal.consent().state == "connected"
